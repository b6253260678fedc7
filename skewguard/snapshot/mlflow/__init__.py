"""Lineage: MLflow is told on which snapshot a logged model was trained. The gate asks for none of it."""

from __future__ import annotations

import json
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from skewguard.errors import SnapshotError
from skewguard.model import FEATURES_KEY, SNAPSHOT_KEY
from skewguard.snapshot.frozen import Snapshot
from skewguard.snapshot.mlflow.source import SOURCE_TYPE, SnapshotSource, make_known

__all__ = ["SnapshotSource", "bind"]

_DIGEST = 36  # MLflow's limit


def bind(snapshot: Snapshot, info: Any, tracking_uri: str | None = None) -> None:
    """Tag the logged model `info` (`log_model`'s answer, or its id) and its run with `snapshot`, the run's dataset.

    Raises `SnapshotError` where the model names another snapshot, or was fitted on other columns.
    """
    make_known()
    client = MlflowClient(tracking_uri=tracking_uri)
    model_id = info if isinstance(info, str) else str(info.model_id)
    logged = client.get_logged_model(model_id)
    metadata = getattr(info, "metadata", None) or {}
    others = [metadata.get(SNAPSHOT_KEY), logged.tags.get(SNAPSHOT_KEY)]
    named = [str(one) for one in others if one not in (None, snapshot.id)]
    if named:
        raise SnapshotError(f"model {model_id} was trained on snapshot {named[0][:16]}, not {snapshot.id[:16]}")
    features = metadata.get(FEATURES_KEY)
    if features and tuple(features) != snapshot.bundle.vector:
        raise SnapshotError(f"model {model_id} was fitted on other columns than snapshot {snapshot.id[:16]} has")
    tags = {
        SNAPSHOT_KEY: snapshot.id,
        "skewguard.bundle": snapshot.bundle.digest,
        "skewguard.service": snapshot.bundle.service,
    }
    client.set_logged_model_tags(model_id, tags)
    if logged.source_run_id:
        client.log_batch(logged.source_run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        client.log_inputs(logged.source_run_id, [_dataset(snapshot)])


def _dataset(snapshot: Snapshot) -> DatasetInput:
    manifest = snapshot.manifest
    facts = {"rows": manifest.rows, "since": manifest.since, "until": manifest.until, "rule": manifest.rule}
    dataset = Dataset(
        name=manifest.service,
        digest=snapshot.id[:_DIGEST],
        source_type=SOURCE_TYPE,
        source=SnapshotSource(str(snapshot.place), snapshot.id).to_json(),
        profile=json.dumps(facts),
    )
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])
