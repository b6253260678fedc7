"""Anti-entropy: what the online store holds against what the sources say it should, key by key, without any traffic.

Both sides are walked once and hashed into buckets by key; only buckets that differ are looked at row by row. Read-only.
What a writer has published beyond its watermark meanwhile is on its way, not wrong.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewguard.definitions import Bundle, View
from skewguard.errors import CastError, DefinitionError, LayoutError, SourceError, StoreUnavailable
from skewguard.offline import OfflineStore
from skewguard.online import Layout, pack
from skewguard.online.keys import layout_key, row_key, row_keys, values_of, view_prefix, watermark_key, watermark_of
from skewguard.online.layout import ORDER, read_digest, unpack
from skewguard.online.store import UNANSWERED, KeptStore
from skewguard.online.stored import stored_views
from skewguard.values import NO_TIME, Array, Column, Mask, instant, same

BUCKETS = 1 << 16
ROWS_AT_ONCE = 200_000
"""So many rows of differing buckets are held at once; where more differ, the keys are walked again."""

_CHUNK = 20_000
_ASKED = 500
_PAUSES = (0.3, 1.0)  # longer than a store that failed is left alone
_AVAILABLE = slice(25, 33)

Rows = dict[bytes, bytes]


class Deviates(StrEnum):
    """How a key deviates."""

    MISSING = "missing"  # the sources have it, the store has not
    EXTRA = "extra"  # the store has it, the sources have not
    STALE = "stale"  # the store has an older row of it
    DIFFERENT = "different"  # other values under the same times, bytes that nothing explains, or a row nobody published


@dataclass(frozen=True, slots=True)
class Deviation:
    """One key. `values` in the order of the view's keys; `online` and `offline` are packed rows, None where there is
    none; `newer`: the store's row is newer than the newest of the sources.
    """

    kind: Deviates
    view: str
    key: bytes
    values: tuple[str | int, ...]
    online: bytes | None
    offline: bytes | None
    newer: bool = False


@dataclass(frozen=True, slots=True)
class Reconciled:
    """One view. `keys` that the sources have, `stored` that the store has; counts by how they deviate; `named` are the
    first of them, in order of their keys. `moving` were written beyond the watermark while this looked. `known_by` is
    the watermark up to which the sources were read, `NO_TIME` where the view was never written: nothing is known then.
    """

    view: str
    known_by: int
    keys: int = 0
    stored: int = 0
    missing: int = 0
    extra: int = 0
    stale: int = 0
    different: int = 0
    moving: int = 0
    named: tuple[Deviation, ...] = ()

    @property
    def deviating(self) -> int:
        """How many keys deviate."""
        return self.missing + self.extra + self.stale + self.different

    @property
    def examined(self) -> bool:
        """Whether there was anything to compare."""
        return self.known_by != NO_TIME


Visit = Callable[[View, Sequence[Deviation]], None]


def reconcile(
    bundle: Bundle,
    offline: OfflineStore,
    store: KeptStore,
    *,
    views: Collection[str] | None = None,
    limit: int = 1000,
    visit: Visit = lambda *_: None,
) -> list[Reconciled]:
    """Compare every key of every view (or of `views`); the first `limit` deviations of a view are named.

    `visit` is given all of them, some at a time. Memory: the sources' newest rows, 24 bytes per bucket and side, and
    `ROWS_AT_ONCE`. Raises `StoreUnavailable` where a part of the store does not answer, `SourceError`, and
    `DefinitionError` for a view that the bundle lacks.
    """
    unknown = sorted(set(views or ()) - {name for view in bundle.views for name in (view.name, view.feast_name)})
    if unknown:
        known = ", ".join(view.name for view in bundle.views)
        raise DefinitionError(
            f"the bundle of service {bundle.service} has no view {', '.join(unknown)}; it has {known}"
        )
    chosen = stored_views(bundle.views, views)
    return [_Comparison(bundle.project, view, offline, store).run(limit, visit) for view in chosen]


class _Buckets:
    """Per bucket how many rows, and the sum of their hashes: the same for the same rows in any order."""

    def __init__(self) -> None:
        self.rows = np.zeros(BUCKETS, dtype=np.int64)
        self.sums = np.zeros((BUCKETS, 2), dtype=np.uint64)

    def add(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        where = _bucket([key for key, _ in rows])
        hashes = b"".join([blake2b(key + _said(row), digest_size=16).digest() for key, row in rows])
        np.add.at(self.rows, where, 1)
        np.add.at(self.sums, where, np.frombuffer(hashes, dtype="<u8").reshape(-1, 2))

    def differ(self, other: _Buckets) -> Mask:
        return np.asarray((self.rows != other.rows) | (self.sums != other.sums).any(axis=1))


class _Comparison:
    """One view of one store."""

    def __init__(self, project: str, view: View, offline: OfflineStore, store: KeptStore) -> None:
        self.project, self.view, self.store = project, view, store
        self._offline = offline
        self._own = Layout.of(view)
        self._layouts: dict[bytes, Layout | None] = {self._own.digest: self._own}
        self.mark = watermark_of(_answered(store, [watermark_key(project, view.feast_name)])[0])

    def run(self, limit: int, visit: Visit) -> Reconciled:
        """Both sides into buckets; then, group by group, those that differ."""
        found = Reconciled(self.view.name, self.mark)
        if not found.examined:
            return found
        table = self._offline.latest(self.view.name, self.mark)
        should, does = _Buckets(), _Buckets()
        for rows in self._expected(table):
            should.add(list(rows.items()))
        for rows in self._stored():
            does.add(list(rows.items()))
        found = replace(found, keys=int(should.rows.sum()), stored=int(does.rows.sum()))
        for group in _groups(should.differ(does), should.rows + does.rows):
            expected = {key: row for rows in self._expected(table, group) for key, row in rows.items()}
            stored = {key: row for rows in self._stored(group) for key, row in rows.items()}
            deviations, moving = self._compare(expected, stored)
            visit(self.view, deviations)
            found = _counted(found, deviations, moving, limit)
        return replace(found, named=tuple(sorted(found.named, key=lambda one: one.key)))

    def _expected(self, table: pa.Table, only: Mask | None = None) -> Iterator[Rows]:
        """What the store should hold, packed as the writer does; of the buckets in `only`, a mask over all."""
        view = self.view
        for at in range(0, len(table), _CHUNK):
            part = table.slice(at, _CHUNK)
            keys = self._keys(part)
            chosen = np.array([key is not None for key in keys], dtype=bool)
            if only is not None:
                chosen &= only[_bucket([key or b"" for key in keys])]
            where = np.flatnonzero(chosen)
            some = part.take(pa.array(where))
            event, created = some["event"].to_numpy(), some["created"].to_numpy()
            columns = [self._column(some, f"f__{f.name}", f.dtype, f.column) for f in view.features]
            packed = pack(self._own, event, created, self.mark, columns)
            yield {key: row for i, row in zip(where.tolist(), packed, strict=True) if (key := keys[i]) is not None}

    def _keys(self, part: pa.Table) -> Sequence[bytes | None]:
        if not self.view.keys:
            return [row_key(self.project, self.view, ())] * len(part)
        columns = [self._column(part, key.column, key.dtype, key.column) for key in self.view.keys]
        return row_keys(self.project, self.view, columns)

    def _column(self, table: pa.Table, name: str, dtype: object, column: str) -> Column:
        try:
            return Column.from_arrow(table[name], dtype, f"column {column!r}")  # type: ignore[arg-type]
        except CastError as error:
            raise SourceError(f"{self.view.source.path} (view {self.view.name}): {error}") from error

    def _stored(self, only: Mask | None = None) -> Iterator[Rows]:
        """What the store holds under the view's keys."""
        for page in self.store.keys(view_prefix(self.project, self.view.feast_name) + b"{"):
            keys = list(dict.fromkeys(page))
            if only is not None:
                keys = [key for key, wanted in zip(keys, only[_bucket(keys)].tolist(), strict=True) if wanted]
            for at in range(0, len(keys), _ASKED):
                some = keys[at : at + _ASKED]
                values = _answered(self.store, some)
                yield {key: row for key, row in zip(some, values, strict=True) if row is not None}

    def _compare(self, expected: Rows, stored: Rows) -> tuple[list[Deviation], int]:
        """(what deviates among the rows of some buckets, how many of them are on their way)."""
        found, moving = [], 0
        for key in expected.keys() | stored.keys():
            online, offline = stored.get(key), expected.get(key)
            kind = self._deviates(online, offline)
            if kind is None:
                continue
            newer = online is not None and (offline is None or online[ORDER] > offline[ORDER])
            if newer and online is not None and self._beyond(online):
                moving += 1
                continue
            values = values_of(self.project, self.view, key)
            found.append(Deviation(kind, self.view.name, key, values, online, offline, newer and offline is not None))
        return sorted(found, key=lambda one: one.key), moving

    def _deviates(self, online: bytes | None, offline: bytes | None) -> Deviates | None:
        if online is None or offline is None:
            return Deviates.MISSING if online is None else Deviates.EXTRA
        if _said(online) == _said(offline):
            return None
        readable = len(online) >= _AVAILABLE.stop and self._layout(read_digest(online)) is not None
        if readable and online[ORDER] < offline[ORDER]:
            return Deviates.STALE
        return None if readable and self._alike(online, offline) else Deviates.DIFFERENT

    def _alike(self, online: bytes, offline: bytes) -> bool:
        """Whether rows in different layouts say the same of every feature of the view."""
        layout = self._layout(read_digest(online))
        if layout is None or layout.digest == self._own.digest or online[ORDER] != offline[ORDER]:
            return False
        try:
            theirs, ours = unpack(layout, [online]).features, unpack(self._own, [offline]).features
        except LayoutError:
            return False
        return all(
            name in theirs and theirs[name].dtype is column.dtype and bool(same(theirs[name], column).all())
            for name, column in ours.items()
        )

    def _layout(self, digest: bytes) -> Layout | None:
        if digest not in self._layouts:
            stored = _answered(self.store, [layout_key(self.project, digest)])[0]
            try:
                self._layouts[digest] = Layout.from_json(stored) if stored else None
            except LayoutError:
                self._layouts[digest] = None
        return self._layouts[digest]

    def _beyond(self, row: bytes) -> bool:
        """Whether a row was written by a publication whose watermark was not there yet."""
        return len(row) >= _AVAILABLE.stop and struct.unpack("<q", row[_AVAILABLE])[0] > self.mark


