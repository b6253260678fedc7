"""Every ask with all rows of its key inside the TTL, of which the greatest (event, created) stays.

The maximum carries the row's number rather than its features: that is a fifth to a third faster.
"""

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
                con.execute(f"CREATE OR REPLACE TEMP TABLE source AS FROM read_parquet('{view.path}')")
                con.execute(
                    "CREATE OR REPLACE TEMP TABLE best AS SELECT a.ord, "
                    "max(struct_pack(event := f.event_time, created := f.created_time, row := f.rowid)) AS best "
                    f"FROM asks a JOIN source f ON a.{view.key} = f.{view.key} "
                    f"AND f.event_time <= a.event_timestamp AND {sql.is_fresh(view, 'f.event_time')} GROUP BY a.ord"
                )
                con.execute(
                    f"CREATE TEMP TABLE {view.name} AS SELECT ord, {sql.features(view)} "
                    "FROM best JOIN source f ON f.rowid = best.best.row"
                )
            sql.write_answer(con, task, out)

    return run
