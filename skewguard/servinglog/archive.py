"""The archive: sealed rows as Parquet, and the manifest that alone says which files count.

A part is one Parquet file of one day (`date=2013-11-04/...parquet`, UTC), sorted by entity, with the log's columns and
three that say where each row lay: `l__segment`, `l__frame`, `l__row`. A reader takes the parts that a manifest names,
and the segments that none names: whatever a compaction that died left behind is in neither, or in both and read once.

An archive lies beside the segments (`parquet/`) or in any place that `skewguard.place` knows. Every log folder that is
compacted into it has a manifest of its own there.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from skewguard.errors import LogError
from skewguard.servinglog import segment as seg

if TYPE_CHECKING:
    import pyarrow.parquet as pq

    from skewguard.place import Place

FORMAT = 1
FOLDER, POINTER = "parquet", "archive.json"
MANIFEST = "_manifest-"  # readers of Parquet folders leave out what begins with _
SEGMENT, FRAME, ROW = LINEAGE = ("l__segment", "l__frame", "l__row")
READ_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet file. `schema` without the lineage columns; `since`, `until` in microseconds, UTC, of the rows."""

    path: str
    rows: int
    bytes: int
    schema: pa.Schema
    segments: tuple[str, ...]
    since: int
    until: int
    place: Place | None = field(default=None, repr=False)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in batches, `l__segment` as a dictionary. Raises `LogError` for a file that is gone or damaged."""
        names = list(self.schema.names) if columns is None else list(columns)
        try:
            with _parquet(self) as file:
                rows = 0
                for batch in file.iter_batches(READ_ROWS, columns=[*names, *LINEAGE]):
                    rows += batch.num_rows
                    yield batch.select([*names, *LINEAGE])
        except (OSError, pa.ArrowException) as error:
            raise LogError(f"{self.place}: the part cannot be read: {error}. Read the log again.") from error
        if rows != self.rows:
            raise LogError(f"{self.place}: expected {self.rows} rows as the manifest says, got {rows}.")


def _parquet(part: Part) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    assert part.place is not None  # noqa: S101  (a part that was loaded or written lies somewhere)
    source = part.place.local or part.place.open()
    return pq.ParquetFile(source, read_dictionary=[SEGMENT], page_checksum_verification=True)


@dataclass(frozen=True, slots=True)
class Compacted:
    """A segment whose rows lie in parts. `rows` counts what is there now; `at`: when, in seconds since 1970."""

    header: Mapping[str, str]
    schema: pa.Schema
    rows: int
    frames: int
    size: int
    at: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """Which parts count and which segments they replace. `retired`: files that no longer count, and since when."""

    generation: int = 0
    segments: Mapping[str, Compacted] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    retired: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Archive:
    """Where the parts of one log folder go. `origin` tells the manifests of several folders apart."""

    place: Place
    origin: str

    @property
    def name(self) -> str:
        """The manifest's file name."""
        return f"{MANIFEST}{self.origin}.json"

    def load(self) -> Manifest:
        """This folder's manifest. Raises `LogError` where it is gone: nobody knows then which rows were compacted."""
        file = self.place / self.name
        if not file.exists():
            raise LogError(_gone(self.place, self.name))
        return _parse(file, self.place)

    def commit(self, manifest: Manifest) -> None:
        """Make `manifest` what counts: the one instant at which rows change from segments to parts."""
        text = json.dumps(_plain(manifest), separators=(",", ":"))
        put(self.place / self.name, lambda file: file.write(text.encode()))


def archive_of(folder: Path, to: str | Path | Place | None = None) -> Archive:
    """The archive of a service's folder, as `archive.json` there names it; `to` (a root) is remembered the first time,
    once something could be written there.

    Raises `LogError` where another one is remembered: rows would count in two places. Raises `OSError`.
    """
    from skewguard.place import place_of

    pointer = folder / POINTER
    known = _pointer(pointer)
    wanted = None if to is None else _lasting(str(to))
    if known is not None and wanted not in (None, known["to"]):
        raise LogError(f"{folder}: its archive is {known['to'] or folder / FOLDER}, not {to}. Leave the place out.")
    own = known or {"origin": secrets.token_hex(4), "to": wanted or ""}
    place = place_of(own["to"]) / folder.name if own["to"] else place_of(folder / FOLDER)
    place.make()
    archive = Archive(place, own["origin"])
    if known is None:
        # Readers follow it from then on: a place that nobody can write would take the whole log along.
        archive.commit(Manifest())
        put(place_of(pointer), lambda file: file.write(json.dumps(own).encode()))
    return archive


