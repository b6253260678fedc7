"""The writer: rows are in the log before `append` returns, or `LogError` says that they are not."""

from __future__ import annotations

import datetime as dt
import functools
import os
import secrets
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa

from skewguard.errors import LogError
from skewguard.servinglog import segment as seg
from skewguard.servinglog.declared import checked, described, loaded
from skewguard.servinglog.definitions import keep
from skewguard.servinglog.gaps import GapFile
from skewguard.servinglog.journal import Journal
from skewguard.servinglog.message import Rows
from skewguard.servinglog.rolling import Rolling
from skewguard.servinglog.shaping import Shaping
from skewguard.servinglog.stats import LogStats

if TYPE_CHECKING:
    from skewguard.definitions import Bundle
    from skewguard.servinglog.recording import Recording


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
    (it waits for an fdatasync, one for all that are under way).

    `bundle` (or the path of one) gives service, schema and the header's fingerprints, is kept beside the rows (see
    `definitions`), and lets `request` record the answers of a service that is not ours.

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
        self._bundle = loaded(bundle)
        if self._bundle is not None:
            service, schema, header = described(self._bundle, service, schema, header)
            if not isinstance(pii, str):  # refused below
                pii = tuple(dict.fromkeys((*pii, *self._bundle.pii)))
        if schema is None:
            raise LogError("the log: expected a bundle, or a service with its schema, got neither.")
        if sys.platform == "win32":
            raise LogError("writing the log needs flock and pwrite, which Windows does not have; reading it works.")
        self.service = service
        self.boot_id = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S%fZ}_{secrets.token_hex(4)}"
        self._folder = seg.service_folder(root, service)
        self._schema = checked(schema)
        self._shaping = Shaping.of(self._schema, sample, pii, secret)
        self._counting = threading.Lock()
        self._left_out = 0
        if self._bundle is not None:
            keep(self._folder, self._bundle)
        durable = durability == "disk"
        rolling = Rolling(self._folder, service, self.boot_id, segment_bytes, segment_seconds, durable=durable)
        header = self._shaping.header(header or {})
        self._journal = Journal(rolling, header, self._shaping.schema, durable=durable)
        self._gaps = self._open_gaps() if on_failure == "answer_and_count" else None
        _watched().add(self)

    @property
    def schema(self) -> pa.Schema:
        """The schema that the next batch must have."""
        return self._schema

    @property
    def path(self) -> Path | None:
        """The open segment's file; None after `seal` (until the next append) and `close`."""
        return self._journal.path

    def append(self, batch: Rows) -> None:
        """Log all rows of `batch` as one frame; when this returns they are in it, as `durability` promises.

        Raises `LogError` for another schema, a closed log, and whatever the file system refuses (a full disk,
        a lost folder); then none of the rows is in the log, the earlier ones stay readable, and a later
        append may succeed. With `on_failure="answer_and_count"` what the file system refuses is counted instead.
        """
        if not batch.schema.equals(self._schema):
            raise LogError(
                f"serving log {self._folder}: a batch does not have the log's schema: "
                f"{seg.first_difference(self._schema, batch.schema)}. "
                "Build it with the schema that the log was opened with, or rotate with the new one."
            )
        rows = batch.num_rows
        batch = self._shaping.shaped(batch)
        if batch.num_rows != rows:
            with self._counting:
                self._left_out += rows - batch.num_rows
            if not batch.num_rows:
                return  # nothing of it is in the sample
        try:
            self._journal.append(batch)
        except LogError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            self.missed(batch.num_rows, error)

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

    def stats(self) -> LogStats:
        """What this log has done since it was opened, and what is under way."""
        return LogStats(self._journal.written(), self.lost_rows, self._left_out)

    def take_sync_times(self) -> list[float]:
        """The seconds that each fdatasync took since this was asked last, the last 10,000 at most."""
        return self._journal.sync_times.take()

    def missed(self, rows: int, error: LogError) -> None:
        """Count rows that are answered and not in the log, or, with `on_failure="refuse"`, raise `error`."""
        with self._counting:
            if self._gaps is None or self._journal.closed:
                raise error
            hides = bool(self._shaping.pii) and not isinstance(error.__cause__, OSError)
            reason = "a row could not be built; why would name a hashed key" if hides else str(error.__cause__ or error)
            self._gaps.count(rows, time.time_ns() // 1000, reason)

    def rotate(self, header: Mapping[str, str], schema: pa.Schema | None = None) -> None:
        """Seal the open segment and begin the next with another header (a model swap) and, if given, schema.

        Rows that other threads are about to append go under the new header; where answers of the old model
        may still be under way, open a second log for the new model instead and close the old one when it is
        idle. Raises `LogError` if the new segment cannot be made; then nothing has changed.
        """
        wanted = self._schema if schema is None else checked(schema)
        shaping = self._shaping.over(wanted)
        self._journal.rotate(shaping.header(header), shaping.schema)
        self._schema, self._shaping = wanted, shaping

    def seal(self) -> None:
        """Seal the open segment now (`.open` becomes `.seg`); the next append begins another.

        Raises `LogError` if the file cannot be renamed; its rows stay readable, and `recover` seals it later.
        """
        self._journal.seal()

    def close(self) -> None:
        """Seal the open segment and refuse every later append.

        Closing twice is harmless. Raises as `seal` does; the log is closed all the same.
        """
        with self._counting:
            if self._gaps and not self._journal.closed:
                self._gaps.close()
        self._journal.close(f"serving log {self._folder} is closed; what was appended after that is not in it.")

    def check(self) -> None:
        """Raise `LogError` if an append would fail; for a readiness probe.

        Writes as many bytes as the append that failed last, at least 4096, and takes them back. A segment
        whose file somebody deleted or moved is given up: the next append begins one that readers find. With
        `on_failure="answer_and_count"` only a closed log raises, for appends do not fail.
        """
        try:
            self._journal.check()
        except LogError as error:
            if self._gaps is None or self._journal.closed or not isinstance(error.__cause__, OSError):
                raise

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

    def _disown(self) -> None:
        """In a forked child."""
        self._counting = threading.Lock()  # the old one may be held by a thread that this process does not have
        self._journal.disown(
            f"serving log {self._folder}: opened by the parent process. Open one of your own after fork."
        )
        if self._gaps is not None:
            self._gaps.disown()
            self._gaps = None

    def _open_gaps(self) -> GapFile:
        try:
            return GapFile(self._folder, self.service, self.boot_id)
        except OSError as error:
            raise LogError(f"serving log {self._folder}: lost rows could not be counted there: {error}.") from error
