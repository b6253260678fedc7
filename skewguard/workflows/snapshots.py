"""Snapshots for people: what `skewguard snapshot` prints of one, of two, and of what became of one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from skewguard.definitions import Bundle
from skewguard.errors import SourceError
from skewguard.findings import Finding
from skewguard.offline import OfflineStore
from skewguard.snapshot import ColumnProfile, Difference, Snapshot, Verification, load_profile
from skewguard.snapshot.profile import shown

if TYPE_CHECKING:
    from rich.console import RenderableType


def notes(bundle: Bundle) -> list[str]:
    """What is assumed of the sources, a sentence each; nothing where they cannot be read, which is told elsewhere."""
    with OfflineStore(bundle.views) as offline, contextlib.suppress(SourceError, OSError):
        return [f"note: {one}" for one in offline.notices()]
    return []


def describe(snapshot: Snapshot) -> dict[str, Any]:
    """Manifest, profile per column, statuses per view and balance per label, as plain data."""
    profile = load_profile(snapshot.place)
    columns = {name: _column(column) for name, column in profile.columns.items()}
    balance = {name: dict(_balance(profile.columns[name])) for name in snapshot.manifest.labels}
    return {"manifest": asdict(snapshot.manifest), "columns": columns, "views": profile.views, "labels": balance}


def _column(column: ColumnProfile) -> dict[str, Any]:
    def said(value: Any) -> str:
        return shown(value, column.dtype)

    return {
        "dtype": column.dtype.value,
        "statuses": dict(column.statuses),
        "present": column.present,
        "distinct": column.distinct,
        "low": said(column.low),
        "median": said(column.quantile(0.5)),
        "mean": "-" if column.mean is None else f"{column.mean:.6g}",
        "p99": said(column.quantile(0.99)),
        "high": said(column.high),
        "top": [[said(value), rows] for value, rows in column.top(3)],
    }


def _balance(column: ColumnProfile) -> Iterator[tuple[str, int]]:
    """Rows per value of a label, rarest last, and the rows whose outcome nobody knows."""
    for value, rows in column.top(10):
        yield shown(value, column.dtype), rows
    if column.rows > column.present:
        yield "unknown", column.rows - column.present


def show_tables(snapshot: Snapshot) -> Iterator[RenderableType]:
    """Tables for the terminal."""
    from rich.table import Table

    told = describe(snapshot)
    manifest = snapshot.manifest
    origin = f"adopted, built by rule {manifest.adopted}" if manifest.adopted else f"rule {manifest.rule}"
    served = ", as served" if manifest.as_served else ""
    yield f"{snapshot.place}: {manifest.service}, {manifest.rows:,} rows, {origin}{served}, id {snapshot.id[:16]}"
    yield f"asks from {manifest.since} to {manifest.until}; built at {manifest.built_at}"
    columns = Table(box=None, padding=(0, 2, 0, 0))
    columns.add_column("column", no_wrap=True)
    for title in ("present", "missing", "distinct", "low", "median", "mean", "p99", "high", "most frequent"):
        columns.add_column(title, overflow="fold")
    for name, one in told["columns"].items():
        missing = ", ".join(f"{status} {rows:,}" for status, rows in one["statuses"].items() if status != "present")
        top = ", ".join(f"{value} {rows:,}" for value, rows in one["top"][:1])
        figures = [one[key] for key in ("low", "median", "mean", "p99", "high")]
        columns.add_row(name, f"{one['present']:,}", missing, f"{one['distinct']:,}", *figures, top)
    yield columns
    views = Table("view", "rows by status", "ties in its source")
    for name, statuses in told["views"].items():
        views.add_row(name, _counts(statuses), str(manifest.ties.get(name, 0)))
    yield views
    for name, balance in told["labels"].items():
        yield f"label {name}: {_counts(balance)}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {rows:,}" for name, rows in counts.items())


def verify_lines(result: Verification) -> Iterator[str]:
    """What became of a snapshot, a sentence a line."""
    if result.damage:
        yield result.damage
    for view in result.views:
        yield str(view)
        yield from (f"    {example}" for example in view.examples)
    for view_name, months in result.months.items():
        yield f"source of {view_name}: other rows than it had in {', '.join(months)}"
    for name, rows in result.derived.items():
        yield f"{name}: computed otherwise for {rows:,} rows"
    if result.same:
        how = "every answer was computed again" if result.compared else "no month of any source changed"
        yield f"{result.rows:,} rows follow from today's sources: {how}"
    elif result.differ:
        yield f"{result.differ:,} of {result.rows:,} rows differ"


def diff_lines(result: Difference) -> Iterator[str]:
    """What tells two snapshots apart, a sentence a line."""
    if result.same:
        yield f"the same {result.asks:,} asks, labels, definitions and values"
        return
    if result.added or result.removed:
        yield f"asks: {result.added:,} added, {result.removed:,} removed, {result.asks:,} in both"
    if result.reordered:
        yield "the asks of both come in another order"
    yield from result.rule
    yield from result.definitions
    for name, rows in result.labels.items():
        yield f"label {name}: " + ("only one of the two has it" if rows < 0 else f"differs for {rows:,} asks")
    for name, rows in result.values.items():
        yield f"{name}: differs for {rows:,} asks"
    if result.rows:
        yield f"{result.rows:,} of {result.asks:,} asks have other values"


def audit_lines(findings: Sequence[Finding], rows: int) -> Iterator[str]:
    """Findings with their examples, a line each."""
    for finding in findings:
        yield f"{finding.kind}: {finding.message}"
        for one in finding.examples:
            yield f"    {one.request_id}, {one.keys}, as of {one.as_of}: {one.served} instead of {one.truth}"
    if not findings:
        yield f"{rows:,} rows: every value could have been known at its ask, and no tie answered"
