"""Attack the gate, embedded and before a real MLflow server, with and without its basic-auth, and say what it costs.

The last line is JSON: `attacks` that were tried, `refused` of them (also at load), `documented` ones that succeed as
docs/gate.md says, `verify_us` for one signed record, `register_overhead_ms` over an ungoverned registration (medians).
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import mlflow
from rich.console import Console

from benchmarks.gate.attacks import attacks, got_through
from benchmarks.gate.world import KEY, World, make_embedded, pointed_at, serving
from skewguard.gate.keys import load_trust
from skewguard.gate.record import read_record, sign_verdict


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 where every attack ended as the list says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without servers, and fewer rounds")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers end with us
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    mlflow.environment_variables.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
    console = Console(stderr=True)
    counted: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="gate-") as folder:
        for kind in ("embedded",) if arguments.quick else ("embedded", "server", "basic-auth"):
            root = Path(folder) / kind
            root.mkdir()
            with _opened(kind, root) as world, pointed_at(world):
                for number, one in enumerate(attacks(kind)):
                    through = got_through(one, world, f"gated-{number}")
                    counted["attacks"] += 1
                    counted["documented" if one.outcome == "documented" else "refused"] += through is (
                        one.outcome == "documented"
                    )
                    if through is not (one.outcome == "documented"):
                        wrong.append(f"{kind}: {one.name}: {'got through' if through else 'was stopped'}")
                    console.print(f"{kind:10} {one.outcome:16} {one.name.replace('_', ' ')}", highlight=False)
                if kind == "embedded":
                    costs = _costs(world, 3 if arguments.quick else 15)
    for line in wrong:
        console.print(f"[bold red]{line}")
    print(json.dumps({**{name: counted[name] for name in ("attacks", "refused", "documented")}, **costs}))
    return 1 if wrong else 0


def _opened(kind: str, root: Path) -> AbstractContextManager[World]:
    return nullcontext(make_embedded(root)) if kind == "embedded" else serving(root, basic_auth=kind == "basic-auth")


def _costs(world: World, rounds: int) -> dict[str, float]:
    """What a signature and a registration cost. Governed and ungoverned registrations take turns."""
    trust = load_trust(world.policy.with_name("trusted.json"))
    record = sign_verdict(world.verdict(world.log_model(), "gated-cost"), KEY)
    verify = _median(lambda: read_record(record, trust), 200)
    gated, free = [], []
    for _ in range(rounds):
        judged = world.judged("gated-cost")
        gated.append(_seconds(partial(mlflow.register_model, f"models:/{judged}", "gated-cost")))
        free.append(_seconds(partial(mlflow.register_model, f"models:/{judged}", "free-cost")))
    overhead = statistics.median(gated) - statistics.median(free)
    return {"verify_us": round(verify * 1e6, 1), "register_overhead_ms": round(overhead * 1e3, 1)}


def _median(run: Callable[[], object], times: int) -> float:
    return statistics.median(_seconds(run) for _ in range(times))


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
