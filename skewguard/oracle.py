"""An independent oracle: brute force over the source rows in plain Python, so that the join is not its own witness.

It shares with the join what a value *is* (`values`, `expire`), and nothing of how it is found: no DuckDB, no timeline,
no ASOF; every row of the key is looked at for every ask. Slow on purpose; made for a sample.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewguard.definitions import Key, View
from skewguard.errors import SourceError
from skewguard.place import Place, parquet_files, shown
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
    times = [view.source.timestamp, *([view.source.created] if view.source.created else [])]
    table = _read(view.source.path, [*(k.column for k in view.keys), *times, *(f.column for f in view.features)])
    for i, key in enumerate(view.keys):
        wanted = pa.array({ask[i] for ask in asked if ask[i] is not None}, type=key.dtype.arrow)
        table = table.filter(pc.is_in(_key(table, key).to_arrow(), value_set=wanted))
    return table


def _key(table: pa.Table, key: Key) -> Column:
    return Column.from_arrow(table[key.column], key.dtype, key.column)


# -- the files, without DuckDB ----------------------------------------------------------------------------------------


def _read(path: str, columns: Sequence[str]) -> pa.Table:
    """These columns of every file that a source's path means, columns of its partitions among them."""
    wanted = list(dict.fromkeys(columns))
    with _readable(shown(path)):
        files = parquet_files(path)
        partitions = _partitions(files)
        inside = [name for name in wanted if name not in partitions]
        tables = []
        for at, one in enumerate(files):
            table = _columns(one, inside)
            for name in [name for name in wanted if name in partitions]:
                value = partitions[name].slice(at, 1).take(pa.array([0] * len(table), pa.int64()))
                table = table.append_column(name, value)
            tables.append(table.select(wanted))
        return pa.concat_tables(tables, promote_options="permissive")


def _columns(place: Place, names: Sequence[str]) -> pa.Table:
    with _readable(place.name), place.open() as stream, pq.ParquetFile(stream) as file:
        missing = [name for name in names if name not in file.schema_arrow.names]
        if missing:
            raise SourceError(f"{place}: column {missing[0]!r} is missing: the cross-check cannot read it")
        return file.read(columns=list(names))


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{name}: cannot be read for the cross-check: {error}") from error


def _partitions(files: Sequence[Place]) -> dict[str, pa.Array]:
    """What the folders say (`month=7/day=2013-07-01/`), a value per file; nothing where files have other ones.

    Typed as DuckDB does: whole numbers, else days, else texts; `__HIVE_DEFAULT_PARTITION__` is null.
    """
    told = [dict(part.split("=", 1) for part in file.path.split("/")[:-1] if "=" in part) for file in files]
    if any(one.keys() != told[0].keys() for one in told):
        return {}
    return {name: _typed([_text(one[name]) for one in told]) for name in told[0]}


def _text(value: str) -> str | None:
    return None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)


def _typed(texts: Sequence[str | None]) -> pa.Array:
    there = [text for text in texts if text is not None]
    if there and all(re.fullmatch(r"0|-?[1-9]\d{0,18}", text) for text in there):
        return pa.array([None if text is None else int(text) for text in texts], pa.int64())
    if there and all(re.fullmatch(r"\d{4}-\d\d-\d\d", text) for text in there):
        return pa.array(texts, pa.string()).cast(pa.date32())
    return pa.array(texts, pa.string())
