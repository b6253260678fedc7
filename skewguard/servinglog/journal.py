"""Batches into segments: many threads, one file at a time, and a promise about the disk."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from skewguard.errors import LogError
from skewguard.servinglog import segment as seg
from skewguard.servinglog.appending import OpenSegment, Waiting
from skewguard.servinglog.message import Rows, unframed
from skewguard.servinglog.rolling import Rolling
from skewguard.servinglog.stats import SyncTimes, Written, sealed_in

_PROBE_BYTES = 4096


class Journal:
    """What `ServingLog` promises of rows that are in the form in which they are written.

    `durable`: an append waits for an fdatasync, one for all that are under way. Raises `LogError`, caused by an
    `OSError` where the file system refused; then none of the rows is in a segment.
    """

    def __init__(self, rolling: Rolling, header: Mapping[str, str], schema: pa.Schema, *, durable: bool) -> None:
        self.sync_times = SyncTimes()
        self.closed: str | None = None
        self._rolling, self._header, self._schema, self._durable = rolling, header, schema, durable
        # Who puts frames on the disk, or closes a file, holds the first; who writes a frame, the second. Who needs
        # both takes them in this order.
        self._syncing, self._writing = threading.Lock(), threading.Lock()
        self._probe_bytes = _PROBE_BYTES
        rolling.follow(rolling.begin(header, schema))

    @property
    def path(self) -> Path | None:
        """The open segment's file."""
        segment = self._rolling.open
        return segment.path if segment else None

    def append(self, batch: Rows) -> None:
        """Write the rows of `batch` as one frame."""
        # What takes long needs no lock: serialization, compression and checksum of the payload.
        kind, payload = seg.smaller(*unframed(batch))
        payload_crc = seg.checksum(payload)
        if self._durable:
            self._append_kept(batch, kind, payload, payload_crc)
            return
        with self._writing:
            self._put(batch, kind, payload, payload_crc)

    def _append_kept(self, batch: Rows, kind: int, payload: pa.Buffer | bytes, payload_crc: int) -> None:
        """The same, and wait until it is on the disk: who comes first syncs for all, the others find theirs done."""
        segment = None
        with self._writing:
            if not self._rolling.over(seg.HEAD_BYTES + len(payload)):
                segment, frame = self._put_waiting(batch, kind, payload, payload_crc)
        if segment is None:  # a file is going to be closed
            with self._syncing, self._writing:
                segment, frame = self._put_waiting(batch, kind, payload, payload_crc)
        with self._syncing:
            if not frame.done and frame.error is None:
                with self.sync_times.measured():
                    segment.sync(self._writing)
        if frame.error is not None:
            raise _unwritten(segment, batch.num_rows, frame.error) from frame.error

    def _put_waiting(
        self, batch: Rows, kind: int, payload: pa.Buffer | bytes, payload_crc: int
    ) -> tuple[OpenSegment, Waiting]:
        segment = self._put(batch, kind, payload, payload_crc)
        return segment, segment.wait()

    def _put(self, batch: Rows, kind: int, payload: pa.Buffer | bytes, payload_crc: int) -> OpenSegment:
        """Write a frame into the segment that takes it."""
        self._refuse_closed()
        if not batch.schema.equals(self._schema):  # rotated meanwhile
            raise LogError(
                f"serving log {self._rolling.folder}: a batch does not have the log's schema: "
                f"{seg.first_difference(self._schema, batch.schema)}. It was built before the log was rotated."
            )
        segment = self._due(seg.HEAD_BYTES + len(payload))
        try:
            segment.write(kind, batch.num_rows, payload, payload_crc)
        except OSError as error:
            self._probe_bytes = seg.HEAD_BYTES + len(payload)
            raise _unwritten(segment, batch.num_rows, error) from error
        return segment

    def rotate(self, header: Mapping[str, str], schema: pa.Schema) -> None:
        """Seal the open segment and begin the next; where it cannot be begun nothing has changed."""
        with self._syncing, self._writing:
            self._refuse_closed()
            self._rolling.follow(self._rolling.begin(header, schema))
            self._header, self._schema = header, schema

    def seal(self) -> None:
        """Seal the open segment; the next append begins another."""
        with self._syncing, self._writing:
            self._refuse_closed()
            self._rolling.finish()

    def close(self, why: str) -> None:
        """Seal the open segment and refuse every later append with `why`."""
        with self._syncing, self._writing:
            if self.closed is None:
                self.closed = why
                self._rolling.finish()

    def check(self) -> None:
        """Raise `LogError` if an append would fail: write, and take back, as many bytes as the one that failed last."""
        with self._syncing, self._writing:
            self._refuse_closed()
            segment = self._due(0)
            try:
                lost = not seg.is_file(segment.path, segment.fd)
                if not lost:
                    segment.probe(self._probe_bytes)
            except OSError as error:
                raise LogError(f"serving log {segment.path} cannot be written: {error}.") from error
            self._probe_bytes = _PROBE_BYTES
            if lost:
                self._rolling.give_up()
                raise LogError(
                    f"serving log {segment.path}: the file was deleted or moved while it was written, "
                    "and every row with it. Rows from now on go into a new segment."
                )

    def written(self) -> Written:
        """What has been written so far."""
        with self._writing:
            segment, before = self._rolling.open, self._rolling.before
            end, sequence, rows = segment.at if segment else (0, 1, 0)
            return Written(
                frames=before.frames + sequence - 1,
                rows=before.rows + rows,
                bytes=before.bytes + end,
                sealed_segments=before.segments,
                backlog_segments=sealed_in(self._rolling.folder),
                unsynced_bytes=end - segment.kept[0] if segment else 0,
                waiting=len(segment.waiting) if segment else 0,
                syncs=self.sync_times.count,
                sync_seconds=self.sync_times.seconds,
            )

    def disown(self, why: str) -> None:
        """In a forked child: let go of the parent's segment, which two writers would destroy.

        Closing the child's copy of the descriptor leaves the parent's lock alone.
        """
        # The old ones may be held by threads that this process does not have.
        self._syncing, self._writing = threading.Lock(), threading.Lock()
        self.closed = why
        self._rolling.give_up()

    def _refuse_closed(self) -> None:
        if self.closed is not None:
            raise LogError(self.closed)

    def _due(self, more: int) -> OpenSegment:
        """The segment that takes the next `more` bytes: the open one, unless it is full or old."""
        segment = self._rolling.open
        if segment is None or (more and self._rolling.over(more)):
            segment = self._rolling.begin(self._header, self._schema)
            self._rolling.follow(segment)
        return segment


def _unwritten(segment: OpenSegment, rows: int, error: OSError) -> LogError:
    return LogError(
        f"serving log {segment.path}: {rows} rows could not be written: {error}. None of them is in the log. "
        "Make room or repair the disk; the next append tries again."
    )
