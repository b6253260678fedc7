"""The gate in MLflow: a model-registry store that asks `admit` before a governed model gets a version or an alias.

    mlflow server --registry-store-uri skewguard:postgresql://...     every client is gated, whatever it has installed
    mlflow.set_registry_uri("skewguard:sqlite:///mlflow.db")          this process is gated, without a server

MLflow finds `build_store` under the entry point `mlflow.model_registry_store`, so this module is imported wherever
MLflow opens a registry: it imports what MLflow has loaded by then, and raises nothing but `ImportError`.
"""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.exceptions import MlflowException
from mlflow.prompt.constants import _PROMPT_SOURCE_PLACEHOLDERS as PROMPT_SOURCES
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED
from mlflow.tracking._model_registry import utils as registry

from skewguard.contract import PREFIX as RESERVED
from skewguard.errors import Refused, SkewguardError
from skewguard.gate.mlflow.gate import Admitted, Gate
from skewguard.gate.mlflow.server import handlers, has_basic_auth, in_server
from skewguard.gate.record import VERDICT_TAG
from skewguard.policy import Mode

Stock: Any = object  # whichever store the gate stands in front of; MLflow leaves their methods untyped

SCHEME = "skewguard:"
LEDGER_TAG = "skewguard.ledger"
"""The tag of a version that says which line of the ledger it was admitted by."""

DENIAL = "skewguard: "
"""What every denial begins with."""

LOGGED_MODEL = re.compile(r"models:/(m-[0-9a-f]{32})/?")
_MODEL_VERSION = re.compile(r"models:/([^/@]+)/([0-9]+)/?")
_REACHES_NOBODY = ("none", "archived")  # stages
_JUST_CREATED_MS = 60_000
_LONGEST_CHAIN = 8  # of copies of versions


class GateMixin(Stock):  # type: ignore[misc]
    """Stands in front of a stock store. Ungoverned models and prompts pass untouched.

    `gate` decides, and remembers.
    """

    gate: Gate

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
        """Refuse, or create the version of the logged model itself, with the record and the ledger's line as tags."""
        more = {"run_link": run_link, "description": description, "local_model_path": local_model_path}
        mode = self._mode(name)
        if mode is None or self._is_prompt(name, source, {tag.key: tag.value for tag in tags or ()}):
            return super().create_model_version(name, source, run_id, tags, model_id=model_id, **more)
        own = [tag for tag in tags or () if not tag.key.startswith(RESERVED) and tag.key != IS_PROMPT_TAG_KEY]
        try:
            admitted = self._asked("register", name, source, promotion=False)
        except MlflowException:
            self._sweep(name)
            raise
        if admitted is None:
            return super().create_model_version(name, source, run_id, own, model_id=model_id, **more)
        with _denials():
            line = self.gate.write("admitted", admitted.line("register", name))
        own += [ModelVersionTag(VERDICT_TAG, admitted.record.text), ModelVersionTag(LEDGER_TAG, line.place)]
        return super().create_model_version(
            name, f"models:/{admitted.model_id}", admitted.run_id, own, model_id=admitted.model_id, **more
        )

    def create_registered_model(
        self,
        name: str,
        tags: Sequence[RegisteredModelTag] | None = None,
        description: str | None = None,
        deployment_job_id: str | None = None,
    ) -> Any:
        """A name is free; the gate's own tags are not, from the beginning."""
        for tag in tags or ():
            if tag.key.startswith(RESERVED):
                self._must_be_free(name, tag.key)
        return super().create_registered_model(name, tags, description, deployment_job_id)

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Refuse, or let the alias point to a version that would be admitted now."""
        self._must_still_pass(f"alias {alias}", name, version)
        super().set_registered_model_alias(name, alias, version)

    def transition_model_version_stage(
        self, name: str, version: str, stage: str, archive_existing_versions: bool
    ) -> Any:
        """A stage is an alias under its old name; the way down is free."""
        if stage.strip().lower() not in _REACHES_NOBODY:
            self._must_still_pass(f"stage {stage}", name, version)
        return super().transition_model_version_stage(name, version, stage, archive_existing_versions)

    def get_model_version_download_uri(self, name: str, version: str) -> Any:
        """Where a version's files lie, which is what whoever loads it asks: only for what was admitted and is the same.

        A version that was written past the gate is not loaded, whoever loads it.
        """
        uri = super().get_model_version_download_uri(name, version)
        if self._mode(name) is not Mode.REGISTRATION:
            return uri
        found = self.get_model_version(name, version)
        if self._is_prompt(name, found.source, found._tags):
            return uri
        with _denials(), self.gate.deciding("load", name, found.source, promotion=False):
            admitted = self.gate.ask_to_load(name, self._model_id(name, found.source))
            admitted.must_lie_at(uri, name, version)
        return uri

    def rename_registered_model(self, name: str, new_name: str) -> Any:
        """A verdict is for a name, so no model becomes a governed one by being renamed."""
        if new_name != name and self._mode(new_name) not in (None, Mode.OBSERVE):
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

    def _asked(self, action: str, name: str, source: str, *, promotion: bool) -> Admitted | None:
        """The logged model behind `source`, admitted; None where it would be refused and the mode only observes."""
        admitted = None
        with _denials(), self.gate.deciding(action, name, source, promotion=promotion):
            admitted = self.gate.ask(name, self._model_id(name, source), promotion=promotion)
            self._must_agree(admitted)
        return admitted

    def _mode(self, name: str) -> Mode | None:
        with _denials():
            return self.gate.mode(name)

    def _must_still_pass(self, action: str, name: str, version: str) -> None:
        """Deny unless the version's logged model would be admitted now, and its files are the ones looked at."""
        if self._mode(name) is None:
            return
        found = self.get_model_version(name, version)
        if self._is_prompt(name, found.source, found._tags):
            return
        with _denials(), self.gate.deciding(action, name, found.source, promotion=True):
            admitted = self.gate.ask(name, self._model_id(name, found.source), promotion=True)
            self._must_agree(admitted)
            admitted.must_lie_at(super().get_model_version_download_uri(name, version), name, version)
            self.gate.write("admitted", admitted.line(action, name, version))

    def _must_be_free(self, name: str, key: str) -> None:
        if (key.startswith(RESERVED) or key == IS_PROMPT_TAG_KEY) and self._mode(name) is not None:
            with _denials():
                raise Refused(f"the tag {key!r} of the governed model {name!r} is not set or deleted by hand")

    def _is_prompt(self, name: str, source: str, tags: dict[str, str]) -> bool:
        """A prompt shares the tables with models. It is one from its creation on, and has no files that could load."""
        if tags.get(IS_PROMPT_TAG_KEY, "").lower() != "true" or source not in PROMPT_SOURCES:
            return False
        return bool(self.get_registered_model(name)._is_prompt())

    def _model_id(self, name: str, source: str) -> str:
        """The logged model that `source` leads to, whatever else the caller said about it."""
        for _ in range(_LONGEST_CHAIN):
            if (copied := _MODEL_VERSION.fullmatch(source)) is None:
                break
            source = self.get_model_version(copied[1], copied[2]).source
        match = LOGGED_MODEL.fullmatch(source)
        if match is None:
            raise Refused(
                f"{source!r} may not be registered as {name!r}: only a logged model can have a verdict; log it with "
                "mlflow.<flavor>.log_model and register models:/<model id>"
            )
        return match[1]

    def _must_agree(self, admitted: Admitted) -> None:
        """The stock store asks the process's own tracking URI where the files lie: it must find the same ones."""
        if in_server() or not hasattr(self, "db_uri"):
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
        if has_basic_auth():
            return
        try:
            found = self.get_registered_model(name)
        except MlflowException:
            return  # it was not even created
        empty = not (found.latest_versions or found.aliases or found._tags or found.description)
        if empty and time.time() * 1000 - found.creation_timestamp < _JUST_CREATED_MS:
            self.delete_registered_model(name)


