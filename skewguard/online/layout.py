"""The bytes of a packed row and of the keys in the online store.

A packed row, all offsets in bytes:

    0       format (1)
    1..8    layout digest: which names and dtypes follow, in which order, and the fingerprint of the definition behind
            them; layouts are stored once, beside the rows
    9..16   event time    \\ microseconds + 2**63, big-endian, so that rows of one key sort by
    17..24  created time  /  (event, created) as plain bytes
    25..32  available time: the known time up to which the writer had read when it wrote; int64, little-endian
    33..    one byte per feature (0 present, 1 null), then the values, little-endian: 8, 4 or 1 bytes each,
            instants as int64 microseconds, strings and carried values as uint32 length; then the bytes of these, in
            order: UTF-8, or what `lists.py` says

No Feast, no pickle, nothing that needs the writer's process. The keys: `keys.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from skewguard.definitions import View
from skewguard.errors import LayoutError
from skewguard.values import NO_TIME, Array, Block, Column, Dtype, Status

FORMAT = 1
DIGEST = 8
"""Bytes of a layout's digest."""
ORDER = slice(9, 25)
"""Where the bytes stand by which rows of one key are ordered."""

_HEAD = ORDER.stop + 8
"""Where the bytes stand that say which features are null."""
_BIAS = np.uint64(1 << 63)
_PRESENT, _NULL, _NOT_FOUND = (np.uint8(one) for one in (Status.PRESENT, Status.NULL, Status.NOT_FOUND))
STORED: dict[Dtype, str] = {
    Dtype.FLOAT64: "<f8",
    Dtype.FLOAT32: "<f4",
    Dtype.INT64: "<i8",
    Dtype.INT32: "<i4",
    Dtype.BOOL: "u1",
    Dtype.STRING: "<u4",
    Dtype.TIMESTAMP: "<i8",
}


class Carried(str):
    """A type that skewguard computes nothing on and hands on as bytes: `list<float32>`, or a vendor's own."""

    __slots__ = ()


Kind = Dtype | Carried


@dataclass(frozen=True, slots=True)
class Blobs:
    """Carried values, one per row, None for null."""

    dtype: Carried
    values: Sequence[bytes | None]


def definition_of(view: View) -> str:
    """Fingerprint (hex) of what a row of `view` is made from: keys, columns, times; not their place or order."""
    source = [view.source.timestamp, view.source.created]
    keys = [[key.column, key.dtype] for key in view.keys]
    made = json.dumps([keys, sorted([f.name, f.column, f.dtype] for f in view.features), source]).encode()
    return hashlib.blake2b(made, digest_size=8).hexdigest()


