import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import mlflow.genai
import pytest
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag, RegisteredModelTag
from mlflow.exceptions import MlflowException
from sqlalchemy import create_engine, text

from skewguard.errors import EvidenceError
from skewguard.gate import VERDICT_TAG, Refused, read_record
from skewguard.gate.keys import load_trust
from skewguard.gate.mlflow import attach_verdict, build_store, register
from skewguard.gate.record import tag_of
from skewguard.policy import Mode, load_policy
from skewguard.verdict import Ruling
from tests.gate.conftest import World
from tests.gate.verdicts import KEY, about, passing

DENIED = r"^skewguard: "


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A governed name of this test's own."""
    return "gated-" + "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:200]


def _create(world: World, name: str, source: str, **more: Any) -> ModelVersion:
    """What `mlflow.register_model` does, with every argument in the caller's hand."""
    client = world.client()
    client.create_registered_model(name)
    return client.create_model_version(name, source, **more)


def _versions(world: World, name: str) -> list[ModelVersion]:
    return list(world.client().search_model_versions(f"name = '{name}'"))


def _assert_refused(world: World, name: str, model_id: str, says: str) -> None:
    """MLflow's own call is denied with that sentence, and the registry is as it was."""
    with pytest.raises(MlflowException, match=DENIED) as refusal:
        mlflow.register_model(f"models:/{model_id}", name)
    assert refusal.value.error_code == "PERMISSION_DENIED"
    assert says in refusal.value.message
    assert world.client().search_registered_models(f"name = '{name}'") == []


def test_a_model_without_a_verdict_is_refused(world: World, name: str) -> None:
    """`mlflow.register_model` is denied, says what to run, and leaves no registered model behind."""
    model_id = world.log_model()
    command = f"skewguard guard --registered-name {name} --model-digest {world.digest(model_id)} --attach {model_id}"
    _assert_refused(world, name, model_id, f"it has no verdict; run `{command}`")


def test_logging_and_registering_at_once_is_refused_and_the_logged_model_stays(world: World, name: str) -> None:
    """`log_model(registered_model_name=...)` is denied; the model can be judged afterwards."""
    with pytest.raises(MlflowException, match="it has no verdict"):
        world.log_model(registered_name=name)
    assert world.client().search_registered_models(f"name = '{name}'") == []
    assert mlflow.last_logged_model() is not None


@pytest.mark.parametrize("ruling", [Ruling.FAIL, Ruling.UNKNOWN])
def test_a_verdict_that_does_not_pass_is_refused(ruling: Ruling, world: World, name: str) -> None:
    """FAIL and UNKNOWN are both refused, with the first reason."""
    model_id = world.log_model()
    verdict = replace(world.verdict(model_id, name), ruling=ruling, reasons=("wind: served = truth x 1.609",))
    attach_verdict(model_id, verdict, KEY, world.tracking_uri)
    _assert_refused(world, name, model_id, f"its verdict is {ruling} (wind: served = truth x 1.609)")


def test_a_verdict_without_evidence_is_attached_and_refused_by_its_reason(world: World, name: str) -> None:
    """UNKNOWN for want of a log names no model; the refusal still says why. A PASS that names none is not attached."""
    model_id = world.log_model()
    blank = about(world.verdict(model_id, name), model_id="", model_digest="")
    attach_verdict(
        model_id, replace(blank, ruling=Ruling.UNKNOWN, reasons=("the log is empty",)), KEY, world.tracking_uri
    )
    _assert_refused(world, name, model_id, "its verdict is UNKNOWN (the log is empty)")
    with pytest.raises(EvidenceError, match="the verdict is about model none"):
        attach_verdict(model_id, blank, KEY, world.tracking_uri)


def test_the_newest_verdict_counts(world: World, name: str) -> None:
    """A FAIL after a PASS takes the permission back."""
    model_id = world.judged(name)
    attach_verdict(model_id, replace(world.verdict(model_id, name), ruling=Ruling.FAIL), KEY, world.tracking_uri)
    _assert_refused(world, name, model_id, "its verdict is FAIL")


