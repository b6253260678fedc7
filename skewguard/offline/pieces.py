"""Rows of one source, piece by piece, by the names under which the join speaks of its columns.

`k0`.. are keys in their declared dtypes, `event` and `created` int64 microseconds (`NO_TIME` where there is none),
`f0`.. features and `c0`.. carried columns as they lie in the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]


class Pieces(Protocol):
    """`starts` (int64, one more than pieces): the number of each piece's first row, and that of all rows."""

    @property
    def starts(self) -> Ints:
        """Where the pieces begin."""

    @property
    def nbytes(self) -> int:
        """About how much memory all of it takes."""

    def read(self, piece: int, names: Sequence[str]) -> list[pa.Array]:
        """These columns of one piece. May be called from several threads at once; raises `SourceError`."""


class Held:
    """Pieces in memory."""

    def __init__(self, parts: Sequence[dict[str, pa.Array]], rows: Sequence[int]) -> None:
        self._parts = parts
        self.starts: Ints = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        self.nbytes = sum(array.nbytes for part in parts for array in part.values())

    @classmethod
    def of_table(cls, table: pa.Table) -> Held:
        """As they are chunked in the table."""
        empty = pa.record_batch([pa.array([], type=field.type) for field in table.schema], schema=table.schema)
        batches = table.to_batches() or [empty]
        parts = [dict(zip(table.column_names, batch.columns, strict=True)) for batch in batches]
        return cls(parts, [len(batch) for batch in batches])

    @classmethod
    def of_pieces(cls, pieces: Pieces, names: Sequence[str]) -> Held:
        """The named columns of pieces that lie elsewhere."""
        count = len(pieces.starts) - 1
        parts = [dict(zip(names, pieces.read(piece, names), strict=True)) for piece in range(count)]
        return cls(parts, np.diff(pieces.starts).tolist())

    def read(self, piece: int, names: Sequence[str]) -> list[pa.Array]:
        """These columns of one piece."""
        return [self._parts[piece][name] for name in names]
