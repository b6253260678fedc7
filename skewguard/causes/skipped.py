"""Nothing was found for keys that the source has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from skewguard.causes.evidence import Evidence, Explanation
from skewguard.causes.timeline import encode
from skewguard.replay import Age
from skewguard.values import Array, Mask, Status

_FORMS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("have capital letters", str.lower),
    ("have small letters", str.upper),
    ("begin or end with a space", str.strip),
    ("begin with zeros", lambda key: key.lstrip("0")),
    ("hold signs beyond ASCII", lambda key: key.encode("ascii", "ignore").decode()),
    ("hold signs other than letters and digits", lambda key: "".join(c for c in key if c.isalnum())),
    ("are no numbers", lambda key: "".join(c for c in key if c.isdigit())),
)


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """The same keys every time (never loaded, or written in another form), or every key."""
    pairs, view = evidence.pairs, evidence.view
    if evidence.served is not None or view is None or view not in pairs.age or not pairs.bundle.view(view).keys:
        return
    rows = evidence.rows
    got, true = pairs.served.views[view], pairs.truth.views[view]
    absent = (got.status == Status.NOT_FOUND) & (true.status != Status.NOT_FOUND) & (pairs.age[view] == Age.STALE)
    lost: Mask = absent[rows]
    if not lost.any():
        return
    line = evidence.scene.timeline(view)
    found = evidence.peers & (got.status != Status.NOT_FOUND)
    gone = np.unique(line.asked[rows][lost])
    partly = np.isin(gone, np.unique(line.asked[found]))
    if not found.any() and len(gone) > 1:
        elsewhere = (got.status != Status.NOT_FOUND).any()  # who asks another way finds it
        what = f"nothing of {view} was found online for any key"
        yield Explanation("not_onboarded", what, lost, 16.0 if elsewhere else 6.0)
    form = _form(evidence, view, absent, found)
    if form:
        what = f"nothing of {view} was found for keys that {form}: they are written otherwise in the online store"
        yield Explanation("key_format", what, lost, 14.0)
    answers = len(np.unique(np.maximum(true.event, true.created)[rows][lost]))
    if partly.mean() < 0.1 and found.any() and (len(gone) > 1 or answers > 2):
        once = len(gone) == lost.sum()
        keys = "one key" if len(gone) == 1 else f"{len(gone):,} keys"
        what = f"nothing of {view} is in the online store for {keys} that the source has"
        yield Explanation("skipped_entities", what, lost, 16.0 + (8.0 if once else 0.0))
    elif partly.mean() > 0.5:
        what = f"nothing of {view} was found now and then, for keys that are there at other times"
        yield Explanation("not_found", what, lost, 18.0)


def _form(evidence: Evidence, view: str, absent: Mask, found: Mask) -> str:
    """What the spelling of all keys that were not found has in common, and that of the others has not."""
    for key in evidence.pairs.bundle.view(view).keys:
        column = evidence.pairs.served.spine.keys[key.ask]
        if not isinstance(column.dtype.filler, str):
            continue
        codes = encode(column)
        lost, there = (_some(column.values, codes, mask & column.present) for mask in (absent, found))
        if len(lost) < 2:
            continue
        for what, change in _FORMS:
            odd = np.array([change(one) != one for one in lost])
            same = np.array([change(one) != one for one in there]) if there else np.zeros(1)
            if odd.mean() > 0.95 and same.mean() < 0.05 and (there or what != _FORMS[-1][0]):
                return what
    return ""


def _some(values: Array, codes: Array, mask: Mask) -> list[str]:
    _, first = np.unique(codes[mask], return_index=True)
    return [str(value) for value in values[mask][first]]
