import random
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from flights import instants
from tests.flights import brute_force


@pytest.fixture(scope="module")
def flights() -> pa.Table:
    """Every flight with its instants."""
    return instants.flights_with_instants()


def _us(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[misc, arg-type]


def _next(after: int, hour: int, minute: int) -> datetime:
    offsets = instants.clock_offsets("America/New_York")
    time_of_day = np.array([(hour * 60 + minute) * instants.MINUTE])
    found = instants.next_time_of_day(np.array([after]), time_of_day, offsets)
    return datetime.fromtimestamp(int(found[0]) / 1_000_000, tz=UTC)


def test_no_flight_is_dropped(flights: pa.Table) -> None:
    """All 336,776 flights are there, in the file's order, under ids of their own."""
    raw = brute_force.all_flights()
    assert flights.num_rows == len(raw) == 336_776
    assert len(flights["flight_id"].unique()) == flights.num_rows
    assert flights["origin"].to_pylist() == [flight.origin for flight in raw]


def test_a_flight_id_can_be_read(flights: pa.Table) -> None:
    """A flight's id says when, from where, whose, which and at what time."""
    assert flights["flight_id"][0].as_py() == "2013-01-01-EWR-UA-1545-0515"


def test_instants_agree_with_the_raw_clocks_read_with_plain_zoneinfo(flights: pa.Table) -> None:
    """A sample, with the days on which clocks change, Puerto Rico and Hawaii, gives what plain Python makes of it."""
    raw = brute_force.all_flights()
    chosen = set(random.Random(2013).sample(range(len(raw)), 2000))
    hawaii = [i for i, flight in enumerate(raw) if flight.dest == "HNL"]
    islands = [i for i, flight in enumerate(raw) if flight.dest in instants.DECLARED_ZONES]
    for day in (datetime(2013, 3, 10, tzinfo=UTC), datetime(2013, 11, 3, tzinfo=UTC)):
        chosen |= {i for i, flight in enumerate(raw) if -1 <= (flight.sched_dep - day).days <= 0}
    chosen |= set(hawaii[::5]) | set(islands[::40])
    rows = sorted(chosen)
    ours = flights.take(rows).select(["sched_dep", "departed", "sched_arr", "landed"]).to_pylist()
    plain = [{name: getattr(raw[i], name) for name in ("sched_dep", "departed", "sched_arr", "landed")} for i in rows]
    assert ours == plain


def test_derived_instants_contradict_the_recorded_clocks_once() -> None:
    """No departure, and one arrival (recorded at 02:03 on the night when that hour was left out), disagree with the
    clock that the file records, and nobody lands before departing."""
    assert instants.disagreements() == {"departed": 0, "landed": 1, "landed_before_departure": 0}


def test_a_time_that_the_clock_shows_twice_is_taken_the_first_time_after() -> None:
    """On the night in which clocks go back, the first showing counts, and the second for those who left after it."""
    assert _next(_us(2013, 11, 3, 5, 0), 1, 30) == datetime(2013, 11, 3, 5, 30, tzinfo=UTC)
    assert _next(_us(2013, 11, 3, 5, 40), 1, 30) == datetime(2013, 11, 3, 6, 30, tzinfo=UTC)


def test_a_time_that_the_clock_leaves_out_is_read_by_the_clock_before() -> None:
    """On the night in which clocks go forward, 02:30 is 07:30 UTC, which the new clock calls 03:30."""
    assert _next(_us(2013, 3, 10, 4, 0), 2, 30) == datetime(2013, 3, 10, 7, 30, tzinfo=UTC)


def test_the_next_time_of_day_is_later_than_the_instant() -> None:
    """The same minute counts a day later, across a change of clocks too."""
    assert _next(_us(2013, 6, 1, 12, 0), 8, 0) == datetime(2013, 6, 2, 12, 0, tzinfo=UTC)
    assert _next(_us(2013, 3, 9, 13, 0), 8, 0) == datetime(2013, 3, 10, 12, 0, tzinfo=UTC)


def test_offsets_are_those_of_the_zone_in_every_hour() -> None:
    """The table of offsets equals what zoneinfo says, hour by hour, around both changes."""
    zone = ZoneInfo("America/Denver")
    offsets = instants.clock_offsets("America/Denver")
    for first in (_us(2013, 3, 10), _us(2013, 11, 3)):
        hours = first + np.arange(24) * instants.HOUR
        expected = [
            round(datetime.fromtimestamp(hour / 1e6, tz=zone).utcoffset().total_seconds())  # type: ignore[union-attr]
            for hour in hours.tolist()
        ]
        assert (instants.offset_at(hours, offsets) // 1_000_000).tolist() == expected


def test_nothing_about_a_flight_is_known_when_it_is_asked_about(flights: pa.Table) -> None:
    """60 minutes before its scheduled departure nobody knows of a flight's own departure, though some leave early."""
    left = flights.filter(flights["departed"].is_valid())
    ahead = instants.microseconds(left["departure_known"]) - instants.microseconds(left["sched_dep"])
    assert ahead.min() > -60 * instants.MINUTE
