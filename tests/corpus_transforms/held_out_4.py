# mypy: ignore-errors
"""Written as a fourth blind set after the third had been used to mend the checks, and run once before anything was
changed for them: names say what must happen."""

import collections
import csv
import datetime
import difflib
import email.utils
import fnmatch
import functools
import getpass
import heapq
import html
import io
import itertools
import math
import os
import platform
import random
import re
import textwrap
import time
import timeit
import urllib.parse
import zoneinfo
from dataclasses import dataclass
from datetime import timedelta, timezone
from typing import ClassVar, NamedTuple

import numpy as np

from skewguard.transforms import rowmap, transform

# -- bad --------------------------------------------------------------------------------------------------------------


@transform
def bad_average_weights(price: float, qty: float) -> float:
    return price - np.average(price, weights=qty)


@transform
def bad_divide_by_norm_method(x: float) -> float:
    return x / np.sqrt((x**2).sum())


@transform
def bad_trapezoid(x: float) -> float:
    return x / np.trapezoid(np.abs(x))


@transform
def bad_heap_top(x: float) -> bool:
    top = heapq.nlargest(3, x)
    return rowmap(lambda v: v in top, x, out=bool)


@transform
def bad_groupby_runs(word: str) -> int:
    runs = [len(list(g)) for _, g in itertools.groupby(word)]
    return np.repeat(runs, runs)


@transform
def bad_islice_head(x: float) -> float:
    return x - next(itertools.islice(x, 0, None))


@transform
def bad_min_by_key(word: str) -> str:
    shortest = min(word, key=len)
    return rowmap(lambda w: w + shortest, word, out=str)


@transform
def bad_if_in_column(word: str) -> int:
    return rowmap(len, word, out=int) if "UA" in word else np.zeros(1, dtype=int)


@transform
def bad_triangular(x: float) -> float:
    return np.tri(3) @ x


@transform
def bad_apply_along(x: float) -> float:
    return np.apply_along_axis(lambda column: column - column[0], 0, x)


@transform
def bad_piecewise(x: float) -> float:
    return np.piecewise(x, [x < 0, x >= 0], [lambda v: v - v.min(), lambda v: v])


@transform
def bad_choose_rows(code: int) -> float:
    return np.choose(code, [0.0, 1.0, 2.0])


@transform
def bad_take_table(code: int) -> float:
    return np.take(np.array([0.1, 0.2, 0.3]), code)


@transform
def bad_index_table(code: int) -> float:
    return np.array([0.1, 0.2, 0.3])[code]


@transform
def bad_nan_policy(x: float) -> float:
    return x if np.isfinite(x).all() else np.zeros_like(x)


@transform
def bad_previous_in_closure(x: float) -> float:
    previous = None

    def delta(v: float) -> float:
        nonlocal previous
        change = 0.0 if previous is None else v - previous
        previous = v
        return change

    return rowmap(delta, x)


class _Seen:
    words: ClassVar[set] = set()

    @classmethod
    def first(cls, word):
        new = word not in cls.words
        cls.words.add(word)
        return new


@transform
def bad_class_level_state(word: str) -> bool:
    return rowmap(_Seen.first, word, out=bool)


@functools.cache
def _started():
    return time.time()


@transform
def bad_cached_start(x: float) -> float:
    return x - _started()


@transform
def bad_list_iterator_default(x: float) -> float:
    def step(v, numbers=itertools.count(1)):
        return v * next(numbers)

    return rowmap(step, x, out=float)


@transform
def bad_shuffle(word: str) -> str:
    return rowmap(lambda w: "".join(random.sample(w, len(w))), word, out=str)


@transform
def bad_user_name(word: str) -> bool:
    return rowmap(lambda w: w == getpass.getuser(), word, out=bool)


@transform
def bad_node(x: float) -> float:
    return x if platform.node().startswith("prod") else -x


@transform
def bad_timer(x: float) -> float:
    return x + timeit.default_timer() * 0.0


@transform
def bad_formatdate(word: str) -> str:
    return rowmap(lambda w: w + email.utils.formatdate(), word, out=str)


@transform
def bad_fromtimestamp(seconds: float) -> int:
    return rowmap(lambda s: datetime.datetime.fromtimestamp(s).hour if 0 <= s < 2**31 else 0, seconds, out=int)


