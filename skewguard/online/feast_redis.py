"""Reads what Feast's own Redis store wrote (`online_store: {type: redis}`), as it lies. No Feast, no protobuf.

A hash per entity key and project, shared by all views with these join keys. Its name: the number of keys, then each
join key's name, then each value, all with type and length, then the project. Its fields: `_ts:VIEW`, a serialized
google.protobuf.Timestamp, and per feature the four bytes of murmur3_32("VIEW:FEATURE"), a serialized feast.types.Value.
Feast declares this format public (docs/specs/online_store_format.md); entity_key_serialization_version 3.

What Feast did not write cannot be read: there is no created time and no watermark; instants are whole seconds; two
features whose hashes collide share a field (refused here where the bundle has both).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from skewguard.definitions import Bundle, View
from skewguard.errors import DefinitionError, LayoutError
from skewguard.online.lookup import Lookup
from skewguard.online.store import OnlineStore
from skewguard.spine import Spine, ViewRows, expire
from skewguard.values import NO_TIME, Array, Column, Dtype, Status

Fields = Sequence[bytes | None] | None
"""The fields of one hash, None for one that it lacks; None altogether where the store could not be asked."""

_SECOND = 1_000_000
_TAGS = {
    Dtype.STRING: b"\x12",
    Dtype.INT32: b"\x18",
    Dtype.INT64: b"\x20",
    Dtype.FLOAT64: b"\x29",
    Dtype.FLOAT32: b"\x35",
    Dtype.BOOL: b"\x38",
    Dtype.TIMESTAMP: b"\x40",
}
_KEY_TYPES = {Dtype.STRING: 2, Dtype.INT32: 3, Dtype.INT64: 4, Dtype.TIMESTAMP: 8}
_NULL = b"\x98\x01\x00"
_FIXED = {
    Dtype.FLOAT64: np.dtype([("tag", "u1"), ("v", "<f8")]),
    Dtype.FLOAT32: np.dtype([("tag", "u1"), ("v", "<f4")]),
}


class HashStore(OnlineStore, Protocol):
    """A store that also holds hashes."""

    def hmget(self, asked: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[list[bytes | None] | None]:
        """The fields of each hash, None for a hash that could not be asked for."""
        ...


class FeastLookup(Lookup):
    """The online side of one bundle over what Feast materialized, answering as `Lookup` does over packed rows.

    TTLs and statuses are ours: what Feast reports as PRESENT may be expired, null or not found. Raises
    `DefinitionError` where Feast cannot hold the bundle's views.
    """

    store: HashStore
    marked = False

    def __init__(self, bundle: Bundle, store: HashStore) -> None:
        super().__init__(bundle, store)
        self.store = store
        self._fields = {view.name: _fields(view) for view in bundle.views}
        _refuse_collisions(bundle, self._fields)
        self._hashes = {view.name: _Hash(bundle.project, view) for view in bundle.views}

    def answer(self, spine: Spine) -> dict[str, ViewRows]:
        """One answer per ask and view, in the spine's order; raises `StoreUnavailable`."""
        keys = {view.name: self._hashes[view.name].keys(spine) for view in self.bundle.views}
        asked = [(key, self._fields[name]) for name, some in keys.items() for key in some if key is not None]
        found = iter(self.store.hmget(asked))
        answers = {}
        for view in self.bundle.views:
            nothing = [None] * len(self._fields[view.name])
            rows: list[Fields] = [next(found) if key is not None else nothing for key in keys[view.name]]
            answers[view.name] = _read(view, spine, rows)
        return answers

    def ready(self) -> None:
        """Raise `StoreUnavailable` unless the store answers. Feast does not say how far a view was written."""
        self.store.hmget([(b"skewguard", [b"ready"])])


class _Hash:
    """How Feast names the hash of an entity key."""

    def __init__(self, project: str, view: View) -> None:
        self._columns = sorted(view.keys, key=lambda key: key.feast_name)
        self._tail = project.encode()
        self._head = struct.pack("<I", len(self._columns))
        for key in self._columns:
            if key.dtype not in _KEY_TYPES:
                raise DefinitionError(f"view {view.name}: Feast cannot look up a key of dtype {key.dtype}")
            name = key.feast_name.encode()
            self._head += struct.pack("<II", 2, len(name)) + name
        if not self._columns:  # what Feast calls an entityless view has one key of its own
            name = b"__dummy_id"
            self._head = struct.pack("<III", 1, 2, len(name)) + name + struct.pack("<II", 2, 0)

    def keys(self, spine: Spine) -> list[bytes | None]:
        """The names of n hashes, None where an ask lacks a key value."""
        if not self._columns:
            return [self._head + self._tail] * len(spine)
        columns = [spine.keys[key.ask] for key in self._columns]
        present = np.logical_and.reduce([column.present for column in columns]).tolist()
        encoded = [_encoded(key.dtype, column) for key, column in zip(self._columns, columns, strict=True)]
        return [
            self._head + b"".join(parts) + self._tail if ok else None
            for ok, *parts in zip(present, *encoded, strict=True)
        ]


def _encoded(dtype: Dtype, column: Column) -> list[bytes]:
    if dtype is Dtype.STRING:
        texts = [text.encode() for text in column.values.tolist()]
        return [struct.pack("<II", 2, len(text)) + text for text in texts]
    values = column.values.view("int64") // _SECOND if dtype is Dtype.TIMESTAMP else column.values
    form = "<IIi" if dtype is Dtype.INT32 else "<IIq"
    size = 4 if dtype is Dtype.INT32 else 8
    return [struct.pack(form, _KEY_TYPES[dtype], size, value) for value in values.tolist()]


