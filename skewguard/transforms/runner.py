"""The one runner: it calls the body of a transform, on one row or on a million."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from skewguard.errors import DefinitionError
from skewguard.transforms.declare import Transform
from skewguard.values import Array, Column, Dtype, Status


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
        if worst > WITH_VALUE:
            return _NONE[transform.output][worst]
        return finished(transform.output, _call(transform, arrays), _ONE[worst])
    for column in columns[1:]:
        if column.status is not status:
            status = np.maximum(status, column.status)
    if not len(status) or status.max() <= WITH_VALUE:
        return finished(transform.output, _call(transform, arrays), status)
    ready = status <= WITH_VALUE
    values = np.full(len(ready), transform.output.filler, dtype=transform.output.numpy)
    values[ready] = _call(transform, [array[ready] for array in arrays])
    return Column.build(transform.output, values, status)


WITH_VALUE = int(Status.DEFAULTED)
"""The least present status that still has a value, as a plain number."""
_FLOAT64, _STRING, _TIMESTAMP = (
    Dtype.FLOAT64,
    Dtype.STRING,
    Dtype.TIMESTAMP,
)  # a lookup in an enum costs as much as a sum
_ONE = [np.array([status], dtype=np.uint8) for status in Status]
PRESENT = _ONE[Status.PRESENT]
"""The status of one row that is present; nobody writes into it."""
_NONE = {dtype: [Column.absent(dtype, 1, status) for status in Status] for dtype in Dtype}
for _shared in (*_ONE, *(array for columns in _NONE.values() for c in columns for array in (c.values, c.status))):
    _shared.flags.writeable = False


def finished(dtype: Dtype, values: Array, status: npt.NDArray[np.uint8]) -> Column:
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


WIDENED = {(Dtype.FLOAT32, Dtype.FLOAT64), (Dtype.INT32, Dtype.INT64), (Dtype.INT32, Dtype.FLOAT64)}
"""A declared float32 or int32 feeds a `float` or `int` parameter exactly; nothing else changes type here."""


def _widen(column: Column, dtype: Dtype, where: str) -> Column:
    if (column.dtype, dtype) not in WIDENED:
        raise DefinitionError(f"{where}: the parameter is annotated {dtype}, its input is declared {column.dtype}")
    return Column.build(dtype, column.values.astype(dtype.numpy), column.status)
