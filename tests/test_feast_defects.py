"""Where Feast 0.67 answers one thing offline and another online, or something wrong: the offline half.

One test per way, with the rows and asks that show it: this stack has the one right answer, or refuses what Feast
computes on one side only. Asked twice: through the plugin in Feast's own interface, and by the join on the compiled
service (what a snapshot holds and a replay compares with). On-demand views (r05, r08, r12) and the online halves have
tests of their own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import BatchFeatureView, Entity, FeatureService, FeatureStore, Field, FileSource, ValueType
from feast.aggregation import Aggregation
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp

from skewguard.errors import AskError, DefinitionError, SourceError
from skewguard.offline import OfflineStore, Rule
from skewguard.offline.feast import SkewguardOfflineStore
from skewguard.spine import read_spine
from tests.feast_repo import ASK, BIG, DAY, EVENT, HOUR, MICROSECOND, NOW, Repo, one, rows

pytestmark = [
    pytest.mark.filterwarnings("ignore:The spark data source API is an experimental feature:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:(Saving dataset|Retrieving datasets) is an experimental feature:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Batch feature views are experimental features:RuntimeWarning"),
]


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """An empty repository."""
    return Repo(tmp_path)


def answered(
    repo: Repo, view: Any, asks: Mapping[str, Any], *, known: bool = False, names: Sequence[str] = ()
) -> list[tuple[Any, ...]]:
    """The features of a view (or its projection) per ask: from the plugin, and the same from the compiled service."""
    repo.store.apply([FeatureService(name="asked", features=[view])])
    service = repo.store.get_feature_service("asked")
    names = names or [feature.name for feature in service.feature_view_projections[0].features]
    table = rows(**asks)
    job = repo.ask(table.to_pandas(), service, filter_by_created_timestamp=known)
    got = job.to_arrow().select(list(names)).to_pydict()
    bundle = repo.bundle("asked")
    with OfflineStore(bundle.views, Rule.KNOWN if known else Rule.FEAST) as join:
        (found,) = join.answer(read_spine(table, bundle.keys, {})).values()
    for name in names:
        assert found.features[name].to_arrow().to_pylist() == got[name], name
    return list(zip(*(got[name] for name in names), strict=True))


# -- r01, r11: the declared dtype -------------------------------------------------------------------------------------


def test_r01_float32_int64_instants_and_nan_are_what_was_declared(repo: Repo) -> None:
    """Feast: 0.1, 789 ms, 9007199254740993 and NaN offline; 0.10000000149, 0 ms, ...992 and null online."""
    when = datetime(2026, 1, 1, 0, 0, 0, 789_000, tzinfo=UTC)
    source = repo.source(
        {
            "driver": [1, 2],
            "f32": [0.1, 0.2],
            "when": [when, when],
            "big": [BIG, None],
            "nan": [float("nan"), 1.0],
            EVENT: [NOW - HOUR] * 2,
        }
    )
    view = repo.view(source, {"f32": Float32, "when": UnixTimestamp, "big": Int64, "nan": Float64}, ttl=DAY)
    asks = {"driver": [1, 2], EVENT: [NOW] * 2}
    near = [float(np.float32(x)) for x in (0.1, 0.2)]
    names = ["f32", "when", "big", "nan"]
    assert answered(repo, view, asks, names=names) == [(near[0], when, BIG, None), (near[1], when, None, 1.0)]


def test_r11_text_keeps_its_digits_and_a_loss_is_an_error(repo: Repo) -> None:
    """Feast: a zip of 90210 is "90210.0" online, 1.9 as Int64 is 1 there and 1.9 offline."""
    columns = {"zip": [90210, None, 10001], "flag": [True, None, False], "small": [1, None, 3]}
    source = repo.source({"driver": [1, 2, 3], **columns, "whole": [1.9, -1.9, None], EVENT: [NOW - HOUR] * 3})
    asks = {"driver": [1, 2, 3], EVENT: [NOW] * 3}
    view = repo.view(source, {"zip": String, "flag": Bool, "small": Int32}, ttl=DAY)
    got = answered(repo, view, asks, names=["zip", "flag", "small"])
    assert got == [("90210", True, 1), (None, None, None), ("10001", False, 3)]
    repo.view(source, {"whole": Int64}, name="lossy")
    with pytest.raises(SourceError, match=r"'whole'.*1\.9 does not fit int64 without loss"):
        repo.ask(asks, "lossy:whole").to_arrow()


def test_r11_lists_have_their_elements_cast_and_null_keys_an_answer(repo: Repo) -> None:
    """Feast: Float32 lists differ, a null element or a null key is a TypeError online."""
    emb, ints = [[0.1, 0.2], None, []], [[1, None], [2], None]
    source = repo.source({"driver": [1, 2, 3], "emb": emb, "ints": ints, EVENT: [NOW - HOUR] * 3})
    repo.view(source, {"emb": Array(Float32), "ints": Array(Int64)}, ttl=DAY)
    asks = {"driver": pd.array([1, 2, 3, None], dtype="Int64"), EVENT: [NOW] * 4}
    got = repo.ask(asks, ["fv:emb", "fv:ints"]).to_arrow()
    assert got["emb"].to_pylist() == [[float(np.float32(x)) for x in (0.1, 0.2)], None, [], None]
    assert got["ints"].to_pylist() == [[1, None], [2], None, None]


# -- r02, r03, r06: time ----------------------------------------------------------------------------------------------


def test_r02_a_row_beyond_its_ttl_is_null(repo: Repo) -> None:
    """Feast: NaN offline, and 7.0 with status PRESENT online, as is a driver that there is not."""
    view = repo.view(repo.source({"driver": [1], "x": [7.0], EVENT: [NOW - 3 * HOUR]}), {"x": Float64}, ttl=HOUR)
    asks = {"driver": [1, 999, 1], EVENT: [NOW, NOW, NOW - 2 * HOUR]}
    assert answered(repo, view, asks) == [(None,), (None,), (7.0,)]
    bundle = repo.bundle("asked")
    with OfflineStore(bundle.views) as join:
        status = join.answer(read_spine(rows(**asks), bundle.keys, {}))["fv"].status.tolist()
    assert status == [3, 5, 0]  # expired, not found, present


def test_r03_a_correction_and_a_late_row_answer(repo: Repo) -> None:
    """Feast: both are seen offline; Redis keeps the first value for ever, and skips the late row."""
    early = NOW - 2 * HOUR
    source = repo.source(
        {
            "driver": [1, 1, 2, 2],
            "x": [1.0, 2.0, 1.0, 5.0],
            EVENT: [early, early, early, early + timedelta(minutes=5)],
            "created": [early, early + timedelta(minutes=30), early, NOW],
        }
    )
    view = repo.view(source, {"x": Float64}, ttl=DAY)
    assert answered(repo, view, {"driver": [1, 2], EVENT: [NOW] * 2}) == [(2.0,), (5.0,)]
    before = {"driver": [1, 2], EVENT: [early + timedelta(minutes=29), NOW - MICROSECOND]}
    assert answered(repo, view, before, known=True) == [(1.0,), (1.0,)]


BASE: dict[str, Any] = {
    "driver": [1, 1, 2],
    "x": [1.0, 2.0, 3.0],
    EVENT: [NOW - 30 * HOUR, NOW - 2 * HOUR, NOW - 30 * HOUR],
}
TIE: dict[str, Any] = {
    "driver": [1] * 3,
    "x": [1.0, 2.0, 3.0],
    EVENT: [NOW - HOUR] * 3,
    "created": [NOW - HOUR, None, NOW - HOUR / 2],
}


@pytest.mark.parametrize(
    ("columns", "asks", "right"),
    [
        (BASE, {"driver": [1, 2, 3], EVENT: [NOW] * 3}, [2.0, None, None]),
        (BASE, {"driver": [1, 1, 1], EVENT: [NOW] * 3}, [2.0, 2.0, 2.0]),
        (BASE, {"driver": [1, None], EVENT: [NOW] * 2}, [2.0, None]),
        (BASE, {"driver": [2, 1, 2, 1], EVENT: [NOW, NOW, NOW - 29 * HOUR, NOW - 29 * HOUR]}, [None, 2.0, 3.0, 1.0]),
        (BASE, {"driver": [1, 1], EVENT: [NOW + 22 * HOUR, NOW + 22 * HOUR + MICROSECOND]}, [2.0, None]),
        (TIE, {"driver": [1], EVENT: [NOW]}, [3.0]),
        (TIE, {"driver": [1], EVENT: [NOW - HOUR]}, [3.0]),
    ],
    ids=["outside the ttl", "duplicates", "null key", "order", "ttl's edge", "null created", "created after the ask"],
)
def test_r06_every_ask_has_its_answer_in_its_place(
    repo: Repo, columns: dict[str, Any], asks: dict[str, Any], right: list[float | None]
) -> None:
    """Feast's dask store loses rows and turns them round, DuckDB's fails on names; both leak what was created later."""
    view = repo.view(repo.source(columns), {"x": Float64}, ttl=DAY)
    assert answered(repo, view, asks) == [(value,) for value in right]


def test_r06_what_was_created_after_the_ask_stays_out_if_so_asked(repo: Repo) -> None:
    """A row without a created time is known at its event, where Feast's filter drops it."""
    view = repo.view(repo.source(TIE), {"x": Float64}, ttl=DAY)
    at_event = {"driver": [1], EVENT: [NOW - HOUR]}
    assert answered(repo, view, at_event, known=True) == [(1.0,)]
    alone = {name: values[1:2] for name, values in TIE.items()} | {"created": pa.array([None], pa.timestamp("us"))}
    assert answered(repo, repo.view(repo.source(alone), {"x": Float64}), at_event, known=True) == [(2.0,)]


