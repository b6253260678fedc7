"""How fast rows get into the online store: skewguard's publisher and batch engine beside Feast, on one Redis.

    python -m benchmarks.write [--quick]

Ours read a Parquet file, pack and write every row in order of (event, created), atomically. Feast writes a data frame
that is in memory already (`write_to_online_store`), and materializes from the same file with its own engine. The last
line is JSON: rows per second, the slower of ours over Feast's `write_to_online_store`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewguard.contract import Contract
from skewguard.definitions import Bundle, Feature, Key, Source, View
from skewguard.offline import OfflineStore
from skewguard.online import Lookup, open_store
from skewguard.spine import Spine
from skewguard.values import Column, Dtype
from skewguard.workflows.materialize import Publisher

FEATURES = 10
NOW = datetime.now(UTC).replace(microsecond=0)
OURS = {
    "offline_store": {"type": "skewguard.offline.feast.SkewguardOfflineStore"},
    "batch_engine": {"type": "skewguard.online.feast.SkewguardEngine"},
}


@dataclass(frozen=True)
class Figures:
    """Rows per second: the slower of `publisher` and `engine`, and Feast's two ways."""

    publisher_rows_per_s: float
    engine_rows_per_s: float
    feast_rows_per_s: float
    feast_materialize_rows_per_s: float

    def to_json(self) -> dict[str, float]:
        """With the ratio that is claimed."""
        ours = min(self.publisher_rows_per_s, self.engine_rows_per_s)
        rates = {name: round(rate) for name, rate in vars(self).items()}
        return {"rows_per_s": round(ours)} | rates | {"ratio": round(ours / self.feast_rows_per_s, 1)}


def measure(redis_url: str, *, rows: int = 100_000, feast_rows: int = 5_000, rounds: int = 3) -> Figures:
    """The best of some rounds each, on the server at `redis://HOST:PORT`, whose databases 12 to 14 it empties."""
    os.environ.setdefault("FEAST_USAGE", "False")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        few, many = _source(root / "few.parquet", feast_rows), _source(root / "many.parquet", rows)
        ours = {"type": "skewguard.online.feast.SkewguardOnlineStore", "url": f"{redis_url}/13"}
        theirs = {"type": "redis", "connection_string": f"{redis_url.partition('://')[2]},db=14"}

        def materialized(path: Path, online: Mapping[str, Any], db: int, **others: Any) -> Callable[[], float]:
            return lambda: _materialized(root, path, redis_url, online, db, **others)

        return Figures(
            _best(rounds, rows, lambda: _published(many, redis_url)),
            _best(rounds, rows, materialized(many, ours, 13, **OURS)),
            _best(rounds, feast_rows, lambda: _written(root, few, redis_url, theirs)),
            _best(rounds, feast_rows, materialized(few, theirs, 14, offline_store=OURS["offline_store"])),
        )


def _best(rounds: int, rows: int, run: Callable[[], float]) -> float:
    return rows / min(run() for _ in range(rounds))


def _source(path: Path, rows: int) -> Path:
    """One row per key, all within the last hour, with a created time."""
    rng = np.random.default_rng(0)
    at = np.datetime64(NOW.replace(tzinfo=None), "us") - rng.integers(1, 3_600_000_000, rows).astype("timedelta64[us]")
    stamps = pa.array(at, pa.timestamp("us", tz="UTC"))
    columns = {"driver_id": pa.array(rng.permutation(rows)), "event_timestamp": stamps, "created": stamps}
    columns |= {f"f{i}": pa.array(rng.random(rows)) for i in range(FEATURES)}
    pq.write_table(pa.table(columns), path)
    return path


def _published(path: Path, redis_url: str) -> float:
    features = tuple(Feature(f"f{i}", f"f{i}", Dtype.FLOAT64, Contract()) for i in range(FEATURES))
    keys = (Key("driver_id", "driver_id", Dtype.INT64),)
    view = View("fv", keys, features, None, 0, Source(str(path), "event_timestamp", "created"))
    bundle = Bundle("write", "all", (view,), (), (), tuple(view.full_name(f.name) for f in features))
    now = round(NOW.timestamp()) * 1_000_000
    _empty(redis_url, 12)
    with OfflineStore(bundle.views) as offline, closing(open_store(f"{redis_url}/12")) as store:
        began = time.perf_counter()
        written = Publisher(bundle, offline, store).advance(now)["fv"]
        took = time.perf_counter() - began
        asks = Spine(np.array(["x"], dtype=object), np.array([now]), {"driver_id": _key(written - 1)}, {})
        assert Lookup(bundle, store).answer(asks)["fv"].features["f0"].present.all()
    return took


def _key(value: int) -> Column:
    return Column.build(Dtype.INT64, np.array([value]), np.zeros(1, np.uint8))


def _feast(root: Path, path: Path, online: Mapping[str, Any], **others: Any) -> Any:
    """A Feast repository of one view over the file."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64

    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    source = FileSource(path=str(path), timestamp_field="event_timestamp", created_timestamp_column="created")
    schema = [Field(name=f"f{i}", dtype=Float64) for i in range(FEATURES)]
    view = FeatureView(name="fv", entities=[driver], ttl=timedelta(days=1), schema=schema, source=source)
    settings: dict[str, Any] = {"entity_key_serialization_version": 3, "provider": "local", "repo_path": str(root)}
    registry = str(root / f"{time.time_ns()}.db")
    store = FeatureStore(
        config=RepoConfig(project="write", registry=registry, online_store=dict(online), **settings, **others)
    )
    store.apply([driver, view])
    return store


def _materialized(root: Path, path: Path, redis_url: str, online: Mapping[str, Any], db: int, **others: Any) -> float:
    _empty(redis_url, db)
    store = _feast(root, path, online, **others)
    began = time.perf_counter()
    store.materialize(NOW - timedelta(days=1), NOW)
    took = time.perf_counter() - began
    _check(store)
    return took


def _written(root: Path, path: Path, redis_url: str, online: Mapping[str, Any]) -> float:
    _empty(redis_url, 14)
    store, frame = _feast(root, path, online), pq.read_table(path).to_pandas()
    began = time.perf_counter()
    store.write_to_online_store("fv", df=frame)
    took = time.perf_counter() - began
    _check(store)
    return took


def _check(store: Any) -> None:
    answer = store.get_online_features(features=["fv:f0"], entity_rows=[{"driver_id": 0}]).to_dict()
    assert answer["f0"][0] is not None


def _empty(redis_url: str, db: int) -> None:
    import redis

    with redis.Redis.from_url(f"{redis_url}/{db}") as client:
        client.flushdb()


@contextmanager
def own_redis() -> Iterator[str]:
    """The address of a Redis server on loopback that ends with the block."""
    import redis

    server = shutil.which("redis-server") or shutil.which("valkey-server")
    if server is None:
        raise SystemExit("benchmarks.write needs redis-server or valkey-server on PATH")
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.close()
        command = [server, "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603  (our own)
        try:
            with redis.Redis(port=int(port)) as client:
                for _ in range(200):
                    try:
                        client.ping()
                        break
                    except redis.ConnectionError:
                        time.sleep(0.02)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.write", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rows, one round")
    arguments = parser.parse_args()
    sizes = {"rows": 10_000, "feast_rows": 500, "rounds": 1} if arguments.quick else {}
    with own_redis() as url:
        figures = measure(url, **sizes).to_json()
    for name, figure in figures.items():
        print(f"{name:30} {figure:12,.1f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
