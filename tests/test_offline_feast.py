"""The offline store plugin: what Feast's users get when they change one line of feature_store.yaml."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import (
    BatchFeatureView,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    OnDemandFeatureView,
    PushSource,
    RequestSource,
    ValueType,
)
from feast.aggregation import Aggregation
from feast.data_format import DeltaFormat
from feast.data_source import DataSource
from feast.errors import EntityTimestampInferenceException, FeatureNameCollisionError, SavedDatasetLocationAlreadyExists
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, Map, String, UnixTimestamp

from skewguard.errors import AskError, CastError, DefinitionError, SourceError
from skewguard.offline.feast import SkewguardOfflineStore, SkewguardOfflineStoreConfig
from tests.feast_repo import (
    ASK,
    BIG,
    DAY,
    EVENT,
    HOUR,
    MICROSECOND,
    NOW,
    STAMP,
    STORE,
    Repo,
    array,
    on_demand,
    one,
    rows,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:The spark data source API is an experimental feature:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:(Saving dataset|Retrieving datasets) is an experimental feature:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Batch feature views are experimental features:RuntimeWarning"),
]


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """An empty repository."""
    return Repo(tmp_path)


# -- one ask in, one answer out ---------------------------------------------------------------------------------------


def test_every_ask_gets_its_answer_beside_it(repo: Repo) -> None:
    """Order and number stay; duplicates, unknown and null keys, and asks without an instant, all get a row."""
    repo.view(
        repo.source(
            {"driver": [1, 1, 2], "x": [1.0, 2.0, 3.0], EVENT: [NOW - 30 * HOUR, NOW - 2 * HOUR, NOW - 30 * HOUR]}
        ),
        {"x": Float64},
        ttl=DAY,
    )
    asks = pd.DataFrame(
        {
            "label": range(8),
            "driver": pd.array([2, 1, None, 1, 1, 3, 1, 2], dtype="Int64"),
            EVENT: [NOW, NOW, NOW, NOW - 29 * HOUR, NOW, NOW, pd.NaT, NOW - 29 * HOUR],
        },
        index=range(80, 0, -10),
    )
    job = repo.ask(asks, "fv:x")
    assert job.to_arrow().column_names == ["label", "driver", EVENT, "x"]
    assert job.to_arrow()["x"].to_pylist() == [None, 2.0, None, 1.0, 2.0, None, None, 3.0]
    pd.testing.assert_frame_equal(job.to_df()[["label", "driver", EVENT]], asks.reset_index(drop=True))


def test_the_asks_own_columns_come_back_as_they_were(repo: Repo) -> None:
    """Values and dtypes of what the caller brought are not touched: digits, categories, zones, nanoseconds, lists."""
    repo.view(repo.source(one(x=[7.0])), {"x": Float64})
    asks = pd.DataFrame(
        {
            "driver": [1, 1],
            EVENT: pd.to_datetime([NOW, NOW]),
            "id": pd.array([BIG, None], dtype="Int64"),
            "kind": pd.Categorical(["a", "b"]),
            "seen": pd.Series([pd.Timestamp("2026-01-01T00:00:00.000000001Z"), pd.NaT]),
            "path": [[1, 2], []],
        }
    )
    got = repo.ask(asks, "fv:x").to_df()
    assert got["path"].map(list).tolist() == [[1, 2], []]
    pd.testing.assert_frame_equal(got.drop(columns=["x", "path"]), asks.drop(columns=["path"]))


def test_no_asks_are_answered_by_no_rows(repo: Repo) -> None:
    """An empty data frame is a question too, whatever pandas makes of its columns."""
    repo.view(repo.source(one(x=[7.0])), {"x": Float64})
    got = repo.ask({"driver": [], EVENT: []}, "fv:x").to_arrow()
    assert (len(got), got.column_names) == (0, ["driver", EVENT, "x"])


def test_answers_are_those_of_a_search_by_hand(repo: Repo) -> None:
    """In a world dense in ties, edges and nulls every answer is the newest row that may be known, by both rules."""
    pick = np.random.default_rng(7)
    data = {
        "driver": pick.integers(0, 6, 400).tolist(),
        "x": np.arange(400.0).tolist(),
        EVENT: [NOW + int(hours) * HOUR for hours in pick.integers(0, 40, 400)],
        "created": [NOW + int(hours) * HOUR if hours < 44 else None for hours in pick.integers(0, 48, 400)],
    }
    repo.view(repo.source(data), {"x": Float64}, ttl=12 * HOUR)
    asks = {
        "driver": pick.integers(0, 8, 300).tolist(),
        EVENT: [NOW + int(hours) * HOUR for hours in pick.integers(0, 48, 300)],
    }
    found = list(zip(data["driver"], data["x"], data[EVENT], data["created"], strict=True))
    for known in (False, True):
        expected = [_by_hand(found, driver, at, 12 * HOUR, known) for driver, at in zip(*asks.values(), strict=True)]
        assert repo.values(asks, "fv:x", filter_by_created_timestamp=known) == expected


def _by_hand(found: list[tuple[Any, ...]], driver: int, at: datetime, ttl: timedelta, known: bool) -> float | None:
    never = datetime(1, 1, 1, tzinfo=UTC)
    best = max(
        (
            (event, created or never, x)
            for key, x, event, created in found
            if key == driver and event <= at and not (known and created and created > at)
        ),
        default=None,
    )
    return best[2] if best and best[0] >= at - ttl else None


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ibis", "ignore::FutureWarning")
def test_answers_are_those_of_feasts_own_store_where_it_is_right(repo: Repo) -> None:
    """Changing the line in feature_store.yaml changes no answer in a world that Feast's DuckDB store handles."""
    pick = np.random.default_rng(11)
    events = pick.permutation(2000)[:600]
    source = repo.source(
        {
            "driver": pick.integers(0, 20, 600).tolist(),
            "x": pick.normal(size=600).tolist(),
            "n": pick.integers(0, 100, 600).tolist(),
            "s": [f"é{i % 7}" for i in range(600)],
            EVENT: [NOW + int(minutes) * 60 * timedelta(seconds=1) for minutes in events],
        }
    )
    repo.view(source, {"x": Float64, "n": Int64, "s": String}, ttl=6 * HOUR)
    asks = pd.DataFrame(
        {
            "driver": pick.integers(0, 22, 200),
            EVENT: pd.to_datetime([NOW + int(m) * timedelta(minutes=1) for m in pick.integers(0, 2400, 200)]),
            "i": range(200),
        }
    )
    refs = ["fv:x", "fv:n", "fv:s"]
    ours = repo.ask(asks, refs, full_feature_names=True).to_df()
    feast = FeatureStore(config=repo.store.config.model_copy(update={"offline_store_config": {"type": "duckdb"}}))
    theirs = feast.get_historical_features(asks, refs, full_feature_names=True).to_df().sort_values("i")
    pd.testing.assert_frame_equal(ours, theirs.reset_index(drop=True), check_dtype=False)


# -- time -------------------------------------------------------------------------------------------------------------


def test_both_ends_of_the_ttl_are_inside(repo: Repo) -> None:
    """A row is valid from its event on until exactly one TTL later; a TTL of nothing never ends."""
    source = repo.source({"driver": [1], "x": [2.0], EVENT: [NOW]})
    repo.view(source, {"x": Float64}, ttl=DAY)
    repo.view(source, {"y": Float64, "x": Float64}, name="forever")
    asks = {"driver": [1] * 4, EVENT: [NOW - MICROSECOND, NOW, NOW + DAY, NOW + DAY + MICROSECOND]}
    assert repo.values(asks, "fv:x") == [None, 2.0, 2.0, None]
    assert repo.values(asks, "forever:x") == [None, 2.0, 2.0, 2.0]


def test_created_time_breaks_ties_and_a_row_without_one_loses(repo: Repo) -> None:
    """Of rows with one event time the one that was created last answers, even after the ask: Feast's rule."""
    repo.view(
        repo.source(
            {
                "driver": [1] * 3,
                "x": [1.0, 2.0, 3.0],
                EVENT: [NOW - HOUR] * 3,
                "created": [NOW - HOUR, None, NOW - HOUR / 2],
            }
        ),
        {"x": Float64},
    )
    assert repo.values(ASK, "fv:x") == [3.0]
    assert repo.values({"driver": [1], EVENT: [NOW - HOUR]}, "fv:x") == [3.0]


