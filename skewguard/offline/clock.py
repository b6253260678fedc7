"""Time and key in one number, and the order of such numbers: what the timeline sorts and searches."""

from __future__ import annotations

from typing import cast as typed

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Packed = npt.NDArray[np.uint64]

NONE = -1
"""The row that stands for no row, and the code of a key that the source does not have."""

_BITS = 64
_SAMPLE = 1000
_CROWDED = 2  # of how many rows one may share its coarse number before sorting by the fine one is the better way


class Clock:
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
        if key_bits + self._bits + _width(len(event)) > _BITS and self._high - self._low < 1 << 63:
            self._step = _step(both, self._low)
            self._bits = ((self._high - self._low) // self._step + 1).bit_length()
        if key_bits + self._bits > _BITS:
            self._ranks = np.unique(np.concatenate(both))
            self._bits = (len(self._ranks) + 1).bit_length()
        self._shift = np.uint64(self._bits)
        self.bits = min(key_bits + self._bits, _BITS)

    def pack(self, codes: Ints, instants: Ints) -> Packed:
        """Of instants that the clock knows; `bits` of it are in use."""
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
        differing = a ^ b
        differing >>= self._shift
        return np.asarray(differing == 0)

    def keys(self, packed: Packed) -> Ints:
        """The key codes that occur in sorted numbers, each once."""
        codes = (packed >> self._shift).view(np.int64)
        return codes[np.append(True, codes[1:] != codes[:-1])] if len(codes) else codes

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
        packed = codes.view(np.uint64) << self._shift
        packed |= ticks.view(np.uint64)
        return packed


def _step(times: tuple[Ints, ...], low: int) -> int:
    """The greatest common divisor of the instants' distances from the first; a look at a few mostly settles it."""
    for some in (slice(_SAMPLE), slice(None)):
        step = int(np.gcd.reduce([np.gcd.reduce(t[some] - low) for t in times]))
        if step == 1:
            break
    return max(step, 1)


def order(packed: Packed, bits: int, *, exact: bool = True) -> Ints:
    """The argsort of numbers of that many bits, not stable; if not `exact`, an order in which neighbours are near.

    Sorting numbers is several times faster than sorting by them. Hence number and place share 64 bits; where they do
    not fit, the number's lowest bits are left out, and what is then equal is sorted once more.
    """
    count = len(packed)
    width = _width(count)
    coarse = max(bits + width - _BITS, 0)
    line = packed >> np.uint64(coarse)
    line <<= np.uint64(width)
    line |= np.arange(count, dtype=np.uint64)
    line.sort()
    rows = (line & np.uint64((1 << width) - 1)).view(np.int64)
    if not coarse or not exact:
        return rows
    line >>= np.uint64(width)
    places = repeated(line)
    if len(places) * _CROWDED > count:
        return np.argsort(packed)
    some = rows[places]
    rows[places] = some[np.argsort(packed[some])]
    return rows


def repeated(ordered: Packed) -> Ints:
    """The places in sorted numbers at which a number stands that is there more than once."""
    equal = ordered[1:] == ordered[:-1]
    return np.flatnonzero(np.append(equal, False) | np.append(False, equal))


def _width(count: int) -> int:
    return max(count - 1, 1).bit_length()
