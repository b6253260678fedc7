"""Feast's own Redis layout, read as it lies: materialized by Feast, answered by Feast and by skewguard."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mmh3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp
from google.protobuf.timestamp_pb2 import Timestamp

from skewguard.definitions import Bundle
from skewguard.definitions.feast import compile_service
from skewguard.errors import DefinitionError, LayoutError, StoreUnavailable
from skewguard.online import Lookup, open_lookup
from skewguard.online.feast_redis import FeastLookup, _column, _timestamp, murmur3
from skewguard.online.redis import RedisStore
from skewguard.spine import ViewRows
from skewguard.values import NO_TIME, Dtype, Status
from tests.worlds import T0, bundle, column, plain, spine, statuses, view

NOW = datetime.now(UTC).replace(microsecond=0)
NOW_US = round(NOW.timestamp()) * 1_000_000
HOUR = timedelta(hours=1)
TYPES: dict[str, tuple[Any, Dtype, list[Any]]] = {
    "f64": (Float64, Dtype.FLOAT64, [0.1, None, -0.0]),
    "f32": (Float32, Dtype.FLOAT32, [0.1, None, 2.5]),
    "i64": (Int64, Dtype.INT64, [-(2**53), None, 7]),
    "i32": (Int32, Dtype.INT32, [-7, None, 0]),
    "flag": (Bool, Dtype.BOOL, [True, None, False]),
    "text": (String, Dtype.STRING, ["東京", None, ""]),
    "when": (UnixTimestamp, Dtype.TIMESTAMP, [NOW, None, NOW - HOUR]),
}


@pytest.fixture
def feast(tmp_path: Path, redis_store_url: str) -> FeatureStore:
    """A repository on Feast's own Redis store with three views, materialized by Feast's own engine."""
    at = pa.array([NOW - HOUR, NOW - HOUR, NOW - 3 * HOUR], pa.timestamp("us", tz="UTC"))
    columns = {"id": pa.array([1, 2, 3]), "o": ["a", "b", "é"], "at": at}
    columns |= {name: pa.array(values) for name, (_, _, values) in TYPES.items()}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    source = FileSource(path=str(tmp_path / "a.parquet"), timestamp_field="at")
    one = Entity(name="id", join_keys=["id"], value_type=ValueType.INT64)
    other = Entity(name="o", join_keys=["o"], value_type=ValueType.STRING)
    schema = [Field(name=name, dtype=kind) for name, (kind, _, _) in TYPES.items()]
    views: list[Any] = [
        FeatureView(name="wide", entities=[one], ttl=2 * HOUR, schema=schema, source=source),
        FeatureView(name="pair", entities=[other, one], schema=[Field(name="i32", dtype=Int32)], source=source),
        FeatureView(name="globe", entities=[], schema=[Field(name="text", dtype=String)], source=source),
    ]
    settings: dict[str, Any] = {"entity_key_serialization_version": 3, "provider": "local", "repo_path": str(tmp_path)}
    store = FeatureStore(
        config=RepoConfig(
            project="shop",
            registry=str(tmp_path / "registry.db"),
            online_store={
                "type": "redis",
                "connection_string": redis_store_url.removeprefix("redis://").replace("/", ",db="),
            },
            offline_store={"type": "skewguard.offline.feast.SkewguardOfflineStore"},
            **settings,
        )
    )
    store.apply([one, other, *views, FeatureService(name="svc", features=views)])
    store.materialize(NOW - 24 * HOUR, NOW)
    (tmp_path / "feature_store.yaml").write_text(f"project: shop\nregistry: {tmp_path}/registry.db\nprovider: local\n")
    return store


@pytest.mark.redis
def test_what_feast_materialized_is_answered_as_feast_does_and_says_what_feast_hides(
    feast: FeatureStore, redis_store_url: str, tmp_path: Path
) -> None:
    """Every dtype, composite keys, no keys: the same values; expired, null and missing ones are told apart."""
    made = compile_service(tmp_path, "svc")
    ids, places = [1, 2, 3, 4, 1], ["a", "b", "é", "a", "b"]
    rows = [{"id": i, "o": o} for i, o in zip(ids, places, strict=True)]
    theirs = feast.get_online_features(
        features=feast.get_feature_service("svc"), entity_rows=rows, full_feature_names=True
    ).to_dict()
    keys = {"id": column(Dtype.INT64, [*ids, None]), "o": column(Dtype.STRING, [*places, "a"])}
    with closing(open_lookup(made, f"feast+{redis_store_url}").store) as store:
        reader = open_lookup(made, f"feast+{redis_store_url}")
        reader.ready()
        got = reader.answer(spine([NOW_US] * 6, keys))
        reader.store.close()
        assert store.url.startswith("redis://")
    assert statuses(got["wide"]) == ["present", "present", "expired", "not_found", "present", "not_found"]
    assert statuses(got["pair"]) == ["present", "present", "present", "not_found", "not_found", "not_found"]
    assert statuses(got["globe"]) == ["present"] * 6
    hour = 3_600_000_000
    assert got["wide"].event.tolist() == [
        NOW_US - hour,
        NOW_US - hour,
        NOW_US - 3 * hour,
        NO_TIME,
        NOW_US - hour,
        NO_TIME,
    ]
    assert set(got["wide"].created.tolist()) | set(got["wide"].watermark.tolist()) == {NO_TIME}
    for name in TYPES:
        said = [Status(code).name.lower() for code in got["wide"].features[name].status.tolist()]
        assert said == ["present", "null", "expired", "not_found", "present", "not_found"], name
        assert _seconds(got["wide"], name)[:2] == _microseconds(theirs[f"wide__{name}"])[:2], name
        assert theirs[f"wide__{name}"][2] is not None  # expired, and Feast serves it
    assert plain(got["pair"].features["i32"]) == [*theirs["pair__i32"], None]
    assert plain(got["globe"].features["text"])[:5] == theirs["globe__text"]


def _seconds(rows: ViewRows, name: str) -> list[Any]:
    return plain(rows.features[name])


def _microseconds(values: Sequence[Any]) -> list[Any]:
    return [round(v.timestamp() * 1_000_000) if isinstance(v, datetime) else v for v in values]


@pytest.mark.redis
def test_one_url_opens_either_side(redis_store_url: str, tmp_path: Path) -> None:
    """What lies at `feast+redis://` was written by Feast; everything else holds packed rows."""
    made = bundle(view("v", "", {"id": Dtype.INT64}, {"x": Dtype.FLOAT64}))
    for url, kind in (
        (f"feast+{redis_store_url}", FeastLookup),
        (redis_store_url, Lookup),
        (f"sqlite:{tmp_path}/x", Lookup),
    ):
        opened = open_lookup(made, url)
        assert type(opened) is kind
        assert statuses(opened.answer(spine([T0], {"id": column(Dtype.INT64, [1])}))["v"]) == ["not_found"]
        opened.store.close()
    closed = open_lookup(made, f"feast+{redis_store_url}")
    with pytest.raises(StoreUnavailable):
        open_lookup(made, "feast+redis://127.0.0.1:1/0")
    closed.store.close()


@pytest.mark.redis
def test_bytes_that_feast_did_not_write_are_errors_of_their_own(redis_store_url: str) -> None:
    """Torn values and times, values of another dtype, a feature that Feast never wrote: never a guess."""
    made = bundle(view("v", "", {"id": Dtype.INT64}, {"x": Dtype.FLOAT64, "n": Dtype.INT64, "s": Dtype.STRING}))
    with closing(RedisStore(redis_store_url)) as store:
        reader = FeastLookup(made, store)
        (key,) = reader._hashes["v"].keys(spine([T0], {"id": column(Dtype.INT64, [1])}))
        stamp, x, n, s = reader._fields["v"]
        whole = {stamp: _stamp(T0), x: _value(double_val=1.5), n: _value(int64_val=-1), s: _value(string_val="é")}

        def said(**_: Any) -> tuple[str, list[Any]]:
            rows = reader.answer(spine([T0], {"id": column(Dtype.INT64, [1])}))["v"]
            return statuses(rows)[0], [
                Status(f.status[0]).name if not f.present[0] else f.value(0) for f in rows.features.values()
            ]

        cases: list[tuple[dict[bytes, bytes], str, list[Any]]] = [
            ({}, "present", [1.5, -1, "é"]),
            ({x: _value(int64_val=1)}, "present", ["ERROR", -1, "é"]),
            ({x: whole[x][:-1], s: whole[s][:-1]}, "present", ["ERROR", -1, "ERROR"]),
            ({n: whole[n][:-1]}, "present", [1.5, "ERROR", "é"]),
            ({n: b"", s: _value(null_val=0)}, "present", [1.5, "NULL", "NULL"]),
            ({x: _value(double_val=float("nan"))}, "present", ["NULL", -1, "é"]),
            ({stamp: b"\x99"}, "error", ["ERROR"] * 3),
            ({stamp: _stamp(T0 + 1)}, "future", ["FUTURE"] * 3),
        ]
        for changed, status, values in cases:
            store._redis.delete(key)
            store._redis.hset(key, mapping=whole | changed)
            assert said() == (status, values)
        store._redis.hdel(key, n)
        store._redis.hset(key, mapping={stamp: whole[stamp]})
        assert said() == ("present", [1.5, "NOT_FOUND", "é"])


def _value(**kwargs: Any) -> bytes:
    return bytes(Value(**kwargs).SerializeToString())


def _stamp(us: int) -> bytes:
    stamp = Timestamp()
    stamp.FromMicroseconds(us)
    return bytes(stamp.SerializeToString())


def test_features_whose_hashes_collide_are_refused() -> None:
    """Feast serves the value of one for both; also across views that share their keys."""
    twins = {"feature_64850": Dtype.FLOAT64, "feature_173868": Dtype.FLOAT64}
    made = bundle(view("fv", "", {"id": Dtype.INT64}, twins))
    with pytest.raises(DefinitionError, match="fv:feature_64850 and fv:feature_173868 share one field"):
        FeastLookup(made, _Nowhere())  # type: ignore[arg-type]


def test_keys_that_feast_cannot_hold_are_refused() -> None:
    """A bool is no key of Feast's."""
    made: Bundle = bundle(view("fv", "", {"id": Dtype.BOOL}, {"x": Dtype.FLOAT64}))
    with pytest.raises(DefinitionError, match="Feast cannot look up a key of dtype bool"):
        FeastLookup(made, _Nowhere())  # type: ignore[arg-type]


class _Nowhere:
    url = "nowhere"


def test_hashes_and_numbers_are_read_as_their_libraries_do() -> None:
    """murmur3 as mmh3, values and times as protobuf, over all sizes."""
    draw = random.Random(0)
    for size in range(60):
        data = draw.randbytes(size)
        assert murmur3(data) == mmh3.hash(data, signed=False)
    numbers = [0, 1, -1, 127, 128, 2**31, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63)]
    read = _column(Dtype.INT64, [_value(int64_val=v) for v in numbers], np.zeros(len(numbers), np.uint8))
    assert plain(read) == numbers
    for us in (0, -1, 1, T0, -T0 + 7, T0 + 999_999):
        assert _timestamp(_stamp(us)) == us
    with pytest.raises(LayoutError):
        _timestamp(b"\x08")
