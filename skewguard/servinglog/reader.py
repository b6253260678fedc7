"""The reader: every row of a log once, wherever it lies by now, and what is wrong with the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from skewguard.errors import LogError
from skewguard.servinglog import archive as arc
from skewguard.servinglog import segment as seg
from skewguard.servinglog.erasure import load_tombstones
from skewguard.servinglog.gaps import Gap, load_gaps
from skewguard.servinglog.privacy import key_id, pseudonym
from skewguard.servinglog.scan import Segment, folders, read_segment, segment_paths

_LOOKS = 20


@dataclass(frozen=True, slots=True)
class LogReading:
    """What the log held at one moment. Segments are ordered by service, boot id (a time) and number.

    `parts` hold the rows of the segments that were compacted; `gaps` say which answers were given but not logged.
    """

    root: Path
    segments: tuple[Segment, ...]
    parts: tuple[arc.Part, ...] = ()
    gaps: tuple[Gap, ...] = ()

    @property
    def rows(self) -> int:
        """Rows in whole frames and in parts, over all segments."""
        return sum(segment.rows for segment in self.segments)

    @property
    def torn_bytes(self) -> int:
        """Bytes behind the whole frames, over all segments."""
        return sum(segment.torn_bytes for segment in self.segments)

    @property
    def damaged(self) -> tuple[Segment, ...]:
        """The segments in which acknowledged rows may be lost: no ground for a PASS."""
        return tuple(segment for segment in self.segments if segment.damaged)

    @property
    def lost_rows(self) -> int:
        """Rows that were answered although they could not be logged (`on_failure="answer_and_count"`)."""
        return sum(gap.rows for gap in self.gaps)

    def revealed(self, secret: bytes, keys: Mapping[str, Iterable[str | int]]) -> LogReading:
        """The same log, in which hashed keys are plain again: those of `keys` (by entity) that `secret` hashes to them.

        A row of nobody among `keys` has a null key. A log without hashed keys stays as it is. Raises `LogError` where
        keys were hashed, and none with this secret.
        """
        if not any(segment.header.get("pii") for segment in self.segments):
            return self
        own = key_id(secret)
        known = {f"e__{name}": {pseudonym(key, secret): key for key in values} for name, values in keys.items()}
        if not any(segment.header.get("pii_key") == own for segment in self.segments):
            raise LogError(f"{self.root}: no segment's keys were hashed with the secret {own}. Give the right one.")
        segments = [
            replace(one, known={c: k for c, k in known.items() if c[3:] in one.header["pii"].split(",")})
            if one.header.get("pii_key") == own
            else one
            for one in self.segments
        ]
        return replace(self, segments=tuple(segments))

    def batches(self) -> Iterator[tuple[Segment, pa.RecordBatch]]:
        """All rows with their segment, in a fixed order: append by append, then what was compacted, part by part.

        Raises `LogError` if a segment or a part is gone or has lost bytes since then.
        """
        for segment in self.segments:
            if not segment.compacted:
                for batch in segment.batches():
                    yield segment, batch
        yield from _compacted_blocks(self.segments)


def blocks(segments: Sequence[Segment]) -> Iterator[tuple[Segment, pa.RecordBatch]]:
    """The rows of some segments of one reading, many appends in a batch and every part read once.

    Raises `LogError` if a segment or a part is gone or has lost bytes since it was read.
    """
    for segment in segments:
        if not segment.compacted:
            for block in segment.blocks():
                yield segment, block.select(segment.schema.names)
    yield from _compacted_blocks(segments)


def _compacted_blocks(segments: Sequence[Segment]) -> Iterator[tuple[Segment, pa.RecordBatch]]:
    own = {one.path.stem: one for one in segments if one.compacted}
    parts = {str(part.place): part for one in own.values() for part in one.parts}
    for part in parts.values():
        for batch in part.batches():
            for stem, rows in _by_segment(batch):
                if stem in own:
                    yield own[stem], own[stem].plain(rows.select(part.schema.names))


def read_log(root: str | Path, service: str | None = None) -> LogReading:
    """Read the log of `service`, or of every service under `root`, without disturbing who writes it.

    `root` may also be an archive, by its path or URI. A torn tail is reported, never raised. Raises `LogError` for a
    folder that is not there, and for a segment of a format or with a kind of frame that this version does not know.
    """
    if "://" in str(root):
        return _read_archive(str(root), service)
    segments: list[Segment] = []
    parts: list[arc.Part] = []
    gaps: list[Gap] = []
    for folder in folders(root, service):
        more, of_these = _read_folder(folder)
        segments += more
        parts += of_these
        gaps += load_gaps(folder)
    return LogReading(Path(root), tuple(segments), tuple(parts), tuple(gaps))


def _read_folder(folder: Path) -> tuple[list[Segment], list[arc.Part]]:
    """The segments and parts of one service. Compaction may commit meanwhile: looked at until it did not."""
    for _ in range(_LOOKS):
        before = arc.manifests(folder)
        compacted = {stem for manifest in before for stem in manifest.segments}
        hidden = load_tombstones(folder)
        paths = [path for path in segment_paths(folder.parent, folder.name) if path.stem not in compacted]
        try:
            segments = [read_segment(path, hidden) for path in paths]
        except LogError:
            if _generations(arc.manifests(folder)) == _generations(before):
                raise
            continue
        if _generations(arc.manifests(folder)) == _generations(before):
            return _with_compacted(folder, segments, before)
    raise LogError(f"{folder}: the log is compacted faster than it can be read. Read it again.")


def _generations(manifests: Sequence[arc.Manifest]) -> list[int]:
    return [manifest.generation for manifest in manifests]


def _with_compacted(
    folder: Path, segments: list[Segment], manifests: Sequence[arc.Manifest]
) -> tuple[list[Segment], list[arc.Part]]:
    for manifest in manifests:
        holding: dict[str, list[arc.Part]] = {}
        for part in manifest.parts:
            for stem in part.segments:
                holding.setdefault(stem, []).append(part)
        segments += [
            _compacted(folder, stem, one, tuple(holding.get(stem, ()))) for stem, one in manifest.segments.items()
        ]
    segments.sort(key=lambda segment: (segment.boot_id, segment.number))
    return segments, [part for manifest in manifests for part in manifest.parts]


def _compacted(folder: Path, stem: str, one: arc.Compacted, parts: tuple[arc.Part, ...]) -> Segment:
    boot_id, number = seg.parse_stem(stem) or ("", 0)
    return Segment(
        path=folder / f"{stem}{seg.SEALED}",
        service=folder.name,
        boot_id=boot_id,
        number=number,
        header=one.header,
        schema=one.schema,
        sealed=True,
        owned=False,
        frames=one.frames,
        rows=one.rows,
        size=one.size,
        torn_bytes=0,
        damaged=False,
        seed=b"",
        compacted=True,
        parts=parts,
    )


def _read_archive(root: str, service: str | None) -> LogReading:
    from skewguard.place import place_of

    try:
        place = place_of(root)
        names = [name for name in place.names() if name.rpartition("/")[2].startswith(arc.MANIFEST)]
    except OSError as error:
        raise LogError(f"{root}: the log's archive cannot be read: {error}") from error
    services = sorted({name.rpartition("/")[0] for name in names})
    if service is not None:
        services = [name for name in services if name == service]
    if not services:
        raise LogError(f"{root}: expected the archive of a serving log, found none. Has it been compacted to there?")
    segments: list[Segment] = []
    parts: list[arc.Part] = []
    for name in services:
        more, of_these = _with_compacted(Path(name), [], arc.manifests(place / name))
        segments += more
        parts += of_these
    return LogReading(Path(root), tuple(segments), tuple(parts))


def _by_segment(batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
    stems, codes = coded(batch.column(arc.SEGMENT))
    present = np.unique(codes)
    if len(present) == 1:
        yield stems[present[0]], batch
        return
    for code in present:
        yield stems[code], batch.take(pa.array(np.flatnonzero(codes == code)))


def coded(column: pa.Array) -> tuple[list[str], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """The texts of a column, and for every row which of them it is."""
    encoded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
