"""Golden values: what this machine, its numpy and its C library make of a definition, bit for bit."""

from __future__ import annotations

import hashlib
import warnings

import numpy as np

from skewguard.errors import DefinitionError
from skewguard.transforms.declare import Transform
from skewguard.transforms.pool import batch, columns, corners
from skewguard.transforms.runner import run_all
from skewguard.values import Column

_ROWS = 256


def golden(transform: Transform) -> str:
    """Digest (32 hex digits) of the transform's values on a fixed batch; empty where it raises."""
    rows = columns(transform, batch(corners(transform), _ROWS))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            content = bits(run_all([(transform, rows)])[0])
        except DefinitionError:
            return ""
    return hashlib.sha256(content).hexdigest()[:32]


def bits(column: Column) -> bytes:
    """Values and statuses, bit for bit (-0.0 is 0.0)."""
    return b"\0".join(column.content())
