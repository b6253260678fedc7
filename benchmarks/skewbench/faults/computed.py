"""Faults of what is computed: other code for a transform, another vector for the model, another model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np

import flights.sources
from benchmarks.skewbench.faults.case import Faulty, Rng
from benchmarks.skewbench.faults.parts import (
    column,
    faulty,
    input_to_model,
    numbers,
    of_store,
    pick,
    stored,
    transformed,
    varied,
)
from benchmarks.skewbench.world import MINUTE, Window
from flights.instants import flights_with_instants
from skewguard.offline import OfflineStore
from skewguard.values import NO_TIME, Array


def _derived(window: Window, name: str, values: Array, cause: str = "other_code") -> Faulty:
    return faulty(transformed(window, {name: (values, column(window, name).status)}), name, cause, stage="transform")


def _clock(window: Window, zone: str) -> list[datetime]:
    asked = window.spine.request["sched_dep"].values.astype(np.int64)
    return [datetime.fromtimestamp(one / 1e6, UTC).astimezone(ZoneInfo(zone)) for one in asked.tolist()]


def hour_in_other_zone(window: Window, rng: Rng) -> Faulty:
    """11: the server's clock is in another zone than the one that training meant."""
    zone = ["UTC", "America/Chicago", "America/Los_Angeles", "Europe/Berlin"][int(rng.integers(4))]
    hours = np.array([at.hour + at.minute / 60 for at in _clock(window, zone)])
    return _derived(window, "schedule__sched_hour", hours, "timezone")


def weekday_from_sunday(window: Window, rng: Rng) -> Faulty:  # noqa: ARG001
    """41: two libraries number the days of the week differently."""
    monday = column(window, "schedule__sched_weekday").values
    return _derived(window, "schedule__sched_weekday", (monday + 1) % 7)


def weekday_in_utc(window: Window, rng: Rng) -> Faulty:  # noqa: ARG001
    """11: the weekday of an instant near midnight depends on the zone."""
    days = np.array([at.weekday() for at in _clock(window, "UTC")], dtype=np.int64)
    return _derived(window, "schedule__sched_weekday", days, "timezone")


def other_logarithm(window: Window, rng: Rng) -> Faulty:
    """41: log10 or log2 or log1p where training took the natural one."""
    miles = window.spine.request["distance"].values
    make = [np.log10, np.log2, np.log1p][int(rng.integers(3))]
    return _derived(window, "schedule__log_distance", make(miles))


def codes_of_another_vocabulary(window: Window, rng: Rng) -> Faulty:
    """34: the encoder's table is of another version: codes are permuted."""
    name = pick(rng, ["schedule__carrier_code", "schedule__destination_code"])
    codes = column(window, name).values
    known = np.unique(codes)
    table = dict(zip(known.tolist(), np.roll(known, int(rng.integers(1, len(known)))).tolist(), strict=True))
    return _derived(window, name, np.array([table[one] for one in codes.tolist()], dtype=np.int64), "vocabulary")


def unknown_to_the_server(window: Window, rng: Rng) -> Faulty:
    """36: the server does not strip or fold the text, so that a code is unknown to it."""
    name = pick(rng, ["schedule__carrier_code", "schedule__destination_code"])
    return _derived(window, name, np.full(len(window.spine), -1, dtype=np.int64), "default")


def other_runway(window: Window, rng: Rng) -> Faulty:
    """41: a constant in the code is another one."""
    heading = float(rng.uniform(35, 300))
    wind = column(window, "weather__wind_dir").values
    across = column(window, "weather__wind_speed").values * np.abs(np.sin(np.radians(wind - heading)))
    return _derived(window, "conditions__crosswind", across)


def degrees_for_radians(window: Window, rng: Rng) -> Faulty:  # noqa: ARG001
    """41: a rewrite in another language forgot a conversion."""
    wind = column(window, "weather__wind_dir").values
    across = column(window, "weather__wind_speed").values * np.abs(np.sin(wind - 30.0))
    return _derived(window, "conditions__crosswind", across)


def gust_filled_before(window: Window, rng: Rng) -> Faulty:  # noqa: ARG001
    """24, 41: null gusts count as zero before the difference is taken, on one side."""
    name = "conditions__gust_excess"
    one = column(window, name)
    gone = ~one.present & column(window, "weather__wind_speed").present
    values = np.where(gone, -column(window, "weather__wind_speed").values, one.values)
    status = np.where(gone, np.uint8(0), one.status)
    return faulty(transformed(window, {name: (values, status)}), name, "other_code", stage="transform")


