"""Removing a person from a log: hidden from every reader at once, then out of every file that no process is writing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from skewguard.errors import LogError
from skewguard.servinglog import archive as arc
from skewguard.servinglog import segment as seg
from skewguard.servinglog.compaction import compact_locked, locked, read_part, remove_retired, replaced_in, write_part
from skewguard.servinglog.erasure import Tombstone, erased_rows, load_tombstones, save_tombstones
from skewguard.servinglog.scan import Segment, read_segment, recover, segment_paths
from skewguard.values import Mask


@dataclass(frozen=True, slots=True)
class ErasedLog:
    """Rows that were removed from files, and those that are only hidden, by segment: a process still writes it, or it
    is damaged. The next erasure or compaction after the segment was sealed removes them."""

    removed: int = 0
    pending: dict[str, int] = field(default_factory=dict)


def erase_rows(root: str | Path, service: str, tombstones: Sequence[Tombstone]) -> ErasedLog:
    """Hide the rows that the tombstones mean, compact what is sealed without them, and rewrite parts that hold them.

    May be run again at any time, after a crash too. Raises `LogError` where files cannot be read or written.
    """
    folder = seg.service_folder(root, service)
    recover(root, service)
    with locked(folder):
        known = load_tombstones(folder)
        try:
            if new := [one for one in tombstones if one not in known]:
                save_tombstones(folder, [*known, *new])
            archive = arc.archive_of(folder)
            manifest = archive.load()
            loose = [
                read_segment(path)
                for path in segment_paths(folder.parent, folder.name)
                if path.stem not in manifest.segments
            ]
            counts = {segment.path.name: _count(segment, tombstones) for segment in loose}
            left = compact_locked(folder, archive, grace_seconds=0).left
            pending = {name: count for name, count in counts.items() if name in left and count}
            removed = sum(counts.values()) - sum(pending.values()) + _rewrite(folder, archive, tombstones)
        except OSError as error:
            raise LogError(f"{folder}: the erasure stopped: {error}. The rows are hidden; run it again.") from error
    return ErasedLog(removed, pending)


def _count(segment: Segment, tombstones: Sequence[Tombstone]) -> int:
    return sum(int(erased_rows(tombstones, batch).sum()) for batch in segment.batches())


def _rewrite(folder: Path, archive: arc.Archive, tombstones: Sequence[Tombstone]) -> int:
    """Write the parts that hold such rows again without them; how many rows that were."""
    manifest = archive.load()
    old: list[arc.Part] = []
    new: list[arc.Part] = []
    stems: list[str] = []
    for part in manifest.parts:
        if not any(f"e__{one.entity}" in part.schema.names for one in tombstones):
            continue
        table = read_part(part)
        gone: Mask = erased_rows(tombstones, table)
        if not gone.any():
            continue
        old.append(part)
        stems += table[arc.SEGMENT].filter(pa.array(gone)).to_pylist()
        kept = table.filter(pa.array(~gone))
        if len(kept):
            day = part.path.partition("/")[0]
            name = f"{day}/{archive.origin}-{manifest.generation + 1:08d}-{len(new):03d}.parquet"
            new.append(write_part(archive.place, name, kept, part.schema))
    if old:
        segments = dict(manifest.segments)
        for stem, count in zip(*np.unique(np.array(stems, dtype=object), return_counts=True), strict=True):
            segments[stem] = replace(segments[stem], rows=segments[stem].rows - int(count))
        manifest = replace(replaced_in(manifest, old, new, time.time()), segments=segments)
        archive.commit(manifest)
    remove_retired(folder, archive, manifest, 0)
    return len(stems)
