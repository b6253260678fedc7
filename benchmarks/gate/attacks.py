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
from collections.abc import Callable, Mapping
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
    import benchmarks.gate.further  # noqa: F401  (puts its own on the list)

    return [one for one in _ATTACKS if kind in one.worlds]


def got_through(one: Attack, world: World, name: str) -> bool:
    """Whether the attack got what it wanted; a denial by the gate or by MLflow stopped it."""
    try:
        one.run(world, name)
    except MlflowException as error:
        nothing = one.outcome == "refused at load" and error.error_code == "RESOURCE_DOES_NOT_EXIST"
        if nothing or error.error_code in _DENIED or "skewguard:" in str(error):
            return False
        raise
    except SkewguardError:
        return False
    return True


def register_version(name: str, model_id: str) -> str:
    """What everybody calls."""
    return str(mlflow.register_model(f"models:/{model_id}", name).version)


def ruled(world: World, name: str, verdict: Callable[[Verdict], Verdict], key: SigningKey = KEY) -> str:
    """A logged model with a verdict that was changed before it was signed."""
    model_id = world.log_model()
    attach_verdict(model_id, verdict(world.verdict(model_id, name)), key, world.tracking_uri)
    return model_id


# -- without a verdict that counts


@attack()
def register_without_a_verdict(world: World, name: str) -> object:
    return register_version(name, world.log_model())


@attack()
def register_while_logging(world: World, name: str) -> object:
    return world.log_model(registered_name=name)


@attack()
def register_after_a_fail(world: World, name: str) -> object:
    return register_version(name, ruled(world, name, lambda v: replace(v, ruling=Ruling.FAIL)))


@attack()
def register_on_unknown(world: World, name: str) -> object:
    return register_version(name, ruled(world, name, lambda v: replace(v, ruling=Ruling.UNKNOWN)))


@attack()
def register_after_expiry(world: World, name: str) -> object:
    old = timedelta(days=8)
    return register_version(name, ruled(world, name, lambda v: aged(v, old)))


@attack()
def register_with_a_longer_expiry_than_the_policys(world: World, name: str) -> object:
    old = timedelta(days=8)
    stretched = "2999-01-01T00:00:00+00:00"
    return register_version(name, ruled(world, name, lambda v: replace(aged(v, old), expires_at=stretched)))


@attack()
def register_with_a_verdict_from_the_future(world: World, name: str) -> object:
    return register_version(name, ruled(world, name, lambda v: aged(v, timedelta(hours=-2))))


@attack()
def register_under_another_policy(world: World, name: str) -> object:
    return register_version(name, ruled(world, name, lambda v: replace(v, policy_digest="0" * 64)))


@attack()
def register_under_another_name(world: World, name: str) -> object:
    return register_version(name, world.judged(f"{name}-other"))


@attack()
def replay_the_record_for_another_name(world: World, name: str) -> object:
    model_id = world.judged(f"{name}-other")
    put_tag(world, model_id, name, record_text(world, model_id, f"{name}-other"))
    return register_version(name, model_id)


@attack()
def replay_the_record_of_another_model(world: World, name: str) -> object:
    judged, other = world.judged(name), world.log_model()
    put_tag(world, other, name, record_text(world, judged, name))
    return register_version(name, other)


@attack()
def replay_an_old_pass_after_a_fail(world: World, name: str) -> object:
    model_id = world.judged(name)
    passed = record_text(world, model_id, name)
    attach_verdict(model_id, replace(world.verdict(model_id, name), ruling=Ruling.FAIL), KEY, world.tracking_uri)
    stopped(lambda: register_version(name, model_id))  # the gate has seen the FAIL
    put_tag(world, model_id, name, passed)
    return register_version(name, model_id)


@attack()
def register_after_a_revocation(world: World, name: str) -> object:
    model_id = world.judged(name)
    revoke_verdict(model_id, name, "wrong labels", KEY, world.tracking_uri)
    return register_version(name, model_id)


@attack()
def take_the_revocation_away(world: World, name: str) -> object:
    model_id = world.judged(name)
    revoke_verdict(model_id, name, "wrong labels", KEY, world.tracking_uri)
    stopped(lambda: register_version(name, model_id))
    world.client().delete_logged_model_tag(model_id, revocation_tag_of(name))
    return register_version(name, model_id)


# -- without a right signature


@attack()
def write_pass_into_the_tag(world: World, name: str) -> object:
    model_id = world.log_model()
    put_tag(world, model_id, name, "PASS")
    return register_version(name, model_id)


@attack()
def sign_with_a_key_of_ones_own(world: World, name: str) -> object:
    return register_version(name, ruled(world, name, lambda v: v, SigningKey.new()))


