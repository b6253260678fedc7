"""The log inside somebody else's service: three taps, sampling, hashed keys, and what could not be logged."""

import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from skewguard.answer import from_table, schema
from skewguard.definitions import Bundle
from skewguard.errors import LogError
from skewguard.servinglog import ServingLog, blocks, read_log, to_table
from skewguard.servinglog.compaction import compact
from skewguard.servinglog.given import one_value
from skewguard.servinglog.privacy import key_id, pseudonym
from skewguard.servinglog.shaping import chosen
from skewguard.values import NO_TIME, Column, Dtype, Status
from tests.loop import bundle_of

ROOT = Path(__file__).resolve().parents[1]
SECRET = b"a secret of 16 b"
NOW = 1_709_560_800_000_000
ASK = {"distance": 944.5, "stops": 1, "direct": True, "scheduled": None}
FEAST: dict[str, list[Any]] = {
    "origin": ["JFK"],
    "tail": ["N1"],
    "maker": ["Airbus"],
    "maker__ts": [1_709_000_000],
    "seats": [None],
    "seats__ts": [1_709_000_000],
    "thrust": [24.5],
    "thrust__ts": [1_709_000_000],
    "wind": [None],
    "wind__ts": [0],
    "gust": [None],
    "gust__ts": [0],
    "gust_ratio": [None],
    "gust_ratio__ts": [0],
    "maker_code": ["A"],
    "per_stop": [472.25],
}
HEAVY = ("pandas", "duckdb", "feast", "mlflow", "sklearn", "fastapi", "redis", "fsspec")
SMALL = pa.schema([("id", pa.string()), ("e__tail", pa.string()), ("e__number", pa.int64()), ("x", pa.float64())])


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Definitions of the small world."""
    return bundle_of(tmp_path)


def small(*ids: str) -> pa.RecordBatch:
    """A row for each id."""
    rows = [{"id": one, "e__tail": None if i == 3 else f"N{i}", "e__number": i, "x": 1.0} for i, one in enumerate(ids)]
    return pa.RecordBatch.from_pylist(rows, schema=SMALL)


def the_row(root: Path) -> dict[str, Any]:
    """The one row of a log."""
    (row,) = to_table(read_log(root)).to_pylist()
    return dict(row)


# --- three taps


def test_a_service_of_somebody_else_logs_a_row_in_our_form(tmp_path: Path, bundle: Bundle) -> None:
    """What Feast answered, what entered the model and what it said stand in the log as in a row of our own service."""
    bundle.save(tmp_path / "delay.bundle.json")
    keys = {"origin": "JFK", "tail": "N1"}
    with (
        ServingLog(tmp_path / "log", bundle=tmp_path / "delay.bundle.json", header={"build": "A"}) as log,
        log.request(id="8f3c", keys=keys, request=ASK, as_of=NOW, client="shop") as rec,
    ):
        raw = rec.store(FEAST)
        assert raw is FEAST
        x = rec.model_input(np.array([[np.nan if n in MISSING else float(i) for i, n in enumerate(bundle.vector)]]))
        assert rec.prediction(np.array([0.25]))[0] == 0.25
        assert read_log(tmp_path / "log").rows == 1, "it is logged before anybody is told"
    reading = read_log(tmp_path / "log", bundle.service)
    (segment,) = reading.segments
    assert segment.header["bundle_digest"] == bundle.digest
    assert (segment.header["build"], segment.header["evidence"]) == ("A", "production")
    assert segment.header["host"]
    assert segment.header["numeric_class"]
    row = the_row(tmp_path / "log")
    assert (row["id"], row["client"], row["prediction"], row["e__tail"], row["q__stops"]) == (
        "8f3c",
        "shop",
        0.25,
        "N1",
        1,
    )
    served = from_table(bundle, to_table(reading))
    plane, weather = served.views["plane"], served.views["weather"]
    assert [Status(int(view.status[0])) for view in (plane, weather)] == [Status.PRESENT, Status.NOT_FOUND]
    assert (plane.event[0], weather.event[0], plane.created[0]) == (1_709_000_000_000_000, NO_TIME, NO_TIME)
    statuses = {name: Status(int(served.feature(bundle, name).status[0])) for name in bundle.dtypes}
    assert statuses["plane__seats"] is Status.NULL
    assert statuses["weather__wind"] is Status.NOT_FOUND
    assert statuses["plane__thrust"] is Status.PRESENT
    assert served.feature(bundle, "derived__maker_code").value(0) == "A"
    np.testing.assert_array_equal(served.vector, x)
    assert served.spine.as_of[0] == NOW


MISSING = ("plane__seats", "weather__wind", "weather__gust", "derived__gust_ratio")


def test_feasts_own_response_brings_statuses_and_exact_times(tmp_path: Path, bundle: Bundle) -> None:
    """Microseconds and Feast's statuses are lost in its `to_dict`; from the response itself they are known."""
    names = ["thrust", "seats", "maker", "wind", "gust"]
    values = {"thrust": [1.5], "seats": [7], "maker": [None], "wind": [None], "gust": [None]}
    codes = {"thrust": 1, "seats": 1, "maker": 2, "wind": 4, "gust": 4}
    stamp = SimpleNamespace(seconds=1_709_000_000, nanos=123_456_000)
    proto = SimpleNamespace(
        metadata=SimpleNamespace(feature_names=SimpleNamespace(val=names)),
        results=[SimpleNamespace(statuses=[codes[name]], event_timestamps=[stamp]) for name in names],
    )
    response = SimpleNamespace(proto=proto, to_dict=lambda **_: values)
    with (
        ServingLog(tmp_path / "log", bundle=bundle) as log,
        log.request("a", {"origin": "JFK", "tail": "N1"}, ASK) as rec,
    ):
        rec.store(response)
        rec.transformed({"gust_ratio": None, "per_stop": 1.0})
    served = from_table(bundle, to_table(read_log(tmp_path / "log")))
    assert served.views["plane"].event[0] == 1_709_000_000_123_456
    assert Status(int(served.feature(bundle, "plane__maker").status[0])) is Status.NULL
    assert Status(int(served.feature(bundle, "weather__wind").status[0])) is Status.EXPIRED
    assert Status(int(served.views["weather"].status[0])) is Status.EXPIRED
    assert served.feature(bundle, "derived__per_stop").value(0) == 1.0
    assert Status(int(served.feature(bundle, "derived__maker_code").status[0])) is Status.NOT_REQUESTED
    assert served.prediction is None


