"""What the service's metrics say of its log is what lies on the disk."""

from pathlib import Path

import pyarrow as pa
from prometheus_client import CollectorRegistry, generate_latest

from skewguard.service.log_metrics import LogMetrics
from skewguard.servinglog import ServingLog, read_log

SCHEMA = pa.schema([("id", pa.string())])


def row(name: str) -> pa.RecordBatch:
    """One row."""
    return pa.RecordBatch.from_pylist([{"id": name}], schema=SCHEMA)


def said(registry: CollectorRegistry) -> dict[str, float]:
    """Every sample by its name and labels."""
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_the_metrics_of_the_log_follow_it_over_a_model_swap(tmp_path: Path) -> None:
    """Bytes, backlog, what is not synced, and the time of each fdatasync; two logs of one server are added up."""
    registry = CollectorRegistry()
    metrics = LogMetrics(registry, "delay")
    with ServingLog(tmp_path, "delay", SCHEMA, {}, durability="disk") as first:
        for i in range(3):
            first.append(row(f"a{i}"))
            metrics.take(first)
    metrics.take(first)
    with ServingLog(tmp_path, "delay", SCHEMA, {}) as second:
        second.append(row("b"))
        metrics.take(second)
        metrics.take(second)
        now, reading = said(registry), read_log(tmp_path)
        assert now['skewguard_log_bytes_total{service="delay"}'] == sum(one.size for one in reading.segments)
        assert now["skewguard_log_unsynced_bytes"] == reading.segments[1].size
        assert now["skewguard_log_backlog_segments"] == 1
        assert now["skewguard_log_fsync_duration_seconds_count"] == 3
        assert 0 < now["skewguard_log_fsync_duration_seconds_sum"] < 30


def test_of_another_kind_of_log_nothing_is_made_up() -> None:
    """A log that is not ours leaves every number at zero."""

    class Other:
        def append(self, batch: pa.RecordBatch) -> None: ...

        def check(self) -> None: ...

    registry = CollectorRegistry()
    LogMetrics(registry, "delay").take(Other())
    assert said(registry)['skewguard_log_bytes_total{service="delay"}'] == 0
