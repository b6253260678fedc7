"""How every contestant that holds an Arrow table writes it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.pit.task import Task


def write(table: pa.Table, task: Task, out: Path) -> None:
    """Dictionaries for text only, statistics for the asks' own columns only: both are of no use to features in the
    order of the asks, and trying costs half of the writing.
    """
    texts = [name for name, kind in task.keys.items() if kind == "varchar"]
    pq.write_table(table, out, use_dictionary=texts, write_statistics=task.columns)
