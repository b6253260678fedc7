"""A Parquet file as Great Expectations is shown it: its schema, and data frames of a few columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from skewguard.errors import SourceError

_EXACT_BELOW = 2**53


class ParquetFile:
    """A Parquet file, or a folder of them: `schema`, number of `rows`, and columns on demand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._dataset = ds.dataset(path, format="parquet")
            self.schema: pa.Schema = self._dataset.schema
            self.rows: int = self._dataset.count_rows()
        except (OSError, pa.ArrowException) as error:
            raise SourceError(
                f"{path}: expected a Parquet file, got {error}. Write it, or correct the path."
            ) from error
        self.names: list[str] = list(self.schema.names)

    def frame(self, columns: Sequence[str]) -> pd.DataFrame:
        """All rows of `columns`, as pandas reads them; see `_as_pandas`."""
        try:
            table: pa.Table = self._dataset.to_table(columns=list(columns))
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{self.path}: columns {', '.join(columns)} cannot be read: {error}") from error
        return pd.DataFrame({name: _as_pandas(table.column(name)) for name in columns}, copy=False)

    def shape(self) -> pd.DataFrame:
        """No rows, with the dtypes that the file's schema declares."""
        return pd.DataFrame({field.name: pd.Series([], dtype=_declared(field.type)) for field in self.schema})

    def take(self, rows: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """A few rows, by their number in the file, with those of `columns` that it has."""
        known = [name for name in columns if name in self.names]
        found: list[dict[str, Any]] = self._dataset.take(pa.array(rows, pa.int64()), columns=known).to_pylist()
        return found


def _as_pandas(column: pa.ChunkedArray) -> pd.Series[Any]:
    """A column as pandas reads it, with the house's readings.

    Decimals and floats become float64 (Great Expectations takes narrow floats through Python, value by value), instants
    without a zone and dates are UTC, and integers beside nulls keep all their digits.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    elif pa.types.is_decimal(kind) or pa.types.is_floating(kind):
        column = column.cast(pa.float64())
    elif pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s")).cast(pa.timestamp("s", "UTC"))
    elif pa.types.is_timestamp(kind) and kind.tz is None:
        column = column.cast(pa.timestamp(kind.unit, "UTC"))
    exact = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype()}
    series: pd.Series[Any] = column.to_pandas(types_mapper=exact.get if _loses_digits(column) else None)
    return series


def _loses_digits(column: pa.ChunkedArray) -> bool:
    """Whether pandas, which makes floats of integers beside nulls, would lose digits of these."""
    if not pa.types.is_integer(column.type) or not column.null_count:
        return False
    ends = pc.min_max(column).as_py()
    return ends["min"] is not None and max(abs(ends["min"]), abs(ends["max"])) > _EXACT_BELOW


def _declared(kind: pa.DataType) -> Any:
    """The pandas dtype that says the same as an Arrow type, with the same readings as `_as_pandas`."""
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind):
        return pd.StringDtype()
    if types.is_timestamp(kind) or types.is_date(kind):
        return pd.DatetimeTZDtype("us", "UTC")  # type: ignore[arg-type]  # the stubs know nanoseconds only
    if types.is_decimal(kind):
        return "float64"
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        return kind.to_pandas_dtype()
    if types.is_null(kind):
        return "object"  # it has no value that could be of the wrong type
    return pd.ArrowDtype(kind)
