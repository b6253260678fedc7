"""Adopt: a training set that was built elsewhere, under the same roof. Its values stay as they are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from skewguard.answer import Served, vector
from skewguard.definitions import Bundle, View
from skewguard.errors import AskError, CastError, DefinitionError, SnapshotError
from skewguard.offline import OfflineStore, Rule
from skewguard.snapshot.frozen import BATCH_ROWS, Freezing, Origin, Snapshot
from skewguard.snapshot.sources import source_digests
from skewguard.spine import Spine, ViewRows, read_spine
from skewguard.values import NO_TIME, Column, Dtype, Status

CLAIMS = ("known", "feast", "unknown")
"""By which rule a training set may say that it was built."""


def adopt_snapshot(
    bundle: Bundle,
    rows: pa.Table,
    out: str | Path,
    *,
    labels: Sequence[str] = (),
    rule: str = "unknown",
    id_column: str | None = None,
    as_of: str = "event_timestamp",
    offline: OfflineStore | None = None,
) -> Snapshot:
    """Freeze a training set that was built elsewhere at `out`, which must not exist yet.

    `rows` has keys, request fields, `as_of`, labels and a column for every feature of the service, by its full name
    (`view__feature`) or, where no other feature has it, its own. Values are taken as given, cast to the declared dtype;
    which source row stands behind one is not known. `rule` says by which rule it was built; one of unknown rule is held
    against `known`. Raises `AskError` with what is missing or does not fit, `SourceError`,
    `SnapshotError`, `DefinitionError` where model inputs are not fitted.
    """
    if rule not in CLAIMS:
        raise SnapshotError(f"rule {rule!r}: expected one of {', '.join(CLAIMS)}")
    missing = [name for name in labels if name not in rows.column_names]
    if missing:
        raise SnapshotError(f"label {missing[0]!r} is not among the columns: {', '.join(rows.column_names)}")
    if bundle.unfitted:
        raise DefinitionError(
            f"{', '.join(bundle.unfitted)}: not fitted, so that nobody could compute the set again; adopt it under the "
            "bundle of the snapshot that they were fitted on"
        )
    columns = _given(bundle, rows)
    request = {field.name: field.dtype for field in bundle.request}
    spine = read_spine(rows, bundle.keys, request, as_of=as_of, id_column=id_column)
    label_table = rows.select(list(labels)).combine_chunks()
    known = Rule.FEAST if rule == "feast" else Rule.KNOWN
    freezing = Freezing(out, bundle, label_table.schema, Origin(known, adopted=rule))
    store = offline or OfflineStore(bundle.views, known)
    try:
        with freezing:
            for at in range(0, max(len(spine), 1), BATCH_ROWS):
                part = np.arange(at, min(at + BATCH_ROWS, len(spine)))
                taken = {name: column.take(part) for name, column in columns.items()}
                freezing.add(_served(bundle, spine.take(part), taken), label_table.slice(at, len(part)))
            ties = {view.name: store.ties(view.name) for view in bundle.views}
            return freezing.finish(ties, source_digests(store, bundle.views, freezing.cut))
    finally:
        if offline is None:
            store.close()


def _given(bundle: Bundle, rows: pa.Table) -> dict[str, Column]:
    """Every feature that was given, by full name; complains of all that the service has and the rows lack."""
    short = [name.partition("__")[2] for name in bundle.dtypes]
    reserved = {"event_timestamp", *bundle.keys, *(field.name for field in bundle.request)}
    columns = {}
    for name, dtype in bundle.dtypes.items():
        own = name.partition("__")[2]
        alone = short.count(own) == 1 and own not in reserved
        found = next((one for one in (name, *([own] if alone else [])) if one in rows.column_names), None)
        if found is not None:
            columns[name] = _column(rows[found], dtype, found)
    absent = [name for name in bundle.outputs if name not in columns]
    if absent:
        raise AskError(absent[0], f"no column for {', '.join(absent)}; there are {', '.join(rows.column_names)}")
    return columns


def _column(values: pa.ChunkedArray, dtype: Dtype, name: str) -> Column:
    try:
        return Column.from_arrow(values, dtype, name)
    except CastError as error:
        raise AskError(name, str(error).removeprefix(f"{name}: ")) from error


def _served(bundle: Bundle, spine: Spine, given: dict[str, Column]) -> Served:
    n = len(spine)
    columns = {
        name: given.get(name, Column.absent(dtype, n, Status.NOT_REQUESTED)) for name, dtype in bundle.dtypes.items()
    }
    views = {view.name: _rows(view, columns, n) for view in bundle.views}
    derived = {spec.full_name: columns[spec.full_name] for spec in bundle.derived}
    served = Served(spine, views, derived, np.empty((0, 0)))
    return Served(spine, views, derived, vector(bundle, served))


def _rows(view: View, columns: dict[str, Column], n: int) -> ViewRows:
    """A row is there where any of its values is; of which source row it was nothing is known."""
    features = {feature.name: columns[view.full_name(feature.name)] for feature in view.features}
    least = [column.status for column in features.values()]
    status = np.minimum.reduce(least) if least else np.full(n, Status.NOT_REQUESTED, dtype=np.uint8)
    status = np.where(status == Status.NULL, np.uint8(Status.NOT_FOUND), status)
    nowhere = np.full(n, NO_TIME, dtype=np.int64)
    return ViewRows(status, nowhere, nowhere, nowhere, features)