def test_rows_of_one_request_are_one_frame(tmp_path: Path, bundle: Bundle) -> None:
    """A request of several rows is logged whole; a data frame may come in any order of columns."""
    answer = {name: values * 3 for name, values in FEAST.items()} | {"tail": ["N1", "N2", None]}
    frame = pd.DataFrame({name.rpartition("__")[2]: [1.0, 2.0, 3.0] for name in reversed(bundle.vector)})
    with (
        ServingLog(tmp_path / "log", bundle=bundle) as log,
        log.request("m", {"origin": "JFK"}, {**ASK, "distance": [1.0, 2.0, 3.0]}) as rec,
    ):
        rec.store(answer)
        rec.model_input(frame)
        rec.prediction(pd.Series([0.1, 0.2, 0.3]))
    reading = read_log(tmp_path / "log")
    assert (reading.segments[0].frames, reading.rows) == (1, 3)
    table = to_table(reading)
    assert table["id"].to_pylist() == ["m-0", "m-1", "m-2"]
    assert table["e__tail"].to_pylist() == ["N1", "N2", None]
    assert table["q__distance"].to_pylist() == [1.0, 2.0, 3.0]
    assert table["vector"].to_pylist() == [[float(i)] * len(bundle.vector) for i in (1, 2, 3)]
    assert table["prediction"].to_pylist() == [0.1, 0.2, 0.3]


