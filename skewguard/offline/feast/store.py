"""The store that Feast loads. Feast finds it again through its config: both stand in one module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL, FeatureView
from feast.infra.offline_stores.file_source import FileLoggingDestination, FileSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.utils import compute_non_entity_date_range
from pydantic import StrictBool, StrictInt, StrictStr

from skewguard.definitions import Source
from skewguard.definitions.feast import dtype_of, mapped_from
from skewguard.definitions.feast import read_source as source_of
from skewguard.errors import DefinitionError, SourceError
from skewguard.offline import Rule
from skewguard.offline.feast.columns import apart, asked_of, computed, entity_table, type_in_arrow, type_in_spark
from skewguard.offline.feast.job import Reading, SkewguardRetrievalJob, local
from skewguard.offline.parquet import add_part, append_rows
from skewguard.offline.scan import read_source, source_schema
from skewguard.offline.tables import Question, range_asks
from skewguard.values import Dtype, cast

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SkewguardOfflineStoreConfig(FeastConfigBaseModel):
    """`offline_store:` in feature_store.yaml."""

    type: StrictStr = "skewguard.offline.feast.SkewguardOfflineStore"

    filter_by_created_timestamp: StrictBool = False
    """Only what was known at the ask counts, in every retrieval; Feast's argument of that name does it for one."""

    memory_limit: StrictStr | None = None
    """DuckDB's memory, as in '4GiB'; what goes beyond it spills to disk."""

    threads: StrictInt | None = None
    """DuckDB's threads; all cores if there is no number."""


class SkewguardOfflineStore(OfflineStore):
    """Parquet files, answered by skewguard's point-in-time join with Feast's semantics."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> SkewguardRetrievalJob:
        """One answer per row of `entity_df`, in its order; without one, per row of the sources in the date range."""
        own, repo = _own(config), _repo(config)
        views, outputs = asked_of(feature_views, feature_refs, full_feature_names, repo)
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        derived = computed(on_demand, feature_refs, full_feature_names)
        if entity_df is None:
            as_of = DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL
            since, until = compute_non_entity_date_range(feature_views, start_date=start_date, end_date=end_date)
            ends: tuple[datetime | None, datetime | None] = since, until
            columns = [*dict.fromkeys(key.ask for view in views.values() for key in view.keys), as_of]

            def asks() -> pa.Table:
                return range_asks(views, as_of, _microseconds(since), _microseconds(until))
        else:
            table, as_of = entity_table(entity_df, repo)
            ends, columns = _ends(table[as_of]), table.column_names

            def asks() -> pa.Table:
                return table

        outputs = apart(outputs, columns, derived, _inputs(on_demand), full_feature_names)
        known = filter_by_created_timestamp or own.filter_by_created_timestamp
        question = Question(views, outputs, Rule.KNOWN if known else Rule.FEAST, own.memory_limit, own.threads)
        if entity_df is not None:
            question.spine(table.slice(0, 0), as_of)  # a missing key is said now, not when the job runs
        dtypes = {output.name: output.dtype for output in outputs if output.dtype and not output.carried}
        dtypes |= {column.name: dtype for column in derived if (dtype := dtype_of(column.feast_type))}
        return SkewguardRetrievalJob(
            Reading(
                lambda: question.answer(asks(), as_of),
                lambda rows: question.batches(asks(), as_of, rows),
                dtypes,
            ),
            repo,
            full_feature_names=full_feature_names,
            on_demand=on_demand,
            derived=derived,
            metadata=RetrievalMetadata(feature_refs, [name for name in columns if name != as_of], *ends),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> SkewguardRetrievalJob:
        """The newest row of every key with an event in [start, end]; all columns where none are named."""
        repo = _repo(config)
        source = _source(data_source, repo, timestamp_field, created_timestamp_column)
        columns = _columns(source, join_key_columns, feature_name_columns)
        read = partial(_pull, source, columns, join_key_columns, start_date, end_date, latest=True)
        return SkewguardRetrievalJob(Reading(read), repo)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> SkewguardRetrievalJob:
        """Every row with an event in [start, end]; all columns where none are named.

        Feast reads a saved dataset through here, by its keys and features alone; it comes back whole, as it was saved.
        """
        repo = _repo(config)
        source = _source(data_source, repo, timestamp_field, created_timestamp_column)
        if not data_source.timestamp_field and timestamp_field == DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL:
            return SkewguardRetrievalJob(Reading(partial(read_source, source)), repo)
        columns = _columns(source, join_key_columns, feature_name_columns)
        read = partial(_pull, source, columns, join_key_columns, start_date, end_date, latest=False)
        return SkewguardRetrievalJob(Reading(read), repo)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Add rows to the view's source, in one step; columns by the names in the file or those that are mapped."""
        source = feature_view.batch_source
        names = mapped_from(source)
        path = _source(source, _repo(config)).path
        append_rows(table.rename_columns([names.get(name, name) for name in table.column_names]), Path(path))
        if progress:
            progress(len(table))

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        """Add logged rows to the destination's directory, as a file of their own."""
        destination = logging_config.destination
        if not isinstance(destination, FileLoggingDestination):
            raise DefinitionError(f"logging: expected a FileLoggingDestination, got {type(destination).__name__}")
        table = pq.read_table(data) if isinstance(data, Path) else data
        add_part(table, local(destination.path, _repo(config)), destination.partition_by or ())

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Feast's own check for a file; a Spark source is looked at without Spark."""
        if isinstance(data_source, FileSource):
            super().validate_data_source(config, data_source)
        else:
            source_schema(_source(data_source, _repo(config)))

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Iterable[tuple[str, str]]:
        """Names and types as the kind of source calls them; of directories, globs and Spark's files as well."""
        source = _source(data_source, _repo(config))
        schema = pq.read_schema(source.path) if Path(source.path).is_file() else source_schema(source)
        spell = type_in_arrow if isinstance(data_source, FileSource) else type_in_spark
        return [(field.name, spell(field.type)) for field in schema]


