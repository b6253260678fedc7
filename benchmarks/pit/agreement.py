"""Cell for cell: whether two answers to one task are the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.pit.task import Task

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How an answer differs: asks that it `lost`, asks that are `displaced` (not the ask of that row), `cells` of the
    others that are not the reference's, bit for bit but for the sign of zero; null equals null alone.
    """

    lost: int
    displaced: int
    cells: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.lost + self.displaced + self.cells

    def worse(self, other: Agreement | None) -> Agreement:
        """Whichever of the two differs more."""
        return other if other is not None and other.total > self.total else self


def compare(task: Task, reference: Path, answer: Path) -> Agreement:
    """Hold the answer against the reference, and both against the asks; column by column, to stay small."""
    schema = pq.read_schema(answer)
    asks = pq.read_metadata(task.asks).num_rows
    features = [f"{view.name}__{name}" for view in task.views for name in view.features]
    expected = [*task.columns, *features]
    numbered = "ord" in schema.names
    assert [name for name in schema.names if name != "ord"] == expected, f"{answer}: {schema.names}"
    rows = pq.read_table(answer, columns=["ord"])["ord"].to_numpy() if numbered else np.arange(asks)
    here = pq.read_metadata(answer).num_rows
    assert len(rows) == here, f"{answer}: {here} rows for {asks} asks"
    assert len(np.unique(rows)) == here, f"{answer}: an ask is answered twice"
    displaced = np.zeros(here, dtype=bool)
    for name in task.columns:
        displaced |= _differ(_column(task.asks, name, rows), _column(answer, name))
    cells = sum(int(_differ(_column(reference, name, rows), _column(answer, name)).sum()) for name in features)
    return Agreement(asks - here, int(displaced.sum()), cells)


def _column(path: Path | str, name: str, rows: npt.NDArray[np.int64] | None = None) -> pa.Array:
    column = pq.read_table(path, columns=[name])[name].combine_chunks()
    return column if rows is None else column.take(pa.array(rows))


def _differ(expected: pa.Array, got: pa.Array) -> Mask:
    if got.type != expected.type:
        got = got.cast(expected.type)
    null, other = np.asarray(expected.is_null()), np.asarray(got.is_null())
    unequal = np.asarray(pc.fill_null(pc.not_equal(expected, got), False))
    return np.asarray((null != other) | unequal)
