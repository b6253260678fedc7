"""The gate in MLflow: a model-registry store that asks `admit` before a governed model gets a version or an alias.

    mlflow server --registry-store-uri skewguard:postgresql://...     every client is gated, whatever it has installed
    mlflow.set_registry_uri("skewguard:sqlite:///mlflow.db")          this process is gated, without a server

MLflow finds `build_store` under the entry point `mlflow.model_registry_store`, so this module is imported wherever
MLflow opens a registry: it imports what MLflow has loaded by then, and raises nothing but `ImportError`.
"""

# What a store must know of its server, MLflow keeps private; the tests hold it to the versions in use.
# ruff: noqa: SLF001

from __future__ import annotations

import inspect
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.exceptions import MlflowException
from mlflow.prompt.constants import _PROMPT_SOURCE_PLACEHOLDERS as PROMPT_SOURCES
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    RESOURCE_ALREADY_EXISTS,
    ErrorCode,
)
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking._model_registry import utils as registry
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from skewguard.contract import PREFIX as RESERVED
from skewguard.errors import EvidenceError, ModelError, PolicyError, Refused, SkewguardError
from skewguard.gate.admission import admit
from skewguard.gate.record import VERDICT_TAG, from_tag, to_tag
from skewguard.model import model_digest
from skewguard.policy import Policy, load_policy
from skewguard.verdict import Ruling, Verdict

Stock: Any = object  # whichever store the gate stands in front of; MLflow leaves their methods untyped

SCHEME = "skewguard:"
POLICY_ENV = "SKEWGUARD_POLICY"
RULING_TAG = "skewguard.ruling"

_LOGGED_MODEL = re.compile(r"models:/(m-[0-9a-f]{32})/?")
_MODEL_VERSION = re.compile(r"models:/([^/@]+)/([0-9]+)/?")
_REACHES_NOBODY = ("none", "archived")  # stages
_JUST_CREATED_MS = 60_000
_LONGEST_CHAIN = 8  # of copies of versions
_PREFIX = "skewguard: "
_HANDLERS = "mlflow.server.handlers"
_SERVED_STORE_ENV = "_MLFLOW_SERVER_FILE_STORE"  # MLflow's, for its workers; importing the name would import Flask


@dataclass(frozen=True, slots=True)
class Admitted:
    """A logged model that may bear the name: what was found in the tracking store, not what a caller said."""

    model_id: str
    run_id: str | None
    location: str
    record: str