@attack()
def sign_with_a_key_of_ones_own_under_the_trusted_id(world: World, name: str) -> object:
    forger = SigningKey.new()
    model_id = ruled(world, name, lambda v: v, forger)
    put_tag(world, model_id, name, record_text(world, model_id, name).replace(forger.id, KEY.id))
    return register_version(name, model_id)


@attack()
def turn_fail_into_pass(world: World, name: str) -> object:
    model_id = ruled(world, name, lambda v: replace(v, ruling=Ruling.FAIL))
    envelope = json.loads(record_text(world, model_id, name))
    payload = b64decode(envelope["payload"]).replace(b'"FAIL"', b'"PASS"')
    put_tag(world, model_id, name, json.dumps(envelope | {"payload": b64encode(payload).decode()}))
    return register_version(name, model_id)


@attack()
def flip_a_bit_of_the_signature(world: World, name: str) -> object:
    model_id = world.judged(name)
    envelope = json.loads(record_text(world, model_id, name))
    signature = bytearray(b64decode(envelope["signatures"][0]["sig"]))
    signature[0] ^= 1
    envelope["signatures"][0]["sig"] = b64encode(signature).decode()
    put_tag(world, model_id, name, json.dumps(envelope))
    return register_version(name, model_id)


@attack()
def leave_the_signature_out(world: World, name: str) -> object:
    model_id = world.judged(name)
    envelope = json.loads(record_text(world, model_id, name)) | {"signatures": []}
    put_tag(world, model_id, name, json.dumps(envelope))
    return register_version(name, model_id)


# -- with other files or another source


@attack(worlds=("embedded",))
def change_a_file_before_registration(world: World, name: str) -> object:
    model_id = world.judged(name)
    overwrite(world, model_id)
    return register_version(name, model_id)


@attack(worlds=("server", "basic-auth"))
def change_a_file_through_the_artifact_route(world: World, name: str) -> object:
    model_id = world.judged(name)
    put_file(world, model_id)
    return register_version(name, model_id)


@attack(worlds=("embedded",))
def change_a_file_before_promotion(world: World, name: str) -> None:
    model_id = world.judged(name)
    version = register_version(name, model_id)
    overwrite(world, model_id)
    world.client().set_registered_model_alias(name, "champion", version)


@attack("refused at load", worlds=("embedded",))
def change_a_file_before_load(world: World, name: str) -> object:
    model_id = world.judged(name)
    version = register_version(name, model_id)
    overwrite(world, model_id)
    return mlflow.sklearn.load_model(f"models:/{name}/{version}")


@attack("refused at load", worlds=("server", "basic-auth"))
def change_a_file_on_the_server_before_load(world: World, name: str) -> object:
    model_id = world.judged(name)
    version = register_version(name, model_id)
    put_file(world, model_id)
    return mlflow.sklearn.load_model(f"models:/{name}/{version}")


@attack()
def register_a_folder(world: World, name: str) -> object:
    return create_version(world, name, "/tmp/evil")  # noqa: S108  (never opened)


@attack()
def register_a_folder_as_a_judged_model(world: World, name: str) -> object:
    return create_version(world, name, "file:///tmp/evil", model_id=world.judged(name))


@attack()
def register_a_bucket(world: World, name: str) -> object:
    return create_version(world, name, "s3://evil/model")


@attack()
def register_a_run_that_logged_another_model(world: World, name: str) -> object:
    run = world.client().get_logged_model(world.log_model()).source_run_id
    return mlflow.register_model(f"runs:/{run}/model", name)


@attack()
def name_a_judged_model_beside_anothers_source(world: World, name: str) -> object:
    judged, other = world.judged(name), world.log_model()
    run = world.client().get_logged_model(judged).source_run_id
    return create_version(world, name, f"models:/{other}", model_id=judged, run_id=run)


@attack()
def copy_an_ungoverned_version(world: World, name: str) -> object:
    free = register_version(f"free-{name}", world.log_model())
    return world.client().copy_model_version(f"models:/free-{name}/{free}", name)


@attack()
def rename_an_ungoverned_model(world: World, name: str) -> object:
    register_version(f"free-{name}", world.log_model())
    return world.client().rename_registered_model(f"free-{name}", name)


@attack()
def call_a_version_a_prompt(world: World, name: str) -> object:
    tag = {"mlflow.prompt.is_prompt": "true"}
    return create_version(world, name, f"models:/{world.log_model()}", tags=tag)


