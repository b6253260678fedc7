"""Why two values differ: hypotheses on the values themselves, the most particular first. None knows Feast's defects."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from skewguard.workflows.doctor.cells import alike, is_nan, raised, shown
from skewguard.workflows.doctor.diagnosis import Cause

_EXACT = 2**53


@dataclass(frozen=True, slots=True)
class Seen:
    """One value on two sides. `offline` and `online` may be exceptions.

    `earlier`: values of older rows of the key; `same_event`: earlier versions of the newest event; `tied`: all rows of
    one event; `beside`: the row's other features online; `others`: what other keys have; `late`: the newest row arrived
    after a first materialization; `age`, `ttl`: of the newest row; `declared`: the dtype's name; `transformed`: why the
    view is computed on one side only.
    """

    offline: Any
    online: Any
    declared: str = ""
    earlier: tuple[Any, ...] = ()
    same_event: tuple[Any, ...] = ()
    tied: tuple[Any, ...] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[Any, ...] = ()
    late: bool = False
    age: timedelta | None = None
    ttl: timedelta | None = None
    transformed: str = ""


@dataclass(frozen=True, slots=True)
class Named:
    """A cause in a sentence, and what to do."""

    cause: Cause
    message: str
    remedy: str


_STORE = "or skewguard's online store (docs/feast-online-store.md)"
_OURS = "or use skewguard's stores on both sides (docs/feast-offline-store.md)"


def explain(seen: Seen) -> Named:
    """The first hypothesis that explains the difference; UNKNOWN where none does."""
    for hypothesis in _HYPOTHESES:
        if named := hypothesis(seen):
            return named
    return Named(
        Cause.UNKNOWN,
        f"offline gives {shown(seen.offline)}, online {shown(seen.online)}, and no known cause explains it",
        "compare the source's rows for the key of the example with what was materialized",
    )


def _error(seen: Seen) -> Named | None:
    sides = [
        f"{name} raises {raised(value)}"
        for name, value in (("offline", seen.offline), ("online", seen.online))
        if isinstance(value, Exception)
    ]
    if not sides:
        return None
    remedy = "no row of this kind can be had on that side: change the declared type, or clean the source before it"
    return Named(Cause.ERROR, " and ".join(sides), remedy)


def _transformed(seen: Seen) -> Named | None:
    if not seen.transformed:
        return None
    return Named(Cause.TRANSFORMED, seen.transformed, "transform before the source is written, or on demand")


def _expired(seen: Seen) -> Named | None:
    if seen.offline is not None or seen.online is None or seen.ttl is None or seen.age is None or seen.age <= seen.ttl:
        return None
    return Named(
        Cause.TTL,
        f"the TTL of {_span(seen.ttl)} holds in training and is ignored online: a row {_span(seen.age)} old is served",
        f"compare event times in the service before you use a value, {_STORE}",
    )


def _span(duration: timedelta) -> str:
    """`1 day`, `1 day, 1:00:00`."""
    return str(duration).removesuffix(", 0:00:00")


def _version(seen: Seen) -> Named | None:
    if not any(alike(seen.online, one) for one in seen.same_event):
        return None
    return Named(
        Cause.CORRECTION,
        "the corrected row was dropped: online still has the first version of that event",
        f"give a correction a later event time, rewrite the key, {_STORE}",
    )


def _tie(seen: Seen) -> Named | None:
    if not all(any(alike(side, one) for one in seen.tied) for side in (seen.offline, seen.online)):
        return None
    return Named(
        Cause.TIE,
        "of several rows of one event the two sides take different ones: the created time does not decide",
        f"keep one row per key and event in the source, {_OURS}",
    )


def _late(seen: Seen) -> Named | None:
    if not seen.late or not (seen.online is None or any(alike(seen.online, one) for one in seen.earlier)):
        return None
    return Named(
        Cause.LATE,
        "a row that arrived late, with an event before the end of the last materialization, never comes online",
        f"materialize a window that reaches back over the latest arrivals, {_STORE}",
    )


def _narrow(seen: Seen) -> Named | None:
    pairs = list(zip(_floats(seen.offline), _floats(seen.online), strict=False))
    if not pairs or len(_floats(seen.offline)) != len(_floats(seen.online)):
        return None
    if not all(a == b or float(np.float32(a)) == float(np.float32(b)) for a, b in pairs if math.isfinite(a)):
        return None
    if not any(a != b for a, b in pairs):
        return None
    return Named(
        Cause.FLOAT32,
        "one side has float32, the other the source's double",
        f"declare Float64, write the source in float32, {_OURS}",
    )


def _floats(value: Any) -> list[float]:
    if isinstance(value, float):
        return [value]
    return [one for one in value if isinstance(one, float)] if isinstance(value, list) else []


def _seconds(seen: Seen) -> Named | None:
    if not (isinstance(seen.offline, datetime) and isinstance(seen.online, datetime)):
        return None
    if seen.offline.replace(microsecond=0) != seen.online.replace(microsecond=0):
        return None
    return Named(
        Cause.SECONDS,
        "times are cut to whole seconds online and keep their fraction in training",
        "write whole seconds into the source, or the instant as Int64 microseconds",
    )


def _digits(seen: Seen) -> Named | None:
    numbers = [one for one in (seen.offline, seen.online) if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(numbers) < 2 or not all(math.isfinite(one) and abs(one) >= _EXACT - 1 for one in numbers):
        return None
    if float(numbers[0]) != float(numbers[1]):
        return None
    return Named(
        Cause.DIGITS,
        "digits of an integer beyond 2^53 are lost: it passed through a float, beside a null",
        f"declare String for identifiers, fill nulls in the source, {_OURS}",
    )


def _truncated(seen: Seen) -> Named | None:
    for one, other in ((seen.offline, seen.online), (seen.online, seen.offline)):
        fraction = isinstance(one, float) and math.isfinite(one) and not one.is_integer()
        if fraction and isinstance(other, int) and other == math.trunc(one):
            return Named(
                Cause.TRUNCATED,
                f"declared {seen.declared}: the fraction is cut off on one side only",
                "declare Float64, or round in the source",
            )
    return None


def _text(seen: Seen) -> Named | None:
    if not isinstance(seen.online, str) or isinstance(seen.offline, str | bool) or seen.offline is None:
        return None
    if not isinstance(seen.offline, int | float) or not _is_number(seen.online, float(seen.offline)):
        return None
    way = " by way of a float" if "." in seen.online else ""
    return Named(
        Cause.TEXT,
        f"a number of the source is a text online{way}, and stays a number in training",
        f"write the column as text, declare its own type, {_OURS}",
    )


def _is_number(text: str, value: float) -> bool:
    try:
        return float(text) == value
    except ValueError:
        return False


def _nan(seen: Seen) -> Named | None:
    if not (_has_nan(seen.offline) or _has_nan(seen.online)):
        return None
    if not alike(_without_nan(seen.offline), _without_nan(seen.online)):
        return None
    return Named(
        Cause.NAN, "NaN on one side is null on the other: code that tells them apart differs", "write null, not NaN"
    )


def _has_nan(value: Any) -> bool:
    return any(is_nan(one) for one in value) if isinstance(value, list) else is_nan(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(one) for one in value]
    return None if is_nan(value) else value


def _filled(seen: Seen) -> Named | None:
    """A null of one side that the other has filled, in a list or alone."""
    one, other = seen.offline, seen.online
    if isinstance(one, list) and isinstance(other, list):
        pairs = list(zip(one, other, strict=False))
        differing = [pair for pair in pairs if not alike(*pair)]
        if len(one) != len(other) or not all(None in pair for pair in differing):
            return None
        what = f"a null element of a list is {shown(next(x for pair in differing for x in pair if x is not None))}"
    elif one is None and other in ("", 0, False):
        what = f"a null is {shown(other)}"
    else:
        return None
    return Named(Cause.NULL, f"{what} on the other side", "fill it in the source, on both sides alike")


def _collision(seen: Seen) -> Named | None:
    if seen.online is None or isinstance(seen.online, bool):
        return None
    other = next((name for name, value in seen.beside.items() if alike(value, seen.online)), "")
    if not other:
        return None
    return Named(
        Cause.COLLISION,
        f"online gives the value of {other}: both names share one field of the store (a hash collision)",
        f"rename one of the two features, {_STORE}",
    )


def _stale(seen: Seen) -> Named | None:
    if not any(alike(seen.online, one) for one in seen.earlier):
        return None
    return Named(
        Cause.STALE,
        "an older row of the key is served",
        "materialize more often; declare what is harmless with tags=contract(max_lag=...)",
    )


def _other_key(seen: Seen) -> Named | None:
    for side, value in (("offline", seen.offline), ("online", seen.online)):
        other = seen.online if side == "offline" else seen.offline
        if value is not None and not isinstance(value, bool) and any(alike(value, one) for one in seen.others):
            return Named(
                Cause.WRONG_ROW,
                f"{side} gives the row of another key ({shown(value)} for {shown(other)})",
                f"map every join key of the view by name, {_OURS}",
            )
    return None


def _missing(seen: Seen) -> Named | None:
    if seen.online is not None or seen.offline is None:
        return None
    return Named(
        Cause.MISSING,
        "training has a value and the online store none",
        "materialize the range in which the row lies, and look at what the last run wrote",
    )


_HYPOTHESES: tuple[Callable[[Seen], Named | None], ...] = (
    _error,
    _transformed,
    _expired,
    _version,
    _tie,
    _late,
    _nan,
    _seconds,
    _digits,
    _truncated,
    _text,
    _narrow,
    _filled,
    _collision,
    _stale,
    _other_key,
    _missing,
)
