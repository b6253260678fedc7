"""What a feature value is: its dtype, its status, the only cast and the only equality in the house.

A value travels as a `Column`: contiguous numpy values of the declared dtype beside one `Status` per row. Rows
whose status is neither PRESENT nor DEFAULTED hold the dtype's filler, so that equal columns are equal in bytes.
Times are UTC, microseconds.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewguard.errors import CastError

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

NO_TIME = np.iinfo(np.int64).min
"""The instant (int64 microseconds) that stands for 'no such time'; also numpy's NaT."""


ULPS_ACROSS_CLASSES = 4
"""By how many units in the last place a float may differ where the two sides ran on different numeric classes."""


class Status(enum.IntEnum):
    """How present a value is, most present first: of several, the greatest is the least present."""

    PRESENT = 0
    DEFAULTED = 1
    NULL = 2
    EXPIRED = 3
    FUTURE = 4
    NOT_FOUND = 5
    NOT_REQUESTED = 6
    ERROR = 7

    @property
    def has_value(self) -> bool:
        """Whether a value stands behind this status."""
        return self <= Status.DEFAULTED


_WITH_VALUE = int(Status.DEFAULTED)
"""The least present status that still has a value, as a plain number: it is compared in every column."""


class Dtype(enum.StrEnum):
    """The declared type of a feature, a key or a request field.

    `arrow`: the Arrow type of its column in a snapshot and in the log. `numpy`: what a transform sees; strings are
    objects (`str`). `filler`: what stands in a column where there is no value. `is_float`: NaN is possible, and
    canonicalised to null at the border. `is_numeric`: the value can enter a numeric model vector. `lies_as_arrow`: the
    bytes of its values are those of Arrow's.
    """

    FLOAT64 = "float64"
    FLOAT32 = "float32"
    INT64 = "int64"
    INT32 = "int32"
    BOOL = "bool"
    STRING = "string"
    TIMESTAMP = "timestamp[us, UTC]"

    arrow: pa.DataType
    numpy: np.dtype[Any]
    filler: Any
    is_float: bool
    is_numeric: bool
    lies_as_arrow: bool


def _describe(dtype: Dtype, arrow: pa.DataType, filler: Any) -> None:
    dtype.arrow, dtype.filler = arrow, filler
    dtype.numpy = np.dtype(
        "datetime64[us]" if dtype is Dtype.TIMESTAMP else filler.__class__ if filler != "" else object
    )
    dtype.is_float = dtype in (Dtype.FLOAT64, Dtype.FLOAT32)
    dtype.is_numeric = dtype not in (Dtype.STRING, Dtype.TIMESTAMP)
    dtype.lies_as_arrow = dtype.is_numeric and dtype is not Dtype.BOOL


# Plain attributes of the members: a lookup through the enum costs more than many a value's computation.
_describe(Dtype.FLOAT64, pa.float64(), np.float64("nan"))
_describe(Dtype.FLOAT32, pa.float32(), np.float32("nan"))
_describe(Dtype.INT64, pa.int64(), np.int64(0))
_describe(Dtype.INT32, pa.int32(), np.int32(0))
_describe(Dtype.BOOL, pa.bool_(), np.bool_(False))
_describe(Dtype.STRING, pa.string(), "")
_describe(Dtype.TIMESTAMP, pa.timestamp("us", tz="UTC"), np.datetime64(0, "us"))


def accepts(dtype: Dtype, source: pa.DataType) -> bool:
    """Whether values of `source` may become `dtype` at all; losses are judged value by value."""
    types = pa.types
    if types.is_null(source):
        return True
    if dtype in (Dtype.FLOAT64, Dtype.FLOAT32, Dtype.INT64, Dtype.INT32):
        return bool(types.is_floating(source) or types.is_integer(source) or types.is_decimal(source))
    if dtype is Dtype.BOOL:
        return bool(types.is_boolean(source))
    if dtype is Dtype.STRING:
        texts = types.is_string(source) or types.is_large_string(source) or types.is_string_view(source)
        return bool(texts or types.is_integer(source))
    return bool(types.is_timestamp(source) or types.is_date(source))


def cast(values: pa.Array | pa.ChunkedArray, dtype: Dtype, where: str) -> pa.Array:
    """Bring `values` to `dtype`: the one cast of join, online writer and request parser.

    A narrowing that the declaration asks for (float64 to float32, nanoseconds to microseconds) happens; a loss
    that it does not ask for (1.9 or NaN to int64, an integer beyond 2**53 to float64, 1e300 to float32) raises
    `CastError` with the value. The NaN of a float becomes null. `where` names the column in the error.
    """
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if isinstance(array, pa.ChunkedArray):  # a chunked array without chunks stays chunked
        array = pa.array([], type=array.type)
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    if not accepts(dtype, array.type):
        raise CastError(
            f"{where}: expected {dtype}, got {array.type}. Declare the column's own type or fix the source."
        )
    if array.type != dtype.arrow:
        array = _convert(array, dtype, where)
    if dtype.is_float and len(array):
        nan = pc.is_nan(array)
        if pc.any(nan).as_py():
            array = pc.if_else(nan, pa.scalar(None, dtype.arrow), array)
    return array


