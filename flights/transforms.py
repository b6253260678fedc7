"""The example's derived features, one function each: those of Feast's two on-demand views, and a model input.

Calendar features are of New York's clock. Codes are stable whole numbers; `carrier_delay` alone is fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import numpy as np

from skewguard.transforms import fitted, rowmap, transform

NEW_YORK = ZoneInfo("America/New_York")
RUNWAY = 30.0
"""True heading, in degrees, of the runways 04/22 that all three airports have."""

CARRIERS = {
    "9E": 0,
    "AA": 1,
    "AS": 2,
    "B6": 3,
    "DL": 4,
    "EV": 5,
    "F9": 6,
    "FL": 7,
    "HA": 8,
    "MQ": 9,
    "OO": 10,
    "UA": 11,
    "US": 12,
    "VX": 13,
    "WN": 14,
    "YV": 15,
}
UNKNOWN = -1


@transform
def sched_hour(sched_dep: datetime) -> float:
    """Scheduled departure on New York's clock, in hours since midnight: 17.75 is a quarter to six in the afternoon."""
    return rowmap(_hour, sched_dep)  # type: ignore[return-value]


@transform
def sched_weekday(sched_dep: datetime) -> int:
    """Weekday of the scheduled departure in New York, Monday 0 to Sunday 6."""
    return rowmap(_weekday, sched_dep)  # type: ignore[return-value]


@transform
def log_distance(distance: float) -> float:
    """Natural logarithm of the distance in miles."""
    logarithm: float = np.log(distance)
    return logarithm


@transform
def carrier_code(carrier: str) -> int:
    """Number of the carrier in `CARRIERS`, -1 for one that is not there. Case and blanks do not matter."""
    return rowmap(_carrier, carrier)  # type: ignore[return-value]


@transform
def destination_code(destination: str) -> int:
    """The airport's three letters as one number below 17,576, exact and reversible; -1 for anything else."""
    return rowmap(_airport, destination)  # type: ignore[return-value]


@transform
def gust_excess(wind_gust: float, wind_speed: float) -> float:
    """How much faster the gusts are than the wind, miles per hour."""
    return wind_gust - wind_speed


@transform
def dewpoint_spread(temp: float, dewp: float) -> float:
    """Temperature above the dew point, degrees Fahrenheit: near 0, fog."""
    return temp - dewp


@transform
def crosswind(wind_dir: float, wind_speed: float) -> float:
    """Wind across the runways 04/22, miles per hour, from either side."""
    across: float = np.abs(np.sin(np.radians(wind_dir - RUNWAY)))
    return wind_speed * across


@transform
def plane_age(sched_dep: datetime, year: int) -> int:
    """Years from the plane's manufacture to the scheduled departure's year in New York."""
    return rowmap(_year, sched_dep) - year  # type: ignore[return-value]


@transform
def delay_recovered(dep_delay: int, arr_delay: int) -> int:
    """Minutes that the tail's last known departure was later than its last known arrival; of one flight, if it is
    on the ground again: the delay that it made good in the air."""
    return dep_delay - arr_delay


def usual_delay(carrier: str, arr_delay: int) -> dict[str, float]:
    """Fitted: by carrier, the mean of the arrival delays that were the tail's last known ones at the asks."""
    codes, minutes = rowmap(_code, carrier).tolist(), np.asarray(arr_delay).tolist()
    totals: dict[str, list[int]] = {}
    for code, delay in zip(codes, minutes, strict=True):
        total = totals.setdefault(code, [0, 0])
        total[0] += delay
        total[1] += 1
    return {code: total / count for code, (total, count) in totals.items()}


@transform
def carrier_delay(carrier: str, usual: Annotated[Mapping[str, float], fitted(usual_delay)]) -> float:
    """How late the carrier's planes usually arrive, in minutes; null for one that training did not know."""
    return rowmap(usual.get, rowmap(_code, carrier), out=float)  # type: ignore[return-value]


def _hour(instant: datetime) -> float:
    local = instant.astimezone(NEW_YORK)
    return local.hour + local.minute / 60


def _weekday(instant: datetime) -> int:
    return instant.astimezone(NEW_YORK).weekday()


def _year(instant: datetime) -> int:
    return instant.astimezone(NEW_YORK).year


def _code(carrier: str) -> str:
    return carrier.strip().upper()


def _carrier(carrier: str) -> int:
    return CARRIERS.get(_code(carrier), UNKNOWN)


def _airport(code: str) -> int:
    letters = [ord(letter) - ord("A") for letter in code.strip().upper()]
    if len(letters) != 3 or not all(0 <= letter < 26 for letter in letters):
        return UNKNOWN
    return (letters[0] * 26 + letters[1]) * 26 + letters[2]
