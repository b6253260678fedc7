"""Feast repositories with Feast's own stores, one for each way in which Feast 0.67 differs from itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mmh3
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import BatchFeatureView, Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.aggregation import Aggregation
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOW = datetime.now(UTC).replace(microsecond=0)
STAMP = pa.timestamp("us", tz="UTC")
DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
TENFOLD = "def tenfold(df):\n    df = df.copy(); df['x'] = df['x'] * 10\n    return df\n"
OURS = {
    "offline_store": {
        "type": "skewguard.offline.feast.SkewguardOfflineStore",
        "filter_by_created_timestamp": True,
    },
    "online_store": {"type": "skewguard.online.feast.SkewguardOnlineStore", "path": "online.db"},
    "batch_engine": {"type": "skewguard.online.feast.SkewguardEngine"},
}


def tenfold(df: pd.DataFrame) -> pd.DataFrame:
    """Ten times x."""
    df = df.copy()
    df["x"] = df["x"] * 10
    return df


class Stock:
    """A repository in a folder; `settings` over DuckDB and SQLite."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        yaml = {
            "project": "shop",
            "provider": "local",
            "registry": "registry.db",
            "offline_store": {"type": "duckdb"},
            "online_store": {"type": "sqlite", "path": "online.db"},
            "entity_key_serialization_version": 3,
        } | settings
        (folder / "feature_store.yaml").write_text(json.dumps(yaml))
        self.store = FeatureStore(repo_path=str(folder))

    def source(self, name: str = "a", created: bool = False, unit: str = "us", **columns: Any) -> FileSource:
        """A Parquet file; rows are an hour old unless they say otherwise."""
        n = len(next(iter(columns.values())))
        stamp = pa.timestamp(unit, tz="UTC")
        at = columns.pop("event_timestamp", [NOW - HOUR] * n)
        arrays = {one: values if isinstance(values, pa.Array) else pa.array(values) for one, values in columns.items()}
        arrays["event_timestamp"] = pa.array(at, STAMP).cast(stamp)
        if created:
            arrays["created"] = pa.array(at, STAMP).cast(stamp)
        path = self.folder / f"{name}.parquet"
        pq.write_table(pa.table(arrays), path)
        stamps: Any = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created" if created else ""}
        return FileSource(name=name, path=str(path), **stamps)

    def view(
        self,
        source: FileSource,
        name: str = "fv",
        entities: Sequence[Entity] = (DRIVER,),
        ttl: timedelta = DAY,
        **schema: Any,
    ) -> FeatureView:
        """A feature view, not yet applied."""
        fields = [Field(name=one, dtype=kind) for one, kind in schema.items()]
        return FeatureView(name=name, entities=list(entities), ttl=ttl, schema=fields, source=source)

    def apply(self, *objects: Any) -> Path:
        """Register these."""
        self.store.apply([DRIVER, *objects])
        return self.folder


def r01(folder: Path, **settings: Any) -> Path:
    """Float32, fractions of a second, 2^53+1 beside a null, NaN."""
    repo = Stock(folder, **settings)
    when = pa.array([datetime(2026, 1, 1, 0, 0, 0, 789_000, tzinfo=UTC)] * 2, STAMP)
    columns = {"f32": [0.1, 0.2], "when": when, "bigint": [2**53 + 1, None], "nanval": [float("nan"), 1.0]}
    source = repo.source(driver_id=[1, 2], **columns)
    return repo.apply(repo.view(source, f32=Float32, when=UnixTimestamp, bigint=Int64, nanval=Float64))


def r02(folder: Path, **settings: Any) -> Path:
    """A TTL of an hour, and a row of three."""
    repo = Stock(folder, **settings)
    source = repo.source(driver_id=[1], x=[7.0], event_timestamp=[NOW - 3 * HOUR])
    return repo.apply(repo.view(source, ttl=HOUR, x=Float64))


def r03(folder: Path, **settings: Any) -> Path:
    """A created time, so that rows are corrected and come late."""
    repo = Stock(folder, **settings)
    return repo.apply(repo.view(repo.source(created=True, driver_id=[1], x=[1.0]), x=Float64))


def r04(folder: Path, **settings: Any) -> Path:
    """A batch view with a transformation."""
    repo = Stock(folder, **settings)
    source = repo.source(driver_id=[1], x=[1.0])
    fields = [Field(name="x", dtype=Float64)]
    made: Any = {"mode": "pandas", "udf": tenfold, "udf_string": TENFOLD, "online": True, "ttl": DAY}
    return repo.apply(BatchFeatureView(name="bfv", entities=[DRIVER], schema=fields, source=source, **made))


