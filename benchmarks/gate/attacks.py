"""Ways to get a model past the gate that it should not let through, each a function that tries.

Those that are `refused at load` hold the database's password: they may write past the gate, and must not get the model
loaded or served. `documented` ones succeed, and docs/gate.md says so.
"""

from __future__ import annotations

import json
import os
import tempfile
import urllib.error
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import mlflow
import mlflow.sklearn
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode
from mlflow.tracking._model_registry import utils as registry
from sqlalchemy import create_engine, text

from benchmarks.gate.world import KEY, World, passing
from skewguard.errors import SkewguardError
from skewguard.gate.keys import SigningKey
from skewguard.gate.mlflow import attach_verdict, revoke_verdict
from skewguard.gate.mlflow.pull import Registry, pull
from skewguard.gate.record import revocation_tag_of, tag_of
from skewguard.verdict import Ruling, Verdict


@dataclass(frozen=True, slots=True)
class Attack:
    """`run(world, name)` tries on a governed name that nobody else uses. `worlds`: where it can be tried."""

    name: str
    run: Callable[[World, str], object]
    outcome: str
    worlds: tuple[str, ...]


_ATTACKS: list[Attack] = []
_DENIED = ("PERMISSION_DENIED", "INVALID_PARAMETER_VALUE", "BAD_REQUEST", "ENDPOINT_NOT_FOUND")


_EVERYWHERE = ("embedded", "server", "basic-auth")


def attack(outcome: str = "refused", worlds: tuple[str, ...] = _EVERYWHERE) -> Callable[..., object]:
    """Put the function on the list. `outcome`: refused, refused at load, or documented."""

    def listed(run: Callable[[World, str], object]) -> Callable[[World, str], object]:
        _ATTACKS.append(Attack(run.__name__, run, outcome, worlds))
        return run

    return listed


def attacks(kind: str) -> list[Attack]:
    """Those that can be tried on that kind of world."""
    return [one for one in _ATTACKS if kind in one.worlds]


def got_through(one: Attack, world: World, name: str) -> bool:
    """Whether the attack got what it wanted; a denial by the gate or by MLflow stopped it."""
    try:
        one.run(world, name)
    except MlflowException as error:
        denied = error.error_code in (
            "PERMISSION_DENIED",
            "INVALID_PARAMETER_VALUE",
            "BAD_REQUEST",
            "ENDPOINT_NOT_FOUND",
        )
        if denied or "skewguard:" in str(error):
            return False
        raise
    except SkewguardError:
        return False
    return True


def _register(name: str, model_id: str) -> str:
    return str(mlflow.register_model(f"models:/{model_id}", name).version)


def _ruled(world: World, name: str, verdict: Callable[[Verdict], Verdict], key: SigningKey = KEY) -> str:
    model_id = world.log_model()
    attach_verdict(model_id, verdict(world.verdict(model_id, name)), key, world.tracking_uri)
    return model_id


# -- without a verdict that counts


@attack()
def register_without_a_verdict(world: World, name: str) -> object:
    return _register(name, world.log_model())


@attack()
def register_while_logging(world: World, name: str) -> object:
    return world.log_model(registered_name=name)


@attack()
def register_after_a_fail(world: World, name: str) -> object:
    return _register(name, _ruled(world, name, lambda v: replace(v, ruling=Ruling.FAIL)))


@attack()
def register_on_unknown(world: World, name: str) -> object:
    return _register(name, _ruled(world, name, lambda v: replace(v, ruling=Ruling.UNKNOWN)))


@attack()
def register_after_expiry(world: World, name: str) -> object:
    old = timedelta(days=8)
    return _register(name, _ruled(world, name, lambda v: _aged(v, old)))


@attack()
def register_with_a_longer_expiry_than_the_policys(world: World, name: str) -> object:
    old = timedelta(days=8)
    stretched = "2999-01-01T00:00:00+00:00"
    return _register(name, _ruled(world, name, lambda v: replace(_aged(v, old), expires_at=stretched)))


