"""The log, batch by batch, held against the truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewguard.answer import Served, answer, derive, from_table, schema, vector
from skewguard.definitions import Bundle
from skewguard.errors import EvidenceError, OtherDefinitions
from skewguard.offline import OfflineStore
from skewguard.replay.naming import Alike, hold
from skewguard.replay.pairs import HEADER_FIELDS, Age, Pairs, concat, ulps_to
from skewguard.replay.truth import Truth
from skewguard.servinglog import LogReading, Segment, blocks
from skewguard.snapshot import Snapshot
from skewguard.spine import ViewRows
from skewguard.values import NO_TIME, Array, Column, Mask, same

BATCH_ROWS = 131_072


def replay(reading: LogReading, snapshot: Snapshot, offline: OfflineStore, *, model_digest: str | None = None) -> Pairs:
    """Recompute every logged row, in order of time. `offline` must hold the snapshot's views under its rule.

    `model_digest` keeps the rows that this model answered, and no others. For a log that fits into memory; the
    guard takes one of any size, batch by batch.

    Raises `EvidenceError` where the log cannot be held against the snapshot: empty, of another service, or written
    under other definitions.
    """
    with Truth(snapshot, offline) as truth:
        segments = comparable(reading, snapshot, model_digest)
        return pairs_of(served_batches(segments, snapshot.bundle, sum(s.rows for s in segments)), truth)


def pairs_of(batches: Iterator[tuple[Served, dict[str, Array]]], truth: Truth) -> Pairs:
    """All batches as one."""
    return concat([recompute(served, labels, truth) for served, labels in batches])


def comparable(reading: LogReading, snapshot: Snapshot, model_digest: str | None = None) -> list[Segment]:
    """The segments whose rows can be held against the snapshot, by their headers; raises `EvidenceError`."""
    bundle = snapshot.bundle
    segments = [segment for segment in reading.segments if segment.rows]
    if not segments and reading.damaged:
        raise EvidenceError(
            f"the log at {reading.root} holds no row that can be read: {reading.damaged[0].path.name} is damaged"
        )
    if not segments:
        raise EvidenceError(f"the log at {reading.root} holds no row: nothing was served, or it was written elsewhere")
    others_own = sorted({s.header.get("service", "") for s in segments} - {"", bundle.service})
    if others_own:
        raise EvidenceError(
            f"the log at {reading.root} holds rows of service {', '.join(others_own)}, not {bundle.service}"
        )
    if model_digest is not None:
        segments = [segment for segment in segments if segment.header.get("model_digest") == model_digest]
        if not segments:
            raise EvidenceError(f"no logged row was answered by the model with digest {model_digest[:12]}")
    total = sum(segment.rows for segment in segments)
    others = [segment for segment in segments if segment.header.get("bundle_digest", "") != bundle.digest]
    if others:
        digest = min(segment.header.get("bundle_digest", "") for segment in others)
        raise OtherDefinitions(
            f"{sum(s.rows for s in others):,} of {total:,} logged rows were served under other definitions "
            f"({digest[:12]}) than the snapshot's ({bundle.digest[:12]}): serve the snapshot's bundle, or train on "
            "today's"
        )
    foreign = sorted({s.header.get("snapshot_id", "") for s in segments} - {"", snapshot.id})
    if foreign:
        raise EvidenceError(
            f"the model that answered was trained on snapshot {foreign[0][:12]}, not {snapshot.id[:12]}: name that one"
        )
    for segment in segments:
        check_readable(segment, bundle)
    return segments


def check_readable(segment: Segment, bundle: Bundle) -> None:
    """Raise `EvidenceError` unless a segment's rows hold all that an answer consists of, with keys as sources have."""
    lacking = [
        f"{field.name} ({field.type})"
        for field in schema(bundle)
        if field.name not in segment.schema.names or segment.schema.field(field.name).type != field.type
    ]
    if lacking:
        raise EvidenceError(
            f"{segment.path.name} is not in the form of this service's answers: it lacks {', '.join(lacking)}"
        )
    hidden = sorted({f"e__{name}" for name in segment.header.get("pii", "").split(",") if name} - segment.known.keys())
    if hidden:
        names = ", ".join(name.removeprefix("e__") for name in hidden)
        raise EvidenceError(
            f"the keys of {names} are hashed in the log: give the secret, so that they can be held against the sources"
        )


