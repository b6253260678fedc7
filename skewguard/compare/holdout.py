"""How a model does on the rows of its snapshot that it was not trained on: by slice, and by what each feature adds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewguard.compare.outcomes import Performance, performance
from skewguard.errors import EvidenceError
from skewguard.model import Model
from skewguard.snapshot import Snapshot
from skewguard.values import instant

LEAST_ROWS = 100
"""Rows of a slice below which nothing is told of it."""

_MOST_SLICES = 20
_SHUFFLED_ROWS = 4_000
_SHUFFLES = 3

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows where `column` is `value`; both are empty for all rows."""

    column: str
    value: str
    performance: Performance


@dataclass(frozen=True, slots=True)
class Importance:
    """By how much the log loss rises when the feature's values are shuffled among the rows, and the standard deviation
    of that over the shuffles."""

    feature: str
    rise: float
    spread: float


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The rows asked after an instant. `since`, `until`: ISO texts; `shuffled` rows gave the importances."""

    rows: int
    since: str
    until: str
    slices: tuple[Slice, ...]
    importances: tuple[Importance, ...]
    shuffled: int
    shuffles: int = _SHUFFLES


def held_out(snapshot: Snapshot, model: Model, label: str, after: int, by: Sequence[str] = ()) -> HeldOut:
    """The model on the labelled rows that were asked later than `after` (microseconds), seeded and repeatable.

    `by` are columns of the snapshot to slice by; without any, every key and text with 2 to 20 values in these rows.
    The label is 0 or 1. Raises `EvidenceError` where it is not, and where fewer than 100 rows are left.
    """
    names = tuple(by) or _texts(snapshot)
    table = snapshot.to_arrow(list(dict.fromkeys(["event_timestamp", "vector", label, *names])))
    late = pc.greater(table["event_timestamp"].cast(pa.int64()), after)
    table = table.filter(pc.and_(late, table[label].is_valid())).combine_chunks()
    if len(table) < LEAST_ROWS:
        raise EvidenceError(
            f"{snapshot.place}: {len(table):,} labelled rows were asked after {instant(after)}, "
            f"at least {LEAST_ROWS} are needed: name an earlier instant"
        )
    outcome = _outcome(table[label], label)
    vector = table["vector"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    prediction = model.predict(np.ascontiguousarray(vector))
    at = table["event_timestamp"].cast(pa.int64()).to_numpy()
    some = np.random.default_rng(0).permutation(len(table))[:_SHUFFLED_ROWS]
    return HeldOut(
        len(table),
        instant(int(at.min())),
        instant(int(at.max())),
        (Slice("", "", performance(prediction, outcome)), *_slices(table, names, prediction, outcome)),
        _importances(model, snapshot.bundle.vector, vector[some], outcome[some]),
        len(some),
    )


def _texts(snapshot: Snapshot) -> tuple[str, ...]:
    columns = snapshot.manifest.columns
    return tuple(name for name, kind in columns.items() if kind == "string" and name != "id")


def _outcome(column: pa.ChunkedArray, label: str) -> Floats:
    if not (pa.types.is_boolean(column.type) or pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise EvidenceError(f"label {label}: expected 0 or 1, got {column.type}")
    outcome = np.asarray(column.cast(pa.int64() if pa.types.is_boolean(column.type) else column.type), dtype=np.float64)
    if not np.isin(outcome, (0.0, 1.0)).all():
        raise EvidenceError(f"label {label}: expected 0 or 1; how a model does on other labels is not measured here")
    return outcome


def _slices(table: pa.Table, names: Sequence[str], prediction: Floats, outcome: Floats) -> Iterator[Slice]:
    for name in names:
        values = np.array([None if value is None else str(value) for value in table[name].to_pylist()], dtype=object)
        found = sorted(set(values) - {None})
        if not 2 <= len(found) <= _MOST_SLICES:
            continue
        for value in found:
            here = values == value
            if here.sum() >= LEAST_ROWS:
                yield Slice(name, value, performance(prediction[here], outcome[here]))


def _importances(model: Model, features: Sequence[str], vector: Floats, outcome: Floats) -> tuple[Importance, ...]:
    """The greatest first."""
    choose = np.random.default_rng(1)
    base = performance(model.predict(np.ascontiguousarray(vector)), outcome).log_loss
    found = []
    for place, feature in enumerate(features):
        changed = np.array(vector)
        losses = []
        for _ in range(_SHUFFLES):
            changed[:, place] = choose.permutation(vector[:, place])
            losses.append(performance(model.predict(changed), outcome).log_loss - base)
        found.append(Importance(feature, float(np.mean(losses)), float(np.std(losses))))
    return tuple(sorted(found, key=lambda one: -one.rise))
