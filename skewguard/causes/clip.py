"""Values beyond a bound were served as the bound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from skewguard.causes.evidence import Evidence, Explanation
from skewguard.values import Array

_TELLING = 3.0


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """One or two constants, with the truth beyond them alone."""
    numbers, whole = evidence.numbers, evidence.observed.truth
    if numbers is None or whole is None:
        return
    values, counts = np.unique(numbers.served, return_counts=True)
    bounds = values[np.argsort(-counts, kind="stable")[:2]]
    every = whole.values[evidence.peers & whole.present].astype(np.float64)
    found: dict[str, tuple[Array, str]] = {}
    for bound in bounds:
        at = numbers.served == bound
        truth = numbers.truth[at]
        for side, beyond, within in (
            ("above", truth > bound, every < bound),
            ("below", truth < bound, every > bound),
        ):
            if beyond.mean() > 0.98 and at.sum() >= 3 and _tells(within, truth):
                found.setdefault(side, (at, f"what lies {side} {bound:g} was served as {bound:g}"))
    if found:
        hit = np.logical_or.reduce([at for at, _ in found.values()])
        told = " and ".join(what for _, what in found.values())
        yield Explanation("clip", told, evidence.mask(numbers.at[hit]), 8.0 * len(found) + 12.0)


def beyond_a_line(evidence: Evidence, line: Explanation, constant: Explanation) -> Explanation:
    """The constant as a bound, where the truth of its rows lies beyond that of all rows on a line."""
    numbers = evidence.numbers
    if numbers is None:
        return constant
    truth = np.full(len(evidence), np.nan)
    truth[numbers.at] = numbers.truth
    inside, outside = truth[line.hits], truth[constant.hits]
    if np.nanmin(outside) >= np.nanmax(inside) or np.nanmax(outside) <= np.nanmin(inside):
        return replace(constant, kind="clip", sentence=f"what lies beyond was held at {_value(constant)}")
    return constant


def _value(constant: Explanation) -> str:
    return constant.sentence.partition(" ")[0]


def _tells(within: Array, truth: Array) -> bool:
    """Whether a constant put in anywhere would have struck values within the bound as well; two truths need more."""
    values = len(np.unique(truth))
    needed = _TELLING if values > 2 else 3 * _TELLING
    return bool(values > 1 and len(within) and -len(truth) * np.log1p(-min(within.mean(), 0.999)) > needed)
