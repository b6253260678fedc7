"""Fitted values: how a fit is run on a snapshot's rows, and how its value is written down and read back, exactly."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skewguard.errors import DefinitionError
from skewguard.transforms.declare import Fit, Transform
from skewguard.transforms.pool import CORNERS, batch, columns_of
from skewguard.values import Column

Plain = Any
"""A fitted value as plain JSON: a number or a text; {"table": [[key, value], ...]}; {"array": [...], "dtype": ...}."""

_ARRAYS = ("float64", "int64", "bool")
_TAME = 20
"""So many corners of each dtype are values that a mean can be taken of."""


def learn(fit: Fit, columns: Sequence[Column], where: str) -> Plain:
    """What `fit` makes of `columns`, in the order of its parameters: of the rows in which all of them have a value.

    Raises `DefinitionError` where it raises, or returns what cannot be written down exactly.
    """
    present = np.logical_and.reduce([column.present for column in columns])
    dtypes = [dtype.numpy for _, dtype in fit.inputs]  # a declared float32 widens exactly
    arrays = [np.ascontiguousarray(c.values[present], dtype=d) for c, d in zip(columns, dtypes, strict=True)]
    for array in arrays:
        array.setflags(write=False)
    try:
        with np.errstate(all="ignore"):
            value = fit.function(*arrays)
    except Exception as error:
        raise DefinitionError(
            f"{where}: {fit.reference} raised {type(error).__name__} on {int(present.sum()):,} rows: {error}"
        ) from error
    return encode(value, f"{where}: {fit.reference}")


def sample(transform: Transform) -> Transform:
    """`transform` bound to what its fits make of a few plain rows, so that it can be proven before there is a snapshot.

    Raises `DefinitionError` as `learn` does.
    """
    if not transform.fits or transform.fitted is not None:
        return transform
    values = {}
    for name, fit in transform.fits:
        rows = batch([CORNERS[dtype][:_TAME] for _, dtype in fit.inputs], 4 * _TAME)
        where = f"{transform.reference}({name})"
        values[name] = decode(learn(fit, columns_of(fit.inputs, rows), where))
    return transform.bind(values)


def encode(value: Any, where: str) -> Plain:
    """A fitted value as plain JSON that `decode` reads back bit for bit."""
    if isinstance(value, np.ndarray):
        if value.ndim != 1 or value.dtype.name not in _ARRAYS:
            raise _refused(where, f"an array {value.dtype} {value.shape}")
        return {"array": [_scalar(one, where) for one in value.tolist()], "dtype": value.dtype.name}
    if isinstance(value, Mapping):
        pairs = [[_scalar(key, where), _scalar(one, where)] for key, one in value.items()]
        kinds = {type(key) for key, _ in pairs}
        if len(kinds) > 1 or not kinds <= {str, int}:
            raise _refused(where, f"a table by {', '.join(sorted(kind.__name__ for kind in kinds))}")
        return {"table": sorted(pairs, key=lambda pair: pair[0])}
    return _scalar(value, where)


def decode(plain: Plain) -> Any:
    """The value that `encode` wrote, read-only: a number, a text, a mapping or an array."""
    if not isinstance(plain, dict):
        return plain
    if "table" in plain:
        return types.MappingProxyType(dict(plain["table"]))
    array = np.array(plain["array"], dtype=plain["dtype"])
    array.setflags(write=False)
    return array


def _scalar(value: Any, where: str) -> float | str:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise DefinitionError(
            f"{where} gives {value}. Leave it out, or give what stands for it: a fitted value is finite."
        )
    if not isinstance(value, bool | int | float | str):
        raise _refused(where, type(value).__name__)
    return value


def _refused(where: str, what: str) -> DefinitionError:
    return DefinitionError(
        f"{where} gives {what}. A fitted value is a number, a text, a dict of these by text or whole number, or a "
        f"one-dimensional array of {', '.join(_ARRAYS)}."
    )
