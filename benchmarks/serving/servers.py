"""Starting what is measured, on loopback, and ending it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.serving.world import World

START_SECONDS = 60.0
_QUIET = {"FEAST_USAGE": "False", "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1"}


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """User and system time of it and its children so far."""
        spent = 0.0
        for one in (self.process, *self.process.children(recursive=True)):
            times = one.cpu_times()
            spent += times.user + times.system
        return spent


def pin(cpu: int) -> list[str]:
    """The server on one core, the load on another, where there are two."""
    return ["taskset", "-c", str(cpu)] if shutil.which("taskset") and (os.cpu_count() or 1) > 1 else []


def keep_apart(redis_url: str) -> None:
    """Put a Redis server on the core of the load, where there are two."""
    if pin(1):
        import redis

        with redis.Redis.from_url(redis_url) as client:
            psutil.Process(client.info("server")["process_id"]).cpu_affinity([1])


@contextmanager
def ours(world: World, width: int, log: Path, *flags: str) -> Iterator[Server]:
    """`skewguard serve`."""
    port = free_port()
    command = [
        sys.executable, "-m", "skewguard.cli", "serve", "--bundle", str(world.bundle(width)), "--store", world.store,
        "--log", str(log), "--port", str(port), *flags,
    ]  # fmt: skip
    with _running(command, f"http://127.0.0.1:{port}", "/readyz") as server:
        yield server


@contextmanager
def feast(world: World) -> Iterator[Server]:
    """`feast serve` with one worker that is not recycled."""
    port = free_port()
    command = [
        str(Path(sys.executable).parent / "feast"), "-c", str(world.root / "feast"), "serve", "-p", str(port),
        "--workers", "1", "--max-requests", "100000000", "--no-access-log",
    ]  # fmt: skip
    with _running(command, f"http://127.0.0.1:{port}", "/health") as server:
        yield server


@contextmanager
def floor() -> Iterator[Server]:
    """The bare HTTP floor on the same uvicorn."""
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", "benchmarks.serving.floor:app", "--port", str(port), "--log-level", "warning",
        "--no-access-log", "--loop", "uvloop", "--http", "httptools",
    ]  # fmt: skip
    with _running(command, f"http://127.0.0.1:{port}", "/readyz") as server:
        yield server


@contextmanager
def _running(command: Sequence[str], url: str, path: str) -> Iterator[Server]:
    environment = os.environ | _QUIET
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)  # Feast sets it when it is imported
    silent = subprocess.DEVNULL
    process = subprocess.Popen([*pin(0), *command], env=environment, stdout=silent, stderr=silent)  # noqa: S603  (our own)
    try:
        _wait(url + path, process)
        yield Server(url, psutil.Process(process.pid))
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  (our own)
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"a server did not start: {' '.join(map(str, process.args))}")  # type: ignore[arg-type]
        time.sleep(0.1)


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