def _lasting(to: str) -> str:
    """A place's name that means the same from every working directory."""
    return to if not to or "://" in to else str(Path(to).resolve())


def manifests(folder: Path | Place) -> list[Manifest]:
    """Every manifest of a service: in its folder's archive, or in the folder itself where that is an archive."""
    from skewguard.place import place_of

    place = place_of(folder)
    known = _pointer(place.local / POINTER) if place.local else None
    if known and known["to"]:
        place = place_of(known["to"]) / place.path.rpartition("/")[2]
    elif place.local and (place.local / FOLDER).is_dir():
        place = place / FOLDER
    elif place.local and not any(place.local.glob(f"{MANIFEST}*.json")):
        return []
    try:
        names = [name for name in place.names() if name.startswith(MANIFEST) and name.endswith(".json")]
        found = [_parse(place / name, place) for name in names]
    except OSError as error:
        raise LogError(f"{place}: the log's archive cannot be read: {error}") from error
    if known and f"{MANIFEST}{known['origin']}.json" not in names:
        raise LogError(_gone(place, f"{MANIFEST}{known['origin']}.json"))
    return found


def _gone(place: Place, name: str) -> str:
    return (
        f"{place}: {name} is not there, and with it nobody knows which rows were compacted. Restore the archive, or "
        f"remove {POINTER} from the log's folder if nothing ever was."
    )


def put(file: Place, write: Callable[[Any], object]) -> None:
    """Write a whole file or none: on a disk under another name first, elsewhere as the one object that it is."""
    if file.local is None:
        with file.writing() as stream:
            write(stream)
        return
    partial = file.local.with_name(file.local.name + seg.NEW)
    with partial.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.rename(file.local)
    seg.sync_folder(file.local.parent)


def _pointer(file: Path) -> dict[str, str] | None:
    try:
        data = json.loads(file.read_text())
        return {"origin": str(data["origin"]), "to": str(data["to"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LogError(f"{file}: expected where the archive lies, got {error!r}. Restore or remove it.") from error


def _plain(manifest: Manifest) -> dict[str, Any]:
    schemas: list[str] = []

    def number(schema: pa.Schema) -> int:
        text = base64.b64encode(schema.serialize().to_pybytes()).decode()
        if text not in schemas:
            schemas.append(text)
        return schemas.index(text)

    segments = {
        stem: {"header": dict(one.header), "schema": number(one.schema), "rows": one.rows, "frames": one.frames}
        | {"size": one.size, "at": one.at}
        for stem, one in manifest.segments.items()
    }
    parts = [
        {"path": part.path, "rows": part.rows, "bytes": part.bytes, "schema": number(part.schema)}
        | {"segments": part.segments, "since": part.since, "until": part.until}
        for part in manifest.parts
    ]
    return {
        "format": FORMAT,
        "generation": manifest.generation,
        "segments": segments,
        "parts": parts,
        "retired": dict(manifest.retired),
        "schemas": schemas,
    }


def _parse(file: Place, root: Place) -> Manifest:
    try:
        data = json.loads(file.read())
        if data["format"] != FORMAT:
            raise LogError(f"{file}: expected format {FORMAT}, got {data['format']}. Another version wrote it.")
        schemas = [pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))) for text in data["schemas"]]
        segments = {
            stem: Compacted(**(one | {"schema": schemas[one["schema"]]})) for stem, one in data["segments"].items()
        }
        parts = tuple(
            Part(**(one | {"schema": schemas[one["schema"]], "segments": tuple(one["segments"])}))
            for one in data["parts"]
        )
        placed = tuple(replace(part, place=root / part.path) for part in parts)
        return Manifest(data["generation"], segments, placed, data["retired"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, pa.ArrowException) as error:
        raise LogError(f"{file}: expected the manifest that compaction writes, got {error!r}. Restore it.") from error
