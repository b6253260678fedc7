"""Standstills: a column that stays as it is for every key at once, which is rarer than for one key."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skewguard.values import Array, Mask

_LONGER = 3.0
_STEADY = 20
"""A column that stands still for every key must do so over so many source rows, a fifth of them of other
keys."""


@dataclass(frozen=True, slots=True)
class Standstill:
    """For how many source rows, and how long (microseconds), a column once stayed as it was for every key that was
    asked for; `step` is the mean time from one such row to the next."""

    rows: int
    spell: int
    step: float

    def limit(self, step: float) -> float:
        """How many rows it may be in a log with a row every `step` microseconds."""
        return max(_LONGER * self.rows * max(1.0, self.step / step if step else 1.0), _STEADY)


@dataclass(frozen=True, slots=True)
class Standstills:
    """Stretches of source rows of all keys, in order of time, that each repeat their key's row before: where they begin
    and end, how many they are, and whether they are of several keys; `step` is the mean time between rows."""

    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    mixed: Mask
    step: float

    @property
    def spell(self) -> npt.NDArray[np.int64]:
        """How long each is, in microseconds."""
        return self.end - self.start


def standstills(key: Array, event: Array, values: Array, column: int, spacing: int) -> Standstills:
    """Of one column, none across a gap longer than `spacing`; rows are ordered by key and event."""
    after = (key[1:] == key[:-1]) & (np.diff(event) <= spacing)
    moved = (values[1:, column] != values[:-1, column])[after]
    order = np.lexsort((~moved, event[1:][after]))
    at, moved, whose = event[1:][after][order], moved[order], key[1:][after][order]
    if not len(at):
        nothing = np.empty(0, dtype=np.int64)
        return Standstills(nothing, nothing, nothing, nothing.astype(bool), 0.0)
    steps = np.diff(at)
    new = moved.copy()
    new[0] = True
    new[1:] |= steps > spacing
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(at)) - 1
    rows = last - first
    keys, counts = np.unique(whose, return_counts=True)
    others = np.concatenate([[0], np.cumsum(whose != keys[np.argmax(counts)])])
    mixed = (others[last + 1] - others[first]) * 5 >= rows
    seen = steps[steps <= spacing]
    return Standstills(at[first], at[last], rows, mixed, float(seen.mean()) if len(seen) else 0.0)
