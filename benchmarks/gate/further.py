"""More ways past the gate: by names, sources, tags and routes that MLflow has besides, by the clock and the ledger."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from unittest import mock

import mlflow
import mlflow.sklearn
from mlflow.exceptions import MlflowException

from benchmarks.gate.attacks import (
    aged,
    attack,
    code_of,
    create_version,
    overwrite,
    post,
    put_file,
    put_tag,
    record_text,
    register_version,
    rogue_version,
    ruled,
    run_sql,
    send,
    stopped,
)
from benchmarks.gate.world import KEY, World
from skewguard.gate import ledger as ledger_file
from skewguard.gate.mlflow import attach_verdict, build_store
from skewguard.gate.mlflow import gate as deciding
from skewguard.verdict import Ruling

_SERVERS = ("server", "basic-auth")


# -- names


@attack()
def rename_a_governed_model_away_and_back(world: World, name: str) -> object:
    register_version(name, world.judged(name))
    world.client().rename_registered_model(name, f"free-{name}")
    register_version(f"free-{name}", world.log_model())
    return world.client().rename_registered_model(f"free-{name}", name)


@attack()
def delete_the_name_and_register_anew(world: World, name: str) -> object:
    register_version(name, world.judged(name))
    world.client().delete_registered_model(name)
    return register_version(name, world.log_model())


@attack("refused at load")
def register_under_names_that_look_the_same(world: World, name: str) -> object:
    """Other case, a blank behind it, an encoded hyphen, a Cyrillic a: other names, and the governed one stays empty."""
    for other in (
        name.upper(),
        f"{name} ",
        name.replace("-", "%2D", 1),
        name.replace("a", "\N{CYRILLIC SMALL LETTER A}"),
    ):
        with suppress(MlflowException):  # a name that MLflow itself does not take
            register_version(other, world.log_model())
    return mlflow.sklearn.load_model(f"models:/{name}/1")


@attack()
def bring_the_gates_tags_at_the_names_creation(world: World, name: str) -> object:
    return world.client().create_registered_model(name, tags={"skewguard.approved": "yes"})


# -- sources


@attack()
def register_a_judged_models_id_with_more_behind_it(world: World, name: str) -> object:
    judged, other = world.judged(name), world.log_model()
    world.client().create_registered_model(name)
    for source in (
        f"models:/{judged}/../{other}", f"models:/{judged}#{other}", f"models:/{judged}?model={other}",
        f"models:/{judged.upper()}", f"models:/{judged}\n/{other}", f"Models:/{other}", f" models:/{judged}",
    ):  # fmt: skip
        with suppress(MlflowException):
            return world.client().create_model_version(name, source, model_id=judged)
    return register_version(name, other)


@attack(worlds=_SERVERS)
def register_the_artifact_stores_own_path(world: World, name: str) -> object:
    location = world.client().get_logged_model(world.log_model()).artifact_location
    return create_version(world, name, location, model_id=world.judged(name))


@attack()
def register_a_run_of_somebody_elses_judged_model(world: World, name: str) -> object:
    other = world.client().get_logged_model(world.log_model()).source_run_id
    return create_version(world, name, f"runs:/{other}/model", run_id=other, model_id=world.judged(name))


@attack(worlds=("embedded",))
def put_a_link_among_the_models_files(world: World, name: str) -> object:
    """What the link leads to may change after the verdict: no digest pins it."""
    model_id = world.log_model()
    folder = Path(world.client().get_logged_model(model_id).artifact_location)
    outside = folder.parent / "outside.txt"
    outside.write_bytes((folder / "requirements.txt").read_bytes())
    verdict = world.verdict(model_id, name)
    (folder / "requirements.txt").unlink()
    (folder / "requirements.txt").symlink_to(outside)
    attach_verdict(model_id, verdict, KEY, world.tracking_uri)
    return register_version(name, model_id)


@attack(worlds=("embedded",))
def add_a_file_after_the_verdict(world: World, name: str) -> object:
    model_id = world.judged(name)
    (Path(world.client().get_logged_model(model_id).artifact_location) / "code.py").write_text("evil")
    return register_version(name, model_id)


# -- stages, aliases and loading by other ways


@attack()
def give_a_rogue_version_a_stage_in_other_letters(world: World, name: str) -> object:
    version = rogue_version(world, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # stages are MLflow's past, and still there
        for stage in ("production", "PRODUCTION", " Production "):
            with suppress(MlflowException):
                return world.client().transition_model_version_stage(name, version, stage)
        return world.client().transition_model_version_stage(name, version, "Staging")


@attack("refused at load")
def load_the_latest_of_a_rogue_name(world: World, name: str) -> object:
    register_version(name, world.judged(name))
    rogue_version(world, name)
    return mlflow.sklearn.load_model(f"models:/{name}/latest")


@attack("refused at load")
def load_by_a_stage_that_was_written_by_sql(world: World, name: str) -> object:
    rogue_version(world, name)
    run_sql(world, "UPDATE model_versions SET current_stage = :value WHERE name = :name", name, "Production")
    return mlflow.sklearn.load_model(f"models:/{name}/Production")


@attack("refused at load")
def lead_an_admitted_version_to_another_model_by_sql(world: World, name: str) -> object:
    version = register_version(name, world.judged(name))
    source = f"models:/{world.log_model()}"
    run_sql(
        world, "UPDATE model_versions SET source = :value, storage_location = NULL WHERE name = :name", name, source
    )
    return mlflow.sklearn.load_model(f"models:/{name}/{version}")


@attack("refused at load", worlds=("embedded",))
def register_through_a_gate_of_ones_own(world: World, name: str) -> object:
    """A second gate on the same database, with a policy that governs nobody; the first one still reads."""
    policy = world.policy.with_name(f"lax-{name}.toml")
    policy.write_text('[policy]\ngoverns = ["nobody"]\n')
    trust = str(world.policy.with_name("trusted.json"))
    with mock.patch.dict(os.environ, {"SKEWGUARD_POLICY": str(policy), "SKEWGUARD_TRUSTED_KEYS": trust}):
        lax = build_store(world.registry_uri, world.tracking_uri)
    lax.create_registered_model(name)
    version = lax.create_model_version(name, f"models:/{world.log_model()}").version
    return mlflow.sklearn.load_model(f"models:/{name}/{version}")


# -- routes of a server


@attack(worlds=_SERVERS)
def post_the_gates_tags_by_the_uis_route(world: World, name: str) -> object:
    version = register_version(name, world.judged(name))
    body = {"name": name, "version": version, "key": "skewguard.ledger", "value": "0:0"}
    return send(world, "/ajax-api/2.0/mlflow/model-versions/set-tag", body)


@attack(worlds=_SERVERS)
def delete_the_gates_tags_by_the_uis_route(world: World, name: str) -> object:
    version = register_version(name, world.judged(name))
    body = {"name": name, "version": version, "key": "skewguard.verdict"}
    return send(world, "/ajax-api/2.0/mlflow/model-versions/delete-tag", body, method="DELETE")


@attack(worlds=_SERVERS)
def post_a_stage_for_a_rogue_version(world: World, name: str) -> object:
    version = rogue_version(world, name)
    body = {"name": name, "version": version, "stage": "Production", "archive_existing_versions": True}
    return send(world, "/ajax-api/2.0/mlflow/model-versions/transition-stage", body)


@attack(worlds=_SERVERS)
def post_in_another_workspace(world: World, name: str) -> object:
    route = "/api/2.0/mlflow/model-versions/create"
    return post(world, name, route, **{"X-MLFLOW-WORKSPACE": "elsewhere"})


@attack(worlds=_SERVERS)
def post_a_mutation_to_graphql(world: World, name: str) -> object:
    register_version(name, world.judged(name))
    query = f'mutation {{ mlflowCreateModelVersion(input: {{name: "{name}", source: "models:/m"}}) {{ version }} }}'
    answer = send(world, "/graphql", {"query": query, "variables": {}, "operationName": None})
    if isinstance(answer, dict) and answer.get("errors"):
        raise MlflowException("graphql has no such field", error_code=code_of("ENDPOINT_NOT_FOUND"))
    return answer


@attack(worlds=_SERVERS)
def change_a_file_on_the_server_before_promotion(world: World, name: str) -> None:
    model_id = world.judged(name)
    version = register_version(name, model_id)
    put_file(world, model_id)
    world.client().set_registered_model_alias(name, "champion", version)


@attack(worlds=_SERVERS)
def add_a_file_on_the_server_before_registration(world: World, name: str) -> object:
    model_id = world.judged(name)
    put_file(world, model_id, "code/evil.py")
    return register_version(name, model_id)


@attack(worlds=_SERVERS)
def climb_out_of_the_artifact_store(world: World, name: str) -> object:
    """To the gate's own policy, which lies above it."""
    world.judged(name)
    body: dict[str, object] = {"governs": []}
    for climb in ("..", "%2e%2e", "..%2f..", "%252e%252e"):
        route = f"/api/2.0/mlflow-artifacts/artifacts/{climb}/policy.toml"
        with suppress(MlflowException):
            return send(world, route, body, method="PUT")
    raise MlflowException("none of them", error_code=code_of("BAD_REQUEST"))


