"""What a real server answers when what it stands on fails: Redis, the disk, its own processes, its model."""

import http.client
import json
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis as client_of

from skewguard.model import model_digest
from skewguard.servinglog import read_log
from tests.conftest import _free_port, _redis_server, _wait_until_it_answers
from tests.loop import SERVICE, Loop, at, logged, save_model
from tests.servers import NOON, OK, Server

PATIENCE = 60.0


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


# -- the store --------------------------------------------------------------------------------------------------------


class OwnRedis:
    """A Redis server that may be killed."""

    def __init__(self, loop: Loop, folder: Path) -> None:
        self.port, self._loop, self._folder = _free_port(), loop, folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        command = [str(_redis_server()), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)]
        with (self._folder / "log").open("wb") as log:
            self.process = subprocess.Popen([*command, "--save", ""], stdout=log, stderr=log)
        _wait_until_it_answers(self.url, self.process, self._folder / "log")
        self._loop.materialize(self.url, at(12))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def command(self, *words: str) -> None:
        with client_of.Redis(port=self.port) as client:
            client.execute_command(*words)


@pytest.fixture(scope="module")
def own(
    loop: Loop, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[OwnRedis, Server, Path]]:
    """A Redis of this file's own, a server on it, and the server's log."""
    assert redis_url  # so that this is skipped, or fails, where there is no Redis
    redis, log = OwnRedis(loop, tmp_path_factory.mktemp("redis")), tmp_path_factory.mktemp("log")
    try:
        with Server(loop, log, store=redis.url) as server:
            yield redis, server.wait(), log
    finally:
        redis.stop()


def _timed(server: Server, **body: Any) -> tuple[int, str, float]:
    began = time.monotonic()
    status, answer = server.predict("x", **body)
    return status, answer.get("code", ""), time.monotonic() - began


def _answers(server: Server) -> bool:
    return server.predict("again")[0] == 200


def test_a_killed_redis_is_a_quick_503_and_a_restarted_one_is_found_again(own: tuple[OwnRedis, Server, Path]) -> None:
    """Nobody hangs while it is gone; liveness stays; afterwards answers come without a restart of the server."""
    redis, server, log = own
    assert _answers(server)
    redis.stop()
    before = read_log(log, SERVICE).rows
    told = [_timed(server) for _ in range(8)]
    assert {(status, code) for status, code, _ in told} == {(503, "store_unavailable")}
    assert max(took for _, _, took in told) < 2
    assert server.send("GET", "/readyz")[0] == 503
    assert server.send("GET", "/healthz")[0] == 200
    assert read_log(log, SERVICE).rows == before
    redis.start()
    _until(lambda: _answers(server))


def test_a_stalled_redis_costs_the_deadline_and_holds_up_nobody_else(own: tuple[OwnRedis, Server, Path]) -> None:
    """A stopped process accepts and never answers: 503 within the deadline, while the event loop goes on."""
    redis, server, _ = own
    assert _answers(server)
    os.kill(redis.process.pid, signal.SIGSTOP)
    try:
        told: list[tuple[int, str, float]] = []
        asking = threading.Thread(target=lambda: told.append(_timed(server)))
        asking.start()
        began = time.monotonic()
        assert server.send("GET", "/healthz")[0] == 200
        alive = time.monotonic() - began
        asking.join()
        told += [_timed(server) for _ in range(6)]
    finally:
        os.kill(redis.process.pid, signal.SIGCONT)
    assert {(status, code) for status, code, _ in told} == {(503, "store_unavailable")}
    assert max(took for _, _, took in told) < 2
    assert alive < 1
    _until(lambda: _answers(server))


def test_a_redis_that_wants_another_password_is_503_with_the_reason(own: tuple[OwnRedis, Server, Path]) -> None:
    """The reason is Redis' own, without the URL's secrets; once it lets the server in again, answers come."""
    redis, server, _ = own
    assert _answers(server)
    redis.command("CONFIG", "SET", "requirepass", "changed")
    with client_of.Redis(port=redis.port, password="changed") as admin:
        try:
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            status, answer = server.predict("x")
        finally:
            admin.config_set("requirepass", "")
    assert (status, answer["code"]) == (503, "store_unavailable")
    assert "changed" not in answer["detail"]
    _until(lambda: _answers(server))


