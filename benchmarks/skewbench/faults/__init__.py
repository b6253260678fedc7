"""What goes wrong between training and serving, as functions of the data: nothing here knows a detector.

A fault of rows (`store`, `values`, `computed`) takes a window of honest traffic and a generator, draws its parameters,
and gives back every row as it would be if the fault had hit it; which rows are hit is drawn afterwards, among those
that it changes. A fault `beyond` rows makes the whole case. Add one: write the function, and name it in `FAULTS` of its
file. Its docstring begins with the numbers that it has in the catalogue of docs/skewbench.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.skewbench.faults import beyond, computed, store, values
from benchmarks.skewbench.faults.case import Case, Faulty, Rng, differs, mixed
from benchmarks.skewbench.world import Window
from skewguard.values import Array, Mask

MINIMUM = 3
"""A case has at least so many wrong rows."""

CAUSES = (
    "stale", "batch", "stopped", "stale_feature", "cached", "lost_write", "missing", "future", "timezone", "ttl",
    "other_entity", "default", "null_fill", "nulled", "misaligned", "unit", "float32", "float16", "rounded",
    "truncated", "overflow", "clipped", "other_feature", "noise", "counted", "vocabulary", "other_code", "window",
    "other_model", "novel", "request", "clock", "duplicate", "lost", "source", "frozen", "outcome", "leak", "training",
)  # fmt: skip
"""What may be said to be wrong; detectors' own words are held against them in `attribution.py`."""

SLICES = ("", "build B", "host web-7", "origin", "since")
"""Where a fault may hit: anywhere, one build, one host, one airport, from some moment on."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault. `of_rows`: a replay of the rows could see it."""

    name: str
    of_rows: bool
    make: Callable[[Window, int, float, str], Case | None]


def _of_rows(function: Callable[[Window, Rng], Faulty | None]) -> Fault:
    def make(window: Window, seed: int, share: float, where: str = "") -> Case | None:
        parameters, rows = (np.random.default_rng([seed, one]) for one in (1, 2))
        faulty = function(window, parameters)
        return None if faulty is None else _hitting(window, faulty, rows, share, where)

    return Fault(function.__name__, True, make)


def _beyond(function: beyond.Made) -> Fault:
    def make(window: Window, seed: int, share: float, where: str = "") -> Case | None:
        assert not where, f"{function.__name__} chooses its rows itself"
        case = function(window, np.random.default_rng([seed, 1]), share)
        return case if case.rows >= MINIMUM else None

    return Fault(function.__name__, False, make)


FAULTS = (
    *(_of_rows(one) for one in (*store.FAULTS, *values.FAULTS, *computed.FAULTS)),
    *(_beyond(one) for one in beyond.FAULTS),
)
ROWS = {one.__name__: one for one in (*store.FAULTS, *values.FAULTS, *computed.FAULTS)}


def _hitting(window: Window, faulty: Faulty, rng: Rng, share: float, where: str) -> Case | None:
    inside, labels, since = _slice(window, rng, where)
    wrong = np.flatnonzero(differs(window.served, window.finished_like(faulty.served)) & inside)
    if len(wrong) < MINIMUM:
        return None
    hit = np.zeros(len(window.spine), dtype=bool)
    hit[rng.choice(wrong, min(len(wrong), max(MINIMUM, round(share * len(hit)))), replace=False)] = True
    served = mixed(window, window.served, faulty.served, hit)
    name = f"origin {window.spine.keys['origin'].values[np.flatnonzero(inside)[0]]}" if where == "origin" else where
    return Case(
        window, served, labels, faulty.touched, (faulty.cause,), faulty.stage, faulty.lag_us, int(hit.sum()),
        slice="" if where == "since" else name, since=since,
    )  # fmt: skip


def _slice(window: Window, rng: Rng, where: str) -> tuple[Mask, dict[str, Array], int]:
    """(rows in the slice, labels by row, since when)."""
    n = len(window.spine)
    whole = np.ones(n, dtype=bool)
    if where in {"build B", "host web-7"}:
        name, value = where.split(" ")
        mine = rng.random(n) < 0.4
        return mine, {name: np.where(mine, value, {"build": "A", "host": "web-1"}[name])}, 0
    if where == "origin":
        values = window.spine.keys["origin"].values
        return np.asarray(values == rng.choice(sorted(set(values.tolist())))), {}, 0
    if where == "since":
        start = int(window.spine.as_of[int(rng.uniform(0.3, 0.7) * n)])
        return window.spine.as_of >= start, {}, start
    return whole, {}, 0


def stacked(window: Window, names: tuple[str, str], seed: int, share: float) -> Case | None:
    """Two faults in the same rows: the second one hits what the first one left right."""
    rng = np.random.default_rng([seed, 9])
    first = ROWS[names[0]](window, np.random.default_rng([seed, 1]))
    second = ROWS[names[1]](window, np.random.default_rng([seed, 3]))
    if first is None or second is None:
        return None
    a, b = (_hitting(window, one, rng, share, "") for one in (first, second))
    if a is None or b is None or first.touched & second.touched:
        return None
    views = {window.bundle.view_of.get(name, name) for one in (first, second) for name in one.touched}
    if len(views) < len(first.touched | second.touched):
        return None
    only = differs(window.served, b.served)
    served = mixed(window, a.served, b.served, only)
    whole = differs(window.served, served)
    return Case(window, served, {}, first.touched | second.touched, (first.cause, second.cause),
                rows=int(whole.sum()))  # fmt: skip
