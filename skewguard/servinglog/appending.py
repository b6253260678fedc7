"""The segment that is being written: frames go behind each other, and one that fails leaves no trace."""

from __future__ import annotations

import contextlib
import io
import os
import time
from pathlib import Path

import pyarrow as pa

from skewguard.servinglog import segment as seg

sync = getattr(os, "fdatasync", os.fsync)
"""Put a file's content on the disk; macOS has only the second."""


class OpenSegment:
    """The segment that is being written. `at` is (end in bytes, next sequence)."""

    __slots__ = ("at", "born", "fd", "file", "path", "seed")

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        # The file object gives back descriptor and lock if the log is dropped without close().
        self.file = io.FileIO(os.open(path, flags, 0o600), "r+b")
        self.fd = self.file.fileno()
        self.path = path
        self.born = time.monotonic()
        self.seed = b""
        # One tuple, replaced in one step: an exception from a signal handler must not part the two.
        self.at = (0, 0)

    def write(self, kind: int, rows: int, payload: pa.Buffer | bytes, payload_crc: int, durable: bool) -> bytes:
        """Put one frame behind the last. On OSError the segment is as it was before."""
        end, sequence = self.at
        size = len(payload)
        start = seg.head(kind, sequence, rows, size, payload_crc, self.seed)
        try:
            if os.pwritev(self.fd, [start, payload], end) != seg.HEAD_BYTES + size:
                self._write_all(start + bytes(payload), end)
            if durable:
                sync(self.fd)
        except OSError:
            # Should even this fail: readers stop at the torn frame, and the next append overwrites it.
            with contextlib.suppress(OSError):
                os.ftruncate(self.fd, end)
            raise
        self.at = (end + seg.HEAD_BYTES + size, sequence + 1)
        return start

    def _write_all(self, frame: bytes, end: int) -> None:
        """Again from the start, in pieces: the kernel took a part only, and the next piece says why."""
        done = 0
        while done < len(frame):
            done += os.pwrite(self.fd, frame[done:], end + done)

    def probe(self, size: int) -> None:
        """Write and take back `size` zeros behind the end. Raises OSError if there is no room for them."""
        end, _ = self.at
        try:
            self._write_all(bytes(size), end)
        finally:
            os.ftruncate(self.fd, end)