@attack()
def hang_a_version_below_a_prompt(world: World, name: str) -> object:
    store = registry._get_store(world.registry_uri, world.tracking_uri)  # noqa: SLF001  (the client hides the tag)
    store.create_registered_model(name, tags=[RegisteredModelTag("mlflow.prompt.is_prompt", "true")])
    tags = [ModelVersionTag("mlflow.prompt.is_prompt", "true")]
    return store.create_model_version(name, f"models:/{world.log_model()}", tags=tags)


@attack()
def make_a_prompt_of_a_governed_model(world: World, name: str) -> None:
    register_version(name, world.judged(name))
    world.client().set_registered_model_tag(name, "mlflow.prompt.is_prompt", "true")


@attack()
def write_the_gates_own_tags(world: World, name: str) -> None:
    version = register_version(name, world.judged(name))
    world.client().set_model_version_tag(name, version, "skewguard.verdict", "PASS")


@attack()
def delete_the_gates_own_tags(world: World, name: str) -> None:
    version = register_version(name, world.judged(name))
    world.client().delete_model_version_tag(name, version, "skewguard.verdict")


# -- over other routes of a server


@attack(worlds=("server", "basic-auth"))
def post_to_the_rest_route(world: World, name: str) -> object:
    return post(world, name, "/api/2.0/mlflow/model-versions/create")


@attack(worlds=("server", "basic-auth"))
def post_to_the_uis_route(world: World, name: str) -> object:
    return post(world, name, "/ajax-api/2.0/mlflow/model-versions/create")


@attack(worlds=("server", "basic-auth"))
def post_to_an_encoded_route(world: World, name: str) -> object:
    return post(world, name, "/api/2.0/mlflow/model-versions/%63reate")


@attack(worlds=("server", "basic-auth"))
def post_to_a_route_with_two_slashes(world: World, name: str) -> object:
    return post(world, name, "/api/2.0/mlflow//model-versions/create")


@attack(worlds=("server", "basic-auth"))
def post_as_plain_text(world: World, name: str) -> object:
    return post(world, name, "/api/2.0/mlflow/model-versions/create", content_type="text/plain")


@attack(worlds=("server", "basic-auth"))
def post_an_alias_for_a_rogue_version(world: World, name: str) -> object:
    version = rogue_version(world, name)
    body = {"name": name, "alias": "champion", "version": version}
    return send(world, "/ajax-api/2.0/mlflow/registered-models/alias", body)


# -- past the gate, with the database's password


@attack()
def promote_a_version_that_was_written_by_sql(world: World, name: str) -> None:
    world.client().set_registered_model_alias(name, "champion", rogue_version(world, name))


@attack("refused at load")
def load_a_version_that_was_written_by_sql(world: World, name: str) -> object:
    return mlflow.sklearn.load_model(f"models:/{name}/{rogue_version(world, name)}")


@attack("refused at load")
def load_by_an_alias_that_was_moved_by_sql(world: World, name: str) -> object:
    version = register_version(name, world.judged(name))
    world.client().set_registered_model_alias(name, "champion", version)
    rogue = world.behind().create_model_version(name, f"models:/{world.log_model()}").version
    run_sql(world, "UPDATE registered_model_aliases SET version = :value WHERE name = :name", name, rogue)
    return mlflow.sklearn.load_model(f"models:/{name}@champion")


@attack("refused at load")
def pull_by_an_alias_that_was_moved_by_sql(world: World, name: str) -> object:
    rogue_version(world, name)
    world.behind().set_registered_model_alias(name, "champion", "1")
    trusted = str(world.policy.with_name("trusted.json"))
    with tempfile.TemporaryDirectory() as out:
        return pull(Registry(f"models:/{name}@champion", trusted, world.database, world.tracking_uri), out)


@attack("refused at load")
def load_from_a_place_that_was_moved_by_sql(world: World, name: str) -> object:
    version = register_version(name, world.judged(name))
    run_sql(world, "UPDATE model_versions SET storage_location = :value WHERE name = :name", name, "/tmp/evil")  # noqa: S108
    return mlflow.sklearn.load_model(f"models:/{name}/{version}")


@attack("refused at load")
def lend_a_rogue_version_anothers_record_by_sql(world: World, name: str) -> object:
    version = register_version(name, world.judged(name))
    rogue = rogue_version(world, name)
    run_sql(
        world,
        "UPDATE model_version_tags SET version = :value WHERE name = :name AND version = " + version,
        name,
        rogue,
    )
    return mlflow.sklearn.load_model(f"models:/{name}/{rogue}")


# -- what the gate cannot do


@attack("documented")
def register_with_the_databases_password(world: World, name: str) -> object:
    return rogue_version(world, name)


@attack("documented")
def load_a_logged_model_by_its_id(world: World, name: str) -> object:
    return mlflow.sklearn.load_model(f"models:/{world.log_model()}") if name else None


