"""The command."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live

from benchmarks.pit import __doc__ as about
from benchmarks.pit import figures
from benchmarks.pit.cases import CASES, QUICK, Case
from benchmarks.pit.race import LABELS, Limits, Standing, race

QUICK_AMONG = tuple(name for name in LABELS if name not in ("arg_max", "polars", "feast_dask"))
QUICK_SECONDS = 90.0
"""A quick race begins no second round of a case after its share of these."""


def run(arguments: argparse.Namespace) -> int:
    """Race, show, and print the figures; 0 where all answers agree."""
    console = Console()
    chosen = arguments.case or (QUICK if arguments.quick else [case.name for case in CASES])
    among = tuple(arguments.only) if arguments.only else QUICK_AMONG if arguments.quick else tuple(LABELS)
    rounds = arguments.rounds or (2 if arguments.quick else 5)
    limit = arguments.limit or (2 if arguments.quick else 13)
    found = {}
    began = time.monotonic()
    for number, case in enumerate(case for case in CASES if case.name in chosen):
        share = QUICK_SECONDS * (number + 1) / len(chosen) if arguments.quick else math.inf
        with Live(console=console, refresh_per_second=2) as live:

            def show(
                round_: int, name: str, standings: dict[str, Standing], case: Case = case, live: Live = live
            ) -> None:
                doing = f"round {round_ + 1} of {rounds}, {LABELS[name]}" if name else "done"
                live.update(figures.table(case, standings, doing))

            standings = race(
                case,
                arguments.root,
                rounds=rounds,
                limits=Limits(round(limit * 1024), arguments.patience),
                among=among,
                scale=arguments.scale,
                quick=arguments.quick,
                deadline=began + share,
                progress=show,
            )
        console.print()
        found[case.name] = figures.of_case(case, standings)
    last = figures.of_all(found)
    print(json.dumps(last))
    return 1 if last["disagreements"] else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and do; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pit", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [case.name for case in CASES]
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}; two rounds if there is time")
    parser.add_argument("--case", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--only", nargs="+", choices=LABELS, metavar="NAME", help=f"of {', '.join(LABELS)}")
    parser.add_argument("--rounds", type=int, help="5 if not said, 2 if --quick")
    parser.add_argument("--limit", type=float, metavar="GIB", help="memory at which one is ended; 13, or 2 if --quick")
    parser.add_argument(
        "--patience", type=float, default=900, metavar="S", help="seconds after which one is ended; 900"
    )
    parser.add_argument("--scale", type=float, default=1, help="shrink asks, rows and keys by this factor; 1")
    parser.add_argument("--root", type=Path, default=Path("build/bench/pit"), help="where data are built")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the tables of that JSON as Markdown instead")
    arguments = parser.parse_args(argv)
    if arguments.table:
        print(figures.markdown(json.loads(arguments.table.read_text().strip().splitlines()[-1])))
        return 0
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
