"""The value is another column's of the same row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from skewguard.answer import vector
from skewguard.causes.evidence import Evidence, Explanation
from skewguard.findings import Tap
from skewguard.values import Array, Column, Mask

_DISTINCT = 3
_NEARLY = 0.97
_BLOCK = 4


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """Columns that changed places; what is absent in both goes with the values that are not."""
    served = evidence.served
    if served is None:
        return
    if evidence.tap is Tap.MODEL_INPUT:
        yield from _shifted(evidence)
    others = _in_vector(evidence, served) if evidence.tap is Tap.MODEL_INPUT else _columns(evidence, served)
    bits = 2.0 + np.log2(len(others) + 1)
    for name, column in others.items():
        hits = same(served, column)
        if hits.sum() >= 3 and len(np.unique(plain(served)[hits])) >= _DISTINCT:
            hits |= ~served.present & ~column.present
            shown = name.replace("__", ".", 1)
            if evidence.tap is Tap.MODEL_INPUT:
                what = f"{shown} entered the model in its place: the columns are in another order"
                yield Explanation("feature_order", what, hits, bits)
            else:
                yield Explanation("swap", f"served = {shown} of the same row", hits, bits)


def _shifted(evidence: Evidence) -> Iterator[Explanation]:
    """A block of the vector that entered the model some places further on, or before; and what was left at its end."""
    pairs, names = evidence.pairs, evidence.pairs.bundle.vector
    if evidence.feature not in names:
        return
    right, got = (matrix[evidence.rows] for matrix in (vector(pairs.bundle, pairs.served), pairs.served.vector))
    place, changed = names.index(evidence.feature), ~_nearly(got, right)
    for by in (1, -1, 2, -2, 3, -3):
        moved = np.zeros(len(names), dtype=bool)
        to, source = (slice(by, None), slice(None, -by)) if by > 0 else (slice(None, by), slice(-by, None))
        moved[to] = _nearly(got[:, to], right[:, source])
        inside = [at for at in (place, place + by) if 0 <= at < len(names) and moved[at]]
        if not inside:
            continue
        ends = np.flatnonzero(~np.r_[False, moved, False])
        first, last = ends[ends <= inside[0]].max(), ends[ends > inside[0]].min() - 1
        if (changed & moved)[first:last].sum() >= _BLOCK:
            where = f"{abs(by)} place{'s' if abs(by) > 1 else ''} to the {'right' if by > 0 else 'left'}"
            what = f"the vector is shifted {where} from {names[first].replace('__', '.', 1)} on"
            yield Explanation("feature_order", what, np.ones(len(evidence), dtype=bool), 3.0)
            return


def _nearly(one: Array, other: Array) -> Mask:
    """Columns that are the same in nearly all rows."""
    alike = (one == other) | (np.isnan(one) & np.isnan(other))
    return np.asarray(alike.mean(axis=0) >= _NEARLY)


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


def same(a: Column, b: Column) -> Mask:
    """Where both have a value, and the same; an absent one equals nothing."""
    one, other = (column.values.astype(np.float64) if a.dtype.is_numeric else column.values for column in (a, b))
    equal = one == other
    return np.asarray(a.present & b.present & equal, dtype=bool)


def plain(column: Column) -> Array:
    """The values as numpy sorts them."""
    return column.values.astype(str) if column.dtype == "string" else column.values
