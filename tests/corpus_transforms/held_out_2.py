# mypy: ignore-errors
"""Written as a second blind set, in the idioms of notebooks and pull requests, and run once before anything was changed
for them: names say what must happen."""

import datetime
import functools
import locale
import math
import os
import random
import re
import socket
import sys
import time
from collections import Counter, OrderedDict, defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, getcontext
from fractions import Fraction
from functools import lru_cache, partial, reduce
from itertools import accumulate, count
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from zoneinfo import ZoneInfo

import numpy as np
import numpy.ma as ma

from skewguard.transforms import rowmap, transform

# -- bad: other rows --------------------------------------------------------------------------------------------------


def _zscore(values, eps=1e-9):
    mu = sum(values) / len(values)
    sd = math.sqrt(sum((v - mu) ** 2 for v in values) / len(values))
    return (values - mu) / (sd + eps)


@transform
def bad_zscore_helper(price: float) -> float:
    return _zscore(price)


@transform
def bad_where_mean(price: float) -> float:
    return np.where(price > np.nanmean(price), 1.0, 0.0)


@transform
def bad_cumulative_share(amount: float) -> float:
    return np.cumsum(amount) / np.sum(amount)


@transform
def bad_rank_pct(score: float) -> float:
    order = score.argsort()
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(score))
    return ranks / len(score)


@transform
def bad_lag_feature(sales: float) -> float:
    lagged = np.roll(sales, 1)
    lagged[0] = 0.0
    return sales - lagged


@transform
def bad_shift_by_slice(sales: float) -> float:
    return np.concatenate([[0.0], sales[:-1]])


@transform
def bad_reduce_mean(x: float) -> float:
    return x - functools.reduce(lambda a, b: a + b, x) / len(x)


@transform
def bad_masked_assignment(temp: float) -> float:
    out = temp.copy()
    out[out < -40] = np.nan
    return np.nan_to_num(out)


@transform
def bad_fill_with_median(age: float) -> float:
    median = np.median(age[~np.isnan(age)])
    return np.where(np.isnan(age), median, age)


@transform
def bad_winsorize(x: float) -> float:
    lo, hi = np.quantile(x, (0.01, 0.99))
    return np.clip(x, lo, hi)


@transform
def bad_one_hot_codes(colour: str) -> int:
    cats = sorted(set(colour))
    return np.array([cats.index(c) for c in colour])


@transform
def bad_target_like_count(shop: str) -> int:
    freq = Counter(shop)
    return np.array([freq[s] for s in shop])


@transform
def bad_max_normalised(x: float) -> float:
    return x / max(x)


@transform
def bad_masked_array_mean(x: float) -> float:
    masked = ma.masked_invalid(x)
    return (x - masked.mean()).filled(0.0)


@transform
def bad_unique_flag(user: str) -> bool:
    values, counts = np.unique(user, return_counts=True)
    return np.isin(user, values[counts == 1])


@transform
def bad_outer_distance(x: float) -> float:
    return np.abs(np.subtract.outer(x, x)).min(axis=1)


@transform
def bad_softmax(logit: float) -> float:
    e = np.exp(logit - np.max(logit))
    return e / e.sum()


@transform
def bad_accumulate(x: float) -> float:
    return np.array(list(accumulate(x, max)))


@transform
def bad_first_seen(user: str) -> bool:
    seen = set()
    return rowmap(lambda u: u not in seen and not seen.add(u), user, out=bool)


@transform
def bad_moving_average(x: float) -> float:
    window = deque(maxlen=3)

    def mean(v: float) -> float:
        window.append(v)
        return sum(window) / len(window)

    return rowmap(mean, x)


@transform
def bad_broadcast_table(x: float) -> float:
    return x * np.array([1.0, 2.0, 3.0])


@transform
def bad_gradient(x: float) -> float:
    return np.gradient(x)


@transform
def bad_polyfit(x: float, y: float) -> float:
    slope, intercept = np.polyfit(x, y, 1)
    return y - (slope * x + intercept)


@transform
def bad_pad_to_length(x: float) -> float:
    if x.ndim == 1 and x.size < 4:
        return np.pad(x, (0, 4 - x.size))
    return x


# -- bad: clock, chance, environment, state ------------------------------------------------------------------------


def _is_recent(stamp) -> bool:
    return (datetime.datetime.now(datetime.timezone.utc) - stamp).days < 30


@transform
def bad_recent(signup: datetime.datetime) -> bool:
    return rowmap(_is_recent, signup)


@transform
def bad_current_year(year: int) -> int:
    return time.gmtime().tm_year - year


@transform
def bad_seeded_noise(x: float) -> float:
    rng = np.random.RandomState(42)
    return x + rng.rand()


@transform
def bad_random_seeded_global(x: float) -> float:
    random.seed(0)
    return x + random.random()


@transform
def bad_feature_flag(x: float) -> float:
    if os.environ.get("USE_LOG") == "1":
        return np.log1p(np.abs(x))
    return x


@transform
def bad_hash_bucket(user: str) -> int:
    return rowmap(lambda u: abs(hash(u)) % 1000, user, out=int)


