"""Hashes of values and rows: over what a value is, never over its bytes in a file; plain numpy, 64 bits a lane.

Good for evidence and for matching; no protection against somebody who makes collisions on purpose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewguard.values import Array, Column, Dtype

Hashes = npt.NDArray[np.uint64]

_SEEDS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03))
_NULL = np.uint64(0x6A09E667F3BCC908)
_ODD = np.uint64(0xFF51AFD7ED558CCD)
_A, _B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def hash_values(column: Column, lane: int = 0) -> Hashes:
    """One number per value, shape (n,): the same for the same value, one for every row without a value."""
    return np.where(column.present, _mixed(_numbers(column)[lane] + _SEEDS[lane]), _NULL)


def hash_rows(columns: Sequence[Column], rows: int) -> Hashes:
    """Two numbers per row, shape (n, 2): the same for rows of the same values, in the order of the columns."""
    lanes = np.tile(np.array(_SEEDS), (rows, 1))
    for column in columns:
        present = column.present
        for lane, numbers in enumerate(_numbers(column)):
            value = np.where(present, _mixed(numbers + _SEEDS[lane]), _NULL)
            lanes[:, lane] = _mixed(lanes[:, lane] * _ODD + value)
    return lanes


def whole(instants: Array) -> Column:
    """Microseconds (int64) as a column, `NO_TIME` a number like any other."""
    return Column(Dtype.INT64, instants, np.zeros(len(instants), dtype=np.uint8))


def _mixed(x: Hashes) -> Hashes:
    """Every bit of the input moves every bit of the output (the finalizer of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * _A
    x = (x ^ (x >> np.uint64(27))) * _B
    mixed: Hashes = x ^ (x >> np.uint64(31))
    return mixed


def _numbers(column: Column) -> tuple[Hashes, Hashes]:
    """Every value as 64 bits, exactly; a text as 128 bits of its hash, a lane each."""
    values = column.values
    if column.dtype is Dtype.STRING:
        coded = pa.array(values, pa.string()).dictionary_encode()
        digests = b"".join(hashlib.blake2b(t.encode(), digest_size=16).digest() for t in coded.dictionary.to_pylist())
        table = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
        codes = coded.indices.to_numpy()
        return table[codes, 0].astype(np.uint64), table[codes, 1].astype(np.uint64)
    if column.dtype.is_float:
        bits = (values.astype(np.float64) + 0.0).view(np.uint64)  # -0.0 + 0.0 is 0.0
    else:
        bits = values.astype(np.int64).view(np.uint64)
    return bits, bits
