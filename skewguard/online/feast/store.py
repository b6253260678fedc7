"""The store that Feast loads. Feast finds it again through its config: both stand in one module."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel
from feast.utils import _get_table_entity_values
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import StrictBool, StrictStr

from skewguard.errors import CastError, LayoutError, StoreUnavailable
from skewguard.online.feast.values import from_protos, microseconds, to_protos
from skewguard.online.feast.views import Stored, names_of, stored
from skewguard.online.keys import layout_key, written_key
from skewguard.online.layout import Blobs, Layout, pack, read_digest, unpack
from skewguard.online.store import UNANSWERED, KeptStore, open_store
from skewguard.spine import expire
from skewguard.values import NO_TIME, Array, Column, Status

Row = tuple[EntityKey, Mapping[str, Value], datetime, datetime | None]

_STATUS = {
    Status.PRESENT: FieldStatus.PRESENT,
    Status.DEFAULTED: FieldStatus.PRESENT,
    Status.NULL: FieldStatus.NULL_VALUE,
    Status.EXPIRED: FieldStatus.OUTSIDE_MAX_AGE,
    Status.FUTURE: FieldStatus.NOT_FOUND,
    Status.NOT_FOUND: FieldStatus.NOT_FOUND,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SkewguardOnlineStoreConfig(FeastConfigBaseModel):
    """`online_store:` in feature_store.yaml. The address is `url`, or `path`, or what Feast's own Redis store takes."""

    type: StrictStr = "skewguard.online.feast.SkewguardOnlineStore"

    url: StrictStr | None = None
    """`sqlite:PATH`, `redis://HOST:PORT/DB`, `rediss://` (TLS), `redis+cluster://HOST:PORT,HOST:PORT`."""

    path: StrictStr | None = None
    """A SQLite file; relative to the repository. `data/online.db` where no address is given at all."""

    connection_string: StrictStr | None = None
    """As in Feast's Redis store: `host:port,db=0,ssl=true,password=...`."""

    redis_type: StrictStr = "redis"
    """As in Feast's Redis store: `redis` or `redis_cluster`."""

    enforce_ttl: StrictBool = True
    """A row older than its view's TTL has no value online either."""

    def address(self, repo: Path) -> str:
        """The URL of the store."""
        if self.url and not self.url.startswith("sqlite:"):
            return self.url
        if self.connection_string and not self.url:
            return _url(self.connection_string, self.redis_type)
        path = (self.url or "").removeprefix("sqlite:").removeprefix("//") or self.path or "data/online.db"
        return f"sqlite:{path if path == ':memory:' else repo / path}"


