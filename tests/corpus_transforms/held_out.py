# mypy: ignore-errors
"""Written when everything else stood, and run once before anything was changed for them: names say what must happen."""

import collections
import copy
import datetime as dtm
import hashlib
import math
import operator
import os.path
import statistics
import time
from datetime import datetime, timezone
from decimal import Decimal
from functools import reduce
from operator import itemgetter
from time import monotonic as ticks
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy import where as choose
from numpy.random import default_rng

from skewguard.transforms import rowmap, transform


@transform
def bad_statistics(x: float) -> float:
    return x - statistics.fmean(x)


@transform
def bad_method_through_name(x: float) -> float:
    f = np.ndarray.mean
    return x - f(x)


@transform
def bad_builtin_sum(x: float) -> float:
    return x / (sum(x) + 1.0)


@transform
def bad_reduce(x: float) -> float:
    return x - reduce(max, x)


@transform
def bad_itemgetter(x: float) -> float:
    return x - itemgetter(0)(x)


@transform
def bad_counter(word: str) -> int:
    counts = collections.Counter(word)
    return rowmap(lambda w: counts[w], word, out=int)


@transform
def bad_clip_by_own_range(x: float) -> float:
    return np.clip(x, np.percentile(x, 1), np.percentile(x, 99))


@transform
def bad_is_sorted(x: float) -> float:
    return np.where(x[1:] > x[:-1], 1.0, 0.0)


@transform
def bad_all_close(x: float) -> float:
    return x * 2.0 if np.allclose(x, 0.0) else x


@transform
def bad_linspace(x: float) -> float:
    return x + np.linspace(0, 1, x.shape[0])


@transform
def bad_arange(x: float) -> float:
    return x + np.arange(len(x))


@transform
def bad_norm(x: float) -> float:
    return x / np.linalg.norm(x)


@transform
def bad_einsum(a: float, b: float) -> float:
    return np.einsum("i,i->i", a, b) + np.einsum("i,i->", a, b) * 1e-12


@transform
def bad_fft(x: float) -> float:
    return np.abs(np.fft.fft(x))


@transform
def bad_length_hint(x: float) -> float:
    return x if operator.length_hint(x) < 100 else x + 1.0


@transform
def bad_dunder_length(x: float) -> float:
    return x if x.__len__() < 2000 else x + 1.0


@transform
def bad_bytes(x: float) -> float:
    return x + len(x.tobytes()) * 0.0


@transform
def bad_format(x: float) -> float:
    return np.where(x > 0, float(len(f"{x}")), x)


@transform
def bad_assert(x: float) -> float:
    assert (x < 1e300).all()
    return x


@transform
def bad_while(x: float) -> float:
    while np.max(x) > 1.0:
        x = x / 2.0
    return x


@transform
def bad_match(x: float) -> float:
    match x:
        case np.ndarray():
            return x - np.min(x)
    return x


@transform
def bad_alias_of_clock(x: float) -> float:
    return x + ticks() * 0.0 + int(ticks()) % 2


@transform
def bad_clock_module_inside(x: float) -> float:
    import time as clock

    return x + clock.time()


@transform
def bad_now_in_helper(born: datetime) -> int:
    return rowmap(_years, born)


def _years(born: datetime) -> int:
    return _this_year() - born.year


def _this_year():
    return dtm.datetime.now(tz=timezone.utc).year


@transform
def bad_generator_of_chance(x: float) -> float:
    return x + default_rng(3).normal()


SHARED = default_rng(5)


@transform
def bad_shared_generator(x: float) -> float:
    return x + SHARED.normal()


class Model:
    def __init__(self):
        self.calls = 0

    def __call__(self, value: float) -> float:
        self.calls += 1
        return value + (self.calls > 1000)


MODEL = Model()


@transform
def bad_callable_with_state(x: float) -> float:
    return rowmap(MODEL, x, out=float)


def _make():
    last = 0.0

    def smooth(value: float) -> float:
        nonlocal last
        last = 0.5 * last + value
        return last

    return smooth


SMOOTH = _make()


@transform
def bad_closure_with_state(x: float) -> float:
    return rowmap(SMOOTH, x)


@transform
def bad_string_hash_bucket(word: str) -> int:
    return rowmap(lambda w: w.__hash__() % 10, word, out=int)


@transform
def bad_set_pop(word: str) -> str:
    return rowmap(lambda w: ({"n", "s", "e", "w"} - set(w)).pop() if w else "", word, out=str)


