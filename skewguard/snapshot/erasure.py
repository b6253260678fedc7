"""Taking a person's rows out of a snapshot, and leaving a record of what its digest was before and is now.

The snapshot keeps its id, by which models name it. `erased.json` beside it leads from that id to the digest of the rows
that are left, erasure by erasure, and says who was meant by a salted digest alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewguard.answer import from_table
from skewguard.definitions import Bundle
from skewguard.definitions.bundle import read_bundle
from skewguard.errors import SnapshotError
from skewguard.place import Place, place_of
from skewguard.snapshot.frozen import Digest, Manifest, Origin, manifest_of
from skewguard.snapshot.staging import BUNDLE, MANIFEST, ROWS

ERASED = "erased.json"
_ROW_GROUP = 65_536


def erase_rows(
    where: str | Path | Place, entity: str, means: Callable[[object], bool], record: Mapping[str, str]
) -> dict[str, Any] | None:
    """Remove the rows whose key `entity` is meant; the record that is kept of it, None where there is no such row.

    `record` says in words of the caller who was meant. May be run again after a crash. Raises `SnapshotError`.
    """
    try:
        place = place_of(where)
        data = json.loads((place / MANIFEST).read())
        manifest = manifest_of(data)
        bundle = read_bundle((place / BUNDLE).read().decode(), place / BUNDLE)
        with (place / ROWS).open() as stream:
            table = pq.read_table(stream)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise SnapshotError(f"{where}: expected a snapshot, got {error}") from error
    column = f"e__{entity}"
    if column not in table.column_names:
        return None
    meant = {key for key in table[column].unique().to_pylist() if key is not None and means(key)}
    kept = table.filter(pa.array(np.array([key not in meant for key in table[column].to_pylist()], dtype=bool)))
    entry = None
    if len(kept) < len(table):
        entry = {
            **record,
            "entity": entity,
            "rows": len(table) - len(kept),
            "old": _digest(bundle, manifest, table),
            "new": _digest(bundle, manifest, kept),
        }
        # The record first: rows that are gone are always explained, and a record without its erasure explains nothing.
        _put(place / ERASED, json.dumps([*erasures(place), entry], indent=1).encode())
        _put(place / ROWS, _parquet(kept))
    if manifest.rows != len(kept):
        _put(place / MANIFEST, json.dumps(data | {"rows": len(kept)}, indent=1, sort_keys=True).encode())
    return entry


def erasures(place: Place) -> list[dict[str, Any]]:
    """What was erased from the snapshot at `place`, in order. Raises `SnapshotError` for a record that is torn."""
    file = place / ERASED
    try:
        return list(json.loads(file.read())) if file.exists() else []
    except (OSError, ValueError, TypeError) as error:
        raise SnapshotError(f"{file}: expected a list of erasures, got {error}") from error


def explained(place: Place, built_as: str, digest: str) -> bool:
    """Whether erasures lead from the digest that a snapshot was built with to the one that its rows have now."""
    reached = {built_as}
    for entry in erasures(place):
        if entry.get("old") in reached:
            reached.add(str(entry.get("new")))
    return digest in reached


def _digest(bundle: Bundle, manifest: Manifest, table: pa.Table) -> str:
    digest = Digest(bundle, Origin(manifest.rule, manifest.as_served, manifest.adopted))
    labels = table.select(list(manifest.labels))
    for part in _batches(table):
        digest.update(from_table(bundle, part), part.select(list(manifest.labels)))
    return digest.hex(labels.schema)


def _batches(table: pa.Table) -> Iterator[pa.Table]:
    yield from (table.slice(at, _ROW_GROUP) for at in range(0, len(table), _ROW_GROUP))


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=_ROW_GROUP)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _put(file: Place, content: bytes) -> None:
    """The whole file or none of it."""
    try:
        if file.local is None:
            file.write(content)
            return
        partial = file.local.with_name(file.local.name + ".partial")
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.rename(file.local)
    except OSError as error:
        raise SnapshotError(f"{file}: could not be written: {error}. Run the erasure again.") from error
