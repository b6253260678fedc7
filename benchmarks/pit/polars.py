"""polars, streaming: rows sorted by (event, created), one `join_asof` per view, the asks back in their order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Literal

import polars as pl

from benchmarks.pit.task import Task


def prepare(task: Task, engine: Literal["streaming", "in-memory"] = "streaming") -> Callable[[Path], None]:
    """What is timed."""

    def run(out: Path) -> None:
        answers = pl.scan_parquet(task.asks).with_row_index("ord").sort("event_timestamp")
        for view in task.views:
            event = f"{view.name}__event_time"
            named = [pl.col(name).alias(f"{view.name}__{name}") for name in view.features]
            rows = (
                pl.scan_parquet(view.path)
                .select(view.key, pl.col("event_time").alias(event), "created_time", *named)
                .sort(event, "created_time")
                .drop("created_time")
            )
            answers = answers.join_asof(
                rows,
                left_on="event_timestamp",
                right_on=event,
                by=view.key,
                tolerance=timedelta(microseconds=view.ttl_us),
                check_sortedness=False,  # it cannot be checked by key, and would warn
            )
        features = [f"{view.name}__{name}" for view in task.views for name in view.features]
        answer = answers.sort("ord").select(*task.columns, *features).collect(engine=engine)
        answer.write_parquet(out, compression="snappy")

    return run
