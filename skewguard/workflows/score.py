"""Score: predictions for a table of asks, through the same join, transforms, model call and log as the service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewguard.answer import Log, answer, schema, to_batch
from skewguard.definitions import Bundle
from skewguard.model import Model
from skewguard.offline import OfflineStore
from skewguard.spine import read_spine

BATCH_ROWS = 16_384


def score(
    bundle: Bundle,
    asks: pa.Table,
    offline: OfflineStore,
    model: Model,
    log: Log,
    out: str | Path,
    *,
    id_column: str | None = None,
    as_of: str = "event_timestamp",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write `out` (Parquet: id, event_timestamp, keys, features, statuses, prediction), one row per ask, in order.

    Every batch is in the log before it is in the file. The file appears whole or not at all. Returns the rows. Raises
    `ModelError` for a model that was fitted on other features.
    """
    model.check(bundle.vector, bundle.fitted_digest)
    request = {field.name: field.dtype for field in bundle.request}
    spine = read_spine(asks, bundle.keys, request, as_of=as_of, id_column=id_column)
    flat = schema(bundle)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    try:
        with pq.ParquetWriter(partial, flat, compression="zstd") as writer:
            for at in range(0, len(spine), BATCH_ROWS):
                part = spine.take(np.arange(at, min(at + BATCH_ROWS, len(spine))))
                batch = to_batch(bundle, answer(bundle, part, offline.answer(part), model), flat)
                log.append(batch)
                writer.write_batch(batch)
                if progress:
                    progress(min(at + BATCH_ROWS, len(spine)), len(spine))
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return len(spine)
