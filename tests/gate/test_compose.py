"""MLflow behind the gate in docker-compose.yml, as far as it can be held against something without Docker."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import yaml
from mlflow.cli import server as mlflow_server
from mlflow.utils.uri import get_uri_scheme

from skewguard.gate.mlflow import POLICY_ENV, SCHEME

ROOT = Path(__file__).resolve().parents[2]


def _compose() -> dict[str, Any]:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return compose


def _flags() -> dict[str, str]:
    """What MLflow's own command line reads from the container's command."""
    *_, line = _compose()["services"]["mlflow"]["command"]
    words = shlex.split(line)
    given = words[words.index("server") + 1 :]
    context = click.Context(mlflow_server)
    parsed, rest, _ = mlflow_server.make_parser(context).parse_args(given)
    assert rest == []
    return {name: str(value) for name, value in parsed.items()}


def test_the_servers_registry_is_the_gate_before_the_same_database() -> None:
    """MLflow resolves the address to our scheme, and behind it is where its tracking lies."""
    flags = _flags()
    registry = flags["registry_store_uri"]
    assert get_uri_scheme(registry) == SCHEME.rstrip(":")
    assert registry == SCHEME + flags["backend_store_uri"]
    assert _compose()["services"]["mlflow"]["environment"][POLICY_ENV] == "/gate/policy.toml"
    assert "mlflow:5000" in flags["allowed_hosts"]


def test_nobody_but_the_server_reaches_the_database_or_its_password() -> None:
    """Postgres has no port and a network of its own; the password is a file, in no address and no command."""
    compose = _compose()
    services = compose["services"]
    assert "ports" not in services["postgres"]
    assert services["postgres"]["networks"] == ["registry"]
    assert compose["networks"]["registry"]["internal"] is True
    on_it = [name for name, one in services.items() if "registry" in one.get("networks", [])]
    with_it = [name for name, one in services.items() if "postgres_password" in one.get("secrets", [])]
    assert sorted(on_it) == sorted(with_it) == ["mlflow", "postgres"]
    assert not re.search(r"mlflow:[^/@\s]+@", str(services["mlflow"]["command"]))


def test_the_image_is_pinned_and_holds_what_it_copies() -> None:
    """Base image and driver have exact versions, and every copied file exists."""
    text = (ROOT / _compose()["services"]["mlflow"]["build"]["dockerfile"]).read_text()
    assert re.search(r"^FROM \S+:\d+\.\d+\.\d+", text, re.MULTILINE)
    assert re.search(r"psycopg2-binary==\d+\.\d+\.\d+", text)
    for names in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE):
        assert all((ROOT / one).exists() for one in names.split()), names
