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
from fastapi.testclient import TestClient
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp
from google.protobuf.timestamp_pb2 import Timestamp

from skewguard.answer import schema
from skewguard.contract import contract
from skewguard.definitions import Bundle, load_bundle
from skewguard.definitions.feast import compile_service
from skewguard.errors import DefinitionError, LayoutError, StoreUnavailable
from skewguard.findings import Kind
from skewguard.online import Lookup, open_lookup
from skewguard.online.feast_redis import FeastLookup, _column, _timestamp, murmur3
from skewguard.online.redis import RedisStore
from skewguard.policy import Policy
from skewguard.service import create_app
from skewguard.servinglog import ServingLog
from skewguard.snapshot import build_snapshot
from skewguard.spine import ViewRows
from skewguard.transforms import numeric_class
from skewguard.values import NO_TIME, Dtype, Status
from skewguard.verdict import Ruling, Verdict
from skewguard.workflows.guard import guard
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
    mapped = FileSource(
        path=str(tmp_path / "a.parquet"), timestamp_field="at", field_mapping={"id": "a_uid", "o": "uid"}
    )
    uid = Entity(name="uid", join_keys=["uid"], value_type=ValueType.STRING)
    a_uid = Entity(name="a_uid", join_keys=["a_uid"], value_type=ValueType.INT64)
    schema = [Field(name="uid", dtype=String), Field(name="a_uid", dtype=Int64), Field(name="f64", dtype=Float64)]
    renamed = FeatureView(name="renamed", entities=[uid, a_uid], schema=schema, source=mapped)
    again = views[0][["i32"]].with_name("again").with_join_key_map({"id": "friend"})
    store.apply(
        [
            *(one, other, uid, a_uid, *views, renamed),
            FeatureService(name="svc", features=views),
            FeatureService(name="aliased", features=[again, renamed]),
        ]
    )
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


@pytest.mark.redis
def test_what_a_service_renames_is_found_under_feasts_own_names(
    feast: FeatureStore, redis_store_url: str, tmp_path: Path
) -> None:
    """An alias, a join key map, and join keys that a field mapping renames: the same values as Feast's."""
    made = compile_service(tmp_path, "aliased")
    made.save(tmp_path / "b.json")
    assert load_bundle(tmp_path / "b.json") == made
    ids, places = [1, 2, 3, 4], ["a", "b", "é", "a"]
    keys = {"friend": column(Dtype.INT64, ids), "a_uid": column(Dtype.INT64, ids), "uid": column(Dtype.STRING, places)}
    with closing(open_lookup(made, f"feast+{redis_store_url}").store) as store:
        got = FeastLookup(made, store).answer(spine([NOW_US] * 4, keys))  # type: ignore[arg-type]
    assert statuses(got["again"]) == ["present", "present", "expired", "not_found"]
    assert statuses(got["renamed"]) == ["present", "present", "present", "not_found"]
    rows = [{"a_uid": i, "uid": o} for i, o in zip(ids, places, strict=True)]
    theirs = feast.get_online_features(features=["renamed:f64"], entity_rows=rows).to_dict()["f64"]
    assert plain(got["renamed"].features["f64"]) == theirs
    assert plain(got["again"].features["i32"])[:2] == TYPES["i32"][2][:2]


def _seconds(rows: ViewRows, name: str) -> list[Any]:
    return plain(rows.features[name])


def _microseconds(values: Sequence[Any]) -> list[Any]:
    return [round(v.timestamp() * 1_000_000) if isinstance(v, datetime) else v for v in values]


def _stock(folder: Path, url: str, tables: dict[str, pa.Table]) -> FeatureStore:
    """A repository on Feast's own Redis store and engine with a view per table, over the entity `id`."""
    settings: dict[str, Any] = {"entity_key_serialization_version": 3, "provider": "local", "repo_path": str(folder)}
    connection = url.removeprefix("redis://").replace("/", ",db=")
    registry = str(folder / "registry.db")
    online = {"type": "redis", "connection_string": connection}
    store = FeatureStore(config=RepoConfig(project="stock", registry=registry, online_store=online, **settings))
    entity = Entity(name="id", join_keys=["id"], value_type=ValueType.INT64)
    kinds = {pa.float64(): Float64, pa.int64(): Int64, pa.string(): String}
    views: list[Any] = []
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
        source = FileSource(
            name=name, path=str(folder / f"{name}.parquet"), timestamp_field="at", created_timestamp_column="known"
        )
        stored = [Field(name=f.name, dtype=kinds[f.type]) for f in table.schema if f.name not in ("id", "at", "known")]
        schema_ = [Field(name="id", dtype=Int64), *stored]
        tags = contract(max_lag="60s")
        views.append(FeatureView(name=name, entities=[entity], ttl=4 * HOUR, schema=schema_, source=source, tags=tags))
    store.apply([entity, *views, FeatureService(name="svc", features=views)])
    (folder / "feature_store.yaml").write_text(f"project: stock\nregistry: {registry}\nprovider: local\n")
    return store


