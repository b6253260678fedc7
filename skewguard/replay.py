"""Replay: what training would have said at the instant of every logged row.

`ServingLog + Snapshot -> Pairs`. For each row there are three answers: `served` (the log), `truth` (the join at the
row's instant, under the snapshot's rule and definitions) and `as_known` (the source rows that the served row itself
names, looked up exactly). `served` against `as_known` shows what was computed wrongly, `as_known` against `truth`
what was old. Old is legitimate (LAGGED) only where every newer row became known within the view's `max_lag`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewguard.answer import Served, answer, derive, from_table
from skewguard.definitions import Bundle, View
from skewguard.errors import EvidenceError
from skewguard.offline import OfflineStore
from skewguard.servinglog import LogReading, to_table
from skewguard.snapshot import Snapshot
from skewguard.spine import Spine, ViewRows
from skewguard.transforms import numeric_class
from skewguard.values import NO_TIME, Array, Column, Mask, Status

HEADER_FIELDS = (
    "build", "host", "evidence", "model_id", "model_digest", "snapshot_id", "bundle_digest", "numeric_class"
)  # fmt: skip
_ULPS_ACROSS_CLASSES = 4


class Age(enum.IntEnum):
    """How the source row that was served stands to the one that should have been."""

    CURRENT = 0
    LAGGED = 1
    STALE = 2
    UNVERIFIABLE = 3  # an older row of a source without created times: only a late arrival could explain it
    LEAK = 4  # a row that was not known at the ask
    UNHEARD = 5  # the served row names a source row that the source does not have
    UNANSWERED = 6  # the store gave an error instead of an answer


@dataclass(frozen=True, slots=True)
class Pairs:
    """n logged rows with their truths. `age` per view: uint8 (n,) of `Age`. `labels`: header fields, str (n,) each.

    `recomputed` are the transforms run again on the raw values that the log holds: where they differ from what was
    served, the transform is at fault and not its inputs. `ulps` is the tolerance between numeric classes, per row.
    """

    bundle: Bundle
    served: Served
    truth: Served
    as_known: Served
    recomputed: Mapping[str, Column]
    age: Mapping[str, npt.NDArray[np.uint8]]
    lag_us: Mapping[str, npt.NDArray[np.int64]]
    labels: Mapping[str, Array]
    ulps: int

    def __len__(self) -> int:
        return len(self.served.spine)


def replay(reading: LogReading, snapshot: Snapshot, offline: OfflineStore, *, model_digest: str | None = None) -> Pairs:
    """Recompute every logged row. `offline` must hold the snapshot's views under the snapshot's rule.

    `model_digest` keeps the rows that this model answered, and no others.

    Raises `EvidenceError` where the log cannot be held against the snapshot: empty, of another service, or written
    under other definitions.
    """
    bundle = snapshot.bundle
    if not reading.rows:
        raise EvidenceError(f"the log at {reading.root} holds no row: nothing was served, or it was written elsewhere")
    given = [name for name in HEADER_FIELDS if any(name in segment.header for segment in reading.segments)]
    table = to_table(reading, header_fields=given)
    if model_digest is not None:
        answered = (
            table["h__model_digest"].cast(pa.string()) if "model_digest" in given else pa.nulls(len(table), pa.string())
        )
        table = table.filter(pc.equal(answered, model_digest))
        if not len(table):
            raise EvidenceError(f"no logged row was answered by the model with digest {model_digest[:12]}")
    table = table.sort_by([("event_timestamp", "ascending"), ("id", "ascending")])
    labels = {name: np.full(len(table), "", dtype=object) for name in HEADER_FIELDS}
    for name in given:
        labels[name] = np.array([value or "" for value in table[f"h__{name}"].to_pylist()], dtype=object)
    others = sorted(set(labels["bundle_digest"]) - {bundle.digest})
    if others:
        rows = int((labels["bundle_digest"] != bundle.digest).sum())
        raise EvidenceError(
            f"{rows:,} of {len(table):,} logged rows were served under other definitions ({others[0][:12]}) than the "
            f"snapshot's ({bundle.digest[:12]}): serve the snapshot's bundle, or train on today's"
        )
    foreign = sorted(set(labels["snapshot_id"]) - {"", snapshot.id})
    if foreign:
        raise EvidenceError(
            f"the model that answered was trained on snapshot {foreign[0][:12]}, not {snapshot.id[:12]}: name that one"
        )
    served = from_table(bundle, table)
    spine = served.spine
    truth_rows = offline.answer(spine)
    known_rows, age, lag = {}, {}, {}
    for view in bundle.views:
        got, true = served.views[view.name], truth_rows[view.name]
        known_rows[view.name] = _as_known(view, spine, got, true, offline)
        age[view.name], lag[view.name] = _age(view, spine, got, true, known_rows[view.name], offline)
    return Pairs(
        bundle,
        served,
        answer(bundle, spine, truth_rows),
        answer(bundle, spine, known_rows),
        derive(bundle, spine, served.views),
        age,
        lag,
        labels,
        ulps_to(labels["numeric_class"]),
    )


def ulps_to(classes: Iterable[str]) -> int:
    """How many units in the last place two sides may differ: none where all ran on this numeric class."""
    return 0 if set(classes) == {numeric_class()} else _ULPS_ACROSS_CLASSES


def _named(rows: ViewRows) -> Mask:
    return np.asarray(rows.event != NO_TIME)


def _same_row(a: ViewRows, b: ViewRows) -> Mask:
    return np.asarray((a.event == b.event) & (a.created == b.created))


def _as_known(view: View, spine: Spine, got: ViewRows, true: ViewRows, offline: OfflineStore) -> ViewRows:
    """The truth where the same row was served, else the row that was named, under the ask's clock and TTL."""
    other = np.flatnonzero(~_same_row(got, true))
    if not len(other):
        return true
    found = offline.rows(view.name, spine.take(other), got.event[other], got.created[other])

    def put(into: Array, values: Array) -> Array:
        merged = into.copy()
        merged[other] = values
        return merged

    return ViewRows(
        put(true.status, found.status),
        put(true.event, found.event),
        put(true.created, found.created),
        true.watermark,
        {
            name: Column(column.dtype, put(column.values, f.values), put(column.status, f.status))
            for name, column in true.features.items()
            for f in (found.features[name],)
        },
    )


