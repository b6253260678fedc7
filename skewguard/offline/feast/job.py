"""What Feast is handed: something to read, and not read before somebody asks for the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import FileSource, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.saved_dataset import SavedDatasetStorage

from skewguard.definitions.feast import without_scheme
from skewguard.errors import DefinitionError
from skewguard.offline.feast.columns import Computed, declared
from skewguard.offline.parquet import replace_rows
from skewguard.offline.tables import to_frame
from skewguard.values import Dtype

BATCH_ROWS = 262_144


@dataclass(frozen=True)
class Reading:
    """How the rows come: all at once, or where there is a better way than to cut that up, in batches of n rows.

    `dtypes` are those of the columns that were declared, as far as a data frame has to know them.
    """

    table: Callable[[], pa.Table]
    batches: Callable[[int], Iterator[pa.RecordBatch]] | None = None
    dtypes: Mapping[str, Dtype] = field(default_factory=dict)


class SkewguardRetrievalJob(RetrievalJob):
    """A retrieval that has not happened yet; every call reads the sources anew."""

    def __init__(
        self,
        reading: Reading,
        repo: Path,
        *,
        full_feature_names: bool = False,
        on_demand: Sequence[OnDemandFeatureView] = (),
        derived: Sequence[Computed] = (),
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._reading, self._repo = reading, repo
        self._full, self._metadata = full_feature_names, metadata
        self._on_demand, self._derived = list(on_demand), derived

    def to_arrow(self, validation_reference: Any = None, timeout: int | None = None) -> pa.Table:
        """All rows, on-demand features included, every value in its declared dtype."""
        table = super().to_arrow(validation_reference, timeout)
        for column in self._derived:
            values = declared(table[column.name], column.feast_type, column.where)
            table = table.set_column(table.column_names.index(column.name), column.name, values)
        return table

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> pd.DataFrame:
        """The same as a data frame."""
        return to_frame(self.to_arrow(validation_reference, timeout), self._reading.dtypes)

    def to_arrow_batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The same in batches of at most `rows`, in order, each answered when it is taken.

        With on-demand features the whole table is computed first: a function may look at the whole column.
        """
        if self._reading.batches is None or self._on_demand:
            yield from self.to_arrow().to_batches(max_chunksize=rows)
        else:
            yield from self._reading.batches(rows)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._reading.table()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return to_frame(self._reading.table(), self._reading.dtypes)

    @property
    def full_feature_names(self) -> bool:
        """Whether features are named `view__feature`."""
        return self._full

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The views that are computed from the rows."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for; None where a source was merely read."""
        return self._metadata

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write all columns, on-demand ones included, to a Parquet file or a directory, in one step."""
        if not isinstance(storage, SavedDatasetFileStorage):
            raise DefinitionError(f"saved dataset: expected SavedDatasetFileStorage, got {type(storage).__name__}")
        path = local(storage.file_options.uri, self._repo)
        if path.exists() and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=storage.file_options.uri)
        replace_rows(self.to_arrow(timeout=timeout), path)


def local(uri: str, repo: Path) -> Path:
    """Where something is to be written, relative paths below the repository; a disk and nothing else."""
    path = str(FileSource.get_uri_for_file_path(repo, without_scheme(uri)))
    if "://" in path:
        raise DefinitionError(f"{uri}: expected a path on a local disk to write to")
    return Path(path)