@attack()
def register_with_a_verdict_from_the_future(world: World, name: str) -> object:
    return _register(name, _ruled(world, name, lambda v: _aged(v, timedelta(hours=-2))))


@attack()
def register_under_another_policy(world: World, name: str) -> object:
    return _register(name, _ruled(world, name, lambda v: replace(v, policy_digest="0" * 64)))


@attack()
def register_under_another_name(world: World, name: str) -> object:
    return _register(name, world.judged(f"{name}-other"))


@attack()
def replay_the_record_for_another_name(world: World, name: str) -> object:
    model_id = world.judged(f"{name}-other")
    _tag(world, model_id, name, _text(world, model_id, f"{name}-other"))
    return _register(name, model_id)


@attack()
def replay_the_record_of_another_model(world: World, name: str) -> object:
    judged, other = world.judged(name), world.log_model()
    _tag(world, other, name, _text(world, judged, name))
    return _register(name, other)


@attack()
def replay_an_old_pass_after_a_fail(world: World, name: str) -> object:
    model_id = world.judged(name)
    passed = _text(world, model_id, name)
    attach_verdict(model_id, replace(world.verdict(model_id, name), ruling=Ruling.FAIL), KEY, world.tracking_uri)
    _stopped(lambda: _register(name, model_id))  # the gate has seen the FAIL
    _tag(world, model_id, name, passed)
    return _register(name, model_id)


@attack()
def register_after_a_revocation(world: World, name: str) -> object:
    model_id = world.judged(name)
    revoke_verdict(model_id, name, "wrong labels", KEY, world.tracking_uri)
    return _register(name, model_id)


@attack()
def take_the_revocation_away(world: World, name: str) -> object:
    model_id = world.judged(name)
    revoke_verdict(model_id, name, "wrong labels", KEY, world.tracking_uri)
    _stopped(lambda: _register(name, model_id))
    world.client().delete_logged_model_tag(model_id, revocation_tag_of(name))
    return _register(name, model_id)


# -- without a right signature


@attack()
def write_pass_into_the_tag(world: World, name: str) -> object:
    model_id = world.log_model()
    _tag(world, model_id, name, "PASS")
    return _register(name, model_id)


@attack()
def sign_with_a_key_of_ones_own(world: World, name: str) -> object:
    return _register(name, _ruled(world, name, lambda v: v, SigningKey.new()))


@attack()
def sign_with_a_key_of_ones_own_under_the_trusted_id(world: World, name: str) -> object:
    forger = SigningKey.new()
    model_id = _ruled(world, name, lambda v: v, forger)
    _tag(world, model_id, name, _text(world, model_id, name).replace(forger.id, KEY.id))
    return _register(name, model_id)


@attack()
def turn_fail_into_pass(world: World, name: str) -> object:
    model_id = _ruled(world, name, lambda v: replace(v, ruling=Ruling.FAIL))
    envelope = json.loads(_text(world, model_id, name))
    payload = b64decode(envelope["payload"]).replace(b'"FAIL"', b'"PASS"')
    _tag(world, model_id, name, json.dumps(envelope | {"payload": b64encode(payload).decode()}))
    return _register(name, model_id)


@attack()
def flip_a_bit_of_the_signature(world: World, name: str) -> object:
    model_id = world.judged(name)
    envelope = json.loads(_text(world, model_id, name))
    signature = bytearray(b64decode(envelope["signatures"][0]["sig"]))
    signature[0] ^= 1
    envelope["signatures"][0]["sig"] = b64encode(signature).decode()
    _tag(world, model_id, name, json.dumps(envelope))
    return _register(name, model_id)


@attack()
def leave_the_signature_out(world: World, name: str) -> object:
    model_id = world.judged(name)
    envelope = json.loads(_text(world, model_id, name)) | {"signatures": []}
    _tag(world, model_id, name, json.dumps(envelope))
    return _register(name, model_id)