def test_r06_names_and_instants_are_the_askers_own(repo: Repo) -> None:
    """A feature that ends in _y, one named as a label, instants under another name or none: Feast fails, or drops rows.
    A text for a number is an error."""
    repo.view(repo.source(one(price_y=[2.0], x=[3.0])), {"price_y": Float64, "x": Float64})
    assert repo.values({"driver": [1], "ts": [NOW], "label": [5]}, "fv:price_y") == [2.0]
    assert repo.values({"driver": [1, 1], EVENT: [NOW, pd.NaT]}, "fv:price_y") == [2.0, None]
    with pytest.warns(UserWarning, match="the feature comes as fv__x"):
        job = repo.ask(ASK | {"x": [99.0]}, "fv:x")
    assert job.to_arrow().select(["x", "fv__x"]).to_pylist() == [{"x": 99.0, "fv__x": 3.0}]
    with pytest.raises(AskError, match="driver: expected int64, got string"):
        repo.ask({"driver": ["1"], EVENT: [NOW]}, "fv:x").to_arrow()


def test_r06_a_time_without_a_zone_is_utc(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the source and among the asks, in a process of New York."""
    naive = {name: [at.replace(tzinfo=None) for at in v] if name == EVENT else v for name, v in BASE.items()}
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        repo.view(repo.source(naive | {EVENT: pa.array(naive[EVENT], pa.timestamp("us"))}), {"x": Float64}, ttl=DAY)
        for at in (NOW - 2 * HOUR, (NOW - 2 * HOUR).replace(tzinfo=None)):
            assert repo.values({"driver": [1], EVENT: [at]}, "fv:x") == [2.0]
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_r07_a_file_of_pandas_and_a_view_without_keys_materialize(repo: Repo) -> None:
    """Feast's DuckDB store: a conversion error for nanoseconds, `__dummy_id not found` without keys."""
    path = repo.folder / "pandas.parquet"
    pd.DataFrame({"driver": [1], "x": [7.0], EVENT: [pd.Timestamp(NOW - HOUR)]}).to_parquet(path)
    source = FileSource(path=str(path), timestamp_field=EVENT)
    keyed = repo.view(source, {"x": Float64}, ttl=DAY)
    world = repo.view(source, {"x": Float64}, {}, name="world", ttl=DAY)
    assert answered(repo, keyed, ASK) == answered(repo, world, ASK) == [(7.0,)]
    repo.store.materialize(NOW - DAY, NOW)
    for name in ("fv", "world"):
        assert repo.store.get_online_features([f"{name}:x"], [{"driver": 1}]).to_dict()["x"] == [7.0]


# -- r09, r10, r13, r14: keys and names -------------------------------------------------------------------------------


@pytest.mark.parametrize("declared", [ValueType.INT64, ValueType.UNKNOWN])
@pytest.mark.parametrize("stored", [pa.int32(), pa.int64(), pa.string()], ids=str)
def test_r09_a_key_is_what_it_is_declared_wherever_it_comes_from(
    repo: Repo, stored: pa.DataType, declared: ValueType
) -> None:
    """What is hashed in Feast's Redis depends on the source's column at write and on the entity at read. Here one dtype
    counts on all sides; a text where a number is declared is an error, and never another key."""
    source = repo.source({"driver": pa.array([1]).cast(stored), "x": [7.0], EVENT: [NOW - HOUR]})
    view = repo.view(source, {"x": Float64}, {"driver": declared}, ttl=DAY)
    text = stored == pa.string()
    if text and declared is ValueType.INT64:
        with pytest.raises(SourceError, match="'driver': expected int64, got string"):
            repo.ask(ASK, "fv:x").to_arrow()
        return
    asks = {"driver": ["1"] if text else [1], EVENT: [NOW]}
    assert answered(repo, view, asks) == [(7.0,)]


def test_r10_two_features_whose_hashes_collide_are_two(repo: Repo) -> None:
    """Feast's Redis store keeps them in one field, and the last writer wins."""
    a, b = "feature_64850", "feature_173868"
    view = repo.view(repo.source(one(**{a: [1.0], b: [2.0]})), {a: Float64, b: Float64}, ttl=DAY)
    assert answered(repo, view, ASK, names=[a, b]) == [(1.0, 2.0)]


def test_r13_composite_keys_do_not_run_into_each_other(repo: Repo) -> None:
    """Feast on Spark joins ("1", "11") with ("11", "1"), and makes four rows of two."""
    path = repo.source({"a": ["1", "11"], "b": ["11", "1"], "y": [100.0, 200.0], EVENT: [NOW - HOUR] * 2}).path
    spark = SparkSource(name="s2", path=path, file_format="parquet", timestamp_field=EVENT)
    view = repo.view(spark, {"y": Float64}, {"a": ValueType.STRING, "b": ValueType.STRING}, ttl=DAY)
    asks = {"a": ["1", "11", "1"], "b": ["11", "1", "1"], EVENT: [NOW] * 3}
    assert answered(repo, view, asks) == [(100.0,), (200.0,), (None,)]


def test_r13_a_tie_is_one_row_from_either_kind_of_source(repo: Repo) -> None:
    """Feast on Spark gives both of two equal rows, and takes no FileSource at all."""
    file = repo.source({"driver": [1, 1], "x": [1.0, 2.0], EVENT: [NOW - HOUR] * 2})
    spark = SparkSource(name="s4", path=file.path, file_format="parquet", timestamp_field=EVENT)
    for name, source in (("files", file), ("spark", spark)):
        view = repo.view(source, {"x": Float64}, name=name, ttl=DAY)
        assert answered(repo, view, ASK) == [(2.0,)]


def test_r14_a_join_key_map_of_one_key_leaves_the_other(repo: Repo) -> None:
    """Feast's DuckDB store joins on the renamed key alone: both asks get car 8's value."""
    source = repo.source({"origin": [1, 1], "car": [7, 8], "x": [1.0, 2.0], EVENT: [NOW - 2 * HOUR, NOW - HOUR]})
    view = repo.view(source, {"x": Float64}, {"origin": ValueType.INT64, "car": ValueType.INT64}, ttl=DAY)
    renamed = view.with_name("fv_from").with_join_key_map({"origin": "from_id"})
    assert answered(repo, renamed, {"from_id": [1, 1], "car": [7, 8], EVENT: [NOW] * 2}) == [(1.0,), (2.0,)]


# -- r04, r16: what Feast computes on one side ------------------------------------------------------------------------

TENFOLD = "def tenfold(df):\n    df['x'] = df['x'] * 10\n    return df\n"


def batch(repo: Repo, **what: Any) -> FeatureService:
    """A batch view with a transformation or aggregations of Feast's, applied, and the service that asks for it."""
    entity = Entity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)
    view = BatchFeatureView(
        name="bfv", entities=[entity], mode="pandas", source=repo.source(one(x=[1.0])), online=True, ttl=DAY, **what
    )
    service = FeatureService(name="asked", features=[view])
    repo.store.apply([entity, view, service])
    return service


