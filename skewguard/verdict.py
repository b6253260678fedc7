"""Verdict: what the findings come to under a policy. PASS, FAIL or UNKNOWN; no evidence is UNKNOWN, never PASS."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from skewguard.errors import EvidenceError
from skewguard.findings import Example, Finding, Kind, Tap
from skewguard.policy import Policy, Waiver


class Ruling(enum.StrEnum):
    """The three-valued truth; only PASS registers."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was looked at. `rows` requests replayed: `equal` + `lagged` + `mismatched` + `unverifiable`.

    `values` compared values; `since`, `until` ISO texts of the first and last ask; `cross_checked` rows that the
    independent oracle recomputed; `blind` sentences on what this check cannot see.
    """

    rows: int = 0
    equal: int = 0
    lagged: int = 0
    mismatched: int = 0
    unverifiable: int = 0
    values: int = 0
    since: str = ""
    until: str = ""
    cross_checked: int = 0
    blind: tuple[str, ...] = ()


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
    """A ruling with its reasons. Instants are ISO texts in UTC."""

    ruling: Ruling
    reasons: tuple[str, ...]
    subject: Subject
    coverage: Coverage
    findings: tuple[Finding, ...]
    waived: tuple[Finding, ...]
    policy_digest: str
    issued_at: str
    expires_at: str

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
            coverage=Coverage(**(data["coverage"] | {"blind": tuple(data["coverage"]["blind"])})),
            findings=tuple(finding_from_json(f) for f in data["findings"]),
            waived=tuple(finding_from_json(f) for f in data["waived"]),
            policy_digest=data["policy_digest"],
            issued_at=data["issued_at"],
            expires_at=data["expires_at"],
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
        }
    )


def load_findings(path: str | Path) -> list[Finding]:
    """Findings from a JSON file, a list of what `asdict` gives; raises `EvidenceError` for anything else."""
    try:
        return [finding_from_json(finding) for finding in json.loads(Path(path).read_text())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvidenceError(f"{path}: expected a JSON list of findings, got {error!r}") from error


def judge(
    findings: Sequence[Finding],
    coverage: Coverage,
    subject: Subject,
    policy: Policy,
    *,
    now: datetime,
    unexamined: Sequence[str] = (),
) -> Verdict:
    """Rule on `findings`. `unexamined` are sentences on what could not be examined; any makes a PASS an UNKNOWN.

    FAIL where a finding that is not waived exceeds its kind's limit, or a waiver has expired, or is unused although
    everything was examined; else UNKNOWN where the evidence is too thin or of a kind that the policy does not accept;
    else PASS.
    """
    waived = [f for f in findings if _waiver_of(f, policy.waivers, now)]
    counted = [f for f in findings if f not in waived]
    failures = [f.message for f in counted if f.rate > policy.limit(f.kind) or not f.of]
    failures += [
        f"waiver for {w.kind} of {w.feature} is unused; take it out"
        for w in policy.waivers
        if not unexamined and not any(_covers(w, f) for f in findings)
    ]
    failures += [f"waiver for {w.kind} of {w.feature} expired on {w.expires}" for w in policy.waivers if _over(w, now)]
    doubts = list(unexamined)
    if coverage.rows < policy.minimum_rows:
        doubts.append(f"{coverage.rows:,} rows were replayed, the policy wants {policy.minimum_rows:,}")
    if coverage.rows and coverage.unverifiable / coverage.rows > policy.maximum_unverifiable:
        doubts.append(
            f"{coverage.unverifiable:,} of {coverage.rows:,} rows are unverifiable, "
            f"the policy allows {policy.maximum_unverifiable:.2%}"
        )
    doubts += [
        f"the evidence is of kind {kind!r}, the policy accepts {', '.join(policy.evidence)}"
        for kind in subject.evidence.split(", ")
        if kind not in policy.evidence
    ]
    if failures:
        ruling, reasons = Ruling.FAIL, failures + doubts
    elif doubts:
        ruling, reasons = Ruling.UNKNOWN, doubts
    else:
        ruling = Ruling.PASS
        differ = (
            f"{coverage.mismatched:,} differ, within the policy's limits" if coverage.mismatched else "none differs"
        )
        reasons = [f"{coverage.rows:,} rows replayed, {coverage.lagged:,} of them lagged within max_lag, {differ}"]
    for finding in waived:
        waiver = next(w for w in policy.waivers if _covers(w, finding))
        reasons.append(f"waived until {waiver.expires}, because {waiver.reason}: {finding.message}")
    issued = now.astimezone(UTC)
    expires = datetime.fromtimestamp(issued.timestamp() + policy.valid_for_us / 1e6, UTC)
    return Verdict(
        ruling, tuple(reasons), subject, coverage, tuple(counted), tuple(waived), policy.digest,
        issued.isoformat(timespec="seconds"), expires.isoformat(timespec="seconds"),
    )  # fmt: skip


def _covers(waiver: Waiver, finding: Finding) -> bool:
    return waiver.kind is finding.kind and waiver.feature == finding.feature


def _over(waiver: Waiver, now: datetime) -> bool:
    return now.astimezone(UTC).date() > waiver.expires


def _waiver_of(finding: Finding, waivers: Sequence[Waiver], now: datetime) -> Waiver | None:
    return next((w for w in waivers if _covers(w, finding) and not _over(w, now)), None)
