"""The value is another column's of the same row, or the same column's of another row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from skewguard.answer import vector
from skewguard.causes.evidence import Evidence, Explanation
from skewguard.findings import Tap
from skewguard.values import Array, Column

_STEPS = (-1, 1, -2, 2, -3, 3)
_DISTINCT = 3


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """Columns that changed places, and rows that did."""
    served, every = evidence.served, evidence.observed.truth
    if served is None or every is None:
        return
    others = _in_vector(evidence, served) if evidence.tap is Tap.MODEL_INPUT else _columns(evidence, served)
    bits = 2.0 + np.log2(len(others) + 1)
    for name, column in others.items():
        hits = _same(served, column) & served.present
        distinct = len(np.unique(served.values[hits].astype(str) if served.dtype == "string" else served.values[hits]))
        if hits.sum() >= 3 and distinct >= _DISTINCT:
            shown = name.replace("__", ".", 1)
            if evidence.tap is Tap.MODEL_INPUT:
                what = f"{shown} entered the model in its place: the columns are in another order"
                yield Explanation("feature_order", what, hits, bits)
            else:
                yield Explanation("swap", f"served = {shown} of the same row", hits, bits)
    yield from _misaligned(evidence, served, every)


def _columns(evidence: Evidence, served: Column) -> dict[str, Column]:
    """The other columns of the same kind, as they should have been served."""
    pairs = evidence.pairs
    side = pairs.as_known if evidence.tap is Tap.STORE else pairs.truth
    columns: Mapping[str, Column] = side.features(pairs.bundle) | dict(pairs.served.spine.request)
    return {
        name: column.take(evidence.rows)
        for name, column in columns.items()
        if name != evidence.feature and column.dtype.is_numeric == served.dtype.is_numeric
        and (served.dtype.is_numeric or column.dtype is served.dtype)
    }  # fmt: skip


def _in_vector(evidence: Evidence, served: Column) -> dict[str, Column]:
    """The other columns of the model's vector."""
    pairs = evidence.pairs
    matrix = vector(pairs.bundle, pairs.served)[evidence.rows]
    status = np.zeros(len(evidence.rows), dtype=np.uint8)
    columns = {}
    for i, name in enumerate(pairs.bundle.vector):
        if name != evidence.feature:
            columns[name] = Column.build(type(served.dtype)("float64"), np.ascontiguousarray(matrix[:, i]), status)
    return columns


def _misaligned(evidence: Evidence, served: Column, every: Column) -> Iterator[Explanation]:
    """The truth of the row a few places before or after, in the order of the log."""
    found = []
    for step in _STEPS:
        other = evidence.rows + step
        inside = (other >= 0) & (other < len(every))
        column = every.take(np.clip(other, 0, len(every) - 1))
        found.append((_same(served, column) & inside & served.present, step))
    found.sort(key=lambda one: -one[0].sum())
    hits, step = found[0]
    by_chance = found[1][0].sum() * 2 > hits.sum()  # neighbours have the same values anyway
    if hits.sum() >= 5 and not by_chance and len(np.unique(_plain(served)[hits])) >= 5:
        where = f"{abs(step)} {'before' if step < 0 else 'after'}"
        yield Explanation("misaligned", f"served = the value of the row {where}: rows changed places", hits, 14.0)


def _same(a: Column, b: Column) -> Array:
    one, other = (column.values.astype(np.float64) if a.dtype.is_numeric else column.values for column in (a, b))
    equal = one == other
    return np.asarray(a.present & b.present & equal, dtype=bool)


def _plain(column: Column) -> Array:
    return column.values.astype(str) if column.dtype == "string" else column.values
