"""Skew and silent errors of Feast 0.67's online half, each gone or refused with skewguard's store and engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import BatchFeatureView, FeatureStore, FeatureView, Field, FileSource
from feast.aggregation import Aggregation
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp

from skewguard.errors import CastError, DefinitionError
from tests.feast_online import DRIVER, HOUR, NOW, asked, driver_view, repositories, table, trained

Open = Callable[..., FeatureStore]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens a Feast repository on SQLite: the code path is the one of Redis."""
    with repositories(tmp_path, f"sqlite:{tmp_path / 'online.db'}") as build:
        yield build


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        pytest.param(Float32, [0.1, 0.2], id="float32-rounded-online-only"),
        pytest.param(Int64, [2**53 + 1, None], id="digits-lost-beside-a-null"),
        pytest.param(Float64, [float("nan"), 1.0], id="nan-offline-null-online"),
        pytest.param(String, [90210, None], id="text-of-an-integer-with-a-point"),
        pytest.param(Bool, [True, None], id="bool"),
        pytest.param(Int32, [1, None], id="int32"),
        pytest.param(Array(Float32), [[0.1, 0.2], None], id="list-rounded-online-only"),
    ],
)
def test_a_value_is_the_same_offline_and_online(opened: Open, tmp_path: Path, dtype: Any, values: list[Any]) -> None:
    """The declared dtype holds on both sides, and nothing goes through a float."""
    store = opened(DRIVER, driver_view(table(tmp_path / "a.parquet", [1, 2], [NOW] * 2, x=values), x=dtype))
    store.materialize(NOW - HOUR, NOW)
    assert asked(store, ["x"], 1, 2)[0]["x"] == trained(store, "fv:x", 1, 2)


def test_a_timestamp_is_whole_in_the_store_and_cut_by_feasts_answer_alone(opened: Open, tmp_path: Path) -> None:
    """Feast's Value holds seconds; what lies in the store has microseconds, for skewguard's own lookup."""
    at = NOW - HOUR + timedelta(microseconds=789_123)
    path = table(tmp_path / "a.parquet", [1], [NOW], x=pa.array([at], pa.timestamp("us", tz="UTC")))
    store = opened(DRIVER, driver_view(path, x=UnixTimestamp))
    store.materialize(NOW - HOUR, NOW)
    assert trained(store, "fv:x", 1) == [at]
    assert asked(store, ["x"], 1)[0]["x"] == [at.replace(microsecond=0)]
    online: Any = store._get_provider().online_store
    (row,) = (
        online.opened(store.config)._con.execute("SELECT value FROM rows WHERE hex(key) LIKE '73673272%'").fetchall()
    )
    micros = round(at.timestamp() * 1_000_000)
    assert row[0].endswith(np.int64(micros).tobytes())


def test_a_ttl_ends_online_as_it_does_offline(opened: Open, tmp_path: Path) -> None:
    """An expired row is outside its age, a missing one not found, and neither is PRESENT."""
    store = opened(
        DRIVER, driver_view(table(tmp_path / "a.parquet", [1], [NOW - 3 * HOUR], x=[7.0]), ttl=HOUR, x=Float64)
    )
    store.materialize(NOW - 24 * HOUR, NOW)
    values, said = asked(store, ["x"], 1, 999)
    assert values["x"] == [None, None] == trained(store, "fv:x", 1, 999)
    assert said["x"] == ["OUTSIDE_MAX_AGE", "NOT_FOUND"]


def test_a_correction_and_a_late_row_arrive(opened: Open, tmp_path: Path) -> None:
    """Same event, later created; and an event before the last materialization that was created after it."""

    def written(*rows: tuple[int, float, int, int]) -> str:
        ids, xs, events, created = zip(*rows, strict=True)
        known = pa.array([NOW + timedelta(minutes=m) for m in created], pa.timestamp("us", tz="UTC"))
        return table(
            tmp_path / "a.parquet", ids, [NOW + timedelta(minutes=m) for m in events], x=list(xs), created=known
        )

    first = (1, 1.0, -120, -120), (2, 1.0, -120, -120)
    store = opened(DRIVER, driver_view(written(*first), created=True, x=Float64))
    store.materialize_incremental(NOW - 60 * timedelta(minutes=1))
    written(*first, (1, 2.0, -120, -30), (2, 5.0, -115, -1))
    store.materialize_incremental(NOW)
    assert asked(store, ["x"], 1, 2)[0]["x"] == [2.0, 5.0] == trained(store, "fv:x", 1, 2)


