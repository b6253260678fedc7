"""A tracking store and registry in SQLite files, and a server in front of another; models are tiny."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import mlflow.sklearn
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from skewguard.gate.keys import trust_key
from skewguard.gate.mlflow import artifacts, attach_verdict
from skewguard.model import TRUSTED_TYPES, model_digest
from skewguard.policy import load_policy
from skewguard.verdict import Verdict
from tests.gate.verdicts import KEY, passing

SERVER_SECONDS = 180.0
POLICY = '[policy]\ngoverns = ["gated-*"]\npromotion = ["production", "shadow"]\n'


@dataclass(frozen=True, slots=True)
class World:
    """Where models are logged and registered, and the policy that the gate reads."""

    tracking_uri: str
    registry_uri: str
    policy: Path

    def log_model(self, registered_name: str | None = None) -> str:
        """Log a tiny model into the run's own store; its id."""
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
        return self.client(self.registry_uri.removeprefix("skewguard:"))


def _policy(folder: Path) -> Path:
    """A policy, and beside it the key that the tests sign with."""
    policy = folder / "policy.toml"
    policy.write_text(POLICY)
    trust_key(folder / "trusted.json", KEY.save(folder / "signing.pem"), "tests")
    return policy


def _estimator() -> HistGradientBoostingClassifier:
    x = np.random.default_rng(0).normal(size=(60, 2))
    return HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=5).fit(x, x[:, 0] > 0)


@pytest.fixture(scope="session")
def _files(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("mlflow")
    policy = _policy(folder)
    database = f"sqlite:///{folder}/mlflow.db"
    mlflow.MlflowClient(database, database).create_experiment("tests", artifact_location=str(folder / "artifacts"))
    return World(database, f"skewguard:{database}", policy)


@pytest.fixture
def world(_files: World, point_mlflow_at: Callable[[World], None]) -> World:
    """The embedded default: SQLite, a folder and no server; this process registers through the gate."""
    point_mlflow_at(_files)
    mlflow.set_experiment("tests")
    return _files


@pytest.fixture
def point_mlflow_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[World], None]]:
    """MLflow keeps its addresses in the process; they go back to what they were."""
    before = {
        name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID")
    }

    def point(world: World) -> None:
        monkeypatch.setenv("SKEWGUARD_POLICY", str(world.policy))
        monkeypatch.setenv("SKEWGUARD_TRUSTED_KEYS", str(world.policy.with_name("trusted.json")))
        mlflow.set_tracking_uri(world.tracking_uri)
        mlflow.set_registry_uri(world.registry_uri)

    yield point
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("server")
    policy = _policy(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--registry-store-uri", f"skewguard:sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    own = {"SKEWGUARD_POLICY": str(policy), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env=os.environ | own, start_new_session=True
        )
    try:
        _wait_until_it_answers(f"http://127.0.0.1:{port}/health", process, folder / "log")
        address = f"http://127.0.0.1:{port}"
        yield World(address, address, policy)
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the session that was started here: the server and its worker
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def server(_server: World, point_mlflow_at: Callable[[World], None], monkeypatch: pytest.MonkeyPatch) -> World:
    """A server whose registry is gated; this process is a stock client that knows nothing of skewguard."""
    point_mlflow_at(_server)
    monkeypatch.delenv("SKEWGUARD_POLICY")
    mlflow.set_experiment("tests")
    return _server


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SERVER_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the MLflow server did not start: {log.read_text()}") from error
            time.sleep(0.1)
