"""A scratch copy of a repository: the same stores by type, empty, over made-up rows."""

from __future__ import annotations

import copy
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureService, FeatureStore, FileSource, RepoConfig

from skewguard.definitions import View
from skewguard.definitions.feast import dtype_of, mapped_from, read_view
from skewguard.errors import SkewguardError
from skewguard.offline import OfflineStore, Rule
from skewguard.spine import read_spine
from skewguard.workflows.doctor.cases import Cases, Row, Shape
from skewguard.workflows.doctor.cells import plain
from skewguard.workflows.doctor.diagnosis import Unchecked
from skewguard.workflows.doctor.feast.opened import Asked, Opened, only, within

ASK, EVENT = "skewguard_ask", "event_timestamp"
_LOCAL = ("dask", "file", "duckdb")
_START_SECONDS = 5.0
Values = dict[str, Any]


@dataclass(frozen=True)
class Copy:
    """An empty repository in `folder`. `own_offline`: whether its offline store is the repository's own kind."""

    store: FeatureStore
    folder: Path
    patience: float
    own_offline: bool
    number: int = 0

    def fresh(self) -> Copy:
        """The same stores for another project: nothing is registered, nothing was materialized."""
        config = copy.copy(self.store.config)
        config.project = f"skewguard_doctor_{self.number}"
        path = str(self.folder / f"registry-{self.number}.db")
        config.registry_config, config._registry = {"path": path}, None  # noqa: SLF001  (cached)
        return replace(self, store=FeatureStore(config=config), number=self.number + 1)


@contextmanager
def scratch(opened: Opened, patience: float) -> Iterator[Copy]:
    """A copy that is gone afterwards, its Redis server as well. What it could not copy is said in `opened`."""
    with TemporaryDirectory(prefix="skewguard-scratch-") as name:
        folder, config = Path(name), opened.store.config
        with _online(opened, config, folder) as online:
            offline, own = _offline(opened, config)
            made = RepoConfig(
                project="skewguard_doctor",
                provider="local",
                registry=str(folder / "registry.db"),
                offline_store=offline,
                online_store=online,
                batch_engine=copy.deepcopy(config.batch_engine_config),
                entity_key_serialization_version=config.entity_key_serialization_version,
                repo_path=folder,
            )
            yield Copy(FeatureStore(config=made), folder, patience, own)


def _offline(opened: Opened, config: RepoConfig) -> tuple[Any, bool]:
    kind = _type(config.offline_config)
    if kind in _LOCAL or kind.endswith("SkewguardOfflineStore"):
        return copy.deepcopy(config.offline_config), True
    why = f"the offline store {kind} takes no files: made-up rows are compared with skewguard's join instead"
    opened.unchecked.append(Unchecked("historical retrieval on edge cases", why))
    return {"type": "duckdb"}, False


def _type(config: Any) -> str:
    return str(config.get("type", "") if isinstance(config, dict) else getattr(config, "type", config))


@contextmanager
def _online(opened: Opened, config: RepoConfig, folder: Path) -> Iterator[dict[str, Any]]:
    given = config.online_config if isinstance(config.online_config, dict) else {"type": _type(config.online_config)}
    kind = _type(given)
    ours = kind.endswith("SkewguardOnlineStore")
    sqlite: dict[str, Any] = {"type": "sqlite", "path": str(folder / "online.db")}
    if ours:
        address = str(given.get("url") or given.get("connection_string") or "sqlite")
        keep = {name: value for name, value in given.items() if name not in ("url", "path", "connection_string")}
        sqlite = keep | {"url": f"sqlite:{folder / 'online.db'}"}
        redis = not address.startswith("sqlite")
    else:
        redis = "redis" in kind
    if not redis:
        if not ours and kind != "sqlite":
            why = f"the online store {kind} has no scratch copy here: edge cases were sent through Feast's SQLite store"
            opened.unchecked.append(Unchecked("edge cases in the online store", why))
        yield sqlite
        return
    with _redis(folder) as port:
        if not port:
            why = "no redis-server or valkey-server is installed: edge cases were sent through SQLite instead"
            opened.unchecked.append(Unchecked("edge cases in Redis", why))
            yield sqlite
        elif ours:
            yield keep | {"url": f"redis://127.0.0.1:{port}/0"}
        else:
            yield {"type": "redis", "connection_string": f"127.0.0.1:{port}"}


