"""The window that a watch judges: everything it saw since a moment, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skewguard.compare import Check, Comparison, Tally, drift, learn
from skewguard.findings import Finding, Kind
from skewguard.replay import Pairs
from skewguard.snapshot import Snapshot
from skewguard.statistics import watched, watched_log10_e
from skewguard.workflows.examine import MINED, Seen
from skewguard.workflows.watch.tail import Places

KEPT_ROWS = 16_384
"""So many rows of a window are kept as evidence of causes; all are counted."""

Floats = npt.NDArray[np.float64]
State = Mapping[str, Floats]


def name_of(finding: Finding) -> str:
    """What makes two findings the same one, at two looks."""
    return f"{finding.kind}:{finding.feature}:{finding.tap}"


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of a watch from which it can go on: how far the log was read, and the evidence until then."""

    places: Places
    evidence: State


@dataclass(frozen=True, slots=True)
class Hits:
    """How often a finding was made in some rows."""

    rows: int
    of: int
    benign: float


class Window:
    """What was seen since `began` (seconds); `mark` is where a watch that begins anew reads on."""

    def __init__(self, snapshot: Snapshot, began: float, mark: Mark) -> None:
        self.began, self.mark = began, mark
        self._snapshot = snapshot
        self._tally = Tally(KEPT_ROWS)
        self._checks: list[Check] = learn(snapshot).checks()
        self._drift = drift(snapshot)
        self._since = self._until = 0

    @property
    def rows(self) -> int:
        """Rows that were compared."""
        return self._tally.rows

    def add(self, pairs: Pairs, comparison: Comparison) -> None:
        """Some rows more."""
        self._tally.add(pairs, comparison)
        for check in self._checks:
            check.add(pairs.witnessed)
        if self._drift:
            self._drift.add(pairs.served)
        as_of = pairs.served.spine.as_of
        self._since = min(self._since or int(as_of.min()), int(as_of.min()))
        self._until = max(self._until, int(as_of.max()))

    def seen(self, doubts: tuple[str, ...], truth: str) -> Seen:
        """What it comes to."""
        found = tuple(finding for check in self._checks for finding in check.findings())
        tested = sum(contract.benign_rate > 0 for contract in self._snapshot.bundle.contracts.values())
        return Seen(
            self._tally, found, self._drift, self._since, self._until, doubts=doubts, tested=tested + MINED, truth=truth
        )


@dataclass
class Detector:
    """Evidence that a rate has risen above the declared one, carried from look to look, by finding."""

    looks: float
    """Looks in a day: so often may chance be tried."""

    state: dict[str, Floats] = field(default_factory=dict)
    benign: dict[str, float] = field(default_factory=dict)

    def add(self, hits: Mapping[str, Hits], rows: int) -> None:
        """One look more at `rows` rows. A finding is watched from its first row on."""
        self.benign |= {name: one.benign for name, one in hits.items() if 0 < one.benign < 1}
        for name in {*self.state, *(hits.keys() & self.benign.keys())}:
            some = hits.get(name, Hits(0, rows, 0.0))
            self.state[name] = watched(self.state.get(name), some.rows, some.of, self.benign[name])

    def evidence(self, finding: Finding) -> float:
        """log10 of the evidence of a finding, over the looks of a day."""
        state = self.state.get(name_of(finding))
        return finding.evidence if state is None else watched_log10_e(state, self.looks)

    def forget(self, name: str) -> None:
        """Begin anew with a finding."""
        self.state.pop(name, None)


def hits_of(snapshot: Snapshot, pairs: Pairs, comparison: Comparison) -> dict[str, Hits]:
    """How often each finding was made in these rows alone."""
    found = [one.finding for one in comparison.observed]
    for check in learn(snapshot).by_row():
        check.add(pairs.witnessed)
        found += check.findings()
    return {name_of(one): Hits(one.rows, one.of, one.benign) for one in found}


UNWATCHED = frozenset({Kind.DUPLICATE, Kind.FROZEN})
"""Kinds whose rows cannot be told look by look: they are over when a window without them is."""