def absolute_difference(window: Window, rng: Rng) -> Faulty:
    """41: the sign of a difference is lost, or turned."""
    name = pick(rng, ["conditions__delay_recovered", "conditions__dewpoint_spread"])
    values = column(window, name).values
    if name.endswith("recovered") and rng.random() < 0.5:
        return _derived(window, name, np.abs(values))
    return _derived(window, name, -values)


def age_off_by_one(window: Window, rng: Rng) -> Faulty:
    """13, 41: an edge of a calendar is inclusive on one side."""
    values = column(window, "conditions__plane_age").values
    return _derived(window, "conditions__plane_age", values + int(rng.choice([-1, 1])), "unit")


def transform_rounds(window: Window, rng: Rng) -> Faulty:
    """41: a transform rounds, or runs in single precision, on one side."""
    name = pick(rng, ["schedule__sched_hour", "schedule__log_distance", "conditions__crosswind"])
    values = column(window, name).values
    if rng.random() < 0.5 and not name.endswith("hour"):
        return _derived(window, name, values.astype(np.float32).astype(np.float64), "float32")
    return _derived(window, name, np.floor(values), "truncated")


def fitted_elsewhere(window: Window, rng: Rng) -> Faulty:
    """34: the values that were fitted (means by carrier) are those of another training run."""
    name = "model_input__carrier_delay"
    one = column(window, name)
    found = np.unique(one.values[one.present])
    fresh = dict(zip(found.tolist(), (found + rng.normal(0, 2, len(found))).tolist(), strict=True))
    values = np.array([fresh.get(v, v) for v in one.values.tolist()])
    return replace(_derived(window, name, values, "vocabulary"), stage="model_input")


def window_of_other_length(window: Window, rng: Rng) -> Faulty:
    """14: the stream aggregates over another window than the backfill."""
    if rng.random() < 0.5:
        minutes = int(rng.choice([15, 30, 45, 90, 120]))
        return _aggregated(window, "origin_congestion", "CONGESTION_WINDOW", minutes * MINUTE)
    days = int(rng.choice([7, 15, 28, 31, 60]))
    return _aggregated(window, "route", "ROUTE_WINDOW", days * 1440 * MINUTE)


def window_edge(window: Window, rng: Rng) -> Faulty:
    """13: the window's edge is a minute off: inclusive for exclusive, in data that comes by the minute."""
    minutes = int(rng.choice([-2, -1, 1, 2]))
    return _aggregated(window, "origin_congestion", "CONGESTION_WINDOW", (60 + minutes) * MINUTE)


def vector_swapped(window: Window, rng: Rng) -> Faulty:
    """37: two features enter the model in each other's place."""
    matrix = window.served.vector.copy()
    names = list(window.bundle.vector)
    a, b = rng.choice(len(names), 2, replace=False)
    matrix[:, [a, b]] = matrix[:, [b, a]]
    return Faulty(input_to_model(window, matrix), frozenset({names[a], names[b]}), "other_feature", "model_input")


def vector_rotated(window: Window, rng: Rng) -> Faulty:
    """37: a column was put in front, and all that follow are one place off."""
    at = int(rng.integers(0, window.served.vector.shape[1] - 3))
    matrix = window.served.vector.copy()
    matrix[:, at:] = np.roll(matrix[:, at:], 1, axis=1)
    return Faulty(input_to_model(window, matrix), frozenset(window.bundle.vector[at:]), "other_feature", "model_input")


def vector_filled(window: Window, rng: Rng) -> Faulty | None:
    """24: what is missing is filled just before the model."""
    gone = np.isnan(window.served.vector)
    names = [i for i in range(gone.shape[1]) if gone[:, i].sum() >= 3]
    if not names:
        return None
    at = int(rng.choice(names))
    matrix = window.served.vector.copy()
    matrix[gone[:, at], at] = [0.0, -1.0, float(np.nanmedian(matrix[:, at]))][int(rng.integers(3))]
    name = window.bundle.vector[at]
    return faulty(input_to_model(window, matrix), name, "null_fill", stage="model_input")


def vector_in_float32(window: Window, rng: Rng) -> Faulty:  # noqa: ARG001
    """28: the vector is built in single precision."""
    matrix = window.served.vector.astype(np.float32).astype(np.float64)
    odd = ~((matrix == window.served.vector) | np.isnan(matrix))
    touched = [name for i, name in enumerate(window.bundle.vector) if odd[:, i].any()]
    return Faulty(input_to_model(window, matrix), frozenset(touched), "float32", "model_input")


