"""Looking often must not matter: false alarms over 200 looks at a benign rate, and rows until a true one is told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from skewguard.statistics import path_log10_e
from skewguard.workflows.examine import MINED

BENIGN = 0.001
LOOKS = 200
EVERY = 100
ALPHA = 0.05

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Looks:
    """Rates over seeded runs. `alone`: one feature, judged at 5 %; `repeated`: a binomial test at every look."""

    runs: int
    alone: float
    judged: float
    repeated: float
    rows_to_alarm: int
    rows_to_alarm_alone: int
    never: float


def look(runs: int, seed: int = 0) -> Looks:
    """Simulated streams of rows, a look every `EVERY` of them, judged as the guard does (e-BH among what it tests)."""
    rng = np.random.default_rng(seed)
    rows = np.arange(1, LOOKS + 1) * EVERY
    tested = MINED + 1  # one feature that declares a benign rate, beside the rules that are mined
    alone = judged = repeated = 0
    for _ in range(runs):
        hits = np.cumsum(rng.binomial(EVERY, BENIGN, LOOKS))
        evidence = path_log10_e(hits, rows, BENIGN)
        alone += bool((evidence >= np.log10(1 / ALPHA)).any())
        judged += bool((evidence >= np.log10(tested / ALPHA)).any())
        repeated += bool((binom.sf(hits - 1, rows, BENIGN) < ALPHA)[4:].any())
    when = [_first(rng, 5 * BENIGN, tested) for _ in range(max(100, runs // 5))]
    first = [_first(rng, 5 * BENIGN, 1) for _ in range(max(100, runs // 5))]
    return Looks(
        runs, alone / runs, judged / runs, repeated / runs, int(np.median(when)), int(np.median(first)),
        float(np.mean([one >= LOOKS * EVERY for one in when])),
    )  # fmt: skip


def _first(rng: np.random.Generator, rate: float, tested: int) -> int:
    """Rows until the alarm, looking at every tenth one."""
    rows = np.arange(1, LOOKS * EVERY // 10 + 1) * 10
    hits = np.cumsum(rng.binomial(10, rate, len(rows)))
    loud = np.flatnonzero(path_log10_e(hits, rows, BENIGN) >= np.log10(tested / ALPHA))
    return int(rows[loud[0]]) if len(loud) else LOOKS * EVERY
