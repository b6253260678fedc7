"""A frame's message from its buffers: what Arrow writes, without an Arrow array per column.

The messages of one schema differ only in numbers that stand at known places (see `ones`): how many rows there are, how
many nulls each column has, and where its buffers lie. Arrow writes the first message of a schema; for the others these
numbers are put in their places, and the buffers behind them. Messages of which these numbers are equal, as most of a
server's are, begin alike: their beginning is remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewguard.servinglog.ones import places
from skewguard.servinglog.turned import Turned
from skewguard.values import Array, Block, Column, Dtype

_FIXED, _TEXTS, _BLOCK, _LISTS = range(4)
"""How a stretch of columns is laid out: what `Filled.shape` says of it beside its nulls and its size."""
_NO_BITS = -1
_REMEMBERED = 256
_WITH_VALUE = 1
_PREFIX = 8

Nulls = int | bytes
"""Of one column, or one int64 for each of several; `_NO_BITS` where no bit per row says which."""


@dataclass(frozen=True, slots=True)
class Message:
    """Rows as an encoded record batch of `schema`; `turned` has been left out of `data`."""

    schema: pa.Schema
    num_rows: int
    data: bytes
    turned: Turned | None = None

    def batch(self) -> pa.RecordBatch:
        """The rows as Arrow has them."""
        whole = self.data if self.turned is None else self.turned.restore(self.data)
        return pa.ipc.read_record_batch(pa.py_buffer(whole), self.schema)


Rows: TypeAlias = pa.RecordBatch | Message


def unframed(rows: Rows) -> tuple[pa.Buffer | bytes, Turned | None]:
    """The message of some rows, and what has been left out of it."""
    return (rows.data, rows.turned) if isinstance(rows, Message) else (rows.serialize(), None)


class Form:
    """What all messages of one schema have in common."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        blank = pa.RecordBatch.from_arrays([_blank(field.type) for field in schema], schema=schema).serialize()
        at = places(memoryview(blank))
        self._start = blank.to_pybytes()[: _PREFIX + at.size]
        self._at = at
        self._known: dict[tuple[Any, ...], bytes] = {}

    def message(self, filled: Filled) -> Message:
        """The message of these buffers, which must be those of the schema's columns, in order."""
        key = (filled.rows, *filled.shape)
        start = self._known.get(key)
        if start is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            start = self._known[key] = self._begin(filled)
        data, turned = b"".join((start, *filled.chunks)), None
        if filled.hole >= 0:
            hole, source = (len(start) + sum(map(len, filled.chunks[:at])) for at in (filled.hole, filled.source))
            stride, columns = filled.matrix
            turned = Turned(hole, source + stride - 8 * filled.rows, stride, filled.rows, columns)
        return Message(self.schema, filled.rows, data, turned)

    def _begin(self, filled: Filled) -> bytes:
        nodes, lengths = filled.described()
        padded = (lengths + 7) & ~np.int64(7)
        ends = np.cumsum(padded)
        start, at = bytearray(self._start), self._at
        _put(start, at.nodes, nodes)
        _put(start, at.buffers, np.stack([ends - padded, lengths], axis=1))
        _put(start, at.rows, np.array([filled.rows]))
        _put(start, at.body, ends[-1:])
        return bytes(start)


def _put(start: bytearray, where: tuple[int, int], numbers: npt.NDArray[np.int64]) -> None:
    at, length = where
    if numbers.size * 8 != length:
        raise ValueError(f"expected {length // 8} numbers, got {numbers.size}: the buffers are not those of the schema")
    start[_PREFIX + at : _PREFIX + at + length] = numbers.astype("<i8").tobytes()


def _blank(kind: pa.DataType) -> pa.Array:
    """One value of any type: zeros, not null."""
    if pa.types.is_fixed_size_list(kind):
        values = pa.array(np.zeros(kind.list_size), kind.value_type)
        return pa.Array.from_buffers(kind, 1, [None], children=[values])
    if pa.types.is_fixed_size_binary(kind):
        return pa.array([bytes(kind.byte_width)], kind)
    return pa.array([""] if pa.types.is_string(kind) else [0], pa.string() if pa.types.is_string(kind) else None).cast(
        kind
    )


def _bytes(matrix: Array) -> memoryview:
    """The bytes of a C-contiguous matrix, not copied."""
    flat: memoryview = matrix.reshape(-1).view(np.uint8).data
    return flat


def _equal(one: Array, other: Array) -> bool:
    """Whether two matrices of 8-byte values are the same bit by bit."""
    return one.shape == other.shape and bool((one.view(np.int64) == other.view(np.int64)).all())


