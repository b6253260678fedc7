"""The bytes of a segment: frames, and the header frame that explains them.

A segment is a sequence of frames, the first of kind HEADER, all others of kind DATA. A frame is 32 bytes of
head and then its payload, whose length is a multiple of 8, so that an Arrow buffer inside it stays aligned:

    offset  bytes  what
    0       4      magic 9e 53 4b 57
    4       1      format: 2; it names the checksum too (1, of old, has CRC-32 as in zlib, and is read)
    5       1      kind: 1 header, 2 data, 3 data compressed, 6 and 7 the same with a stretch left out, 15 as 7 in parts
    6       2      reserved, 0
    8       8      length of the payload in bytes
    16      4      rows in the payload (0 in a header)
    20      8      sequence: 0 for the header, then 1, 2, 3, ... without a gap
    28      4      CRC-32C of payload + the 28 bytes above + (data frames) the header frame's CRC

Integers are little-endian and unsigned. The header's CRC in every data frame's CRC ties the frame to its
segment: bytes of another segment that a file system left in a block never pass for rows of this one.

A header's payload is JSON padded with blanks; a data frame's payload is one Arrow IPC record-batch message, to be
read with the header's schema. Compressed, it is the length of that message, the length of the block (8 bytes each),
and the message as an LZ4 block, padded with zeros. A stretch of the message that repeats another is left out, and 40
bytes before the rest say which (see `turned`). In parts, what stands before the matrix that it repeats and what stands
behind it are compressed each, the four sizes first, and the matrix, which hardly compresses, follows as it is. A reader
goes on until a frame is not whole: what stands before it is the segment.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import pyarrow as pa
from google_crc32c import extend

from skewguard.errors import LogError
from skewguard.servinglog.turned import Turned

if sys.platform != "win32":
    import fcntl

FORMAT = 2
HEADER, DATA, COMPRESSED, TURNED, PARTED = 1, 2, 3, 4, 8
KINDS = (DATA, COMPRESSED, DATA | TURNED, COMPRESSED | TURNED, COMPRESSED | TURNED | PARTED)
HEAD_BYTES = 32
OPEN, SEALED, NEW = ".open", ".seg", ".new"
RESERVED = frozenset({"format", "service", "boot_id", "segment", "pid", "started_at", "schema"})
"""Names in a segment's header that belong to the log itself."""

