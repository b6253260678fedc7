"""Others: rows that another model answered, as evidence for the features that the candidate shares with it.

A feature is shared where definition, transform and dtype are the same, by their fingerprints. Such rows say nothing
about what the candidate was given as a whole, nor about what it predicts. They are looked at only for features of which
the candidate's own rows are too few.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from skewguard.causes import explain_all
from skewguard.compare import Tally, compare
from skewguard.definitions import Bundle, cut, shared
from skewguard.errors import EvidenceError, SkewguardError, SourceError
from skewguard.findings import Finding
from skewguard.policy import Policy
from skewguard.replay import (
    BATCH_ROWS,
    Bearing,
    CutTruth,
    Sources,
    check_readable,
    cut_batches,
    recompute,
)
from skewguard.servinglog import LogReading, Segment
from skewguard.servinglog.definitions import kept
from skewguard.snapshot import Snapshot
from skewguard.values import NO_TIME
from skewguard.verdict import Coverage
from skewguard.workflows.examine import span_of


@dataclass(frozen=True, slots=True)
class Others:
    """What other models' rows came to. `rows` replayed, of kinds of evidence `kinds`; `findings` on shared features.

    `left`: sentences on rows that could not be looked at. `tested`: how many features with a benign rate were.
    """

    rows: int = 0
    kinds: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    bearing: tuple[Bearing, ...] = ()
    left: tuple[str, ...] = ()
    tested: int = 0

    def evidence(self, name: str) -> tuple[tuple[str, int], ...]:
        """The rows that bear on a feature, by kind."""
        counts: dict[str, int] = {}
        for one in self.bearing:
            for kind, rows in one.rows(name).items():
                counts[kind] = counts.get(kind, 0) + rows
        return tuple(sorted(counts.items()))


def with_others(coverage: Coverage, others: Others) -> Coverage:
    """What was looked at, others' rows included."""
    features = tuple(replace(one, others=others.evidence(one.name)) for one in coverage.features)
    return replace(coverage, others=others.rows, features=features, tested=coverage.tested + others.tested)


def parted(reading: LogReading, snapshot: Snapshot, model_digest: str | None) -> tuple[LogReading, tuple[Segment, ...]]:
    """(the log of what the candidate answered, the segments of other models).

    The candidate is the model of that digest; without one, whichever was trained on the snapshot, or does not say. A
    log in which it answered nothing stays whole.
    """

    def is_own(segment: Segment) -> bool:
        if model_digest is not None:
            return segment.header.get("model_digest") == model_digest
        return segment.header.get("snapshot_id", "") in ("", snapshot.id)

    filled = [segment for segment in reading.segments if segment.rows]
    own = tuple(segment for segment in filled if is_own(segment))
    if not own:
        return reading, ()
    return replace(reading, segments=own), tuple(segment for segment in filled if not is_own(segment))


@dataclass(frozen=True, slots=True)
class Against:
    """What other models' rows are held against, and how. `wanted`: the features that lack evidence."""

    snapshot: Snapshot
    wanted: Collection[str]
    sources: Sources
    since: int = NO_TIME
    batch_rows: int = BATCH_ROWS


def look_at_others(reading: LogReading, segments: Sequence[Segment], against: Against, policy: Policy) -> Others:
    """Replay what other models answered, as far as they share wanted features; rows of a kind of evidence that the
    policy does not accept are passed over."""
    found = Others()
    accepted = [one for one in segments if one.header.get("evidence", "") in policy.evidence]
    for digest in sorted({one.header.get("bundle_digest", "") for one in accepted}):
        group = [one for one in accepted if one.header.get("bundle_digest", "") == digest]
        try:
            found = _with(found, _replayed(_definitions(reading, group, digest, against), group, digest, against))
        except (SkewguardError, OSError, pa.ArrowException) as error:  # what cannot be read is no evidence
            found = _with(found, Others(left=(str(error),)))
    return found


def _definitions(reading: LogReading, group: Sequence[Segment], digest: str, against: Against) -> Bundle:
    own = against.snapshot.bundle
    theirs = own if digest == own.digest else kept(reading.root, group[0].service, digest)
    if theirs is None:
        raise EvidenceError(
            f"{sum(one.rows for one in group):,} rows of other models were served under definitions "
            f"{digest[:12] or 'without a name'}, which do not lie beside the log: they are no evidence"
        )
    return theirs


def _replayed(theirs: Bundle, group: Sequence[Segment], digest: str, against: Against) -> Others:
    whole = against.snapshot
    same = [name for name in shared(whole.bundle, theirs) if name in against.wanted]
    if not same:
        return Others()
    for segment in group:
        check_readable(segment, theirs)
    ours = cut(whole.bundle, same)
    views = tuple(whole.bundle.view(view.name) for view in ours.views)
    some = replace(whole, bundle=replace(whole.bundle, views=views))
    tally, bearing, kinds = Tally(against.batch_rows), Bearing(), set[str]()
    with against.sources.open(some, lambda: span_of(group)) as offline, CutTruth(some, ours, offline) as truth:
        if offline.views.keys() != {view.name for view in views}:  # somebody's own `Sources`
            raise SourceError(
                f"{against.sources.name}: they cannot be asked for {', '.join(v.name for v in views)} alone"
            )
        for batch in cut_batches(group, theirs, ours, against.batch_rows, against.since):
            pairs = recompute(*batch, truth)
            tally.add(pairs, compare(pairs))
            bearing.add(pairs)
            kinds |= set(pairs.labels["evidence"].tolist())
    tested = sum(contract.benign_rate > 0 for contract in ours.contracts.values())
    return Others(tally.rows, tuple(sorted(kinds)), _findings(tally, digest), (bearing,), (), tested)


def _findings(tally: Tally, digest: str) -> tuple[Finding, ...]:
    pairs, comparison = tally.pairs(), tally.comparison()
    if pairs is None or comparison is None:
        return ()
    said = f", in rows that other models answered under definitions {digest[:12]}"
    return tuple(replace(one, message=one.message + said) for one in explain_all(comparison.observed, pairs))


def _with(one: Others, other: Others) -> Others:
    return Others(
        one.rows + other.rows,
        tuple(sorted({*one.kinds, *other.kinds})),
        (*one.findings, *other.findings),
        (*one.bearing, *other.bearing),
        (*one.left, *other.left),
        one.tested + other.tested,
    )