def test_what_was_created_after_the_ask_can_be_kept_out(repo: Repo, tmp_path: Path) -> None:
    """Feast's `filter_by_created_timestamp` turns the leak off for one retrieval, the setting for all of them."""
    source = repo.source(
        {
            "driver": [1, 1, 2],
            "x": [1.0, 2.0, 5.0],
            EVENT: [NOW - 2 * HOUR, NOW - HOUR, NOW - HOUR],
            "created": [NOW - 2 * HOUR, NOW + HOUR, NOW],
        }
    )
    asks = {"driver": [1, 2], EVENT: [NOW, NOW]}
    repo.view(source, {"x": Float64})
    assert repo.values(asks, "fv:x") == [2.0, 5.0]
    assert repo.values(asks, "fv:x", filter_by_created_timestamp=True) == [1.0, 5.0]
    (tmp_path / "strict").mkdir()
    strict = Repo(tmp_path / "strict", filter_by_created_timestamp=True)
    strict.view(source, {"x": Float64})
    assert strict.values(asks, "fv:x") == [1.0, 5.0]


def test_a_correction_and_a_late_row_are_seen(repo: Repo) -> None:
    """A row that corrects another of the same event time, and one that arrives late, answer from then on (r03)."""
    first = {"driver": [1], "x": [1.0], EVENT: [NOW - 2 * HOUR], "created": [NOW - 2 * HOUR]}
    source = repo.source(first, path="rows.parquet")
    repo.view(source, {"x": Float64}, ttl=DAY)
    assert repo.values(ASK, "fv:x") == [1.0]
    correction = {"driver": [1], "x": [2.0], EVENT: [NOW - 2 * HOUR], "created": [NOW - HOUR]}
    late = {"driver": [1], "x": [5.0], EVENT: [NOW - 2 * HOUR + timedelta(minutes=5)], "created": [NOW]}
    pq.write_table(pa.concat_tables([rows(**first), rows(**correction)]), source.path)
    assert repo.values(ASK, "fv:x") == [2.0]
    pq.write_table(pa.concat_tables([rows(**first), rows(**correction), rows(**late)]), source.path)
    assert repo.values(ASK, "fv:x") == [5.0]


