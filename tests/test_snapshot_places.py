"""Snapshots elsewhere than on a disk; and nowhere half of one, however the writing ends."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewguard.cli import main
from skewguard.errors import AskError, SnapshotError, SourceError
from skewguard.place import place_of
from skewguard.snapshot import (
    Snapshot,
    adopt_snapshot,
    build_snapshot,
    diff_snapshots,
    load_profile,
    load_snapshot,
    verify_snapshot,
)
from skewguard.workflows.repository import read_entity_df
from skewguard.workflows.snapshots import describe
from tests.worlds import World, shop

FILES = ["bundle.json", "manifest.json", "profile.json", "rows.parquet"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The shop, which nobody changes."""
    return shop(tmp_path_factory.mktemp("shop"), seed=3, rows=120, asks=40)


@pytest.fixture
def memory() -> Iterator[str]:
    """A folder of fsspec's in-memory filesystem, empty again afterwards."""
    yield "memory://snapshots"
    filesystem = fsspec.filesystem("memory")
    if filesystem.exists("/snapshots"):
        filesystem.rm("/snapshots", recursive=True)


def build(world: World, out: str | Path, **options: Any) -> Snapshot:
    """A snapshot of the shop's asks."""
    return build_snapshot(world.bundle, world.asks, out, labels=["paid"], id_column="ask_id", **options)


# -- elsewhere --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "local through fsspec", "memory"])
def test_a_snapshot_may_lie_on_any_filesystem(world: World, memory: str, tmp_path: Path, kind: str) -> None:
    """Built, opened, read, verified, compared and described there, it is the snapshot that a disk holds."""
    here = build(world, tmp_path / "here")
    where = {
        "file": (tmp_path / "s").as_uri(),
        "local through fsspec": f"local://{tmp_path}/s",
        "memory": f"{memory}/s",
    }
    made, opened = build(world, where[kind]), load_snapshot(where[kind])
    assert made.manifest.id == opened.id == here.id
    assert opened.bundle == here.bundle
    rows = here.to_arrow().drop_columns("vector")  # whose NaN equals nothing
    assert opened.to_arrow().drop_columns("vector") == rows
    assert opened.to_arrow(["paid", "id"]).column_names == ["paid", "id"]
    assert pa.Table.from_batches(opened.batches(rows.column_names, rows=7)) == rows
    assert opened.to_numpy()[0].tobytes() == here.to_numpy()[0].tobytes()
    assert verify_snapshot(opened, full=True).same
    assert diff_snapshots(here, opened).same
    assert load_profile(where[kind]) == load_profile(here.path)
    assert describe(opened)["manifest"]["id"] == here.id
    assert place_of(where[kind]).names() == FILES
    with pytest.raises(SnapshotError, match="exists; a snapshot is never overwritten"):
        build(world, where[kind])


def test_a_training_set_is_adopted_from_and_to_another_filesystem(world: World, memory: str, tmp_path: Path) -> None:
    """The rows are read from there, the snapshot is written there."""
    built = build(world, tmp_path / "s")
    given = {name: built.to_arrow([name])[name] for name in world.bundle.outputs}
    table = pa.table({name: world.asks[name] for name in world.asks.column_names} | given)
    train = place_of(memory) / "train.parquet"
    pq.write_table(table, train.path, filesystem=train.filesystem)
    read = read_entity_df(f"{memory}/train.parquet")
    assert read == table
    adopted = adopt_snapshot(world.bundle, read, f"{memory}/a", labels=["paid"], rule="known", id_column="ask_id")
    assert load_snapshot(f"{memory}/a").id == adopted.id
    assert verify_snapshot(load_snapshot(f"{memory}/a"), full=True).same
    with pytest.raises(AskError, match=r"entity_df: memory://snapshots/none\.parquet: expected a Parquet file"):
        read_entity_df(f"{memory}/none.parquet")


def test_a_path_of_this_disk_is_asked_for_only_where_there_is_one(world: World, memory: str) -> None:
    """Whoever wants a folder is told that it lies elsewhere."""
    with pytest.raises(SnapshotError, match="memory://snapshots/s: expected a snapshot on a local disk"):
        _ = build(world, f"{memory}/s").path


