"""Rows that changed places: the whole vector of another request, or a column's value of a row nearby."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skewguard.causes.evidence import Evidence, Explanation
from skewguard.causes.swap import plain, same
from skewguard.findings import Tap
from skewguard.values import Column

_STEPS = [step for size in range(1, 13) for step in (-size, size)]
_MINIMUM = 5
_ALIKE = 3
_MOST = 0.8
_USUAL = 0.02
_BATCH = 65


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """The vector first; a column alone where the rest of the row is right."""
    served, every = evidence.served, evidence.observed.truth
    if served is None or every is None:
        return
    if evidence.tap is Tap.MODEL_INPUT:
        yield from _vectors(evidence)
    yield from _column(evidence, served, every)


def _vectors(evidence: Evidence) -> Iterator[Explanation]:
    """What entered the model is what another request of the log should have got, column by column."""
    mine, entered = evidence.scene.vectors
    rows, usual = evidence.rows, np.bincount(mine, minlength=int(max(mine.max(), entered.max())) + 1)
    got = entered[rows]
    hits = (got != mine[rows]) & (usual[got] > 0) & (usual[got] <= max(_ALIKE, _USUAL * len(mine)))
    if hits.sum() < _MINIMUM or len(np.unique(got[hits])) < _MINIMUM:
        return
    what = "the whole vector is another request's: rows changed places before the model"
    for step in [step for size in range(1, _BATCH) for step in (-size, size)]:
        at = rows[hits] + step
        inside = (at >= 0) & (at < len(mine))
        if (inside & (mine[np.clip(at, 0, len(mine) - 1)] == got[hits])).sum() >= _MOST * hits.sum():
            what = f"the whole vector is that of the request {_places(step)}: rows changed places before the model"
            break
    yield Explanation("misaligned", what, hits, 8.0)


def _column(evidence: Evidence, served: Column, every: Column) -> Iterator[Explanation]:
    """The truth of the row a few places before or after, in the order of the log."""
    found = []
    for step in _STEPS:
        other = evidence.rows + step
        inside = (other >= 0) & (other < len(every))
        column = every.take(np.clip(other, 0, len(every) - 1))
        found.append((same(served, column) & inside & served.present, step))
    found.sort(key=lambda one: -one[0].sum())
    hits, step = found[0]
    by_chance = found[1][0].sum() * 2 > hits.sum()  # neighbours have the same values anyway
    if hits.sum() >= _MINIMUM and not by_chance and len(np.unique(plain(served)[hits])) >= _MINIMUM:
        yield Explanation(
            "misaligned", f"served = the value of the row {_places(step)}: rows changed places", hits, 14.0
        )


def _places(step: int) -> str:
    return f"{abs(step)} {'before' if step < 0 else 'after'}"
