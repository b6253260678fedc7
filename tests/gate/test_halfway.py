"""A registration that breaks off halfway leaves no version and no alias, and can be done again."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from benchmarks.gate.world import World
from skewguard.gate.mlflow import Gate, register
from skewguard.gate.mlflow.audit import audit_ledger


class _DiesAfter(ThreadingHTTPServer):
    """Hands requests on to a server, and dies once it has answered the route that is named."""

    daemon_threads = True

    def __init__(self, target: str, route: str) -> None:
        super().__init__(("127.0.0.1", 0), _HandsOn)
        self.target, self.route, self.dead = urlsplit(target), route, False


class _HandsOn(BaseHTTPRequestHandler):
    server: _DiesAfter

    def _any(self) -> None:
        if self.server.dead:
            self.close_connection = True  # not a word, as when a process is killed
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        onward = http.client.HTTPConnection(self.server.target.netloc, timeout=60)
        onward.request(
            self.command, self.path, body, {"Content-Type": self.headers.get("Content-Type") or "text/plain"}
        )
        answer = onward.getresponse()
        content = answer.read()
        onward.close()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers["Content-Type"] or "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.server.dead = self.path.endswith(self.server.route)

    do_GET = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815  (http.server's names)

    def log_message(self, *_: object) -> None:
        """Silent."""


@contextmanager
def _dying(world: World, route: str) -> Iterator[str]:
    server = _DiesAfter(world.tracking_uri, route)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("route", ["registered-models/create", "model-versions/create"])
def test_a_server_that_dies_halfway_leaves_no_alias_and_no_version_without_a_verdict(
    server: World, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    """After the empty model, or between version and alias: what stands was admitted, the rest is not there."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    name = f"gated-halfway-{route.partition('-')[0]}"
    model_id = server.judged(name)
    with _dying(server, route) as address, pytest.raises(MlflowException):
        register(model_id, name, alias="champion", registry_uri=address, tracking_uri=server.tracking_uri)
    found = server.client().get_registered_model(name)
    versions = server.client().search_model_versions(f"name='{name}'")
    assert found.aliases == {}
    assert len(versions) == (0 if route.startswith("registered") else 1)
    assert all("skewguard.verdict" in one.tags and one.status == "READY" for one in versions)
    version = register(
        model_id, name, alias="champion", registry_uri=server.registry_uri, tracking_uri=server.tracking_uri
    )
    assert server.client().get_model_version_by_alias(name, "champion").version == version


def test_a_database_that_fails_after_the_ledgers_line_leaves_no_version(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line of an admission that came to nothing does no harm: the ledger stays whole, and the next try succeeds."""
    name = "gated-halfway-embedded"
    model_id = world.judged(name)
    uris = {"registry_uri": world.registry_uri, "tracking_uri": world.tracking_uri}

    def fails(*_: object, **__: object) -> None:
        raise MlflowException("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(SqlAlchemyStore, "create_model_version", fails)
        with pytest.raises(MlflowException, match="the disk is full"):
            register(model_id, name, alias="champion", **uris)
    assert world.client().search_model_versions(f"name='{name}'") == []
    assert register(model_id, name, alias="champion", **uris) == "1"
    audited = audit_ledger(Gate.from_environment(tracking_uri=world.tracking_uri))
    assert not [one for one in audited.problems if name in one]
