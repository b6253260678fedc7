"""Statistics that hold up: how sure a rate is above the declared one, at every look, and over many features.

An e-value is what a fair bet against the null has multiplied its stake by: under the null it exceeds 1/alpha with
probability alpha at most, at whatever moment one looks (Ville), and e-values of many features are judged together by
e-BH, whatever their dependence. Sources: Waudby-Smith and Ramdas 2024, Wang and Ramdas 2022.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CAP = 300.0
"""The greatest evidence that is told, as a power of ten."""

_BETS = 24
_LEAST_RATIO = 1.3
_GREATEST = 0.999


def log10_e(hits: int, rows: int, benign: float) -> float:
    """Evidence (log10 of an e-value) that more than `benign` of the rows are hit, after `rows` of them; at most `CAP`.

    A mixture of bets on rates above `benign`, each a likelihood ratio: under any rate up to `benign` its expectation is
    1 at most, at every stopping time. With `benign` 0 one hit settles it.
    """
    if not rows or not hits or benign >= 1:
        return 0.0 if not hits else min(float(path_log10_e(np.array([hits]), np.array([rows]), benign)[0]), CAP)
    return min(float(path_log10_e(np.array([hits]), np.array([rows]), benign)[0]), CAP)


def path_log10_e(hits: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], benign: float) -> Floats:
    """The same along a path: `hits` of `rows` so far, shape (looks,) each."""
    if benign >= 1:
        return np.zeros(len(rows))
    if benign <= 0:
        return np.where(hits > 0, CAP, 0.0)
    bets = _bets(benign)
    up, down = np.log(bets / benign), np.log((1 - bets) / (1 - benign))
    growth = np.outer(hits, up) + np.outer(rows - hits, down)
    top = growth.max(axis=1)
    return np.asarray((top + np.log(np.exp(growth - top[:, None]).mean(axis=1))) / math.log(10))


def watched(before: Floats | None, hits: int, rows: int, benign: float) -> Floats:
    """One look more of a watch for the moment at which a rate rises above `benign` (0 < benign < 1); None to begin.

    A Shiryaev-Roberts e-detector, one natural logarithm per bet: what was so far and a new stake, multiplied by how the
    bet did. It forgets the calm before, in which a single e-process would have lost its stake. Source: Shin, Ramdas and
    Rinaldo 2023.
    """
    bets = _bets(benign)
    stake = np.zeros(len(bets)) if before is None else np.logaddexp(before, 0.0)
    return np.asarray(stake + hits * np.log(bets / benign) + (rows - hits) * np.log((1 - bets) / (1 - benign)))


def watched_log10_e(state: Floats, looks: float) -> float:
    """Evidence (log10) of a watch over so many looks: 1/alpha or more at any of them has probability alpha at most."""
    top = float(state.max())
    return min((top + math.log(float(np.exp(state - top).mean()))) / math.log(10) - math.log10(max(looks, 1.0)), CAP)


def _bets(benign: float) -> Floats:
    """Alternative rates between `benign` and certainty, evenly spaced in their logarithm, as odds."""
    low = math.log(min(_LEAST_RATIO * benign, (1 + benign) / 2))
    return np.exp(np.linspace(low, math.log(_GREATEST), _BETS)) if low < math.log(_GREATEST) else np.array([_GREATEST])


def e_bh(evidence: Mapping[str, float], alpha: float, tested: int = 0) -> frozenset[str]:
    """The names whose evidence (log10 e) stands with a false discovery rate of `alpha`, under any dependence.

    `tested` hypotheses in all: those without evidence count as well.
    """
    ordered = sorted(evidence.items(), key=lambda item: -item[1])
    n = max(tested, len(ordered))
    kept = 0
    for rank, (_, value) in enumerate(ordered, 1):
        if value >= math.log10(n / (alpha * rank)):
            kept = rank
    return frozenset(name for name, _ in ordered[:kept])


def lower_bound(hits: int, rows: int, alpha: float = 0.001) -> float:
    """A lower confidence bound (Clopper-Pearson by Chernoff) of the rate behind `hits` of `rows`; 0 without rows.

    The greatest p below the observed rate with rows x KL(rate, p) >= log(1/alpha): a little wider than exact.
    """
    if not rows or not hits:
        return 0.0
    rate, need = hits / rows, math.log(1 / alpha) / rows
    low, high = 0.0, rate
    for _ in range(60):
        middle = (low + high) / 2
        if _divergence(rate, middle) >= need:
            low = middle
        else:
            high = middle
    return low


def _divergence(a: float, b: float) -> float:
    """Kullback-Leibler divergence of two rates, in nats."""
    if b <= 0 or b >= 1:
        return math.inf if a != b else 0.0
    total = a * math.log(a / b) if a else 0.0
    return total + ((1 - a) * math.log((1 - a) / (1 - b)) if a < 1 else 0.0)


def distance_floor(one: Sequence[int], other: Sequence[int], alpha: float = 0.001) -> tuple[float, float]:
    """(total variation of two histograms over the same cells, a lower bound of it): the bound is what to hold against
    a floor, for in a million rows every difference is significant.
    """
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if not a.sum() or not b.sum():
        return 0.0, 0.0
    distance = 0.5 * float(np.abs(a / a.sum() - b / b.sum()).sum())
    # McDiarmid about the mean, whose own bias is at most 0.5 x sum sqrt(p (1 - p) / n) per side.
    bias = 0.5 * sum(float(np.sqrt((s / s.sum()) * (1 - s / s.sum()) / s.sum()).sum()) for s in (a, b))
    spread = math.sqrt(math.log(1 / alpha) / 2 * (1 / a.sum() + 1 / b.sum()))
    return distance, max(0.0, distance - bias - spread)