@contextmanager
def _redis(folder: Path) -> Iterator[int]:
    """The port of a Redis server of our own, on loopback; 0 where none is installed."""
    server = next((found for name in ("redis-server", "valkey-server") if (found := shutil.which(name))), None)
    if server is None:
        yield 0
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    flags = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "", "--appendonly", "no"]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen([server, *flags], stdout=log, stderr=log)  # noqa: S603  (found on PATH)
    try:
        yield port if _answers(port) else 0
    finally:
        process.terminate()
        process.wait(_START_SECONDS)


def _answers(port: int) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.02)
        else:
            return True
    return False


class Trial:
    """One view of the repository in the scratch copy, over rows that are made up."""

    def __init__(self, opened: Opened, made: Copy, view: Any, shape: Shape) -> None:
        self.opened, self.copy, self.view, self.shape = opened, made, view, shape
        self.path = made.folder / f"{view.name}.parquet"
        self.micros = False
        self.features = list(shape.features)
        self.offline_features: list[str] | None = None  # those that historical retrieval gives, where not all
        self.applied: Any = None

    def call(self, what: str, call: Any) -> Any:
        """What `call` gives within the patience of the copy."""
        return within(self.copy.patience, what, call)

    def write(self, rows: Sequence[tuple[Any, Row]]) -> None:
        """The source: these rows, in the column types of the repository's own."""
        shape, back = self.shape, mapped_from(self.view.batch_source)
        columns: dict[str, Any] = {
            back.get(name, name): pa.array([key[i] for key, _ in rows], kind)
            for i, (name, kind) in enumerate(shape.keys.items())
        }
        for name in self.features:
            kind = shape.features[name]
            columns[back.get(name, name)] = pa.array([_fitting(row.values.get(name), kind) for _, row in rows], kind)
        columns[back.get(shape.timestamp, shape.timestamp)] = self._times(
            [row.event for _, row in rows], shape.time_type
        )
        if shape.created:
            kind = shape.created_type or shape.time_type
            columns[back.get(shape.created, shape.created)] = self._times([row.created for _, row in rows], kind)
        pq.write_table(pa.table(columns), self.path)

    def _times(self, times: list[datetime | None], kind: pa.DataType) -> pa.Array:
        whole = pa.array(times, pa.timestamp("us", tz="UTC"))
        if not pa.types.is_timestamp(kind):
            return whole
        unit = "us" if self.micros and kind.unit == "ns" else kind.unit
        zoned = whole.cast(pa.timestamp(unit, tz="UTC"), safe=False)
        return zoned.cast(pa.timestamp(unit, tz=kind.tz)) if kind.tz else zoned.cast(pa.timestamp(unit))

    def apply(self, features: Sequence[str]) -> Any:
        """Register the view with these features over the made-up source; the view as Feast then has it."""
        original = self.view.batch_source
        source = FileSource(
            name=f"skewguard_{self.view.name}",
            path=str(self.path),
            timestamp_field=original.timestamp_field,
            created_timestamp_column=original.created_timestamp_column,
            field_mapping=dict(original.field_mapping),
        )
        self.features = list(features)
        made = only(self.view, features, source)
        entities = [copy.deepcopy(entity) for entity in self.opened.entities_of(self.view)]
        self.call("apply", lambda: self.copy.store.apply([*entities, made]))
        self.applied = made
        return made

    def materialize(self, start: datetime, end: datetime) -> None:
        """Feast's own materialization of the view."""
        names = [self.view.name]
        self.call("materialize", lambda: self.copy.store.materialize(start, end, feature_views=names))

    def materialize_incremental(self, end: datetime) -> None:
        """The same from the last end on."""
        names = [self.view.name]
        store = self.copy.store
        self.call("materialize_incremental", lambda: store.materialize_incremental(end, feature_views=names))

    def ask_for(self, asked: Asked) -> tuple[Any, dict[str, str]]:
        """(what to ask Feast for, the name of each join key in an ask) for the view as somebody asks for it."""
        renames = dict(asked.projection.join_key_map)
        keys = {name: renames.get(name, name) for name in self.shape.keys}
        if not asked.service:
            return [f"{self.view.name}:{name}" for name in self.features], keys
        seen = copy.deepcopy(self.applied)
        seen.projection.name_alias = asked.projection.name_alias
        seen.projection.join_key_map = renames
        service = FeatureService(name="skewguard_asked", features=[seen])
        self.call("apply", lambda: self.copy.store.apply([service]))
        return self.copy.store.get_feature_service("skewguard_asked"), keys

    def offline(self, what: Any, asks: pd.DataFrame) -> pa.Table:
        """Feast's historical retrieval."""
        store = self.copy.store
        return self.call(
            "historical retrieval",
            lambda: store.get_historical_features(entity_df=asks, features=what).to_arrow(),
        )

    def online(self, what: Any, rows: list[Values]) -> tuple[dict[str, list[Any]], dict[str, list[int]]]:
        """Values and status codes by column."""
        store = self.copy.store
        response = self.call("online retrieval", lambda: store.get_online_features(features=what, entity_rows=rows))
        names = response.proto.metadata.feature_names.val
        status = {name: list(vector.statuses) for name, vector in zip(names, response.proto.results, strict=True)}
        values = {name: [plain(one) for one in column] for name, column in response.to_dict().items()}
        return values, status

    def truth(self, asked: Asked, asks: pa.Table, rule: Rule) -> dict[str, list[Any]]:
        """The one join's answers, for the features that it can read."""
        found: dict[str, list[Any]] = {}
        readable = [one for one in self.applied.features if dtype_of(one.dtype) is not None]
        try:
            return self._joined(asked, asks, rule, [one.name for one in readable])
        except SkewguardError:
            pass
        for one in readable:  # a loss that nobody declared is refused: the others have their truth
            try:
                found |= self._joined(asked, asks, rule, [one.name])
            except SkewguardError:
                continue
        return found

    def _joined(self, asked: Asked, asks: pa.Table, rule: Rule, names: list[str]) -> dict[str, list[Any]]:
        complaints: list[str] = []
        view: View = read_view(self.applied, asked.projection, names, self.copy.folder, complaints)
        complaints = [one for one in complaints if "Feast runs when it" not in one]
        if complaints:
            raise SkewguardError("; ".join(complaints))
        view = replace(view, name="v", source=replace(view.source, path=str(self.path)))
        with OfflineStore([view], rule) as join:
            spine = read_spine(asks, {key.ask: key.dtype for key in view.keys}, {})
            answer = join.answer(spine)["v"]
        return {name: [plain(one) for one in column.to_arrow().to_pylist()] for name, column in answer.features.items()}


def _fitting(value: Any, kind: pa.DataType) -> Any:
    """The value as its column can hold it."""
    if value is None or not pa.types.is_timestamp(kind):
        return value
    value = value if kind.unit != "s" else value.replace(microsecond=0)
    return value if kind.tz else value.replace(tzinfo=None)


def now() -> datetime:
    """The instant that a trial calls now: whole seconds, a moment ago."""
    from datetime import UTC

    return datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)


def rows_of(cases: Cases, phase: int) -> list[tuple[Any, Row]]:
    """What the source holds in a phase, no order being promised."""
    return [(case.key, row) for case in cases.cases for row in case.rows if row.phase <= phase]
