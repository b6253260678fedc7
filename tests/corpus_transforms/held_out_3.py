# mypy: ignore-errors
"""Written as a third blind set after the second had been used to mend the checks, and run once before anything was
changed for them: names say what must happen."""

import bisect
import builtins
import calendar
import collections
import contextlib
import decimal
import enum
import functools
import glob
import inspect
import itertools
import json
import logging
import math
import operator
import os
import pickle
import secrets
import statistics
import string
import struct
import sys
import tempfile
import threading
import types
import unicodedata
import uuid
import warnings
import weakref
import zlib
from collections import ChainMap
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from datetime import datetime as dt
from functools import cached_property, singledispatch
from operator import attrgetter, methodcaller
from zoneinfo import ZoneInfo

import numpy as np

from skewguard.transforms import rowmap, transform

# -- bad: other rows --------------------------------------------------------------------------------------------------


@transform
def bad_methodcaller(x: float) -> float:
    return x - methodcaller("mean")(x)


@transform
def bad_getattr_name(x: float) -> float:
    stat = "m" + "ax"
    return x / getattr(x, stat)()


@transform
def bad_operator_getitem(x: float) -> float:
    return x - operator.getitem(x, 0)


@transform
def bad_statistics_median(x: float) -> float:
    return x - statistics.median(x)


@transform
def bad_fsum(x: float) -> float:
    return x / (math.fsum(x) + 1.0)


@transform
def bad_ptp(x: float) -> float:
    return (x - np.min(x)) / np.ptp(x)


@transform
def bad_histogram_bin(x: float) -> int:
    edges = np.histogram_bin_edges(x, bins=4)
    return np.digitize(x, edges)


@transform
def bad_linspace_bins(x: float) -> int:
    return np.searchsorted(np.linspace(x.min(), x.max(), 5), x)


@transform
def bad_all_integers(x: float) -> float:
    if np.all(x == np.floor(x)):
        return np.floor(x)
    return x


@transform
def bad_array_equal(a: float, b: float) -> float:
    return np.zeros_like(a) if np.array_equal(a, b) else a - b


@transform
def bad_try_float(x: float) -> float:
    try:
        return np.full_like(x, float(x))
    except TypeError:
        return x - np.median(x)


@transform
def bad_iterator_zip(a: float, b: float) -> float:
    return np.fromiter((p - q for p, q in zip(a, b)), dtype=float)


@transform
def bad_pairwise(x: float) -> float:
    return np.array([0.0] + [b - a for a, b in itertools.pairwise(x)])


@transform
def bad_isin_other_column(a: int, b: int) -> bool:
    return np.isin(a, b)


@transform
def bad_searchsorted_other(a: float, b: float) -> int:
    return np.searchsorted(a, b)


@transform
def bad_lexsort(a: float, b: float) -> float:
    return np.lexsort((a, b)) * 1.0


@transform
def bad_set_of_column(word: str) -> int:
    vocabulary = {w: i for i, w in enumerate(sorted({*word}))}
    return rowmap(vocabulary.get, word, out=int)


@transform
def bad_join_column(word: str) -> int:
    everything = "|".join(word)
    return rowmap(lambda w: everything.count(w), word, out=int)


@transform
def bad_sort_in_place(x: float) -> float:
    y = np.copy(x)
    y.sort()
    return y


@transform
def bad_flip(x: float) -> float:
    return np.flip(x)


@transform
def bad_view_bytes(x: float) -> int:
    return x.view(np.int64)[::1] % len(x)


@transform
def bad_strides(x: float) -> float:
    return x + x.strides[0] * 0.0 + (x.nbytes > 800)


@transform
def bad_where_positions(x: float) -> float:
    first = np.where(x > 0)[0]
    return x - (first[0] if len(first) else 0)


@transform
def bad_matmul_ones(a: float, b: float) -> float:
    return np.array([a, b]).T @ np.array([0.5, 0.5])


@transform
def bad_vectorized_state(x: float) -> float:
    best = [-math.inf]

    def running(v):
        best[0] = max(best[0], v)
        return best[0]

    return np.vectorize(running)(x)


def _smoothing():
    state = {"s": 0.0}

    def step(v: float) -> float:
        state["s"] = 0.9 * state["s"] + 0.1 * v
        return state["s"]

    return step


@transform
def bad_fresh_state_per_batch(x: float) -> float:
    return rowmap(_smoothing(), x)


@transform
def bad_generator_send(x: float) -> float:
    def totals():
        total = 0.0
        while True:
            total += yield total

    running = totals()
    next(running)
    return rowmap(lambda v: running.send(v), x, out=float)


