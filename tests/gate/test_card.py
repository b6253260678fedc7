"""The card in MLflow: where people look, without touching what was judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest

from benchmarks.gate.world import World
from skewguard.cli import main
from skewguard.errors import EvidenceError, Refused
from skewguard.gate.keys import SigningKey, load_trust
from skewguard.gate.mlflow import attach_verdict, register, revoke_verdict
from skewguard.gate.mlflow.card import TRAINED_UNTIL_TAG
from skewguard.snapshot import Snapshot, build_snapshot
from skewguard.verdict import Verdict
from skewguard.workflows.card import PAGE, REPORT, TEXT, Stores, Whole, make_card, publish
from tests.gate.verdicts import KEY, about
from tests.worlds import shop


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """The shop's; the tiny models were not trained on it, which their cards say."""
    folder = tmp_path_factory.mktemp("shop")
    one = shop(folder, rows=60, asks=20)
    return build_snapshot(one.bundle, one.asks, folder / "s", labels=["paid"], id_column="ask_id")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A governed name of this test's own."""
    return "gated-" + str(request.node.name).replace("_", "-")


@pytest.fixture
def stores(world: World) -> Stores:
    """Of the embedded world."""
    return Stores(load_trust(world.policy.with_name("trusted.json")), world.tracking_uri, world.registry_uri)


def _judged(world: World, name: str, snapshot: Snapshot) -> tuple[str, Verdict]:
    """A logged model with a passing verdict on this snapshot."""
    model_id = world.log_model()
    verdict = about(world.verdict(model_id, name), snapshot_id=snapshot.id)
    attach_verdict(model_id, verdict, KEY, world.tracking_uri)
    return model_id, verdict


def _artifact(world: World, run_id: str, path: str) -> str:
    return Path(world.client().download_artifacts(run_id, path)).read_text(encoding="utf-8")


def test_a_registered_version_has_its_card_among_the_runs_artifacts(
    world: World, name: str, snapshot: Snapshot, stores: Stores
) -> None:
    """Page, Markdown and report; the description begins it; the model's files are what they were, and still load."""
    model_id, verdict = _judged(world, name, snapshot)
    digest = world.digest(model_id)
    uris = {"registry_uri": world.registry_uri, "tracking_uri": world.tracking_uri}
    version = register(model_id, name, alias="champion", **uris)
    card = make_card(model_id, name, snapshot, stores, verdict=Whole.of(verdict))
    where = publish(card, stores)
    assert (card.version, where) == (version, f"skewguard/card/{name}-{version}")
    page = _artifact(world, card.run_id, f"{where}/{PAGE}")
    for told in (model_id, digest, snapshot.id, KEY.id, "PASS", "nobody said until when the model was trained"):
        assert told in page, told
    assert _artifact(world, card.run_id, f"{where}/{TEXT}").startswith(f"# Model card: {name}, version {version}")
    assert "verdict on training-serving skew" in _artifact(world, card.run_id, f"{where}/{REPORT}")
    described = world.client().get_model_version(name, version).description or ""
    assert f"{where}/{PAGE}" in described
    assert world.digest(model_id) == digest
    assert mlflow.sklearn.load_model(f"models:/{name}@champion") is not None


def test_a_card_that_is_written_again_replaces_the_first_and_no_description_of_somebody(
    world: World, name: str, snapshot: Snapshot, stores: Stores
) -> None:
    """The second says what is true then; what a person wrote stays."""
    model_id, _ = _judged(world, name, snapshot)
    version = register(model_id, name, registry_uri=world.registry_uri, tracking_uri=world.tracking_uri)
    publish(make_card(model_id, name, snapshot, stores), stores)
    revoke_verdict(model_id, name, "wrong labels", KEY, world.tracking_uri)
    publish(make_card(model_id, name, snapshot, stores), stores)
    assert "revoked: wrong labels" in (world.client().get_model_version(name, version).description or "")
    world.client().update_model_version(name, version, "ours")
    publish(make_card(model_id, name, snapshot, stores), stores)
    assert world.client().get_model_version(name, version).description == "ours"


def test_a_verdict_or_a_snapshot_that_was_not_signed_makes_no_card(
    world: World, name: str, snapshot: Snapshot, stores: Stores, tmp_path: Path
) -> None:
    """One changed character in the verdict's file, another snapshot, a stranger's signature: each is named."""
    model_id, verdict = _judged(world, name, snapshot)
    file = tmp_path / "verdict.json"
    file.write_text(json.dumps(verdict.to_json()))
    assert make_card(model_id, name, snapshot, stores, verdict=Whole.read(file)).report == REPORT
    file.write_text(file.read_text().replace("none differs", "none differ!"))
    with pytest.raises(EvidenceError, match="is not the one that was signed for model"):
        make_card(model_id, name, snapshot, stores, verdict=Whole.read(file))
    file.write_text("{")
    with pytest.raises(EvidenceError, match="expected a verdict as JSON"):
        Whole.read(file)
    other = replace(snapshot, manifest=replace(snapshot.manifest, id="f" * 64))
    with pytest.raises(EvidenceError, match=f"was judged on snapshot {snapshot.id[:16]}, not ffff"):
        make_card(model_id, name, other, stores)
    attach_verdict(model_id, verdict, SigningKey.new(), world.tracking_uri)
    with pytest.raises(Refused, match="does not trust"):
        make_card(model_id, name, snapshot, stores)


def test_the_command_writes_into_mlflow_or_into_a_folder(
    world: World, name: str, snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unregistered model's card says so; a model that does not fit the snapshot is told as not measured."""
    model_id, _ = _judged(world, name, snapshot)
    run_id = world.client().get_logged_model(model_id).source_run_id or ""
    world.client().set_tag(run_id, TRAINED_UNTIL_TAG, snapshot.manifest.since)
    trusted = world.policy.with_name("trusted.json")
    flags: list[Any] = ["--name", name, "--snapshot", snapshot.path, "--trusted", trusted]
    flags += ["--tracking-uri", world.tracking_uri, "--registry-uri", world.registry_uri, "--json"]
    capsys.readouterr()
    assert main([str(one) for one in ("card", f"models:/{model_id}", *flags, "--out", tmp_path / "card")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["version"], said["card"]) == ("", str(tmp_path / "card"))
    text = (tmp_path / "card" / TEXT).read_text()
    assert f"{name}, not registered" in text
    assert "By slice nothing was measured: model" in text
    assert world.client().list_artifacts(run_id, "skewguard") == []
    assert main([str(one) for one in ("card", model_id, *flags)]) == 0
    assert json.loads(capsys.readouterr().out)["card"] == f"skewguard/card/{name}-unregistered"
    assert main([str(one) for one in ("card", "m-" + "0" * 32, *flags)]) == 2
