"""The reader: exactly the whole frames of every segment, and what is wrong with it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from skewguard.errors import LogError
from skewguard.servinglog import segment as seg

_STRAY_SECONDS = 60.0
_BLOCK = 256  # batches


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment as it was when the log was read; rows that came later are not in it.

    `header` is the text that the writer gave, with the log's own format, service, boot_id, segment, pid,
    started_at. `sealed`: closed for good. `owned`: a living process writes it. `rows` and `frames` count what
    is whole, `size` its bytes, header included. `torn_bytes` stand behind that: of an owned segment a frame
    on its way, of an abandoned one the append that its process did not live to acknowledge. `damaged`: more
    than such a tail is wrong (bytes behind a sealed segment, whole frames behind the torn place, no readable
    header), so that acknowledged rows may be lost. Without a readable header `header` and `schema` are empty.
    """

    path: Path
    service: str
    boot_id: str
    number: int
    header: Mapping[str, str]
    schema: pa.Schema
    sealed: bool
    owned: bool
    frames: int
    rows: int
    size: int
    torn_bytes: int
    damaged: bool
    seed: bytes = field(repr=False)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, one record batch per append, in the order in which they were written.

        Raises `LogError` if the file is gone or has lost bytes since it was read.
        """
        for frame in self.raw_frames():
            yield _decode(frame, self)

    def raw_frames(self) -> Iterator[seg.Frame]:
        """The same, not decoded. Raises as `batches` does."""
        left = self.frames
        if left:
            with _open(self.path) as file:
                header = seg.read_frame(file, self.size, b"")
                room = self.size - file.tell() if header else 0
                for frame in seg.data_frames(file, room, self.seed):
                    yield frame
                    left -= 1
        if left:
            raise LogError(f"{self.path}: {left} frames that were there a moment ago are gone. Read the log again.")


@dataclass(frozen=True, slots=True)
class LogReading:
    """What the log held at one moment. Segments are ordered by service, boot id (a time) and number."""

    root: Path
    segments: tuple[Segment, ...]

    @property
    def rows(self) -> int:
        """Rows in whole frames, over all segments."""
        return sum(segment.rows for segment in self.segments)

    @property
    def torn_bytes(self) -> int:
        """Bytes behind the whole frames, over all segments."""
        return sum(segment.torn_bytes for segment in self.segments)

    @property
    def damaged(self) -> tuple[Segment, ...]:
        """The segments in which acknowledged rows may be lost: no ground for a PASS."""
        return tuple(segment for segment in self.segments if segment.damaged)

    def batches(self) -> Iterator[tuple[Segment, pa.RecordBatch]]:
        """Every append that was whole when the log was read: its segment and its rows, in a fixed order.

        Raises `LogError` if a segment is gone or has lost bytes since then.
        """
        for segment in self.segments:
            for batch in segment.batches():
                yield segment, batch


def read_log(root: str | Path, service: str | None = None) -> LogReading:
    """Read the log of `service`, or of every service under `root`, without disturbing who writes it.

    A torn tail is reported, never raised. Raises `LogError` for a folder that is not there, and for a segment
    of a format or with a kind of frame that this version does not know.
    """
    return LogReading(Path(root), tuple(_read_segment(path) for path in _segment_paths(root, service)))


def recover(root: str | Path, service: str | None = None) -> tuple[Segment, ...]:
    """Seal every open segment whose owner is dead, cutting off its torn tail; returns those segments.

    Live writers are left alone, and so is a segment of an unknown format. Of a damaged segment nothing is cut
    off. Raises `LogError` for a folder that is not there, or one in which files cannot be renamed.
    """
    paths = [path for path in _segment_paths(root, service) if path.suffix == seg.OPEN and _seal_abandoned(path)]
    for folder in _folders(root, service):
        for stray in folder.glob(f"*{seg.NEW}"):
            # Its process died before the segment had a row. A young one may have a living owner.
            with contextlib.suppress(OSError):
                if time.time() - stray.stat().st_mtime > _STRAY_SECONDS:
                    stray.unlink()
    return tuple(_read_segment(path.with_suffix(seg.SEALED)) for path in paths)


def to_table(reading: LogReading, columns: Sequence[str] | None = None, header_fields: Sequence[str] = ()) -> pa.Table:
    """All rows as one table, one chunk per segment, with `columns` or all of them.

    Every name in `header_fields` adds a column `h__<name>` (dictionary of int32 and string) with that header
    field of the row's segment, null where a segment has none. Segments without rows do not count, but for the
    schema of a log without rows; a log without segments gives a table without columns.

    Raises `LogError` if segments differ in the schema of the chosen columns (naming two of them and the first
    difference), if a column is not in the log, or if no segment has a header field that was asked for.
    """
    readable = [segment for segment in reading.segments if segment.header]
    for name in header_fields:
        if readable and not any(name in segment.header for segment in readable):
            known = ", ".join(sorted({key for segment in readable for key in segment.header}))
            raise LogError(f"{reading.root}: no segment's header has {name!r}. There are: {known}.")
    chosen = [segment for segment in readable if segment.rows] or readable[-1:]
    schema = pa.schema([])
    for segment in chosen:
        own = _chosen_schema(segment, columns)
        if segment is chosen[0]:
            schema = own
        elif not own.equals(schema):
            raise LogError(
                f"{chosen[0].path} and {segment.path} differ in their schema: "
                f"{seg.first_difference(schema, own)}. "
                "Read them apart (LogReading.batches), or choose columns that they share."
            )
    tables = []
    for segment in chosen:
        blocks = _blocks(segment, None if columns is None else schema.names)
        table = pa.Table.from_batches(blocks, schema).combine_chunks()
        for name in header_fields:
            column = _constant(segment.header.get(name), table.num_rows)
            table = table.append_column(f"h__{name}", column)
        tables.append(table)
    return pa.concat_tables(tables).unify_dictionaries() if tables else pa.table({})


def find(
    root: str | Path, request_id: str | bytes | int, column: str = "request_id", service: str | None = None
) -> list[tuple[Segment, pa.RecordBatch]]:
    """Every row whose `column` equals `request_id`: its segment and a batch of one row, in the log's order.

    Raises `LogError` as `read_log` does, if no segment has that column, and if it holds another type than asked
    for (text columns are asked for a str, binary ones for bytes, integers for an int).
    """
    reading = read_log(root, service)
    found = []
    needle = request_id.encode() if isinstance(request_id, str) else request_id
    candidates = [segment for segment in reading.segments if column in segment.schema.names]
    if not candidates and any(segment.rows for segment in reading.segments):
        raise LogError(f"{root}: no segment has a column {column!r}. Name the column that holds the request's id.")
    for segment in candidates:
        kind = segment.schema.field(column).type
        if not _comparable(kind, request_id):
            raise LogError(f"{segment.path}: {column} is {kind}, not the type of {request_id!r}.")
        for frame in segment.raw_frames():
            # Text and bytes lie in a frame as they are, so most frames need not be decoded.
            if isinstance(needle, bytes) and needle not in frame.payload:
                continue
            batch = _decode(frame, segment)
            values = batch.column(batch.schema.names.index(column)).to_pylist()
            found += [(segment, batch.slice(row, 1)) for row, value in enumerate(values) if value == request_id]
    return found


def _folders(root: str | Path, service: str | None) -> list[Path]:
    folder = Path(root) if service is None else seg.service_folder(root, service)
    if not folder.is_dir():
        raise LogError(f"{folder}: expected the folder of a serving log, found none. Has the service logged a row yet?")
    if service is not None:
        return [folder]
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _segment_paths(root: str | Path, service: str | None) -> list[Path]:
    """The segments' files in the order of reading; one that is sealed meanwhile may have its old name."""
    paths = []
    for folder in _folders(root, service):
        found: dict[tuple[str, int], Path] = {}
        # Twice: a listing may miss a file that is renamed while it runs, but a segment is renamed only once.
        for _ in range(2):
            for path in folder.iterdir():
                key = seg.parse_stem(path.stem)
                if key and path.suffix in (seg.OPEN, seg.SEALED):
                    found[key] = path
        paths += [found[key] for key in sorted(found)]
    return paths


