"""A stretch of a message that need not be written, because another one says the same.

Where every feature enters the model as it is, the model's input (row by row) repeats the features (column by column):
half of the row. The frame then says which matrix to turn, and where the result belongs.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass

import numpy as np

_FORM = struct.Struct("<QQQQQ")


@dataclass(frozen=True, slots=True)
class Turned:
    """At `hole` of the message without it belong the rows of the matrix of 8-byte values whose `columns` begin at
    `source`, each `stride` bytes behind the last, with `rows` values each.
    """

    hole: int
    source: int
    stride: int
    rows: int
    columns: int

    SIZE = _FORM.size

    @property
    def extent(self) -> tuple[int, int]:
        """Where the matrix begins and ends."""
        return self.source, self.source + (self.columns - 1) * self.stride + 8 * self.rows

    def pack(self) -> bytes:
        """As it lies before the message."""
        return _FORM.pack(*astuple(self))

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> Turned:
        """What `pack` wrote."""
        return cls(*_FORM.unpack_from(data))

    def restore(self, message: bytes | memoryview) -> bytes:
        """The whole message. Raises ValueError where the matrix does not lie in it."""
        shape, strides = (self.columns, self.rows), (self.stride, 8)
        matrix: np.ndarray[tuple[int, int], np.dtype[np.uint64]] = np.ndarray(
            shape, dtype="<u8", buffer=message, offset=self.source, strides=strides
        )
        whole = memoryview(message)
        return b"".join((whole[: self.hole], matrix.T.tobytes(), whole[self.hole :]))
