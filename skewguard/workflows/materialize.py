"""Materialize: publish source rows to the online store by known time.

An increment by event time would skip a row that became known late, and serve one before it was known. Here a row is
published when its known time = max(event, created) has passed, and each view's watermark says how far the writer is.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from skewguard.definitions import Bundle, View
from skewguard.errors import CastError, DefinitionError, SourceError
from skewguard.offline import OfflineStore, Rule
from skewguard.online import Layout, OnlineStore, pack
from skewguard.online.layout import layout_key, row_key, row_keys, watermark_key, watermark_of
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
    `known_by` all the same.
    """

    def __init__(self, bundle: Bundle, offline: OfflineStore, store: OnlineStore, *, lookahead_us: int = 0) -> None:
        if offline.rule is not Rule.KNOWN:
            raise DefinitionError(
                f"publishing needs sources under the rule {Rule.KNOWN}, got {offline.rule}: a row would be served "
                "before it was known. Open the OfflineStore without a rule."
            )
        self.bundle = bundle
        self._offline = offline
        self._store = store
        self._lookahead = lookahead_us
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
        views = [view for view in self.bundle.views if only is None or view.name in only]
        written = self._watermarks(views)
        if NO_TIME in written:  # new, or emptied since
            self._write_layouts()
        for view, written_to in zip(views, written, strict=True):
            if written_to >= known_by:
                continue
            feed = self._feed(view, written_to, known_by)
            due = feed.take(known_by)
            feed.written_to = known_by
            rows += due
            counts[view.name] = len(due)
            marks[watermark_key(self.bundle.project, view.name)] = struct.pack(">q", known_by)
        whole = len(rows) - len(rows) % _CHUNK
        for at in range(0, whole, _CHUNK):
            self._store.write(rows[at : at + _CHUNK], {})
        if marks:
            self._store.write(rows[whole:], marks)  # the watermarks last: they promise the rows
        return counts

    def _write_layouts(self) -> None:
        layouts = [Layout.of(view) for view in self.bundle.views]
        self._store.write([], {layout_key(self.bundle.project, layout.digest): layout.to_json() for layout in layouts})

    def _watermarks(self, views: Sequence[View]) -> list[int]:
        values = self._store.mget([watermark_key(self.bundle.project, view.name) for view in views])
        return [watermark_of(value) for value in values]

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


def materialize(bundle: Bundle, offline: OfflineStore, store: OnlineStore, known_by: int) -> dict[str, int]:
    """Publish once, incrementally, up to `known_by` (microseconds); rows written, by view."""
    return Publisher(bundle, offline, store).advance(known_by)