def test_a_verdict_for_another_name_is_refused(world: World, name: str) -> None:
    """A verdict is for one registered name, also when it is put where that of another name belongs."""
    model_id = world.judged("gated-other")
    _assert_refused(world, name, model_id, "it has no verdict")
    tag = world.client().get_logged_model(model_id).tags[tag_of("gated-other")]
    world.client().set_logged_model_tags(model_id, {tag_of(name): tag})
    _assert_refused(world, name, model_id, "its verdict is for the name 'gated-other'")


def test_a_verdict_about_another_model_is_refused(world: World, name: str) -> None:
    """A verdict that was copied from one logged model to another opens nothing."""
    judged, other = world.judged(name), world.log_model()
    tag = world.client().get_logged_model(judged).tags[tag_of(name)]
    world.client().set_logged_model_tags(other, {tag_of(name): tag})
    _assert_refused(world, name, other, f"its verdict is about another model, {judged}")


def test_an_expired_verdict_is_refused(world: World, name: str) -> None:
    """A verdict counts as long as the policy says."""
    model_id, policy = world.log_model(), load_policy(world.policy)
    old = passing(name, model_id, world.digest(model_id), policy.digest, age=timedelta(days=8))
    attach_verdict(model_id, old, KEY, world.tracking_uri)
    _assert_refused(world, name, model_id, "its verdict expired at")


def test_a_verdict_under_another_policy_is_refused(world: World, name: str) -> None:
    """A policy that has changed since wants a new verdict."""
    model_id = world.log_model()
    stale = replace(world.verdict(model_id, name), policy_digest="0" * 64)
    attach_verdict(model_id, stale, KEY, world.tracking_uri)
    _assert_refused(world, name, model_id, "its verdict was given under another policy")


def test_a_model_whose_files_were_changed_is_refused(world: World, name: str) -> None:
    """One byte in one file after the verdict is enough."""
    model_id = world.judged(name)
    file = Path(world.client().get_logged_model(model_id).artifact_location) / "requirements.txt"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    _assert_refused(world, name, model_id, "its files have changed since it was judged")


def test_a_model_whose_files_are_gone_is_refused(world: World, name: str) -> None:
    """What cannot be read is not admitted."""
    model_id = world.judged(name)
    folder = Path(world.client().get_logged_model(model_id).artifact_location)
    folder.rename(folder.with_name("elsewhere"))
    _assert_refused(world, name, model_id, "its files cannot be read by the gate")


def test_a_damaged_verdict_is_refused(world: World, name: str) -> None:
    """A tag that says PASS is no verdict."""
    model_id = world.log_model()
    world.client().set_logged_model_tags(model_id, {tag_of(name): "PASS"})
    _assert_refused(world, name, model_id, "does not count: expected a signed record, got 'PASS'")


def test_a_judged_model_is_registered_and_promoted(world: World, name: str) -> None:
    """With a passing verdict, registration and alias go through MLflow's own calls; the version carries the verdict."""
    model_id = world.judged(name)
    created = mlflow.register_model(f"models:/{model_id}", name, tags={"team": "ops", "skewguard.ruling": "mine"})
    world.client().set_registered_model_alias(name, "champion", created.version)
    found = world.client().get_model_version_by_alias(name, "champion")
    assert (str(found.version), found.source) == ("1", f"models:/{model_id}")
    assert found.run_id == world.client().get_logged_model(model_id).source_run_id
    assert found.tags["team"] == "ops"
    record = read_record(found.tags[VERDICT_TAG], load_trust(world.policy.with_name("trusted.json")))
    assert record.verdict is not None
    assert (record.verdict.ruling, record.model_id) == (Ruling.PASS, model_id)
    assert "skewguard.ruling" not in found.tags


def test_register_does_the_same_in_one_call(world: World, name: str) -> None:
    """`register` returns the version and sets the alias; a second model gets the next version."""
    uris = {"registry_uri": world.registry_uri, "tracking_uri": world.tracking_uri}
    assert register(world.judged(name), name, alias="champion", **uris) == "1"
    assert register(world.judged(name), name, alias="champion", **uris) == "2"
    assert str(world.client().get_model_version_by_alias(name, "champion").version) == "2"


