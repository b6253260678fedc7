"""The tail of a log: rows that came since the last look, each once, whether its segment is open, sealed or compacted.

A place in a segment is how many frames have been read and where the next one begins; a compacted part says for every
row in which frame it lay, so that a segment may be compacted between two looks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from skewguard.errors import LogError
from skewguard.servinglog import Segment
from skewguard.servinglog import archive as arc
from skewguard.servinglog import segment as seg
from skewguard.servinglog.erasure import Tombstone, load_tombstones
from skewguard.servinglog.gaps import Gap, load_gaps
from skewguard.servinglog.scan import folders, segment_paths

ROWS_AT_ONCE = 65_536
_ALL = 1 << 62


class Place(NamedTuple):
    """How far a segment was read: the next frame's offset, and the number of the last one that was read."""

    offset: int
    frame: int


Places = Mapping[str, Place]


@dataclass(frozen=True, slots=True)
class Fresh(Segment):
    """A segment of which only what came since the last look is read: frames, or rows that lie in parts by now."""

    frames_read: tuple[seg.Frame, ...] = field(default=(), repr=False)
    rows_read: tuple[pa.RecordBatch, ...] = field(default=(), repr=False)

    def raw_frames(self) -> Iterator[seg.Frame]:
        """The new frames."""
        yield from self.frames_read

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """The new rows, in few batches."""
        yield from self.rows_read
        if self.frames_read:
            yield from Segment.blocks(self)


@dataclass(frozen=True, slots=True)
class Read:
    """What a look found. `more`: there is more to read at once. `damaged`: sentences on segments that lost rows."""

    segments: tuple[Fresh, ...]
    gaps: tuple[Gap, ...]
    damaged: tuple[str, ...]
    more: bool

    @property
    def rows(self) -> int:
        """Rows that came."""
        return sum(segment.rows for segment in self.segments)