@transform
def bad_zip_with_counter(word: str) -> int:
    numbers = iter(range(10**9))
    return rowmap(lambda w: next(numbers), word, out=int)


# -- bad: what is no input ---------------------------------------------------------------------------------------------


@transform
def bad_date_today(born: datetime) -> int:
    return rowmap(lambda b: date.today().toordinal() - b.toordinal(), born, out=int)


@transform
def bad_dt_alias(x: float) -> float:
    return x + dt.utcnow().hour


@transform
def bad_np_today(t: datetime) -> int:
    return (np.datetime64("today", "D") - t.astype("datetime64[D]")).astype(np.int64)


_TODAY = datetime.now(timezone.utc)


@transform
def bad_import_time(t: datetime) -> int:
    return rowmap(lambda v: (_TODAY - v).days, t, out=int)


def _default_now(v, now=datetime.now(timezone.utc)):
    return (now - v).days


@transform
def bad_default_argument_clock(t: datetime) -> int:
    return rowmap(lambda v: _default_now(v), t, out=int)


@transform
def bad_secret(x: float) -> float:
    return x + secrets.randbelow(3)


@transform
def bad_uuid_name(word: str) -> str:
    return rowmap(lambda w: str(uuid.uuid1())[:8] + w, word, out=str)


class _Config:
    def __init__(self):
        self.factor = float(os.environ.get("FACTOR", "2"))

    def scale(self, v: float) -> float:
        return v * self.factor


_CONFIG = _Config()


@transform
def bad_config_object(x: float) -> float:
    return rowmap(lambda v: _CONFIG.scale(v), x, out=float)


@dataclass
class _Settings:
    threshold: float = float(os.environ.get("THRESHOLD", "0.5"))


_SETTINGS = _Settings()


@transform
def bad_dataclass_from_environment(x: float) -> float:
    return np.where(x > _SETTINGS.threshold, 1.0, 0.0)


@dataclass
class _Smoother:
    level: float = 0.0

    def __call__(self, v: float) -> float:
        self.level = 0.5 * (self.level + v)
        return self.level


_SMOOTH = _Smoother()


@transform
def bad_callable_dataclass(x: float) -> float:
    return rowmap(lambda v: _SMOOTH(v), x, out=float)


class _Counting(dict):
    def __missing__(self, key):
        self[key] = len(self)
        return self[key]


_IDS = _Counting()


@transform
def bad_missing_dict(word: str) -> int:
    return rowmap(lambda w: _IDS[w], word, out=int)


@transform
def bad_setdefault_argument(word: str) -> int:
    def number(w, table={}):
        return table.setdefault(w, len(table))

    return rowmap(number, word, out=int)


@transform
def bad_function_attribute(x: float) -> float:
    bad_function_attribute_helper.calls += 1
    return x + bad_function_attribute_helper.calls


def bad_function_attribute_helper():
    return None


bad_function_attribute_helper.calls = 0


_LOCAL = threading.local()


@transform
def bad_thread_local(x: float) -> float:
    _LOCAL.n = getattr(_LOCAL, "n", 0) + 1
    return x * _LOCAL.n


@transform
def bad_object_address(word: str) -> int:
    return rowmap(lambda w: len(repr(object())) + int(repr(object())[-4:-1], 16) % 2, word, out=int)


@transform
def bad_sorted_by_hash(tags: str) -> str:
    return rowmap(lambda t: " ".join(sorted(t.split(), key=hash)), tags, out=str)


@transform
def bad_frozenset_text(tags: str) -> str:
    return rowmap(lambda t: str(frozenset(t.split(","))), tags, out=str)


@transform
def bad_set_max_tie(tags: str) -> str:
    return rowmap(lambda t: max(set(t.split()), key=len, default=""), tags, out=str)


@transform
def bad_dict_from_set(tags: str) -> str:
    return rowmap(lambda t: "".join(dict.fromkeys({*t})), tags, out=str)


@transform
def bad_temp_dir(x: float) -> float:
    return x + len(tempfile.gettempdir())


@transform
def bad_glob(x: float) -> float:
    return x + len(glob.glob("*.parquet"))


@transform
def bad_pickle_file(x: float) -> float:
    with contextlib.suppress(OSError), open("model.pkl", "rb") as f:
        return x * pickle.load(f)
    return x


@transform
def bad_logging_level(x: float) -> float:
    return x * (2.0 if logging.getLogger().isEnabledFor(logging.DEBUG) else 1.0)


@transform
def bad_caller(x: float) -> float:
    return x + len(inspect.stack())


@transform
def bad_version_switch(x: float) -> float:
    return np.round(x, 2) if hasattr(np, "float_") else np.trunc(x)


