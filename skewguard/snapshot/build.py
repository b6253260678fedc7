"""Answer every ask at its instant, and freeze the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from skewguard.answer import answer
from skewguard.definitions import Bundle
from skewguard.errors import SnapshotError
from skewguard.offline import OfflineStore, Rule
from skewguard.snapshot.fitting import fitted_on
from skewguard.snapshot.frozen import BATCH_ROWS, Freezing, Origin, Snapshot
from skewguard.snapshot.sources import source_digests
from skewguard.spine import Spine, ViewRows, read_spine


def build_snapshot(  # noqa: PLR0913  (one per choice)
    bundle: Bundle,
    asks: pa.Table,
    out: str | Path,
    *,
    labels: Sequence[str] = (),
    rule: Rule = Rule.KNOWN,
    as_served: bool = False,
    id_column: str | None = None,
    as_of: str = "event_timestamp",
    fit_before: datetime | None = None,
    offline: OfflineStore | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Snapshot:
    """Answer every ask at its instant and freeze the answers at `out`, which must not exist yet.

    `asks` is the entity table: keys, request fields, `as_of` and label columns; `id_column` names the column that
    identifies each ask. `as_served` counts a row `availability_lag` after it became known, when the online store could
    serve it. Model inputs that are not fitted yet are fitted on the asks before `fit_before` (all of them without it),
    and the snapshot's bundle is the fitted one. Written beside `out` first, then renamed: no half-written snapshot.
    Raises `AskError`, `SourceError`, `SnapshotError`, and `DefinitionError` for what cannot be fitted.
    """
    if as_served and rule is not Rule.KNOWN:
        raise SnapshotError("as_served goes with rule 'known': an online store serves no row before it is known")
    label_table = _labels(asks, labels)
    request = {field.name: field.dtype for field in bundle.request}
    spine = read_spine(asks, bundle.keys, request, as_of=as_of, id_column=id_column)
    store = offline or OfflineStore(bundle.views, rule)
    try:
        compiled = bundle
        bundle = fitted_on(
            compiled, spine, lambda part: answers(store, compiled, part, as_served=as_served), fit_before, BATCH_ROWS
        )
        with Freezing(out, bundle, label_table.schema, Origin(rule, as_served)) as freezing:
            for at in range(0, max(len(spine), 1), BATCH_ROWS):
                rows = np.arange(at, min(at + BATCH_ROWS, len(spine)))
                part = spine.take(rows)
                found = answers(store, bundle, part, as_served=as_served)
                freezing.add(answer(bundle, part, found), label_table.slice(at, len(rows)))
                if progress:
                    progress(at + len(rows), len(spine))
            ties = {view.name: store.ties(view.name) for view in bundle.views}
            return freezing.finish(ties, source_digests(store, bundle.views, freezing.cut))
    finally:
        if offline is None:
            store.close()


def answers(store: OfflineStore, bundle: Bundle, spine: Spine, *, as_served: bool = False) -> dict[str, ViewRows]:
    """The views' answers; `as_served` of the rows that had been known for the view's `availability_lag` at the ask.

    The row is sought as of the ask less the lag (known + lag <= ask); TTL and clock are judged at the ask itself.
    """
    if not as_served:
        return store.answer(spine)
    found = {}
    for view in bundle.views:
        event, created = store.best(view.name, spine, spine.as_of - view.availability_lag_us)
        found[view.name] = store.rows(view.name, spine, event, created)
    return found


def _labels(asks: pa.Table, labels: Sequence[str]) -> pa.Table:
    missing = [name for name in labels if name not in asks.column_names]
    if missing:
        raise SnapshotError(
            f"label {missing[0]!r} is not among the columns of the asks: {', '.join(asks.column_names)}"
        )
    return asks.select(list(labels)).combine_chunks()