def test_rows_equal_in_keys_and_times_give_one_answer(repo: Repo) -> None:
    """Where a source contradicts itself an ask still has one answer, whichever row lies first (Spark: both, r13)."""
    for values in ([1.0, 2.0], [2.0, 1.0]):
        source = repo.source({"driver": [1, 1], "x": values, EVENT: [NOW - HOUR] * 2}, path="tied.parquet")
        repo.view(source, {"x": Float64})
        assert repo.values(ASK, "fv:x") == [2.0]


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
def test_a_time_without_a_zone_is_utc_wherever_the_process_runs(
    repo: Repo, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Naive times in the source, among the asks and as ends of a range are UTC; the local zone has no say (r06)."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        naive = pa.array([NOW - HOUR], STAMP).cast(pa.timestamp("us"))
        repo.view(repo.source({"driver": [1], "x": [2.0], EVENT: naive}), {"x": Float64}, ttl=HOUR)
        bare = NOW.replace(tzinfo=None)
        assert repo.values({"driver": [1, 1], EVENT: [bare, bare + MICROSECOND]}, "fv:x") == [2.0, None]
        between = repo.store.get_historical_features(features=["fv:x"], start_date=bare - HOUR, end_date=bare)
        assert between.to_df()["x"].tolist() == [2.0]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_store_that_feast_does_not_coerce_for_reads_naive_asks_as_utc(repo: Repo) -> None:
    """With `coerce_tz_aware: false` the data frame arrives as it is: naive, or text."""
    repo.view(repo.source(one(x=[2.0])), {"x": Float64}, ttl=HOUR)
    repo.store.config.coerce_tz_aware = False
    for instant in (NOW.replace(tzinfo=None), NOW.isoformat(), "2026-01-10"):
        assert repo.values({"driver": [1], EVENT: [instant]}, "fv:x") == [2.0]


@pytest.mark.filterwarnings("ignore:Discarding nonzero nanoseconds")
def test_nanoseconds_in_the_source_and_among_the_asks_are_understood(repo: Repo) -> None:
    """A file that pandas wrote has nanoseconds; they are rounded down to microseconds on both sides (r07)."""
    path = repo.folder / "pandas.parquet"
    pd.DataFrame({"driver": [1], "x": [7.0], EVENT: [pd.Timestamp("2026-01-09T23:00:00.000000999Z")]}).to_parquet(path)
    repo.view(FileSource(path=str(path), timestamp_field=EVENT), {"x": Float64}, ttl=HOUR)
    asks = {
        "driver": [1] * 3,
        EVENT: pd.to_datetime(
            ["2026-01-09T22:59:59.999999999Z", "2026-01-09T23:00:00.000000001Z", "2026-01-09T23:30:00.0Z"]
        ),
    }
    assert repo.values(asks, "fv:x") == [None, 7.0, 7.0]


def test_the_only_column_of_instants_may_have_any_name(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    """As in Feast: `event_timestamp`, or the one column that holds instants; of two, neither."""
    repo.view(repo.source(one(x=[2.0])), {"x": Float64})
    assert repo.values({"driver": [1], "ts": [NOW], "label": [5]}, "fv:x") == [2.0]
    assert "Using ts as the event timestamp" in capsys.readouterr().out
    with pytest.raises(EntityTimestampInferenceException):
        repo.ask({"driver": [1], "a": [NOW], "b": [NOW]}, "fv:x")


# -- dtypes -----------------------------------------------------------------------------------------------------------


def test_a_declared_dtype_holds_offline(repo: Repo) -> None:
    """Float32 of 0.1 is the float32 next to it, an instant keeps its fraction, digits beside a null stay, NaN is null,
    and text of an integer is its digits: what an online store gives for the same row (r01, r11)."""
    when = datetime(2026, 1, 1, 0, 0, 0, 789_000, tzinfo=UTC)
    repo.view(
        repo.source(
            {
                "driver": [1, 2],
                "f32": [0.1, 0.2],
                "when": [when, None],
                "big": [BIG, None],
                "nan": [float("nan"), 1.0],
                "zip": [90210, None],
                "small": [3, None],
                "flag": [True, None],
                EVENT: [NOW - HOUR] * 2,
            }
        ),
        {
            "f32": Float32,
            "when": UnixTimestamp,
            "big": Int64,
            "nan": Float64,
            "zip": String,
            "small": Int32,
            "flag": Bool,
        },
    )
    names = ["f32", "when", "big", "nan", "zip", "small", "flag"]
    job = repo.ask({"driver": [1, 2], EVENT: [NOW] * 2}, [f"fv:{name}" for name in names])
    assert job.to_arrow().select(names).to_pylist() == [
        {
            "f32": float(np.float32(0.1)),
            "when": when,
            "big": BIG,
            "nan": None,
            "zip": "90210",
            "small": 3,
            "flag": True,
        },
        {
            "f32": float(np.float32(0.2)),
            "when": None,
            "big": None,
            "nan": 1.0,
            "zip": None,
            "small": None,
            "flag": None,
        },
    ]
    assert [str(field.type) for field in job.to_arrow().schema][2:] == [
        "double", "timestamp[us, tz=UTC]", "int64", "double", "string", "int64", "bool",
    ]  # fmt: skip


def test_a_data_frame_holds_the_same_values(repo: Repo) -> None:
    """No digit is lost where pandas would make a float of an integer, and 0.1 as Float32 equals 0.1 as float32."""
    repo.view(
        repo.source(
            {
                "driver": [1, 2],
                "f": [0.1, None],
                "g": [0.1, 0.2],
                "big": [BIG, None],
                "n": [3, None],
                EVENT: [NOW - HOUR] * 2,
            }
        ),
        {"f": Float32, "g": Float32, "big": Int64, "n": Int64},
    )
    got = repo.ask({"driver": [1, 2], EVENT: [NOW] * 2}, ["fv:f", "fv:g", "fv:big", "fv:n"]).to_df()
    assert [str(dtype) for dtype in got.dtypes[["f", "g", "big", "n"]]] == ["float32", "Float32", "Int64", "float64"]
    assert (got["f"][0], got["big"][0], got["n"][0]) == (np.float32(0.1), BIG, 3.0)
    assert list(got["g"]) == [0.1, 0.2]
    assert got[["f", "big", "n"]].isna().loc[1].all()


@pytest.mark.parametrize("kind", ["values", "some null", "all null", "unknown key", "no asks"])
def test_the_types_of_an_answer_are_those_of_the_schema(repo: Repo, kind: str) -> None:
    """In Arrow they never depend on the data. In a data frame, as always in pandas, an integer and a Float32 with nulls
    have another dtype than without; no value is another one."""
    value = {"f": 0.1, "n": 3, "m": 4, "b": True, "s": "x", "t": NOW}
    second = value if kind == "values" else dict.fromkeys(value)
    first = dict.fromkeys(value) if kind == "all null" else value
    types = {"f": pa.float64(), "n": pa.int64(), "m": pa.int32(), "b": pa.bool_(), "s": pa.string(), "t": STAMP}
    columns = {name: pa.array([first[name], second[name]], kind_) for name, kind_ in types.items()}
    repo.view(
        repo.source({"driver": [1, 2], **columns, EVENT: [NOW - HOUR] * 2}),
        {"f": Float32, "n": Int64, "m": Int32, "b": Bool, "s": String, "t": UnixTimestamp},
    )
    drivers = [9, 9] if kind == "unknown key" else [] if kind == "no asks" else [1, 2]
    job = repo.ask(
        {"driver": drivers, EVENT: pd.to_datetime([NOW] * len(drivers), utc=True)}, [f"fv:{n}" for n in types]
    )
    table, frame = job.to_arrow(), job.to_df()
    assert [str(table.schema.field(name).type) for name in types] == [
        "double", "int64", "int64", "bool", "string", "timestamp[us, tz=UTC]",
    ]  # fmt: skip
    nulls = table["f"].null_count
    assert str(frame["f"].dtype) == ("float32" if nulls else "Float32")
    assert [str(frame[name].dtype) for name in ("n", "m")] == ["float64" if nulls else "int64"] * 2
    for name in ("f", "n", "m"):
        there = [None if pd.isna(x) else np.float32(x) if name == "f" else int(x) for x in frame[name]]
        wanted = [x if x is None or name != "f" else np.float32(x) for x in table[name].to_pylist()]
        assert there == wanted


def test_a_loss_that_was_not_declared_is_refused(repo: Repo) -> None:
    """1.9 is no Int64, a text is no number and 2**53 + 1 no Float64: an error with file, column and value (r11)."""
    source = repo.source(one(half=[1.9], text=["a"], big=[BIG]))
    repo.view(source, {"half": Int64, "text": Float64, "big": Float64})
    with pytest.raises(SourceError, match=r"rows-\d+\.parquet.*'half'.*1\.9 does not fit int64"):
        repo.ask(ASK, "fv:half").to_arrow()
    with pytest.raises(SourceError, match=r"rows-\d+\.parquet.*'text'.*expected float64, got string"):
        repo.ask(ASK, "fv:text").to_arrow()
    with pytest.raises(SourceError, match=rf"'big'.*{BIG} does not fit float64"):
        repo.ask(ASK, "fv:big").to_arrow()


def test_lists_come_with_their_elements_cast(repo: Repo) -> None:
    """Elements take the declared dtype, null elements and empty lists stay, whatever kind of list it is (r11)."""
    repo.view(
        repo.source(
            {
                "driver": [1, 2, 3],
                "emb": pa.array([[0.1, None], None, []], pa.list_(pa.float64())),
                "fixed": pa.array([[1.0, 2.0], None, [3.0, float("nan")]], pa.list_(pa.float32(), 2)),
                "ints": pa.array([[1, None], [BIG], None], pa.list_(pa.int64())),
                "words": pa.array([["é"], [], None], pa.large_list(pa.string())),
                "times": pa.array([[1_000_001_999], None, []], pa.list_(pa.timestamp("ns", tz="UTC"))),
                "pairs": pa.array([[("a", "b")], None, []], pa.map_(pa.string(), pa.string())),
                EVENT: [NOW - HOUR] * 3,
            }
        ),
        {
            "emb": Array(Float32),
            "fixed": Array(Float32),
            "ints": Array(Int64),
            "words": Array(String),
            "times": Array(UnixTimestamp),
            "pairs": Map,
        },
    )
    names = ["emb", "fixed", "ints", "words", "times", "pairs"]
    got = repo.ask({"driver": [3, 1, 9, 2], EVENT: [NOW] * 4}, [f"fv:{name}" for name in names]).to_arrow()
    assert got["emb"].to_pylist() == [[], [float(np.float32(0.1)), None], None, None]
    assert got["fixed"].to_pylist() == [[3.0, None], [1.0, 2.0], None, None]
    assert got["ints"].to_pylist() == [None, [1, None], None, [BIG]]
    assert got["words"].to_pylist() == [None, ["é"], None, []]
    assert got["times"].to_pylist() == [[], [datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=UTC)], None, None]
    assert got["pairs"].to_pylist() == [[], [("a", "b")], None, None]


def test_a_list_of_something_else_than_declared_is_refused(repo: Repo) -> None:
    """A text where a list is declared, and lists of texts where numbers are: an error that names the column."""
    repo.view(repo.source(one(a=["x"], b=[["x"]])), {"a": Array(Int64), "b": Array(Int64)})
    with pytest.raises(SourceError, match="'a': expected a list of int64, got string"):
        repo.ask(ASK, "fv:a").to_arrow()
    with pytest.raises(SourceError, match="'b': expected int64, got string"):
        repo.ask(ASK, "fv:b").to_arrow()


def test_an_expired_row_gives_no_list_either(repo: Repo) -> None:
    """What rides along obeys the TTL and the created times like everything else."""
    source = repo.source(
        {
            "driver": [1, 1],
            "x": [1.0, 2.0],
            "l": [[1], [2]],
            EVENT: [NOW - HOUR, NOW - HOUR],
            "created": [NOW - HOUR, NOW + HOUR],
        }
    )
    repo.view(source, {"x": Float64, "l": Array(Int64)}, ttl=DAY)
    asks = {"driver": [1, 1], EVENT: [NOW, NOW + DAY]}
    assert repo.values(asks, "fv:l") == [[2], None]
    assert repo.values(asks, "fv:l", filter_by_created_timestamp=True) == [[1], None]


# -- keys -------------------------------------------------------------------------------------------------------------


def test_a_partial_join_key_map_renames_that_key_alone(repo: Repo) -> None:
    """A view of two keys of which one is renamed is still asked by both (r14)."""
    view = repo.view(
        repo.source({"origin": [1, 1], "car": [7, 8], "x": [1.0, 2.0], EVENT: [NOW - 2 * HOUR, NOW - HOUR]}),
        {"x": Float64},
        {"origin": ValueType.INT64, "car": ValueType.INT64},
    )
    service = FeatureService(name="svc", features=[view.with_name("left").with_join_key_map({"origin": "from_id"})])
    repo.store.apply(service)
    asks = {"from_id": [1, 1, 2], "car": [7, 8, 7], EVENT: [NOW] * 3}
    assert repo.ask(asks, service).to_arrow()["x"].to_pylist() == [1.0, 2.0, None]
    with pytest.raises(AskError, match="car: column is missing: feature view left is asked by it"):
        repo.ask({"from_id": [1], EVENT: [NOW]}, service)


def test_one_view_answers_under_two_names(repo: Repo) -> None:
    """Origin and destination: the same view twice in one retrieval, each by its own column of the asks."""
    view = repo.view(
        repo.source({"place": ["a", "b"], "temp": [1.0, 2.0], EVENT: [NOW - HOUR] * 2}),
        {"temp": Float64},
        {"place": ValueType.STRING},
    )
    renamed = [
        view.with_name("origin").with_join_key_map({"place": "from"}),
        view.with_name("dest").with_join_key_map({"place": "to"}),
    ]
    service = FeatureService(name="svc", features=renamed)
    repo.store.apply(service)
    got = repo.ask(
        {"from": ["a", "b"], "to": ["b", "c"], EVENT: [NOW] * 2}, service, full_feature_names=True
    ).to_arrow()
    assert got["origin__temp"].to_pylist() == [1.0, 2.0]
    assert got["dest__temp"].to_pylist() == [2.0, None]


def test_composite_keys_are_compared_key_by_key(repo: Repo) -> None:
    """("1", "11") is not ("11", "1"), and a null in either is no key (r13)."""
    path = repo.source(
        {"a": ["1", "11", None], "b": ["11", "1", "1"], "y": [1.0, 2.0, 3.0], EVENT: [NOW - HOUR] * 3}
    ).path
    spark = SparkSource(name="s", path=path, file_format="parquet", timestamp_field=EVENT)
    repo.view(spark, {"y": Float64}, {"a": ValueType.STRING, "b": ValueType.STRING})
    asks = {"a": ["11", "1", "1", None], "b": ["1", "11", "1", "1"], EVENT: [NOW] * 4}
    assert repo.values(asks, "fv:y") == [2.0, 1.0, None, None]


@pytest.mark.parametrize(
    ("stored", "declared", "asked"),
    [
        (pa.array([1], pa.int32()), ValueType.INT64, 1),
        (pa.array([1], pa.int32()), ValueType.UNKNOWN, 1),
        (pa.array([1], pa.int64()), ValueType.INT64, 1.0),
        (pa.array([BIG], pa.int64()), ValueType.UNKNOWN, BIG),
        (pa.array(["1"]), ValueType.UNKNOWN, "1"),
        (pa.array([1.0]), ValueType.INT64, 1),
        (pa.array([1]), ValueType.STRING, "1"),
    ],
    ids=str,
)
def test_a_key_is_found_under_its_declared_dtype(repo: Repo, stored: pa.Array, declared: ValueType, asked: Any) -> None:
    """What the source holds and what the ask brings are compared as the entity declares it (r09)."""
    repo.view(repo.source({"driver": stored, "x": [7.0], EVENT: [NOW - HOUR]}), {"x": Float64}, {"driver": declared})
    assert repo.values({"driver": [asked], EVENT: [NOW]}, "fv:x") == [7.0]


def test_a_key_of_another_type_is_refused(repo: Repo) -> None:
    """A text is no number, neither among the asks nor in the source, and 1.5 is no whole number (r06, r09)."""
    repo.view(repo.source(one(x=[7.0])), {"x": Float64})
    with pytest.raises(AskError, match="driver: expected int64, got string"):
        repo.ask({"driver": ["1"], EVENT: [NOW]}, "fv:x").to_arrow()
    with pytest.raises(AskError, match=r"driver: 1\.5 does not fit int64"):
        repo.ask({"driver": [1.5], EVENT: [NOW]}, "fv:x").to_arrow()
    repo.view(repo.source({"driver": ["1"], "x": [7.0], EVENT: [NOW]}), {"x": Float64}, name="texts")
    with pytest.raises(SourceError, match="'driver': expected int64, got string"):
        repo.ask(ASK, "texts:x").to_arrow()


def test_views_may_declare_one_key_differently(repo: Repo) -> None:
    """One column of the asks serves a view that takes it as a number and one that takes it as text."""
    entity = Entity(name="driver", join_keys=["driver"], value_type=ValueType.UNKNOWN)
    sources = {Int64: repo.source(one(x=[7.0])), String: repo.source({"driver": ["1"], "x": [8.0], EVENT: [NOW]})}
    for dtype, source in sources.items():
        fields = [Field(name="driver", dtype=dtype), Field(name="x", dtype=Float64)]
        repo.store.apply([entity, FeatureView(name=str(dtype), entities=[entity], schema=fields, source=source)])
    got = repo.ask(ASK, ["Int64:x", "String:x"], full_feature_names=True).to_arrow()
    assert (got["Int64__x"].to_pylist(), got["String__x"].to_pylist()) == ([7.0], [8.0])
    between = repo.store.get_historical_features(
        features=["Int64:x", "String:x"], full_feature_names=True, start_date=NOW - DAY, end_date=NOW
    )
    with pytest.raises(AskError, match="entity_df: the views' keys have no type in common, ask with a data frame"):
        between.to_arrow()


def test_a_view_without_keys_answers_every_ask(repo: Repo) -> None:
    """Facts about the world need no key: the newest before the ask, for all."""
    source = repo.source({"rate": [1.0, 2.0], EVENT: [NOW - 2 * HOUR, NOW - HOUR]})
    repo.view(source, {"rate": Float64}, {})
    asks = {"driver": [1, 2, 3], EVENT: [NOW, NOW - 2 * HOUR, NOW - DAY]}
    assert repo.values(asks, "fv:rate") == [2.0, 1.0, None]


# -- names ------------------------------------------------------------------------------------------------------------


def test_fields_are_mapped(repo: Repo) -> None:
    """Key, feature, event and created time may have other names in the source than in the view."""
    columns = {"id": [1, 1], "val": [1.0, 2.0], "l_src": [[1], [2]], "t": [NOW - HOUR] * 2, "c": [NOW, NOW - HOUR]}
    source = FileSource(
        path=repo.source(columns).path,
        timestamp_field="ts",
        created_timestamp_column="cts",
        field_mapping={"id": "driver", "val": "x", "t": "ts", "c": "cts", "l_src": "l"},
    )
    repo.view(source, {"x": Float64, "l": Array(Int64)})
    got = repo.ask(ASK, ["fv:x", "fv:l"]).to_arrow()
    assert (got["x"].to_pylist(), got["l"].to_pylist()) == ([1.0], [[1]])


def test_features_may_have_any_name(repo: Repo) -> None:
    """Names that end in `_y`, hold quotes, spaces or what SQL reserves are names like any other (r06)."""
    names = ["price_y", 'a "quoted" one', "select", "event", "known", "ord", "row", "k0", "f0", "as_of"]
    repo.view(repo.source(one(**{name: [float(i)] for i, name in enumerate(names)})), dict.fromkeys(names, Float64))
    got = repo.ask(ASK, [f"fv:{name}" for name in names]).to_arrow()
    assert [got[name].to_pylist() for name in names] == [[float(i)] for i in range(len(names))]


def test_full_names_tell_views_apart(repo: Repo) -> None:
    """`view__feature`, in the order of the views and the references; the asks' columns keep their names."""
    for name in ("one", "two"):
        repo.view(repo.source(one(x=[1.0], y=[2.0])), {"x": Float64, "y": Float64}, name=name)
    got = repo.ask(ASK | {"x": [9.0]}, ["two:y", "one:x", "two:x"], full_feature_names=True).to_arrow()
    assert got.column_names == ["driver", EVENT, "x", "two__y", "two__x", "one__x"]
    with pytest.raises(FeatureNameCollisionError):
        repo.ask(ASK, ["one:x", "two:x"])


def test_a_feature_named_as_a_column_of_the_asks_comes_under_its_full_name(repo: Repo) -> None:
    """Both values are there, each once, and a warning says which is which (r06)."""
    repo.view(repo.source(one(x=[2.0], fv__z=[3.0], z=[4.0])), {"x": Float64, "z": Float64})
    with pytest.warns(UserWarning, match="x is a column of the asks and a feature of fv: the feature comes as fv__x"):
        job = repo.ask(ASK | {"x": [99.0]}, "fv:x")
    assert job.to_arrow().select(["x", "fv__x"]).to_pylist() == [{"x": 99.0, "fv__x": 2.0}]
    with pytest.raises(AskError, match="fv__z: is a column of the asks and the name of a feature"):
        repo.ask(ASK | {"z": [1], "fv__z": [2]}, "fv:z")
    with pytest.raises(AskError, match="rename the column"):
        repo.ask(ASK | {"fv__z": [2]}, "fv:z", full_feature_names=True)


# -- without a data frame ---------------------------------------------------------------------------------------------


def test_without_asks_every_row_of_the_range_is_one(repo: Repo) -> None:
    """Each (keys, event) of the sources in the range, ends included, once and in order of time."""
    repo.view(
        repo.source(
            {
                "driver": [2, 1, 1, 1, 1, None],
                "x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
                EVENT: [NOW - HOUR, NOW - HOUR, NOW, NOW - HOUR, NOW + MICROSECOND, NOW],
            }
        ),
        {"x": Float64},
    )
    job = repo.store.get_historical_features(features=["fv:x"], start_date=NOW - HOUR, end_date=NOW)
    assert job.to_arrow().to_pylist() == [
        {"driver": 1, EVENT: NOW - HOUR, "x": 4.0},
        {"driver": 2, EVENT: NOW - HOUR, "x": 1.0},
        {"driver": 1, EVENT: NOW, "x": 3.0},
    ]
    assert job.metadata is not None
    assert (job.metadata.keys, job.metadata.min_event_timestamp) == (["driver"], NOW - HOUR)


def test_without_asks_views_answer_each_others_rows(repo: Repo) -> None:
    """Where two views share a key, a row of one is an ask to the other; a view without keys only answers."""
    repo.view(repo.source({"driver": [1], "x": [1.0], EVENT: [NOW - HOUR]}), {"x": Float64}, name="a")
    repo.view(repo.source({"driver": [1], "y": [2.0], EVENT: [NOW]}), {"y": Float64}, name="b")
    repo.view(repo.source({"w": [3.0], EVENT: [NOW - DAY]}), {"w": Float64}, {}, name="world")
    job = repo.store.get_historical_features(features=["a:x", "b:y", "world:w"], start_date=NOW - DAY, end_date=NOW)
    assert job.to_df()[["x", "y", "w"]].replace({np.nan: None}).to_numpy().tolist() == [
        [1.0, None, 3.0],
        [1.0, 2.0, 3.0],
    ]
    world = repo.store.get_historical_features(features=["world:w"], start_date=NOW - DAY, end_date=NOW).to_arrow()
    assert world.to_pylist() == [{EVENT: NOW - DAY, "w": 3.0}]


def test_a_query_may_stand_for_the_asks(repo: Repo) -> None:
    """A SQL string is run by DuckDB, over files below the repository; one that cannot be run says why."""
    repo.view(repo.source(one(x=[2.0])), {"x": Float64})
    pq.write_table(rows(driver=[1, 2], event_timestamp=[NOW] * 2, label=[0, 1]), repo.folder / "labels.parquet")
    query = "SELECT driver, event_timestamp, label FROM 'labels.parquet' ORDER BY label DESC"
    got = repo.store.get_historical_features(entity_df=query, features=["fv:x"]).to_arrow()
    assert got.drop_columns([EVENT]).to_pylist() == [
        {"driver": 2, "label": 1, "x": None},
        {"driver": 1, "label": 0, "x": 2.0},
    ]
    with pytest.raises(AskError, match=r"entity_df: the query cannot be run: .*nowhere\.parquet"):
        repo.store.get_historical_features(entity_df="SELECT * FROM 'nowhere.parquet'", features=["fv:x"])


# -- on demand --------------------------------------------------------------------------------------------------------


def doubled(repo: Repo) -> None:
    """An on-demand view over fv:x that says Int64 and keeps it as long as it can, applied."""
    view = repo.store.get_feature_view("fv")

    @on_demand(sources=[view], schema=[Field(name="twice", dtype=Int64)], mode="python")
    def computed(inputs: dict[str, Any]) -> dict[str, Any]:
        twice = [None if x is None else x * 2 for x in inputs["x"]]
        return {"twice": [int(y) if y is not None and y == int(y) else y for y in twice]}

    repo.store.apply([computed])


def test_on_demand_features_come_in_their_declared_dtype(repo: Repo) -> None:
    """3.5 that is declared Int64 is refused with the value, where Feast gives 3.5 offline and 3 online (r05)."""
    repo.view(repo.source({"driver": [1, 2], "x": [1.75, 2.0], EVENT: [NOW - HOUR] * 2}), {"x": Float64})
    doubled(repo)
    job = repo.ask({"driver": [2, 3], EVENT: [NOW] * 2}, ["computed:twice"])
    assert job.to_arrow()["twice"].to_pylist() == [4, None]
    assert str(job.to_arrow().schema.field("twice").type) == "int64"
    with pytest.raises(CastError, match=r"on-demand feature view computed: twice: 3\.5 does not fit int64"):
        repo.ask(ASK, ["computed:twice"]).to_arrow()


def test_an_on_demand_view_computes_on_what_it_gets_online(repo: Repo) -> None:
    """A Float32 arrives as the double that the online answer holds, an instant with its fraction of a second (r12)."""
    asked = NOW + timedelta(seconds=0.9)
    seen = NOW - timedelta(seconds=0.05)
    view = repo.view(repo.source(one(p=[0.1], seen=[seen])), {"p": Float32, "seen": UnixTimestamp})
    request = RequestSource(name="request", schema=[Field(name="asked", dtype=UnixTimestamp)])

    @on_demand(
        sources=[view, request],
        schema=[Field(name="over", dtype=Bool), Field(name="age", dtype=Float64)],
        mode="python",
    )
    def judged(inputs: dict[str, Any]) -> dict[str, Any]:
        ages = [(a - b).total_seconds() for a, b in zip(inputs["asked"], inputs["seen"], strict=True)]
        return {"over": [p > 0.1 for p in inputs["p"]], "age": ages}

    repo.store.apply([judged])
    got = repo.ask(ASK | {"asked": [asked]}, ["judged:over", "judged:age"]).to_arrow()
    assert got.select(["over", "age"]).to_pylist() == [{"over": True, "age": 0.95}]


def test_on_demand_features_that_nobody_asked_for_stay_out(repo: Repo) -> None:
    """Only the requested outputs come, under their full names if so asked; a column named as another one stays."""
    view = repo.view(repo.source(one(x=[2.0])), {"x": Float64})

    schema = [Field(name="a", dtype=Float64), Field(name="b", dtype=Int64)]

    @on_demand(sources=[view], schema=schema, mode="pandas")
    def both(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"a": inputs["x"] + 1, "b": (inputs["x"] + 2).astype("int64")})

    repo.store.apply([both])
    got = repo.ask(ASK | {"b": ["mine"]}, ["both:a"]).to_arrow()
    assert got.drop_columns([EVENT]).to_pylist() == [{"driver": 1, "b": "mine", "x": 2.0, "a": 3.0}]
    full = repo.ask(ASK, ["both:b", "fv:x"], full_feature_names=True).to_arrow()
    assert full.drop_columns([EVENT]).to_pylist() == [{"driver": 1, "fv__x": 2.0, "both__b": 4}]
    with pytest.raises(AskError, match="b: is a column of the asks and the name of a feature"):
        repo.ask(ASK | {"b": ["mine"]}, ["both:b"])
    with pytest.raises(AskError, match="x: is a column of the asks and the name of a feature"):
        repo.ask(ASK | {"x": [1.0]}, ["both:a"])


