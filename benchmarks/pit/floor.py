"""The floor: per view one ASOF on (event, created), then one join by the number of the ask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.pit import sql
from benchmarks.pit.task import Task


def prepare(task: Task) -> Callable[[Path], None]:
    """What is timed."""

    def run(out: Path) -> None:
        with sql.connect(task) as con:
            for view in task.views:
                con.execute(
                    f"CREATE TEMP TABLE {view.name} AS SELECT a.ord, {sql.features(view)} "
                    f"FROM asks a ASOF JOIN read_parquet('{view.path}') f ON a.{view.key} = f.{view.key} "
                    "AND ROW(a.event_timestamp, 'infinity'::TIMESTAMPTZ) >= ROW(f.event_time, f.created_time) "
                    f"WHERE {sql.is_fresh(view, 'f.event_time')}"
                )
            sql.write_answer(con, task, out)

    return run
