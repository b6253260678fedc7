"""A Feast repository in a folder, whose offline store is the plugin."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, OnDemandFeatureView, RepoConfig, ValueType
from feast.data_source import DataSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.repo_config import RegistryConfig

from skewguard.definitions import Bundle
from skewguard.definitions.feast import compile_service
from skewguard.offline.feast.job import SkewguardRetrievalJob

STORE = "skewguard.offline.feast.SkewguardOfflineStore"
NOW = datetime(2026, 1, 10, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)
EVENT = "event_timestamp"
BIG = 2**53 + 1
STAMP = pa.timestamp("us", tz="UTC")

_numbers = itertools.count()


class Repo:
    """A Feast repository in a folder of its own, whose offline store is the plugin."""

    def __init__(self, folder: Path, **offline: Any) -> None:
        self.folder = folder
        self.store = FeatureStore(
            config=RepoConfig(
                project="plugin",
                provider="local",
                registry=RegistryConfig(path=str(folder / "registry.db")),
                offline_store={"type": STORE} | offline,
                online_store={"type": "sqlite", "path": str(folder / "online.db")},
                entity_key_serialization_version=3,
                repo_path=folder,
            )
        )
        yaml = {
            "project": "plugin",
            "provider": "local",
            "registry": "registry.db",
            "offline_store": {"type": STORE} | offline,
            "online_store": {"type": "sqlite", "path": "online.db"},
            "entity_key_serialization_version": 3,
        }
        (folder / "feature_store.yaml").write_text(json.dumps(yaml))

    def bundle(self, service: str) -> Bundle:
        """The feature service, compiled from what was applied."""
        return compile_service(self.folder, service)

    def source(self, columns: Mapping[str, Any], *, path: str = "", **kinds: Any) -> FileSource:
        """A Parquet file of these columns; datetimes are written as microseconds in UTC."""
        path = path or f"rows-{next(_numbers)}.parquet"
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows(**columns), target)
        created = "created" if "created" in columns else ""
        return FileSource(
            **({"path": str(target), "timestamp_field": EVENT, "created_timestamp_column": created} | kinds)
        )

    def view(
        self,
        source: DataSource,
        schema: Mapping[str, Any],
        keys: Mapping[str, ValueType] | None = None,
        *,
        name: str = "fv",
        ttl: timedelta = timedelta(0),
    ) -> FeatureView:
        """A feature view, applied; `keys` is one driver unless it is said."""
        keys = {"driver": ValueType.INT64} if keys is None else keys
        entities = [Entity(name=key, join_keys=[key], value_type=kind) for key, kind in keys.items()]
        fields = [Field(name=feature, dtype=dtype) for feature, dtype in schema.items()]
        view = FeatureView(name=name, entities=entities, ttl=ttl, schema=fields, source=source)
        self.store.apply([*entities, view])
        return view

    def ask(self, asks: Mapping[str, Any] | pd.DataFrame, features: Any, **how: Any) -> SkewguardRetrievalJob:
        """Historical features of these asks."""
        frame = asks if isinstance(asks, pd.DataFrame) else pd.DataFrame(dict(asks))
        refs = [features] if isinstance(features, str) else features
        job = self.store.get_historical_features(entity_df=frame, features=refs, **how)
        assert isinstance(job, SkewguardRetrievalJob)
        return job

    def values(self, asks: Mapping[str, Any] | pd.DataFrame, features: str, **how: Any) -> list[Any]:
        """The values of one feature, in the order of the asks."""
        column: list[Any] = self.ask(asks, features, **how).to_arrow()[features.partition(":")[2]].to_pylist()
        return column


def rows(**columns: Any) -> pa.Table:
    """A table; lists of datetimes become `timestamp[us, UTC]`."""
    return pa.table({name: array(values) for name, values in columns.items()})


def array(values: Any) -> Any:
    """Values as a column; datetimes as microseconds in UTC."""
    if isinstance(values, pa.Array):
        return values
    if any(isinstance(value, datetime) for value in values):
        return pa.array(values, STAMP)
    return pa.array(values)


def on_demand(**declared: Any) -> Callable[[Callable[..., Any]], OnDemandFeatureView]:
    """Feast's decorator, which has no types."""
    decorate: Callable[[Callable[..., Any]], OnDemandFeatureView] = on_demand_feature_view(**declared)
    return decorate


def one(**columns: Any) -> dict[str, Any]:
    """One row of driver 1, an hour old."""
    return {"driver": [1], EVENT: [NOW - HOUR]} | columns


ASK = {"driver": [1], EVENT: [NOW]}
