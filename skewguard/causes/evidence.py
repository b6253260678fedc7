"""What a hypothesis looks at, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skewguard.answer import vector
from skewguard.findings import Kind, Observed, Tap
from skewguard.replay import Pairs
from skewguard.values import Array, Column, Dtype


@dataclass(frozen=True, slots=True)
class Explanation:
    """A cause: its kind, a sentence such as a colleague would write, the share of the rows it explains, 0 to 1."""

    kind: str
    sentence: str
    explained: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """The m rows behind one finding. `served` and `truth` are None for a finding about a whole view.

    At the model's input they are what entered it and what should have; after a transform, `truth` is the transform
    run again.
    """

    pairs: Pairs
    feature: str
    view: str | None
    rows: Array
    served: Column | None
    truth: Column | None

    @classmethod
    def of(cls, observed: Observed, pairs: Pairs) -> Evidence:
        """The evidence behind `observed`."""
        rows = np.flatnonzero(observed.rows)
        finding = observed.finding
        if finding.kind is Kind.STALE or finding.feature not in pairs.bundle.dtypes:
            return cls(pairs, finding.feature, finding.feature, rows, None, None)
        served = pairs.served.feature(pairs.bundle, finding.feature).take(rows)
        if finding.tap is Tap.MODEL_INPUT:
            at = pairs.bundle.vector.index(finding.feature)
            matrices = (pairs.served.vector, vector(pairs.bundle, pairs.served))
            served, truth = (Column.build(Dtype.FLOAT64, m[rows, at], np.zeros(len(rows), np.uint8)) for m in matrices)
        elif finding.tap is Tap.TRANSFORM:
            truth = pairs.recomputed[finding.feature].take(rows)
        else:
            truth = pairs.as_known.feature(pairs.bundle, finding.feature).take(rows)
        return cls(pairs, finding.feature, pairs.bundle.view_of.get(finding.feature), rows, served, truth)

    def numbers(self) -> tuple[Array, Array] | None:
        """(served, truth) as float64 where both have a finite value, None for other dtypes or no such row."""
        if self.served is None or self.truth is None or not self.served.dtype.is_numeric:
            return None
        both = self.served.present & self.truth.present
        served, truth = (column.values[both].astype(np.float64) for column in (self.served, self.truth))
        finite = np.isfinite(served) & np.isfinite(truth)
        return (served[finite], truth[finite]) if finite.any() else None
