"""The segment that is being written: frames go behind each other, and one that fails leaves no trace."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from pathlib import Path

import pyarrow as pa

from skewguard.servinglog import segment as seg

sync = getattr(os, "fdatasync", os.fsync)
"""Put a file's content on the disk; macOS has only the second."""


class Waiting:
    """A frame that is written and not yet on the disk; `done`, or `error`, once that is decided."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = False
        self.error: OSError | None = None


class OpenSegment:
    """The segment that is being written. `at` is (end in bytes, next sequence, rows), `kept` what of it was synced."""

    __slots__ = ("at", "born", "fd", "file", "kept", "path", "seed", "waiting")

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        # The file object gives back descriptor and lock if the log is dropped without close().
        self.file = io.FileIO(os.open(path, flags, 0o600), "r+b")
        self.fd = self.file.fileno()
        self.path = path
        self.born = time.monotonic()
        self.seed = b""
        # One tuple, replaced in one step: an exception from a signal handler must not part the three.
        self.at = self.kept = (0, 0, 0)
        self.waiting: list[Waiting] = []

    def write(self, kind: int, rows: int, payload: pa.Buffer | bytes, payload_crc: int) -> bytes:
        """Put one frame behind the last. On OSError the segment is as it was before."""
        end, sequence, before = self.at
        size = len(payload)
        start = seg.head(kind, sequence, rows, size, payload_crc, self.seed)
        try:
            if os.pwritev(self.fd, [start, payload], end) != seg.HEAD_BYTES + size:
                self._write_all(start + bytes(payload), end)
        except OSError:
            self._cut(end)
            raise
        self.at = (end + seg.HEAD_BYTES + size, sequence + 1, before + rows)
        return start

    def _write_all(self, frame: bytes, end: int) -> None:
        """Again from the start, in pieces: the kernel took a part only, and the next piece says why."""
        done = 0
        while done < len(frame):
            done += os.pwrite(self.fd, frame[done:], end + done)

    def _cut(self, end: int) -> None:
        # Should even this fail: readers stop at the torn frame, and the next append overwrites it.
        with contextlib.suppress(OSError):
            os.ftruncate(self.fd, end)

    def wait(self) -> Waiting:
        """The frame that was written last waits for the disk."""
        own = Waiting()
        self.waiting.append(own)
        return own

    def sync(self, lock: threading.Lock) -> None:
        """Put what is written on the disk, for all that wait for it; while it runs `lock` is free for further frames.

        On OSError everything behind the last that was kept is taken back, and whoever waits is told.
        """
        with lock:
            at, those = self.at, list(self.waiting)
        try:
            sync(self.fd)
        except OSError as error:
            with lock:
                self._take_back(error)
            return
        with lock:
            self.kept = at
            for one in those:
                one.done = True
            del self.waiting[: len(those)]

    def close(self) -> None:
        """Close the file. Who still waits for it is told that nothing was promised."""
        self.file.close()
        self._fail(OSError("the segment was closed before it was synced"))

    def _take_back(self, error: OSError) -> None:
        self.at = self.kept
        self._cut(self.at[0])
        self._fail(error)

    def _fail(self, error: OSError) -> None:
        for one in self.waiting:
            one.error = error
        self.waiting.clear()

    def probe(self, size: int) -> None:
        """Write and take back `size` zeros behind the end. Raises OSError if there is no room for them."""
        end = self.at[0]
        try:
            self._write_all(bytes(size), end)
        finally:
            os.ftruncate(self.fd, end)
