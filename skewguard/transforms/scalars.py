"""Row by row: scalar functions of texts, dates and numbers, mapped over columns; the dtype of each annotation."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from skewguard.errors import DefinitionError
from skewguard.values import Array, Dtype

ANNOTATED: dict[type, Dtype] = {
    float: Dtype.FLOAT64,
    int: Dtype.INT64,
    bool: Dtype.BOOL,
    str: Dtype.STRING,
    datetime: Dtype.TIMESTAMP,
}


def rowmap(function: Callable[..., Any], *columns: Any, out: type | None = None) -> Array:
    """Apply a scalar function of strings, dates or numbers row by row.

    Strings arrive as `str`, instants as aware `datetime` in UTC, numbers as Python numbers. The result has the dtype
    that `out` names, or the function's return annotation (float, int, bool, str or datetime), whatever it returns for
    some rows: raises `DefinitionError` where neither is given or a returned value is of another type. A float function
    may return None for 'no value'.
    """
    if type(columns[0]) is not np.ndarray and hasattr(type(columns[0]), "__rowmap__"):  # a traced column: see `tracer`
        return columns[0].__rowmap__(function, columns, out)  # type: ignore[no-any-return]
    return mapped(function, ANNOTATED[out] if out in ANNOTATED else _annotated(function, out), *columns)


def mapped(function: Callable[..., Any], dtype: Dtype, *columns: Array) -> Array:
    """`rowmap` once it is known what the function returns."""
    if columns[0].size == 1 and type(columns[0]) is np.ndarray:
        return _single(function, dtype, columns)
    rows = [_scalars(column) for column in columns]
    if len(rows) == 1 and len(rows[0]) > _FEW and type(rows[0][0]) in _HASHED:
        return _repeated(function, rows[0], dtype)
    return _array(function, list(map(function, *rows)), dtype)


def _single(function: Callable[..., Any], dtype: Dtype, columns: tuple[Array, ...]) -> Array:
    """One row, without the lists around it."""
    value = function(*[c.item().replace(tzinfo=UTC) if c.dtype.kind == "M" else c.item() for c in columns])
    if type(value) is not _SCALARS[dtype][0] or dtype is Dtype.TIMESTAMP:
        return _array(function, [value], dtype)
    array = np.empty(1, dtype=dtype.numpy)
    array[0] = value
    return array


_FEW = 32
"""Up to so many rows it does not pay to look for repeated values."""


def scalar_type(function: Callable[..., Any], out: type | None) -> Dtype:
    """The declared dtype of what `function` returns for one row."""
    return ANNOTATED[out] if out in ANNOTATED else _annotated(function, out)


@functools.lru_cache(maxsize=512)
def _annotated(function: Callable[..., Any], out: type | None) -> Dtype:
    name = getattr(function, "__qualname__", repr(function))
    if out is not None:
        raise DefinitionError(f"rowmap({name}): out must be float, int, bool, str or datetime, got {out!r}")
    try:
        hint = typing.get_type_hints(function).get("return")
    except (NameError, TypeError):
        hint = None
    if hint == float | None:
        hint = float
    if hint not in ANNOTATED:
        raise DefinitionError(
            f"rowmap({name}): nothing says what it returns. Annotate it with float, int, bool, str or datetime, or "
            "give out=."
        )
    return ANNOTATED[hint]


_HASHED = (str, datetime)
"""Types whose equal values cannot be told apart: 0.0 equals -0.0 and 1 equals True, but these are what they are."""


def _scalars(column: Array) -> list[Any]:
    if type(column) is not np.ndarray:  # a list, in somebody's unit test
        column = np.asarray(column)
    rows: list[Any] = column.tolist()
    if column.dtype.kind == "M":
        return [instant.replace(tzinfo=UTC) for instant in rows]
    return rows


def _repeated(function: Callable[..., Any], rows: list[Any], dtype: Dtype) -> Array:
    """`rowmap` of texts or instants, calling `function` once per distinct value where there are few."""
    distinct = list(dict.fromkeys(rows))
    if 2 * len(distinct) > len(rows):
        return _array(function, list(map(function, rows)), dtype)
    values = _array(function, list(map(function, distinct)), dtype)
    table = dict(zip(distinct, values if dtype is Dtype.TIMESTAMP else values.tolist(), strict=True))
    return np.fromiter(map(table.__getitem__, rows), dtype=dtype.numpy, count=len(rows))


_SCALARS: dict[Dtype, tuple[type, ...]] = {
    Dtype.FLOAT64: (float, int, np.floating, np.integer, type(None)),
    Dtype.INT64: (int, np.integer),
    Dtype.BOOL: (bool, np.bool_),
    Dtype.STRING: (str,),
    Dtype.TIMESTAMP: (datetime,),
}


def _array(function: Callable[..., Any], values: list[Any], dtype: Dtype) -> Array:
    allowed = _SCALARS[dtype]
    for kind in set(map(type, values)) if len(values) != 1 else (type(values[0]),):
        if kind is not allowed[0] and not issubclass(kind, allowed):
            name = getattr(function, "__qualname__", repr(function))
            value = next(value for value in values if type(value) is kind)
            raise DefinitionError(f"rowmap({name}): declared {dtype}, returned {value!r} for a row")
    if dtype is Dtype.TIMESTAMP:
        naive = [value for value in values if value.tzinfo is None]
        if naive:
            raise DefinitionError(f"rowmap: returned {naive[0]!r} without a time zone; add one, such as UTC")
        values = [value.astimezone(UTC).replace(tzinfo=None) for value in values]
    return np.fromiter(values, dtype=dtype.numpy, count=len(values))
