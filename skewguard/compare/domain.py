"""Which values a column ever held: those far outside, absence where there hardly was any, unseen measurements.

A client that sends another unit or a sentinel, and a supplier that does, agree with the offline truth. How much of that
a healthy log brings is learnt from the snapshot: each part of it, in order of time, is held against all that came
before. A column that keeps bringing new values, or grows, has no domain. New texts and codes are news of the world (an
airline, a route): drift, and no finding; a measurement that was rounded the same way for months is of an instrument.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewguard.answer import Served
from skewguard.compare.evidence import Hits, Tolerance
from skewguard.definitions import Bundle
from skewguard.findings import Finding, Kind
from skewguard.snapshot.hashing import hash_rows, whole
from skewguard.values import NO_TIME, Array, Column, Dtype, Mask, Status

PARTS = 8
LEAST_PART = 200
"""So many rows must each of the `PARTS` have."""

_FIRST = 2
_GRID = 0.005
_CLOSED = 0.01
"""A part may bring so many new measurements to a grid that is known; temperatures of another season are more."""
_NOTHING = Tolerance()


@dataclass(frozen=True)
class Domain:
    """What one column held, and how many rows may have a value that is not `known`, one below `low` or above `high`, or
    none; the empty tolerance where the snapshot teaches nothing."""

    known: pa.Array
    unseen: Tolerance
    low: float
    high: float
    outside: Tolerance
    absent: Tolerance


def domains(bundle: Bundle, training: Served) -> dict[str, Domain]:
    """Of every request field and stored feature of which there are enough rows."""
    order = np.argsort(training.spine.as_of, kind="stable")
    found: dict[str, Domain] = {}
    for rows, columns in _seen(bundle, training, order):
        if len(rows) >= PARTS * LEAST_PART:
            part = np.arange(len(rows)) * PARTS // len(rows)
            found |= {
                name: _domain(column, part, measured=name not in training.spine.request)
                for name, column in columns.items()
            }
    return found


class Domains:
    """The log held against the domains: one hypothesis, whose evidence is shared among all that is looked at."""

    def __init__(self, bundle: Bundle, held: dict[str, Domain]) -> None:
        self.bundle, self.held = bundle, held
        self._hits: list[tuple[Hits, Tolerance]] = []
        self._at: dict[str, Hits] = {}

    def add(self, served: Served) -> None:
        """One more batch."""
        for rows, columns in _seen(self.bundle, served, np.arange(len(served.spine))):
            some = Served(served.spine.take(rows), {}, {}, np.empty((0, 0)))
            for name, column in columns.items():
                if name in self.held:
                    self._count(some, name, column)

    def _count(self, some: Served, name: str, column: Column) -> None:
        for tolerance, hit, what in _signs(self.held[name], column):
            if name + what not in self._at:
                self._at[name + what] = Hits(Kind.CONSTRAINT, name, what)
                self._hits.append((self._at[name + what], tolerance))
            got = [str(column.value(row)) for row in np.flatnonzero(hit)[:3]]
            self._at[name + what].add(some, hit, got, ["as in the snapshot"] * len(got))

    def findings(self) -> list[Finding]:
        """One per column and sign that is more frequent than is tolerated."""
        among = math.log10(max(len(self._hits), 1))
        found = [hits.beyond(tolerance) for hits, tolerance in self._hits]
        return [replace(one, evidence=max(one.evidence - among, 0.0)) for one in found if one is not None]


def _seen(bundle: Bundle, served: Served, order: Array) -> Iterator[tuple[Array, dict[str, Column]]]:
    """(rows, columns of those rows): requests with their fields, then each view's source rows, once each, with their
    features; in `order`. Many requests read one source row, and one odd row of it is one. No instants: always new."""
    yield order, _judged({field.name: served.spine.request[field.name] for field in bundle.request}, order)
    for view in bundle.views:
        held = served.views[view.name]
        keys = [served.spine.keys[key.ask] for key in view.keys]
        mine = order[(held.event[order] != NO_TIME) & (held.status[order] <= Status.NULL)]
        lanes = hash_rows([*keys, whole(held.event)], len(order))[mine, 0]
        first = mine[np.sort(np.unique(lanes, return_index=True)[1])]
        yield first, _judged({view.full_name(name): column for name, column in held.features.items()}, first)


def _judged(columns: Mapping[str, Column], rows: Array) -> dict[str, Column]:
    return {name: column.take(rows) for name, column in columns.items() if column.dtype is not Dtype.TIMESTAMP}


def _signs(one: Domain, column: Column) -> Iterator[tuple[Tolerance, Mask, str]]:
    """(tolerance, rows, what is wrong with them) of everything that the snapshot teaches of a column."""
    if one.unseen.shares:
        known = pc.is_in(_values(column), value_set=one.known).to_numpy(zero_copy_only=False)
        yield one.unseen, np.asarray(column.present & ~known), "values were never seen in the snapshot"
    if one.outside.shares:
        beyond = (column.values < one.low) | (column.values > one.high)
        yield one.outside, np.asarray(column.present & beyond), "values lie far outside all those of the snapshot"
    yield one.absent, _null(column), "values are null, which far fewer were in the snapshot"


def _domain(column: Column, part: npt.NDArray[np.int64], *, measured: bool) -> Domain:
    """Of a column in order of time; `part` is the part of the snapshot that each row lies in. Request fields are not
    `measured`."""
    later = part >= _FIRST
    found = Domain(pa.nulls(0), _NOTHING, -math.inf, math.inf, _NOTHING, Tolerance.of(_null(column)))
    there = np.flatnonzero(column.present)
    if len(there) < PARTS * LEAST_PART // 2:
        return found
    if measured and column.dtype.is_float:
        known, first = _first_seen(column, there, part)
        new = (first == part)[later]
        if max(new[part[later] == number].mean() for number in range(_FIRST, PARTS)) <= _CLOSED:
            found = replace(found, known=known, unseen=Tolerance.of(new, _GRID))
    if not column.dtype.is_numeric or column.dtype is Dtype.BOOL or _grows(column.values[there], part[there]):
        return found
    values = np.where(column.present, column.values.astype(np.float64), np.nan)
    odd = np.zeros(len(part), dtype=bool)
    for number in range(_FIRST, PARTS):
        low, high = _wide(values[part < number])
        odd |= (part == number) & ((values < low) | (values > high))
    low, high = _wide(values)
    return replace(found, low=low, high=high, outside=Tolerance.of(odd[later]))


def _first_seen(column: Column, there: Array, part: Array) -> tuple[pa.Array, Array]:
    """(the values, the part in which each row's value came first; a part that there is not, where it has none)."""
    coded = _values(column).take(pa.array(there)).dictionary_encode()
    codes = coded.indices.to_numpy()
    first = np.full(len(coded.dictionary), PARTS)
    np.minimum.at(first, codes, part[there])
    of = np.full(len(part), PARTS)
    of[there] = first[codes]
    return coded.dictionary, of


def _null(column: Column) -> Mask:
    return np.asarray(column.status == Status.NULL)


def _grows(values: Array, part: Array) -> bool:
    """Whether each part's middle lies above, or below, that of the part before."""
    steps = np.diff([float(np.median(values[part == number])) for number in range(PARTS) if (part == number).any()])
    return bool((steps > 0).all() or (steps < 0).all())


def _wide(values: Array) -> tuple[float, float]:
    """As far beyond both ends as they lie apart, but on the same side of zero; all numbers where there are none."""
    some = values[np.isfinite(values)]
    if not len(some):
        return -math.inf, math.inf
    low, high = float(some.min()), float(some.max())
    span, tiny = high - low, float(np.nextafter(0.0, 1.0))
    return (
        max(low - span, tiny if low > 0 else 0.0 if low == 0 else -math.inf),
        min(high + span, -tiny if high < 0 else 0.0 if high == 0 else math.inf),
    )


def _values(column: Column) -> pa.Array:
    """The values to look up, as float32, so that a sum in another order makes no new value."""
    return pa.array(column.values.astype(np.float32) + np.float32(0.0))
