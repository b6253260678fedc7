from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.flights import brute_force


@pytest.fixture(scope="module")
def asks(built: Path) -> pa.Table:
    """The asks as they are written."""
    return pq.read_table(built / "asks.parquet")


def test_every_flight_has_an_ask(asks: pa.Table) -> None:
    """336,776 flights, 336,776 asks, each under an id of its own, cancelled ones and unknown tails included."""
    assert asks.num_rows == len(asks["flight_id"].unique()) == len(brute_force.all_flights()) == 336_776
    assert asks["tailnum"].null_count == 2_512


def test_asks_come_in_time_order(asks: pa.Table) -> None:
    """Asks are ordered by (event_timestamp, flight_id)."""
    order = pc.sort_indices(asks, sort_keys=[("event_timestamp", "ascending"), ("flight_id", "ascending")])
    assert order.to_pylist() == list(range(asks.num_rows))


def test_an_ask_stands_an_hour_before_the_scheduled_departure(asks: pa.Table) -> None:
    """event_timestamp is sched_dep less 60 minutes, both UTC microseconds."""
    assert asks["event_timestamp"].type == asks["sched_dep"].type == pa.timestamp("us", tz="UTC")
    ahead = pc.subtract(asks["sched_dep"].cast(pa.int64()), asks["event_timestamp"].cast(pa.int64()))
    assert ahead.unique().to_pylist() == [3_600_000_000]


def test_a_flight_that_never_arrived_has_no_label(asks: pa.Table) -> None:
    """Cancelled and diverted flights (9,430) have neither label nor label time; all others have both."""
    assert asks["late"].null_count == asks["label_time"].null_count == 9_430
    assert pc.equal(pc.is_null(asks["late"]), pc.is_null(asks["label_time"])).unique().to_pylist() == [True]


def test_a_label_is_known_after_its_ask(asks: pa.Table) -> None:
    """No label is known before, or when, it is asked for."""
    assert pc.all(pc.greater(asks["label_time"], asks["event_timestamp"])).as_py()


def test_late_means_more_than_fifteen_minutes(asks: pa.Table) -> None:
    """The label is arr_delay > 15 and known 90 seconds after landing, flight by flight as in the raw file."""
    plain = {(f.origin, f.dest, f.sched_dep, f.tailnum): f for f in brute_force.all_flights()}
    sample = asks.take(list(range(0, asks.num_rows, 97)))
    for row in sample.to_pylist():
        flight = plain[row["origin"], row["dest"], row["sched_dep"], row["tailnum"] or "NA"]
        late = None if flight.arr_delay is None else flight.arr_delay > 15
        known = None if flight.landed is None else flight.landed + timedelta(seconds=90)
        assert (row["late"], row["label_time"]) == (late, known)


def test_destination_repeats_the_key(asks: pa.Table) -> None:
    """The request field `destination` is the key `dest` under another name, which Feast needs."""
    assert asks["destination"].equals(asks["dest"])