@transform
def bad_tuple_hash(user: str) -> int:
    return rowmap(lambda u: hash((u, "salt")) & 255, user, out=int)


@transform
def bad_set_first(tags: str) -> str:
    return rowmap(lambda t: next(iter(set(t.split(",")))), tags, out=str)


@transform
def bad_set_to_list(tags: str) -> str:
    return rowmap(lambda t: list({w.lower() for w in t.split()} | {""})[0], tags, out=str)


_CACHE = {}


def _memo(user):
    if user not in _CACHE:
        _CACHE[user] = len(_CACHE)
    return _CACHE[user]


@transform
def bad_memo(user: str) -> int:
    return rowmap(_memo, user, out=int)


_N = count()


@transform
def bad_row_number(user: str) -> int:
    return rowmap(lambda u: next(_N), user, out=int)


@lru_cache(maxsize=None)
def _expensive(city: str) -> float:
    return len(city) * 1.5


@transform
def bad_cached_lookup(city: str) -> float:
    return rowmap(_expensive, city, out=float)


@transform
def bad_open_vocabulary(word: str) -> int:
    with open(os.path.join(os.path.dirname(__file__), "vocab.txt")) as f:
        vocab = f.read().split()
    return rowmap(lambda w: vocab.index(w) if w in vocab else -1, word, out=int)


@transform
def bad_locale_number(text: str) -> float:
    def parse(t: str) -> float | None:
        with suppress(ValueError):
            return locale.atof(t)
        return None

    return rowmap(parse, text, out=float)


@transform
def bad_hostname(x: float) -> float:
    return x + len(socket.gethostname())


@transform
def bad_argv(x: float) -> float:
    return x * len(sys.argv)


_TOTALS = defaultdict(float)


@transform
def bad_running_per_key(user: str, amount: float) -> float:
    def add(u: str, a: float) -> float:
        _TOTALS[u] += a
        return _TOTALS[u]

    return rowmap(add, user, amount)


@dataclass
class _Scaler:
    mean: float = 0.0
    n: int = 0

    def partial_fit_transform(self, v: float) -> float:
        self.n += 1
        self.mean += (v - self.mean) / self.n
        return v - self.mean


_SCALER = _Scaler()


@transform
def bad_online_scaler(x: float) -> float:
    return rowmap(_SCALER.partial_fit_transform, x, out=float)


@transform
def bad_decimal_context(x: float) -> str:
    getcontext().prec += 1
    return rowmap(lambda v: str(Decimal(1) / Decimal(3)) if v > 0 else "", x, out=str)


@transform
def bad_local_strftime(t: datetime.datetime) -> str:
    return rowmap(lambda v: time.strftime("%H", time.localtime(v.timestamp())), t, out=str)


@transform
def bad_file_age(x: float) -> float:
    return x + Path(__file__).stat().st_mtime % 2


# -- bad: behaviour ---------------------------------------------------------------------------------------------------


@transform
def bad_parse_int(code: str) -> int:
    return rowmap(lambda c: int(c[2:]), code, out=int)


@transform
def bad_dict_lookup(code: str) -> float:
    rates = {"EUR": 1.0, "USD": 1.1}
    return rowmap(lambda c: rates[c], code, out=float)


@transform
def bad_regex_group(flight: str) -> str:
    return rowmap(lambda f: re.match(r"([A-Z]+)(\d+)", f).group(1), flight, out=str)


@transform
def bad_declared_int(x: float) -> int:
    return np.floor(x / 10.0)


@transform
def bad_returns_none_sometimes(x: int) -> int:
    return rowmap(lambda v: v if v >= 0 else None, x, out=int)


@transform
def bad_factorial(n: int) -> float:
    return rowmap(lambda v: float(math.factorial(v)) if v < 200 else 0.0, n, out=float)


@transform
def bad_strptime(day: str) -> int:
    return rowmap(lambda d: datetime.datetime.strptime(d, "%Y-%m-%d").weekday(), day, out=int)


# -- good -------------------------------------------------------------------------------------------------------------


NYC = ZoneInfo("America/New_York")
BINS = (0.0, 18.0, 35.0, 65.0)
RATES = MappingProxyType({"EUR": 1.0, "USD": 1.1})
SETTINGS = SimpleNamespace(alpha=0.3)
WORD = re.compile(r"\w+")
BUSY = frozenset(range(7, 10)) | frozenset(range(16, 20))


@dataclass(frozen=True)
class Weights:
    bias: float = 0.5
    slopes: tuple = field(default=(0.1, -0.2))


MODEL = Weights()


@transform
def good_age_bucket(age: float) -> int:
    return np.digitize(age, BINS)


@transform
def good_linear(a: float, b: float) -> float:
    return MODEL.bias + MODEL.slopes[0] * a + MODEL.slopes[1] * b


@transform
def good_rush_hour(t: datetime.datetime) -> bool:
    return rowmap(lambda v: v.astimezone(NYC).hour in BUSY, t, out=bool)