def _open(path: Path) -> BinaryIO:
    """The segment's file, under its sealed name if it has been sealed meanwhile."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        try:
            return path.with_suffix(seg.SEALED).open("rb")
        except OSError as error:
            raise LogError(f"{path}: the segment is gone: {error}. Read the log again.") from error
    except OSError as error:
        raise LogError(f"{path}: the segment cannot be read: {error}.") from error


def _read_segment(path: Path) -> Segment:
    with _open(path) as file:
        owned = path.suffix == seg.OPEN and _is_owned(file)
        sealed = path.suffix == seg.SEALED
        segment = _scan(file, path, sealed, owned)
        if segment.damaged and owned:
            # A writer that takes back a failed append and goes on can look like this for an instant.
            segment = _scan(file, path, sealed, owned)
    return segment


def _is_owned(file: BinaryIO) -> bool:
    try:
        seg.lock(file.fileno(), shared=True)
    except BlockingIOError:
        return True
    except OSError:
        return False  # without locks nobody can write here
    seg.unlock(file.fileno())
    return False


def _scan(file: BinaryIO, path: Path, sealed: bool, owned: bool) -> Segment:
    file.seek(0)
    size = os.fstat(file.fileno()).st_size
    if (foreign := seg.foreign_format(file)) is not None:
        raise LogError(
            f"{path}: expected format {seg.FORMAT}, got {foreign}. Another version of skewguard wrote it, "
            "or its first bytes are damaged; move it away to read the rest."
        )
    file.seek(0)
    first = seg.read_frame(file, size, b"")
    header: Mapping[str, str] = {}
    schema, seed, end, frames, rows = pa.schema([]), b"", 0, 0, 0
    if first is not None and first.kind == seg.HEADER:
        header, schema = seg.parse_header(first.payload)
        seed = first.crc
        end = seg.HEAD_BYTES + len(first.payload)
        for frame in seg.data_frames(file, size - end, seed):
            end += seg.HEAD_BYTES + len(frame.payload)
            rows += frame.rows
            frames += 1
    damaged = not header
    if header and end < size:
        file.seek(end)
        damaged = sealed or seg.holds_whole_frame(file.read(size - end), seed)
    boot_id, number = seg.parse_stem(path.stem) or ("", 0)
    return Segment(
        path=path,
        service=path.parent.name,
        boot_id=boot_id,
        number=number,
        header=header,
        schema=schema,
        sealed=sealed,
        owned=owned,
        frames=frames,
        rows=rows,
        size=end,
        torn_bytes=size - end,
        damaged=damaged,
        seed=seed,
    )


def _seal_abandoned(path: Path) -> bool:
    """Seal the open segment at `path` if nobody owns it; whether that was done."""
    try:
        with path.open("r+b") as file:
            seg.lock(file.fileno())
            segment = _scan(file, path, sealed=False, owned=False)
            if not segment.damaged:
                os.ftruncate(file.fileno(), segment.size)
            os.fsync(file.fileno())
            path.rename(path.with_suffix(seg.SEALED))
            seg.sync_folder(path.parent)
    except (FileNotFoundError, BlockingIOError, LogError):  # sealed by somebody else, owned, of another version
        return False
    except OSError as error:
        raise LogError(f"{path}: the segment of a dead process could not be sealed: {error}.") from error
    return True


def _decode(frame: seg.Frame, segment: Segment) -> pa.RecordBatch:
    try:
        return pa.ipc.read_record_batch(pa.py_buffer(frame.payload), segment.schema)
    except pa.ArrowException as error:
        raise LogError(
            f"{segment.path}: frame {frame.sequence} is whole but no batch of its schema: {error}."
        ) from error


def _chosen_schema(segment: Segment, columns: Sequence[str] | None) -> pa.Schema:
    if columns is None:
        return segment.schema
    missing = [name for name in columns if name not in segment.schema.names]
    if missing:
        raise LogError(f"{segment.path}: no column {', '.join(missing)}. There are: {', '.join(segment.schema.names)}.")
    return pa.schema([segment.schema.field(name) for name in columns])


def _blocks(segment: Segment, names: list[str] | None) -> Iterator[pa.RecordBatch]:
    """The segment's rows in few batches: the many small buffers of small appends must not all live at once."""
    waiting = []
    for batch in segment.batches():
        waiting.append(batch if names is None else batch.select(names))
        if len(waiting) == _BLOCK:
            yield pa.concat_batches(waiting)
            waiting = []
    if waiting:
        yield pa.concat_batches(waiting)


def _comparable(kind: pa.DataType, request_id: str | bytes | int) -> bool:
    types = pa.types
    if isinstance(request_id, str):
        return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))
    if isinstance(request_id, bytes):
        return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))
    return bool(types.is_integer(kind))


def _constant(text: str | None, rows: int) -> pa.DictionaryArray:
    """`rows` times `text`, from buffers: pyarrow's shorter ways import pandas where it is installed."""
    value = (text or "").encode()
    offsets = np.array([0, len(value)], dtype=np.int32)
    values = pa.StringArray.from_buffers(1, pa.py_buffer(offsets), pa.py_buffer(value))
    validity = None if text is not None else pa.py_buffer(np.zeros(-(-rows // 8), dtype=np.uint8))
    indices = pa.Array.from_buffers(pa.int32(), rows, [validity, pa.py_buffer(np.zeros(rows, dtype=np.int32))])
    return pa.DictionaryArray.from_arrays(indices, values)
