"""Feast's online store and batch engine on packed rows: with Feast itself, over files, on SQLite and a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    PushSource,
    RepoConfig,
    ValueType,
)
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Int64List, Value
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, Json, Map, Set, String, UnixTimestamp

from benchmarks.write import measure
from skewguard.definitions.feast import compile_service
from skewguard.errors import CastError, DefinitionError, LayoutError, SkewguardError, StoreUnavailable
from skewguard.offline import OfflineStore
from skewguard.online import Lookup, open_store
from skewguard.online.feast import SkewguardEngine, SkewguardOnlineStore, SkewguardOnlineStoreConfig
from skewguard.online.feast.views import stored
from skewguard.online.keys import view_prefix, watermark_key, watermark_of
from skewguard.online.layout import definition_of
from skewguard.online.lists import list_of, pack_lists, unpack_list
from skewguard.values import Dtype
from skewguard.workflows.materialize import materialize
from tests.feast_online import DRIVER, HOUR, NOW, asked, driver_view, repositories, table
from tests.worlds import column, plain, spine, stamps, statuses

BIG = 2**53 + 1
Open = Callable[..., FeatureStore]


@pytest.fixture
def opened(tmp_path: Path, store_url: str) -> Iterator[Open]:
    """Opens a Feast repository on a store of each kind in turn; `engine` is ours unless told otherwise."""
    with repositories(tmp_path, store_url) as build:
        yield build


# -- values -----------------------------------------------------------------------------------------------------------

TYPES: dict[str, tuple[Any, Any, Any]] = {
    "f64": (Float64, [0.1, None], [0.1, None]),
    "f32": (Float32, [0.1, None], [float(np.float32(0.1)), None]),
    "nan": (Float64, [float("nan"), 1.0], [None, 1.0]),
    "i64": (Int64, [BIG, None], [BIG, None]),
    "i32": (Int32, [-7, None], [-7, None]),
    "flag": (Bool, [False, None], [False, None]),
    "text": (String, ["東京\0", None], ["東京\0", None]),
    "zip": (String, [90210, None], ["90210", None]),
    "when": (UnixTimestamp, pa.array([NOW, None], pa.timestamp("us", tz="UTC")), [NOW, None]),
    "raw": (Bytes, [b"\0x", None], [b"\0x", None]),
    "floats": (Array(Float32), [[0.5, -0.25], None], [[0.5, -0.25], None]),
    "empty": (Array(Int64), pa.array([[], [BIG]], pa.list_(pa.int64())), [[], [BIG]]),
    "texts": (Array(String), [["a", "é", ""], None], [["a", "é", ""], None]),
    "flags": (Array(Bool), [[True, False], None], [[True, False], None]),
    "times": (Array(UnixTimestamp), pa.array([[NOW], None], pa.list_(pa.timestamp("us", tz="UTC"))), [[NOW], None]),
}


def test_every_type_is_materialized_and_read_as_it_lies_in_the_source(opened: Open, tmp_path: Path) -> None:
    """Scalars, lists, nulls: no value changes on the way, and a declared narrowing is the only one."""
    path = table(tmp_path / "a.parquet", [1, 2], [NOW - HOUR] * 2, **{name: v for name, (_, v, _) in TYPES.items()})
    store = opened(DRIVER, driver_view(path, **{name: dtype for name, (dtype, _, _) in TYPES.items()}))
    store.materialize(NOW - 2 * HOUR, NOW)
    values, said = asked(store, list(TYPES), 1, 2, 3)
    for name, (_, _, expected) in TYPES.items():
        assert values[name] == [*expected, None], name
        assert said[name] == [*("NULL_VALUE" if value is None else "PRESENT" for value in expected), "NOT_FOUND"], name


def test_what_is_written_and_pushed_is_read_back(opened: Open, tmp_path: Path) -> None:
    """`write_to_online_store`, `push`, `online_read`, synchronously and not: one row, the same values."""
    path = table(tmp_path / "a.parquet", [1], [NOW], x=[1.5], texts=[["a"]])
    view = driver_view(path, x=Float64, texts=Array(String))
    push = PushSource(name="push", batch_source=view.batch_source)
    store = opened(DRIVER, FeatureView(**_of(view), source=push), push)
    frame = pd.DataFrame({"driver_id": [7], "event_timestamp": [NOW], "x": [2.5], "texts": [["é"]]})
    store.write_to_online_store("fv", df=frame)
    assert asked(store, ["x", "texts"], 7)[0] == {"driver_id": [7], "x": [2.5], "texts": [["é"]]}
    store.push("push", frame.assign(x=[3.5], event_timestamp=[NOW + timedelta(microseconds=1)]))
    rows = [{"driver_id": 7}, {"driver_id": 7}]
    answered = asyncio.run(store.get_online_features_async(features=["fv:x"], entity_rows=rows))
    assert answered.to_dict()["x"] == [3.5, 3.5]
    provider: Any = store._get_provider()
    keys = [EntityKey(join_keys=["driver_id"], entity_values=[Value(int64_val=i)]) for i in (7, 8)]
    view = store.get_feature_view("fv")
    for read in (
        provider.online_store.online_read(store.config, view, keys, ["x"]),
        asyncio.run(provider.online_store.online_read_async(store.config, view, keys, ["x"])),
    ):
        assert read == [(NOW + timedelta(microseconds=1), {"x": Value(double_val=3.5)}), (None, None)]


def _of(view: FeatureView) -> dict[str, Any]:
    return {"name": view.name, "entities": [DRIVER], "ttl": view.ttl, "schema": view.schema}


def test_values_of_feasts_other_types_come_through_its_own_writing(opened: Open, tmp_path: Path) -> None:
    """Sets, maps and JSON, on which skewguard computes nothing, are handed on as they came."""
    path = table(tmp_path / "a.parquet", [1], [NOW], x=[1.5])
    store = opened(DRIVER, driver_view(path, m=Map, s=Set(Int64), j=Json))
    frame = pd.DataFrame(
        {
            "driver_id": [1, 2],
            "event_timestamp": [NOW] * 2,
            "m": [{"a": 1.5}, None],
            "s": [{1, 2}, None],
            "j": ["[1]", None],
        }
    )
    store.write_to_online_store("fv", df=frame)
    values, said = asked(store, ["m", "s", "j"], 1, 2)
    assert (values["m"], values["s"], values["j"]) == ([{"a": 1.5}, None], [{1, 2}, None], [[1], None])
    assert said["m"] == ["PRESENT", "NULL_VALUE"]


@pytest.mark.parametrize(
    ("dtype", "values", "why"),
    [
        (Int64, [1.5, 2.0], r"fv: column 'x': 1.5 does not fit int64"),
        (Float64, ["a", "b"], r"fv: column 'x': expected float64, got string"),
        (Array(Int64), [[1, None], [2]], r"fv: column 'x': a list has a null element"),
        (Array(Int64), [1, 2], r"fv: column 'x': expected a list of int64, got int64"),
        (Map, [1, 2], r"fv: column 'x': expected Map, got int64"),
    ],
)
def test_a_value_that_would_be_lost_is_refused_and_nothing_is_promised(
    tmp_path: Path, opened: Open, dtype: Any, values: Any, why: str
) -> None:
    """The error names view, column and value; no watermark moves."""
    path = table(tmp_path / "a.parquet", [1, 2], [NOW] * 2, x=values)
    store = opened(DRIVER, driver_view(path, x=dtype))
    with pytest.raises(CastError, match=why):
        store.materialize(NOW - HOUR, NOW)
    online: Any = store._get_provider().online_store
    assert online.opened(store.config).mget([watermark_key("shop", "fv")]) == [None]


def test_what_feasts_own_paths_lost_is_refused(opened: Open, tmp_path: Path) -> None:
    """An integer above 2**53 beside a null has been a float on Feast's way: the store says so and does not guess."""
    path = table(tmp_path / "a.parquet", [1, 2], [NOW] * 2, i64=[BIG, None])
    store = opened(DRIVER, driver_view(path, i64=Int64), engine="local")
    with pytest.raises(CastError, match=r"fv: i64: 9007199254740992 stands beside a null.*SkewguardEngine"):
        store.materialize(NOW - HOUR, NOW)


