"""A clock of another time zone, or a calendar that is off by a day."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skewguard.causes.default_fill import whole
from skewguard.causes.evidence import Evidence, Explanation, Floats, Numbers
from skewguard.values import Array, Dtype

_QUARTER = 900.0
_CYCLES = ((24, "hour of the day", 1.0), (1440, "minute of the day", 60.0), (86400, "second of the day", 3600.0))
_ZONE_HOURS = 14
_DIGITS = 6


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """An instant, or a number that tells one, that is off by whole hours: one number of them, or two (summer time)."""
    served, truth = evidence.served, evidence.truth
    if served is None or truth is None:
        return
    if truth.dtype is Dtype.TIMESTAMP:
        at = np.flatnonzero(served.present & truth.present)
        seconds = (served.values[at] - truth.values[at]).astype(np.int64) / 1e6
        yield from _instants(evidence, at, seconds)
        return
    numbers = evidence.numbers
    if numbers is None:
        return
    counted = whole(numbers.served, served.dtype) and whole(numbers.truth, truth.dtype)
    if np.median(numbers.truth) > 1e8:  # seconds since 1970, or milliseconds, or microseconds
        scale = 10.0 ** (3 * max(0, int((np.log10(np.median(numbers.truth)) - 8) // 3)))
        yield from _instants(evidence, numbers.at, (numbers.served - numbers.truth) / scale)
        return
    known = evidence.observed.truth
    values = numbers.truth if known is None else known.values[known.present]
    for cycle, name, hour in _CYCLES:
        if values.min() < 0 or values.max() >= cycle or values.max() < 0.8 * cycle or numbers.served.max() >= cycle:
            continue
        yield from _hands(evidence, numbers, (float(cycle), name, hour), counted)
        return
    if counted:
        yield from _weekdays(evidence)


def _hands(
    evidence: Evidence, numbers: Numbers, clock: tuple[float, str, float], counted: bool
) -> Iterator[Explanation]:
    """A number that goes round with the day. What is no whole number must begin anew with it, or come from a clock."""
    cycle, name, hour = clock
    off = np.round((numbers.served - numbers.truth) % cycle, _DIGITS) % cycle
    shifts, counts = np.unique(off, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    best = float(shifts[order[0]])
    if not best or best % (hour / 4):
        return
    hits = off == best
    told, bits = _hours(_signed(best / hour)), 5.0
    wraps = _wraps(numbers.served - numbers.truth, hits)
    if not (wraps or (hits.sum() >= 5 and (counted or _of_a_clock(evidence)))):
        return
    summer = [one for one in order[1:3] if abs(_signed((shifts[one] - best) / hour)) == 1 and shifts[one]]
    if summer and counts[summer[0]] > 2:
        hits |= off == shifts[summer[0]]
        told, bits = f"{told} or {_hours(_signed(float(shifts[summer[0]]) / hour))}", 8.0
    yield Explanation(
        "timezone", f"the {name} was taken {told}: another time zone", evidence.mask(numbers.at[hits]), bits
    )


def _wraps(off: Floats, hits: Array) -> bool:
    """Whether some pass midnight and others do not."""
    return len(np.unique(np.round(off[hits], _DIGITS))) > 1


def _of_a_clock(evidence: Evidence) -> bool:
    """Whether the feature says that it is an hour, or is computed from an instant."""
    bundle = evidence.pairs.bundle
    spec = next((derived for derived in bundle.derived if derived.full_name == evidence.feature), None)
    request = {field.name: field.dtype for field in bundle.request}
    inputs = spec.inputs if spec else ()
    dated = any((bundle.dtypes.get(name) or request.get(name)) is Dtype.TIMESTAMP for name in inputs)
    return dated or "hour" in evidence.feature.lower()


def _signed(hours: float) -> float:
    """Of a day's hours the nearer way round."""
    return (hours + _ZONE_HOURS - 4) % 24 - (_ZONE_HOURS - 4)


def _instants(evidence: Evidence, at: np.ndarray, seconds: np.ndarray) -> Iterator[Explanation]:
    """Offsets of instants in seconds."""
    if not len(at):
        return
    shifts, counts = np.unique(seconds, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    first = float(shifts[order[0]])
    hits = seconds == first
    if first and first % 86400 == 0:
        days = first / 86400
        yield Explanation("off_by_day", f"served = truth {days:+g} days", evidence.mask(at[hits]), 9.0)
        return
    if first % _QUARTER or not first or abs(first) > _ZONE_HOURS * 3600:
        yield Explanation("clock", f"served = truth {first:+g} s", evidence.mask(at[hits]), 26.0)
        return
    what = f"the instant was taken {_hours(first / 3600)}: another time zone"
    second = float(shifts[order[1]]) if len(order) > 1 else 0.0
    if second and abs(second - first) == 3600 and second % _QUARTER == 0:
        both = hits | (seconds == second)
        if both.sum() > hits.sum() + 2:
            what = (
                f"the instant was taken {_hours(first / 3600)} or {_hours(second / 3600)}: a time zone with summer time"
            )
            yield Explanation("timezone", what, evidence.mask(at[both]), 9.0)
            return
    yield Explanation("timezone", what, evidence.mask(at[hits]), 6.0)


def _weekdays(evidence: Evidence) -> Iterator[Explanation]:
    """Days of the week or the month that are off by one, around the end as well."""
    numbers, truth = evidence.numbers, evidence.observed.truth
    if numbers is None or truth is None:
        return
    values = np.unique(truth.values[truth.present])
    for first, last, name in ((0, 6, "day of the week"), (1, 7, "day of the week"), (1, 12, "month")):
        if len(values) < 4 or values.min() < first or values.max() > last or values.max() < last - 1:
            continue
        length = last - first + 1
        off = (numbers.served - numbers.truth) % length
        hits = np.isin(off, (1, length - 1))
        step = 1 if (off == 1).sum() >= (off == length - 1).sum() else length - 1
        hits = off == step
        if hits.sum() >= 5 and len(np.unique((numbers.served - numbers.truth)[hits])) > 1:
            what = f"the {name} is off by one"
            yield Explanation("off_by_day", what, evidence.mask(numbers.at[hits]), 6.0)
            return


def _hours(hours: float) -> str:
    return f"{abs(hours):g} h {'ahead' if hours > 0 else 'behind'}"
