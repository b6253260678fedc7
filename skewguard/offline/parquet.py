"""Parquet on a local disk, written so that a reader sees the old rows or the new ones and never a part of them."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from skewguard.errors import SourceError

ROW_GROUP = 1 << 18


def append_rows(table: pa.Table, path: Path) -> None:
    """Add rows to a Parquet file, or to a directory of them (hive partitions included), cast to the types in it.

    Writers of one file wait for each other. Raises `SourceError` where there is nothing at `path`, the columns are
    others, or a value does not fit.
    """
    if path.is_dir():
        add_part(table, path, _partitions(path))
        return
    if not path.is_file():
        raise SourceError(f"{path}: expected a Parquet file or a directory of them to add rows to")
    path = path.resolve()
    with _only_writer(path.parent), _readable(path) as old:
        new = _conform(table, old.schema_arrow, path)
        with _replacing(path) as partial, pq.ParquetWriter(partial, old.schema_arrow) as writer:
            for batch in old.iter_batches():
                writer.write_batch(batch)
            writer.write_table(new)
            shutil.copymode(path, partial)


def add_part(table: pa.Table, folder: Path, partition_by: Sequence[str] = ()) -> None:
    """Add rows to a directory as files of their own, one per partition; each appears whole or not at all."""
    absent = [column for column in partition_by if column not in table.column_names]
    if absent:
        raise SourceError(f"{folder}: column {absent[0]!r}, by which it is partitioned, is missing")
    there = next(folder.rglob("*.parquet"), None)
    if there is not None:
        with _readable(there) as old:
            partitions = [table.schema.field(column) for column in partition_by]
            inside = [field for field in old.schema_arrow if field.name not in partition_by]
            table = _conform(table, pa.schema([*inside, *partitions]), folder)
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.partial"
    by = ds.partitioning(pa.schema([table.schema.field(column) for column in partition_by]), flavor="hive")
    try:
        ds.write_dataset(
            table,
            staged,
            format="parquet",
            partitioning=by if partition_by else None,
            basename_template=f"{uuid.uuid4().hex}-{{i}}.parquet",
        )
        for part in sorted(staged.rglob("*.parquet")):
            target = folder / part.relative_to(staged)
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def replace_rows(table: pa.Table, path: Path) -> None:
    """Make `path` hold these rows and no others: a file if it ends in `.parquet`, else a directory with one file.

    A directory that holds anything but Parquet files is left alone: `SourceError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        with _replacing(path) as partial:
            pq.write_table(table, partial)
        return
    others = [file.name for file in path.rglob("*") if file.is_file() and file.suffix != ".parquet"]
    if others:
        raise SourceError(f"{path}: would be replaced, but holds {others[0]}; name another place, or remove it")
    staged = path.parent / f".{path.name}.{uuid.uuid4().hex}.partial"
    staged.mkdir()
    try:
        pq.write_table(table, staged / "part-0.parquet")
        if path.exists():
            shutil.rmtree(path)
        staged.replace(path)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def write_rows(beside: Sequence[pa.Table], path: Path, own: Sequence[str]) -> None:
    """Write tables of as many rows each, side by side, to a file that appears whole or not at all.

    Statistics for the columns `own` alone, dictionaries for text alone: neither is of use to numbers in no order, and
    trying costs half of the writing.
    """
    columns = {name: table[name] for table in beside for name in table.column_names}
    schema = pa.schema([field for table in beside for field in table.schema])
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    with (
        _replacing(path, durable=False) as partial,  # it can be computed again
        pq.ParquetWriter(partial, schema, use_dictionary=texts, write_statistics=list(own)) as writer,
    ):
        writer.write_table(pa.table(columns, schema=schema), row_group_size=ROW_GROUP)


@contextmanager
def spool(path: Path) -> Iterator[Callable[[pa.Table], pa.Table]]:
    """A function that puts a table on the disk beside `path`, and returns it as it lies there; gone at the end."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:

        def aside(table: pa.Table) -> pa.Table:
            file = Path(folder) / f"{uuid.uuid4().hex}.arrow"
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table, max_chunksize=ROW_GROUP)
            return pa.ipc.open_file(pa.memory_map(str(file))).read_all()

        yield aside


def _conform(table: pa.Table, schema: pa.Schema, path: Path) -> pa.Table:
    """The table with the columns of `schema`, in its order and types."""
    if set(table.column_names) != set(schema.names):
        raise SourceError(
            f"{path}: expected the columns {', '.join(schema.names)}, got {', '.join(table.column_names)}"
        )
    columns = []
    for field in schema:
        column = table[field.name]
        stamps = pa.types.is_timestamp(field.type) and pa.types.is_timestamp(column.type)
        try:
            columns.append(column.cast(field.type, safe=not stamps))  # a time loses what lies below the file's unit
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SourceError(f"{path}: column {field.name!r}: expected {field.type}: {error}") from error
    return pa.Table.from_arrays(columns, schema=schema)


def _partitions(folder: Path) -> list[str]:
    """The columns by which a directory is partitioned (`month=2013-01/...`), outermost first."""
    there = next(folder.rglob("*.parquet"), None)
    parts = there.relative_to(folder).parent.parts if there else ()
    return [part.partition("=")[0] for part in parts if "=" in part]


@contextmanager
def _readable(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path}: expected Parquet, got {error}") from error
    with file:
        yield file


@contextmanager
def _replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A path to write to; it becomes `path` in one step when all went well. `durable`: even if the power fails."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        if durable:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Wait for other writers below `folder`; a system without such locks goes ahead."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