# -- the clock and the ledger


@attack(worlds=("embedded",))
def set_the_clock_back(world: World, name: str) -> object:
    """A verdict that has expired would count again."""
    model_id = ruled(world, name, lambda verdict: aged(verdict, timedelta(days=8)))
    register_version(f"{name}-other", world.judged(f"{name}-other"))  # the ledger's last line is of today
    with _clock_at(datetime.now(UTC) - timedelta(days=5)):
        return register_version(name, model_id)


@attack(worlds=("embedded",))
def cut_a_fail_from_the_ledgers_end(world: World, name: str) -> object:
    """While the gate runs: it knows what it wrote."""
    model_id = world.judged(name)
    passed, ledger = record_text(world, model_id, name), world.policy.with_name("ledger.jsonl")
    register_version(f"{name}-other", world.judged(f"{name}-other"))
    before = ledger.read_bytes()
    attach_verdict(model_id, replace(world.verdict(model_id, name), ruling=Ruling.FAIL), KEY, world.tracking_uri)
    stopped(lambda: register_version(name, model_id))
    put_tag(world, model_id, name, passed)
    after = ledger.read_bytes()
    ledger.write_bytes(before)
    try:
        return register_version(name, model_id)
    finally:
        ledger.write_bytes(after)


@attack(worlds=("embedded",))
def swap_the_ledger_for_an_empty_one(world: World, name: str) -> object:
    model_id = world.judged(name)
    ledger = world.policy.with_name("ledger.jsonl")
    register_version(f"{name}-other", world.judged(f"{name}-other"))
    before = ledger.read_bytes()
    ledger.write_bytes(b"")
    try:
        return register_version(name, model_id)
    finally:
        ledger.write_bytes(before)


