"""From JSON bodies to a spine, with the field named where something is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from skewguard.definitions import Bundle
from skewguard.errors import AskError, CastError
from skewguard.service.problems import WrongRow
from skewguard.spine import Spine
from skewguard.values import Column, Dtype

Row = Mapping[str, Any]


def parse_ask(bundle: Bundle, entities: Row, request_id: str, as_of: int) -> Spine:
    """A spine of one ask; see `parse_asks`."""
    return parse_asks(bundle, [entities], [request_id], [as_of])


def parse_asks(
    bundle: Bundle, rows: Sequence[Row], ids: Sequence[str], as_of: ArrayLike, *, pinpoint: bool = True
) -> Spine:
    """A spine of n asks; `as_of` in microseconds. Keys and request fields stand side by side, as in Feast.

    Every key and request field must be named; null is allowed and means 'unknown'. Instants are ISO texts with an
    offset. Raises `AskError` with a wrong field; with `pinpoint` the first, as `WrongRow` where there are several asks.
    """
    try:
        return _parse(bundle, rows, ids, as_of)
    except AskError as error:
        if len(rows) == 1 or not pinpoint:
            raise
        row = _first_wrong(bundle, rows)
        first = _complaint(bundle, rows[row]) or error
        raise WrongRow(first.field, str(first).removeprefix(f"{first.field}: "), row) from error


def _complaint(bundle: Bundle, row: Row) -> AskError | None:
    """What is wrong with one ask."""
    try:
        _parse(bundle, [row], [""], [0])
    except AskError as error:
        return error
    return None


def _parse(bundle: Bundle, rows: Sequence[Row], ids: Sequence[str], as_of: ArrayLike) -> Spine:
    keys = bundle.keys
    request = {field.name: field.dtype for field in bundle.request}
    values = _by_name(bundle.service, rows, keys | request, request)
    names = np.empty(len(rows), dtype=object)
    names[:] = ids
    return Spine(
        names,
        np.array(as_of, dtype=np.int64),
        {name: _column(name, dtype, values[name]) for name, dtype in keys.items()},
        {name: _column(name, dtype, values[name]) for name, dtype in request.items()},
    )


def _by_name(
    service: str, rows: Sequence[Row], known: Mapping[str, Dtype], request: Mapping[str, Dtype]
) -> dict[str, list[Any]]:
    """The rows' values by field, in order; every row must have every field and no other."""
    try:
        values = {name: [row[name] for row in rows] for name in known}
    except KeyError:
        values = {}
    if values.keys() != known.keys() or set(map(len, rows)) != {len(known)}:
        wrong = next(row for row in rows if row.keys() != known.keys())
        raise _other_fields(service, wrong, known, request)
    return values


def _other_fields(service: str, row: Row, known: Mapping[str, Dtype], request: Mapping[str, Dtype]) -> AskError:
    for name in row:
        if name not in known:
            return AskError(name, f"unknown field; {service} takes {', '.join(known)}")
    name = next(name for name in known if name not in row)
    kind = "request field" if name in request else "entity key"
    return AskError(name, f"{kind} is missing; expected {known[name]}, or null where it is not known")


def _first_wrong(bundle: Bundle, rows: Sequence[Row]) -> int:
    """The first of `rows`, of which one is wrong, found by halving."""
    low, high = 0, len(rows)
    while high - low > 1:
        half = (low + high) // 2
        try:
            _parse(bundle, rows[low:half], [""] * (half - low), [0] * (half - low))
        except AskError:
            high = half
        else:
            low = half
    return low


_KINDS = {str: "a string", bool: "a bool", int: "an integer", float: "a number", dict: "an object", list: "a list"}


def _column(name: str, dtype: Dtype, values: list[Any]) -> Column:
    kinds = set(map(type, values)) if len(values) > 1 else {type(values[0])}
    if len(kinds) == 1 and _OWN.get(dtype) in kinds:
        return _as_is(name, dtype, values)
    kinds.discard(type(None))
    if len(kinds) > 1:  # as one array they would change each other's type
        return Column.concat([_column(name, dtype, [value]) for value in values])
    for kind in kinds:
        if kind is float:
            _all_finite(name, dtype, [value for value in values if value is not None])
        if kind is str and dtype is Dtype.TIMESTAMP:
            values = [None if value is None else instant_of(name, value) for value in values]
        if dtype is Dtype.STRING and kind is not str:  # a source's integer may become text, a caller's may not
            raise _wrong(name, dtype, values)
    try:
        return Column.from_arrow(pa.array(values, type=None if kinds else pa.null()), dtype, name)
    except UnicodeEncodeError as error:
        raise _half(name, dtype, [value for value in values if value is not None]) from error
    except (CastError, pa.ArrowException, OverflowError, TypeError) as error:
        raise _wrong(name, dtype, values) from error


_OWN: dict[Dtype, type] = {Dtype.INT64: int, Dtype.FLOAT64: float, Dtype.STRING: str, Dtype.BOOL: bool}
"""The type of a plain value that is a dtype's own: nothing needs to be cast."""


def _as_is(name: str, dtype: Dtype, values: list[Any]) -> Column:
    """Values of the dtype's own plain type, none of them null."""
    try:
        if dtype is Dtype.STRING:
            "".join(values).encode()
        elif dtype is Dtype.FLOAT64:
            _all_finite(name, dtype, values)
        return Column(dtype, np.array(values, dtype=dtype.numpy), np.zeros(len(values), dtype=np.uint8))
    except UnicodeEncodeError as error:
        raise _half(name, dtype, values) from error
    except OverflowError as error:
        raise _wrong(name, dtype, values) from error


def _all_finite(name: str, dtype: Dtype, values: list[float]) -> None:
    if not all(map(math.isfinite, values)):
        wrong = next(value for value in values if not math.isfinite(value))
        raise AskError(name, f"expected {dtype}, got {wrong}")


def _half(name: str, dtype: Dtype, values: list[str]) -> AskError:
    text = next(value for value in values if not _encodes(value))
    return AskError(name, f"expected {dtype}, got half a character (a lone surrogate) in {text!r:.60}")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrong(name: str, dtype: Dtype, values: list[Any]) -> AskError:
    """What is wrong with the first of the values; exact where there is one only."""
    value = values[0]
    lossy = type(value) in (int, float) and dtype.is_numeric and dtype is not Dtype.BOOL
    why = ", which does not fit without loss" if lossy else ""
    kind = _KINDS.get(type(value), type(value).__name__)
    return AskError(name, f"expected {dtype}, got {kind} {value!r:.60}{why}")


def instant_of(name: str, text: str) -> datetime:
    """An ISO instant with an offset, in UTC; raises `AskError` for anything else."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise AskError(name, f"expected an ISO instant such as 2013-11-04T10:15:00Z, got {text!r:.60}") from error
    if instant.tzinfo is None:
        raise AskError(name, f"expected an instant with an offset, got the naive {text!r:.60}; add Z for UTC")
    try:
        return instant.astimezone(UTC)
    except OverflowError as error:
        raise AskError(name, f"expected an instant in the years 1 to 9999 of UTC, got {text!r:.60}") from error