def test_the_commands_take_uris(
    world: World, memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As flags and in skewguard.toml, which leaves them as they are."""
    monkeypatch.chdir(tmp_path)
    world.bundle.save("b.json")
    asks = place_of(memory) / "asks.parquet"
    pq.write_table(world.asks, asks.path, filesystem=asks.filesystem)
    (tmp_path / "skewguard.toml").write_text(f'[skewguard]\nbundle = "b.json"\nsnapshot = "{memory}/s"\n')
    assert main(["snapshot", "build", "--entity-df", f"{memory}/asks.parquet", "--label", "paid"]) == 0
    assert f"{memory}/s: 40 rows" in capsys.readouterr().out
    assert main(["snapshot", "verify", "--full"]) == 0
    assert main(["snapshot", "show", "--snapshot", f"{memory}/s"]) == 0
    assert main(["snapshot", "diff", "--against", f"{memory}/s"]) == 0
    assert main(["snapshot", "build", "--entity-df", f"{memory}/asks.parquet", "--snapshot", "s4://b/x"]) == 2
    assert "s4://b/x: a snapshot cannot be written there" in capsys.readouterr().err


# -- whole or not at all, where nothing can be renamed ----------------------------------------------------------------


@pytest.mark.parametrize("nth", range(4))
def test_a_filesystem_that_fails_midway_keeps_nothing(
    world: World, memory: str, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Whichever of the four files cannot be written, nothing is left, and the next attempt succeeds."""
    filesystem = type(fsspec.filesystem("memory"))
    whole, opened = filesystem.open, []

    def failing(self: Any, path: str, mode: str = "rb", **more: Any) -> Any:
        if mode == "wb":
            opened.append(path)
            if len(opened) == nth + 1:
                raise OSError(28, "No space left on device")
        return whole(self, path, mode, **more)

    with monkeypatch.context() as patched:
        patched.setattr(filesystem, "open", failing)
        with pytest.raises(
            SnapshotError, match=r"memory://snapshots/s: the snapshot could not be written.*No space left"
        ):
            build(world, f"{memory}/s")
    assert place_of(memory).names() == []
    with pytest.raises(SnapshotError, match="expected a snapshot folder"):
        load_snapshot(f"{memory}/s")
    assert build(world, f"{memory}/s").manifest.rows == 40


def test_files_of_a_killed_builder_are_no_snapshot_and_in_nobodys_way(world: World, memory: str) -> None:
    """Without a manifest nothing is opened; the next builder takes their place, but never that of something else."""
    (place_of(memory) / "s" / "rows.parquet").write(b"torn")
    with pytest.raises(SnapshotError, match=r"expected a snapshot folder with a manifest\.json"):
        load_snapshot(f"{memory}/s")
    build(world, f"{memory}/s")
    (place_of(memory) / "t" / "mine.txt").write(b"mine")
    with pytest.raises(SnapshotError, match="memory://snapshots/t exists; a snapshot is never overwritten"):
        build(world, f"{memory}/t")
    assert (place_of(memory) / "t").names() == ["mine.txt"]


def test_two_builders_of_one_place_do_not_mix(world: World, tmp_path: Path) -> None:
    """The second is told that somebody writes there, and the first ends as if it had been alone."""

    def meanwhile(*_: int) -> None:
        with pytest.raises(SnapshotError, match="s is being written by somebody else"):
            build(world, tmp_path / "s")

    first = build(world, tmp_path / "s", progress=meanwhile)
    assert first.id == build(world, tmp_path / "alone").id
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "s"]


# -- a disk that fills ------------------------------------------------------------------------------------------------

CHILD = """
import resource, signal, sys, json
import pyarrow.parquet as pq
from skewguard.definitions import load_bundle
from skewguard.errors import SnapshotError
from skewguard.snapshot import build_snapshot
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
bundle, asks, out, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    print(build_snapshot(load_bundle(bundle), pq.read_table(asks), out, labels=["paid"], id_column="ask_id").id)
except SnapshotError as error:
    print("refused:", error)
"""


def child(world: World, folder: Path, out: Path, limit: int) -> str:
    """Build in a process of its own, whose files may not grow beyond `limit` bytes (0: as large as they like)."""
    world.bundle.save(folder / "b.json")
    asks = pa.concat_tables([world.asks] * 60)
    ids = pa.array([random.randbytes(16).hex() for _ in range(len(asks))])  # which nothing makes smaller
    pq.write_table(asks.set_column(0, "ask_id", ids), folder / "asks.parquet")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, folder / "b.json", folder / "asks.parquet", out, str(limit)],
        cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 64 KiB; skipped where mounting is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=65536", "tmpfs", disk], capture_output=True, check=False
    )
    if not made or made.returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_fills_leaves_nothing(world: World, tmp_path: Path, small_disk: Path) -> None:
    """A real one: the error names folder and reason, and all of its space is free again."""
    free = shutil.disk_usage(small_disk).free
    said = child(world, tmp_path, small_disk / "s", 0)
    assert said.startswith(
        f"refused: {small_disk / 's'}: the snapshot could not be written, and nothing of it was left"
    )
    assert "No space left on device" in said
    assert list(small_disk.iterdir()) == []
    assert shutil.disk_usage(small_disk).free == free


@pytest.mark.parametrize("limit", [1, 2_000, 40_000])
def test_a_file_that_may_not_grow_leaves_nothing(world: World, tmp_path: Path, limit: int) -> None:
    """A quota on the size of a file, reached in the first bytes, in the rows, or in what is written after them."""
    out = tmp_path / "out"
    out.mkdir()
    said = child(world, tmp_path, out / "s", limit)
    assert said.startswith(f"refused: {out / 's'}: the snapshot could not be written, and nothing of it was left")
    assert "File too large" in said
    assert list(out.iterdir()) == []


