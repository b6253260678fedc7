"""The serving log: what is acknowledged is in it, what is torn is not, and nothing is in it twice."""

import contextlib
import datetime as dt
import errno
import functools
import itertools
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skewguard.errors import LogError
from skewguard.servinglog import LogReading, Segment, ServingLog, appending, find, read_log, recover, segment, to_table

ROOT = Path(__file__).resolve().parents[1]
KILLS = 8
THREADS = 2

SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string()),
        pa.field("request_ts", pa.timestamp("us", tz="UTC")),
        pa.field("weather__wind", pa.float64()),
        pa.field("plane__seats", pa.int64()),
        pa.field("vector", pa.list_(pa.float64())),
        pa.field("late", pa.bool_()),
    ]
)
NARROW = pa.schema([("request_id", pa.string()), ("value", pa.float64())])


def rows(*ids: str, schema: pa.Schema = NARROW) -> pa.RecordBatch:
    """One batch with a row for each id."""
    return pa.RecordBatch.from_pylist([{"request_id": text, "value": len(text) / 3} for text in ids], schema=schema)


def open_log(root: Path, *, service: str = "delay", schema: pa.Schema = NARROW, **options: Any) -> ServingLog:
    """A log with a header that says little."""
    return ServingLog(root, service, schema, {"build": "A"}, **options)


def ids(reading: LogReading) -> list[str]:
    """The request ids in the order of reading."""
    return [text for _, batch in reading.batches() for text in batch.column("request_id").to_pylist()]


def only(reading: LogReading) -> Segment:
    """The log's one segment."""
    (segment,) = reading.segments
    return segment


def abandoned(root: Path, *appends: tuple[str, ...]) -> tuple[Path, list[int]]:
    """An open segment whose owner died, and where each of its frames begins (the header's first), then its end."""
    log = open_log(root)
    starts = [0]
    path = log.path
    assert path is not None
    for batch in appends:
        starts.append(path.stat().st_size)
        log.append(rows(*batch))
    starts.append(path.stat().st_size)
    kept = path.read_bytes()
    log.close()
    path.with_suffix(".seg").unlink()
    path.write_bytes(kept)
    return path, starts


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file of this process may grow beyond `limit` bytes; the kernel writes what still fits and then refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def wait_for_bytes(path: Path, seconds: float = 30.0) -> None:
    """Wait until something stands in the file."""
    deadline = time.monotonic() + seconds
    while not path.stat().st_size:
        assert time.monotonic() < deadline, f"nothing came into {path}"
        time.sleep(0.01)


# Arrays from buffers: pa.array would import pandas, and these processes are to start quickly.
PRELUDE = """
import os, struct, sys, threading, time
import pyarrow as pa
from skewguard.errors import LogError
from skewguard.servinglog import ServingLog, find, read_log, recover, to_table

SCHEMA = pa.schema([("request_id", pa.string())])

def row(name):
    text = name.encode()
    offsets = pa.py_buffer(struct.pack("<ii", 0, len(text)))
    return pa.RecordBatch.from_arrays([pa.StringArray.from_buffers(1, offsets, pa.py_buffer(text))], schema=SCHEMA)
"""


def python(code: str, *arguments: object, **options: Any) -> "subprocess.Popen[bytes]":
    """A process of its own that runs `code` after the prelude."""
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **options)


# --- what goes in comes out


def test_rows_come_back_as_they_were_appended(tmp_path: Path) -> None:
    """Nulls, unicode, instants, lists and batches without rows survive the log bit for bit and in order."""
    instant = dt.datetime(2013, 11, 12, 9, 0, 0, 123456, tzinfo=dt.UTC)
    first = pa.RecordBatch.from_pylist(
        [
            {"request_id": "Zürich-日本-🛫", "request_ts": instant, "weather__wind": -0.0, "plane__seats": 2**53 + 1},
            {"request_id": None, "vector": [1.5, None, float("nan")], "late": True},
            {"request_id": "", "vector": [], "late": False, "weather__wind": float("inf")},
        ],
        schema=SCHEMA,
    )
    nothing = first.slice(0, 0)
    with open_log(tmp_path, schema=SCHEMA) as log:
        for batch in (first, nothing, first.slice(1, 1)):
            log.append(batch)
    reading = read_log(tmp_path, "delay")
    got = [batch for _, batch in reading.batches()]
    assert [batch.num_rows for batch in got] == [3, 0, 1]
    assert [batch.schema for batch in got] == [SCHEMA] * 3
    for batch, expected in zip(got, (first, nothing, first.slice(1, 1)), strict=True):
        batch.validate(full=True)
        assert batch.serialize().equals(expected.serialize())
    assert (reading.rows, reading.torn_bytes, reading.damaged) == (4, 0, ())


def test_the_header_is_read_with_what_the_log_adds(tmp_path: Path) -> None:
    """A segment says which build wrote it, in which process, since when, and with which schema."""
    header = {"build": "B", "model_digest": "sha256:ab", "host": 'a"\\\n\ud800'}
    with ServingLog(tmp_path, "delay", SCHEMA, header) as log:
        path = log.path
        assert path is not None
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.name == f"{log.boot_id}-000000.open"
    segment = only(read_log(tmp_path))
    own = {"format": "2", "service": "delay", "boot_id": log.boot_id, "segment": "0", "pid": str(os.getpid())}
    assert {name: segment.header[name] for name in [*own, *header]} == own | header
    started = dt.datetime.fromisoformat(segment.header["started_at"])
    assert abs(dt.datetime.now(dt.UTC) - started) < dt.timedelta(minutes=5)
    assert segment.schema.equals(SCHEMA)
    assert (segment.service, segment.boot_id, segment.number) == ("delay", log.boot_id, 0)
    assert (segment.sealed, segment.owned, segment.rows) == (True, False, 0)


