"""The writer: rows are in the log before `append` returns, or `LogError` says that they are not."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import os
import secrets
import socket
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa

from skewguard.errors import LogError
from skewguard.servinglog import appending
from skewguard.servinglog import segment as seg
from skewguard.servinglog.appending import OpenSegment
from skewguard.servinglog.gaps import GapFile
from skewguard.servinglog.shaping import Shaping
from skewguard.values import instant

if TYPE_CHECKING:
    from skewguard.definitions import Bundle
    from skewguard.servinglog.recording import Recording

_PROBE_BYTES = 4096


@functools.cache
def _watched() -> weakref.WeakSet[ServingLog]:
    """The logs of this process; a forked child lets go of those that are in it."""
    logs: weakref.WeakSet[ServingLog] = weakref.WeakSet()

    def let_go() -> None:
        for log in list(logs):
            log._disown()  # noqa: SLF001 - this module's own

    os.register_at_fork(after_in_child=let_go)
    return logs


class ServingLog:
    """The log of what one process served: append-only segments in `root/service`, one writer each.

    `schema` is the schema of every batch; dictionary columns are refused, for a frame must be readable by
    itself. `header` (text to text: fingerprints, build, host, model) is written once per segment, so that no
    row repeats it; the log adds format, service, boot_id, segment, pid and started_at (ISO, UTC, when the
    segment was opened).

    A segment is closed and the next begun by the append that would take it beyond `segment_bytes` or that
    comes more than `segment_seconds` after it was opened. `durability` says what an append that has returned
    survives: "process" (default) the end of this process, kill -9 included; "disk" also a loss of power
    (fdatasync each time).

    `bundle` (or the path of one) gives service, schema and the header's fingerprints, and lets `request` record the
    answers of a service that is not ours.

    `on_failure`: "refuse" (default) raises what the file system refuses; "answer_and_count" counts the rows that are
    not in the log, on the disk and in `lost_rows`, and goes on: the service answers, and the guard says UNKNOWN.
    `sample` keeps that share of the rows, by a hash of their id: the same rows in every process; `inclusion` stands in
    each. Keys of the entities in `pii`, and of those that the bundle names, are hashed under `secret`, by default the
    environment's SKEWGUARD_PII_SECRET (see `privacy`).

    Safe to share between threads. A child made by fork cannot use its parent's log; it opens its own. Raises
    `LogError` if the folder or the first segment cannot be made.
    """

    def __init__(  # noqa: PLR0913  (settings, each with a default)
        self,
        root: str | Path,
        service: str = "",
        schema: pa.Schema | None = None,
        header: Mapping[str, str] | None = None,
        *,
        bundle: Bundle | str | Path | None = None,
        segment_bytes: int = 64 * 1024 * 1024,
        segment_seconds: float = 300,
        durability: Literal["process", "disk"] = "process",
        on_failure: Literal["refuse", "answer_and_count"] = "refuse",
        sample: float = 1.0,
        pii: Sequence[str] = (),
        secret: bytes | None = None,
    ) -> None:
        if durability not in ("process", "disk"):
            raise LogError(f"durability: expected 'process' or 'disk', got {durability!r}.")
        if on_failure not in ("refuse", "answer_and_count"):
            raise LogError(f"on_failure: expected 'refuse' or 'answer_and_count', got {on_failure!r}.")
        self._bundle = _loaded(bundle)
        if self._bundle is not None:
            service, schema, header = _described(self._bundle, service, schema, header)
            if not isinstance(pii, str):  # refused below
                pii = tuple(dict.fromkeys((*pii, *self._bundle.pii)))
        if schema is None:
            raise LogError("the log: expected a bundle, or a service with its schema, got neither.")
        if sys.platform == "win32":
            raise LogError("writing the log needs flock and pwrite, which Windows does not have; reading it works.")
        self.service = service
        self.boot_id = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S%fZ}_{secrets.token_hex(4)}"
        self._folder = seg.service_folder(root, service)
        self._schema = _checked(schema)
        self._shaping = Shaping.of(self._schema, sample, pii, secret)
        self._header = self._shaping.header(header or {})
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._durable = durability == "disk"
        self._lock = threading.Lock()
        self._number = 0
        self._probe_bytes = _PROBE_BYTES
        self._closed: str | None = None
        self._segment: OpenSegment | None = self._begin(self._header, self._shaping.schema)
        self._gaps = self._open_gaps() if on_failure == "answer_and_count" else None
        _watched().add(self)

    @property
    def schema(self) -> pa.Schema:
        """The schema that the next batch must have."""
        return self._schema

    @property
    def path(self) -> Path | None:
        """The open segment's file; None after `seal` (until the next append) and `close`."""
        segment = self._segment
        return segment.path if segment else None

    def append(self, batch: pa.RecordBatch) -> None:
        """Log all rows of `batch` as one frame; when this returns they are in it, as `durability` promises.

        Raises `LogError` for another schema, a closed log, and whatever the file system refuses (a full disk,
        a lost folder); then none of the rows is in the log, the earlier ones stay readable, and a later
        append may succeed. With `on_failure="answer_and_count"` what the file system refuses is counted instead.
        """
        if not batch.schema.equals(self._schema):
            self._refuse_schema(batch)
        rows = batch.num_rows
        batch = self._shaping.shaped(batch)
        if rows and not batch.num_rows:
            return  # nothing of it is in the sample
        try:
            self._append(batch)
        except LogError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            self.missed(rows, error)

    def request(
        self,
        id: str,  # noqa: A002  (what it is called everywhere else)
        keys: Mapping[str, Any],
        request: Mapping[str, Any] | None = None,
        *,
        as_of: int | None = None,
        client: str | None = None,
    ) -> Recording:
        """Record one request of a service that looks up, transforms and predicts by itself; see `Recording`.

        `keys` and `request` fields by name, one value each or a list with one for each row; `as_of` in microseconds
        UTC, now by default. Raises `LogError` for a log without a bundle.
        """
        from skewguard.servinglog.recording import Recording

        if self._bundle is None:
            raise LogError("request: this log has no bundle, so nobody knows the columns. Open it with bundle=.")
        return Recording(self, self._bundle, id, keys, request or {}, as_of, client)

    @functools.cached_property
    def flat_schema(self) -> pa.Schema:
        """The flat form of the bundle's answers, without what this log adds."""
        from skewguard.answer import schema

        assert self._bundle is not None  # noqa: S101  (only recordings ask)
        return schema(self._bundle)

    @functools.cached_property
    def feature_names(self) -> Mapping[str, str]:
        """Full names of the bundle's features by short and full name."""
        from skewguard.servinglog.recording import short_names

        assert self._bundle is not None  # noqa: S101  (only recordings ask)
        return short_names(self._bundle)

    @property
    def on_failure(self) -> str:
        """`refuse` or `answer_and_count`."""
        return "refuse" if self._gaps is None else "answer_and_count"

    @property
    def lost_rows(self) -> int:
        """Rows that were answered and could not be logged, since the log was opened."""
        return self._gaps.gap.rows if self._gaps else 0

    def missed(self, rows: int, error: LogError) -> None:
        """Count rows that are answered and not in the log, or, with `on_failure="refuse"`, raise `error`."""
        with self._lock:
            if self._gaps is None or self._closed:
                raise error
            self._gaps.count(rows, time.time_ns() // 1000, str(error.__cause__ or error))

    def _refuse_schema(self, batch: pa.RecordBatch) -> None:
        raise LogError(
            f"serving log {self._folder}: a batch does not have the log's schema: "
            f"{seg.first_difference(self._schema, batch.schema)}. "
            "Build it with the schema that the log was opened with, or rotate with the new one."
        )

    def _append(self, batch: pa.RecordBatch) -> None:
        # What takes long needs no lock: serialization, compression and checksum of the payload.
        kind, payload = seg.smaller(batch.serialize())
        payload_crc = zlib.crc32(payload)
        with self._lock:
            if self._closed:
                raise LogError(self._closed)
            if not batch.schema.equals(self._shaping.schema):  # rotated meanwhile
                self._refuse_schema(batch)
            segment = self._due(seg.HEAD_BYTES + len(payload))
            try:
                segment.write(kind, batch.num_rows, payload, payload_crc, self._durable)
            except OSError as error:
                self._probe_bytes = seg.HEAD_BYTES + len(payload)
                raise LogError(
                    f"serving log {segment.path}: {batch.num_rows} rows ({len(payload)} bytes) could not be "
                    f"written: {error}. None of them is in the log. Make room or repair the disk; "
                    "the next append tries again."
                ) from error

    def rotate(self, header: Mapping[str, str], schema: pa.Schema | None = None) -> None:
        """Seal the open segment and begin the next with another header (a model swap) and, if given, schema.

        Rows that other threads are about to append go under the new header; where answers of the old model
        may still be under way, open a second log for the new model instead and close the old one when it is
        idle. Raises `LogError` if the new segment cannot be made; then nothing has changed.
        """
        with self._lock:
            if self._closed:
                raise LogError(self._closed)
            wanted = self._schema if schema is None else _checked(schema)
            shaping = self._shaping.over(wanted)
            written = shaping.header(header)
            self._replace(self._begin(written, shaping.schema))
            self._header, self._schema, self._shaping = written, wanted, shaping

    def seal(self) -> None:
        """Seal the open segment now (`.open` becomes `.seg`); the next append begins another.

        Raises `LogError` if the file cannot be renamed; its rows stay readable, and `recover` seals it later.
        """
        with self._lock:
            if self._closed:
                raise LogError(self._closed)
            self._finish()

    def close(self) -> None:
        """Seal the open segment and refuse every later append.

        Closing twice is harmless. Raises as `seal` does; the log is closed all the same.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = f"serving log {self._folder} is closed; what was appended after that is not in it."
            if self._gaps:
                self._gaps.close()
            self._finish()

    def check(self) -> None:
        """Raise `LogError` if an append would fail; for a readiness probe.

        Writes as many bytes as the append that failed last, at least 4096, and takes them back. A segment
        whose file somebody deleted or moved is given up: the next append begins one that readers find. With
        `on_failure="answer_and_count"` only a closed log raises, for appends do not fail.
        """
        try:
            self._check()
        except LogError as error:
            if self._gaps is None or self._closed or not isinstance(error.__cause__, OSError):
                raise

    def _check(self) -> None:
        with self._lock:
            if self._closed:
                raise LogError(self._closed)
            segment = self._segment or self._due(0)
            try:
                lost = not seg.is_file(segment.path, segment.fd)
                if not lost:
                    segment.probe(self._probe_bytes)
            except OSError as error:
                raise LogError(f"serving log {segment.path} cannot be written: {error}.") from error
            self._probe_bytes = _PROBE_BYTES
            if lost:
                segment.file.close()
                self._segment = None
                raise LogError(
                    f"serving log {segment.path}: the file was deleted or moved while it was written, "
                    "and every row with it. Rows from now on go into a new segment."
                )

    @property
    def writable(self) -> bool:
        """Whether `check` finds nothing wrong."""
        try:
            self.check()
        except LogError:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _due(self, more: int) -> OpenSegment:
        """The segment that takes the next `more` bytes: the open one, unless it is full or old."""
        segment = self._segment
        if segment is not None:
            end, sequence = segment.at
            full = end + more > self._segment_bytes or time.monotonic() - segment.born > self._segment_seconds
            # Without rows it is not replaced: a batch larger than a segment must go somewhere.
            if not full or sequence == 1:
                return segment
        begun = self._begin(self._header, self._shaping.schema)
        self._replace(begun)
        return begun

    def _begin(self, header: Mapping[str, str], schema: pa.Schema) -> OpenSegment:
        """A new segment with its header frame.

        It is called `.open` only when it is locked and has its header: an open segment without an owner is
        always one whose owner died, and never one whose owner is about to lock it.
        """
        name = seg.stem(self.boot_id, self._number)
        own = {
            "format": str(seg.FORMAT),
            "service": self.service,
            "boot_id": self.boot_id,
            "segment": str(self._number),
            "pid": str(os.getpid()),
            "started_at": instant(time.time_ns() // 1000),
        }
        payload = seg.header_payload(own, header, schema)
        path = self._folder / f"{name}{seg.OPEN}"
        segment = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            segment = OpenSegment(path.with_suffix(seg.NEW))
            seg.lock(segment.fd)
            segment.seed = segment.write(seg.HEADER, 0, payload, zlib.crc32(payload), self._durable)[-4:]
            segment.path.rename(path)
            segment.path = path
            if self._durable:
                seg.sync_folder(self._folder)
        except OSError as error:
            if segment is not None:
                segment.file.close()
                with contextlib.suppress(OSError):
                    segment.path.unlink(missing_ok=True)
            raise LogError(
                f"serving log {path}: a new segment could not be begun: {error}. "
                "The folder must be writable, have room, and lie on a file system with locks (flock)."
            ) from error
        self._number += 1
        return segment

    def _replace(self, begun: OpenSegment) -> None:
        """Seal the open segment, if any, and go on in `begun`.

        A segment that cannot be renamed keeps its rows and is sealed by `recover`: no reason to refuse the
        row that is waiting and that the new one can take.
        """
        with contextlib.suppress(LogError):
            self._finish()
        self._segment = begun

    def _finish(self) -> None:
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            os.ftruncate(segment.fd, segment.at[0])
            segment.path.rename(segment.path.with_suffix(seg.SEALED))
            if self._durable:
                appending.sync(segment.fd)
                seg.sync_folder(self._folder)
        except OSError as error:
            raise LogError(
                f"serving log {segment.path} could not be sealed: {error}. "
                "Its rows are readable, and recover() seals it."
            ) from error
        finally:
            segment.file.close()

    def _disown(self) -> None:
        """In a forked child: let go of the parent's segment, which two writers would destroy.

        Closing the child's copy of the descriptor leaves the parent's lock alone.
        """
        self._lock = threading.Lock()  # the old one may be held by a thread that this process does not have
        self._closed = f"serving log {self._folder}: opened by the parent process. Open one of your own after fork."
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.file.close()
        if self._gaps is not None:
            self._gaps.disown()
            self._gaps = None

    def _open_gaps(self) -> GapFile:
        try:
            return GapFile(self._folder, self.service, self.boot_id)
        except OSError as error:
            raise LogError(f"serving log {self._folder}: lost rows could not be counted there: {error}.") from error


def _loaded(bundle: Bundle | str | Path | None) -> Bundle | None:
    if not isinstance(bundle, str | Path):
        return bundle
    from skewguard.definitions import load_bundle

    return load_bundle(bundle)


def _described(
    bundle: Bundle, service: str, schema: pa.Schema | None, header: Mapping[str, str] | None
) -> tuple[str, pa.Schema, dict[str, str]]:
    """Service, schema and header of a bundle's log, where they are not given."""
    from skewguard.answer import schema as flat
    from skewguard.servinglog.recording import CLIENT
    from skewguard.transforms import numeric_class

    if service and service != bundle.service:
        raise LogError(f"the log: the bundle is of service {bundle.service}, not {service}. Leave the service out.")
    own = {
        "bundle_digest": bundle.digest,
        "numeric_class": numeric_class(),
        "host": socket.gethostname(),
        "build": "",
        "evidence": "production",
    }
    return bundle.service, schema or flat(bundle).append(pa.field(CLIENT, pa.string())), own | dict(header or {})


def _checked(schema: pa.Schema) -> pa.Schema:
    """`schema`, if every name is there once and a frame is readable by itself: dictionaries lie elsewhere."""
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise LogError(f"the log's schema: expected every name once, got {', '.join(twice)} more often.")
    for field in schema:
        if _has_dictionary(field.type):
            raise LogError(
                f"{field.name}: expected a plain type in the log's schema, got {field.type}. "
                "Declare the type of its values."
            )
    return schema


def _has_dictionary(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        return True
    return any(_has_dictionary(kind.field(i).type) for i in range(kind.num_fields))
