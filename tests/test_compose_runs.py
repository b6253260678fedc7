"""docker-compose.yml without Docker: what it names is declared, and its commands are run as they stand there."""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import redis
import yaml

from tests.conftest import _free_port, _redis_server
from tests.loop import Loop, at

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sysconfig.get_path("scripts"))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_names_is_declared(name: str) -> None:
    """Volumes, networks, secrets, and the services that it waits for; who is waited for can say that it is well."""
    service = SERVICES[name]
    mounted = [mount.split(":")[0] for mount in service.get("volumes", [])]
    assert {one for one in mounted if not one.startswith(".")} <= COMPOSE["volumes"].keys()
    assert set(service.get("networks", [])) <= COMPOSE["networks"].keys()
    assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys()
    waits = service.get("depends_on", {})
    assert set(waits) <= SERVICES.keys()
    for other, how in waits.items() if isinstance(waits, Mapping) else ():
        assert "healthcheck" in SERVICES[other] or how["condition"] != "service_healthy"
    assert service["restart"] == "unless-stopped"


@pytest.fixture
def composed_redis(tmp_path: Path) -> Iterator[str]:
    """The Redis that the file starts, by its own command, on a port of this test."""
    server = _redis_server()
    if server is None:
        pytest.skip("no Redis server")
    program, *flags = SERVICES["redis"]["command"]
    assert program == "redis-server"
    port = _free_port()
    more = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(tmp_path)]
    with subprocess.Popen([server, *flags, *more], stdout=subprocess.DEVNULL) as process:
        try:
            with redis.Redis(port=port, socket_timeout=1) as client:
                for _ in range(200):
                    try:
                        client.ping()
                        break
                    except redis.ConnectionError:
                        time.sleep(0.05)
                assert client.config_get("appendonly", "maxmemory-policy") == {
                    "appendonly": "yes",
                    "maxmemory-policy": "noeviction",
                }
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


@pytest.mark.redis
def test_the_composed_server_starts_is_healthy_and_is_scraped(loop: Loop, tmp_path: Path, composed_redis: str) -> None:
    """Command, settings and health check as they stand in the file, on this machine's places and ports."""
    data = tmp_path / "data"
    (data / "models").mkdir(parents=True)
    loop.bundle.save(data / "delay.bundle.json")
    (data / "models" / loop.model.digest).symlink_to(loop.model_folder)
    (data / "models" / "current").write_text(loop.model.digest + "\n")
    loop.materialize(composed_redis, at(12))
    service, port = SERVICES["skewguard"], str(_free_port())

    def here(text: str) -> str:
        for there, own in (
            ("redis://redis:6379/0", composed_redis), ("/data", str(data)), ("0.0.0.0", "127.0.0.1"), ("8080", port),
        ):  # fmt: skip
            text = text.replace(there, own)
        return text

    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    environment |= {name: here(value) for name, value in service["environment"].items()}
    environment |= {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(ROOT)  # the image has the definitions' modules
    check_kind, *check = map(here, service["healthcheck"]["test"])
    assert check_kind == "CMD"
    with subprocess.Popen([*map(here, service["command"])], env=environment, cwd=tmp_path) as process:
        try:
            deadline = time.monotonic() + 120
            while subprocess.run(check, env=environment, capture_output=True, check=False).returncode:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < deadline, "the server was not healthy in time"
                time.sleep(0.2)
            (job,) = yaml.safe_load((ROOT / "serving/prometheus.yml").read_text())["scrape_configs"]
            assert job["static_configs"][0]["targets"] == ["skewguard:8080"]
            with urlopen(f"http://127.0.0.1:{port}{job.get('metrics_path', '/metrics')}", timeout=10) as answer:
                assert b"skewguard_log_backlog_segments" in answer.read()
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=40) == 0
    assert list((data / "log").rglob("*.seg"))
    assert not list((data / "log").rglob("*.open"))
