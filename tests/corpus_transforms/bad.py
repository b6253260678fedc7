# mypy: ignore-errors
"""Transforms that must be refused, each for one reason."""

import contextlib
import datetime as dt
import functools
import itertools
import json
import locale
import math
import os
import platform
import random
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from skewguard.transforms import rowmap, transform
from tests.corpus_transforms import shared

# -- other rows ---------------------------------------------------------------------------------------------------


@transform
def centred(x: float) -> float:
    return x - x.mean()


@transform
def standardised(x: float) -> float:
    return (x - np.mean(x)) / np.std(x)


@transform
def ranked(x: float) -> float:
    return np.argsort(np.argsort(x)) * 1.0


@transform
def share_of_total(x: float) -> float:
    return x / np.sum(x)


@transform
def share_by_reduce(x: float) -> float:
    return x / np.add.reduce(x)


@transform
def running_total(x: float) -> float:
    return np.cumsum(x)


@transform
def step(x: float) -> float:
    return np.diff(x, prepend=x[0])


@transform
def previous_row(x: float) -> float:
    return np.roll(x, 1)


@transform
def min_max(x: float) -> float:
    low, high = x.min(), x.max()
    return (x - low) / (high - low + 1e-9)


@transform
def only_large_batches(x: float) -> float:
    if len(x) > 500:
        return x - 1.0
    return x


@transform
def large_by_shape(x: float) -> float:
    return x * 2.0 if x.shape[0] > 1 else x * 2.0000001


@transform
def large_by_size(x: float) -> float:
    return x + (x.size > 64)


@transform
def any_negative(x: float) -> float:
    if (x < 0).any():
        return np.abs(x)
    return x


@transform
def rare_value(x: float) -> float:
    if np.any(x == 777.125):
        return x + 1.0
    return x


@transform
def truth_of_column(x: float) -> float:
    return x if x > 0 else -x


@transform
def chained(x: float) -> bool:
    return 0 < x < 10


@transform
def builtin_max(a: float, b: float) -> float:
    return max(a, b)


@transform
def median_fill(x: float) -> float:
    return np.where(np.isinf(x), np.nanmedian(x), x)


@transform
def quantile_bin(x: float) -> int:
    return np.digitize(x, np.quantile(x, [0.25, 0.5, 0.75]))


@transform
def frequency(word: str) -> int:
    words = list(word)
    return np.array([words.count(w) for w in words])


@transform
def label_encoded(word: str) -> int:
    return np.unique(word, return_inverse=True)[1].astype(np.int64)


@transform
def factorised(word: str) -> int:
    codes = {}
    return rowmap(lambda w: codes.setdefault(w, len(codes)), word, out=int)


@transform
def matrix_product(a: float, b: float) -> float:
    return np.stack([a, b], axis=1) @ np.array([0.3, 0.7])


@transform
def dot_with_itself(x: float) -> float:
    return x * np.dot(x, x)


@transform
def sorted_values(x: float) -> float:
    return np.sort(x)


@transform
def reversed_values(x: float) -> float:
    return x[::-1]


@transform
def first_row(x: float) -> float:
    return x - x[0]


@transform
def smoothed(x: float) -> float:
    return np.convolve(x, np.ones(3) / 3, mode="same")


@transform
def loop_with_memory(x: float) -> float:
    out, last = [], 0.0
    for value in x:
        last = 0.9 * last + value
        out.append(last)
    return np.array(out)


@transform
def caught(x: float) -> float:
    try:
        return x - x.mean()
    except:  # noqa: E722
        return x


@transform
def suppressed(x: float) -> float:
    y = x
    with contextlib.suppress(BaseException):
        y = x - np.mean(x)
    return y


@transform
def by_type(x: float) -> float:
    if isinstance(x, np.ndarray):
        return x - x.mean()
    return x


@transform
def by_exact_type(x: float) -> float:
    if type(x) is np.ndarray:
        return x - x.mean()
    return x + 0.0


@transform
def by_attribute(x: float) -> float:
    if hasattr(x, "mean"):
        return x - x.mean()
    return x


@transform
def one_number(x: float) -> float:
    return np.full(1, math.log1p(float(x[0])))


@transform
def padded_memory(x: float) -> float:
    y = np.empty_like(x)
    return np.where(x > 0, x, y)


@transform
def written_out(x: float) -> float:
    y = np.zeros_like(x)
    np.add(x, 1.0, out=y)
    return y


@transform
def in_place(x: float) -> float:
    x += 1.0
    return x


@transform
def helper_in_another_module(x: float) -> float:
    return shared.demeaned(x)


@transform
def neighbour_in_closure(x: float, word: str) -> float:
    return rowmap(lambda w: len(w) / x.size, word, out=float)


@transform
def table_of_column(x: float) -> float:
    return np.interp(0.5 * x, np.sort(x), np.sort(x))


@transform
def vectorized(x: float) -> float:
    return np.vectorize(lambda v: v + random.random())(x)


@transform
def half_precision(x: float) -> float:
    return np.log10(np.abs(x).astype(np.float16)).astype(np.float64)


@transform
def text_width(word: str) -> str:
    return np.char.ljust(word.astype(str), 4)


# -- clock, chance, environment, files, state -------------------------------------------------------------------------


@transform
def age_now(born: datetime) -> float:
    return rowmap(lambda b: (datetime.now(UTC) - b).days / 365.25, born, out=float)


@transform
def age_today(year: int) -> int:
    return dt.date.today().year - year


