"""The bytes of a packed row and of the keys in the online store.

A packed row, all offsets in bytes:

    0       format (1)
    1..8    layout digest: which names and dtypes follow, in which order; layouts are stored once, beside the rows
    9..16   event time    \\ microseconds + 2**63, big-endian, so that rows of one key sort by
    17..24  created time  /  (event, created) as plain bytes
    25..32  available time: the known time up to which the writer had read when it wrote; int64, little-endian
    33..    one byte per feature (0 present, 1 null), then the values, little-endian: 8, 4 or 1 bytes each,
            instants as int64 microseconds, strings as uint32 length; then the bytes of the strings, UTF-8

No Feast, no pickle, nothing that needs the writer's process.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from skewguard.definitions import View
from skewguard.errors import LayoutError
from skewguard.values import NO_TIME, Array, Column, Dtype, Status

FORMAT = 1
ORDER = slice(9, 25)
"""Where the bytes stand by which rows of one key are ordered."""

_BIAS = np.uint64(1 << 63)
_STORED: dict[Dtype, str] = {
    Dtype.FLOAT64: "<f8",
    Dtype.FLOAT32: "<f4",
    Dtype.INT64: "<i8",
    Dtype.INT32: "<i4",
    Dtype.BOOL: "u1",
    Dtype.STRING: "<u4",
    Dtype.TIMESTAMP: "<i8",
}


@dataclass(frozen=True)
class Layout:
    """Ordered names and dtypes of a view's features, as packed."""

    names: tuple[str, ...]
    dtypes: tuple[Dtype, ...]

    @classmethod
    def of(cls, view: View) -> Layout:
        """The layout in which rows of `view` are written now."""
        return cls(tuple(f.name for f in view.features), tuple(f.dtype for f in view.features))

    @cached_property
    def digest(self) -> bytes:
        """8 bytes that identify the layout."""
        return hashlib.blake2b(self.to_json(), digest_size=8).digest()

    def to_json(self) -> bytes:
        """The layout as stored beside the rows."""
        return json.dumps([FORMAT, self.names, self.dtypes], separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Layout:
        """The layout that `to_json` wrote; raises `LayoutError` for anything else."""
        try:
            version, names, dtypes = json.loads(data)
            layout = cls(tuple(names), tuple(Dtype(d) for d in dtypes))
        except (ValueError, TypeError) as error:
            raise LayoutError(f"stored layout: expected format {FORMAT}, got {data[:80]!r} ({error})") from error
        if version != FORMAT:
            raise LayoutError(f"stored layout: expected format {FORMAT}, got {version!r}")
        return layout

    @cached_property
    def record(self) -> np.dtype[Any]:
        """The fixed part of a row as a numpy record."""
        head = [("format", "u1"), ("digest", "V8"), ("event", ">u8"), ("created", ">u8"), ("available", "<i8")]
        nulls = [(f"n{i}", "u1") for i in range(len(self.names))]
        return np.dtype([*head, *nulls, *((f"v{i}", _STORED[d]) for i, d in enumerate(self.dtypes))])

    @cached_property
    def strings(self) -> tuple[int, ...]:
        """Positions of the string features."""
        return tuple(i for i, dtype in enumerate(self.dtypes) if dtype is Dtype.STRING)


def pack(layout: Layout, event: Array, created: Array, available: int, features: Sequence[Column]) -> list[bytes]:
    """Packed rows: `event`, `created` int64 microseconds of shape (n,), one column per feature of the layout."""
    rows = np.zeros(len(event), dtype=layout.record)
    rows["format"] = FORMAT
    rows["digest"] = np.void(layout.digest)
    rows["event"] = event.view(np.uint64) ^ _BIAS
    rows["created"] = created.view(np.uint64) ^ _BIAS
    rows["available"] = available
    texts: list[list[bytes]] = []
    for i, column in enumerate(features):
        rows[f"n{i}"] = column.status > Status.DEFAULTED
        if column.dtype is Dtype.STRING:
            encoded = [text.encode() for text in column.values.tolist()]
            rows[f"v{i}"] = [len(text) for text in encoded]
            texts.append(encoded)
        else:
            rows[f"v{i}"] = column.values.view("int64") if column.dtype is Dtype.TIMESTAMP else column.values
    size, fixed = layout.record.itemsize, rows.tobytes()
    packed = [fixed[at : at + size] for at in range(0, len(fixed), size)]
    if texts:
        packed = [head + b"".join(tail) for head, tail in zip(packed, zip(*texts, strict=True), strict=True)]
    return packed


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Rows of one layout: `event`, `created`, `available` int64 microseconds, columns by feature name."""

    event: npt.NDArray[np.int64]
    created: npt.NDArray[np.int64]
    available: npt.NDArray[np.int64]
    features: dict[str, Column]


def unpack(layout: Layout, rows: Sequence[bytes]) -> Unpacked:
    """Read rows that were all packed in `layout`; raises `LayoutError` for a row that is cut off or too long."""
    size = layout.record.itemsize
    for row in rows:
        if len(row) < size:
            raise LayoutError(f"packed row: expected at least {size} bytes, got {len(row)}")
    fixed = np.frombuffer(b"".join(row[:size] for row in rows), dtype=layout.record)
    columns = {}
    at = [size] * len(rows)
    for i, (name, dtype) in enumerate(zip(layout.names, layout.dtypes, strict=True)):
        status = np.where(fixed[f"n{i}"], np.uint8(Status.NULL), np.uint8(Status.PRESENT))
        raw: Array = fixed[f"v{i}"]
        if dtype is Dtype.STRING:
            values = np.empty(len(rows), dtype=object)
            for j, (row, length) in enumerate(zip(rows, raw.tolist(), strict=True)):
                try:
                    values[j] = row[at[j] : at[j] + length].decode()
                except UnicodeDecodeError as error:
                    raise LayoutError(f"packed row: {name} is no UTF-8: {error}") from error
                at[j] += length
        elif dtype is Dtype.TIMESTAMP:
            values = np.ascontiguousarray(raw).view("datetime64[us]")
        else:
            values = raw.astype(dtype.numpy)
        columns[name] = Column.build(dtype, values, status)
    for row, end in zip(rows, at, strict=True):
        if len(row) != end:
            raise LayoutError(f"packed row: expected {end} bytes, got {len(row)}")
    return Unpacked(
        (fixed["event"].astype(np.uint64) ^ _BIAS).view(np.int64),
        (fixed["created"].astype(np.uint64) ^ _BIAS).view(np.int64),
        fixed["available"].astype(np.int64),
        columns,
    )


def row_key(project: str, view: View, values: Sequence[Any]) -> bytes:
    """The store's key of one row: project, view and key values, length-prefixed so that no two keys collide."""
    parts = [view_prefix(project, view.name)]
    for key, value in zip(view.keys, values, strict=True):
        if key.dtype is Dtype.STRING:
            text = value.encode()
            parts.append(b"s" + struct.pack(">I", len(text)) + text)
        elif key.dtype in (Dtype.INT64, Dtype.INT32, Dtype.TIMESTAMP, Dtype.BOOL):
            parts.append(b"i" + struct.pack(">q", int(value)))
        else:
            raise LayoutError(f"view {view.name}: a key of dtype {key.dtype} cannot be looked up; use string or int64")
    return b"".join(parts)


def view_prefix(project: str, view: str) -> bytes:
    """What the key of every row of a view begins with."""
    return _prefix(b"r", project, view)


def row_keys(project: str, view: View, columns: Sequence[Column]) -> list[bytes | None]:
    """The keys of n rows, None where a key value is missing."""
    if not columns:
        raise LayoutError(f"view {view.name}: needs the number of rows")
    present = np.logical_and.reduce([column.present for column in columns])
    values = zip(*(_plain(column) for column in columns), strict=True)
    return [row_key(project, view, row) if ok else None for row, ok in zip(values, present.tolist(), strict=True)]


def _plain(column: Column) -> list[Any]:
    values = column.values.view("int64") if column.dtype is Dtype.TIMESTAMP else column.values
    return list(values.tolist())


def watermark_key(project: str, view: str) -> bytes:
    """Where the known time up to which a view has been written stands: 8 bytes, int64 big-endian microseconds."""
    return _prefix(b"w", project, view)


def watermark_of(value: bytes | None) -> int:
    """The known time that stands there, `NO_TIME` where nothing does that can be read."""
    return int(struct.unpack(">q", value)[0]) if value and len(value) == 8 else NO_TIME


def layout_key(project: str, digest: bytes) -> bytes:
    """Where a layout stands."""
    return _prefix(b"l", project, digest.hex())


def prefixes(project: str) -> tuple[bytes, ...]:
    """What every key of a project begins with, one prefix per kind of key."""
    return tuple(b"sg1" + kind + _part(project) for kind in (b"r", b"w", b"l"))


def _prefix(kind: bytes, project: str, name: str) -> bytes:
    return b"sg1" + kind + _part(project) + _part(name)


def _part(text: str) -> bytes:
    """Length-prefixed: no name is the beginning of another one, whatever signs it holds."""
    encoded = text.encode()
    return b":%d:%b" % (len(encoded), encoded)
