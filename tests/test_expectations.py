import datetime as dt
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewguard.contract import Contract
from skewguard.definitions import Bundle, Derived, Feature, Key, RequestField, Source, View
from skewguard.errors import DefinitionError, SourceError
from skewguard.expectations import Suite, keep, load, save, snapshot_suite, source_suite
from skewguard.findings import Finding, Kind
from skewguard.policy import Policy
from skewguard.report import to_html
from skewguard.values import Dtype
from skewguard.verdict import Coverage, Ruling, Subject, judge

ROWS = 40
START = dt.datetime(2013, 11, 5, tzinfo=dt.UTC)
INSTANT = pa.timestamp("us", tz="UTC")

WEATHER = View(
    name="weather",
    keys=(Key("origin", "origin", Dtype.STRING),),
    features=(
        Feature("wind_speed", "wind", Dtype.FLOAT64, Contract(null="refused", minimum=0, maximum=60)),
        Feature("visibility", "visibility", Dtype.FLOAT32, Contract(minimum=0.1)),
        Feature("sky", "sky", Dtype.STRING, Contract(values=("clear", "cloudy"))),
        Feature("reports", "reports", Dtype.INT64, Contract(minimum=0)),
        Feature("frozen", "frozen", Dtype.BOOL, Contract()),
    ),
    ttl_us=None,
    max_lag_us=60_000_000,
    source=Source("weather.parquet", "observed", "published"),
)
GUST = Derived(
    "gust_ratio", "ratios", "m:f", ("weather__wind_speed", "distance"), Dtype.FLOAT64, Contract(null="refused"), "f"
)
BUNDLE = Bundle("demo", "delay", (WEATHER,), (RequestField("distance", Dtype.FLOAT64),), (GUST,), ())

Validate = Callable[..., list[Finding]]


@pytest.fixture(scope="module")
def validate() -> Validate:
    """The real runner, loaded once; skipped where the extra is not installed."""
    pytest.importorskip("great_expectations")
    from skewguard import expectations

    return expectations.validate


def hours(count: int = ROWS, after: dt.timedelta = dt.timedelta(0)) -> list[dt.datetime]:
    """One instant an hour."""
    return [START + dt.timedelta(hours=i) + after for i in range(count)]


