import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flights import sources
from tests.flights import brute_force

NAMES = ("weather", "tail_departure", "tail_arrival", "origin_congestion", "route", "plane")
SAMPLE = 150


def _sample(path: Path) -> list[dict[str, Any]]:
    table = pq.read_table(path)
    rows = random.Random(11).sample(range(table.num_rows), SAMPLE)
    sample: list[dict[str, Any]] = table.take(sorted(rows)).to_pylist()
    return sample


@pytest.mark.parametrize("name", NAMES)
def test_no_row_is_known_before_it_is_true(built: Path, name: str) -> None:
    """Both instants are UTC microseconds and never null, and created time is never before event time."""
    table = pq.read_table(built / f"{name}.parquet")
    for column in ("event_time", "created_time"):
        assert table[column].type == pa.timestamp("us", tz="UTC")
        assert table[column].null_count == 0
    assert pc.all(pc.greater_equal(table["created_time"], table["event_time"])).as_py()


@pytest.mark.parametrize("name", NAMES)
def test_rows_lie_in_the_order_of_their_event(built: Path, name: str) -> None:
    """A source is sorted by event time, so that a reader of some days skips the others."""
    events = pq.read_table(built / f"{name}.parquet")["event_time"].cast(pa.int64()).to_numpy()
    assert (events[1:] >= events[:-1]).all()


def test_every_event_is_kept(built: Path) -> None:
    """Each departure and each arrival with a tail number has a row, and each weather row and plane."""
    rows = {name: pq.read_metadata(built / f"{name}.parquet").num_rows for name in NAMES}
    raw = brute_force.all_flights()
    assert rows["tail_departure"] == sum(flight.departed is not None for flight in raw) == 328_521
    assert rows["tail_arrival"] == sum(flight.arr_delay is not None for flight in raw) == 327_346
    assert rows["weather"] == 26_115
    assert rows["plane"] == 3_322
    assert rows["origin_congestion"] == 365 * 96 * 3


def test_a_weather_row_is_the_raw_one_published_after_its_last_report(built: Path) -> None:
    """Values are the file's; the instants are 51 minutes into the hour and seven and a half minutes later."""
    lines = {(line["origin"], line["time_hour"]): line for line in brute_force._lines("weather.csv")}
    for row in _sample(built / "weather.parquet"):
        hour = row["event_time"] - timedelta(minutes=51)
        line = lines[row["origin"], hour.strftime("%Y-%m-%dT%H:%M:%SZ")]
        assert [row[name] for name in brute_force.WEATHER] == [
            brute_force._number(line[name]) for name in brute_force.WEATHER
        ]
        assert row["created_time"] - row["event_time"] == timedelta(minutes=7, seconds=30)


def test_an_impossible_wind_is_null_and_the_only_change(built: Path) -> None:
    """Of all weather one value is changed: a wind of 1,048 miles per hour."""
    weather = pq.read_table(built / "weather.parquet")
    assert weather["wind_speed"].null_count == 4 + 1
    assert pc.max(weather["wind_speed"]).as_py() < 60
    storm = weather.filter(pc.equal(weather["event_time"], datetime(2013, 2, 12, 8, 51, tzinfo=UTC)))
    assert dict(zip(storm["origin"].to_pylist(), storm["wind_speed"].to_pylist(), strict=True))["EWR"] is None


def test_congestion_is_what_counting_by_hand_gives(built: Path) -> None:
    """A sample of ticks counts exactly the departures known in the hour before, recomputed with loops from the CSV."""
    for row in _sample(built / "origin_congestion.parquet"):
        ask = {"origin": row["origin"], "event_timestamp": row["event_time"]}
        *_, counted = brute_force.origin_congestion_rows(ask)
        values = (row["departures_1h"], row["mean_dep_delay_1h"], row["late_share_1h"])
        assert counted == (row["event_time"], row["created_time"], values)


def test_a_route_is_what_counting_by_hand_gives(built: Path) -> None:
    """A sample of days counts exactly the 30 days before, as far as known, recomputed with loops from the CSV."""
    for row in _sample(built / "route.parquet"):
        _check_route(row)


def test_a_flight_at_the_very_tick_counts_from_the_next_day_and_for_thirty(built: Path) -> None:
    """The window of a route begins at its first instant and ends before its last."""
    edges = {
        (flight.origin, flight.dest, flight.sched_dep + timedelta(days=days))
        for flight in brute_force.all_flights()
        if (flight.sched_dep.hour, flight.sched_dep.minute) == (9, 0)
        for days in (0, 30)
    }
    rows = pq.read_table(built / "route.parquet").to_pylist()
    at_edge = [row for row in rows if (row["origin"], row["dest"], row["event_time"]) in edges]
    assert len(at_edge) > 100
    for row in at_edge[::7]:
        _check_route(row)


def _check_route(row: dict[str, Any]) -> None:
    ask = {"origin": row["origin"], "dest": row["dest"], "event_timestamp": row["created_time"]}
    names = ("flights_30d", "arrived_30d", "late_share_30d", "mean_arr_delay_30d", "cancelled_share_30d")
    counted = next(iter(brute_force.route_rows(ask)))
    assert counted == (row["event_time"], row["created_time"], tuple(row[name] for name in names))


def test_a_route_without_a_flight_in_30_days_has_no_row(built: Path) -> None:
    """A route is not known before its first flight, nor a month after its last."""
    route = pq.read_table(built / "route.parquet")
    assert pc.min(route["flights_30d"]).as_py() == 1
    assert pc.min(route["event_time"]).as_py() == datetime(2013, 1, 2, 9, tzinfo=UTC)


def test_two_events_of_one_tail_in_one_minute_are_left_in(built: Path) -> None:
    """One aircraft is recorded as landing in Seattle and in Los Angeles in the same minute; both rows stay."""
    ties = 0
    for name in NAMES:
        table = pq.read_table(built / f"{name}.parquet")
        keys = [key for key in ("origin", "dest", "tailnum") if key in table.column_names]
        distinct = table.group_by([*keys, "event_time", "created_time"]).aggregate([]).num_rows
        ties += table.num_rows - distinct
    assert ties == 1


def test_the_same_files_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    """Building is deterministic: a second build equals the first byte for byte, and says what it wrote."""
    told: list[tuple[str, int]] = []
    sources.build_sources(tmp_path, lambda name, rows: told.append((name, rows)))
    for name in NAMES:
        assert (tmp_path / f"{name}.parquet").read_bytes() == (built / f"{name}.parquet").read_bytes()
    assert told == [(name, pq.read_metadata(tmp_path / f"{name}.parquet").num_rows) for name in NAMES]


def test_a_build_that_breaks_leaves_the_old_file(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is replaced whole or not at all."""
    path = tmp_path / "plane.parquet"
    shutil.copy(built / "plane.parquet", path)
    before = path.read_bytes()

    def breaks(_: pa.Table, where: Path, **__: object) -> None:
        where.write_bytes(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(pq, "write_table", breaks)
    with pytest.raises(OSError, match="no space"):
        sources.write(sources.plane(), path)
    assert path.read_bytes() == before
