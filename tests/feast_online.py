"""Small Feast repositories on skewguard's online store: one entity, one view, over a file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
STORE = "skewguard.online.feast.SkewguardOnlineStore"
ENGINE = "skewguard.online.feast.SkewguardEngine"


@contextmanager
def repositories(folder: Path, url: str) -> Iterator[Any]:
    """A function that opens a repository on the store at `url`; `engine` is ours unless told otherwise."""
    made: list[FeatureStore] = []

    def build(*objects: Any, engine: Any = None, **online: Any) -> FeatureStore:
        settings: dict[str, Any] = {"entity_key_serialization_version": 3, "provider": "local"}
        config = RepoConfig(
            project="shop",
            registry=str(folder / "registry.db"),
            repo_path=str(folder),
            online_store={"type": STORE, "url": url} | online,
            offline_store={"type": "skewguard.offline.feast.SkewguardOfflineStore"},
            batch_engine=engine or {"type": ENGINE},
            **settings,
        )
        store = FeatureStore(config=config)
        store.apply(list(objects))
        made.append(store)
        return store

    yield build
    for store in made:
        asyncio.run(store._get_provider().online_store.close())


def table(path: Path, ids: Sequence[Any], at: Sequence[datetime], **columns: Any) -> str:
    """A Parquet file of these columns."""
    arrays = {name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()}
    made = {"driver_id": pa.array(ids), "event_timestamp": pa.array(at, pa.timestamp("us", tz="UTC")), **arrays}
    pq.write_table(pa.table(made), path)
    return str(path)


def driver_view(path: str, *, ttl: timedelta = 24 * HOUR, created: bool = False, **schema: Any) -> FeatureView:
    """The view `fv` over a file."""
    source = FileSource(
        path=path, timestamp_field="event_timestamp", created_timestamp_column="created" if created else ""
    )
    fields = [Field(name=name, dtype=dtype) for name, dtype in schema.items()]
    return FeatureView(name="fv", entities=[DRIVER], ttl=ttl, schema=fields, source=source)


def asked(store: FeatureStore, features: Sequence[str], *ids: Any) -> tuple[dict[str, list[Any]], dict[str, list[str]]]:
    """Values and statuses by feature."""
    response = store.get_online_features(
        features=[f"fv:{name}" for name in features], entity_rows=[{"driver_id": i} for i in ids]
    )
    named = zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True)
    said = {name: [FieldStatus.Name(code) for code in vector.statuses] for name, vector in named}
    return response.to_dict(), said


def trained(store: FeatureStore, feature: str, *ids: Any, at: datetime = NOW) -> list[Any]:
    """What historical retrieval gives, in the order of the ids."""
    import pandas as pd

    frame = pd.DataFrame({"driver_id": ids, "event_timestamp": [at] * len(ids)})
    values: list[Any] = (
        store.get_historical_features(frame, features=[feature]).to_arrow()[feature.partition(":")[2]].to_pylist()
    )
    return values
