"""The values that a transform is tried on: the corners of each dtype, and the constants of its own code beside them."""

from __future__ import annotations

import ast
import math
import types
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from skewguard.errors import DefinitionError
from skewguard.transforms.declare import Inputs, Transform
from skewguard.transforms.source import definition, plain, reachable, used
from skewguard.values import Column, Dtype

CORNERS: dict[Dtype, list[Any]] = {
    Dtype.FLOAT64: [
        0.0, 1.0, -1.0, 0.5, 2.0, 3.0, 0.1, 1 / 3, -2.5, 7.25, 10.0, 12.0, 24.0, 59.0, 99.99, 100.0, 180.0, 270.5,
        359.9, 1000.0, 12345.678, -0.0, 1e-9, 1e6, 1e9, -1e9, 2.0**31, 2.0**53, 2.0**63, 1e100, -1e100, 1e-300, 5e-324,
        1.7976931348623157e308, math.inf, -math.inf,
    ],
    Dtype.INT64: [
        0, 1, -1, 2, 3, 5, 7, 10, 12, 24, 31, 59, 60, 100, 255, 256, 365, 1000, 1969, 1970, 2000, 2013, 2024, 9999,
        10**6, -100, 2**31 - 1, 2**31, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63),
    ],
    Dtype.BOOL: [False, True],
    Dtype.STRING: [
        "", "a", "b", "A", "B", "ab", "AB", " ", " a ", "0", "1", "-1", "1.5", "007", "1e3", "nan", "None", "UA", "JFK",
        "a b", "a,b", "a-b", "a|b", "a@b.c", "2013-07-04", "12:30", "\t\n", "\x00", "é", "e\u0301", "ß", "İ", "ﬁ",
        "日本", "🛫", "٣", "x" * 300,
    ],
    Dtype.TIMESTAMP: [
        datetime.fromisoformat(f"{text}+00:00")
        for text in (
            "1970-01-01T00:00", "2013-07-04T03:30", "2014-01-01T04:45", "2013-03-10T06:59:59.999999",
            "2013-03-10T07:00", "2013-11-03T05:30", "2013-11-03T06:30", "2012-02-29T12:00",
            "2013-12-31T23:59:59.999999", "1969-12-31T23:59:59.999999", "1900-01-01T00:00", "2000-02-29T00:00",
            "2024-12-30T00:00", "2038-01-19T03:14:08", "2099-06-15T18:15:30.123456",
        )
    ],
}  # fmt: skip


_MORE: dict[Dtype, list[Any]] = {
    Dtype.STRING: ["//host:port"],
    Dtype.TIMESTAMP: [datetime(2023, month, day, 10, 30, tzinfo=UTC) for month, day in ((1, 31), (3, 31), (10, 30))],
}
"""Values that are tried, but are no part of the golden ones."""


def pools(transform: Transform) -> list[list[Any]]:
    """Values for each input, the plain ones first; the same in every process."""
    own = [*_constants(transform.function), *_scalars(dict(transform.fitted or {}))]
    return [_distinct([*CORNERS[dtype], *_fitting(own, dtype), *_MORE.get(dtype, ())]) for _, dtype in transform.inputs]


def corners(transform: Transform) -> list[list[Any]]:
    """Values for each input that do not depend on the transform's code: what golden outputs are computed on."""
    return [list(CORNERS[dtype]) for _, dtype in transform.inputs]


def batch(values: list[list[Any]], rows: int) -> list[tuple[Any, ...]]:
    """`rows` rows in which every value occurs, each beside ever other neighbours; without chance."""
    strides = [1, 7, 11, 13, 17, 19, 23, 29, 31, 37]
    return [
        tuple(
            pool[(row * strides[i % len(strides)] + (row // len(pool)) * (i + 1)) % len(pool)]
            for i, pool in enumerate(values)
        )
        for row in range(rows)
    ]


def columns(transform: Transform, rows: list[tuple[Any, ...]]) -> list[Column]:
    """Rows of plain values as the transform's input columns."""
    return columns_of(transform.inputs, rows)


def columns_of(inputs: Inputs, rows: list[tuple[Any, ...]]) -> list[Column]:
    """Rows of plain values as columns."""
    return [_column(dtype, [row[i] for row in rows]) for i, (_, dtype) in enumerate(inputs)]


def _column(dtype: Dtype, values: list[Any]) -> Column:
    array = np.empty(len(values), dtype=dtype.numpy)
    if dtype is Dtype.TIMESTAMP:
        values = [np.datetime64(value.replace(tzinfo=None), "us") for value in values]
    array[:] = values
    return Column.build(dtype, array, np.zeros(len(values), dtype=np.uint8))


def _distinct(values: list[Any]) -> list[Any]:
    return list({(type(value), repr(value)): value for value in values}.values())


def _fitting(values: list[Any], dtype: Dtype) -> Iterator[Any]:
    """Constants that an input of `dtype` can hold, with their neighbours."""
    for value in values:
        kind = type(value)
        if dtype is Dtype.FLOAT64 and kind in (int, float) and math.isfinite(value) and abs(value) < 1e308:
            yield from (float(value), math.nextafter(value, math.inf), math.nextafter(value, -math.inf))
        elif dtype is Dtype.INT64 and kind in (int, float) and abs(value) < 2**62:
            yield from (math.floor(value), math.floor(value) - 1, math.floor(value) + 1)
        elif dtype is Dtype.STRING and kind is str and value[:1] < "\ud800":
            yield from (value, value.lower(), value.upper(), f" {value}", f"{value}x")
        elif dtype is Dtype.TIMESTAMP and isinstance(value, datetime) and value.tzinfo is not None:
            yield value.astimezone(UTC)


def _constants(function: Callable[..., Any]) -> Iterator[Any]:
    """Literals in the code of `function` and of its helpers, and the values of the tables that they read."""
    for one in reachable(function):
        try:
            node: ast.AST = definition(one)
        except DefinitionError:
            continue
        yield from (inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant))
        for value in used(one).values():
            if not isinstance(value, types.ModuleType) and plain(value) is None:
                yield from _scalars(value)


_MOST = 300
"""So many values of one table are enough."""


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, np.ndarray):
        value = value.ravel()[:_MOST].tolist()
    if isinstance(value, set | frozenset):
        value = sorted(value, key=repr)
    if isinstance(value, Mapping):
        value = [*list(value)[:_MOST], *list(value.values())[:_MOST]]
    if isinstance(value, list | tuple):
        for part in value[:_MOST]:
            yield from _scalars(part)
    elif isinstance(value, np.generic):
        yield value.item()
    else:
        yield value
