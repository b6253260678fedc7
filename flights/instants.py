"""From the clocks of airports to UTC instants, and when each fact was known. The house's `int64` microseconds.

Scheduled departures are given: `time_hour` is UTC. The rest is derived from them and from the delays, which do not
depend on a clock; `disagreements` holds the result against the clocks that the files also record.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flights import raw
from skewguard.errors import SourceError
from skewguard.values import NO_TIME

Instants = npt.NDArray[np.int64]

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR

NEW_YORK = "America/New_York"
DECLARED_ZONES = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")
"""Zones of the destinations that airports.csv lacks. Saint Thomas keeps the same clock as Puerto Rico."""

REPORTED_AFTER = 90_000_000
"""A departure or landing in the minute 05:17 is certain at 05:18:00, and reported 30 seconds later (declared)."""

LATE = 15
"""A flight is late when it arrives, or leaves, more than this many minutes after its schedule."""

_FIRST = datetime(2012, 12, 30, tzinfo=UTC)
_HOURS = 24 * 375


def to_timestamps(instants: Instants) -> pa.Array:
    """Microseconds since 1970, UTC, as `timestamp[us, UTC]`, null where there is `NO_TIME`."""
    return pa.array(instants, type=pa.int64(), mask=instants == NO_TIME).cast(pa.timestamp("us", tz="UTC"))


def microseconds(column: pa.ChunkedArray) -> Instants:
    """A timestamp column as microseconds since 1970, UTC, `NO_TIME` where it is null."""
    whole = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    instants: Instants = pc.fill_null(whole, pa.scalar(NO_TIME, pa.int64())).to_numpy()
    return instants


def clock_offsets(zone: str) -> Instants:
    """What `zone`'s clock is ahead of UTC in each hour of the years that matter, microseconds, shape (9000,)."""
    info = ZoneInfo(zone)
    ahead = [(_FIRST + timedelta(hours=hour)).astimezone(info).utcoffset() for hour in range(_HOURS)]
    return np.array([offset // timedelta(microseconds=1) for offset in ahead if offset is not None], dtype=np.int64)


def offset_at(instants: Instants, offsets: Instants) -> Instants:
    """What the clock behind `offsets` is ahead of UTC at `instants` (UTC, microseconds, same shape)."""
    first = int(_FIRST.timestamp()) * 1_000_000
    ahead: Instants = offsets[(instants - first) // HOUR]
    return ahead


def next_time_of_day(after: Instants, time_of_day: Instants, offsets: Instants) -> Instants:
    """The first instants later than `after` at which the clock behind `offsets` shows `time_of_day`.

    All are shape (n,), microseconds; instants in UTC. An hour that the clock shows twice counts both times; a time
    that a jump forward leaves out is taken from the clock before the jump, as `zoneinfo` does with `fold=0`.
    """
    midnight = (after + offset_at(after, offsets)) // DAY * DAY
    summer, winter = offsets.max(), offsets.min()
    best = np.full(len(after), np.iinfo(np.int64).max)
    for shown in (midnight + time_of_day, midnight + DAY + time_of_day):
        by_summer, by_winter = shown - summer, shown - winter
        is_summer = offset_at(by_summer, offsets) == summer
        is_winter = (offset_at(by_winter, offsets) == winter) | ~is_summer
        for instant, real in ((by_summer, is_summer), (by_winter, is_winter)):
            best = np.where(real & (instant > after) & (instant < best), instant, best)
    return best


def flights_with_instants() -> pa.Table:
    """Every flight of the year, in the raw file's order, with its instants; 336,776 rows, none dropped.

    Columns: flight_id; origin, dest, carrier, tailnum (null where unknown); distance (miles); dep_delay, arr_delay
    (minutes, null where the flight did not leave or did not arrive at its destination); and as `timestamp[us, UTC]`
    sched_dep, departed, departure_known, sched_arr, landed, landing_known (null accordingly).
    Raises `SourceError` for raw files that are missing or of another type.
    """
    flights = raw.read("flights")
    scheduled = microseconds(flights["time_hour"]) + flights["minute"].to_numpy() * MINUTE
    departed = _delayed(scheduled, flights["dep_delay"])
    expected = _scheduled_arrivals(flights, scheduled)
    landed = _delayed(expected, flights["arr_delay"])
    return pa.table(
        {
            "flight_id": _flight_ids(flights),
            **{name: flights[name] for name in ("origin", "dest", "carrier", "tailnum")},
            "distance": flights["distance"].cast(pa.float64()),
            "dep_delay": flights["dep_delay"],
            "arr_delay": flights["arr_delay"],
            "sched_dep": to_timestamps(scheduled),
            "departed": to_timestamps(departed),
            "departure_known": to_timestamps(known(departed)),
            "sched_arr": to_timestamps(expected),
            "landed": to_timestamps(landed),
            "landing_known": to_timestamps(known(landed)),
        }
    )


def known(happened: Instants) -> Instants:
    """When a departure or a landing was known: `REPORTED_AFTER` later; `NO_TIME` stays."""
    return np.where(happened == NO_TIME, NO_TIME, happened + REPORTED_AFTER)


def zones(flights: pa.Table) -> dict[str, str]:
    """The zone of every destination; raises `SourceError` for one that neither airports.csv nor we know."""
    airports = raw.read("airports")
    listed = dict(zip(airports["faa"].to_pylist(), airports["tzone"].to_pylist(), strict=True))
    found = {dest: listed.get(dest) or DECLARED_ZONES.get(dest) for dest in flights["dest"].unique().to_pylist()}
    unknown = sorted(dest for dest, zone in found.items() if zone is None)
    if unknown:
        raise SourceError(
            f"airports.csv: column tzone: expected a zone for every destination, found none for {', '.join(unknown)}. "
            "Declare it in flights.instants.DECLARED_ZONES."
        )
    return {dest: zone for dest, zone in found.items() if zone is not None}


def disagreements() -> dict[str, int]:
    """How many derived instants another record of the same flight contradicts, by kind of instant.

    `departed` and `landed`: the local clock at the derived instant is not the recorded dep_time or arr_time.
    `landed_before_departure`: fewer minutes between the two than none.
    """
    flights, derived = raw.read("flights"), flights_with_instants()
    home = np.full(derived.num_rows, NEW_YORK, dtype=object)
    zone_of = zones(flights)
    away = np.array([zone_of[dest] for dest in flights["dest"].to_pylist()], dtype=object)
    departed, landed = microseconds(derived["departed"]), microseconds(derived["landed"])
    both = (departed != NO_TIME) & (landed != NO_TIME)
    return {
        "departed": _contradicted(departed, home, flights["dep_time"]),
        "landed": _contradicted(landed, away, flights["arr_time"]),
        "landed_before_departure": int((both & (landed <= departed)).sum()),
    }


def _contradicted(instants: Instants, zone_of_row: npt.NDArray[np.object_], clock: pa.ChunkedArray) -> int:
    recorded = _time_of_day(pc.fill_null(clock, 0).to_numpy())
    count = 0
    for zone in sorted(set(zone_of_row.tolist())):
        rows = (zone_of_row == zone) & (instants != NO_TIME)
        local = instants[rows] + offset_at(instants[rows], clock_offsets(zone))
        count += int((local % DAY != recorded[rows]).sum())
    return count


def _scheduled_arrivals(flights: pa.Table, scheduled: Instants) -> Instants:
    time_of_day = _time_of_day(flights["sched_arr_time"].to_numpy())
    zone_of = zones(flights)
    dest = flights["dest"].to_pylist()
    zone_of_row = np.array([zone_of[airport] for airport in dest], dtype=object)
    arrivals = np.empty(len(scheduled), dtype=np.int64)
    for zone in sorted(set(zone_of.values())):
        rows = zone_of_row == zone
        arrivals[rows] = next_time_of_day(scheduled[rows], time_of_day[rows], clock_offsets(zone))
    return arrivals


def _time_of_day(clock: npt.NDArray[np.int64]) -> Instants:
    """517 stands for 05:17, 2400 for midnight; microseconds since midnight."""
    return (clock // 100 * 60 + clock % 100) * MINUTE % DAY


def _delayed(scheduled: Instants, delay: pa.ChunkedArray) -> Instants:
    minutes = pc.fill_null(delay, 0).to_numpy()
    return np.where(delay.is_null().to_numpy(), NO_TIME, scheduled + minutes * MINUTE)


def _flight_ids(flights: pa.Table) -> pa.ChunkedArray:
    """`2013-01-01-EWR-UA-1545-0515`: local date, origin, carrier, number and scheduled departure."""

    def padded(name: str, width: int) -> pa.ChunkedArray:
        return pc.utf8_lpad(flights[name].cast(pa.string()), width, "0")

    parts = (padded("year", 4), padded("month", 2), padded("day", 2), flights["origin"], flights["carrier"])
    return pc.binary_join_element_wise(*parts, flights["flight"].cast(pa.string()), padded("sched_dep_time", 4), "-")
