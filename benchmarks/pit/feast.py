"""Feast's own offline stores: definitions and registry beforehand, `get_historical_features` timed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.repo_config import RegistryConfig
from feast.types import Float64, Int64

from benchmarks.pit import arrow
from benchmarks.pit.task import Task

VALUE_TYPES = {"bigint": ValueType.INT64, "varchar": ValueType.STRING}
TYPES = {"double": Float64, "bigint": Int64}


def prepare(task: Task, store: str) -> Callable[[Path], dict[str, float]]:
    """What is timed. Rows carry the number of their ask, because Feast returns them in another order; putting them
    back is timed, and told apart. Rows that it lost stay lost: then the numbers stay in the answer, as `ord`. The
    registry lies in a temporary folder, which the race removes.
    """
    folder = Path(tempfile.mkdtemp()).resolve()
    registry = _apply(task, store, folder)
    features = [f"{view.name}:{name}" for view in task.views for name in view.features]

    def run(out: Path) -> dict[str, float]:
        asks = pq.read_table(task.asks, columns=task.columns)
        entity_df = asks.append_column("ord", pa.array(np.arange(asks.num_rows))).to_pandas()
        answer = registry.get_historical_features(
            entity_df, features, full_feature_names=True, filter_by_created_timestamp=task.known
        ).to_arrow()
        began = time.perf_counter()
        answer = answer.take(pa.array(np.argsort(answer["ord"].to_numpy())))
        ordering = time.perf_counter() - began
        named = [name.replace(":", "__") for name in features]
        lost = answer.num_rows < asks.num_rows
        arrow.write(answer.select([*task.columns, *named, *(["ord"] if lost else [])]), task, out)
        return {"order": ordering}

    return run


def _apply(task: Task, store: str, folder: Path) -> FeatureStore:
    entities = {key: Entity(name=key, join_keys=[key], value_type=VALUE_TYPES[kind]) for key, kind in task.keys.items()}
    views = [
        FeatureView(
            name=view.name,
            entities=[entities[view.key]],
            ttl=timedelta(microseconds=view.ttl_us),
            schema=[Field(name=name, dtype=TYPES[kind]) for name, kind in view.features.items()],
            source=FileSource(
                name=f"{view.name}_rows",
                path=str(Path(view.path).resolve()),
                timestamp_field="event_time",
                created_timestamp_column="created_time",
            ),
        )
        for view in task.views
    ]
    config = RepoConfig(
        project="pit",
        provider="local",
        registry=RegistryConfig(path=str(folder / "registry.db")),
        offline_store={"type": store},
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    registry = FeatureStore(config=config)
    registry.apply([*entities.values(), *views])
    return registry
