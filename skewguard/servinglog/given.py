"""What a service hands over, whatever it is built of, as columns: one meaning for lists, arrays, tables and frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewguard.errors import LogError
from skewguard.values import Column, Dtype, Status


def listed(value: Any) -> list[Any]:
    """One value for each row; a single value is one row's."""
    return list(value) if isinstance(value, list | tuple | np.ndarray | pa.Array) or _is_series(value) else [value]


def is_text(value: object) -> bool:
    """Whether it is a text that names something."""
    return isinstance(value, str) and bool(value)


def is_whole(value: object) -> bool:
    """Whether it is a whole number, and no bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_series(value: Any) -> bool:
    return hasattr(value, "to_numpy") and hasattr(value, "tolist")


def mapping(values: Any) -> Mapping[str, Any]:
    """Columns by name; raises `LogError` for what has no names."""
    columns = named_columns(values)
    if columns is None:
        raise LogError(f"expected values under their features' names, got {type(values).__name__}.")
    return columns


def named_columns(values: Any) -> Mapping[str, Any] | None:
    """Columns by name, of a mapping, an Arrow table, or anything that is built like a data frame."""
    if isinstance(values, Mapping):
        return values
    if isinstance(values, pa.Table | pa.RecordBatch):
        return dict(zip(values.schema.names, values.columns, strict=True))
    if hasattr(values, "columns") and hasattr(values, "__getitem__"):
        return {str(name): values[name] for name in values.columns}
    return None


_EXACT = {Dtype.FLOAT64: float, Dtype.INT64: int, Dtype.STRING: str, Dtype.BOOL: bool}
LARGEST = 2**63


def column_of(values: Any, dtype: Dtype, n: int, where: str) -> Column:
    """n values in their declared dtype, by the one cast; raises `LogError`, `CastError`."""
    if n == 1 and type(values) is list and len(values) == 1 and (one := one_value(values[0], dtype)) is not None:
        return one
    try:
        array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError) as error:
        raise LogError(f"{where}: expected {dtype}, got {values!r:.80}: {error}") from error
    if len(array) != n:
        raise LogError(f"{where}: expected {n} values, one for each row, got {len(array)}.")
    return Column.from_arrow(array, dtype, where)


def one_value(value: Any, dtype: Dtype) -> Column | None:
    """One value that needs no cast, without the detour through Arrow; None for any other."""
    if value is None:
        return Column.absent(dtype, 1, Status.NULL)
    kind = type(value)
    if kind is not _EXACT.get(dtype) or value != value or (kind is int and not -LARGEST <= value < LARGEST):  # noqa: PLR0124  (NaN)
        return None
    values = np.empty(1, dtype=dtype.numpy)
    values[0] = value
    return Column(dtype, values, np.zeros(1, dtype=np.uint8))


def numbers_of(values: Any, n: int, where: str) -> npt.NDArray[np.float64]:
    """n numbers, float64 (n,)."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise LogError(f"{where}: expected numbers, got {values!r:.80}.") from error
    if numbers.size != n:
        raise LogError(f"{where}: expected {n} numbers, one for each row, got an array of shape {numbers.shape}.")
    return np.ascontiguousarray(numbers.reshape(n))
