"""Ours: `OfflineStore.write`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.pit.task import Task
from skewguard.contract import Contract
from skewguard.definitions import Feature, Key, Source, View
from skewguard.offline import OfflineStore, Rule
from skewguard.values import Dtype

DTYPES = {"double": Dtype.FLOAT64, "bigint": Dtype.INT64, "varchar": Dtype.STRING}


def prepare(task: Task) -> Callable[[Path], None]:
    """What is timed."""
    keys = {name: DTYPES[kind] for name, kind in task.keys.items()}
    rule = Rule.KNOWN if task.known else Rule.FEAST
    views = [
        View(
            name=view.name,
            keys=(Key(view.key, view.key, keys[view.key]),),
            features=tuple(Feature(name, name, DTYPES[kind], Contract()) for name, kind in view.features.items()),
            ttl_us=view.ttl_us,
            max_lag_us=0,
            source=Source(view.path, "event_time", "created_time"),
        )
        for view in task.views
    ]

    def run(out: Path) -> None:
        asks = pq.read_table(task.asks, columns=task.columns)
        with OfflineStore(views, rule) as store:
            store.write(asks, out)

    return run
