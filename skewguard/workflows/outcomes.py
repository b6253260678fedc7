"""Outcomes: bring in what became of requests, to be joined with their predictions by request id."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skewguard.compare.outcomes import COLUMNS
from skewguard.errors import CastError, EvidenceError
from skewguard.values import Dtype, cast


@dataclass(frozen=True, slots=True)
class Imported:
    """What was brought in: the file that was written, its rows, and how many of them say when they were asked."""

    path: Path
    rows: int
    timed: int


def import_outcomes(
    table: pa.Table, folder: str | Path, *, id_column: str, outcome: str, as_of: str | None = None
) -> Imported:
    """Write outcomes into `folder`, as a file of its own; an id that is there already gets its newest outcome.

    `outcome` is a number or bool; rows without one are left out: they are not known yet. Raises `EvidenceError` for a
    missing column, a null or repeated id, and a value of another type.
    """
    absent = [name for name in (id_column, outcome, *([as_of] if as_of else [])) if name not in table.column_names]
    if absent:
        raise EvidenceError(f"outcomes: no column {absent[0]!r}; there are {', '.join(table.column_names)}")
    known = table.filter(table[outcome].is_valid())
    ids = known[id_column]
    if ids.null_count or len(ids.unique()) != len(ids):
        raise EvidenceError(f"outcomes: {id_column} must name every request once; some are null or repeated")
    values = known[outcome].cast(pa.int64()) if pa.types.is_boolean(known[outcome].type) else known[outcome]
    try:
        columns = [cast(ids, Dtype.STRING, id_column), cast(values, Dtype.FLOAT64, outcome)]
        columns.append(cast(known[as_of], Dtype.TIMESTAMP, as_of) if as_of else pa.nulls(len(known), COLUMNS[2].type))
    except CastError as error:
        raise EvidenceError(f"outcomes: {error}") from error
    written = pa.table(columns, schema=COLUMNS)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(str(written.to_pydict()).encode()).hexdigest()[:12]
    path = folder / f"{time.time_ns():020}-{digest}.parquet"  # the order of names is the order of imports
    partial = path.with_suffix(".partial")
    pq.write_table(written, partial)
    partial.rename(path)
    return Imported(path, len(written), len(written) - written["event_timestamp"].null_count)
