"""The values of a row are those of another row: an older one, one of the future, or another key's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from skewguard.causes.evidence import Evidence, Explanation
from skewguard.causes.stale import MINUTE, between
from skewguard.causes.timeline import Ints, Timeline, densest, differing, encode, hashed
from skewguard.findings import Kind, Tap
from skewguard.values import NO_TIME, Column, Mask, Status, instant

_MOST = 0.9
_MINIMUM = 5
_TELLING = 50  # a column of fewer values has one of them in an older row by chance
_DATED = 20
_WITNESSED = 0.3
_ALIKE = 0.5
_SURE = 4.0


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """The whole row, and the one column where the rest of the row is right."""
    pairs, view = evidence.pairs, evidence.view
    if view is None or not pairs.bundle.view(view).keys:
        return
    if evidence.tap is not Tap.STORE:  # a vector that was kept
        if evidence.served is not None and evidence.served.dtype is pairs.bundle.dtypes[evidence.feature]:
            yield from _of(evidence, view, {evidence.feature.removeprefix(view + "__"): evidence.served}, 30.0)
        return
    served = pairs.served.views[view].features
    if evidence.served is None and evidence.observed.finding.kind is not Kind.MISMATCH:
        return  # a row that was named tells itself how old it is
    if evidence.served is None:
        yield from _named(evidence, view)
        yield from _of(evidence, view, {name: column.take(evidence.rows) for name, column in served.items()}, 22.0)
        return
    name = evidence.feature.removeprefix(view + "__")
    if len(served) > 1:
        yield from _of(evidence, view, {one: column.take(evidence.rows) for one, column in served.items()}, 22.0)
    yield from _of(evidence, view, {name: evidence.served}, 30.0 if len(served) > 1 else 22.0)


def _of(evidence: Evidence, view: str, served: Mapping[str, Column], bits: float) -> Iterator[Explanation]:
    line: Timeline = evidence.scene.timeline(view)
    values = {name: column for name, column in line.features.items() if name in served}
    if not len(line.known) or not values:
        return
    if evidence.scene.distinct(view, tuple(served)) > 0.5 * len(line.known):
        distinct = _TELLING  # hardly two rows are the same by chance
    else:
        distinct = max(len(np.unique(encode(column))) for column in served.values())
    rows = evidence.rows
    key, as_of = line.asked[rows], evidence.pairs.served.spine.as_of[rows]
    if len(served) > 1:
        older, later, elsewhere = evidence.scene.origin(view, rows)
    else:
        older, later, elsewhere = line.origin(key, as_of, served)
    true = evidence.pairs.truth.views[view].take(rows)
    right = np.maximum(true.event, true.created)
    what = view if len(served) > 1 else evidence.feature.replace("__", ".", 1)
    known = line.known[np.maximum(older, 0)]
    old = (older >= 0) & (known < right) & (right != NO_TIME)
    if old.sum() >= _MINIMUM and distinct >= _DATED:
        unseen = (older < 0) & (later < 0) & ~elsewhere
        yield from _older(evidence, view, what, _Old(key, as_of, known, old, unseen), bits, distinct)
    ahead = (later >= 0) & ~old
    if ahead.sum() >= _MINIMUM and distinct >= _TELLING:
        said = f"the values of {what} are those of a row that came later"
        yield Explanation("future", said, ahead, bits + 4)
    if (
        elsewhere.sum() >= _MINIMUM
        and len(served) > 1
        and (distinct >= _TELLING or _several(evidence, view, elsewhere))
    ):
        said = f"the values of {what} are another key's"
        yield Explanation("other_key", said, elsewhere, bits + 4)


def _several(evidence: Evidence, view: str, rows: Mask) -> bool:
    """Whether rows differ from their truth in several columns at once: one alone may come to be another row's."""
    mine, true = (side.views[view].features for side in (evidence.pairs.served, evidence.pairs.truth))
    at = evidence.rows[rows]
    differs = np.sum([differing(mine[name].take(at), true[name].take(at)) for name in mine], axis=0)
    return bool((differs >= 2).mean() >= _ALIKE)


