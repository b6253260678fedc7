"""The service as tests meet it: in this process by `Client`, in one of its own by `Server`."""

import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx2
from fastapi import FastAPI
from fastapi.testclient import TestClient

from skewguard.answer import Log
from skewguard.online import Lookup, OnlineStore, open_store
from skewguard.service import create_app
from skewguard.servinglog import read_log
from tests.conftest import _free_port
from tests.loop import SERVICE, Loop

ROOT = Path(__file__).resolve().parents[1]
NOON = "2024-03-04T12:00:30Z"
OK: dict[str, Any] = {
    "origin": "JFK", "tail": "N1", "distance": 944.5, "stops": 1, "scheduled": "2024-03-04T13:00:00Z", "direct": True,
}  # fmt: skip
JSON = {"Content-Type": "application/json"}


class Client(TestClient):
    """A client of an application in this process, with its log."""

    def __init__(self, loop: Loop, root: Path, *, store: OnlineStore | None = None, **more: Any) -> None:
        self.log: Log = more.pop("log", None) or loop.open_log(root)
        self.root = root
        options: dict[str, Any] = {"model": loop.model, "accept_as_of": True} | more
        lookup = Lookup(loop.bundle, store or open_store(loop.store_url))
        self.application: FastAPI = create_app(loop.bundle, lookup, self.log, **options)
        super().__init__(self.application, headers=JSON)

    def ask(self, what: str = "features", service: str = SERVICE, **body: Any) -> httpx2.Response:
        """Ask about OK as of noon, unless told otherwise; NaN and the like go through."""
        content = json.dumps({"entities": OK, "as_of": NOON} | body)
        return self.post(f"/v1/{service}/{what}", content=content)

    def counter(self, name: str = "skewguard_log_rows_total") -> float:
        """The sum of a counter over its labels."""
        lines = [line for line in self.get("/metrics").text.splitlines() if line.startswith(name + "{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def rows(self) -> int:
        """How many rows the log holds, by the log and by the counter."""
        rows = read_log(self.root, SERVICE).rows
        assert self.counter() == rows
        return rows


class Server:
    """`python -m serving` in a process of its own, ended by its own pid."""

    def __init__(self, loop: Loop, log: Path, build: str = "A", **more: object) -> None:
        self.port = _free_port()
        flags = {
            "--bundle": loop.bundle_path, "--store": loop.store_url, "--log": log, "--model": loop.model_folder,
            "--build": build, "--evidence": "production", "--port": self.port,
        }  # fmt: skip
        flags |= {f"--{name.replace('_', '-')}": value for name, value in more.items()}
        command = [sys.executable, "-m", "serving", "--accept-as-of", *(str(x) for flag in flags.items() for x in flag)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment.pop("PROMETHEUS_MULTIPROC_DIR", None)  # Feast sets it when it is imported
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def wait(self) -> Self:
        """Until it is ready."""
        deadline = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, "the server ended"
            try:
                if self.send("GET", "/readyz")[0] == 200:
                    return self
            except OSError:
                assert time.monotonic() < deadline, "the server was not ready in time"
            time.sleep(0.05)

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), JSON if body else {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def predict(self, request_id: str, **body: Any) -> tuple[int, Any]:
        """One prediction as of noon."""
        body = {"entities": OK, "as_of": NOON, "request_id": request_id} | body
        return self.send("POST", f"/v1/{SERVICE}/predict", body)
