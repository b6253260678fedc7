"""What the serving log says of itself, in Prometheus' words; taken over when somebody looks, not per request."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from skewguard.answer import Log
from skewguard.servinglog import ServingLog

_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)


class LogMetrics:
    """The metrics of the logs that one server writes, one after another."""

    def __init__(self, registry: CollectorRegistry, service: str) -> None:
        self._bytes = Counter(
            "skewguard_log_bytes", "Bytes in the serving log.", ["service"], registry=registry
        ).labels(service)
        self._unsynced = Gauge(
            "skewguard_log_unsynced_bytes",
            "Bytes of the open segments that no fdatasync has put on the disk.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._backlog = Gauge(
            "skewguard_log_backlog_segments",
            "Sealed segments beside the log: not compacted, or not long ago.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._syncs = Histogram(
            "skewguard_log_fsync_duration_seconds",
            "An fdatasync of the log (--durability disk).",
            buckets=_SECONDS,
            registry=registry,
        )
        self._counted: WeakKeyDictionary[ServingLog, int] = WeakKeyDictionary()

    def take(self, log: Log) -> None:
        """Take over what a log has done since the last time. Of another kind of log nothing is known."""
        if not isinstance(log, ServingLog):
            return
        written = log.stats().written
        self._bytes.inc(max(0, written.bytes - self._counted.get(log, 0)))
        self._counted[log] = written.bytes
        self._unsynced.set(written.unsynced_bytes)
        self._backlog.set(written.backlog_segments)
        for seconds in log.take_sync_times():
            self._syncs.observe(seconds)