# -- the disk, the body -----------------------------------------------------------------------------------------------


def test_a_full_disk_is_503_and_no_outage_once_there_is_room(loop: Loop, tmp_path: Path) -> None:
    """What cannot be logged is not answered: 503 and not ready; what was acknowledged is in the log."""
    with Server(loop, tmp_path) as server:
        server.wait()
        acknowledged = [f"a{i}" for i in range(5) if server.predict(f"a{i}")[0] == 200]
        (segment,) = tmp_path.rglob("*.open")
        room = segment.stat().st_size + 100
        unlimited = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (room, unlimited[1]))
        status, answer = server.predict("full")
        assert (status, answer["code"]) == (503, "log_unavailable")
        assert server.send("GET", "/readyz")[0] == 503
        assert server.send("GET", "/healthz")[0] == 200
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, unlimited)
        acknowledged += [f"b{i}" for i in range(5) if server.predict(f"b{i}")[0] == 200]
        assert len(acknowledged) == 10
    assert [row["id"] for row in logged(tmp_path)] == acknowledged


def test_a_body_in_pieces_is_counted_and_refused(loop: Loop, tmp_path: Path) -> None:
    """Ten megabytes without a length are 413 after the first; a small body in pieces is answered."""
    with Server(loop, tmp_path, max_body=100_000) as server:
        server.wait()

        def send(content: bytes, piece: int) -> tuple[int, Any]:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            pieces = (content[i : i + piece] for i in range(0, len(content), piece))
            headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
            with closing(connection):
                with suppress(BrokenPipeError, ConnectionResetError):  # it has answered already
                    connection.request("POST", f"/v1/{SERVICE}/predict", pieces, headers, encode_chunked=True)
                response = connection.getresponse()
                return response.status, json.loads(response.read())

        body = {"entities": OK, "as_of": NOON}
        assert send(json.dumps(body).encode(), 10)[0] == 200
        status, answer = send(json.dumps(body | {"request_id": "x" * 150_000}).encode(), 50_000)
        assert (status, answer["code"]) == (413, "too_large")


# -- processes --------------------------------------------------------------------------------------------------------


class Caller(threading.Thread):
    """Asks one thing after another until it is told to stop; remembers what was acknowledged and what was not."""

    def __init__(self, server: Server, name: str) -> None:
        super().__init__()
        self.acknowledged: list[str] = []
        self.refused: list[int] = []
        self.broken = 0
        self._server, self._name, self._stop_now = server, name, threading.Event()

    def run(self) -> None:
        number = 0
        while not self._stop_now.is_set():
            number += 1
            try:
                status, _ = self._server.predict(f"{self._name}-{number}")
            except (OSError, http.client.HTTPException):
                self.broken += 1
                time.sleep(0.01)
            else:
                self.acknowledged.append(f"{self._name}-{number}") if status == 200 else self.refused.append(status)

    def end(self) -> None:
        self._stop_now.set()
        self.join()


def test_what_killed_processes_acknowledged_is_in_the_log_once(loop: Loop, tmp_path: Path) -> None:
    """A worker killed -9 is started again while another answers; without their master, workers stop and seal."""
    with Server(loop, tmp_path, workers=2) as server:
        server.wait()
        master = psutil.Process(server.process.pid)
        _until(lambda: len({segment.name for segment in tmp_path.rglob("*.open")}) == 2)
        callers = [Caller(server, name) for name in "ab"]
        for caller in callers:
            caller.start()
        try:
            killed = _workers(master)[0]
            _until(lambda: all(len(caller.acknowledged) > 5 for caller in callers))
            killed.kill()
            _until(lambda: len(_workers(master)) == 2 and killed not in _workers(master))
            _until(lambda: len(list(tmp_path.rglob("*.seg"))) >= 1)  # the new one has sealed what the killed one left
        finally:
            for caller in callers:
                caller.end()
        status, text = _text(server, "/metrics")
        assert status == 200
        assert "skewguard_log_rows_total" in text
        left = _workers(master)
        server.process.kill()
        server.process.wait()
        assert psutil.wait_procs(left, timeout=PATIENCE)[1] == []
    acknowledged = [name for caller in callers for name in caller.acknowledged]
    rows = [row["id"] for row in logged(tmp_path)]
    assert len(rows) == len(set(rows))
    assert set(acknowledged) <= set(rows)
    assert not [code for caller in callers for code in caller.refused]
    assert not list(tmp_path.rglob("*.open"))


