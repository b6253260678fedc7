"""Answers asks from the online store: one `mget`, statuses told apart, TTL as offline."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from skewguard.definitions import Bundle, View
from skewguard.errors import CastError, LayoutError, StoreUnavailable
from skewguard.online.layout import FORMAT, Layout, Unpacked, layout_key, row_key, row_keys, unpack, watermark_key
from skewguard.online.store import OnlineStore
from skewguard.spine import Spine, ViewRows, expire
from skewguard.values import NO_TIME, Column, Dtype, Status


class Lookup:
    """The online side of one bundle: asks in, `ViewRows` out, as the offline store answers."""

    def __init__(self, bundle: Bundle, store: OnlineStore) -> None:
        self.bundle = bundle
        self.store = store
        self._layouts = {layout.digest: layout for layout in map(Layout.of, bundle.views)}
        self._marks = [watermark_key(bundle.project, view.name) for view in bundle.views]

    def answer(self, spine: Spine) -> dict[str, ViewRows]:
        """One answer per ask and view, in the spine's order; raises `StoreUnavailable`."""
        keys: list[bytes | None] = []
        for view in self.bundle.views:
            keys += self._keys(view, spine)
        asked = [key for key in keys if key is not None]
        values = iter(self.store.mget([*asked, *self._marks]))
        blobs = [next(values) if key is not None else None for key in keys]
        marks = [_watermark(value) for value in values]
        n = len(spine)
        return {
            view.name: self._view(view, spine, blobs[i * n : (i + 1) * n], marks[i])
            for i, view in enumerate(self.bundle.views)
        }

    def _keys(self, view: View, spine: Spine) -> list[bytes | None]:
        if not view.keys:
            return [row_key(self.bundle.project, view, ())] * len(spine)
        return row_keys(self.bundle.project, view, [spine.keys[key.ask] for key in view.keys])

    def _view(self, view: View, spine: Spine, blobs: Sequence[bytes | None], watermark: int) -> ViewRows:
        n = len(spine)
        answers = [(where, self._group(view, digest, [blobs[i] for i in where])) for digest, where in _by_layout(blobs)]
        rows = answers[0][1] if len(answers) == 1 else _spread(view, n, answers)
        status = expire(rows.status, rows.event, spine.as_of, view.ttl_us)
        features = rows.features
        if status is not rows.status and (status != rows.status).any():
            features = {
                name: Column.build(column.dtype, column.values, np.maximum(status, column.status))
                for name, column in features.items()
            }
        return ViewRows(status, rows.event, rows.created, np.full(n, watermark, dtype=np.int64), features)

    def _group(self, view: View, digest: bytes, blobs: Sequence[bytes | None]) -> ViewRows:
        """The rows of one layout, or of none: found, not found, or an error; never a guess."""
        n = len(blobs)
        rows = self._unpack(digest, [blob for blob in blobs if blob is not None]) if digest else None
        if rows is None:
            status = Status.ERROR if digest else Status.NOT_FOUND
            times = np.full(n, NO_TIME, dtype=np.int64)
            absent = {f.name: Column.absent(f.dtype, n, status) for f in view.features}
            return ViewRows(np.full(n, status, dtype=np.uint8), times, times, times, absent)
        found = np.zeros(n, dtype=np.uint8)
        features = {f.name: _as_declared(rows, f.name, f.dtype, n) for f in view.features}
        return ViewRows(found, rows.event, rows.created, rows.available, features)

    def _unpack(self, digest: bytes, rows: list[bytes]) -> Unpacked | None:
        """Rows of a known layout, None where no layout explains the bytes: an error, never a guess."""
        layout = self._layout(digest)
        if layout is None:
            return None
        try:
            return unpack(layout, rows)
        except (LayoutError, UnicodeDecodeError):
            return None

    def _layout(self, digest: bytes) -> Layout | None:
        if digest not in self._layouts:
            stored = self.store.mget([layout_key(self.bundle.project, digest)])[0]
            try:
                layout = Layout.from_json(stored) if stored else None
            except LayoutError:
                layout = None
            if layout is None or layout.digest != digest:
                return None
            self._layouts[digest] = layout
        return self._layouts[digest]

    def ready(self) -> None:
        """Raise `StoreUnavailable` unless the store answers and every view has been written to it."""
        for view, value in zip(self.bundle.views, self.store.mget(self._marks), strict=True):
            if value is None:
                raise StoreUnavailable(f"view {view.name} was never materialized to {self.store.url}")


def _by_layout(blobs: Sequence[bytes | None]) -> list[tuple[bytes, list[int]]]:
    """Positions by layout digest; the empty digest stands for no row."""
    groups: dict[bytes, list[int]] = {}
    for i, blob in enumerate(blobs):
        groups.setdefault(_digest(blob) if blob is not None else b"", []).append(i)
    return list(groups.items())


def _digest(blob: bytes) -> bytes:
    return blob[1:9] if blob[:1] == bytes([FORMAT]) else b"?"


def _spread(view: View, n: int, answers: Sequence[tuple[list[int], ViewRows]]) -> ViewRows:
    """Answers of several layouts, each at its place."""
    status = np.zeros(n, dtype=np.uint8)
    event = np.full(n, NO_TIME, dtype=np.int64)
    created = event.copy()
    features = {f.name: Column.absent(f.dtype, n, Status.NOT_FOUND) for f in view.features}
    for where, rows in answers:
        status[where], event[where], created[where] = rows.status, rows.event, rows.created
        for name, column in rows.features.items():
            features[name].values[where] = column.values
            features[name].status[where] = column.status
    return ViewRows(status, event, created, event, features)


def _as_declared(rows: Unpacked, name: str, dtype: Dtype, n: int) -> Column:
    """The feature under today's declaration; a feature that an older layout lacks was not found then."""
    column = rows.features.get(name)
    if column is None:
        return Column.absent(dtype, n, Status.NOT_FOUND)
    if column.dtype is dtype:
        return column
    try:
        return Column.from_arrow(column.to_arrow(), dtype, name)
    except CastError:
        return Column.absent(dtype, n, Status.ERROR)


def _watermark(value: bytes | None) -> int:
    return int(struct.unpack(">q", value)[0]) if value and len(value) == 8 else NO_TIME