def _named(evidence: Evidence, view: str) -> Iterator[Explanation]:
    """Rows that the key never had, under times that other keys' rows have: told by many that are, values included.

    How many would be by chance is seen from times a little later.
    """
    got, line = evidence.pairs.served.views[view].take(evidence.rows), evidence.scene.timeline(view)
    true, there = evidence.pairs.truth.views[view], got.event != NO_TIME
    both = {name: Column.concat([one, line.features[name]]) for name, one in got.features.items()}
    values = hashed(both).view(np.int64)
    n, valued = len(evidence), there & (got.status <= Status.NULL)
    known = np.maximum(got.event, got.created)
    times = [(got.event, true.event), (got.created, true.created)]
    whole = [(got.event, line.event), (known, line.known), (values[:n], values[n:])]
    for rows, columns, moving in ((valued, whole, 2), (there, times, 2)):
        if rows.sum() < _MINIMUM:
            continue
        others, *chance = (_among(columns, moving, rows, later) for later in (0, 7 * MINUTE, -11 * MINUTE))
        spread = np.sqrt(max(chance) * (1 - max(chance) / rows.sum()) + 1)
        if others >= max(_MINIMUM, _WITNESSED * rows.sum()) and others > max(chance) + _SURE * spread:
            yield Explanation("other_key", f"the rows that were served of {view} are other keys'", there, 22.0)
            return


def _among(columns: list[tuple[Ints, Ints]], moving: int, rows: Mask, later: int) -> int:
    """How many of the rows, the first columns of them moved, there are among the others."""
    both = [np.concatenate([mine + later * (i < moving), its]) for i, (mine, its) in enumerate(columns)]
    _, codes = np.unique(np.stack(both), axis=1, return_inverse=True)
    codes = codes.reshape(-1)
    n = len(rows)
    return int((rows & np.isin(codes[:n], codes[n:])).sum())


@dataclass(frozen=True, slots=True)
class _Old:
    """Of m rows: key, ask, when the row with the served values became known; which `rows` are older than they should
    be, and of which no witnessed row has the values (`unseen`).
    """

    key: Ints
    as_of: Ints
    known: Ints
    rows: Mask
    unseen: Mask


def _older(evidence: Evidence, view: str, what: str, it: _Old, bits: float, distinct: int) -> Iterator[Explanation]:
    """One lag, one instant at which the values stood still, or neither.

    Where nobody asked a key for long, its rows of that time are not witnessed: they go with the others if what is
    witnessed agrees.
    """
    line = evidence.scene.timeline(view)
    old, as_of, known = it.rows, it.as_of, it.known
    after = line.following(it.key, known)
    lag = densest((as_of - after)[old] + 1, (as_of - known)[old])
    halt = densest(known[old], after[old] - 1)
    count = int(old.sum())
    clear = distinct >= _TELLING and old.mean() >= _WITNESSED
    with_them = it.unseen if clear else np.zeros(len(old), dtype=bool)
    if lag[2] >= _MOST * count and lag[2] >= halt[2]:
        behind, told = between(lag, evidence, view)
        hits = old & (as_of - after < behind) & (as_of - known >= behind)
        said = f"the values of {what} are those of {told} before the request, under the newer row's name"
        yield Explanation("stale", said, hits | with_them, bits, behind)
    elif halt[2] >= _MOST * count:
        hits = old & (known <= halt[0]) & (after > halt[0])
        said = f"the values of {what} stood still at {instant(halt[0])}, under newer rows' names"
        behind = int((as_of - halt[0])[hits].max(initial=0))
        yield Explanation("stale", said, hits | with_them, bits + 2, behind)
    elif distinct >= _TELLING:
        said = f"the values of {what} are those of an older row of the same key"
        yield Explanation("lost_write", said, old, bits + 8)
