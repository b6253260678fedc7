"""Compaction: sealed segments become Parquet, day by day, sorted by entity, every row exactly once.

    1. under the folder's lock, files that no manifest names are removed: a compaction died
    2. a group of segments is read, cut into days, sorted, and written as parts; small parts of those days go in too
    3. the manifest is replaced: from this instant on the parts count, and the segments and small parts do not
    4. what does not count any more is removed, after a grace for readers that still have it open

A process that dies before 3 leaves files that nobody reads; one that dies after it leaves files that nobody counts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from skewguard.errors import LogError
from skewguard.servinglog import archive as arc
from skewguard.servinglog import segment as seg
from skewguard.servinglog.definitions import follow
from skewguard.servinglog.erasure import load_tombstones
from skewguard.servinglog.scan import Segment, read_segment, recover, segment_paths
from skewguard.values import NO_TIME

if TYPE_CHECKING:
    from skewguard.place import Place

LOCK = "compact.lock"
_DAY = 86_400_000_000
_ROW_GROUP = 65_536


@dataclass(frozen=True, slots=True)
class Compaction:
    """What one run did. `left`: segments that stay as they are, with the reason; `removed`: files."""

    segments: int = 0
    rows: int = 0
    parts: int = 0
    bytes: int = 0
    removed: int = 0
    left: dict[str, str] = field(default_factory=dict)


def compact(
    root: str | Path,
    service: str,
    *,
    to: str | Path | Place | None = None,
    part_rows: int = 1_000_000,
    small_rows: int = 200_000,
    grace_seconds: float = 3600,
) -> Compaction:
    """Turn the sealed segments of `service` into parts, in its archive or, from the first time on, in the place `to`.

    About `part_rows` rows are held at once; parts with fewer than `small_rows` are taken into the next part of their
    day. Replaced files are removed by the first run that comes `grace_seconds` later. Segments of dead processes are
    sealed first; open ones of living processes and damaged ones are left.

    Raises `LogError` where the log cannot be read, the archive cannot be written, or another compaction is at work;
    rows are in the log once all the same.
    """
    folder = seg.service_folder(root, service)
    recover(root, service)
    with locked(folder):
        try:
            archive = arc.archive_of(folder, to)
            follow(folder, archive.place)
            return compact_locked(
                folder, archive, part_rows=part_rows, small_rows=small_rows, grace_seconds=grace_seconds
            )
        except OSError as error:
            raise LogError(f"{folder}: compaction stopped: {error}. No row is lost; run it again.") from error


def compact_locked(
    folder: Path,
    archive: arc.Archive,
    *,
    part_rows: int = 1_000_000,
    small_rows: int = 200_000,
    grace_seconds: float = 3600,
) -> Compaction:
    """The same for who holds the folder's lock already. Raises `OSError` as well."""
    manifest = archive.load()
    done = Compaction(removed=_sweep(archive, manifest))
    hidden = load_tombstones(folder)
    group: list[Segment] = []
    for path in segment_paths(folder.parent, folder.name):
        if path.stem in manifest.segments:
            continue
        segment = read_segment(path, hidden)
        if not segment.sealed or segment.damaged:
            done.left[path.name] = "damaged: kept as it lies" if segment.damaged else "its process is still writing it"
            continue
        if group and sum(one.rows for one in group) + segment.rows > part_rows:
            manifest, done = _take_in(archive, manifest, group, small_rows, done)
            group = []
        group.append(segment)
    if group:
        manifest, done = _take_in(archive, manifest, group, small_rows, done)
    removed = remove_retired(folder, archive, manifest, grace_seconds)
    return replace(done, removed=done.removed + removed)