# -- which row --------------------------------------------------------------------------------------------------------


def test_statuses_say_why_there_is_no_value(opened: Open, tmp_path: Path) -> None:
    """TTL online as offline, null keys, unknown keys, the future, and what an older definition lacked."""
    at = [NOW - 2 * HOUR, NOW - timedelta(minutes=1), NOW - timedelta(minutes=1), NOW + HOUR]
    path = table(tmp_path / "a.parquet", [1, 2, 3, 4], at, x=[1.0, 2.0, None, 4.0], y=[1, 2, 3, 4])
    store = opened(DRIVER, driver_view(path, ttl=HOUR, x=Float64))
    store.materialize(NOW - 24 * HOUR, NOW + 2 * HOUR)
    values, said = asked(store, ["x"], 1, 2, 3, 4, 5, None)
    assert values["x"] == [None, 2.0, None, None, None, None]
    assert said["x"] == ["OUTSIDE_MAX_AGE", "PRESENT", "NULL_VALUE", "NOT_FOUND", "NOT_FOUND", "NOT_FOUND"]
    store.apply(driver_view(path, ttl=HOUR, x=Float64, y=Int64))
    assert asked(store, ["x", "y"], 2)[1] == {"driver_id": ["PRESENT"], "x": ["PRESENT"], "y": ["NOT_FOUND"]}
    lenient = opened(DRIVER, driver_view(path, ttl=HOUR, x=Float64), enforce_ttl=False)
    assert asked(lenient, ["x"], 1)[0]["x"] == [1.0]