def _workers(master: psutil.Process) -> list[psutil.Process]:
    """The serving processes below a master, without Python's own helper."""

    def serves(one: psutil.Process) -> bool:
        try:
            return "spawn_main" in " ".join(one.cmdline())
        except psutil.Error:  # it is just ending
            return False

    return [one for one in master.children() if serves(one)]


def _text(server: Server, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", path)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def test_workers_that_cannot_start_end_the_command(loop: Loop, tmp_path: Path) -> None:
    """A wrong setting is exit code 2 with several workers too, and not an endless loop of starts."""
    with Server(loop, tmp_path, workers=2, model_digest="0" * 64) as server:
        assert server.process.wait(timeout=60) == 2


# -- the model --------------------------------------------------------------------------------------------------------


def _name(root: Path, digest: str) -> None:
    """Let `current` name a folder, as the puller does."""
    partial = root / "current.part"
    partial.write_text(digest + "\n")
    partial.replace(root / "current")


def test_another_model_is_taken_without_a_dropped_request_and_a_corrupt_one_is_not(loop: Loop, tmp_path: Path) -> None:
    """A corrupt folder, a wrong digest and a torn pointer change nothing; then a good one answers, under load."""
    models, log, other = tmp_path / "models", tmp_path / "log", tmp_path / "other"
    models.mkdir()
    matrix, labels = loop.snapshot.to_numpy("late")
    save_model(other, loop.snapshot, matrix, 1 - labels)
    first, second = loop.model.digest, model_digest(other)
    corrupt = "c" * 64
    for name, folder in ((first, loop.model_folder), (corrupt, other)):
        shutil.copytree(folder, models / name)
    (models / corrupt / "model.skops").write_bytes((other / "model.skops").read_bytes()[:-100])
    torn = model_digest(models / corrupt)
    shutil.copytree(models / corrupt, models / torn)
    _name(models, first)
    with Server(loop, log, model=models) as server:
        server.wait()
        caller = Caller(server, "c")
        caller.start()

        def swaps(outcome: str) -> float:
            lines = _text(server, "/metrics")[1].splitlines()
            wanted = f'skewguard_model_swaps_total{{outcome="{outcome}"}}'
            return next(float(one.split()[1]) for one in lines if one.startswith(wanted))

        try:
            for number, named in enumerate((corrupt, torn, "torn", second), 1):  # `second` is not there yet
                _name(models, named)
                server.process.send_signal(signal.SIGHUP)
                _until(lambda number=number: swaps("refused") == number)  # type: ignore[misc]
            assert server.send("GET", "/readyz")[1]["model_digest"] == first
            shutil.copytree(other, models / second)
            _name(models, second)
            _until(lambda: swaps("swapped") == 1)
            assert server.send("GET", "/readyz")[1]["model_digest"] == second
            count = len(caller.acknowledged)
            _until(lambda: len(caller.acknowledged) > count + 5)
        finally:
            caller.end()
        assert (caller.refused, caller.broken) == ([], 0)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=30) == 0
    reading = read_log(log, SERVICE)
    answered = {one.header["model_digest"] for one in reading.segments if one.rows}
    assert answered == {first, second}
    assert all(one.sealed for one in reading.segments)
    rows = [row["id"] for row in logged(log)]
    assert sorted(rows) == sorted(caller.acknowledged)
