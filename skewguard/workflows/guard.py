"""Guard: replay -> compare -> causes -> verdict, for one snapshot and the log of one candidate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from skewguard.causes import explain_all
from skewguard.causes.impact import Floats, measure, with_impact
from skewguard.compare import Comparison
from skewguard.compare.outcomes import read_outcomes
from skewguard.errors import OtherDefinitions, SkewguardError
from skewguard.findings import Finding, Impact, Kind
from skewguard.model import Model
from skewguard.policy import Policy
from skewguard.replay import BATCH_ROWS, InPlace, Pairs, Sources, comparable
from skewguard.servinglog import LogReading, Segment, read_log
from skewguard.snapshot import Snapshot, damage_of
from skewguard.values import NO_TIME, instant
from skewguard.verdict import Coverage, Subject, Verdict, judge, lacking, scope_of
from skewguard.workflows.examine import Look, Seen, examine, source_keys
from skewguard.workflows.others import Against, Others, look_at_others, parted, with_others

_IN_PLACE = InPlace()


@dataclass(frozen=True, slots=True)
class Guarded:
    """A verdict and what it rests on; `pairs` and `comparison` are None where nothing could be examined.

    They hold every row of a log of up to `BATCH_ROWS`; of a greater one the rows that differ, and some that do not.
    """

    verdict: Verdict
    pairs: Pairs | None
    comparison: Comparison | None


def guard(  # noqa: PLR0913  (one argument per piece of evidence)
    log: str | Path,
    snapshot: Snapshot,
    policy: Policy,
    *,
    registered_name: str = "",
    model_id: str = "",
    model_digest: str | None = None,
    model: Model | None = None,
    extra: Sequence[Finding] | None = None,
    cross_check: int = 0,
    since: datetime | None = None,
    outcomes: str | Path | None = None,
    counted: int | None = None,
    secret: bytes | None = None,
    sources: Sources = _IN_PLACE,
    batch_rows: int = BATCH_ROWS,
    now: datetime | None = None,
) -> Guarded:
    """Judge what was served from `snapshot`'s definitions. What cannot be examined is UNKNOWN, never an exception.

    `model_digest` keeps the rows that this model (logged as `model_id`) answered; what other models answered is looked
    at for those features alone of which these are too few, where the definitions are the same. With the `model`
    itself, its predictions are computed again. `extra` findings (expectations) are judged with the rest; None means
    that nobody looked for any. `cross_check` rows are recomputed by the independent oracle. Only what was asked `since`
    then counts (an instant with a time zone). `outcomes` is a folder that `import_outcomes` filled; `counted` how many
    answers the service counted. `secret` is that by which the log's keys were hashed. `sources` says where the truth
    comes from. The log is read `batch_rows` at a time.
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
    start = NO_TIME if since is None else round(since.timestamp() * 1e6)
    look = Look(sources, model, cross_check, batch_rows, start, outcomes, counted)
    checked = (*look.checked, *((Kind.EXPECTATION,) if extra is not None else ()))
    told = Coverage(blind=_blind(snapshot, checked), checked=checked)
    findings = list(extra or ())
    try:
        reading = read_log(log, snapshot.bundle.service)
        reading = replace(reading, gaps=tuple(gap for gap in reading.gaps if gap.until >= start))
        if secret is not None:
            reading = reading.revealed(secret, source_keys(reading, snapshot, sources))
        own, rest = parted(reading, snapshot, model_digest)
        segments = comparable(own, snapshot, model_digest)
        seen = examine(segments, snapshot, look)
        if model_digest is not None and (damage := damage_of(snapshot)):  # the verdict will name the snapshot's id
            seen = replace(seen, doubts=(*seen.doubts, damage))
        wanted = lacking(seen.coverage(), policy) if rest else ()
        against = Against(snapshot, wanted, sources, start, batch_rows)
        others = look_at_others(reading, rest, against, policy) if wanted else Others()
    except (SkewguardError, OSError, pa.ArrowException) as error:  # a file may go while it is read
        kind = Kind.DEFINITION if isinstance(error, OtherDefinitions) else Kind.LOG
        findings.append(Finding(kind, snapshot.bundle.service, 0, 0, str(error)))
        return Guarded(judge(findings, told, subject, policy, now=now), None, None)
    return conclude(
        seen, reading, segments, snapshot, subject, policy,
        extra=extra, checked=checked, now=now, model=model, outcomes=outcomes, others=others,
    )  # fmt: skip


