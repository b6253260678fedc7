"""What is counted over a window was counted over another one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skewguard.causes.default_fill import whole
from skewguard.causes.evidence import Evidence, Explanation, Floats
from skewguard.findings import Tap
from skewguard.values import Column, Mask

_MINIMUM = 12


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """Whole numbers that are always greater, or always smaller, and in proportion to the truth.

    A mean or a sum beside such a count comes from the same window.
    """
    served, truth, view = evidence.served, evidence.truth, evidence.view
    if served is None or truth is None or evidence.numbers is None:
        return
    said = _counted(served, truth)
    if said is not None:
        what, hits = said
        yield Explanation("window", what, hits, 60.0)
    elif view is not None and evidence.tap is Tap.STORE:
        mine, known = (side.views[view].features for side in (evidence.pairs.served, evidence.pairs.as_known))
        for name, column in mine.items():
            beside = f"{view}__{name}"
            if beside != evidence.feature and column.dtype.is_numeric:
                said = _counted(column.take(evidence.rows), known[name].take(evidence.rows))
                if said is not None:
                    what = f"{said[0]}, as {view}.{name} beside it shows"
                    yield Explanation("window", what, said[1], 70.0)
                    return


def _counted(served: Column, truth: Column) -> tuple[str, Mask] | None:
    """What a column of counts shows, and in which rows."""
    both = served.present & truth.present
    got, true = served.values[both].astype(np.float64), truth.values[both].astype(np.float64)
    if not (whole(got, served.dtype) and whole(true, truth.dtype)) or not _of_other_events(got, true):
        return None
    more, less = float((got > true).mean()), float((got < true).mean())
    if max(more, less) < 0.9 or min(more, less) > 0.02:
        return None
    greater = more > less
    hits = np.zeros(len(served), dtype=bool)
    hits[both] = True
    if greater:
        return "more was counted than the truth has: a longer window, or events that were counted again", hits
    return "less was counted than the truth has: a shorter window, or events that were left out", hits


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
    ranks = np.stack([np.argsort(np.argsort(side)).astype(np.float64) for side in (got, true)])
    return 1 / 3 < ratio < 3 and float(np.asarray(np.corrcoef(ranks))[0, 1]) >= 0.8