def r06(folder: Path, **settings: Any) -> Path:
    """A name that ends in _y, and a created time."""
    repo = Stock(folder, **settings)
    source = repo.source(created=True, driver_id=[1, 2], x=[1.0, 2.0], price_y=[1.0, 2.0])
    return repo.apply(repo.view(source, x=Float64, price_y=Float64))


def r07(folder: Path, **settings: Any) -> Path:
    """Event times in nanoseconds, and a view without entities."""
    repo = Stock(folder, **settings)
    nanos = repo.view(repo.source("n", unit="ns", driver_id=[1], x=[7.0]), "nanos", x=Float64)
    nobody = repo.view(repo.source("e", x=[7.0], driver_id=[1]), "nobody", entities=(), x=Float64)
    return repo.apply(nanos, nobody)


def r09(folder: Path, **settings: Any) -> Path:
    """A key that the source has in 32 bits."""
    repo = Stock(folder, **settings)
    return repo.apply(repo.view(repo.source(driver_id=pa.array([1], pa.int32()), x=[7.0]), x=Float64))


def colliding() -> tuple[str, str]:
    """Two features of a view `fv` that have one hash of four bytes."""
    seen: dict[int, str] = {}
    for i in range(400_000):
        name = f"feature_{i}"
        other = seen.setdefault(mmh3.hash(f"fv:{name}", signed=False), name)
        if other != name:
            return other, name
    raise AssertionError("no collision")


def r10(folder: Path, **settings: Any) -> Path:
    """Two features that share a field of Redis."""
    repo = Stock(folder, **settings)
    a, b = colliding()
    columns: Any = {a: [1.0], b: [2.0]}
    kinds: Any = {a: Float64, b: Float64}
    return repo.apply(repo.view(repo.source(driver_id=[1], **columns), **kinds))


def r11(folder: Path, **settings: Any) -> Path:
    """Declared types that are not the source's, lists, and their nulls."""
    repo = Stock(folder, **settings)
    source = repo.source(
        driver_id=[1, 2],
        zip=[90210, None],
        flag=[True, None],
        small=pa.array([1, None], pa.int32()),
        emb=[[0.1, 0.2], None],
        ints=[[1, None], [2]],
        asint=[1.9, None],
    )
    kinds: Any = {
        "zip": String,
        "flag": Bool,
        "small": Int32,
        "emb": Array(Float32),
        "ints": Array(Int64),
        "asint": Int64,
    }
    return repo.apply(repo.view(source, **kinds))


def r14(folder: Path, **settings: Any) -> Path:
    """Two entities, of which a service renames one."""
    repo = Stock(folder, **settings)
    origin, car = (Entity(name=name, join_keys=[name], value_type=ValueType.INT64) for name in ("origin", "car"))
    view = repo.view(repo.source(origin=[1, 1], car=[7, 8], x=[1.0, 2.0]), entities=(origin, car), x=Float64)
    renamed = view.with_name("fv_from").with_join_key_map({"origin": "from_id"})
    return repo.apply(origin, car, view, FeatureService(name="svc", features=[renamed]))


def r16(folder: Path, **settings: Any) -> Path:
    """A batch view with an aggregation."""
    repo = Stock(folder, **settings)
    source = repo.source(driver_id=[1, 1], x=[1.0, 2.0])
    sums = [Aggregation(column="x", function="sum", time_window=None, name="sum_x")]
    made: Any = {"mode": "pandas", "aggregations": sums, "online": True, "ttl": DAY}
    fields = [Field(name="sum_x", dtype=Float64)]
    return repo.apply(BatchFeatureView(name="bfv", entities=[DRIVER], schema=fields, source=source, **made))


def clean(folder: Path, **settings: Any) -> Path:
    """Every type that both sides hold, with a created time, materialized."""
    repo = Stock(folder, **(OURS | settings))
    source = repo.source(
        created=True,
        driver_id=[1, 2],
        x=[1.0, None],
        small=[0.1, 0.2],
        n=[2**53 + 1, None],
        zip=[90210, None],
        title=["a", "Zürich"],
        flag=[True, None],
    )
    kinds: Any = {"x": Float64, "small": Float32, "n": Int64, "zip": String, "title": String, "flag": Bool}
    view = repo.view(source, **kinds)
    repo.apply(view, FeatureService(name="svc", features=[view]))
    repo.store.materialize(NOW - 2 * DAY, NOW)
    return folder


Build = Callable[..., Path]
