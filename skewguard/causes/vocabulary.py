"""Values of a small set were mapped onto one another: another vocabulary, encoder or version of codes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skewguard.causes.default_fill import whole
from skewguard.causes.evidence import Evidence, Explanation, Ints
from skewguard.causes.timeline import encode
from skewguard.values import Column, Dtype, Mask

_REPEATS = 2.0
_SIDE_BITS = 16.0
_VALUES = 4096
_AGAIN = 6
_INSIDE = 0.8
_MONOTONE = 0.9
_MOST = 0.97
_CODES = 4096
_FEW = 3
_SMALL = 64
_ALWAYS = 10
_LEAST = 6


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """Each true value is always served as one and the same other, no two as one; numbers only among themselves.

    Where values are many, it is enough that those which come again, with other keys, are served the same again.
    """
    served, truth, every = evidence.served, evidence.truth, evidence.observed.truth
    if served is None or truth is None or every is None or truth.dtype is Dtype.TIMESTAMP:
        return
    at = np.flatnonzero(served.present & truth.present)
    fractions = not (whole(truth.values[at], truth.dtype) and whole(served.values[at], truth.dtype))
    if len(at) < _LEAST or fractions:
        return
    if truth.dtype.is_numeric:
        yield from _rotated(evidence, (served, truth, every), at)
    codes = encode(Column.concat([truth.take(at), served.take(at), every]))
    true, got, known = codes[: len(at)], codes[len(at) : 2 * len(at)], np.unique(codes[2 * len(at) :])
    values, place = np.unique(true, return_inverse=True)
    if len(values) == 1:
        yield from _one(evidence, (served, truth), at, got, known)
        return
    images = _images(got, place)
    if not 2 <= len(values) <= _VALUES or len(np.unique(images)) < len(values):
        return
    hits = got == images[place]
    inside = float(np.isin(images, known).mean())
    if inside < _INSIDE and truth.dtype is not Dtype.STRING:
        return
    table = len(values) * (np.log2(len(known) + 1) if inside >= _INSIDE else _SIDE_BITS) + 8.0
    if len(at) < _REPEATS * len(values):
        again = len(np.unique(np.stack([_keys(evidence)[at], true], axis=1), axis=0)) - len(values)
        if again < _AGAIN or hits.mean() < _MOST or inside < 1 or _monotone(evidence, at):
            return
        table = min(table, len(values) * np.log2(2 * len(values)) - again * (np.log2(len(values)) - 1)) + 8.0
    what = (
        f"{len(values)} values are served as others, one for one: another vocabulary, or another version of the codes"
    )
    yield Explanation("vocabulary", what, evidence.mask(at[hits]), float(table))


def _one(evidence: Evidence, columns: tuple[Column, Column], at: Ints, got: Ints, known: Ints) -> Iterator[Explanation]:
    """One value of a few is always served as another of them, for several keys."""
    several = len(np.unique(_keys(evidence)[at])) >= _FEW
    if len(known) <= _SMALL and len(at) >= _ALWAYS and several and len(np.unique(got)) == 1 and got[0] in known:
        served, truth = (column.value(int(at[0])) for column in columns)
        what = f"{truth} is always served as {served}: a code that was mapped otherwise"
        yield Explanation("vocabulary", what, evidence.mask(at), 6.0)


def _images(got: Ints, place: Ints) -> Ints:
    """What each value is served as most often."""
    pairs, counts = np.unique((place.astype(np.int64) << 32) | got, return_counts=True)
    order = np.lexsort((-counts, pairs >> 32))
    _, first = np.unique(pairs[order] >> 32, return_index=True)
    images = pairs[order][first] & 0xFFFFFFFF
    return np.asarray(images, dtype=np.int64)


def _keys(evidence: Evidence) -> Ints:
    """Which key each row is about, as a number."""
    keys = [encode(column.take(evidence.rows)) for column in evidence.pairs.served.spine.keys.values()]
    _, numbers = np.unique(np.stack(keys, axis=1), axis=0, return_inverse=True)
    return numbers.astype(np.int64)


def _monotone(evidence: Evidence, at: Ints) -> bool:
    """Whether greater numbers are served as greater (or smaller) ones: then it is a formula."""
    served, truth = evidence.served, evidence.truth
    if served is None or truth is None or not truth.dtype.is_numeric:
        return False
    ranks = [np.unique(side.values[at], return_inverse=True)[1].astype(np.float64) for side in (served, truth)]
    return bool(abs(np.asarray(np.corrcoef(ranks))[0, 1]) > _MONOTONE)


def _rotated(evidence: Evidence, columns: tuple[Column, Column, Column], at: Ints) -> Iterator[Explanation]:
    """Codes that all moved on by the same number of places, the last ones to the beginning."""
    served, truth, every = columns
    got, true = (side.values[at].astype(np.float64) for side in (served, truth))
    known = np.unique(every.values[every.present].astype(np.float64))
    if len(known) > _CODES or got.min() < known[0] or got.max() > known[-1] or len(np.unique(true)) < _FEW:
        return
    places = [(got - known[0], true - known[0], known[-1] - known[0] + 1)]
    if np.isin(got, known).all():  # codes that nobody asks for have none
        rank = [np.searchsorted(known, side).astype(np.float64) for side in (got, true)]
        places.append((rank[0], rank[1], float(len(known))))
    for mine, right, round_ in places:
        steps, counts = np.unique((mine - right) % round_, return_counts=True)
        by = float(steps[counts.argmax()])
        hits: Mask = (mine - right) % round_ == by
        if by and hits.mean() >= _MOST and len(np.unique((mine - right)[hits])) > 1:
            by = by if by * 2 <= round_ else by - round_
            what = f"every code is served as the one {abs(by):g} places {'on' if by > 0 else 'back'}"
            what += ", around the end as well: another version of the codes"
            yield Explanation("vocabulary", what, evidence.mask(at[hits]), 14.0)
            return
