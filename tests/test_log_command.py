"""The log on the command line: what people see of it, take out of it, and bring into it."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewguard.answer import from_table
from skewguard.cli import main
from skewguard.definitions import Bundle
from skewguard.errors import LogError
from skewguard.servinglog import ServingLog, read_log, to_table
from skewguard.servinglog.compaction import compact
from skewguard.values import Status
from skewguard.workflows.duckdb import connect
from skewguard.workflows.log import check, import_log
from tests.loop import bundle_of

ASK = {"distance": 944.5, "stops": 1, "direct": True, "scheduled": None}
AT = dt.datetime(2024, 3, 4, 12, 0, 30, tzinfo=dt.UTC)
AT_US = 1_709_553_630_000_000
EVENT = dt.datetime(2024, 3, 4, 11, tzinfo=dt.UTC)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Definitions of the small world, saved beside the log."""
    own = bundle_of(tmp_path)
    own.save(tmp_path / "b.json")
    return own


def serve(root: Path, bundle: Bundle, *names: str, build: str = "A") -> None:
    """A log with a row for each name."""
    with ServingLog(root, bundle=bundle, header={"build": build}) as log:
        for i, name in enumerate(names):
            with log.request(name, {"origin": "JFK", "tail": f"N{i}"}, ASK, as_of=AT_US + i * 3_600_000_000) as rec:
                rec.store(
                    {"wind": [12.5], "wind__ts": [EVENT.timestamp()], "gust": [None], "gust__ts": [EVENT.timestamp()]}
                )
                rec.prediction([0.25])


def feast_rows(*ids: str | None) -> pa.Table:
    """A log as Feast writes it, of three features."""
    n = len(ids)
    stamp = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            "origin": ["JFK"] * n,
            "tail": [None] + ["N1"] * (n - 1),
            "distance": [944.5] * n,
            "weather__wind": pa.array([12.5, None, None, None][:n]),
            "weather__wind__timestamp": pa.array([EVENT, EVENT, None, EVENT][:n], stamp),
            "weather__wind__status": pa.array([1, 2, 3, 4][:n], pa.int32()),
            "plane__seats": pa.array([2**53 + 1] * n),
            "derived__gust_ratio": [0.5] * n,
            "__log_timestamp": pa.array([AT] * n, stamp),
            "__log_date": pa.array([AT.date()] * n, pa.date32()),
            "__request_id": pa.array(list(ids), pa.string()),
        }
    )


def run(*words: object) -> int:
    """A command's exit code."""
    return main(["log", *map(str, words)])


# --- ls, cat, verify, compact


