"""A clock of another time zone, or a calendar that is off by a day."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skewguard.causes.default_fill import whole
from skewguard.causes.evidence import Evidence, Explanation
from skewguard.values import Dtype

_QUARTER = 900.0
_CYCLES = ((24, "hour of the day", 1.0), (1440, "minute of the day", 60.0), (86400, "second of the day", 3600.0))


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
    if numbers is None or not whole(numbers.served, served.dtype) or not whole(numbers.truth, truth.dtype):
        return
    if np.median(numbers.truth) > 1e8:  # seconds since 1970, or milliseconds, or microseconds
        scale = 10.0 ** (3 * max(0, int((np.log10(np.median(numbers.truth)) - 8) // 3)))
        yield from _instants(evidence, numbers.at, (numbers.served - numbers.truth) / scale)
        return
    whole_truth = evidence.observed.truth
    values = numbers.truth if whole_truth is None else whole_truth.values[whole_truth.present]
    for cycle, name, hour in _CYCLES:
        if values.min() < 0 or values.max() >= cycle or values.max() < 0.8 * cycle or numbers.served.max() >= cycle:
            continue
        off = (numbers.served - numbers.truth) % cycle
        shifts, counts = np.unique(off, return_counts=True)
        best = float(shifts[counts.argmax()])
        hits = off == best
        wraps = len(np.unique((numbers.served - numbers.truth)[hits])) > 1
        if best % (hour / 4) == 0 and best and (wraps or hits.sum() >= 5):
            hours = best / hour - (24 if best / hour > 14 else 0)
            what = f"the {name} was taken {_hours(hours)}: another time zone"
            yield Explanation("timezone", what, evidence.mask(numbers.at[hits]), 5.0)
        return
    yield from _weekdays(evidence)


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
    if first % _QUARTER or not first or abs(first) > 14 * 3600:
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
