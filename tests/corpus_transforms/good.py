# mypy: ignore-errors
"""Transforms that must be accepted as they are."""

import math
import re
import unicodedata
import zlib
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import partial
from zoneinfo import ZoneInfo

import numpy as np

from skewguard.transforms import rowmap, transform
from tests.corpus_transforms import shared
from tests.corpus_transforms.shared import LEVELS

BERLIN = ZoneInfo("Europe/Berlin")
EDGES = np.array([0.0, 1.0, 5.0, 25.0])
HOLIDAYS = frozenset({(1, 1), (12, 25), (12, 26)})
GROUPS = {"UA": "large", "DL": "large", "9E": "small"}
CODE = re.compile(r"^[A-Z]{3}$")
FARES = (1.0, 2.5, 4.0, 9.0)
LN2 = math.log(2.0)
STOPS = {"the", "a", "of"}
ORDERED = {word: i for i, word in enumerate(sorted(STOPS))}


class Size(Enum):
    SMALL = 1
    LARGE = 2


@transform
def log_distance(distance: float) -> float:
    return np.log1p(np.maximum(distance, 0.0))


@transform
def hour_sin(t: datetime) -> float:
    hours = (t.astype("datetime64[h]") - t.astype("datetime64[D]")) / np.timedelta64(1, "h")
    return np.sin(hours * (2 * np.pi / 24))


@transform
def ratio(a: float, b: float) -> float:
    return np.where(b == 0, 0.0, a / b)


@transform
def weekend(t: datetime) -> bool:
    days = t.astype("datetime64[D]").astype(np.int64)
    return (days + 3) % 7 >= 5


@transform
def cleaned(word: str) -> str:
    return rowmap(lambda w: w.strip().upper(), word, out=str)


@transform
def joined(a: str, b: str) -> str:
    return rowmap(lambda x, y: f"{x}>{y}", a, b, out=str)


@transform
def clipped(x: float) -> float:
    return np.clip(x, -50.0, 50.0)


@transform
def clipped_by_method(x: float) -> float:
    return x.clip(0.0, 1.0).round(2)


@transform
def celsius(f: float) -> float:
    return (f - 32.0) * 5.0 / 9.0


@transform
def binned(x: float) -> int:
    return np.digitize(x, EDGES)


@transform
def binned_elsewhere(x: float) -> int:
    return np.searchsorted(LEVELS, x, side="right")


@transform
def interpolated(x: float) -> float:
    return np.interp(x, EDGES, [0.0, 0.5, 0.75, 1.0])


@transform
def between(x: float) -> bool:
    return (x > 0.0) & (x < 10.0) | (x == -1.0)


@transform
def selected(x: float) -> float:
    return np.select([x < 0.0, x < 10.0], [-1.0, x * 2.0], default=20.0)


@transform
def member(code: int) -> bool:
    return np.isin(code, [1, 2, 3])


@transform
def named(word: str) -> bool:
    return np.isin(word, ["UA", "DL"])


@transform
def equal_text(word: str) -> bool:
    return word == "UA"


@transform
def local_hour(t: datetime) -> int:
    return rowmap(_hour, t)


def _hour(t: datetime) -> int:
    return t.astimezone(BERLIN).hour


@transform
def holiday(t: datetime) -> bool:
    return rowmap(lambda v: (v.month, v.day) in HOLIDAYS, t, out=bool)


@transform
def grouped(word: str) -> str:
    return rowmap(lambda w: GROUPS.get(w, "other"), word, out=str)


@transform
def airport(word: str) -> bool:
    return rowmap(lambda w: CODE.match(w) is not None, word, out=bool)


@transform
def bucket(word: str) -> int:
    return rowmap(lambda w: zlib.crc32(w.encode()) % 1024, word, out=int)


@transform
def halving(x: float) -> float:
    return np.exp(-LN2 * np.abs(x) / 7.0)


@transform
def kilometres(miles: float) -> float:
    return shared.kilometres(miles)


def _scaled(x: float, *, by: float) -> float:
    return x * by


@transform
def partially(x: float) -> float:
    return partial(_scaled, by=3.0)(x)


@transform
def guarded(word: str) -> float:
    return rowmap(_number, word)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@transform
def words(text: str) -> int:
    return rowmap(lambda s: len([w for w in s.lower().split() if w not in STOPS]), text, out=int)


@transform
def by_rank(text: str) -> int:
    return rowmap(lambda s: ORDERED.get(s, -1), text, out=int)


@transform
def distinct(text: str) -> str:
    return rowmap(lambda s: "".join(sorted(set(s))), text, out=str)


@transform
def plain_letters(text: str) -> str:
    return rowmap(lambda s: unicodedata.normalize("NFKD", s).casefold(), text, out=str)


@transform
def distance(lat1: float, lon1: float, lat2: float, lon2: float) -> float:
    p, q = np.radians(lat1), np.radians(lat2)
    h = np.sin((q - p) / 2) ** 2 + np.cos(p) * np.cos(q) * np.sin(np.radians(lon2 - lon1) / 2) ** 2
    return 2 * 6371.0 * np.arcsin(np.sqrt(np.minimum(h, 1.0)))


@transform
def summed(a: float, b: float, c: float) -> float:
    total = a
    for column, weight in ((b, 0.5), (c, 0.25)):
        total = total + column * weight
    return total


@transform
def later(t: datetime) -> datetime:
    return t + np.timedelta64(90, "m")


@transform
def next_day(t: datetime) -> datetime:
    return rowmap(lambda v: v + timedelta(days=1), t, out=datetime)


@transform
def age(born: datetime, at: datetime) -> float:
    return (at - born) / np.timedelta64(1, "D") / 365.25


@transform
def since_epoch(t: datetime) -> int:
    return rowmap(lambda v: int((v - datetime(2000, 1, 1, tzinfo=UTC)).total_seconds()), t, out=int)


@transform
def of_integers(a: int, b: int) -> int:
    return np.where(b != 0, a // np.where(b == 0, 1, b), -1)


@transform
def sized(x: float) -> int:
    return np.where(x > 100.0, Size.LARGE.value, Size.SMALL.value)


@transform
def reused(a: float, b: float) -> float:
    return ratio(a, b) + celsius(a)


@transform
def negated(flag: bool) -> bool:
    return ~flag


@transform
def as_number(flag: bool) -> float:
    return flag.astype(float)


@transform
def filled(x: float) -> float:
    return np.nan_to_num(x, posinf=0.0, neginf=0.0)


@transform
def constant_beside(x: float) -> float:
    return np.full_like(x, 3.0)


@transform
def looked_up(code: int) -> float:
    return rowmap(FARES.__getitem__, np.clip(code, 0, 3), out=float)