# -- with other files or another source


@attack(worlds=("embedded",))
def change_a_file_before_registration(world: World, name: str) -> object:
    model_id = world.judged(name)
    _overwrite(world, model_id)
    return _register(name, model_id)


@attack(worlds=("server", "basic-auth"))
def change_a_file_through_the_artifact_route(world: World, name: str) -> object:
    model_id = world.judged(name)
    _put(world, model_id)
    return _register(name, model_id)


@attack(worlds=("embedded",))
def change_a_file_before_promotion(world: World, name: str) -> None:
    model_id = world.judged(name)
    version = _register(name, model_id)
    _overwrite(world, model_id)
    world.client().set_registered_model_alias(name, "champion", version)


@attack("refused at load", worlds=("embedded",))
def change_a_file_before_load(world: World, name: str) -> object:
    model_id = world.judged(name)
    version = _register(name, model_id)
    _overwrite(world, model_id)
    return mlflow.sklearn.load_model(f"models:/{name}/{version}")


@attack("refused at load", worlds=("server", "basic-auth"))
def change_a_file_on_the_server_before_load(world: World, name: str) -> object:
    model_id = world.judged(name)
    version = _register(name, model_id)
    _put(world, model_id)
    return mlflow.sklearn.load_model(f"models:/{name}/{version}")


@attack()
def register_a_folder(world: World, name: str) -> object:
    return _version(world, name, "/tmp/evil")  # noqa: S108  (never opened)


@attack()
def register_a_folder_as_a_judged_model(world: World, name: str) -> object:
    return _version(world, name, "file:///tmp/evil", model_id=world.judged(name))


@attack()
def register_a_bucket(world: World, name: str) -> object:
    return _version(world, name, "s3://evil/model")


@attack()
def register_a_run_that_logged_another_model(world: World, name: str) -> object:
    run = world.client().get_logged_model(world.log_model()).source_run_id
    return mlflow.register_model(f"runs:/{run}/model", name)


@attack()
def name_a_judged_model_beside_anothers_source(world: World, name: str) -> object:
    judged, other = world.judged(name), world.log_model()
    run = world.client().get_logged_model(judged).source_run_id
    return _version(world, name, f"models:/{other}", model_id=judged, run_id=run)


@attack()
def copy_an_ungoverned_version(world: World, name: str) -> object:
    free = _register(f"free-{name}", world.log_model())
    return world.client().copy_model_version(f"models:/free-{name}/{free}", name)


@attack()
def rename_an_ungoverned_model(world: World, name: str) -> object:
    _register(f"free-{name}", world.log_model())
    return world.client().rename_registered_model(f"free-{name}", name)


@attack()
def call_a_version_a_prompt(world: World, name: str) -> object:
    tag = {"mlflow.prompt.is_prompt": "true"}
    return _version(world, name, f"models:/{world.log_model()}", tags=tag)


@attack()
def hang_a_version_below_a_prompt(world: World, name: str) -> object:
    store = registry._get_store(world.registry_uri, world.tracking_uri)  # noqa: SLF001  (the client hides the tag)
    store.create_registered_model(name, tags=[RegisteredModelTag("mlflow.prompt.is_prompt", "true")])
    tags = [ModelVersionTag("mlflow.prompt.is_prompt", "true")]
    return store.create_model_version(name, f"models:/{world.log_model()}", tags=tags)


@attack()
def make_a_prompt_of_a_governed_model(world: World, name: str) -> None:
    _register(name, world.judged(name))
    world.client().set_registered_model_tag(name, "mlflow.prompt.is_prompt", "true")


@attack()
def write_the_gates_own_tags(world: World, name: str) -> None:
    version = _register(name, world.judged(name))
    world.client().set_model_version_tag(name, version, "skewguard.verdict", "PASS")


