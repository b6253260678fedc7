"""A logged model: its files, its digest, and the signed records that travel with it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from skewguard.errors import EvidenceError, ModelError, Refused
from skewguard.gate.keys import SigningKey, Trust
from skewguard.gate.mlflow.server import handlers, in_server
from skewguard.gate.record import Record, read_record, revocation_tag_of, sign_revocation, sign_verdict, tag_of
from skewguard.model import model_digest
from skewguard.verdict import Ruling, Verdict

RULING_TAG = "skewguard.ruling"
"""The tag of a logged model that says, for people, what its newest verdict is. Nobody acts on it."""


def attach_verdict(model_id: str, verdict: Verdict, key: SigningKey, tracking_uri: str | None = None) -> None:
    """Sign the verdict and store it with the logged model that it is about, where the gate looks. The newest counts.

    A verdict that found no evidence names no model; it can be attached as long as it does not pass.
    """
    if not verdict.subject.model_id and verdict.ruling is not Ruling.PASS:
        verdict = replace(verdict, subject=replace(verdict.subject, model_id=model_id))
    if verdict.subject.model_id != model_id:
        raise EvidenceError(
            f"the verdict is about model {verdict.subject.model_id or 'none'}, not {model_id}: judge that one"
        )
    tags = {tag_of(verdict.subject.registered_name): sign_verdict(verdict, key), RULING_TAG: verdict.ruling.value}
    MlflowClient(tracking_uri=tracking_uri).set_logged_model_tags(model_id, tags)


def revoke_verdict(
    model_id: str, registered_name: str, reason: str, key: SigningKey, tracking_uri: str | None = None
) -> None:
    """Take back, signed, whatever was ruled on the model for that name until now."""
    record = sign_revocation(model_id, registered_name, reason, key)
    tags = {revocation_tag_of(registered_name): record, RULING_TAG: "REVOKED"}
    MlflowClient(tracking_uri=tracking_uri).set_logged_model_tags(model_id, tags)


def records_of(logged: LoggedModel, registered_name: str, trust: Trust) -> list[Record]:
    """The signed records that the logged model carries for that name. Raises `Refused` for one that is not right."""
    records = []
    for tag in (tag_of(registered_name), revocation_tag_of(registered_name)):
        if text := logged.tags.get(tag):
            try:
                records.append(read_record(text, trust))
            except EvidenceError as error:
                raise Refused(
                    f"model {logged.model_id}: its record {tag} does not count: {error}; judge it again"
                ) from error
    return records


def digest_of(logged: LoggedModel, tracking_uri: str | None) -> str:
    """The digest of the logged model's files as they lie there now. Raises `Refused` where they cannot be read."""
    try:
        with files(logged.artifact_location, tracking_uri) as folder:
            return model_digest(folder)
    except (ModelError, MlflowException, OSError) as error:
        why = " ".join(str(error).split())
        raise Refused(f"model {logged.model_id}: its files cannot be read by the gate ({why})") from error


@contextmanager
def artifacts(model_id: str, tracking_uri: str | None = None) -> Iterator[Path]:
    """The logged model's folder: the very one where it lies on this machine, else a copy while the context lasts."""
    logged = MlflowClient(tracking_uri=tracking_uri).get_logged_model(model_id)
    with files(logged.artifact_location, tracking_uri) as folder:
        yield folder


@contextmanager
def files(location: str, tracking_uri: str | None) -> Iterator[Path]:
    """The same for an artifact location."""
    if is_local_uri(location):
        yield Path(local_file_uri_to_path(location))
        return
    if in_server() and location.startswith("mlflow-artifacts:"):  # this server serves them: ask its own storage
        repository = handlers()._get_artifact_repo_mlflow_artifacts()
        path = handlers()._get_proxied_run_artifact_destination_path(location)
    else:
        repository, path = get_artifact_repository(location, tracking_uri=tracking_uri), ""
    with tempfile.TemporaryDirectory(prefix="skewguard-") as copy:
        yield Path(repository.download_artifacts(path, copy))
