"""Which rows of a log the snapshot can teach anything about: those like the ones that it asked for, and not long after.

Training sets are cut to a month, to one airport, to one airline. What always held in them says nothing of other seasons
and of others' traffic.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewguard.answer import Served
from skewguard.compare.evidence import Check
from skewguard.findings import Finding
from skewguard.replay import take
from skewguard.spine import Spine
from skewguard.values import Column, Dtype, Mask

FEW = 200
"""A text with so many values at most says what kind of row it is."""


@dataclass(frozen=True)
class Population:
    """The snapshot's first and last ask (microseconds), and the values of its keys and request fields that are texts of
    few values."""

    since: int
    until: int
    kinds: Mapping[str, pa.Array]

    def near(self, spine: Spine) -> Mask:
        """Rows that were asked no further from the snapshot than it is long."""
        span = self.until - self.since
        return np.asarray((spine.as_of >= self.since - span) & (spine.as_of <= self.until + span))

    def like(self, spine: Spine, names: Collection[str]) -> Mask:
        """Rows of which the snapshot had others with the same value in each of the columns."""
        found = self.near(spine)
        for name, column in {**spine.keys, **spine.request}.items():
            if name in names and name in self.kinds:
                known = pc.is_in(pa.array(column.values, pa.string()), value_set=self.kinds[name])
                found &= known.to_numpy(zero_copy_only=False) | ~column.present
        return found


def population(training: Served) -> Population:
    """What the rows of a snapshot are like."""
    spine = training.spine
    if not len(spine):
        return Population(0, 0, {})
    kinds = {}
    columns: dict[str, Column] = {**spine.keys, **spine.request}
    for name, column in columns.items():
        if column.dtype is Dtype.STRING:
            values = pc.unique(pa.array(column.values[column.present], pa.string()))
            if len(values) <= FEW:
                kinds[name] = values
    return Population(int(spine.as_of.min()), int(spine.as_of.max()), kinds)


class Among:
    """A check of the rows that are like the snapshot's in some columns, and of no others."""

    def __init__(self, check: Check, of: Population, names: Collection[str]) -> None:
        self.check, self.of, self.names = check, of, names

    def add(self, served: Served) -> None:
        """One more batch."""
        rows = self.of.like(served.spine, self.names)
        if rows.any():
            self.check.add(served if rows.all() else take(served, np.flatnonzero(rows)))

    def findings(self) -> list[Finding]:
        """What the check found."""
        return self.check.findings()
