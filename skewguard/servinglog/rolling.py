"""The segments of one process, one after another: begun under another name, sealed when they are full or old."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import pyarrow as pa

from skewguard.errors import LogError
from skewguard.servinglog import segment as seg
from skewguard.servinglog.appending import OpenSegment
from skewguard.values import instant


@dataclass(frozen=True, slots=True)
class Before:
    """Bytes, frames and rows of segments that are no longer written, and how many were sealed."""

    bytes: int = 0
    frames: int = 0
    rows: int = 0
    segments: int = 0


class Rolling:
    """At most one segment is open; `before` counts what went into those before it. Nothing here locks."""

    def __init__(
        self, folder: Path, service: str, boot_id: str, segment_bytes: int, segment_seconds: float, *, durable: bool
    ) -> None:
        self.folder, self.boot_id = folder, boot_id
        self.open: OpenSegment | None = None
        self.before = Before()
        self._service = service
        self._bytes, self._seconds, self._durable = segment_bytes, segment_seconds, durable
        self._number = 0

    def over(self, more: int) -> bool:
        """Whether another segment has to take the next `more` bytes: none is open, or it is full or old."""
        segment = self.open
        if segment is None:
            return True
        end, sequence, _ = segment.at
        # Without rows it is not replaced: a batch larger than a segment must go somewhere.
        return sequence > 1 and (end + more > self._bytes or time.monotonic() - segment.born > self._seconds)

    def begin(self, header: Mapping[str, str], schema: pa.Schema) -> OpenSegment:
        """A new segment with its header frame; `follow` makes it the open one.

        It is called `.open` only when it is locked and has its header: an open segment without an owner is
        always one whose owner died, and never one whose owner is about to lock it.
        """
        name = seg.stem(self.boot_id, self._number)
        own = {
            "format": str(seg.FORMAT),
            "service": self._service,
            "boot_id": self.boot_id,
            "segment": str(self._number),
            "pid": str(os.getpid()),
            "started_at": instant(time.time_ns() // 1000),
        }
        payload = seg.header_payload(own, header, schema)
        path = self.folder / f"{name}{seg.OPEN}"
        segment = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            segment = OpenSegment(path.with_suffix(seg.NEW))
            seg.lock(segment.fd)
            segment.seed = segment.write(seg.HEADER, 0, payload, seg.checksum(payload))[-4:]
            if self._durable:
                self._keep(segment)
            segment.path.rename(path)
            segment.path = path
            if self._durable:
                seg.sync_folder(self.folder)
        except OSError as error:
            if segment is not None:
                segment.close()
                with contextlib.suppress(OSError):
                    segment.path.unlink(missing_ok=True)
            raise LogError(
                f"serving log {path}: a new segment could not be begun: {error}. "
                "The folder must be writable, have room, and lie on a file system with locks (flock)."
            ) from error
        self._number += 1
        return segment

    def follow(self, begun: OpenSegment) -> None:
        """Seal the open segment, if any, and go on in `begun`.

        A segment that cannot be renamed keeps its rows and is sealed by `recover`: no reason to refuse the
        row that is waiting and that the new one can take.
        """
        with contextlib.suppress(LogError):
            self.finish()
        self.open = begun

    def finish(self) -> None:
        """Seal the open segment, if any. Raises `LogError` where its file cannot be renamed or synced."""
        segment, self.open = self.open, None
        if segment is None:
            return
        try:
            if self._durable:
                self._keep(segment)
            os.ftruncate(segment.fd, segment.at[0])
            segment.path.rename(segment.path.with_suffix(seg.SEALED))
            if self._durable:
                seg.sync_folder(self.folder)
        except OSError as error:
            raise LogError(
                f"serving log {segment.path} could not be sealed: {error}. "
                "Its rows are readable, and recover() seals it."
            ) from error
        finally:
            segment.close()
            self._count(segment, 1)

    def give_up(self) -> None:
        """Let go of the open segment: somebody took its file away, or it is another process's."""
        segment, self.open = self.open, None
        if segment is not None:
            segment.close()
            self._count(segment, 0)

    def _count(self, segment: OpenSegment, sealed: int) -> None:
        old = self.before
        end, sequence, rows = segment.at
        self.before = Before(old.bytes + end, old.frames + sequence - 1, old.rows + rows, old.segments + sealed)

    def _keep(self, segment: OpenSegment) -> None:
        """Put a segment on the disk while nobody writes it; raises `OSError`, and what waited was told."""
        end = segment.wait()
        segment.sync(Lock())
        if end.error is not None:
            raise end.error
