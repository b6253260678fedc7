"""A small world for the rooms from the service on: three days of asks, their sources, a snapshot, a model, and a day
of traffic that goes through the real writer, online store, answer and log; with one fault injected where a test wants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewguard.answer import answer, schema
from skewguard.contract import Contract
from skewguard.definitions import Bundle, Derived, Feature, Key, RequestField, Source, View
from skewguard.errors import StoreUnavailable
from skewguard.model import FEATURES_KEY, SNAPSHOT_KEY, Model, load_model
from skewguard.offline import OfflineStore
from skewguard.online import Layout, Lookup, OnlineStore, open_store, pack
from skewguard.online.keys import view_prefix
from skewguard.online.layout import unpack
from skewguard.policy import Policy
from skewguard.replay import Pairs, replay
from skewguard.service.answering import Answering
from skewguard.servinglog import ServingLog, read_log, to_table
from skewguard.snapshot import Snapshot, build_snapshot
from skewguard.transforms import fingerprint, load, numeric_class
from skewguard.values import Column, Dtype, Mask
from skewguard.workflows.guard import Guarded, guard
from skewguard.workflows.materialize import Publisher

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
SERVICE, PROJECT = "delay", "loop"
TODAY = datetime(2024, 3, 4, tzinfo=UTC)
DEPLOYED = TODAY + timedelta(hours=10)
ORIGINS = ("EWR", "JFK", "LGA")
STAMP = pa.timestamp("us", tz="UTC")
POLICY = Policy(governs=("delay-*",), minimum_rows=100, maximum_unverifiable=0.0, digest="p" * 64)

Row = bytes | None
Wrap = Callable[[OnlineStore, Bundle], OnlineStore]


def us(instant: datetime) -> int:
    """Microseconds since 1970."""
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def at(hour: float) -> datetime:
    """An hour of the day of traffic."""
    return TODAY + timedelta(hours=hour)


class Store:
    """A store in front of a store: `read` may change a row on its way out, `write` may keep one from going in."""

    def __init__(
        self,
        store: OnlineStore,
        read: Callable[[bytes, Row], Row] = lambda _, row: row,
        write: Callable[[bytes, bytes], bool] = lambda *_: True,
        look: Callable[[bytes], bytes] = lambda key: key,
    ) -> None:
        self.url, self._store = store.url, store
        self._read, self._write, self._look = read, write, look

    def mget(self, keys: Sequence[bytes]) -> list[Row]:
        """Rows by key, changed."""
        found = self._store.mget([self._look(key) for key in keys])
        return [self._read(key, row) for key, row in zip(keys, found, strict=True)]

    def write(self, rows: Sequence[tuple[bytes, bytes]], meta: Mapping[bytes, bytes]) -> None:
        """The rows that may go in."""
        self._store.write([(key, row) for key, row in rows if self._write(key, row)], meta)

    def clear(self, project: str) -> None:
        """As the store does."""
        self._store.clear(project)

    def close(self) -> None:
        """As the store does."""
        self._store.close()


class NoStore:
    """A store that does not answer."""

    url = "sqlite:gone"

    def mget(self, keys: Sequence[bytes]) -> list[Row]:
        """No answer."""
        raise StoreUnavailable(f"online store {self.url}: connection refused, {len(keys)} keys not read")

    def write(self, rows: Sequence[tuple[bytes, bytes]], meta: Mapping[bytes, bytes]) -> None:
        """No answer."""
        raise StoreUnavailable(f"online store {self.url}: {len(rows)} rows and {len(meta)} marks not written")

    def clear(self, project: str) -> None:
        """No answer."""
        raise StoreUnavailable(f"online store {self.url}: {project} not cleared")

    def close(self) -> None:
        """Nothing to close."""


def changed(view: View, feature: str, change: Callable[[Column], Column]) -> Callable[[bytes, Row], Row]:
    """A `read` that changes one feature of one view."""
    layout, prefix = Layout.of(view), view_prefix(PROJECT, view.name)

    def read(key: bytes, row: Row) -> Row:
        if row is None or not key.startswith(prefix):
            return row
        rows = unpack(layout, [row])
        features = {**rows.features, feature: change(rows.features[feature])}
        columns = [features[name] for name in layout.names]
        return pack(layout, rows.event, rows.created, int(rows.available[0]), columns)[0]

    return read


@dataclass(frozen=True)
class Fault:
    """What goes wrong in a day of traffic. Every second ask from DEPLOYED on goes to build B, which is where `store`
    (what it reads), `runs` (the code it runs) and `log` (what it writes down) apply. `writer` wraps the store of the
    one writer, which keeps `stopped` views away between two instants and reads `ahead_us` into the future.
    """

    store: Wrap = lambda store, _: store
    runs: Callable[[Bundle], Bundle] = lambda bundle: bundle
    log: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda batch: batch
    writer: Wrap = lambda store, _: store
    stopped: tuple[str, datetime, datetime] | None = None
    ahead_us: int = 0


@dataclass
class _Through:
    """A log that passes on what it is given, changed."""

    log: ServingLog
    change: Callable[[pa.RecordBatch], pa.RecordBatch]

    def append(self, batch: pa.RecordBatch) -> None:
        """Log the changed rows."""
        self.log.append(self.change(batch))

    def check(self) -> None:
        """As the log does."""
        self.log.check()


@dataclass(frozen=True)
class Loop:
    """The world on disk. `asks` are the requests of TODAY, in order of time."""

    root: Path
    bundle: Bundle
    asks: pa.Table
    snapshot: Snapshot
    model_folder: Path
    model: Model = field(repr=False)

    @property
    def bundle_path(self) -> Path:
        """The bundle's file."""
        return self.root / "delay.bundle.json"

    @cached_property
    def clean_log(self) -> Path:
        """The log of the day on which nothing went wrong."""
        self.play(self.root / "clean")
        return self.root / "clean" / "log"

    @cached_property
    def store_url(self) -> str:
        """A store that has been written up to noon, for reading only."""
        url = f"sqlite:{self.root / 'noon' / 'online.db'}"
        self.materialize(url, at(12))
        return url

    def materialize(self, url: str, known_by: datetime, bundle: Bundle | None = None) -> None:
        """Write everything known by then."""
        bundle = bundle or self.bundle
        store = open_store(url)
        with OfflineStore(bundle.views, threads=1) as offline:
            Publisher(bundle, offline, store).advance(us(known_by))
        store.close()

    def header(self, **changes: str) -> dict[str, str]:
        """What a server writes at the top of its log."""
        return {
            "build": "A", "host": "here", "evidence": "shadow", "bundle_digest": self.bundle.digest,
            "model_id": self.model.model_id, "model_digest": self.model.digest, "snapshot_id": self.model.snapshot_id,
            "numeric_class": numeric_class(),
        } | changes  # fmt: skip

    def open_log(self, root: Path, **header: str) -> ServingLog:
        """A log of this service."""
        return ServingLog(root, SERVICE, schema(self.bundle), self.header(**header))

    def play(
        self,
        root: Path,
        fault: Fault | None = None,
        *,
        bundle: Bundle | None = None,
        asks: pa.Table | None = None,
        **header: str,
    ) -> Path:
        """Serve the day: before a request at t the writer has written what was known by the last full minute."""
        fault = fault or Fault()
        bundle = bundle or self.bundle
        store = open_store(f"sqlite:{root / 'online.db'}")
        rows = (self.asks if asks is None else asks).to_pylist()
        header = {"bundle_digest": bundle.digest, **header}
        with (
            OfflineStore(bundle.views, threads=1) as offline,
            ServingLog(root / "log", SERVICE, schema(bundle), self.header(**header)) as log_a,
            ServingLog(root / "log", SERVICE, schema(bundle), self.header(build="B", **header)) as log_b,
        ):
            publisher = Publisher(bundle, offline, fault.writer(store, bundle), lookahead_us=DAY)
            build_a = Answering(bundle, Lookup(bundle, store), log_a, self.model, True, lambda: 0)
            runs = fault.runs(bundle)
            build_b = Answering(
                runs, Lookup(runs, fault.store(store, bundle)), _Through(log_b, fault.log), self.model, True, lambda: 0
            )
            for number, ask in enumerate(rows):
                now = ask["event_timestamp"]
                publisher.advance((us(now) - 1) // MINUTE * MINUTE + fault.ahead_us, only=_running(bundle, fault, now))
                build = build_b if now >= DEPLOYED and number % 2 else build_a
                build.serve(entities(bundle, ask), ask["id"], now, self.model)
        store.close()
        return root / "log"

    def pairs(self, log: Path | None = None, **more: Any) -> Pairs:
        """A log, replayed; the clean day's unless told otherwise."""
        with OfflineStore(self.bundle.views, threads=1) as offline:
            return replay(read_log(log or self.clean_log, SERVICE), self.snapshot, offline, **more)

    def guard(self, log: Path, policy: Policy = POLICY, **more: Any) -> Guarded:
        """Judge a log."""
        return guard(log, self.snapshot, policy, registered_name="delay-model", **more)

    def touched(self, log: Path) -> set[str]:
        """The ids of the rows in which anything that was served differs from the clean day."""
        columns = ["id", *self.bundle.dtypes, "statuses", "vector"]
        mine, clean = ({row["id"]: repr(row) for row in logged(root, columns)} for root in (log, self.clean_log))
        return {one for one in mine if mine[one] != clean[one]}


def _running(bundle: Bundle, fault: Fault, now: datetime) -> list[str] | None:
    if fault.stopped is None or not fault.stopped[1] < now < fault.stopped[2]:
        return None
    return [view.name for view in bundle.views if view.name != fault.stopped[0]]


def entities(bundle: Bundle, ask: Mapping[str, Any], *, plain: bool = True) -> dict[str, Any]:
    """The body's entities of an ask; instants as text where `plain`."""
    names = [*bundle.keys, *(one.name for one in bundle.request)]
    values = {name: ask[name] for name in names}
    return {n: v.isoformat() if plain and isinstance(v, datetime) else v for n, v in values.items()}


def logged(log: Path, columns: Sequence[str] | None = None, service: str = SERVICE) -> list[dict[str, Any]]:
    """The rows of a log."""
    rows: list[dict[str, Any]] = to_table(read_log(log, service), columns).to_pylist()
    return rows


def ids(guarded: Guarded, which: str) -> set[str]:
    """The ids of the rows that a guard counted as `equal`, `lagged`, `mismatched` or `unverifiable`."""
    assert guarded.pairs is not None
    mask = getattr(guarded.comparison, which)
    return set(guarded.pairs.served.spine.ids[mask].tolist())


def respoken(pairs: Pairs, feature: str, change: Callable[[Column], Column], rows: Mask) -> Pairs:
    """The same pairs, had a stored feature been served differently in `rows`; what rests on it follows."""
    served = pairs.served
    view = pairs.bundle.view_of[feature]
    old = served.feature(pairs.bundle, feature)
    new = change(old)
    column = Column.build(
        old.dtype, np.where(rows, new.values, old.values), np.where(rows, new.status, old.status).astype(np.uint8)
    )
    features = {**served.views[view].features, feature.removeprefix(view + "__"): column}
    views = {**served.views, view: replace(served.views[view], features=features)}
    again = answer(pairs.bundle, served.spine, views)
    return replace(pairs, served=replace(again, prediction=served.prediction), recomputed=again.derived)


# -- building ---------------------------------------------------------------------------------------------------------


def build(root: Path) -> Loop:
    """Sources, bundle, snapshot of the three days before, and a model that was fitted on it."""
    root.mkdir(parents=True, exist_ok=True)
    pq.write_table(weather(), root / "weather.parquet")
    pq.write_table(plane(), root / "plane.parquet")
    bundle = bundle_of(root)
    bundle.save(root / "delay.bundle.json")
    before = asks_between(TODAY - timedelta(days=3), timedelta(days=3), 480)
    snapshot = build_snapshot(bundle, before, root / "snapshot", labels=["late"], id_column="id")
    folder = save_model(root / "model", snapshot, *snapshot.to_numpy("late"))
    today = asks_between(at(6), timedelta(hours=12), 180)
    return Loop(root, bundle, today, snapshot, folder, load_model(folder))


def bundle_of(root: Path, **contracts: Contract) -> Bundle:
    """The definitions over the sources in `root`. `contracts` by feature, beside the views' `max_lag`."""

    def feature(name: str, dtype: Dtype) -> Feature:
        return Feature(name, name, dtype, contracts.get(name, Contract(max_lag_us=MINUTE)))

    views = (
        View(
            "plane",
            (Key("tail", "tail", Dtype.STRING),),
            (feature("maker", Dtype.STRING), feature("seats", Dtype.INT64), feature("thrust", Dtype.FLOAT32)),
            None,
            MINUTE,
            Source(str(root / "plane.parquet"), "at", "known"),
        ),
        View(
            "weather",
            (Key("origin", "origin", Dtype.STRING),),
            (feature("gust", Dtype.FLOAT64), feature("wind", Dtype.FLOAT64)),
            3 * HOUR,
            MINUTE,
            Source(str(root / "weather.parquet"), "at", "known"),
        ),
    )
    derived = (
        _derived("gust_ratio", ("weather__gust", "weather__wind"), Dtype.FLOAT64),
        _derived("maker_code", ("plane__maker",), Dtype.STRING),
        _derived("per_stop", ("distance", "stops"), Dtype.FLOAT64),
    )
    request = [("direct", Dtype.BOOL), ("distance", Dtype.FLOAT64), ("scheduled", Dtype.TIMESTAMP)]
    stored = [view.full_name(one.name) for view in views for one in view.features]
    return Bundle(
        PROJECT,
        SERVICE,
        views,
        tuple(RequestField(*one) for one in (*request, ("stops", Dtype.INT64))),
        derived,
        (*stored, *(one.full_name for one in derived)),
    )


def _derived(name: str, inputs: tuple[str, ...], dtype: Dtype) -> Derived:
    function = f"tests.loop_features:{name}"
    return Derived(name, "derived", function, inputs, dtype, Contract(), fingerprint(load(function)))


def other_code(bundle: Bundle) -> Bundle:
    """The bundle as a server runs it whose code is another than the bundle was compiled from, unnoticed."""
    runs = replace(bundle)
    rewritten = load("tests.loop_features:gust_ratio_of_build_b")
    runs.__dict__["transforms"] = tuple(
        (spec, rewritten if spec.name == "gust_ratio" else function) for spec, function in bundle.transforms
    )
    return runs


def never_expiring(bundle: Bundle) -> Bundle:
    """The bundle as a server runs it that knows nothing of TTLs, unnoticed."""
    return replace(bundle, views=tuple(replace(view, ttl_us=None) for view in bundle.views))


def weather() -> pa.Table:
    """An observation per hour and origin, published 20 minutes and 10 seconds later; LGA is silent for nine hours.

    One observation of JFK is corrected 35 minutes after it was made.
    """
    random = np.random.default_rng(1)
    rows = []
    for hour in range(-80, 24):
        for origin in ORIGINS:
            wind = round(float(random.uniform(3, 30)), 1)
            gust = None if random.random() < 0.3 else round(wind * float(random.uniform(1.2, 1.8)), 2)
            if origin != "LGA" or not 3 <= hour < 12:
                rows.append((origin, at(hour), at(hour) + timedelta(minutes=20, seconds=10), wind, gust))
    rows.append(("JFK", at(8), at(8) + timedelta(minutes=35), 21.3, None))
    names = ["origin", "at", "known", "wind", "gust"]
    types = [pa.string(), STAMP, STAMP, pa.float64(), pa.float64()]
    return _table(names, types, rows)


def plane() -> pa.Table:
    """Ten planes known for weeks; N3 is refitted at ten, N9 is delivered at noon, and N10 is unknown."""
    long_ago, ten, noon = TODAY - timedelta(days=40), at(10), at(12)
    makers = ["Airbus", "Boeing", None]
    rows: list[tuple[Any, ...]] = [
        (f"N{i}", long_ago, long_ago, makers[i % 3], None if i == 5 else 100 + i, 24.1 + i) for i in range(9)
    ]
    rows.append(("N3", ten, ten + timedelta(minutes=5), "Airbus", 222, 27.3))
    rows.append(("N9", noon, noon, "Embraer", 76, 14.2))
    names = ["tail", "at", "known", "maker", "seats", "thrust"]
    types = [pa.string(), STAMP, STAMP, pa.string(), pa.int64(), pa.float32()]
    return _table(names, types, rows)


def asks_between(start: datetime, span: timedelta, count: int) -> pa.Table:
    """Evenly spaced asks, 17 seconds past the minute where they fall on minutes."""
    random = np.random.default_rng(2)
    rows = []
    for i in range(count):
        now = start + span * i / count + timedelta(seconds=17)
        origin = ORIGINS[(i + i // 15) % 3]
        tail = None if i % 29 == 5 else f"N{i % 11}"
        distance = round(float(random.uniform(90, 2500)), 1)
        scheduled = now + timedelta(hours=1)
        late = bool(random.random() < 0.2 + distance / 5000)
        rows.append((f"r{i:03}", now, origin, tail, distance, i % 3, scheduled, i % 3 == 0, late))
    names = ["id", "event_timestamp", "origin", "tail", "distance", "stops", "scheduled", "direct", "late"]
    types = [pa.string(), STAMP, pa.string(), pa.string(), pa.float64(), pa.int64(), STAMP, pa.bool_(), pa.bool_()]
    return _table(names, types, rows)


def _table(names: list[str], types: list[pa.DataType], rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=names)


def save_model(folder: Path, snapshot: Snapshot, matrix: Any, labels: Any) -> Path:
    """A forest, fitted on the first columns of a snapshot, in a folder as MLflow's scikit-learn flavor writes it."""
    import skops.io
    import yaml
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1):  # two threads on a busy machine wait for each other
        estimator = HistGradientBoostingClassifier(max_iter=8, min_samples_leaf=10, random_state=0)
        estimator.fit(matrix, labels)
    folder.mkdir(parents=True)
    skops.io.dump(estimator, folder / "model.skops")
    described = {
        "flavors": {"sklearn": {"pickled_model": "model.skops", "serialization_format": "skops", "code": None}},
        "model_id": "m-" + "1" * 32,
        "metadata": {FEATURES_KEY: list(snapshot.bundle.vector[: matrix.shape[1]]), SNAPSHOT_KEY: snapshot.id},
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(described))
    return folder
