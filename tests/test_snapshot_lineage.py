"""Lineage: MLflow knows on which snapshot a model was trained, and nothing else depends on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest

from skewguard.errors import MissingExtra, SnapshotError
from skewguard.model import FEATURES_KEY, SNAPSHOT_KEY
from skewguard.snapshot import Snapshot, build_snapshot
from skewguard.snapshot.mlflow import SnapshotSource
from tests.worlds import shop


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """The shop's, which nobody changes."""
    folder = tmp_path_factory.mktemp("shop")
    world = shop(folder, rows=60, asks=20)
    return build_snapshot(world.bundle, world.asks, folder / "s", labels=["paid"], id_column="ask_id")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> mlflow.MlflowClient:
    """A tracking store in a file of its own."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    one = mlflow.MlflowClient(uri)
    one.create_experiment("tests")
    return one


def test_a_model_and_its_run_name_the_snapshot_that_they_came_from(
    snapshot: Snapshot, client: mlflow.MlflowClient
) -> None:
    """As tags, and as the dataset of the run; said twice, it is the same."""
    experiment = client.get_experiment_by_name("tests")
    assert experiment is not None
    run = client.create_run(experiment.experiment_id)
    model = client.create_logged_model(experiment.experiment_id, "m", source_run_id=run.info.run_id)
    info = SimpleNamespace(model_id=model.model_id, metadata={SNAPSHOT_KEY: snapshot.id})
    for _ in range(2):
        snapshot.bind(info, client.tracking_uri)
    tags = client.get_logged_model(model.model_id).tags
    assert tags[SNAPSHOT_KEY] == snapshot.id
    assert (tags["skewguard.bundle"], tags["skewguard.service"]) == (snapshot.bundle.digest, "checkout")
    found = client.get_run(run.info.run_id)
    assert found.data.tags[SNAPSHOT_KEY] == snapshot.id
    assert found.inputs is not None
    (given,) = found.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("checkout", snapshot.id[:36])
    assert json.loads(given.dataset.source) == {"snapshot": str(snapshot.place), "id": snapshot.id}
    assert [(tag.key, tag.value) for tag in given.tags] == [("mlflow.data.context", "training")]


def test_a_model_without_a_run_is_bound_by_its_id(snapshot: Snapshot, client: mlflow.MlflowClient) -> None:
    """There is then no run to tell."""
    model = client.create_logged_model("0", "m")
    snapshot.bind(model.model_id, client.tracking_uri)
    assert client.get_logged_model(model.model_id).tags[SNAPSHOT_KEY] == snapshot.id


def test_a_model_of_another_snapshot_is_not_bound_to_this_one(snapshot: Snapshot, client: mlflow.MlflowClient) -> None:
    """Neither where its metadata or an earlier binding name another one, nor where its columns are others."""
    model = client.create_logged_model("0", "m", tags={SNAPSHOT_KEY: "f" * 64})
    with pytest.raises(SnapshotError, match=f"was trained on snapshot {'f' * 16}, not {snapshot.id[:16]}"):
        snapshot.bind(model.model_id, client.tracking_uri)
    fresh = client.create_logged_model("0", "m")
    for metadata, said in (
        ({SNAPSHOT_KEY: "e" * 64}, "trained on snapshot e"),
        ({FEATURES_KEY: ["x"]}, "other columns"),
    ):
        with pytest.raises(SnapshotError, match=said):
            snapshot.bind(SimpleNamespace(model_id=fresh.model_id, metadata=metadata), client.tracking_uri)
    assert SNAPSHOT_KEY not in client.get_logged_model(fresh.model_id).tags


def test_without_mlflow_the_missing_extra_is_named(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the line that installs it."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    for name in [one for one in sys.modules if one.startswith("skewguard.snapshot.mlflow")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtra, match=r"pip install 'skewguard\[mlflow\]'"):
        snapshot.bind("m-1")


def test_binding_touches_no_file_of_the_snapshot(snapshot: Snapshot, client: mlflow.MlflowClient) -> None:
    """It is what it was."""
    before = {path.name: path.read_bytes() for path in Path(snapshot.path).iterdir()}
    snapshot.bind(client.create_logged_model("0", "m").model_id, client.tracking_uri)
    assert {path.name: path.read_bytes() for path in Path(snapshot.path).iterdir()} == before


def test_the_dataset_of_a_run_leads_back_to_the_snapshot(
    snapshot: Snapshot, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    """MLflow's own `get_source` gives it, loaded and held against its id; another one in its place is refused."""
    run = client.create_run("0")
    model = client.create_logged_model("0", "m", source_run_id=run.info.run_id)
    snapshot.bind(model.model_id, client.tracking_uri)
    found = client.get_run(run.info.run_id).inputs
    assert found is not None
    source = mlflow.data.get_source(found.dataset_inputs[0])
    assert source.load().id == snapshot.id
    assert SnapshotSource.from_json(found.dataset_inputs[0].dataset.source).load().id == snapshot.id
    with pytest.raises(SnapshotError, match=f"expected snapshot {'0' * 16}, found {snapshot.id[:16]}"):
        SnapshotSource(str(snapshot.place), "0" * 64).load()
    with pytest.raises(SnapshotError):
        SnapshotSource(str(tmp_path / "gone"), snapshot.id).load()