def _account(now: datetime) -> pa.Table:
    """Twelve accounts: events within a second, a correction of one of them, a null, one expired, one with news."""
    rows: list[tuple[Any, ...]]
    rows = [(i, now - HOUR - i * timedelta(milliseconds=1250), now - HOUR, i * 1.1, i, f"c{i}") for i in range(1, 12)]
    rows += [(i, at - HOUR, at - HOUR, -1.0, -1, "old") for i, at, *_ in rows]
    rows.append((3, rows[2][1], now - HOUR / 2, 33.0, 33, "corrected"))
    rows.append((5, now - HOUR / 4, now - HOUR / 4, None, None, None))
    rows.append((12, now - 9 * HOUR, now - 9 * HOUR, 1.0, 1, "long ago"))
    rows.append((7, now + timedelta(seconds=5), now + timedelta(seconds=10), 77.0, 77, "news"))
    columns = list(zip(*rows, strict=True))
    stamp = pa.timestamp("us", tz="UTC")
    kinds = [pa.int64(), stamp, stamp, pa.float64(), pa.int64(), pa.string()]
    names = ["id", "at", "known", "amount", "visits", "city"]
    return pa.table([pa.array(c, k) for c, k in zip(columns, kinds, strict=True)], names=names)


@pytest.mark.redis
def test_a_stock_feast_is_served_logged_and_guarded(redis_store_url: str, tmp_path: Path) -> None:
    """What Feast materialized is evidence: a clean hour passes, and a value that somebody changed in Redis is found."""
    now = NOW - 6 * HOUR
    store = _stock(tmp_path, redis_store_url, {"account": _account(now)})
    store.materialize(now - 24 * HOUR, now)
    made = compile_service(tmp_path, "svc")
    soon = [now + timedelta(seconds=s) for s in (1, 30)]
    asks = pa.table({"id": [1, 2, 3], "event_timestamp": [now] * 3, "label": [0, 1, 0], "row": ["a", "b", "c"]})
    snapshot = build_snapshot(made, asks, tmp_path / "snapshot", labels=["label"], id_column="row")
    policy = Policy(governs=("*",), minimum_rows=10)

    def served(log: str) -> Verdict:
        header = {"bundle_digest": made.digest, "numeric_class": numeric_class(), "evidence": "production"}
        lookup = open_lookup(made, f"feast+{redis_store_url}")
        with closing(lookup.store), ServingLog(tmp_path / log, "svc", schema(made), header) as written:
            client = TestClient(create_app(made, lookup, written, None, accept_as_of=True))
            for at in soon:
                for one in range(1, 14):
                    body = {"entities": {"id": one}, "as_of": at.isoformat(), "request_id": f"{one}.{at.second}"}
                    response = client.post("/v1/svc/features", json=body)
                    assert response.status_code == 200, response.text
        return guard(tmp_path / log, snapshot, policy).verdict

    clean = served("clean")
    assert (clean.ruling, clean.findings) == (Ruling.PASS, ())
    assert (clean.coverage.rows, clean.coverage.lagged, clean.coverage.unverifiable) == (26, 1, 0)

    with closing(RedisStore(redis_store_url)) as redis:
        reader = FeastLookup(made, redis)
        (key,) = reader._hashes["account"].keys(spine([NOW_US], {"id": column(Dtype.INT64, [4])}))
        fields = dict(
            zip(["", *(f.name for f in made.view("account").features)], reader._fields["account"], strict=True)
        )
        assert redis._redis.hget(key, fields["visits"]) == _value(int64_val=4)
        redis._redis.hset(key, fields["visits"], _value(int64_val=40))
    skewed = served("skewed")
    assert skewed.ruling is Ruling.FAIL
    (finding,) = skewed.findings
    assert (finding.kind, finding.feature, finding.rows) == (Kind.MISMATCH, "account__visits", 2)
    assert {example.keys for example in finding.examples} == {"id 4"}


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
