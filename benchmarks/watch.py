"""From the first bad request to the alert: a real log that grows, a real watch, a real webhook.

    python -m benchmarks.watch [--quick] [--trials N] [--rate R] [--broken SHARE]

A small world serves a day twice, once with a fault in one build. Its rows are logged one by one, 50 a second, by the
log's own writer: healthy ones first, then with 1 % of rows from the faulty day among them. `skewguard watch` runs as a
process of its own, with its defaults, and posts to a webhook here. Measured from the append of the first broken row to
the arrival of the post. The last line is JSON; `false_alarms` counts posts before the first broken row.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa

from skewguard.servinglog import read_log, to_table
from skewguard.values import Column
from tests.loop import DEPLOYED, SERVICE, Fault, Loop, Store, asks_between, at, build, changed, us

PATIENCE = 90.0
"""Seconds after the first broken row in which an alert counts."""

_START = 60.0


@dataclass
class Posts:
    """What the webhook took: seconds and texts."""

    url: str = ""
    taken: list[tuple[float, str]] = field(default_factory=list)


@contextmanager
def webhook() -> Iterator[Posts]:
    """A webhook on this machine."""
    posts = Posts()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            posts.taken.append((time.monotonic(), body["text"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    posts.url = f"http://127.0.0.1:{server.server_address[1]}/"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield posts
    finally:
        server.shutdown()
        server.server_close()


@dataclass(frozen=True)
class Traffic:
    """The same rows twice, in order of time: as they should have been served, and as build B served them."""

    loop: Loop
    healthy: pa.Table
    broken: pa.Table
    differing: np.ndarray[tuple[int], np.dtype[np.int64]]


def traffic(root: Path, rows: int) -> Traffic:
    """Serve a day of `rows` requests twice; build B reads wind in km/h from ten on."""
    loop = build(root / "world")
    asks = asks_between(at(9), timedelta(hours=9), rows)
    asks = asks.set_column(0, "id", pa.array([f"r{number}" for number in range(rows)]))

    def faster(column: Column) -> Column:
        return Column.build(column.dtype, column.values * 1.609344, column.status)

    weather = next(view for view in loop.bundle.views if view.name == "weather")
    fault = Fault(store=lambda store, _: Store(store, read=changed(weather, "wind", faster)))
    healthy, broken = (
        to_table(read_log(loop.play(root / name, one, asks=asks), SERVICE)).sort_by("event_timestamp").combine_chunks()
        for name, one in (("healthy", None), ("broken", fault))
    )
    differs = [a != b for a, b in zip(healthy["vector"].to_pylist(), broken["vector"].to_pylist(), strict=True)]
    late = np.array([us(one.as_py()) >= us(DEPLOYED) for one in healthy["event_timestamp"]])
    return Traffic(loop, healthy, broken, np.flatnonzero(np.array(differs) & late))


def trial(served: Traffic, root: Path, *, rate: float, share: float, seed: int) -> dict[str, float]:
    """One watch over one log."""
    n = len(served.healthy)
    random = np.random.default_rng(seed)
    first = int(served.differing[0])
    wanted = max(1, round(share * (n - first)))
    bad = set(random.choice(served.differing, min(wanted, len(served.differing)), replace=False).tolist())
    root.mkdir()
    (root / "policy.toml").write_text('[policy]\ngoverns = ["delay-*"]\nminimum_rows = 100\n')
    files = {"log": "log", "policy": "policy.toml", "out": "verdict.json", "cursor": "cursor.json"}
    command = [sys.executable, "-m", "skewguard.cli", "watch", "--snapshot", str(served.loop.snapshot.path)]
    command += ["--since", "2024-01-01T00:00Z", *(f"--{flag}={root / name}" for flag, name in files.items())]
    with webhook() as posts, served.loop.open_log(root / "log") as log:
        environ = os.environ | {"SKEWGUARD_WEBHOOK": posts.url}
        process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)  # noqa: S603
        try:
            _wait_for(root / "verdict.json", process)
            began = time.monotonic()
            broke = 0.0
            alert = None
            for row in range(n):
                time.sleep(max(0.0, began + row / rate - time.monotonic()))
                source = served.broken if row in bad else served.healthy
                log.append(source.slice(row, 1).combine_chunks().to_batches()[0])
                broke = broke or (time.monotonic() if row in bad else 0.0)
                alert = next((when for when, text in posts.taken if broke and when > broke), None)
                if alert or (broke and time.monotonic() - broke > PATIENCE):
                    break
        finally:
            process.terminate()
            process.wait(30)
    early = sum(1 for when, _ in posts.taken if not broke or when <= broke)
    return {"seconds": alert - broke if alert else PATIENCE, "early": early}


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the watch did not start")
        time.sleep(0.05)


def main(argv: list[str] | None = None) -> int:
    """Run the trials; print one line each, and JSON last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one trial")
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--broken", type=float, default=0.01, help="share of broken rows")
    arguments = parser.parse_args(argv)
    trials = 1 if arguments.quick else arguments.trials
    found = []
    with tempfile.TemporaryDirectory() as folder:
        served = traffic(Path(folder), round(arguments.rate * 75))
        for seed in range(trials):
            root = Path(folder) / f"trial-{seed}"
            found.append(trial(served, root, rate=arguments.rate, share=arguments.broken, seed=seed))
            print(f"trial {seed}: alert after {found[-1]['seconds']:.1f} s, {found[-1]['early']} before", flush=True)
    seconds = [one["seconds"] for one in found]
    figures = {
        "seconds_to_alert": round(max(seconds), 2),
        "seconds_median": round(float(np.median(seconds)), 2),
        "trials": trials,
        "false_alarms": int(sum(one["early"] for one in found)),
        "rate": arguments.rate,
        "broken": arguments.broken,
    }
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
