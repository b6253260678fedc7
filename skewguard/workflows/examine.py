"""Examine: one pass over a log, with everything that is looked for on the way."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from skewguard.answer import Served
from skewguard.compare import Drift, Tally, compare, drift, learn
from skewguard.compare.outcomes import Predictions, contradicted, fell, missing, read_outcomes, uncounted
from skewguard.definitions import Bundle
from skewguard.errors import EvidenceError, SourceError
from skewguard.findings import Finding, Kind
from skewguard.model import Model
from skewguard.offline import OfflineStore, Rule
from skewguard.oracle import brute_force
from skewguard.replay import BATCH_ROWS, Bearing, InPlace, Pairs, Sources, Truth, alone, recompute, served_batches
from skewguard.replay.truth import LATEST
from skewguard.servinglog import LogReading, Segment, blocks
from skewguard.snapshot import Snapshot
from skewguard.values import NO_TIME, Array, instant, same
from skewguard.verdict import Coverage, Covered

MINED = 20
"""Mined rules are hypotheses too: about so many are tested beside the declared benign rates."""

_IN_PLACE = InPlace()


@dataclass(frozen=True, slots=True)
class Look:
    """What to look at. `since` (microseconds): only what was asked from then on; the window before it, of the same
    length, is what outcomes are held against. `counted`: answers in the window, as the service counted them.
    """

    sources: Sources = _IN_PLACE
    model: Model | None = None
    cross_check: int = 0
    batch_rows: int = BATCH_ROWS
    since: int = NO_TIME
    outcomes: str | Path | None = None
    counted: int | None = None

    @property
    def checked(self) -> tuple[Kind, ...]:
        """The kinds of finding that are looked for."""
        always = (
            Kind.MISMATCH, Kind.STALE, Kind.LEAK, Kind.CONTRACT, Kind.DEFINITION, Kind.LOG, Kind.DUPLICATE,
            Kind.CONSTRAINT, Kind.CLOCK, Kind.FROZEN,
        )  # fmt: skip
        complete = self.outcomes is not None or self.counted is not None
        return (
            *always,
            *((Kind.ORACLE,) if self.cross_check else ()),
            *((Kind.INCOMPLETE,) if complete else ()),
            *((Kind.PERFORMANCE,) if self.outcomes is not None else ()),
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """What a pass over the log came to."""

    tally: Tally
    found: tuple[Finding, ...]
    drift: Drift | None
    since: int
    until: int
    doubts: tuple[str, ...] = ()
    tested: int = 0
    cross_checked: int = 0
    truth: str = ""
    performance: tuple[str, ...] = ()
    bearing: Bearing | None = None

    def coverage(self) -> Coverage:
        """How the rows fell."""
        tally = self.tally
        return Coverage(
            rows=tally.rows,
            equal=tally.equal,
            lagged=tally.lagged,
            mismatched=tally.mismatched,
            unverifiable=tally.unverifiable,
            values=tally.values,
            since=instant(self.since),
            until=instant(self.until),
            tested=self.tested,
            cross_checked=self.cross_checked,
            truth=self.truth,
            features=tuple(Covered(name, rows) for name, rows in self.bearing.counts()) if self.bearing else (),
        )


def examine(segments: Sequence[Segment], snapshot: Snapshot, look: Look) -> Seen:
    """The log held against the truth; against the snapshot and itself alone, where the sources cannot be read.

    Raises `EvidenceError` where no row was asked in the window, or outcomes cannot be read.
    """

    def served() -> Iterator[tuple[Served, dict[str, Array]]]:
        return served_batches(segments, snapshot.bundle, look.batch_rows, look.since)

    try:
        with look.sources.open(snapshot, lambda: span_of(segments)) as offline, Truth(snapshot, offline) as truth:
            seen = _examined((recompute(*batch, truth) for batch in served()), snapshot, look)
            doubts = _rewritten(truth) if seen.tally.unverifiable else ()
            found, checked = _cross_check(seen.tally, snapshot, offline, look.cross_check)
        seen = replace(seen, doubts=doubts, found=(*seen.found, *found), cross_checked=checked, truth=look.sources.name)
    except SourceError as error:
        seen = _examined((alone(*batch, snapshot.bundle) for batch in served()), snapshot, look)
        seen = replace(seen, doubts=(str(error),), truth="none: the sources cannot be read")
    return _with_outcomes(seen, segments, snapshot, look)


def source_keys(reading: LogReading, snapshot: Snapshot, sources: Sources) -> dict[str, list[str | int]]:
    """Every key that the sources know, of the entities whose keys are hashed in the log."""
    hidden = {name for segment in reading.segments for name in segment.header.get("pii", "").split(",")}
    with sources.open(snapshot, lambda: span_of(reading.segments)) as offline:
        return keys_of(snapshot.bundle, hidden, offline)


def keys_of(bundle: Bundle, entities: Collection[str], offline: OfflineStore) -> dict[str, list[str | int]]:
    """Every key of these entities that the sources know."""
    keys: dict[str, set[str | int]] = {}
    for view in bundle.views:
        asked = [key for key in view.keys if key.ask in entities]
        if asked:
            newest = offline.latest(view.name, LATEST)
            for key in asked:
                known = newest[key.column].unique().drop_null().to_pylist()
                keys.setdefault(key.ask, set()).update(known)
    return {name: sorted(values, key=str) for name, values in keys.items()}


def _examined(batches: Iterator[Pairs], snapshot: Snapshot, look: Look) -> Seen:
    """Every batch of the log, compared; what is checked beside the replay is the truth, so that skew is told once.

    A probe's asks are made up: what they are like says nothing about the traffic.
    """
    tally, bearing = Tally(look.batch_rows), Bearing()
    moved = drift(snapshot)
    checks = learn(snapshot).checks()
    since, until = [], []
    for pairs in batches:
        tally.add(pairs, compare(pairs, look.model))
        bearing.add(pairs)
        if (traffic := _traffic(pairs)) is not None:
            for check in checks:
                check.add(traffic.witnessed)
            if moved:
                moved.add(traffic.served)
        since.append(int(pairs.served.spine.as_of.min()))
        until.append(int(pairs.served.spine.as_of.max()))
    if not tally.rows:
        raise EvidenceError(f"no logged row was asked since {instant(look.since)}")
    found = tuple(finding for check in checks for finding in check.findings())
    tested = sum(contract.benign_rate > 0 for contract in snapshot.bundle.contracts.values())
    return Seen(tally, found, moved, min(since), max(until), tested=tested + MINED, bearing=bearing)


def _traffic(pairs: Pairs) -> Pairs | None:
    """The rows that somebody asked for; None where all were asked to see what is answered."""
    asked = pairs.labels["evidence"] != "probe"
    if asked.all():
        return pairs
    return pairs.take(np.flatnonzero(asked)) if asked.any() else None


def _rewritten(truth: Truth) -> tuple[str, ...]:
    return (
        *(
            f"the source of {view} holds other rows than when the snapshot was built, in {', '.join(months)}: what was "
            "served from them cannot be judged"
            for view, months in truth.changed_months().items()
        ),
        *(
            f"the source of {view} ends at {instant(ends)}: what was served from later rows cannot be judged; load it"
            for view, ends in truth.ended.items()
        ),
    )


def _with_outcomes(seen: Seen, segments: Sequence[Segment], snapshot: Snapshot, look: Look) -> Seen:
    """The same, with what the service counted and what became of the requests."""
    found = list(seen.found)
    told: list[str] = []
    sampled = any(float(segment.header.get("sample") or 1) < 1 for segment in segments)
    if look.counted is not None and not sampled:
        finding = uncounted(seen.tally.rows, look.counted)
        found += [finding] if finding else []
    if look.outcomes is not None:
        try:
            outcomes = read_outcomes(look.outcomes)
        except EvidenceError as error:
            return replace(seen, found=tuple(found), doubts=(*seen.doubts, str(error)))
        logged = _predictions(segments, snapshot)
        gone = None if sampled else missing(logged.ids, seen.since, seen.until, outcomes)
        found += [one for one in (gone, contradicted(logged, outcomes)) if one]
        start = seen.since if look.since != NO_TIME else (seen.since + seen.until) // 2
        recent = (logged.as_of >= start) & (logged.as_of <= seen.until)
        before = (logged.as_of < start) & (logged.as_of >= 2 * start - seen.until)
        findings, told = fell(logged.take(np.flatnonzero(recent)), logged.take(np.flatnonzero(before)), outcomes)
        found += findings
    return replace(seen, found=tuple(found), performance=tuple(told))


def _predictions(segments: Sequence[Segment], snapshot: Snapshot) -> Predictions:
    """Ids, instants and predictions of the whole log, and what to slice them by."""
    keys = [f"e__{name}" for name in snapshot.bundle.keys]
    tables, builds = [], []
    for segment, batch in blocks(segments):
        tables.append(pa.table(batch.select(["id", "event_timestamp", "prediction", *keys])))
        builds += [segment.header.get("build", "")] * batch.num_rows
    table = pa.concat_tables(tables).combine_chunks()
    by = {name.removeprefix("e__"): table[name].to_numpy() for name in keys}
    return Predictions(
        table["id"].to_numpy(),
        table["event_timestamp"].cast(pa.int64()).to_numpy(),
        table["prediction"].to_numpy(),
        {"build": np.array(builds, dtype=object), **by},
    )


def span_of(segments: Sequence[Segment]) -> tuple[int, int]:
    """The first and the last ask of the log, in microseconds."""
    ends = [
        (int(at.min()), int(at.max()))
        for _, batch in blocks(segments)
        if batch.num_rows
        for at in (batch.column(batch.schema.names.index("event_timestamp")).cast("int64").to_numpy(),)
    ]
    return min(first for first, _ in ends), max(last for _, last in ends)


def _cross_check(tally: Tally, snapshot: Snapshot, offline: OfflineStore, rows: int) -> tuple[list[Finding], int]:
    """Recompute a seeded sample, differing rows first, by brute force; any disagreement with the join is a finding."""
    pairs, comparison = tally.pairs(), tally.comparison()
    if not rows or pairs is None or comparison is None:
        return [], 0
    n = len(pairs)
    order = np.random.default_rng(0).permutation(n)
    order = order[np.argsort(~comparison.mismatched[order], kind="stable")]
    half = min(rows // 2, int(comparison.mismatched.sum()))
    sample = np.unique(np.concatenate([order[:half], order[::-1][: rows - half]]))
    asks = pairs.served.spine.take(sample)
    manifest = snapshot.manifest
    findings = []
    for view in offline.views.values():
        lag = view.availability_lag_us if manifest.as_served else 0
        oracle = brute_force(view, replace(asks, as_of=asks.as_of - lag), known=manifest.rule is Rule.KNOWN)
        join = pairs.truth.views[view.name].take(sample)
        differs = (oracle.event != join.event) | (oracle.created != join.created)
        if not lag:  # TTL and clock are judged at the ask, which the oracle was not asked at
            differs |= oracle.status != join.status
        for feature in view.features:
            a, b = oracle.features[feature.name], join.features[feature.name]
            differs |= ~same(a, b) & ((a.present & b.present) | (lag == 0))
        if differs.any():
            message = f"{view.name}: the join and the oracle disagree on {int(differs.sum())} of {len(sample)} rows"
            findings.append(Finding(Kind.ORACLE, view.name, int(differs.sum()), len(sample), message))
    return findings, len(sample)