def _convert(array: pa.Array, dtype: Dtype, where: str) -> pa.Array:
    try:
        return _exact(array, dtype)
    except pa.ArrowInvalid as error:
        lost = _lost(array, dtype)
        raise CastError(f"{where}: {lost!r} does not fit {dtype} without loss ({array.type} in the source).") from error


def _exact(array: pa.Array, dtype: Dtype) -> pa.Array:
    """The converted values; raises `ArrowInvalid` for a loss that the declaration does not ask for."""
    if dtype is Dtype.TIMESTAMP and pa.types.is_timestamp(array.type) and array.type.unit == "ns":
        array = pc.floor_temporal(array, unit="microsecond")
    if dtype is not Dtype.FLOAT32 or pa.types.is_integer(array.type):
        return array.cast(dtype.arrow, safe=True)
    wide = array.cast(pa.float64(), safe=True)
    narrow = wide.cast(dtype.arrow, safe=False)
    if pc.any(pc.and_(pc.is_inf(narrow), pc.is_finite(wide))).as_py():
        raise pa.ArrowInvalid("too large for float32")
    return narrow


def _lost(array: pa.Array, dtype: Dtype) -> Any:
    """The first value that does not fit, found by halving."""
    while len(array) > 1:
        half = len(array) // 2
        try:
            _exact(array.slice(0, half), dtype)
        except pa.ArrowInvalid:
            array = array.slice(0, half)
        else:
            array = array.slice(half)
    return array[0].value if pa.types.is_timestamp(array.type) else array[0].as_py()  # too late for a `datetime`


_NULL, _PRESENT = np.uint8(Status.NULL), np.uint8(Status.PRESENT)


@dataclass(frozen=True, slots=True)
class Column:
    """Values of one dtype for n rows, with how present each is.

    `values` has shape (n,), is contiguous, and has `dtype.numpy`; `status` has shape (n,), dtype uint8. Where the
    status has no value behind it, `values` holds `dtype.filler`.
    """

    dtype: Dtype
    values: Array
    status: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def present(self) -> Mask:
        """Mask of the rows that have a value, shape (n,)."""
        return self.status <= _WITH_VALUE

    @classmethod
    def build(cls, dtype: Dtype, values: Array, status: npt.NDArray[np.uint8]) -> Column:
        """Canonical column: NaN and NaT become NULL, rows without a value the filler. Copies only if it must."""
        values = np.ascontiguousarray(values, dtype=dtype.numpy)
        if dtype.is_float or dtype is Dtype.TIMESTAMP:
            nan = (np.isnan(values) if dtype.is_float else np.isnat(values)) & (status <= _WITH_VALUE)
            if nan.any():
                status = np.where(nan, _NULL, status)
        gone = status > _WITH_VALUE
        if gone.any():
            values = values.copy()
            values[gone] = dtype.filler
        return cls(dtype, values, status)

    @classmethod
    def from_arrow(
        cls,
        array: pa.Array | pa.ChunkedArray,
        dtype: Dtype,
        where: str,
        status: npt.NDArray[np.uint8] | None = None,
    ) -> Column:
        """Cast `array` to `dtype`; `status` (uint8, one per row) says how present the row itself is."""
        array = cast(array, dtype, where)
        missing = np.asarray(array.is_null())
        own = np.where(missing, _NULL, _PRESENT)
        if status is not None:
            own = np.maximum(own, status)
        if missing.any():
            fill = pa.scalar(dtype.filler.item() if isinstance(dtype.filler, np.generic) else dtype.filler)
            fill = pa.scalar(0, pa.int64()).cast(dtype.arrow) if dtype is Dtype.TIMESTAMP else fill.cast(dtype.arrow)
            array = array.fill_null(fill)
        if dtype is Dtype.TIMESTAMP:
            values = array.cast(pa.int64()).to_numpy(zero_copy_only=False).view("datetime64[us]")
        else:
            values = array.to_numpy(zero_copy_only=False)
        return cls.build(dtype, values, own)

    def to_arrow(self, *, whole: bool = False) -> pa.Array:
        """The same values as Arrow, null where there is no value; `whole`: the caller knows that all are present."""
        if self.dtype.lies_as_arrow and (whole or not self.status.any()):
            return pa.Array.from_buffers(self.dtype.arrow, len(self.values), [None, pa.py_buffer(self.values)])
        gone = ~self.present
        if self.dtype is Dtype.TIMESTAMP:
            return pa.array(self.values.view("int64"), type=pa.int64(), mask=gone).view(self.dtype.arrow)
        return pa.array(self.values, type=self.dtype.arrow, mask=gone)

    def take(self, rows: Array) -> Column:
        """The rows at `rows` (integer indices or a mask), as a column of their own."""
        return Column(self.dtype, np.ascontiguousarray(self.values[rows]), self.status[rows])

    @classmethod
    def absent(cls, dtype: Dtype, rows: int, status: Status) -> Column:
        """A column without a single value, all rows of one status."""
        values = np.full(rows, dtype.filler, dtype=dtype.numpy)
        return cls(dtype, values, np.full(rows, status, dtype=np.uint8))

    @classmethod
    def concat(cls, columns: list[Column]) -> Column:
        """Columns of one dtype one below the other."""
        return cls(
            columns[0].dtype,
            np.concatenate([c.values for c in columns]),
            np.concatenate([c.status for c in columns]),
        )

    def value(self, row: int) -> Any:
        """The plain Python value of one row, None where there is none."""
        if not self.status[row] <= _WITH_VALUE:
            return None
        value = self.values[row]
        return value.item() if isinstance(value, np.generic) else value

    def content(self) -> tuple[bytes, ...]:
        """The logical content (no chunks, no addresses), to be hashed stream by stream.

        Each stream of the rows that follow continues this one's: where a table is cut does not matter.
        """
        status = self.status.tobytes()
        if self.dtype is Dtype.STRING:
            encoded = [text.encode() for text in self.values.tolist()]
            return status, np.array([len(text) for text in encoded], dtype="<i8").tobytes(), b"".join(encoded)
        if self.dtype.is_float:
            return status, (self.values + self.dtype.numpy.type(0)).tobytes()  # -0.0 + 0.0 is 0.0
        return status, self.values.tobytes()


