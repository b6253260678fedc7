"""One view's rows in the order in which they answer: the kernel of the point-in-time join.

A row is packed into one 64-bit number, key before time, so that one sort orders all keys at once and one binary search
per ask finds the last row known by then, however many rows a key has. Where rows become known in another order than
they happened, every place carries the running maximum of (event, created) among the rows known so far; the leading key
starts it anew for each key. Plain numpy, exact in 64-bit integers. See ADR 0002 and ADR 0011.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast as typed

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Packed = npt.NDArray[np.uint64]
Resolve = Callable[[Ints], Ints]

NONE = -1
"""The row that stands for no row, and the code of a key that the source does not have."""

_WIDE = 1 << 40
_BITS = 64


class Timeline:
    """The rows of one source, ready to be asked. Row numbers are positions in the arrays given.

    `keys`: the key columns (Arrow, declared dtypes, n rows each). `event`, `created`, `known`: int64 microseconds (n,).
    `resolve` orders rows that are equal in key and both times (it is given their numbers, and returns them with the one
    that should answer last); such ties are a defect of the source, and `losers` are the rows that never answer for it.
    """

    def __init__(self, keys: Sequence[pa.Array], event: Ints, created: Ints, known: Ints, resolve: Resolve) -> None:
        self._keys = _Keys(keys, len(event))
        self._event, self._created = event, created
        codes = self._keys.codes
        order = np.flatnonzero(codes != NONE) if len(codes) and codes.min() == NONE else None
        self._clock = _Clock(self._keys.size, event, known)
        happened = self._clock.pack(codes, event)
        rows = _sorted(happened, order)
        self.losers = _settle(rows, happened, created, resolve)
        self._happened, self._rows = happened[rows], rows
        self._known, self._answers = self._happened, rows
        if known is not event:
            learnt = self._clock.pack(codes, known)[rows]
            if not (learnt[1:] >= learnt[:-1]).all():  # some rows became known out of order
                turn = np.argsort(learnt, kind="stable")
                learnt, self._answers = learnt[turn], rows[np.maximum.accumulate(turn)]
            self._known = learnt

    def best(self, keys: Sequence[pa.Array], as_of: Ints) -> Ints:
        """The row that answers each ask: the greatest (event, created) among those known by `as_of`; NONE for none."""
        return self._search(self._keys.of(keys, len(as_of)), as_of)

    def find(self, keys: Sequence[pa.Array], event: Ints, created: Ints) -> Ints:
        """The row of exactly these keys and times; NONE where the source has none."""
        codes = self._keys.of(keys, len(event))
        asked, exact = self._clock.pack_exactly(codes, event)
        found = np.full(len(event), NONE, dtype=np.int64)
        place = np.searchsorted(self._happened, asked, side="right") - 1
        open_ = np.flatnonzero(exact & (place >= 0))
        while len(open_):
            at = place[open_]
            open_ = open_[self._happened[at] == asked[open_]]
            row = self._rows[place[open_]]
            hit = self._created[row] == created[open_]
            found[open_[hit]] = row[hit]
            open_ = open_[~hit]
            place[open_] -= 1  # rows of one event, latest created first
            open_ = open_[place[open_] >= 0]
        return found

    def of_key(self, keys: Sequence[pa.Array]) -> Ints:
        """The rows of one key (columns of one row), ordered by (event, created)."""
        code = self._keys.of(keys, 1)
        if code[0] == NONE or not len(self._rows):
            return np.empty(0, dtype=np.int64)
        first, last = self._clock.span(code)
        start, end = np.searchsorted(self._happened, first), np.searchsorted(self._happened, last, side="right")
        return self._rows[int(start[0]) : int(end[0])]

    def places(self, rows: Ints) -> Ints:
        """Where rows stand by (key, event, created), the answering one of equals last; NONE for rows without a key."""
        place = np.full(len(self._event), NONE, dtype=np.int64)
        place[self._rows] = np.arange(len(self._rows))
        return place[rows]

    def newest(self, known_by: int) -> Ints:
        """The answering row of every key that has one by `known_by`."""
        codes = np.unique(self._keys.codes)
        codes = codes[codes != NONE]
        rows = self._search(codes, np.full(len(codes), known_by, dtype=np.int64))
        return typed(Ints, rows[rows != NONE])

    def _search(self, codes: Ints, as_of: Ints) -> Ints:
        if not len(self._known):
            return np.full(len(codes), NONE, dtype=np.int64)
        asked = self._clock.pack_floor(codes, as_of)
        turn = np.argsort(asked)  # neighbours among the asks become neighbours in memory
        place = np.empty(len(asked), dtype=np.int64)
        place[turn] = np.searchsorted(self._known, asked[turn], side="right") - 1
        hit = (place >= 0) & (codes != NONE) & self._clock.reaches(as_of)
        place[~hit] = 0
        hit &= self._clock.same_key(self._known[place], asked)
        return np.where(hit, self._answers[place], NONE)


def _sorted(packed: Packed, chosen: Ints | None) -> Ints:
    """Row numbers in the order of `packed`; only of the chosen rows where some are left out."""
    if chosen is None:
        return np.argsort(packed)
    return chosen[np.argsort(packed[chosen])]


def _settle(rows: Ints, packed: Packed, created: Ints, resolve: Resolve) -> Ints:
    """Order rows of one key and event by created time, in place, and full ties by `resolve`; the rows that lose."""
    ordered = packed[rows]
    equal = np.flatnonzero(ordered[1:] == ordered[:-1])
    if not len(equal):
        return equal
    places = np.union1d(equal, equal + 1)
    some = rows[places]
    some = some[np.lexsort((created[some], packed[some]))]
    full = np.flatnonzero((packed[some[1:]] == packed[some[:-1]]) & (created[some[1:]] == created[some[:-1]]))
    if len(full):
        tied = np.union1d(full, full + 1)
        better = resolve(some[tied])  # ascending in what they hold
        some[tied] = better[np.lexsort((created[better], packed[better]))]
    rows[places] = some
    return some[full]


class _Clock:
    """Packs (key code, instant) into 64 bits. Instants count from the first, in steps of their common divisor.

    Where key and time do not fit, instants are replaced by their rank.
    """

    def __init__(self, size: int, event: Ints, known: Ints) -> None:
        both = (event, known) if known is not event else (event,)
        self._low = int(min((t.min() for t in both if len(t)), default=0))
        self._high = int(max((t.max() for t in both if len(t)), default=0))
        key_bits = max(size - 1, 1).bit_length()
        self._step, self._ranks = 1, typed(Ints | None, None)
        self._bits = (self._high - self._low + 1).bit_length()
        if key_bits + self._bits > _BITS:
            self._step = max(int(np.gcd.reduce([np.gcd.reduce(t - self._low) for t in both])), 1)
            self._bits = ((self._high - self._low) // self._step + 1).bit_length()
        if key_bits + self._bits > _BITS:
            self._ranks = np.unique(np.concatenate(both))
            self._bits = (len(self._ranks) + 1).bit_length()
        self._shift = np.uint64(self._bits)

    def pack(self, codes: Ints, instants: Ints) -> Packed:
        """Of instants that the clock knows."""
        return self._joined(codes, self._ticks(instants))

    def pack_floor(self, codes: Ints, instants: Ints) -> Packed:
        """Of any instants: the last tick not after them. `reaches` tells those before the first."""
        return self._joined(codes, self._ticks(np.clip(instants, self._low, self._high)))

    def pack_exactly(self, codes: Ints, instants: Ints) -> tuple[Packed, npt.NDArray[np.bool_]]:
        """Of any instants, and which of them (with a key) are ticks at all."""
        inside = (instants >= self._low) & (instants <= self._high) & (codes != NONE)
        ticks = self._ticks(np.where(inside, instants, self._low))
        back = self._ranks[ticks] if self._ranks is not None else ticks * self._step + self._low
        return self._joined(codes, ticks), inside & (back == instants)

    def reaches(self, instants: Ints) -> npt.NDArray[np.bool_]:
        """Which instants are not before the first."""
        return np.asarray(instants >= self._low)

    def same_key(self, a: Packed, b: Packed) -> npt.NDArray[np.bool_]:
        """Whether the key codes are the same."""
        return np.asarray((a >> self._shift) == (b >> self._shift))

    def span(self, codes: Ints) -> tuple[Packed, Packed]:
        """The least and the greatest number of each key."""
        low = codes.astype(np.uint64) << self._shift
        return low, low | np.uint64((1 << self._bits) - 1)

    def _ticks(self, instants: Ints) -> Ints:
        if self._ranks is not None:
            return np.searchsorted(self._ranks, instants, side="right") - 1
        since = instants - self._low
        return since if self._step == 1 else since // self._step

    def _joined(self, codes: Ints, ticks: Ints) -> Packed:
        # a code of NONE packs to nonsense, which `pack` never sorts and the searches mask
        return (codes.astype(np.uint64) << self._shift) | ticks.astype(np.uint64)


class _Keys:
    """Whole numbers for key values: `codes` int64 (n,), from 0 to `size` - 1, NONE where a value is null."""

    def __init__(self, columns: Sequence[pa.Array], rows: int) -> None:
        self._coders = [_integers(column) if _is_whole(column.type) else _values(column) for column in columns]
        self._seen: list[Ints | None] = []
        self.size = 1
        self.codes = np.zeros(rows, dtype=np.int64)
        for (coder, size), column in zip(self._coders, columns, strict=True):
            self.codes = _product(self.codes, coder(column), size)
            self.size *= size
            seen = None
            if self.size > _WIDE:  # number only what occurs
                seen, codes = np.unique(self.codes, return_inverse=True)
                self.codes = np.where(self.codes == NONE, NONE, codes.reshape(-1))
                self.size = max(len(seen), 1)
            self._seen.append(seen)

    def of(self, columns: Sequence[pa.Array], rows: int) -> Ints:
        """The codes of other values, NONE where the source has no such key."""
        codes = np.zeros(rows, dtype=np.int64)
        for (coder, size), seen, column in zip(self._coders, self._seen, columns, strict=True):
            codes = _product(codes, coder(column), size)
            if seen is not None and len(seen):
                at = np.minimum(np.searchsorted(seen, codes), len(seen) - 1)
                codes = np.where((seen[at] == codes) & (codes != NONE), at, NONE)
        return codes


Coder = Callable[[pa.Array], Ints]


def _product(codes: Ints, part: Ints, size: int) -> Ints:
    joined = codes * size + part
    joined[(codes == NONE) | (part == NONE)] = NONE
    return joined


def _is_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_timestamp(kind))


def _integers(column: pa.Array) -> tuple[Coder, int]:
    """Whole numbers count from the least where they lie close together, else by rank."""
    values, valid = _int64(column)
    some = values[valid] if not valid.all() else values
    low, high = (int(some.min()), int(some.max())) if len(some) else (0, 0)
    if high - low < _WIDE:

        def near(asked: pa.Array) -> Ints:
            numbers, there = _int64(asked)
            inside = there & (numbers >= low) & (numbers <= high)
            return np.where(inside, numbers - low if inside.all() else np.where(inside, numbers, low) - low, NONE)

        return near, high - low + 1
    ranks = np.unique(some)

    def ranked(asked: pa.Array) -> Ints:
        numbers, there = _int64(asked)
        at = np.minimum(np.searchsorted(ranks, numbers), len(ranks) - 1)
        return np.where(there & (ranks[at] == numbers), at, NONE)

    return ranked, len(ranks)


def _int64(column: pa.Array) -> tuple[Ints, npt.NDArray[np.bool_]]:
    whole = column.view(pa.int64()) if pa.types.is_timestamp(column.type) else column.cast(pa.int64())
    valid = np.asarray(whole.is_valid()) if whole.null_count else np.ones(len(whole), dtype=bool)
    return (whole.fill_null(0) if whole.null_count else whole).to_numpy(), valid


def _values(column: pa.Array) -> tuple[Coder, int]:
    """Strings and floats by their place among the distinct values."""
    distinct = column.unique().drop_null()

    def placed(asked: pa.Array) -> Ints:
        at = pc.index_in(asked, value_set=distinct, skip_nulls=True)
        return typed(Ints, at.fill_null(NONE).cast(pa.int64()).to_numpy())

    return placed, max(len(distinct), 1)
