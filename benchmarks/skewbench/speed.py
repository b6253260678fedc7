"""Seconds: a full report on 100,000 rows beside the store's own reading, and the causes of one broken view."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.skewbench.faults.case import Case
from benchmarks.skewbench.ours import POLICY, Held, write_log
from benchmarks.skewbench.world import World, scratch
from skewguard.causes import explain
from skewguard.compare import learn
from skewguard.offline import OfflineStore
from skewguard.report import to_html
from skewguard.servinglog import read_log
from skewguard.workflows.guard import guard

TIMES = 3


@dataclass(frozen=True)
class Speed:
    """`report_s`: guard and HTML, without `store_s` (sources and join read anew) and the learning of the first time."""

    rows: int
    features: int
    report_s: float
    store_s: float
    whole_s: float
    log_s: float
    learn_s: float


def measure(world: World, rows: int) -> Speed:
    """The least of three; of a healthy log, asked cold each time."""
    window = world.window(len(world.asks) // 3, rows)
    folder = scratch(world.root)
    try:
        write_log(world, window.served, {}, folder / "log")
        began = time.perf_counter()
        learn(world.snapshot)
        learnt = time.perf_counter() - began

        def store() -> None:
            with OfflineStore(world.bundle.views) as offline:
                offline.answer(window.spine)

        def report() -> None:
            verdict = guard(folder / "log", world.snapshot, POLICY, model=world.model, extra=()).verdict
            (folder / "report.html").write_text(to_html(verdict))

        def log() -> None:
            for _, batch in (
                (s, b) for s in read_log(folder / "log", world.bundle.service).segments for b in s.batches()
            ):
                batch.validate()

        read, whole = _least(store), _least(report)
        return Speed(rows, len(world.bundle.vector), whole - read, read, whole, _least(log), learnt)
    finally:
        shutil.rmtree(folder)


def causes(cases: list[Case], root: Path) -> float:
    """The 95th percentile, over cases of one broken view, of what it takes to explain all findings of one log."""
    seconds = []
    for case in cases:
        folder = scratch(root)
        try:
            world = case.window.world
            write_log(world, case.served, case.labels, folder / "log")
            seen = guard(folder / "log", world.snapshot, POLICY, extra=(), sources=Held(world.offline))
            assert seen.comparison is not None
            assert seen.pairs is not None
            began = time.perf_counter()
            for observed in seen.comparison.observed:
                explain(observed, seen.pairs)
            seconds.append(time.perf_counter() - began)
        finally:
            shutil.rmtree(folder)
    return float(np.quantile(seconds, 0.95)) if seconds else 0.0


def _least(work: Callable[[], None]) -> float:
    found = []
    for _ in range(TIMES):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)
