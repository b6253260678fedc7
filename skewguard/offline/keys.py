"""Whole numbers for the values of keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast as typed

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewguard.offline.clock import NONE

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Coder = Callable[[pa.Array], Ints]

_WIDE = 1 << 40
_NARROW = 1 << 31  # of several columns, so that a product of two stays inside 63 bits


class Keys:
    """Whole numbers for key values, from 0 to `size` - 1. `columns`: chunks of Arrow, `rows` values in all."""

    def __init__(self, columns: Sequence[Sequence[pa.Array]], rows: int) -> None:
        self._coders: list[tuple[Coder, int]] = []
        self._seen: list[Ints | None] = []
        self.size = 1
        self._codes = np.zeros(rows, dtype=np.int64)
        wide = _WIDE if len(columns) == 1 else _NARROW
        for number, chunks in enumerate(columns):
            codes, coder, size = _integers(chunks, wide) if all(_is_whole(c.type) for c in chunks) else _values(chunks)
            self._codes = _product(self._codes, codes, size) if number else codes
            self.size *= size
            seen = None
            if self.size > wide:  # number only what occurs
                seen, codes = np.unique(self._codes, return_inverse=True)
                self._codes = np.where(self._codes == NONE, NONE, codes.reshape(-1))
                self.size = max(len(seen), 1)
            self._coders.append((coder, size))
            self._seen.append(seen)

    def take_codes(self) -> Ints:
        """The numbers of the rows, int64 (n,), NONE where a value is null. They are given away: once."""
        codes, self._codes = self._codes, np.empty(0, dtype=np.int64)
        return codes

    def of(self, columns: Sequence[pa.Array], rows: int) -> Ints:
        """The codes of other values, NONE where the source has no such key."""
        codes = np.zeros(rows, dtype=np.int64)
        for number, ((coder, size), seen, column) in enumerate(zip(self._coders, self._seen, columns, strict=True)):
            codes = _product(codes, coder(column), size) if number else coder(column)
            if seen is not None and len(seen):
                at = np.minimum(np.searchsorted(seen, codes), len(seen) - 1)
                codes = np.where((seen[at] == codes) & (codes != NONE), at, NONE)
        return codes


def _product(codes: Ints, part: Ints, size: int) -> Ints:
    joined = codes * size + part
    joined[(codes == NONE) | (part == NONE)] = NONE
    return joined


def _is_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_timestamp(kind))


def _integers(chunks: Sequence[pa.Array], wide: int) -> tuple[Ints, Coder, int]:
    """Whole numbers count from the least where they lie close together, else by rank."""
    pairs = [_int64(chunk) for chunk in chunks]
    values = np.concatenate([numbers for numbers, _ in pairs]) if pairs else np.empty(0, dtype=np.int64)
    whole = all(valid is None for _, valid in pairs)
    valid = None if whole else np.concatenate([_mask(valid, len(numbers)) for numbers, valid in pairs])
    some = values if valid is None else values[valid]
    low, high = (int(some.min()), int(some.max())) if len(some) else (0, 0)
    if high - low < wide:
        values -= low
        if valid is not None:
            values[~valid] = NONE

        def near(asked: pa.Array) -> Ints:
            numbers, there = _int64(asked)
            inside = (numbers >= low) & (numbers <= high)
            if there is not None:
                inside &= there
            if inside.all():
                return numbers - low
            return np.where(inside, np.where(inside, numbers, low) - low, NONE)

        return values, near, high - low + 1
    ranks, codes = np.unique(some, return_inverse=True)
    if valid is not None:
        codes, sparse = np.full(len(values), NONE, dtype=np.int64), codes
        codes[valid] = sparse.reshape(-1)

    def ranked(asked: pa.Array) -> Ints:
        numbers, there = _int64(asked)
        at = np.minimum(np.searchsorted(ranks, numbers), len(ranks) - 1)
        return np.where((ranks[at] == numbers) & _mask(there, len(numbers)), at, NONE)

    return codes.reshape(-1), ranked, len(ranks)


def _int64(column: pa.Array) -> tuple[Ints, Mask | None]:
    """The numbers, and which of them are valid: None for all of them."""
    whole = column.view(pa.int64()) if pa.types.is_timestamp(column.type) else column.cast(pa.int64())
    if not whole.null_count:
        return whole.to_numpy(), None
    return whole.fill_null(0).to_numpy(), np.asarray(whole.is_valid())


def _mask(valid: Mask | None, rows: int) -> Mask:
    return np.ones(rows, dtype=bool) if valid is None else valid


def _values(chunks: Sequence[pa.Array]) -> tuple[Ints, Coder, int]:
    """Strings and floats by their place among the distinct values."""
    encoded = pa.chunked_array(chunks).dictionary_encode().unify_dictionaries()
    distinct = encoded.chunk(0).dictionary if encoded.num_chunks else pa.array([], type=encoded.type.value_type)
    parts = [_places(chunk.indices) for chunk in encoded.chunks]

    def placed(asked: pa.Array) -> Ints:
        return _places(pc.index_in(asked, value_set=distinct, skip_nulls=True))

    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64), placed, max(len(distinct), 1)


def _places(indices: pa.Array) -> Ints:
    return typed(Ints, indices.cast(pa.int64()).fill_null(NONE).to_numpy())
