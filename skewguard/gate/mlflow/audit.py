"""Check the gate's ledger, and hold the registry against it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from skewguard.errors import EvidenceError, SkewguardError
from skewguard.gate.keys import load_trust
from skewguard.gate.ledger import Entry, Ledger
from skewguard.gate.mlflow import LEDGER_TAG, Gate
from skewguard.gate.record import read_record
from skewguard.policy import load_policy


@dataclass(frozen=True, slots=True)
class Audited:
    """How many lines the ledger has, the hash of its last one, and what is wrong, a sentence each."""

    lines: int
    head: str
    problems: tuple[str, ...]


def audit_ledger(gate: Gate, registry_uri: str | None = None) -> Audited:
    """Check the chain and every record's signature; with a registry, that each governed version was admitted by a line.

    A ledger whose end was cut off is whole in itself: only the versions that lines admitted which are gone tell.
    """
    try:
        entries = Ledger(gate.ledger).entries()
    except EvidenceError as error:
        return Audited(0, "", (str(error),))
    problems = [*_records(gate, entries)]
    if registry_uri:
        problems += _versions(gate, entries, registry_uri)
    return Audited(len(entries), entries[-1].hash if entries else "", tuple(problems))


def _records(gate: Gate, entries: list[Entry]) -> Iterator[str]:
    trust = load_trust(gate.trust)
    for entry in entries:
        if entry.kind == "record":
            try:
                read_record(entry.body["envelope"], trust)
            except EvidenceError as error:
                yield f"line {entry.seq}: a record that does not count: {error}"


def _versions(gate: Gate, entries: list[Entry], registry_uri: str) -> Iterator[str]:
    admitted = {entry.place: entry for entry in entries if entry.kind == "admitted"}
    policy = load_policy(gate.policy)
    client = MlflowClient(gate.tracking, registry_uri)
    for model in client.search_registered_models():
        if not policy.governs_model(model.name):
            continue
        for version in client.search_model_versions(f"name = '{model.name}'"):
            if problem := _of_version(gate, version, admitted):
                yield f"version {version.version} of {version.name!r}: {problem}"


def _of_version(gate: Gate, version: ModelVersion, admitted: dict[str, Entry]) -> str:
    place = version.tags.get(LEDGER_TAG)
    if place is None:
        return "no line of the ledger admitted it: it was written past the gate, or while the gate only observed"
    entry = admitted.get(place)
    if entry is None:
        return f"it was admitted by line {place[:24]}, which is not in the ledger: its end was cut off"
    if entry.body["name"] != version.name or f"models:/{entry.body['model_id']}" != version.source:
        return (
            f"line {entry.seq} admitted model {entry.body['model_id']} to {entry.body['name']!r}, not {version.source}"
        )
    try:
        gate.ask_to_load(version.name, entry.body["model_id"])
    except SkewguardError as error:
        return str(error)
    return ""
