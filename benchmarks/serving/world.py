"""The data that both servers serve: views of 10, 50 and 150 floats for the same keys, a model of 20 features."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewguard.contract import Contract
from skewguard.definitions import Bundle, Feature, Key, Source, View
from skewguard.model import FEATURES_KEY
from skewguard.online import Layout, open_store, pack
from skewguard.online.keys import layout_key, row_key, watermark_key
from skewguard.values import Column, Dtype

PROJECT = "bench"
WIDTHS = (10, 50, 150)
MODEL_WIDTH = 20


@dataclass(frozen=True)
class World:
    """Files below `root`, rows under databases 0 (ours) and 1 (Feast's) of a Redis server."""

    root: Path
    redis_url: str
    keys: int

    @property
    def store(self) -> str:
        """Our store."""
        return f"{self.redis_url}/0"

    def bundle(self, width: int) -> Path:
        """The bundle that serves `width` features."""
        return self.root / f"v{width}.bundle.json"


def build(root: Path, redis_url: str, keys: int, widths: tuple[int, ...]) -> World:
    """Write bundles, rows and a model; Feast's side only where it is installed."""
    world = World(root, redis_url, keys)
    now = time.time_ns() // 1000
    at = np.full(keys, now - 60_000_000, dtype=np.int64)
    store = open_store(world.store)
    values = {}
    for width in sorted({*widths, MODEL_WIDTH}):
        view, bundle = _definitions(width)
        bundle.save(world.bundle(width))
        values[width] = np.random.default_rng(width).normal(size=(width, keys))
        columns = [Column.build(Dtype.FLOAT64, column, np.zeros(keys, np.uint8)) for column in values[width]]
        layout = Layout.of(view)
        rows = pack(layout, at, at, now, columns)
        named = [(row_key(PROJECT, view, (key,)), row) for key, row in enumerate(rows)]
        mark = now.to_bytes(8, "big", signed=True)
        store.write(
            named, {watermark_key(PROJECT, view.name): mark, layout_key(PROJECT, layout.digest): layout.to_json()}
        )
    store.close()
    _feast(world, {width: values[width] for width in widths}, now - 60_000_000)
    _model(root / "model", MODEL_WIDTH)
    return world


def _definitions(width: int) -> tuple[View, Bundle]:
    features = tuple(Feature(f"f{i}", f"f{i}", Dtype.FLOAT64, Contract()) for i in range(width))
    keys = (Key("id", "id", Dtype.INT64),)
    view = View(f"v{width}", keys, features, 24 * 3600 * 1_000_000, 0, Source("none", "event_timestamp", "created"))
    return view, Bundle(PROJECT, f"s{width}", (view,), (), (), tuple(view.full_name(f.name) for f in features))


def _feast(world: World, values: dict[int, Any], at: int) -> None:
    """The same rows by Feast, in its own layout."""
    os.environ.setdefault("FEAST_USAGE", "False")
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64

    repo = world.root / "feast"
    repo.mkdir()
    settings = {
        "project": PROJECT, "provider": "local", "registry": str(repo / "registry.db"),
        "entity_key_serialization_version": 3, "offline_store": {"type": "file"},
        "online_store": {"type": "redis", "connection_string": f"{world.redis_url.partition('://')[2]},db=1"},
    }  # fmt: skip
    (repo / "feature_store.yaml").write_text(json.dumps(settings))
    store = FeatureStore(repo_path=str(repo))
    entity = Entity(name="id", join_keys=["id"], value_type=ValueType.INT64)
    for width, columns in values.items():
        source = FileSource(path=str(repo / f"v{width}.parquet"), timestamp_field="event_timestamp")
        stamps = pa.array(np.full(world.keys, at), pa.timestamp("us", tz="UTC"))
        table = {"id": pa.array(range(world.keys)), "event_timestamp": stamps}
        frame = pa.table(table | {f"f{i}": pa.array(column) for i, column in enumerate(columns)})
        pq.write_table(frame, repo / f"v{width}.parquet")
        schema = [Field(name=f"f{i}", dtype=Float64) for i in range(width)]
        view = FeatureView(name=f"v{width}", entities=[entity], ttl=timedelta(days=1), schema=schema, source=source)
        store.apply([entity, view])
        store.write_to_online_store(f"v{width}", df=frame.to_pandas())


def _model(folder: Path, width: int) -> None:
    """A scikit-learn booster of 100 trees with 31 leaves, as MLflow's flavor writes it."""
    import skops.io
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(7)
    matrix = rng.normal(size=(4000, width))
    labels = matrix[:, 0] * matrix[:, 1] + rng.normal(size=4000) > 0
    estimator = HistGradientBoostingClassifier(max_iter=100, max_leaf_nodes=31, random_state=0).fit(matrix, labels)
    folder.mkdir()
    skops.io.dump(estimator, folder / "model.skops")
    described = {
        "flavors": {"sklearn": {"pickled_model": "model.skops", "serialization_format": "skops", "code": None}},
        "model_id": "m-" + "1" * 32,
        "metadata": {FEATURES_KEY: [f"v{width}__f{i}" for i in range(width)]},
    }
    (folder / "MLmodel").write_text(json.dumps(described))  # JSON is YAML