@transform
def bad_byteorder(x: int) -> int:
    return rowmap(lambda v: int.from_bytes((v & 0xFFFF).to_bytes(2, sys.byteorder), "big"), x, out=int)


@transform
def bad_month_name(t: datetime) -> str:
    return rowmap(lambda v: calendar.month_name[v.month], t, out=str)


@transform
def bad_strftime_day(t: datetime) -> str:
    return rowmap(lambda v: v.strftime("%A"), t, out=str)


@transform
def bad_fstring_day(t: datetime) -> str:
    return rowmap(lambda v: f"{v:%a %d}", t, out=str)


@transform
def bad_timestamp_of_naive(t: datetime) -> float:
    return rowmap(lambda v: datetime(v.year, v.month, v.day).timestamp(), t, out=float)


@transform
def bad_precision_of_thread(x: float) -> float:
    with decimal.localcontext() as context:
        return rowmap(lambda v: float(context.create_decimal(repr(v))), x, out=float)


# -- bad: behaviour ---------------------------------------------------------------------------------------------------


@transform
def bad_bytes_of_float(x: float) -> int:
    return rowmap(lambda v: struct.unpack("<i", struct.pack("<f", v))[0], x, out=int)


@transform
def bad_chr(n: int) -> str:
    return rowmap(chr, n, out=str)


@transform
def bad_zero_division_int(a: int, b: int) -> int:
    return rowmap(lambda p, q: p // q, a, b, out=int)


@transform
def bad_index_of_char(word: str) -> int:
    return rowmap(lambda w: string.ascii_lowercase.index(w[:1].lower()), word, out=int)


@transform
def bad_json(text: str) -> int:
    return rowmap(lambda s: len(json.loads(s)), text, out=int)


@transform
def bad_big_int(a: int) -> int:
    return rowmap(lambda v: v * v, a, out=int)


@transform
def bad_timedelta_overflow(days: int) -> datetime:
    return rowmap(lambda d: datetime(2020, 1, 1, tzinfo=timezone.utc) + timedelta(days=d), days, out=datetime)


@transform
def bad_naive_result(t: datetime) -> datetime:
    return rowmap(lambda v: v.replace(tzinfo=None), t, out=datetime)


@transform
def bad_bool_as_float(x: float) -> bool:
    return np.where(x > 0, 1.0, 0.0)


@transform
def bad_scalar_result(x: float) -> float:
    return np.float64(1.0)


# -- good -------------------------------------------------------------------------------------------------------------


Point = collections.namedtuple("Point", "lat lon")  # noqa: PYI024
JFK = Point(40.6413, -73.7781)
TIERS = [0, 100, 1_000, 10_000]
LABELS = ["free", "small", "medium", "large"]
DEFAULTS = ChainMap({"a": 1}, {"b": 2})
STEM = str.maketrans("", "", string.punctuation)
PARIS = ZoneInfo("Europe/Paris")
EPOCH = datetime(2020, 1, 1, tzinfo=timezone.utc)


class Grade(enum.IntEnum):
    LOW = 0
    MID = 1
    HIGH = 2

    @classmethod
    def of(cls, v):
        return cls.HIGH if v > 10 else cls.MID if v > 1 else cls.LOW


@dataclass(frozen=True)
class Curve:
    knee: float = 2.0
    slope: float = 0.25

    def at(self, x):
        return np.where(x < self.knee, x, self.knee + self.slope * (x - self.knee))

    @property
    def top(self):
        return self.knee * 10


CURVE = replace(Curve(), slope=0.5)


@transform
def good_named_tuple_distance(lat: float, lon: float) -> float:
    return np.hypot(lat - JFK.lat, lon - JFK.lon)


@transform
def good_bisect_label(amount: float) -> str:
    return rowmap(lambda v: LABELS[max(bisect.bisect_right(TIERS, v) - 1, 0)], amount, out=str)


@transform
def good_dataclass_method(x: float) -> float:
    return np.minimum(CURVE.at(x), CURVE.top)


@transform
def good_enum_classmethod(x: float) -> int:
    return rowmap(lambda v: int(Grade.of(v)), x, out=int)


@transform
def good_translate(text: str) -> str:
    return rowmap(lambda s: s.translate(STEM).lower().strip(), text, out=str)


@transform
def good_chain_map(key: str) -> int:
    return rowmap(lambda k: DEFAULTS.get(k, 0), key, out=int)


@transform
def good_quiet_division(a: float, b: float) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        r = a / b
    return np.where(np.isfinite(r), r, 0.0)


@transform
def good_crc_bucket(user: str) -> int:
    return rowmap(lambda u: zlib.crc32(u.encode("utf-8")) % 64, user, out=int)


@transform
def good_struct_bits(x: float) -> int:
    return rowmap(lambda v: struct.unpack("<q", struct.pack("<d", v))[0] & 0xFF, x, out=int)


@transform
def good_first_word(text: str) -> str:
    return rowmap(lambda s: (s.split() or [""])[0], text, out=str)


@transform
def good_vowel_share(word: str) -> float:
    def share(w: str) -> float:
        letters = [c for c in w.lower() if c.isalpha()]
        return sum(c in "aeiou" for c in letters) / len(letters) if letters else 0.0

    return rowmap(share, word)


@transform
def good_levenshtein_to_constant(word: str) -> int:
    def distance(w: str, target: str = "delta") -> int:
        row = list(range(len(target) + 1))
        for i, c in enumerate(w, 1):
            previous, row[0] = row[0], i
            for j, d in enumerate(target, 1):
                previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (c != d))
        return row[-1]

    return rowmap(distance, word, out=int)