def _tenfold(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(x=frame["x"] * 10)


@pytest.mark.filterwarnings("ignore:Batch feature views are experimental:RuntimeWarning")
def test_what_materialization_alone_would_transform_is_refused(opened: Open, tmp_path: Path) -> None:
    """A batch view's function runs when Feast materializes and not when it retrieves: the sides would differ."""
    path = table(tmp_path / "a.parquet", [1], [NOW], x=[1.0])
    source = FileSource(path=path, timestamp_field="event_timestamp")
    settings: dict[str, Any] = {"entities": [DRIVER], "mode": "pandas", "online": True, "source": source}
    tenfold = BatchFeatureView(name="tenfold", schema=[Field(name="x", dtype=Float64)], udf=_tenfold, **settings)
    window = BatchFeatureView(
        name="window",
        schema=[Field(name="sum_x", dtype=Float64)],
        aggregations=[Aggregation(column="x", function="sum", time_window=HOUR, name="sum_x")],
        **settings,
    )
    for view, what in ((tenfold, "tenfold: it has a transformation"), (window, "window: it has aggregations")):
        with pytest.raises(DefinitionError, match=f"{what}.*offline and online would differ"):
            opened(DRIVER, view)


@pytest.mark.parametrize("unit", ["ns", "us"])
@pytest.mark.parametrize("entities", [0, 1])
def test_nanoseconds_and_views_without_entities_are_materialized(
    opened: Open, tmp_path: Path, unit: str, entities: int
) -> None:
    """On DuckDB 2.0, where Feast's store gives up on both."""
    path = tmp_path / "a.parquet"
    columns = {"driver_id": [1], "x": [7.0], "event_timestamp": pa.array([NOW], pa.timestamp(unit, tz="UTC"))}
    pq.write_table(pa.table(columns), path, version="2.6")
    source = FileSource(path=str(path), timestamp_field="event_timestamp")
    view = FeatureView(name="fv", entities=[DRIVER] * entities, schema=[Field(name="x", dtype=Float64)], source=source)
    store = opened(DRIVER, view)
    store.materialize(NOW - HOUR, NOW)
    assert asked(store, ["x"], 1)[0]["x"] == [7.0]


@pytest.mark.parametrize("request_key", [1, "1", 1.0])
def test_a_key_is_found_however_the_source_and_the_request_write_it(
    opened: Open, tmp_path: Path, request_key: Any
) -> None:
    """The entity's declared type decides."""
    path = table(tmp_path / "a.parquet", pa.array([1], pa.int32()), [NOW], x=[7.0])
    store = opened(DRIVER, driver_view(path, x=Float64))
    store.materialize(NOW - HOUR, NOW)
    assert asked(store, ["x"], request_key)[0]["x"] == [7.0]


def test_features_whose_hashes_collide_in_feasts_layout_keep_their_values(opened: Open, tmp_path: Path) -> None:
    """Here a feature has a place, not a hash of four bytes."""
    names = {"feature_64850": 1.0, "feature_173868": 2.0}
    schema: dict[str, Any] = dict.fromkeys(names, Float64)
    path = table(tmp_path / "a.parquet", [1], [NOW], **{name: [value] for name, value in names.items()})
    store = opened(DRIVER, driver_view(path, **schema))
    store.materialize(NOW - HOUR, NOW)
    assert asked(store, list(names), 1)[0] == {"driver_id": [1]} | {name: [value] for name, value in names.items()}


@pytest.mark.parametrize(
    ("dtype", "values", "why"),
    [
        (Int64, [1.9, -1.9, None], "1.9 does not fit int64"),
        (Array(Int64), [[1, None], [2], None], "a list has a null element"),
    ],
)
def test_a_loss_that_nobody_declared_is_an_error(
    opened: Open, tmp_path: Path, dtype: Any, values: list[Any], why: str
) -> None:
    """Not 1, and not a TypeError about numpy."""
    store = opened(DRIVER, driver_view(table(tmp_path / "a.parquet", [1, 2, 3], [NOW] * 3, x=values), x=dtype))
    with pytest.raises(CastError, match=f"feature view fv: column 'x': .*{why}"):
        store.materialize(NOW - HOUR, NOW)


@pytest.mark.parametrize("ids", [[None], [1, None]])
def test_a_null_key_has_no_row(opened: Open, tmp_path: Path, ids: list[Any]) -> None:
    """As offline: not a TypeError about attribute names."""
    store = opened(DRIVER, driver_view(table(tmp_path / "a.parquet", [1], [NOW], x=[True]), x=Bool))
    store.materialize(NOW - HOUR, NOW)
    values, said = asked(store, ["x"], *ids)
    assert values["x"] == [True if i else None for i in ids]
    assert said["x"][-1] == "NOT_FOUND"


def test_an_on_demand_feature_sees_the_same_inputs_on_both_sides(opened: Open, tmp_path: Path) -> None:
    """A threshold on a Float32: the narrowed value, offline as online."""
    path = table(tmp_path / "a.parquet", [1], [NOW - HOUR], p=[0.1])
    view = driver_view(path, p=Float32)

    def threshold(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"over": [value > 0.1 for value in inputs["p"]]}

    declare: Any = on_demand_feature_view(sources=[view], schema=[Field(name="over", dtype=Bool)], mode="python")
    store = opened(DRIVER, view, declare(threshold))
    store.materialize(NOW - 2 * HOUR, NOW)
    online = store.get_online_features(features=["threshold:over"], entity_rows=[{"driver_id": 1}]).to_dict()["over"]
    frame = pd.DataFrame({"driver_id": [1], "event_timestamp": [NOW]})
    offline = store.get_historical_features(frame, features=["threshold:over"]).to_arrow()["over"].to_pylist()
    assert online == offline == [True]