def _take_in(
    archive: arc.Archive, manifest: arc.Manifest, group: Sequence[Segment], small_rows: int, done: Compaction
) -> tuple[arc.Manifest, Compaction]:
    """Write a group's parts and commit them."""
    now = time.time()
    parts: list[arc.Part] = []
    replaced: list[arc.Part] = []
    for schema in _schemas(group):
        table = _rows_of([segment for segment in group if segment.schema.equals(schema)], schema)
        for day, rows in _by_day(table):
            small = [p for p in manifest.parts if p.rows < small_rows and _day_of(p) == day and p.schema.equals(schema)]
            merged = pa.concat_tables([rows, *(read_part(part) for part in small)])
            replaced += small
            name = f"{day}/{archive.origin}-{manifest.generation + 1:08d}-{len(parts):03d}.parquet"
            parts.append(write_part(archive.place, name, merged, schema))
    stems = {segment.path.stem: _entry(segment, now) for segment in group}
    manifest = replaced_in(manifest, replaced, parts, now)
    manifest = replace(manifest, segments={**manifest.segments, **stems})
    archive.commit(manifest)
    return manifest, replace(
        done,
        segments=done.segments + len(group),
        rows=done.rows + sum(segment.rows for segment in group),
        parts=done.parts + len(parts),
        bytes=done.bytes + sum(part.bytes for part in parts),
    )


def replaced_in(manifest: arc.Manifest, old: Sequence[arc.Part], new: Sequence[arc.Part], now: float) -> arc.Manifest:
    """The next generation, with `new` parts in the place of `old` ones."""
    gone = {part.path for part in old}
    return replace(
        manifest,
        generation=manifest.generation + 1,
        parts=(*(part for part in manifest.parts if part.path not in gone), *new),
        retired={**manifest.retired, **dict.fromkeys(gone, now)},
    )


def _entry(segment: Segment, now: float) -> arc.Compacted:
    return arc.Compacted(dict(segment.header), segment.schema, segment.rows, segment.frames, segment.size, now)


def _schemas(group: Sequence[Segment]) -> list[pa.Schema]:
    distinct: list[pa.Schema] = []
    for segment in group:
        if segment.rows and not any(segment.schema.equals(one) for one in distinct):
            distinct.append(segment.schema)
    return distinct


def _rows_of(group: Sequence[Segment], schema: pa.Schema) -> pa.Table:
    """All rows of segments of one schema, with where each lay."""
    tables = []
    for segment in group:
        blocks: list[pa.RecordBatch] = []
        frames: list[int] = []
        counts: list[int] = []
        for block, numbers, rows in segment.numbered_blocks():
            blocks.append(block)
            frames += numbers
            counts += rows
        table = pa.Table.from_batches(blocks, schema)
        number = np.repeat(np.array(frames, np.int64), counts)
        row = np.concatenate([np.arange(count, dtype=np.int32) for count in [*counts, 0]])
        stem = pa.array([segment.path.stem], pa.string()).take(pa.array(np.zeros(len(table), np.int32)))
        for name, column in zip(arc.LINEAGE, (stem, pa.array(number), pa.array(row)), strict=True):
            table = table.append_column(name, column)
        tables.append(table)
    return pa.concat_tables(tables)


