"""Feast's dask store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.pit import feast
from benchmarks.pit.task import Task


def prepare(task: Task) -> Callable[[Path], dict[str, float]]:
    """What is timed."""
    return feast.prepare(task, "dask")
