"""What a log says of itself: numbers for whoever watches the process that writes it."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from skewguard.servinglog import segment as seg

_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Written:
    """One writer's counts since it was opened, and where it stands now.

    `frames`, `rows`, `bytes` (with headers) are in segments. `sealed_segments`: by this writer. `backlog_segments`:
    sealed files that lie in the service's folder, whoever wrote them; what `skewguard log compact` took goes after its
    grace. `unsynced_bytes` of the open segment have not been put on the disk by an fdatasync, and `waiting` appends
    wait for one (`durability="disk"`). `syncs` took `sync_seconds` in all.
    """

    frames: int
    rows: int
    bytes: int
    sealed_segments: int
    backlog_segments: int
    unsynced_bytes: int
    waiting: int
    syncs: int
    sync_seconds: float


@dataclass(frozen=True, slots=True)
class LogStats:
    """What was `written`; `lost_rows` were answered and are not in the log, `left_out_rows` are not in the sample."""

    written: Written
    lost_rows: int
    left_out_rows: int


class SyncTimes:
    """How long the disk took. One thread measures at a time; any may take."""

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0
        self._latest: deque[float] = deque(maxlen=_KEPT)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Time what is done within."""
        began = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - began
            self.count += 1
            self.seconds += took
            self._latest.append(took)

    def take(self) -> list[float]:
        """What was measured since the last time."""
        taken = []
        while self._latest:
            taken.append(self._latest.popleft())
        return taken


def sealed_in(folder: Path) -> int:
    """How many sealed segments lie in a service's folder; 0 where it cannot be read."""
    try:
        return sum(name.endswith(seg.SEALED) for name in os.listdir(folder))  # noqa: PTH208  (names are enough)
    except OSError:
        return 0
