"""The decorator, the row map and the one runner."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from skewguard.errors import DefinitionError
from skewguard.values import Array, Column, Dtype, Status

_ANNOTATED: dict[type, Dtype] = {
    float: Dtype.FLOAT64,
    int: Dtype.INT64,
    bool: Dtype.BOOL,
    str: Dtype.STRING,
    datetime: Dtype.TIMESTAMP,
}


@dataclass(frozen=True, slots=True)
class Transform:
    """A named, typed function of columns. Calling it calls the plain function, as a unit test would."""

    function: Callable[..., Any]
    name: str
    inputs: tuple[tuple[str, Dtype], ...]
    output: Dtype

    def __call__(self, *columns: Any) -> Any:
        return self.function(*columns)

    @property
    def reference(self) -> str:
        """`module:function`, by which a definition names this transform."""
        return f"{self.function.__module__}:{self.function.__qualname__}"


def transform(function: Callable[..., Any]) -> Transform:
    """Declare `function` as a feature. Raises `DefinitionError` for a parameter without one of the five types."""
    hints = typing.get_type_hints(function)
    where = f"{function.__module__}:{function.__qualname__}"
    complaints = []

    def dtype(name: str) -> Dtype:
        kind = hints.get(name)
        if kind not in _ANNOTATED:
            shown = "nothing" if kind is None else repr(kind)
            complaints.append(f"{where}: {name} must be annotated float, int, bool, str or datetime, got {shown}")
        return _ANNOTATED.get(typing.cast(type, kind), Dtype.FLOAT64)

    inputs = tuple((name, dtype(name)) for name in inspect.signature(function).parameters)
    output = dtype("return")
    if not inputs:
        complaints.append(f"{where}: a transform needs at least one input column")
    if complaints:
        raise DefinitionError(complaints)
    return Transform(function, function.__name__, inputs, output)


def load(reference: str) -> Transform:
    """The transform behind `module:function`; raises `DefinitionError` where there is none."""
    module, _, name = reference.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DefinitionError(f"transform {reference!r}: expected module:function, got {error}") from error
    if not isinstance(found, Transform):
        raise DefinitionError(f"transform {reference!r}: expected a function decorated with @transform, got {found!r}")
    return found


def rowmap(function: Callable[..., Any], *columns: Any) -> Array:
    """Apply a scalar function of strings, dates or numbers row by row.

    Strings arrive as `str`, instants as aware `datetime` in UTC, numbers as Python numbers. The result has the dtype
    of the returned values: object for strings, else numpy's for the first value's type.
    """
    rows = zip(*(_scalars(np.asarray(column)) for column in columns), strict=True)
    values = [function(*row) for row in rows]
    if not values:
        return np.array([], dtype=object)
    if isinstance(values[0], str):
        out = np.empty(len(values), dtype=object)
        out[:] = values
        return out
    return np.array(values)


def _scalars(column: Array) -> list[Any]:
    if column.dtype.kind == "M":
        from datetime import UTC

        return [instant.replace(tzinfo=UTC) for instant in column.tolist()]
    return typing.cast(list[Any], column.tolist())


def run(transform: Transform, inputs: Mapping[str, Column]) -> Column:
    """Run one transform on columns of n rows; the only place that calls a transform's body.

    `inputs` is keyed by parameter name. Rows in which an input has no value do not reach the body: their status is
    that of the least present input. Raises `DefinitionError` when the body raises, or returns another length or
    dtype than declared, naming the transform.
    """
    columns = []
    for name, dtype in transform.inputs:
        column = inputs[name]
        columns.append(column if column.dtype is dtype else _widen(column, dtype, f"{transform.reference}({name})"))
    status = columns[0].status
    for column in columns[1:]:
        status = np.maximum(status, column.status)
    ready = status <= Status.DEFAULTED
    everything = bool(ready.all())
    arrays = [column.values if everything else np.ascontiguousarray(column.values[ready]) for column in columns]
    result = _call(transform, arrays)
    if everything:
        return Column.build(transform.output, result, status)
    values = np.full(len(ready), transform.output.filler, dtype=transform.output.numpy)
    values[ready] = result
    return Column.build(transform.output, values, status)


def _call(transform: Transform, arrays: list[Array]) -> Array:
    rows = len(arrays[0])
    if not rows:
        return np.empty(0, dtype=transform.output.numpy)
    for array in arrays:
        array.flags.writeable = False
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(transform.function(*arrays))
    except Exception as error:
        raise DefinitionError(f"{transform.reference} raised {type(error).__name__}: {error}") from error
    if result.shape != (rows,):
        raise DefinitionError(f"{transform.reference}: expected {rows} values, one per row, got shape {result.shape}")
    wanted = transform.output.numpy
    if result.dtype != wanted and not np.can_cast(result.dtype, wanted, "same_kind"):
        raise DefinitionError(f"{transform.reference}: declared {transform.output}, returned {result.dtype}")
    return result.astype(wanted, copy=False)


def _widen(column: Column, dtype: Dtype, where: str) -> Column:
    """A declared float32 or int32 feeds a `float` or `int` parameter exactly; nothing else changes type here."""
    exact = {(Dtype.FLOAT32, Dtype.FLOAT64), (Dtype.INT32, Dtype.INT64), (Dtype.INT32, Dtype.FLOAT64)}
    if (column.dtype, dtype) not in exact:
        raise DefinitionError(f"{where}: the parameter is annotated {dtype}, its input is declared {column.dtype}")
    return Column.build(dtype, column.values.astype(dtype.numpy), column.status)