def test_r04_a_transformation_that_only_materialization_runs_is_refused(repo: Repo) -> None:
    """Feast: 1.0 offline, 10.0 online. Neither a retrieval nor a compiled service is had of it."""
    schema = [Field(name="x", dtype=Float64)]
    service = batch(repo, schema=schema, udf=lambda df: df, udf_string=TENFOLD)
    for asked in (lambda: repo.ask(ASK, "bfv:x"), lambda: repo.ask(ASK, service), lambda: repo.bundle("asked")):
        with pytest.raises(
            DefinitionError, match="feature view bfv: it has a transformation, which Feast runs when it"
        ):
            asked()


@pytest.mark.parametrize("window", [None, timedelta(hours=6)])
def test_r16_an_aggregation_of_feasts_is_refused(repo: Repo, window: timedelta | None) -> None:
    """Feast: a KeyError on both sides. Its registry forgets the aggregation, so that what is missing is the column."""
    sums = Aggregation(column="x", function="sum", time_window=window, name="sum_x")
    batch(repo, aggregations=[sums], schema=[Field(name="sum_x", dtype=Float64)])
    gone = r"it has aggregations|column 'sum_x' .* is missing"
    with pytest.raises((DefinitionError, SourceError), match=gone):
        repo.ask(ASK, "bfv:sum_x").to_arrow()
    with pytest.raises((DefinitionError, SourceError), match=gone):
        _joined(repo, "asked")


