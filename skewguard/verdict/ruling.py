"""Ruling, Subject and Verdict: the data, and its JSON."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skewguard.errors import EvidenceError
from skewguard.findings import Cause, Example, Finding, Impact, Kind, Shift, Tap
from skewguard.verdict.coverage import Coverage, coverage_from_json


class Ruling(enum.StrEnum):
    """The three-valued truth; only PASS registers."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Subject:
    """What the verdict is about: a logged model and everything that its evidence is bound to (digests in hex)."""

    registered_name: str = ""
    model_id: str = ""
    model_digest: str = ""
    snapshot_id: str = ""
    bundle_digest: str = ""
    service: str = ""
    evidence: str = "shadow"
    builds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A ruling with its reasons. Instants are ISO texts in UTC.

    `quiet`: distributions that moved against the snapshot, `advice` on them, and `notes` on the model's performance.
    None of them is a reason for the ruling. `impact`: what all that was served wrongly did to the predictions, None
    where it was not measured.
    """

    ruling: Ruling
    reasons: tuple[str, ...]
    subject: Subject
    coverage: Coverage
    findings: tuple[Finding, ...]
    waived: tuple[Finding, ...]
    policy_digest: str
    issued_at: str
    expires_at: str
    quiet: tuple[Shift, ...] = ()
    advice: str = ""
    notes: tuple[str, ...] = ()
    impact: Impact | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` reads it back."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """The verdict that `to_json` wrote."""
        return cls(
            ruling=Ruling(data["ruling"]),
            reasons=tuple(data["reasons"]),
            subject=Subject(**(data["subject"] | {"builds": tuple(data["subject"]["builds"])})),
            coverage=coverage_from_json(data["coverage"]),
            findings=tuple(finding_from_json(f) for f in data["findings"]),
            waived=tuple(finding_from_json(f) for f in data["waived"]),
            policy_digest=data["policy_digest"],
            issued_at=data["issued_at"],
            expires_at=data["expires_at"],
            quiet=tuple(Shift(**one) for one in data.get("quiet", ())),
            advice=data.get("advice", ""),
            notes=tuple(data.get("notes", ())),
            impact=Impact(**data["impact"]) if data.get("impact") else None,
        )

    @property
    def digest(self) -> str:
        """sha256 (hex) of the canonical JSON."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def finding_from_json(data: Mapping[str, Any]) -> Finding:
    """The finding that `asdict` and JSON wrote."""
    return Finding(
        **(dict(data) | {"kind": Kind(data["kind"]), "tap": Tap(data["tap"]), "slices": tuple(data["slices"])})
        | {
            "examples": tuple(Example(**e) for e in data["examples"]),
            "by_hour": tuple((h[0], h[1], h[2]) for h in data["by_hour"]),
            "points": tuple((p[0], p[1]) for p in data.get("points", ())),
            "causes": tuple(_cause(c) for c in data.get("causes", ())),
            "alternatives": tuple(_cause(c) for c in data.get("alternatives", ())),
            "impact": Impact(**data["impact"]) if data.get("impact") else None,
        }
    )


def _cause(data: Mapping[str, Any]) -> Cause:
    return Cause(**(dict(data) | {"slices": tuple(data["slices"])}))


def load_findings(path: str | Path) -> list[Finding]:
    """Findings from a JSON file, a list of what `asdict` gives; raises `EvidenceError` for anything else."""
    try:
        data = json.loads(Path(path).read_text())
        findings = [finding_from_json(finding) for finding in data] if isinstance(data, list) else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvidenceError(f"{path}: expected a JSON list of findings, got {error!r}") from error
    if findings is None:
        raise EvidenceError(f"{path}: expected a JSON list of findings, got a {type(data).__name__}")
    return findings
