"""The candidate answers a week of real requests over HTTP before it is registered: its shadow.

Two replicas serve. The demo's clock is the requests' own: before a request at t, the writer has published all that was
known by the last full minute before t. On one day, replica 2 is replaced by build B, as in any rollout.
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from pipelines.train import Candidate
from skewguard.definitions import Bundle, load_bundle
from skewguard.errors import SkewguardError
from skewguard.offline import OfflineStore
from skewguard.online import OnlineStore, open_store
from skewguard.workflows.materialize import Publisher

MINUTE = 60_000_000
DAY = 24 * 60 * MINUTE
START_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Incident:
    """What goes wrong: which module serves build B, and when the writer of which view stands still."""

    build_b: str = "serving"
    stopped_view: str = ""
    stopped: tuple[datetime, datetime] | None = None


@dataclass(frozen=True, slots=True)
class Week:
    """The traffic: asks in time order, where the log goes, and when build B is deployed."""

    asks: pa.Table
    log: Path
    deployed: datetime


class Server:
    """One replica: a process of its own, ended by its own pid."""

    def __init__(self, module: str, build: str, bundle: Path, store: str, log: Path, candidate: Candidate) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        flags = {
            "--bundle": bundle, "--store": store, "--log": log, "--model": candidate.folder,
            "--model-digest": candidate.digest, "--build": build, "--evidence": "shadow", "--port": self.port,
        }  # fmt: skip
        command = [sys.executable, "-m", module, "--accept-as-of", *(str(x) for flag in flags.items() for x in flag)]
        self._process = subprocess.Popen(command)  # noqa: S603  (our own module)
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait(self) -> None:
        """Until the server is ready; raises `SkewguardError` with its reason where it does not come up."""
        reason = "no answer"
        for _ in range(START_SECONDS * 10):
            if self._process.poll() is not None:
                raise SkewguardError(f"the server on port {self.port} ended with exit code {self._process.returncode}")
            try:
                status, body = self._send("GET", "/readyz", None)
                if status == http.client.OK:
                    self._connection.close()  # the first request may come much later
                    return
                reason = body.decode()
            except OSError:
                self._connection.close()
            time.sleep(0.1)
        raise SkewguardError(f"the server on port {self.port} was not ready within {START_SECONDS} s: {reason}")

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request; raises `SkewguardError` unless it is answered with 200."""
        status, answer = self._send("POST", path, json.dumps(body).encode())
        if status != http.client.OK:
            raise SkewguardError(f"POST {path} on port {self.port}: {status} {answer.decode()[:300]}")
        data: dict[str, Any] = json.loads(answer)
        return data

    def _send(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        self._connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = self._connection.getresponse()
        return response.status, response.read()

    def stop(self) -> None:
        """SIGTERM, and wait until the log is sealed."""
        self._connection.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def answer_week(
    bundle_path: Path,
    store_url: str,
    week: Week,
    candidate: Candidate,
    incident: Incident,
    progress: Callable[[int, int], None],
) -> int:
    """Send every ask of the week to the candidate, in time order; returns how many were answered.

    The online store is emptied of this project first.
    """
    asks = week.asks.sort_by([("event_timestamp", "ascending"), ("flight_id", "ascending")]).to_pylist()
    bundle = load_bundle(bundle_path)
    store = open_store(store_url)
    store.clear(bundle.project)
    with ExitStack() as stack, OfflineStore(bundle.views) as offline:
        writer = _Writer(bundle, offline, store, incident, _us(asks[0]["event_timestamp"]) // DAY * DAY)

        def serve(module: str, build: str) -> Server:
            return stack.enter_context(Server(module, build, bundle_path, store_url, week.log, candidate))

        replicas = [serve("serving", "A"), serve("serving", "A")]
        build_b = serve(incident.build_b, "B")  # started early, so that the rollout takes no time
        for server in (*replicas, build_b):
            server.wait()
        for done, ask in enumerate(asks):
            now = ask["event_timestamp"]
            writer.follow(_us(now))
            if now >= week.deployed:
                replicas[1] = build_b
            replicas[done % 2].post(f"/v1/{bundle.service}/predict", _body(bundle, ask))
            if done % 50 == 0:
                progress(done, len(asks))
        progress(len(asks), len(asks))
    store.close()
    return len(asks)


class _Writer:
    """Publishes every full minute, as a cron job would; during the incident not the stopped view."""

    def __init__(
        self, bundle: Bundle, offline: OfflineStore, store: OnlineStore, incident: Incident, start: int
    ) -> None:
        self._publisher = Publisher(bundle, offline, store, lookahead_us=DAY)
        self._others = [view.name for view in bundle.views if view.name != incident.stopped_view]
        self._stopped = tuple(map(_us, incident.stopped)) if incident.stopped else None
        self._publisher.advance(start)
        self._at = start

    def follow(self, now: int) -> None:
        """Run every minute's job up to the last full minute before `now`."""
        last = (now - 1) // MINUTE * MINUTE
        while self._at < last:
            self._at += MINUTE
            stopped = self._stopped is not None and self._stopped[0] < self._at < self._stopped[1]
            self._publisher.advance(self._at, only=self._others if stopped else None)


def _body(bundle: Bundle, ask: dict[str, Any]) -> dict[str, Any]:
    fields = [*bundle.keys, *(field.name for field in bundle.request)]
    entities = {name: _json(ask[name]) for name in fields}
    return {"request_id": ask["flight_id"], "as_of": ask["event_timestamp"].isoformat(), "entities": entities}


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _us(instant: datetime) -> int:
    return round(instant.timestamp() * 1_000_000)
