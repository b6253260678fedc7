"""The decorator, the row map and the one runner."""

from __future__ import annotations

import functools
import importlib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from skewguard.errors import DefinitionError
from skewguard.values import Array, Column, Dtype, Status

ANNOTATED: dict[type, Dtype] = {
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
    where = f"{function.__module__}:{function.__qualname__}"
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise DefinitionError(f"{where}: an annotation cannot be read: {error}") from error
    complaints = []

    def dtype(name: str) -> Dtype:
        kind = hints.get(name)
        if kind not in ANNOTATED:
            shown = "nothing" if kind is None else repr(kind)
            complaints.append(f"{where}: {name} must be annotated float, int, bool, str or datetime, got {shown}")
        return ANNOTATED.get(typing.cast(type, kind), Dtype.FLOAT64)

    parameters = inspect.signature(function).parameters
    inputs = tuple((name, dtype(name)) for name in parameters)
    output = dtype("return")
    for name, parameter in parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            complaints.append(f"{where}: {name} must be a plain parameter: each stands for one column, in order")
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


def rowmap(function: Callable[..., Any], *columns: Any, out: type | None = None) -> Array:
    """Apply a scalar function of strings, dates or numbers row by row.

    Strings arrive as `str`, instants as aware `datetime` in UTC, numbers as Python numbers. The result has the dtype
    that `out` names, or the function's return annotation (float, int, bool, str or datetime), whatever it returns for
    some rows: raises `DefinitionError` where neither is given or a returned value is of another type. A float function
    may return None for 'no value'.
    """
    if type(columns[0]) is not np.ndarray and hasattr(type(columns[0]), "__rowmap__"):  # a traced column: see `tracer`
        return columns[0].__rowmap__(function, columns, out)  # type: ignore[no-any-return]
    dtype = ANNOTATED[out] if out in ANNOTATED else _annotated(function, out)
    rows = [_scalars(column) for column in columns]
    if len(rows) == 1 and len(rows[0]) > _FEW and type(rows[0][0]) in _HASHED:
        return _repeated(function, rows[0], dtype)
    return _array(function, list(map(function, *rows)), dtype)


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


def run(transform: Transform, inputs: Mapping[str, Column]) -> Column:
    """Run one transform on columns of n rows.

    `inputs` is keyed by parameter name. Rows in which an input has no value do not reach the body: their status is
    that of the least present input. Raises `DefinitionError` when the body raises, or returns another length or
    dtype than declared, naming the transform.
    """
    return run_all([(transform, [inputs[name] for name, _ in transform.inputs])])[0]


def run_all(calls: Iterable[tuple[Transform, Sequence[Column]]]) -> list[Column]:
    """Run several transforms, each on its columns in the order of its parameters; see `run`. The only place that
    calls a transform's body."""
    with np.errstate(all="ignore"):
        return [_run(transform, columns) for transform, columns in calls]


def _run(transform: Transform, columns: Sequence[Column]) -> Column:
    if len(columns) != len(transform.inputs):
        raise DefinitionError(f"{transform.reference}: expected {len(transform.inputs)} columns, got {len(columns)}")
    arrays = []
    for (_, dtype), column in zip(transform.inputs, columns):  # noqa: B905  (their number has been compared)
        if column.dtype is not dtype:
            return _run(transform, _widened(transform, columns))
        arrays.append(column.values)
    status = columns[0].status
    if status.size == 1:
        worst = max([column.status.item() for column in columns]) if len(columns) > 1 else status.item()
        if worst > _WITH_VALUE:
            return _NONE[transform.output][worst]
        return _finished(transform.output, _call(transform, arrays), _ONE[worst])
    for column in columns[1:]:
        if column.status is not status:
            status = np.maximum(status, column.status)
    if not len(status) or status.max() <= _WITH_VALUE:
        return _finished(transform.output, _call(transform, arrays), status)
    ready = status <= _WITH_VALUE
    values = np.full(len(ready), transform.output.filler, dtype=transform.output.numpy)
    values[ready] = _call(transform, [array[ready] for array in arrays])
    return Column.build(transform.output, values, status)


_WITH_VALUE = int(Status.DEFAULTED)
_FLOAT64, _STRING, _TIMESTAMP = (
    Dtype.FLOAT64,
    Dtype.STRING,
    Dtype.TIMESTAMP,
)  # a lookup in an enum costs as much as a sum
_ONE = [np.array([status], dtype=np.uint8) for status in Status]
_NONE = {dtype: [Column.absent(dtype, 1, status) for status in Status] for dtype in Dtype}
for _shared in (*_ONE, *(array for columns in _NONE.values() for c in columns for array in (c.values, c.status))):
    _shared.flags.writeable = False


def _finished(dtype: Dtype, values: Array, status: npt.NDArray[np.uint8]) -> Column:
    """`Column.build` for values of the right dtype that are all present, as far as they are no NaN."""
    if dtype is _TIMESTAMP:
        return Column.build(dtype, values, status)
    if dtype is _FLOAT64:
        if values.size == 1:
            value = values.item()
            if value != value:  # noqa: PLR0124  (NaN, at a tenth of what asking numpy costs)
                return _NONE[dtype][Status.NULL]
        elif np.isnan(values).any():
            return Column.build(dtype, values, status)
    column = _new(Column)  # as Column(dtype, values, status), at half the cost
    _set_dtype(column, dtype)
    _set_values(column, values)
    _set_status(column, status)
    return column


_new: Callable[[type[Column]], Column] = object.__new__
_set_dtype, _set_values, _set_status = (Column.__dict__[name].__set__ for name in ("dtype", "values", "status"))


def _call(transform: Transform, arrays: list[Array]) -> Array:
    wanted = transform.output.numpy
    rows = len(arrays[0])
    if not rows:
        return np.empty(0, dtype=wanted)
    for array in arrays:
        array.setflags(write=False)
    try:
        result = transform.function(*arrays)
        if type(result) is not np.ndarray:
            result = np.asarray(result)
    except Exception as error:
        raise DefinitionError(f"{transform.reference} raised {type(error).__name__}: {error}") from error
    if result.shape != (rows,):
        raise DefinitionError(f"{transform.reference}: expected {rows} values, one per row, got shape {result.shape}")
    if transform.output is _STRING:
        return _texts(transform, result)
    if result.dtype is wanted:
        return result if rows == 1 or result.flags.c_contiguous else np.ascontiguousarray(result)
    if not np.can_cast(result.dtype, wanted, "safe"):
        raise DefinitionError(f"{transform.reference}: declared {transform.output}, returned {result.dtype}")
    return np.ascontiguousarray(result, dtype=wanted)


def _texts(transform: Transform, result: Array) -> Array:
    """Texts as objects; numpy would take anything for one."""
    if result.size == 1 and type(result.item()) is str and result.dtype.hasobject:
        return result
    result = np.ascontiguousarray(result, dtype=object)
    for kind in set(map(type, result.tolist())):
        if kind is not str:
            raise DefinitionError(
                f"{transform.reference}: declared {transform.output}, returned {kind.__name__} among the values"
            )
    return result


def _widened(transform: Transform, columns: Sequence[Column]) -> list[Column]:
    return [
        column if column.dtype is dtype else _widen(column, dtype, f"{transform.reference}({name})")
        for column, (name, dtype) in zip(columns, transform.inputs, strict=True)
    ]


def _widen(column: Column, dtype: Dtype, where: str) -> Column:
    """A declared float32 or int32 feeds a `float` or `int` parameter exactly; nothing else changes type here."""
    exact = {(Dtype.FLOAT32, Dtype.FLOAT64), (Dtype.INT32, Dtype.INT64), (Dtype.INT32, Dtype.FLOAT64)}
    if (column.dtype, dtype) not in exact:
        raise DefinitionError(f"{where}: the parameter is annotated {dtype}, its input is declared {column.dtype}")
    return Column.build(dtype, column.values.astype(dtype.numpy), column.status)
