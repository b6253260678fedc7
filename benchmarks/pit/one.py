"""One run of one contestant, in a process of its own: `python -m benchmarks.pit.one NAME TASKS OUT`.

TASKS is a file of two lines. Before the clock starts the first is answered, a tiny one, which brings in whatever is
imported on first use; what the second needs is set up (definitions, a registry), and every file of it is read once, so
that all find it in the page cache. The figures go to OUT.json: wall seconds, CPU seconds of all threads, and the peak
of resident memory.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from pathlib import Path

from benchmarks.pit.task import Task


def peak_mib() -> float:
    """The most that was resident since the process began. Where there is no /proc, the parent's may count as well."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    unit = 1024 if sys.platform == "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit / 1024


def _read(path: str) -> None:
    with Path(path).open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def main() -> None:
    """Prepare, run, and write the figures down."""
    name, tasks, out = sys.argv[1:]
    warming, task = (Task.from_json(line) for line in Path(tasks).read_text().splitlines())
    contestant = importlib.import_module(f"benchmarks.pit.{name}")
    contestant.prepare(warming)(Path(out))
    run = contestant.prepare(task)
    for path in task.files:
        _read(path)
    wall, cpu = time.perf_counter(), time.process_time()
    parts = run(Path(out)) or {}
    figures = {"s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "mib": peak_mib()}
    figures |= {f"{part}_s": seconds for part, seconds in parts.items()}
    Path(f"{out}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