def test_a_request_that_failed_is_not_logged(tmp_path: Path, bundle: Bundle) -> None:
    """An exception of the service leaves no row: nobody was answered."""

    def fail(log: ServingLog) -> None:
        with log.request("a", {"origin": "JFK", "tail": "N1"}, ASK) as rec:
            rec.store(FEAST)
            raise ZeroDivisionError

    with ServingLog(tmp_path / "log", bundle=bundle) as log, pytest.raises(ZeroDivisionError):
        fail(log)
    assert read_log(tmp_path / "log").rows == 0


@pytest.mark.parametrize(
    ("keys", "answer", "matrix", "prediction", "message"),
    [
        ({"origin": "JFK"}, {"maker": ["A"]}, None, None, "tail is missing"),
        ({"origin": "JFK", "tial": 1}, {}, None, None, "no key or request field tial"),
        ({"origin": "JFK", "tail": 1.5}, {}, None, None, "tail"),
        ({"origin": "JFK", "tail": "N1"}, {"seats": ["many"]}, None, None, "seats: expected int64, got string"),
        ({"origin": "JFK", "tail": "N1"}, {"seats": [1, 2]}, None, None, "expected 1 values"),
        ({"origin": "JFK", "tail": "N1"}, {}, [1.0, 2.0], None, r"array of shape \(2,\)"),
        ({"origin": "JFK", "tail": "N1"}, {}, {"wind": [1.0]}, None, "one side only has"),
        ({"origin": "JFK", "tail": "N1"}, {}, None, [0.1, 0.2], "expected 1 numbers"),
        ({"origin": "JFK", "tail": "N1"}, {}, None, "yes", "expected numbers, got 'yes'"),
        ({"origin": "JFK", "tail": "N1"}, [1], None, None, "under their features' names, got list"),
        ({"origin": "JFK", "tail": 2**70}, {}, None, None, r"tail: expected string, got \[1180591620717411303424\]"),
        ({"origin": "\ud800", "tail": "N1"}, {}, None, None, "surrogates not allowed"),
        ({"origin": "JFK", "tail": "N1"}, {"wind": [1.0], "wind__ts": [1e300]}, None, None, "ts: expected seconds"),
        ({"origin": "JFK", "tail": "N1"}, {"wind": [1.0], "wind__ts": [5, 6]}, None, None, "ts: expected 1 times"),
        ({"origin": "JFK", "tail": "N1"}, {"wind": [object()]}, None, None, "wind: expected float64"),
        ({"origin": "JFK", "tail": "N1"}, {}, object(), None, "request a"),
    ],
)  # fmt: skip
def test_what_the_log_cannot_hold_is_refused_or_counted(  # noqa: PLR0917  (fixtures and cases)
    tmp_path: Path, bundle: Bundle, keys: Any, answer: Any, matrix: Any, prediction: Any, message: str
) -> None:
    """A row that does not fit the definitions is an error that names what is wrong, or is counted."""

    def serve(log: ServingLog) -> None:
        with log.request("a", keys, ASK) as rec:
            rec.store(answer)
            if matrix is not None:
                rec.model_input(matrix)
            if prediction is not None:
                rec.prediction(prediction)

    with ServingLog(tmp_path / "refuse", bundle=bundle) as log, pytest.raises(LogError, match=message):
        serve(log)
    assert read_log(tmp_path / "refuse").rows == 0
    with ServingLog(tmp_path / "count", bundle=bundle, on_failure="answer_and_count") as log:
        serve(log)
        assert log.lost_rows >= 1
    assert read_log(tmp_path / "count").lost_rows >= 1


