"""What the sources held when a snapshot was built: per view and calendar month an order-free hash of canonical rows.

Rows known by the cut (the last ask) count, and nothing later: appended rows change nothing, a rewritten history names
the month. Rows equal in keys and both times count once, as in the join. Canonical: the values in their declared
dtypes, so that neither files nor row groups nor the order of rows matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from skewguard.definitions import View
from skewguard.errors import CastError
from skewguard.offline import OfflineStore
from skewguard.snapshot.hashing import Hashes, hash_rows, whole
from skewguard.values import NO_TIME, Array, Column, Dtype

_ROWS_AT_ONCE = 1 << 18
_ANY = (Dtype.FLOAT64, Dtype.INT64, Dtype.STRING)


@dataclass(frozen=True, slots=True)
class SourceMonth:
    """Rows of one view whose event lies in one month: how many, and the sum of their hashes (hex)."""

    rows: int
    hash: str


Sources = Mapping[str, Mapping[str, SourceMonth]]


def source_digests(store: OfflineStore, views: Sequence[View], cut: int) -> dict[str, dict[str, SourceMonth]]:
    """Per view and month (`2013-08`) of event time, over the rows known by `cut` (microseconds) under the store's rule.

    Raises `SourceError` where a source cannot be read.
    """
    return {view.name: _months(view, store.changes(view.name, NO_TIME, cut)) for view in views}


def changed_months(before: Sources, after: Sources) -> dict[str, tuple[str, ...]]:
    """Months whose rows are others, in order, for the views that have any."""
    changed = {}
    for view, months in before.items():
        now = after.get(view, {})
        other = sorted(month for month in {*months, *now} if months.get(month) != now.get(month))
        if other:
            changed[view] = tuple(other)
    return changed


def _months(view: View, rows: pa.Table) -> dict[str, SourceMonth]:
    sums: dict[int, tuple[int, Hashes]] = {}
    for at in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows.slice(at, _ROWS_AT_ONCE)
        event = some["event"].to_numpy()
        hashes = hash_rows(_canonical(view, some, event), len(some))
        month = event.view("datetime64[us]").astype("datetime64[M]").view(np.int64)
        for one in np.unique(month).tolist():
            chosen = month == one
            count, total = sums.get(one, (0, np.zeros(2, dtype=np.uint64)))
            sums[one] = count + int(chosen.sum()), total + hashes[chosen].sum(axis=0)  # modulo 2**64
    return {
        str(np.datetime64(month, "M")): SourceMonth(rows, "".join(f"{lane:016x}" for lane in total.tolist()))
        for month, (rows, total) in sorted(sums.items())
    }


def _canonical(view: View, rows: pa.Table, event: Array) -> list[Column]:
    keys = [_column(rows[key.column], key.dtype) for key in view.keys]
    features = [_column(rows[f"f__{feature.name}"], feature.dtype) for feature in view.features]
    return [*keys, whole(event), whole(rows["created"].to_numpy()), *features]


def _column(values: pa.ChunkedArray, dtype: Dtype) -> Column:
    """As declared; a value that does not fit matters to the join alone, and only where it answers."""
    for kind in (dtype, *_ANY):
        try:
            return Column.from_arrow(values, kind, "source")
        except CastError:
            continue
    return Column.from_arrow(values.cast(pa.string()), Dtype.STRING, "source")
