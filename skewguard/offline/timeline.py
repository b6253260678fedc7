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
import pyarrow as pa

from skewguard.offline.clock import NONE, Clock, Ints, Packed, order, repeated
from skewguard.offline.keys import Keys
from skewguard.values import NO_TIME

Resolve = Callable[[Ints], Ints]


class Timeline:
    """The rows of one source, ready to be asked. Row numbers are positions in the arrays given.

    `keys`: the key columns (chunks of Arrow, declared dtypes, n rows in all). `event`, `created`: int64 microseconds
    (n,), a row without an event (`NO_TIME`) is no row. `late`: whether a row is known from max(event, created), and not
    from its event. `resolve` orders rows that are equal in key and both times (it is given their numbers, and returns
    them with the one that should answer last); such ties are a defect of the source: `losers` are the rows that never
    answer for it, `tied` these and those that do.
    """

    def __init__(
        self, keys: Sequence[Sequence[pa.Array]], event: Ints, created: Ints, *, late: bool, resolve: Resolve
    ) -> None:
        self._keys = Keys(keys, len(event))
        self._event, self._created = event, created
        codes = self._keys.take_codes()
        known = np.maximum(event, created) if late else event
        if len(event) and event.min() == NO_TIME:
            gone = event == NO_TIME
            codes = np.where(gone, NONE, codes)
            lowest = event[~gone].min() if not gone.all() else np.int64(0)
            same, event = known is event, np.where(gone, lowest, event)
            known = event if same else np.where(gone, lowest, known)
        chosen = np.flatnonzero(codes != NONE) if len(codes) and codes.min() == NONE else None
        self._clock = Clock(self._keys.size, event, known)
        happened = self._clock.pack(codes, event)
        learnt = self._clock.pack(codes, known) if known is not event else None
        del codes, known, event
        rows = self._sorted(happened, chosen)
        self._happened, self._rows = happened[rows], rows
        del happened
        self.losers, self.tied = _settle(rows, self._happened, created, resolve)
        self._known, self._answers = self._happened, rows
        if learnt is not None:
            learnt = learnt[rows]
            if not (learnt[1:] >= learnt[:-1]).all():  # some rows became known out of order
                turn = order(learnt, self._clock.bits)
                learnt, self._answers = learnt[turn], rows[np.maximum.accumulate(turn)]
            self._known = learnt

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        arrays = {id(a): a.nbytes for a in (self._happened, self._rows, self._known, self._answers)}
        return sum(arrays.values())

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
        codes = self._clock.keys(self._happened)
        rows = self._search(codes, np.full(len(codes), known_by, dtype=np.int64))
        return typed(Ints, rows[rows != NONE])

    def _sorted(self, packed: Packed, chosen: Ints | None) -> Ints:
        """Row numbers in the order of `packed`; only of the chosen rows where some are left out."""
        if chosen is None:
            return order(packed, self._clock.bits)
        return chosen[order(packed[chosen], self._clock.bits)]

    def _search(self, codes: Ints, as_of: Ints) -> Ints:
        if not len(self._known) or not len(codes):
            return np.full(len(codes), NONE, dtype=np.int64)
        there = codes != NONE
        asked = self._clock.pack_floor(codes if there.all() else np.maximum(codes, 0), as_of)
        turn = order(asked, self._clock.bits, exact=False)  # neighbours among the asks become neighbours in memory
        asked = asked[turn]
        place = np.searchsorted(self._known, asked, side="right") - 1
        hit = place >= 0
        place[~hit] = 0
        hit &= self._clock.same_key(self._known[place], asked)
        hit &= (there & self._clock.reaches(as_of))[turn]
        rows = self._answers[place]
        rows[~hit] = NONE
        found = np.empty(len(codes), dtype=np.int64)
        found[turn] = rows
        return found


def _settle(rows: Ints, ordered: Packed, created: Ints, resolve: Resolve) -> tuple[Ints, Ints]:
    """Order rows of one key and event by created time, in place, and full ties by `resolve`.

    `ordered`: key and event of the rows, which are in their order. The rows that lose, and all that are tied.
    """
    places = repeated(ordered)
    if not len(places):
        return places, places
    some, groups = rows[places], ordered[places]
    group = np.cumsum(np.append(0, groups[1:] != groups[:-1]))
    times = created[some]
    clock = Clock(int(group[-1]) + 1, times, times)
    packed = clock.pack(group, times)
    turn = order(packed, clock.bits)
    some, packed = some[turn], packed[turn]
    tied = repeated(packed)
    if len(tied):
        better = resolve(some[tied])  # ascending in what they hold
        of_row = np.argsort(some[tied])
        again = packed[tied][of_row[np.searchsorted(some[tied], better, sorter=of_row)]]
        some[tied] = better[np.argsort(again, kind="stable")]
    rows[places] = some
    losers = some[:-1][packed[1:] == packed[:-1]]
    return losers, some[tied]