@pytest.mark.parametrize(
    ("name", "as_of", "message"),
    [
        (7, None, "id as text, got 7"),
        ("", None, "id as text, got ''"),
        ("a", 1.5, "microseconds UTC, got 1.5"),
        ("a", "noon", "microseconds UTC, got 'noon'"),
        ("a", 2**70, "request a"),
    ],
)
def test_a_request_has_a_name_and_an_instant(
    tmp_path: Path, bundle: Bundle, name: Any, as_of: Any, message: str
) -> None:
    """Without them nobody finds the row, and nothing can be said about when it was served."""
    keys = {"origin": "JFK", "tail": "N1"}
    with ServingLog(tmp_path / "refuse", bundle=bundle) as log, pytest.raises(LogError, match=message):
        log.request(name, keys, ASK, as_of=as_of).prediction([0.5])
    with ServingLog(tmp_path / "count", bundle=bundle, on_failure="answer_and_count") as log:
        assert log.request(name, keys, ASK, as_of=as_of).prediction([0.5]) == [0.5]
        assert log.lost_rows == 1


def test_why_a_row_is_missed_does_not_name_who_is_hidden(tmp_path: Path, bundle: Bundle) -> None:
    """The count of what is missing lies on the disk, too: no plain key of a hashed entity stands in it."""
    options: Any = {"on_failure": "answer_and_count", "pii": ["tail"], "secret": SECRET}
    log = ServingLog(tmp_path / "log", bundle=bundle, **options)
    log.request("a", {"origin": "JFK", "tail": ["4711", 4711]}, ASK).prediction([0.5, 0.5])
    (gap,) = read_log(tmp_path / "log").gaps
    log.close()
    assert gap.rows == 2
    assert all(b"4711" not in path.read_bytes() for path in (tmp_path / "log").rglob("*.gap"))


def test_a_log_without_definitions_cannot_record(tmp_path: Path, bundle: Bundle) -> None:
    """It says that a bundle is needed, and a bundle brings its own service and schema."""
    with ServingLog(tmp_path, "s", SMALL, {}) as log, pytest.raises(LogError, match="bundle="):
        log.request("a", {})
    with pytest.raises(LogError, match="a service with its schema"):
        ServingLog(tmp_path, "s")
    with pytest.raises(LogError, match="of service delay, not s"):
        ServingLog(tmp_path, "s", bundle=bundle)
    with ServingLog(tmp_path, bundle=bundle) as log:
        assert log.schema.names[:-1] == schema(bundle).names
        assert log.schema.names[-1] == "client"


