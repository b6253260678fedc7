"""Feast's batch engine on Arrow: what the offline store gives is packed and written. No pandas, no protobuf.

Feast's local engine carries a column of integers with a null through float64, and a string over integers through
"90210.0", before any online store sees them. Here every column goes through the one cast.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from feast import BatchFeatureView, Entity, FeatureView, OnDemandFeatureView, StreamFeatureView
from feast.infra.common.materialization_job import MaterializationJob, MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel
from pydantic import StrictStr

from skewguard.definitions.feast import computed_by_feast
from skewguard.errors import CastError, DefinitionError, SkewguardError, SourceError
from skewguard.online.feast.store import SkewguardOnlineStore
from skewguard.online.feast.values import from_arrow, microseconds
from skewguard.online.feast.views import Stored, stored
from skewguard.online.keys import row_key, row_keys, watermark, watermark_key, watermark_of, written_key
from skewguard.online.layout import pack
from skewguard.online.lookup import layout_written
from skewguard.online.store import OnlineStore
from skewguard.values import NO_TIME, Array, Column, Dtype

_CHUNK = 20_000
Views = Sequence[BatchFeatureView | StreamFeatureView | FeatureView]


class SkewguardEngineConfig(FeastConfigBaseModel):
    """`batch_engine:` in feature_store.yaml."""

    type: StrictStr = "skewguard.online.feast.SkewguardEngine"


class SkewguardJob(MaterializationJob):
    """A materialization that is over, one way or the other."""

    def __init__(self, task: MaterializationTask, error: BaseException | None = None) -> None:
        self.task = task
        self._error = error

    def status(self) -> MaterializationJobStatus:
        """Succeeded or not."""
        return MaterializationJobStatus.ERROR if self._error else MaterializationJobStatus.SUCCEEDED

    def error(self) -> BaseException | None:
        """What went wrong; Feast raises it."""
        return self._error

    def should_be_retried(self) -> bool:
        """Nothing here gets better by itself."""
        return False

    def job_id(self) -> str:
        """View and range."""
        return f"{self.task.feature_view.name}-{self.task.start_time}-{self.task.end_time}"

    def url(self) -> str | None:
        """There is none."""
        return None


class SkewguardEngine(ComputeEngine):
    """Materializes Feast's views into a `SkewguardOnlineStore`.

    Besides the rows with an event in the range it takes those that were created in it: a row that came late, and a
    correction, are not missed. Where a view's definition has changed, all its rows are written again.
    """

    def update(
        self,
        project: str,
        views_to_delete: Views,
        views_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
    ) -> None:
        """Nothing to prepare; `feast apply` is refused a view that Feast would compute on one side only."""
        complaints = [
            f"feature view {view.name}: {why}"
            for view in views_to_keep
            if not isinstance(view, OnDemandFeatureView) and (why := computed_by_feast(view))
        ]
        if complaints:
            raise DefinitionError(complaints)

    def teardown_infra(self, project: str, fvs: Views, entities: Sequence[Entity]) -> None:
        """Nothing to tear down: the rows are the online store's."""

    def _materialize_one(self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any) -> MaterializationJob:
        try:
            self._write(task)
        except SkewguardError as error:
            return SkewguardJob(task, error)
        return SkewguardJob(task)

    def _write(self, task: MaterializationTask) -> None:
        view = task.feature_view
        if not isinstance(self.online_store, SkewguardOnlineStore):
            raise DefinitionError(
                "SkewguardEngine writes to online_store: {type: skewguard.online.feast.SkewguardOnlineStore}, "
                f"got {type(self.online_store).__name__}"
            )
        _refuse(task)
        made, store = stored(view), self.online_store.opened(self.repo_config)
        marks = [watermark_key(task.project, view.name), written_key(task.project, view.name)]
        written = layout_written(store, task.project, view.name)
        anew = written is not None and written.definition != made.layout.definition
        start = None if anew else task.start_time
        store.write([], made.layout_entry(task.project))
        for table in self._tables(view, made, start, task.end_time):
            _publish(store, task.project, made, table)
            if view.offline:
                self.offline_store.offline_write_batch(self.repo_config, view, table, lambda _: None)
        reached = min(microseconds(task.end_time), time.time_ns() // 1000)
        stands = watermark_of(store.mget(marks)[0])
        # From a gap on, a row may be missing that was known before: then the watermark stays where it is.
        if start is None or stands == NO_TIME or stands >= microseconds(start):
            reached = max(reached, stands)
            store.write([], {marks[0]: watermark(reached), marks[1]: made.layout.digest})

    def _tables(self, view: Any, made: Stored, start: datetime | None, end: datetime) -> Iterator[pa.Table]:
        """The newest row of each key with an event in the range; then what came to be known in it."""
        keys = [key.column for key in made.view.keys]
        stamp, created = made.view.source.timestamp, made.view.source.created
        columns = [f.column for f in made.view.features if f.column not in (*keys, stamp, created)]
        ends: dict[str, Any] = {
            "start_date": start or datetime.min.replace(year=1678, tzinfo=end.tzinfo),
            "end_date": end,
        }
        yield self._pulled(
            self.offline_store.pull_latest_from_table_or_query(
                config=self.repo_config,
                data_source=view.batch_source,
                join_key_columns=keys,
                feature_name_columns=columns,
                timestamp_field=stamp,
                created_timestamp_column=created,
                **ends,
            )
        )
        if start is None or not created:
            return
        late = self._pulled(
            self.offline_store.pull_all_from_table_or_query(
                config=self.repo_config,
                data_source=view.batch_source,
                join_key_columns=keys,
                feature_name_columns=[*columns, stamp],
                timestamp_field=created,
                **ends,
            )
        )
        yield late.filter(pa.array(_instants(late, stamp) < microseconds(start)))

    def _pulled(self, job: Any) -> pa.Table:
        table: pa.Table = job.to_arrow()
        return table


def _refuse(task: MaterializationTask) -> None:
    view: Any = task.feature_view
    where = f"feature view {view.name}"
    if task.disable_event_timestamp:
        raise DefinitionError(f"{where}: without event timestamps every row would be as new as its writing")
    if isinstance(view, OnDemandFeatureView) or view.batch_source is None:
        raise DefinitionError(f"{where}: it has no batch source to materialize from")
    if why := computed_by_feast(view):
        raise DefinitionError(f"{where}: {why}")


def _publish(store: OnlineStore, project: str, made: Stored, table: pa.Table) -> None:
    view, where = made.view, f"feature view {made.view.name}"
    for at in range(0, len(table), _CHUNK):
        part = table.slice(at, _CHUNK)
        event = _instants(part, view.source.timestamp)
        if (event == NO_TIME).any():
            raise SourceError(f"{where}: a row has no event time in {view.source.timestamp}")
        created = _instants(part, view.source.created) if view.source.created else np.full(len(part), NO_TIME)
        columns = [
            from_arrow(part[f.column], kind, made.types[f.name], f"{where}: column {f.column!r}")
            for f, kind in zip(view.features, made.layout.dtypes, strict=True)
        ]
        found = [Column.from_arrow(part[k.column], k.dtype, f"{where}: key {k.column!r}") for k in view.keys]
        keys = row_keys(project, view, found) if found else [row_key(project, view, ())] * len(part)
        rows = pack(made.layout, event, created, time.time_ns() // 1000, columns)
        store.write([(key, row) for key, row in zip(keys, rows, strict=True) if key is not None], {})


def _instants(table: pa.Table, name: str) -> Array:
    """A column of times as int64 microseconds, `NO_TIME` where there is none; one without a zone is UTC."""
    try:
        column = Column.from_arrow(table[name], Dtype.TIMESTAMP, name)
    except CastError as error:
        raise SourceError(str(error)) from error
    return np.where(column.present, column.values.view("int64"), NO_TIME)
