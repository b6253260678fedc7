"""Where the sheets come from: read, kept while their files stay the same, or taken in parts under a memory limit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import numpy as np
import pyarrow as pa

from skewguard.definitions import View
from skewguard.errors import DefinitionError, SourceError
from skewguard.offline.pieces import Held
from skewguard.offline.scan.duckdb import ViewScan
from skewguard.offline.scan.parquet import (
    LocalPieces,
    SourceChanged,
    Stamps,
    local_pieces,
    local_schema,
    stamps_of,
)
from skewguard.offline.sheet import Sheet
from skewguard.values import Array, Dtype, accepts

T = TypeVar("T")

VIEWS_AT_ONCE = 2

_KEPT_BYTES = 1 << 30
_ATTEMPTS = 2
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([KMGT]i?B)", re.IGNORECASE)
_UNITS = {f"{p}{s}": (1000 if s == "B" else 1024) ** (n + 1) for n, p in enumerate("KMGT") for s in ("B", "IB")}
_VALUE_BYTES = 16  # a value as it is read, and again as it is taken
_ROW_BYTES = 64  # times, packed numbers and places of a row


@dataclass(frozen=True, slots=True)
class Limits:
    """`memory` as users say it (`"1GiB"`), `threads` that read at once, `duckdb_threads` None for its own choice."""

    memory: str | None
    threads: int
    duckdb_threads: int | None

    @property
    def bytes(self) -> int | None:
        """The memory limit in bytes."""
        return None if self.memory is None else size_of(self.memory)


@dataclass(frozen=True, slots=True)
class _Kept:
    sheet: Sheet
    stamps: Stamps | None


class Shelf:
    """The sheets of views. `late`: a row is known from max(event, created). `carry`: source columns that ride along."""

    def __init__(self, limits: Limits, carry: Mapping[str, Sequence[str]], *, late: bool) -> None:
        self._limits, self._carry, self._late = limits, carry, late
        self.limit = limits.bytes
        self._kept: dict[str, _Kept] = {}
        self._keeping = Lock()

    def clear(self) -> None:
        """Forget what was read."""
        with self._keeping:
            self._kept.clear()

    def schema(self, view: View) -> pa.Schema:
        """Names and types of a source's columns."""
        schema = local_schema(view.source)
        if schema is None:
            with closing(self._scan(view)) as scan:
                schema = scan.schema()
        return schema

    def ask(self, view: View, question: Callable[[Sheet], T], *, keep: bool = True) -> T:
        """What a sheet answers; asked again where its files were replaced meanwhile."""
        for _ in range(_ATTEMPTS):
            try:
                return question(self._sheet(view, keep=keep))
            except SourceChanged:
                with self._keeping:
                    self._kept.pop(view.name, None)
        return question(self._sheet(view, keep=keep))

    def parts(self, view: View) -> int:
        """In how many parts a view has to be taken to stay below the memory limit; more than one at a time is open."""
        if self.limit is None or not view.keys:
            return 1
        pieces = self._local(view)
        if pieces is not None:
            rows, columns = int(pieces.starts[-1]), len(view.keys)
        else:
            with closing(self._scan(view)) as scan:
                rows = scan.count()
            columns = len(view.features) + len(view.keys) + len(self._carry.get(view.name, ()))
        return max(1, -(-rows * (columns * _VALUE_BYTES + _ROW_BYTES) * VIEWS_AT_ONCE // self.limit))

    def by_part(self, view: View, keys: Sequence[pa.Array], parts: int) -> Iterator[tuple[Array, Sheet]]:
        """The asks (indices) of one part of the keys after the other, and the sheet that has their rows."""
        with closing(self._scan(view)) as scan:
            part = scan.part_of(keys, parts)
            for number in range(parts):
                where = np.flatnonzero(part == number)
                if len(where):
                    yield where, self._read_by_duckdb(view, scan, number, parts)

    def _sheet(self, view: View, *, keep: bool) -> Sheet:
        """What is kept of a view, if its files are still the same; else what is read now, kept if there is room."""
        stamps = stamps_of(view.source)
        kept = self._kept.get(view.name)
        if kept is not None and kept.stamps == stamps:
            sheet = kept.sheet
        else:
            sheet = self._read(view)
            if stamps_of(view.source) != stamps:
                raise SourceChanged(f"{view.source.path} (view {view.name}): its files changed while they were read")
        if not keep:
            return sheet
        with self._keeping:
            room = _KEPT_BYTES - sum(other.sheet.nbytes for name, other in self._kept.items() if name != view.name)
            if sheet.nbytes <= room:
                self._kept[view.name] = _Kept(sheet, stamps)
                hold = 0 < sheet.worth_holding <= room - sheet.nbytes
            else:
                self._kept.pop(view.name, None)
                hold = False
        if hold:
            sheet.hold()
        return sheet

    def _read(self, view: View) -> Sheet:
        pieces = self._local(view)
        if pieces is not None:
            _check_columns(pieces.schema, view, ())
            return Sheet(view, pieces, late=self._late, threads=self._limits.threads)
        with closing(self._scan(view)) as scan:
            return self._read_by_duckdb(view, scan)

    def _read_by_duckdb(self, view: View, scan: ViewScan, part: int = 0, parts: int = 1) -> Sheet:
        carried = self._carry.get(view.name, ())
        schema = scan.schema()
        _check_columns(schema, view, carried)
        scan.check_keys(schema)
        pieces = Held.of_table(scan.read(carried, part, parts))
        return Sheet(view, pieces, carried, late=self._late, threads=self._limits.threads)

    def _local(self, view: View) -> LocalPieces | None:
        return None if self._carry.get(view.name) else local_pieces(view)

    def _scan(self, view: View) -> ViewScan:
        return ViewScan(view, self._limits.memory, self._limits.duckdb_threads)


def size_of(text: str) -> int:
    """A size such as `512MiB` or `2GB` in bytes. Raises `DefinitionError`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise DefinitionError(f"memory_limit: expected a size such as 512MiB or 2GB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _check_columns(found: pa.Schema, view: View, carried: Sequence[str]) -> None:
    where = f"{view.source.path} (view {view.name})"
    declared = [(key.column, key.dtype) for key in view.keys] + [(f.column, f.dtype) for f in view.features]
    times = [view.source.timestamp, *([view.source.created] if view.source.created else [])]
    asked = [*declared, *((time, "a timestamp") for time in times), *((column, "any type") for column in carried)]
    for column, dtype in asked:
        if column not in found.names:
            raise SourceError(f"{where}: column {column!r} ({dtype}) is missing; it has {', '.join(found.names)}")
        kind = found.field(column).type
        if not (
            accepts(dtype, kind) if isinstance(dtype, Dtype) else dtype == "any type" or pa.types.is_timestamp(kind)
        ):
            raise SourceError(f"{where}: column {column!r}: expected {dtype}, got {kind}")