def test_what_feast_computes_differently_offline_and_online_is_refused(repo: Repo) -> None:
    """A view that Feast transforms or aggregates only when it materializes, an aggregation on demand and a singleton
    are named, instead of answered with other values than online (r04, r05, r08, r16)."""
    source = repo.source(one(x=[1.0]))
    view = repo.view(source, {"x": Float64})
    entity = Entity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)
    text = "def tenfold(df):\n    df['x'] = df['x'] * 10\n    return df\n"
    repo.store.apply(
        [
            BatchFeatureView(
                name="bfv", entities=[entity], mode="pandas", udf=lambda df: df, udf_string=text, source=source,
                schema=[Field(name="x", dtype=Float64)], online=True, ttl=DAY,
            ),
            BatchFeatureView(
                name="sums", entities=[entity], mode="pandas", source=source, online=True, ttl=DAY,
                aggregations=[Aggregation(column="x", function="sum", name="sum_x")],
                schema=[Field(name="sum_x", dtype=Float64)],
            ),
            OnDemandFeatureView(
                name="agg", sources=[view], entities=[entity], schema=[Field(name="sum_x", dtype=Float64)],
                mode="pandas", aggregations=[Aggregation(column="x", function="sum")],
            ),
        ]
    )  # fmt: skip

    @on_demand(sources=[view], schema=[Field(name="sq", dtype=Float64)], mode="python", singleton=True)
    def single(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"sq": inputs["x"] * inputs["x"]}

    repo.store.apply([single])
    for ref, why in {
        "bfv:x": "feature view bfv: it has a transformation",
        "agg:sum_x": "on-demand feature view agg: Feast carries out its aggregations neither here nor online",
        "single:sq": "on-demand feature view single: Feast hands a singleton's function single values",
    }.items():
        with pytest.raises(DefinitionError, match=why):
            repo.ask(ASK, [ref])
    with pytest.raises(SourceError, match=r"column 'sum_x' .* is missing"):  # Feast's registry forgets the aggregation
        repo.ask(ASK, "sums:sum_x").to_arrow()


