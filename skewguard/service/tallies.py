"""What happens too often to tell the metrics library each time: kept here, and handed over when somebody looks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from prometheus_client import Counter, Histogram

from skewguard.values import Status

_MANY = 4096
_STATUSES = len(Status)


class Count:
    """How often something happened."""

    __slots__ = ("_child", "_count")

    def __init__(self, child: Counter) -> None:
        self._child, self._count = child, 0

    def add(self, count: int = 1) -> None:
        """So often more."""
        self._count += count

    def flush(self) -> None:
        """Into the counter."""
        count, self._count = self._count, 0
        self._child.inc(count)


class Tally(Protocol):
    """Something counted."""

    def flush(self) -> None:
        """Hand it over."""
        ...


class Seen:
    """Values for a histogram."""

    __slots__ = ("_child", "_values")

    def __init__(self, child: Histogram) -> None:
        self._child = child
        self._values: list[float] = []

    def add(self, value: float) -> None:
        """One more."""
        self._values.append(value)
        if len(self._values) >= _MANY:
            self.flush()

    def flush(self) -> None:
        """Into the histogram, as `observe` would one by one."""
        if not self._values:
            return
        values = np.array(self._values)
        self._values.clear()
        child = self._child
        places = np.searchsorted(child._upper_bounds, values)  # noqa: SLF001  (the library takes one at a time)
        for place, count in enumerate(np.bincount(places).tolist()):
            if count:
                child._buckets[place].inc(count)  # noqa: SLF001
        child._sum.inc(float(values.sum()))  # noqa: SLF001


class Timed:
    """A context whose time is seen, unless it raises; a generator's would cost as much as what it measures."""

    __slots__ = ("_began", "_seen")

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._seen.add(time.perf_counter() - self._began)


class Statuses:
    """Statuses counted as a matrix: a hundred counters per micro-batch would cost more than the answer."""

    def __init__(self, counter: Counter, service: str, names: Sequence[str]) -> None:
        self._counter, self._service, self._names = counter, service, names
        self._counts = np.zeros(len(names) * _STATUSES, dtype=np.int64)
        self._base = np.arange(len(names), dtype=np.int64) * _STATUSES
        self._whole = 0

    def add(self, rows: int, lacking: npt.NDArray[np.uint8] | None) -> None:
        """So many rows; `lacking` are the statuses, shape (m, names), of those of which not every value is present."""
        self._whole += rows
        if lacking is not None:
            self._whole -= len(lacking)
            self._counts += np.bincount((lacking + self._base).ravel(), minlength=len(self._counts))

    def flush(self) -> None:
        """Into the counter."""
        counts, self._counts = self._counts, np.zeros_like(self._counts)
        counts[self._base] += self._whole
        self._whole = 0
        for cell in np.flatnonzero(counts).tolist():
            name, status = divmod(cell, _STATUSES)
            said = Status(status).name.lower()
            self._counter.labels(self._service, self._names[name], said).inc(int(counts[cell]))
