"""One segment: what is whole of it, what is wrong with it, and sealing it where its writer died."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from skewguard.errors import LogError
from skewguard.servinglog import archive as arc
from skewguard.servinglog import ones
from skewguard.servinglog import segment as seg
from skewguard.servinglog.erasure import Tombstone, without
from skewguard.servinglog.privacy import reveal

_STRAY_SECONDS = 60.0
_BLOCK, _ONES = 256, 2048  # frames


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment as it was when the log was read; rows that came later are not in it.

    `header` is the text that the writer gave, with the log's own format, service, boot_id, segment, pid,
    started_at. `sealed`: closed for good. `owned`: a living process writes it. `rows` and `frames` count what
    is whole, `size` its bytes, header included. `torn_bytes` stand behind that: of an owned segment a frame
    on its way, of an abandoned one the append that its process did not live to acknowledge. `damaged`: more
    than such a tail is wrong (bytes behind a sealed segment, whole frames behind the torn place, no readable
    header), so that acknowledged rows may be lost. Without a readable header `header` and `schema` are empty.

    Of a segment that was compacted the rows lie in `parts`, and `path` is where the segment lay. `rows` is what is
    left where somebody was erased.
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
    compacted: bool = False
    parts: tuple[arc.Part, ...] = field(default=(), repr=False)
    hidden: tuple[Tombstone, ...] = field(default=(), repr=False)
    known: Mapping[str, Mapping[str | int, str | int]] = field(default_factory=dict, repr=False)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, one record batch per append, in the order in which they were written; compacted ones in the
        order of their parts.

        Raises `LogError` if the file is gone or has lost bytes since it was read.
        """
        for _, batch in self.appends():
            yield batch

    def appends(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The same, each batch with its frame's number; of a compacted segment one batch per part, numbered 0."""
        if self.compacted:
            yield from ((0, self.plain(batch)) for part in self.parts for batch in _of_part(part, self.path.stem))
            return
        for frame in self.raw_frames():
            yield frame.sequence, self.decode(frame)

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """The rows in few batches, for who does not care which append they came by. Raises as `batches` does."""
        if self.compacted:
            yield from self.batches()
            return
        for block, _, _ in self.numbered_blocks():
            yield block

    def numbered_blocks(self) -> Iterator[tuple[pa.RecordBatch, list[int], list[int]]]:
        """Of a segment that was not compacted: blocks, the frames of each, and how many rows of each frame it has."""
        alone = not self.hidden and not self.known
        for frames in _runs(self.raw_frames()):
            numbers = [frame.sequence for frame in frames]
            block = None
            if alone and frames[0].rows == 1 and len(frames) > 1:
                block = self._at_once(frames)
                alone = block is not None  # what it cannot do for one block, it cannot for the next
            if block is not None:
                yield block, numbers, [1] * len(frames)
            else:
                batches = [self.decode(frame) for frame in frames]
                yield pa.concat_batches(batches), numbers, [batch.num_rows for batch in batches]

    def _at_once(self, frames: Sequence[seg.Frame]) -> pa.RecordBatch | None:
        try:
            return ones.decode([frame.message() for frame in frames], self.schema)
        except (OSError, pa.ArrowException):  # what cannot be decompressed is named by `decode`
            return None

    def decode(self, frame: seg.Frame) -> pa.RecordBatch:
        """The rows of a frame, without those that were erased. Raises `LogError` for what is no batch."""
        try:
            batch = pa.ipc.read_record_batch(frame.message(), self.schema)
        except (OSError, pa.ArrowException) as error:
            raise LogError(
                f"{self.path}: frame {frame.sequence} is whole but no batch of its schema: {error}."
            ) from error
        return self.plain(without(self.hidden, batch) if self.hidden else batch)

    def plain(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Rows of this segment with the keys that `LogReading.revealed` made known in the place of their hashes."""
        return reveal(batch, self.known) if self.known else batch

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
                    if not left:
                        return
        if left:
            raise LogError(f"{self.path}: {left} frames that were there a moment ago are gone. Read the log again.")


def _runs(frames: Iterator[seg.Frame]) -> Iterator[list[seg.Frame]]:
    """Frames in lists, those of one row apart from the others."""
    run: list[seg.Frame] = []
    for frame in frames:
        single = frame.rows == 1
        if run and (single != (run[0].rows == 1) or len(run) == (_ONES if single else _BLOCK)):
            yield run
            run = []
        run.append(frame)
    if run:
        yield run


def _of_part(part: arc.Part, stem: str) -> Iterator[pa.RecordBatch]:
    import pyarrow.compute as pc

    for batch in part.batches():
        own = batch.filter(pc.equal(batch.column(arc.SEGMENT).cast(pa.string()), stem))
        if own.num_rows:
            yield own.select(part.schema.names)


def recover(root: str | Path, service: str | None = None) -> tuple[Segment, ...]:
    """Seal every open segment whose owner is dead, cutting off its torn tail; returns those segments.

    Live writers are left alone, and so is a segment of an unknown format. Of a damaged segment nothing is cut
    off. Raises `LogError` for a folder that is not there, or one in which files cannot be renamed.
    """
    paths = [path for path in segment_paths(root, service) if path.suffix == seg.OPEN and _seal_abandoned(path)]
    for folder in folders(root, service):
        for stray in folder.glob(f"*{seg.NEW}"):
            # Its process died before the segment had a row. A young one may have a living owner.
            with contextlib.suppress(OSError):
                if time.time() - stray.stat().st_mtime > _STRAY_SECONDS:
                    stray.unlink()
    return tuple(read_segment(path.with_suffix(seg.SEALED)) for path in paths)


def folders(root: str | Path, service: str | None) -> list[Path]:
    """The folders of one service or of all. Raises `LogError` where there is none."""
    folder = Path(root) if service is None else seg.service_folder(root, service)
    if not folder.is_dir():
        raise LogError(f"{folder}: expected the folder of a serving log, found none. Has the service logged a row yet?")
    if service is not None:
        return [folder]
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def segment_paths(root: str | Path, service: str | None) -> list[Path]:
    """The segments' files in the order of reading; one that is sealed meanwhile may have its old name."""
    paths = []
    for folder in folders(root, service):
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


def read_segment(path: Path, hidden: tuple[Tombstone, ...] = ()) -> Segment:
    """The segment in a file, without the rows of those in `hidden`. Raises as `read_log` does."""
    with _open(path) as file:
        owned = path.suffix == seg.OPEN and _is_owned(file)
        sealed = path.suffix == seg.SEALED
        segment = _scan(file, path, sealed, owned, hidden)
        if segment.damaged and owned:
            # A writer that takes back a failed append and goes on can look like this for an instant.
            segment = _scan(file, path, sealed, owned, hidden)
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


def _scan(file: BinaryIO, path: Path, sealed: bool, owned: bool, hidden: tuple[Tombstone, ...] = ()) -> Segment:
    file.seek(0)
    size = os.fstat(file.fileno()).st_size
    if (foreign := seg.foreign_format(file)) is not None:
        raise LogError(
            f"{path}: expected format 1 to {seg.FORMAT}, got {foreign}. Another version of skewguard wrote it, "
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
    segment = Segment(
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
        hidden=hidden,
    )
    return replace(segment, rows=sum(batch.num_rows for batch in segment.batches())) if hidden and frames else segment


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
