"""The quiet channel: how far the logged inputs have moved from the snapshot's. Drift, never skew.

Histograms over the snapshot's own quantiles, nulls a cell of their own; what is told is a lower confidence bound of the
distance, held against a floor, because in a million rows every difference is significant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from skewguard.answer import Served
from skewguard.definitions import Bundle
from skewguard.errors import SnapshotError
from skewguard.findings import Finding, Shift
from skewguard.snapshot import ColumnProfile, Profile, Snapshot, load_profile
from skewguard.snapshot.profile import profile_of
from skewguard.statistics import distance_floor
from skewguard.values import Dtype

FLOOR = 0.02
"""A distance below which nothing is told: total variation, 0 to 1."""

_CELLS = 20
_SHARE = 0.005


class Drift:
    """The log's profile, added up over batches, against the snapshot's."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.bundle = snapshot.bundle
        self.training = load_profile(snapshot.path)
        self._log = Profile({}, {})

    def add(self, served: Served) -> None:
        """One more batch."""
        self._log = self._log.merge(profile_of(self.bundle, served, pa.table({})))

    def shifts(self, findings: Sequence[Finding]) -> list[Shift]:
        """What moved, the furthest first; features of `findings` are marked: the pipeline may explain them."""
        skewed = _touched(self.bundle, findings)
        found = []
        for name, column in self._log.columns.items():
            before = self.training.columns.get(name)
            if before is None or name == "event_timestamp" or name.startswith("e__") or column.dtype is Dtype.TIMESTAMP:
                continue
            distance, at_least = distance_floor(*_cells(before, column))
            if at_least > FLOOR:
                feature = name.removeprefix("q__")
                found.append(Shift(feature, distance, at_least, _moved(before, column), feature in skewed))
        return sorted(found, key=lambda shift: -shift.at_least)


def drift(snapshot: Snapshot) -> Drift | None:
    """The channel, where the snapshot has a profile that can be read."""
    try:
        return Drift(snapshot)
    except SnapshotError:
        return None


def _touched(bundle: Bundle, findings: Sequence[Finding]) -> set[str]:
    """Features that findings are about, and those that are computed from them."""
    touched = {finding.feature for finding in findings}
    touched |= {name for name, view in bundle.view_of.items() if view in touched}
    for derived in bundle.derived:
        if touched & set(derived.inputs):
            touched.add(derived.full_name)
    return touched


def _cells(before: ColumnProfile, now: ColumnProfile) -> tuple[list[int], list[int]]:
    """Rows per cell of both: absent, then values or quantiles of the snapshot."""
    absent = [one.rows - one.present for one in (before, now)]
    if (
        before.counts is not None
        and now.counts is not None
        and (before.dtype is Dtype.STRING or len(before.counts) <= 50)
    ):
        values = [value for value, _ in before.top(_CELLS * 5)]
        cells = [[one.counts.get(value, 0) for value in values] for one in (before, now) if one.counts is not None]
        rest = [one.present - sum(cell) for one, cell in zip((before, now), cells, strict=True)]
        return tuple([gone, *cell, other] for gone, cell, other in zip(absent, cells, rest, strict=True))  # type: ignore[return-value]
    if before.dtype is Dtype.STRING or not before.buckets or not now.buckets:
        return [absent[0], before.present], [absent[1], now.present]
    # Both in the same buckets: quantiles of the snapshot, in bucket numbers, cut both alike.
    ordered = sorted(before.buckets)
    upto = np.cumsum([before.buckets[bucket] for bucket in ordered])
    edges = sorted({ordered[int(np.searchsorted(upto, upto[-1] * i / _CELLS))] for i in range(1, _CELLS)})
    found = []
    for gone, one in zip(absent, (before, now), strict=True):
        cell = np.zeros(len(edges) + 1, dtype=np.int64)
        buckets = np.array(sorted(one.buckets))
        np.add.at(cell, np.searchsorted(edges, buckets), [one.buckets[bucket] for bucket in buckets.tolist()])
        found.append([gone, *cell.tolist()])
    return found[0], found[1]


def _moved(before: ColumnProfile, now: ColumnProfile) -> str:
    """What moved, in words."""
    told = []
    gone = [1 - one.present / one.rows if one.rows else 0.0 for one in (before, now)]
    if abs(gone[0] - gone[1]) > _SHARE:
        told.append(f"absent in {gone[0]:.1%}, now {gone[1]:.1%}")
    if before.mean is not None and now.mean is not None and before.dtype is not Dtype.BOOL:
        told.append(f"mean {before.mean:.4g}, now {now.mean:.4g}")
        middle = [one.quantile(0.5) for one in (before, now)]
        told.append(f"median {_number(middle[0])}, now {_number(middle[1])}")
        if now.high is not None and before.high is not None and (now.high > before.high or now.low < before.low):
            told.append(
                f"range {_number(before.low)} to {_number(before.high)}, now {_number(now.low)} to {_number(now.high)}"
            )
    if before.dtype is Dtype.STRING and before.counts is not None and now.counts is not None:
        unseen = sum(rows for value, rows in now.counts.items() if value not in before.counts)
        if unseen:
            new = [value for value, _ in now.top(1024) if value not in before.counts][:3]
            told.append(f"{unseen:,} rows of values that the snapshot has none of: {', '.join(map(str, new))}")
        for ((value, rows),) in zip(now.top(1), strict=False):
            was = before.counts.get(value, 0) / max(before.present, 1)
            told.append(f"{value} in {rows / max(now.present, 1):.1%}, before {was:.1%}")
    return "; ".join(told) or "the shares of its values are others"


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
