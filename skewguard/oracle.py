"""An independent oracle: brute force over the source rows in plain Python, so that the join is not its own witness.

It shares with the join what a value *is* (`values`, `expire`), and nothing of how it is found: no DuckDB, no timeline,
no ASOF; every row of the key is looked at for every ask. Slow on purpose; made for a sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from skewguard.definitions import Key, View
from skewguard.errors import SourceError
from skewguard.spine import Spine, ViewRows, expire
from skewguard.values import NO_TIME, Column, Dtype, Status


def brute_force(view: View, spine: Spine, *, known: bool = True) -> ViewRows:
    """What `view` should answer to each ask of a small spine; `known=False` for Feast's rule.

    Raises `SourceError` where the source cannot be read.
    """
    asked: list[tuple[Any, ...]] = list(
        zip(*([spine.keys[key.ask].value(i) for i in range(len(spine))] for key in view.keys), strict=True)
    ) or [()] * len(spine)
    table = _rows_of(view, asked)
    columns_of_keys = [_key(table, key) for key in view.keys]
    keys = [tuple(column.value(row) for column in columns_of_keys) for row in range(len(table))]
    event, created = _times(table, view.source.timestamp), _times(table, view.source.created)
    features = [Column.from_arrow(table[f.column], f.dtype, f.column) for f in view.features]
    by_key: dict[tuple[Any, ...], list[int]] = {}
    for row, key in enumerate(keys):
        by_key.setdefault(key, []).append(row)
    chosen: list[int | None] = []
    for ask, as_of in zip(asked, spine.as_of.tolist(), strict=True):
        rows = np.array(by_key.get(ask, []) if None not in ask else [], dtype=np.int64)
        rows = rows[(event[rows] != NO_TIME) & (event[rows] <= as_of)]
        rows = rows[created[rows] <= as_of] if known else rows
        for times in (event, created):
            rows = rows[times[rows] == times[rows].max()] if len(rows) else rows
        chosen.append(max(rows.tolist(), key=lambda row: [_rank(f, row) for f in features], default=None))
    n = len(spine)
    status = np.array([Status.NOT_FOUND if row is None else Status.PRESENT for row in chosen], dtype=np.uint8)
    at = np.array([row or 0 for row in chosen], dtype=np.int64)
    found = status == Status.PRESENT
    own_event = np.where(found, np.append(event, NO_TIME)[at], NO_TIME)
    status = expire(status, own_event, spine.as_of, view.ttl_us)
    columns = {}
    for feature, column in zip(view.features, features, strict=True):
        taken = (column if len(column) else Column.absent(feature.dtype, 1, Status.NOT_FOUND)).take(at)
        columns[feature.name] = Column.build(feature.dtype, taken.values, np.maximum(status, taken.status))
    created_at = np.where(found, np.append(created, NO_TIME)[at], NO_TIME)
    return ViewRows(status, own_event, created_at, np.full(n, NO_TIME, dtype=np.int64), columns)


def _rank(column: Column, row: int) -> tuple[bool, Any]:
    """Of rows equal in both times the greatest in its features answers, null below everything."""
    value = column.value(row)
    return (value is not None, value if value is not None else 0)


def _times(table: pa.Table, name: str | None) -> npt.NDArray[np.int64]:
    if name is None:
        return np.full(len(table), NO_TIME, dtype=np.int64)
    column = Column.from_arrow(table[name], Dtype.TIMESTAMP, name)
    return np.where(column.present, column.values.view("int64"), NO_TIME)


def _rows_of(view: View, asked: Iterable[tuple[Any, ...]]) -> pa.Table:
    table = _read(view.source.path)
    for i, key in enumerate(view.keys):
        wanted = pa.array({ask[i] for ask in asked if ask[i] is not None}, type=key.dtype.arrow)
        table = table.filter(pc.is_in(_key(table, key).to_arrow(), value_set=wanted))
    return table


def _key(table: pa.Table, key: Key) -> Column:
    return Column.from_arrow(table[key.column], key.dtype, key.column)


def _read(path: str) -> pa.Table:
    try:
        return ds.dataset(Path(path), format="parquet").to_table()
    except (OSError, pa.ArrowInvalid) as error:
        raise SourceError(f"{path}: cannot be read for the cross-check: {error}") from error
