"""Answers asks from the online store: one `mget`, statuses told apart, TTL as offline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skewguard.definitions import Bundle, Feature, View
from skewguard.errors import CastError, LayoutError, StoreUnavailable
from skewguard.online.keys import layout_key, row_key, row_keys, watermark_key, watermark_of, written_key
from skewguard.online.layout import DIGEST, FORMAT, Layout, read_digest, unpack
from skewguard.online.store import OnlineStore
from skewguard.spine import Spine, ViewRows, assemble, expire
from skewguard.values import NO_TIME, Block, Column, Status


class Lookup:
    """The online side of one bundle: asks in, `ViewRows` out, as the offline store answers.

    `marked`: whether the store says how far each view was written, so that one that never was is told from no row.
    """

    marked = True

    def __init__(self, bundle: Bundle, store: OnlineStore) -> None:
        self.bundle = bundle
        self.store = store
        layouts = {view.name: Layout.of(view) for view in bundle.views}
        self._layouts = {layout.digest: layout for layout in layouts.values()}
        self._own = {name: layout.digest for name, layout in layouts.items()}
        self._marks = [watermark_key(bundle.project, view.feast_name) for view in bundle.views]

    def answer(self, spine: Spine) -> dict[str, ViewRows]:
        """One answer per ask and view, in the spine's order; raises `StoreUnavailable`."""
        keys = self.keys(spine)
        return self.read(spine, keys, self.store.mget([*[key for key in keys if key is not None], *self._marks]))

    def keys(self, spine: Spine) -> list[bytes | None]:
        """The keys that answer the asks, view by view, None where an ask lacks a key value."""
        return [key for view in self.bundle.views for key in self._keys(view, spine)]

    def read(self, spine: Spine, keys: Sequence[bytes | None], answered: Sequence[bytes | None]) -> dict[str, ViewRows]:
        """The answers in what the store said about `keys` that are not None, and then about the watermarks."""
        asked, n = len(answered) - len(self.bundle.views), len(spine)
        marks = [watermark_of(value) for value in answered[asked:]]
        blobs = answered[:asked]
        if asked < len(keys):
            values = iter(blobs)
            blobs = [next(values) if key is not None else None for key in keys]
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
        groups = _by_layout(blobs)
        rows = self._quick(view, groups, blobs) if len(groups) == 2 else None
        if rows is None:
            answers = [(where, self._group(view, digest, [blobs[i] for i in where])) for digest, where in groups]
            rows = answers[0][1] if len(answers) == 1 else _together(view, n, answers)
        status = expire(rows.status, rows.event, spine.as_of, view.ttl_us)
        features = rows.features
        if status is not rows.status and (status != rows.status).any():
            if isinstance(features, Block):
                features = features.under(status)
            else:
                features = {
                    name: Column.build(column.dtype, column.values, np.maximum(status, column.status))
                    for name, column in features.items()
                }
        return ViewRows(status, rows.event, rows.created, np.full(n, watermark, dtype=np.int64), features)

    def _quick(
        self, view: View, groups: Sequence[tuple[bytes, list[int]]], blobs: Sequence[bytes | None]
    ) -> ViewRows | None:
        """Rows of the view's own layout, some of them not found, at once; None where there is more to it."""
        by_layout = dict(groups)
        own, missing = self._own[view.name], by_layout.get(b"")
        if missing is None or own not in by_layout:
            return None
        layout = self._layouts[own]
        try:
            rows = unpack(layout, [layout.blank if blob is None else blob for blob in blobs], missing)
        except LayoutError:
            return None
        found = np.zeros(len(blobs), dtype=np.uint8)
        found[missing] = _NOT_FOUND
        return ViewRows(found, rows.event, rows.created, rows.available, rows.features)

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
        features = rows.features
        if digest != self._own[view.name]:
            features = {f.name: _declared(features.get(f.name), f, len(blobs)) for f in view.features}
        return ViewRows(found, rows.event, rows.created, rows.available, features)

    def _layout(self, digest: bytes) -> Layout | None:
        if digest not in self._layouts and len(digest) == DIGEST:
            try:
                stored = self.store.mget([layout_key(self.bundle.project, digest)])[0]
                layout = Layout.from_json(stored) if stored else None
            except (LayoutError, StoreUnavailable):  # the row is there, what it means is not
                layout = None
            if layout is None or layout.digest != digest:
                return None
            self._layouts[digest] = layout
        return self._layouts.get(digest)

    def ready(self) -> None:
        """Raise `StoreUnavailable` unless the store answers and every view has been written to it."""
        for view, value in zip(self.bundle.views, self.store.mget(self._marks), strict=True):
            if watermark_of(value) == NO_TIME:
                raise StoreUnavailable(f"view {view.name} was never materialized to {self.store.url}")


def layout_written(store: OnlineStore, project: str, view: str) -> Layout | None:
    """The layout in which all of a view's rows have been written; None where nobody says so."""
    (digest,) = store.mget([written_key(project, view)])
    stored = store.mget([layout_key(project, digest)])[0] if digest else None
    return Layout.from_json(stored) if stored else None


def _by_layout(blobs: Sequence[bytes | None]) -> list[tuple[bytes, list[int]]]:
    """Positions by layout digest; the empty digest stands for no row."""
    first = next((blob[:9] for blob in blobs if blob), b"")
    if len(first) == 9 and first[0] == FORMAT and all(blob is None or blob.startswith(first) for blob in blobs):
        missing = [i for i, blob in enumerate(blobs) if blob is None]
        if not missing:
            return [(first[1:], list(range(len(blobs))))]
        return [(first[1:], [i for i, blob in enumerate(blobs) if blob is not None]), (b"", missing)]
    groups: dict[bytes, list[int]] = {}
    for i, blob in enumerate(blobs):
        groups.setdefault(read_digest(blob) if blob is not None else b"", []).append(i)
    return list(groups.items())


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


_NOT_FOUND = np.uint8(Status.NOT_FOUND)
