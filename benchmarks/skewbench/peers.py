"""What others see: distributions of what was logged, against training or against the offline truth of the same window.

Detected is a fault where a touched column alarms that is quiet on the same window without the fault. On a clean window
every alarm is false. KS, PSI and Jensen-Shannon are computed here; tools with needs of their own are in `outside/`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import ks_2samp

from benchmarks.skewbench.attribution import allowed
from benchmarks.skewbench.faults import FAULTS, Fault
from benchmarks.skewbench.world import Window, World
from skewguard.answer import Served, answer

ROWS = 10_000
REFERENCE_ROWS = 20_000
OUTSIDE = ("evidently", "nannyml", "tfdv")
OUTSIDE_EVERY = 5
OUTSIDE_CLEAN = 9
REFERENCES = ("training", "same window")
QUIET = {"NML_DISABLE_USAGE_LOGGING": "1", "DO_NOT_TRACK": "1"}
"""No tool tells its maker that it was run."""

PATIENCE = 1800
"""Seconds for all comparisons of one tool."""

Frame = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Job:
    """One comparison: which reference, what it is of, and where a detector may point (nothing on a clean window)."""

    reference: str
    window: int
    current: pa.Table
    fault: str = ""
    share: float = 0.0
    of_rows: bool = False
    touched: frozenset[str] = frozenset()


@dataclass
class Answers:
    """What one peer said to all jobs, in order: columns that alarm, and seconds."""

    version: str
    alarms: list[set[str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def run(world: World, venvs: Path | None, *, quick: bool) -> dict[str, Any]:
    """Figures of every peer, by its name and what it compares with."""
    windows = [world.window(round(at * len(world.asks)), ROWS) for at in (0.12, 0.52, 0.86)]
    clean = [world.window(int(at), ROWS) for at in np.linspace(0, len(world.asks) - ROWS, 4 if quick else 12)]
    references = {"training": _training(world)}
    references |= {f"truth-{i}": _truth(window) for i, window in enumerate((*windows, *clean))}
    faults = [fault for fault in FAULTS if not quick or fault in FAULTS[::5]]
    jobs = [*_clean((*windows, *clean)), *_faults(windows, faults)]  # what is quiet without faults must be known
    found = {name: _figures(_here(test, references, jobs), jobs) for name, test in TESTS.items()}
    if venvs is not None:
        some = {fault.name for fault in faults[::OUTSIDE_EVERY]}  # seconds a comparison: a sample must do
        few = [job for job in jobs if (job.fault in some if job.fault else job.window < OUTSIDE_CLEAN)]
        folder = world.root / "peers"
        _written(folder, references, few)
        for name in OUTSIDE:
            python = venvs / name / "bin" / "python"
            if python.exists():
                found[name] = _figures(_outside(name, python, folder), few)
    return found


# -- jobs -------------------------------------------------------------------------------------------------------------


def _faults(windows: Sequence[Window], faults: Sequence[Fault]) -> Iterator[Job]:
    for share in (0.01, 0.05):
        for number, fault in enumerate(faults):
            if share == 0.01 and not fault.of_rows:
                continue
            for turn in range(len(windows)):
                at = (number + turn) % len(windows)
                case = fault.make(windows[at], 1000 + number, share, "")
                if case is not None:
                    touched = allowed(case.touched, windows[at].bundle)
                    table = frame(windows[at], case.served)
                    for reference in ("training", f"truth-{at}"):
                        yield Job(reference, at, table, fault.name, share, fault.of_rows, touched)
                    break


def _clean(windows: Sequence[Window]) -> Iterator[Job]:
    for at, window in enumerate(windows):
        for reference in ("training", f"truth-{at}"):
            yield Job(reference, at, frame(window, window.served))


def frame(window: Window, served: Served) -> pa.Table:
    """What entered the model, what the request brought, and the prediction, a column each."""
    columns = {name: pa.array(served.vector[:, i], from_pandas=True) for i, name in enumerate(window.bundle.vector)}
    for name in ("distance", "carrier", "destination"):
        columns[name] = served.spine.request[name].to_arrow()
    columns["prediction"] = pa.array(window.finished_like(served).prediction)
    return pa.table(columns)


def _truth(window: Window) -> pa.Table:
    rows = window.world.offline.answer(window.spine)
    return frame(window, window.finished(answer(window.bundle, window.spine, rows)))


def _training(world: World) -> pa.Table:
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(world.snapshot.manifest.rows, REFERENCE_ROWS, replace=False))
    window = world.window(0, world.snapshot.manifest.rows)
    return _truth(Window(world, window.asks.take(pa.array(chosen)), window.spine.take(chosen), window.tick_us))


# -- the tests that run here ------------------------------------------------------------------------------------------


def ks(reference: Frame, current: Frame) -> set[str]:
    """Two-sample Kolmogorov-Smirnov, 5 % after Bonferroni; nulls are left out."""
    names = [name for name, values in reference.items() if values.dtype != object]
    found = set()
    for name in names:
        a, b = (side[name][~np.isnan(side[name])] for side in (reference, current))
        if len(a) == 0 or len(b) == 0:
            found |= {name} if len(a) != len(b) else set()
        elif ks_2samp(a, b, method="asymp").pvalue < 0.05 / len(names):
            found.add(name)
    return found


def psi(reference: Frame, current: Frame) -> set[str]:
    """Population stability index above 0.2, over tenths of the reference, nulls a cell of their own."""
    return {name for name in reference if _psi(*_cells(reference[name], current[name])) > 0.2}


def jensen_shannon(reference: Frame, current: Frame) -> set[str]:
    """Jensen-Shannon distance (base 2) above 0.1, over the same cells."""
    return {name for name in reference if _distance(*_cells(reference[name], current[name])) > 0.1}


TESTS: dict[str, Callable[[Frame, Frame], set[str]]] = {"ks": ks, "psi": psi, "jensen_shannon": jensen_shannon}


def _cells(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if a.dtype == object:
        names = {name: i for i, name in enumerate(sorted({*map(str, a), *map(str, b)}))}
        one, other = (np.array([names[str(v)] for v in side]) for side in (a, b))
        size = len(names)
    else:
        edges = np.unique(np.nanquantile(a, np.linspace(0, 1, 11)[1:-1])) if np.isfinite(a).any() else np.array([0.0])
        one, other = (np.where(np.isnan(side), len(edges) + 1, np.searchsorted(edges, side)) for side in (a, b))
        size = len(edges) + 2
    return np.bincount(one, minlength=size) / len(a), np.bincount(other, minlength=size) / len(b)


def _psi(p: npt.NDArray[Any], q: npt.NDArray[Any]) -> float:
    p, q = np.maximum(p, 1e-4), np.maximum(q, 1e-4)
    return float(((q - p) * np.log(q / p)).sum())


def _distance(p: npt.NDArray[Any], q: npt.NDArray[Any]) -> float:
    middle = (p + q) / 2
    with np.errstate(all="ignore"):
        parts = [np.where(side > 0, side * np.log2(side / middle), 0.0).sum() for side in (p, q)]
    return float(np.sqrt(max(sum(parts) / 2, 0.0)))


def _here(test: Callable[[Frame, Frame], set[str]], references: Mapping[str, pa.Table], jobs: Sequence[Job]) -> Answers:
    answers = Answers("here")
    frames = {name: _plain(table) for name, table in references.items()}
    for job in jobs:
        current = _plain(job.current)
        began = time.perf_counter()
        answers.alarms.append(test(frames[job.reference], current))
        answers.seconds.append(time.perf_counter() - began)
    return answers


def _plain(table: pa.Table) -> Frame:
    return {name: table[name].to_numpy() for name in table.column_names}


# -- the tools outside ------------------------------------------------------------------------------------------------


def _written(folder: Path, references: Mapping[str, pa.Table], jobs: Sequence[Job]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in references.items():
        pq.write_table(table, folder / f"{name}.parquet")
    named = []
    for number, job in enumerate(jobs):
        path = folder / f"job-{number}.parquet"
        pq.write_table(job.current, path)
        named.append({"reference": str(folder / f"{job.reference}.parquet"), "current": str(path)})
    (folder / "jobs.json").write_text(json.dumps(named))


def _outside(name: str, python: Path, folder: Path) -> Answers:
    script = Path(__file__).parent / "outside" / f"{name}.py"
    out, errors = folder / f"{name}.out", folder / f"{name}.log"
    with out.open("w") as told, errors.open("w") as said, contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(  # noqa: S603  (our own script)
            [str(python), str(script), str(folder / "jobs.json")], check=False, stdout=told, stderr=said,
            timeout=PATIENCE, env=os.environ | QUIET,
        )  # fmt: skip
    lines = [json.loads(line) for line in out.read_text().splitlines() if line.startswith("{")]
    answers = Answers(str(lines[0]["version"]) if lines else f"failed: {errors.read_text()[-300:]}")
    for line in lines[1:]:
        answers.alarms.append(set(line["alarms"]))
        answers.seconds.append(line["seconds"])
    return answers


# -- figures ----------------------------------------------------------------------------------------------------------


def _figures(answers: Answers, jobs: Sequence[Job]) -> dict[str, Any]:
    done = jobs[: len(answers.alarms)]
    names = {job.fault for job in done} - {""}
    found: dict[str, Any] = {
        "version": answers.version,
        "faults": len(names),
        "clean_windows": len({job.window for job in done if not job.fault}),
        "comparisons": f"{len(done)} of {len(jobs)}",
    }
    if not names:
        return found
    pairs = list(zip(done, answers.alarms, strict=True))
    quiet = {(job.reference, job.window): alarms for job, alarms in pairs if not job.fault}
    for kind in REFERENCES:
        mine = [(job, alarms) for job, alarms in pairs if (job.reference == "training") is (kind == "training")]

        def seen(job: Job, alarms: set[str]) -> bool:
            return bool((alarms - quiet[job.reference, job.window]) & job.touched)

        one = [seen(job, alarms) for job, alarms in mine if job.share == 0.01 and job.of_rows]
        five = [seen(job, alarms) for job, alarms in mine if job.share == 0.05]
        clean = [alarms for job, alarms in mine if not job.fault]
        found[f"against {kind}"] = {
            "detect_visible_1pct": round(float(np.mean(one)), 4) if one else None,
            "detect_all_5pct": round(float(np.mean(five)), 4) if five else None,
            "false_alarm_windows": round(float(np.mean([bool(alarms) for alarms in clean])), 4),
            "false_columns": round(float(np.mean([len(alarms) for alarms in clean])), 2),
        }
    found["seconds"] = round(float(np.median(answers.seconds)), 3)
    return found