def _instants(table: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The rows' instants, microseconds UTC; where a log has no `event_timestamp`, when its segment was begun."""
    if "event_timestamp" in table.column_names and pa.types.is_timestamp(table.schema.field("event_timestamp").type):
        stamps = table["event_timestamp"].cast(pa.timestamp("us", tz="UTC"), safe=False).cast(pa.int64())
        return np.asarray(stamps.fill_null(0).to_numpy())
    stems, codes = np.unique(np.asarray(table[arc.SEGMENT].to_pylist(), dtype=object), return_inverse=True)
    texts = [f"{stem[:4]}-{stem[4:6]}-{stem[6:8]}" if stem[:8].isdigit() else "1970-01-01" for stem in stems]
    begun = [np.datetime64(text, "us").astype(np.int64) for text in texts]
    return np.array(begun, dtype=np.int64)[codes]


def _by_day(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    days = _instants(table) // _DAY
    for day in np.unique(days):
        rows = table if (days == day).all() else table.filter(pa.array(days == day))
        yield f"date={np.datetime64(int(day), 'D')}", rows


def _day_of(part: arc.Part) -> str:
    return part.path.partition("/")[0]


def read_part(part: arc.Part) -> pa.Table:
    """A part's rows with their lineage, as they are written."""
    schema = _written(part.schema)
    table = pa.Table.from_batches(part.batches())
    return table.set_column(
        table.column_names.index(arc.SEGMENT), arc.SEGMENT, table[arc.SEGMENT].cast(pa.string())
    ).cast(schema)


def _written(schema: pa.Schema) -> pa.Schema:
    kinds = (pa.string(), pa.int64(), pa.int32())
    for name, kind in zip(arc.LINEAGE, kinds, strict=True):
        schema = schema.append(pa.field(name, kind))
    return schema


def write_part(root: Place, name: str, table: pa.Table, schema: pa.Schema) -> arc.Part:
    """Write rows as one part of the archive `root`, sorted by entity and instant. Raises `OSError`."""
    import pyarrow.parquet as pq

    keys = [column for column in table.column_names if column.startswith("e__")]
    order = [*keys, *(c for c in ("event_timestamp",) if c in table.column_names), *arc.LINEAGE]
    table = table.combine_chunks().sort_by([(column, "ascending") for column in order])  # sorting pays for chunks
    file = root / name
    (root / name.rpartition("/")[0]).make()
    instants = _instants(table)
    arc.put(
        file,
        lambda sink: pq.write_table(
            table, sink, row_group_size=_ROW_GROUP, compression="zstd", compression_level=1, write_page_checksum=True
        ),
    )
    size = file.filesystem.get_file_info(file.path).size
    stems = tuple(sorted(table[arc.SEGMENT].unique().to_pylist()))
    since, until = (int(instants.min()), int(instants.max())) if len(instants) else (NO_TIME, NO_TIME)
    return arc.Part(name, len(table), size, schema, stems, since, until, file)


def _sweep(archive: arc.Archive, manifest: arc.Manifest) -> int:
    """Remove what a compaction that died left of this folder's parts."""
    known = {part.path for part in manifest.parts} | manifest.retired.keys()
    strays = [name for name in _own_names(archive) if name not in known]
    for name in strays:
        (archive.place / name).delete()
    return len(strays)


def _own_names(archive: arc.Archive) -> list[str]:
    """Parts whole and begun; those of other folders in the same archive are none of ours."""
    suffixes = (".parquet", f".parquet{seg.NEW}")
    names = (name for name in archive.place.names() if name.endswith(suffixes))
    return [name for name in names if name.rpartition("/")[2].startswith(f"{archive.origin}-")]


def remove_retired(folder: Path, archive: arc.Archive, manifest: arc.Manifest, grace: float) -> int:
    """Remove the files that have not counted for `grace` seconds."""
    now = time.time()
    removed = 0
    for stem, one in manifest.segments.items():
        if now - one.at >= grace:
            with contextlib.suppress(FileNotFoundError):
                (folder / f"{stem}{seg.SEALED}").unlink()
                removed += 1
    due = [path for path, at in manifest.retired.items() if now - at >= grace]
    for path in due:
        with contextlib.suppress(FileNotFoundError):
            (archive.place / path).delete()
            removed += 1
    if due:
        left = {path: at for path, at in manifest.retired.items() if path not in due}
        archive.commit(replace(manifest, generation=manifest.generation + 1, retired=left))
    return removed


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; raises `LogError` where another compaction or erasure holds it, or nobody can."""
    try:
        file = (folder / LOCK).open("ab")
    except OSError as error:
        raise LogError(f"{folder}: cannot be locked for compaction: {error}. The folder must be writable.") from error
    with file:
        try:
            seg.lock(file.fileno())
        except BlockingIOError as error:
            raise LogError(f"{folder}: another compaction or erasure is at work. Wait for it.") from error
        except OSError as error:
            raise LogError(f"{folder}: its file system has no locks (flock): {error}.") from error
        yield