@dataclass(frozen=True)
class Layout:
    """Ordered names and dtypes of a view's features, as packed, and the fingerprint of their definition."""

    names: tuple[str, ...]
    dtypes: tuple[Kind, ...]
    definition: str = ""

    @classmethod
    def of(cls, view: View) -> Layout:
        """The layout in which rows of `view` are written now."""
        return cls(tuple(f.name for f in view.features), tuple(f.dtype for f in view.features), definition_of(view))

    @cached_property
    def digest(self) -> bytes:
        """8 bytes that identify the layout."""
        return hashlib.blake2b(self.to_json(), digest_size=DIGEST).digest()

    def to_json(self) -> bytes:
        """The layout as stored beside the rows."""
        said = [FORMAT, self.names, self.dtypes, *([self.definition] if self.definition else [])]
        return json.dumps(said, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Layout:
        """The layout that `to_json` wrote; raises `LayoutError` for anything else."""
        try:
            version, names, dtypes, *definition = json.loads(data)
            layout = cls(tuple(names), tuple(_kind(d) for d in dtypes), *definition)
        except (ValueError, TypeError) as error:
            raise LayoutError(f"stored layout: expected format {FORMAT}, got {data[:80]!r} ({error})") from error
        if version != FORMAT:
            raise LayoutError(f"stored layout: expected format {FORMAT}, got {version!r}")
        return layout

    @cached_property
    def record(self) -> np.dtype[Any]:
        """The fixed part of a row as a numpy record."""
        head = [("format", "u1"), ("digest", "V8"), ("event", ">u8"), ("created", ">u8"), ("available", "<i8")]
        nulls = [("nulls", "u1", (len(self.names),))] if self.names else []
        return np.dtype([*head, *nulls, *((f"v{i}", _stored(d)) for i, d in enumerate(self.dtypes))])

    @cached_property
    def blank(self) -> bytes:
        """A row of nulls without times: what `unpack` puts where there is none."""
        gone = np.array([NO_TIME])
        nothing = [
            Column.absent(kind, 1, Status.NULL) if isinstance(kind, Dtype) else Blobs(kind, [None])
            for kind in self.dtypes
        ]
        return pack(self, gone, gone, NO_TIME, nothing)[0]

    @cached_property
    def tails(self) -> tuple[int, ...]:
        """Positions of the features whose bytes stand behind the fixed part."""
        return tuple(i for i, dtype in enumerate(self.dtypes) if dtype is Dtype.STRING or isinstance(dtype, Carried))

    @cached_property
    def places(self) -> Mapping[str, int]:
        """At which place each feature stands."""
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def together(self) -> tuple[tuple[Dtype, tuple[int, ...], Array], ...]:
        """Fixed-size features by dtype: their positions, and where each of their bytes stands in a row."""
        groups: dict[Dtype, list[int]] = {}
        for i, dtype in enumerate(self.dtypes):
            if isinstance(dtype, Dtype) and dtype is not Dtype.STRING:
                groups.setdefault(dtype, []).append(i)
        fields: Any = self.record.fields
        return tuple(
            (
                dtype,
                tuple(at),
                np.concatenate([fields[f"v{i}"][1] + np.arange(fields[f"v{i}"][0].itemsize) for i in at]),
            )
            for dtype, at in groups.items()
        )


def read_digest(row: bytes) -> bytes:
    """The digest of the layout that a packed row names; of bytes that are none, one that no layout has."""
    return row[1 : 1 + DIGEST] if row[:1] == bytes([FORMAT]) and len(row) > 1 + DIGEST else b"?"


def _kind(name: str) -> Kind:
    if name.startswith(("list<", "feast.")):
        return Carried(name)
    return Dtype(name)


def _stored(kind: Kind) -> str:
    return STORED[kind] if isinstance(kind, Dtype) else "<u4"


def pack(
    layout: Layout, event: Array, created: Array, available: int, features: Sequence[Column | Blobs]
) -> list[bytes]:
    """Packed rows: `event`, `created` int64 microseconds of shape (n,), one column per feature of the layout."""
    rows = np.zeros(len(event), dtype=layout.record)
    rows["format"] = FORMAT
    rows["digest"] = np.void(layout.digest)
    rows["event"] = event.view(np.uint64) ^ _BIAS
    rows["created"] = created.view(np.uint64) ^ _BIAS
    rows["available"] = available
    tails: list[Sequence[bytes]] = []
    for i, column in enumerate(features):
        if isinstance(column, Blobs):
            rows["nulls"][:, i] = [value is None for value in column.values]
            tails.append([value or b"" for value in column.values])
            rows[f"v{i}"] = [len(value) for value in tails[-1]]
            continue
        rows["nulls"][:, i] = column.status > Status.DEFAULTED
        if column.dtype is Dtype.STRING:
            tails.append([text.encode() for text in column.values.tolist()])
            rows[f"v{i}"] = [len(text) for text in tails[-1]]
        else:
            rows[f"v{i}"] = column.values.view("int64") if column.dtype is Dtype.TIMESTAMP else column.values
    size, fixed = layout.record.itemsize, rows.tobytes()
    packed = [fixed[at : at + size] for at in range(0, len(fixed), size)]
    if tails:
        packed = [b"".join(parts) for parts in zip(packed, *tails, strict=True)]
    return packed


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Rows of one layout: times int64 microseconds, columns by feature name, carried values apart."""

    event: npt.NDArray[np.int64]
    created: npt.NDArray[np.int64]
    available: npt.NDArray[np.int64]
    features: Mapping[str, Column]
    carried: dict[str, Blobs]


def unpack(layout: Layout, rows: Sequence[bytes], missing: Sequence[int] = ()) -> Unpacked:
    """Read rows that were all packed in `layout`; raises `LayoutError` for a row that is cut off or too long.

    What lies at the places `missing` is the layout's `blank`, for which nothing was found.
    """
    size, n, k = layout.record.itemsize, len(rows), len(layout.names)
    for length in set(map(len, rows)) - {size}:
        if length < size or not layout.tails:
            raise LayoutError(f"packed row: expected {'at least ' if layout.tails else ''}{size} bytes, got {length}")
    fixed = b"".join([row[:size] for row in rows]) if layout.tails else b"".join(rows)
    nulls = np.ndarray((k, n), np.uint8, fixed, _HEAD, (1, size)) if n else np.zeros((k, n), np.uint8)
    status = np.where(nulls, _NULL, _PRESENT) if nulls.any() else np.zeros((k, n), np.uint8)
    if missing:
        status[:, missing] = _NOT_FOUND
    times = np.ndarray((2, n), ">u8", fixed, ORDER.start, (8, size)) if n else np.zeros((2, 0), ">u8")
    event, created = (times.astype(np.uint64) ^ _BIAS).view(np.int64)
    available = np.ndarray((n,), "<i8", fixed, ORDER.stop, (size,)).astype(np.int64) if n else event
    if len(layout.together) == 1 and not layout.tails:
        ((dtype, _, at),) = layout.together
        block = Block(dtype, layout.places, _gathered(fixed, n, size, at, dtype), status)
        return Unpacked(event, created, available, block, {})
    columns: dict[str, Column] = {}
    by_feature = list(status)
    for dtype, where, at in layout.together:
        for i, own in zip(where, _gathered(fixed, n, size, at, dtype), strict=True):
            columns[layout.names[i]] = Column(dtype, own, by_feature[i])
    carried = _behind(layout, rows, np.frombuffer(fixed, layout.record), status, columns)
    ordered = {name: columns[name] for name in layout.names if name in columns}
    return Unpacked(event, created, available, ordered, carried)


def _gathered(fixed: bytes, n: int, size: int, at: Array, dtype: Dtype) -> Array:
    """All features of a dtype in one step, one behind the other; what was packed is canonical already."""
    stored = np.dtype(STORED[dtype])
    k = len(at) // stored.itemsize
    if n and at[-1] - at[0] + 1 == len(at):
        values = np.ascontiguousarray(np.ndarray((k, n), stored, fixed, int(at[0]), (stored.itemsize, size)))
    else:
        chosen = np.frombuffer(fixed, np.uint8).reshape(n, size)[:, at]
        values = np.ascontiguousarray(np.ascontiguousarray(chosen).view(stored).reshape(n, k).T)
    return values.view("datetime64[us]") if dtype is Dtype.TIMESTAMP else values.astype(dtype.numpy, copy=False)


def _behind(
    layout: Layout, rows: Sequence[bytes], fixed: Array, status: npt.NDArray[np.uint8], columns: dict[str, Column]
) -> dict[str, Blobs]:
    """Strings into `columns`, carried values as they lie; every row must end where they end."""
    carried = {}
    at = [layout.record.itemsize] * len(rows)
    for i in layout.tails:
        kind, name = layout.dtypes[i], layout.names[i]
        parts = []
        for j, (row, length) in enumerate(zip(rows, fixed[f"v{i}"].tolist(), strict=True)):
            parts.append(row[at[j] : at[j] + length])
            at[j] += length
        if isinstance(kind, Carried):
            present = (status[i] == Status.PRESENT).tolist()
            carried[name] = Blobs(kind, [part if ok else None for part, ok in zip(parts, present, strict=True)])
            continue
        values = np.empty(len(rows), dtype=object)
        try:
            values[:] = [part.decode() for part in parts]
        except UnicodeDecodeError as error:
            raise LayoutError(f"packed row: {name} is no UTF-8: {error}") from error
        columns[name] = Column(Dtype.STRING, values, status[i])
    for row, end in zip(rows, at, strict=True):
        if len(row) != end:
            raise LayoutError(f"packed row: expected {end} bytes, got {len(row)}")
    return carried
