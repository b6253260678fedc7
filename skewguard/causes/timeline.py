"""The source rows of a view that the pairs witness, in order of time; and the instant that most rows agree on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from skewguard.replay import Pairs
from skewguard.values import NO_TIME, Array, Column, Mask, Status

Ints = npt.NDArray[np.int64]

NEVER = np.int64(1 << 61)
"""An instant after all others."""

_PRIME = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Timeline:
    """R source rows of a view, by key and known time, as far as truths and served rows name them.

    `asked` (n,) is the key of every pair as a number; `key`, `known` (R,) those of the rows, known = max(event,
    created); `event` and `features` what they say.
    """

    asked: Ints
    key: Ints
    known: Ints
    event: Ints
    features: Mapping[str, Column]

    @classmethod
    def of(cls, pairs: Pairs, view: str) -> Timeline:
        """The rows that answer the asks of `pairs`, and those that were served."""
        asked = _keys(pairs, view)
        sides = [side.views[view] for side in (pairs.truth, pairs.as_known)]
        there = np.concatenate([(s.event != NO_TIME) & (s.status <= Status.NULL) for s in sides])
        at = np.flatnonzero(there)
        keys = np.concatenate([asked, asked])[at]
        event, created = (np.concatenate([getattr(s, t) for s in sides])[at] for t in ("event", "created"))
        known = np.maximum(event, created)
        order = np.lexsort((created, event, known, keys))
        if len(order):
            stacked = np.stack([keys, known, event, created])[:, order]
            first = np.ones(len(order), dtype=bool)
            first[1:] = (stacked[:, 1:] != stacked[:, :-1]).any(axis=0)
            order = order[first]
        features = {
            name: Column.concat([s.features[name] for s in sides]).take(at[order]) for name in sides[0].features
        }
        return cls(asked, keys[order], known[order], event[order], features)

    def following(self, key: Ints, known: Ints) -> Ints:
        """When the next row of each key became known after `known`; `NEVER` where none is witnessed."""
        if not len(self.known):
            return np.full(len(key), NEVER)
        instants = np.unique(self.known)
        rows = _joined(self.key, np.searchsorted(instants, self.known))
        at = np.searchsorted(rows, _joined(key, np.searchsorted(instants, known, side="right")))
        inside = np.minimum(at, len(rows) - 1)
        there = (at < len(rows)) & (self.key[inside] == key)
        return np.where(there, self.known[inside], NEVER)

    def place(self, key: Ints, known: Ints) -> Ints:
        """How many of the witnessed rows come before one of this key and known time, over all keys."""
        instants = np.unique(self.known)
        return np.searchsorted(
            _joined(self.key, np.searchsorted(instants, self.known)), _joined(key, np.searchsorted(instants, known))
        )

    def dated(self, key: Ints, event: Ints) -> Ints:
        """The place of the row of each key with exactly this event time, the one known last; -1 where there is none."""
        if not len(self.key):
            return np.full(len(key), -1)
        instants, rows, order = self._by_event
        at = np.minimum(np.searchsorted(instants, event), len(instants) - 1)
        there, wanted = instants[at] == event, _joined(key, at)
        place = np.searchsorted(rows, wanted, side="right") - 1
        there &= (place >= 0) & (rows[np.maximum(place, 0)] == wanted)
        return np.where(there, order[np.maximum(place, 0)], -1)

    @cached_property
    def _by_event(self) -> tuple[Ints, Ints, Ints]:
        instants, moment = np.unique(self.event, return_inverse=True)
        order = np.lexsort((self.known, moment, self.key))
        return instants, _joined(self.key, moment)[order], order

    def distinct(self, names: Iterable[str]) -> int:
        """How many different rows of these features there are."""
        return len(np.unique(hashed({name: self.features[name] for name in names}))) if len(self.known) else 0

    def origin(self, key: Ints, as_of: Ints, served: Mapping[str, Column]) -> tuple[Ints, Ints, Mask]:
        """Where served values come from: (place of the newest row of the key with exactly these values known by then,
        place of the first known later, whether other keys alone have them); -1 where there is none.
        """
        m = len(key)
        both_sides = {name: Column.concat([column, self.features[name]]) for name, column in served.items()}
        _, values = np.unique(hashed(both_sides), return_inverse=True)
        values = values.astype(np.int64)
        if not len(self.key):
            nothing = np.full(m, -1)
            return nothing, nothing, np.zeros(m, dtype=bool)
        instants = np.unique(self.known)
        _, both = np.unique(_joined(np.concatenate([key, self.key]), values), return_inverse=True)
        both = both.astype(np.int64)
        order = np.lexsort((self.known, both[m:]))
        rows = _joined(both[m:], np.searchsorted(instants, self.known))[order]
        after = np.searchsorted(rows, _joined(both[:m], np.searchsorted(instants, as_of, side="right")))

        def place(at: Ints) -> Ints:
            inside = np.clip(at, 0, len(rows) - 1)
            there = (at == inside) & (rows[inside] >> 32 == both[:m])
            return np.where(there, order[inside], -1)

        older, later = place(after - 1), place(after)
        elsewhere = np.isin(values[:m], values[m:]) & (older < 0) & (later < 0)
        return older, later, np.asarray(elsewhere)


def hashed(columns: Mapping[str, Column]) -> Array:
    """One number per row for all its values."""
    number = np.zeros(len(next(iter(columns.values()))), dtype=np.uint64)
    for column in columns.values():
        with np.errstate(over="ignore"):
            number = (number + encode(column).astype(np.uint64) + np.uint64(1)) * _PRIME
            number ^= number >> np.uint64(29)
    return number


def encode(column: Column) -> Ints:
    """Which distinct value each row has, as a number; rows without a value by their status."""
    found = column.to_arrow().dictionary_encode(null_encoding="encode").indices.to_numpy().astype(np.int64)
    return np.where(column.present, found + 8, column.status.astype(np.int64))


def differing(one: Column, other: Column) -> Mask:
    """Where two columns of one dtype have different values, or one has none."""
    codes = encode(Column.concat([one, other]))
    return np.asarray(codes[: len(one)] != codes[len(one) :])


def densest(low: Array, high: Array) -> tuple[int, int, int]:
    """The stretch that lies within most of the intervals [low, high], and in how many: (from, to, count)."""
    whole = low <= high
    if not whole.any():
        return 0, 0, 0
    at = np.concatenate([low[whole], high[whole]])
    step = np.repeat([1, -1], int(whole.sum()))
    order = np.lexsort((-step, at))  # at one instant intervals begin before others end
    inside = np.cumsum(step[order])
    best = int(inside.argmax())
    return int(at[order[best]]), int(at[order[min(best + 1, len(order) - 1)]]), int(inside[best])


def _joined(high: Ints, low: Array) -> Ints:
    return (high.astype(np.int64) << 32) | low.astype(np.int64)


def _keys(pairs: Pairs, view: str) -> Ints:
    codes = np.zeros(len(pairs), dtype=np.int64)
    for key in pairs.bundle.view(view).keys:
        mine = encode(pairs.served.spine.keys[key.ask])
        _, codes = np.unique(codes * (int(mine.max(initial=0)) + 1) + mine, return_inverse=True)
    return codes.astype(np.int64)
