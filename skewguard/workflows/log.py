"""The serving log as people handle it: list, print, check, compact, take in what was logged elsewhere."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from skewguard.answer import schema
from skewguard.definitions import Bundle
from skewguard.errors import LogError
from skewguard.place import Place, parquet_files
from skewguard.servinglog import LogReading, ServingLog, find, read_log, stream
from skewguard.servinglog.importing import rows_of
from skewguard.transforms import numeric_class
from skewguard.values import instant

IMPORT_ROWS = 8192
_JSON = (".jsonl", ".ndjson", ".json")


def services(root: str | Path) -> list[str]:
    """The services of a log folder. Raises `LogError` where there is none."""
    folder = Path(root)
    if not folder.is_dir():
        raise LogError(f"{folder}: expected the folder of a serving log, found none.")
    return sorted(one.name for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))


def listing(reading: LogReading) -> list[dict[str, Any]]:
    """One record for each segment, in order."""
    return [
        {
            "service": segment.service,
            "segment": segment.path.stem,
            "state": _state(segment.compacted, segment.owned, segment.sealed),
            "rows": segment.rows,
            "bytes": segment.size,
            "torn_bytes": segment.torn_bytes,
            "damaged": segment.damaged,
            "started_at": segment.header.get("started_at", ""),
            "build": segment.header.get("build", ""),
            "model_id": segment.header.get("model_id", ""),
        }
        for segment in reading.segments
    ]


def _state(compacted: bool, owned: bool, sealed: bool) -> str:
    return "compacted" if compacted else "open" if owned else "sealed" if sealed else "abandoned"


def lines(
    root: str | Path,
    service: str | None = None,
    *,
    columns: Sequence[str] | None = None,
    request_id: str | None = None,
    since: int | None = None,
    until: int | None = None,
    limit: int | None = None,
) -> Iterator[str]:
    """Rows as JSON, one a line; of one request, or between two instants (microseconds UTC, both included).

    Raises `LogError`.
    """
    left = math.inf if limit is None else limit
    if left < 0:
        raise LogError(f"log cat: a limit of {limit} rows is none. Give 0 or more.")
    for table in _tables(root, service, request_id):
        missing = [name for name in columns or () if name not in table.column_names]
        if missing:
            raise LogError(f"log cat: no column {', '.join(missing)}. There are: {', '.join(table.column_names)}.")
        rows = table if columns is None else table.select([*columns])
        at = table["event_timestamp"].cast(pa.int64()) if "event_timestamp" in table.column_names else None
        if at is not None and since is not None:
            rows, at = rows.filter(pc.greater_equal(at, since)), at.filter(pc.greater_equal(at, since))
        if at is not None and until is not None:
            rows = rows.filter(pc.less_equal(at, until))
        for row in rows.to_pylist():
            if left <= 0:
                return
            left -= 1
            yield json.dumps({name: _plain(value) for name, value in row.items()}, ensure_ascii=False)


def _tables(root: str | Path, service: str | None, request_id: str | None) -> Iterator[pa.Table]:
    if request_id is not None:
        yield from (pa.table(rows) for _, rows in find(root, request_id, "id", service))
        return
    yield from stream(read_log(root, service), rows=IMPORT_ROWS)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return instant(round(value.timestamp() * 1_000_000))
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check of the log came to. `complaints`: rows may be missing or wrong; `remarks`: worth knowing."""

    segments: int
    parts: int
    rows: int
    complaints: tuple[str, ...]
    remarks: tuple[str, ...]


def check(root: str | Path, service: str | None = None) -> Checked:
    """Read every row and hold it against what the log says of itself. Raises `LogError` for a log that is not there."""
    reading = read_log(root, service)
    complaints = [
        f"{segment.path}: damaged behind {segment.rows:,} rows: {segment.torn_bytes:,} bytes are no whole frame"
        for segment in reading.damaged
    ]
    seen: Counter[str] = Counter()
    ids: set[str] = set()
    repeated = 0
    try:
        for segment, batch in reading.batches():
            seen[segment.path.stem] += batch.num_rows
            if "id" in batch.schema.names:
                for one in batch.column("id").to_pylist():
                    repeated += one in ids
                    ids.add(one)
    except LogError as error:
        complaints.append(str(error))
    else:
        complaints += [
            f"{segment.path.stem}: expected {segment.rows:,} rows, read {seen[segment.path.stem]:,}"
            for segment in reading.segments
            if seen[segment.path.stem] != segment.rows
        ]
    complaints += [
        f"{gap.boot_id}: {gap.rows:,} rows were answered and not logged, {instant(gap.since)} to {instant(gap.until)}: "
        f"{gap.reason}"
        for gap in reading.gaps
    ]
    torn = sum(segment.torn_bytes for segment in reading.segments if not segment.damaged and not segment.owned)
    remarks = [f"{torn:,} bytes of appends that nobody was told of; compaction cuts them off"] if torn else []
    remarks += [f"{repeated:,} rows share their id with an earlier one: a caller repeats its ids"] if repeated else []
    return Checked(len(reading.segments), len(reading.parts), reading.rows, tuple(complaints), tuple(remarks))


