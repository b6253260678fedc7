"""Truth: what training would have said, and what the sources can still witness about what was served."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from skewguard.definitions import Bundle, View
from skewguard.offline import OfflineStore, Rule
from skewguard.snapshot import Snapshot, answers, source_digests
from skewguard.snapshot.sources import changed_months
from skewguard.spine import Spine, ViewRows
from skewguard.values import NO_TIME, Array, Mask

LATEST = int(np.datetime64("9999-01-01", "us").astype(np.int64))
_SECOND = 1_000_000

Ints = npt.NDArray[np.int64]
Span = Callable[[], tuple[int, int]]
"""The first and the last instant that will be asked for, in microseconds; to find out takes a pass over the log."""


class Sources(Protocol):
    """Where the truth comes from: opens the sources of a snapshot's views. `name` stands in the verdict."""

    @property
    def name(self) -> str:
        """Such as 'the sources, read by DuckDB'."""
        ...

    def open(self, snapshot: Snapshot, span: Span) -> AbstractContextManager[OfflineStore]:
        """The views' rows, under the snapshot's rule; `span` tells the first and last ask. Raises `SourceError`."""
        ...


class InPlace:
    """The sources where the snapshot's bundle says that they lie, read by DuckDB."""

    name = "the sources, read by DuckDB"

    def open(self, snapshot: Snapshot, span: Span) -> AbstractContextManager[OfflineStore]:  # noqa: ARG002
        """All of them; nothing is read before it is asked for."""
        return OfflineStore(snapshot.bundle.views, Rule(snapshot.manifest.rule))


class Truth:
    """A snapshot's views under everything that it recorded: its rule, and `as_served`. A context manager.

    `offline` must hold those views under that rule; it stays the caller's to close. Of a bundle alone nothing more is
    known than its definitions.
    """

    def __init__(self, of: Snapshot | Bundle, offline: OfflineStore) -> None:
        self.snapshot = of if isinstance(of, Snapshot) else None
        self.bundle = of.bundle if isinstance(of, Snapshot) else of
        self._offline = offline
        self._cut: int | None = None
        self.ended: dict[str, int] = {}
        """When the last row became known (microseconds), of sources that ended before what was served from them."""
        self._feast: dict[str, OfflineStore] = {}
        self._changed: dict[str, frozenset[str] | None] = {}
        self._times: dict[str, tuple[Ints, int, Array, bool]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for store in self._feast.values():
            store.close()

    def answers(self, spine: Spine) -> dict[str, ViewRows]:
        """The answer of every view to every ask."""
        as_served = self.snapshot is not None and self.snapshot.manifest.as_served
        return answers(self._offline, self.bundle, spine, as_served=as_served)

    def named(self, view: View, spine: Spine, event: Array, created: Array) -> ViewRows:
        """Exactly these source rows, one per ask, under the ask's clock and TTL."""
        return self._offline.rows(view.name, spine, event, created)

    def best(self, view: View, spine: Spine, instants: Array) -> tuple[Array, Array]:
        """(event, created) of the newest row known at each instant."""
        return self._offline.best(view.name, spine, instants)

    def last_version(self, view: View, spine: Spine, event: Array) -> tuple[Array, Array]:
        """(event, created) of the last version of the row whose event falls into the second of `event`."""
        store = self._offline
        if store.rule is not Rule.FEAST:
            store = self._feast.setdefault(view.name, OfflineStore([self._held(view)], Rule.FEAST))
        found, created = store.best(view.name, spine, event // _SECOND * _SECOND + _SECOND - 1)
        inside = found // _SECOND == event // _SECOND
        return np.where(inside, found, NO_TIME), np.where(inside, created, NO_TIME)

    def may_be_rewritten(self, view: View, event: Array, created: Array) -> Mask:
        """Of source rows by their times: whether they may hold other values than they did.

        What the snapshot's digests cover is known: months that are what they were, are. Of what they do not cover, rows
        with a created time are trusted; a source without any may have been overwritten at will.
        """
        changed = self._changed_months(view)
        covered = (np.maximum(event, created) <= self.cut) & (changed is not None)
        months = np.isin(_months(event), sorted(changed or ()))
        return np.asarray(np.where(covered, months, view.source.created is None) & (event != NO_TIME))

    def may_be_lost(self, view: View, event: Array, created: Array) -> Mask:
        """Of rows that the source does not have: whether it may have had them.

        It may where they are older than all that it has, or became known later (a table that is loaded at night), where
        it keeps one row per key (a table that is overwritten); never where one other key has a row of these times: then
        that key's row was served. All may be lost where any month is another one than when the snapshot was built.
        """
        events, ends, times, one_per_key = self._witness(view)
        older = event < (events.min() if len(events) else LATEST)
        later = np.maximum(event, created) > ends
        if later.any():
            self.ended[view.name] = ends
        elsewhere = np.isin(_pairs(event, created), times)
        return np.asarray(((older | later | one_per_key) & ~elsewhere) | bool(self._changed_months(view)))

    @property
    def cut(self) -> int:
        """The snapshot's last ask, in microseconds."""
        if self.snapshot is None:
            return NO_TIME
        if self._cut is None:
            last = pc.max(self.snapshot.to_arrow(["event_timestamp"])["event_timestamp"])
            self._cut = int(last.value) if last.is_valid else NO_TIME
        return self._cut

    def changed_months(self) -> dict[str, tuple[str, ...]]:
        """Months of sources that were looked at and are others than when the snapshot was built."""
        return {view: tuple(sorted(months)) for view, months in self._changed.items() if months}

    def _changed_months(self, view: View) -> frozenset[str] | None:
        """Months whose rows are others than they were, None where the snapshot keeps no digest of the source."""
        if view.name not in self._changed:
            before = self.snapshot.manifest.sources.get(view.name) if self.snapshot else None
            months = None
            if before is not None:
                after = source_digests(self._offline, [view], self.cut)
                months = frozenset(changed_months({view.name: before}, after).get(view.name, ()))
            self._changed[view.name] = months
        return self._changed[view.name]

    def _witness(self, view: View) -> tuple[Ints, int, Array, bool]:
        """(events, the last known time, (event, created) that one row alone has, whether there is one row per key) of
        the whole source."""
        if view.name not in self._times:
            rows = self._offline.changes(view.name, NO_TIME, LATEST)
            event, created = rows["event"].to_numpy(), rows["created"].to_numpy()
            keys = len(self._offline.latest(view.name, LATEST))
            times, rows_of = np.unique(_pairs(event, created), return_counts=True)
            ends = int(np.maximum(event, created).max()) if len(event) else NO_TIME
            self._times[view.name] = (event, ends, times[rows_of == 1], len(event) == keys)
        return self._times[view.name]

    def _held(self, view: View) -> View:
        """The view as the offline store reads it, which may be a copy of its source."""
        return self._offline.views[view.name]


def _months(event: Array) -> Array:
    return event.astype("datetime64[us]").astype("datetime64[M]").astype(str)


def _pairs(event: Array, created: Array) -> Array:
    both = np.stack([event, created], axis=1).astype(np.int64)
    return np.ascontiguousarray(both).view([("e", np.int64), ("c", np.int64)]).reshape(-1)