@attack()
def delete_the_gates_own_tags(world: World, name: str) -> None:
    version = _register(name, world.judged(name))
    world.client().delete_model_version_tag(name, version, "skewguard.verdict")


# -- over other routes of a server


@attack(worlds=("server", "basic-auth"))
def post_to_the_rest_route(world: World, name: str) -> object:
    return _post(world, name, "/api/2.0/mlflow/model-versions/create")


@attack(worlds=("server", "basic-auth"))
def post_to_the_uis_route(world: World, name: str) -> object:
    return _post(world, name, "/ajax-api/2.0/mlflow/model-versions/create")


@attack(worlds=("server", "basic-auth"))
def post_to_an_encoded_route(world: World, name: str) -> object:
    return _post(world, name, "/api/2.0/mlflow/model-versions/%63reate")


@attack(worlds=("server", "basic-auth"))
def post_to_a_route_with_two_slashes(world: World, name: str) -> object:
    return _post(world, name, "/api/2.0/mlflow//model-versions/create")


@attack(worlds=("server", "basic-auth"))
def post_as_plain_text(world: World, name: str) -> object:
    return _post(world, name, "/api/2.0/mlflow/model-versions/create", content_type="text/plain")


@attack(worlds=("server", "basic-auth"))
def post_an_alias_for_a_rogue_version(world: World, name: str) -> object:
    version = _rogue(world, name)
    body = {"name": name, "alias": "champion", "version": version}
    return _send(world, "/ajax-api/2.0/mlflow/registered-models/alias", body)


# -- past the gate, with the database's password


@attack()
def promote_a_version_that_was_written_by_sql(world: World, name: str) -> None:
    world.client().set_registered_model_alias(name, "champion", _rogue(world, name))


@attack("refused at load")
def load_a_version_that_was_written_by_sql(world: World, name: str) -> object:
    return mlflow.sklearn.load_model(f"models:/{name}/{_rogue(world, name)}")


@attack("refused at load")
def load_by_an_alias_that_was_moved_by_sql(world: World, name: str) -> object:
    version = _register(name, world.judged(name))
    world.client().set_registered_model_alias(name, "champion", version)
    rogue = world.behind().create_model_version(name, f"models:/{world.log_model()}").version
    _sql(world, "UPDATE registered_model_aliases SET version = :value WHERE name = :name", name, rogue)
    return mlflow.sklearn.load_model(f"models:/{name}@champion")


@attack("refused at load")
def pull_by_an_alias_that_was_moved_by_sql(world: World, name: str) -> object:
    _rogue(world, name)
    world.behind().set_registered_model_alias(name, "champion", "1")
    trusted = str(world.policy.with_name("trusted.json"))
    with tempfile.TemporaryDirectory() as out:
        return pull(Registry(f"models:/{name}@champion", trusted, world.database, world.tracking_uri), out)


@attack("refused at load")
def load_from_a_place_that_was_moved_by_sql(world: World, name: str) -> object:
    version = _register(name, world.judged(name))
    _sql(world, "UPDATE model_versions SET storage_location = :value WHERE name = :name", name, "/tmp/evil")  # noqa: S108
    return mlflow.sklearn.load_model(f"models:/{name}/{version}")


@attack("refused at load")
def lend_a_rogue_version_anothers_record_by_sql(world: World, name: str) -> object:
    version = _register(name, world.judged(name))
    rogue = _rogue(world, name)
    _sql(
        world,
        "UPDATE model_version_tags SET version = :value WHERE name = :name AND version = " + version,
        name,
        rogue,
    )
    return mlflow.sklearn.load_model(f"models:/{name}/{rogue}")


# -- what the gate cannot do


@attack("documented")
def register_with_the_databases_password(world: World, name: str) -> object:
    return _rogue(world, name)