# -- where sources lie ------------------------------------------------------------------------------------------------


def test_a_relative_path_starts_at_the_repository(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There Feast infers the schema; where nothing is there, the working directory counts, as in its DuckDB store."""
    other = tmp_path / "elsewhere"
    other.mkdir()
    monkeypatch.chdir(other)
    repo.source(one(x=[1.0]), path="data/near.parquet")
    pq.write_table(rows(**one(x=[9.0])), other / "far.parquet")
    (other / "data").mkdir()
    pq.write_table(rows(**one(x=[9.0])), other / "data" / "near.parquet")
    repo.view(FileSource(path="data/near.parquet", timestamp_field=EVENT), {"x": Float64}, name="near")
    repo.view(FileSource(path="far.parquet", timestamp_field=EVENT), {"x": Float64}, name="far")
    repo.view(FileSource(path="data/*.parquet", timestamp_field=EVENT), {"x": Float64}, name="many")
    assert [repo.values(ASK, f"{name}:x") for name in ("near", "far", "many")] == [[1.0], [9.0], [1.0]]


def test_directories_globs_and_partitions_are_sources(repo: Repo) -> None:
    """A directory of files, one partitioned as Hive does, a glob and a URI; what is inferred is what is read."""
    for month, day in ((1, 5), (2, 6)):
        path = f"parts/month={month}/rows-{month}.parquet"
        repo.source({"driver": [month], "x": [float(day)], EVENT: [NOW - HOUR]}, path=path)
    hive = FileSource(path="parts", timestamp_field=EVENT, name="hive")
    entity = Entity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)
    inferred = FeatureView(name="hive", entities=[entity], source=hive)
    repo.store.apply([entity, inferred])
    repo.view(
        FileSource(path="parts/*/rows-*.parquet", timestamp_field=EVENT), {"x": Float64, "month": Int64}, name="glob"
    )
    url = (repo.folder / "parts" / "month=2" / "rows-2.parquet").as_uri()
    repo.view(FileSource(path=url, timestamp_field=EVENT), {"x": Float64}, name="url")
    asks = {"driver": [2, 1], EVENT: [NOW] * 2}
    for name in ("hive", "glob"):
        got = repo.ask(asks, [f"{name}:x", f"{name}:month"]).to_arrow()
        assert (got["x"].to_pylist(), got["month"].to_pylist()) == ([6.0, 5.0], [2, 1])
    assert repo.values(asks, "url:x") == [6.0, None]


def test_a_spark_source_over_parquet_needs_no_spark(repo: Repo) -> None:
    """The definitions that Feast's Spark store reads are read here: applied, inferred, answered."""
    path = repo.source(one(x=[0.5], n=[3], s=["a"], l=[[1, 2]], day=pa.array([1], pa.date32()))).path
    entity = Entity(name="driver", join_keys=["driver"], value_type=ValueType.UNKNOWN)
    spark = SparkSource(name="s", path=path, file_format="parquet", timestamp_field=EVENT)
    repo.store.apply([entity, FeatureView(name="sv", entities=[entity], source=spark)])
    view = repo.store.get_feature_view("sv")
    assert {field.name: str(field.dtype) for field in view.features} == {
        "x": "Float64", "n": "Int64", "s": "String", "l": "Array(Int64)", "day": "UnixTimestamp",
    }  # fmt: skip
    got = repo.ask(ASK, ["sv:x", "sv:n", "sv:s", "sv:l", "sv:day"]).to_arrow().drop_columns(["driver", EVENT])
    day = datetime(1970, 1, 2, tzinfo=UTC)
    assert got.to_pylist() == [{"x": 0.5, "n": 3, "s": "a", "l": [1, 2], "day": day}]


@pytest.mark.parametrize(
    "source",
    [
        lambda _: SparkSource(name="s", table="rows", timestamp_field=EVENT),
        lambda path: SparkSource(name="s", path=path, file_format="csv", timestamp_field=EVENT),
        lambda path: FileSource(name="s", path=path, file_format=DeltaFormat(), timestamp_field=EVENT),
        lambda path: FileSource(name="s", path=path, s3_endpoint_override="http://here", timestamp_field=EVENT),
    ],
    ids=["spark table", "csv", "delta", "endpoint"],
)
def test_a_source_that_cannot_be_read_is_refused_by_name(repo: Repo, source: Callable[[str], DataSource]) -> None:
    """No other kind of source, and no setting of one that would be ignored."""
    path = repo.source(one(x=[1.0])).path
    entity = Entity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)
    view = FeatureView(
        name="fv",
        entities=[entity],
        schema=[Field(name="driver", dtype=Int64), Field(name="x", dtype=Float64)],
        source=source(path),
    )
    view.entity_columns = [Field(name="driver", dtype=Int64)]
    with pytest.raises(DefinitionError, match=r"feature view fv: (expected a FileSource over Parquet|s3_endpoint)"):
        SkewguardOfflineStore.get_historical_features(
            repo.store.config, [view], ["fv:x"], pd.DataFrame(ASK), repo.store.registry, "plugin"
        )