def _url(connection_string: str, redis_type: str) -> str:
    parts = connection_string.split(",")
    hosts = [part for part in parts if "=" not in part]
    options = dict(part.split("=", 1) for part in parts if "=" in part)
    if redis_type not in ("redis", "redis_cluster"):
        raise StoreUnavailable(f"redis_type: expected redis or redis_cluster, got {redis_type!r}")
    scheme = "rediss" if json.loads(options.pop("ssl", "false").lower()) else "redis"
    user, password = options.pop("username", ""), options.pop("password", "")
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
    if redis_type == "redis_cluster":
        options.pop("skip_full_coverage_check", None)
        base = f"{scheme}+cluster://{login}{','.join(hosts)}"
    else:
        base = f"{scheme}://{login}{hosts[0]}/{options.pop('db', '0')}"
    return base + (f"?{urlencode(options)}" if options else "")


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of one view: status, event time (int64 microseconds), and per feature values and statuses."""

    status: Array
    event: Array
    values: dict[str, list[Value]]
    statuses: dict[str, list[int]]


class SkewguardOnlineStore(OnlineStore):
    """Packed rows on SQLite or Redis: the bytes that skewguard's own lookup reads and its publisher writes."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str, int], KeptStore] = {}
        self._written: set[tuple[int, bytes]] = set()
        self._layouts: dict[bytes, Layout] = {}

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Reads and writes leave the event loop alone: they run in a thread."""
        return SupportedAsyncMethods(read=True, write=True)

    def opened(self, config: RepoConfig) -> KeptStore:
        """The store behind a configuration, opened once."""
        url = config.online_store.address(Path(config.repo_path or "."))
        key = (url, threading.get_ident() if url.startswith("sqlite:") else 0)  # a SQLite connection is one thread's
        if key not in self._opened:
            self._opened[key] = open_store(url)
        return self._opened[key]

    # -- writing

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: Sequence[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows whole; an older one never replaces a newer one by (event, created), whatever their order."""
        if not data:
            return
        made = stored(table)
        rows = _packed(made, config.project, data)
        store = self.opened(config)
        store.write(rows, self._said(store, made, config.project))
        if progress:
            progress(len(data))

    def _said(self, store: KeptStore, made: Stored, project: str) -> dict[bytes, bytes]:
        """The rows' layout; and, from the first writing, that the view is in it if nobody said so yet."""
        known = (id(store), made.layout.digest)
        if known in self._written:
            return made.layout_entry(project)
        self._written.add(known)
        key = written_key(project, made.view.name)
        own = {} if store.mget([key])[0] else {key: made.layout.digest}
        return made.layout_entry(project) | own

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: Sequence[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """The same beside the event loop."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    # -- reading

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: Sequence[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """Per key the event time and the values; no values where the row is expired, nothing where there is none."""
        values = [dict(zip(key.join_keys, key.entity_values, strict=True)) for key in entity_keys]
        (answer,) = self._answers(config, [(table, names_of(requested_features, stored(table)), values)])
        rows: list[tuple[datetime | None, dict[str, Value] | None]] = []
        for i, status in enumerate(answer.status.tolist()):
            at = int(answer.event[i])
            when = None if at == NO_TIME else _EPOCH + timedelta(microseconds=at)
            features = {name: column[i] for name, column in answer.values.items()}
            rows.append((when, features if status == Status.PRESENT else None))
        return rows

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: Sequence[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """The same beside the event loop."""
        return await asyncio.to_thread(self.online_read, config, table, entity_keys, requested_features)

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: Sequence[tuple[FeatureView, list[str]]],
        join_key_values: dict[str, list[Value]],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """All views of a request in one reading, every value with the status that it has."""
        n = max((len(column) for column in join_key_values.values()), default=0)
        asked = []
        for table, requested in grouped_refs:
            columns = _get_table_entity_values(table, entity_name_to_join_key_map, join_key_values)
            rows = [{name: column[i] for name, column in columns.items()} for i in range(n)]
            asked.append((table, requested, rows))
        for (table, requested, _), answer in zip(asked, self._answers(config, asked), strict=True):
            _fill(online_features_response, table, requested, answer, full_feature_names)
            if include_feature_view_version_metadata:
                _add_version(online_features_response, table)

    async def _read_features_per_fv_async(self, *arguments: Any, **named: Any) -> None:
        await asyncio.to_thread(self._read_features_per_fv, *arguments, **named)

    def _answers(
        self, config: RepoConfig, asked: Sequence[tuple[FeatureView, Sequence[str], Sequence[Mapping[str, Value]]]]
    ) -> list[Answer]:
        views = [stored(table) for table, _, _ in asked]
        keys = [view.key(config.project, row) for view, (_, _, rows) in zip(views, asked, strict=True) for row in rows]
        store = self.opened(config)
        found = iter(store.mget([key for key in keys if key is not None]))
        blobs = iter([next(found) if key is not None else None for key in keys])
        now = time.time_ns() // 1000
        answers = []
        for view, (_, names, rows) in zip(views, asked, strict=True):
            ttl = view.view.ttl_us if config.online_store.enforce_ttl else None
            answers.append(self._answer(config, view, names, [next(blobs) for _ in rows], now, ttl))
        return answers

    def _answer(
        self,
        config: RepoConfig,
        view: Stored,
        names: Sequence[str],
        blobs: Sequence[bytes | None],
        now: int,
        ttl_us: int | None,
    ) -> Answer:
        n = len(blobs)
        status = np.full(n, Status.NOT_FOUND, dtype=np.uint8)
        event = np.full(n, NO_TIME, dtype=np.int64)
        values = {name: [Value()] * n for name in names}
        own = {name: np.full(n, Status.NOT_FOUND, dtype=np.uint8) for name in names}
        for digest, where in _groups(view.view.name, blobs).items():
            rows = unpack(self._layout(config, view, digest), [blobs[i] or b"" for i in where])
            status[where], event[where] = Status.PRESENT, rows.event
            for name in names:
                column = rows.features.get(name) or rows.carried.get(name)
                if column is None or column.dtype != view.layout.dtypes[view.layout.names.index(name)]:
                    continue  # an older layout lacks it, or had it as something else
                for i, value in zip(where, to_protos(column), strict=True):
                    values[name][i] = value
                own[name][where] = _statuses(column)
        as_of = np.full(n, now, dtype=np.int64)
        status = expire(status, event, as_of, ttl_us)
        for name in names:
            own[name] = np.maximum(own[name], status)
            for i in np.flatnonzero(own[name] > Status.DEFAULTED).tolist():
                values[name][i] = Value()
        return Answer(status, event, values, {name: own[name].tolist() for name in names})

    def _layout(self, config: RepoConfig, view: Stored, digest: bytes) -> Layout:
        if digest == view.layout.digest:
            return view.layout
        if digest not in self._layouts:
            data = self.opened(config).mget([layout_key(config.project, digest)])[0]
            if not data:
                raise LayoutError(f"feature view {view.view.name}: a row in a layout that the store does not explain")
            self._layouts[digest] = Layout.from_json(data)
        return self._layouts[digest]

    # -- infrastructure

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Forget the rows of views that are gone; refuse keys that cannot be looked up."""
        for table in tables_to_keep:
            if isinstance(table, FeatureView):
                stored(table)
        self._written.clear()
        for table in tables_to_delete:
            self.opened(config).forget(config.project, table.name)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Forget the rows of all these views."""
        self._written.clear()
        for table in tables:
            self.opened(config).forget(config.project, table.name)

    async def close(self) -> None:
        """Close the connections."""
        for store in self._opened.values():
            store.close()
        self._opened.clear()
        self._written.clear()


def _packed(made: Stored, project: str, data: Sequence[Row]) -> list[tuple[bytes, bytes]]:
    where = f"feature view {made.view.name}"
    keys = [made.key(project, dict(zip(row[0].join_keys, row[0].entity_values, strict=True))) for row in data]
    for name in made.layout.names:
        if any(name not in row[1] for row in data):
            raise CastError(f"{where}: a row comes without {name}; rows are written whole, so that a view has one time")
    event = np.array([microseconds(row[2]) for row in data], dtype=np.int64)
    if (event == NO_TIME).any():
        raise CastError(f"{where}: a row comes without an event time")
    created = np.array([microseconds(row[3]) for row in data], dtype=np.int64)
    columns = [
        from_protos([row[1][name] for row in data], kind, f"{where}: {name}")
        for name, kind in zip(made.layout.names, made.layout.dtypes, strict=True)
    ]
    rows = pack(made.layout, event, created, time.time_ns() // 1000, columns)
    return [(key, row) for key, row in zip(keys, rows, strict=True) if key is not None]


def _groups(view: str, blobs: Sequence[bytes | None]) -> dict[bytes, list[int]]:
    """Positions by layout digest, of those where there is a row."""
    groups: dict[bytes, list[int]] = {}
    for i, blob in enumerate(blobs):
        if blob == UNANSWERED:
            raise StoreUnavailable(f"feature view {view}: the part of the online store that has a row does not answer")
        if blob is not None:
            groups.setdefault(read_digest(blob), []).append(i)
    return groups


def _statuses(column: Column | Blobs) -> Array:
    if isinstance(column, Column):
        return column.status
    return np.array([Status.NULL if blob is None else Status.PRESENT for blob in column.values], dtype=np.uint8)


def _fill(
    response: GetOnlineFeaturesResponse, table: FeatureView, requested: Sequence[str], answer: Answer, full: bool
) -> None:
    name = table.projection.name_to_use()
    response.metadata.feature_names.val.extend(f"{name}__{f}" if full else f for f in requested)
    stamps = []
    for at in answer.event.tolist():
        stamp = Timestamp()
        if at != NO_TIME:
            stamp.FromMicroseconds(at)
        stamps.append(stamp)
    for feature in requested:
        vector = response.results.add()
        vector.values.extend(answer.values[feature])
        vector.statuses.extend(_STATUS[Status(code)] for code in answer.statuses[feature])
        vector.event_timestamps.extend(stamps)


def _add_version(response: GetOnlineFeaturesResponse, table: FeatureView) -> None:
    name = table.projection.name_alias or table.projection.name
    if name not in [known.name for known in response.metadata.feature_view_metadata]:
        added = response.metadata.feature_view_metadata.add()
        added.name, added.version = name, getattr(table, "current_version_number", 0) or 0
