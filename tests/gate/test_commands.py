"""`skewguard keys`, `gate`, `revoke`, `pull` and `audit`, as a shell sees them."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy import create_engine, text

from benchmarks.gate.world import POLICY, World, with_policy
from skewguard.cli import main
from skewguard.errors import SkewguardError
from skewguard.gate.keys import SigningKey
from skewguard.gate.ledger import Ledger
from skewguard.gate.mlflow import attach_verdict, register
from skewguard.gate.mlflow.pull import Registry, pull, watch
from skewguard.gate.record import tag_of
from skewguard.model import load_model
from skewguard.verdict import Ruling
from tests.gate.verdicts import KEY


def _run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, Any]:
    capsys.readouterr()
    code = main([*map(str, argv), "--json"])
    out = capsys.readouterr().out
    return code, json.loads(out) if out else None


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A governed name of this test's own."""
    return "gated-" + str(request.node.name).replace("_", "-")


@pytest.fixture
def own_policy(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy file, and hence a ledger, of this test's own; the same keys and registry."""
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    monkeypatch.setenv("SKEWGUARD_POLICY", str(policy))
    assert world.policy.with_name("trusted.json").exists()
    return policy


def test_keys_are_made_trusted_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The life of a key; what is wrong exits with 2 and says what to give."""
    private, trusted = tmp_path / "ci.pem", tmp_path / "trusted.json"
    code, made = _run(capsys, "keys", "new", private)
    assert (code, made["public"]) == (0, f"{private}.pub")
    assert _run(capsys, "keys", "trust", made["public"], "--trusted", trusted, "--name", "CI")[0] == 0
    assert _run(capsys, "keys", "list", "--trusted", trusted)[1][0]["name"] == "CI"
    assert _run(capsys, "keys", "revoke", made["id"], "--trusted", trusted)[0] == 2
    assert _run(capsys, "keys", "revoke", made["id"], "--trusted", trusted, "--reason", "leaked")[0] == 0
    assert _run(capsys, "keys", "list", "--trusted", trusted)[1][0]["reason"] == "leaked"
    assert _run(capsys, "keys", "revoke", "0" * 16, "--trusted", trusted, "--reason", "x")[0] == 2
    assert main(["keys", "new", str(private)]) == 2
    assert "is not overwritten" in capsys.readouterr().err


def test_gate_gives_the_gates_answer_by_its_exit_code(
    world: World, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 admitted or ungoverned, 1 refused, 3 without a verdict or with an UNKNOWN one."""
    where = ["--tracking-uri", world.tracking_uri, "--policy", world.policy]
    model_id = world.log_model()
    assert _run(capsys, "gate", model_id, "--name", name, *where)[0] == 3
    for ruling, code in ((Ruling.PASS, 0), (Ruling.FAIL, 1), (Ruling.UNKNOWN, 3)):
        attach_verdict(model_id, replace(world.verdict(model_id, name), ruling=ruling), KEY, world.tracking_uri)
        assert _run(capsys, "gate", f"models:/{model_id}", "--name", name, "--promotion", *where)[0] == code
    assert _run(capsys, "gate", model_id, "--name", "free", *where) == (0, {"answer": "ungoverned"})


def test_a_revoked_verdict_admits_nobody_until_a_newer_one_passes(
    world: World, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`skewguard revoke` takes the permission back for alias and load; taking its tag away does not help."""
    KEY.save(tmp_path / "signing.pem")
    model_id = world.judged(name)
    version = mlflow.register_model(f"models:/{model_id}", name).version
    flags = ["--name", name, "--reason", "wrong labels", "--tracking-uri", world.tracking_uri]
    assert _run(capsys, "revoke", model_id, *flags)[0] == 2  # without a key
    assert _run(capsys, "revoke", model_id, *flags, "--key", tmp_path / "signing.pem")[0] == 0
    client = world.client()
    for _ in range(2):
        with pytest.raises(MlflowException, match=r"was revoked at .* \(wrong labels\)"):
            client.set_registered_model_alias(name, "champion", version)
        with pytest.raises(MlflowException, match=r"was revoked at .* \(wrong labels\)"):
            mlflow.sklearn.load_model(f"models:/{name}/{version}")
        for tag in list(client.get_logged_model(model_id).tags):
            if tag.startswith("skewguard.revoked."):
                client.delete_logged_model_tag(model_id, tag)
    attach_verdict(model_id, world.verdict(model_id, name), KEY, world.tracking_uri)
    client.set_registered_model_alias(name, "champion", version)


def test_a_verdict_signed_by_a_stranger_is_refused(world: World, name: str) -> None:
    """Whoever may tag a logged model cannot rule on it."""
    model_id = world.log_model()
    attach_verdict(model_id, world.verdict(model_id, name), SigningKey.new(), world.tracking_uri)
    with pytest.raises(MlflowException, match=r"does not count: it is signed by key .* does not trust"):
        mlflow.register_model(f"models:/{model_id}", name)


def test_an_old_pass_that_is_put_back_does_not_beat_the_newer_fail(world: World, name: str) -> None:
    """The gate remembers what it saw: a replayed record stays the older one."""
    model_id = world.judged(name)
    passed = world.client().get_logged_model(model_id).tags[tag_of(name)]
    attach_verdict(model_id, replace(world.verdict(model_id, name), ruling=Ruling.FAIL), KEY, world.tracking_uri)
    for _ in range(2):
        with pytest.raises(MlflowException, match="its verdict is FAIL"):
            mlflow.register_model(f"models:/{model_id}", name)
        world.client().set_logged_model_tags(model_id, {tag_of(name): passed})


def test_a_version_from_behind_the_gate_is_not_loaded(world: World, name: str) -> None:
    """A version written past the gate by SQL or by another client does not load by name, version or alias."""
    world.behind().create_registered_model(name)
    version = world.behind().create_model_version(name, f"models:/{world.log_model()}").version
    world.behind().set_registered_model_alias(name, "champion", version)
    for uri in (f"models:/{name}/{version}", f"models:/{name}@champion"):
        with pytest.raises(MlflowException, match=r"may not be loaded as .* it has no verdict"):
            mlflow.sklearn.load_model(uri)


def test_a_mode_that_observes_refuses_nothing_and_writes_it_down(world: World, own_policy: Path) -> None:
    """`observe` lets everything pass; `promotion` refuses aliases alone; both write down what they would refuse."""
    own_policy.write_text(POLICY + '[modes]\n"gated-watch-*" = "observe"\n"gated-alias-*" = "promotion"\n')
    own = with_policy(world, own_policy)
    mlflow.set_registry_uri(own.registry_uri)
    client, ledger = own.client(), Ledger(own_policy.with_name("ledger.jsonl"))
    model_id = own.log_model()
    version = mlflow.register_model(f"models:/{model_id}", "gated-watch-one").version
    client.set_registered_model_alias("gated-watch-one", "champion", version)
    version = mlflow.register_model(f"models:/{model_id}", "gated-alias-one").version
    with pytest.raises(MlflowException, match="it has no verdict"):
        client.set_registered_model_alias("gated-alias-one", "champion", version)
    lines = [(entry.kind, entry.body["action"], entry.body["name"]) for entry in ledger.entries()]
    assert lines == [
        ("observed", "register", "gated-watch-one"),
        ("observed", "alias champion", "gated-watch-one"),
        ("observed", "register", "gated-alias-one"),
        ("refused", "alias champion", "gated-alias-one"),
    ]


def test_audit_finds_what_was_edited_cut_off_or_written_past_the_gate(
    world: World, own_policy: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The chain, every record, and the registry against the ledger; exit 1 with a sentence for each."""
    own_policy.write_text(POLICY.replace("gated-*", name))
    own = with_policy(world, own_policy)
    mlflow.set_registry_uri(own.registry_uri)
    register(own.judged(name), name, alias="champion", registry_uri=own.registry_uri, tracking_uri=own.tracking_uri)
    flags = ["audit", "verify", "--tracking-uri", own.tracking_uri, "--registry-uri", own.registry_uri]
    code, found = _run(capsys, *flags)
    assert (code, found["problems"], found["lines"]) == (0, [], 3)
    ledger = own_policy.with_name("ledger.jsonl")
    whole = ledger.read_bytes()
    ledger.write_bytes(b"".join(whole.splitlines(keepends=True)[:1]))
    code, found = _run(capsys, *flags)
    assert code == 1
    assert "its end was cut off" in found["problems"][0]
    ledger.write_bytes(whole.replace(b'"admitted"', b'"refused"'))
    code, found = _run(capsys, *flags)
    assert code == 1
    assert "history was edited" in found["problems"][0]
    ledger.write_bytes(whole)
    own.behind().create_model_version(name, f"models:/{own.log_model()}")
    code, found = _run(capsys, *flags)
    assert code == 1
    (problem,) = found["problems"]
    assert problem.startswith(f"version 2 of '{name}': no line of the ledger admitted it")


def _registry(world: World, uri: str) -> Registry:
    trusted = str(world.policy.with_name("trusted.json"))
    return Registry(uri, trusted, world.registry_uri.removeprefix("skewguard:"), world.tracking_uri)


def test_pull_makes_a_verified_model_current(
    world: World, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once per version: the folder has the registered model's digest, and `current` names it."""
    uris = {"registry_uri": world.registry_uri, "tracking_uri": world.tracking_uri}
    register(world.judged(name), name, alias="champion", **uris)
    trusted = world.policy.with_name("trusted.json")
    flags = ["pull", f"models:/{name}@champion", "--out", tmp_path / "served", "--trusted", trusted]
    flags += ["--registry-uri", world.tracking_uri, "--tracking-uri", world.tracking_uri]
    code, first = _run(capsys, *flags)
    assert (code, first["version"], first["changed"]) == (0, "1", True)
    assert (tmp_path / "served" / "current").read_text().strip() == first["digest"]
    load_model(first["folder"], expected_digest=first["digest"])
    assert _run(capsys, *flags)[1]["changed"] is False


def test_a_rogue_alias_leaves_the_old_version_serving_and_raises_an_alert(
    world: World, name: str, tmp_path: Path
) -> None:
    """SQL moves the alias to a version that nobody judged: `current` stays, the webhook hears of it once."""
    uris = {"registry_uri": world.registry_uri, "tracking_uri": world.tracking_uri}
    register(world.judged(name), name, alias="champion", **uris)
    registry, out = _registry(world, f"models:/{name}@champion"), tmp_path / "served"
    good = pull(registry, out)
    rogue = world.behind().create_model_version(name, f"models:/{world.log_model()}").version
    engine = create_engine(world.tracking_uri)
    with engine.begin() as connection:
        moved = text("UPDATE registered_model_aliases SET version = :version WHERE name = :name")
        connection.execute(moved, {"name": name, "version": rogue})
    engine.dispose()
    heard: list[dict[str, str]] = []
    told: list[str] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Webhook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        webhook = f"http://127.0.0.1:{server.server_port}/"
        watch(registry, out, every=0.01, webhook=webhook, tell=told.append, rounds=3)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert (out / "current").read_text().strip() == good.digest
    assert len(told) == len(heard) == 1
    assert "the model that is served stays: model m-" in heard[0]["text"]
    assert json.loads((out / "pull.json").read_text())["ok"] is False


@pytest.mark.parametrize("uri", ["models:/m-" + "0" * 32, "runs:/abc/model", "models:/", "some/folder"])
def test_what_bears_no_name_is_not_pulled(uri: str, world: World, tmp_path: Path) -> None:
    """A logged model's id, a run and a path were never admitted to anything."""
    with pytest.raises(SkewguardError, match="what is served bears a name"):
        pull(_registry(world, uri), tmp_path)


def test_a_model_that_was_overwritten_after_its_admission_is_not_pulled(
    world: World, name: str, tmp_path: Path
) -> None:
    """The digest is computed from the copy that is served."""
    uris = {"registry_uri": world.registry_uri, "tracking_uri": world.tracking_uri}
    model_id = world.judged(name)
    register(model_id, name, alias="champion", **uris)
    file = Path(world.client().get_logged_model(model_id).artifact_location) / "requirements.txt"
    file.write_bytes(b"evil")
    with pytest.raises(SkewguardError, match="its files have changed since it was judged"):
        pull(_registry(world, f"models:/{name}@champion"), tmp_path)
    assert not (tmp_path / "current").exists()
