"""A missing value was replaced, a value went missing, or one constant was served whatever the truth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skewguard.causes.evidence import Evidence, Explanation
from skewguard.causes.timeline import encode
from skewguard.findings import Tap
from skewguard.values import Array, Column, Dtype, Mask, Status

_CONSTANTS = 2
_FEW = 5
_TEXTS = ("", "nan", "none", "null", "na", "n/a", "unknown", "<na>", "-")


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """The truth has no value where one and the same was served, or the last known one; or the reverse; or a constant
    was served in place of many.
    """
    served, truth = evidence.served, evidence.truth
    if served is None or truth is None:
        return
    filled = served.present & ~truth.present
    if filled.any():
        yield from _fills(evidence, served, filled)
    emptied = ~served.present & truth.present
    if emptied.any():
        yield _emptied(served, truth, emptied)
    both = served.present & truth.present
    yield from _rows(evidence)
    for value, there in _most_frequent(served, both):
        if len(np.unique(encode(truth)[there])) > 2:
            hits = there | (filled & _equal_to(served, value))
            failed = (served.status[hits] == Status.DEFAULTED).mean() > 0.5
            what = f"{_told(value)} was served whatever the truth"
            what += ": the default where the store did not answer" if failed else ""
            yield Explanation("default", what, hits, 22.0)


def _rows(evidence: Evidence) -> Iterator[Explanation]:
    """All numbers of a view are constants in the same rows, whatever their truths: a row of defaults."""
    view = evidence.view
    if view is None or evidence.tap is not Tap.STORE:
        return
    mine, known = (side.views[view].features for side in (evidence.pairs.served, evidence.pairs.as_known))
    numeric = [name for name, column in mine.items() if column.dtype.is_numeric]
    hits, telling, shown = np.ones(len(evidence), dtype=bool), 0, []
    for name in numeric:
        served, truth = mine[name].take(evidence.rows), known[name].take(evidence.rows)
        first = next(_most_frequent(served, served.present), None)
        if first is None:
            return
        hits &= first[1]
        telling += len(np.unique(encode(truth)[first[1]])) > _CONSTANTS
        shown.append(f"{name} {_told(first[0])}")
    if len(numeric) > 1 and telling > 1 and hits.sum() >= _FEW:
        what = f"a row of defaults was served of {view}, whatever the truth: {', '.join(shown[:4])}"
        yield Explanation("default", what, hits, 12.0)


def _fills(evidence: Evidence, served: Column, filled: Mask) -> Iterator[Explanation]:
    for value, hits in _most_frequent(served, filled):
        if hits.sum() * 2 >= filled.sum():
            what = f"a missing value was served as {_told(value)}"
            expired = evidence.truth is not None and (evidence.truth.status[hits] == Status.EXPIRED).any()
            yield Explanation("null_fill", what + _near(evidence, value), hits, 4.0 if expired else 2.5)
    if evidence.view is not None and evidence.tap is Tap.STORE and len(np.unique(encode(served)[filled])) > 2:
        line = evidence.scene.timeline(evidence.view)
        name = evidence.feature.removeprefix(evidence.view + "__")
        as_of = evidence.pairs.served.spine.as_of[evidence.rows]
        older, _, _ = line.origin(line.asked[evidence.rows], as_of, {name: served})
        hits = filled & (older >= 0)
        if hits.any():
            yield Explanation("forward_fill", "a missing value was served as the last known one of its key", hits, 20.0)


def _near(evidence: Evidence, value: object) -> str:
    """Whether a number is the mean or the median of the values that are there."""
    truth = evidence.observed.truth
    if truth is None or isinstance(value, bool | str) or not truth.dtype.is_numeric or value in (0, -1, 1):
        return ""
    there = truth.values[truth.present].astype(np.float64)
    there = there[np.isfinite(there)]
    if len(there) < 20:
        return ""
    number, spread = float(str(value)), float(there.std()) or 1.0
    for name, typical in (("mean", there.mean()), ("median", np.median(there))):
        if abs(number - float(typical)) < 0.1 * spread:
            return f", about the {name} of the others"
    return ""


def _emptied(served: Column, truth: Column, emptied: Mask) -> Explanation:
    if served.dtype.is_numeric and (truth.values[emptied] == 0).all() and emptied.sum() > 2:
        return Explanation("nulled", "zero was served as missing", emptied, 3.0)
    status = Status(int(np.bincount(served.status[emptied]).argmax()))
    if status is Status.ERROR:
        return Explanation("default", "the store did not answer, and nothing was served", emptied, 3.0)
    return Explanation("nulled", "a value that exists was served as missing", emptied, 4.0)


def _most_frequent(column: Column, among: Mask) -> Iterator[tuple[object, Mask]]:
    """The values that most of the rows have, with the rows that have them."""
    at = np.flatnonzero(among)
    if not len(at):
        return
    codes = encode(column)
    values, counts = np.unique(codes[at], return_counts=True)
    for i in np.argsort(-counts, kind="stable")[:_CONSTANTS]:
        hits = among & (codes == values[i])
        if counts[i] >= 3:
            yield column.value(int(np.flatnonzero(hits)[0])), hits


def _equal_to(column: Column, value: object) -> Mask:
    """Rows with this very value."""
    return np.asarray(column.present & (column.values == value), dtype=bool)


def _told(value: object) -> str:
    if isinstance(value, str):
        return f"the text {value!r}" if value.strip().lower() in _TEXTS else repr(value)
    return str(value)


def whole(values: Array, dtype: Dtype) -> bool:
    """Whether all values are whole numbers."""
    return not dtype.is_float or bool((values == np.trunc(values)).all())
