"""What is counted over a window was counted over another one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from skewguard.causes.default_fill import whole
from skewguard.causes.evidence import Evidence, Explanation, Floats
from skewguard.findings import Tap
from skewguard.values import Column, Mask

_MINIMUM = 12
_FEW = 8
_ONE_WAY = 0.95
_CHANGED = 0.5
_WHOLE = 0.95
_NEAR = 1e-6
_MUCH = 0.15
_ALIKE = 0.5
_WITNESSED = 0.2
_PROPORTION = 0.8


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """Counts that are always greater, or always smaller; and what stands beside them in the row fits them.

    A mean or a share times its count is a whole number of events in every row, served or true, where both are of one
    window. A row of other values than the truth's of which that holds was made from other events.
    """
    served, truth, view = evidence.served, evidence.truth, evidence.view
    if served is None or truth is None or evidence.numbers is None:
        return
    said = _counted(served, truth)
    if said is not None:
        what, hits = said
        yield Explanation("window", what, hits, 60.0)
    if view is not None and evidence.tap is Tap.STORE:
        yield from _of_rows(evidence, view)


@dataclass(frozen=True, slots=True)
class _Side:
    """A numeric column of m rows: served and true as float64, which rows have both, and which of these differ."""

    got: Floats
    true: Floats
    both: Mask
    changed: Mask

    @classmethod
    def of(cls, served: Column, truth: Column) -> _Side:
        both = served.present & truth.present
        got, true = (np.where(both, side.values, 0).astype(np.float64) for side in (served, truth))
        both &= np.isfinite(got) & np.isfinite(true)
        changed = both & (np.abs(got - true) > _NEAR * np.maximum(np.abs(got), np.abs(true)))
        return cls(got, true, both, changed)

    @property
    def counts(self) -> bool:
        """Whether both sides are whole numbers of something."""
        some = np.concatenate([self.got[self.both], self.true[self.both]])
        return bool(len(some) and (some == np.trunc(some)).all() and some.min() >= 0 and some.max() > 1)

    @property
    def way(self) -> int:
        """1 where what differs is greater than the truth, -1 where it is smaller, 0 where it is both, or too few."""
        off = (self.got - self.true)[self.changed]
        if len(off) < max(_FEW, _CHANGED * self.both.sum()):
            return 0
        more = float((off > 0).mean())
        return 1 if more >= _ONE_WAY else -1 if more <= 1 - _ONE_WAY else 0


def _of_rows(evidence: Evidence, view: str) -> Iterator[Explanation]:
    """The view's counts together, and what is made of them."""
    mine, known = (side.views[view].features for side in (evidence.pairs.served, evidence.pairs.as_known))
    sides = {
        name: _Side.of(column.take(evidence.rows), known[name].take(evidence.rows))
        for name, column in mine.items()
        if column.dtype.is_numeric
    }
    counts = {name: side for name, side in sides.items() if side.counts and side.way}
    if not counts and len(sides) > 1:
        yield from _elsewhen(evidence, view, sides)
    if not counts or len(sides) < 2:
        return
    ways = {side.way for side in counts.values()}
    fitting = any(_fits(part, count) for part in sides.values() if not part.counts for count in counts.values())
    if len(ways) > 1 or not (fitting or len(counts) > 1):
        return
    name, count = max(counts.items(), key=lambda one: one[1].changed.sum())
    way = ways.pop()
    against = np.logical_or.reduce([side.changed & ((side.got - side.true) * way < 0) for side in counts.values()])
    what = _sentence(float(count.got[count.both].sum() / max(count.true[count.both].sum(), 1.0)))
    if not evidence.feature.endswith("__" + name):
        what += f", as {view}.{name} beside it shows"
    yield Explanation("window", what, ~against, 30.0)


def _elsewhen(evidence: Evidence, view: str, sides: dict[str, _Side]) -> Iterator[Explanation]:
    """Counts that go both ways, not far from the truth, with means that fit them: of events, but of another moment.

    Not so where the rows are of another moment or key that is witnessed: then these are the cause.
    """
    counts = {name: side for name, side in sides.items() if side.counts and side.changed.sum() >= _MINIMUM}
    near = [side for side in counts.values() if _correlation(side.got[side.both], side.true[side.both]) >= _ALIKE]
    if not any(_fits(part, count) for part in sides.values() if not part.counts for count in near):
        return
    older, later, elsewhere = evidence.scene.origin(view, evidence.rows)
    if ((older >= 0) | (later >= 0) | elsewhere).mean() > _WITNESSED:
        return
    what = (
        f"the counts and means of {view} fit each other, and are of other events than the truth's: a window that ends"
    )
    what += " at another moment, or events that came late"
    yield Explanation("window", what, np.ones(len(evidence), dtype=bool), 50.0)


def _correlation(one: Floats, other: Floats) -> float:
    """Of ranks."""
    if len(one) < _MINIMUM or one.std() == 0 or other.std() == 0:
        return 0.0
    ranks = np.stack([np.argsort(np.argsort(side)).astype(np.float64) for side in (one, other)])
    return float(np.asarray(np.corrcoef(ranks))[0, 1])


def _fits(part: _Side, count: _Side) -> bool:
    """Whether a mean or share times the count is a whole number: of the truth always, and of what was served too."""
    there = part.both & count.both & (count.true >= 2) & (count.got >= 2)
    told = there & part.changed & count.changed
    if told.sum() < _FEW:
        return False
    return all(
        bool((np.abs(product - np.round(product)) < _NEAR * np.maximum(np.abs(product), 1)).mean() >= _WHOLE)
        for product in (part.true[there] * count.true[there], part.got[told] * count.got[told])
    )


def _counted(served: Column, truth: Column) -> tuple[str, Mask] | None:
    """What a column of counts shows by itself, and in which rows."""
    both = served.present & truth.present
    got, true = served.values[both].astype(np.float64), truth.values[both].astype(np.float64)
    if not (whole(got, served.dtype) and whole(true, truth.dtype)) or not _of_other_events(got, true):
        return None
    more, less = float((got > true).mean()), float((got < true).mean())
    if max(more, less) < 0.9 or min(more, less) > 0.02:
        return None
    hits = np.zeros(len(served), dtype=bool)
    hits[both] = True
    return _sentence(float(got.sum() / max(true.sum(), 1.0))), hits


def _sentence(ratio: float) -> str:
    much = f", {ratio:.2g} times as much" if abs(ratio - 1) > _MUCH else f", by {abs(ratio - 1):.1%}"
    if ratio > 1:
        return f"more was counted than the truth has{much}: a longer window, or events that were counted again"
    return f"less was counted than the truth has{much}: a shorter window, or events that were left out"


def _of_other_events(got: Floats, true: Floats) -> bool:
    """Whether the two are counts in proportion, and neither is a formula of the other."""
    if len(got) < _MINIMUM or not (np.isfinite(got) & np.isfinite(true) & (got >= 0) & (true >= 0)).all():
        return False
    values = len(np.unique(true))
    if values < 6 or len(np.unique(got - true)) < 3 or not (true > 0).any():
        return False
    if len(np.unique(np.stack([true, got]), axis=1).T) < 2 * values:  # the truth alone decides
        return False
    ratio = float(np.median(got[true > 0] / true[true > 0]))
    return 1 / 20 < ratio < 20 and _correlation(got, true) >= _PROPORTION
