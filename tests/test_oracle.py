"""Oracle: an answer by brute force, that owes nothing to the join."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewguard.definitions import View
from skewguard.errors import SourceError
from skewguard.offline import OfflineStore
from skewguard.oracle import brute_force
from skewguard.values import NO_TIME, Dtype, Status
from tests.worlds import CREATED, EVENT, T0, assert_identical, column, plain, spine, stamps, statuses, view, write

TTL = 10


def weather(folder: Path, *, created: bool = True) -> View:
    """A row, its correction, a late one and a tie of two."""
    path = write(
        folder,
        {
            "place": pa.array(["a", "a", "a", "b", "b", None]),
            "temp": pa.array([1.0, 2.0, 3.0, None, 4.0, 5.0]),
            EVENT: stamps([T0, T0, T0 + 2, T0, T0, T0]),
            CREATED: stamps([T0, T0 + 5, T0 + 8, None, None, T0]),
        },
    )
    return view("weather", path, {"place": Dtype.STRING}, {"temp": Dtype.FLOAT64}, ttl_us=TTL, created=created)


ASKS = spine(
    [T0 - 1, T0, T0 + 4, T0 + 5, T0 + 7, T0 + 8, T0 + 12, T0 + 13, T0 + 3, T0, T0],
    {"place": column(Dtype.STRING, [*["a"] * 8, "b", None, "c"])},
)


def test_the_oracle_answers_what_was_worked_out_by_hand(tmp_path: Path) -> None:
    """Before the row, at it, around its correction, around the late row, at both sides of the TTL, a tie, nobody."""
    got = brute_force(weather(tmp_path), ASKS)
    assert statuses(got) == ["not_found", *["present"] * 6, "expired", "present", "not_found", "not_found"]
    assert plain(got.features["temp"]) == [None, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, None, 4.0, None, None]
    assert (got.event - T0).tolist()[1:9] == [0, 0, 0, 0, 2, 2, 2, 0]
    assert got.created.tolist()[7:] == [T0 + 8, NO_TIME, NO_TIME, NO_TIME]
    assert set(got.watermark.tolist()) == {NO_TIME}


def test_feasts_rule_is_the_one_that_leaks(tmp_path: Path) -> None:
    """Under it the correction and the late row are known from their event on."""
    got = brute_force(weather(tmp_path), ASKS, known=False)
    assert plain(got.features["temp"])[:6] == [None, 2.0, 3.0, 3.0, 3.0, 3.0]


def test_without_created_times_a_row_is_known_at_its_event(tmp_path: Path) -> None:
    """Both rules are then one, and of two rows at one time the greater answers."""
    declared = weather(tmp_path, created=False)
    assert_identical(brute_force(declared, ASKS), brute_force(declared, ASKS, known=False))
    assert plain(brute_force(declared, ASKS).features["temp"])[:3] == [None, 2.0, 3.0]


@pytest.mark.parametrize(
    ("dtype", "source", "asked"),
    [
        (Dtype.STRING, pa.array([10, 9]), ["10", "x", None, ""]),
        (Dtype.INT64, pa.array([2**53 + 1, 2**53]), [2**53 + 1, 0, None, -1]),
        (Dtype.INT64, pa.array([7.0, 8.0]), [7, 9, None, -1]),
        (Dtype.INT32, pa.array([7, None], pa.int64()), [7, 9, None, -1]),
        (Dtype.TIMESTAMP, pa.array([T0 * 1000, 1], pa.int64()).view(pa.timestamp("ns", tz="UTC")), [T0, 1, None, -1]),
        (Dtype.BOOL, pa.array([True, None]), [True, False, None, False]),
    ],
    ids=lambda x: str(getattr(x, "type", x))[:24],
)
def test_a_key_is_compared_as_it_is_declared(
    tmp_path: Path, dtype: Dtype, source: pa.Array, asked: list[object]
) -> None:
    """Text over a column of numbers, and an ask that is none: as the join compares them."""
    path = write(tmp_path, {"who": source, "n": pa.array([1, 2]), EVENT: stamps([T0, T0])})
    declared = view("v", path, {"who": dtype}, {"n": Dtype.INT64}, created=False)
    asks = spine([T0] * 4, {"who": column(dtype, asked)})
    got = brute_force(declared, asks)
    assert plain(got.features["n"]) == [1, None, None, None]
    with OfflineStore([declared]) as offline:
        assert_identical(got, offline.answer(asks)["v"])


def test_a_view_without_keys_is_one_history(tmp_path: Path) -> None:
    """Every ask is about the same rows."""
    path = write(tmp_path, {"n": pa.array([1, 2]), EVENT: stamps([T0, T0 + 5])})
    declared = view("v", path, {}, {"n": Dtype.INT64}, created=False)
    assert plain(brute_force(declared, spine([T0 - 1, T0, T0 + 5])).features["n"]) == [None, 1, 2]


def test_no_rows_and_no_asks_are_answered(tmp_path: Path) -> None:
    """Neither is an error."""
    declared = weather(tmp_path)
    none = np.array([], dtype=np.int64)
    assert len(brute_force(declared, ASKS.take(none)).status) == 0
    empty = write(
        tmp_path,
        {
            "place": pa.array([], pa.string()),
            "temp": pa.array([], pa.float64()),
            EVENT: stamps([]),
            CREATED: stamps([]),
        },
    )
    got = brute_force(view("w", empty, {"place": Dtype.STRING}, {"temp": Dtype.FLOAT64}), ASKS)
    assert set(got.status.tolist()) == {Status.NOT_FOUND}


def test_the_source_is_read_anew(tmp_path: Path) -> None:
    """A witness does not remember what a file said before."""
    asks = spine([T0])
    for n in (1, 2):
        path = write(tmp_path, {"n": pa.array([n]), EVENT: stamps([T0])}, name="rows.parquet")
        declared = view("v", path, {}, {"n": Dtype.INT64}, created=False)
        assert plain(brute_force(declared, asks).features["n"]) == [n]


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, and of another format."""
    (tmp_path / "x.parquet").write_bytes(b"none")
    for name in ("nowhere.parquet", "x.parquet"):
        declared = view("v", tmp_path / name, {}, {"n": Dtype.INT64})
        with pytest.raises(SourceError, match=f"{name}: cannot be read for the cross-check"):
            brute_force(declared, spine([T0]))


