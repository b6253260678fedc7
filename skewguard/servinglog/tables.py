"""The rows of a reading as tables: columns by name, header fields beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from skewguard.errors import LogError
from skewguard.servinglog import archive as arc
from skewguard.servinglog import segment as seg
from skewguard.servinglog.reader import LogReading, coded
from skewguard.servinglog.scan import Segment


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


def _looked_up(column: pa.Array, texts: Mapping[str, str | None]) -> pa.DictionaryArray:
    """For every row the text of its segment, as a dictionary of int32 and string."""
    stems, codes = coded(column)
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
