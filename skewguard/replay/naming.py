"""Which source row was served, how old it was, and whether the sources can still witness it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from skewguard.definitions import View
from skewguard.replay.pairs import Age
from skewguard.replay.truth import Truth
from skewguard.snapshot.hashing import hash_rows, whole
from skewguard.spine import Spine, ViewRows
from skewguard.values import NO_TIME, Array, Column, Mask, Status

Alike = Callable[[str, Column, Column], Mask]
"""Whether two columns of the feature of this full name are the same, row by row."""

_SECOND = 1_000_000
_STEPS = 4


@dataclass(frozen=True, slots=True)
class Held:
    """What one view served, held against the sources: `named` are the source rows behind it, under the ask's clock."""

    named: ViewRows
    age: npt.NDArray[np.uint8]
    lag_us: npt.NDArray[np.int64]
    rewritten: Mask | None


def hold(view: View, spine: Spine, got: ViewRows, true: ViewRows, truth: Truth, alike: Alike) -> Held:
    """Name the source row behind every answer of a view, and say how it stands to the one that should have answered."""
    n = len(spine)
    age = np.full(n, Age.CURRENT, dtype=np.uint8)
    lag = np.zeros(n, dtype=np.int64)
    failed = got.status == Status.ERROR
    age[failed] = Age.UNANSWERED
    unnamed = (got.status <= Status.NULL) & (got.event == NO_TIME)
    other = np.flatnonzero((~_same_row(got, true) | unnamed) & ~failed)
    named = true
    if len(other):
        asks, mine, expected = spine.take(other), got.take(other), true.take(other)
        found = _named(view, asks, mine, expected, truth, alike)
        named = _put(true, other, found.rows)
        current = (found.heard & _same_row(found, expected)) | _evicted(mine, expected)
        age[other] = np.where(current, np.uint8(Age.CURRENT), _age(view, asks, mine, found, truth))
        differing = found.heard & (found.event != NO_TIME) & (expected.event != NO_TIME)
        lag[other] = np.where(differing, expected.event - found.event, 0)
    nothing = np.full(n, _tells_no_absence(got)) | _evicted(got, true)
    if nothing.any():
        named = _absent_as_served(named, got, nothing)
    right = _right(view, got, (named, true), alike)
    judged = ~np.isin(age, [Age.UNHEARD, Age.UNANSWERED]) & (named.event != NO_TIME)
    return Held(named, age, lag, _rewritten(view, spine, named, (judged & right, judged & ~right), truth))


@dataclass(frozen=True, slots=True)
class _Found:
    """The rows that answers name: their times, their values, and whether the source has them."""

    event: Array
    created: Array
    rows: ViewRows
    heard: Mask


def _named(view: View, asks: Spine, mine: ViewRows, true: ViewRows, truth: Truth, alike: Alike) -> _Found:
    """The source rows that answers name, or must mean where a log does not name them fully.

    A store of somebody else's keeps no created time and cuts events to seconds, or names no row at all. Then the row
    is meant that falls into that second and has the served values; one of the values alone where there is no event.
    """
    event, created = mine.event.copy(), mine.created.copy()
    rows = truth.named(view, asks, event, created)
    heard = (rows.event != NO_TIME) | ((event == NO_TIME) & (mine.status > Status.NULL))
    named = (mine.status <= Status.NULL) | (event != NO_TIME)  # an expired row is a row too
    vague = np.flatnonzero(~heard & named & (created == NO_TIME))
    if len(vague):
        some, served = asks.take(vague), mine.take(vague)
        event[vague], created[vague] = _meant(view, some, served, true.take(vague), truth, alike)
        rows = truth.named(view, asks, event, created)
        known = (rows.event != NO_TIME) | (event == NO_TIME)
        heard[vague] = known[vague]
    return _Found(event, created, rows, heard)


