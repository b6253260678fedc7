"""Compaction: every row is in the log once, before, during and after, wherever it died."""

import contextlib
import datetime as dt
import errno
import itertools
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewguard.errors import LogError
from skewguard.servinglog import LogReading, ServingLog, find, read_log, reader, scan, stream, to_table
from skewguard.servinglog import segment as seg
from skewguard.servinglog.compaction import compact, locked

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("event_timestamp", pa.timestamp("us", tz="UTC")),
        pa.field("e__tail", pa.string()),
        pa.field("vector", pa.list_(pa.float64(), 2)),
        pa.field("statuses", pa.binary(3)),
        pa.field("wind", pa.float64()),
    ]
)
FIRST = dt.datetime(2024, 3, 4, 22, tzinfo=dt.UTC)


def batch(*numbers: int, schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    """A row for each number, an hour apart, of one of three tails."""
    rows = [
        {
            "id": f"r{n}",
            "event_timestamp": FIRST + dt.timedelta(hours=n),
            "e__tail": None if n % 7 == 3 else f"N{n % 3}",
            "vector": [n / 3, None],
            "statuses": bytes([n % 8, 0, 1]),
            "wind": None if n % 5 == 0 else float(n),
        }
        for n in numbers
    ]
    return pa.RecordBatch.from_pylist(rows, schema=schema)


def fill(root: Path, first: int = 0, segments: int = 3, service: str = "delay", **header: str) -> set[str]:
    """Sealed segments of three appends of two rows; the ids that are in them."""
    with ServingLog(root, service, SCHEMA, {"build": "A", **header}) as log:
        for number in range(first, first + 6 * segments, 2):
            log.append(batch(number, number + 1))
            if (number - first) % 6 == 4:
                log.seal()
    return {f"r{n}" for n in range(first, first + 6 * segments)}


def ids(reading: LogReading) -> list[str]:
    """All ids, sorted, repeated ones repeated."""
    return sorted(text for _, rows in reading.batches() for text in rows.column("id").to_pylist())


def content(reading: LogReading) -> list[str]:
    """All rows with their build, in an order of their own."""
    return sorted(map(repr, to_table(reading, header_fields=["build", "boot_id", "segment"]).to_pylist()))


# --- what goes in comes out


def test_compacted_rows_are_the_rows_that_were_logged(tmp_path: Path) -> None:
    """Every value, null and header field is as it was; whether asked by table, stream, batch or id."""
    wanted = fill(tmp_path) | fill(tmp_path, 100, build="B")
    before = read_log(tmp_path, "delay")
    expected = content(before)
    done = compact(tmp_path, "delay", grace_seconds=0)
    assert (done.segments, done.rows, done.left) == (6, 36, {})
    assert not list((tmp_path / "delay").glob("*.seg"))
    after = read_log(tmp_path, "delay")
    assert content(after) == expected
    assert (after.rows, after.damaged, after.torn_bytes) == (36, (), 0)
    assert set(ids(after)) == wanted
    assert [s.header["build"] for s, _ in find(tmp_path, "r101", "id")] == ["B"]
    ((_, row),) = find(tmp_path, "r101", "id")
    assert row.equals(batch(101))
    assert sum(len(table) for table in stream(after, ["id"], rows=2)) == 36
    assert to_table(after, ["wind", "id"]).column_names == ["wind", "id"]
    for old, new in zip(before.segments, after.segments, strict=True):
        assert (old.boot_id, old.number, dict(old.header)) == (new.boot_id, new.number, dict(new.header))
        assert sum(rows.num_rows for rows in new.batches()) == new.rows == 6
        assert new.compacted


def test_parts_lie_by_day_sorted_by_entity_and_any_parquet_reader_reads_them(tmp_path: Path) -> None:
    """`date=...` folders in UTC, each part sorted by key and then by instant, with page checksums."""
    fill(tmp_path, segments=8)
    compact(tmp_path, "delay")
    folder = tmp_path / "delay" / "parquet"
    parts = sorted(folder.rglob("*.parquet"))
    assert [part.parent.name for part in parts] == ["date=2024-03-04", "date=2024-03-05", "date=2024-03-06"]
    for part in parts:
        table = pq.ParquetFile(part).read()
        tails = table["e__tail"].to_pylist()
        keys = [
            (tail is None, tail or "", at) for tail, at in zip(tails, table["event_timestamp"].to_pylist(), strict=True)
        ]
        assert keys == sorted(keys)
        assert {f"date={at:%Y-%m-%d}" for at in table["event_timestamp"].to_pylist()} == {part.parent.name}
    assert pq.read_table(folder, filters=[("date", "=", "2024-03-05")]).num_rows == 24


def test_an_open_or_damaged_segment_is_left_as_it_lies(tmp_path: Path) -> None:
    """What a process still writes, and what is broken, is not compacted, and both stay readable as before."""
    fill(tmp_path, segments=2)
    broken, whole = sorted((tmp_path / "delay").glob("*.seg"))
    content = bytearray(broken.read_bytes())
    content[-2000] ^= 1
    broken.write_bytes(content)
    with ServingLog(tmp_path, "delay", SCHEMA, {"build": "A"}) as log:
        log.append(batch(50))
        before = ids(read_log(tmp_path))
        done = compact(tmp_path, "delay", grace_seconds=0)
        assert done.segments == 1
        assert set(done.left) == {broken.name, log.path.name if log.path else ""}
        assert broken.read_bytes() == content
        assert not whole.exists()
        reading = read_log(tmp_path)
        assert ids(reading) == before
        assert [segment.path.name for segment in reading.damaged] == [broken.name]


def test_segments_of_dead_processes_are_sealed_first(tmp_path: Path) -> None:
    """A log without a living writer is compacted whole."""
    log = ServingLog(tmp_path, "delay", SCHEMA, {})
    log.append(batch(1))
    path = log.path
    assert path is not None
    kept = path.read_bytes()
    log.close()
    path.with_suffix(".seg").rename(path)
    path.write_bytes(kept + b"torn")
    assert compact(tmp_path, "delay").rows == 1
    assert ids(read_log(tmp_path)) == ["r1"]


def test_small_parts_of_a_day_are_taken_into_the_next(tmp_path: Path) -> None:
    """A log that is compacted often does not end in many small files; large parts are left alone."""
    for first in (0, 6, 12):
        with ServingLog(tmp_path, "delay", SCHEMA, {"build": str(first)}) as log:
            log.append(batch(*(26 + (first + n) % 20 for n in range(6))))
        compact(tmp_path, "delay", small_rows=10, grace_seconds=0)
    reading = read_log(tmp_path)
    assert sorted(part.rows for part in reading.parts) == [6, 12]
    assert len(list((tmp_path / "delay" / "parquet").rglob("*.parquet"))) == 2
    assert reading.rows == 18
    assert {s.header["build"] for s, _ in reading.batches()} == {"0", "6", "12"}


def test_rows_of_another_schema_get_parts_of_their_own(tmp_path: Path) -> None:
    """Definitions that changed in between do not stop compaction; shared columns can be read together."""
    other = SCHEMA.append(pa.field("gust", pa.float32()))
    with ServingLog(tmp_path, "delay", SCHEMA, {}) as log:
        log.append(batch(30))
        log.rotate({}, other)
        log.append(batch(31, schema=other))
    compact(tmp_path, "delay", grace_seconds=0)
    reading = read_log(tmp_path)
    assert ids(reading) == ["r30", "r31"]
    with pytest.raises(LogError, match="expected no further field, got gust"):
        to_table(reading)
    assert sorted(to_table(reading, ["id"])["id"].to_pylist()) == ["r30", "r31"]


def test_a_log_without_event_timestamps_goes_by_the_day_of_its_segments(tmp_path: Path) -> None:
    """Any schema can be compacted."""
    schema = pa.schema([("request_id", pa.string())])
    with ServingLog(tmp_path, "s", schema, {}) as log:
        log.append(pa.RecordBatch.from_pylist([{"request_id": "a"}, {"request_id": None}], schema=schema))
    compact(tmp_path, "s", grace_seconds=0)
    (part,) = read_log(tmp_path).parts
    assert part.path.startswith(f"date={dt.datetime.now(dt.UTC):%Y-}")
    assert to_table(read_log(tmp_path)).to_pylist() == [{"request_id": "a"}, {"request_id": None}]


def test_compacted_files_stay_for_readers_that_have_them_open(tmp_path: Path) -> None:
    """Within the grace a reading taken before the compaction can still be gone through; nothing is read twice."""
    fill(tmp_path)
    before = read_log(tmp_path)
    compact(tmp_path, "delay")
    assert len(list((tmp_path / "delay").glob("*.seg"))) == 3
    assert ids(before) == ids(read_log(tmp_path))
    assert compact(tmp_path, "delay", grace_seconds=0).removed == 3
    with pytest.raises(LogError, match="Read the log again"):
        ids(before)


def test_a_log_compacted_while_it_is_read_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit between the look at the manifest and the look at the segments does not double or lose a row."""
    wanted = fill(tmp_path)
    looks = iter([True])

    def late(*arguments: Any) -> list[Path]:
        if next(looks, False):
            compact(tmp_path, "delay", grace_seconds=0)
        return seg_paths(*arguments)

    seg_paths = scan.segment_paths
    monkeypatch.setattr(reader, "segment_paths", late)
    assert ids(read_log(tmp_path)) == sorted(wanted)


# --- elsewhere


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_parts_go_to_any_filesystem(tmp_path: Path, kind: str) -> None:
    """The archive may lie in a bucket: the folder remembers where, and others read it by its URI."""
    to = f"file://{tmp_path}/archive" if kind == "file" else f"memory://{tmp_path.name}"
    wanted = fill(tmp_path / "log")
    expected = content(read_log(tmp_path / "log"))
    compact(tmp_path / "log", "delay", to=to, grace_seconds=0)
    assert not (tmp_path / "log" / "delay" / "parquet").exists()
    wanted |= fill(tmp_path / "log", 60)
    assert ids(read_log(tmp_path / "log")) == sorted(wanted)
    assert content(read_log(to, "delay")) == expected == content(read_log(to))
    compact(tmp_path / "log", "delay", grace_seconds=0)
    assert ids(read_log(to)) == sorted(wanted)
    with pytest.raises(LogError, match="its archive is"):
        compact(tmp_path / "log", "delay", to=tmp_path / "elsewhere")
    with pytest.raises(LogError, match="expected the archive of a serving log"):
        read_log(to, "nobody")


@pytest.mark.parametrize("to", ["nosuch://bucket", "file/in/the/way", "s3://"])
def test_a_place_that_cannot_be_written_is_not_remembered(tmp_path: Path, to: str) -> None:
    """A slip in `--to` costs an error, not the log: it is read as before, and goes elsewhere the next time."""
    wanted = fill(tmp_path / "log")
    (tmp_path / "file").touch()
    with pytest.raises(LogError, match="compaction stopped"):
        compact(tmp_path / "log", "delay", to=tmp_path / to if "://" not in to else to)
    assert ids(read_log(tmp_path / "log")) == sorted(wanted)
    compact(tmp_path / "log", "delay", to=tmp_path / "archive", grace_seconds=0)
    assert ids(read_log(tmp_path / "log")) == sorted(wanted)


def test_a_relative_archive_is_found_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the log has another working directory than who compacted it."""
    wanted = fill(tmp_path / "log")
    monkeypatch.chdir(tmp_path)
    compact("log", "delay", to="archive", grace_seconds=0)
    monkeypatch.chdir("/")
    assert ids(read_log(tmp_path / "log")) == sorted(wanted)
    compact(tmp_path / "log", "delay", to=tmp_path / "archive")


def test_an_archive_that_lost_its_manifest_is_an_error(tmp_path: Path) -> None:
    """A bucket that was emptied, or is another one, is not a log with fewer rows."""
    fill(tmp_path / "log")
    to = f"memory://{tmp_path.name}"
    compact(tmp_path / "log", "delay", to=to, grace_seconds=0)
    memory = fsspec.filesystem("memory")
    memory.rm(f"/{tmp_path.name}", recursive=True)
    for use in (lambda: read_log(tmp_path / "log"), lambda: compact(tmp_path / "log", "delay")):
        with pytest.raises(LogError, match="nobody knows which rows were compacted"):
            use()


def test_whatever_a_filesystem_raises_is_the_logs_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket's client has errors of its own; every row stays where it was."""
    wanted = fill(tmp_path / "log")
    memory = type(fsspec.filesystem("memory"))

    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("403: not yours")

    with monkeypatch.context() as patch:
        patch.setattr(memory, "_open", refused)
        with pytest.raises(LogError, match="403: not yours"):
            compact(tmp_path / "log", "delay", to=f"memory://{tmp_path.name}", grace_seconds=0)
    assert ids(read_log(tmp_path / "log")) == sorted(wanted)


def test_two_hosts_share_one_archive(tmp_path: Path) -> None:
    """Each folder has its own manifest: neither compaction takes the other's parts for strays."""
    to = f"memory://{tmp_path.name}"
    wanted = fill(tmp_path / "host1", 0) | fill(tmp_path / "host2", 100)
    for _ in range(2):
        for host in ("host1", "host2"):
            compact(tmp_path / host, "delay", to=to, grace_seconds=0)
    assert ids(read_log(to)) == sorted(wanted)
    assert fsspec.filesystem("memory").exists(f"/{tmp_path.name}/delay")


# --- what goes wrong

STEPS = """
import json, os, shutil, sys
import pyarrow as pa
import pyarrow.fs, pyarrow.parquet
from pathlib import Path
from skewguard.place import Place
from skewguard.servinglog import archive, read_log
from skewguard.servinglog.compaction import compact

source, work, small = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def in_child(run):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, json.dumps(run()).encode())
            os._exit(0)
        except BaseException as error:
            os.write(write, json.dumps(repr(error)).encode())
            os._exit(1)
    os.close(write)
    said = os.fdopen(read).read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, json.loads(said or "null")

def dying_at(step):
    left = [step]
    def tick():
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
    def wrapped(function):
        def call(*args, **kwargs):
            tick()
            return function(*args, **kwargs)
        return call
    os.fsync = wrapped(os.fsync)
    Path.rename = wrapped(Path.rename)
    Path.unlink = wrapped(Path.unlink)
    Place.delete = wrapped(Place.delete)
    def torn(file, write, put=archive.put):
        with file.local.with_name(file.local.name + ".new").open("wb") as stream:
            stream.write(b"PAR1 half a file")
        tick()
        put(file, write)
    archive.put = torn
    compact(work, "delay", small_rows=small, grace_seconds=0)

def look():
    reading = read_log(work)
    return sorted(t for _, b in reading.batches() for t in b.column("id").to_pylist()), len(reading.damaged)

def finish():
    return compact(work, "delay", small_rows=small, grace_seconds=0).rows

step = 0
while True:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work)
    code, said = in_child(lambda: dying_at(step))
    assert code in (0, 9), said
    finished, (seen, again, after) = in_child(lambda: (look(), finish(), look()))
    assert finished == 0
    files = sorted(str(p.relative_to(work)) for p in work.rglob("*") if p.is_file())
    print(json.dumps([step, code, seen, again, after, files]))
    if code == 0:
        break
    step += 1
"""


def test_a_compaction_killed_at_every_step_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Before every sync, rename, removal and half-written file: the rows are there once, and the next run
    finishes the work and leaves no stray."""
    source = tmp_path / "log"
    wanted = fill(source, 0, segments=1)
    compact(source, "delay", grace_seconds=0)  # a small part to be merged, too
    wanted |= fill(source, 2, segments=2) | fill(source, 30, segments=1)
    rows = 6 + 12 + 6
    done = subprocess.run(
        [sys.executable, "-c", STEPS, str(source), str(tmp_path / "work"), "1000"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) > 15
    for step, _, (seen, damaged), _, (after, _), files in lines:
        assert (len(seen), set(seen), damaged) == (rows, wanted, 0), step
        assert after == seen == sorted(seen), step
        assert not [name for name in files if name.endswith((".seg", ".new"))], step
        assert len([name for name in files if name.endswith(".parquet")]) == len(lines[-1][-1]) - 3, (step, files)


def test_a_compaction_killed_at_any_time_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """The same with kill -9 from outside, in a log that grows meanwhile."""
    code = textwrap.dedent("""
        import sys
        from skewguard.servinglog.compaction import compact
        sys.stdout.write("ready\\n"); sys.stdout.flush()
        while True:
            compact(sys.argv[1], "delay", part_rows=12, small_rows=20, grace_seconds=0)
    """)
    wanted: set[str] = set()
    for number in range(5):
        wanted |= fill(tmp_path, number * 100, segments=8)
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.01 + 0.05 * number)
            process.send_signal(signal.SIGKILL)
        assert ids(read_log(tmp_path)) == sorted(wanted)
    compact(tmp_path, "delay", grace_seconds=0)
    assert ids(read_log(tmp_path)) == sorted(wanted)


def test_what_a_dead_compaction_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """Whole and half parts of this folder that no manifest names; another folder's stay."""
    wanted = fill(tmp_path)
    compact(tmp_path, "delay", grace_seconds=0)
    parquet = tmp_path / "delay" / "parquet"
    part = next(parquet.rglob("*.parquet"))
    origin = part.name.partition("-")[0]
    for name in (
        f"{origin}-00000099-000.parquet",
        f"{origin}-00000099-001.parquet.new",
        "ffffffff-00000001-000.parquet",
    ):
        shutil.copy(part, part.with_name(name))
    assert compact(tmp_path, "delay", grace_seconds=0).removed == 2
    assert part.with_name("ffffffff-00000001-000.parquet").exists()
    assert ids(read_log(tmp_path)) == sorted(wanted)


def test_parts_are_on_the_disk_before_a_manifest_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And both before their segments go: a machine that loses its power has one or the other."""
    fill(tmp_path)
    done: list[tuple[str, int | str]] = []
    fsync, rename, unlink = os.fsync, Path.rename, Path.unlink

    def renamed(path: Path, target: Path) -> Path:
        done.append(("name", path.stat().st_ino))
        return rename(path, target)

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        done.append(("gone", path.suffix))
        unlink(path, missing_ok)

    def synced(fd: int) -> None:
        done.append(("sync", os.fstat(fd).st_ino))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(Path, "unlink", unlinked)
    compact(tmp_path, "delay", grace_seconds=0)
    for i, (what, inode) in enumerate(done):
        assert what != "name" or done[i - 1] == ("sync", inode), i
    gone = [i for i, (what, _) in enumerate(done) if what == "gone"]
    assert [suffix for what, suffix in done if what == "gone"] == [".seg"] * 3
    assert min(gone) > max(i for i, (what, _) in enumerate(done) if what != "gone")


def test_two_compactions_do_not_meet(tmp_path: Path) -> None:
    """The second says so and does nothing."""
    wanted = fill(tmp_path)
    with locked(tmp_path / "delay"), pytest.raises(LogError, match="another compaction"):
        compact(tmp_path, "delay")
    assert ids(read_log(tmp_path)) == sorted(wanted)


@pytest.mark.parametrize("harm", ["gone", "torn", "flipped"])
def test_a_part_that_is_gone_or_damaged_is_an_error(tmp_path: Path, harm: str) -> None:
    """Rows of the archive are not silently fewer or other."""
    fill(tmp_path, segments=1)
    compact(tmp_path, "delay", grace_seconds=0)
    part = next((tmp_path / "delay" / "parquet").rglob("*.parquet"))
    content = bytearray(part.read_bytes())
    content[60] ^= 255
    if harm == "gone":
        part.unlink()
    else:
        part.write_bytes(content[:-9] if harm == "torn" else content)
    with pytest.raises(LogError, match="cannot be read"):
        to_table(read_log(tmp_path))


def test_no_flipped_bit_of_a_part_is_read_as_a_value(tmp_path: Path) -> None:
    """One wrong bit anywhere in the pages of a part is an error: Parquet's own compression would not notice."""
    with ServingLog(tmp_path, "delay", SCHEMA, {"build": "A"}) as log:
        log.append(batch(*range(3)))
    compact(tmp_path, "delay", grace_seconds=0)
    part = next((tmp_path / "delay" / "parquet").rglob("*.parquet"))
    whole, wanted = part.read_bytes(), content(read_log(tmp_path))
    pages = len(whole) - 8 - struct.unpack("<I", whole[-8:-4])[0]  # before the footer
    pick = random.Random(5)
    for at in range(4, pages, 7):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << pick.randrange(8)
        part.write_bytes(flipped)
        with contextlib.suppress(LogError):
            assert content(read_log(tmp_path)) == wanted, at


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_compaction_refused_at_every_step_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A file system that refuses any one write, sync or rename is an error; rows are there once, before and after the
    next run."""
    source, log = tmp_path / "source", tmp_path / "log"
    wanted = fill(source, 0, segments=1)
    compact(source, "delay", grace_seconds=0)
    wanted |= fill(source, 2, segments=2)
    rows = 18
    for step in itertools.count():
        shutil.rmtree(log, ignore_errors=True)
        shutil.copytree(source, log)
        left = [step]

        def refusing(function: Any, left: list[int] = left) -> Any:
            def call(*arguments: Any, **named: Any) -> Any:
                left[0] -= 1
                if left[0] == -1:
                    raise OSError(number, os.strerror(number))
                return function(*arguments, **named)

            return call

        with monkeypatch.context() as patch:
            for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "unlink"), (pq, "write_table"), (Path, "open")):
                patch.setattr(owner, name, refusing(getattr(owner, name)))
            with contextlib.suppress(LogError):  # and no other error
                compact(log, "delay", small_rows=1000, grace_seconds=0)
        assert (len(ids(read_log(log))), set(ids(read_log(log)))) == (rows, wanted), step
        compact(log, "delay", small_rows=1000, grace_seconds=0)
        assert (len(ids(read_log(log))), set(ids(read_log(log)))) == (rows, wanted), step
        assert not list((log / "delay").rglob("*.new")), step
        if left[0] >= 0:
            break
    assert step > 15


def test_a_manifest_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Without it nobody knows what counts."""
    fill(tmp_path)
    compact(tmp_path, "delay")
    (manifest,) = (tmp_path / "delay" / "parquet").glob("_manifest-*.json")
    whole = manifest.read_text()
    for wrong, words in (
        (whole[:-5], "expected the manifest"),
        (whole.replace('"format":1', '"format":9'), "format 1"),
    ):
        manifest.write_text(wrong)
        with pytest.raises(LogError, match=words):
            read_log(tmp_path)
        with pytest.raises(LogError, match=words):
            compact(tmp_path, "delay")
    manifest.write_text(whole)
    assert read_log(tmp_path).rows == 18


def test_a_folder_that_cannot_be_written_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full or read-only archive stops the compaction with an error, and every row is where it was."""
    wanted = fill(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(seg, "sync_folder", full)
        with pytest.raises(LogError, match="No space left"):
            compact(tmp_path, "delay")
    assert ids(read_log(tmp_path)) == sorted(wanted)
    compact(tmp_path, "delay", grace_seconds=0)
    assert ids(read_log(tmp_path)) == sorted(wanted)
    shutil.rmtree(tmp_path / "delay")