def test_register_refuses_before_it_creates_anything(world: World, name: str) -> None:
    """`register` raises `Refused` with the gate's sentence, also for a registry without a gate."""
    uris = {"registry_uri": world.registry_uri, "tracking_uri": world.tracking_uri}
    with pytest.raises(Refused, match=r"^model m-[0-9a-f]+ may not be registered as .* it has no verdict"):
        register(world.log_model(), name, **uris)
    with pytest.raises(Refused, match="is a registry without a gate; use 'skewguard:sqlite:"):
        register(world.judged(name), name, registry_uri=world.tracking_uri, tracking_uri=world.tracking_uri)
    assert world.client().search_registered_models(f"name = '{name}'") == []


def test_a_verdict_is_attached_to_its_own_model_only(world: World, name: str) -> None:
    """Attaching a verdict to a model that it is not about is a mistake, and says so."""
    verdict = world.verdict(world.log_model(), name)
    with pytest.raises(EvidenceError, match="the verdict is about model m-"):
        attach_verdict(world.log_model(), verdict, KEY, world.tracking_uri)


def test_an_ungoverned_model_is_untouched(world: World) -> None:
    """Everything works on a model that the policy does not name, from any source, with any tag."""
    client = world.client()
    created = _create(world, "free", "/somewhere/else", tags={"skewguard.mine": "1"})
    client.set_registered_model_alias("free", "champion", created.version)
    client.set_model_version_tag("free", created.version, "skewguard.mine", "2")
    client.delete_model_version_tag("free", created.version, "skewguard.mine")
    assert mlflow.register_model(f"models:/{world.log_model()}", "free").version in (2, "2")
    client.rename_registered_model("free", "freed")
    client.delete_registered_model("freed")


@pytest.mark.usefixtures("world")
def test_a_prompt_is_untouched_even_under_a_governed_name(name: str) -> None:
    """Prompts share MLflow's tables; the gate lets them pass."""
    prompt = mlflow.genai.register_prompt(name, "Is {{flight}} late?")
    mlflow.genai.set_prompt_alias(name, "production", prompt.version)
    assert mlflow.genai.load_prompt(f"prompts:/{name}@production").template == "Is {{flight}} late?"


def test_a_prompts_tag_does_not_smuggle_a_model(world: World, name: str) -> None:
    """Neither a version that calls itself a prompt nor one below a real prompt gets past with files of its own."""
    prompt = ("mlflow.prompt.is_prompt", "true")
    store, source = build_store(world.registry_uri, world.tracking_uri), f"models:/{world.log_model()}"
    store.create_registered_model(name)
    with pytest.raises(MlflowException, match="it has no verdict"):
        store.create_model_version(name, source, tags=[ModelVersionTag(*prompt)])
    store.create_registered_model(name)
    with pytest.raises(MlflowException, match="only a logged model can have a verdict"):
        store.create_model_version(name, "dummy-source", tags=[ModelVersionTag(*prompt)])
    store.create_registered_model(name, tags=[RegisteredModelTag(*prompt)])
    with pytest.raises(MlflowException, match="it has no verdict"):
        store.create_model_version(name, source, tags=[ModelVersionTag(*prompt)])
    version = store.create_model_version(name, "dummy-source", tags=[ModelVersionTag(*prompt)]).version
    with pytest.raises(MlflowException, match="is not set or deleted by hand"):
        store.delete_registered_model_tag(name, prompt[0])
    with pytest.raises(MlflowException, match="is not set or deleted by hand"):
        store.delete_model_version_tag(name, version, prompt[0])


@pytest.mark.parametrize(
    "source", ["/tmp/evil", "file:///tmp/evil", "s3://evil/model", "runs:/0123/model", "models:/m-1"]
)
def test_only_a_logged_model_can_be_registered(source: str, world: World, name: str) -> None:
    """A path has no verdict, whatever model the caller says it is."""
    with pytest.raises(MlflowException, match="only a logged model can have a verdict"):
        _create(world, name, source, model_id=world.judged(name))


def test_the_model_is_the_one_in_the_source_and_not_the_callers(world: World, name: str) -> None:
    """Naming a judged model and its run beside the source of another does not help."""
    judged, other = world.judged(name), world.log_model()
    run = world.client().get_logged_model(judged).source_run_id
    with pytest.raises(MlflowException, match=f"model {other} may not be registered"):
        _create(world, name, f"models:/{other}", model_id=judged, run_id=run)


