"""Are two values the same, whatever types the two sides gave them? `values.same` decides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from skewguard.values import Column, Dtype, same

_LONG = 2**63


def plain(value: Any) -> Any:  # noqa: PLR0911  (one line per kind of type)
    """A value as plain Python: no numpy, no pandas; times aware, in UTC."""
    if isinstance(value, np.ndarray):
        return [plain(one) for one in value.tolist()]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, datetime):
        if not value == value:  # noqa: PLR0124, SIM201  (pandas' NaT)
            return None
        value = value.to_pydatetime(warn=False) if hasattr(value, "to_pydatetime") else value
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value


def alike(a: Any, b: Any) -> bool:
    """Whether two plain values are the same. NaN is not null here: code on demand sees which of the two it is."""
    if a is None or b is None:
        return a is b
    if isinstance(a, list) or isinstance(b, list):
        both = isinstance(a, list) and isinstance(b, list) and len(a) == len(b)
        return both and all(alike(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Mapping) or isinstance(b, Mapping) or isinstance(a, bytes) or isinstance(b, bytes):
        return bool(a == b)
    dtype = _common(a, b)
    return dtype is not None and bool(same(_column(a, dtype), _column(b, dtype))[0])


def _common(a: Any, b: Any) -> Dtype | None:
    kinds = {type(a), type(b)}
    if kinds == {int}:
        return Dtype.INT64 if max(abs(a), abs(b)) < _LONG else None
    if kinds <= {int, float}:
        exact = all(isinstance(x, float) or int(float(x)) == x for x in (a, b))
        return Dtype.FLOAT64 if exact else None
    return {bool: Dtype.BOOL, str: Dtype.STRING, datetime: Dtype.TIMESTAMP}.get(type(a)) if len(kinds) == 1 else None


def _column(value: Any, dtype: Dtype) -> Column:
    return Column.from_arrow(pa.array([value], dtype.arrow), dtype, "value")


def is_nan(value: Any) -> bool:
    """Whether this is a float that is none."""
    return isinstance(value, float) and math.isnan(value)


def shown(value: Any) -> str:
    """A value as it is written in a sentence."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Exception):
        return raised(value)
    return "null" if value is None else repr(value)


def raised(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
