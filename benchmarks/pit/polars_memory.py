"""polars with its in-memory engine: the same query."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.pit import polars
from benchmarks.pit.task import Task


def prepare(task: Task) -> Callable[[Path], None]:
    """What is timed."""
    return polars.prepare(task, engine="in-memory")
