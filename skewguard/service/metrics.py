"""What Prometheus sees. Counted here (`tallies`), and told to the client library when somebody looks.

With several workers the library keeps its values in files below `PROMETHEUS_MULTIPROC_DIR`, which `workers` sets.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess, values

from skewguard.answer import Log
from skewguard.definitions import Bundle
from skewguard.model import Model
from skewguard.service.answers import Answers
from skewguard.service.log_metrics import LogMetrics
from skewguard.service.tallies import Count, Seen, Statuses, Tally, Timed
from skewguard.spine import ViewRows
from skewguard.values import Status

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_STAGES = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_AGES = (1, 10, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 7 * 86400, 30 * 86400)
_NOT_FOUND = int(Status.NOT_FOUND)
STAGES = ("queue", "store", "answer", "log", "encode")


class Metrics:
    """The Prometheus metrics of one server, of one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        own = self._registry = CollectorRegistry()
        self._bundle = bundle
        service = bundle.service
        self._codes: dict[int, Count] = {}
        self._named: Gauge | None = None
        self._requests = Counter("skewguard_requests", "Requests by outcome.", ["service", "code"], registry=own)
        self._shed = Counter("skewguard_shed", "Requests turned away, by reason.", ["reason"], registry=own)
        duration = Histogram(
            "skewguard_request_duration_seconds", "From body to response.", ["service"], buckets=_SECONDS, registry=own
        )
        self._duration = Seen(duration.labels(service))
        stages = Histogram(
            "skewguard_stage_duration_seconds", "A micro-batch's time.", ["stage"], buckets=_STAGES, registry=own
        )
        self._stages = {stage: Seen(stages.labels(stage)) for stage in STAGES}
        self._rows = Seen(Histogram("skewguard_batch_rows", "Rows of a micro-batch.", buckets=_ROWS, registry=own))
        ages = Histogram(
            "skewguard_feature_age_seconds",
            "How long before the request the oldest row served in a micro-batch became true.",
            ["view"],
            buckets=_AGES,
            registry=own,
        )
        self._ages = {view.name: Seen(ages.labels(view.name)) for view in bundle.views}
        lag = Gauge(
            "skewguard_view_lag_seconds",
            "How far the view's writer was behind the last request.",
            ["view"],
            registry=own,
            multiprocess_mode="max",
        )
        self._lag = {view.name: lag.labels(view.name) for view in bundle.views}
        self._lags: dict[str, float] = {}
        self._by_feature = Statuses(
            Counter(
                "skewguard_feature_status",
                "Served values by status.",
                ["service", "feature", "status"],
                registry=own,
            ),
            service,
            list(bundle.dtypes),
        )
        self._by_view = Statuses(
            Counter("skewguard_view_status", "Served rows by status.", ["service", "view", "status"], registry=own),
            service,
            [view.name for view in bundle.views],
        )
        self._frames, self._logged, self._unlogged = (
            Count(Counter(f"skewguard_log_{what}", said, ["service"], registry=own).labels(service))
            for what, said in (
                ("frames", "Micro-batches in the serving log."),
                ("rows", "Rows in the serving log."),
                ("missed_rows", "Rows answered that the log did not take."),
            )
        )
        self._log = LogMetrics(own, service)
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
        for outcome in ("swapped", "refused"):
            self._swaps.labels(outcome)
        for reason in ("overloaded", "rate", "unauthorized", "too_large"):
            self._shed.labels(reason)

    def stage(self, name: str) -> Timed:
        """Times one stage of a micro-batch, unless it raises."""
        return Timed(self._stages[name])

    def waited(self, seconds: float) -> None:
        """How long the first request of a micro-batch waited for it."""
        self._stages["queue"].add(seconds)

    def request(self, code: int, seconds: float) -> None:
        """One question, answered or not."""
        count = self._codes.get(code)
        if count is None:
            count = self._codes[code] = Count(self._requests.labels(self._bundle.service, str(code)))
        count.add()
        self._duration.add(seconds)

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
        self._rows.add(n)
        if logged:
            self._frames.add()
            self._logged.add(n)
        else:
            self._unlogged.add(n)
        self._by_feature.add(n, answers.statuses[answers.lacking] if answers.lacking else None)
        by_view = np.array([served.views[view.name].status for view in self._bundle.views]).T
        self._by_view.add(n, by_view[by_view.any(axis=1)] if by_view.any() else None)
        self._freshness(served.views, served.spine.as_of)

    def _freshness(self, views: Mapping[str, ViewRows], as_of: npt.NDArray[np.int64]) -> None:
        for name, rows in views.items():
            now, watermark = int(as_of[-1]), int(rows.watermark[-1])
            if watermark > 0:
                self._lags[name] = (now - watermark) / 1e6
            events = rows.event[rows.status < _NOT_FOUND] if rows.status.any() else rows.event
            if len(events):
                self._ages[name].add(max(0, now - int(events.min())) / 1e6)

    def text(self, log: Log) -> bytes:
        """The exposition format; of all workers where there are several."""
        self.flush(log)
        if values.ValueClass is values.MutexValue:  # the library keeps them in this process
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        multiprocess.MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)

    def flush(self, log: Log) -> None:
        """Hand over what was counted since the last time, here and by the log."""
        tallies: list[Tally] = [self._frames, self._logged, self._unlogged, self._rows, self._duration]
        tallies += [*self._codes.values(), *self._stages.values(), *self._ages.values()]
        for tally in (*tallies, self._by_feature, self._by_view):
            tally.flush()
        for name, seconds in self._lags.items():
            self._lag[name].set(seconds)
        self._log.take(log)