def test_the_oracle_loads_no_duckdb() -> None:
    """The join's engine has no part in it."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, skewguard.oracle; print('duckdb' in sys.modules)"],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


# -- the files ---------------------------------------------------------------------------------------------------------


def scattered(folder: Path, where: str) -> View:
    """The rows of `weather`, one file per row, where `where` puts the file of a row."""
    whole = pq.read_table(weather(folder).source.path)
    for row in range(len(whole)):
        path = folder / where.format(row=row, day=f"2023-11-1{row}", half=row // 3)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(whole.slice(row, 1), path)
    return weather(folder)


@pytest.mark.parametrize(
    ("where", "asked"),
    [
        ("tree/{row}.parquet", "tree"),
        ("tree/a/{half}/{row}.parquet", "tree"),
        ("tree/month={half}/{row}.parquet", "tree"),
        ("tree/a/{half}/{row}.parquet", "tree/a/*/*.parquet"),
        ("tree/a/{half}/{row}.parquet", "tree/**/?.parquet"),
        ("tree/day={day}/.{row}.parquet", "tree/**/*.parquet"),
    ],
)
def test_a_source_of_many_files_is_read_as_the_join_reads_it(tmp_path: Path, where: str, asked: str) -> None:
    """A folder, folders in it, hive partitions and globs: all of the rows, on both sides."""
    one = scattered(tmp_path, where)
    many = replace(one, source=replace(one.source, path=str(tmp_path / asked)))
    got = brute_force(many, ASKS)
    assert_identical(got, brute_force(one, ASKS))
    with OfflineStore([many]) as offline:
        assert_identical(got, offline.answer(ASKS)["weather"])


@pytest.mark.parametrize(
    ("names", "dtype", "asked", "found"),
    [
        (["1", "2"], Dtype.INT64, [1, 2, 3], [1, 2, None]),
        (["01", "02"], Dtype.STRING, ["01", "1"], [1, None]),
        (["1", "2"], Dtype.STRING, ["1", "01"], [1, None]),
        (["1", "x"], Dtype.STRING, ["1", "x"], [1, 2]),
        (["a%20b", "__HIVE_DEFAULT_PARTITION__"], Dtype.STRING, ["a b", None], [1, None]),
        (["2023-11-01", "2023-11-02"], Dtype.TIMESTAMP, [1_698_883_200_000_000, 1], [2, None]),
    ],
    ids=str,
)
def test_what_a_partition_is_called_is_a_column(
    tmp_path: Path, names: list[str], dtype: Dtype, asked: list[object], found: list[object]
) -> None:
    """Numbers, texts with zeros before them, days and nulls: typed as the join types them, before the files' own."""
    for at, name in enumerate(names):
        folder = tmp_path / "tree" / f"who={name}"
        folder.mkdir(parents=True)
        write(folder, {"n": pa.array([at + 1]), EVENT: stamps([T0])})
    declared = view("v", tmp_path / "tree", {"who": dtype}, {"n": Dtype.INT64}, created=False)
    asks = spine([T0] * len(asked), {"who": column(dtype, asked)})
    got = brute_force(declared, asks)
    assert plain(got.features["n"]) == found
    with OfflineStore([declared]) as offline:
        assert_identical(got, offline.answer(asks)["v"])


