"""Rows that carry another time than their own: a loader that reads local times as UTC, or the reverse."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skewguard.causes.evidence import Evidence, Explanation, Ints
from skewguard.causes.stale import HOUR
from skewguard.causes.timeline import Timeline, hashed
from skewguard.findings import Kind, Tap
from skewguard.spine import ViewRows
from skewguard.values import NO_TIME, Array, Column, Mask

_HALVES = [half for half in range(-28, 29) if half]
_MINIMUM = 5
_MOST = 0.97
_TRIED = 512
_ODD = np.uint64(0x9E3779B97F4A7C15)


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """Whole rows whose values stand in the source a whole number of half hours before or after, the same for all."""
    pairs, view = evidence.pairs, evidence.view
    if view is None or not pairs.bundle.view(view).keys or evidence.tap is not Tap.STORE:
        return
    if evidence.served is None and evidence.observed.finding.kind is not Kind.MISMATCH:
        return
    got, line = pairs.served.views[view].take(evidence.rows), evidence.scene.timeline(view)
    named = got.event != NO_TIME
    if named.sum() < _MINIMUM or not len(line.key):
        return
    search = _Search.of(got, line.asked[evidence.rows], line)
    some = np.flatnonzero(named)[:: max(1, int(named.sum()) // _TRIED)]
    best = max(_HALVES, key=lambda half: int(search.moved(some, half)[0].sum()))
    hits, witnessed = (np.zeros(len(evidence), dtype=bool) for _ in range(2))
    hits[named], witnessed[named] = search.moved(np.flatnonzero(named), best)
    enough = hits.sum() >= max(_MINIMUM, _MOST * witnessed.sum())
    if enough and len(np.unique(search.values[hits])) >= _MINIMUM:
        hours = f"{abs(best) / 2:g} h {'earlier' if best > 0 else 'later'}"
        what = f"the rows of {view} carry times that are {hours} than their own: read in another time zone"
        yield Explanation("timezone", what, hits | (named & ~witnessed), 18.0)


class _Search:
    """Witnessed rows by key and event, and by their values as well, as one number each."""

    def __init__(self, rows: tuple[Ints, Ints, Array], known: tuple[Ints, Ints, Array]) -> None:
        self.key, self.event, self.values = rows
        dated = _number(known[0], known[1])
        self._dated, self._whole = np.sort(dated), np.sort(dated ^ known[2])

    @classmethod
    def of(cls, got: ViewRows, key: Ints, line: Timeline) -> _Search:
        both = {name: Column.concat([one, line.features[name]]) for name, one in got.features.items()}
        values = hashed(both)
        n = len(key)
        return cls((key, got.event, values[:n]), (line.key, line.event, values[n:]))

    def moved(self, rows: Ints, half: int) -> tuple[Mask, Mask]:
        """(which of the rows stand so many half hours later in the source, of which there is any row of then)."""
        dated = _number(self.key[rows], self.event[rows] + half * HOUR // 2)
        return _among(dated ^ self.values[rows], self._whole), _among(dated, self._dated)


def _number(key: Ints, event: Ints) -> Array:
    with np.errstate(over="ignore"):
        number = (key.astype(np.uint64) + np.uint64(1)) * _ODD ^ event.astype(np.uint64)
        number *= _ODD
        return np.asarray(number ^ (number >> np.uint64(31)))


def _among(some: Array, known: Array) -> Mask:
    at = np.minimum(np.searchsorted(known, some), len(known) - 1)
    return np.asarray(known[at] == some)