VALUES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.float64(), st.floats()),
    (pa.float32(), st.floats(width=32)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    (pa.bool_(), st.booleans()),
    (pa.string(), st.text()),
    (pa.binary(16), st.binary(min_size=16, max_size=16)),
    (pa.timestamp("us", tz="UTC"), st.integers(-(2**60), 2**60)),
    (pa.list_(pa.float64()), st.lists(st.none() | st.floats(), max_size=4)),
]


@st.composite
def appends(draw: st.DrawFn) -> list[pa.RecordBatch]:
    """A few batches of one schema, some of them slices of a larger batch."""
    columns = draw(st.lists(st.sampled_from(range(len(VALUES))), min_size=1, max_size=6))
    schema = pa.schema([(f"c{i}", VALUES[kind][0]) for i, kind in enumerate(columns)])
    batches = []
    for count in draw(st.lists(st.integers(0, 20), min_size=1, max_size=5)):
        arrays = [
            pa.array(draw(st.lists(st.none() | VALUES[kind][1], min_size=count, max_size=count)), VALUES[kind][0])
            for kind in columns
        ]
        start = draw(st.integers(0, count))
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema).slice(start))
    return batches


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(batches=appends(), segment_bytes=st.sampled_from([1, 2000, 2**20]))
def test_any_rows_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, batches: list[pa.RecordBatch], segment_bytes: int
) -> None:
    """Whatever the types and wherever segments end, what is read equals what was appended."""
    root = tmp_path_factory.mktemp("log")
    with ServingLog(root, "s", batches[0].schema, {}, segment_bytes=segment_bytes) as log:
        for batch in batches:
            log.append(batch)
    got = [batch for _, batch in read_log(root).batches()]
    assert [batch.serialize().to_pybytes() for batch in got] == [b.serialize().to_pybytes() for b in batches]
    shutil.rmtree(root)


def test_a_reader_sees_the_rows_of_a_segment_that_is_still_open(tmp_path: Path) -> None:
    """What has been appended is readable at once, and reading leaves the live writer alone."""
    with open_log(tmp_path) as log:
        log.append(rows("a", "b"))
        before = read_log(tmp_path)
        segment = only(before)
        assert (segment.sealed, segment.owned, segment.torn_bytes, segment.damaged) == (False, True, 0, False)
        log.append(rows("c"))
        assert ids(before) == ["a", "b"]
        assert ids(read_log(tmp_path)) == ["a", "b", "c"]
    assert ids(before) == ["a", "b"], "a segment that is sealed after it was read is found under its new name"


