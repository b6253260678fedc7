"""From the registry to the folder that the service loads: only what the gate admitted, verified again here.

    DIR/<digest>/       verified model folders, by the digest of their files
    DIR/current         the digest of the one to serve, replaced at once
    DIR/pull.json       what the last look found, for monitoring
    DIR/ledger.jsonl    the records that were seen, so that a revocation is not forgotten when its tag is taken away

A process of its own talks to MLflow, the service does not. What does not verify leaves `current` as it is.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from skewguard.errors import EvidenceError, Refused, SkewguardError
from skewguard.gate.admission import admit_to_load
from skewguard.gate.keys import load_trust
from skewguard.gate.ledger import Ledger, newest
from skewguard.gate.mlflow.logged import files, records_of
from skewguard.gate.mlflow.store import LOGGED_MODEL
from skewguard.gate.record import VERDICT_TAG, Record, read_record
from skewguard.gate.webhook import post
from skewguard.model import load_model, model_digest

CURRENT = "current"


@dataclass(frozen=True, slots=True)
class Registry:
    """What to pull (`models:/NAME@ALIAS` or `models:/NAME/VERSION`), whose signatures count, and where MLflow is."""

    uri: str
    trust: str
    registry_uri: str | None = None
    tracking_uri: str | None = None


@dataclass(frozen=True, slots=True)
class Pulled:
    """A verified model; `changed` says whether it was another one before."""

    name: str
    version: str
    model_id: str
    digest: str
    folder: str
    changed: bool


def pull(registry: Registry, out: str | Path) -> Pulled:
    """Verify the version that the URI leads to and make it current.

    Raises `Refused` where it was not admitted or is not the same any more, and leaves `current` as it is.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        pulled = _pull(registry, folder)
    except MlflowException as error:
        sentence = f"{registry.uri}: MLflow did not answer: {' '.join(error.message.split())}"
        _note(folder, registry, {"ok": False, "why": sentence})
        raise EvidenceError(sentence) from error
    except SkewguardError as error:
        _note(folder, registry, {"ok": False, "why": str(error)})
        raise
    _note(folder, registry, {"ok": True, "version": pulled.version, "digest": pulled.digest})
    return pulled


def watch(
    registry: Registry,
    out: str | Path,
    *,
    every: float,
    webhook: str | None = None,
    tell: Callable[[str], None],
    rounds: int | None = None,
) -> None:
    """Pull again and again, `every` so many seconds; tell and post what changes and what is refused, once each."""
    said = ""
    while rounds is None or rounds > 0:
        rounds = None if rounds is None else rounds - 1
        try:
            pulled = pull(registry, out)
            now = f"serving version {pulled.version} of {pulled.name!r}, digest {pulled.digest[:16]}"
            alarm = False
        except SkewguardError as error:
            now, alarm = f"the model that is served stays: {error}", True
        if now != said:
            tell(now)
            if alarm and webhook and (complaint := post(webhook, f"skewguard pull {registry.uri}: {now}")):
                tell(complaint)
        said = now
        if rounds != 0:
            time.sleep(every)


def _pull(registry: Registry, out: Path) -> Pulled:
    client = MlflowClient(registry.tracking_uri, registry.registry_uri)
    version = _version(client, registry.uri)
    match = LOGGED_MODEL.fullmatch(version.source or "")
    if match is None:
        raise Refused(
            f"version {version.version} of {version.name!r} was not made of a logged model: {version.source!r}"
        )
    logged = client.get_logged_model(match[1])
    trust = load_trust(registry.trust)
    records = records_of(logged, version.name, trust)
    if text := version.tags.get(VERDICT_TAG):
        records.append(_admission(text, version, registry))
    record = newest(Ledger(out / "ledger.jsonl").remember(records), logged.model_id, version.name, trust)
    with tempfile.TemporaryDirectory(dir=out, prefix=".part-") as part:
        copy = Path(part) / "model"
        with files(logged.artifact_location, registry.tracking_uri) as lies:
            shutil.copytree(lies, copy)
        digest = model_digest(copy)
        asked = {"registered_name": version.name, "model_id": logged.model_id, "model_digest": digest}
        admit_to_load(record, **asked)
        load_model(copy, expected_digest=digest)  # what the service could not load is not served
        kept = out / digest
        if not kept.exists():
            copy.rename(kept)
    before = (out / CURRENT).read_text().strip() if (out / CURRENT).exists() else ""
    if before != digest:
        _replace(out / CURRENT, digest + "\n")
    return Pulled(version.name, str(version.version), logged.model_id, digest, str(kept), before != digest)


def _version(client: MlflowClient, uri: str) -> ModelVersion:
    name, at, alias = uri.removeprefix("models:/").rpartition("@")
    if uri.startswith("models:/") and at and name:
        return client.get_model_version_by_alias(name, alias)
    name, _, number = uri.removeprefix("models:/").rpartition("/")
    if uri.startswith("models:/") and name and number.isdigit():
        return client.get_model_version(name, number)
    raise Refused(f"expected models:/NAME@ALIAS or models:/NAME/VERSION, got {uri!r}: what is served bears a name")


def _admission(text: str, version: ModelVersion, registry: Registry) -> Record:
    try:
        return read_record(text, load_trust(registry.trust))
    except EvidenceError as error:
        raise Refused(f"version {version.version} of {version.name!r}: its record does not count: {error}") from error


def _note(out: Path, registry: Registry, found: dict[str, object]) -> None:
    about = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "uri": registry.uri}
    _replace(out / "pull.json", json.dumps(about | found, indent=1) + "\n")


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)