# -- what cannot be read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cut off", "no Parquet", "footer only"])
def test_rows_that_are_torn_are_told_with_their_place(world: World, tmp_path: Path, kind: str) -> None:
    """When the snapshot is opened, or where only the pages are damaged, when they are read."""
    build(world, tmp_path / "s")
    file = tmp_path / "s" / "rows.parquet"
    whole = file.read_bytes()
    if kind == "footer only":  # the metadata are sound, the pages are not
        file.write_bytes(whole[:4] + bytes(400) + whole[404:])
        snapshot = load_snapshot(tmp_path / "s")
        with pytest.raises(SnapshotError, match="s: its rows cannot be read: "):
            snapshot.to_arrow()
        with pytest.raises(SnapshotError, match="s: its rows cannot be read: "):
            list(snapshot.batches())
        return
    file.write_bytes(whole[: len(whole) // 2] if kind == "cut off" else b"words")
    with pytest.raises(SnapshotError, match="s: torn, or written by another version"):
        load_snapshot(tmp_path / "s")


@pytest.mark.parametrize("kind", ["cut off", "pages", "no Parquet", "empty", "gone"])
@pytest.mark.parametrize("tree", [False, True], ids=["file", "one of many"])
def test_a_source_that_is_torn_is_named_and_leaves_nothing(tmp_path: Path, kind: str, tree: bool) -> None:
    """Cut off in the middle, with damaged pages under a sound footer, of no bytes, or not there at all."""
    world = shop(tmp_path, rows=120, asks=40)
    buyer = world.bundle.view("buyer")
    path = Path(buyer.source.path)
    if tree:
        folder = tmp_path / "tree"
        folder.mkdir()
        table = pq.read_table(path)
        for part in range(3):
            pq.write_table(table.slice(part * 40, 40), folder / f"{part}.parquet")
        path = folder / "1.parquet"
        buyer = replace(buyer, source=replace(buyer.source, path=str(folder)))
    whole = path.read_bytes()
    torn = {
        "cut off": whole[: len(whole) // 2],
        "pages": whole[:4] + b"\xff" * 600 + whole[604:],
        "no Parquet": b"x" * 100,
        "empty": b"",
    }
    if kind == "gone":
        shutil.rmtree(path.parent) if tree else path.unlink()
    else:
        path.write_bytes(torn[kind])
    views = (buyer, *world.bundle.views[1:])
    with pytest.raises(SourceError, match=r"tree" if tree else path.name):
        build_snapshot(replace(world.bundle, views=views), world.asks, tmp_path / "s", id_column="ask_id")
    assert not (tmp_path / "s").exists()
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("kind", ["cut off", "pages", "no Parquet", "gone"])
def test_asks_that_are_torn_are_told_by_their_file(
    world: World, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, the file and the reason, and nothing built."""
    world.bundle.save(tmp_path / "b.json")
    asks = tmp_path / "asks.parquet"
    pq.write_table(world.asks, asks)
    whole = asks.read_bytes()
    if kind == "gone":
        asks.unlink()
    else:
        torn = {"cut off": whole[:99], "pages": whole[:4] + bytes(300) + whole[304:], "no Parquet": b"words"}
        asks.write_bytes(torn[kind])
    flags = ["--bundle", str(tmp_path / "b.json"), "--entity-df", str(asks), "--snapshot", str(tmp_path / "s")]
    assert main(["snapshot", "build", *flags]) == 2
    assert f"entity_df: {asks}: expected a Parquet file" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_column_that_is_not_there_is_told(world: World, tmp_path: Path) -> None:
    """The unknown feature, and what there is."""
    snapshot = build(world, tmp_path / "s")
    for read in (snapshot.to_arrow, lambda names: list(snapshot.batches(names))):
        with pytest.raises(SnapshotError, match="s: no column 'buyer__speed'; it has id, event_timestamp"):
            read(["buyer__speed"])


def test_a_snapshot_that_is_a_file_is_none(tmp_path: Path) -> None:
    """And a URI that leads nowhere is told as such."""
    (tmp_path / "s").write_text("{}")
    for where in (tmp_path / "s", "memory://nowhere", "s4://bucket/s"):
        with pytest.raises(SnapshotError, match=r"expected a snapshot folder with a manifest\.json"):
            load_snapshot(where)


def test_one_manifest_makes_a_snapshot(world: World, tmp_path: Path) -> None:
    """It is the last file that is written: whatever a reader finds without it was never finished."""
    written: list[str] = []
    whole = type(place_of(tmp_path)).write

    def noted(self: Any, content: bytes) -> None:
        written.append(self.path.rpartition("/")[2])
        whole(self, content)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(place_of(tmp_path)), "write", noted)
        build(world, tmp_path / "s")
    assert written[-1] == "manifest.json"
    assert json.loads((tmp_path / "s" / "manifest.json").read_text())["rows"] == 40
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