@transform
def good_exchange(currency: str, amount: float) -> float:
    return rowmap(lambda c: RATES.get(c, 0.0), currency, out=float) * amount


@transform
def good_select(temp: float) -> int:
    return np.select([temp < 0, temp < 15, temp < 25], [0, 1, 2], default=3)


@transform
def good_errstate_division(a: float, b: float) -> float:
    return np.where(np.abs(b) > 1e-12, a / np.where(b == 0.0, 1.0, b), 0.0)


@transform
def good_word_count(text: str) -> int:
    return rowmap(lambda s: len(WORD.findall(s)), text, out=int)


@transform
def good_initials(name: str) -> str:
    return rowmap(lambda n: "".join(p[0].upper() for p in n.split()), name, out=str)


def _safe_ratio(num, den, default=0.0):
    bad = den == 0
    return np.where(bad, default, num / np.where(bad, 1, den))


@transform
def good_ctr(clicks: int, shown: int) -> float:
    return _safe_ratio(clicks.astype(np.float64), shown.astype(np.float64))


def _parse(text: str) -> float | None:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return None


@transform
def good_parse_price(text: str) -> float:
    return rowmap(_parse, text)


@transform
def good_round_money(x: float) -> float:
    def cents(v: float) -> float | None:
        if not math.isfinite(v) or abs(v) > 1e15:
            return None
        return float(Decimal(str(v)).quantize(Decimal("0.01"), rounding=ROUND_HALF_UP))

    return rowmap(cents, x, out=float)


@transform
def good_month_ends(t: datetime.datetime) -> bool:
    tomorrow = t.astype("datetime64[D]") + np.timedelta64(1, "D")
    return tomorrow.astype("datetime64[M]") != t.astype("datetime64[M]")


@transform
def good_cyclic(month: int) -> float:
    return np.cos(2.0 * np.pi * (month - 1) / 12.0)


@transform
def good_bits(flags: int) -> bool:
    return (flags >> 3) & 1 == 1


@transform
def good_mix(a: int, b: int) -> int:
    h = a * 2654435761 ^ (b << 7)
    return h & 0xFFFF


@transform
def good_partial_power(x: float) -> float:
    square = partial(np.power, x)
    return square(2.0)


@transform
def good_ewm_decay(days: float) -> float:
    return SETTINGS.alpha * np.exp(-np.maximum(days, 0.0) / 30.0)


@transform
def good_fraction(x: int) -> str:
    return rowmap(lambda v: str(Fraction(v, 12)), x, out=str)


@transform
def good_haversine_helper(lat: float, lon: float) -> float:
    return _haversine(np.radians(lat), np.radians(lon), math.radians(40.64), math.radians(-73.78))


def _haversine(p, q, p0, q0):
    a = np.sin((p - p0) / 2) ** 2 + np.cos(p) * math.cos(p0) * np.sin((q - q0) / 2) ** 2
    return 12742.0 * np.arcsin(np.sqrt(np.clip(a, 0.0, 1.0)))


@transform
def good_f_string(carrier: str, number: int) -> str:
    return rowmap(lambda c, n: f"{c.strip():>2}{n:04d}", carrier, number, out=str)


@transform
def good_ordered_lookup(level: str) -> int:
    order = OrderedDict(low=0, mid=1, high=2)
    return rowmap(lambda v: order.get(v, -1), level, out=int)


@transform
def good_reduce_columns(a: float, b: float, c: float) -> float:
    return reduce(np.maximum, [a, b, c])


@transform
def good_sum_columns(a: float, b: float, c: float) -> float:
    return sum([a, b, c]) / 3


@transform
def good_dict_of_functions(kind: str) -> float:
    weights = {"a": lambda n: n * 2.0, "b": lambda n: n + 1.0}
    return rowmap(lambda k: weights.get(k, float)(len(k)), kind, out=float)


@transform
def good_logit(p: float) -> float:
    q = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(q / (1 - q))


@transform
def good_piecewise_by_where(x: float) -> float:
    return np.where(x < 1, x, np.where(x < 10, 1 + np.log(np.maximum(x, 1)), 4.0))


@transform
def good_match_case(word: str) -> int:
    def code(w: str) -> int:
        match w.lower():
            case "yes" | "y":
                return 1
            case "no" | "n":
                return 0
        return -1

    return rowmap(code, word)


@transform
def good_epoch_days(t: datetime.datetime) -> int:
    return t.astype("datetime64[D]").astype(np.int64)


@transform
def good_iso(t: datetime.datetime) -> str:
    return rowmap(lambda v: v.astimezone(NYC).date().isoformat(), t, out=str)


@transform
def good_sign_flip(x: float) -> float:
    return -np.sign(x) * np.sqrt(np.abs(x))


@transform
def good_constant_comprehension(x: float) -> float:
    coefficients = [1 / math.factorial(k) for k in range(6)]
    total = np.zeros_like(x)
    for c in reversed(coefficients):
        total = total * x + c
    return total


@transform
def good_any_of_columns(a: bool, b: bool, c: bool) -> bool:
    return a | b | c
