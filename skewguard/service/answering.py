"""One request on its way: parse -> look up -> answer -> log. Nothing is answered that is not logged."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from skewguard.answer import Log, Served, answer, schema, to_batch
from skewguard.definitions import Bundle
from skewguard.errors import AskError, LogError, StoreUnavailable
from skewguard.model import Model
from skewguard.online import Lookup
from skewguard.service.asks import parse_ask
from skewguard.spine import Spine, ViewRows
from skewguard.values import NO_TIME, Status

_ERROR = int(Status.ERROR)  # statuses are bytes: looked for in all of a view's at once
_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


class Unanswered(Exception):
    """A request that gets no answer: the HTTP status, a code for machines, a sentence for people."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        self.status, self.code, self.detail = status, code, detail
        super().__init__(detail)


class Metrics:
    """The Prometheus metrics of one server."""

    def __init__(self) -> None:
        own = CollectorRegistry()
        self.registry = own
        self.requests = Counter("skewguard_requests", "Requests by outcome.", ["service", "code"], registry=own)
        self.duration = Histogram(
            "skewguard_request_duration_seconds", "From body to response.", ["service"], buckets=_BUCKETS, registry=own
        )
        self.statuses = Counter(
            "skewguard_view_status", "Served rows by status of a view.", ["service", "view", "status"], registry=own
        )
        self.lag = Gauge(
            "skewguard_view_lag_seconds",
            "How far the view's writer was behind the last request.",
            ["view"],
            registry=own,
        )
        self.logged = Counter("skewguard_log_rows", "Rows in the serving log.", ["service"], registry=own)


@dataclass(frozen=True)
class Answering:
    """All that a request needs. `clock` gives microseconds UTC; `accept_as_of` lets a request name its own instant."""

    bundle: Bundle
    lookup: Lookup
    log: Log
    model: Model | None
    accept_as_of: bool
    clock: Callable[[], int]
    metrics: Metrics = field(default_factory=Metrics)

    @cached_property
    def schema(self) -> pa.Schema:
        """The log's schema."""
        return schema(self.bundle)

    def serve(
        self, entities: Mapping[str, Any], request_id: str | None, as_of: datetime | None, model: Model | None
    ) -> Served:
        """Answer one ask and have it in the log; raises `AskError` or `Unanswered`, and then nothing is logged."""
        if as_of is not None and not self.accept_as_of:
            raise AskError("as_of", "this server answers as of its own clock; leave as_of out")
        now = self.clock() if as_of is None else (as_of - _EPOCH) // timedelta(microseconds=1)
        spine = parse_ask(self.bundle, entities, request_id or uuid.uuid4().hex, now)
        served = answer(self.bundle, spine, self._look_up(spine), model)
        if served.prediction is not None and not np.isfinite(served.prediction[0]):
            raise Unanswered(503, "model_unavailable", f"the model gave {served.prediction[0]}, which is no prediction")
        try:
            self.log.append(to_batch(self.bundle, served, self.schema))
        except LogError as error:
            raise Unanswered(503, "log_unavailable", str(error)) from error
        self._observe(served)
        return served

    def _look_up(self, spine: Spine) -> Mapping[str, ViewRows]:
        """What the store holds; raises `Unanswered` rather than let nulls stand for what it did not say."""
        try:
            views = self.lookup.answer(spine)
        except StoreUnavailable as error:
            raise Unanswered(503, "store_unavailable", str(error)) from error
        empty = [view for view, rows in views.items() if rows.watermark[0] == NO_TIME]
        if empty:
            reason = f"{', '.join(empty)} never materialized to the online store {self.lookup.store.url}"
            raise Unanswered(503, "store_unavailable", reason)
        failed = [
            view
            for view, rows in views.items()
            if _ERROR in b"".join([rows.status.data, *(column.status.data for column in rows.features.values())])
        ]
        if failed:
            reason = f"the online store holds rows of {', '.join(failed)} that no known layout explains"
            raise Unanswered(503, "store_unreadable", reason)
        return views

    def check(self) -> None:
        """Raise `Unanswered` unless the store holds every view and the log can be written."""
        try:
            self.lookup.ready()
            self.log.check()
        except StoreUnavailable as error:
            raise Unanswered(503, "store_unavailable", str(error)) from error
        except LogError as error:
            raise Unanswered(503, "log_unavailable", str(error)) from error

    def _observe(self, served: Served) -> None:
        self.metrics.logged.labels(self.bundle.service).inc(len(served.spine))
        for view, rows in served.views.items():
            status = Status(int(rows.status[0])).name.lower()
            self.metrics.statuses.labels(self.bundle.service, view, status).inc()
            if rows.watermark[0] > 0:
                self.metrics.lag.labels(view).set((int(served.spine.as_of[0]) - int(rows.watermark[0])) / 1e6)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
