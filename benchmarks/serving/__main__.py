"""Lookups and predictions over HTTP with the log on, beside Feast's own server on the same data and machine.

    python -m benchmarks.serving [--quick] [--seconds 5]

Starts a Redis, `feast serve`, the bare HTTP floor and `skewguard serve` (one worker each, the server on one core, load
and Redis on the other), one after another, and ends them. Rounds of ours and Feast's alternate; the median of the
ratios counts, so that a neighbour on the machine meets both. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import write
from benchmarks.serving import load, servers
from benchmarks.serving.world import MODEL_WIDTH, WIDTHS, World, build
from skewguard.servinglog import read_log

SHAPES = ((1, 10), (1, 50), (1, 150), (100, 50))
CONNECTIONS = 16  # as the study of Feast's server had


def features(world: World, shape: tuple[int, int], seconds: float, rounds: int) -> dict[str, Any]:
    """One shape: ours and Feast's in turn."""
    rows, width = shape
    found: dict[str, list[load.Answered]] = {"ours": [], "feast": [], "few": []}
    log = world.root / f"log-{rows}x{width}"
    asked, theirs = load.bodies_of_ours(rows, world.keys), load.bodies_of_feast(rows, width, world.keys)
    with servers.ours(world, width, log) as ours, servers.feast(world) as feast:
        url, other = f"{ours.url}/v1/s{width}/features", f"{feast.url}/get-online-features"
        for body, at in ((asked, url), (theirs, other)):
            load.run(at, body, 4, min(seconds, 1), servers.pin(1))  # warm
        spent = spent_feast = 0.0
        for _ in range(rounds):
            before = ours.cpu_seconds()
            found["ours"].append(load.run(url, asked, CONNECTIONS, seconds, servers.pin(1)))
            spent += ours.cpu_seconds() - before
            before = feast.cpu_seconds()
            found["feast"].append(load.run(other, theirs, CONNECTIONS, seconds, servers.pin(1)))
            spent_feast += feast.cpu_seconds() - before
            found["few"].append(load.run(url, asked, 4, seconds, servers.pin(1)))
    errors = sum(one.errors for one in found["ours"] + found["few"])
    assert not errors, f"{errors} requests failed"
    pairs = zip(found["ours"], found["feast"], strict=True)
    cpu_us = spent / sum(one.requests for one in found["ours"]) * 1e6
    feast_cpu_us = spent_feast / sum(one.requests for one in found["feast"]) * 1e6
    return {
        "rps": round(statistics.median(one.rps for one in found["ours"])),
        "p99_ms": round(min(one.p99_ms for one in found["ours"]), 2),
        "p99_ms_4_connections": round(min(one.p99_ms for one in found["few"]), 2),
        "cpu_us": round(cpu_us, 1),
        "feast_cpu_us": round(feast_cpu_us),
        "ratio_cpu": round(feast_cpu_us / cpu_us, 1),
        "feast_rps": round(statistics.median(one.rps for one in found["feast"]), 1),
        "ratio": round(statistics.median(one.rps / other.rps for one, other in pairs), 1),
    }


def predict(world: World, floor: servers.Server, durability: str, seconds: float, rounds: int) -> dict[str, Any]:
    """Predictions at 32 connections, and what the bare floor takes beside it."""
    log = world.root / f"log-{durability}"
    asked = load.bodies_of_ours(1, world.keys)
    flags = ["--model", str(world.root / "model"), "--durability", durability]
    ours_cpu, floor_cpu, seen = [], [], []
    with servers.ours(world, MODEL_WIDTH, log, *flags) as ours:
        url = f"{ours.url}/v1/s{MODEL_WIDTH}/predict"
        load.run(url, asked, 32, min(seconds, 1), servers.pin(1))
        load.run(f"{floor.url}/predict", asked, 32, min(seconds, 1), servers.pin(1))
        for _ in range(rounds):
            before = ours.cpu_seconds()
            seen.append(load.run(url, asked, 32, seconds, servers.pin(1)))
            ours_cpu.append((ours.cpu_seconds() - before) / seen[-1].requests * 1e6)
            before = floor.cpu_seconds()
            answered = load.run(f"{floor.url}/predict", asked, 32, seconds, servers.pin(1))
            floor_cpu.append((floor.cpu_seconds() - before) / answered.requests * 1e6)
        log_seconds = _metric(ours.url, r'skewguard_stage_duration_seconds_sum\{stage="log"\} (\S+)')
        rows = _metric(ours.url, r"skewguard_log_rows_total\{[^}]*\} (\S+)")
    assert not sum(one.errors for one in seen), "predictions failed"
    bytes_ = sum(path.stat().st_size for path in log.rglob("*.seg"))
    assert read_log(log, f"s{MODEL_WIDTH}").rows == rows, "a prediction is missing in the log"
    return {
        "rps": round(statistics.median(one.rps for one in seen)),
        "p50_ms": round(statistics.median(one.p50_ms for one in seen), 2),
        "p99_ms": round(min(one.p99_ms for one in seen), 2),
        "cpu_us": round(statistics.median(ours_cpu), 1),
        "floor_cpu_us": round(statistics.median(floor_cpu), 1),
        "ratio_floor": round(statistics.median(a / b for a, b in zip(ours_cpu, floor_cpu, strict=True)), 2),
        "concurrency": 32,
        "durability": durability,
        "log_us": round(log_seconds / rows * 1e6, 2),
        "log_bytes": round(bytes_ / rows),
    }


def _metric(url: str, pattern: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:  # noqa: S310  (our own)
        found = re.search(pattern, answer.read().decode())
    return float(found[1]) if found else 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of each: the figures mean nothing")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", choices=[f"{rows}x{width}" for rows, width in SHAPES], help="only this one")
    arguments = parser.parse_args(argv)
    seconds, rounds, keys = (0.3, 1, 100) if arguments.quick else (arguments.seconds, arguments.rounds, 2000)
    shapes = [shape for shape in SHAPES if arguments.shape in (None, "{}x{}".format(*shape))]
    if arguments.quick and not arguments.shape:
        shapes = list(SHAPES[:1])
    widths = tuple(sorted({width for _, width in shapes})) if arguments.quick else WIDTHS
    figures: dict[str, Any] = {"features": {}}
    with write.own_redis() as url, tempfile.TemporaryDirectory() as folder:
        servers.keep_apart(url)
        world = build(Path(folder), url, keys, widths)
        for rows, width in shapes:
            name = f"{rows}x{width}"
            figures["features"][name] = features(world, (rows, width), seconds, rounds)
            print(f"features {name:8} {figures['features'][name]}", flush=True)
        if arguments.shape:
            print(json.dumps(figures))
            return 0
        with servers.floor() as floor:
            for name, durability in (("predict", "process"), ("predict_disk", "disk")):
                figures[name] = predict(world, floor, durability, seconds, rounds)
                print(f"{name:17} {figures[name]}", flush=True)
        figures["log_cost_us"] = figures["predict"].pop("log_us")
        figures["log_bytes_per_row"] = figures["predict"].pop("log_bytes")
        del figures["predict_disk"]["log_us"], figures["predict_disk"]["log_bytes"]
        sizes = {"rows": 2_000, "feast_rows": 100, "rounds": 1} if arguments.quick else {}
        figures["write"] = write.measure(url, **sizes).to_json()
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
