"""Frames of one row each, decoded together.

Arrow decodes a record batch column by column, whatever its length, so that rows logged one by one are read slowly. The
messages of one schema differ only in numbers that stand at the same places in each: where every column of a row
begins, and how many nulls it has. Here these are read of all messages at once, and every column is gathered in one
step. What is not laid out as expected is left to Arrow.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_PREFIX = 8  # a continuation mark and the length of the metadata
_PAIR = 16  # a node (length, nulls) and a buffer (offset, length) are two int64 each

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


def decode(messages: Sequence[pa.Buffer], schema: pa.Schema) -> pa.RecordBatch | None:
    """The rows of record-batch messages that hold one row each, in order; None where Arrow has to do it."""
    first = memoryview(messages[0])
    try:
        at = places(first)
    except (struct.error, ValueError):
        return None
    head = _PREFIX + at.size
    lengths = np.array([message.size for message in messages], dtype=np.int64)
    if (lengths < head).any():
        return None
    described = np.frombuffer(b"".join([memoryview(message)[:head] for message in messages]), np.uint8)
    described = described.reshape(len(messages), head).copy()
    of_nodes, of_buffers = _pairs(described, at.nodes), _pairs(described, at.buffers)
    for start, length in (at.nodes, at.buffers, at.body):
        described[:, _PREFIX + start : _PREFIX + start + length] = 0
    if (described != described[0]).any():
        return None
    data = np.frombuffer(b"".join(messages), dtype=np.uint8)
    base = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    rows = _Rows(data, base + head, of_nodes, of_buffers)
    try:
        columns = [rows.column(one.type) for one in schema]
    except _Otherwise:
        return None
    if rows.node != rows.nodes.shape[1] or rows.buffer != rows.buffers.shape[1]:
        return None
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class _Otherwise(Exception):
    """A column that is laid out in a way that this module does not know."""


@dataclass
class _Rows:
    """n messages: their bytes, where each body begins, and the nodes and buffers of each, shape (n, count, 2)."""

    data: Bytes
    body: Ints
    nodes: Ints
    buffers: Ints
    node: int = 0
    buffer: int = 0
    _none: dict[str, Any] = field(default_factory=dict)

    def column(self, kind: pa.DataType, length: int = 1) -> pa.Array:
        """The next column, `length` values of each message."""
        n = len(self.body)
        node = self._node(length)
        validity = self._validity(node, length)
        if pa.types.is_fixed_size_list(kind):
            if length != 1:
                raise _Otherwise
            values = self.column(kind.value_type, kind.list_size)
            return pa.Array.from_buffers(kind, n, [validity], children=[values])
        if pa.types.is_string(kind) or pa.types.is_binary(kind):
            if length != 1:
                raise _Otherwise
            return pa.Array.from_buffers(kind, n, [validity, *self._texts()])
        if pa.types.is_boolean(kind):
            if length != 1:
                raise _Otherwise
            bits = self._fixed(1)[:, 0] & 1
            return pa.Array.from_buffers(kind, n, [validity, pa.py_buffer(np.packbits(bits, bitorder="little"))])
        if not (pa.types.is_primitive(kind) or pa.types.is_fixed_size_binary(kind)):
            raise _Otherwise
        width = kind.bit_width // 8 * length
        return pa.Array.from_buffers(kind, n * length, [validity, pa.py_buffer(self._fixed(width))])

    def _node(self, length: int) -> Ints:
        if self.node >= self.nodes.shape[1]:
            raise _Otherwise
        node = self.nodes[:, self.node]
        self.node += 1
        if (node[:, 0] != length).any():
            raise _Otherwise
        return node

    def _next(self) -> tuple[Ints, Ints]:
        """Where the next buffer of each message begins, and how long it is."""
        if self.buffer >= self.buffers.shape[1]:
            raise _Otherwise
        pair = self.buffers[:, self.buffer]
        self.buffer += 1
        return self.body + pair[:, 0], pair[:, 1]

    def _validity(self, node: Ints, length: int) -> pa.Buffer | None:
        self._next()
        nulls = node[:, 1]
        if not nulls.any():
            return None
        if length != 1:
            raise _Otherwise
        return pa.py_buffer(np.packbits(nulls == 0, bitorder="little"))

    def _fixed(self, width: int) -> Bytes:
        """The next `width` bytes of each message, shape (n, width); zeros where there are fewer."""
        start, have = self._next()
        short = have < width
        at = np.where(short, 0, start)
        values = self.data[at[:, None] + np.arange(width)]
        if short.any():
            values[short] = 0
        return np.ascontiguousarray(values)

    def _texts(self) -> tuple[pa.Buffer, pa.Buffer]:
        ends = self._fixed(8).view("<i4").astype(np.int64)
        start, have = self._next()
        size = ends[:, 1] - ends[:, 0]
        if (size < 0).any() or (ends[:, 1] > have).any():
            raise _Otherwise
        offsets = np.concatenate([[0], np.cumsum(size)])
        if offsets[-1] > np.iinfo(np.int32).max:
            raise _Otherwise
        at = np.repeat(start + ends[:, 0] - offsets[:-1], size) + np.arange(offsets[-1])
        return pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(self.data[at])


def _pairs(described: Bytes, where: tuple[int, int]) -> Ints:
    start, length = where
    part = np.ascontiguousarray(described[:, _PREFIX + start : _PREFIX + start + length])
    return part.view("<i8").reshape(len(described), length // _PAIR, 2).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Places:
    """Where in a message's metadata numbers stand, as (start, length in bytes): a pair per node and per buffer, the
    number of rows and the length of the body. `size` is the length of the metadata.
    """

    size: int
    nodes: tuple[int, int]
    buffers: tuple[int, int]
    rows: tuple[int, int]
    body: tuple[int, int]


def places(message: memoryview) -> Places:
    """The places in a record-batch message, read as the FlatBuffers tables that it is made of.

    Raises ValueError or struct.error for anything else.
    """
    mark, size = struct.unpack_from("<Ii", message, 0)
    meta = message[_PREFIX : _PREFIX + size]
    if mark != 0xFFFFFFFF or len(meta) != size:
        raise ValueError("no encapsulated message")
    root = _at(meta, 0)
    batch = _at(meta, _field(meta, root, 2))
    return Places(
        size,
        _vector(meta, _field(meta, batch, 1)),
        _vector(meta, _field(meta, batch, 2)),
        (_field(meta, batch, 0), 8),
        (_field(meta, root, 3), 8),
    )


def _at(meta: memoryview, position: int) -> int:
    return position + int(struct.unpack_from("<I", meta, position)[0])


def _field(meta: memoryview, table: int, number: int) -> int:
    """Where a table's field stands."""
    vtable = table - int(struct.unpack_from("<i", meta, table)[0])
    (size,) = struct.unpack_from("<H", meta, vtable)
    offset = struct.unpack_from("<H", meta, vtable + 4 + 2 * number)[0] if 4 + 2 * number < size else 0
    if not offset:
        raise ValueError("a field is missing")
    return table + int(offset)


def _vector(meta: memoryview, position: int) -> tuple[int, int]:
    start = _at(meta, position)
    (count,) = struct.unpack_from("<I", meta, start)
    return start + 4, int(count) * _PAIR
