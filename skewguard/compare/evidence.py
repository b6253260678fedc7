"""What the checks beside the replay share: how they are fed, and how a finding of theirs is put."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewguard.answer import Served, from_table
from skewguard.compare.rows import EXAMPLES, counted_by_hour, told_by_hour
from skewguard.definitions import Bundle
from skewguard.errors import SnapshotError
from skewguard.findings import Example, Finding, Kind, Tap
from skewguard.snapshot import Snapshot
from skewguard.statistics import log10_e
from skewguard.values import Array, Column, Mask, instant

SAMPLE_ROWS = 1 << 17

LEAST, FACTOR = 0.02, 3.0
"""A share may be so many times that of the snapshot's worst stretch, and so much greater: seasons bring new things."""

_STRETCHES = (100, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000)
_TOO_MUCH = 0.5


class Check(Protocol):
    """Looks at every batch of the log once, and then says what it found."""

    def add(self, served: Served) -> None:
        """One more batch."""
        ...

    def findings(self) -> list[Finding]:
        """What all batches came to."""
        ...


def training_rows(snapshot: Snapshot, rows: int = SAMPLE_ROWS) -> Served:
    """The snapshot's rows, or whole row groups evenly spread over it where it has more than `rows`."""
    with pq.ParquetFile(snapshot.path / "rows.parquet") as file:
        groups = file.num_row_groups
        wanted = max(1, min(groups, groups * rows // max(file.metadata.num_rows, 1)))
        chosen = sorted({int(i) for i in np.linspace(0, groups - 1, wanted)}) if groups else []
        table = file.read_row_groups(chosen) if groups else file.read()
    try:
        return from_table(snapshot.bundle, pa.table(table).combine_chunks())
    except KeyError as error:
        raise SnapshotError(f"{snapshot.path}: rows.parquet is torn, or of another version: {error.args[0]}") from error


def numbers(bundle: Bundle, served: Served) -> dict[str, Array]:
    """Every numeric feature and request field as float64, NaN where there is no value."""
    columns = {field.name: served.spine.request[field.name] for field in bundle.request} | served.features(bundle)
    return {name: _float(column) for name, column in columns.items() if column.dtype.is_numeric}


def _float(column: Column) -> Array:
    values = column.values.astype(np.float64)
    if not column.dtype.is_float:
        values[~column.present] = np.nan
    return values


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The share of odd rows that a healthy log of so many rows may have: (rows, share) pairs, fewest rows first.

    What is odd comes in clusters, such as the hours of a storm, so that a short log may have a greater share.
    """

    shares: tuple[tuple[int, float], ...] = ()

    @classmethod
    def of(cls, odd: Mask, least: float = LEAST) -> Tolerance:
        """By the worst stretches of the snapshot: `odd` are its later rows, in order of time, held against earlier."""
        sums = np.concatenate([[0], np.cumsum(odd)])
        shares = []
        for rows in _STRETCHES:
            if 2 * rows <= len(odd):
                worst = float((sums[rows:] - sums[:-rows]).max()) / rows
                shares.append((rows, max(FACTOR * worst, worst + least)))
        return cls(tuple(shares))

    def at(self, rows: int) -> float:
        """For a log of so many rows; 1 where nothing is known of one so short, or too much is odd for a rule."""
        share = next((share for most, share in reversed(self.shares) if most <= rows), 1.0)
        return share if share <= _TOO_MUCH else 1.0


class Hits:
    """Rows that break one rule, added up over batches: counts, hours, examples."""

    def __init__(self, kind: Kind, feature: str, what: str, benign: float = 0.0) -> None:
        self.kind, self.feature, self.what, self.benign = kind, feature, what, benign
        self.rows, self.of = 0, 0
        self.examples: list[Example] = []
        self._hours: list[Array] = []

    def add(self, served: Served, hit: Mask, got: Sequence[str] | Array, wanted: Sequence[str] | Array) -> None:
        """`hit` (n,) of the rows; `got` and `wanted` of the rows that are hit, in order."""
        self.rows += int(hit.sum())
        self.of += len(hit)
        self._hours.append(counted_by_hour(served.spine.as_of, hit))
        spine = served.spine
        for i, row in enumerate(np.flatnonzero(hit)[: EXAMPLES - len(self.examples)].tolist()):
            keys = ", ".join(f"{name} {column.value(row)}" for name, column in spine.keys.items())
            at = instant(int(spine.as_of[row]))
            self.examples.append(Example(str(spine.ids[row]), at, keys, str(got[i]), str(wanted[i])))

    def beyond(self, tolerance: Tolerance) -> Finding | None:
        """What they come to where they are more than is tolerated, else None."""
        self.benign = tolerance.at(self.of)
        return self.finding() if self.rows > self.benign * self.of else None

    def finding(self) -> Finding | None:
        """What they come to; None without a hit."""
        if not self.rows:
            return None
        return Finding(
            self.kind,
            self.feature,
            self.rows,
            self.of,
            f"{self.feature}: {self.rows:,} of {self.of:,} {self.what}",
            Tap.NONE,
            examples=tuple(self.examples),
            by_hour=told_by_hour(self._hours),
            benign=self.benign,
            evidence=log10_e(self.rows, self.of, self.benign),
        )
