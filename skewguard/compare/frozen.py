"""Sources that repeat themselves or stand still longer than they ever did: frozen alike for training and serving.

Some values stay for long by nature: no rain, no departure at night. Hence those that a column holds often are held
against the longest spell of all, the others against the longest spell of their kind. A column that stays as it is for
every key at once is rarer than one that does so for one key, and is held against such standstills alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skewguard.answer import Served
from skewguard.compare.evidence import Hits
from skewguard.compare.standstill import Standstill, Standstills, standstills
from skewguard.definitions import Bundle, View
from skewguard.findings import Finding, Kind
from skewguard.snapshot.hashing import hash_rows
from skewguard.values import NO_TIME, Array, Column, Mask, instant

BENIGN = 0.001
"""So many rows may come from a spell longer than any in the snapshot."""

_LONGER = 2.0
_ALONE = 3.0
"""By so much must a spell be longer than any in the snapshot; one column alone may stay as it is by chance."""

_EVENTS = 5
_RUNS = 100
_USUAL = 0.99
_OFTEN = 0.02
_ANY = 1 << 62
_WHOLE = ""


@dataclass
class _Spells:
    """Different source rows of one view, as they were served: key, event, and the values' hash per feature."""

    keys: list[Array] = field(default_factory=list)
    events: list[Array] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)

    def add(self, key: Array, event: Array, values: Array) -> None:
        """More of them."""
        order = np.lexsort((event, key))
        new = np.ones(len(order), dtype=bool)
        new[1:] = (key[order[1:]] != key[order[:-1]]) | (event[order[1:]] != event[order[:-1]])
        first = order[new]
        self.keys.append(key[first])
        self.events.append(event[first])
        self.values.append(values[first])

    def ordered(self) -> tuple[Array, Array, Array]:
        """All, each once, by key and event."""
        key, event = np.concatenate(self.keys), np.concatenate(self.events)
        values = np.concatenate(self.values)
        order = np.lexsort((event, key))
        key, event, values = key[order], event[order], values[order]
        new = np.ones(len(key), dtype=bool)
        new[1:] = (key[1:] != key[:-1]) | (event[1:] != event[:-1])
        return key[new], event[new], values[new]


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs of equal values in successive source rows of one key: where they begin and end, how many rows, of what."""

    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    key: Array
    value: Array

    @property
    def spell(self) -> npt.NDArray[np.int64]:
        """How long each is, in microseconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Spell:
    """The longest time (microseconds) that a feature stayed at one of its `often` values (hashes), and at any other;
    None where that is as long as the snapshot, or such runs are too few to tell."""

    often: npt.NDArray[np.uint64]
    longest: int | None
    seldom: int | None

    def limits(self, runs: _Runs) -> npt.NDArray[np.int64]:
        """The longest spell in the snapshot that each run is held against."""
        often, seldom = (_ANY if one is None else one for one in (self.longest, self.seldom))
        return np.where(np.isin(runs.value, self.often), often, seldom)


@dataclass(frozen=True)
class Habits:
    """How sources behaved, in microseconds: how long a feature of a view (the whole view under "") stayed as it was,
    and the greatest age at an ask; without those that say nothing, because they are as long as the snapshot.
    `spacing`: the usual time between a key's successive rows of a view; what lies in a longer gap was not seen.
    """

    longest: dict[tuple[str, str], Spell]
    oldest: dict[str, int]
    span: int = 1 << 62
    spacing: dict[str, int] = field(default_factory=dict)
    still: dict[tuple[str, str], Standstill] = field(default_factory=dict)


def habits(bundle: Bundle, training: Served) -> Habits:
    """Of every view with enough rows."""
    longest, oldest, spacing, still = {}, {}, {}, {}
    span = int(np.ptp(training.spine.as_of)) if len(training.spine) else 0
    for view in bundle.views:
        spells = _Spells()
        key, event, values, there = _rows_of(view, training)
        if there.sum() < _RUNS:
            continue
        spells.add(key[there], event[there], values[there])
        age = int((training.spine.as_of[there] - event[there]).max())
        if age * 10 < span:  # what is always old, such as a plane's year, grows older every day
            oldest[view.name] = age
        ordered = spells.ordered()
        spacing[view.name] = _spacing(*ordered[:2])
        for i, name in enumerate(_names(view)):
            spell = _spell(_runs(*ordered, i, spacing[view.name]), span, whole=name == _WHOLE)
            if spell is not None:
                longest[view.name, name] = spell
            stands = standstills(*ordered, i, spacing[view.name])
            if name and len(stands.rows) >= _RUNS and int(stands.spell.max()) * 10 < span:
                still[view.name, name] = Standstill(int(stands.rows.max()), int(stands.spell.max()), stands.step)
    return Habits(longest, oldest, span, spacing, still)


