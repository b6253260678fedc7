"""The keys in the online store: of rows, watermarks, layouts, and of the layout in which a view is written.

A row's key is its project, its view, and the key values in braces, everything length-prefixed so that no two rows share
one. What stands in braces is all that a Redis Cluster hashes: the rows of one entity lie in one slot, whichever view
they are of, and are read by one MGET. The view is named as in Feast: one that a service renames is stored once.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from skewguard.definitions import View
from skewguard.errors import LayoutError
from skewguard.values import NO_TIME, Array, Column, Dtype

_SCHEME = b"sg2"
_ROW, _WATERMARK, _LAYOUT, _WRITTEN = b"r", b"w", b"l", b"v"
_FEW = 16
_NUMBERS = (Dtype.INT64, Dtype.INT32, Dtype.TIMESTAMP, Dtype.BOOL)


def row_key(project: str, view: View, values: Sequence[Any]) -> bytes:
    """The store's key of one row; `values` in the order of the view's keys, instants in microseconds."""
    parts = []
    for key, value in zip(view.keys, values, strict=True):
        if key.dtype is Dtype.STRING:
            text = value.encode()
            parts.append(b"s" + struct.pack(">I", len(text)) + text)
        else:
            _numeric(view, key.dtype)
            parts.append(b"i" + struct.pack(">q", int(value)))
    return view_prefix(project, view.feast_name) + b"{" + b"".join(parts) + b"}"


def row_keys(project: str, view: View, columns: Sequence[Column]) -> list[bytes | None]:
    """The keys of n rows, None where a key value is missing."""
    if not columns:
        raise LayoutError(f"view {view.name}: needs the number of rows")
    prefix = view_prefix(project, view.feast_name)
    whole = not any(column.status.any() for column in columns)
    if whole and len(columns) == 1 and columns[0].dtype is not Dtype.STRING:
        return list(_keys_of_numbers(prefix + b"{i", view, columns[0]))
    encoded = [_encoded(view, column) for column in columns]
    if len(encoded) == 1:
        keys = [b"%b{%b}" % (prefix, part) for part in encoded[0]]
    else:
        keys = [b"%b{%b}" % (prefix, b"".join(parts)) for parts in zip(*encoded, strict=True)]
    if whole:
        return list(keys)
    present = np.logical_and.reduce([column.present for column in columns])
    return [key if ok else None for key, ok in zip(keys, present.tolist(), strict=True)]


def _keys_of_numbers(start: bytes, view: View, column: Column) -> list[bytes]:
    """The keys of rows with one numeric key value each, all there, written side by side."""
    values = _numbers(view, column)
    if len(values) <= _FEW:
        return [b"%b%b}" % (start, value.to_bytes(8, "big", signed=True)) for value in map(int, values.tolist())]
    keys = np.empty(len(values), dtype=[("start", f"V{len(start)}"), ("value", ">i8"), ("end", "V1")])
    keys["start"], keys["value"], keys["end"] = np.void(start), values, np.void(b"}")
    size, raw = keys.dtype.itemsize, keys.tobytes()
    return [raw[at : at + size] for at in range(0, len(raw), size)]


def values_of(project: str, view: View, key: bytes) -> tuple[str | int, ...]:
    """The values that `row_key` made a key of, instants in microseconds; raises `LayoutError` for another key."""
    at = len(view_prefix(project, view.feast_name)) + 1
    values: list[str | int] = []
    try:
        for _ in view.keys:
            if key[at : at + 1] == b"s":
                (size,) = struct.unpack_from(">I", key, at + 1)
                values.append(key[at + 5 : at + 5 + size].decode())
                at += 5 + size
            else:
                values.append(int(struct.unpack_from(">q", key, at + 1)[0]))
                at += 9
    except (ValueError, struct.error) as error:
        raise LayoutError(f"view {view.name}: expected the key of a row, got {key[:80]!r} ({error})") from error
    if key[at:] != b"}":
        raise LayoutError(f"view {view.name}: expected the key of a row, got {key[:80]!r}")
    return tuple(values)


def _encoded(view: View, column: Column) -> list[bytes]:
    """The parts of n keys that one column gives, as `row_key` writes them."""
    if column.dtype is Dtype.STRING:
        texts = [text.encode() for text in column.values.tolist()]
        return [b"s" + struct.pack(">I", len(text)) + text for text in texts]
    raw = _numbers(view, column).astype(">i8").tobytes()
    return [b"i" + raw[at : at + 8] for at in range(0, len(raw), 8)]


def _numbers(view: View, column: Column) -> Array:
    _numeric(view, column.dtype)
    return column.values.view("int64") if column.dtype is Dtype.TIMESTAMP else column.values


def _numeric(view: View, dtype: Dtype) -> None:
    if dtype not in _NUMBERS:
        raise LayoutError(f"view {view.name}: a key of dtype {dtype} cannot be looked up; use string or int64")


@lru_cache(1024)
def view_prefix(project: str, view: str) -> bytes:
    """What the key of every row of a view begins with."""
    return _prefix(_ROW, project, view)


def watermark_key(project: str, view: str) -> bytes:
    """Where the known time up to which a view has been written stands: 8 bytes, int64 big-endian microseconds."""
    return _prefix(_WATERMARK, project, view)


def is_watermark(key: bytes) -> bool:
    """Whether a watermark stands under `key`."""
    return key.startswith(_SCHEME + _WATERMARK)


def watermark_of(value: bytes | None) -> int:
    """The known time that stands there, `NO_TIME` where nothing does that can be read."""
    return int(struct.unpack(">q", value)[0]) if value and len(value) == 8 else NO_TIME


def watermark(known_by: int) -> bytes:
    """What `watermark_of` reads."""
    return struct.pack(">q", known_by)


def layout_key(project: str, digest: bytes) -> bytes:
    """Where a layout stands."""
    return _prefix(_LAYOUT, project, digest.hex())


def written_key(project: str, view: str) -> bytes:
    """Where the digest of the layout stands in which all of a view's rows have been written."""
    return _prefix(_WRITTEN, project, view)


def prefixes(project: str) -> tuple[bytes, ...]:
    """What every key of a project begins with, one prefix per kind of key."""
    return tuple(_SCHEME + kind + _part(project) for kind in (_ROW, _WATERMARK, _LAYOUT, _WRITTEN))


def _prefix(kind: bytes, project: str, name: str) -> bytes:
    return _SCHEME + kind + _part(project) + _part(name)


def _part(text: str) -> bytes:
    """Length-prefixed: no name is the beginning of another one, whatever signs it holds."""
    encoded = text.encode()
    return b":%d:%b" % (len(encoded), encoded)
