"""Judge: findings and coverage under a policy -> a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from skewguard.findings import DOUBTS, Finding, Impact, Kind, Shift
from skewguard.policy import Policy, Waiver
from skewguard.statistics import e_bh
from skewguard.verdict.coverage import Coverage, scope_of, thin
from skewguard.verdict.ruling import Ruling, Subject, Verdict


def judge(
    findings: Sequence[Finding],
    coverage: Coverage,
    subject: Subject,
    policy: Policy,
    *,
    now: datetime,
    unexamined: Sequence[str] = (),
    quiet: Sequence[Shift] | None = (),
    notes: Sequence[str] = (),
    impact: Impact | None = None,
) -> Verdict:
    """Rule on `findings`. `unexamined` are sentences on what could not be examined; any makes a PASS an UNKNOWN.

    FAIL where a finding that is not waived exceeds its kind's limit (and, where its feature declares a benign rate,
    stands against chance), or a waiver has expired, or is unused although its kind was looked for; else UNKNOWN where
    the evidence is too thin, not all that the policy requires, or of a kind that it does not accept; else PASS. What
    makes log and snapshot incomparable is a doubt. `quiet` (None where nobody could look) and `notes` are carried along
    and decide nothing; nor does a model that does worse, unless the policy requires or limits `performance`: it becomes
    a note.
    """
    coverage = replace(coverage, scope=scope_of(coverage, policy))
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
    doubts += thin(coverage, coverage.scope, policy)
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
        reasons = [
            f"{coverage.rows:,} rows replayed, {coverage.lagged:,} of them lagged within max_lag, {differ}"
            + (f"; {coverage.others:,} rows of other models bear on the features they share" if coverage.others else "")
        ]
    for finding in waived:
        waiver = next(w for w in policy.waivers if _covers(w, finding))
        reasons.append(f"waived until {waiver.expires}, because {waiver.reason}: {finding.message}")
    issued = now.astimezone(UTC)
    expires = datetime.fromtimestamp(issued.timestamp() + policy.valid_for_us / 1e6, UTC)
    return Verdict(
        ruling, tuple(reasons), subject, coverage, tuple(counted), tuple(waived), policy.digest,
        issued.isoformat(timespec="seconds"), expires.isoformat(timespec="seconds"),
        tuple(quiet or ()), _advice(ruling, failures, quiet), (*notes, *_aside(ruling, worse)), impact,
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


def _advice(ruling: Ruling, failures: Sequence[str], quiet: Sequence[Shift] | None) -> str:
    """The pipeline broke, the world changed, both, or neither."""
    broke = ruling is Ruling.FAIL and bool(failures)
    if quiet is None:
        return ("The pipeline broke: mend it first. " if broke else "") + (
            "Whether the inputs moved is not known, as the snapshot holds no profile that can be read: build it again "
            "before anything is retrained."
        )
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
            "The pipeline is sound, the inputs moved: what was served is what training would have seen. The world "
            "changed, or a source is wrong on both sides, which no replay can tell: look at what moved. If it is the "
            "world, retraining on recent data is safe, where performance asks for it."
        )
    return "The pipeline is sound, and the inputs look as in training."


def _covers(waiver: Waiver, finding: Finding) -> bool:
    return waiver.kind is finding.kind and waiver.feature == finding.feature


def _over(waiver: Waiver, now: datetime) -> bool:
    return now.astimezone(UTC).date() > waiver.expires


def _waiver_of(finding: Finding, waivers: Sequence[Waiver], now: datetime) -> Waiver | None:
    return next((w for w in waivers if _covers(w, finding) and not _over(w, now)), None)
