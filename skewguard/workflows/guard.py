"""Guard: replay -> compare -> causes -> verdict, for one snapshot and the log of one candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from skewguard.causes import explain
from skewguard.compare import Comparison, compare
from skewguard.errors import SkewguardError
from skewguard.findings import Finding, Kind
from skewguard.model import Model
from skewguard.offline import OfflineStore, Rule
from skewguard.oracle import brute_force
from skewguard.policy import Policy
from skewguard.replay import Pairs, replay
from skewguard.servinglog import LogReading, read_log
from skewguard.snapshot import Snapshot
from skewguard.values import instant, same
from skewguard.verdict import Coverage, Subject, Verdict, judge

BLIND = (
    "request fields are taken as logged: a caller that sends wrong ones is not seen",
    "a source that is wrong on both sides agrees with itself: see the expectations",
    "requests that never reached the log are not counted here",
    "whether the labels are right, and whether the world has changed since training",
)


@dataclass(frozen=True, slots=True)
class Guarded:
    """A verdict and what it rests on; `pairs` and `comparison` are None where nothing could be examined."""

    verdict: Verdict
    pairs: Pairs | None
    comparison: Comparison | None


def guard(
    log: str | Path,
    snapshot: Snapshot,
    policy: Policy,
    *,
    registered_name: str = "",
    model_id: str = "",
    model_digest: str | None = None,
    model: Model | None = None,
    extra: Sequence[Finding] = (),
    cross_check: int = 0,
    now: datetime | None = None,
) -> Guarded:
    """Judge what was served from `snapshot`'s definitions. What cannot be examined is UNKNOWN, never an exception.

    `model_digest` keeps the rows that this model (logged as `model_id`) answered; with the `model` itself, its
    predictions are computed again. `extra` findings (expectations) are judged with the rest. `cross_check` rows are
    recomputed by the independent oracle.
    """
    now = now or datetime.now(UTC)
    subject = Subject(
        registered_name=registered_name,
        model_id=model_id,
        snapshot_id=snapshot.id,
        bundle_digest=snapshot.bundle.digest,
        service=snapshot.bundle.service,
        model_digest=model_digest or "",
        evidence="none",
    )
    findings = list(extra)
    try:
        reading = read_log(log, snapshot.bundle.service)
        with OfflineStore(snapshot.bundle.views, Rule(snapshot.manifest.rule)) as offline:
            pairs = replay(reading, snapshot, offline, model_digest=model_digest)
        comparison = compare(pairs, model)
        checked, disagreements = _cross_check(pairs, comparison, snapshot, cross_check)
    except SkewguardError as error:
        verdict = judge(findings, Coverage(blind=BLIND), subject, policy, now=now, unexamined=[str(error)])
        return Guarded(verdict, None, None)
    findings += [explain(observed, pairs) for observed in comparison.observed]
    findings += disagreements
    verdict = judge(
        findings,
        _coverage(pairs, comparison, checked),
        _subject(subject, pairs),
        policy,
        now=now,
        unexamined=_torn(reading),
    )
    return Guarded(verdict, pairs, comparison)


def _torn(reading: LogReading) -> list[str]:
    return [
        f"{segment.path.name} is damaged ({segment.torn_bytes:,} bytes are no whole frame): logged rows may be lost"
        for segment in reading.damaged
    ]


def _coverage(pairs: Pairs, comparison: Comparison, checked: int) -> Coverage:
    as_of = pairs.served.spine.as_of
    return Coverage(
        rows=len(pairs),
        equal=int(comparison.equal.sum()),
        lagged=int(comparison.lagged.sum()),
        mismatched=int(comparison.mismatched.sum()),
        unverifiable=int(comparison.unverifiable.sum()),
        values=comparison.values,
        since=instant(int(as_of.min())),
        until=instant(int(as_of.max())),
        cross_checked=checked,
        blind=BLIND,
    )


def _subject(subject: Subject, pairs: Pairs) -> Subject:
    def the(field: str) -> str:
        values = sorted(set(pairs.labels[field]))
        return str(values[0]) if len(values) == 1 else ", ".join(map(str, values))

    return Subject(
        subject.registered_name,
        the("model_id"),
        the("model_digest"),
        subject.snapshot_id,
        subject.bundle_digest,
        subject.service,
        the("evidence"),
        tuple(sorted(set(pairs.labels["build"]))),
    )


def _cross_check(pairs: Pairs, comparison: Comparison, snapshot: Snapshot, rows: int) -> tuple[int, list[Finding]]:
    """Recompute a seeded sample, differing rows first, by brute force; any disagreement with the join is a finding."""
    if not rows:
        return 0, []
    n = len(pairs)
    order = np.random.default_rng(0).permutation(n)
    order = order[np.argsort(~comparison.mismatched[order], kind="stable")]
    half = min(rows // 2, int(comparison.mismatched.sum()))
    sample = np.sort(np.concatenate([order[:half], order[::-1][: rows - half]]))
    sample = np.unique(sample)
    spine = pairs.served.spine.take(sample)
    findings = []
    for view in snapshot.bundle.views:
        oracle = brute_force(view, spine, known=snapshot.manifest.rule is Rule.KNOWN)
        join = pairs.truth.views[view.name].take(sample)
        differs = (oracle.event != join.event) | (oracle.created != join.created) | (oracle.status != join.status)
        for feature in view.features:
            differs |= ~same(oracle.features[feature.name], join.features[feature.name])
        if differs.any():
            message = f"{view.name}: the join and the oracle disagree on {int(differs.sum())} of {len(sample)} rows"
            findings.append(Finding(Kind.ORACLE, view.name, int(differs.sum()), len(sample), message))
    return len(sample), findings
