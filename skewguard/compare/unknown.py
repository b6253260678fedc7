"""Keys that no source knows and the snapshot never asked for: keys that a client mangles agree on both sides.

Both sides look up what was sent, and find nothing. New planes do so too: hence the share of such rows is held against
that in the later half of the snapshot, in its worst stretch as long as the log; the earlier half is what was asked for
before.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skewguard.answer import Served
from skewguard.compare.evidence import Hits, Tolerance
from skewguard.definitions import Bundle, View
from skewguard.findings import Finding, Kind
from skewguard.snapshot.hashing import hash_rows
from skewguard.values import Mask, Status

MINIMUM_ROWS = 1000


@dataclass(frozen=True)
class Asked:
    """Keys that the snapshot asked for (hashes, sorted) and how many rows with unknown new ones are none, by view."""

    keys: dict[str, npt.NDArray[np.uint64]] = field(default_factory=dict)
    tolerance: dict[str, Tolerance] = field(default_factory=dict)


def asked(bundle: Bundle, training: Served) -> Asked:
    """Of every view; none where there are too few rows."""
    if len(training.spine) < MINIMUM_ROWS:
        return Asked()
    earlier = training.spine.as_of < np.median(training.spine.as_of)
    if not earlier.any():
        return Asked()
    later = np.argsort(training.spine.as_of, kind="stable")[int(earlier.sum()) :]
    keys, tolerance = {}, {}
    for view in bundle.views:
        mine = _keys(view, training)
        new = _not_found(view, training) & ~np.isin(mine, mine[earlier])
        keys[view.name] = np.unique(mine)
        tolerance[view.name] = Tolerance.of(new[later])
    return Asked(keys, tolerance)


class Unknown:
    """Per view, rows whose key its source does not know and the snapshot never asked for."""

    def __init__(self, bundle: Bundle, held: Asked) -> None:
        self.bundle, self.held = bundle, held
        self._hits: dict[str, Hits] = {}

    def add(self, served: Served) -> None:
        """One more batch."""
        for view in self.bundle.views:
            if view.name not in self.held.keys:
                continue
            hit = _not_found(view, served) & ~np.isin(_keys(view, served), self.held.keys[view.name])
            columns = [served.spine.keys[key.ask] for key in view.keys]
            got = [", ".join(repr(column.value(row)) for column in columns) for row in np.flatnonzero(hit)[:3]]
            self._of(view).add(served, hit, got, ["a key that is known"] * len(got))

    def findings(self) -> list[Finding]:
        """One per view where they are more than is tolerated."""
        found = [hits.beyond(self.held.tolerance[name]) for name, hits in self._hits.items()]
        return [one for one in found if one is not None]

    def _of(self, view: View) -> Hits:
        what = (
            f"rows ask for a key ({', '.join(key.ask for key in view.keys)}) that its source does not know and the "
            "snapshot never asked for, far more than such new keys came in there"
        )
        return self._hits.setdefault(view.name, Hits(Kind.CONSTRAINT, view.name, what))


def _keys(view: View, served: Served) -> npt.NDArray[np.uint64]:
    columns = [served.spine.keys[key.ask] for key in view.keys]
    return np.ascontiguousarray(hash_rows(columns, len(served.spine))[:, 0])


def _not_found(view: View, served: Served) -> Mask:
    """Rows without a source row for their key; a null key is none, and that of nobody in a log of hashed keys."""
    there = [served.spine.keys[key.ask].present for key in view.keys]
    return np.asarray(np.logical_and.reduce([served.views[view.name].status == Status.NOT_FOUND, *there]))
