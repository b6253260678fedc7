"""Judging: fresh rows held against the truth, those that cannot be judged yet set aside until they can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from skewguard.answer import Served
from skewguard.compare import Comparison, compare
from skewguard.errors import SourceError
from skewguard.model import Model
from skewguard.offline import OfflineStore, Rule
from skewguard.offline.scan.parquet import Stamps, stamps_of
from skewguard.replay import BATCH_ROWS, Age, Pairs, Truth, alone, recompute, served_batches, take
from skewguard.snapshot import Snapshot
from skewguard.values import Array, Mask
from skewguard.workflows.watch.tail import Fresh
from skewguard.workflows.watch.window import Mark

HELD_ROWS = 131_072
_REMOTE_SECONDS = 60.0

Batch = tuple[Served, dict[str, Array]]
Judged = tuple[Pairs, Comparison]


@dataclass(frozen=True, slots=True)
class Held:
    """Rows that name a source row which is not there yet, until `due` (microseconds); `mark`: before they were read."""

    batch: Batch
    due: int
    mark: Mark

    @property
    def rows(self) -> int:
        """How many they are."""
        return len(self.batch[0].spine)


class Judge:
    """The truth of one snapshot, kept open. A context manager.

    A served row may name a source row that reaches the sources only after the store: it is asked about again once
    `max_lag` has passed, and then counts as it stands. Everything else cannot change by waiting.
    """

    def __init__(self, snapshot: Snapshot, model: Model | None) -> None:
        self._snapshot, self._model = snapshot, model
        self._offline = OfflineStore(snapshot.bundle.views, Rule(snapshot.manifest.rule))
        self._truth = Truth(snapshot, self._offline)
        self._stamps = self._stamped()
        self._refreshed = 0.0
        self._longest = max((one.max_lag_us for one in snapshot.bundle.contracts.values()), default=0)
        self._longest = max(self._longest, *(view.max_lag_us for view in snapshot.bundle.views), 0)
        self.held: list[Held] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._truth.__exit__(kind, error, trace)
        self._offline.close()

    @property
    def waiting(self) -> int:
        """Rows that are set aside."""
        return sum(one.rows for one in self.held)

    def judge(self, segments: Sequence[Fresh], since: int, mark: Mark, now: float) -> tuple[list[Judged], str]:
        """(what can be judged by now, why nothing can be held against the sources, empty where it can).

        Raises what reading rows raises, and then nothing has changed.
        """
        self._renew(now)
        at = round(now * 1e6)
        due = [one for one in self.held if one.due <= at]
        held = [one for one in self.held if one.due > at]
        judged: list[Judged] = []
        why = ""
        fresh = served_batches(segments, self._snapshot.bundle, BATCH_ROWS, since)
        for batch, final in (*((one.batch, True) for one in due), *((one, False) for one in fresh)):
            try:
                pairs = recompute(*batch, self._truth)
            except SourceError as error:
                pairs, why = alone(*batch, self._snapshot.bundle), str(error)
            waits = np.zeros(len(pairs), dtype=bool) if final or why else self._waits(pairs, at)
            room = HELD_ROWS - sum(one.rows for one in held)
            if waits.any() and waits.sum() <= room:
                rows = np.flatnonzero(waits)
                some = take(batch[0], rows), {name: values[rows] for name, values in batch[1].items()}
                held.append(Held(some, int(some[0].spine.as_of.max()) + self._longest, mark))
                pairs = pairs.take(np.flatnonzero(~waits))
            if len(pairs):
                judged.append((pairs, compare(pairs, self._model)))
        self.held = held
        return judged, why

    def _waits(self, pairs: Pairs, now: int) -> Mask:
        unheard = np.zeros(len(pairs), dtype=bool)
        for age in pairs.age.values():
            unheard |= (age == Age.UNHEARD) | (age == Age.UNVERIFIABLE)  # the latter: the source may not be so far yet
        return np.asarray(unheard & (pairs.served.spine.as_of + self._longest > now))

    def _renew(self, now: float) -> None:
        """Look at the sources anew where they have changed; what lies elsewhere, once a minute."""
        stamps = self._stamped()
        remote = None in stamps and now - self._refreshed >= _REMOTE_SECONDS
        if stamps == self._stamps and not remote:
            return
        if remote:
            self._offline.refresh()
        self._truth.__exit__(None, None, None)
        self._truth = Truth(self._snapshot, self._offline)
        self._stamps, self._refreshed = stamps, now

    def _stamped(self) -> tuple[Stamps | None, ...]:
        return tuple(stamps_of(view.source) for view in self._snapshot.bundle.views)