@transform
def bad_available_zones(word: str) -> bool:
    return rowmap(lambda w: w in zoneinfo.available_timezones(), word, out=bool)


_ENVIRONMENT = {k.lower(): v for k, v in os.environ.items() if k.startswith("FEATURE_")}


@transform
def bad_environment_table(word: str) -> str:
    return rowmap(lambda w: _ENVIRONMENT.get(w, w), word, out=str)


def _load():
    with io.open("/etc/hostname") as file:
        return file.read()


_HOST = _load() if os.path.exists("/etc/hostname") else ""


@transform
def bad_host_at_import(x: float) -> float:
    return x + len(_HOST)


@transform
def bad_intern_identity(word: str) -> bool:
    return rowmap(lambda w: id(w) == id("UA"), word, out=bool)


@transform
def bad_sum_of_set(tags: str) -> float:
    return rowmap(lambda t: sum({1e16, 1.0, -1e16} | {float(len(t))}), tags, out=float)


@transform
def bad_zip_set(tags: str) -> str:
    return rowmap(lambda t: str(dict(zip(set(t), range(99)))), tags, out=str)


@transform
def bad_regex_findall_first(text: str) -> int:
    return rowmap(lambda s: int(re.findall(r"\d+", s)[0]), text, out=int)


@transform
def bad_log_of_zero(x: float) -> float:
    return rowmap(lambda v: math.log10(abs(v)), x, out=float)


@transform
def bad_split_unpack(text: str) -> str:
    def last(s: str) -> str:
        first, second = s.split(" ")
        return second

    return rowmap(last, text)


@transform
def bad_ord(word: str) -> int:
    return rowmap(ord, word, out=int)


@transform
def bad_url_port(url: str) -> int:
    return rowmap(lambda u: urllib.parse.urlsplit(u).port or 0, url, out=int)


@transform
def bad_month_shift(t: datetime.datetime) -> datetime.datetime:
    return rowmap(lambda v: v.replace(month=v.month % 12 + 1), t, out=datetime.datetime)


@transform
def bad_int_of_float(x: float) -> int:
    return rowmap(lambda v: int(v), x, out=int)


@transform
def bad_extra_row(x: float) -> float:
    return np.append(x, 0.0)


@transform
def bad_column_vector(x: float) -> float:
    return x[:, None] * 1.0


# -- good -------------------------------------------------------------------------------------------------------------


class Tariff(NamedTuple):
    base: float
    per_km: float

    def fare(self, km):
        return self.base + self.per_km * km


CITY = Tariff(2.5, 1.2)
LISBON = zoneinfo.ZoneInfo("Europe/Lisbon")
PATTERNS = {"mail": re.compile(r"@"), "phone": re.compile(r"^\+?\d")}
STATES = dict(zip(("NY", "NJ", "CT"), range(3)))
GRID = np.linspace(0.0, 1.0, 11)
SIN = tuple(math.sin(k) for k in range(8))


@dataclass(frozen=True, slots=True)
class Box:
    low: float
    high: float

    def __contains__(self, v):
        return self.low <= v < self.high


COLD, WARM = Box(-50.0, 10.0), Box(10.0, 60.0)


@transform
def good_fare(km: float) -> float:
    return CITY.fare(np.maximum(km, 0.0))


@transform
def good_contains(temp: float) -> str:
    return rowmap(lambda v: "cold" if v in COLD else "warm" if v in WARM else "?", temp, out=str)


@transform
def good_patterns(text: str) -> str:
    return rowmap(lambda s: next((k for k, p in PATTERNS.items() if p.search(s)), "none"), text, out=str)


@transform
def good_state(code: str) -> int:
    return rowmap(lambda c: STATES.get(c.strip().upper(), -1), code, out=int)


@transform
def good_grid(p: float) -> int:
    return np.searchsorted(GRID, np.clip(p, 0.0, 1.0), side="left")


@transform
def good_table_of_sines(k: int) -> float:
    return rowmap(lambda v: SIN[v % len(SIN)], k, out=float)


@transform
def good_wrap(text: str) -> int:
    return rowmap(lambda s: len(textwrap.wrap(s, 10)), text, out=int)


