"""Gaps: answers that were given although they could not be logged, counted where a full disk cannot forget them.

A log that may answer without logging (`on_failure="answer_and_count"`) makes one small file when it is opened, and
counts in place: that needs no room on the disk, and what was counted survives the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from skewguard.errors import LogError

SUFFIX = ".gap"
_BYTES = 512


@dataclass(frozen=True, slots=True)
class Gap:
    """`rows` answered and not logged by one process, between two instants (microseconds, UTC); `reason` is the last."""

    service: str
    boot_id: str
    rows: int
    since: int
    until: int
    reason: str


class GapFile:
    """The count of one process. Raises `OSError` if its file cannot be made; counting itself never fails.

    `memory_only`: rows whose count could not be put on the disk; it is lost with the process.
    """

    def __init__(self, folder: Path, service: str, boot_id: str) -> None:
        self.path = folder / f"{boot_id}{SUFFIX}"
        self.gap = Gap(service, boot_id, 0, 0, 0, "")
        self.memory_only = 0
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
        os.pwrite(self._fd, _encode(self.gap), 0)
        os.fsync(self._fd)

    def count(self, rows: int, now: int, reason: str) -> None:
        """These rows were answered and are not in the log."""
        old = self.gap
        since = min(old.since, now) if old.rows else now
        self.gap = Gap(old.service, old.boot_id, old.rows + rows, since, max(old.until, now), reason[:150])
        try:
            os.pwrite(self._fd, _encode(self.gap), 0)
            self.memory_only = 0
        except OSError:
            self.memory_only += rows

    def close(self) -> None:
        """The file goes where there was no gap, and stays where there was one."""
        with contextlib.suppress(OSError):
            os.close(self._fd)
        if not self.gap.rows:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def disown(self) -> None:
        """Leave the file to the process that made it."""
        with contextlib.suppress(OSError):
            os.close(self._fd)


def _encode(gap: Gap) -> bytes:
    text = json.dumps(asdict(gap)).encode()
    if len(text) > _BYTES - 9:
        text = json.dumps(asdict(gap) | {"reason": ""}).encode()
    return (b"%08x" % zlib.crc32(text) + text).ljust(_BYTES - 1) + b"\n"


def load_gaps(folder: Path) -> list[Gap]:
    """The gaps of a service, process by process. Raises `LogError` for a count that cannot be read."""
    gaps = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with contextlib.suppress(FileNotFoundError):  # its process has ended without a gap
            content = path.read_bytes().rstrip()
            if not content:  # its process died before it served anything
                continue
            try:
                if int(content[:8], 16) != zlib.crc32(content[8:]):
                    raise LogError(f"{path}: the count of answers that were not logged is damaged.")
                gap = Gap(**json.loads(content[8:]))
            except (ValueError, TypeError) as error:
                raise LogError(f"{path}: expected a count of answers that were not logged, got {error!r}.") from error
            if gap.rows:
                gaps.append(gap)
    return gaps
