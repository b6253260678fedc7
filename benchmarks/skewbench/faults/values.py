"""Faults of single stored values: filled, emptied, in another unit, with fewer digits, another column's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.skewbench.faults.case import Faulty, Rng
from benchmarks.skewbench.faults.parts import NULL, column, faulty, kept, numbers, pick, put, stored, varied
from benchmarks.skewbench.world import Window
from skewguard.values import Array

_UNITS = {
    "weather__wind_speed": (1.609344, 0.44704, 0.868976),
    "weather__wind_gust": (1.609344, 0.44704, 0.868976),
    "weather__visib": (1.609344,),
    "weather__precip": (25.4, 2.54),
    "weather__pressure": (0.0295299830714, 100.0, 0.1),
    "weather__humid": (0.01,),
    "route__late_share_30d": (100.0,),
    "route__cancelled_share_30d": (100.0,),
    "origin_congestion__late_share_1h": (100.0,),
    "origin_congestion__mean_dep_delay_1h": (60.0, 1 / 60),
    "route__mean_arr_delay_30d": (60.0, 1 / 60),
    "tail_departure__dep_delay": (60,),
    "tail_arrival__arr_delay": (60,),
}


def _changed(window: Window, name: str, values: Array, cause: str) -> Faulty:
    return faulty(stored(window, {name: (values, column(window, name).status)}), name, cause)


def unit_changed(window: Window, rng: Rng) -> Faulty:
    """33: one side speaks another unit."""
    name = pick(rng, varied(window, sorted(_UNITS)))
    factor = _UNITS[name][int(rng.integers(len(_UNITS[name])))]
    return _changed(window, name, column(window, name).values * factor, "unit")


def celsius(window: Window, rng: Rng) -> Faulty:
    """33: temperatures in degrees Celsius."""
    name = pick(rng, ["weather__temp", "weather__dewp"])
    return _changed(window, name, (column(window, name).values - 32.0) / 1.8, "unit")


def scaled(window: Window, rng: Rng) -> Faulty:
    """33: a factor that is no unit: a mean over another number of days, a price with tax."""
    name = pick(rng, varied(window, numbers(window, floats=True)))
    factor = float(np.exp(rng.uniform(np.log(1.02), np.log(30.0)))) ** rng.choice([-1, 1])
    return _changed(window, name, column(window, name).values * factor, "unit")


def offset(window: Window, rng: Rng) -> Faulty:
    """33: a constant was added: a base year, a calibration."""
    name = pick(rng, varied(window, numbers(window)))
    one = column(window, name)
    by = (int(rng.integers(1, 60)) if not one.dtype.is_float else float(rng.uniform(0.1, 20))) * int(
        rng.choice([-1, 1])
    )
    return _changed(window, name, one.values + by, "unit")


def sign_flipped(window: Window, rng: Rng) -> Faulty:
    """33: early is positive on one side."""
    name = pick(rng, ["tail_arrival__arr_delay", "tail_departure__dep_delay", "route__mean_arr_delay_30d"])
    return _changed(window, name, -column(window, name).values, "unit")


def null_filled(window: Window, rng: Rng) -> Faulty | None:
    """24: null became 0, a mean or a sentinel."""
    names = [name for name in numbers(window) if (column(window, name).status == NULL).sum() >= 3]
    if not names:
        return None
    name = pick(rng, names)
    one = column(window, name)
    mean = one.values[one.present].mean() if one.present.any() else 7
    fill = [0, -1, -999, mean, round(float(mean), 1)][int(rng.integers(5))]
    if not one.dtype.is_float:
        fill = int(fill)
    return faulty(stored(window, {name: put(one, one.status == NULL, fill)}), name, "null_fill")


def absent_filled(window: Window, rng: Rng) -> Faulty | None:
    """24: a value that is missing for any reason became a constant."""
    names = [name for name in numbers(window) if (~column(window, name).present).sum() >= 3]
    if not names:
        return None
    name = pick(rng, names)
    one = column(window, name)
    fill = int(rng.choice([0, -1, -999, 9999]))
    return faulty(stored(window, {name: put(one, ~one.present, fill)}), name, "null_fill")


def nulled(window: Window, rng: Rng) -> Faulty:
    """49, 27: a value that exists was served as null."""
    name = pick(rng, numbers(window))
    one = column(window, name)
    return faulty(stored(window, {name: (one.values, np.maximum(one.status, NULL))}), name, "nulled")


def constant(window: Window, rng: Rng) -> Faulty:
    """25: one value whatever the truth: a default in the client."""
    name = pick(rng, varied(window, numbers(window)))
    one = column(window, name)
    seen = one.values[one.present]
    value = [0, 1, -1, seen[int(rng.integers(len(seen)))]][int(rng.integers(4))]
    return faulty(stored(window, {name: put(one, np.ones(len(one), dtype=bool), value)}), name, "default")


def as_float32(window: Window, rng: Rng) -> Faulty | None:
    """28: a value went through float32."""
    return _fewer_digits(window, rng, lambda x: x.astype(np.float32).astype(np.float64), "float32")


def as_float16(window: Window, rng: Rng) -> Faulty | None:
    """28: a value was kept in half precision."""
    return _fewer_digits(window, rng, lambda x: x.astype(np.float16).astype(np.float64), "float16")


def rounded(window: Window, rng: Rng) -> Faulty | None:
    """28: a value was rounded in a text or a JSON."""
    digits = int(rng.integers(0, 5))
    return _fewer_digits(window, rng, lambda x: np.round(x, digits), "rounded")


def truncated(window: Window, rng: Rng) -> Faulty | None:
    """29: the fraction was lost."""
    return _fewer_digits(window, rng, np.trunc, "truncated")


def overflowed(window: Window, rng: Rng) -> Faulty:
    """29: a small integer type wrapped."""
    name = pick(rng, ["tail_departure__dep_delay", "tail_arrival__arr_delay", "plane__year", "plane__seats"])
    narrow = np.uint8 if name == "plane__year" and rng.random() < 0.5 else np.int8
    values = column(window, name).values.astype(narrow).astype(np.int64)
    return _changed(window, name, values, "overflow")


def unsigned(window: Window, rng: Rng) -> Faulty:
    """29: negative numbers became large ones."""
    name = pick(rng, ["tail_departure__dep_delay", "tail_arrival__arr_delay"])
    return _changed(window, name, column(window, name).values.astype(np.uint16).astype(np.int64), "overflow")


def clipped(window: Window, rng: Rng) -> Faulty:
    """A value was cut off at a bound."""
    name = pick(rng, varied(window, numbers(window)))
    one = column(window, name)
    bound = np.quantile(one.values[one.present], rng.uniform(0.5, 0.9))
    values = np.minimum(one.values, bound.astype(one.values.dtype))
    return _changed(window, name, np.where(one.present, values, one.values), "clipped")


def swapped(window: Window, rng: Rng) -> Faulty:
    """37: two columns of a view changed places."""
    pairs = [("temp", "dewp"), ("wind_speed", "wind_gust"), ("humid", "temp"), ("wind_dir", "humid")]
    a, b = (f"weather__{name}" for name in pairs[int(rng.integers(len(pairs)))])
    one, other = column(window, a), column(window, b)
    there = one.present | other.present
    found = {a: (np.where(there, other.values, one.values), np.where(there, other.status, one.status)),
             b: (np.where(there, one.values, other.values), np.where(there, one.status, other.status))}  # fmt: skip
    return Faulty(stored(window, found), frozenset({a, b}), "other_feature")


def copied(window: Window, rng: Rng) -> Faulty:
    """37: a column holds another one's values."""
    pairs = [("route__flights_30d", "route__arrived_30d"), ("weather__dewp", "weather__temp"),
             ("origin_congestion__late_share_1h", "route__late_share_30d")]  # fmt: skip
    a, b = pairs[int(rng.integers(len(pairs)))]
    other = column(window, b)
    return faulty(stored(window, {a: kept(other.values, other.status)}), a, "other_feature")


