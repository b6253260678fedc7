"""Looking for one request in a log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from skewguard.errors import LogError
from skewguard.servinglog import archive as arc
from skewguard.servinglog.reader import read_log
from skewguard.servinglog.scan import Segment


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
        if segment.compacted:
            continue
        for frame in segment.raw_frames():
            # Text and bytes lie in a message as they are, so most frames need not be decoded.
            if isinstance(needle, bytes) and needle not in frame.message().to_pybytes():
                continue
            found += [(segment, row) for row in _matching(segment.decode(frame), column, request_id)]
    for part in reading.parts:
        if column in part.schema.names:
            found += _find_in(part, column, request_id, {one.path.stem: one for one in reading.segments})
    return found


def _matching(batch: pa.RecordBatch, column: str, value: str | bytes | int) -> list[pa.RecordBatch]:
    values = batch.column(batch.schema.names.index(column)).to_pylist()
    return [batch.slice(row, 1) for row, one in enumerate(values) if one == value]


def _find_in(
    part: arc.Part, column: str, value: str | bytes | int, segments: Mapping[str, Segment]
) -> list[tuple[Segment, pa.RecordBatch]]:
    """First the one column, then, where it has the value, the whole rows."""
    import pyarrow.compute as pc

    wanted = pa.scalar(value, part.schema.field(column).type)
    masks = [pc.equal(batch.column(column), wanted) for batch in part.batches([column])]
    if not any(pc.any(mask).as_py() for mask in masks):
        return []
    found = []
    for batch, mask in zip(part.batches(), masks, strict=True):
        rows = batch.filter(mask)
        for row in range(rows.num_rows):
            stem = rows.column(arc.SEGMENT)[row].as_py()
            found.append((segments[stem], rows.slice(row, 1).select(part.schema.names)))
    return found


def _comparable(kind: pa.DataType, request_id: str | bytes | int) -> bool:
    types = pa.types
    if isinstance(request_id, str):
        return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))
    if isinstance(request_id, bytes):
        return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))
    return bool(types.is_integer(kind))
