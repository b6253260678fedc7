"""Place: files on this disk and elsewhere, by one interface."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from skewguard.errors import MissingExtra
from skewguard.place import parquet_files, place_of


@pytest.fixture
def memory() -> Iterator[str]:
    """A folder of fsspec's in-memory filesystem, empty again afterwards."""
    yield "memory://places"
    filesystem = fsspec.filesystem("memory")
    if filesystem.exists("/places"):
        filesystem.rm("/places", recursive=True)


@pytest.mark.parametrize("kind", ["path", "file", "memory", "fsspec+file"])
def test_a_file_is_written_read_listed_and_removed(memory: str, tmp_path: Path, kind: str) -> None:
    """Alike on a path, Arrow's filesystem and one of fsspec."""
    where: dict[str, Any] = {
        "path": tmp_path / "a", "file": (tmp_path / "a").as_uri(), "memory": f"{memory}/a",
        "fsspec+file": f"local://{tmp_path}/a",
    }  # fmt: skip
    folder = place_of(where[kind])
    assert (folder.exists(), folder.names()) == (False, [])
    folder.make()
    (folder / "b").make()
    (folder / "x.bin").write(b"one")
    (folder / "b" / "y.bin").write(b"two")
    assert folder.names() == ["b/y.bin", "x.bin"]
    assert (folder / "x.bin").read() == b"one"
    with (folder / "b" / "y.bin").open() as file:
        file.seek(1)
        assert file.read() == b"wo"
    (folder / "x.bin").delete()
    assert folder.names() == ["b/y.bin"]
    assert (folder.local is None) == (kind == "memory")


def test_what_is_told_of_a_place_holds_no_secret() -> None:
    """Neither the user part of a URI nor its query."""
    assert str(place_of("s3://key:secret@bucket/folder/?region=eu-west-1")) == "s3://bucket/folder"
    assert str(place_of("s3://bucket/folder?region=eu-west-1") / "rows.parquet") == "s3://bucket/folder/rows.parquet"


def test_a_place_that_nobody_knows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown scheme, a package that is missing, and fsspec itself."""
    with pytest.raises(OSError, match="s4://bucket/x: ValueError: Protocol not known: s4"):
        place_of("s4://user:secret@bucket/x")
    with pytest.raises(OSError, match=r"ImportError: .*paramiko"):
        place_of("sftp://host/x")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtra, match="reading and writing memory:// needs packages that are not installed"):
        place_of("memory://x")


def test_what_a_filesystem_raises_is_an_os_error(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client may have errors of its own."""
    with pytest.raises(FileNotFoundError):
        (place_of(memory) / "nowhere").read()

    class Denied(Exception):
        pass

    def denied(*_: Any, **__: Any) -> None:
        raise Denied("403")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "open", denied)
    with pytest.raises(OSError, match="memory://places/x: Denied: 403"):
        (place_of(memory) / "x").write(b"")


TREE = ("a=1/x.parquet", "a=1/.hidden.parquet", "a=2/y.parquet", "a=2/deep/z.parquet", "top.parquet", "notes.txt")
ALL = {*TREE} - {"notes.txt"}


@pytest.mark.parametrize("kind", ["path", "memory"])
@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", ALL),
        ("/top.parquet", {"top.parquet"}),
        ("/a=*/*.parquet", {"a=1/x.parquet", "a=1/.hidden.parquet", "a=2/y.parquet"}),
        ("/**/*.parquet", ALL),
        ("/a=2/**/z.parquet", {"a=2/deep/z.parquet"}),
        ("/a=[!2]/?.parquet", {"a=1/x.parquet"}),
    ],
)
def test_a_source_is_a_file_a_folder_or_a_glob(
    memory: str, tmp_path: Path, kind: str, pattern: str, found: set[str]
) -> None:
    """The same files here as on another filesystem, and as DuckDB takes."""
    where = memory if kind == "memory" else str(tmp_path / "tree")
    root = place_of(where)
    for name in TREE:
        (root / name.rpartition("/")[0]).make() if "/" in name else root.make()
        (root / name).write(b"")
    prefix = root.path + "/"
    assert {one.path.removeprefix(prefix) for one in parquet_files(where + pattern)} == found


def test_a_source_that_is_not_there_is_a_file_not_found(memory: str, tmp_path: Path) -> None:
    """File, folder, glob, here and elsewhere."""
    (tmp_path / "empty").mkdir()
    for where in (f"{tmp_path}/x.parquet", f"{tmp_path}/empty", f"{tmp_path}/*.parquet", memory, f"{memory}/*.parquet"):
        with pytest.raises(FileNotFoundError, match="no Parquet file at "):
            parquet_files(where)


def test_a_file_whose_name_holds_a_glob_is_that_file(tmp_path: Path) -> None:
    """As DuckDB has it."""
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a[1].parquet")
    (one,) = parquet_files(str(tmp_path / "a[1].parquet"))
    assert one.path.endswith("a[1].parquet")
    assert isinstance(one.filesystem, pafs.LocalFileSystem)
