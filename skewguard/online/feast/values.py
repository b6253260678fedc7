"""Values between `feast.types.Value` and packed columns. Nothing is rounded on the way, and nothing guessed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values

from skewguard.errors import CastError
from skewguard.online.feast.views import VALUE
from skewguard.online.layout import STORED, Blobs, Carried, Kind
from skewguard.online.lists import element_of, list_of, pack_lists, pack_texts, unpack_list
from skewguard.values import NO_TIME, Array, Column, Dtype, Mask, Status

_FIELDS = {
    Dtype.FLOAT64: "double_val",
    Dtype.FLOAT32: "float_val",
    Dtype.INT64: "int64_val",
    Dtype.INT32: "int32_val",
    Dtype.BOOL: "bool_val",
    Dtype.STRING: "string_val",
    Dtype.TIMESTAMP: "unix_timestamp_val",
}
_LISTS = {dtype: field.replace("_val", "_list_val") for dtype, field in _FIELDS.items()}
_SECOND = 1_000_000
_EXACT = 2**53
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(at: datetime | None) -> int:
    """An instant, read as UTC where it has no zone; `NO_TIME` for none. Nanoseconds are rounded down."""
    if at is None or at != at:  # noqa: PLR0124  NaT is not itself
        return NO_TIME
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    return int((aware - _EPOCH) // _MICROSECOND)


def from_protos(values: Sequence[Value], kind: Kind, where: str) -> Column | Blobs:
    """A column of Feast's values; raises `CastError` for a value of another type, and one that lost digits before."""
    if kind == VALUE:
        return Blobs(VALUE, [v.SerializeToString() if v.WhichOneof("val") else None for v in values])
    if isinstance(kind, Carried):
        return _lists(values, element_of(kind) or Dtype.FLOAT64, where)
    field = _FIELDS[kind]
    null = np.array([v.WhichOneof("val") != field for v in values], dtype=np.bool_)
    _check_type(values, null, field, where)
    plain = [getattr(v, field) for v in values]
    if kind is Dtype.INT64 and null.any():
        _check_digits(plain, where)
    if kind is Dtype.TIMESTAMP:
        null |= np.array([value == NO_TIME for value in plain], dtype=np.bool_)  # Feast writes NaT for a null
        array = _instants(plain, where)
    else:
        array = np.array(plain, dtype=kind.numpy)
    return Column.build(kind, array, np.where(null, np.uint8(Status.NULL), np.uint8(Status.PRESENT)))


def _check_type(values: Sequence[Value], null: Mask, field: str, where: str) -> None:
    for i in np.flatnonzero(null).tolist():
        other = values[i].WhichOneof("val")
        if other and other != "null_val":
            raise CastError(f"{where}: expected {field}, got {other} ({getattr(values[i], other)!r})")


def _check_digits(plain: list[int], where: str) -> None:
    """Feast makes floats of an integer column with nulls before any store sees it."""
    for value in plain:
        if abs(value) >= _EXACT:
            raise CastError(
                f"{where}: {value} stands beside a null, and on Feast's way such a column becomes float64: digits "
                "above 2**53 are lost before they come here. Materialize with skewguard.online.feast.SkewguardEngine."
            )


def _instants(seconds: Sequence[int], where: str) -> Array:
    for value in seconds:
        if value != NO_TIME and abs(value) > 2**63 // _SECOND:
            raise CastError(f"{where}: {value} seconds since 1970 do not fit timestamp[us]")
    plain = np.array([0 if value == NO_TIME else value for value in seconds], dtype=np.int64)
    return (plain * _SECOND).view("datetime64[us]")


def _lists(values: Sequence[Value], dtype: Dtype, where: str) -> Blobs:
    field = _LISTS[dtype]
    null = np.array([v.WhichOneof("val") != field for v in values], dtype=np.bool_)
    _check_type(values, null, field, where)
    return Blobs(
        list_of(dtype),
        [
            None if gone else _packed(getattr(v, field).val, dtype, where)
            for v, gone in zip(values, null.tolist(), strict=True)
        ],
    )


def _packed(elements: Any, dtype: Dtype, where: str) -> bytes:
    if dtype is Dtype.STRING:
        return pack_texts([text.encode() for text in elements])
    if dtype is not Dtype.TIMESTAMP:
        return np.array(elements).astype(STORED[dtype]).tobytes()
    if NO_TIME in elements:
        raise CastError(f"{where}: a list has a null element; leave it out or fill it.")
    return _instants(elements, where).view("int64").astype(STORED[dtype]).tobytes()


def from_arrow(column: pa.ChunkedArray, kind: Kind, feast_type: Any, where: str) -> Column | Blobs:
    """A column of a source, through the one cast; without pandas, and without protobuf but for what is no list."""
    if isinstance(kind, Dtype):
        return Column.from_arrow(column, kind, where)
    element = element_of(kind)
    if element:
        return pack_lists(column, element, where)
    try:
        return from_protos(python_values_to_proto_values(column.to_pylist(), feast_type.to_value_type()), VALUE, where)
    except (ValueError, TypeError, AttributeError) as error:
        raise CastError(f"{where}: expected {feast_type}, got {column.type}: {error}") from error


def to_protos(column: Column | Blobs) -> list[Value]:
    """Feast's values, empty where there is none."""
    if isinstance(column, Blobs):
        return [Value() if blob is None else _carried(blob, column.dtype) for blob in column.values]
    field = _FIELDS[column.dtype]
    values = column.values
    if column.dtype is Dtype.TIMESTAMP:
        values = values.view("int64") // _SECOND
    made = [Value(**{field: value}) for value in values.tolist()]
    for i in np.flatnonzero(~column.present).tolist():
        made[i] = Value()
    return made


def _carried(blob: bytes, kind: Carried) -> Value:
    value = Value()
    dtype = element_of(kind)
    if dtype is None:
        value.ParseFromString(blob)
        return value
    elements = unpack_list(blob, dtype)
    if dtype is Dtype.TIMESTAMP:
        elements = np.asarray(elements) // _SECOND
    into = getattr(value, _LISTS[dtype])
    into.SetInParent()
    into.val.extend(elements if isinstance(elements, list) else elements.tolist())
    return value
