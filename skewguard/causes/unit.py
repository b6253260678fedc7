"""One side speaks another unit: served = a * truth + b."""

from __future__ import annotations

import numpy as np

from skewguard.causes.evidence import Evidence, Explanation
from skewguard.values import Array

_KNOWN = (
    (1.609344, 0.0, "mph served as km/h"),
    (1 / 1.609344, 0.0, "km/h served as mph"),
    (0.44704, 0.0, "mph served as m/s"),
    (3.6, 0.0, "m/s served as km/h"),
    (1.852, 0.0, "knots served as km/h"),
    (5 / 9, -160 / 9, "degrees Fahrenheit served as Celsius"),
    (9 / 5, 32.0, "degrees Celsius served as Fahrenheit"),
    (60.0, 0.0, "minutes served as seconds"),
    (1 / 60, 0.0, "seconds served as minutes"),
    (1000.0, 0.0, "served a thousandfold"),
    (0.001, 0.0, "served as a thousandth"),
    (100.0, 0.0, "a share served as per cent"),
    (0.01, 0.0, "per cent served as a share"),
    (-1.0, 0.0, "served with the opposite sign"),
)
_RTOL = 1e-6
_PAIRS = 64
_POINTS = 3  # through two there is always a line


def explain(evidence: Evidence) -> Explanation | None:
    """A line through random pairs of rows that nine tenths of them lie on; known units by name.

    A line says nothing where `served = truth` explains as much (the difference lies in the last digits), nor a fitted
    one where a constant does.
    """
    numbers = evidence.numbers()
    if numbers is None:
        return None
    served, truth = numbers
    unchanged = _hits(served, truth, 1.0, 0.0)
    constant = _hits(served, truth, 0.0, float(np.median(served)))
    lines = [(a, b, name, unchanged) for a, b, name in _KNOWN]
    lines += [(a, b, "", max(unchanged, constant)) for a, b in _fits(served, truth)]
    scored = ((_hits(served, truth, a, b), floor, -i) for i, (a, b, _, floor) in enumerate(lines))
    hits, negative = max(((hits, i) for hits, floor, i in scored if hits > floor), default=(0, 0))
    a, b, name, _ = lines[-negative]
    if hits < 0.9 * len(served):
        return None
    formula = f"served = truth x {a:.4g}" + (f" {'+' if b > 0 else '-'} {abs(b):.4g}" if b else "")
    if a == 1.0:
        formula = f"served = truth {'+' if b > 0 else '-'} {abs(b):.4g}"
    return Explanation("unit", f"{formula} ({name})" if name else formula, hits / len(evidence.rows))


def _hits(served: Array, truth: Array, a: float, b: float) -> int:
    with np.errstate(all="ignore"):
        expected = a * truth + b
        return int((np.abs(served - expected) <= _RTOL * np.maximum(np.abs(served), np.abs(expected))).sum())


def _fits(served: Array, truth: Array) -> list[tuple[float, float]]:
    """Candidate lines: a plain factor, a plain offset, and lines through seeded random pairs of different truths."""
    lines = []
    nonzero = truth != 0
    if nonzero.any():
        lines.append((float(np.median(served[nonzero] / truth[nonzero])), 0.0))
    lines.append((1.0, float(np.median(served - truth))))
    if len(np.unique(truth)) < _POINTS:
        return lines
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, len(truth), (2, _PAIRS))
    apart = truth[i] != truth[j]
    with np.errstate(all="ignore"):  # truths that are as good as the same
        for p, q in zip(i[apart], j[apart], strict=True):
            a = (served[p] - served[q]) / (truth[p] - truth[q])
            lines.append((float(a), float(served[p] - a * truth[p])))
    return lines