def _meant(
    view: View, asks: Spine, served: ViewRows, true: ViewRows, truth: Truth, alike: Alike
) -> tuple[Array, Array]:
    """(event, created) of the row that each answer must mean: of those that fit, the one of most of its values.

    As served where none fits.
    """
    event, created = served.event.copy(), served.created.copy()
    most = np.zeros(len(asks), dtype=np.int64)
    for one_event, one_created in _candidates(view, asks, served, true, truth):
        fits = (served.event == NO_TIME) | (one_event == served.event)
        fits |= (served.event % _SECOND == 0) & (one_event // _SECOND * _SECOND == served.event)
        rows = truth.named(view, asks, one_event, one_created)
        score = np.ones(len(asks), dtype=np.int64)
        for feature in view.features:
            a, b = served.features[feature.name], rows.features[feature.name]
            score += alike(view.full_name(feature.name), a, b) | (~a.present & ~b.present)
        better = fits & (score > most)
        event, created = np.where(better, one_event, event), np.where(better, one_created, created)
        most = np.where(better, score, most)
    return event, created


def _candidates(
    view: View, asks: Spine, served: ViewRows, true: ViewRows, truth: Truth
) -> Iterator[tuple[Array, Array]]:
    """Rows that may have been served: those that answered within `max_lag`, and the last version of a named event."""
    yield true.event, true.created
    late = _patience(view)
    for step in range(1, _STEPS + 1):
        yield truth.best(view, asks, asks.as_of - late * step // _STEPS - (step == _STEPS))
    if (served.event != NO_TIME).any():
        yield truth.last_version(view, asks, served.event)


def _tells_no_absence(got: ViewRows) -> bool:
    """Whether a store of somebody else's answered, which tells no kind of absence from another."""
    return bool((got.watermark == NO_TIME).all() and (got.created == NO_TIME).all()) and len(got.status) > 0


def _evicted(got: ViewRows, true: ViewRows) -> Mask:
    """Rows that a store no longer had, because they had expired: what is beyond its TTL may be taken away."""
    return np.asarray(_not_there(got) & (true.status == Status.EXPIRED))


def _not_there(got: ViewRows) -> Mask:
    return np.asarray((got.status == Status.NOT_FOUND) & (got.event == NO_TIME))


def _absent_as_served(rows: ViewRows, got: ViewRows, where: Mask) -> ViewRows:
    """The same rows, absent in the way in which they were served as absent: nothing equals nothing."""
    features = {}
    for name, column in rows.features.items():
        given = got.features[name]
        both = where & ~column.present & ~given.present
        features[name] = replace(column, status=np.where(both, given.status, column.status))
    return replace(rows, features=features)


def _age(view: View, asks: Spine, mine: ViewRows, found: _Found, truth: Truth) -> npt.NDArray[np.uint8]:
    """The `Age` of rows that are not the truth's."""
    event, created = found.event, found.created
    best_event, best_created = truth.best(view, asks, asks.as_of - _patience(view) - 1)
    newer = (best_event > event) | ((best_event == event) & (best_created > created))
    taken = np.flatnonzero(newer & _not_there(mine))  # what was there by then may have been taken away since
    if len(taken):
        before = truth.named(view, asks.take(taken), best_event[taken], best_created[taken])
        newer[taken] = before.status != Status.EXPIRED
    overdue = np.uint8(Age.STALE if view.source.created else Age.UNVERIFIABLE)
    age = np.where(newer, overdue, np.uint8(Age.LAGGED))
    gone = np.flatnonzero(~found.heard)
    if len(gone):
        lost = truth.may_be_lost(view, event[gone], created[gone])
        stale = newer[gone] & lost & (overdue == Age.STALE)
        age[gone] = np.where(stale, Age.STALE, np.where(lost, Age.UNVERIFIABLE, Age.UNHEARD)).astype(np.uint8)
    age[np.maximum(event, created) > asks.as_of] = Age.LEAK
    return age


def _right(view: View, got: ViewRows, sides: tuple[ViewRows, ...], alike: Alike) -> Mask:
    """Rows all of whose values are those of one side or another."""
    right = np.ones(len(got.status), dtype=bool)
    for feature in view.features:
        name, served = view.full_name(feature.name), got.features[feature.name]
        equal = alike(name, served, sides[0].features[feature.name])
        for side in sides[1:]:
            if not equal.all():
                equal = equal | alike(name, served, side.features[feature.name])
        right &= equal
    return right


def _rewritten(view: View, spine: Spine, named: ViewRows, rows: tuple[Mask, Mask], truth: Truth) -> Mask | None:
    """Of `rows` (right, differing) the differing ones whose source row may have been overwritten since.

    What had been served rightly before cannot have been overwritten after: then it is no excuse.
    """
    right, differs = rows
    if not differs.any():
        return None
    at = np.flatnonzero(differs)
    doubtful = np.zeros(len(spine), dtype=bool)
    doubtful[at] = truth.may_be_rewritten(view, named.event[at], named.created[at])
    if not doubtful.any():
        return None
    keys = [spine.keys[key.ask] for key in view.keys]
    lanes = np.ascontiguousarray(hash_rows([*keys, whole(named.event), whole(named.created)], len(spine)))
    _, row = np.unique(lanes.view([("a", np.uint64), ("b", np.uint64)]).reshape(-1), return_inverse=True)
    first = np.full(int(row.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, row[right], spine.as_of[right])
    return doubtful & (spine.as_of <= first[row])


def _patience(view: View) -> int:
    """How long a row may take until it is served, in microseconds."""
    return max(view.max_lag_us, view.availability_lag_us)


def _same_row(a: ViewRows | _Found, b: ViewRows) -> Mask:
    return np.asarray((a.event == b.event) & (a.created == b.created))


def _put(into: ViewRows, at: Array, rows: ViewRows) -> ViewRows:
    """`into` with `rows` at the places `at`."""

    def put(old: Array, new: Array) -> Array:
        merged = old.copy()
        merged[at] = new
        return merged

    return ViewRows(
        put(into.status, rows.status),
        put(into.event, rows.event),
        put(into.created, rows.created),
        into.watermark,
        {
            name: Column(column.dtype, put(column.values, new.values), put(column.status, new.status))
            for name, column in into.features.items()
            for new in (rows.features[name],)
        },
    )