def test_segments_are_listed_with_their_state(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is open, sealed or compacted, with rows, bytes and build; for people and for machines."""
    serve(tmp_path / "log", bundle, "a", "b")
    assert run("compact", "--log", tmp_path / "log") == 0
    serve(tmp_path / "log", bundle, "c", build="B")
    with ServingLog(tmp_path / "log", bundle=bundle):
        capsys.readouterr()
        assert run("ls", "--log", tmp_path / "log", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert [(one["state"], one["rows"], one["build"]) for one in found["segments"]] == [
            ("compacted", 2, "A"), ("sealed", 1, "B"), ("open", 0, ""),
        ]  # fmt: skip
        assert (found["rows"], found["gaps"]) == (3, [])
        assert run("ls", "--log", tmp_path / "log") == 0
    out = capsys.readouterr().out
    assert "3 segments, 3 rows, 1 parts" in out
    assert "delay/" in out


def test_rows_are_printed_as_json(tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each row; of one request, of some columns, between two instants, up to a number."""
    serve(tmp_path / "log", bundle, "a", "b", "c")

    def cat(*words: str) -> list[dict[str, Any]]:
        assert run("cat", "--log", tmp_path / "log", *words) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert [row["id"] for row in cat()] == ["a", "b", "c"]
    (row,) = cat("--request-id", "b")
    assert (row["event_timestamp"], row["weather__wind"], row["weather__gust"]) == ("2024-03-04T13:00:30Z", 12.5, None)
    assert row["vector"].count(None) == len(bundle.vector) - 1
    assert cat("--columns", "id,prediction", "--limit", "1") == [{"id": "a", "prediction": 0.25}]
    assert [row["id"] for row in cat("--since", "2024-03-04T13:00Z", "--until", "2024-03-04T13:30Z")] == ["b"]


def test_a_whole_log_is_said_to_be_whole_and_a_damaged_one_is_not(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every row is read; a wrong checksum in the middle, a gap or a part that is gone is named, and exits 1."""
    log = tmp_path / "log"
    serve(log, bundle, "a", "b", "a")
    assert run("verify", "--log", log) == 0
    assert "1 rows share their id" in capsys.readouterr().out
    (segment,) = (log / "delay").glob("*.seg")
    whole = segment.read_bytes()
    for at in (len(whole) // 2, len(whole) - 5):
        broken = bytearray(whole)
        broken[at] ^= 1
        segment.write_bytes(broken)
        assert run("verify", "--log", log) == 1
        assert "damaged behind" in capsys.readouterr().out
    segment.write_bytes(whole)
    with ServingLog(log, bundle=bundle, on_failure="answer_and_count") as gappy:
        gappy.missed(7, LogError("No space left on device"))
    assert run("verify", "--log", log, "--json") == 1
    (complaint,) = json.loads(capsys.readouterr().out)["complaints"]
    assert "7 rows were answered and not logged" in complaint
    next((log / "delay").glob("*.gap")).unlink()
    compact(log, "delay", grace_seconds=0)
    assert check(log).complaints == ()
    next(log.rglob("*.parquet")).unlink()
    assert run("verify", "--log", log) == 1
    assert "cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize("action", ["ls", "cat", "verify", "compact", "sql"])
def test_a_log_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str) -> None:
    """Exit 2 and a sentence, never a traceback; the same for a folder of something else."""
    words = ["SELECT 1"] if action == "sql" else []
    assert run(action, *words, "--log", tmp_path / "nowhere") == 2
    assert "expected the folder of a serving log" in capsys.readouterr().err
    (tmp_path / "other" / "delay").mkdir(parents=True)
    (tmp_path / "other" / "delay" / "notes.txt").write_text("nothing")
    assert run(action, *words, "--log", tmp_path / "other") == (2 if action == "sql" else 0)


# --- DuckDB


@pytest.mark.parametrize("state", ["segments", "both", "parts"])
def test_duckdb_sees_every_row_wherever_it_lies(tmp_path: Path, bundle: Bundle, state: str) -> None:
    """One view over segments and parts, with the header; and Feast's logging schema beside it."""
    log = tmp_path / "log"
    serve(log, bundle, "a", "b")
    if state != "segments":
        compact(log, "delay", grace_seconds=0)
    serve(log, bundle, "c", build="B")
    if state == "parts":
        compact(log, "delay", grace_seconds=0)
    con = connect(log, "delay", bundle)
    assert con.sql("SELECT id, h__build, weather__wind FROM log ORDER BY id").fetchall() == [
        ("a", "A", 12.5), ("b", "A", 12.5), ("c", "B", 12.5),
    ]  # fmt: skip
    feast = con.sql("SELECT * FROM feast_log ORDER BY __request_id")
    assert feast.columns[:7] == ["tail", "origin", "direct", "distance", "scheduled", "stops", "plane__maker"]
    assert feast.columns[-3:] == ["__log_timestamp", "__log_date", "__request_id"]
    row = dict(zip(feast.columns, feast.fetchall()[0], strict=True))
    assert (row["weather__wind"], row["weather__wind__status"], row["weather__wind__timestamp"]) == (12.5, 1, EVENT)
    assert (row["weather__gust"], row["weather__gust__status"]) == (None, 2)
    assert (row["plane__seats__status"], row["plane__seats__timestamp"]) == (0, None)
    assert (row["__log_timestamp"], row["__log_date"]) == (AT, AT.date())


def test_the_view_in_feasts_schema_is_what_feast_expects(tmp_path: Path, bundle: Bundle) -> None:
    """A log that goes out as Feast's comes back in with the same values, times and statuses."""
    serve(tmp_path / "log", bundle, "a", "b")
    pq.write_table(
        connect(tmp_path / "log", "delay", bundle).sql("FROM feast_log").to_arrow_table(), tmp_path / "f.parquet"
    )
    import_log(tmp_path / "again", bundle, str(tmp_path / "f.parquet"), {})
    columns = ["id", "event_timestamp", "e__origin", "e__tail", "q__distance", "weather__wind", "weather__event_ts"]
    there, here = (to_table(read_log(tmp_path / name), columns).sort_by("id") for name in ("again", "log"))
    assert there.equals(here)


def test_sql_on_the_command_line(tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    """A query, its answer as text or JSON, and an error that is a sentence."""
    serve(tmp_path / "log", bundle, "a", "b")
    flags = ("--log", tmp_path / "log", "--bundle", tmp_path / "b.json")
    assert run("sql", "SELECT count(*) AS n FROM feast_log", *flags, "--json") == 0
    assert json.loads(capsys.readouterr().out) == [{"n": 2}]
    assert run("sql", "SELECT id FROM log ORDER BY id", *flags) == 0
    assert capsys.readouterr().out.split() == ["id", "a", "b"]
    assert run("sql", "SELECT nothing FROM log", *flags) == 2
    assert "nothing" in capsys.readouterr().err
    assert run("sql", *flags) == 2


# --- import


def test_feasts_log_is_taken_in(tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    """Feast's logging schema needs no map: keys, values, times and statuses are found by their names."""
    pq.write_table(feast_rows("a", "b", "c", None), tmp_path / "feast.parquet")
    flags = ("--log", tmp_path / "log", "--bundle", tmp_path / "b.json", "--file", tmp_path / "feast.parquet")
    assert run("import", *flags, "--header", "build=elsewhere") == 0
    assert "4 rows of 1 files" in capsys.readouterr().out
    reading = read_log(tmp_path / "log")
    assert reading.segments[0].header["build"] == "elsewhere"
    assert reading.segments[0].header["imported_from"].endswith("feast.parquet")
    served = from_table(bundle, to_table(reading))
    wind = served.feature(bundle, "weather__wind")
    assert [Status(int(one)) for one in wind.status] == [Status.PRESENT, Status.NULL, Status.NOT_FOUND, Status.EXPIRED]
    assert wind.value(0) == 12.5
    assert served.feature(bundle, "plane__seats").value(1) == 2**53 + 1
    assert served.feature(bundle, "derived__gust_ratio").value(2) == 0.5
    assert Status(int(served.feature(bundle, "plane__maker").status[0])) is Status.NOT_REQUESTED
    assert served.spine.ids.tolist()[:3] == ["a", "b", "c"]
    assert served.spine.ids[3].endswith("-3")
    assert run("import", *flags) == 2
    assert "imported already" in capsys.readouterr().err
    assert read_log(tmp_path / "log").rows == 4


def test_any_table_is_taken_in_with_a_map_of_its_columns(tmp_path: Path, bundle: Bundle) -> None:
    """JSON lines with names of their own; instants as text or seconds; short feature names; a prediction."""
    rows = [{"when": "2024-03-04T12:00:30Z", "airport": "JFK", "tail": "N1", "w": 12.5, "score": 0.25, "seats": 7}] * 2
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {"event_timestamp": "when", "origin": "airport", "wind": "w", "prediction": "score"}
    assert import_log(tmp_path / "log", bundle, str(tmp_path / "log.jsonl"), columns).rows == 2
    seconds = pa.table(
        {"when": [AT_US / 1e6], "airport": ["JFK"], "tail": ["N1"], "w": [12.5], "score": [0.25], "seats": [7]}
    )
    pq.write_table(seconds, tmp_path / "s.parquet")
    import_log(tmp_path / "log", bundle, str(tmp_path / "s.parquet"), columns)
    table = to_table(read_log(tmp_path / "log"))
    assert table["event_timestamp"].to_pylist() == [AT] * 3
    assert table["prediction"].to_pylist() == [0.25] * 3
    assert table["plane__seats"].to_pylist() == [7] * 3
    assert table["weather__wind"].to_pylist() == [12.5] * 3
    assert len(set(table["id"].to_pylist())) == 3


def test_feasts_zero_is_no_time(tmp_path: Path, bundle: Bundle) -> None:
    """Feast writes 1970 for a row that is not there: no event time, and a null without a status is not_found."""
    table = feast_rows("a", "b").drop_columns(["weather__wind__timestamp", "weather__wind__status"])
    zero = pa.array([EVENT, dt.datetime(1970, 1, 1, tzinfo=dt.UTC)], pa.timestamp("us", tz="UTC"))
    pq.write_table(table.append_column("weather__wind__timestamp", zero), tmp_path / "feast.parquet")
    import_log(tmp_path / "log", bundle, str(tmp_path / "feast.parquet"), {})
    table = to_table(read_log(tmp_path / "log"))
    assert table["weather__event_ts"].to_pylist() == [EVENT, None]
    wind = from_table(bundle, table).feature(bundle, "weather__wind")
    assert [Status(int(one)) for one in wind.status] == [Status.PRESENT, Status.NOT_FOUND]


@pytest.mark.parametrize(
    ("change", "columns", "message"),
    [
        (lambda t: t.drop_columns(["origin"]), {}, "which column is origin"),
        (lambda t: t.drop_columns(["__log_timestamp"]), {}, "which column is event_timestamp"),
        (lambda t: t, {"nobody": "origin"}, "nobody: unknown to delay"),
        (lambda t: t, {"origin": "nowhere"}, "nowhere: unknown to delay or not in the table"),
        (lambda t: t.set_column(4, "plane__seats", pa.array([1.5, 2.0])), {}, "1.5 does not fit int64"),
        (lambda t: t.set_column(8, "__log_timestamp", pa.array([AT, None])), {}, "1 rows have no instant"),
        (lambda t: t.set_column(8, "__log_timestamp", pa.array(["noon", "later"])), {}, "timestamp: expected instants"),
        (lambda t: t.set_column(8, "__log_timestamp", pa.array([AT_US // 1000, 0])), {}, "1970, got 1709553630000"),
        (lambda t: t.set_column(8, "__log_timestamp", pa.array([0, AT_US * 1000])), {}, f"got {AT_US * 1000}"),
        (lambda t: t.set_column(8, "__log_timestamp", pa.array([0, 9e10])), {}, "in the future, row 1 at 4821"),
        (lambda t: t.append_column("__request_id", t["__request_id"]), {}, "several columns __request_id"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_understood_leaves_nothing_in_the_log(
    tmp_path: Path, bundle: Bundle, change: Any, columns: dict[str, str], message: str
) -> None:
    """A file is taken whole or not at all, and the error names the column."""
    table = feast_rows("a", "b")
    table = table.select([name for name in table.column_names if name != "plane__seats"]).add_column(
        4, "plane__seats", table["plane__seats"]
    )
    table = change(table)
    pq.write_table(table, tmp_path / "feast.parquet")
    with pytest.raises(LogError, match=message):
        import_log(tmp_path / "log", bundle, str(tmp_path / "feast.parquet"), columns)
    assert not (tmp_path / "log").exists() or read_log(tmp_path / "log").rows == 0


LINE = '{"event_timestamp": "2024-03-04T12:00:30Z", "origin": "JFK", "tail": "N1", "seats": 7}'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([LINE] * 9_000 + [LINE[:-1]], r"line 9001, column \d+: "),
        ([LINE, "[7]"], "line 2 is no object"),
        ([LINE, LINE.replace("JFK", "\udcff")], "it is no UTF-8"),
        ([LINE, LINE.replace("7", '"seven"')], "seats.* changed from number to string"),
        ([LINE, LINE.replace("7", "7.5")], "7.5 does not fit int64"),
        ([LINE.replace("7", str(2**53 + 1)), LINE.replace("7", "7.0")], "9007199254740992 came as a float"),
        ([LINE, LINE.replace("event_timestamp", "when")], "1 rows have no instant in event_timestamp"),
        ([LINE.replace("tail", "tall")], "which column is tail"),
        ([""], "Empty JSON file"),
    ],
)
def test_a_broken_line_is_named_and_leaves_nothing_in_the_log(
    tmp_path: Path, bundle: Bundle, lines: list[str], message: str
) -> None:
    """Wherever it stands in the file; and what a number lost on its way is not taken for what was served."""
    (tmp_path / "log.jsonl").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    with pytest.raises(LogError, match=message):
        import_log(tmp_path / "log", bundle, str(tmp_path / "log.jsonl"), {})
    assert not (tmp_path / "log").exists() or read_log(tmp_path / "log").rows == 0


def test_odd_keys_are_taken_in_as_they_are(tmp_path: Path, bundle: Bundle) -> None:
    """Unicode, a NUL, a key that is missing, an integer beyond 2**53 beside a null."""
    row = json.loads(LINE)
    rows = [row | {"origin": "東京\0é", "seats": 2**53 + 1}, row | {"origin": None, "seats": None}]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import_log(tmp_path / "log", bundle, str(tmp_path / "log.jsonl"), {})
    table = to_table(read_log(tmp_path / "log"))
    assert table["e__origin"].to_pylist() == ["東京\0é", None]
    assert table["plane__seats"].to_pylist() == [2**53 + 1, None]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cat", "--columns", "id,nope"), "no column nope. There are: id"),
        (("cat", "--limit", "-1"), "a limit of -1 rows"),
        (("cat", "--since", "noon"), "expected an ISO instant"),
        (("ls", "--service", "../x"), "a folder's name"),
        (("sql", "SELEC"), "log sql: "),
    ],
)
def test_what_cannot_be_shown_is_an_error(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    """With what there is instead, and never by way of a crash."""
    serve(tmp_path / "log", bundle, "a")
    assert run(*words, "--log", tmp_path / "log") == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("bundle")
def test_what_is_no_log_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No file, a file of something else, a map that is none."""
    (tmp_path / "x.parquet").write_text("not Parquet")
    flags = ("--log", tmp_path / "log", "--bundle", tmp_path / "b.json")
    for words, message in (
        ((), "give --file"),
        (("--file", tmp_path / "none.parquet"), "none.parquet"),
        (("--file", tmp_path / "x.parquet"), "expected Parquet or JSON lines"),
        (("--file", tmp_path / "x.parquet", "--column", "id"), "expected NAME=VALUE"),
    ):
        assert run("import", *flags, *words) == 2
        assert message in capsys.readouterr().err


# --- bad days


def test_what_lies_in_the_folder_and_is_no_segment_is_named(tmp_path: Path, bundle: Bundle) -> None:
    """A foreign file under a segment's name is damage, one that cannot be read an error; neither is skipped."""
    log = tmp_path / "log"
    serve(log, bundle, "a")
    foreign = log / "delay" / "20240304T000000000000Z_00000000-000000.seg"
    foreign.write_bytes(b"PAR1 and so on, of somebody else")
    reading = read_log(log)
    assert [segment.path for segment in reading.damaged] == [foreign]
    assert reading.rows == 1
    assert compact(log, "delay", grace_seconds=0).left == {foreign.name: "damaged: kept as it lies"}
    foreign.unlink()
    foreign.mkdir()
    with pytest.raises(LogError, match="cannot be read"):
        read_log(log)


def test_a_clock_that_steps_back_loses_no_row(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments, gaps and compaction rest on order and locks, not on the time of day."""
    import time

    log = tmp_path / "log"
    names = iter("abcdef")
    for hours in (0, -5, 3, -48):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda now=time.time, hours=hours: now() + hours * 3600)
            patch.setattr(time, "time_ns", lambda now=time.time_ns, hours=hours: now() + hours * 3600 * 10**9)
            serve(log, bundle, next(names))
            compact(log, "delay")
    assert sorted(to_table(read_log(log))["id"].to_pylist()) == ["a", "b", "c", "d"]
    compact(log, "delay", grace_seconds=-10 * 24 * 3600)
    assert sorted(to_table(read_log(log))["id"].to_pylist()) == ["a", "b", "c", "d"]
    assert check(log).complaints == ()


def test_the_benchmark_of_the_log_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """At a size at which its figures mean nothing."""
    from benchmarks.log import main as measure

    measure(["--quick"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures) == {"1", "8", "32"}
    assert 0 < figures["32"]["log_bytes_per_row"] < figures["1"]["log_bytes_per_row"]