def vector_scaled(window: Window, rng: Rng) -> Faulty:
    """41: a scaler that training did not have runs before the model."""
    at = int(rng.integers(window.served.vector.shape[1]))
    matrix = window.served.vector.copy()
    matrix[:, at] = (matrix[:, at] - rng.uniform(-5, 5)) / rng.uniform(1.5, 12)
    return faulty(input_to_model(window, matrix), window.bundle.vector[at], "unit", stage="model_input")


def rows_of_others(window: Window, rng: Rng) -> Faulty:
    """A batch enters the model in another order than its requests came in."""
    matrix = np.roll(window.served.vector, int(rng.integers(1, 9)), axis=0)
    return Faulty(input_to_model(window, matrix), frozenset(window.bundle.vector), "misaligned", "model_input")


def other_model(window: Window, rng: Rng) -> Faulty:
    """34, 40: another version of the model answers under this one's name."""
    served = window.served
    assert served.prediction is not None
    odds = np.log(served.prediction / (1 - served.prediction)) * rng.uniform(0.8, 1.2) + rng.normal(0, 0.2)
    other = replace(served, prediction=1 / (1 + np.exp(-odds)))
    return faulty(other, "prediction", "other_model", stage="prediction")


def novel_value(window: Window, rng: Rng) -> Faulty:
    """A bug that nobody has seen yet: values of the right size without any relation to the right ones."""
    name = pick(rng, varied(window, numbers(window, floats=True)))
    one = column(window, name)
    there = one.values[one.present]
    low, high = there.min(), there.max()
    kind = int(rng.integers(4))
    if kind == 0:
        values = rng.uniform(low, high, len(one))
    elif kind == 1:
        values = low + (high - low) * (np.sin(one.values * rng.uniform(3, 50)) ** 2)
    elif kind == 2:
        values = low + np.abs(one.values - low) ** rng.uniform(0.3, 0.8) * rng.uniform(0.5, 1.5)
    else:
        values = low + (np.arange(len(one)) * 2654435761 % 9973) / 9973 * (high - low)
    return faulty(stored(window, {name: (values, one.status)}), name, "novel")


def novel_transform(window: Window, rng: Rng) -> Faulty:
    """The same after the transforms."""
    name = pick(rng, ["conditions__crosswind", "conditions__dewpoint_spread", "schedule__log_distance"])
    one = column(window, name)
    with np.errstate(all="ignore"):
        values = np.abs(one.values) ** rng.uniform(0.4, 0.9) + np.cos(one.values * rng.uniform(2, 30))
    return _derived(window, name, values, "novel")


FAULTS: tuple[Callable[[Window, Rng], Faulty | None], ...] = (
    hour_in_other_zone, weekday_from_sunday, weekday_in_utc, other_logarithm, codes_of_another_vocabulary,
    unknown_to_the_server, other_runway, degrees_for_radians, gust_filled_before, absolute_difference, age_off_by_one,
    transform_rounds, fitted_elsewhere, window_of_other_length, window_edge, vector_swapped, vector_rotated,
    vector_filled, vector_in_float32, vector_scaled, rows_of_others, other_model, novel_value, novel_transform,
)  # fmt: skip


def _aggregated(window: Window, view: str, setting: str, value: int) -> Faulty:
    """The view as its own code makes it with another setting, under the times of the right rows."""
    import pyarrow.parquet as pq

    folder = window.world.root / "other_windows"
    folder.mkdir(exist_ok=True)
    path = folder / f"{view}-{value // MINUTE}.parquet"
    if not path.exists():
        before = getattr(flights.sources, setting)
        setattr(flights.sources, setting, value)
        try:
            pq.write_table(getattr(flights.sources, view)(flights_with_instants()), path)
        finally:
            setattr(flights.sources, setting, before)
    declared = window.bundle.view(view)
    moved = replace(declared, source=replace(declared.source, path=str(path)))
    with OfflineStore([moved]) as offline:
        rows = window.published(view, window.marks, offline=offline)
    mine = window.views[view]
    there = (rows.event == mine.event) & (mine.event != NO_TIME)
    features = {
        name: replace(
            one,
            values=np.where(there, rows.features[name].values, one.values),
            status=np.where(there, rows.features[name].status, one.status),
        )
        for name, one in mine.features.items()
    }
    return faulty(of_store(window, {view: replace(mine, features=features)}), view, "window")