def _own(config: RepoConfig) -> SkewguardOfflineStoreConfig:
    own = config.offline_store
    if not isinstance(own, SkewguardOfflineStoreConfig):
        raise DefinitionError(f"offline_store: expected {SkewguardOfflineStoreConfig.__name__}, got {own!r}")
    return own


def _repo(config: RepoConfig) -> Path:
    return Path(config.repo_path or ".")


def _source(
    data_source: DataSource | None, repo: Path, timestamp: str | None = None, created: str | None = None
) -> Source:
    """The source; its times under the names that are given, which are those in the file."""
    complaints: list[str] = []
    source = source_of(data_source, repo, f"data source {getattr(data_source, 'name', '')}", complaints)
    if complaints:
        raise DefinitionError(complaints)
    return source if timestamp is None else Source(source.path, timestamp, created or None)


def _inputs(on_demand: Iterable[OnDemandFeatureView]) -> set[str]:
    """Names of the stored features that on-demand views compute with."""
    sources = [source for view in on_demand for source in view.source_feature_view_projections.values()]
    return {feature.name for source in sources for feature in source.features}


def _columns(source: Source, keys: Sequence[str], features: Sequence[str]) -> list[str] | None:
    """What to read: keys, features, times, each once; everything where no feature is named."""
    times = [source.timestamp, *([source.created] if source.created else [])]
    return list(dict.fromkeys([*keys, *features, *times])) if features else None


def _pull(
    source: Source,
    columns: Sequence[str] | None,
    keys: Sequence[str],
    start: datetime | None,
    end: datetime | None,
    *,
    latest: bool,
) -> pa.Table:
    since, until = (None if at is None else _microseconds(at) for at in (start, end))
    table = read_source(source, columns, since=since, until=until, newest_by=keys if latest else None)
    for name in (source.timestamp, source.created):
        if name and name not in table.column_names:
            raise SourceError(f"{source.path}: column {name!r} is missing; it has {', '.join(table.column_names)}")
        if name:
            times = cast(table[name], Dtype.TIMESTAMP, f"{source.path}: {name}")
            table = table.set_column(table.column_names.index(name), name, times)
    if not keys:  # Feast's key of views that have none
        table = table.append_column(DUMMY_ENTITY_ID, pa.array([DUMMY_ENTITY_VAL] * len(table), pa.string()))
    return table


def _microseconds(at: datetime) -> int:
    """Microseconds since 1970; a time without a zone is UTC."""
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def _ends(instants: pa.ChunkedArray) -> tuple[datetime | None, datetime | None]:
    if not len(instants):
        return None, None
    ends = pc.min_max(cast(instants, Dtype.TIMESTAMP, "event_timestamp"))
    return ends["min"].as_py(), ends["max"].as_py()