class Tail:
    """Follows the log of one service. `places` is where it begins; segments that were finished before `since`
    (microseconds) are not read at all.
    """

    def __init__(self, root: str | Path, service: str, places: Places, since: int) -> None:
        self.root, self.service, self._since = Path(root), service, since
        self.places: dict[str, Place] = dict(places)
        self._heads: dict[str, tuple[Mapping[str, str], pa.Schema, bytes]] = {}
        self._room = 0

    def read(self) -> Read:
        """What came since; at most some `ROWS_AT_ONCE` rows. Raises `LogError` where the log is not there."""
        (folder,) = folders(self.root, self.service)
        hidden = load_tombstones(folder)
        manifests = arc.manifests(folder)  # before the files: what is compacted after this is still read as a file
        compacted = {stem: one for manifest in manifests for stem, one in manifest.segments.items()}
        parts = [part for manifest in manifests for part in manifest.parts]
        self._room = ROWS_AT_ONCE
        found: list[Fresh] = []
        damaged = []
        for stem, one in compacted.items():
            if self._room > 0 and self._behind(stem) < one.frames:
                fresh = self._caught_up(folder, stem, one, parts)
                found += [fresh] if fresh else []
        for path in segment_paths(self.root, self.service):
            if path.stem in compacted or self._room <= 0:
                continue
            fresh, complaint = self._of_file(path, hidden)
            found += [fresh] if fresh else []
            damaged += [complaint] if complaint else []
        return Read(tuple(found), tuple(load_gaps(folder)), tuple(damaged), self._room <= 0)

    def _behind(self, stem: str) -> int:
        return self.places[stem].frame if stem in self.places else 0

    def _caught_up(self, folder: Path, stem: str, one: arc.Compacted, parts: list[arc.Part]) -> Fresh | None:
        """The rows of a segment that was compacted before all of it had been read."""
        after = self._behind(stem)
        batches: list[pa.RecordBatch] = []
        for part in parts:
            if stem in part.segments and part.until >= self._since:
                for batch in part.batches():
                    mine = pc.equal(batch.column(arc.SEGMENT).cast(pa.string()), stem)
                    rows = batch.filter(pc.and_(mine, pc.greater(batch.column(arc.FRAME), after)))
                    batches += [rows.select(part.schema.names)] if rows.num_rows else []
        self.places[stem] = Place(0, one.frames)
        return self._fresh(folder / f"{stem}{seg.SEALED}", (one.header, one.schema, b""), batches=tuple(batches))

    def _of_file(self, path: Path, hidden: tuple[Tombstone, ...]) -> tuple[Fresh | None, str]:
        """(the new frames of a segment, a complaint where frames are lost that lay before others)."""
        try:
            file = _open(path)
        except FileNotFoundError:  # compacted this very moment: the next look finds its rows in a part
            return None, ""
        except OSError as error:
            raise LogError(f"{path}: the segment cannot be read: {error}.") from error
        with file:
            sealed = Path(file.name).suffix == seg.SEALED
            stat = os.fstat(file.fileno())
            place = self.places.get(path.stem)
            if place is None and sealed and stat.st_mtime * 1e6 < self._since:
                self.places[path.stem] = Place(stat.st_size, _ALL)
                return None, ""
            if place is not None and place.frame != _ALL and place.offset > stat.st_size:
                return None, f"{path.name} is shorter than what was read of it before: its rows were cut off"
            if place is not None and place.offset >= stat.st_size:
                return None, ""
            return self._frames(path, file, stat.st_size, sealed, hidden)

    def _frames(
        self, path: Path, file: BinaryIO, size: int, sealed: bool, hidden: tuple[Tombstone, ...]
    ) -> tuple[Fresh | None, str]:
        head = self._head(path.stem, file, size)
        if head is None:
            return None, f"{path.name} has no header that can be read" if sealed else ""
        seed = head[2]
        offset, number = self.places[path.stem]
        file.seek(offset)
        frames: list[seg.Frame] = []
        while self._room > 0 and (frame := seg.read_frame(file, size - offset, seed)) is not None:
            if frame.sequence != number + 1 or frame.kind not in seg.KINDS:
                raise LogError(f"{path}: expected frame {number + 1} of rows, got frame {frame.sequence}.")
            frames.append(frame)
            offset, number = offset + seg.HEAD_BYTES + len(frame.payload), number + 1
            self._room -= frame.rows
        self.places[path.stem] = Place(offset, number)
        torn = sealed and self._room > 0 and offset < size
        complaint = f"{path.name} is damaged ({size - offset:,} bytes are no whole frame)" if torn else ""
        return self._fresh(path, head, frames=tuple(frames), hidden=hidden), complaint

    def _head(self, stem: str, file: BinaryIO, size: int) -> tuple[Mapping[str, str], pa.Schema, bytes] | None:
        if stem not in self._heads:
            first = seg.read_frame(file, size, b"")
            if first is None or first.kind != seg.HEADER:
                return None
            self._heads[stem] = (*seg.parse_header(first.payload), first.crc)
            self.places.setdefault(stem, Place(seg.HEAD_BYTES + len(first.payload), 0))
        return self._heads[stem]

    def _fresh(
        self,
        path: Path,
        head: tuple[Mapping[str, str], pa.Schema, bytes],
        *,
        frames: tuple[seg.Frame, ...] = (),
        batches: tuple[pa.RecordBatch, ...] = (),
        hidden: tuple[Tombstone, ...] = (),
    ) -> Fresh | None:
        header, schema, seed = head
        rows = sum(frame.rows for frame in frames) + sum(batch.num_rows for batch in batches)
        self._room -= sum(batch.num_rows for batch in batches)
        if not rows:
            return None
        boot_id, number = seg.parse_stem(path.stem) or ("", 0)
        return Fresh(
            path=path, service=self.service, boot_id=boot_id, number=number, header=header, schema=schema, sealed=False,
            owned=False, frames=len(frames), rows=rows, size=0, torn_bytes=0, damaged=False, seed=seed, hidden=hidden,
            frames_read=frames, rows_read=batches,
        )  # fmt: skip


def _open(path: Path) -> BinaryIO:
    """The segment's file, under its sealed name if it has been sealed meanwhile."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        return path.with_suffix(seg.SEALED).open("rb")