def test_r04_r16_feast_apply_refuses_them_where_our_engine_materializes(tmp_path: Path) -> None:
    """`batch_engine: {type: skewguard.online.feast.SkewguardEngine}` is asked before anything is registered."""
    repo = Repo(tmp_path)
    repo.store.config = repo.store.config.model_copy(
        update={"batch_engine_config": {"type": "skewguard.online.feast.SkewguardEngine"}}
    )
    sums = Aggregation(column="x", function="sum", name="sum_x")
    field = Field(name="x", dtype=Float64)
    for what, said in (
        ({"schema": [field], "udf": lambda df: df, "udf_string": TENFOLD}, "a transformation"),
        ({"schema": [Field(name="sum_x", dtype=Float64)], "aggregations": [sums]}, "aggregations"),
    ):
        with pytest.raises(DefinitionError, match=f"feature view bfv: it has .*{said}.*, which Feast runs when it"):
            batch(repo, **what)
        assert FeatureStore(config=repo.store.config).list_batch_feature_views() == []


def _joined(repo: Repo, service: str) -> None:
    bundle = repo.bundle(service)
    with OfflineStore(bundle.views) as join:
        join.answer(read_spine(rows(**ASK), bundle.keys, {}))


# -- r15: saved datasets ----------------------------------------------------------------------------------------------