def test_an_added_feature_is_there_after_the_next_materialization(opened: Open, tmp_path: Path) -> None:
    """Also for rows outside its range: a changed definition is written whole."""
    path = table(tmp_path / "a.parquet", [1, 2], [NOW - 5 * HOUR, NOW], x=[1.0, 2.0], y=[10, 20])
    store = opened(DRIVER, driver_view(path, x=Float64))
    store.materialize(NOW - 6 * HOUR, NOW)
    store.apply(driver_view(path, x=Float64, y=Int64))
    store.materialize(NOW - HOUR, NOW)
    assert asked(store, ["x", "y"], 1, 2)[0] == {"driver_id": [1, 2], "x": [1.0, 2.0], "y": [10, 20]}


def test_a_view_without_entities_one_with_two_and_renamed_columns(opened: Open, tmp_path: Path) -> None:
    """Whatever the keys: one reading for all views of a request."""
    path = str(tmp_path / "a.parquet")
    columns = {"o": ["a"], "d": ["b"], "X": [1.5], "T": pa.array([NOW], pa.timestamp("us", tz="UTC"))}
    pq.write_table(pa.table(columns), path)
    source = FileSource(path=path, timestamp_field="at", field_mapping={"T": "at", "X": "x", "o": "origin"})
    origin = Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING)
    dest = Entity(name="dest", join_keys=["d"], value_type=ValueType.STRING)
    route = FeatureView(name="route", entities=[origin, dest], schema=[Field(name="x", dtype=Float64)], source=source)
    globe = FeatureView(name="globe", entities=[], schema=[Field(name="x", dtype=Float64)], source=source)
    service = FeatureService(name="both", features=[route, globe])
    store = opened(origin, dest, route, globe, service)
    store.materialize(NOW - HOUR, NOW)
    rows = [{"origin": "a", "d": "b"}, {"origin": "b", "d": "a"}]
    answered = store.get_online_features(features=service, entity_rows=rows, full_feature_names=True).to_dict()
    assert (answered["route__x"], answered["globe__x"]) == ([1.5, None], [1.5, 1.5])


# -- one store --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", ["engine", "feast", "publisher"])
def test_feast_and_the_lookup_read_the_same_rows(opened: Open, tmp_path: Path, store_url: str, writer: str) -> None:
    """Whoever wrote them: Feast's get_online_features and skewguard's own lookup give the same values."""
    path = table(tmp_path / "a.parquet", [1, 2], [NOW - HOUR] * 2, x=[0.1, None], s=["a", "b"], created=stamps([1, 2]))
    view = driver_view(path, created=True, x=Float32, s=String)
    store = opened(
        DRIVER, view, FeatureService(name="svc", features=[view]), engine=None if writer != "feast" else "local"
    )
    bundle = compile_service(tmp_path, "svc", _yaml(tmp_path, store))
    now = round(NOW.timestamp() * 1_000_000)
    with closing(open_store(store_url)) as own:
        if writer == "publisher":
            with OfflineStore(bundle.views) as offline:
                materialize(bundle, offline, own, now)
        else:
            store.materialize(NOW - 2 * HOUR, NOW)
        values, _ = asked(store, ["x", "s"], 1, 2, 3)
        got = Lookup(bundle, own).answer(spine([now] * 3, {"driver_id": column(Dtype.INT64, [1, 2, 3])}))["fv"]
        assert statuses(got) == ["present", "present", "not_found"]
        assert plain(got.features["x"]) == values["x"] == [float(np.float32(0.1)), None, None]
        assert plain(got.features["s"]) == values["s"] == ["a", "b", None]
        assert got.created.tolist()[:2] == [1, 2]
        assert stored(store.get_feature_view("fv")).layout.definition == definition_of(bundle.view("fv"))
        if writer != "feast":
            assert watermark_of(own.mget([watermark_key("shop", "fv")])[0]) == now
            Lookup(bundle, own).ready()


