"""What a hypothesis looks at, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skewguard.findings import Kind, Observed, Tap
from skewguard.replay import Pairs
from skewguard.values import Array, Column


@dataclass(frozen=True, slots=True)
class Explanation:
    """A cause: its kind, a sentence such as a colleague would write, the share of the rows it explains, 0 to 1."""

    kind: str
    sentence: str
    explained: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """The m rows behind one finding. `served` and `truth` are None for a finding about a whole view."""

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
        if finding.tap is Tap.TRANSFORM:
            truth = pairs.recomputed[finding.feature].take(rows)
        else:
            truth = pairs.as_known.feature(pairs.bundle, finding.feature).take(rows)
        return cls(pairs, finding.feature, pairs.bundle.view_of.get(finding.feature), rows, served, truth)

    def numbers(self) -> tuple[Array, Array] | None:
        """(served, truth) as float64 where both have a value, None for other dtypes or no such row."""
        if self.served is None or self.truth is None or not self.served.dtype.is_numeric:
            return None
        both = self.served.present & self.truth.present
        if not both.any():
            return None
        return self.served.values[both].astype(np.float64), self.truth.values[both].astype(np.float64)