class GateMixin(Stock):  # type: ignore[misc]
    """Stands in front of a stock store. Ungoverned models and prompts pass untouched.

    `gate_policy` is the policy file, read at each decision so that a new policy counts at once; `gate_tracking` the
    tracking URI whose logged models are asked for.
    """

    gate_policy: Path
    gate_tracking: str | None

    # What MLflow calls

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: Sequence[ModelVersionTag] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> Any:
        """Refuse, or create the version of the logged model itself, with the verdict's summary as a tag."""
        more = {"run_link": run_link, "description": description, "local_model_path": local_model_path}
        if not self._governs(name) or self._is_prompt(name, source, {tag.key: tag.value for tag in tags or ()}):
            return super().create_model_version(name, source, run_id, tags, model_id=model_id, **more)
        with _denials():
            try:
                admitted = self.examine(name, source)
                self._must_agree(admitted)
            except (SkewguardError, MlflowException):
                self._sweep(name)
                raise
        own = [tag for tag in tags or () if not tag.key.startswith(RESERVED) and tag.key != IS_PROMPT_TAG_KEY]
        own.append(ModelVersionTag(VERDICT_TAG, admitted.record))
        return super().create_model_version(
            name, f"models:/{admitted.model_id}", admitted.run_id, own, model_id=admitted.model_id, **more
        )

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Refuse, or let the alias point to a version that would be admitted now."""
        self._must_still_pass(name, version)
        super().set_registered_model_alias(name, alias, version)

    def transition_model_version_stage(
        self, name: str, version: str, stage: str, archive_existing_versions: bool
    ) -> Any:
        """A stage is an alias under its old name; the way down is free."""
        if stage.strip().lower() not in _REACHES_NOBODY:
            self._must_still_pass(name, version)
        return super().transition_model_version_stage(name, version, stage, archive_existing_versions)

    def rename_registered_model(self, name: str, new_name: str) -> Any:
        """A verdict is for a name, so no model becomes a governed one by being renamed."""
        if new_name != name and self._governs(new_name):
            with _denials():
                raise Refused(
                    f"{name!r} may not be renamed to {new_name!r}: a verdict is for one name; register the "
                    "versions that are wanted under the new name, each with a verdict for it"
                )
        return super().rename_registered_model(name, new_name)

    def set_model_version_tag(self, name: str, version: str, tag: ModelVersionTag) -> None:
        """The gate's own tags say what the gate found."""
        self._must_be_free(name, tag.key)
        super().set_model_version_tag(name, version, tag)

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        """The gate's own tags stay."""
        self._must_be_free(name, key)
        super().delete_model_version_tag(name, version, key)

    def set_registered_model_tag(self, name: str, tag: RegisteredModelTag) -> None:
        """A governed model does not become a prompt."""
        self._must_be_free(name, tag.key)
        super().set_registered_model_tag(name, tag)

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """A prompt of a governed name does not become a model."""
        self._must_be_free(name, key)
        super().delete_registered_model_tag(name, key)

    # What the gate asks

    def examine(self, name: str, source: str) -> Admitted:
        """The logged model behind `source`, admitted to `name`; raises `SkewguardError` with the refusal."""
        policy = self._policy()
        logged = self._logged_model(name, source)
        verdict = _verdict_of(logged)
        admit(
            verdict,
            registered_name=name,
            model_id=logged.model_id,
            model_digest=self._digest(logged),
            policy=policy,
            now=datetime.now(UTC),
        )
        return Admitted(logged.model_id, logged.source_run_id, logged.artifact_location, logged.tags[VERDICT_TAG])

    def governs(self, name: str) -> bool:
        """Whether the policy governs the registered model `name`; raises `PolicyError`."""
        return self._policy().governs_model(name)

    # How it finds out

    def _policy(self) -> Policy:
        return load_policy(self.gate_policy)

    def _governs(self, name: str) -> bool:
        with _denials():
            return self.governs(name)

    def _must_still_pass(self, name: str, version: str) -> None:
        """Deny unless the version's logged model would be admitted now, and its files are the ones looked at."""
        if not self._governs(name):
            return
        found = self.get_model_version(name, version)
        if self._is_prompt(name, found.source, found._tags):
            return
        with _denials():
            admitted = self.examine(name, found.source)
            location = self.get_model_version_download_uri(name, version)
            if location.rstrip("/") != admitted.location.rstrip("/"):
                raise Refused(
                    f"version {version} of {name!r} may not be promoted: its files lie at {location!r}, those of "
                    f"model {admitted.model_id} at {admitted.location!r}; register the logged model anew"
                )

    def _must_be_free(self, name: str, key: str) -> None:
        if (key.startswith(RESERVED) or key == IS_PROMPT_TAG_KEY) and self._governs(name):
            with _denials():
                raise Refused(f"the tag {key!r} of the governed model {name!r} is not set or deleted by hand")

    def _is_prompt(self, name: str, source: str, tags: dict[str, str]) -> bool:
        """A prompt shares the tables with models. It is one from its creation on, and has no files that could load."""
        if tags.get(IS_PROMPT_TAG_KEY, "").lower() != "true" or source not in PROMPT_SOURCES:
            return False
        return bool(self.get_registered_model(name)._is_prompt())

    def _logged_model(self, name: str, source: str) -> LoggedModel:
        """The logged model that `source` leads to, whatever else the caller said about it."""
        for _ in range(_LONGEST_CHAIN):
            if (copied := _MODEL_VERSION.fullmatch(source)) is None:
                break
            source = self.get_model_version(copied[1], copied[2]).source
        match = _LOGGED_MODEL.fullmatch(source)
        if match is None:
            raise Refused(
                f"{source!r} may not be registered as {name!r}: only a logged model can have a verdict; log it with "
                "mlflow.<flavor>.log_model and register models:/<model id>"
            )
        logged: LoggedModel = _tracking(self.gate_tracking).get_logged_model(match[1])
        return logged

    def _digest(self, logged: LoggedModel) -> str:
        try:
            with _artifacts(logged.artifact_location, self.gate_tracking) as folder:
                return model_digest(folder)
        except (ModelError, MlflowException, OSError) as error:
            why = " ".join(str(error).split())
            raise Refused(f"model {logged.model_id}: its files cannot be read by the gate ({why})") from error

    def _must_agree(self, admitted: Admitted) -> None:
        """The stock store asks the process's own tracking URI where the files lie: it must find the same ones."""
        if _in_server() or not hasattr(self, "db_uri"):
            return
        location = MlflowClient().get_logged_model(admitted.model_id).artifact_location
        if location != admitted.location:
            raise Refused(
                f"model {admitted.model_id} lies at {location!r} for this process and at {admitted.location!r} for the "
                "gate; call mlflow.set_tracking_uri with the tracking URI of the registry's client"
            )

    def _sweep(self, name: str) -> None:
        """Delete the registered model that `mlflow.register_model` created for the version that is refused.

        Not under MLflow's basic-auth, which has given its creator a permission that would outlive it.
        """
        if "mlflow.server.auth" in sys.modules:
            return
        try:
            found = self.get_registered_model(name)
        except MlflowException:
            return  # it was not even created
        empty = not (found.latest_versions or found.aliases or found._tags or found.description)
        if empty and time.time() * 1000 - found.creation_timestamp < _JUST_CREATED_MS:
            self.delete_registered_model(name)