def test_the_log_needs_numpy_pyarrow_and_a_checksum_only(tmp_path: Path, bundle: Bundle) -> None:
    """A service in which nothing else can be imported records, reads, recovers and compacts."""
    bundle.save(tmp_path / "b.json")
    code = """
        import sys
        allowed = {"numpy", "pyarrow", "google_crc32c", "skewguard", "tests", *sys.stdlib_module_names}
        class Only:
            @staticmethod
            def find_spec(name, *rest):
                if name.partition(".")[0] not in allowed and not name.startswith("_"):
                    raise ModuleNotFoundError(f"{name} is not installed", name=name)
        sys.meta_path.insert(0, Only)
        import skewguard
        from skewguard.servinglog import find, read_log, recover, to_table
        from skewguard.servinglog.compaction import compact
        log = skewguard.ServingLog(sys.argv[2], bundle=sys.argv[1], on_failure="answer_and_count")
        ask = {"distance": 944.5, "stops": 1, "direct": True, "scheduled": None}
        with log.request("a", {"origin": "JFK", "tail": "N1"}, ask) as rec:
            rec.store({"wind": [1.0], "wind__ts": [5]})
            rec.prediction([0.5])
        log.close()
        recover(sys.argv[2])
        compact(sys.argv[2], "delay", grace_seconds=0)
        assert to_table(read_log(sys.argv[2]))["prediction"].to_pylist() == [0.5]
        assert len(find(sys.argv[2], "a", "id")) == 1
        print(sorted({name.partition(".")[0] for name in sys.modules} - allowed))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "b.json"), str(tmp_path / "log")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [name for name in eval(done.stdout) if name in HEAVY] == []


# --- what cannot be written


def test_a_full_disk_is_no_outage_where_answers_are_counted(tmp_path: Path) -> None:
    """With `answer_and_count` appends and readiness go on, the gap stands in the log, and it survives kill -9."""
    log = ServingLog(tmp_path, "s", SMALL, {}, on_failure="answer_and_count")
    log.append(small("a"))
    assert log.path is not None
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 100, hard))
    try:
        log.append(small("b", "c"))
        log.append(small("d"))
        assert log.writable
        assert log.lost_rows == 3
        reading = read_log(tmp_path)  # from another process this is all there is
        (gap,) = reading.gaps
        assert (reading.rows, reading.lost_rows, gap.rows, gap.service, gap.boot_id) == (1, 3, 3, "s", log.boot_id)
        assert 0 < gap.since <= gap.until
        assert "File too large" in gap.reason
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    log.append(small("e"))
    log.close()
    with pytest.raises(LogError, match="closed"):
        log.append(small("f"))
    assert to_table(read_log(tmp_path))["id"].to_pylist() == ["a", "e"]
    assert read_log(tmp_path).lost_rows == 3


def test_a_log_without_gaps_leaves_no_count(tmp_path: Path) -> None:
    """Nothing is left behind by processes that logged everything, and a torn count is an error, not no gap."""
    with ServingLog(tmp_path, "s", SMALL, {}, on_failure="answer_and_count") as log:
        log.append(small("a"))
        with pytest.raises(LogError, match="does not have the log's schema"):
            log.append(small("a").select(["id"]))
    assert [path.suffix for path in (tmp_path / "s").iterdir()] == [".seg"]
    (tmp_path / "s" / "x.gap").write_bytes(b"00000000{}")
    with pytest.raises(LogError, match="damaged"):
        read_log(tmp_path)
    (tmp_path / "s" / "x.gap").write_bytes(b"")
    assert read_log(tmp_path).gaps == ()


def test_a_log_that_refuses_says_so(tmp_path: Path) -> None:
    """The promise is one of two."""
    with pytest.raises(LogError, match="'drop'"):
        ServingLog(tmp_path, "s", SMALL, {}, on_failure="drop")  # type: ignore[arg-type]
    with ServingLog(tmp_path, "s", SMALL, {}) as log:
        assert (log.on_failure, log.lost_rows) == ("refuse", 0)


# --- sampling


def test_a_sample_is_the_same_rows_everywhere_and_says_how_likely_they_were(tmp_path: Path) -> None:
    """Which rows are kept follows from their ids; the share stands in each row and in the header."""
    ids = [f"r{i}" for i in range(4000)]
    for run in ("1", "2"):
        with ServingLog(tmp_path / run, "s", SMALL, {}, sample=0.25) as log:
            for i in range(0, 4000, 8):
                log.append(small(*ids[i : i + 8]))
            assert log.schema.names == SMALL.names
            stats = log.stats()
            assert (stats.written.rows + stats.left_out_rows, stats.lost_rows) == (4000, 0)
    tables = [to_table(read_log(tmp_path / run), header_fields=["sample"]) for run in ("1", "2")]
    kept = tables[0]["id"].to_pylist()
    assert kept == tables[1]["id"].to_pylist() == [one for one in ids if chosen(one, 0.25)]
    assert 850 < len(kept) < 1150
    assert set(tables[0]["inclusion"].to_pylist()) == {0.25}
    assert set(tables[0]["h__sample"].to_pylist()) == {"0.25"}
    assert {one for one in ids if chosen(one, 0.1)} < set(kept), "a smaller sample is a part of a larger one"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": 0.0}, "above 0"),
        ({"sample": 1.5}, "above 0"),
        ({"pii": ["tail"]}, "without a secret"),
        ({"pii": "tail", "secret": SECRET}, "a list"),
        ({"pii": ["nobody"], "secret": SECRET}, "no entity 'nobody'; it has tail, number"),
        ({"pii": ["tail"], "secret": b"short"}, "16 bytes or more, got 5"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(tmp_path: Path, options: Any, message: str) -> None:
    """Before the first row, and without the secret in the error."""
    with pytest.raises(LogError, match=message) as raised:
        ServingLog(tmp_path, "s", SMALL, {}, **options)
    assert SECRET.decode() not in str(raised.value)


# --- hashed keys


@pytest.mark.parametrize("compacted", [False, True])
def test_hashed_keys_can_be_joined_by_who_has_the_secret(tmp_path: Path, compacted: bool) -> None:
    """The plain key is nowhere in the files; with the secret and the source's keys the rows are the rows again."""
    with ServingLog(tmp_path, "s", SMALL, {}, pii=["tail", "number"], secret=SECRET) as log:
        log.append(small("a", "b", "c", "d"))
    assert b"N1" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    if compacted:
        compact(tmp_path, "s", grace_seconds=0)
    reading = read_log(tmp_path)
    hashed = sorted(to_table(reading)["e__tail"].to_pylist(), key=str)
    assert hashed == sorted([None, *(pseudonym(f"N{i}", SECRET) for i in range(3))], key=str)
    assert (reading.segments[0].header["pii"], reading.segments[0].header["pii_key"]) == ("tail,number", key_id(SECRET))
    plain = reading.revealed(SECRET, {"tail": ["N0", "N1"], "number": [0, 1, 2, 3]})
    expected = [("a", "N0", 0), ("b", "N1", 1), ("c", None, 2), ("d", None, 3)]

    def rows(batches: Any) -> list[tuple[str, str | None, int]]:
        return sorted((r["id"], r["e__tail"], r["e__number"]) for batch in batches for r in batch.to_pylist())

    assert rows([to_table(plain)]) == expected
    assert rows(batch for _, batch in plain.batches()) == expected
    assert rows(batch for _, batch in blocks(plain.segments)) == expected
    assert rows(batch for one in plain.segments for batch in one.batches()) == expected
    with pytest.raises(LogError, match="Give the right one"):
        reading.revealed(b"another secret of some bytes", {"tail": []})


