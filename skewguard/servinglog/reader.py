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
            for block in _blocks(segment, segment.schema.names):
                yield segment, block
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


def to_table(reading: LogReading, columns: Sequence[str] | None = None, header_fields: Sequence[str] = ()) -> pa.Table:
    """All rows as one table, with `columns` or all of them.

    Every name in `header_fields` adds a column `h__<name>` (dictionary of int32 and string) with that header
    field of the row's segment, null where a segment has none. Segments without rows do not count, but for the
    schema of a log without rows; a log without segments gives a table without columns.

    Raises `LogError` if segments differ in the schema of the chosen columns (naming two of them and the first
    difference), if a column is not in the log, or if no segment has a header field that was asked for.
    """
    tables = list(stream(reading, columns, header_fields))
    return pa.concat_tables(tables).unify_dictionaries() if tables else pa.table({})


def stream(
    reading: LogReading,
    columns: Sequence[str] | None = None,
    header_fields: Sequence[str] = (),
    *,
    rows: int = 1 << 30,
) -> Iterator[pa.Table]:
    """The same in tables of about `rows` rows, so that a log of any length can be gone through.

    One table at least for every segment with rows, and for every 65,536 rows of a part. Raises as `to_table` does.
    """
    readable = [segment for segment in reading.segments if segment.header]
    for name in header_fields:
        if readable and not any(name in segment.header for segment in readable):
            known = ", ".join(sorted({key for segment in readable for key in segment.header}))
            raise LogError(f"{reading.root}: no segment's header has {name!r}. There are: {known}.")
    chosen = [segment for segment in readable if segment.rows] or readable[-1:]
    schema = _common_schema(chosen, columns)
    given = any(segment.rows for segment in chosen)
    for segment in chosen:
        if not segment.compacted or not given:
            yield from _of_segment(segment, schema, header_fields, rows)
    for part in reading.parts:
        own = {one.path.stem: one for one in chosen if one.compacted and part in one.parts}
        for batch in part.batches(schema.names):
            rows = batch.select(schema.names)
            if any(one.known for one in own.values()):
                rows = _revealed(batch, own).select(schema.names)
            table = pa.Table.from_batches([rows]).cast(schema)
            for name in header_fields:
                texts = {stem: one.header.get(name) for stem, one in own.items()}
                table = table.append_column(f"h__{name}", _looked_up(batch.column(arc.SEGMENT), texts))
            yield table


def _common_schema(chosen: Sequence[Segment], columns: Sequence[str] | None) -> pa.Schema:
    schema = pa.schema([])
    seen: list[pa.Schema] = []  # of thousands of segments most share one
    for segment in chosen:
        if any(segment.schema is one or segment.schema.equals(one) for one in seen):
            continue
        seen.append(segment.schema)
        own = _chosen_schema(segment, columns)
        if segment is chosen[0]:
            schema = own
        elif not own.equals(schema):
            raise LogError(
                f"{chosen[0].path} and {segment.path} differ in their schema: "
                f"{seg.first_difference(schema, own)}. "
                "Read them apart (LogReading.batches), or choose columns that they share."
            )
    return schema


def _of_segment(segment: Segment, schema: pa.Schema, header_fields: Sequence[str], rows: int) -> Iterator[pa.Table]:
    def labelled(blocks: list[pa.RecordBatch]) -> pa.Table:
        table = pa.Table.from_batches(blocks, schema).combine_chunks()
        for name in header_fields:
            table = table.append_column(f"h__{name}", _constant(segment.header.get(name), table.num_rows))
        return table

    waiting: list[pa.RecordBatch] = []
    count = 0
    for block in _blocks(segment, schema.names):
        waiting.append(block)
        count += block.num_rows
        if count >= rows:
            yield labelled(waiting)
            waiting, count = [], 0
    if waiting or not segment.rows:
        yield labelled(waiting)


def _by_segment(batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
    stems, codes = _codes(batch.column(arc.SEGMENT))
    present = np.unique(codes)
    if len(present) == 1:
        yield stems[present[0]], batch
        return
    for code in present:
        yield stems[code], batch.take(pa.array(np.flatnonzero(codes == code)))


def _revealed(batch: pa.RecordBatch, own: Mapping[str, Segment]) -> pa.RecordBatch:
    """The batch of several segments with its keys plain, its rows in their order."""
    for column in {name for one in own.values() for name in one.known if name in batch.schema.names}:
        at = batch.schema.get_field_index(column)
        stems = batch.column(arc.SEGMENT).cast(pa.string()).to_pylist()
        known = [own[stem].known.get(column) for stem in stems]
        hashed = batch.column(at).to_pylist()
        keys = [key if k is None else k.get(key) for k, key in zip(known, hashed, strict=True)]
        batch = batch.set_column(at, batch.schema.field(at), pa.array(keys, batch.schema.field(at).type))
    return batch


def _codes(column: pa.Array) -> tuple[list[str], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    encoded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _looked_up(column: pa.Array, texts: Mapping[str, str | None]) -> pa.DictionaryArray:
    """For every row the text of its segment, as a dictionary of int32 and string."""
    stems, codes = _codes(column)
    distinct = sorted({text for text in texts.values() if text is not None})
    place = {text: i for i, text in enumerate(distinct)}
    of_stem = np.array([-1 if (text := texts[stem]) is None else place[text] for stem in stems], dtype=np.int32)
    indices = of_stem[codes]
    known = pa.array(indices, pa.int32(), mask=indices < 0)
    return pa.DictionaryArray.from_arrays(known, pa.array(distinct, pa.string()))


def _chosen_schema(segment: Segment, columns: Sequence[str] | None) -> pa.Schema:
    if columns is None:
        return segment.schema
    missing = [name for name in columns if name not in segment.schema.names]
    if missing:
        raise LogError(f"{segment.path}: no column {', '.join(missing)}. There are: {', '.join(segment.schema.names)}.")
    return pa.schema([segment.schema.field(name) for name in columns])


def _blocks(segment: Segment, names: list[str] | None) -> Iterator[pa.RecordBatch]:
    """The segment's rows in few batches: the many small buffers of small appends must not all live at once."""
    for block in segment.blocks():
        yield block if names is None else block.select(names)


def _constant(text: str | None, rows: int) -> pa.DictionaryArray:
    """`rows` times `text`, from buffers: pyarrow's shorter ways import pandas where it is installed."""
    value = (text or "").encode()
    offsets = np.array([0, len(value)], dtype=np.int32)
    values = pa.StringArray.from_buffers(1, pa.py_buffer(offsets), pa.py_buffer(value))
    validity = None if text is not None else pa.py_buffer(np.zeros(-(-rows // 8), dtype=np.uint8))
    indices = pa.Array.from_buffers(pa.int32(), rows, [validity, pa.py_buffer(np.zeros(rows, dtype=np.int32))])
    return pa.DictionaryArray.from_arrays(indices, values)
