"""Kill the service at random instants under load, and look for every acknowledged row.

    python -m benchmarks.kill9 [--quick] [--kills N] [--seed N]

Starts `skewguard serve` with two workers on a small world of its own, lets clients ask without pause (single asks and
batches of three, every id once), and kills -9 a worker, or the master and its workers, for both durabilities. Some of
the segments that a killed process leaves get half a frame behind their end, as a loss of power would leave it. In the
end every answer that a client has seen must be in the log, once, before compaction and after it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from skewguard.offline import OfflineStore
from skewguard.online import open_store
from skewguard.servinglog import LogReading, read_log, recover, to_table
from skewguard.servinglog.compaction import compact
from skewguard.workflows.materialize import materialize
from tests.loop import SERVICE, TODAY, Loop, build, us

CLIENTS = 6
BATCH = 3
START_SECONDS = 60.0
ENTITIES = {
    "origin": "JFK", "tail": "N1", "distance": 944.5, "stops": 1, "scheduled": "2024-03-04T13:00:00Z", "direct": True,
}  # fmt: skip


@dataclass
class Load:
    """Clients that ask until they are told to stop. `acked` are the ids of the rows whose answer has arrived."""

    port: int
    name: str
    acked: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join(10)

    def _ask(self, number: int) -> None:
        i = 0
        while not self.stopping.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
                while not self.stopping.is_set():
                    i += 1
                    self._one(connection, f"{self.name}.{number}.{i}", batch=i % 5 == 0)
            time.sleep(0.01)

    def _one(self, connection: http.client.HTTPConnection, name: str, *, batch: bool) -> None:
        body: dict[str, object] = {"request_id": name}
        body |= {"instances": [ENTITIES] * BATCH} if batch else {"entities": ENTITIES}
        connection.request(
            "POST", f"/v1/{SERVICE}/predict", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        answer = response.read()
        if response.status == 200:
            assert name.encode() in answer, "an answer to another question"
            self.acked += [f"{name}-{row}" for row in range(BATCH)] if batch else [name]


class Server:
    """`skewguard serve` with two workers, in a process group of its own."""

    def __init__(self, world: Loop, log: Path, durability: str) -> None:
        self.port = _free_port()
        command = [sys.executable, "-m", "skewguard.cli", "serve", "--bundle", str(world.root / "delay.bundle.json")]
        command += [
            "--store",
            f"sqlite:{world.root / 'online.db'}",
            "--log",
            str(log),
            "--model",
            str(world.model_folder),
        ]
        command += ["--port", str(self.port), "--workers", "2", "--durability", durability]
        self.process = subprocess.Popen(command, start_new_session=True)  # noqa: S603  (our own)

    def wait(self) -> None:
        """Until it is ready."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return
            assert self.process.poll() is None, "the service ended before it was ready"
            time.sleep(0.05)
        raise TimeoutError("the service did not become ready")

    def workers(self) -> list[int]:
        """Process ids of the serving workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def kill_worker(self, pick: random.Random) -> bool:
        """Kill one worker; whether there was one."""
        with contextlib.suppress(OSError):
            running = self.workers()
            if running:
                os.kill(pick.choice(running), signal.SIGKILL)
                return True
        return False

    def kill(self) -> None:
        """Kill all of it at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it as a deployment does."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.kill()


@dataclass
class Score:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    acked: list[str] = field(default_factory=list)
    torn: int = 0
    injected: int = 0


def run(world: Loop, root: Path, durability: str, kills: int, pick: random.Random, score: Score) -> None:
    """Kill `kills` times under one durability: a worker three times out of four, else everything."""
    done = 0
    while done < kills:
        server = Server(world, root, durability)
        name = f"{durability}{done}"
        try:
            server.wait()
            with Load(server.port, name) as load:
                for _ in range(min(3, kills - done - 1)):
                    time.sleep(pick.uniform(0.1, 1.2))
                    if server.kill_worker(pick):
                        score.kills["worker"] += 1
                        done += 1
                time.sleep(pick.uniform(0.1, 1.0))
                server.kill()
                score.kills["master"] += 1
                done += 1
            score.acked += load.acked
        finally:
            if server.process.poll() is None:
                server.kill()
        _recover_torn(root, pick, score)
        print(f"{durability}: {done} of {kills} kills, {len(score.acked):,} rows acknowledged", flush=True)
    server = Server(world, root, durability)
    try:
        server.wait()
        with Load(server.port, f"{durability}-end") as load:
            time.sleep(0.5)
        score.acked += load.acked
    finally:
        server.stop()


def _recover_torn(root: Path, pick: random.Random, score: Score) -> None:
    """Leave half a frame behind some of the dead segments, recover, and see that nothing but that is gone."""
    reading = read_log(root, SERVICE)
    abandoned = [segment for segment in reading.segments if not segment.sealed]
    for segment in abandoned[: 1 + len(abandoned) // 2]:
        frames = list(segment.raw_frames())
        if frames and not segment.torn_bytes:
            with segment.path.open("rb") as file:
                content = file.read()
            with segment.path.open("ab") as file:
                file.write(content[-32 - len(frames[-1].payload) :][: pick.randrange(1, 32 + len(frames[-1].payload))])
            score.injected += 1
    torn = [
        segment.path.stem for segment in read_log(root, SERVICE).segments if segment.torn_bytes and not segment.damaged
    ]
    recover(root, SERVICE)
    after = read_log(root, SERVICE)
    assert after.rows == reading.rows, "recovery changed the rows"
    score.torn += sum(one.path.stem in torn and one.sealed and not one.torn_bytes for one in after.segments)


def _looked_for(reading: LogReading, acked: list[str]) -> tuple[int, int]:
    """(acknowledged rows that are not in the log, rows that are in it more than once)."""
    logged = Counter(to_table(reading, ["id"])["id"].to_pylist())
    return sum(one not in logged for one in acked), sum(count - 1 for count in logged.values())


def main(argv: list[str] | None = None) -> int:
    """Kill, look, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill9", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four kills")
    parser.add_argument("--kills", type=int, default=64, help="over both durabilities")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    kills = 4 if arguments.quick else arguments.kills
    pick, score = random.Random(arguments.seed), Score()  # noqa: S311  (which instant, and no secret)
    with _folder() as root:
        world = build(root / "world")
        store = open_store(f"sqlite:{world.root / 'online.db'}")
        with OfflineStore(world.bundle.views) as offline:
            materialize(world.bundle, offline, store, us(TODAY))
        store.close()
        log = root / "log"
        for durability in ("process", "disk"):
            run(world, log, durability, kills // 2, pick, score)
        reading = read_log(log, SERVICE)
        lost, twice = _looked_for(reading, score.acked)
        compact(log, SERVICE, grace_seconds=0)
        lost_after, twice_after = _looked_for(read_log(log, SERVICE), score.acked)
        figures = {
            "kills": sum(score.kills.values()),
            "acked": len(score.acked),
            "acked_lost": max(lost, lost_after),
            "duplicates": max(twice, twice_after),
            "torn_tails_recovered": score.torn,
            "torn_tails_injected": score.injected,
            "worker_kills": score.kills["worker"],
            "master_kills": score.kills["master"],
            "logged": reading.rows,
            "damaged": len(reading.damaged),
        }
    print(json.dumps(figures))
    return 1 if figures["acked_lost"] or figures["duplicates"] or figures["damaged"] else 0


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="kill9-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