class Filled:
    """The buffers of n rows, column by column in the schema's order."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.chunks: list[bytes | memoryview] = []
        self.shape: list[tuple[int, int, Nulls, int]] = []
        self.hole = self.source = -1
        self.matrix = (0, 0)
        self._bits = (rows + 7) // 8

    def fixed(self, data: bytes, missing: npt.NDArray[np.bool_] | None = None) -> None:
        """A column of a fixed width, null where `missing` (n,)."""
        self.shape.append((_FIXED, 1, self._put_bits(missing), len(data)))
        self._put(data)

    def texts(self, texts: list[str], missing: npt.NDArray[np.bool_] | None = None) -> None:
        """A column of strings, empty where `missing`."""
        nulls = self._put_bits(missing)
        joined = "".join(texts)
        if joined.isascii():
            sizes, data = list(map(len, texts)), joined.encode()
        else:
            parts = [text.encode() for text in texts]
            sizes, data = list(map(len, parts)), b"".join(parts)
        if sizes.count(sizes[0]) == self.rows:
            ends = np.arange(0, len(data) + 1, sizes[0], dtype="<i4") if data else np.zeros(self.rows + 1, dtype="<i4")
        else:
            ends = np.zeros(self.rows + 1, dtype="<i4")
            ends[1:] = np.array(sizes).cumsum()
        self.shape.append((_TEXTS, 1, nulls, len(data)))
        self._put(ends.tobytes())
        self._put(data)

    def column(self, column: Column) -> None:
        """A column, null where it has no value."""
        missing = column.status > _WITH_VALUE
        gone = missing if missing.any() else None
        if column.dtype is Dtype.STRING:
            self.texts(column.values.tolist(), gone)
        elif column.dtype is Dtype.BOOL:
            self.fixed(np.packbits(column.values, bitorder="little").tobytes(), gone)
        else:
            self.fixed(column.values.tobytes(), gone)

    def block(self, block: Block) -> None:
        """The columns of a block that is not of strings, in its order."""
        k = len(block.matrix)
        missing = block.statuses > _WITH_VALUE if block.statuses.any() else None
        matrix = np.packbits(block.matrix, axis=1, bitorder="little") if block.dtype is Dtype.BOOL else block.matrix
        width = matrix.itemsize * matrix.shape[1]
        self.source = len(self.chunks)
        if missing is None and not width % 8:
            self.shape.append((_BLOCK, k, _NO_BITS, width))
            self.chunks.append(_bytes(matrix))
            self.matrix = (width, k)
            return
        bits = 0 if missing is None else -(-self._bits // 8) * 8
        laid = np.zeros((k, bits + -(-width // 8) * 8), dtype=np.uint8)
        laid[:, bits : bits + width] = matrix.view(np.uint8).reshape(k, width)
        if missing is None:
            self.shape.append((_BLOCK, k, _NO_BITS, width))
        else:
            laid[:, : self._bits] = np.packbits(~missing, axis=1, bitorder="little")
            nulls = np.count_nonzero(missing, axis=1).astype(np.int64).tobytes()
            self.shape.append((_BLOCK, k, nulls, width))
        self.chunks.append(_bytes(laid))
        self.matrix = (laid.shape[1], k)

    def lists(self, matrix: Array, same_as: Block | None = None) -> None:
        """A column of lists of fixed length: the rows of a matrix (n, k).

        They are left out where they are those of the block `same_as`, the last that was put.
        """
        self.shape.append((_LISTS, matrix.shape[1], _NO_BITS, matrix.nbytes))
        if same_as is not None and _equal(same_as.matrix.T, matrix):
            self.hole = len(self.chunks)
        else:
            self._put(matrix.tobytes())

    def described(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The nodes (length, nulls) and the lengths of the buffers, in the schema's order."""
        n, bits = self.rows, self._bits
        nodes: list[tuple[int, int]] = []
        lengths: list[int] = []
        for kind, k, nulls, size in self.shape:
            if kind == _LISTS:
                nodes += [(n, 0), (n * k, 0)]
                lengths += [0, 0, size]
                continue
            each = np.frombuffer(nulls, np.int64).tolist() if isinstance(nulls, bytes) else [max(nulls, 0)] * k
            nodes += [(n, one) for one in each]
            validity = 0 if nulls == _NO_BITS else bits
            lengths += [validity, 4 * (n + 1), size] if kind == _TEXTS else [validity, size] * k
        return np.array(nodes, dtype=np.int64), np.array(lengths, dtype=np.int64)

    def _put_bits(self, missing: npt.NDArray[np.bool_] | None) -> int:
        """Which rows are there, where some are missing; how many are."""
        if missing is None:
            return _NO_BITS
        self._put(np.packbits(~missing, bitorder="little").tobytes())
        return int(np.count_nonzero(missing))

    def _put(self, data: bytes) -> None:
        self.chunks.append(data)
        if len(data) % 8:
            self.chunks.append(bytes(-len(data) % 8))