def test_a_run_is_registered_by_the_model_that_it_logged(world: World, name: str) -> None:
    """`runs:/` in `mlflow.register_model` leads to the logged model and its verdict."""
    model_id = world.judged(name)
    run = world.client().get_logged_model(model_id).source_run_id
    assert _versions(world, name) == []
    mlflow.register_model(f"runs:/{run}/model", name)
    assert [version.source for version in _versions(world, name)] == [f"models:/{model_id}"]


def test_an_alias_on_a_version_from_behind_the_gate_is_refused(world: World, name: str) -> None:
    """Whoever writes a version past the gate cannot promote it through the gate, nor give it a stage."""
    world.behind().create_registered_model(name)
    version = world.behind().create_model_version(name, f"models:/{world.log_model()}").version
    with pytest.raises(MlflowException, match="it has no verdict"):
        world.client().set_registered_model_alias(name, "champion", version)
    with pytest.warns(FutureWarning, match="stages"), pytest.raises(MlflowException, match="it has no verdict"):
        world.client().transition_model_version_stage(name, version, "Production")
    with pytest.warns(FutureWarning, match="stages"):
        world.client().transition_model_version_stage(name, version, "Archived")


def test_an_alias_on_a_version_with_files_of_its_own_is_refused(world: World, name: str) -> None:
    """A version that names a judged model but would load from elsewhere is found out."""
    version = register(world.judged(name), name, registry_uri=world.registry_uri, tracking_uri=world.tracking_uri)
    engine = create_engine(world.tracking_uri)
    with engine.begin() as connection:
        moved = text("UPDATE model_versions SET storage_location = '/tmp/evil' WHERE name = :name")
        connection.execute(moved, {"name": name})
    engine.dispose()
    with pytest.raises(MlflowException, match="its files lie at '/tmp/evil'"):
        world.client().set_registered_model_alias(name, "champion", version)


def test_an_alias_needs_a_verdict_that_still_counts(world: World, name: str) -> None:
    """A model that failed since it was registered is not promoted."""
    model_id = world.judged(name)
    version = mlflow.register_model(f"models:/{model_id}", name).version
    attach_verdict(model_id, replace(world.verdict(model_id, name), ruling=Ruling.FAIL), KEY, world.tracking_uri)
    with pytest.raises(MlflowException, match="its verdict is FAIL"):
        world.client().set_registered_model_alias(name, "champion", version)


def test_a_copy_needs_a_verdict_for_its_new_name(world: World, name: str) -> None:
    """`copy_model_version` is a registration: a version of an ungoverned name needs a verdict for the governed one."""
    unjudged = mlflow.register_model(f"models:/{world.log_model()}", "free-to-copy")
    with pytest.raises(MlflowException, match="it has no verdict"):
        world.client().copy_model_version(f"models:/free-to-copy/{unjudged.version}", name)
    judged = mlflow.register_model(f"models:/{world.judged(name)}", "free-to-copy")
    copied = world.client().copy_model_version(f"models:/free-to-copy/{judged.version}", name)
    assert copied.name == name
    world.client().set_registered_model_alias(name, "champion", copied.version)


def test_renaming_makes_no_model_a_governed_one(world: World, name: str) -> None:
    """A registered model keeps out of the governed names; away from one it may go."""
    client = world.client()
    client.create_registered_model("free-to-rename")
    with pytest.raises(MlflowException, match="a verdict is for one name"):
        client.rename_registered_model("free-to-rename", name)
    client.create_registered_model(name)
    client.rename_registered_model(name, "free-by-renaming")


def test_the_gates_own_tags_are_nobodys_to_set(world: World, name: str) -> None:
    """`skewguard.` tags of a governed version stay as the gate wrote them; others are free."""
    client = world.client()
    version = mlflow.register_model(f"models:/{world.judged(name)}", name).version
    denied: list[Callable[[], object]] = [
        lambda: client.set_model_version_tag(name, version, VERDICT_TAG, "PASS"),
        lambda: client.delete_model_version_tag(name, version, VERDICT_TAG),
        lambda: client.set_registered_model_tag(name, "skewguard.approved", "yes"),
        lambda: client.set_registered_model_tag(name, "mlflow.prompt.is_prompt", "true"),
    ]
    for call in denied:
        with pytest.raises(MlflowException, match="is not set or deleted by hand"):
            call()
    client.set_model_version_tag(name, version, "team", "ops")


