"""The ten features that `benchmarks.transforms` measures, and the same in Feast's two modes and in SQL."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from skewguard.transforms import rowmap, transform

DAY_US = 86_400_000_000
TURN_PER_US = 2 * math.pi / DAY_US


@transform
def log_distance(distance: float) -> float:
    """Logarithm of miles."""
    return np.log1p(distance)  # type: ignore[no-any-return]


@transform
def hour_sin(sched_dep: datetime) -> float:
    """Where the hour stands on the clock (UTC), one coordinate."""
    return np.sin(sched_dep.astype(np.int64) % DAY_US * TURN_PER_US)  # type: ignore[attr-defined,no-any-return]


@transform
def hour_cos(sched_dep: datetime) -> float:
    """Where the hour stands on the clock (UTC), the other coordinate."""
    return np.cos(sched_dep.astype(np.int64) % DAY_US * TURN_PER_US)  # type: ignore[attr-defined,no-any-return]


@transform
def speed(distance: float, air_time: float) -> float:
    """Miles per minute, 0 for no time in the air."""
    return np.where(air_time > 0.0, distance / air_time, 0.0)  # type: ignore[return-value]


@transform
def weekend(sched_dep: datetime) -> bool:
    """Saturday or Sunday in UTC (1970 began on a Thursday)."""
    return (sched_dep.astype(np.int64) + 3 * DAY_US) % (7 * DAY_US) >= 5 * DAY_US  # type: ignore[attr-defined,no-any-return]


@transform
def carrier_name(carrier: str) -> str:
    """The carrier without blanks, in capitals."""
    return rowmap(_clean, carrier)  # type: ignore[return-value]


def _clean(text: str) -> str:
    return text.strip().upper()


@transform
def route(origin: str, dest: str) -> str:
    """From where to where."""
    return rowmap(_between, origin, dest)  # type: ignore[return-value]


def _between(origin: str, dest: str) -> str:
    return f"{origin}>{dest}"


@transform
def calm(wind_speed: float) -> float:
    """Wind, from 3 to 25."""
    return np.minimum(np.maximum(wind_speed, 3.0), 25.0)  # type: ignore[no-any-return]


@transform
def wind_x(wind_speed: float, wind_dir: float) -> float:
    """Wind from the west."""
    return wind_speed * np.sin(wind_dir * (math.pi / 180.0))  # type: ignore[no-any-return]


@transform
def celsius(temp: float) -> float:
    """Degrees Celsius."""
    return (temp - 32.0) * 5.0 / 9.0


def python_lists(rows: dict[str, Any]) -> dict[str, Any]:
    """Feast's mode `python`, as people write it: loops over lists."""
    hours = [(t.hour * 60 + t.minute) * 60_000_000 * TURN_PER_US for t in rows["sched_dep"]]
    return {
        "log_distance": [math.log1p(d) for d in rows["distance"]],
        "hour_sin": [math.sin(h) for h in hours],
        "hour_cos": [math.cos(h) for h in hours],
        "speed": [d / a if a > 0 else 0.0 for d, a in zip(rows["distance"], rows["air_time"], strict=True)],
        "weekend": [t.weekday() >= 5 for t in rows["sched_dep"]],
        "carrier_name": [c.strip().upper() for c in rows["carrier"]],
        "route": [f"{o}>{d}" for o, d in zip(rows["origin"], rows["dest"], strict=True)],
        "calm": [min(max(w, 3.0), 25.0) for w in rows["wind_speed"]],
        "wind_x": [
            w * math.sin(d * (math.pi / 180.0)) for w, d in zip(rows["wind_speed"], rows["wind_dir"], strict=True)
        ],
        "celsius": [(t - 32.0) * 5.0 / 9.0 for t in rows["temp"]],
    }


def pandas_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """Feast's mode `pandas`, as people write it."""
    out = pd.DataFrame(index=rows.index)
    minutes = rows["sched_dep"].dt.hour.astype("int64") * 60 + rows["sched_dep"].dt.minute
    hours = minutes * 60_000_000 * TURN_PER_US
    out["log_distance"] = np.log1p(rows["distance"])
    out["hour_sin"] = np.sin(hours)
    out["hour_cos"] = np.cos(hours)
    out["speed"] = np.where(rows["air_time"] > 0, rows["distance"] / rows["air_time"], 0.0)
    out["weekend"] = rows["sched_dep"].dt.weekday >= 5
    out["carrier_name"] = rows["carrier"].str.strip().str.upper()
    out["route"] = rows["origin"] + ">" + rows["dest"]
    out["calm"] = rows["wind_speed"].clip(3.0, 25.0)
    out["wind_x"] = rows["wind_speed"] * np.sin(rows["wind_dir"] * (math.pi / 180.0))
    out["celsius"] = (rows["temp"] - 32.0) * 5.0 / 9.0
    return out


SQL = f"""
SELECT
    ln(1 + distance) AS log_distance,
    sin(((hour(sched_dep) * 60 + minute(sched_dep)) * 60000000)::DOUBLE * {TURN_PER_US!r}::DOUBLE) AS hour_sin,
    cos(((hour(sched_dep) * 60 + minute(sched_dep)) * 60000000)::DOUBLE * {TURN_PER_US!r}::DOUBLE) AS hour_cos,
    CASE WHEN air_time > 0 THEN distance / air_time ELSE 0.0 END AS speed,
    isodow(sched_dep) >= 6 AS weekend,
    upper(trim(carrier)) AS carrier_name,
    origin || '>' || dest AS route,
    least(greatest(wind_speed, 3.0::DOUBLE), 25.0::DOUBLE) AS calm,
    wind_speed * sin(wind_dir * {math.pi / 180.0!r}::DOUBLE) AS wind_x,
    (temp - 32.0::DOUBLE) * 5.0::DOUBLE / 9.0::DOUBLE AS celsius
FROM asks
"""
