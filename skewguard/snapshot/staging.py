"""Staging: a snapshot's folder while it is written; whole in its place in the end, or nothing is left of it.

On a disk it is written under another name and renamed. Elsewhere nothing can be renamed in one step: what makes the
files a snapshot is the manifest, which is written last.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from skewguard.errors import SnapshotError
from skewguard.place import Place

MANIFEST, ROWS, BUNDLE, PROFILE = "manifest.json", "rows.parquet", "bundle.json", "profile.json"
_FILES = (MANIFEST, PROFILE, BUNDLE, ROWS)
"""The manifest first: what is removed in this order is at no moment a snapshot that lacks a file."""


class Staging:
    """`open` gives the folder to write to, `publish` puts it in its place, `discard` removes it. Raise `OSError`.

    The constructor raises `SnapshotError` where something lies at `out` already.
    """

    def __init__(self, out: Place) -> None:
        self.out = out
        self._folder = out
        self._lock: int | None = None
        if out.local is None:
            there = out.names()
            taken = bool(set(there) - set(_FILES)) or MANIFEST in there
        else:
            taken = out.exists()
        if taken:
            raise SnapshotError(f"{out} exists; a snapshot is never overwritten. Choose another place or remove it.")

    def open(self) -> Place:
        """The folder, without what a builder that was killed left there."""
        if self.out.local is None:
            self.out.make()
            self.discard()
            return self._folder
        partial = self.out.local.with_name(self.out.local.name + ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(partial, self.out)
        self._folder = Place(str(partial), self.out.filesystem, str(partial), partial)
        for left in partial.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        return self._folder

    def publish(self) -> None:
        """All files are written, the manifest last."""
        if self._folder.local is not None and self.out.local is not None:
            for file in (*self._folder.local.iterdir(), self._folder.local):
                _sync(file)
            self._folder.local.rename(self.out.local)
            with suppress(OSError):  # it is there, and whole
                _sync(self.out.local.parent)
        self._release()

    def discard(self) -> None:
        """Remove what was written; what cannot be removed stays, and is no snapshot."""
        if self._folder.local is not None:
            shutil.rmtree(self._folder.local, ignore_errors=True)
            self._release()
            return
        for name in _FILES:
            with suppress(OSError):
                (self._folder / name).delete()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(partial: Path, out: Place) -> int | None:
    """Keep other builders of `out` away; a system without such locks goes ahead."""
    try:
        import fcntl
    except ImportError:
        return None
    handle = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_ino != partial.stat().st_ino:
            raise BlockingIOError
    except OSError as error:
        os.close(handle)
        if isinstance(error, BlockingIOError | FileNotFoundError):
            raise SnapshotError(
                f"{out} is being written by somebody else: wait for it, or choose another place"
            ) from error
        raise
    return handle


def _sync(path: Path) -> None:
    """On the disk, and not in a cache that a power cut empties."""
    if sys.platform == "win32":  # there a folder cannot be opened
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