def test_what_is_wrong_with_a_file_is_said(repo: Repo) -> None:
    """A file that is missing, torn, no Parquet, or without a declared column is named, with what was expected."""
    source = repo.source(one(x=[1.0]))
    repo.view(source, {"x": Float64, "z": Float64})
    with pytest.raises(SourceError, match=r"rows-\d+\.parquet \(view fv\): column 'z' \(float64\) is missing"):
        repo.ask(ASK, "fv:z").to_arrow()
    whole = Path(source.path).read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-1], b"driver,x\n1,2\n", b""):
        Path(source.path).write_bytes(content)
        with pytest.raises(SourceError, match=r"rows-\d+\.parquet \(view fv\): expected Parquet, got"):
            repo.ask(ASK, "fv:x").to_arrow()
    Path(source.path).unlink()
    with pytest.raises(SourceError, match=r"rows-\d+\.parquet \(view fv\): expected Parquet, got"):
        repo.ask(ASK, "fv:x").to_arrow()
    odd = repo.source({"driver": [1], "x": [1.0], EVENT: ["yesterday"]})
    repo.view(odd, {"x": Float64}, name="odd")
    with pytest.raises(SourceError, match=f"'{EVENT}': expected a timestamp, got string"):
        repo.ask(ASK, "odd:x").to_arrow()


def test_a_wrong_question_is_answered_at_once(repo: Repo) -> None:
    """Unknown features, missing keys and data frames that are none fail when asked, before any file is opened."""
    source = repo.source(one(x=[1.0]))
    view = repo.view(source, {"x": Float64})
    Path(source.path).unlink()
    with pytest.raises(KeyError, match="nothing"):
        repo.ask(ASK, "fv:nothing")
    with pytest.raises(
        AskError, match=f"driver: column is missing: feature view fv is asked by it; the asks have {EVENT}"
    ):
        repo.ask({EVENT: [NOW]}, "fv:x")
    with pytest.raises(AskError, match="entity_df: expected columns of one type each"):
        repo.ask(ASK | {"odd": [object()]}, "fv:x")
    with pytest.raises(AskError, match="entity_df: expected columns of one type each"):
        repo.ask({"driver": [1], EVENT: ["yesterday"]}, "fv:x")
    with pytest.raises(AskError, match=f"{EVENT}: expected instants, got int64"):
        repo.ask({"driver": [1], EVENT: [5]}, "fv:x")
    with pytest.raises(AskError, match=f"{EVENT}: expected instants, got string"):
        repo.store.get_historical_features(f"SELECT 1 AS driver, 'now' AS {EVENT}", ["fv:x"])
    direct: Any = SkewguardOfflineStore.get_historical_features
    with pytest.raises(AskError, match="entity_df: expected a data frame or a SQL query, got list"):
        direct(repo.store.config, [view], ["fv:x"], [1], repo.store.registry, "plugin")
    with pytest.raises(DefinitionError, match="feature view fv: no feature 'nothing'; it has x"):
        direct(repo.store.config, [view], ["fv:nothing"], pd.DataFrame(ASK), repo.store.registry, "plugin")


# -- batches ----------------------------------------------------------------------------------------------------------