def test_r15_a_saved_dataset_comes_back_with_its_label(repo: Repo) -> None:
    """Feast: written without the on-demand features, read without the label and in another order."""
    repo.view(repo.source({"driver": [1, 2], "x": [1.0, 2.0], EVENT: [NOW - HOUR] * 2}), {"x": Float64}, ttl=DAY)
    job = repo.ask({"driver": [2, 1], EVENT: [NOW] * 2, "label": [0, 1]}, "fv:x")
    storage = SavedDatasetFileStorage(path=str(repo.folder / "snap.parquet"))
    repo.store.create_saved_dataset(from_=job, name="snap", storage=storage)
    assert pq.read_schema(repo.folder / "snap.parquet").names == ["driver", EVENT, "label", "x"]
    back = repo.store.get_saved_dataset("snap").to_df()
    assert back[["driver", "label", "x"]].to_numpy().tolist() == [[2, 0, 2.0], [1, 1, 1.0]]


# -- what the writer of an online store pulls -------------------------------------------------------------------------


def test_rows_at_the_very_ends_of_a_range_are_pulled(repo: Repo) -> None:
    """Both ends are inside, as in Feast."""
    ends = {"driver": [1, 2, 3, 4], "x": [1.0, 2.0, 3.0, 4.0]}
    at = [NOW - HOUR - MICROSECOND, NOW - HOUR, NOW, NOW + MICROSECOND]
    source = repo.source(ends | {EVENT: at})
    for pull in (
        SkewguardOfflineStore.pull_all_from_table_or_query,
        SkewguardOfflineStore.pull_latest_from_table_or_query,
    ):
        job = pull(repo.store.config, source, ["driver"], ["x"], EVENT, None, NOW - HOUR, NOW)
        assert sorted(job.to_arrow()["driver"].to_pylist()) == [2, 3]
