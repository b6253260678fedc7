"""One side speaks another unit: served = a * truth + b."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skewguard.causes.evidence import Evidence, Explanation, Floats
from skewguard.causes.precision import narrowings
from skewguard.values import Mask

KNOWN = (
    (1.609344, 0.0, "mph served as km/h"),
    (1 / 1.609344, 0.0, "km/h served as mph"),
    (0.44704, 0.0, "mph served as m/s"),
    (1 / 0.44704, 0.0, "m/s served as mph"),
    (3.6, 0.0, "m/s served as km/h"),
    (1 / 3.6, 0.0, "km/h served as m/s"),
    (1.852, 0.0, "knots served as km/h"),
    (1 / 1.852, 0.0, "km/h served as knots"),
    (1.150779448, 0.0, "knots served as mph"),
    (0.514444444, 0.0, "knots served as m/s"),
    (1.943844492, 0.0, "m/s served as knots"),
    (0.3048, 0.0, "feet served as metres"),
    (1 / 0.3048, 0.0, "metres served as feet"),
    (2.54, 0.0, "inches served as centimetres"),
    (25.4, 0.0, "inches served as millimetres"),
    (1 / 2.54, 0.0, "centimetres served as inches"),
    (1609.344, 0.0, "miles served as metres"),
    (0.45359237, 0.0, "pounds served as kilograms"),
    (1 / 0.45359237, 0.0, "kilograms served as pounds"),
    (33.8638866667, 0.0, "inches of mercury served as hectopascals"),
    (1 / 33.8638866667, 0.0, "hectopascals served as inches of mercury"),
    (3.785411784, 0.0, "gallons served as litres"),
    (5 / 9, -160 / 9, "degrees Fahrenheit served as Celsius"),
    (9 / 5, 32.0, "degrees Celsius served as Fahrenheit"),
    (1.0, 273.15, "degrees Celsius served as kelvin"),
    (1.0, -273.15, "kelvin served as degrees Celsius"),
    (5 / 9, 459.67 * 5 / 9, "degrees Fahrenheit served as kelvin"),
    (60.0, 0.0, "minutes served as seconds"),
    (1 / 60, 0.0, "seconds served as minutes"),
    (3600.0, 0.0, "hours served as seconds"),
    (1 / 3600, 0.0, "seconds served as hours"),
    (24.0, 0.0, "days served as hours"),
    (1 / 24, 0.0, "hours served as days"),
    (86400.0, 0.0, "days served as seconds"),
    (1 / 86400, 0.0, "seconds served as days"),
    (60_000.0, 0.0, "minutes served as milliseconds"),
    (1 / 60_000, 0.0, "milliseconds served as minutes"),
    (1000.0, 0.0, "served a thousandfold, as seconds in milliseconds"),
    (0.001, 0.0, "served as a thousandth, as milliseconds in seconds"),
    (1e6, 0.0, "served a millionfold, as seconds in microseconds"),
    (1e-6, 0.0, "served as a millionth, as microseconds in seconds"),
    (100.0, 0.0, "a share served as per cent, or a price in cents"),
    (0.01, 0.0, "per cent served as a share"),
    (57.29577951308232, 0.0, "radians served as degrees"),
    (0.017453292519943295, 0.0, "degrees served as radians"),
    (-1.0, 0.0, "served with the opposite sign"),
)
"""(a, b, name): served = a x truth + b, as it is usually called."""

_RTOL = 1e-6
_NAMED = 5e-4
_PAIRS = 64
_POINTS = 3  # through two there is always a line
_MOST = 0.9
_ROUNDED = 8
_NAMED_ROUNDED = 5
_TIMES = 4  # as often an event is counted at most


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """A line through random pairs of rows that most of them lie on, exactly or but for rounding; units by name.

    A line says nothing where `served = truth` explains as much (the difference lies in the last digits), nor a fitted
    one where a constant does.
    """
    numbers = evidence.numbers
    if numbers is None:
        return
    served, truth = numbers.served, numbers.truth
    unchanged = int(near(served, truth).sum())
    constant = int(near(served, np.full_like(served, np.median(served))).sum())
    lines = [(a, b, name, unchanged, 6.0 if not b else 7.0) for a, b, name in KNOWN]
    lines += [
        (a, b, "", max(unchanged, constant), 30.0 if not b or a == 1.0 else 56.0) for a, b in _fits(served, truth)
    ]
    found: list[tuple[float, Explanation]] = []
    for a, b, name, floor, bits in lines:
        with np.errstate(all="ignore"):
            hits = near(served, a * truth + b)
        enough = 3 if name or evidence.truth is None or evidence.truth.dtype.is_float else 0.9 * len(served)
        if hits.sum() > floor and hits.sum() >= max(enough, 3):  # whole numbers lie on many lines
            one = _told(evidence, numbers.at, hits, (a, b, name, bits))
            found.append((evidence.gain(one), one))
    if found:
        yield max(found, key=lambda one: one[0])[1]
    if not found or max(one.explained for _, one in found) < 0.5:
        yield from _rounded(evidence, served, truth, numbers.at)


def _told(evidence: Evidence, at: np.ndarray, hits: Mask, line: tuple[float, float, str, float]) -> Explanation:
    a, b, name, bits = line
    a, b = _plain(a, b)
    if a in range(2, _TIMES + 1) and not b:
        what = f"served = truth x {a:g}: every event was counted {int(a)} times"
        return Explanation("duplicates", what, evidence.mask(at[hits]), bits - 6)
    name = name or next((known for x, y, known in KNOWN if _close(a, x) and _close(b, y)), "")
    return Explanation("unit", formula(a, b) + (f" ({name})" if name else ""), evidence.mask(at[hits]), bits)


def formula(a: float, b: float) -> str:
    """The line in words: `served = truth x 1.8 + 32`."""
    if a == 1.0:
        return f"served = truth {'+' if b > 0 else '-'} {abs(b):.4g}"
    return f"served = truth x {a:.4g}" + (f" {'+' if b > 0 else '-'} {abs(b):.4g}" if b else "")


def _plain(a: float, b: float) -> tuple[float, float]:
    """The line without what arithmetic added to it."""
    a = round(a) if round(a) and abs(a - round(a)) < 1e-9 * abs(a) else a
    return a, 0.0 if abs(b) < 1e-9 * max(abs(a), 1.0) else b


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= _NAMED * max(abs(one), abs(other)) or one == other


def near(served: Floats, expected: Floats) -> Mask:
    """Where two numbers are the same but for what arithmetic adds to them."""
    with np.errstate(all="ignore"):
        return np.asarray(np.abs(served - expected) <= _RTOL * np.maximum(np.abs(served), np.abs(expected)))


def _fits(served: Floats, truth: Floats) -> list[tuple[float, float]]:
    """Candidate lines: a plain factor, a plain offset, and lines through seeded random pairs of different truths."""
    lines = []
    nonzero = np.flatnonzero((truth != 0) & (served != 0))
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        if len(nonzero):
            ratios = served[nonzero] / truth[nonzero]
            lines += [(float(a), 0.0) for a in (np.median(ratios), *rng.choice(ratios, 16))]
        offsets = served - truth
        lines += [(1.0, float(b)) for b in (np.median(offsets), *rng.choice(offsets, 16))]
        if len(np.unique(truth)) < _POINTS:
            return lines
        i, j = rng.integers(0, len(truth), (2, _PAIRS))
        for p, q in zip(i, j, strict=True):
            if truth[p] != truth[q] and served[p] != served[q]:
                a = (served[p] - served[q]) / (truth[p] - truth[q])
                lines.append((float(a), float(served[p] - a * truth[p])))
    return [(a, b) for a, b in lines if np.isfinite(a) and np.isfinite(b) and a and (a, b) != (1.0, 0.0)]


def _rounded(evidence: Evidence, served: Floats, truth: Floats, at: np.ndarray) -> Iterator[Explanation]:
    """A known unit, or the plain factor that fits best, and then rounded: two causes in one row."""
    nonzero = truth != 0
    if not nonzero.any() or len(np.unique(truth)) < _POINTS:
        return
    factor = float(np.median(served[nonzero] / truth[nonzero]))
    close = [line for line in KNOWN if _roughly(served, line[0] * truth + line[1])]
    best: tuple[float, Explanation] | None = None
    for a, b, name in close or [(round(factor, 3), 0.0, "")]:
        for kind, sentence, bits, values in narrowings(a * truth + b):
            hits = values == served
            if (
                (a, b) == (1.0, 0.0)
                or hits.sum() < _MOST * len(hits)
                or len(np.unique(served[hits])) < (_NAMED_ROUNDED if name else _ROUNDED)
            ):
                continue
            rounded = sentence.removeprefix("served = truth ")
            what = formula(a, b) + (f" ({name})" if name else "") + f", {rounded}"
            one = Explanation(f"unit+{kind}", what, evidence.mask(at[hits]), 12.0 + bits + (0 if name else 24))
            if best is None or evidence.gain(one) > best[0]:
                best = evidence.gain(one), one
    if best:
        yield best[1]


def _roughly(served: Floats, expected: Floats) -> bool:
    with np.errstate(all="ignore"):
        off = np.abs(served - expected)
    return bool(
        (off <= 0.02 * np.abs(expected) + 0.51).mean() > 0.5 and np.median(off) < 0.5 * max(expected.std(), 1e-9)
    )
