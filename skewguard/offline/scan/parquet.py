"""Parquet files on a local disk, row group by row group, without a database between: see ADR 0011.

Only what needs no interpretation: files of one schema, columns of plain types. `local_pieces` declines everything
else (hive partitions, other schemas, URIs, lists, broken files), and DuckDB reads it, or says what is wrong with it.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from skewguard.definitions import Source, View
from skewguard.errors import CastError, SourceError
from skewguard.values import NO_TIME, cast

Ints = npt.NDArray[np.int64]
Stamp = tuple[str, int, int, int]
Stamps = tuple[Stamp, ...]

_MAGIC = set("*?[")


def files_of(source: Source) -> list[Path] | None:
    """The local files of a source (a file, a folder, a pattern), sorted; None where it does not lie on a local disk."""
    if "://" in source.path:
        return None
    path = Path(source.path)
    if path.is_dir():
        return sorted(path.rglob("*.parquet"))
    if path.exists() or not _MAGIC & set(source.path):
        return [path]
    return sorted(Path(found) for found in glob.glob(source.path, recursive=True))  # noqa: PTH207 - an absolute pattern


def stamps_of(source: Source) -> Stamps | None:
    """Name, inode, size and time of change of every file of a source: another one where the rows may be others.

    None where it does not lie on a local disk.
    """
    files = files_of(source)
    if files is None:
        return None
    return tuple(_stamp(file) for file in files if file.exists())


def _stamp(path: Path) -> Stamp:
    stat = path.stat()
    return str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns


class SourceChanged(SourceError):
    """Files were replaced while they were read: ask again."""


def local_schema(source: Source) -> pa.Schema | None:
    """Names and types of the columns of local files, those of the first; None where DuckDB has to read them."""
    files = _open(source)
    return files[0].schema if files else None


def local_pieces(view: View) -> LocalPieces | None:
    """The rows of a view; None where DuckDB has to read them, or to say why it cannot."""
    files = _open(view.source)
    if not files or not any(file.metadata.num_row_groups for file in files):
        return None
    columns = {f"k{i}": key.column for i, key in enumerate(view.keys)}
    columns |= {"event": view.source.timestamp} | ({"created": view.source.created} if view.source.created else {})
    columns |= {f"f{i}": feature.column for i, feature in enumerate(view.features)}
    for name in set(columns.values()):
        types = {file.schema.field(name).type if file.schema.names.count(name) == 1 else None for file in files}
        if len(types) > 1 or "." in name or not _is_plain(types.pop()):
            return None
    return LocalPieces(view, files, columns)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    stamp: Stamp
    metadata: pq.FileMetaData
    schema: pa.Schema


def _open(source: Source) -> list[_File] | None:
    paths = files_of(source)
    if not paths or any("=" in str(path.parent) or _is_hidden(path, source) for path in paths):
        return None
    files = []
    for path in paths:
        try:
            with pq.ParquetFile(path, coerce_int96_timestamp_unit="us") as file:
                files.append(_File(path, _stamp(path), file.metadata, file.schema_arrow))
        except (OSError, pa.ArrowException):
            return None
    return files


def _is_hidden(path: Path, source: Source) -> bool:
    """Whether it lies in a folder that may be about to appear, or is such a file."""
    root = Path(source.path)
    inside = path.relative_to(root).parts if root.is_dir() else (path.name,)
    return any(part.startswith((".", "_")) for part in inside)


def _is_plain(kind: pa.DataType | None) -> bool:
    if kind is None:
        return False
    floats = pt.is_float32(kind) or pt.is_float64(kind)
    texts = pt.is_string(kind) or pt.is_large_string(kind)
    others = pt.is_boolean(kind) or pt.is_timestamp(kind) or pt.is_date32(kind) or pt.is_decimal128(kind)
    return bool(pt.is_integer(kind) or floats or texts or others)


class LocalPieces:
    """One piece per row group. Files are opened for a piece and closed again: threads share nothing."""

    def __init__(self, view: View, files: Sequence[_File], columns: dict[str, str]) -> None:
        self._view, self._columns = view, columns
        self.schema = files[0].schema
        self._groups = [(file, group) for file in files for group in range(file.metadata.num_row_groups)]
        rows = [file.metadata.row_group(group).num_rows for file, group in self._groups]
        self.starts: Ints = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)]).astype(np.int64)
        self.nbytes = sum(file.metadata.row_group(group).total_byte_size for file, group in self._groups)

    def read(self, piece: int, names: Sequence[str]) -> list[pa.Array]:
        """These columns of one row group."""
        file, group = self._groups[piece]
        distinct = list(dict.fromkeys(self._columns[name] for name in names))
        try:
            with pq.ParquetFile(
                file.path, metadata=file.metadata, pre_buffer=False, coerce_int96_timestamp_unit="us"
            ) as opened:
                table = opened.read_row_group(group, columns=distinct, use_threads=False)
            changed = _stamp(file.path) != file.stamp
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{self._where}: {file.path}: {str(error).partition(chr(10))[0]}") from error
        if changed:
            raise SourceChanged(f"{self._where}: {file.path} was replaced while it was read")
        return [self._as(name, table.column(self._columns[name])) for name in names]

    @property
    def _where(self) -> str:
        return f"{self._view.source.path} (view {self._view.name})"

    def _as(self, name: str, column: pa.ChunkedArray) -> pa.Array:
        array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        if name in ("event", "created"):
            return _microseconds(array)
        if name.startswith("k"):
            key = self._view.keys[int(name[1:])]
            try:
                return cast(array, key.dtype, f"column {key.column!r}")
            except CastError as error:
                raise SourceError(f"{self._where}: {error}") from error
        return array


_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def _microseconds(array: pa.Array) -> pa.Array:
    """Microseconds since 1970, rounded down, `NO_TIME` for null."""
    whole = array.view(pa.int64())
    if whole.null_count:
        whole = whole.fill_null(NO_TIME)
    per_second = _PER_SECOND[array.type.unit]
    if per_second == 10**6:
        return whole
    ticks = whole.to_numpy()
    some = ticks if not array.null_count else np.where(ticks == NO_TIME, 0, ticks)
    us = some // (per_second // 10**6) if per_second > 10**6 else some * (10**6 // per_second)
    return pa.array(us if some is ticks else np.where(ticks == NO_TIME, NO_TIME, us))
