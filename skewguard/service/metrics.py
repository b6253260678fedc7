"""What Prometheus sees. Counted per micro-batch, written to the client library when somebody looks.

With several workers the library keeps its values in files below `PROMETHEUS_MULTIPROC_DIR`, which `workers` sets.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess, values

from skewguard.definitions import Bundle
from skewguard.model import Model
from skewguard.service.answers import NAMES, Answers
from skewguard.spine import ViewRows
from skewguard.values import Status

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_STAGES = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_AGES = (1, 10, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 7 * 86400, 30 * 86400)
_NEVER = np.iinfo(np.int64).max
_NOT_FOUND = int(Status.NOT_FOUND)
STAGES = ("queue", "store", "answer", "log", "encode")


class Metrics:
    """The Prometheus metrics of one server, of one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        own = self._registry = CollectorRegistry()
        self._bundle = bundle
        service = bundle.service
        self._codes: dict[int, Counter] = {}
        self._named: Gauge | None = None
        self._requests = Counter("skewguard_requests", "Requests by outcome.", ["service", "code"], registry=own)
        self._shed = Counter("skewguard_shed", "Requests turned away, by reason.", ["reason"], registry=own)
        duration = Histogram(
            "skewguard_request_duration_seconds", "From body to response.", ["service"], buckets=_SECONDS, registry=own
        )
        self._duration = duration.labels(service)
        stages = Histogram(
            "skewguard_stage_duration_seconds", "A micro-batch's time.", ["stage"], buckets=_STAGES, registry=own
        )
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        self._rows = Histogram("skewguard_batch_rows", "Rows of a micro-batch.", buckets=_ROWS, registry=own)
        ages = Histogram(
            "skewguard_feature_age_seconds",
            "How long before the request the oldest row served in a micro-batch became true.",
            ["view"],
            buckets=_AGES,
            registry=own,
        )
        self._ages = {view.name: ages.labels(view.name) for view in bundle.views}
        lag = Gauge(
            "skewguard_view_lag_seconds",
            "How far the view's writer was behind the last request.",
            ["view"],
            registry=own,
            multiprocess_mode="max",
        )
        self._lag = {view.name: lag.labels(view.name) for view in bundle.views}
        self._by_feature = _Statuses(
            Counter(
                "skewguard_feature_status",
                "Served values by status.",
                ["service", "feature", "status"],
                registry=own,
            ),
            service,
            list(bundle.dtypes),
        )
        self._by_view = _Statuses(
            Counter("skewguard_view_status", "Served rows by status.", ["service", "view", "status"], registry=own),
            service,
            [view.name for view in bundle.views],
        )
        self._frames = Counter("skewguard_log_frames", "Micro-batches in the serving log.", ["service"], registry=own)
        self._logged = Counter("skewguard_log_rows", "Rows in the serving log.", ["service"], registry=own)
        self._unlogged = Counter(
            "skewguard_log_missed_rows", "Rows answered that the log did not take.", ["service"], registry=own
        )
        self.breaker = Gauge(
            "skewguard_store_breaker_open",
            "1 while the online store is not asked, because it did not answer.",
            registry=own,
            multiprocess_mode="livemax",
        )
        self._model = Gauge(
            "skewguard_model_info",
            "1 for the model that answers.",
            ["model", "version"],
            registry=own,
            multiprocess_mode="livemax",
        )
        self._swaps = Counter("skewguard_model_swaps", "Models offered, by outcome.", ["outcome"], registry=own)
        self._children = {c: c.labels(service) for c in (self._frames, self._logged, self._unlogged)}
        for outcome in ("swapped", "refused"):
            self._swaps.labels(outcome)
        for reason in ("overloaded", "rate", "unauthorized", "too_large"):
            self._shed.labels(reason)

    def stage(self, name: str) -> _Stage:
        """Times one stage of a micro-batch, unless it raises."""
        return _Stage(self._stages[name])

    def waited(self, seconds: float) -> None:
        """How long the first request of a micro-batch waited for it."""
        self._stages["queue"].observe(seconds)

    def request(self, code: int, seconds: float) -> None:
        """One question, answered or not."""
        child = self._codes.get(code)
        if child is None:
            child = self._codes[code] = self._requests.labels(self._bundle.service, str(code))
        child.inc()
        self._duration.observe(seconds)

    def shed(self, reason: str) -> None:
        """One request that was turned away unread."""
        self._shed.labels(reason).inc()

    def swap(self, outcome: str, model: Model | None) -> None:
        """A model was offered; `model` is the one that answers from now on."""
        if outcome:
            self._swaps.labels(outcome).inc()
        if self._named is not None:
            self._named.set(0)
            self._named = None
        if model is not None:
            self._named = self._model.labels(self._bundle.service, model.model_id or model.digest[:16])
            self._named.set(1)

    def batch(self, answers: Answers, *, logged: bool = True) -> None:
        """One micro-batch, and whether it is in the log."""
        served = answers.served
        n = len(served.spine)
        self._rows.observe(n)
        if logged:
            self._children[self._frames].inc()
            self._children[self._logged].inc(n)
        else:
            self._children[self._unlogged].inc(n)
        self._by_feature.add(answers.statuses)
        self._by_view.add(np.array([served.views[view.name].status for view in self._bundle.views]).T)
        self._freshness(served.views, served.spine.as_of)

    def _freshness(self, views: Mapping[str, ViewRows], as_of: npt.NDArray[np.int64]) -> None:
        for name, rows in views.items():
            watermark = int(rows.watermark[-1])
            if watermark > 0:
                self._lag[name].set((int(as_of[-1]) - watermark) / 1e6)
            found = rows.status < _NOT_FOUND
            oldest = rows.event.min() if found.all() else rows.event[found].min(initial=_NEVER)
            if oldest != _NEVER:
                self._ages[name].observe(max(0, int(as_of[-1] - oldest)) / 1e6)

    def text(self) -> bytes:
        """The exposition format; of all workers where there are several."""
        self.flush()
        if values.ValueClass is values.MutexValue:  # the library keeps them in this process
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        multiprocess.MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)

    def flush(self) -> None:
        """Hand over what was counted since the last time."""
        self._by_feature.flush()
        self._by_view.flush()


class _Stage:
    """A context whose time is observed; a generator's would cost as much as what it measures."""

    __slots__ = ("_began", "_child")

    def __init__(self, child: Histogram) -> None:
        self._child = child

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._child.observe(time.perf_counter() - self._began)


class _Statuses:
    """Statuses counted as a matrix: a hundred counters per micro-batch would cost more than the answer."""

    def __init__(self, counter: Counter, service: str, names: list[str]) -> None:
        self._counter, self._service, self._names = counter, service, names
        self._counts = np.zeros(len(names) * len(Status), dtype=np.int64)
        self._base = np.arange(len(names), dtype=np.int64) * len(Status)

    def add(self, statuses: npt.NDArray[np.uint8]) -> None:
        """Shape (n, names)."""
        if not statuses.any():
            self._counts[self._base] += len(statuses)
        else:
            self._counts += np.bincount((statuses + self._base).ravel(), minlength=len(self._counts))

    def flush(self) -> None:
        """Into the counter."""
        counts, self._counts = self._counts, np.zeros_like(self._counts)
        for cell in np.flatnonzero(counts).tolist():
            name, status = divmod(cell, len(Status))
            self._counter.labels(self._service, self._names[name], NAMES[status]).inc(int(counts[cell]))