def test_a_log_without_hashed_keys_needs_no_secret_and_minds_none(tmp_path: Path) -> None:
    """One environment may serve several logs, of which some hide keys."""
    with ServingLog(tmp_path, "s", SMALL, {}) as log:
        log.append(small("a"))
    reading = read_log(tmp_path)
    assert reading.revealed(SECRET, {}) is reading


def test_a_pseudonym_has_its_keys_type_and_says_nothing_of_it() -> None:
    """Text becomes 32 hex characters, an integer a signed 64-bit number; a key's text is not its number."""
    assert len(str(pseudonym("x", SECRET))) == 32
    assert -(2**63) <= int(pseudonym(2**62, SECRET)) < 2**63
    assert len({pseudonym(n, SECRET) for n in range(10_000)}) == 10_000
    assert pseudonym("1", SECRET) != pseudonym("1", SECRET + b"x")
    assert not str(pseudonym("1", SECRET)).startswith(
        int(pseudonym(1, SECRET)).to_bytes(8, "little", signed=True).hex()
    )


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
def test_a_sample_is_as_large_as_it_says(share: float) -> None:
    """The inclusion probability in the row is the one with which it came there: rows weighted by it add up to all."""
    n = 40_000
    kept = sum(chosen(f"{i:032x}", share) for i in range(n))
    assert abs(kept - n * share) < 4 * (n * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("value", [None, 1.5, float("nan"), -0.0, float("inf"), 7, 2**53 + 1, 2**63 - 1, True, "x", ""])
@pytest.mark.parametrize("dtype", [Dtype.FLOAT64, Dtype.FLOAT32, Dtype.INT64, Dtype.INT32, Dtype.STRING, Dtype.BOOL])
def test_one_value_is_what_the_one_cast_makes_of_it(value: Any, dtype: Dtype) -> None:
    """The short way for single values gives the same column as the cast, or leaves it to the cast."""
    column = one_value(value, dtype)
    if column is not None:
        other = Column.from_arrow(pa.array([value]), dtype, "x")
        assert (column.dtype, column.values.dtype, column.content()) == (dtype, other.values.dtype, other.content())