_MAGIC = b"\x9eSKW"
_HEAD = struct.Struct("<4sBBHQIQ")
_CRC = struct.Struct("<I")
_SIZES = struct.Struct("<QQ")
_LZ4 = pa.Codec("lz4_raw")
_WORTH_BYTES = 1024
_LARGE_BYTES, _SAMPLE_BYTES = 8192, 2048
_STEM = re.compile(r"(?P<boot>[0-9A-Za-z_]+)-(?P<number>[0-9]+)")


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame: `payload` holds `rows` rows; `crc` is the four bytes as they lie in the file."""

    kind: int
    sequence: int
    rows: int
    payload: bytes
    crc: bytes

    def message(self) -> pa.Buffer:
        """The record-batch message. Raises `pa.ArrowException` for what cannot be decompressed."""
        if not self.kind & TURNED:
            return self._rest(memoryview(self.payload))
        turned, payload = Turned.unpack(self.payload), memoryview(self.payload)[Turned.SIZE :]
        rest = _joined(payload, turned) if self.kind & PARTED else self._rest(payload)
        return pa.py_buffer(turned.restore(memoryview(rest)))

    def _rest(self, payload: memoryview) -> pa.Buffer:
        if self.kind & ~TURNED != COMPRESSED:
            return pa.py_buffer(payload)
        size, length = _SIZES.unpack_from(payload)
        return _LZ4.decompress(payload[_SIZES.size : _SIZES.size + length], size)


def smaller(message: pa.Buffer | bytes, turned: Turned | None = None) -> tuple[int, bytes | pa.Buffer]:
    """(kind, payload) of a data frame: the message compressed where that is worth its time, else as it is.

    `turned`: what has been left out of it.

    Most of a small batch is Arrow's description of its columns, which repeats itself.
    """
    first, more = (b"", 0) if turned is None else (turned.pack(), TURNED)
    size = len(message)
    if size < _WORTH_BYTES:
        return DATA | more, b"".join((first, message)) if first else message
    if turned is not None and (parts := _parted(memoryview(message), turned)) is not None:
        return COMPRESSED | TURNED | PARTED, parts
    block = _LZ4.compress(message, asbytes=True)
    payload = b"".join((first, _SIZES.pack(size, len(block)), block, bytes(-len(block) % 8)))
    if len(payload) < 0.9 * size:
        return COMPRESSED | more, payload
    return DATA | more, b"".join((first, message)) if first else message


def _parted(message: memoryview, turned: Turned) -> bytes | None:
    """The payload with the matrix as it is; None where that is small or a sample of it compresses.

    Numbers that differ cost LZ4 ten times as long as all the rest, and give back a fourteenth.
    """
    start, stop = turned.extent
    if stop - start < _LARGE_BYTES:
        return None
    middle = (start + stop) // 2
    sample = b"".join([message[at : at + _SAMPLE_BYTES] for at in (start, middle)])
    if len(_LZ4.compress(sample, asbytes=True)) < 0.8 * len(sample):
        return None
    before, behind = message[:start], message[stop:]
    one, other = _LZ4.compress(before, asbytes=True), _LZ4.compress(behind, asbytes=True)
    sizes = _SIZES.pack(len(before), len(one)) + _SIZES.pack(len(behind), len(other))
    padding = bytes(-(len(one) + len(other) + stop - start) % 8)
    return b"".join((turned.pack(), sizes, one, other, message[start:stop], padding))


def _joined(payload: memoryview, turned: Turned) -> bytes:
    """The message that `_parted` took apart."""
    (size, length), (more, other) = _SIZES.unpack_from(payload), _SIZES.unpack_from(payload, _SIZES.size)
    at, (start, stop) = 2 * _SIZES.size, turned.extent
    middle = at + length
    matrix = payload[middle + other : middle + other + stop - start]
    before = _LZ4.decompress(payload[at:middle], size)
    return b"".join((before, matrix, _LZ4.decompress(payload[middle : middle + other], more)))


def checksum(payload: bytes | pa.Buffer) -> int:
    """The CRC-32C of a payload."""
    return int(extend(0, payload))


def head(kind: int, sequence: int, rows: int, size: int, payload_crc: int, seed: bytes) -> bytes:
    """The 32 bytes before a payload of `size` bytes whose own `checksum` is `payload_crc`.

    The payload comes first in the checksum although it lies last, so that a writer computes the long part
    before it takes its lock and knows the sequence. `seed` is the header frame's CRC, empty for the header
    itself.
    """
    start = _HEAD.pack(_MAGIC, FORMAT, kind, 0, size, rows, sequence)
    return start + _CRC.pack(extend(payload_crc, start + seed))


_SUMS: Mapping[int, Callable[[bytes, int], int]] = {1: zlib.crc32, FORMAT: lambda data, crc: extend(crc, data)}
"""The checksum of every format that can be read."""


def read_frame(file: BinaryIO, room: int, seed: bytes) -> Frame | None:
    """The frame at the file's position, None if what stands in the next `room` bytes is not a whole one."""
    start = file.read(HEAD_BYTES) if room >= HEAD_BYTES else b""
    if len(start) < HEAD_BYTES:
        return None
    magic, form, kind, _, size, rows, sequence = _HEAD.unpack_from(start)
    # A torn length may be any number: it is held against the file before anything of that size is read.
    if magic != _MAGIC or form not in _SUMS or size > room - HEAD_BYTES:
        return None
    payload = file.read(size)
    crc = start[_HEAD.size :]
    sums = _SUMS[form]
    if len(payload) != size or sums(start[: _HEAD.size] + seed, sums(payload, 0)) != _CRC.unpack(crc)[0]:
        return None
    return Frame(kind, sequence, rows, payload, crc)


def foreign_format(file: BinaryIO) -> int | None:
    """The format byte at the file's position if a frame of an unknown format begins there, else None."""
    start = file.read(HEAD_BYTES)
    return start[4] if len(start) > 4 and start[:4] == _MAGIC and start[4] not in _SUMS else None


