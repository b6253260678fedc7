"""Runs, each in a process of its own: the contestants of a case in turn, round after round, under a watchdog."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from benchmarks.pit.agreement import Agreement, compare
from benchmarks.pit.cases import Case
from benchmarks.pit.task import Task

GLANCE = 0.05
"""Seconds between two looks at a contestant's memory."""

LEFT_MIB = 768
"""A contestant ends as well when the whole machine has less than this left."""

BYTECODE = Path("build/bench/bytecode")
"""Where the contestants' processes keep compiled modules on a machine that wants none beside the sources."""

WARMING = 0.001
"""The scale of the task that a contestant answers before its own."""

LABELS = {
    "ours": "ours",
    "floor": "floor",
    "running_max": "running max",
    "arg_max": "arg_max",
    "polars": "polars",
    "polars_memory": "polars memory",
    "numpy": "numpy",
    "feast_duckdb": "Feast duckdb",
    "feast_dask": "Feast dask",
}
"""Every contestant; the name is that of its file."""

FEAST_RULE = ("floor", "ours", "arg_max", "polars", "polars_memory", "numpy", "feast_duckdb", "feast_dask")
KNOWN = ("running_max", "ours", "numpy", "feast_duckdb")
"""Who runs under which rule. The first is what the others are compared with."""

ONCE = ("feast_dask",)
"""Loses asks, hence cannot be the best, and takes minutes: one round will do."""

QUICK_ONCE = (*ONCE, "feast_duckdb")
"""The same in a quick race, which spends half of its time on importing Feast."""

SLOW = 3.0
"""In a quick race, who took this many times the fastest in the first round does not run again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a contestant is ended: `mib` of its resident memory, `seconds` of its life."""

    mib: int
    seconds: float


@dataclass(slots=True)
class Standing:
    """What one contestant has shown so far. `ended`: why it was ended, empty where it was not."""

    runs: list[dict[str, float]] = field(default_factory=list)
    ended: str = ""
    agreement: Agreement | None = None

    def median(self, figure: str) -> float | None:
        """The median over the rounds; None where there is none, or where it was ended in any."""
        values = [run[figure] for run in self.runs if figure in run]
        return median(values) if values and not self.ended else None


Progress = Callable[[int, str, dict[str, Standing]], None]
"""Called before every run, with the round, the contestant and the standings, and once more when all is done."""


def race(
    case: Case,
    root: Path,
    *,
    rounds: int,
    limits: Limits,
    among: tuple[str, ...] = tuple(LABELS),
    scale: float = 1,
    quick: bool = False,
    deadline: float = math.inf,
    progress: Progress = lambda *_: None,
) -> dict[str, Standing]:
    """The standings of a case after `rounds` rounds, fewer where `deadline` (`time.monotonic`) has passed.

    Raises `RuntimeError` where ours or the reference fails.
    """
    task, warming = case.build(root, scale), case.build(root, WARMING)
    lineup = KNOWN if case.known else FEAST_RULE
    left_out = case.hopeless if quick else ()
    names = [name for name in lineup if (name in among or name == lineup[0]) and name not in left_out]
    standings = {name: Standing() for name in names}
    folder = root / "answers" / str(os.getpid())  # of this race alone: another may be under way
    outs = {name: folder / f"{case.name}-{name}.parquet" for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for number in range(rounds):
            if number and time.monotonic() > deadline:
                break
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                standing = standings[name]
                if standing.ended or (number and _has_shown_enough(name, standings, quick=quick)):
                    continue
                progress(number, name, standings)
                standing.ended = _run(name, (warming, task), outs[name], standing.runs, limits)
                if standing.ended:
                    if name in ("ours", names[0]):
                        raise RuntimeError(f"{case.name}: {name}: {standing.ended}")
                elif number == 0 or name == "ours":
                    agreement = compare(task, outs[names[0]], outs[name])
                    standing.agreement = agreement.worse(standing.agreement)
        progress(rounds, "", standings)
    finally:
        for out in outs.values():
            out.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    return standings


def _has_shown_enough(name: str, standings: dict[str, Standing], *, quick: bool) -> bool:
    if name in (QUICK_ONCE if quick else ONCE):
        return True
    fastest = min(standing.runs[0]["s"] for standing in standings.values() if standing.runs)
    return quick and name != "ours" and standings[name].runs[0]["s"] > SLOW * fastest


def _run(name: str, tasks: tuple[Task, Task], out: Path, runs: list[dict[str, float]], limits: Limits) -> str:
    """Run it once and add the figures to `runs`, or return why there are none."""
    out.unlink(missing_ok=True)
    log, figures = out.with_suffix(".log"), Path(f"{out}.json")
    environment = os.environ | {"FEAST_USAGE": "False"}
    if sys.dont_write_bytecode:  # then every process would compile all that it imports: a quarter of a minute of Feast
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = str(BYTECODE.resolve())
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch, log.open("wb") as told:
        given = Path(scratch) / "tasks"
        given.write_text("\n".join(task.to_json() for task in tasks))
        process = subprocess.Popen(  # noqa: S603  (our own)
            [sys.executable, "-m", "benchmarks.pit.one", name, str(given), str(out)],
            stdout=told,
            stderr=told,
            env=environment | {"TMPDIR": str(Path(scratch).resolve())},
        )
        try:
            ended = _watch(process, limits)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    if not ended and process.returncode:
        ended = f"failed: {(log.read_text(errors='replace').strip().splitlines() or ['?'])[-1]}"
    if not ended:
        runs.append(json.loads(figures.read_text()))
        log.unlink()
    figures.unlink(missing_ok=True)
    return ended


def _watch(process: subprocess.Popen[bytes], limits: Limits) -> str:
    """Wait for its end; why it must end now, or nothing."""
    begun = time.monotonic()
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            resident = watched.memory_info().rss >> 20
        except psutil.NoSuchProcess:
            break
        if resident > limits.mib:
            return f"> {limits.mib / 1024:g} GiB"
        if psutil.virtual_memory().available >> 20 < LEFT_MIB:
            return f"no memory left, at {resident / 1024:.1f} GiB"
        if time.monotonic() - begun > limits.seconds:
            return f"> {limits.seconds:g} s"
        time.sleep(GLANCE)
    process.wait()
    return ""
