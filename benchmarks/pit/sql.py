"""What the formulations on DuckDB share: the numbered asks, and one join by their number at the end."""

from __future__ import annotations

from pathlib import Path

import duckdb

from benchmarks.pit.task import Task, ViewFile


def connect(task: Task) -> duckdb.DuckDBPyConnection:
    """A connection with the table `asks`: `ord` and the columns of the asks."""
    con = duckdb.connect(":memory:")
    con.execute("SET TimeZone='UTC'")
    con.execute(
        f"CREATE TEMP TABLE asks AS SELECT file_row_number AS ord, {', '.join(task.columns)} "
        f"FROM read_parquet('{task.asks}', file_row_number = true)"
    )
    return con


def features(view: ViewFile) -> str:
    """The features of `f`, by their full names."""
    return ", ".join(f'f."{name}" AS "{view.name}__{name}"' for name in view.features)


def is_fresh(view: ViewFile, event: str) -> str:
    """The condition that `event` has not outlived its TTL at the ask `a`."""
    return f"{event} >= a.event_timestamp - to_microseconds({view.ttl_us})"


def write_answer(con: duckdb.DuckDBPyConnection, task: Task, out: Path) -> None:
    """Join the asks with the table of every view (its name; `ord` and features) and write them in order.

    Without ORDER BY the asks come out in blocks, whichever side of the join they are on. Dictionaries are of no use to
    doubles, and trying costs half of the writing.
    """
    columns = [f"a.{column}" for column in task.columns]
    columns += [f'{view.name}."{view.name}__{name}"' for view in task.views for name in view.features]
    joins = " ".join(f"LEFT JOIN {view.name} ON {view.name}.ord = a.ord" for view in task.views)
    con.execute(
        f"COPY (SELECT {', '.join(columns)} FROM asks a {joins} ORDER BY a.ord) "
        f"TO '{out}' (FORMAT parquet, DICTIONARY_SIZE_LIMIT 1)"
    )
