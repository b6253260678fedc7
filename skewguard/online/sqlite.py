"""Packed rows in one SQLite table: the embedded default, several readers and one writer at a time."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from skewguard.errors import StoreUnavailable
from skewguard.online.keys import prefixes, view_prefix, watermark_key, written_key
from skewguard.online.layout import ORDER

_VARIABLES = 500
_PAGE = 10_000
_NEWEST = (
    "INSERT INTO rows (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value "
    f"WHERE substr(excluded.value, {ORDER.start + 1}, {ORDER.stop - ORDER.start}) "
    f">= substr(rows.value, {ORDER.start + 1}, {ORDER.stop - ORDER.start})"
)
_META = "INSERT INTO rows (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


class SqliteStore:
    """One `WITHOUT ROWID` table in WAL mode. Use one instance per thread."""

    def __init__(self, url: str) -> None:
        self.url = url
        path = url.removeprefix("sqlite:").removeprefix("//")
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._con = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
            self._con.execute("PRAGMA journal_mode = WAL")
            self._con.execute("PRAGMA synchronous = NORMAL")
            self._con.execute("PRAGMA mmap_size = 268435456")
            self._con.execute(
                "CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
            )
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"online store {url}: cannot be opened: {error}") from error

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, in order."""
        found: dict[bytes, bytes] = {}
        try:
            if len(keys) > _VARIABLES:
                self._con.execute("BEGIN")  # one snapshot over several statements
            for at in range(0, len(keys), _VARIABLES):
                some = keys[at : at + _VARIABLES]
                marks = ",".join("?" * len(some))
                found.update(self._con.execute(f"SELECT key, value FROM rows WHERE key IN ({marks})", some).fetchall())
            if len(keys) > _VARIABLES:
                self._con.execute("COMMIT")
        except sqlite3.Error as error:
            self._abandon()
            raise StoreUnavailable(f"online store {self.url}: {error}") from error
        return [found.get(key) for key in keys]

    def write(self, rows: Sequence[tuple[bytes, bytes]], meta: Mapping[bytes, bytes]) -> None:
        """Rows and meta in one transaction; an older row never overwrites a newer one."""
        try:
            self._con.execute("BEGIN IMMEDIATE")
            self._con.executemany(_NEWEST, rows)
            self._con.executemany(_META, meta.items())
            self._con.execute("COMMIT")
        except sqlite3.Error as error:
            self._abandon()
            raise StoreUnavailable(f"online store {self.url}: nothing was written: {error}") from error

    def clear(self, project: str) -> None:
        """Delete the project's keys."""
        self._clear(prefixes(project), ())

    def forget(self, project: str, view: str) -> None:
        """Delete the view's rows, its watermark, and in which layout it was written."""
        self._clear([view_prefix(project, view)], [watermark_key(project, view), written_key(project, view)])

    def _clear(self, begin: Sequence[bytes], keys: Sequence[bytes]) -> None:
        try:
            for prefix in begin:
                self._con.execute("DELETE FROM rows WHERE substr(key, 1, ?) = ?", (len(prefix), prefix))
        except sqlite3.Error as error:
            raise StoreUnavailable(f"online store {self.url}: not cleared: {error}") from error
        self.delete(keys)

    def delete(self, keys: Sequence[bytes]) -> int:
        """Delete what stands under `keys`; how many there were."""
        try:
            return sum(self._con.execute("DELETE FROM rows WHERE key = ?", (key,)).rowcount for key in keys)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"online store {self.url}: not everything was deleted: {error}") from error

    def keys(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Every key that begins with `prefix`, in order; page by page, so that no long reading keeps the WAL."""
        after = prefix
        try:
            while True:
                page = [
                    key
                    for (key,) in self._con.execute(
                        "SELECT key FROM rows WHERE key > ? AND key < ? ORDER BY key LIMIT ?",
                        (after, prefix + b"\xff" * 8, _PAGE),
                    )
                ]
                if not page:
                    return
                yield page
                after = page[-1]
        except sqlite3.Error as error:
            raise StoreUnavailable(f"online store {self.url}: its keys cannot be read: {error}") from error

    def _abandon(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # a closed connection has nothing to roll back
            if self._con.in_transaction:
                self._con.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection."""
        self._con.close()

    def __del__(self) -> None:
        """From Python 3.13 on a connection that is merely dropped warns."""
        if hasattr(self, "_con"):
            self._con.close()