def test_an_earlier_range_takes_no_watermark_back(opened: Open, tmp_path: Path, store_url: str) -> None:
    """What was written by a later materialization stays promised; a gap after it is not."""
    path = table(tmp_path / "a.parquet", [1], [NOW - 3 * HOUR], x=[0.1])
    store = opened(DRIVER, driver_view(path, x=Float32))
    with closing(open_store(store_url)) as own:
        for start, end, reached in ((5, 2, 2), (5, 4, 2), (1, 0, 2), (3, 1, 1)):
            store.materialize(NOW - start * HOUR, NOW - end * HOUR)
            (mark,) = own.mget([watermark_key("shop", "fv")])
            assert watermark_of(mark) == round((NOW - reached * HOUR).timestamp()) * 1_000_000, (start, end)


def _yaml(folder: Path, store: FeatureStore) -> Path:
    path = folder / "feature_store.yaml"
    path.write_text(f"project: shop\nregistry: {store.config.registry.path}\nprovider: local\n")
    return path


def test_views_that_are_gone_take_their_rows_along(opened: Open, tmp_path: Path, store_url: str) -> None:
    """Deleted views and a torn-down repository leave nothing; other projects' rows stay."""
    path = table(tmp_path / "a.parquet", [1], [NOW], x=[1.0])
    store = opened(DRIVER, driver_view(path, x=Float64))
    with closing(open_store(store_url)) as own:
        own.write([], {view_prefix("other", "fv") + b"{}": b"x"})
        ends: list[Callable[[], Any]] = [
            lambda: store.apply([], objects_to_delete=[store.get_feature_view("fv")], partial=False),
            store.teardown,
        ]
        for end in ends:
            store.apply(driver_view(path, x=Float64))
            store.materialize(NOW - HOUR, NOW)
            assert asked(store, ["x"], 1)[0]["x"] == [1.0]
            view = store.get_feature_view("fv")
            end()
            provider: Any = store._get_provider()
            key = EntityKey(join_keys=["driver_id"], entity_values=[Value(int64_val=1)])
            online = provider.online_store
            assert online.online_read(store.config, view, [key]) == [(None, None)]
            assert own.mget([watermark_key("shop", "fv"), view_prefix("other", "fv") + b"{}"]) == [None, b"x"]


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_row_is_written_whole_or_not_at_all(opened: Open, tmp_path: Path) -> None:
    """A missing feature, a value of another type, a missing key and a key of another type are named."""
    path = table(tmp_path / "a.parquet", [1], [NOW], x=[1.0], n=[1])
    store = opened(DRIVER, driver_view(path, x=Float64, n=Array(Int64)))
    view = store.get_feature_view("fv")
    online: Any = store._get_provider().online_store
    key = EntityKey(join_keys=["driver_id"], entity_values=[Value(int64_val=1)])
    whole = {"x": Value(double_val=1.0), "n": Value(int64_list_val=Int64List(val=[1]))}
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (key, {"x": Value()}, CastError, "a row comes without n"),
        (key, whole | {"x": Value(string_val="a")}, CastError, "fv: x: expected double_val, got string_val"),
        (key, whole | {"n": Value(int64_val=1)}, CastError, "fv: n: expected int64_list_val, got int64_val"),
        (EntityKey(), whole, KeyError, "join key 'driver_id' is missing"),
        (
            EntityKey(join_keys=["driver_id"], entity_values=[Value(string_val="1")]),
            whole,
            DefinitionError,
            "key driver_id: expected int64, got string_val",
        ),
    ]
    for entity, values, kind, why in cases:
        with pytest.raises(kind, match=why):
            online.online_write_batch(store.config, view, [(entity, values, NOW, None)], None)
    with pytest.raises(CastError, match="without an event time"):
        online.online_write_batch(store.config, view, [(key, whole, pd.NaT, None)], None)
    assert online.online_read(store.config, view, [key]) == [(None, None)]