@transform
def age_numpy(born: datetime) -> float:
    return (np.datetime64("now") - born) / np.timedelta64(1, "D")


@transform
def by_getattr(x: float) -> float:
    return x + getattr(time, "ti" + "me")()


@transform
def jittered(x: float) -> float:
    return x + random.gauss(0, 1)


@transform
def jittered_numpy(x: float) -> float:
    return x + np.random.default_rng().normal()


RNG = random.Random(7)


@transform
def seeded(x: float) -> float:
    return x * RNG.random()


@transform
def unique_id(word: str) -> str:
    return rowmap(lambda w: f"{w}-{uuid.uuid4()}", word, out=str)


@transform
def by_environment(x: float) -> float:
    return x * float(os.environ.get("SCALE", "1.0"))


SCALE = float(os.getenv("CORPUS_SCALE", "2.0"))


@transform
def by_environment_at_import(x: float) -> float:
    return x * SCALE


STARTED = time.time()


@transform
def since_start(x: float) -> float:
    return x - STARTED


TABLE = json.loads(Path(__file__).with_name("table.json").read_text()) if Path("nowhere").exists() else {"a": 1}


@transform
def from_file_at_import(word: str) -> int:
    return rowmap(lambda w: TABLE.get(w, 0), word, out=int)


@transform
def from_file(word: str) -> int:
    return rowmap(lambda w: len(w) + Path(".").exists(), word, out=int)


@transform
def hashed(word: str) -> int:
    return rowmap(lambda w: hash(w) % 100, word, out=int)


@transform
def set_order(word: str) -> str:
    return rowmap(lambda w: "".join({"x", "y", "z"} | set(w)), word, out=str)


VOCABULARY = {"red", "green", "blue"}
INDEX = {w: i for i, w in enumerate(VOCABULARY)}


@transform
def set_order_at_import(word: str) -> int:
    return rowmap(lambda w: INDEX.get(w, -1), word, out=int)


CALLS = 0


@transform
def counted(x: float) -> float:
    global CALLS
    CALLS += 1
    return x + CALLS


SEEN = {}


@transform
def remembered(word: str) -> int:
    return rowmap(lambda w: SEEN.setdefault(w, len(SEEN)), word, out=int)


COUNTER = itertools.count()


@transform
def numbered(x: float) -> float:
    return x + next(COUNTER)


@transform
def own_attribute(x: float) -> float:
    own_attribute.function.calls = getattr(own_attribute.function, "calls", 0) + 1
    return x * own_attribute.function.calls


@transform
def default_memory(x: float, _seen: float = []) -> float:  # noqa: B006
    _seen.append(1)
    return x + len(_seen)


@functools.lru_cache
def _slow(word: str) -> int:
    return len(word)


@transform
def cached(word: str) -> int:
    return rowmap(_slow, word, out=int)


RATE = 1.0


def set_rate(value):
    global RATE
    RATE = value


@transform
def rebound(x: float) -> float:
    return x * RATE


RATES = {"EUR": 1.0}


def load_rates(rates):
    RATES.update(rates)


@transform
def reloaded(currency: str) -> float:
    return rowmap(lambda c: RATES.get(c, 0.0), currency, out=float)


@transform
def by_python_version(x: float) -> float:
    return x * (2.0 if sys.version_info >= (3, 12) else 1.0)


@transform
def by_machine(x: float) -> float:
    return x + (platform.machine() == "x86_64")


@transform
def by_numpy_version(x: float) -> float:
    return np.trunc(x) if np.__version__ < "2" else np.floor(x)


@transform
def by_address(word: str) -> int:
    return rowmap(lambda w: id(w) % 7, word, out=int)


@transform
def local_zone(t: datetime) -> int:
    return rowmap(lambda v: v.astimezone().hour, t, out=int)


@transform
def local_timestamp(t: datetime) -> int:
    return rowmap(lambda v: int(v.replace(tzinfo=None).timestamp()) % 86400, t, out=int)


@transform
def local_language(x: float) -> str:
    return rowmap(lambda v: locale.format_string("%.2f", v), x, out=str)


@transform
def by_folder(x: float) -> float:
    return x * len(os.getcwd())


# -- behaviour --------------------------------------------------------------------------------------------------------


@transform
def raises_on_empty(word: str) -> str:
    return rowmap(lambda w: w[0], word, out=str)


@transform
def raises_on_zero(x: float) -> float:
    return rowmap(lambda v: 1.0 / v, x, out=float)


@transform
def raises_on_text(word: str) -> float:
    return rowmap(float, word, out=float)


@transform
def raises_on_constant(x: float) -> float:
    def scalar(v: float) -> float:
        if v == 4321.5:
            raise ValueError("never")
        return v

    return rowmap(scalar, x)


@transform
def other_dtype(x: float) -> int:
    return x / 2


@transform
def other_type_for_some(x: float) -> int:
    return rowmap(lambda v: int(v) if abs(v) < 100 else v, x, out=int)


@transform
def nothing_for_some(word: str) -> str:
    return rowmap(lambda w: w or None, word, out=str)


@transform
def one_value(x: float) -> float:
    return 1.0


@transform
def a_pair(x: float) -> float:
    return x, x


@transform
def without_type(word: str) -> float:
    return rowmap(lambda w: len(w) or 0.5, word)


@transform
def unknown_zone(t: datetime) -> int:
    return rowmap(lambda v: v.astimezone(ZoneInfo("Europe/Nowhere")).hour, t, out=int)