def build_store(store_uri: str, tracking_uri: str | None = None, **_: object) -> Any:
    """The stock store for what follows `skewguard:`, gated; MLflow calls this. Without a policy there is no store."""
    stock = _stock_store(store_uri.removeprefix(SCHEME), tracking_uri)
    path = os.environ.get(POLICY_ENV, "")
    if not path:
        raise MlflowException(
            f"{_PREFIX}{store_uri} needs a policy: set {POLICY_ENV} to a policy file", INVALID_PARAMETER_VALUE
        )
    try:
        load_policy(path)
    except PolicyError as error:
        raise MlflowException(f"{_PREFIX}{POLICY_ENV}: {error}", INVALID_PARAMETER_VALUE) from error
    stock.__class__ = _gated(type(stock))
    stock.gate_policy, stock.gate_tracking = Path(path).absolute(), tracking_uri
    return stock


def _stock_store(uri: str, tracking_uri: str | None) -> Any:
    from mlflow.store.model_registry.rest_store import RestStore
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
    from mlflow.store.model_registry.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore

    stores = _handlers()._model_registry_store_registry if _in_server() else registry._get_store_registry()
    build = stores.get_store_builder(uri)
    takes_tracking = "tracking_uri" in inspect.signature(build).parameters
    stock = build(store_uri=uri, tracking_uri=tracking_uri) if takes_tracking else build(store_uri=uri)
    if type(stock) not in (RestStore, SqlAlchemyStore, WorkspaceAwareSqlAlchemyStore):
        raise MlflowException(
            f"{_PREFIX}the gate stands in front of a database or an MLflow server, not of {uri!r}",
            INVALID_PARAMETER_VALUE,
        )
    return stock


def _gated(stock: type) -> type:
    return type(f"Gated{stock.__name__}", (GateMixin, stock), {})


