"""The gate's memory: every signed record it saw and every decision it took, chained by hashes, one JSON line each.

    {"seq": 7, "at": "...", "kind": "admitted", "body": {...}, "prev": hex, "hash": hex}

Kinds are record, admitted, refused and observed. `hash` is the sha256 of the rest. A changed, removed or inserted line
breaks the chain; lines that were cut off at the end leave it whole, so every admitted version carries the line that it
was admitted by ("7:hash") as a tag. A record counts even when somebody has taken its tag away: the newest one in here
decides, by the time that was signed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from skewguard.errors import EvidenceError
from skewguard.gate.keys import Trust
from skewguard.gate.record import Record, read_record

LEDGER_ENV = "SKEWGUARD_LEDGER"
_START = "0" * 64
_SEEN: dict[str, tuple[int, str]] = {}
"""The last line of each ledger that this process wrote to, by its number and hash: what it must still hold."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the ledger. `body` is flat: texts only."""

    seq: int
    at: str
    kind: str
    body: Mapping[str, str]
    prev: str
    hash: str

    @property
    def place(self) -> str:
        """What an admitted version carries: the line's number and hash."""
        return f"{self.seq}:{self.hash}"


class Ledger:
    """An append-only file that processes of one machine share: each appends under a lock.

    Raises `EvidenceError` where the file cannot be read or written, or where its chain is broken; who appends to it
    also where it lacks a line that this process has seen, because it was cut off, rolled back or replaced meanwhile.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def entries(self) -> list[Entry]:
        """All lines, checked."""
        try:
            with self.path.open("rb") as file:
                return _checked(file, self.path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise EvidenceError(f"ledger {self.path}: {error}") from error

    def append(self, kind: str, body: Mapping[str, str]) -> Entry:
        """Add a line and wait until it is on disk."""
        with self._locked() as (file, entries):
            entries.append(_append(file, entries, kind, body))
            return entries[-1]

    def remember(self, records: Sequence[Record]) -> list[Entry]:
        """Add the records that are not in yet, and return all lines."""
        with self._locked() as (file, entries):
            known = {entry.body["digest"] for entry in entries if entry.kind == "record"}
            for record in records:
                if record.digest not in known:
                    about = {"model_id": record.model_id, "registered_name": record.registered_name}
                    body = {"digest": record.digest, **about, "envelope": record.text}
                    entries.append(_append(file, entries, "record", body))
            return entries

    @contextmanager
    def _locked(self) -> Iterator[tuple[IO[bytes], list[Entry]]]:
        try:
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                entries = _checked(file, self.path)
                _holds_what_was_seen(self.path, entries)
                _cut_torn_line(file)
                yield file, entries
                if entries:
                    _SEEN[str(self.path.absolute())] = entries[-1].seq, entries[-1].hash
        except OSError as error:
            raise EvidenceError(f"ledger {self.path}: {error}") from error


def newest(entries: Sequence[Entry], model_id: str, registered_name: str, trust: Trust) -> Record | None:
    """The record that counts for the model and the name: the one signed last.

    What a key signed that is no longer trusted does not count, for or against.
    """
    found: Record | None = None
    for entry in entries:
        if entry.kind != "record" or entry.body["model_id"] != model_id:
            continue
        if entry.body["registered_name"] != registered_name:
            continue
        try:
            record = read_record(entry.body["envelope"], trust)
        except EvidenceError:
            continue
        if (record.model_id, record.registered_name) != (model_id, registered_name):
            continue
        if found is None or record.signed_at >= found.signed_at:
            found = record
    return found


def _checked(file: IO[bytes], path: Path) -> list[Entry]:
    entries: list[Entry] = []
    for number, line in enumerate(file):
        if not line.endswith(b"\n"):
            break  # torn while it was written, hence never acted upon; the next append replaces it
        try:
            entry = Entry(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise EvidenceError(f"ledger {path}: line {number + 1} is damaged ({error})") from error
        prev = entries[-1].hash if entries else _START
        right = _hash(entry.seq, entry.at, entry.kind, entry.body, prev)
        if (entry.seq, entry.prev, entry.hash) != (number, prev, right):
            raise EvidenceError(
                f"ledger {path}: line {number + 1} does not follow from the one before: history was edited"
            )
        entries.append(entry)
    return entries


def _holds_what_was_seen(path: Path, entries: Sequence[Entry]) -> None:
    seq, hashed = _SEEN.get(str(path.absolute()), (-1, ""))
    if seq >= 0 and (len(entries) <= seq or entries[seq].hash != hashed):
        raise EvidenceError(
            f"ledger {path}: line {seq + 1} was there and is gone: it was cut off, rolled back or replaced. Bring it "
            "back; where that was meant, restart the gate"
        )


def _cut_torn_line(file: IO[bytes]) -> None:
    file.seek(0)
    whole = file.read().rfind(b"\n") + 1
    if whole < file.seek(0, os.SEEK_END):
        file.truncate(whole)


def _append(file: IO[bytes], entries: Sequence[Entry], kind: str, body: Mapping[str, str]) -> Entry:
    seq, prev = len(entries), entries[-1].hash if entries else _START
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    entry = Entry(seq, at, kind, dict(body), prev, _hash(seq, at, kind, body, prev))
    line: dict[str, Any] = {name: getattr(entry, name) for name in ("seq", "at", "kind", "body", "prev", "hash")}
    file.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())
    return entry


def _hash(seq: int, at: str, kind: str, body: Mapping[str, str], prev: str) -> str:
    text = json.dumps([seq, at, kind, dict(body), prev], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