def _spell(runs: _Runs, span: int, *, whole: bool) -> Spell | None:
    """How long a column, or a `whole` row, stayed as it was, over a snapshot of `span` microseconds; None where that
    says nothing. One column has no spells of their own for seldom values: a month is too short to know them."""
    if len(runs.key) < _RUNS or int(runs.rows.sum()) - len(np.unique(runs.key)) < _RUNS:
        return None
    values, place = np.unique(runs.value, return_inverse=True)
    often = values[np.bincount(place, weights=runs.rows) > _OFTEN * runs.rows.sum()]
    of_often = np.isin(runs.value, often)
    most = int(runs.spell.max())
    rest = int(runs.spell[~of_often].max()) if whole and (~of_often).sum() >= _RUNS else most
    longest, seldom = (one if one * 10 < span else None for one in (most, rest))
    return None if longest is None and seldom is None else Spell(often, longest, seldom)


class Frozen:
    """Two signs, per view: a key's values stay as they are over longer than ever, and its rows grow older than ever."""

    def __init__(self, bundle: Bundle, held: Habits) -> None:
        self.bundle = bundle
        self._longest, self._oldest, self._span = held.longest, held.oldest, held.span
        self._spacing, self._at_once = held.spacing, held.still
        self._log: dict[str, _Spells] = {}
        self._rows: dict[str, list[tuple[Array, Array]]] = {}
        self._still: dict[str, Hits] = {}

    def add(self, served: Served) -> None:
        """One more batch."""
        for view in self.bundle.views:
            if not any(name == view.name for name, _ in self._longest) and view.name not in self._oldest:
                continue
            key, event, values, there = _rows_of(view, served)
            self._log.setdefault(view.name, _Spells()).add(key[there], event[there], values[there])
            self._rows.setdefault(view.name, []).append((key[there], event[there]))
            if view.name in self._oldest:
                self._stand_still(view, served, event, there)

    def findings(self) -> list[Finding]:
        """One per view and sign; a feature alone only where not the whole view is frozen."""
        found = [f for hits in self._still.values() if (f := hits.finding()) is not None]
        for view in self.bundle.views:
            if view.name not in self._log:
                continue
            ordered = self._log[view.name].ordered()
            spacing = self._spacing.get(view.name, _ANY)
            for i, name in enumerate(_names(view)):
                longest = self._longest.get((view.name, name))
                finding = None if longest is None else self._repeats(view, name, longest, _runs(*ordered, i, spacing))
                if finding is None and (view.name, name) in self._at_once:
                    held = self._at_once[view.name, name]
                    finding = self._stands(view, name, held, standstills(*ordered, i, spacing))
                if finding is not None:
                    found.append(finding)
                    if name == _WHOLE:
                        break
        return found

    def _stand_still(self, view: View, served: Served, event: Array, there: Mask) -> None:
        spacing = self._spacing.get(view.name, 0)
        limit = int(_LONGER * self._oldest[view.name]) + (0 if spacing == _ANY else spacing)
        age = served.spine.as_of - event
        hit = there & (age > limit)
        what = (
            "rows were answered by a source row twice as old as any in the snapshot, and more: the source stands still"
        )
        hits = self._still.setdefault(view.name, Hits(Kind.FROZEN, view.name, what, BENIGN))
        hits.add(served, hit, [_hours(one) for one in age[hit][:3].tolist()], [f"at most {_hours(limit)}"] * 3)

    def _stands(self, view: View, name: str, held: Standstill, stands: Standstills) -> Finding | None:
        long = stands.mixed & (stands.rows > held.limit(stands.step)) & (stands.spell > held.spell)
        long &= stands.spell < self._span // 10
        if not long.any():
            return None
        rows, of = 0, 0
        for _, event in self._rows[view.name]:
            of += len(event)
            for start, end in zip(stands.start[long], stands.end[long], strict=True):
                rows += int(((event >= start) & (event <= end)).sum())
        worst = np.flatnonzero(long)[np.argmax(stands.rows[long])]
        what = (
            f"rows come from a spell in which it stayed as it was for every key at once, {stands.rows[worst]:,} "
            f"source rows in {_hours(stands.spell[worst])} from {instant(int(stands.start[worst]))}; in the "
            f"snapshot never more than {held.rows:,}"
        )
        hits = Hits(Kind.FROZEN, view.full_name(name), what, BENIGN)
        hits.rows, hits.of = rows, of
        return hits.finding()

    def _repeats(self, view: View, name: str, held: Spell, runs: _Runs) -> Finding | None:
        limits = held.limits(runs)
        long = (
            (runs.spell > (_ALONE if name else _LONGER) * limits)
            & (runs.rows >= _EVENTS)
            & (runs.spell < self._span // 10)
        )
        if not long.any():
            return None
        rows, of = 0, 0
        for key, event in self._rows[view.name]:
            of += len(key)
            for start, end, one in zip(runs.start[long], runs.end[long], runs.key[long], strict=True):
                rows += int(((key == one) & (event >= start) & (event <= end)).sum())
        worst = np.flatnonzero(long)[np.argmax(runs.spell[long])]
        feature = view.full_name(name) if name else view.name
        what = (
            f"rows come from a spell in which the source repeated itself, up to {_hours(runs.spell[worst])} long; "
            f"in the snapshot no spell of such values was longer than {_hours(limits[worst])}"
        )
        hits = Hits(Kind.FROZEN, feature, what, BENIGN)
        hits.rows, hits.of = rows, of
        return hits.finding()


def _names(view: View) -> list[str]:
    """The whole view first, then each feature that may be told alone: counts and texts repeat themselves anyway."""
    return [_WHOLE, *(feature.name for feature in view.features if feature.dtype.is_float)]


def _rows_of(view: View, served: Served) -> tuple[Array, Array, Array, Mask]:
    """(hash of the key, event, hash of the values (n, 1 + features), which rows name a source row) of a view."""
    rows, n = served.views[view.name], len(served.spine)
    there = np.asarray(rows.event != NO_TIME)
    key = np.ascontiguousarray(hash_rows([served.spine.keys[k.ask] for k in view.keys], n)[:, 0])
    bits = {feature.name: _bits(rows.features[feature.name]) for feature in view.features}
    whole = np.zeros(n, dtype=np.uint64)
    for one in bits.values():
        whole = whole * np.uint64(0x9E3779B97F4A7C15) + one
    return (
        key,
        rows.event,
        np.stack([whole, *(bits[name] for name in _names(view)[1:])], axis=1),
        there & (rows.status <= 2),
    )


def _bits(column: Column) -> npt.NDArray[np.uint64]:
    """One number per value; a text's is its place among the texts that Python hashed in this process."""
    values = column.values
    if values.dtype == object:
        return np.fromiter(map(hash, values), dtype=np.int64, count=len(values)).view(np.uint64)
    if column.dtype.is_float:
        return np.where(column.present, values.astype(np.float64) + 0.0, np.nan).view(np.uint64)
    return values.astype(np.int64).view(np.uint64)


def _spacing(key: Array, event: Array) -> int:
    """99 % of the times between a key's successive rows are at most this; rows are ordered by key and event."""
    gaps = np.diff(event)[key[1:] == key[:-1]]
    return int(np.quantile(gaps, _USUAL, method="higher")) if len(gaps) else _ANY


def _runs(key: Array, event: Array, values: Array, column: int, spacing: int) -> _Runs:
    """The runs of equal values of one column, key by key, none across a gap longer than `spacing` (microseconds).

    Rows are ordered by key and event.
    """
    if not len(key):
        nothing = np.empty(0, dtype=np.int64)
        return _Runs(nothing, nothing, nothing, nothing, nothing.view(np.uint64))
    mine = values[:, column]
    new = np.ones(len(key), dtype=bool)
    new[1:] = (key[1:] != key[:-1]) | (mine[1:] != mine[:-1]) | (np.diff(event) > spacing)
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(key)) - 1
    return _Runs(event[first], event[last], last - first + 1, key[first], mine[first])


def _hours(us: int) -> str:
    return f"{us / 3_600_000_000:.1f} h"