def test_keys_that_cannot_be_looked_up_are_refused_at_apply(opened: Open, tmp_path: Path) -> None:
    """A float is nobody's key."""
    path = table(tmp_path / "a.parquet", [1.5], [NOW], x=[1.0])
    odd = Entity(name="odd", join_keys=["driver_id"], value_type=ValueType.DOUBLE)
    view = FeatureView(
        name="fv",
        entities=[odd],
        schema=[Field(name="x", dtype=Float64), Field(name="driver_id", dtype=Float64)],
        source=FileSource(path=path, timestamp_field="event_timestamp"),
    )
    with pytest.raises(DefinitionError, match=r"a join key of type Float64 \(driver_id\) cannot be looked up"):
        opened(odd, view)


def test_the_engine_writes_to_its_own_store_only(tmp_path: Path) -> None:
    """Beside another online store it says what it needs."""
    path = table(tmp_path / "a.parquet", [1], [NOW], x=[1.0])
    settings: dict[str, Any] = {"entity_key_serialization_version": 3, "provider": "local", "repo_path": str(tmp_path)}
    config = RepoConfig(
        project="shop",
        registry=str(tmp_path / "registry.db"),
        online_store={"type": "sqlite", "path": str(tmp_path / "feast.db")},
        batch_engine="skewguard.online.feast.SkewguardEngine",
        **settings,
    )
    store = FeatureStore(config=config)
    store.apply([DRIVER, driver_view(path, x=Float64)])
    with pytest.raises(DefinitionError, match=r"SkewguardEngine writes to online_store: .*got SqliteOnlineStore"):
        store.materialize(NOW - HOUR, NOW)


@pytest.mark.parametrize(
    ("online", "url"),
    [
        ({}, "sqlite:/repo/data/online.db"),
        ({"path": "x/o.db"}, "sqlite:/repo/x/o.db"),
        ({"url": "sqlite:/tmp/o.db"}, "sqlite:/tmp/o.db"),
        ({"url": "rediss://h:1/2"}, "rediss://h:1/2"),
        ({"connection_string": "h:1"}, "redis://h:1/0"),
        ({"connection_string": "h:1,db=3,ssl=true,password=p@/,username=u"}, "rediss://u:p%40%2F@h:1/3"),
        ({"connection_string": "h:1,socket_timeout=0.1"}, "redis://h:1/0?socket_timeout=0.1"),
        ({"connection_string": "a:1,b:2,password=p", "redis_type": "redis_cluster"}, "redis+cluster://:p@a:1,b:2"),
    ],
)
def test_the_address_is_ours_or_feasts(online: dict[str, Any], url: str) -> None:
    """A connection string of Feast's own Redis store is understood, so that only `type:` changes."""
    assert SkewguardOnlineStoreConfig(**online).address(Path("/repo")) == url


def test_a_redis_type_that_is_not_there_is_refused() -> None:
    """Sentinel is not supported."""
    config = SkewguardOnlineStoreConfig(connection_string="h:1", redis_type="redis_sentinel")
    with pytest.raises(StoreUnavailable, match="expected redis or redis_cluster, got 'redis_sentinel'"):
        config.address(Path())


# -- lists ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", list(Dtype))
def test_a_list_comes_back_element_by_element(dtype: Dtype) -> None:
    """Of every dtype, empty ones and slices included."""
    kinds: dict[Dtype, list[Any]] = {Dtype.STRING: ["a", "", "é"], Dtype.BOOL: [True, False]}
    some = kinds.get(dtype, [1, 0, 7])
    flat = pa.array(some, pa.int64() if dtype is Dtype.TIMESTAMP else dtype.arrow)
    element = flat.view(dtype.arrow) if dtype is Dtype.TIMESTAMP else flat
    lists = pa.ListArray.from_arrays(pa.array([0, 0, len(some), len(some)]), element)
    blobs = pack_lists(pa.concat_arrays([lists, pa.nulls(1, lists.type)]), dtype, "x")
    assert blobs.dtype == list_of(dtype)
    assert [blob if blob is None else list(unpack_list(blob, dtype)) for blob in blobs.values] == [[], some, [], None]
    assert pack_lists(lists.slice(1, 1), dtype, "x").values == blobs.values[1:2]


