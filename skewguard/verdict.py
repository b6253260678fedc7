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
from skewguard.findings import DOUBTS, Cause, Example, Finding, Impact, Kind, Shift, Tap
from skewguard.policy import Policy, Waiver
from skewguard.statistics import e_bh


class Ruling(enum.StrEnum):
    """The three-valued truth; only PASS registers."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was looked at. `rows` requests replayed: `equal` + `lagged` + `mismatched` + `unverifiable`.

    `values` compared values; `since`, `until` ISO texts of the first and last ask; `cross_checked` rows that the
    independent oracle recomputed; `blind` sentences on what this check cannot see. `truth` says what the rows were held
    against; `checked` the kinds of finding that were looked for; `tested` how many features have a benign rate.
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
    truth: str = ""
    checked: tuple[Kind, ...] = ()
    tested: int = 0


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
            coverage=_coverage(data["coverage"]),
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


def _coverage(data: Mapping[str, Any]) -> Coverage:
    checked = tuple(Kind(kind) for kind in data.get("checked", ()))
    return Coverage(**(dict(data) | {"blind": tuple(data["blind"]), "checked": checked}))


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
    quiet: Sequence[Shift] = (),
    notes: Sequence[str] = (),
    impact: Impact | None = None,
) -> Verdict:
    """Rule on `findings`. `unexamined` are sentences on what could not be examined; any makes a PASS an UNKNOWN.

    FAIL where a finding that is not waived exceeds its kind's limit (and, where its feature declares a benign rate,
    stands against chance), or a waiver has expired, or is unused although its kind was looked for; else UNKNOWN where
    the evidence is too thin, not all that the policy requires, or of a kind that it does not accept; else PASS. What
    makes log and snapshot incomparable is a doubt. `quiet` and `notes` are carried along and decide
    nothing; nor does a model that does worse, unless the policy requires or limits `performance`: it becomes a note.
    """
    waived = [f for f in findings if _waiver_of(f, policy.waivers, now)]
    worse = [f for f in findings if f.kind is Kind.PERFORMANCE and not policy.asks_for(f.kind)]
    counted = [f for f in findings if f not in waived and f not in worse]
    exceeding = _exceeding(counted, coverage, policy)
    failures = [f.message for f in exceeding if f.kind not in DOUBTS]
    doubtful = [f for f in exceeding if f.kind in DOUBTS]
    failures += _turned(impact, coverage, policy)
    failures += [
        f"waiver for {w.kind} of {w.feature} is unused; take it out"
        for w in policy.waivers
        if not (unexamined or doubtful) and _looked_for(w.kind, coverage) and not any(_covers(w, f) for f in findings)
    ]
    failures += [f"waiver for {w.kind} of {w.feature} expired on {w.expires}" for w in policy.waivers if _over(w, now)]
    doubts = [*unexamined, *(f.message for f in doubtful)]
    doubts += [
        f"the policy requires findings of kind {kind}, and none were looked for"
        for kind in policy.requires
        if not _looked_for(kind, coverage)
    ]
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
        tuple(quiet), _advice(ruling, failures, quiet), (*notes, *_aside(ruling, worse)), impact,
    )  # fmt: skip


def _aside(ruling: Ruling, worse: Sequence[Finding]) -> list[str]:
    """What the model did worse at, where the policy does not judge by that: a season does as much as a fault."""
    why = {
        Ruling.PASS: "the replay is clean: the world moved, or the model is wrong, or the outcomes are",
        Ruling.FAIL: "what failed may be why: mend it first, and do not retrain on broken data",
        Ruling.UNKNOWN: "whether the pipeline is why is not known",
    }[ruling]
    return [
        f"{finding.message}. No reason for the ruling, as the policy names no performance; {why}" for finding in worse
    ]


def _exceeding(findings: Sequence[Finding], coverage: Coverage, policy: Policy) -> list[Finding]:
    """Findings beyond their kind's limit; with a declared benign rate, those that stand against chance (e-BH)."""
    tested = {f.message: f.evidence for f in findings if f.benign > 0}
    standing = e_bh(tested, policy.false_alarm_rate, coverage.tested)

    def matters(finding: Finding) -> bool:
        above = finding.benign == 0 or finding.message in standing
        if policy.flips is not None and finding.impact is not None:
            return above and finding.rate * finding.impact.flip_share >= policy.flips
        return (
            above
            and finding.rate - finding.benign > policy.minimum_effect
            and finding.rate > policy.limit(finding.kind)
        )

    return [f for f in findings if not f.of or matters(f)]


def _turned(impact: Impact | None, coverage: Coverage, policy: Policy) -> list[str]:
    """What all findings together did to the decisions, where the policy judges by that and it is too much."""
    if policy.flips is None or impact is None or not coverage.rows:
        return []
    share = coverage.mismatched * impact.flip_share / coverage.rows
    if share < policy.flips:
        return []
    return [f"{share:.2%} of all decisions are others than the truth's, the policy allows less than {policy.flips:.2%}"]


def _looked_for(kind: Kind, coverage: Coverage) -> bool:
    """Whether findings of this kind were looked for; who does not say what was looked for, looked for all."""
    return not coverage.checked or kind in coverage.checked


def _advice(ruling: Ruling, failures: Sequence[str], quiet: Sequence[Shift]) -> str:
    """The pipeline broke, the world changed, both, or neither."""
    broke = ruling is Ruling.FAIL and bool(failures)
    if broke and quiet:
        return (
            "The pipeline broke, and the inputs moved: mend the pipeline first and look again. Do not retrain on this "
            "log: a model fitted to broken values learns the fault."
        )
    if broke:
        return "The pipeline broke, the world did not change: mend it. Retraining would teach the model the fault."
    if ruling is Ruling.UNKNOWN:
        moved = "The inputs moved, but whether" if quiet else "The inputs look as in training; whether"
        return f"{moved} the pipeline is sound is not known: settle that before anything is retrained."
    if quiet:
        return (
            "The pipeline is sound, the world changed: what was served is what training would have seen. Retraining on "
            "recent data is safe, where performance asks for it."
        )
    return "The pipeline is sound, and the inputs look as in training."


def _covers(waiver: Waiver, finding: Finding) -> bool:
    return waiver.kind is finding.kind and waiver.feature == finding.feature


def _over(waiver: Waiver, now: datetime) -> bool:
    return now.astimezone(UTC).date() > waiver.expires


def _waiver_of(finding: Finding, waivers: Sequence[Waiver], now: datetime) -> Waiver | None:
    return next((w for w in waivers if _covers(w, finding) and not _over(w, now)), None)
