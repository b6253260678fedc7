"""The command."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # more would wait for each other on a busy machine
os.environ.setdefault("FEAST_USAGE", "False")

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.skewbench import __doc__ as about
from benchmarks.skewbench import chain, figures, looks, peers, run, speed
from benchmarks.skewbench.faults import FAULTS
from benchmarks.skewbench.world import ROOT, World, alone, build


def measured(world: World, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    quick, tell = arguments.quick, _tell(arguments.json)
    seeds = range(arguments.seeds or (1 if quick else 3))
    half, few = (FAULTS[::2], FAULTS[::4]) if quick else (FAULTS, FAULTS)
    one = list(run.trials(world, 0.01, seeds, [f for f in half if f.of_rows], tell))
    tenth = list(run.trials(world, 0.001, seeds, [f for f in few if f.of_rows], tell))
    some = [f for f in FAULTS if not f.of_rows or f in few]
    five = list(run.trials(world, 0.05, seeds, some, tell))
    slices = list(run.sliced(world, 0.02, seeds, tell, run.SLICED[:2] if quick else run.SLICED))
    stacks = list(run.pairs(world, 0.03, seeds, tell))
    found = figures.detection(one, tenth, five)
    found |= figures.cleanliness(list(run.healthy(world, quick=quick, tell=tell)))
    found |= _looked(200 if quick else 1000)
    found |= figures.attribution([*one, *five], slices, stacks)
    found["causes_p95_s"] = round(speed.causes(run.broken_view(world, 3 if quick else 20), world.root), 3)
    found |= _timed(speed.measure(world, 100_000))
    found |= _chained(world, quick=quick)
    found["peers"] = peers.run(world, None if quick else arguments.peers, quick=quick)
    return found


def _looked(runs: int) -> dict[str, Any]:
    seen = looks.look(runs)
    return {
        "anytime_false_alarm_rate": seen.alone,
        "anytime_false_alarm_rate_judged": seen.judged,
        "repeated_tests_false_alarm_rate": seen.repeated,
        "rows_to_alarm_05pct": seen.rows_to_alarm,
        "rows_to_alarm_05pct_alone": seen.rows_to_alarm_alone,
    }


def _timed(seen: speed.Speed) -> dict[str, Any]:
    told = {name: round(value, 3) for name, value in asdict(seen).items()}
    return {"report_s_100k": told["report_s"], "speed": told}


def _chained(world: World, *, quick: bool) -> dict[str, Any]:
    """The core set through store, service, HTTP and log."""
    seen = chain.run(world, chain.QUICK, hours=chain.QUICK_HOURS) if quick else chain.run(world)
    faults = [one["detected"] for name, one in seen.items() if name != "clean"]
    return {
        "detect_chain": sum(map(bool, faults)) / len(faults),
        "chain_faults": len(faults),
        "chain_clean": seen["clean"]["ruling"],
        "chain": seen,
    }


def _tell(quiet: bool) -> run.Tell:
    began = time.monotonic()

    def tell(line: str) -> None:
        if not quiet:
            print(f"{time.monotonic() - began:6.0f} s  {line}", flush=True)

    return tell


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, print; 0 whatever the figures are."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.skewbench", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed, fewer windows, no other worlds; two minutes")
    parser.add_argument("--json", action="store_true", help="nothing but the last line")
    parser.add_argument("--seeds", type=int, help="runs of each fault; 3 if not said, 1 if --quick")
    parser.add_argument("--root", type=Path, default=ROOT, help="where data are built")
    parser.add_argument(
        "--peers", type=Path, default=Path("build/bench/peers"), help="environments of the tools outside"
    )
    parser.add_argument("--fresh", action="store_true", help="build the data anew")
    arguments = parser.parse_args(argv)
    began = time.monotonic()
    with alone(arguments.root):
        found = measured(build(arguments.root, fresh=arguments.fresh), arguments)
    found["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
