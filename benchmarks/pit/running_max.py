"""As known at the ask: one ASOF on known time, onto the running maximum of (event, created). See docs/offline.md."""

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
                    "CREATE OR REPLACE TEMP TABLE source AS SELECT *, greatest(event_time, created_time) AS known "
                    f"FROM read_parquet('{view.path}')"
                )
                con.execute(
                    f"CREATE OR REPLACE TEMP TABLE timeline AS SELECT {view.key}, known, "
                    "max(struct_pack(event := event_time, created := created_time, row := rowid)) "
                    f"OVER (PARTITION BY {view.key} ORDER BY known "
                    "RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS best FROM source"
                )
                con.execute(
                    "CREATE OR REPLACE TEMP TABLE best AS SELECT a.ord, t.best.row AS row FROM asks a "
                    f"ASOF JOIN timeline t ON a.{view.key} = t.{view.key} AND a.event_timestamp >= t.known "
                    f"WHERE {sql.is_fresh(view, 't.best.event')}"
                )
                con.execute(
                    f"CREATE TEMP TABLE {view.name} AS SELECT ord, {sql.features(view)} "
                    "FROM best JOIN source f ON f.rowid = best.row"
                )
            sql.write_answer(con, task, out)

    return run