def build_store(store_uri: str, tracking_uri: str | None = None, **_: object) -> Any:
    """The stock store for what follows `skewguard:`, gated; MLflow calls this.

    Without a readable policy and trusted keys there is no store.
    """
    stock = _stock_store(store_uri.removeprefix(SCHEME), tracking_uri)
    try:
        gate = Gate.from_environment(tracking_uri=tracking_uri)
    except SkewguardError as error:
        raise MlflowException(f"{DENIAL}{store_uri}: {error}", INVALID_PARAMETER_VALUE) from error
    stock.__class__ = _gated(type(stock))
    stock.gate = gate
    return stock


def _stock_store(uri: str, tracking_uri: str | None) -> Any:
    from mlflow.store.model_registry.rest_store import RestStore
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
    from mlflow.store.model_registry.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore

    stores = handlers()._model_registry_store_registry if in_server() else registry._get_store_registry()
    build = stores.get_store_builder(uri)
    takes_tracking = "tracking_uri" in inspect.signature(build).parameters
    stock = build(store_uri=uri, tracking_uri=tracking_uri) if takes_tracking else build(store_uri=uri)
    if type(stock) not in (RestStore, SqlAlchemyStore, WorkspaceAwareSqlAlchemyStore):
        raise MlflowException(
            f"{DENIAL}the gate stands in front of a database or an MLflow server, not of {uri!r}",
            INVALID_PARAMETER_VALUE,
        )
    return stock


def _gated(stock: type) -> type:
    return type(f"Gated{stock.__name__}", (GateMixin, stock), {})


@contextmanager
def _denials() -> Iterator[None]:
    """A refusal, and whatever else keeps the gate from deciding, as the error that a server answers with 403."""
    try:
        yield
    except SkewguardError as error:
        raise MlflowException(f"{DENIAL}{error}", PERMISSION_DENIED) from error