@dataclass(frozen=True, eq=False, slots=True)
class Block(Mapping[str, Column]):
    """Columns of one dtype for the same n rows, side by side: what is done to all of them is done at once.

    `matrix` (k, n) of `dtype.numpy` and `statuses` (k, n) uint8 are C-contiguous; `names` says at which of the k places
    each column lies, in their order. A column is made when it is asked for, and shares its memory with the block.
    """

    dtype: Dtype
    names: Mapping[str, int]
    matrix: Array
    statuses: npt.NDArray[np.uint8]

    def __getitem__(self, name: str) -> Column:
        at = self.names[name]
        return Column(self.dtype, self.matrix[at], self.statuses[at])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def under(self, status: npt.NDArray[np.uint8]) -> Block:
        """The same where a row is no more present than `status` (n,) says."""
        worse = np.maximum(self.statuses, status)
        matrix = self.matrix.copy()
        matrix[worse > _WITH_VALUE] = self.dtype.filler
        return Block(self.dtype, self.names, matrix, worse)


def same(a: Column, b: Column, *, rtol: float = 0.0, atol: float = 0.0, ulps: int = 0) -> Mask:
    """Row by row: are the two the same value of the same status? The only equality in the house.

    Null equals null of the same status. Floats are equal bit for bit (-0.0 equals 0.0), within `ulps` units in the
    last place where the two sides ran on different numeric classes, or within `atol + rtol * max(|a|, |b|)` where a
    contract declares it; nothing finite is near infinity. Integers, strings, bools and timestamps exactly. Symmetric.
    Raises `CastError` for columns of other dtypes.
    """
    if a.dtype is not b.dtype:
        raise CastError(f"cannot compare {a.dtype} with {b.dtype}: one side was built from another declaration.")
    equal: Mask = np.asarray(a.values == b.values, dtype=bool)
    if a.dtype.is_float and (ulps or rtol or atol):
        near = _within_ulps(a.values, b.values, ulps)
        with np.errstate(all="ignore"):
            greater = np.maximum(np.abs(a.values), np.abs(b.values))
            near |= np.abs(a.values - b.values) <= atol + rtol * greater
        equal = equal | (near & np.isfinite(a.values) & np.isfinite(b.values))
    return np.asarray((a.status == b.status) & (equal | ~a.present), dtype=bool)


def _within_ulps(a: Array, b: Array, ulps: int) -> Mask:
    """Whether finite floats are at most `ulps` units in the last place apart: counted in integers, hence exact."""
    kind = np.dtype(f"i{a.dtype.itemsize}")
    lowest = np.iinfo(kind).min

    def ordered(x: Array) -> Array:
        bits = x.view(kind)
        return np.where(bits < 0, lowest - bits, bits)

    one, other = ordered(a), ordered(b)
    unsigned = f"u{kind.itemsize}"  # the difference of two signed numbers may exceed them
    distance = np.maximum(one, other).view(unsigned) - np.minimum(one, other).view(unsigned)
    return np.asarray(distance <= ulps)


def instant(text_or_us: int) -> str:
    """Microseconds since 1970 in UTC as ISO text, `-` for no time."""
    if text_or_us == NO_TIME:
        return "-"
    text = str(np.datetime64(text_or_us, "us"))
    return text.removesuffix(".000000") + "Z"
