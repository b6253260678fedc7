"""The runs: faults at each share of the rows, stacked ones, sliced ones, and clean windows, each before the guard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.skewbench import attribution
from benchmarks.skewbench.clean import cases
from benchmarks.skewbench.faults import FAULTS, SLICES, Fault, stacked
from benchmarks.skewbench.faults.case import Case
from benchmarks.skewbench.ours import Judged, judged
from benchmarks.skewbench.world import World
from skewguard.findings import Finding

ROWS = 10_000
TRIES = 6
KNOWN_CAUSES_OF = ("stale_view", "stale_silently", "stale_everything", "stale_one_feature")
SLICED = ("unit_changed", "null_filled", "nulled", "stale_silently", "as_float32", "other_logarithm", "vector_swapped")
STACKED = (
    ("unit_changed", "stale_silently"), ("null_filled", "hour_in_other_zone"), ("as_float32", "ttl_too_short"),
    ("stale_view", "celsius"), ("clipped", "vector_swapped"), ("nulled", "scaled"), ("rounded", "absent_filled"),
    ("unit_changed", "other_runway"), ("stale_silently", "sign_flipped"), ("constant", "truncated"),
)  # fmt: skip

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """One case before the guard: whether it alarmed on what is wrong, and what it said of the cause."""

    fault: str
    share: float
    of_rows: bool
    rows: int
    detected: bool
    ruling: str
    said: str
    causes: tuple[str, ...]
    top1: bool = False
    top3: bool = False
    both: bool = False
    lag: bool | None = None
    slice: bool | None = None
    stage: bool | None = None


def trials(world: World, share: float, seeds: Sequence[int], faults: Sequence[Fault], tell: Tell) -> Iterator[Trial]:
    """Every fault with every seed at one share of the rows; those that a window has nothing for are left out."""
    for fault in faults:
        for seed in seeds:
            case = _case(world, fault, seed, share, "")
            if case is not None:
                trial = _trial(fault.name, fault.of_rows, share, case, judged(case, world.root))
                tell(f"{share:.1%} {fault.name}: {'seen' if trial.detected else 'MISSED'}")
                yield trial


def sliced(
    world: World, share: float, seeds: Sequence[int], tell: Tell, names: Sequence[str] = SLICED
) -> Iterator[Trial]:
    """Faults that hit one part of the traffic only."""
    for fault in (one for one in FAULTS if one.name in names):
        for number, where in enumerate(SLICES[1:]):
            for seed in seeds:
                case = _case(world, fault, seed + 100 * number, share, where)
                if case is not None:
                    tell(f"{fault.name} in {case.slice or 'time'}")
                    yield _trial(fault.name, True, share, case, judged(case, world.root))


def pairs(world: World, share: float, seeds: Sequence[int], tell: Tell) -> Iterator[Trial]:
    """Two faults at once."""
    for names in STACKED:
        for seed in seeds:
            first = int(np.random.default_rng([seed, 77]).integers(0, len(world.asks) - ROWS))
            case = stacked(world.window(first, ROWS), names, seed, share)
            if case is not None:
                tell(" + ".join(names))
                yield _trial(" + ".join(names), True, share, case, judged(case, world.root))


def healthy(world: World, *, quick: bool, tell: Tell) -> Iterator[tuple[str, str, tuple[Finding, ...]]]:
    """(kind of window, ruling, findings that decided), of every clean window."""
    for name, make in cases(world, ROWS, quick=quick):
        for case in make():
            verdict = judged(case, world.root)
            tell(f"clean, {name}: {verdict.verdict.ruling}")
            yield name, str(verdict.verdict.ruling), verdict.alarms


def broken_view(world: World, count: int) -> list[Case]:
    """Windows in which a whole view is wrong in every row."""
    fault = next(one for one in FAULTS if one.name == "stale_silently")
    made = (_case(world, fault, seed, 1.0, "") for seed in range(count))
    return [case for case in made if case is not None]


def _case(world: World, fault: Fault, seed: int, share: float, where: str) -> Case | None:
    """A window drawn by the fault's name and seed; another one where this one has nothing to go wrong."""
    number = sum(ord(letter) * (place + 1) for place, letter in enumerate(fault.name))
    rng = np.random.default_rng([number, seed])
    for attempt in range(TRIES):
        first = int(rng.integers(2 * ROWS // 10, len(world.asks) - ROWS))
        case = fault.make(world.window(first, ROWS), number * 1000 + seed * 10 + attempt, share, where)
        if case is not None:
            return case
    return None


def _trial(name: str, of_rows: bool, share: float, case: Case, answer: Judged) -> Trial:
    found = attribution.pointing(case, answer.alarms)
    said = "; ".join(f"{f.feature} {f.kind} {f.cause_kind} {f.cause}" for f in found[:2])
    verdict = answer.verdict
    if not found:
        return Trial(name, share, of_rows, case.rows, False, str(verdict.ruling), verdict.reasons[0], case.causes)
    first = found[0]
    named = [any(attribution.names_cause(cause, one, len(one.causes)) for one in found) for cause in case.causes]
    return Trial(
        name, share, of_rows, case.rows, True, str(verdict.ruling), said, case.causes,
        top1=attribution.names_cause(case.causes[0], first, 1),
        top3=any(attribution.names_cause(case.causes[0], one, 3) for one in found[:3]),
        both=all(named),
        lag=any(attribution.lag_right(case, one) for one in found[:3]) if case.lag_us else None,
        slice=attribution.slice_right(case, first) if case.slice or case.since else None,
        stage=attribution.stage_right(case, first) if case.stage else None,
    )  # fmt: skip
