"""numpy and Arrow: key and time packed into one integer, an argsort, a binary search, a take. One thread.

Ties are sorted apart, because sorting one integer is several times faster than sorting by two. As known at the ask:
the rank of every row in (key, event, created), and its running maximum over the rows sorted by (key, known).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.pit import arrow
from benchmarks.pit.task import Task, ViewFile

Ints = npt.NDArray[np.int64]


def prepare(task: Task) -> Callable[[Path], None]:
    """What is timed."""

    def run(out: Path) -> None:
        asks = pq.read_table(task.asks, columns=task.columns)
        time = _us(asks["event_timestamp"])
        columns = {name: asks[name] for name in task.columns}
        for view in task.views:
            rows = pq.read_table(view.path, columns=[view.key, "event_time", "created_time", *view.features])
            found, gone = _search(rows, asks[view.key], time, view, known=task.known)
            chosen = pa.array(found, mask=gone)
            for name in view.features:
                columns[f"{view.name}__{name}"] = rows[name].combine_chunks().take(chosen)
        arrow.write(pa.table(columns), task, out)

    return run


def _search(
    rows: pa.Table, asked: pa.ChunkedArray, time: Ints, view: ViewFile, *, known: bool
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Per ask the number of its row, and whether there is none."""
    event, created = _us(rows["event_time"]), _us(rows["created_time"])
    row_key, ask_key = _codes(rows[view.key], asked)
    counts = np.maximum(event, created) if known else event
    first = min(int(event.min()), int(time.min()))
    span = max(int(counts.max()), int(time.max())) - first + 1
    if (int(max(row_key.max(), ask_key.max())) + 1) * span > np.iinfo(np.int64).max:
        raise OverflowError("key and time do not fit into one integer")
    order = _sorted(row_key * span + (event - first), created)
    if known:
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        packed = row_key * span + (counts - first)
        by_known = np.argsort(packed)
        packed, order = packed[by_known], order[np.maximum.accumulate(rank[by_known])]
    else:
        packed = row_key[order] * span + (event[order] - first)
    wanted = ask_key * span + (time - first)
    by_ask = np.argsort(wanted)  # a search for sorted values stays in the cache
    place = np.empty_like(by_ask)
    place[by_ask] = np.searchsorted(packed, wanted[by_ask], side="right") - 1
    found = order[np.maximum(place, 0)]
    gone = (place < 0) | (row_key[found] != ask_key) | (time - event[found] > view.ttl_us)
    return found, gone


def _sorted(packed: Ints, created: Ints) -> Ints:
    """The order by (packed, created)."""
    order = np.argsort(packed)
    equal = np.diff(packed[order]) == 0
    tied = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
    rows = order[tied]
    order[tied] = rows[np.lexsort((created[rows], packed[rows]))]
    return order


def _codes(rows: pa.ChunkedArray, asked: pa.ChunkedArray) -> tuple[Ints, Ints]:
    """Small numbers for keys: 0 for an ask whose key no row has."""
    if pa.types.is_integer(rows.type):
        least = min(pc.min(rows).as_py(), pc.min(asked).as_py())
        return rows.to_numpy() - least + 1, asked.to_numpy() - least + 1
    distinct = rows.unique()
    return tuple(
        pc.fill_null(pc.add(pc.index_in(keys, distinct).cast(pa.int64()), 1), 0).to_numpy() for keys in (rows, asked)
    )


def _us(column: pa.ChunkedArray) -> Ints:
    instants: Ints = column.cast(pa.int64()).to_numpy()
    return instants