def served_batches(
    segments: Sequence[Segment], bundle: Bundle, rows: int, since: int = NO_TIME
) -> Iterator[tuple[Served, dict[str, Array]]]:
    """(what was served, header fields per row), some `rows` at a time, each in order of time and id.

    Only what was asked from `since` on (microseconds).
    """
    names = schema(bundle).names
    waiting: list[tuple[pa.RecordBatch, Segment]] = []
    count = 0
    for segment, block in blocks(segments):
        whole = block.select(names)
        asked = whole if since == NO_TIME else _since(whole, since)
        while asked.num_rows:
            batch, asked = asked.slice(0, rows - count), asked.slice(rows - count)
            waiting.append((batch, segment))
            count += batch.num_rows
            if count == rows:
                yield _together(waiting, bundle)
                waiting, count = [], 0
    if count:
        yield _together(waiting, bundle)


def _since(batch: pa.RecordBatch, since: int) -> pa.RecordBatch:
    asked = batch.column(batch.schema.names.index("event_timestamp"))
    return batch.filter(pc.greater_equal(asked, pa.scalar(since, pa.int64()).cast(asked.type)))


def _together(waiting: Sequence[tuple[pa.RecordBatch, Segment]], bundle: Bundle) -> tuple[Served, dict[str, Array]]:
    table = pa.Table.from_batches([batch for batch, _ in waiting]).combine_chunks()
    sizes = [batch.num_rows for batch, _ in waiting]
    order = pc.sort_indices(
        pa.table({"at": table["event_timestamp"], "id": table["id"]}),
        sort_keys=[("at", "ascending"), ("id", "ascending")],
    )
    turn = order.to_numpy()
    ordered = table if (turn[1:] > turn[:-1]).all() else table.take(order)
    labels = {}
    for name in HEADER_FIELDS:
        values = np.array([segment.header.get(name, "") for _, segment in waiting], dtype=object)
        labels[name] = np.repeat(values, sizes)[turn]
    return from_table(bundle, ordered), labels


def recompute(served: Served, labels: Mapping[str, Array], truth: Truth) -> Pairs:
    """What was served beside the truth, the source rows that it names, and the transforms run again."""
    bundle, spine = truth.bundle, served.spine
    ulps = ulps_to(labels["numeric_class"])
    true_rows = truth.answers(spine)
    alike = equality(bundle, ulps)
    known, age, lag, rewritten = {}, {}, {}, {}
    for view in bundle.views:
        held = hold(view, spine, served.views[view.name], true_rows[view.name], truth, alike)
        known[view.name], age[view.name], lag[view.name] = held.named, held.age, held.lag_us
        if held.rewritten is not None:
            rewritten[view.name] = held.rewritten
    again = derive(bundle, spine, served.views)
    computed = replace(served, derived=again)
    true = _answered(computed, true_rows, bundle)
    return Pairs(bundle, served, true, _answered(true, known, bundle), again, age, lag, labels, ulps, rewritten)


def alone(served: Served, labels: Mapping[str, Array], bundle: Bundle) -> Pairs:
    """What was served without any truth beside it: every row is unverifiable, only the transforms are run again."""
    n = len(served.spine)
    again = derive(bundle, served.spine, served.views)
    age = {view.name: np.full(n, Age.UNVERIFIABLE, dtype=np.uint8) for view in bundle.views}
    lag = {view.name: np.zeros(n, dtype=np.int64) for view in bundle.views}
    return Pairs(bundle, served, served, served, again, age, lag, labels, ulps_to(labels["numeric_class"]), {})


def equality(bundle: Bundle, ulps: int) -> Alike:
    """`same` under each feature's own contract."""

    def alike(name: str, a: Column, b: Column) -> Mask:
        contract = bundle.contracts[name]
        return same(a, b, rtol=contract.rtol, atol=contract.atol, ulps=ulps)

    return alike


def _answered(like: Served, views: Mapping[str, ViewRows], bundle: Bundle) -> Served:
    """The answer from rows of views, where `like` is the answer from almost the same: only what differs is computed.

    Row by row, as transforms are.
    """
    moved = np.zeros(len(like.spine), dtype=bool)
    for name, view in views.items():
        for feature, column in view.features.items():
            moved |= ~_identical(column, like.views[name].features[feature])
    rows = np.flatnonzero(moved)
    if len(rows) == len(moved):
        return answer(bundle, like.spine, views)
    derived = like.derived
    if len(rows):
        some = answer(bundle, like.spine.take(rows), {name: view.take(rows) for name, view in views.items()})
        derived = {name: _put(column, rows, some.derived[name]) for name, column in derived.items()}
    answered = Served(like.spine, views, derived, np.empty((0, 0)))
    return replace(answered, vector=vector(bundle, answered))


def _identical(a: Column, b: Column) -> Mask:
    if a is b:
        return np.ones(len(a), dtype=bool)
    return np.asarray((a.status == b.status) & ((a.values == b.values) | ~a.present))


def _put(column: Column, at: Array, some: Column) -> Column:
    values, status = column.values.copy(), column.status.copy()
    values[at], status[at] = some.values, some.status
    return Column(column.dtype, values, status)
