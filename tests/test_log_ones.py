"""Rows that were logged one by one are the same rows, whichever way they are decoded."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skewguard.servinglog import ServingLog, blocks, ones, read_log

KINDS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.float64(), st.floats()),
    (pa.float32(), st.floats(width=32)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    (pa.uint8(), st.integers(0, 255)),
    (pa.bool_(), st.booleans()),
    (pa.string(), st.text(max_size=20)),
    (pa.binary(), st.binary(max_size=9)),
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    (pa.timestamp("us", tz="UTC"), st.integers(-(2**60), 2**60)),
    (pa.list_(pa.float64(), 3), st.lists(st.floats(), min_size=3, max_size=3)),
]


@st.composite
def rows(draw: st.DrawFn) -> list[pa.RecordBatch]:
    """Batches of one row, some of them slices of longer ones."""
    kinds = draw(st.lists(st.sampled_from(range(len(KINDS))), min_size=1, max_size=7))
    schema = pa.schema([(f"c{i}", KINDS[kind][0]) for i, kind in enumerate(kinds)])
    count = draw(st.integers(2, 12))
    columns = []
    for kind in kinds:
        values = KINDS[kind][1] if pa.types.is_fixed_size_list(KINDS[kind][0]) else st.none() | KINDS[kind][1]
        columns.append(pa.array(draw(st.lists(values, min_size=count, max_size=count)), KINDS[kind][0]))
    whole = pa.RecordBatch.from_arrays(columns, schema=schema)
    return [whole.slice(i, 1) for i in range(count)]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(batches=rows())
def test_rows_decoded_at_once_are_the_rows(batches: list[pa.RecordBatch]) -> None:
    """Bit for bit, null for null; every type of a served row is known here."""
    together = ones.decode([batch.serialize() for batch in batches], batches[0].schema)
    assert together is not None
    together.validate(full=True)
    for i, batch in enumerate(batches):
        assert together.slice(i, 1).serialize().equals(batch.serialize()), batch.schema
    assert together.serialize().equals(pa.concat_batches(batches).serialize())


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.list_(pa.string(), 2), pa.struct([("a", pa.int64())]), pa.large_string()]
)
def test_what_is_laid_out_otherwise_is_left_to_arrow(tmp_path: Path, kind: pa.DataType) -> None:
    """Lists of any length, lists of text, structs: read all the same, in the old way."""
    value: Any = {"a": 1} if pa.types.is_struct(kind) else "x" if pa.types.is_large_string(kind) else None
    if value is None:
        value = ["x", "y"] if pa.types.is_string(kind.value_type) else [1.0, 2.0]
    schema = pa.schema([("id", pa.string()), ("odd", kind)])
    batches = [pa.RecordBatch.from_pylist([{"id": f"r{i}", "odd": value}], schema=schema) for i in range(5)]
    assert ones.decode([batch.serialize() for batch in batches], schema) is None
    with ServingLog(tmp_path, "s", schema, {}) as log:
        for batch in batches:
            log.append(batch)
    assert [row for _, block in blocks(read_log(tmp_path).segments) for row in block.to_pylist()] == [
        row for batch in batches for row in batch.to_pylist()
    ]


def test_messages_that_are_not_of_one_kind_are_left_to_arrow() -> None:
    """Another schema, two rows, nulls inside a list, no message at all."""
    schema = pa.schema([("a", pa.int64())])
    one = pa.RecordBatch.from_pylist([{"a": 1}], schema=schema)
    two = pa.RecordBatch.from_pylist([{"a": 1}, {"a": 2}], schema=schema)
    other = pa.RecordBatch.from_pylist([{"a": 1, "b": "x"}])
    lists = pa.schema([("a", pa.list_(pa.float64(), 2))])
    holed = pa.RecordBatch.from_pylist([{"a": [1.0, None]}], schema=lists)
    assert ones.decode([one.serialize()] * 2, schema) is not None
    for messages, of in (
        ([one.serialize(), two.serialize()], schema),
        ([one.serialize(), other.serialize()], schema),
        ([other.serialize()], schema),
        ([holed.serialize()], lists),
        ([pa.py_buffer(b"nothing of the kind, but long enough")], schema),
        ([pa.py_buffer(b"")], schema),
    ):
        assert ones.decode(messages, of) is None


def test_single_rows_among_batches_keep_their_order(tmp_path: Path) -> None:
    """Blocks follow each other as the appends did."""
    schema = pa.schema([("id", pa.int64())])
    expected: list[int] = []
    with ServingLog(tmp_path, "s", schema, {}) as log:
        for size in [1, 1, 1, 3, 1, 0, 1, 1, 5] * 40:
            numbers = list(range(len(expected), len(expected) + size))
            log.append(pa.RecordBatch.from_pylist([{"id": n} for n in numbers], schema=schema))
            expected += numbers
    assert [n for _, block in blocks(read_log(tmp_path).segments) for n in block.column("id").to_pylist()] == expected
