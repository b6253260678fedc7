"""The raw files as honest sources: every row says when its fact became true and when it came to be known.

`event_time` and `created_time` are `timestamp[us, UTC]`. Which of them are given and which are derived, and how, is
declared in the constants here and in `flights.instants`, and told in docs/flights.md.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flights import raw
from flights.instants import DAY, HOUR, LATE, MINUTE, Instants, flights_with_instants, microseconds, to_timestamps
from skewguard.values import NO_TIME

Progress = Callable[[str, int], None]
"""Called after each source with its name and its number of rows."""

OBSERVED_AT = 51 * MINUTE
"""A weather row of hour h holds the reports of the minutes h:00 to h:51; the last, routine one is taken at h:51."""

PUBLISHED_AFTER = 7 * MINUTE + 30_000_000
"""A routine report is sent from h:53 on; by h:58:30 everybody has it (declared)."""

WIND_LIMIT = 200.0
"""Miles per hour; a faster wind is a defect of the record and becomes null. The year has one, of 1,048 mph."""

QUARTER = 15 * MINUTE
CONGESTION_WINDOW = 60 * MINUTE
CONGESTION_LATENCY = 45_000_000
"""The job that counts departures runs at every quarter of an hour and takes 45 seconds (declared)."""

ROUTE_HOUR = 9 * HOUR
ROUTE_WINDOW = 30 * DAY
ROUTE_LATENCY = 5 * MINUTE
"""The job that keeps the routes' record runs at 09:00 UTC every day and takes 5 minutes (declared)."""


REGISTERED = datetime(2012, 12, 31, tzinfo=UTC)
"""The register of planes is taken as known before the first ask (declared); it has no history."""

YEAR_BEGINS, YEAR_ENDS = datetime(2013, 1, 1, 5, tzinfo=UTC), datetime(2014, 1, 1, 5, tzinfo=UTC)
"""New York's 2013, end exclusive: the instants between which ticks lie."""


def build_sources(out: Path, progress: Progress | None = None) -> None:
    """Write one Parquet file per source into `out`: weather, tail_departure, tail_arrival, origin_congestion, route,
    plane. The same raw files give the same bytes; a file appears whole or not at all.

    Raises `SourceError` for raw files that are missing or have columns of another type.
    """
    out.mkdir(parents=True, exist_ok=True)
    flights = flights_with_instants()
    makers: dict[str, Callable[[], pa.Table]] = {
        "weather": weather,
        "tail_departure": lambda: tail_departure(flights),
        "tail_arrival": lambda: tail_arrival(flights),
        "origin_congestion": lambda: origin_congestion(flights),
        "route": lambda: route(flights),
        "plane": plane,
    }
    for name, make in makers.items():
        table = make()
        write(table, out / f"{name}.parquet")
        if progress is not None:
            progress(name, table.num_rows)


def write(table: pa.Table, path: Path) -> None:
    """Write `table` as Parquet to `path`: into a partial file first, which then takes the name."""
    partial = path.with_name(path.name + ".partial")
    pq.write_table(table, partial, compression="zstd", row_group_size=1 << 16)
    partial.replace(path)


def weather() -> pa.Table:
    """Hourly weather by origin: degrees F, percent, degrees, miles per hour, inches, millibars, miles; float64.

    `event_time`: the hour's last report, 51 minutes into it. `created_time`: `PUBLISHED_AFTER` later.
    """
    observed = raw.read("weather")
    taken = microseconds(observed["time_hour"]) + OBSERVED_AT
    speed = observed["wind_speed"]
    columns = {name: observed[name] for name in observed.column_names if name != "time_hour"}
    columns["wind_speed"] = pc.if_else(pc.greater(speed, WIND_LIMIT), pa.scalar(None, pa.float64()), speed)
    return _dated(columns, taken, taken + PUBLISHED_AFTER, ["origin"])


def tail_departure(flights: pa.Table) -> pa.Table:
    """One row per departure with a tail number: dep_delay in minutes, int64; event: it left; created: reported."""
    return _of_tails(flights, "dep_delay", "departed", "departure_known")


def tail_arrival(flights: pa.Table) -> pa.Table:
    """One row per arrival with a tail number: arr_delay in minutes, int64; event: it landed; created: reported."""
    return _of_tails(flights, "arr_delay", "landed", "landing_known")


def origin_congestion(flights: pa.Table) -> pa.Table:
    """Each origin's last hour, every 15 minutes of the year: departures_1h int64, mean_dep_delay_1h (minutes) and
    late_share_1h float64, null without a departure.

    It counts the departures that became known in `[tick - 60 min, tick)`. `event_time`: the tick; `created_time`:
    `CONGESTION_LATENCY` later.
    """
    left = flights.filter(pc.is_valid(flights["departed"]))
    known = microseconds(left["departure_known"])
    delay = left["dep_delay"].to_numpy()
    ticks = np.arange(_us(YEAR_BEGINS), _us(YEAR_ENDS), QUARTER)
    names, origin = _groups(left, "origin")
    window = _Window(origin, known, known + CONGESTION_WINDOW, ticks)
    departures = window.total(np.ones_like(delay))
    columns = {
        "origin": np.tile(names["origin"], len(ticks)),
        "departures_1h": departures,
        "mean_dep_delay_1h": _ratio(window.total(delay), departures),
        "late_share_1h": _ratio(window.total(delay > LATE), departures),
    }
    at = np.repeat(ticks, len(names["origin"]))
    return _dated(columns, at, at + CONGESTION_LATENCY, ["origin"])


