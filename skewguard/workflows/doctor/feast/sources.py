"""The rows behind the views of a repository, as far as they are Parquet: what `init` infers contracts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skewguard.definitions import View
from skewguard.definitions.feast import dtype_of, read_view
from skewguard.errors import SourceError
from skewguard.place import parquet_files
from skewguard.workflows.doctor.feast.opened import opened

_MOST_ROWS = 2_000_000


@dataclass(frozen=True)
class Sources:
    """Views with their rows: features by name, `event`, `created` where there is one. `service`: the one chosen."""

    views: tuple[tuple[View, pa.Table], ...]
    service: str
    unread: tuple[str, ...]


def views_of(repo: str | Path, service: str = "", feature_store_yaml: str | Path | None = None) -> Sources:
    """Every view of the repository, or of one feature service; raises `DefinitionError` where it does not load."""
    views, unread = [], []
    with opened(repo, service, feature_store_yaml) as found:
        services = [one.name for one in found.store.list_feature_services()]
        for feast_view in found.views:
            complaints: list[str] = []
            known = [one.name for one in feast_view.features if dtype_of(one.dtype) is not None]
            view = read_view(feast_view, feast_view.projection, known, found.repo, complaints)
            if complaints:
                unread.append("; ".join(complaints))
                continue
            try:
                views.append((view, _rows(view)))
            except (SourceError, OSError, pa.ArrowException) as error:
                unread.append(f"{view.name}: {error}")
    chosen = service or (services[0] if len(services) == 1 else "")
    return Sources(tuple(views), chosen, tuple(unread))


def _rows(view: View) -> pa.Table:
    """The newest files first, until there are rows enough."""
    source = view.source
    columns = {feature.name: feature.column for feature in view.features} | {"event": source.timestamp}
    if source.created:
        columns["created"] = source.created
    tables: list[pa.Table] = []
    for place in reversed(parquet_files(source.path)):
        with place.open() as stream, pq.ParquetFile(stream) as file:
            table = file.read(columns=list(dict.fromkeys(columns.values())))
        missing = [column for column in columns.values() if column not in table.column_names]
        if missing:
            raise SourceError(f"{place}: column {missing[0]!r} is missing")
        tables.append(pa.table({name: table[column] for name, column in columns.items()}))
        if sum(len(one) for one in tables) >= _MOST_ROWS:
            break
    return pa.concat_tables(tables, promote_options="permissive").slice(0, _MOST_ROWS)
