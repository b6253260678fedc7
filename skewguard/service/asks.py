"""From a JSON body to a spine, with the field named where something is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from skewguard.definitions import Bundle
from skewguard.errors import AskError, CastError
from skewguard.spine import Spine
from skewguard.values import Column, Dtype


def parse_ask(bundle: Bundle, entities: Mapping[str, Any], request_id: str, as_of: int) -> Spine:
    """A spine of one ask; `as_of` in microseconds. Keys and request fields stand side by side, as in Feast.

    Every key and request field must be named; null is allowed and means 'unknown'. Instants are ISO texts with an
    offset. Raises `AskError` with the first wrong field.
    """
    request = {field.name: field.dtype for field in bundle.request}
    known = bundle.keys | request
    for name in entities:
        if name not in known:
            raise AskError(name, f"unknown field; {bundle.service} takes {', '.join(known)}")
    columns = {}
    for name, dtype in known.items():
        if name not in entities:
            kind = "request field" if name in request else "entity key"
            raise AskError(name, f"{kind} is missing; expected {dtype}, or null where it is not known")
        columns[name] = _column(name, dtype, entities[name])
    return Spine(
        np.array([request_id], dtype=object),
        np.array([as_of], dtype=np.int64),
        {name: columns[name] for name in bundle.keys},
        {name: columns[name] for name in request},
    )


def _column(name: str, dtype: Dtype, value: Any) -> Column:
    if isinstance(value, float) and not math.isfinite(value):
        raise AskError(name, f"expected {dtype}, got {value}")
    if dtype is Dtype.TIMESTAMP and isinstance(value, str):
        value = instant_of(name, value)
    lossy = type(value) in (int, float) and dtype.is_numeric and dtype is not Dtype.BOOL
    why = ", which does not fit without loss" if lossy else ""
    wrong = AskError(name, f"expected {dtype}, got {_kind(value)} {value!r:.60}{why}")
    if dtype is Dtype.STRING and not isinstance(value, str | None):
        raise wrong  # a source's integer may become text, a caller's may not: 90210 is not "90210"
    try:
        return Column.from_arrow(pa.array([value], type=pa.null() if value is None else None), dtype, name)
    except UnicodeEncodeError as error:
        raise AskError(name, f"expected {dtype}, got half a character (a lone surrogate) in {value!r:.60}") from error
    except (CastError, pa.ArrowException, OverflowError, TypeError) as error:
        raise wrong from error


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


def _kind(value: Any) -> str:
    names = {str: "a string", bool: "a bool", int: "an integer", float: "a number", dict: "an object", list: "a list"}
    return names.get(type(value), type(value).__name__)