@transform
def bad_max_over_set(word: str) -> str:
    return rowmap(lambda w: max({"aa", "bb", "cc"}, key=len), word, out=str)


@transform
def bad_file_exists(x: float) -> float:
    return x + os.path.exists("/etc/hosts")


@transform
def bad_local_time(t: datetime) -> int:
    return rowmap(lambda v: time.localtime(v.timestamp()).tm_hour, t, out=int)


@transform
def bad_naive_now(t: datetime) -> float:
    return rowmap(lambda v: (datetime.utcnow() - v.replace(tzinfo=None)).total_seconds(), t, out=float)


@transform
def bad_split_without_guard(word: str) -> str:
    return rowmap(lambda w: w.split("-")[1], word, out=str)


@transform
def bad_sqrt_of_negative(x: float) -> float:
    return rowmap(math.sqrt, x, out=float)


@transform
def bad_key_error(word: str) -> int:
    return rowmap({"a": 1, "b": 2}.__getitem__, word, out=int)


@transform
def bad_two_dimensional(a: float, b: float) -> float:
    return np.column_stack([a, b]).max(axis=1)


@transform
def bad_wrong_output(word: str) -> float:
    return rowmap(str.upper, word, out=str)


@transform
def bad_deepcopy(x: float) -> float:
    y = copy.deepcopy(x)
    y[y < 0] = 0.0
    return y


@transform
def bad_trigger_deep_in_batch(x: float) -> float:
    return np.where(np.isin(31337.25, x), x + 1.0, x)


# -- good -------------------------------------------------------------------------------------------------------------


class Limits(NamedTuple):
    low: float
    high: float


WIND = Limits(3.0, 25.0)
TOKYO = ZoneInfo("Asia/Tokyo")
WEIGHTS = {"a": 0.5, "b": 0.25}
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@transform
def good_named_tuple(wind: float) -> float:
    return np.clip(wind, WIND.low, WIND.high)


@transform
def good_alias(x: float) -> float:
    return choose(x > 0, np.sqrt(np.abs(x)), 0.0)


@transform
def good_month(t: datetime) -> str:
    return rowmap(lambda v: MONTHS[v.astimezone(TOKYO).month - 1], t, out=str)


@transform
def good_polynomial(x: float) -> float:
    out = 0.0 * x
    for power, weight in enumerate((1.0, 0.5, 0.25)):
        out = out + weight * x**power
    return out


@transform
def good_hash(word: str) -> int:
    return rowmap(lambda w: int(hashlib.sha256(w.encode()).hexdigest()[:8], 16), word, out=int)


@transform
def good_weight(word: str) -> float:
    return rowmap(lambda w: sum(WEIGHTS.get(c, 0.0) for c in w), word, out=float)


@transform
def good_missing_number(word: str) -> float:
    return rowmap(lambda w: float(w) if w.isdecimal() and w.isascii() else None, word, out=float)


@transform
def good_decimal(x: float) -> str:
    return rowmap(lambda v: str(Decimal(repr(v)).quantize(Decimal("0.01"))) if abs(v) < 1e9 else "big", x, out=str)


@transform
def good_sigmoid(x: float) -> float:
    return 1.0 / (1.0 + np.exp(-x))


@transform
def good_same_day(a: datetime, b: datetime) -> bool:
    return a.astype("datetime64[D]") == b.astype("datetime64[D]")


@transform
def good_minutes(a: datetime, b: datetime) -> int:
    return (b - a) // np.timedelta64(1, "m")


@transform
def good_nested(word: str, x: float) -> float:
    def weigh(w: str, v: float) -> float:
        return v * len(w) if w else 0.0

    return rowmap(weigh, word, x)


@transform
def good_flags(a: bool, b: bool) -> int:
    return a.astype(np.int64) + 2 * b.astype(np.int64)


@transform
def good_log_bucket(x: float) -> int:
    return np.floor(np.log10(np.clip(np.abs(x), 1e-3, 1e6))).astype(np.int64)


@transform
def good_domain(mail: str) -> str:
    return rowmap(lambda m: m.rpartition("@")[2].lower(), mail, out=str)


@transform
def good_hypot(a: float, b: float) -> float:
    return np.hypot(a, b) / np.float64(2.0)


@transform
def good_modulo(x: float) -> float:
    return np.mod(x, 360.0)


@transform
def good_divmod(minutes: int) -> int:
    hours, rest = divmod(minutes, 60)
    return hours * 100 + rest


@transform
def good_iso_week(t: datetime) -> int:
    return rowmap(lambda v: v.isocalendar().week, t, out=int)