@transform
def good_escape(text: str) -> str:
    return rowmap(lambda s: html.escape(s.strip()), text, out=str)


@transform
def good_similarity(a: str, b: str) -> float:
    return rowmap(lambda p, q: difflib.SequenceMatcher(None, p, q).ratio(), a, b, out=float)


@transform
def good_quote(text: str) -> str:
    return rowmap(urllib.parse.quote_plus, text, out=str)


@transform
def good_glob_pattern(name: str) -> bool:
    return rowmap(lambda n: fnmatch.fnmatchcase(n, "a*b"), name, out=bool)


@transform
def good_csv_fields(line: str) -> int:
    return rowmap(lambda s: s.count(",") + 1 if s else 0, line, out=int)


@transform
def good_counter_most_common(word: str) -> str:
    def most(w: str) -> str:
        counts = collections.Counter(w)
        return min(counts, key=lambda c: (-counts[c], c)) if counts else ""

    return rowmap(most, word)


@transform
def good_deque_tail(word: str) -> str:
    return rowmap(lambda w: "".join(collections.deque(w, maxlen=3)), word, out=str)


@transform
def good_heap_of_letters(word: str) -> str:
    return rowmap(lambda w: "".join(heapq.nsmallest(2, w)), word, out=str)


@transform
def good_groupby_letters(word: str) -> str:
    return rowmap(lambda w: "".join(f"{k}{len(list(g))}" for k, g in itertools.groupby(w)), word, out=str)


@transform
def good_weekday_hours(t: datetime.datetime) -> float:
    def hours(v: datetime.datetime) -> float:
        local = v.astimezone(LISBON)
        monday = local.date() - timedelta(days=local.weekday())
        return (local.date() - monday).days * 24 + local.hour + local.minute / 60

    return rowmap(hours, t)


@transform
def good_utc_offset(t: datetime.datetime) -> float:
    return rowmap(lambda v: v.astimezone(LISBON).utcoffset().total_seconds() / 3600, t, out=float)


@transform
def good_from_seconds(seconds: int) -> datetime.datetime:
    start = np.datetime64("2020-01-01T00:00:00", "us")
    return start + (np.clip(seconds, 0, 10**9) * 1_000_000).astype("timedelta64[us]")


@transform
def good_minutes_between(a: datetime.datetime, b: datetime.datetime) -> float:
    return np.abs((b - a) / np.timedelta64(1, "m"))


@transform
def good_fixed_zone(t: datetime.datetime) -> int:
    return rowmap(lambda v: v.astimezone(timezone(timedelta(hours=-5))).hour, t, out=int)


@transform
def good_numeric_ladder(x: float) -> float:
    y = np.where(np.isinf(x), 0.0, x)
    for low, high in ((0.0, 1.0), (1.0, 10.0), (10.0, 100.0)):
        y = np.where((y >= low) & (y < high), (y - low) / (high - low), y)
    return y


@transform
def good_relu_chain(a: float, b: float) -> float:
    return np.fmax(0.0, np.fmin(a, 6.0)) - np.copysign(0.5, b)


@transform
def good_integer_log2(n: int) -> int:
    return rowmap(lambda v: max(v, 1).bit_length() - 1, n, out=int)


@transform
def good_luhn(number: str) -> bool:
    def valid(s: str) -> bool:
        digits = [int(c) for c in s if c in "0123456789"]
        total = sum(d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(reversed(digits)))
        return bool(digits) and total % 10 == 0

    return rowmap(valid, number)


@transform
def good_gcd(a: int, b: int) -> int:
    return rowmap(lambda p, q: math.gcd(p % 1000, q % 1000), a, b, out=int)


@transform
def good_logaddexp(a: float, b: float) -> float:
    return np.logaddexp(np.clip(a, -50, 50), np.clip(b, -50, 50))


@transform
def good_lambda_table(kind: str, x: float) -> float:
    return rowmap(lambda k, v: {"half": v / 2, "double": v * 2}.get(k, v), kind, x, out=float)


@transform
def good_recursion(n: int) -> int:
    def digits(v: int) -> int:
        return v if v < 10 else v % 10 + digits(v // 10)

    return rowmap(lambda v: digits(abs(v)), n, out=int)