def data_frames(file: BinaryIO, room: int, seed: bytes) -> Iterator[Frame]:
    """The whole data frames from the file's position on, up to the first that is torn, within `room` bytes.

    Raises `LogError` for a whole frame of a kind that this version does not know: skipping would be a guess.
    """
    sequence = 1
    while (frame := read_frame(file, room, seed)) is not None and frame.sequence == sequence:
        if frame.kind not in KINDS:
            raise LogError(
                f"{file.name}: expected frame {sequence} to hold rows (kind {', '.join(map(str, KINDS))}), "
                f"got kind {frame.kind}. "
                "A later version of skewguard wrote it; read it with that version."
            )
        yield frame
        room -= HEAD_BYTES + len(frame.payload)
        sequence += 1


def holds_whole_frame(rest: bytes, seed: bytes) -> bool:
    """Whether a whole data frame of the segment stands anywhere behind its valid prefix, in `rest`."""
    file = io.BytesIO(rest)
    at = rest.find(_MAGIC)
    while at >= 0:
        file.seek(at)
        if read_frame(file, len(rest) - at, seed) is not None:
            return True
        at = rest.find(_MAGIC, at + 1)
    return False


def header_payload(own: Mapping[str, str], header: Mapping[str, str], schema: pa.Schema) -> bytes:
    """The header frame's payload.

    Raises `LogError` for a header that is not text to text or takes a name that belongs to the log.
    """
    wrong = [f"{key!r}: {value!r}" for key, value in header.items() if type(key) is not str or type(value) is not str]
    if wrong:
        raise LogError(f"the log's header: expected text under text, got {', '.join(wrong)}. Turn the values into str.")
    taken = sorted(key for key in RESERVED & header.keys() if own.get(key) != header[key])
    if taken:
        raise LogError(f"the log's header: the names {', '.join(taken)} belong to the log itself. Choose others.")
    encoded = base64.b64encode(schema.serialize().to_pybytes()).decode()
    text = json.dumps({"own": dict(own), "header": dict(header), "schema": encoded}).encode()
    return text + b" " * (-len(text) % 8)


def parse_header(payload: bytes) -> tuple[Mapping[str, str], pa.Schema]:
    """The header (the log's own fields and the caller's in one mapping) and the schema of the data frames."""
    content = json.loads(payload)
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(content["schema"])))
    return MappingProxyType({**content["header"], **content["own"]}), schema


def stem(boot_id: str, number: int) -> str:
    """A segment's file name without its suffix."""
    return f"{boot_id}-{number:06d}"


def parse_stem(name: str) -> tuple[str, int] | None:
    """(boot id, number) of a segment's stem, None for the name of something else."""
    match = _STEM.fullmatch(name)
    return (match["boot"], int(match["number"])) if match else None


def service_folder(root: str | Path, service: str) -> Path:
    """Where the segments of `service` lie. Raises `LogError` for a name that would leave `root`."""
    if not service or service.startswith(".") or any(c in service for c in "/\\\0"):
        raise LogError(f"expected a service's name to be a folder's name, got {service!r}. Rename the service.")
    return Path(root) / service


def first_difference(expected: pa.Schema, got: pa.Schema) -> str:
    """What differs first, field by field: `delay: double, not string`; metadata does not count."""
    for position, (want, have) in enumerate(zip_longest(expected, got)):
        if have is None:
            return f"field {position}: expected {want.name} ({want.type}), got no further field"
        if want is None:
            return f"field {position}: expected no further field, got {have.name} ({have.type})"
        if want.name != have.name:
            return f"field {position}: expected {want.name} ({want.type}), got {have.name} ({have.type})"
        if not want.equals(have):
            return f"{want.name}: expected {_type(want)}, got {_type(have)}"
    return "nothing"


def _type(field: pa.Field) -> str:
    return f"{field.type}" if field.nullable else f"{field.type} not null"


def lock(fd: int, *, shared: bool = False) -> None:
    """Take the segment's flock, which the kernel drops with the process, also after kill -9.

    Raises BlockingIOError if somebody holds it, another OSError where the file system has no locks. A shared
    attempt is what a reader may make: it never keeps a writer from anything.
    """
    if sys.platform == "win32":
        raise OSError("no flock on this platform")
    fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def unlock(fd: int) -> None:
    """Give back what `lock` took."""
    if sys.platform != "win32":
        fcntl.flock(fd, fcntl.LOCK_UN)


def is_file(path: Path, fd: int) -> bool:
    """Whether `path` still names the open file `fd`, and not nothing or another file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def sync_folder(folder: Path) -> None:
    """Put the folder's names on the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