@pytest.mark.parametrize("blob", [b"", b"\x02\0\0\0\x01\0\0\0", b"\x01\0\0\0\x02\0\0\0a", b"\x01\0\0\0\x01\0\0\0\xff"])
def test_a_torn_list_is_refused(blob: bytes) -> None:
    """No text is made up."""
    with pytest.raises(LayoutError, match="packed list of string"):
        unpack_list(blob, Dtype.STRING)
    with pytest.raises(LayoutError, match="packed list of int64"):
        unpack_list(b"123", Dtype.INT64)
    assert issubclass(LayoutError, SkewguardError)


def test_the_plugin_is_what_feast_loads() -> None:
    """Under the names that the documentation gives."""
    assert SkewguardOnlineStore.__mro__[1].__name__ == "OnlineStore"
    assert SkewguardEngine.__mro__[1].__name__ == "ComputeEngine"


# -- beside skewguard's publisher -------------------------------------------------------------------------------------


def test_rows_that_feast_wrote_are_not_narrowed_unasked(opened: Open, tmp_path: Path, store_url: str) -> None:
    """A service with fewer features of a view does not overwrite what Feast's readers ask for."""
    path = table(tmp_path / "a.parquet", [1], [NOW - HOUR], x=[1.5], y=[7])
    view = driver_view(path, x=Float64, y=Int64)
    store = opened(DRIVER, view, FeatureService(name="svc", features=[view[["x"]]]))
    frame = pd.DataFrame({"driver_id": [1], "event_timestamp": [NOW - HOUR], "x": [1.5], "y": [7]})
    store.write_to_online_store("fv", df=frame)
    bundle = compile_service(tmp_path, "svc", _yaml(tmp_path, store))
    now = round(NOW.timestamp() * 1_000_000)
    with closing(open_store(store_url)) as own, OfflineStore(bundle.views) as offline:
        with pytest.raises(DefinitionError, match="view fv: the online store also has y of it"):
            materialize(bundle, offline, own, now)
        asks = spine([now], {"driver_id": column(Dtype.INT64, [1])})
        assert plain(Lookup(bundle, own).answer(asks)["fv"].features["x"]) == [1.5]
    assert asked(store, ["x", "y"], 1)[0] == {"driver_id": [1], "x": [1.5], "y": [7]}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_on_demand_view_that_is_written_is_read_from_the_store(opened: Open, tmp_path: Path) -> None:
    """`write_to_online_store=True`: its values lie in the store like a feature view's."""
    path = table(tmp_path / "a.parquet", [1], [NOW - HOUR], x=[1.5])
    view = driver_view(path, x=Float64)

    def doubled(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"twice": [value * 2 for value in inputs["x"]]}

    declare: Any = on_demand_feature_view(
        entities=[DRIVER],
        sources=[view],
        schema=[Field(name="twice", dtype=Float64)],
        mode="python",
        write_to_online_store=True,
    )
    store = opened(DRIVER, view, declare(doubled))
    store.write_to_online_store("doubled", df=pd.DataFrame({"driver_id": [1], "x": [1.5], "twice": [3.0]}))
    rows = [{"driver_id": 1}, {"driver_id": 2}]
    assert store.get_online_features(features=["doubled:twice"], entity_rows=rows).to_dict()["twice"] == [3.0, None]


@pytest.mark.redis
def test_the_benchmark_of_writing_runs(redis_url: str) -> None:
    """At a size at which its figures mean nothing."""
    figures = measure(redis_url.rpartition("/")[0], rows=200, feast_rows=20, rounds=1).to_json()
    assert figures["rows_per_s"] == min(figures["publisher_rows_per_s"], figures["engine_rows_per_s"]) > 0
    assert figures["ratio"] == pytest.approx(figures["rows_per_s"] / figures["feast_rows_per_s"], rel=0.1)