def conclude(  # noqa: PLR0913  (what was seen, and what it is held against)
    seen: Seen,
    reading: LogReading,
    segments: Sequence[Segment],
    snapshot: Snapshot,
    subject: Subject,
    policy: Policy,
    *,
    extra: Sequence[Finding] | None,
    checked: Sequence[Kind],
    now: datetime,
    model: Model | None = None,
    outcomes: str | Path | None = None,
    weigh: Callable[[list[Finding]], list[Finding]] = lambda findings: findings,
    others: Others = Others(),  # noqa: B008  (frozen)
) -> Guarded:
    """What a pass over some rows comes to: causes, drift, the verdict. `weigh` may change the evidence of findings."""
    findings = list(extra or ())
    pairs, comparison = seen.tally.pairs(), seen.tally.comparison()
    impact: Impact | None = None
    if pairs is not None and comparison is not None:
        explained = explain_all(comparison.observed, pairs)
        if model is not None:
            known = _outcomes(outcomes, pairs)
            explained = with_impact(explained, comparison.observed, pairs, model, policy.threshold, known)
            impact = measure(comparison.observed, pairs, model, policy.threshold, known)
        findings += explained
    findings = weigh([*findings, *seen.found, *others.findings, *_torn(reading), *_unlogged(reading)])
    quiet = seen.drift.shifts(findings) if seen.drift else None
    sampled = sorted({segment.header["sample"] for segment in segments if segment.header.get("sample")} - {"1.0"})
    blind = (*_blind(snapshot, checked), *(f"rows that the log's sample of {share} leaves out" for share in sampled))
    if seen.bearing and seen.bearing.absent:
        valueless = ", ".join(seen.bearing.absent)
        blind = (*blind, f"the values of {valueless}: no row had one, served or true")
    if seen.drift is None:
        blind = (*blind, "whether the inputs moved: the snapshot has no profile that can be read")
    coverage = replace(with_others(seen.coverage(), others), blind=blind, checked=tuple(checked))
    unread = others.left if scope_of(coverage, policy).uncovered.count else ()
    verdict = judge(
        findings, coverage, _subject(subject, segments, others.kinds), policy,
        now=now, unexamined=(*seen.doubts, *unread), quiet=quiet, notes=seen.performance, impact=impact,
    )  # fmt: skip
    return Guarded(verdict, pairs, comparison)


def _outcomes(folder: str | Path | None, pairs: Pairs) -> Floats | None:
    """The outcome of every pair, NaN where it is not known; None where none were given or they cannot be joined."""
    if folder is None:
        return None
    table = read_outcomes(folder)
    known = dict(zip(table["id"].to_pylist(), table["outcome"].to_pylist(), strict=True))
    return np.array([known.get(one, np.nan) for one in pairs.served.spine.ids], dtype=np.float64)


def _blind(snapshot: Snapshot, checked: Sequence[Kind]) -> tuple[str, ...]:
    """What this check cannot see, given what was looked for."""
    lines = [
        "request fields are taken as logged: wrong ones are seen where they break what always held in the snapshot",
        "a source that is wrong on both sides agrees with itself: see the expectations",
        "whether the labels of training are right",
    ]
    if Kind.INCOMPLETE not in checked:
        lines.append("requests that never reached the log are not counted here: give outcomes, or the service's count")
    if Kind.PERFORMANCE not in checked:
        lines.append("whether the model is right: no outcomes were given")
    if Kind.EXPECTATION not in checked:
        lines.append("whether the sources meet their expectations: nobody looked")
    untimed = [view.name for view in snapshot.bundle.views if view.source.created is None]
    lines += [f"{name}: its source has no created time, so an old row may be a late arrival" for name in untimed]
    return tuple(lines)


def _unlogged(reading: LogReading) -> list[Finding]:
    if not reading.lost_rows:
        return []
    since, until = min(gap.since for gap in reading.gaps), max(gap.until for gap in reading.gaps)
    message = (
        f"{reading.lost_rows:,} rows were answered and not logged, from {instant(since)} to {instant(until)}: "
        f"{reading.gaps[-1].reason}"
    )
    return [Finding(Kind.LOG, "log", 0, 0, message)]


def _torn(reading: LogReading) -> list[Finding]:
    return [
        Finding(
            Kind.LOG,
            segment.path.name,
            0,
            0,
            f"{segment.path.name} is damaged ({segment.torn_bytes:,} bytes are no whole frame): logged rows may be "
            "lost",
        )
        for segment in reading.damaged
    ]


def _subject(subject: Subject, segments: Sequence[Segment], kinds: Sequence[str]) -> Subject:
    def the(field: str, more: Sequence[str] = ()) -> str:
        return ", ".join(sorted({*more, *(segment.header.get(field, "") for segment in segments)}))

    return replace(
        subject,
        model_id=the("model_id"),
        model_digest=the("model_digest"),
        evidence=the("evidence", kinds),
        builds=tuple(sorted({segment.header.get("build", "") for segment in segments})),
    )