def weather(**other: Any) -> pa.Table:
    """A clean source; `other` replaces columns, None drops one."""
    columns: dict[str, Any] = {
        "origin": pa.array(["EWR", "JFK"] * (ROWS // 2)),
        "observed": pa.array(hours(), INSTANT),
        "published": pa.array(hours(after=dt.timedelta(minutes=20)), INSTANT),
        "wind": pa.array([float(i) for i in range(ROWS)]),
        "visibility": pa.array([0.1, 10.0] * (ROWS // 2), pa.float32()),
        "sky": pa.array(["clear", None] * (ROWS // 2)),
        "reports": pa.array([None, 3] * (ROWS // 2), pa.int64()),
        "frozen": pa.array([None, True] * (ROWS // 2)),
    }
    columns |= other
    return pa.table({name: column for name, column in columns.items() if column is not None})


def snapshot(**other: Any) -> pa.Table:
    """A clean snapshot whose last row was not found in the view."""
    found = [True] * (ROWS - 1) + [False]
    asked = hours(after=dt.timedelta(hours=1))
    columns: dict[str, Any] = {
        "id": pa.array([f"{i:04x}" for i in range(ROWS)]),
        "event_timestamp": pa.array(asked, INSTANT),
        "e__origin": pa.array(["EWR"] * ROWS),
        "q__distance": pa.array([100.0] * ROWS),
        "weather__status": pa.array([0 if there else 5 for there in found], pa.uint8()),
        "weather__event_ts": pa.array([t if there else None for t, there in zip(hours(), found, strict=True)], INSTANT),
        "weather__created_ts": pa.array([t if ok else None for t, ok in zip(hours(), found, strict=True)], INSTANT),
        "weather__wind_speed": pa.array([5.0 if there else None for there in found]),
        "weather__visibility": pa.array([0.1 if there else None for there in found], pa.float32()),
        "weather__sky": pa.array(["clear" if there else None for there in found]),
        "weather__reports": pa.array([3 if there else None for there in found], pa.int64()),
        "weather__frozen": pa.array([False if there else None for there in found]),
        "ratios__gust_ratio": pa.array([0.5 if there else None for there in found]),
        "late": pa.array([0, 1] * (ROWS // 2)),
    }
    columns |= other
    return pa.table({name: column for name, column in columns.items() if column is not None})


def changed(table: pa.Table, column: str, **rows: Any) -> pa.Array:
    """A column of `table` with the value of `rN=` in row N."""
    values = table.column(column).to_pylist()
    for row, value in rows.items():
        values[int(row[1:])] = value
    return pa.array(values, table.schema.field(column).type)


def run(validate: Validate, folder: Path, table: pa.Table, suite: Suite | None = None) -> list[Finding]:
    """The findings on a source file with this content."""
    path = folder / "weather.parquet"
    pq.write_table(table, path)
    return validate(path, suite or source_suite(WEATHER), feature_prefix="weather")


def test_importing_the_room_loads_no_great_expectations() -> None:
    """Suites are generated, read and written without the library, whose import takes seconds."""
    told = subprocess.run(
        [sys.executable, "-c", "import sys, skewguard.expectations; print('great_expectations' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.strip() == "False"


def test_without_the_library_the_extra_is_named() -> None:
    """Whoever asks for a run without Great Expectations is told what to install."""
    code = "import sys; sys.modules['great_expectations'] = None; import skewguard.expectations as e; e.validate"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtra: running a Great Expectations suite needs" in told.stderr
    assert "pip install 'skewguard[ge]'" in told.stderr


def test_a_suite_is_the_same_every_time_and_survives_its_file(tmp_path: Path) -> None:
    """A generated suite is plain JSON, equal from one run to the next, with ids that are stable and its own."""
    suite = source_suite(WEATHER)
    assert suite == source_suite(WEATHER)
    path = save(tmp_path, suite)
    assert path.name == "source.weather.json"
    assert load(tmp_path, "source.weather") == suite
    assert save(tmp_path, load(tmp_path, suite["name"])).read_text() == path.read_text()
    ids = [one["id"] for one in suite["expectations"]]
    assert len(set(ids)) == len(ids) == 26
    assert set(ids).isdisjoint(one["id"] for one in snapshot_suite(BUNDLE, "late")["expectations"])


def test_a_source_suite_says_what_the_definitions_promise() -> None:
    """Columns, times, keys, uniqueness, null rules, ranges and vocabularies all become expectations."""
    said = [(one["type"], one["kwargs"]) for one in source_suite(WEATHER)["expectations"]]
    assert ("expect_column_values_to_be_between", {"column": "wind", "min_value": 0.0, "max_value": 60.0}) in said
    assert ("expect_column_values_to_be_in_set", {"column": "sky", "value_set": ["clear", "cloudy"]}) in said
    assert ("expect_compound_columns_to_be_unique", {"column_list": ["origin", "observed", "published"]}) in said
    never_null = [kwargs["column"] for kind, kwargs in said if kind == "expect_column_values_to_not_be_null"]
    assert never_null == ["observed", "published", "origin", "wind"]


def test_an_unedited_suite_follows_the_definitions(tmp_path: Path) -> None:
    """A kept suite that nobody touched is written anew when the definitions change."""
    older = source_suite(View("weather", WEATHER.keys, WEATHER.features[:1], None, 0, WEATHER.source))
    assert keep(tmp_path, older) == older
    assert keep(tmp_path, source_suite(WEATHER)) == source_suite(WEATHER)
    assert load(tmp_path, "source.weather") == source_suite(WEATHER)


def test_an_edited_suite_is_honoured_as_it_is(tmp_path: Path, validate: Validate) -> None:
    """Whoever edits the kept suite is heard: its limits are the ones that are run, and nobody overwrites them."""
    path = save(tmp_path, source_suite(WEATHER))
    edited = json.loads(path.read_text())
    limit = next(one for one in edited["expectations"] if one["kwargs"].get("max_value") == 60)
    limit["kwargs"] |= {"max_value": 30.0, "mostly": 0.5}
    regex = {"column": "sky", "regex": "^clear$"}
    edited["expectations"] += [{"type": "expect_column_values_to_match_regex", "kwargs": regex}]
    path.write_text(json.dumps(edited))
    kept = keep(tmp_path, source_suite(WEATHER))
    assert kept == edited
    assert run(validate, tmp_path, weather(), kept) == []
    limit["kwargs"]["mostly"] = 0.9
    sky = changed(weather(), "sky", r3="cloudy")
    wind, cloud = run(validate, tmp_path, weather(sky=sky), edited)
    assert (wind.feature, wind.rows, wind.of) == ("weather__wind_speed", 9, ROWS)
    assert "expected 0 to 30 in 0.9 of the rows (column wind), got 31.0 / 32.0 / 33.0 in 9 of 40 rows" in wind.message
    assert (cloud.feature, cloud.rows) == ("weather__sky", 1)
    assert 'expected column values to match regex (regex="^clear$"), got cloudy in 1 of 40 rows' in cloud.message


def test_a_file_that_is_no_suite_is_refused_with_every_complaint(tmp_path: Path) -> None:
    """Complaints about a suite's form come all at once, each with its place."""
    (tmp_path / "s.json").write_text('{"expectation_suite_name": "s", "expectations": [3, {"type": "x"}]}')
    with pytest.raises(DefinitionError) as refused:
        load(tmp_path, "s")
    name, number, kwargs = refused.value.complaints
    assert "$.name: expected a text, got None. It was written by Great Expectations before 1.0." in name
    assert "$.expectations[0]: expected an object, got 3" in number
    assert "$.expectations[1]: expected a type" in kwargs
    with pytest.raises(DefinitionError, match=r"absent\.json"):
        load(tmp_path, "absent")
    with pytest.raises(DefinitionError, match="without a path"):
        load(tmp_path, "../s")


def test_an_expectation_that_nobody_knows_is_refused(tmp_path: Path, validate: Validate) -> None:
    """An expectation of unknown type or with wrong arguments is named with its place, before anything is run."""
    unknown = {"type": "expect_good_weather", "kwargs": {}}
    wrong = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "wind", "low": 1}}
    with pytest.raises(DefinitionError) as refused:
        run(validate, tmp_path, weather(), {"name": "s", "expectations": [unknown, wrong]})
    assert [complaint.split("$.")[1].split(":")[0] for complaint in refused.value.complaints] == [
        "expectations[0] (expect_good_weather)",
        "expectations[1] (expect_column_values_to_be_between)",
    ]


@pytest.mark.parametrize(
    ("dtype", "promise"),
    [
        (Dtype.STRING, Contract(minimum=1)),
        (Dtype.INT64, Contract(values=("1", "two"))),
        (Dtype.BOOL, Contract(values=("yes",))),
        (Dtype.TIMESTAMP, Contract(values=("2013-01-01",))),
        (Dtype.FLOAT64, Contract(minimum=2, maximum=1)),
        (Dtype.FLOAT64, Contract(minimum=float("nan"))),
    ],
)
def test_a_contract_that_does_not_fit_its_dtype_is_refused(dtype: Dtype, promise: Contract) -> None:
    """A range of texts or a vocabulary of another type is the definition's mistake, found when the suite is made."""
    view = View("weather", WEATHER.keys, (Feature("x", "x", dtype, promise),), None, 0, WEATHER.source)
    with pytest.raises(DefinitionError, match="weather__x"):
        source_suite(view)


def test_a_clean_file_has_no_findings(tmp_path: Path, validate: Validate) -> None:
    """Nulls that the contract allows, and values on both ends of the range, are no findings."""
    wind = changed(weather(), "wind", r0=0.0, r1=60.0)
    assert run(validate, tmp_path, weather(wind=wind)) == []


def test_an_empty_file_has_no_findings(tmp_path: Path, validate: Validate) -> None:
    """A suite runs on a file with columns and no rows, and still sees a column that is not there."""
    assert run(validate, tmp_path, weather().slice(0, 0)) == []
    (finding,) = run(validate, tmp_path, weather(wind=None).slice(0, 0))
    assert (finding.rows, finding.of) == (1, 0)


@pytest.mark.parametrize(
    ("column", "rows", "found"),
    [
        ("wind", {"r3": -1.0, "r5": 60.5}, ("weather__wind_speed", "expected 0 to 60", ["-1.0", "60.5"])),
        ("wind", {"r3": None}, ("weather__wind_speed", "expected no null", ["null"])),
        ("wind", {"r3": float("inf")}, ("weather__wind_speed", "expected 0 to 60", ["inf"])),
        ("reports", {"r4": -7}, ("weather__reports", "expected at least 0", ["-7"])),
        ("sky", {"r3": "foggy", "r4": ""}, ("weather__sky", "expected one of clear, cloudy", ["foggy", "''"])),
        ("origin", {"r3": None}, ("weather", "expected no null (column origin)", ["null"])),
        ("observed", {"r3": None}, ("weather", "expected no null (column observed)", ["null"])),
        ("published", {"r3": None}, ("weather", "expected no null (column published)", ["null"])),
        (
            "published",
            {"r3": START},
            (
                "weather",
                "expected published >= observed",
                ["published=2013-11-05T00:00:00Z, observed=2013-11-05T03:00:00Z"],
            ),
        ),
    ],
)
def test_each_kind_of_violation_is_one_finding(
    tmp_path: Path, validate: Validate, column: str, rows: dict[str, Any], found: tuple[str, str, list[str]]
) -> None:
    """A violation is one finding with the rows that show it, the rows there are, and examples that lead to them."""
    feature, told, served = found
    (finding,) = run(validate, tmp_path, weather(**{column: changed(weather(), column, **rows)}))
    assert finding.kind is Kind.EXPECTATION
    assert (finding.feature, finding.rows, finding.of) == (feature, len(rows), ROWS)
    assert finding.message.startswith(f"{feature.replace('__', '.')}: {told}")
    assert f"in {len(rows)} of 40 rows; " in finding.message
    assert str(tmp_path / "weather.parquet") in finding.message
    assert [example.served for example in finding.examples] == served
    first = int(next(iter(rows))[1:])
    expected_as_of = "null" if column == "observed" else f"2013-11-05T{first:02}:00:00Z"
    assert finding.examples[0].as_of == expected_as_of
    origin = "null" if column == "origin" else ["EWR", "JFK"][first % 2]
    assert finding.examples[0].keys == f"origin={origin}"


def test_two_rows_of_the_same_keys_and_times_are_a_finding(tmp_path: Path, validate: Validate) -> None:
    """Rows that share keys, event time and created time are counted, all of them."""
    twice = pa.concat_tables([weather(), weather().slice(0, 3)])
    (finding,) = run(validate, tmp_path, twice)
    assert (finding.feature, finding.rows, finding.of) == ("weather", 6, 43)
    assert "expected one row for each origin, observed, published" in finding.message
    assert finding.examples[0].served.startswith("origin=EWR, observed=2013-11-05T00:00:00Z, published=")


def test_an_absent_column_is_one_finding_with_the_nearest_name(tmp_path: Path, validate: Validate) -> None:
    """A column that is not there is told once, with file, column and expected type, and what it may be called."""
    (finding,) = run(validate, tmp_path, weather(wind=None, winds=weather().column("wind")))
    assert (finding.feature, finding.rows, finding.of) == ("weather__wind_speed", ROWS, ROWS)
    assert finding.message == (
        f"weather.wind_speed: expected a column wind (float64) in {tmp_path / 'weather.parquet'}, found none; "
        "did you mean winds?"
    )
    (finding,) = run(validate, tmp_path, weather(published=None))
    assert "expected a column published (timestamp[us, UTC])" in finding.message
    assert "the file has origin, observed, wind" in finding.message


@pytest.mark.parametrize(
    ("column", "array", "told"),
    [
        ("wind", pa.array(["1"] * ROWS), "expected type float64 in column wind of {}, found string"),
        ("sky", pa.array([1.5] * ROWS), "expected type string in column sky of {}, found double"),
        ("frozen", pa.array([1] * ROWS), "expected type bool in column frozen of {}, found int64"),
        ("observed", pa.array(range(ROWS)), "expected type timestamp[us, UTC] in column observed of {}, found int64"),
    ],
)
def test_another_type_is_one_finding(
    tmp_path: Path, validate: Validate, column: str, array: pa.Array, told: str
) -> None:
    """A column of another type is told once, with file, column, expected and found type, and no error besides."""
    (finding,) = run(validate, tmp_path, weather(**{column: array}))
    assert (finding.rows, finding.of) == (ROWS, ROWS)
    assert told.format(tmp_path / "weather.parquet") in finding.message


def test_types_that_the_cast_accepts_are_no_findings(tmp_path: Path, validate: Validate) -> None:
    """Integers for floats, decimals, dictionaries and instants without a zone are what the house reads every day."""
    table = weather(
        wind=pa.array(range(ROWS), pa.int32()),
        visibility=pa.array([1] * ROWS, pa.decimal128(10, 2)),
        sky=weather().column("sky").dictionary_encode(),
        observed=weather().column("observed").cast(pa.timestamp("ns")),
        frozen=pa.nulls(ROWS),
    )
    assert run(validate, tmp_path, table) == []


def test_integers_beside_nulls_keep_their_digits(tmp_path: Path, validate: Validate) -> None:
    """Two keys beyond 2**53 that differ in their last digit are two, even where pandas would make floats of them."""
    view = View("accounts", (Key("account", "account", Dtype.INT64),), (), None, 0, Source("x", "observed", None))
    account = pa.array([2**53, 2**53 + 1, *range(ROWS - 3), None], pa.int64())
    table = pa.table({"account": account, "observed": pa.array([START] * ROWS, INSTANT)})
    (finding,) = run(validate, tmp_path, table, source_suite(view))
    assert finding.message.startswith("accounts: expected no null (column account)")


def test_the_whole_file_is_judged_once(tmp_path: Path, validate: Validate) -> None:
    """An expectation about a column or table as a whole says what it found instead."""
    suite = {
        "name": "own",
        "expectations": [
            {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "wind", "min_value": 30}},
            {"type": "expect_table_row_count_to_equal", "kwargs": {"value": ROWS}},
            {"type": "expect_table_columns_to_match_set", "kwargs": {"column_set": weather().schema.names}},
            {"type": "expect_column_values_to_be_between", "kwargs": {"column": "sky", "max_value": 3}},
        ],
    }
    mean, broken = run(validate, tmp_path, weather(), suite)
    assert (mean.feature, mean.rows, mean.of) == ("weather__wind", ROWS, ROWS)
    assert "expected column mean to be between (min_value=30), got 19.5" in mean.message
    assert broken.feature == "weather__sky"
    assert "expected at most 3, could not be evaluated" in broken.message


@pytest.mark.parametrize(
    "condition", ["origin == 'JFK'", {"type": "pass_through", "pass_through_filter": "origin == 'JFK'"}]
)
def test_a_row_condition_of_a_teams_own_is_honoured(tmp_path: Path, validate: Validate, condition: Any) -> None:
    """An expectation on some rows is held against those alone, and its columns are found in the text."""
    kwargs = {"column": "reports", "row_condition": condition, "condition_parser": "pandas"}
    suite = {"name": "own", "expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": kwargs}]}
    assert run(validate, tmp_path, weather(), suite) == []
    (finding,) = run(validate, tmp_path, weather(reports=changed(weather(), "reports", r3=None)), suite)
    assert (finding.rows, finding.of) == (1, ROWS // 2)
    assert finding.examples[0].keys == "row 3"


def test_a_missing_or_torn_file_is_an_error(tmp_path: Path, validate: Validate) -> None:
    """A source that cannot be read is an error that names it, not a finding about its values."""
    with pytest.raises(SourceError, match=r"gone\.parquet"):
        validate(tmp_path / "gone.parquet", source_suite(WEATHER))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match="expected a Parquet file"):
        validate(tmp_path / "torn.parquet", source_suite(WEATHER))


def test_a_folder_of_files_is_one_source(tmp_path: Path, validate: Validate) -> None:
    """A source that lies in several files is validated as one, and row counts are those of the whole."""
    folder = tmp_path / "weather"
    folder.mkdir()
    pq.write_table(weather().slice(0, 10), folder / "a.parquet")
    pq.write_table(weather(wind=changed(weather(), "wind", r12=-1.0)).slice(10), folder / "b.parquet")
    (finding,) = validate(folder, source_suite(WEATHER), feature_prefix="weather")
    assert (finding.rows, finding.of) == (1, ROWS)
    assert finding.examples[0].as_of == "2013-11-05T12:00:00Z"


def test_progress_is_told_from_nothing_to_all(tmp_path: Path, validate: Validate) -> None:
    """The callback hears how many expectations are done, never fewer than before, and at last all of them."""
    pq.write_table(weather(), tmp_path / "weather.parquet")
    heard: list[tuple[str, int, int]] = []
    suite = source_suite(WEATHER)
    validate(tmp_path / "weather.parquet", suite, progress=lambda what, done, total: heard.append((what, done, total)))
    counts = [done for _, done, _ in heard]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, len(suite["expectations"]))
    assert {(what, total) for what, _, total in heard} == {("expect weather.parquet", len(suite["expectations"]))}


def test_a_clean_snapshot_has_no_findings(tmp_path: Path, validate: Validate) -> None:
    """Rows that were not found have nulls, and a contract that refuses null does not hold it against them."""
    assert run(validate, tmp_path, snapshot(), snapshot_suite(BUNDLE, "late")) == []


LATER = START + dt.timedelta(hours=2)
WHERE_PRESENT = "expected no null where weather__status == 0"


@pytest.mark.parametrize(
    ("column", "rows", "found"),
    [
        ("weather__wind_speed", {"r1": None}, ("weather__wind_speed", 1, 39, WHERE_PRESENT)),
        ("weather__wind_speed", {"r1": 99.0}, ("weather__wind_speed", 1, 40, "expected 0 to 60")),
        ("weather__status", {"r1": 9}, ("weather", 1, 40, "expected one of 0, 1, 2, 3, 4, 5, 6, 7")),
        ("weather__event_ts", {"r0": LATER}, ("weather", 1, 40, "expected event_timestamp >= weather__event_ts")),
        ("weather__created_ts", {"r0": LATER}, ("weather", 1, 40, "expected event_timestamp >= weather__created_ts")),
        ("id", {"r1": "0000"}, ("id", 2, 40, "expected every value once")),
        ("ratios__gust_ratio", {"r1": None}, ("ratios__gust_ratio", 1, 39, WHERE_PRESENT)),
    ],
)
def test_each_kind_of_violation_in_a_snapshot_is_one_finding(
    tmp_path: Path, validate: Validate, column: str, rows: dict[str, Any], found: tuple[str, int, int, str]
) -> None:
    """A snapshot's features are held to their contracts, and its answers to what could be known at the ask."""
    path = tmp_path / "snapshot.parquet"
    pq.write_table(snapshot(**{column: changed(snapshot(), column, **rows)}), path)
    (finding,) = validate(path, snapshot_suite(BUNDLE, "late"))
    assert (finding.feature, finding.rows, finding.of) == found[:3]
    assert found[3] in finding.message
    assert finding.examples[0].request_id in ("0000", "0001")
    assert finding.examples[0].keys == "e__origin=EWR"


def test_a_label_must_be_there_and_may_be_null(tmp_path: Path, validate: Validate) -> None:
    """A flight that was cancelled has no arrival; a snapshot without its label's column is broken."""
    suite = snapshot_suite(BUNDLE, "late")
    assert run(validate, tmp_path, snapshot(late=changed(snapshot(), "late", r1=None)), suite) == []
    (finding,) = run(validate, tmp_path, snapshot(late=None), suite)
    assert (finding.feature, finding.rows) == ("late", ROWS)


def test_a_derived_null_with_a_null_input_is_no_finding(tmp_path: Path, validate: Validate) -> None:
    """A derived value is only as present as its least present input, so a refused null needs all of them."""
    distance = changed(snapshot(), "q__distance", r1=None)
    ratio = changed(snapshot(), "ratios__gust_ratio", r1=None)
    table = snapshot(q__distance=distance, ratios__gust_ratio=ratio)
    assert run(validate, tmp_path, table, snapshot_suite(BUNDLE, "late")) == []


def test_a_snapshot_by_feasts_rule_may_know_later_rows(tmp_path: Path, validate: Validate) -> None:
    """Where the rule lets an answer be created after its ask, the suite does not object; a later event it does."""
    later = changed(snapshot(), "weather__created_ts", r0=START + dt.timedelta(hours=2))
    suite = snapshot_suite(BUNDLE, "late", known_by_ask=False)
    assert run(validate, tmp_path, snapshot(weather__created_ts=later), suite) == []


def test_a_snapshot_column_of_another_type_is_one_finding(tmp_path: Path, validate: Validate) -> None:
    """What skewguard writes itself has exactly the declared type."""
    wide = snapshot().column("weather__visibility").cast(pa.float64())
    (finding,) = run(validate, tmp_path, snapshot(weather__visibility=wide), snapshot_suite(BUNDLE, "late"))
    assert finding.feature == "weather__visibility"
    assert "expected type float32" in finding.message
    assert "found double" in finding.message


USERS = {
    "name": "weather",
    "id": "5e2e2a1c-6e0e-4c5e-9f0b-0d8d6f0a7c11",
    "notes": "kept by the weather desk",
    "meta": {"great_expectations_version": "1.24.1", "team": "weather desk"},
    "expectations": [
        {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "wind", "min_value": 100.0}, "meta": {},
         "id": "0c9f8fd2-96f8-4b4a-8f6a-0f6a2f4f9d10", "severity": "critical"},
        {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "origin", "regex": "^[A-Z]{3}$"},
         "meta": {}},
        {"type": "expect_column_values_to_be_in_set",
         "kwargs": {"column": "sky", "mostly": 0.9, "value_set": ["clear"]},
         "meta": {"notes": "nearly always"}},
        {"type": "expect_column_value_lengths_to_equal", "kwargs": {"column": "origin", "value": 3}, "meta": {}},
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "fog"}, "meta": {}},
    ],
}  # fmt: skip
"""A suite as Great Expectations 1.x saves it, with nothing of ours in it."""


def test_a_suite_that_a_user_wrote_is_run_as_it_is_and_decides_the_verdict(tmp_path: Path, validate: Validate) -> None:
    """It is neither rewritten nor completed; each of its failures is a finding that fails under a strict policy."""
    text = json.dumps(USERS)
    (tmp_path / "weather.json").write_text(text)
    suite = keep(tmp_path, source_suite(WEATHER) | {"name": "weather"})
    assert suite == USERS
    assert (tmp_path / "weather.json").read_text() == text
    findings = run(validate, tmp_path, weather(), suite)
    assert {one.kind for one in findings} == {Kind.EXPECTATION}
    assert [one.feature for one in findings] == ["weather__wind", "weather__fog"]
    verdict = judge(findings, Coverage(rows=5000, equal=5000), Subject(evidence="shadow"), Policy(("*",)), now=START)
    assert verdict.ruling is Ruling.FAIL
    assert set(verdict.reasons) == {one.message for one in findings}


def test_data_docs_are_written_on_request(tmp_path: Path, validate: Validate) -> None:
    """The library's own page tells of every expectation, those of absent columns included; else nothing is written."""
    path = tmp_path / "weather.parquet"
    pq.write_table(weather(), path)
    before = validate(path, USERS, feature_prefix="weather")
    assert not (tmp_path / "docs").exists()
    assert validate(path, USERS, feature_prefix="weather", data_docs=tmp_path / "docs") == before
    page = (tmp_path / "docs" / "weather.html").read_text()
    for told in ("origin", "wind", "fog", "Evaluated Expectations", "Failed"):
        assert told in page, told
    table = page[page.index("Evaluated Expectations") :]
    assert re.search(r"Evaluated Expectations\D+5\D", re.sub(r"<[^>]*>", " ", table))


def test_a_suite_that_the_library_itself_saved_is_judged_and_told(tmp_path: Path, validate: Validate) -> None:
    """Written with the library's own classes, as its documents show, and saved by a file context of its own."""
    import great_expectations as gx
    from great_expectations import expectations

    gxe: Any = expectations  # its names are not exported for type checkers
    context = gx.get_context(mode="file", project_root_dir=str(tmp_path / "desk"))
    written = context.suites.add(gx.ExpectationSuite(name="weather_desk"))
    written.add_expectation(gxe.ExpectColumnValuesToBeBetween(column="wind", min_value=0, max_value=1))
    written.add_expectation(gxe.ExpectColumnValuesToNotBeNull(column="origin"))
    written.add_expectation(gxe.ExpectTableRowCountToBeBetween(min_value=1))
    written.save()
    (saved,) = (tmp_path / "desk").rglob("weather_desk.json")
    suite = load(saved.parent, "weather_desk")
    (finding,) = run(validate, tmp_path, weather(), suite)
    assert (finding.feature, finding.kind) == ("weather__wind", Kind.EXPECTATION)
    verdict = judge([finding], Coverage(rows=5000, equal=5000), Subject(evidence="shadow"), Policy(("*",)), now=START)
    assert verdict.ruling is Ruling.FAIL
    assert "expected 0 to 1" in to_html(verdict)
