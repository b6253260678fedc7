"""Materialize: publish source rows to the online store by known time.

An increment by event time would skip a row that became known late, and serve one before it was known. Here a row is
published when its known time = max(event, created) has passed, and each view's watermark says how far the writer is.
Where a view's definition has changed since, all its rows are published again: an added feature is there at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from skewguard.definitions import Bundle, View
from skewguard.errors import CastError, DefinitionError, SourceError
from skewguard.offline import OfflineStore, Rule
from skewguard.online import Layout, OnlineStore, pack
from skewguard.online.keys import (
    layout_key,
    row_key,
    row_keys,
    watermark,
    watermark_key,
    watermark_of,
    written_key,
)
from skewguard.online.lookup import layout_written
from skewguard.online.stored import refuse_narrowing, stored_views
from skewguard.values import NO_TIME, Array, Column

_CHUNK = 20_000


@dataclass(slots=True)
class _Feed:
    """One view's rows in order of known time: read up to `read_to`, written up to `written_to` and row `at`."""

    view: View
    layout: Layout
    written_to: int
    read_to: int
    known: Array
    event: Array
    created: Array
    keys: list[bytes | None]
    features: list[Column]
    at: int = 0

    def take(self, known_by: int) -> list[tuple[bytes, bytes]]:
        """Pack the rows that are due by `known_by` and move on."""
        end = int(np.searchsorted(self.known, known_by, side="right"))
        part = np.arange(self.at, end)
        self.at = max(end, self.at)
        if not len(part):
            return []
        features = [column.take(part) for column in self.features]
        packed = pack(self.layout, self.event[part], self.created[part], known_by, features)
        keys = self.keys[part[0] : end]
        return [(key, row) for key, row in zip(keys, packed, strict=True) if key is not None]


class Publisher:
    """Follows the sources of a bundle into an online store; the one writer of its views. Not thread-safe.

    `lookahead_us` lets a publisher that replays history read that far ahead in one go; what is written is bounded by
    `known_by` all the same. `narrow` lets it take features away that the store has and the bundle has not.
    """

    def __init__(
        self, bundle: Bundle, offline: OfflineStore, store: OnlineStore, *, lookahead_us: int = 0, narrow: bool = False
    ) -> None:
        if offline.rule is not Rule.KNOWN:
            raise DefinitionError(
                f"publishing needs sources under the rule {Rule.KNOWN}, got {offline.rule}: a row would be served "
                "before it was known. Open the OfflineStore without a rule."
            )
        self.bundle = bundle
        self._offline = offline
        self._store = store
        self._lookahead = lookahead_us
        self._narrow = narrow
        self._feeds: dict[str, _Feed] = {}
        self._write_layouts()

    def advance(self, known_by: int, *, only: Collection[str] | None = None) -> dict[str, int]:
        """Write every row known by `known_by` (microseconds) that is not written yet; rows written, by view.

        `only` limits it to some views. A view whose watermark is already there is left alone. What is written is what
        the store says: after a failure, or in a store that lost its rows, it begins again where the store stands.
        """
        rows: list[tuple[bytes, bytes]] = []
        marks: dict[bytes, bytes] = {}
        counts = {}
        views = stored_views(self.bundle.views, only)
        standing = self._standing(views)
        if NO_TIME in (mark for mark, _ in standing):  # new, or emptied since
            self._write_layouts()
        for view, (mark, current) in zip(views, standing, strict=True):
            if mark >= known_by and current:
                continue
            until = max(known_by, mark)
            feed = self._feed(view, mark if current else NO_TIME, until)
            due = feed.take(until)
            feed.written_to = until
            rows += due
            counts[view.feast_name] = len(due)
            marks[watermark_key(self.bundle.project, view.feast_name)] = watermark(until)
            marks[written_key(self.bundle.project, view.feast_name)] = feed.layout.digest
        whole = len(rows) - len(rows) % _CHUNK
        for at in range(0, whole, _CHUNK):
            self._store.write(rows[at : at + _CHUNK], {})
        if marks:
            self._store.write(rows[whole:], marks)  # the watermarks last: they promise the rows
        return counts

    def _write_layouts(self) -> None:
        layouts = [Layout.of(view) for view in stored_views(self.bundle.views)]
        self._store.write([], {layout_key(self.bundle.project, layout.digest): layout.to_json() for layout in layouts})

    def _standing(self, views: Sequence[View]) -> list[tuple[int, bool]]:
        """Of each view the watermark, and whether its rows are written in today's layout.

        Raises `DefinitionError` where writing them in today's would take features away from other readers.
        """
        project = self.bundle.project
        values = self._store.mget([watermark_key(project, view.feast_name) for view in views])
        standing = []
        for view, mark in zip(views, values, strict=True):
            written = layout_written(self._store, project, view.feast_name)
            current = written is not None and written.definition == Layout.of(view).definition
            if not self._narrow:
                refuse_narrowing(
                    self.bundle.service,
                    view,
                    written,
                    "Publish with a service that has all features of the view, or say that they may go (--narrow).",
                )
            standing.append((watermark_of(mark), current))
        return standing

    def _feed(self, view: View, written_to: int, known_by: int) -> _Feed:
        feed = self._feeds.get(view.name)
        if feed is None or feed.written_to != written_to or feed.read_to < known_by:
            feed = self._feeds[view.name] = self._read(view, written_to, known_by)
        return feed

    def _read(self, view: View, written: int, known_by: int) -> _Feed:
        """The rows that became known since the watermark; for a new store only each key's newest."""
        until = known_by + self._lookahead
        if written == NO_TIME:
            first = self._offline.latest(view.name, known_by).sort_by("known")
            later = self._offline.changes(view.name, known_by, until)
            table = pa.concat_tables([first, later])
        else:
            table = self._offline.changes(view.name, written, until)
        try:
            keys = [Column.from_arrow(table[k.column], k.dtype, f"column {k.column!r}") for k in view.keys]
            features = [
                Column.from_arrow(table[f"f__{f.name}"], f.dtype, f"column {f.column!r}") for f in view.features
            ]
        except CastError as error:
            raise SourceError(f"{view.source.path} (view {view.name}): {error}") from error
        project = self.bundle.project
        packed_keys: list[bytes | None] = [row_key(project, view, ())] * len(table) if not keys else []
        if keys:
            packed_keys = row_keys(project, view, keys)
        known, event, created = (table[name].to_numpy() for name in ("known", "event", "created"))
        return _Feed(view, Layout.of(view), written, until, known, event, created, packed_keys, features)


def materialize(
    bundle: Bundle, offline: OfflineStore, store: OnlineStore, known_by: int, *, narrow: bool = False
) -> dict[str, int]:
    """Publish once, incrementally, up to `known_by` (microseconds); rows written, by view."""
    return Publisher(bundle, offline, store, narrow=narrow).advance(known_by)