def attach_verdict(model_id: str, verdict: Verdict, tracking_uri: str | None = None) -> None:
    """Store the verdict with the logged model it is about, where the gate looks for it. The newest one counts.

    A verdict that found no evidence names no model; it can be attached as long as it does not pass.
    """
    if not verdict.subject.model_id and verdict.ruling is not Ruling.PASS:
        verdict = replace(verdict, subject=replace(verdict.subject, model_id=model_id))
    if verdict.subject.model_id != model_id:
        raise EvidenceError(
            f"the verdict is about model {verdict.subject.model_id or 'none'}, not {model_id}: judge that one"
        )
    tags = {VERDICT_TAG: to_tag(verdict), RULING_TAG: verdict.ruling.value}
    MlflowClient(tracking_uri=tracking_uri).set_logged_model_tags(model_id, tags)


def register(
    model_id: str,
    registered_name: str,
    *,
    alias: str | None = None,
    registry_uri: str,
    tracking_uri: str,
) -> str:
    """Register a logged model and set `alias`; returns the version. Raises `Refused` and leaves nothing behind.

    `registry_uri` is gated here (`skewguard:sqlite:///...`) or leads to a server (`http://...`), which gates or not.
    """
    if not registry_uri.startswith((SCHEME, "http:", "https:")):
        raise Refused(f"{registry_uri!r} is a registry without a gate; use '{SCHEME}{registry_uri}'")
    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=registry_uri)
    store = registry._get_store(registry_uri, tracking_uri)
    source = f"models:/{model_id}"
    if isinstance(store, GateMixin) and store.governs(registered_name):
        store.examine(registered_name, source)  # before anything is created
    with _refusals():
        try:
            client.create_registered_model(registered_name)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
        created = client.create_model_version(registered_name, source, model_id=model_id)
        if alias is not None:
            client.set_registered_model_alias(registered_name, alias, created.version)
    return str(created.version)


@contextmanager
def artifacts(model_id: str, tracking_uri: str | None = None) -> Iterator[Path]:
    """The logged model's folder: the very one where it lies on this machine, else a copy while the context lasts."""
    logged = MlflowClient(tracking_uri=tracking_uri).get_logged_model(model_id)
    with _artifacts(logged.artifact_location, tracking_uri) as folder:
        yield folder


@contextmanager
def _artifacts(location: str, tracking_uri: str | None) -> Iterator[Path]:
    if is_local_uri(location):
        yield Path(local_file_uri_to_path(location))
        return
    if _in_server() and location.startswith("mlflow-artifacts:"):  # this server serves them: ask its own storage
        repository = _handlers()._get_artifact_repo_mlflow_artifacts()
        path = _handlers()._get_proxied_run_artifact_destination_path(location)
    else:
        repository, path = get_artifact_repository(location, tracking_uri=tracking_uri), ""
    with tempfile.TemporaryDirectory(prefix="skewguard-") as copy:
        yield Path(repository.download_artifacts(path, copy))


def _tracking(uri: str | None) -> Any:
    """Where logged models are looked up: in a server its own store, else the client's."""
    if _in_server():
        return _handlers()._get_tracking_store()
    return MlflowClient(tracking_uri=uri)


def _in_server() -> bool:
    """Whether this process answers for `mlflow server`."""
    return _SERVED_STORE_ENV in os.environ and _HANDLERS in sys.modules


def _handlers() -> Any:
    return sys.modules[_HANDLERS]  # loaded if this is a server, and never by a client


def _verdict_of(logged: LoggedModel) -> Verdict | None:
    text = logged.tags.get(VERDICT_TAG)
    try:
        return from_tag(text) if text else None
    except EvidenceError as error:
        raise Refused(f"model {logged.model_id}: its tag {VERDICT_TAG} is damaged ({error}); judge it again") from error


@contextmanager
def _denials() -> Iterator[None]:
    """A refusal, and whatever else keeps the gate from deciding, as the error that a server answers with 403."""
    try:
        yield
    except SkewguardError as error:
        raise MlflowException(f"{_PREFIX}{error}", PERMISSION_DENIED) from error


@contextmanager
def _refusals() -> Iterator[None]:
    """And back."""
    try:
        yield
    except MlflowException as error:
        _, gate, sentence = error.message.partition(_PREFIX)
        if gate and error.error_code == ErrorCode.Name(PERMISSION_DENIED):
            raise Refused(sentence) from error
        raise
