"""The MLflow part of a model card: what the tracking store knows of a logged model, and where its card lies.

A card is an artifact of the run that logged the model, never of the model itself: its files are what was judged.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from skewguard.errors import EvidenceError
from skewguard.gate.keys import Trust
from skewguard.gate.mlflow.logged import digest_of, records_of
from skewguard.gate.record import Record

FOLDER = "skewguard/card"
"""The folder of a run's artifacts that holds the cards of its models."""

TRAINED_UNTIL_TAG = "skewguard.trained_until"
"""The tag of a run that says until which ask its model was trained: what was asked later is held out."""


@dataclass(frozen=True, slots=True)
class Logged:
    """A logged model as the tracking store has it. `logged_at` and `trained_until` are ISO texts, UTC, the latter empty
    where nobody said; `record` is the newest signed one for the name, None where there is none."""

    model_id: str
    run_id: str
    digest: str
    logged_at: str
    trained_until: str
    metrics: tuple[tuple[str, float], ...]
    parameters: tuple[tuple[str, str], ...]
    record: Record | None


def look(model_id: str, registered_name: str, trust: Trust, tracking_uri: str | None = None) -> Logged:
    """What is known of the logged model and its verdict for that name; raises `Refused` where a record is not right."""
    client = MlflowClient(tracking_uri=tracking_uri)
    try:
        logged = client.get_logged_model(model_id)
        run = client.get_run(logged.source_run_id) if logged.source_run_id else None
    except MlflowException as error:
        raise EvidenceError(f"model {model_id}: {' '.join(str(error).split())}") from error
    records = records_of(logged, registered_name, trust)
    metrics = {metric.key: metric.value for metric in logged.metrics or ()}
    given = run.data if run else None
    return Logged(
        model_id,
        logged.source_run_id or "",
        digest_of(logged, tracking_uri),
        datetime.fromtimestamp(logged.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        given.tags.get(TRAINED_UNTIL_TAG, "") if given else "",
        tuple(sorted(((dict(given.metrics) if given else {}) | metrics).items())),
        tuple(sorted(((dict(given.params) if given else {}) | dict(logged.params or {})).items())),
        max(records, key=lambda record: record.signed_at, default=None),
    )


def verdict_digest(record: Record) -> str:
    """The digest of the whole verdict, of which the record holds what binds it; the signature was checked before."""
    payload = json.loads(base64.b64decode(json.loads(record.text)["payload"]))
    return str(payload.get("verdict", ""))


def version_of(model_id: str, registered_name: str, registry_uri: str | None, tracking_uri: str | None) -> str:
    """The newest registered version of that name that is this logged model; empty where there is none."""
    client = MlflowClient(tracking_uri, registry_uri)
    name = registered_name.replace("'", "\\'")
    try:
        found = client.search_model_versions(f"name='{name}'")
    except MlflowException:
        return ""
    own = [int(one.version) for one in found if (one.source or "").rstrip("/") == f"models:/{model_id}"]
    return str(max(own)) if own else ""


def log_card(run_id: str, folder: str, files: Mapping[str, str], tracking_uri: str | None = None) -> str:
    """Write texts (by file name) among the run's artifacts, under `folder` of the cards; returns where."""
    client = MlflowClient(tracking_uri=tracking_uri)
    where = f"{FOLDER}/{folder}"
    for name, text in files.items():
        client.log_text(run_id, text, f"{where}/{name}")
    return where


def describe(
    registered_name: str, version: str, text: str, registry_uri: str | None, tracking_uri: str | None = None
) -> bool:
    """Make `text` the version's description, which MLflow shows as Markdown, unless somebody wrote another one."""
    client = MlflowClient(tracking_uri, registry_uri)
    present = client.get_model_version(registered_name, version).description or ""
    if present and not present.startswith(text.partition("\n")[0]):
        return False
    client.update_model_version(registered_name, version, text)
    return True