def route(flights: pa.Table) -> pa.Table:
    """Each route's last 30 days, daily at 09:00 UTC, where it had a flight in them: flights_30d and arrived_30d
    int64; late_share_30d, mean_arr_delay_30d (minutes; null where none arrived) and cancelled_share_30d float64.

    Flights: scheduled departure in `[tick - 30 days, tick)`. Arrived: those whose landing was known before the tick.
    Cancelled: those that never left, taken as known at their scheduled departure. `event_time`: the tick;
    `created_time`: `ROUTE_LATENCY` later.
    """
    scheduled = microseconds(flights["sched_dep"])
    landing_known = microseconds(flights["landing_known"])
    arrived = landing_known != NO_TIME
    delay = pc.fill_null(flights["arr_delay"], 0).to_numpy()
    ticks = np.arange(_us(YEAR_BEGINS) // DAY * DAY + ROUTE_HOUR, _us(YEAR_ENDS), DAY)
    names, pair = _groups(flights, "origin", "dest")

    of_flights = _Window(pair, scheduled, scheduled + ROUTE_WINDOW, ticks)
    of_arrivals = _Window(pair[arrived], landing_known[arrived], scheduled[arrived] + ROUTE_WINDOW, ticks)
    count = of_flights.total(np.ones_like(scheduled))
    landed = of_arrivals.total(np.ones_like(scheduled[arrived]))
    columns = {
        "origin": np.tile(names["origin"], len(ticks)),
        "dest": np.tile(names["dest"], len(ticks)),
        "flights_30d": count,
        "arrived_30d": landed,
        "late_share_30d": _ratio(of_arrivals.total(delay[arrived] > LATE), landed),
        "mean_arr_delay_30d": _ratio(of_arrivals.total(delay[arrived]), landed),
        "cancelled_share_30d": _ratio(of_flights.total(flights["departed"].is_null().to_numpy()), count),
    }
    at = np.repeat(ticks, len(names["origin"]))
    return _dated(columns, at, at + ROUTE_LATENCY, ["origin", "dest"]).filter(pc.greater(pa.array(count), 0))


def plane() -> pa.Table:
    """The register of planes: year of manufacture (int64, null where unknown), seats, engines int64, manufacturer."""
    planes = raw.read("planes")
    registered = np.full(planes.num_rows, _us(REGISTERED))
    columns = {name: planes[name] for name in ("tailnum", "year", "seats", "engines", "manufacturer")}
    return _dated(columns, registered, registered, ["tailnum"])


class _Window:
    """Sums over events by group and tick, exact because they are sums of whole numbers.

    An event counts at the ticks later than `known` and not later than `leaves`; instants in microseconds, UTC.
    """

    def __init__(self, group: npt.NDArray[np.int64], known: Instants, leaves: Instants, ticks: Instants) -> None:
        groups = int(group.max()) + 1
        self.shape = (len(ticks) + 1, groups)
        self.enter = np.searchsorted(ticks, known, side="right") * groups + group
        self.leave = np.searchsorted(ticks, leaves, side="right") * groups + group

    def total(self, value: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
        """Sum of `value` (one whole number per event), tick by tick, each tick with every group."""
        change = np.zeros(self.shape, dtype=np.int64).ravel()
        np.add.at(change, self.enter, value.astype(np.int64))
        np.subtract.at(change, self.leave, value.astype(np.int64))
        return change.reshape(self.shape).cumsum(axis=0)[:-1].ravel()


def _groups(table: pa.Table, *keys: str) -> tuple[dict[str, npt.NDArray[np.object_]], npt.NDArray[np.int64]]:
    """The distinct keys in order, a column each, and for every row the number of its key."""
    joined = pc.binary_join_element_wise(*(table[key] for key in keys), "\0")
    distinct, number = np.unique(joined.to_numpy().astype(str), return_inverse=True)
    parts = [text.split("\0") for text in distinct.tolist()]
    names = {key: np.array([part[i] for part in parts], dtype=object) for i, key in enumerate(keys)}
    return names, number.astype(np.int64)


def _ratio(total: npt.NDArray[np.int64], count: npt.NDArray[np.int64]) -> pa.Array:
    """`total / count`, null where the count is 0."""
    none = count == 0
    return pa.array(total / np.where(none, 1, count), mask=none)


def _of_tails(flights: pa.Table, delay: str, happened: str, known: str) -> pa.Table:
    rows = flights.filter(pc.and_(pc.is_valid(flights["tailnum"]), pc.is_valid(flights[happened])))
    columns = {"tailnum": rows["tailnum"], delay: rows[delay]}
    return _dated(columns, microseconds(rows[happened]), microseconds(rows[known]), ["tailnum", delay])


def _us(instant: datetime) -> int:
    return int(instant.timestamp()) * 1_000_000


def _dated(columns: dict[str, object], event: Instants, created: Instants, keys: list[str]) -> pa.Table:
    """A table of `columns` with both instants, in the order of event time and keys."""
    whole = columns | {"event_time": to_timestamps(event), "created_time": to_timestamps(created)}
    table = pa.table(whole)
    return table.sort_by([(name, "ascending") for name in ("event_time", *keys)])