def _age(
    view: View, spine: Spine, got: ViewRows, true: ViewRows, named: ViewRows, offline: OfflineStore
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """(`Age`, by how much the served row's event is older than the truth's, microseconds) per row."""
    n = len(spine)
    age = np.full(n, Age.CURRENT, dtype=np.uint8)
    lag = np.zeros(n, dtype=np.int64)
    age[got.status == Status.ERROR] = Age.UNANSWERED
    other = np.flatnonzero(~_same_row(got, true) & (got.status != Status.ERROR))
    if not len(other):
        return age, lag
    asks = spine.take(other)
    event, created = got.event[other], got.created[other]
    known = np.maximum(event, created)
    before = asks.as_of - view.max_lag_us - 1  # what had been known for longer than max_lag
    best_event, best_created = offline.best(view.name, asks, before)
    newer = (best_event > event) | ((best_event == event) & (best_created > created))
    overdue = Age.STALE if view.source.created else Age.UNVERIFIABLE
    verdict = np.where(newer, np.uint8(overdue), np.uint8(Age.LAGGED))
    verdict = np.where(_named(got)[other] & ~_named(named)[other], np.uint8(Age.UNHEARD), verdict)
    verdict = np.where(known > asks.as_of, np.uint8(Age.LEAK), verdict)
    age[other] = verdict
    true_known = np.maximum(true.event[other], true.created[other])
    lag[other] = np.where(
        true_known == NO_TIME, 0, true.event[other] - np.where(event == NO_TIME, true.event[other], event)
    )
    return age, lag