def test_files_of_one_source_may_be_typed_apart(tmp_path: Path) -> None:
    """A file of int32 beside one of int64, and one with a column more that nobody asks for."""
    (tmp_path / "tree").mkdir()
    write(tmp_path / "tree", {"n": pa.array([1], pa.int64()), EVENT: stamps([T0])}, name="a.parquet")
    write(
        tmp_path / "tree",
        {"n": pa.array([2], pa.int32()), EVENT: stamps([T0 + 5]), "x": pa.array([1])},
        name="b.parquet",
    )
    declared = view("v", tmp_path / "tree", {}, {"n": Dtype.INT64}, created=False)
    asks = spine([T0, T0 + 5])
    got = brute_force(declared, asks)
    assert plain(got.features["n"]) == [1, 2]
    with OfflineStore([declared]) as offline:
        assert_identical(got, offline.answer(asks)["v"])


def test_a_source_on_another_filesystem_is_read(tmp_path: Path) -> None:
    """By Arrow, or by fsspec: of `file://` and of what lies in memory."""
    memory = fsspec.filesystem("memory")
    here = weather(tmp_path)
    memory.mkdir("/oracle/a=1")
    memory.put(here.source.path, "/oracle/a=1/rows.parquet")
    try:
        for uri in (Path(here.source.path).as_uri(), "memory://oracle", "memory://oracle/*/rows.parquet"):
            there = replace(here, source=replace(here.source, path=uri))
            assert_identical(brute_force(there, ASKS), brute_force(here, ASKS))
    finally:
        memory.rm("/oracle", recursive=True)


def test_a_file_that_lacks_a_column_or_is_cut_off_is_named(tmp_path: Path) -> None:
    """The one of many that is at fault."""
    (tmp_path / "tree").mkdir()
    write(tmp_path / "tree", {"n": pa.array([1]), EVENT: stamps([T0])}, name="a.parquet")
    path = write(tmp_path / "tree", {"n": pa.array([1])}, name="b.parquet")
    declared = view("v", tmp_path / "tree", {}, {"n": Dtype.INT64}, created=False)
    with pytest.raises(SourceError, match=r"b\.parquet: column 'event_at' is missing"):
        brute_force(declared, spine([T0]))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError, match=r"b\.parquet: cannot be read for the cross-check: "):
        brute_force(declared, spine([T0]))