def test_batches_are_the_table_cut_up(repo: Repo) -> None:
    """Streamed in order, at most so many rows each; on-demand views see the whole column, not a batch."""
    ten = range(10)
    columns = {"driver": list(ten), "x": [float(i) for i in ten], "l": [[i] for i in ten], EVENT: [NOW - HOUR] * 10}
    view = repo.view(repo.source(columns), {"x": Float64, "l": Array(Int64)})

    @on_demand(sources=[view[["x"]]], schema=[Field(name="share", dtype=Float64)], mode="pandas")
    def shares(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"share": inputs["x"] / inputs["x"].sum()})

    repo.store.apply([shares])
    asks = {"driver": [7, 3, 99, 3, 0], EVENT: [NOW] * 5}
    for refs in (["fv:x", "fv:l"], ["shares:share"]):
        job = repo.ask(asks, refs)
        batches = list(job.to_arrow_batches(2))
        assert [len(batch) for batch in batches] == [2, 2, 1]
        assert pa.Table.from_batches(batches).equals(job.to_arrow().combine_chunks())


# -- reading sources for the online store -----------------------------------------------------------------------------


def pull(repo: Repo, source: FileSource, latest: bool = False, **how: Any) -> pa.Table:
    """What materialization would be handed."""
    store: Any = SkewguardOfflineStore
    read = store.pull_latest_from_table_or_query if latest else store.pull_all_from_table_or_query
    given = {
        "join_key_columns": ["driver"],
        "feature_name_columns": ["x"],
        "timestamp_field": EVENT,
        "created_timestamp_column": source.created_timestamp_column or None,
    }
    table: pa.Table = read(repo.store.config, source, **(given | how)).to_arrow()
    return table


def test_all_rows_of_a_range_are_pulled_as_they_lie(repo: Repo) -> None:
    """Ends included, duplicates and order kept, columns in the order that was asked for, times as microseconds."""
    source = repo.source(
        {
            "created": pa.array([1, 2, 3, 4, 4], pa.timestamp("ns")),
            EVENT: [NOW - HOUR, NOW, NOW + MICROSECOND, NOW, NOW],
            "x": [1.0, 2.0, 3.0, 4.0, 4.0],
            "driver": [2, 1, 1, 1, 1],
            "other": [[1]] * 5,
        }
    )
    got = pull(repo, source, start_date=NOW - HOUR, end_date=NOW)
    assert got.column_names == ["driver", "x", EVENT, "created"]
    assert got["x"].to_pylist() == [1.0, 2.0, 4.0, 4.0]
    assert [str(got.schema.field(name).type) for name in (EVENT, "created")] == ["timestamp[us, tz=UTC]"] * 2
    assert len(pull(repo, source)) == 5
    everything = pull(repo, source, feature_name_columns=[])
    assert everything.column_names == ["created", EVENT, "x", "driver", "other"]


def test_the_latest_row_of_every_key_is_pulled(repo: Repo) -> None:
    """By event, then by created time; only of the range; a tie in both is decided by the values."""
    source = repo.source(
        {
            "driver": [1, 1, 1, 2, 2, 3],
            "x": [1.0, 2.0, 3.0, 5.0, 4.0, 6.0],
            EVENT: [NOW - HOUR, NOW - HOUR, NOW + HOUR, NOW, NOW, NOW - DAY],
            "created": [None, NOW, NOW, NOW, NOW, NOW],
        }
    )
    got = pull(repo, source, latest=True, start_date=NOW - HOUR, end_date=NOW).sort_by("driver")
    assert got.select(["driver", "x"]).to_pylist() == [{"driver": 1, "x": 2.0}, {"driver": 2, "x": 5.0}]


def test_a_column_that_is_not_there_cannot_be_pulled(repo: Repo) -> None:
    """Key, feature or time: the error names the file, the column, and what there is instead."""
    source = repo.source(one(x=[1.0]))
    for wrong in ({"join_key_columns": ["k"]}, {"feature_name_columns": ["k"]}, {"created_timestamp_column": "k"}):
        for latest in (False, True):
            with pytest.raises(SourceError, match=r"rows-\d+\.parquet: column 'k' is missing; it has driver"):
                pull(repo, source, latest, **wrong)
    with pytest.raises(SourceError, match="column 'k' is missing"):
        pull(repo, source, feature_name_columns=[], created_timestamp_column="k")


def test_a_view_without_keys_is_pulled_under_feasts_dummy(repo: Repo) -> None:
    """Feast looks for a column `__dummy_id` of empty texts (r07)."""
    source = repo.source({"x": [1.0, 2.0], EVENT: [NOW - HOUR, NOW]})
    for latest, values in ((False, [1.0, 2.0]), (True, [2.0])):
        got = pull(repo, source, latest, join_key_columns=[], start_date=NOW - DAY, end_date=NOW)
        assert got["x"].to_pylist() == values
        assert got["__dummy_id"].to_pylist() == [""] * len(values)


@pytest.mark.parametrize("latest", [False, True])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_feast_materializes_from_the_store(tmp_path: Path, latest: bool) -> None:
    """A file that pandas wrote, with nanoseconds, and a view without keys reach the online store (r07)."""
    repo = Repo(tmp_path)
    repo.store.config.materialization_config.pull_latest_features = latest
    path = tmp_path / "pandas.parquet"
    pd.DataFrame({"driver": [1], "x": [7.0], EVENT: [pd.Timestamp(NOW - HOUR)]}).to_parquet(path)
    repo.view(FileSource(path=str(path), timestamp_field=EVENT), {"x": Float64}, ttl=DAY)
    repo.view(FileSource(path=str(path), timestamp_field=EVENT), {"x": Float64}, {}, name="world", ttl=DAY)
    repo.store.materialize(NOW - DAY, NOW)
    for name in ("fv", "world"):
        assert repo.store.get_online_features([f"{name}:x"], [{"driver": 1}]).to_dict()["x"] == [7.0]
        assert repo.values(ASK, f"{name}:x") == [7.0]


# -- writing ----------------------------------------------------------------------------------------------------------


def frame(**columns: Any) -> pd.DataFrame:
    """Rows to write, as Feast's users bring them."""
    table: pd.DataFrame = rows(**columns).to_pandas()
    return table


def leftovers(folder: Path) -> list[str]:
    """Files and folders that a write left behind."""
    return [path.name for path in folder.rglob("*") if "partial" in path.name]


def test_rows_are_added_to_a_file_in_one_step(repo: Repo) -> None:
    """Cast to the file's types, columns in any order; the old rows stay, and the next ask sees the new."""
    source = repo.source({"driver": pa.array([1], pa.int32()), "x": pa.array([1.0], pa.float32()), EVENT: [NOW - HOUR]})
    repo.view(source, {"x": Float64})
    before = pq.read_schema(source.path)
    repo.store.write_to_offline_store("fv", frame(x=[0.1], event_timestamp=[NOW], driver=[2]))
    assert pq.read_schema(source.path).equals(before)
    assert repo.values({"driver": [1, 2], EVENT: [NOW] * 2}, "fv:x") == [1.0, float(np.float32(0.1))]
    assert leftovers(repo.folder) == []


