"""The truth through the offline store that a Feast repository configures, for sources that DuckDB cannot read.

The rows are pulled from the store once, whole, and joined here under the snapshot's rule: slower, and the same report.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore
from feast.data_source import DataSource
from feast.infra.offline_stores.offline_utils import get_offline_store_from_config

from skewguard.definitions import View
from skewguard.errors import SourceError
from skewguard.offline import OfflineStore, Rule
from skewguard.replay.truth import Span
from skewguard.snapshot import Snapshot

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class FeastSources:
    """The offline store of the repository in `repo`; `feature_store_yaml` for settings that lie elsewhere."""

    repo: str | Path
    feature_store_yaml: str | Path | None = None

    @property
    def name(self) -> str:
        """What stands in the verdict."""
        return f"the rows that the offline store of {self.repo} gives, pulled through Feast"

    @contextmanager
    def open(self, snapshot: Snapshot, span: Span) -> Iterator[OfflineStore]:
        """Every row up to the last ask, in a folder that is gone when it is closed. Raises `SourceError`."""
        _, until = span()
        end = _EPOCH + timedelta(microseconds=until)
        with TemporaryDirectory(prefix="skewguard-") as folder:
            views = [self._pulled(view, end, Path(folder)) for view in snapshot.bundle.views]
            with OfflineStore(views, Rule(snapshot.manifest.rule)) as offline:
                yield offline

    def _pulled(self, view: View, end: datetime, folder: Path) -> View:
        """The view over a copy of its source's rows."""
        source = view.source
        try:
            yaml = Path(self.feature_store_yaml) if self.feature_store_yaml else None
            store = FeatureStore(repo_path=str(self.repo), fs_yaml_file=yaml)
            batch_source = cast(DataSource, store.get_feature_view(view.name).batch_source)
            table: pa.Table = (
                get_offline_store_from_config(store.config.offline_store)
                .pull_all_from_table_or_query(
                    config=store.config,
                    data_source=batch_source,
                    join_key_columns=[key.column for key in view.keys],
                    feature_name_columns=list(dict.fromkeys(feature.column for feature in view.features)),
                    timestamp_field=source.timestamp,
                    created_timestamp_column=source.created,
                    start_date=_EPOCH,
                    end_date=end,
                )
                .to_arrow()
            )
            path = folder / f"{view.name}.parquet"
            pq.write_table(table, path)
        except Exception as error:
            raise SourceError(f"{self.repo} (view {view.name}): its offline store gave no rows: {error}") from error
        return replace(view, source=replace(source, path=str(path)))
