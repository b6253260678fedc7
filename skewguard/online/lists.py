"""Lists in a packed row: skewguard computes nothing on them, and hands them on element by element as they came.

`list<dtype>`: the elements, little-endian, of their dtype's size; of strings the number of elements, their lengths
(uint32) and then their bytes. No element is null.
"""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa

from skewguard.errors import CastError, LayoutError
from skewguard.online.layout import STORED, Blobs, Carried
from skewguard.values import Array, Dtype, cast


def list_of(dtype: Dtype) -> Carried:
    """The type of a list whose elements are of `dtype`."""
    return Carried(f"list<{dtype}>")


def element_of(kind: Carried) -> Dtype | None:
    """The dtype of the elements, None where `kind` is no list."""
    return Dtype(kind[5:-1]) if kind.startswith("list<") else None


def pack_lists(column: pa.Array | pa.ChunkedArray, dtype: Dtype, where: str) -> Blobs:
    """A column of lists; raises `CastError` for a null element, and one that does not fit `dtype`."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # a chunked array without chunks stays chunked
        return Blobs(list_of(dtype), [])
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_null(array.type)):
        raise CastError(f"{where}: expected a list of {dtype}, got {array.type}")
    if pa.types.is_null(array.type):
        return Blobs(list_of(dtype), [None] * len(array))
    gone = array.is_null().to_pylist()
    flat = array.flatten()
    if flat.null_count:
        raise CastError(
            f"{where}: a list has a null element; Feast cannot give it out online. Leave it out or fill it."
        )
    values = cast(flat, dtype, where)
    if values.null_count:
        raise CastError(f"{where}: a list has a NaN element, which is null here; leave it out or fill it.")
    lengths = array.value_lengths().fill_null(0).to_pylist()
    blobs: list[bytes | None] = []
    if dtype is Dtype.STRING:
        texts = [text.encode() for text in values.to_pylist()]
    else:
        raw = _fixed(values, dtype).tobytes()
    size = np.dtype(STORED[dtype]).itemsize
    at = 0
    for length, null in zip(lengths, gone, strict=True):
        if null:
            blobs.append(None)
        elif dtype is Dtype.STRING:
            blobs.append(pack_texts(texts[at : at + length]))
        else:
            blobs.append(raw[at * size : (at + length) * size])
        at += length
    return Blobs(list_of(dtype), blobs)


def _fixed(values: pa.Array, dtype: Dtype) -> Array:
    if dtype is Dtype.TIMESTAMP:
        values = values.cast(pa.int64())
    return np.asarray(values.to_numpy(zero_copy_only=False)).astype(STORED[dtype])


def pack_texts(texts: list[bytes]) -> bytes:
    """A list of strings."""
    return struct.pack(f"<{1 + len(texts)}I", len(texts), *map(len, texts)) + b"".join(texts)


def unpack_list(blob: bytes, dtype: Dtype) -> Array | list[str]:
    """The elements: strings, or numbers as stored (instants in microseconds); raises `LayoutError`."""
    try:
        if dtype is not Dtype.STRING:
            return np.frombuffer(blob, dtype=STORED[dtype])
        (n,) = struct.unpack_from("<I", blob)
        lengths = struct.unpack_from(f"<{n}I", blob, 4)
        texts, at = [], 4 + 4 * n
        for length in lengths:
            texts.append(blob[at : at + length].decode())
            at += length
    except (ValueError, struct.error) as error:
        raise LayoutError(f"packed list of {dtype}: {error}") from error
    if at != len(blob):
        raise LayoutError(f"packed list of {dtype}: expected {at} bytes, got {len(blob)}")
    return texts