def test_a_registered_model_that_somebody_prepared_stays_after_a_refusal(world: World, name: str) -> None:
    """Only the empty model that the refused call itself made is taken away."""
    world.client().create_registered_model(name, description="ours")
    with pytest.raises(MlflowException, match="it has no verdict"):
        mlflow.register_model(f"models:/{world.log_model()}", name)
    assert world.client().get_registered_model(name).description == "ours"


def test_a_store_without_a_readable_policy_is_not_built(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No policy, a missing one and a wrong one fail closed, and say which setting is meant."""
    monkeypatch.delenv("SKEWGUARD_POLICY")
    with pytest.raises(MlflowException, match="needs a policy: set SKEWGUARD_POLICY"):
        build_store(world.registry_uri)
    monkeypatch.setenv("SKEWGUARD_POLICY", str(tmp_path / "none.toml"))
    with pytest.raises(MlflowException, match=r"policy .*none\.toml"):
        build_store(world.registry_uri)
    (tmp_path / "none.toml").write_text("[policy]\ngoverns = []\n")
    with pytest.raises(MlflowException, match=r"policy\.governs: expected"):
        build_store(world.registry_uri)


def test_a_policy_that_breaks_later_closes_the_gate(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A running store reads the policy at each decision: a new one counts at once, a broken one admits nobody."""
    policy = tmp_path / "policy.toml"
    policy.write_text('[policy]\ngoverns = ["gated-*"]\n')
    monkeypatch.setenv("SKEWGUARD_POLICY", str(policy))
    store = build_store(world.registry_uri, tracking_uri=world.tracking_uri)
    assert store.gate.mode("anything") is None
    policy.write_text('[policy]\ngoverns = ["*"]\n')
    assert store.gate.mode("anything") is Mode.REGISTRATION
    policy.write_text("[policy")
    with pytest.raises(MlflowException, match=DENIED):
        store.create_model_version("anything", f"models:/{world.log_model()}")


def test_the_gate_stands_in_front_of_what_it_was_tested_with(world: World, tmp_path: Path) -> None:
    """Another kind of registry is refused when the store is built, not gated by guesswork."""
    for other in ("databricks-uc", "quantum://x", str(tmp_path / "mlruns"), world.registry_uri):
        with pytest.raises(MlflowException):
            build_store(f"skewguard:{other}", world.tracking_uri)


def test_verdict_and_registration_must_mean_the_same_files(world: World, name: str, tmp_path: Path) -> None:
    """The stock store takes the files' place from the process's tracking store: another than the gate's is refused."""
    model_id = world.judged(name)
    other = f"sqlite:///{shutil.copy(world.tracking_uri.removeprefix('sqlite:///'), tmp_path / 'other.db')}"
    engine = create_engine(other)
    with engine.begin() as connection:
        connection.execute(text("UPDATE logged_models SET artifact_location = '/tmp/evil'"))
    engine.dispose()
    client = world.client()
    mlflow.set_tracking_uri(other)
    client.create_registered_model(name)
    with pytest.raises(MlflowException, match="lies at '/tmp/evil' for this process"):
        client.create_model_version(name, f"models:/{model_id}")
    assert client.search_registered_models(f"name = '{name}'") == []


def test_under_basic_auth_an_empty_registered_model_is_left(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's basic-auth has written a permission beside the model, which a silent deletion would orphan."""
    monkeypatch.setitem(sys.modules, "mlflow.server.auth", ModuleType("auth"))
    with pytest.raises(MlflowException, match="it has no verdict"):
        mlflow.register_model(f"models:/{world.log_model()}", name)
    assert world.client().get_registered_model(name).latest_versions == []
    world.client().delete_registered_model(name)
    loaded_alone = ModuleType("auth")
    loaded_alone.is_auth_enabled = lambda: False  # type: ignore[attr-defined]  # as a question to GraphQL leaves it
    monkeypatch.setitem(sys.modules, "mlflow.server.auth", loaded_alone)
    with pytest.raises(MlflowException, match="it has no verdict"):
        mlflow.register_model(f"models:/{world.log_model()}", name)
    assert world.client().search_registered_models(f"name = '{name}'") == []