def test_threads_share_one_log(tmp_path: Path) -> None:
    """Rows of many threads are all in the log, each thread's in its own order, across rotations."""

    def serve(name: str) -> None:
        for i in range(100):
            log.append(rows(f"{name}.{i}"))

    with open_log(tmp_path, segment_bytes=20_000) as log:
        threads = [threading.Thread(target=serve, args=(str(n),)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    reading = read_log(tmp_path)
    assert len(reading.segments) > 5
    got = ids(reading)
    assert [text for text in got if text.startswith("3.")] == [f"3.{i}" for i in range(100)]
    assert sorted(got) == sorted(f"{n}.{i}" for n in range(6) for i in range(100))


def test_two_processes_log_side_by_side(tmp_path: Path) -> None:
    """Each process writes segments of its own; a reader sees both, process by process in a fixed order."""
    code = """
        root, build = sys.argv[1:]
        with ServingLog(root, "delay", SCHEMA, {"build": build}) as log:
            for i in range(200):
                log.append(row(f"{build}.{i}"))
    """
    for process in [python(code, tmp_path, build) for build in "AB"]:
        assert process.wait(timeout=60) == 0
    reading = read_log(tmp_path, "delay")
    assert [segment.boot_id for segment in reading.segments] == sorted(s.boot_id for s in reading.segments)
    expected = [f"{segment.header['build']}.{i}" for segment in reading.segments for i in range(200)]
    assert len(expected) == 400
    assert ids(reading) == expected == ids(read_log(tmp_path))


# --- segments


def test_a_full_segment_is_followed_by_another(tmp_path: Path) -> None:
    """The append that would take a segment beyond its size goes into the next; one larger than that fits alone."""
    long = random.Random(3).randbytes(5000).hex()
    with open_log(tmp_path, segment_bytes=4096) as log:
        for i in range(30):
            log.append(rows(f"r{i}"))
        log.append(rows(long))
        log.append(rows("last"))
    reading = read_log(tmp_path)
    assert [segment.number for segment in reading.segments] == list(range(len(reading.segments)))
    assert all(segment.sealed and segment.rows for segment in reading.segments)
    assert [s.rows for s in reading.segments if s.size > 4096] == [1]
    assert ids(reading) == [*(f"r{i}" for i in range(30)), long, "last"]


def test_an_old_segment_is_followed_by_another(tmp_path: Path) -> None:
    """An append after the segment's time begins the next; a segment without rows stays."""
    with open_log(tmp_path, segment_seconds=0.05) as log:
        time.sleep(0.06)
        log.append(rows("a"))
        log.append(rows("b"))
        time.sleep(0.06)
        log.append(rows("c"))
    assert [segment.rows for segment in read_log(tmp_path).segments] in ([2, 1], [1, 1, 1])
    assert ids(read_log(tmp_path)) == ["a", "b", "c"]


def test_rotation_brings_another_header_and_schema(tmp_path: Path) -> None:
    """After a model swap rows stand under the new model's header, and a failed swap changes nothing."""
    with open_log(tmp_path) as log:
        log.append(rows("a"))
        with pytest.raises(LogError, match="build"):
            log.rotate({"build": 2})  # type: ignore[dict-item]
        log.append(rows("b"))
        log.rotate({"build": "B"})
        log.append(rows("c"))
        log.rotate({"build": "C"}, SCHEMA)
        assert log.schema.equals(SCHEMA)
        log.append(rows("d", schema=SCHEMA))
    got = [(s.header["build"], b.column("request_id").to_pylist()) for s, b in read_log(tmp_path).batches()]
    assert got == [("A", ["a"]), ("A", ["b"]), ("B", ["c"]), ("C", ["d"])]


def test_a_sealed_log_goes_on_and_a_closed_one_refuses(tmp_path: Path) -> None:
    """seal ends a segment, close ends the log; both leave only sealed segments."""
    log = open_log(tmp_path)
    log.append(rows("a"))
    log.seal()
    assert log.path is None
    assert only(read_log(tmp_path)).sealed
    log.append(rows("b"))
    log.close()
    log.close()
    calls: list[Callable[[], None]] = [lambda: log.append(rows("c")), lambda: log.rotate({}), log.seal, log.check]
    for refused in calls:
        with pytest.raises(LogError, match="closed"):
            refused()
    assert not log.writable
    assert [segment.sealed for segment in read_log(tmp_path).segments] == [True, True]
    assert ids(read_log(tmp_path)) == ["a", "b"]


def test_a_batch_of_another_schema_is_refused(tmp_path: Path) -> None:
    """A batch that the segment's schema would not explain is not logged, and the error names the field."""
    other = pa.schema([("request_id", pa.string()), ("value", pa.float32())])
    with open_log(tmp_path) as log:
        with pytest.raises(LogError, match=r"value: expected double, got float"):
            log.append(rows("a", schema=other))
        with pytest.raises(LogError, match=r"field 1: expected value \(double\), got no further field"):
            log.append(rows("a").select(["request_id"]))
        log.append(rows("b").replace_schema_metadata({"note": "metadata is no difference"}))
    assert ids(read_log(tmp_path)) == ["b"]


@pytest.mark.parametrize(
    ("schema", "header", "service", "options", "message"),
    [
        (pa.schema([("c", pa.dictionary(pa.int32(), pa.string()))]), {}, "s", {}, "c: expected a plain type"),
        (pa.schema([("c", pa.list_(pa.dictionary(pa.int8(), pa.string())))]), {}, "s", {}, "c: expected a plain"),
        (pa.schema([("c", pa.int8()), ("c", pa.int8())]), {}, "s", {}, "every name once, got c"),
        (NARROW, {"build": None}, "s", {}, "'build': None"),
        (NARROW, {"pid": "1"}, "s", {}, "pid"),
        (NARROW, {}, "../s", {}, r"'\.\./s'"),
        (NARROW, {}, "", {}, "''"),
        (NARROW, {}, "s", {"durability": "queue"}, "'queue'"),
    ],
)
def test_what_could_not_be_read_back_is_refused_at_once(
    tmp_path: Path, schema: pa.Schema, header: Any, service: str, options: Any, message: str
) -> None:
    """A schema, header, name or promise that the log cannot keep is an error before the first row."""
    with pytest.raises(LogError, match=message):
        ServingLog(tmp_path / "log", service, schema, header, **options)
    assert not list(tmp_path.rglob("*.*"))


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    """Without a segment there is no log: the error comes from opening it, not from the first request."""
    (tmp_path / "delay").write_text("a file where the folder should be")
    with pytest.raises(LogError, match="could not be begun"):
        open_log(tmp_path)


# --- torn, flipped, foreign


def test_a_tail_torn_at_any_byte_leaves_exactly_the_earlier_frames(tmp_path: Path) -> None:
    """Wherever the last append broke off, every earlier one is read, the rest counted, and recovery cuts it off."""
    path, starts = abandoned(tmp_path, ("a", "b"), ("c",), ("d",))
    whole = path.read_bytes()
    last, end = starts[-2:]
    for cut in range(last, end):
        path.write_bytes(whole[:cut])
        reading = read_log(tmp_path)
        assert ids(reading) == ["a", "b", "c"], cut
        segment = only(reading)
        assert (segment.torn_bytes, segment.damaged, segment.size) == (cut - last, False, last)
    (sealed,) = recover(tmp_path, "delay")
    assert (sealed.sealed, sealed.torn_bytes, sealed.damaged, sealed.rows) == (True, 0, False, 3)
    assert path.with_suffix(".seg").read_bytes() == whole[:last]
    assert ids(read_log(tmp_path)) == ["a", "b", "c"]
    assert recover(tmp_path) == ()


def test_a_tail_of_zeros_or_noise_is_torn_too(tmp_path: Path) -> None:
    """Blocks that the file system left empty or filled with something else never pass for rows."""
    path, _ = abandoned(tmp_path, ("a",))
    whole = path.read_bytes()
    for tail in (bytes(5000), random.Random(7).randbytes(5000), whole[-40:], whole[:200], segment._MAGIC * 9):
        path.write_bytes(whole + tail)
        reading = read_log(tmp_path)
        assert (ids(reading), reading.torn_bytes, reading.damaged) == (["a"], len(tail), ())


def test_a_header_torn_at_any_byte_leaves_no_rows_and_says_so(tmp_path: Path) -> None:
    """A segment whose header is not whole has no rows anybody could explain: damaged, not an error."""
    path, starts = abandoned(tmp_path, ("a",))
    whole = path.read_bytes()
    for cut in range(starts[1]):
        path.write_bytes(whole[:cut])
        reading = read_log(tmp_path)
        only_one = only(reading)
        assert (ids(reading), only_one.torn_bytes, only_one.damaged) == ([], cut, True)
        assert (only_one.header, only_one.schema) == ({}, pa.schema([]))
    assert to_table(reading).num_rows == 0


def test_no_flipped_bit_is_read_as_a_value(tmp_path: Path) -> None:
    """One wrong bit anywhere ends the segment there; the frames before it are read, and later ones are missed."""
    path, starts = abandoned(tmp_path, ("a", "b"), ("c",), ("d",))
    whole = path.read_bytes()
    appended = [["a", "b"], ["c"], ["d"]]
    pick = random.Random(11)
    for at in range(len(whole)):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << pick.randrange(8)
        path.write_bytes(flipped)
        if at == 4:  # the format byte: nobody can know what another format would mean by the rest
            with pytest.raises(LogError, match="expected format 1 to 2"):
                read_log(tmp_path)
            continue
        before = sum(start <= at for start in starts[1:])
        reading = read_log(tmp_path)
        kept = appended[: before - 1] if before else []
        assert ids(reading) == [text for batch in kept for text in batch], at
        # Behind a tail nothing is lost that was acknowledged; behind a broken middle there is.
        assert bool(reading.damaged) == (at < starts[-2]), at


def test_recovery_destroys_no_whole_frame(tmp_path: Path) -> None:
    """A segment with a broken middle is sealed as it lies, and stays known as damaged."""
    path, starts = abandoned(tmp_path, ("a",), ("b",), ("c",))
    broken = bytearray(path.read_bytes())
    broken[starts[2] + 50] ^= 1
    path.write_bytes(broken)
    (sealed,) = recover(tmp_path)
    assert sealed.path.read_bytes() == broken
    reading = read_log(tmp_path)
    assert (ids(reading), reading.damaged) == (["a"], (sealed,))


def test_a_frame_that_is_missing_or_there_twice_ends_the_segment(tmp_path: Path) -> None:
    """Rows are neither skipped over nor counted twice when a file was cut or copied together wrongly."""
    path, (_, first, second, third, _) = abandoned(tmp_path, ("a",), ("b",), ("c",))
    whole = path.read_bytes()
    for wrong in (whole[:second] + whole[third:], whole[:second] + whole[first:]):
        path.write_bytes(wrong)
        reading = read_log(tmp_path)
        assert (ids(reading), reading.damaged) == (["a"], reading.segments)


def test_a_sealed_segment_without_its_end_is_damaged(tmp_path: Path) -> None:
    """Sealing leaves whole frames only: where the last one is torn, an acknowledged row is lost."""
    with open_log(tmp_path) as log:
        log.append(rows("a"))
    path = only(read_log(tmp_path)).path
    path.write_bytes(path.read_bytes()[:-1])
    assert only(read_log(tmp_path)).damaged


def test_frames_of_another_segment_do_not_pass_for_rows(tmp_path: Path) -> None:
    """A whole frame that an earlier segment left in the file's blocks is not read as a row of this one."""
    one, starts = abandoned(tmp_path / "1", ("a",), ("old",))
    other, other_starts = abandoned(tmp_path / "2", ("b",))
    other.write_bytes(other.read_bytes() + one.read_bytes()[starts[2] :])
    reading = read_log(tmp_path / "2")
    assert (ids(reading), only(reading).size) == (["b"], other_starts[-1])


def test_large_frames_are_compressed_as_it_is_documented(tmp_path: Path) -> None:
    """A reader that knows the description decompresses a frame; a torn or flipped one is not read."""
    batch = rows(*(f"request {i}" for i in range(200)))
    with open_log(tmp_path) as log:
        log.append(batch)
    segment_of = only(read_log(tmp_path))
    content = segment_of.path.read_bytes()
    start = segment_of.size - struct.unpack_from("<Q", content, content.rindex(b"\x9eSKW") + 8)[0] - 32
    assert content[start + 5] == 3
    size, length = struct.unpack_from("<QQ", content, start + 32)
    message = pa.Codec("lz4_raw").decompress(content[start + 48 : start + 48 + length], size)
    assert pa.ipc.read_record_batch(message, NARROW).equals(batch)
    assert len(content) - start < 0.7 * batch.serialize().size
    assert len(find(tmp_path, "request 77")) == 1
    for at in range(start, len(content), 7):
        broken = bytearray(content)
        broken[at] ^= 1
        segment_of.path.write_bytes(broken)
        assert (read_log(tmp_path).rows, len(read_log(tmp_path).damaged)) == (0, 1)


def test_a_kind_of_frame_from_the_future_is_an_error(tmp_path: Path) -> None:
    """A whole frame that this version cannot explain is not skipped; recovery leaves its segment alone."""
    path, _ = abandoned(tmp_path, ("a",))
    content = path.read_bytes()
    seed = only(read_log(tmp_path)).seed
    path.write_bytes(content + segment.head(9, 2, 0, 8, segment.checksum(bytes(8)), seed) + bytes(8))
    with pytest.raises(LogError, match="kind 9"):
        read_log(tmp_path)
    assert recover(tmp_path) == ()
    assert path.exists()


def test_the_bytes_are_the_ones_that_are_documented(tmp_path: Path) -> None:
    """A reader written from the description alone finds every frame, so the format cannot drift unnoticed."""
    path, starts = abandoned(tmp_path, ("a", "b"), ("c",))
    content = path.read_bytes()
    seed, found = b"", []
    for start, end in itertools.pairwise(starts):
        magic, form, kind, zero, size, count, sequence, crc = struct.unpack_from("<4sBBHQIQI", content, start)
        payload = content[start + 32 : start + 32 + size]
        assert (magic, form, zero, start + 32 + size) == (b"\x9eSKW", 2, 0, end)
        assert crc == crc32c(payload + content[start : start + 28] + seed)
        seed = seed or struct.pack("<I", crc)
        found.append((kind, sequence, count, size % 8))
    assert found == [(1, 0, 0, 0), (2, 1, 2, 0), (2, 2, 1, 0)]
    assert crc32c(b"123456789") == 0xE3069283  # the check value of RFC 3720


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit, as the Castagnoli polynomial says."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_a_segment_of_the_first_format_is_read(tmp_path: Path) -> None:
    """Format 1 had zlib's CRC-32: its rows are read, and a wrong bit in them is found all the same."""
    path, starts = abandoned(tmp_path, ("a", "b"), ("c",))
    old, seed = bytearray(path.read_bytes()), b""
    for start, end in itertools.pairwise(starts):
        old[start + 4] = 1
        crc = zlib.crc32(bytes(old[start + 32 : end] + old[start : start + 28]) + seed)
        struct.pack_into("<I", old, start + 28, crc)
        seed = seed or struct.pack("<I", crc)
    path.write_bytes(old)
    assert ids(read_log(tmp_path)) == ["a", "b", "c"]
    old[starts[2] + 40] ^= 1
    path.write_bytes(old)
    assert ids(read_log(tmp_path)) == ["a", "b"]


# --- processes that die


SERVER = f"""
    root, run = sys.argv[1:]
    log = ServingLog(root, "delay", SCHEMA, {{"build": run}}, segment_bytes=100_000)

    def serve(thread):
        for i in range(10**9):
            name = f"{{run}}.{{thread}}.{{i}}." + "x" * (i % 500)
            log.append(row(name))
            os.write(1, name.encode() + b"\\n")

    for thread in range({THREADS}):
        threading.Thread(target=serve, args=(thread,)).start()
"""


def test_killed_processes_lose_no_acknowledged_row(tmp_path: Path) -> None:
    """After kill -9 at any instant every acknowledged row is in the log, once, and at most those under way beside."""
    root = tmp_path / "log"
    pick = random.Random()
    for start in range(0, KILLS, 4):
        runs = range(start, start + 4)
        with contextlib.ExitStack() as stack:
            acks = [stack.enter_context((tmp_path / f"acks{run}").open("wb")) for run in runs]
            processes = [python(SERVER, root, run, stdout=file) for run, file in zip(runs, acks, strict=True)]
        for process, run in zip(processes, runs, strict=True):
            wait_for_bytes(tmp_path / f"acks{run}")
            time.sleep(pick.uniform(0.02, 0.25))
            process.kill()
            process.wait()
    acked = [line for run in range(KILLS) for line in (tmp_path / f"acks{run}").read_text().splitlines()]
    reading = read_log(root, "delay")
    logged = ids(reading)
    assert len({segment.boot_id for segment in reading.segments}) == KILLS
    assert len(acked) > 20 * KILLS
    assert set(acked) <= set(logged)
    assert len(logged) == len(set(logged))
    assert len(logged) - len(acked) <= THREADS * KILLS
    assert reading.damaged == ()
    assert not any(segment.owned for segment in reading.segments)
    assert len(recover(root, "delay")) == sum(not segment.sealed for segment in reading.segments)
    after = read_log(root, "delay")
    assert ids(after) == logged
    assert all(segment.sealed and not segment.torn_bytes for segment in after.segments)


def test_recovery_puts_rows_on_the_disk_before_they_count_as_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wrote them may have died before the kernel did: a sealed name is never there before its content."""
    path, _ = abandoned(tmp_path, ("a",))
    done: list[tuple[str, int]] = []
    fsync, rename = os.fsync, Path.rename

    def synced(fd: int) -> None:
        done.append(("sync", os.fstat(fd).st_ino))
        fsync(fd)

    def renamed(path: Path, target: Path) -> Path:
        done.append(("name", path.stat().st_ino))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    inode, folder = path.stat().st_ino, path.parent.stat().st_ino
    recover(tmp_path)
    assert done == [("sync", inode), ("name", inode), ("sync", folder)]


def test_recovery_leaves_a_live_writer_alone(tmp_path: Path) -> None:
    """The segment of a running process is neither cut nor renamed, not even with an append under way."""
    with open_log(tmp_path) as log:
        log.append(rows("a"))
        path = log.path
        assert path is not None
        with path.open("ab") as file:
            file.write(b"half a frame")
        content = path.read_bytes()
        assert recover(tmp_path) == ()
        assert path.read_bytes() == content
        segment = only(read_log(tmp_path))
        assert (segment.owned, segment.torn_bytes, segment.damaged) == (True, 12, False)
        log.append(rows("b"))
    assert ids(read_log(tmp_path)) == ["a", "b"]
    assert only(read_log(tmp_path)).torn_bytes == 0


def test_a_live_segment_that_looks_damaged_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that takes back a failed append while it is read is not accused of having lost rows."""
    looks = iter([True, False])
    monkeypatch.setattr(segment, "holds_whole_frame", lambda *_: next(looks))
    with open_log(tmp_path) as log:
        log.append(rows("a"))
        assert log.path is not None
        with log.path.open("ab") as file:
            file.write(b"half a frame")
        assert not only(read_log(tmp_path)).damaged


def test_two_recoveries_do_not_meet_in_one_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another recovery sealed between the look and the lock is left as it is."""
    path, _ = abandoned(tmp_path, ("a",))
    lock = segment.lock

    def late(fd: int) -> None:
        path.rename(path.with_suffix(".seg"))
        lock(fd)

    monkeypatch.setattr(segment, "lock", late)
    assert recover(tmp_path) == ()
    assert ids(read_log(tmp_path)) == ["a"]


def test_recovery_removes_segments_that_never_got_their_name(tmp_path: Path) -> None:
    """A process that died while it began a segment leaves a file without rows: gone once it is old."""
    open_log(tmp_path).close()
    young, old = tmp_path / "delay" / "x-000001.new", tmp_path / "delay" / "x-000002.new"
    for path in (young, old):
        path.write_bytes(b"torn")
    os.utime(old, (time.time() - 3600,) * 2)
    recover(tmp_path)
    assert (young.exists(), old.exists()) == (True, False)
    assert read_log(tmp_path).torn_bytes == 0


def test_a_forked_child_cannot_write_into_its_parents_segment(tmp_path: Path) -> None:
    """Two writers would destroy each other's frames: the child is refused, the parent goes on, its lock is its own."""
    code = """
        log = ServingLog(sys.argv[1], "delay", SCHEMA, {})
        log.append(row("parent"))
        child = os.fork()
        if child == 0:
            try:
                log.append(row("child"))
            except LogError as error:
                with ServingLog(sys.argv[1], "delay", SCHEMA, {}) as own:
                    own.append(row(str(error)))
            os.write(1, b"ready\\n")
            time.sleep(60)
        log.append(row("parent again"))
        os.write(1, b"%d\\n" % child)
        time.sleep(60)
    """
    process = python(code, tmp_path, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, process.stdout as answers:
        lines = {answers.readline().decode().strip() for _ in range(2)}
        child = int(max(lines - {"ready"}))
        try:
            got = ids(read_log(tmp_path))
            assert got[:2] == ["parent", "parent again"]
            assert "parent process" in got[2]
            process.kill()
            process.wait()
            assert len(recover(tmp_path)) == 1, "the child does not hold the dead parent's lock"
        finally:
            process.kill()
            os.kill(child, 9)


# --- disks that refuse


def test_a_full_disk_is_an_error_and_not_an_end(tmp_path: Path) -> None:
    """Without room nothing of the batch is logged, what was logged stays readable, and the log goes on after it."""
    with open_log(tmp_path) as log:
        log.append(rows("a"))
        path = log.path
        assert path is not None
        size = path.stat().st_size
        pick = random.Random(5)
        big = rows(*(pick.randbytes(8).hex() for _ in range(1000)))
        with full_disk(size + 5000):
            with pytest.raises(LogError, match=r"1000 rows .* None of them is in the log"):
                log.append(big)
            assert path.stat().st_size == size
            with pytest.raises(LogError, match="cannot be written"):
                log.check()  # an append of that size would fail again
            assert (ids(read_log(tmp_path)), read_log(tmp_path).torn_bytes) == (["a"], 0)
            log.append(rows("small"))
        assert log.writable
        log.append(rows("b"))
        log.append(big)
    reading = read_log(tmp_path)
    assert ids(reading) == ["a", "small", "b", *big.column("request_id").to_pylist()]
    assert (reading.torn_bytes, reading.damaged) == (0, ())


def test_a_disk_too_full_for_the_next_segment_is_an_error(tmp_path: Path) -> None:
    """Where a new segment cannot be begun nothing is logged, no torn segment is left, and a later append succeeds."""
    with open_log(tmp_path, segment_bytes=1) as log:
        log.append(rows("a"))
        with full_disk(100):
            with pytest.raises(LogError, match="could not be begun"):
                log.append(rows("lost"))
            with pytest.raises(LogError, match="could not be begun"):
                log.rotate({})
        log.append(rows("b"))
    assert [path.suffix for path in (tmp_path / "delay").iterdir()] == [".seg", ".seg"]
    assert ids(read_log(tmp_path)) == ["a", "b"]


def test_a_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may take a part of a frame; the rest follows before the append returns."""
    pwrite = os.pwrite
    with open_log(tmp_path) as log:
        monkeypatch.setattr(os, "pwritev", lambda fd, parts, at: pwrite(fd, parts[0], at))
        monkeypatch.setattr(os, "pwrite", lambda fd, part, at: pwrite(fd, part[:7], at))
        log.append(rows("a"))
    assert ids(read_log(tmp_path)) == ["a"]


@pytest.mark.parametrize("truncates", [True, False])
def test_an_append_that_breaks_off_leaves_no_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truncates: bool
) -> None:
    """An I/O error, and an interrupt at the worst moment, lose their own rows only, even if nothing can be undone."""
    pwritev = os.pwritev

    def fails(failure: BaseException, fd: int, parts: list[bytes], at: int) -> int:
        pwritev(fd, parts, at)
        raise failure

    def refuses(*_: int) -> None:
        raise OSError(errno.EIO, "no truncation either")

    with open_log(tmp_path) as log:
        log.append(rows("a"))
        for failure in (OSError(errno.EIO, "broken"), KeyboardInterrupt()):
            with monkeypatch.context() as patch:
                patch.setattr(os, "pwritev", functools.partial(fails, failure))
                if not truncates:
                    patch.setattr(os, "ftruncate", refuses)
                with pytest.raises((LogError, KeyboardInterrupt)):
                    log.append(rows("lost", "lost", "lost"))
        log.append(rows("b"))
        assert ids(read_log(tmp_path)) == ["a", "b"]
        log.append(rows("c"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwritev", functools.partial(fails, KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                log.append(rows("lost"))
    reading = read_log(tmp_path)
    assert (ids(reading), reading.torn_bytes, reading.damaged) == (["a", "b", "c"], 0, ())


def test_durability_disk_syncs_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `disk` every append ends in fdatasync, and one that cannot be synced is not logged; `process` has none."""
    synced: list[int] = []
    monkeypatch.setattr(appending, "sync", synced.append)
    with open_log(tmp_path / "process") as log:
        log.append(rows("a"))
    assert synced == []
    with open_log(tmp_path / "disk", durability="disk") as log:
        begun = len(synced)
        log.append(rows("a"))
        assert len(synced) == begun + 1

        def fails(_: int) -> None:
            raise OSError(errno.EIO, "lost")

        with monkeypatch.context() as patch:
            patch.setattr(appending, "sync", fails)
            with pytest.raises(LogError, match="lost"):
                log.append(rows("lost"))
        log.append(rows("b"))
    assert ids(read_log(tmp_path / "disk")) == ["a", "b"]


def test_threads_that_wait_for_the_disk_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Group commit: an append returns only after a sync that began behind its frame, and one sync serves many."""
    synced: list[int] = []

    def slow(fd: int) -> None:
        there = os.fstat(fd).st_size
        time.sleep(0.01)
        synced.append(there)

    early = []
    with open_log(tmp_path, durability="disk", segment_bytes=100_000) as log:
        monkeypatch.setattr(appending, "sync", slow)
        begun = log.stats().written.syncs

        def work(name: int) -> None:
            for i in range(10):
                log.append(rows(f"{name}.{i}"))
                frame = f"{name}.{i}".encode()
                assert log.path is not None
                if log.path.read_bytes().find(frame) > max(synced):
                    early.append(frame)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = log.stats().written
        assert (stats.frames, stats.rows, stats.waiting, stats.unsynced_bytes) == (80, 80, 0, 0)
        assert stats.syncs - begun == len(log.take_sync_times()) == len(synced) < 50
        assert stats.sync_seconds >= 0.01 * len(synced)
        assert log.take_sync_times() == []
    assert early == []
    assert sorted(ids(read_log(tmp_path))) == sorted(f"{name}.{i}" for name in range(8) for i in range(10))


@pytest.mark.parametrize("rolls", [False, True])
def test_a_sync_that_fails_fails_everybody_who_waited_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rolls: bool
) -> None:
    """Whatever the moment at which the disk refuses, what was acknowledged is in the log and nothing else is."""
    pick = random.Random(4)
    sync = appending.sync

    def sometimes(fd: int) -> None:
        time.sleep(0.001)
        if pick.random() < 0.3:
            raise OSError(errno.EIO, "lost")
        sync(fd)

    logged: list[str] = []
    with open_log(tmp_path, durability="disk", segment_bytes=2_000 if rolls else 1 << 20) as log:
        monkeypatch.setattr(appending, "sync", sometimes)

        def work(name: int) -> None:
            for i in range(40):
                with contextlib.suppress(LogError):
                    log.append(rows(f"{name}.{i}"))
                    logged.append(f"{name}.{i}")

        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        monkeypatch.setattr(appending, "sync", sync)
    recover(tmp_path)
    reading = read_log(tmp_path)
    assert 0 < len(logged) < 240
    assert sorted(ids(reading)) == sorted(logged)
    assert not reading.damaged
    assert log.stats().written.rows == len(logged)
    assert (len(reading.segments) > 3) == rolls


def test_a_log_says_what_it_has_done(tmp_path: Path) -> None:
    """Counts are those of what lies on the disk, also over segments, and nothing is synced that need not be."""
    with open_log(tmp_path) as log:
        assert (log.stats().written.frames, log.stats().written.rows) == (0, 0)
        log.append(rows("a", "b"))
        log.append(rows("c"))
        log.rotate({"build": "B"})
        log.append(rows("d"))
        stats, reading = log.stats(), read_log(tmp_path)
        assert (stats.written.frames, stats.written.rows) == (3, reading.rows)
        assert stats.written.bytes == sum(one.size for one in reading.segments)
        assert stats.written.unsynced_bytes == reading.segments[1].size
        assert (stats.written.sealed_segments, stats.written.backlog_segments) == (1, 1)
        assert (stats.lost_rows, stats.left_out_rows, stats.written.syncs) == (0, 0, 0)
    assert (log.stats().written.rows, log.stats().written.backlog_segments) == (4, 2)


@pytest.mark.parametrize("lose", [Path.unlink, functools.partial(Path.rename, target="moved")])
def test_a_deleted_segment_is_noticed_by_the_readiness_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lose: Callable[[Path], object]
) -> None:
    """Rows must not go into a file that no reader finds: the check says so, and the next append begins another."""
    monkeypatch.chdir(tmp_path)
    with open_log(tmp_path) as log:
        log.append(rows("a"))
        assert log.writable
        path = log.path
        assert path is not None
        lose(path)
        with pytest.raises(LogError, match="deleted or moved"):
            log.check()
        assert log.writable
        log.append(rows("b"))
    assert ids(read_log(tmp_path)) == ["b"]


def test_the_readiness_check_leaves_nothing_behind(tmp_path: Path) -> None:
    """A check writes and takes back: rows, sizes and sequence are as before."""
    with open_log(tmp_path) as log:
        log.append(rows("a"))
        before = only(read_log(tmp_path))
        log.check()
        assert only(read_log(tmp_path)) == before
        log.append(rows("b"))
    assert ids(read_log(tmp_path)) == ["a", "b"]


# --- reading


def test_every_service_under_a_root_is_read_or_one(tmp_path: Path) -> None:
    """A reading covers the services that were asked for, ordered by name, and ignores what is no segment."""
    for service in ("delay", "cancel"):
        with open_log(tmp_path, service=service) as log:
            log.append(rows(service))
    (tmp_path / "delay" / "notes.txt").write_text("not a segment")
    (tmp_path / "delay" / "no segment.seg").write_text("not a segment either")
    (tmp_path / "empty").mkdir()
    assert ids(read_log(tmp_path)) == ["cancel", "delay"]
    assert ids(read_log(tmp_path, "delay")) == ["delay"]
    assert read_log(tmp_path, "empty").segments == ()
    assert to_table(read_log(tmp_path, "empty")).num_rows == 0


def test_a_log_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """No folder is not the same as no rows."""
    calls: list[Callable[[], object]] = [
        lambda: read_log(tmp_path / "nowhere"),
        lambda: read_log(tmp_path, "delay"),
        lambda: recover(tmp_path, "delay"),
        lambda: find(tmp_path, "a", service="delay"),
    ]
    for call in calls:
        with pytest.raises(LogError, match="expected the folder of a serving log"):
            call()


def test_a_segment_that_is_renamed_during_the_listing_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder's listing may miss or repeat a file that gets its sealed name meanwhile; its rows are read once."""
    path, _ = abandoned(tmp_path, ("a",))
    sealed = path.with_suffix(".seg")
    path.rename(sealed)
    for listings in ([[], [sealed]], [[path], []], [[path, sealed], [sealed]], [[path], [path]]):
        answers = iter([[tmp_path / "delay"], *listings])
        with monkeypatch.context() as patch:
            patch.setattr(Path, "iterdir", lambda _, answers=answers: iter(next(answers)))
            assert ids(read_log(tmp_path)) == ["a"]


def test_rows_that_vanish_while_they_are_read_are_an_error(tmp_path: Path) -> None:
    """A reading that cannot give all the rows that it counted raises instead of giving fewer."""
    path, starts = abandoned(tmp_path, ("a",), ("b",))
    reading = read_log(tmp_path)
    os.truncate(path, starts[-2])
    with pytest.raises(LogError, match="1 frames that were there"):
        ids(reading)
    path.unlink()
    with pytest.raises(LogError, match="is gone"):
        ids(reading)


def test_a_table_carries_header_fields_as_columns(tmp_path: Path) -> None:
    """Rows of several segments become one table, each row with the header fields of its segment."""
    with open_log(tmp_path) as log:
        log.append(rows("a"))
        log.append(rows("b"))
        log.rotate({"build": "B", "model_digest": "m"})
        log.append(rows("c"))
        log.rotate({})
        table = to_table(read_log(tmp_path), header_fields=("build", "model_digest", "service"))
    assert table.column_names == ["request_id", "value", "h__build", "h__model_digest", "h__service"]
    assert table.column("request_id").to_pylist() == ["a", "b", "c"]
    assert table.column("h__build").to_pylist() == ["A", "A", "B"]
    assert table.column("h__model_digest").to_pylist() == [None, None, "m"]
    assert table.column("h__service").to_pylist() == ["delay"] * 3
    assert table.schema.field("h__build").type == pa.dictionary(pa.int32(), pa.string())
    table.validate(full=True)
    assert to_table(read_log(tmp_path), ["value", "request_id"]).column_names == ["value", "request_id"]
    with pytest.raises(LogError, match="no segment's header has 'biuld'"):
        to_table(read_log(tmp_path), header_fields=["biuld"])
    with pytest.raises(LogError, match="no column wind"):
        to_table(read_log(tmp_path), ["wind"])


def test_a_table_of_many_small_appends_is_whole(tmp_path: Path) -> None:
    """Rows keep their number and order when thousands of batches become one chunk."""
    with open_log(tmp_path) as log:
        for i in range(1000):
            log.append(rows(f"r{i}"))
    table = to_table(read_log(tmp_path))
    assert table.column("request_id").to_pylist() == [f"r{i}" for i in range(1000)]
    assert table.column("value").num_chunks == 1


def test_a_table_does_not_mix_schemas(tmp_path: Path) -> None:
    """Segments of different definitions are refused, both and the difference named; shared columns can be read."""
    other = pa.schema([("request_id", pa.string()), ("value", pa.int64())], metadata={"definitions": "2"})
    with open_log(tmp_path) as log:
        log.append(rows("a"))
        log.rotate({}, other)
        log.append(pa.record_batch([pa.array(["b"]), pa.array([1])], schema=other))
        log.rotate({}, SCHEMA)
        reading = read_log(tmp_path)
        with pytest.raises(LogError, match="value: expected double, got int64") as raised:
            to_table(reading)
        for path in (reading.segments[0].path, reading.segments[1].path):
            assert str(path) in str(raised.value)
        assert to_table(reading, ["request_id"]).column("request_id").to_pylist() == ["a", "b"]
        assert [segment.schema for segment in reading.segments] == [NARROW, other, SCHEMA]


def test_a_log_without_rows_gives_a_table_with_its_columns(tmp_path: Path) -> None:
    """No evidence has the same columns as evidence."""
    with open_log(tmp_path):
        table = to_table(read_log(tmp_path), header_fields=["build"])
    assert (table.num_rows, table.column_names) == (0, ["request_id", "value", "h__build"])


def test_a_request_is_found_by_its_id(tmp_path: Path) -> None:
    """Every row of a request comes back with its segment, also from an open one, and from no other request."""
    with open_log(tmp_path) as log:
        log.append(rows("a", "ab", "b"))
        log.rotate({"build": "B"})
        log.append(rows("xa", "b"))
        found = find(tmp_path, "b")
        assert [(s.header["build"], b.to_pylist()) for s, b in found] == [
            ("A", [{"request_id": "b", "value": 1 / 3}]),
            ("B", [{"request_id": "b", "value": 1 / 3}]),
        ]
        assert find(tmp_path, "nobody", service="delay") == []
        with pytest.raises(LogError, match="no segment has a column 'id'"):
            find(tmp_path, "b", column="id")
        with pytest.raises(LogError, match="request_id is string, not the type of 5"):
            find(tmp_path, 5)


def test_requests_are_found_by_numbers_and_bytes_too(tmp_path: Path) -> None:
    """An id may be an integer or sixteen bytes."""
    schema = pa.schema([("id", pa.binary(16)), ("number", pa.int64())])
    batch = pa.record_batch([pa.array([bytes(16), b"x" * 16], pa.binary(16)), pa.array([2**60, 7])], schema=schema)
    with open_log(tmp_path, schema=schema) as log:
        log.append(batch)
    assert [b.column("number").to_pylist() for _, b in find(tmp_path, b"x" * 16, "id")] == [[7]]
    assert [b.column("number").to_pylist() for _, b in find(tmp_path, 2**60, "number")] == [[2**60]]
    assert find(tmp_path, 8, "number") == []


def test_the_log_runs_without_pandas_even_where_it_is_installed(tmp_path: Path) -> None:
    """Writing, reading and searching load nothing heavy, so that the log fits into anybody's service."""
    code = """
        batch = pa.ipc.open_stream(sys.stdin.buffer).read_next_batch()
        with ServingLog(sys.argv[1], "delay", batch.schema, {"build": "A"}) as log:
            log.append(batch)
            log.check()
        recover(sys.argv[1])
        assert to_table(read_log(sys.argv[1]), ["request_id"], ["build"]).num_rows == 2
        assert len(find(sys.argv[1], "a")) == 1
        heavy = {"pandas", "duckdb", "feast", "mlflow", "great_expectations", "fastapi", "redis"}
        print(sorted(heavy & set(sys.modules)))
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, NARROW) as stream:
        stream.write_batch(rows("a", "b"))
    process = python(code, tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, _ = process.communicate(sink.getvalue().to_pybytes(), timeout=60)
    assert (process.returncode, out.decode().strip()) == (0, "[]")