@attack("documented")
def take_a_fail_away_before_the_gate_saw_it(world: World, name: str) -> object:
    model_id = world.judged(name)
    passed = record_text(world, model_id, name)
    attach_verdict(model_id, replace(world.verdict(model_id, name), ruling=Ruling.FAIL), KEY, world.tracking_uri)
    put_tag(world, model_id, name, passed)
    return register_version(name, model_id)


@attack("documented")
def delete_a_governed_model(world: World, name: str) -> None:
    register_version(name, world.judged(name))
    world.client().delete_registered_model(name)


def aged(verdict: Verdict, age: timedelta) -> Verdict:
    """The verdict, given so long ago."""
    about = verdict.subject
    return passing(about.registered_name, about.model_id, about.model_digest, verdict.policy_digest, age=age)


def stopped(run: Callable[[], object]) -> None:
    """Run what must be refused, before the attack proper."""
    try:
        run()
    except MlflowException:
        return
    raise AssertionError("the first try already got through")


def record_text(world: World, model_id: str, name: str) -> str:
    """The signed record that a logged model carries."""
    return str(world.client().get_logged_model(model_id).tags[tag_of(name)])


def put_tag(world: World, model_id: str, name: str, value: str) -> None:
    """Write into the tag of the signed record."""
    world.client().set_logged_model_tags(model_id, {tag_of(name): value})


def create_version(world: World, name: str, source: str, **more: Any) -> object:
    """What `mlflow.register_model` does, with every argument in the caller's hand."""
    world.client().create_registered_model(name)
    return world.client().create_model_version(name, source, **more)


def rogue_version(world: World, name: str) -> str:
    """A version of an unjudged model, written past the gate."""
    try:
        world.behind().create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return str(world.behind().create_model_version(name, f"models:/{world.log_model()}").version)


def overwrite(world: World, model_id: str) -> None:
    """Change a file of a logged model on this disk."""
    file = Path(world.client().get_logged_model(model_id).artifact_location) / "requirements.txt"
    file.write_bytes(file.read_bytes()[:-1] + b"x")


def put_file(world: World, model_id: str, file: str = "requirements.txt", method: str = "PUT") -> None:
    """Write (or delete) a file of a logged model through the server's artifact route."""
    path = world.client().get_logged_model(model_id).artifact_location.removeprefix("mlflow-artifacts:/")
    url = f"{world.tracking_uri}/api/2.0/mlflow-artifacts/artifacts/{path}/{file}"
    body = b"evil" if method == "PUT" else None
    request = urllib.request.Request(url, body, credentials(), method=method)  # noqa: S310  (loopback)
    with urllib.request.urlopen(request):  # noqa: S310
        pass


def post(world: World, name: str, route: str, content_type: str = "application/json", **headers: str) -> object:
    """A version of an unjudged model, asked for by REST."""
    send(world, "/api/2.0/mlflow/registered-models/create", {"name": name})
    model_id = world.log_model()
    body = {"name": name, "source": f"models:/{model_id}", "model_id": model_id}
    return send(world, route, body, content_type, headers=headers)


def send(
    world: World,
    route: str,
    body: Mapping[str, object],
    content_type: str = "application/json",
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
) -> object:
    """The answer of a server's route; a refusal of any kind as `MlflowException`."""
    own = {"Content-Type": content_type} | credentials() | dict(headers or {})
    url = world.tracking_uri + route
    request = urllib.request.Request(url, json.dumps(body).encode(), own, method=method)  # noqa: S310  (loopback)
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 308:  # Werkzeug merges slashes
                route = error.headers["Location"].removeprefix(world.tracking_uri)
                return send(world, route, body, content_type, method=method, headers=headers)
            message = error.read().decode(errors="replace")
        denied = error.code in (403, 404, 405, 400) or "FEATURE_DISABLED" in message
        code = "PERMISSION_DENIED" if denied else "INTERNAL_ERROR"
        raise MlflowException(f"{error.code} {message}", error_code=code_of(code)) from error


def credentials() -> dict[str, str]:
    """Those of MLflow's client, where the server asks for any."""
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if not user:
        return {}
    pair = f"{user}:{os.environ['MLFLOW_TRACKING_PASSWORD']}"
    return {"Authorization": "Basic " + b64encode(pair.encode()).decode()}


def code_of(name: str) -> int:
    """MLflow's number of an error code."""
    return int(ErrorCode.Value(name))


def run_sql(world: World, statement: str, name: str, value: object) -> None:
    """Run a statement with the database's password."""
    engine = create_engine(world.database)
    with engine.begin() as connection:
        connection.execute(text(statement), {"name": name, "value": value})
    engine.dispose()