@attack(worlds=("embedded",))
def edit_a_line_of_the_ledger(world: World, name: str) -> object:
    model_id = world.judged(name)
    ledger = world.policy.with_name("ledger.jsonl")
    register_version(f"{name}-other", world.judged(f"{name}-other"))
    before = ledger.read_bytes()
    ledger.write_bytes(before.replace(b'"refused"', b'"admitted"', 1).replace(b'"admitted"', b'"observed"', 1))
    try:
        return register_version(name, model_id)
    finally:
        ledger.write_bytes(before)


# -- what the gate cannot do


@attack("documented")
def load_the_files_by_their_place(world: World, name: str) -> object:
    location = world.client().get_logged_model(world.log_model()).artifact_location
    return mlflow.sklearn.load_model(location) if name else None


@attack("documented", worlds=("embedded",))
def cut_a_fail_from_the_ledger_while_no_gate_runs(world: World, name: str) -> object:
    """As `cut_a_fail_from_the_ledgers_end`, and then a gate is started."""
    with mock.patch.dict(ledger_file._SEEN, clear=True):  # noqa: SLF001  (what a process that has ended knew)
        model_id = world.judged(name)
        passed, ledger = record_text(world, model_id, name), world.policy.with_name("ledger.jsonl")
        register_version(f"{name}-other", world.judged(f"{name}-other"))
        before = ledger.read_bytes()
        attach_verdict(model_id, replace(world.verdict(model_id, name), ruling=Ruling.FAIL), KEY, world.tracking_uri)
        stopped(lambda: register_version(name, model_id))
        put_tag(world, model_id, name, passed)
        ledger.write_bytes(before)
        ledger_file._SEEN.clear()  # noqa: SLF001
        version = register_version(name, model_id)
    ledger_file._SEEN.clear()  # noqa: SLF001  (and the next attack begins on what lies there)
    return version


@attack("documented", worlds=("embedded",))
def change_a_file_between_two_looks(world: World, name: str) -> str:
    model_id = world.judged(name)
    version = register_version(name, model_id)
    overwrite(world, model_id)
    return version


@contextmanager
def _clock_at(now: datetime) -> Iterator[None]:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return now.astimezone(tz)

    with mock.patch.object(deciding, "datetime", Clock):
        yield
