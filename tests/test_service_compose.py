"""The files that start a server with its monitoring, as far as they can be held against something without Docker."""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from compose_spec import PyCompose

from skewguard.cli import serve_settings
from tests.loop import SERVICE, Loop
from tests.servers import NOON, OK, Client

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = ROOT / "docker-compose.yml"
GRAFANA = ROOT / "serving" / "grafana"


def _services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return services


def test_the_compose_file_follows_the_specification() -> None:
    """A validating parser of the Compose specification reads it, and nothing in it is an unknown key."""
    read = PyCompose.from_yaml(COMPOSE.read_text())
    assert set(read.service_names()) >= {"redis", "skewguard", "prometheus", "grafana"}


def test_images_are_pinned_and_ports_stay_on_loopback() -> None:
    """No image floats, and nothing is open to the network unless somebody changes the file."""
    for name, service in _services().items():
        if "image" in service:
            assert re.search(r":v?\d+\.\d+", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    built = ROOT / _services()["skewguard"]["build"]["dockerfile"]
    assert re.search(r"^FROM \S+:\d+\.\d+\.\d+", built.read_text(), re.MULTILINE)


def test_what_is_mounted_or_copied_is_there() -> None:
    """Every file of this repository that a container reads exists."""
    mounts = [mount for service in _services().values() for mount in service.get("volumes", [])]
    own = [mount.split(":")[0] for mount in mounts if mount.startswith("./serving")]
    copied = re.findall(r"^COPY (.*) \S+$", (ROOT / "serving/Dockerfile").read_text(), re.MULTILINE)
    for path in [*own, *(one for names in copied for one in names.split())]:
        assert (ROOT / path).exists(), path


def test_the_server_would_start_with_these_flags_and_settings(monkeypatch: Any) -> None:
    """The command line knows every flag and setting of the compose file, and Prometheus asks where it listens."""
    service = _services()["skewguard"]
    program, command, *flags = service["command"]
    assert (program, command) == ("skewguard", "serve")
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, value)
    settings = serve_settings(flags)
    assert (settings.store, settings.workers, settings.host) == ("redis://redis:6379/0", 2, "0.0.0.0")
    (job,) = yaml.safe_load((ROOT / "serving/prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"skewguard:{settings.port}"]}]


def test_the_dashboard_asks_for_metrics_that_there_are(loop: Loop, tmp_path: Path) -> None:
    """Every series and label in the dashboard's queries is exported by a server that has answered something."""
    client = Client(loop, tmp_path)
    client.post(f"/v1/{SERVICE}/predict", json={"entities": OK, "as_of": NOON})
    text = client.get("/metrics").text
    dashboard = json.loads((GRAFANA / "dashboards/skewguard.json").read_text())
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) > 10
    for query in queries:
        for series in re.findall(r"skewguard_\w+", query):
            assert re.search(rf"^{series}[{{ ]", text, re.MULTILINE), series
            for label in re.findall(r"by \(([\w, ]+)\)", query):
                for name in label.split(", "):
                    assert re.search(rf"^{series}{{[^}}]*{name}=", text, re.MULTILINE), (series, name)
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}
    documented = (ROOT / "docs/service.md").read_text()
    exported = set(re.findall(r"^# TYPE (skewguard_\w+?)(?:_created)? ", text, re.MULTILINE))
    assert sorted(name for name in exported if name not in documented) == []