# -- logs from elsewhere ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import took in."""

    files: int
    rows: int


def import_log(
    root: str | Path, bundle: Bundle, source: str, columns: Mapping[str, str], header: Mapping[str, str] | None = None
) -> Imported:
    """Take a log that was written elsewhere into the log at `root`: Parquet (a file, a glob, a folder, a URI) or JSON
    lines. `columns` says which of its columns is which, where neither our names nor Feast's do.

    A file is taken whole or not at all, and only once. Raises `LogError`, with nothing of the file in the log.
    """
    known = _imported_before(root, bundle.service)
    rows = files = 0
    for file in _files(source):
        digest = _digest(file)
        if digest in known:
            raise LogError(f"{file}: was imported already. Its rows would count twice.")
        tables = list(_read(file))
        batches, first = [], 0
        for table in tables:
            batches.append(rows_of(bundle, table, columns, first=first, origin=digest[:12]))
            first += len(table)
        own = {
            "build": "",
            "host": "",
            "evidence": "production",
            "bundle_digest": bundle.digest,
            "numeric_class": numeric_class(),
            "imported_from": file.name,
            "imported_digest": digest,
        }
        if first:
            with ServingLog(
                root, bundle.service, schema(bundle), own | dict(header or {}), bundle=bundle, segment_bytes=1 << 62
            ) as log:
                log.append(pa.concat_batches(batches))  # one frame: all of the file or none
        rows, files = rows + first, files + 1
        known.add(digest)
    return Imported(files, rows)


def _imported_before(root: str | Path, service: str) -> set[str]:
    if not (Path(root) / service).is_dir():
        return set()
    return {one.header.get("imported_digest", "") for one in read_log(root, service).segments if one.rows} - {""}


def _files(source: str) -> list[Place]:
    try:
        path = Path(source)
        if path.suffix in _JSON and path.is_file():
            from skewguard.place import place_of

            return [place_of(path)]
        return parquet_files(source)
    except OSError as error:
        raise LogError(f"log import: {error}") from error


def _digest(file: Place) -> str:
    digest = hashlib.sha256()
    try:
        with file.open() as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise LogError(f"log import: {error}") from error
    return digest.hexdigest()


def _read(file: Place) -> Iterator[pa.Table]:
    try:
        if file.path.endswith(_JSON):
            import pyarrow.json

            with file.open() as stream:
                table = pyarrow.json.read_json(stream)
            table.validate(full=True)
            yield table
            return
        import pyarrow.parquet as pq

        with pq.ParquetFile(file.open()) as parquet:
            for batch in parquet.iter_batches(IMPORT_ROWS * 8):
                batch.validate(full=True)  # a text that is no UTF-8 would be one until somebody reads it
                yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException) as error:
        where = _broken_line(file) if file.path.endswith(_JSON) else ""
        raise LogError(f"{file}: expected Parquet or JSON lines: {where or error}") from error


def _broken_line(file: Place) -> str:
    """Which line of a file is no JSON object; empty where every one is, or the file cannot be read."""
    try:
        with file.open() as stream:
            for number, line in enumerate(io.TextIOWrapper(stream, encoding="utf-8-sig"), 1):
                if line.strip() and not isinstance(json.loads(line), dict):
                    return f"line {number} is no object"
    except UnicodeDecodeError as error:
        return f"it is no UTF-8: {error}"
    except json.JSONDecodeError as error:
        return f"line {number}, column {error.colno}: {error.msg}"
    except OSError:
        return ""
    return ""