def _fields(view: View) -> list[bytes]:
    """The field of the view's time, then those of its features."""
    hashed = [struct.pack("<I", murmur3(f"{view.feast_name}:{f.name}".encode())) for f in view.features]
    return [f"_ts:{view.feast_name}".encode(), *hashed]


def _refuse_collisions(bundle: Bundle, fields: dict[str, list[bytes]]) -> None:
    seen: dict[tuple[object, bytes], str] = {}
    for view in bundle.views:
        for feature, field in zip(view.features, fields[view.name][1:], strict=True):
            name = f"{view.feast_name}:{feature.name}"
            other = seen.setdefault((tuple(key.feast_name for key in view.keys), field), name)
            if other != name:
                raise DefinitionError(
                    f"{other} and {name} share one field of Feast's hash ({field.hex()}): Feast serves the value of "
                    "one for both. Rename one of them, or use skewguard's own online store."
                )


def _read(view: View, spine: Spine, rows: Sequence[Fields]) -> ViewRows:
    n = len(rows)
    event = np.full(n, NO_TIME, dtype=np.int64)
    status = np.full(n, Status.NOT_FOUND, dtype=np.uint8)
    for i, row in enumerate(rows):
        if row is None:
            status[i] = Status.ERROR
        elif row[0] is not None:
            try:
                event[i], status[i] = _timestamp(row[0]), Status.PRESENT
            except LayoutError:
                status[i] = Status.ERROR
    status = expire(status, event, spine.as_of, view.ttl_us)
    features = {
        f.name: _column(f.dtype, [row[1 + j] if row else None for row in rows], status)
        for j, f in enumerate(view.features)
    }
    none = np.full(n, NO_TIME, dtype=np.int64)
    return ViewRows(status, event, none, none, features)


def _column(dtype: Dtype, blobs: Sequence[bytes | None], row: npt.NDArray[np.uint8]) -> Column:
    """One feature of n rows. A value that is no value of `dtype` is an error of its own."""
    values: Array
    if dtype in _FIXED and all(blob is not None and len(blob) == _FIXED[dtype].itemsize for blob in blobs):
        fixed = np.frombuffer(b"".join(blob for blob in blobs if blob is not None), dtype=_FIXED[dtype])
        if (fixed["tag"] == _TAGS[dtype][0]).all():
            return Column.build(dtype, fixed["v"], row)
    status = np.zeros(len(blobs), dtype=np.uint8)
    values = np.full(len(blobs), dtype.filler, dtype=dtype.numpy)
    tag, read = _TAGS[dtype], _READ[dtype]
    for i, blob in enumerate(blobs):
        if blob is None:
            status[i] = Status.NOT_FOUND
        elif blob in (b"", _NULL):
            status[i] = Status.NULL
        else:
            try:
                values[i] = read(blob) if blob.startswith(tag) else _torn(blob)
            except (LayoutError, struct.error, UnicodeDecodeError, OverflowError, IndexError):
                status[i] = Status.ERROR
    return Column.build(dtype, values, np.maximum(status, row))


def _varint(blob: bytes, at: int) -> tuple[int, int]:
    """A signed 64-bit number and where it ends."""
    value = shift = 0
    while True:
        byte = blob[at]
        value |= (byte & 127) << shift
        at += 1
        shift += 7
        if byte < 128:
            break
    value &= (1 << 64) - 1
    return (value - (1 << 64) if value >> 63 else value), at


def _integer(blob: bytes) -> int:
    value, end = _varint(blob, 1)
    return value if end == len(blob) else _torn(blob)


def _text(blob: bytes) -> str:
    length, at = _varint(blob, 1)
    return blob[at:].decode() if at + length == len(blob) else str(_torn(blob))


def _torn(blob: bytes) -> int:
    raise LayoutError(f"{len(blob)} bytes are no value of this dtype")


def _instant(blob: bytes) -> np.datetime64:
    seconds = _integer(blob)
    return np.datetime64("NaT" if seconds == NO_TIME else seconds * _SECOND, "us")  # Feast writes NaT for a null


def _timestamp(blob: bytes) -> int:
    """A google.protobuf.Timestamp in microseconds, nanoseconds rounded down."""
    at, parts = 0, {8: 0, 16: 0}
    try:
        while at < len(blob):
            tag = blob[at]
            if tag not in parts:
                raise LayoutError(f"a timestamp with tag {tag}")
            parts[tag], at = _varint(blob, at + 1)
    except IndexError as error:
        raise LayoutError("a torn timestamp") from error
    return parts[8] * _SECOND + parts[16] // 1000


_READ: dict[Dtype, Callable[[bytes], Any]] = {
    Dtype.STRING: _text,
    Dtype.INT32: _integer,
    Dtype.INT64: _integer,
    Dtype.FLOAT64: lambda blob: struct.unpack("<xd", blob)[0],
    Dtype.FLOAT32: lambda blob: struct.unpack("<xf", blob)[0],
    Dtype.BOOL: lambda blob: bool(_integer(blob)),
    Dtype.TIMESTAMP: _instant,
}


def murmur3(data: bytes) -> int:
    """murmur3_32 with seed 0, as mmh3.hash(..., signed=False)."""
    mask, h = 0xFFFFFFFF, 0
    tail = len(data) % 4
    words = [
        *struct.unpack(f"<{len(data) // 4}I", data[: len(data) - tail]),
        int.from_bytes(data[-tail:] if tail else b"", "little"),
    ]
    for i, word in enumerate(words):
        k = word * 0xCC9E2D51 & mask
        k = (k << 15 | k >> 17) & mask
        h ^= k * 0x1B873593 & mask
        if i < len(data) // 4:
            h = (h << 13 | h >> 19) & mask
            h = (h * 5 + 0xE6546B64) & mask
    h ^= len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & mask
    h = (h ^ h >> 13) * 0xC2B2AE35 & mask
    return h ^ h >> 16
