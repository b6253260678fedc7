"""The values of a row are those of another row: an older one, one of the future, or another key's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from skewguard.causes.evidence import Evidence, Explanation
from skewguard.causes.stale import span
from skewguard.causes.timeline import Ints, Timeline, densest, encode
from skewguard.findings import Kind, Tap
from skewguard.values import NO_TIME, Column, Mask, instant

_MOST = 0.9
_MINIMUM = 5
_TELLING = 50  # a column of fewer values has one of them in an older row by chance
_DATED = 20
_WITNESSED = 0.3


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
    if len(served) > 1 and evidence.scene.distinct(view) > 0.5 * len(line.known):
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
        yield from _older(line, what, _Old(key, as_of, known, old, unseen), bits, distinct)
    ahead = (later >= 0) & ~old
    if ahead.sum() >= _MINIMUM and distinct >= _TELLING:
        said = f"the values of {what} are those of a row that came later"
        yield Explanation("future", said, ahead, bits + 4)
    if elsewhere.sum() >= _MINIMUM and distinct >= _TELLING and len(served) > 1:
        said = f"the values of {what} are another key's"
        yield Explanation("other_key", said, elsewhere, bits + 4)


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


def _older(line: Timeline, what: str, it: _Old, bits: float, distinct: int) -> Iterator[Explanation]:
    """One lag, one instant at which the values stood still, or neither.

    Where nobody asked a key for long, its rows of that time are not witnessed: they go with the others if what is
    witnessed agrees.
    """
    old, as_of, known = it.rows, it.as_of, it.known
    after = line.following(it.key, known)
    lag = densest((as_of - after)[old] + 1, (as_of - known)[old])
    halt = densest(known[old], after[old] - 1)
    count = int(old.sum())
    clear = distinct >= _TELLING and old.mean() >= _WITNESSED
    with_them = it.unseen if clear else np.zeros(len(old), dtype=bool)
    if lag[2] >= _MOST * count and lag[2] >= halt[2]:
        hits = old & (as_of - after < lag[0] + 1) & (as_of - known >= lag[0])
        said = f"the values of {what} are those of {span(lag[0])} before the request, under the newer row's name"
        yield Explanation("stale", said, hits | with_them, bits, lag[0])
    elif halt[2] >= _MOST * count:
        hits = old & (known <= halt[0]) & (after > halt[0])
        said = f"the values of {what} stood still at {instant(halt[0])}, under newer rows' names"
        behind = int((as_of - halt[0])[hits].max(initial=0))
        yield Explanation("stale", said, hits | with_them, bits + 2, behind)
    elif distinct >= _TELLING:
        said = f"the values of {what} are those of an older row of the same key"
        yield Explanation("lost_write", said, old, bits + 8)