def _counted(found: Reconciled, deviations: Sequence[Deviation], moving: int, limit: int) -> Reconciled:
    counts = {kind.value: getattr(found, kind) + sum(one.kind is kind for one in deviations) for kind in Deviates}
    named = (*found.named, *deviations[: max(limit - len(found.named), 0)])
    return replace(found, **counts, moving=found.moving + moving, named=named)


def _answered(store: KeptStore, keys: Sequence[bytes]) -> list[bytes | None]:
    """The values; who does not answer within a deadline that is made for requests is asked a few times."""
    for pause in _PAUSES:
        try:
            values = store.mget(keys)
        except StoreUnavailable:
            time.sleep(pause)
        else:
            break
    else:
        values = store.mget(keys)
    if UNANSWERED in values:
        raise StoreUnavailable(f"online store {store.url}: a part does not answer, so that nothing can be compared")
    return values


def _groups(differ: Mask, rows: npt.NDArray[np.int64]) -> Iterator[Mask]:
    """Masks of differing buckets that hold no more than `ROWS_AT_ONCE` rows together, or are one bucket."""
    at = np.flatnonzero(differ)
    group = np.cumsum(rows[at]) // ROWS_AT_ONCE
    for number in np.unique(group):
        mask = np.zeros(BUCKETS, dtype=bool)
        mask[at[group == number]] = True
        yield mask


def _bucket(keys: Sequence[bytes]) -> Array:
    return np.fromiter(map(crc32, keys), dtype=np.int64, count=len(keys)) % BUCKETS


def _said(row: bytes) -> bytes:
    """A packed row without the moment of its writing."""
    return row[: _AVAILABLE.start] + row[_AVAILABLE.stop :]


def describe(deviation: Deviation, names: Sequence[str]) -> str:
    """`missing: tail N3 (sources: event 2024-03-04T10:00Z)`."""
    who = ", ".join(f"{name} {value}" for name, value in zip(names, deviation.values, strict=True)) or "the only row"
    sides = [
        f"{side}: event {event_of(row)}"
        for side, row in (("store", deviation.online), ("sources", deviation.offline))
        if row is not None
    ]
    return f"{deviation.kind}: {who} ({'; '.join(sides)})"


def event_of(row: bytes) -> str:
    """The event time of a packed row, as ISO text."""
    if len(row) < ORDER.stop:
        return "unreadable"
    return instant(struct.unpack(">Q", row[ORDER.start : ORDER.start + 8])[0] - (1 << 63))
