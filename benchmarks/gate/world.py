"""A tracking store and a gated registry, embedded or behind a real `mlflow server`; models are tiny."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import mlflow.sklearn
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from werkzeug.security import generate_password_hash

from skewguard.gate.keys import SigningKey, trust_key
from skewguard.gate.ledger import LEDGER_ENV
from skewguard.gate.mlflow import artifacts, attach_verdict
from skewguard.model import TRUSTED_TYPES, model_digest
from skewguard.policy import load_policy
from skewguard.verdict import Coverage, Ruling, Subject, Verdict

SERVER_SECONDS = 180.0
POLICY = '[policy]\ngoverns = ["gated-*"]\npromotion = ["production", "shadow"]\n'
KEY = SigningKey.new()
"""Who signs here, and is trusted."""


@dataclass(frozen=True, slots=True)
class World:
    """Where models are logged and registered, and the policy that the gate reads. `database` is behind both."""

    tracking_uri: str
    registry_uri: str
    policy: Path
    database: str

    def log_model(self, registered_name: str | None = None) -> str:
        """Log a tiny model into a run of its own; its id."""
        with mlflow.start_run():
            logged = mlflow.sklearn.log_model(
                _estimator(),
                name="model",
                serialization_format="skops",
                skops_trusted_types=list(TRUSTED_TYPES),
                pip_requirements=["scikit-learn", "skops"],
                registered_model_name=registered_name,
            )
        return str(logged.model_id)

    def digest(self, model_id: str) -> str:
        """The digest of the model as it lies there."""
        with artifacts(model_id, self.tracking_uri) as folder:
            return model_digest(folder)

    def verdict(self, model_id: str, name: str) -> Verdict:
        """A passing verdict, not yet attached."""
        return passing(name, model_id, self.digest(model_id), load_policy(self.policy).digest)

    def judged(self, name: str) -> str:
        """A logged model with a passing verdict for `name`; its id."""
        model_id = self.log_model()
        attach_verdict(model_id, self.verdict(model_id, name), KEY, self.tracking_uri)
        return model_id

    def client(self, registry_uri: str | None = None) -> mlflow.MlflowClient:
        """A client of MLflow's own, through the gate unless told otherwise."""
        return mlflow.MlflowClient(self.tracking_uri, registry_uri or self.registry_uri)

    def behind(self) -> mlflow.MlflowClient:
        """A client that goes around the gate, as whoever holds the database's password can."""
        return self.client(self.database)


def passing(
    registered_name: str,
    model_id: str,
    model_digest: str,
    policy_digest: str,
    *,
    age: timedelta = timedelta(),
    lasts: timedelta = timedelta(days=7),
) -> Verdict:
    """A verdict that lets exactly this model pass for exactly this name."""
    issued = datetime.now(UTC) - age
    return Verdict(
        ruling=Ruling.PASS,
        reasons=("2,000 rows replayed, none differs",),
        subject=Subject(registered_name, model_id, model_digest, "snap-1", "b" * 64, "delay", "shadow", ("A", "B")),
        coverage=Coverage(rows=2000, equal=2000, values=20_000, blind=("it sees no label",)),
        findings=(),
        waived=(),
        policy_digest=policy_digest,
        issued_at=issued.isoformat(timespec="seconds"),
        expires_at=(issued + lasts).isoformat(timespec="seconds"),
    )


def make_embedded(folder: Path) -> World:
    """SQLite, a folder and no server: the process itself registers through the gate."""
    policy = make_policy(folder)
    database = f"sqlite:///{folder}/mlflow.db"
    mlflow.MlflowClient(database, database).create_experiment("gate", artifact_location=str(folder / "artifacts"))
    return World(database, f"skewguard:{database}", policy, database)


@contextmanager
def serving(folder: Path, *, basic_auth: bool = False) -> Iterator[World]:
    """A real `mlflow server` whose registry is gated; ended with its workers. `basic_auth` is MLflow's own."""
    policy = make_policy(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--registry-store-uri", f"skewguard:sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    own = {"SKEWGUARD_POLICY": str(policy), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    own |= {"SKEWGUARD_TRUSTED_KEYS": str(policy.with_name("trusted.json"))}
    if basic_auth:
        command += ["--app-name", "basic-auth"]
        own |= _credentials(folder)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  (our own)
            command, stdout=log, stderr=log, cwd=folder, env=os.environ | own, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_until_it_answers(f"{address}/health", process, folder / "log")
        if basic_auth:
            _hash_cheaply(folder / "auth.db")
        yield World(address, address, policy, f"sqlite:///{folder}/mlflow.db")
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the session that was started here: the server and its worker
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def pointed_at(world: World) -> Iterator[World]:
    """MLflow in this process talks to that world; it keeps its addresses, which go back to what they were."""
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID")
    own = {"SKEWGUARD_POLICY": str(world.policy), "SKEWGUARD_TRUSTED_KEYS": str(world.policy.with_name("trusted.json"))}
    before = {name: os.environ.get(name) for name in (*names, *own, LEDGER_ENV)}
    os.environ.pop(LEDGER_ENV, None)  # the ledger lies beside the policy
    os.environ.update(own)
    mlflow.set_tracking_uri(world.tracking_uri)
    mlflow.set_registry_uri(world.registry_uri)
    mlflow.set_experiment("gate")
    try:
        yield world
    finally:
        mlflow.set_tracking_uri("")
        mlflow.set_registry_uri("")
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def make_policy(folder: Path) -> Path:
    """A policy, and beside it the trusted key."""
    policy = folder / "policy.toml"
    policy.write_text(POLICY)
    trust_key(folder / "trusted.json", KEY.save(folder / "signing.pem"), "tests")
    return policy


def with_policy(world: World, policy: Path) -> World:
    """The same database behind a gate with another policy: under another URI, for MLflow keeps stores by URI."""
    return replace(world, registry_uri=f"{world.registry_uri}?timeout={secrets.randbelow(900) + 5}", policy=policy)


def _credentials(folder: Path) -> dict[str, str]:
    """MLflow's basic-auth with one administrator, who is this process's user as well."""
    password = secrets.token_urlsafe(16)
    os.environ |= {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": password}
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\n"
        f"admin_username = admin\nadmin_password = {password}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(16),
    }


def _hash_cheaply(database: Path) -> None:
    """Each request checks the password against its hash, which takes long on purpose; nobody here attacks that."""
    cheap = generate_password_hash(os.environ["MLFLOW_TRACKING_PASSWORD"], "pbkdf2:sha256:1")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE users SET password_hash = ? WHERE username = 'admin'", (cheap,))


def _estimator() -> HistGradientBoostingClassifier:
    x = np.random.default_rng(0).normal(size=(60, 2))
    return HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=5).fit(x, x[:, 0] > 0)


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SERVER_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310  (loopback)
                return
        except (urllib.error.URLError, OSError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the MLflow server did not start: {log.read_text()}") from error
            time.sleep(0.1)
