"""Place: where files lie, on a local disk or on any filesystem that Arrow or fsspec has (`s3://`, `gs://`, `memory://`)."""

from __future__ import annotations

import fnmatch
import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from skewguard.errors import MissingExtra, SkewguardError

_OBJECTS = frozenset({"s3", "gcs", "abfs"})
"""Stores of objects: what looks like a folder is a prefix, and nobody has to make it."""

_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True)
class Place:
    """A file or a folder. `name` is how people are told of it (no secret of its URI), `local` its path on this disk.

    Whatever a filesystem calls its errors, here they are `OSError`.
    """

    name: str
    filesystem: pafs.FileSystem
    path: str
    local: Path | None = None

    def __str__(self) -> str:
        return self.name

    def __truediv__(self, name: str) -> Place:
        local = None if self.local is None else self.local / name
        return Place(f"{self.name}/{name}", self.filesystem, f"{self.path}/{name}", local)

    def exists(self) -> bool:
        """Whether there is anything, be it a file, a folder or the prefix of an object."""
        with _as_os_error(self.name):
            return bool(self.filesystem.get_file_info(self.path).type != pafs.FileType.NotFound)

    def names(self) -> list[str]:
        """Paths of all files below this folder, relative to it; none where there is no folder."""
        selector = pafs.FileSelector(self.path, allow_not_found=True, recursive=True)
        with _as_os_error(self.name):
            found = self.filesystem.get_file_info(selector)
        root = self.path.rstrip("/") + "/"
        return sorted(one.path.removeprefix(root) for one in found if one.type == pafs.FileType.File)

    def read(self) -> bytes:
        """The whole file."""
        with _as_os_error(self.name), self.filesystem.open_input_stream(self.path) as stream:
            content: bytes = stream.readall()
            return content

    def write(self, content: bytes) -> None:
        """Make it the whole file."""
        with self.writing() as stream:
            stream.write(content)

    @contextmanager
    def writing(self) -> Iterator[pa.NativeFile]:
        """A stream of what becomes the whole file when it is closed."""
        with _as_os_error(self.name), self.filesystem.open_output_stream(self.path, compression=None) as stream:
            yield stream

    def open(self) -> pa.NativeFile:
        """The file, to be read at any position; close it."""
        with _as_os_error(self.name):
            return self.filesystem.open_input_file(self.path)

    def make(self) -> None:
        """Make the folder, and those above it, where the filesystem has such a thing."""
        if self.filesystem.type_name not in _OBJECTS:
            with _as_os_error(self.name):
                self.filesystem.create_dir(self.path, recursive=True)

    def delete(self) -> None:
        """Remove the file."""
        with _as_os_error(self.name):
            self.filesystem.delete_file(self.path)


def place_of(where: str | Path | Place) -> Place:
    """The place of a path or URI; raises `OSError` for a URI of which no filesystem here knows anything.

    Arrow's own filesystems come first, then fsspec's, whose packages (`s3fs`, ...) must be installed. Settings of a
    filesystem are its own: the environment, or the URI's query (`s3://bucket/folder?region=eu-west-1`).
    """
    if isinstance(where, Place):
        return where
    text = str(where)
    if "://" not in text:
        return Place(text, pafs.LocalFileSystem(), text, Path(text))
    name = shown(text).rstrip("/")
    with _as_os_error(name):
        filesystem, path = _resolved(text)
    if isinstance(filesystem, pafs.LocalFileSystem):
        return Place(path, filesystem, path, Path(path))
    return Place(name, filesystem, path.rstrip("/"))


def shown(where: object) -> str:
    """A path or URI as people are told of it: without the secrets that a URI may carry."""
    text = str(where)
    return re.sub(r"//[^/@]*@", "//", text.partition("?")[0]) if "://" in text else text


def parquet_files(where: str) -> list[Place]:
    """The files that a source's path means, as DuckDB reads it: one file, a glob, or a folder with all that lies below.

    Raises `OSError`; where nothing is there, `FileNotFoundError`.
    """
    remote = "://" in where
    magic = _MAGIC.search(where) if remote or not Path(where).exists() else None
    if magic is None:
        found = list(_file_or_folder(place_of(where)))
    elif remote:
        folder = where[: magic.start()].rpartition("/")[0]
        root, wanted = place_of(folder), where.removeprefix(f"{folder}/").split("/")
        found = [root / name for name in root.names() if _matches(name.split("/"), wanted)]
    else:
        paths = glob.glob(where, recursive=True, include_hidden=True)  # noqa: PTH207  (pathlib's takes no absolute one)
        found = [place_of(path) for path in sorted(paths)]
    if not found:
        raise FileNotFoundError(f"no Parquet file at {shown(where)}")
    return found


def _file_or_folder(root: Place) -> Iterator[Place]:
    with _as_os_error(root.name):
        kind = root.filesystem.get_file_info(root.path).type
    if kind == pafs.FileType.File:
        yield root
    elif kind == pafs.FileType.Directory:
        yield from (root / name for name in root.names() if name.endswith(".parquet"))


def _matches(name: list[str], wanted: list[str]) -> bool:
    """A glob, folder by folder: `*` stays in one, `**` is any number of them."""
    if not wanted or not name:
        return not wanted and not name
    if wanted[0] == "**":
        return any(_matches(name[at:], wanted[1:]) for at in range(len(name)))
    return fnmatch.fnmatchcase(name[0], wanted[0]) and _matches(name[1:], wanted[1:])


def _resolved(uri: str) -> tuple[pafs.FileSystem, str]:
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except pa.ArrowInvalid as refusal:
        if "Unrecognized filesystem" not in str(refusal):
            raise
        try:
            import fsspec
        except ImportError as error:
            raise MissingExtra(f"reading and writing {uri.partition('://')[0]}://", "guard") from error
        own, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        if "file" in (own.protocol if isinstance(own.protocol, tuple) else (own.protocol,)):
            return pafs.LocalFileSystem(), path
        filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(own))
    return filesystem, path


@contextmanager
def _as_os_error(name: str) -> Iterator[Any]:
    try:
        yield
    except (OSError, SkewguardError):
        raise
    except Exception as error:  # each vendor's client has errors of its own
        raise OSError(f"{name}: {type(error).__name__}: {error}") from error
