"""Answers asks from the online store: one `mget`, statuses told apart, TTL as offline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skewguard.definitions import Bundle, Feature, View
from skewguard.errors import CastError, LayoutError, StoreUnavailable
from skewguard.online.layout import (
    FORMAT,
    Layout,
    layout_key,
    row_key,
    row_keys,
    unpack,
    watermark_key,
    watermark_of,
)
from skewguard.online.store import OnlineStore
from skewguard.spine import Spine, ViewRows, assemble, expire
from skewguard.values import NO_TIME, Column, Status


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
        marks = [watermark_of(value) for value in values]
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
        rows = answers[0][1] if len(answers) == 1 else _together(view, n, answers)
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
        layout = self._layout(digest) if digest else None
        if layout is None:
            return _absent(view, len(blobs), Status.ERROR if digest else Status.NOT_FOUND)
        try:
            rows = unpack(layout, [blob for blob in blobs if blob is not None])
        except LayoutError:
            if len(blobs) == 1:
                return _absent(view, 1, Status.ERROR)
            # one torn row says nothing about the others
            return _together(view, len(blobs), [([i], self._group(view, digest, [b])) for i, b in enumerate(blobs)])
        found = np.zeros(len(blobs), dtype=np.uint8)
        features = {f.name: _declared(rows.features.get(f.name), f, len(blobs)) for f in view.features}
        return ViewRows(found, rows.event, rows.created, rows.available, features)

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
            if watermark_of(value) == NO_TIME:
                raise StoreUnavailable(f"view {view.name} was never materialized to {self.store.url}")


def _by_layout(blobs: Sequence[bytes | None]) -> list[tuple[bytes, list[int]]]:
    """Positions by layout digest; the empty digest stands for no row."""
    groups: dict[bytes, list[int]] = {}
    for i, blob in enumerate(blobs):
        groups.setdefault(_digest(blob) if blob is not None else b"", []).append(i)
    return list(groups.items())


def _digest(blob: bytes) -> bytes:
    return blob[1:9] if blob[:1] == bytes([FORMAT]) and len(blob) > 9 else b"?"


def _absent(view: View, n: int, status: Status) -> ViewRows:
    times = np.full(n, NO_TIME, dtype=np.int64)
    features = {f.name: Column.absent(f.dtype, n, status) for f in view.features}
    return ViewRows(np.full(n, status, dtype=np.uint8), times, times, times, features)


def _together(view: View, n: int, answers: Sequence[tuple[list[int], ViewRows]]) -> ViewRows:
    dtypes = {feature.name: feature.dtype for feature in view.features}
    return assemble(n, dtypes, ((np.array(where, dtype=np.int64), rows) for where, rows in answers))


def _declared(column: Column | None, feature: Feature, n: int) -> Column:
    """The feature under today's declaration; a feature that an older layout lacks was not found then."""
    if column is None:
        return Column.absent(feature.dtype, n, Status.NOT_FOUND)
    if column.dtype is feature.dtype:
        return column
    try:
        return Column.from_arrow(column.to_arrow(), feature.dtype, feature.name)
    except CastError:
        if n == 1:
            return Column.absent(feature.dtype, 1, Status.ERROR)
        return Column.concat([_declared(column.take(np.array([i])), feature, 1) for i in range(n)])
