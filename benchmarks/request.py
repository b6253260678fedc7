"""What one request costs, stage by stage, on the flights: look up, transform, put into columns, log.

    python -m benchmarks.request [--quick]

Builds the sources and a store under build/bench, answers real asks of one November day one at a time, and prints the
median CPU time per stage. The last line is JSON: microseconds of CPU per request.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from flights.asks import build_asks
from flights.sources import build_sources
from pipelines.score import asks_of
from skewguard.answer import answer, schema, to_batch
from skewguard.definitions import Bundle, load_bundle
from skewguard.offline import OfflineStore
from skewguard.online import Lookup, open_store
from skewguard.servinglog import ServingLog
from skewguard.snapshot import build_snapshot
from skewguard.spine import read_spine
from skewguard.workflows.materialize import materialize

ROOT = Path("build/bench")
DAY = date(2013, 11, 4)
FITTED_ON = date(2013, 10, 7)


def bundle_of_flights() -> Bundle:
    """The compiled feature service over sources that are built if they are not there."""
    sources = ROOT / "sources"
    if not (sources / "asks.parquet").exists():
        build_sources(sources)
        build_asks(sources)
    yaml = ROOT / "feature_store.yaml"
    template = Path("feature_repo/feature_store.yaml").read_text()
    yaml.write_text(template.replace("data/", f"{ROOT.resolve()}/feast/"))
    (ROOT / "feast").mkdir(exist_ok=True)
    environment = os.environ | {"FLIGHTS_DATA": str(sources), "FEAST_USAGE": "False"}
    feast = str(Path(sys.executable).parent / "feast")
    bundle = ROOT / "flight_delay.bundle.json"
    compiling = [sys.executable, "-m", "skewguard.cli", "bundle", "flight_delay", "--repo", "feature_repo"]
    for command in (
        [feast, "-c", "feature_repo", "-f", str(yaml), "apply"],
        [*compiling, "--feature-store-yaml", str(yaml), "--bundle", str(bundle)],
    ):
        subprocess.run(command, check=True, capture_output=True, env=environment)  # noqa: S603  (our own)
    asks = asks_of(pq.read_table(sources / "asks.parquet"), FITTED_ON)  # fitted values come from a snapshot
    shutil.rmtree(ROOT / "snapshot", ignore_errors=True)
    return build_snapshot(load_bundle(bundle), asks, ROOT / "snapshot", labels=["late"]).bundle


def measure(bundle: Bundle, requests: int) -> dict[str, float]:
    """Median CPU microseconds per stage over that many requests."""
    asks = asks_of(pq.read_table(ROOT / "sources" / "asks.parquet"), DAY).slice(0, requests)
    spine = read_spine(asks, bundle.keys, {field.name: field.dtype for field in bundle.request})
    for old in ROOT.glob("online.db*"):
        old.unlink()
    store = open_store(f"sqlite:{ROOT / 'online.db'}")
    with OfflineStore(bundle.views) as offline:
        materialize(bundle, offline, store, int(spine.as_of[0]))
    lookup, flat = Lookup(bundle, store), schema(bundle)
    spent: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        before = time.process_time()
        yield
        spent[name].append(time.process_time() - before)

    with ServingLog(ROOT / "log", bundle.service, flat, {}) as log:
        for i in range(len(spine)):
            ask = spine.take(np.array([i]))
            with stage("lookup"):
                rows = lookup.answer(ask)
            with stage("transforms_and_vector"):
                served = answer(bundle, ask, rows)
            with stage("columns"):
                batch = to_batch(bundle, served, flat)
            with stage("log"):
                log.append(batch)
    return {f"{name}_us": round(float(np.median(times)) * 1e6, 1) for name, times in spent.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.request", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="200 requests instead of a day's")
    arguments = parser.parse_args()
    ROOT.mkdir(parents=True, exist_ok=True)
    figures = measure(bundle_of_flights(), 200 if arguments.quick else 1000)
    for name, figure in figures.items():
        print(f"{name:24} {figure:8.1f}")
    print(json.dumps(figures | {"total_us": round(sum(figures.values()), 1)}))


if __name__ == "__main__":
    main()