@attack("documented")
def load_a_logged_model_by_its_id(world: World, name: str) -> object:
    return mlflow.sklearn.load_model(f"models:/{world.log_model()}") if name else None


@attack("documented")
def take_a_fail_away_before_the_gate_saw_it(world: World, name: str) -> object:
    model_id = world.judged(name)
    passed = _text(world, model_id, name)
    attach_verdict(model_id, replace(world.verdict(model_id, name), ruling=Ruling.FAIL), KEY, world.tracking_uri)
    _tag(world, model_id, name, passed)
    return _register(name, model_id)


@attack("documented")
def delete_a_governed_model(world: World, name: str) -> None:
    _register(name, world.judged(name))
    world.client().delete_registered_model(name)


def _aged(verdict: Verdict, age: timedelta) -> Verdict:
    about = verdict.subject
    return passing(about.registered_name, about.model_id, about.model_digest, verdict.policy_digest, age=age)


def _stopped(run: Callable[[], object]) -> None:
    try:
        run()
    except MlflowException:
        return
    raise AssertionError("the first try already got through")


def _text(world: World, model_id: str, name: str) -> str:
    return str(world.client().get_logged_model(model_id).tags[tag_of(name)])


def _tag(world: World, model_id: str, name: str, value: str) -> None:
    world.client().set_logged_model_tags(model_id, {tag_of(name): value})


def _version(world: World, name: str, source: str, **more: Any) -> object:
    """What `mlflow.register_model` does, with every argument in the caller's hand."""
    world.client().create_registered_model(name)
    return world.client().create_model_version(name, source, **more)


def _rogue(world: World, name: str) -> str:
    try:
        world.behind().create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return str(world.behind().create_model_version(name, f"models:/{world.log_model()}").version)


def _overwrite(world: World, model_id: str) -> None:
    file = Path(world.client().get_logged_model(model_id).artifact_location) / "requirements.txt"
    file.write_bytes(file.read_bytes()[:-1] + b"x")


def _put(world: World, model_id: str) -> None:
    path = world.client().get_logged_model(model_id).artifact_location.removeprefix("mlflow-artifacts:/")
    url = f"{world.tracking_uri}/api/2.0/mlflow-artifacts/artifacts/{path}/requirements.txt"
    request = urllib.request.Request(url, b"evil", _credentials(), method="PUT")  # noqa: S310  (loopback)
    with urllib.request.urlopen(request):  # noqa: S310
        pass


def _post(world: World, name: str, route: str, content_type: str = "application/json") -> object:
    _send(world, "/api/2.0/mlflow/registered-models/create", {"name": name})
    model_id = world.log_model()
    return _send(world, route, {"name": name, "source": f"models:/{model_id}", "model_id": model_id}, content_type)


def _send(world: World, route: str, body: dict[str, str], content_type: str = "application/json") -> object:
    headers = {"Content-Type": content_type} | _credentials()
    url = world.tracking_uri + route
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)  # noqa: S310  (loopback)
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 308:  # Werkzeug merges slashes
                return _send(world, error.headers["Location"].removeprefix(world.tracking_uri), body, content_type)
            message = error.read().decode(errors="replace")
        code = "PERMISSION_DENIED" if error.code in (403, 404, 405, 400) else "INTERNAL_ERROR"
        raise MlflowException(f"{error.code} {message}", error_code=_code(code)) from error


def _credentials() -> dict[str, str]:
    """Those of MLflow's client, where the server asks for any."""
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if not user:
        return {}
    pair = f"{user}:{os.environ['MLFLOW_TRACKING_PASSWORD']}"
    return {"Authorization": "Basic " + b64encode(pair.encode()).decode()}


def _code(name: str) -> int:
    return int(ErrorCode.Value(name))


def _sql(world: World, statement: str, name: str, value: object) -> None:
    engine = create_engine(world.database)
    with engine.begin() as connection:
        connection.execute(text(statement), {"name": name, "value": value})
    engine.dispose()