@transform
def good_count_letters(word: str) -> int:
    def most(w: str) -> int:
        counts = {}
        for c in w:
            counts[c] = counts.get(c, 0) + 1
        return max(counts.values(), default=0)

    return rowmap(most, word, out=int)


@transform
def good_unique_letters(word: str) -> int:
    return rowmap(lambda w: len(set(w)), word, out=int)


@transform
def good_overlap(a: str, b: str) -> float:
    def jaccard(p: str, q: str) -> float:
        one, other = set(p.split()), set(q.split())
        union = one | other
        return len(one & other) / len(union) if union else 0.0

    return rowmap(jaccard, a, b)


@transform
def good_ascii(text: str) -> str:
    def plain(s: str) -> str:
        return "".join(c for c in unicodedata.normalize("NFKD", s) if not unicodedata.combining(c))

    return rowmap(plain, text, out=str)


@transform
def good_weeks(t: datetime) -> int:
    return rowmap(lambda v: (v - EPOCH).days // 7, t, out=int)


@transform
def good_quarter(t: datetime) -> str:
    return rowmap(lambda v: f"{v.astimezone(PARIS):%Y}Q{(v.astimezone(PARIS).month - 1) // 3 + 1}", t, out=str)


@transform
def good_days_in_month(t: datetime) -> int:
    return rowmap(lambda v: calendar.monthrange(v.year, v.month)[1], t, out=int)


@transform
def good_seconds_of_day(t: datetime) -> int:
    return (t - t.astype("datetime64[D]")).astype("timedelta64[s]").astype(np.int64)


@transform
def good_rgb(code: int) -> int:
    red, green, blue = (code >> 16) & 255, (code >> 8) & 255, code & 255
    return (red * 299 + green * 587 + blue * 114) // 1000


@transform
def good_popcount(n: int) -> int:
    return np.bitwise_count(n).astype(np.int64)


@transform
def good_collatz(n: int) -> int:
    def steps(v: int) -> int:
        count = 0
        while v > 1 and count < 100:
            v = v // 2 if v % 2 == 0 else 3 * v + 1
            count += 1
        return count

    return rowmap(steps, n)


@transform
def good_currying(x: float) -> float:
    def affine(a):
        def inner(b):
            return lambda v: a * v + b

        return inner

    return affine(2.0)(1.0)(x)


@transform
def good_pipeline(x: float) -> float:
    steps = (np.abs, np.log1p, functools.partial(np.multiply, 10.0))
    for step in steps:
        x = step(x)
    return x


@transform
def good_kelvin(temp: float) -> float:
    kelvin = temp + 273.15
    kelvin = np.maximum(kelvin, 0.0)
    return kelvin


@transform
def good_sorted_fields(a: str, b: str) -> str:
    return rowmap(lambda p, q: "-".join(sorted((p, q))), a, b, out=str)


@transform
def good_walrus(text: str) -> int:
    return rowmap(lambda s: n if (n := len(s)) < 100 else 100, text, out=int)


@transform
def good_attrgetter(t: datetime) -> int:
    return rowmap(lambda v: attrgetter("minute")(v), t, out=int)


@transform
def good_exception_class(text: str) -> int:
    class NotANumber(Exception):
        pass

    def digits(s: str) -> int:
        if not (s.isascii() and s.isdigit()):
            raise NotANumber(s)
        return int(s[:15])

    def safe(s: str) -> int:
        try:
            return digits(s)
        except NotANumber:
            return -1

    return rowmap(safe, text)


@transform
def good_xor_flags(a: bool, b: bool) -> bool:
    return a ^ b


@transform
def good_tanh_blend(a: float, b: float) -> float:
    w = 0.5 * (1 + np.tanh(a))
    return w * a + (1 - w) * b