def noisy(window: Window, rng: Rng) -> Faulty:
    """A value carries noise: privacy, jitter, a model's estimate in its place."""
    name = pick(rng, varied(window, numbers(window, floats=True)))
    one = column(window, name)
    spread = float(np.std(one.values[one.present])) * rng.uniform(0.001, 0.2)
    return _changed(window, name, one.values + rng.normal(0, spread, len(one)), "noise")


def counted_twice(window: Window, rng: Rng) -> Faulty:
    """16: events that were delivered twice were counted twice."""
    name = pick(rng, ["origin_congestion__departures_1h", "route__flights_30d", "route__arrived_30d"])
    one = column(window, name)
    return _changed(window, name, one.values + rng.binomial(np.maximum(one.values, 0), rng.uniform(0.1, 1)), "counted")


def late_events_dropped(window: Window, rng: Rng) -> Faulty:
    """17: events that came late never entered the count."""
    name = pick(rng, ["origin_congestion__departures_1h", "route__flights_30d", "route__arrived_30d"])
    one = column(window, name)
    dropped = rng.binomial(np.maximum(one.values, 0), rng.uniform(0.05, 0.5))
    return _changed(window, name, one.values - dropped, "counted")


def zero_for_null_text(window: Window, rng: Rng) -> Faulty:
    """27: not a number where there was one."""
    name = pick(rng, numbers(window, floats=True))
    one = column(window, name)
    return faulty(stored(window, {name: (np.full_like(one.values, np.nan), one.status)}), name, "nulled")


def vocabulary_permuted(window: Window, rng: Rng) -> Faulty:
    """34: another version of a code table: whole numbers are mapped one to one, to others."""
    name = pick(rng, varied(window, ["plane__seats", "plane__year", "plane__engines", "route__flights_30d"]))
    one = column(window, name)
    known = np.unique(one.values[one.present])
    order = np.roll(rng.permutation(len(known)), 1)
    table = dict(zip(known.tolist(), known[order].tolist(), strict=True))
    values = np.array([table.get(v, v) for v in one.values.tolist()], dtype=one.values.dtype)
    return _changed(window, name, values, "vocabulary")


FAULTS: tuple[Callable[[Window, Rng], Faulty | None], ...] = (
    unit_changed, celsius, scaled, offset, sign_flipped, null_filled, absent_filled, nulled, constant, as_float32,
    as_float16, rounded, truncated, overflowed, unsigned, clipped, swapped, copied, noisy, counted_twice,
    late_events_dropped, zero_for_null_text, vocabulary_permuted,
)  # fmt: skip


def _fewer_digits(window: Window, rng: Rng, cut: Callable[[Array], Array], cause: str) -> Faulty | None:
    names = []
    for name in numbers(window, floats=True):
        one = column(window, name)
        with np.errstate(all="ignore"):
            if ((cut(one.values) != one.values) & one.present).sum() >= 3:
                names.append(name)
    if not names:
        return None
    name = pick(rng, names)
    with np.errstate(all="ignore"):
        return _changed(window, name, cut(column(window, name).values), cause)