def test_a_write_that_fails_leaves_the_file_as_it_was(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that does not fit, columns that are others, a disk that is full: not a byte of the source changes."""
    source = repo.source(one(x=[1]))
    view = repo.view(source, {"x": Int64})
    content = Path(source.path).read_bytes()
    with pytest.raises(SourceError, match=r"rows-\d+\.parquet: column 'x': expected int64: .*1\.5"):
        repo.store.write_to_offline_store("fv", frame(**one(x=[1.5])))
    with pytest.raises(ValueError, match=r"extra_unexpected_columns: \['y'\]"):
        repo.store.write_to_offline_store("fv", frame(**one(y=[1])))
    with pytest.raises(SourceError, match="expected the columns driver, event_timestamp, x, got driver"):
        SkewguardOfflineStore.offline_write_batch(repo.store.config, view, rows(driver=[1]), None)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        repo.store.write_to_offline_store("fv", frame(**one(x=[2])))
    assert Path(source.path).read_bytes() == content
    assert leftovers(repo.folder) == []


def test_rows_are_pushed_under_the_names_of_the_view(repo: Repo) -> None:
    """A push takes the mapped names or those in the file, and reports what it wrote."""
    path = repo.source({"id": [1], "x": [1.0], EVENT: [NOW - HOUR]}).path
    source = FileSource(path=path, timestamp_field=EVENT, field_mapping={"id": "driver"})
    view = repo.view(source, {"x": Float64})
    written: list[int] = []
    for name, at in (("driver", NOW), ("id", NOW + HOUR)):
        batch = rows(**{name: [1], "x": [2.0], EVENT: [at]})
        SkewguardOfflineStore.offline_write_batch(repo.store.config, view, batch, written.append)
    assert (written, pq.read_table(path)["id"].to_pylist()) == ([1, 1], [1, 1, 1])
    assert isinstance(PushSource(name="push", batch_source=source).batch_source, FileSource)


def test_writers_of_one_file_wait_for_each_other(repo: Repo) -> None:
    """Of rows that several threads add at once none is lost."""
    source = repo.source(one(x=[0.0]))
    view = repo.view(source, {"x": Float64})

    def add(start: int) -> None:
        for i in range(start, start + 5):
            batch = rows(driver=[1], event_timestamp=[NOW], x=[float(i)])
            SkewguardOfflineStore.offline_write_batch(repo.store.config, view, batch, None)

    threads = [threading.Thread(target=add, args=(start,)) for start in (1, 6, 11, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(pq.read_table(source.path)["x"].to_pylist()) == [float(i) for i in range(21)]


def test_rows_are_added_to_a_directory_as_files_of_their_own(repo: Repo) -> None:
    """Into its partitions where it has some; what lies there is not touched, and a glob cannot be written to."""
    old = Path(repo.source({"driver": [1], "x": [1.0], EVENT: [NOW - HOUR]}, path="parts/month=1/old.parquet").path)
    source = FileSource(path="parts", timestamp_field=EVENT)
    view = repo.view(source, {"x": Float64, "month": Int64})
    content = old.read_bytes()
    repo.store.write_to_offline_store("fv", frame(driver=[1, 2], x=[5.0, 6.0], event_timestamp=[NOW] * 2, month=[1, 2]))
    assert old.read_bytes() == content
    assert len(list((repo.folder / "parts" / "month=2").iterdir())) == 1
    got = repo.ask({"driver": [1, 2], EVENT: [NOW] * 2}, ["fv:x", "fv:month"]).to_arrow()
    assert (got["x"].to_pylist(), got["month"].to_pylist()) == ([5.0, 6.0], [1, 2])
    assert leftovers(repo.folder) == []
    every = FileSource(path="parts/*/*.parquet", timestamp_field=EVENT)
    glob = FeatureView(name="g", entities=[], schema=[Field(name="x", dtype=Float64)], source=every)
    with pytest.raises(SourceError, match="expected a Parquet file or a directory of them"):
        SkewguardOfflineStore.offline_write_batch(repo.store.config, glob, rows(x=[1.0]), None)
    with pytest.raises(SourceError, match="column 'month', by which it is partitioned, is missing"):
        SkewguardOfflineStore.offline_write_batch(repo.store.config, view, rows(x=[1.0]), None)


@pytest.mark.parametrize("partition_by", [None, ["__log_date"]])
def test_served_features_are_logged_and_read_back(repo: Repo, partition_by: list[str] | None) -> None:
    """Tables and folders of files are added to the destination, partitioned if it says so; all rows come back."""
    view = repo.view(repo.source(one(x=[7.0])), {"x": Float64})
    destination = FileLoggingDestination(path="logs", partition_by=partition_by)
    service = FeatureService(name="svc", features=[view], logging_config=LoggingConfig(destination=destination))
    repo.store.apply(service)
    table = pa.table(
        {
            "driver": [1, 1],
            "fv__x": [7.0, None],
            "fv__x__timestamp": array([NOW, NOW]).cast(pa.timestamp("s", tz="UTC")),
            "fv__x__status": pa.array([2, 1], pa.int32()),
            "__log_timestamp": array([NOW, NOW]),
            "__log_date": pa.array([NOW.date()] * 2),
            "__request_id": ["a", "a"],
        }
    )
    folder = repo.folder / "batch"
    folder.mkdir()
    pq.write_table(table, folder / "0.parquet")
    for logs in (table, folder):
        repo.store.write_logged_features(logs, service)
    provider: Any = repo.store._get_provider()
    read = provider.retrieve_feature_service_logs(service, NOW, NOW, repo.store.config, repo.store.registry).to_arrow()
    assert sorted(table.column_names) == sorted(set(read.column_names) - {"__dummy_id"})
    assert read["fv__x"].to_pylist() == [7.0, None] * 2
    assert len(list((repo.folder / "logs").rglob("*.parquet"))) == 2


# -- saved datasets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["snap.parquet", "snap"])
def test_a_saved_dataset_comes_back_whole(repo: Repo, where: str) -> None:
    """Label, on-demand features, order and asks without an instant included, whatever the instants' column is called;
    Feast's stores leave all but keys and features behind (r15)."""
    repo.view(repo.source({"driver": [1, 2], "x": [1.0, 2.0], EVENT: [NOW - HOUR] * 2}), {"x": Float64})
    doubled(repo)
    asks = pd.DataFrame(
        {"driver": [2, 1, 2], "ts": [pd.Timestamp(NOW), pd.Timestamp(NOW - DAY), pd.NaT], "label": ["b", "a", "c"]}
    )
    job = repo.ask(asks, ["fv:x", "computed:twice"])
    storage = SavedDatasetFileStorage(path=where)
    repo.store.create_saved_dataset(from_=job, name="snap", storage=storage)
    assert (repo.folder / where).exists()
    back = repo.store.get_saved_dataset("snap").to_df()
    pd.testing.assert_frame_equal(back, job.to_df(), check_dtype=False)
    assert back["label"].tolist() == ["b", "a", "c"]
    assert back["twice"].tolist()[:1] == [4]
    assert leftovers(repo.folder) == []


def test_a_saved_dataset_is_replaced_only_when_that_is_asked_for(repo: Repo) -> None:
    """Not without leave, not by adding to it, and not where something else lies beside it."""
    repo.view(repo.source(one(x=[1.0])), {"x": Float64})
    job = repo.ask(ASK, "fv:x")
    for where in ("snap.parquet", "snap"):
        storage = SavedDatasetFileStorage(path=where)
        job.persist(storage)
        with pytest.raises(SavedDatasetLocationAlreadyExists):
            job.persist(storage)
        job.persist(storage, allow_overwrite=True)
        assert len(pq.read_table(repo.folder / where)) == 1
    (repo.folder / "snap" / "notes.txt").write_text("mine")
    with pytest.raises(SourceError, match=r"would be replaced, but holds notes\.txt"):
        job.persist(SavedDatasetFileStorage(path="snap"), allow_overwrite=True)
    with pytest.raises(DefinitionError, match="expected a path on a local disk"):
        job.persist(SavedDatasetFileStorage(path="s3://bucket/snap"))


# -- as a plugin ------------------------------------------------------------------------------------------------------


def test_one_line_in_the_yaml_is_enough(tmp_path: Path) -> None:
    """Feast finds store and settings by the dotted name, and refuses a setting that there is not."""
    yaml = {
        "project": "p",
        "provider": "local",
        "registry": "registry.db",
        "offline_store": {"type": STORE, "memory_limit": "1GiB", "threads": 1},
        "online_store": {"type": "sqlite", "path": "online.db"},
        "entity_key_serialization_version": 3,
    }
    (tmp_path / "feature_store.yaml").write_text(json.dumps(yaml))
    store = FeatureStore(repo_path=str(tmp_path))
    provider: Any = store._get_provider()
    assert isinstance(provider.offline_store, SkewguardOfflineStore)
    assert store.config.offline_store == SkewguardOfflineStoreConfig(memory_limit="1GiB", threads=1)
    (tmp_path / "feature_store.yaml").write_text(json.dumps(yaml | {"offline_store": {"type": STORE, "thread": 1}}))
    with pytest.raises(Exception, match="thread"):
        _ = FeatureStore(repo_path=str(tmp_path)).config.offline_store


def test_features_that_collide_in_redis_are_apart_here(repo: Repo) -> None:
    """The two names whose hashes Feast's Redis store cannot tell apart have each their value (r10)."""
    a, b = "feature_64850", "feature_173868"
    repo.view(repo.source(one(**{a: [1.0], b: [2.0]})), {a: Float64, b: Float64})
    got = repo.ask(ASK, [f"fv:{a}", f"fv:{b}"]).to_arrow()
    assert (got[a].to_pylist(), got[b].to_pylist()) == ([1.0], [2.0])
