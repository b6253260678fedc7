"""Values of a small set were mapped onto one another: another vocabulary, encoder or version of codes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skewguard.causes.default_fill import whole
from skewguard.causes.evidence import Evidence, Explanation
from skewguard.causes.timeline import encode
from skewguard.values import Column, Dtype

_REPEATS = 2.0
_SIDE_BITS = 16.0


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """Each true value is always served as one and the same other, no two as one; numbers only among themselves."""
    served, truth, every = evidence.served, evidence.truth, evidence.observed.truth
    if served is None or truth is None or every is None or truth.dtype is Dtype.TIMESTAMP:
        return
    both = served.present & truth.present
    if truth.dtype.is_float and not (
        whole(truth.values[both], truth.dtype) and whole(served.values[both], truth.dtype)
    ):
        return
    at = np.flatnonzero(both)
    if len(at) < 6:
        return
    codes = encode(Column.concat([truth.take(at), served.take(at), every]))
    true, got, known = codes[: len(at)], codes[len(at) : 2 * len(at)], np.unique(codes[2 * len(at) :])
    values, place = np.unique(true, return_inverse=True)
    if len(values) < 2 or len(at) < _REPEATS * len(values):
        return
    images = (
        np.array([np.bincount(got[place == i]).argmax() for i in range(len(values))]) if len(values) < 400 else None
    )
    if images is None or len(np.unique(images)) < len(values):
        return
    inside = np.isin(images, known).mean()
    if inside < 0.8 and truth.dtype is not Dtype.STRING:
        return
    hits = got == images[place]
    bits = len(values) * (np.log2(len(known) + 1) if inside >= 0.8 else _SIDE_BITS) + 8.0
    what = (
        f"{len(values)} values are served as others, one for one: another vocabulary, or another version of the codes"
    )
    yield Explanation("vocabulary", what, evidence.mask(at[hits]), float(bits))
