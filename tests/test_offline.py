"""Offline: the one point-in-time join, held against two oracles that share nothing with how it finds its rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skewguard.contract import Contract
from skewguard.definitions import Feature, Key, Source, View
from skewguard.errors import AskError, SourceError
from skewguard.offline import OfflineStore, Rule
from skewguard.offline.clock import order
from skewguard.offline.shelf import size_of
from skewguard.offline.timeline import Timeline
from skewguard.oracle import brute_force
from skewguard.spine import Spine, ViewRows, read_spine
from skewguard.values import NO_TIME, Column, Dtype, Status, same
from tests.worlds import (
    CREATED,
    EVENT,
    T0,
    assert_identical,
    column,
    plain,
    shop,
    spine,
    stamps,
    statuses,
    view,
    write,
)

TTL = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples of properties leave their files."""
    return tmp_path_factory.mktemp("worlds")


def answer(declared: View, asks: Spine, rule: Rule = Rule.KNOWN, **options: Any) -> ViewRows:
    """The join's answer of one view."""
    with OfflineStore([declared], rule, **options) as offline:
        return offline.answer(asks)[declared.name]


# -- an oracle of plain lists -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A feature: the type in the source, the declared one, its values there, and what each becomes."""

    source: pa.DataType
    dtype: Dtype
    values: Sequence[Any]
    declared: Callable[[Any], Any] = lambda value: value


def _no_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


KINDS = [
    Kind(pa.float64(), Dtype.FLOAT64, [math.nan, -0.0, 0.0, 1.5, 1e308, -math.inf], _no_nan),
    Kind(pa.float64(), Dtype.FLOAT32, [0.1, 0.1 + 1e-12, math.nan, 3.0], lambda v: _no_nan(float(np.float32(v)))),
    Kind(pa.int64(), Dtype.FLOAT64, [2**53, -7], float),
    Kind(pa.int64(), Dtype.INT64, [2**53 + 1, 2**53, -(2**63), 2**63 - 1]),
    Kind(pa.float64(), Dtype.INT64, [3.0, -1.0], int),
    Kind(pa.int64(), Dtype.INT32, [2**31 - 1, -1]),
    Kind(pa.bool_(), Dtype.BOOL, [True, False]),
    Kind(pa.string(), Dtype.STRING, ["", "é", "e\u0301", "日本", "\U0001f600", "z"]),
    Kind(pa.int64(), Dtype.STRING, [9, 10, -1], str),
    Kind(pa.timestamp("us", tz="UTC"), Dtype.TIMESTAMP, [T0, T0 + 1]),
    Kind(pa.timestamp("ns", tz="UTC"), Dtype.TIMESTAMP, [T0 * 1000 + 999, T0 * 1000 + 1], lambda v: v // 1000),
]
KEYS: dict[Dtype, list[Any]] = {
    Dtype.STRING: ["a", "é", "", None],
    Dtype.INT64: [2**53 + 1, 2**53, None],
    Dtype.INT32: [-1, 5],
    Dtype.BOOL: [True, None],
    Dtype.TIMESTAMP: [T0, T0 + 1, None],
}
MOMENTS = st.sampled_from([0, 1, 2, TTL - 1, TTL, TTL + 1, 2 * TTL, 2 * TTL + 1, 3 * TTL]).map(lambda us: T0 + us)


@dataclass(frozen=True)
class Row:
    """A source row as written down by hand: features in the source's values."""

    key: tuple[Any, ...]
    event: int | None
    created: int | None
    features: tuple[Any, ...]


@dataclass(frozen=True)
class History:
    """A view's rows in file order, and asks of (key, instant)."""

    keys: tuple[Dtype, ...]
    kinds: tuple[Kind, ...]
    has_created: bool
    ttl_us: int | None
    rows: tuple[Row, ...]
    asks: tuple[tuple[tuple[Any, ...], int], ...]

    def declare(self, folder: Path) -> View:
        """Write the rows; the view over them."""
        columns = {f"k{i}": _array(dtype.arrow, [row.key[i] for row in self.rows]) for i, dtype in enumerate(self.keys)}
        for i, kind in enumerate(self.kinds):
            columns[f"x{i}"] = _array(kind.source, [row.features[i] for row in self.rows])
        columns[EVENT] = stamps([row.event for row in self.rows])
        columns[CREATED] = stamps([row.created for row in self.rows])
        return view(
            "v",
            write(folder, columns, row_group_size=3),
            {f"k{i}": dtype for i, dtype in enumerate(self.keys)},
            {f"x{i}": kind.dtype for i, kind in enumerate(self.kinds)},
            ttl_us=self.ttl_us,
            created=self.has_created,
        )

    def spine(self) -> Spine:
        """The asks."""
        keys = {f"k{i}": column(dtype, [key[i] for key, _ in self.asks]) for i, dtype in enumerate(self.keys)}
        return spine([as_of for _, as_of in self.asks], keys)

    def by_hand(self, rule: Rule) -> list[tuple[Any, ...]]:
        """(status, event, created, features) of every ask, found by looking at every row."""
        return [self._one(key, as_of, rule) for key, as_of in self.asks]

    def _one(self, key: tuple[Any, ...], as_of: int, rule: Rule) -> tuple[Any, ...]:
        found = None
        for row in self.rows:
            if None in key or row.key != key or row.event is None or row.event > as_of:
                continue
            created = row.created if self.has_created and row.created is not None else NO_TIME
            if rule is Rule.KNOWN and created > as_of:
                continue
            features = [
                None if v is None else kind.declared(v) for kind, v in zip(self.kinds, row.features, strict=True)
            ]
            rank = (row.event, created, [(v is not None, 0 if v is None else v) for v in features])
            if found is None or rank > found[0]:
                found = rank, features
        if found is None:
            return Status.NOT_FOUND, NO_TIME, NO_TIME, [None] * len(self.kinds)
        (event, created, _), features = found
        if self.ttl_us is not None and as_of - event > self.ttl_us:
            return Status.EXPIRED, event, created, [None] * len(self.kinds)
        return Status.PRESENT, event, created, features


def _array(kind: pa.DataType, values: list[Any]) -> pa.Array:
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.int64()).view(kind)
    return pa.array(values, kind)


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Few keys, few moments, few values: dense in ties and edges."""
    keys = tuple(draw(st.lists(st.sampled_from(list(KEYS)), max_size=2)))
    kinds = tuple(draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4)))
    key = st.tuples(*(st.sampled_from(KEYS[dtype]) for dtype in keys))
    row = st.builds(
        Row,
        key,
        st.none() | MOMENTS if draw(st.integers(0, 4)) == 0 else MOMENTS,
        st.none() | MOMENTS,
        st.tuples(*(st.sampled_from([None, *kind.values]) for kind in kinds)),
    )
    return History(
        keys,
        kinds,
        draw(st.booleans()),
        draw(st.sampled_from([None, 0, TTL])),
        tuple(draw(st.lists(row, max_size=14))),
        tuple(draw(st.lists(st.tuples(key, MOMENTS | MOMENTS.map(lambda us: us - 1)), max_size=14))),
    )


TIED = History(
    (Dtype.INT64,),
    (KINDS[1], KINDS[8]),
    True,
    TTL,
    (
        Row((2**53 + 1,), T0, None, (0.1, 9)),
        Row((2**53 + 1,), T0, None, (0.1 + 1e-12, 10)),
        Row((2**53,), T0, T0 + 1, (3.0, 9)),
        Row((2**53,), T0, T0, (0.1, None)),
    ),
    (((2**53 + 1,), T0), ((2**53,), T0), ((2**53,), T0 + TTL), ((2**53,), T0 + TTL + 1), ((None,), T0)),
)


BY_DUCKDB = {"v": ["x0"]}
"""What rides along is read by DuckDB, whatever it is; else these files are read without it."""


@example(TIED)
@given(histories())
@settings(deadline=None, max_examples=50)
def test_the_join_answers_what_both_oracles_answer(folder: Path, history: History) -> None:
    """Under both rules: row, status and every value, for every dtype, tie, edge, null and duplicate, in order."""
    declared, asks = history.declare(folder), history.spine()
    for rule, carry in itertools.product(Rule, ({}, BY_DUCKDB)):
        got = answer(declared, asks, rule, carry=carry)
        assert_identical(got, brute_force(declared, asks, known=rule is Rule.KNOWN))
        values = [plain(got.features[f"x{i}"]) for i in range(len(history.kinds))]
        found = zip(
            got.status.tolist(), got.event.tolist(), got.created.tolist(), zip(*values, strict=True), strict=True
        )
        assert [(s, e, c, list(v)) for s, e, c, v in found] == history.by_hand(rule)
        assert set(got.watermark.tolist()) <= {NO_TIME}
        for feature in got.features.values():
            assert (feature.status >= got.status).all(), "no value is more present than its row"


@given(histories(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=20)
def test_neither_file_nor_thread_order_decides(folder: Path, history: History, random: Any) -> None:
    """The rows in another order, in two files, read by another number of threads: the same bits."""
    declared, asks = history.declare(folder), history.spine()
    shuffled = list(history.rows)
    random.shuffle(shuffled)
    other = replace(history, rows=tuple(shuffled)).declare(folder)
    halves = folder / f"{Path(other.source.path).stem}-halves"
    halves.mkdir()
    table = pq.read_table(other.source.path)
    for i, part in enumerate((table.slice(0, len(table) // 2), table.slice(len(table) // 2))):
        pq.write_table(part, halves / f"{i}.parquet")
    split = replace(other, source=replace(other.source, path=str(halves)))
    first = answer(declared, asks, threads=1)
    for again in (answer(other, asks, threads=2), answer(split, asks)):
        _assert_equal_up_to_zeros_sign(first, again)


@given(histories())
@settings(deadline=None, max_examples=20)
def test_a_table_of_asks_gets_the_same_answers(folder: Path, history: History) -> None:
    """`join` and `write` put beside the asks' own columns what `answer` answers, in declared dtypes, null for none."""
    declared, asks = history.declare(folder), history.spine()
    columns = {
        f"k{i}": _array(dtype.arrow, [key[i] for key, _ in history.asks]) for i, dtype in enumerate(history.keys)
    }
    table = pa.table(
        {"mine": pa.array([str(i) for i in range(len(asks))]), "when": stamps([t for _, t in history.asks])}
    )
    for name, array in columns.items():
        table = table.append_column(name, array)
    for rule in Rule:
        features = answer(declared, asks, rule).features
        with OfflineStore([declared], rule) as offline:
            joined = offline.join(table, as_of="when")
            offline.write(table, folder / "joined.parquet", as_of="when")
        assert joined.select(table.column_names).equals(table)
        assert pq.read_table(folder / "joined.parquet").equals(joined)
        for name, feature in features.items():
            assert joined[f"v__{name}"].combine_chunks().equals(feature.to_arrow())
        assert joined.column_names == [*table.column_names, *(f"v__{name}" for name in features)]


def _assert_equal_up_to_zeros_sign(one: ViewRows, other: ViewRows) -> None:
    """Of a tie between 0.0 and -0.0 either may answer: they are the same value."""

    def plus(rows: ViewRows) -> ViewRows:
        features = {
            n: replace(c, values=c.values + c.dtype.numpy.type(0)) if c.dtype.is_float else c
            for n, c in rows.features.items()
        }
        return replace(rows, features=features)

    assert_identical(plus(one), plus(other))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rule", Rule)
def test_a_whole_bundle_is_answered_view_by_view(tmp_path: Path, seed: int, rule: Rule) -> None:
    """A view of every dtype, one of two renamed keys and one without keys agree with the oracle, bit for bit."""
    world = shop(tmp_path, seed=seed)
    asks = world.spine
    with world.offline(rule=rule) as offline:
        answers = offline.answer(asks)
    assert set(answers) == {"buyer", "globe", "road"}
    for declared in world.bundle.views:
        assert_identical(answers[declared.name], brute_force(declared, asks, known=rule is Rule.KNOWN))
        assert len(set(answers[declared.name].status.tolist())) > 1, "the world is not trivial"


# -- the rules, one by one --------------------------------------------------------------------------------------------


def temperatures(
    folder: Path,
    rows: Sequence[tuple[str | None, int | None, int | None, float | None]],
    **options: Any,
) -> View:
    """A view `weather` of rows (place, event, created, temperature), times relative to T0."""
    places, events, created, values = zip(*rows, strict=True) if rows else ([], [], [], [])
    path = write(
        folder,
        {
            "place": pa.array(places, pa.string()),
            EVENT: stamps([None if t is None else T0 + t for t in events]),
            CREATED: stamps([None if t is None else T0 + t for t in created]),
            "temp": pa.array(values, pa.float64()),
        },
    )
    return view("weather", path, {"place": Dtype.STRING}, {"temp": Dtype.FLOAT64}, **options)


def at(*asked: tuple[str | None, int]) -> Spine:
    """Asks of (place, instant relative to T0)."""
    return spine([T0 + t for _, t in asked], {"place": column(Dtype.STRING, [place for place, _ in asked])})


def values(declared: View, asks: Spine, rule: Rule = Rule.KNOWN) -> list[Any]:
    """The temperatures that the join answers."""
    return plain(answer(declared, asks, rule).features["temp"])


def test_a_training_row_does_not_know_a_later_correction(tmp_path: Path) -> None:
    """Under our rule a correction counts from when it was made; under Feast's it leaks into the past."""
    declared = temperatures(tmp_path, [("a", 0, 0, 20.0), ("a", 0, 100, 21.0)])
    asks = at(("a", 0), ("a", 99), ("a", 100))
    assert values(declared, asks) == [20.0, 20.0, 21.0]
    assert values(declared, asks, Rule.FEAST) == [21.0, 21.0, 21.0]


def test_a_late_row_counts_from_when_it_was_known(tmp_path: Path) -> None:
    """A row of 10 that was published at 30 is unknown at 20, and does not hide the newer row of 25 afterwards."""
    declared = temperatures(tmp_path, [("a", 0, 0, 1.0), ("a", 10, 30, 2.0), ("a", 25, 25, 3.0)])
    asks = at(("a", 20), ("a", 29), ("a", 30), ("a", 31))
    assert values(declared, asks) == [1.0, 3.0, 3.0, 3.0]
    assert values(declared, asks, Rule.FEAST) == [2.0, 3.0, 3.0, 3.0]


def test_an_old_row_that_comes_late_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    """Newest is by event, then by created time, however late a row came to be known."""
    declared = temperatures(tmp_path, [("a", 5, 5, 1.0), ("a", 3, 50, 2.0), ("a", 5, 40, 3.0), ("a", 5, 30, 4.0)])
    assert values(declared, at(("a", 29), ("a", 30), ("a", 40), ("a", 50))) == [1.0, 4.0, 3.0, 3.0]


def test_without_a_created_time_a_row_is_known_at_its_event(tmp_path: Path) -> None:
    """Neither a missing created column nor a null in it makes a row wait."""
    rows = [("a", 0, 100, 1.0), ("a", 10, None, 2.0)]
    assert values(temperatures(tmp_path, rows), at(("a", 9), ("a", 10))) == [None, 2.0]
    assert values(temperatures(tmp_path, rows, created=False), at(("a", 9), ("a", 10))) == [1.0, 2.0]


def test_a_created_time_before_the_event_makes_nothing_known_early(tmp_path: Path) -> None:
    """A forecast written down yesterday for tomorrow is answered from tomorrow on."""
    declared = temperatures(tmp_path, [("a", 10, -50, 1.0)])
    got = answer(declared, at(("a", 9), ("a", 10)))
    assert statuses(got) == ["not_found", "present"]
    assert got.created.tolist() == [NO_TIME, T0 - 50]


def test_both_edges_of_the_ttl_are_inside(tmp_path: Path) -> None:
    """At exactly the TTL a row still answers, a microsecond later it has expired and is still named."""
    declared = temperatures(tmp_path, [("a", 0, 0, 1.0)], ttl_us=TTL)
    got = answer(declared, at(("a", -1), ("a", 0), ("a", TTL), ("a", TTL + 1)))
    assert statuses(got) == ["not_found", "present", "present", "expired"]
    assert got.event.tolist() == [NO_TIME, T0, T0, T0]
    assert [Status(s).name.lower() for s in got.features["temp"].status.tolist()] == statuses(got)


def test_a_null_is_no_missing_row(tmp_path: Path) -> None:
    """A null value, a null in an expired row and an unknown key are told apart."""
    declared = temperatures(tmp_path, [("a", 0, 0, None), ("b", 0, 0, math.nan)], ttl_us=TTL)
    got = answer(declared, at(("a", 0), ("b", 0), ("a", 99), ("c", 0)))
    assert statuses(got) == ["present", "present", "expired", "not_found"]
    assert [Status(s).name for s in got.features["temp"].status.tolist()] == ["NULL", "NULL", "EXPIRED", "NOT_FOUND"]


def test_a_null_key_is_not_found(tmp_path: Path) -> None:
    """A null never equals a null: not among the asks, not among the rows."""
    declared = temperatures(tmp_path, [(None, 0, 0, 1.0), ("", 0, 0, 2.0)])
    got = answer(declared, at((None, 5), ("", 5)))
    assert statuses(got) == ["not_found", "present"]


def test_a_row_without_an_event_time_is_no_row(tmp_path: Path) -> None:
    """Nobody can say when it became true."""
    declared = temperatures(tmp_path, [("a", None, 0, 1.0)])
    assert statuses(answer(declared, at(("a", 5)))) == ["not_found"]


def test_no_rows_and_no_asks_are_answered(tmp_path: Path) -> None:
    """An empty source answers not_found to all, and no asks get no answers."""
    empty = temperatures(tmp_path, [])
    assert statuses(answer(empty, at(("a", 0), (None, 0)))) == ["not_found", "not_found"]
    full = temperatures(tmp_path, [("a", 0, 0, 1.0)])
    got = answer(full, at())
    assert len(got.status) == len(got.features["temp"]) == 0


def test_one_ask_in_one_answer_out_in_order(tmp_path: Path) -> None:
    """A hundred and fifty thousand shuffled asks, many of them alike, keep their places."""
    rows = 500
    declared = temperatures(tmp_path, [("a", 10 * i, 10 * i, float(i)) for i in range(rows)])
    times = np.random.default_rng(0).integers(0, 10 * rows, 150_000)
    got = answer(declared, spine((T0 + times).tolist(), {"place": column(Dtype.STRING, ["a"] * len(times))}))
    assert got.features["temp"].values.tolist() == (times // 10).astype(float).tolist()


def test_a_composite_key_is_one_key(tmp_path: Path) -> None:
    """Both parts must match, whatever they would look like joined together."""
    path = write(
        tmp_path,
        {
            "src": pa.array(["a", "ab", "a"]),
            "dst": pa.array(["bc", "c", "c"]),
            "n": pa.array([1, 2, 3]),
            EVENT: stamps([T0] * 3),
        },
    )
    both = {"src": Dtype.STRING, "dst": Dtype.STRING}
    declared = view("road", path, both, {"n": Dtype.INT64}, created=False, asks={"src": "from"})
    keys = {
        "from": column(Dtype.STRING, ["ab", "a", "a", "abc", "a"]),
        "dst": column(Dtype.STRING, ["c", "bc", "c", "", None]),
    }
    got = answer(declared, spine([T0] * 5, keys))
    assert plain(got.features["n"]) == [2, 1, 3, None, None]


def test_a_column_may_have_another_name_than_its_feature(tmp_path: Path) -> None:
    """Source columns go by the source's names, quotes and all, features by the view's."""
    path = write(
        tmp_path, {'pl"ace': pa.array(["a"]), 'T "x"': pa.array([1.5]), "when": stamps([T0]), "written": stamps([T0])}
    )
    declared = view("w", path, {'pl"ace': Dtype.STRING}, {"temp": Dtype.FLOAT64}, asks={'pl"ace': "place"})
    declared = replace(
        declared,
        features=(Feature("temp", 'T "x"', Dtype.FLOAT64, declared.features[0].contract),),
        source=replace(declared.source, timestamp="when", created="written"),
    )
    assert values(declared, at(("a", 0))) == [1.5]
    with OfflineStore([declared]) as offline:
        assert offline.changes("w", T0 - 1, T0).column_names == ["known", "event", "created", 'pl"ace', "f__temp"]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", None])
@pytest.mark.parametrize("unit", ["ns", "ms", "us"])
def test_times_of_any_unit_are_read_as_microseconds_utc(tmp_path: Path, unit: str, zone: str | None) -> None:
    """Nanoseconds, milliseconds, other zones, and naive times, which are read as UTC whatever the machine's zone."""
    event = pa.array([T0 * 1000 if unit == "ns" else T0 // 1000 if unit == "ms" else T0]).view(pa.timestamp(unit, zone))
    path = write(tmp_path, {"place": pa.array(["a"]), "temp": pa.array([1.0]), EVENT: event, CREATED: event})
    declared = view("weather", path, {"place": Dtype.STRING}, {"temp": Dtype.FLOAT64})
    got = answer(declared, at(("a", -1), ("a", 0)))
    assert got.event.tolist() == [NO_TIME, T0]
    assert got.created.tolist() == [NO_TIME, T0]


def test_a_source_may_be_a_folder_or_a_pattern(tmp_path: Path) -> None:
    """Files in folders, partitions named in their paths, and globs are one source."""
    for i, month in enumerate(("2013-01", "2013-02")):
        part = tmp_path / "rows" / f"month={month}"
        part.mkdir(parents=True)
        table = {"place": pa.array(["a"]), "temp": pa.array([float(i)]), EVENT: stamps([T0 + i])}
        write(part, table, name="part 'x'.parquet")
    declared = view("weather", tmp_path / "rows", {"place": Dtype.STRING}, {"temp": Dtype.FLOAT64}, created=False)
    pattern = replace(declared, source=replace(declared.source, path=str(tmp_path / "rows/*/*.parquet")))
    for one in (declared, pattern):
        assert values(one, at(("a", 0), ("a", 1))) == [0.0, 1.0]


def test_any_layout_of_the_files_is_one_source(tmp_path: Path) -> None:
    """A partition column may be a key or a feature; nested folders, globs and URIs read like one file."""
    rows = [("a", 0, 1.0, "x"), ("a", 5, 2.0, "y"), ("b", 1, 3.0, "x"), ("b", 7, 4.0, "y"), ("a", 9, 5.0, "x")]
    for place, at_us, value, part in rows:
        for folder in (tmp_path / "hive" / f"place={place}" / f"part={part}", tmp_path / "flat" / place / part):
            folder.mkdir(parents=True, exist_ok=True)
            columns = {"temp": pa.array([value]), EVENT: stamps([T0 + at_us])}
            if "flat" in str(folder):
                columns |= {"place": pa.array([place]), "part": pa.array([part])}
            write(folder, columns)
    asks = at(("a", 0), ("a", 6), ("b", 6), ("b", 7), ("c", 9), ("a", 9))
    layouts = ["hive", "hive/*/*/*.parquet", "flat", "flat/*/*/*.parquet", "flat/**/*.parquet", "file"]
    for layout in layouts:
        path = f"file://{tmp_path}/flat/*/*/*.parquet" if layout == "file" else str(tmp_path / layout)
        features = {"temp": Dtype.FLOAT64, "part": Dtype.STRING}
        declared = view("weather", path, {"place": Dtype.STRING}, features, created=False)
        got = answer(declared, asks)
        assert plain(got.features["temp"]) == [1.0, 2.0, 3.0, 4.0, None, 5.0], layout
        assert plain(got.features["part"]) == ["x", "y", "x", "y", None, "x"], layout


def test_files_of_different_types_are_one_source(tmp_path: Path) -> None:
    """Where one file has its integers narrower than the other, or its columns in another order."""
    (tmp_path / "rows").mkdir()
    first = {"place": pa.array(["a"]), EVENT: stamps([T0]), "temp": pa.array([1.0])}
    write(tmp_path / "rows", first, name="0.parquet")
    second = {"temp": pa.array([2.0], pa.float32()), EVENT: stamps([T0 + 1]), "place": pa.array(["a"])}
    write(tmp_path / "rows", second, name="1.parquet")
    declared = view("weather", tmp_path / "rows", {"place": Dtype.STRING}, {"temp": Dtype.FLOAT64}, created=False)
    assert values(declared, at(("a", 0), ("a", 1))) == [1.0, 2.0]


@pytest.mark.parametrize("carry", [{}, {"weather": ["temp"]}])
def test_times_before_1970_are_rounded_down(tmp_path: Path, carry: dict[str, list[str]]) -> None:
    """A nanosecond before 1970 belongs to the microsecond before, on any way of reading."""
    for ns, us in ((-1, -1), (-999, -1), (-1000, -1), (-1001, -2), (0, 0), (999, 0), (-(10**15) - 1, -(10**12) - 1)):
        event = pa.array([ns]).view(pa.timestamp("ns", "UTC"))
        path = write(tmp_path, {"place": pa.array(["a"]), "temp": pa.array([1.0]), EVENT: event, CREATED: event})
        declared = view("weather", path, {"place": Dtype.STRING}, {"temp": Dtype.FLOAT64})
        asks = spine([us - 1, us], {"place": column(Dtype.STRING, ["a", "a"])})
        got = answer(declared, asks, carry=carry)
        assert (got.event.tolist(), got.created.tolist()) == ([NO_TIME, us], [NO_TIME, us])


def test_a_naive_time_is_reported(tmp_path: Path) -> None:
    """It is read as UTC, and the store says so, by file, view and column."""
    naive = pa.array([T0]).view(pa.timestamp("us"))
    path = write(tmp_path, {"place": pa.array(["a"]), "temp": pa.array([1.0]), EVENT: naive, CREATED: stamps([T0])})
    declared = view("weather", path, {"place": Dtype.STRING}, {"temp": Dtype.FLOAT64})
    with OfflineStore([declared, replace(temperatures(tmp_path, []), name="other")]) as offline:
        assert offline.notices() == [f"{path} (view weather): {EVENT} has no time zone; it is read as UTC"]


def test_rows_that_come_later_are_seen(tmp_path: Path) -> None:
    """A store that stays open notices files that were appended to, replaced or added, whatever it kept of them."""
    declared = temperatures(tmp_path, [("a", 0, 0, 1.0)])
    path = Path(declared.source.path)
    folder = tmp_path / "rows"
    folder.mkdir()
    path.rename(folder / "0.parquet")
    declared = replace(declared, source=replace(declared.source, path=str(folder)))
    asks = at(("a", 9))
    with OfflineStore([declared]) as offline:

        def seen() -> list[Any]:
            return [plain(offline.answer(asks)["weather"].features["temp"])[0] for _ in range(3)]

        assert seen() == [1.0] * 3
        Path(temperatures(tmp_path, [("a", 0, 0, 2.0)]).source.path).replace(folder / "0.parquet")
        assert seen() == [2.0] * 3
        Path(temperatures(tmp_path, [("a", 5, 5, 3.0)]).source.path).replace(folder / "1.parquet")
        assert seen() == [3.0] * 3
        (folder / "1.parquet").unlink()
        assert seen() == [2.0] * 3


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times of the old file and values of the new one never meet in an answer."""
    declared = temperatures(tmp_path, [("a", 0, 0, 1.0), ("a", 5, 5, 2.0)])
    other = Path(temperatures(tmp_path, [("a", 5, 5, 20.0), ("a", 0, 0, 10.0)]).source.path)
    search = Timeline.best

    def replaced(timeline: Timeline, *asked: Any) -> Any:
        if other.exists():
            other.replace(declared.source.path)
        return search(timeline, *asked)

    monkeypatch.setattr(Timeline, "best", replaced)
    assert values(declared, at(("a", 0), ("a", 5))) == [10.0, 20.0]


@given(st.data())
@settings(deadline=None, max_examples=50)
def test_the_order_is_that_of_the_numbers(data: st.DataObject) -> None:
    """Whether number and place fit into 64 bits together or not, and however many numbers are nearly the same."""
    bits = data.draw(st.integers(1, 64))
    top = st.integers(0, 2**bits - 1)
    near = data.draw(top)
    number = top | st.integers(0, 3).map(lambda more: min(near + more, 2**bits - 1))
    packed = np.array(data.draw(st.lists(number, max_size=50)), dtype=np.uint64)
    found = order(packed, bits)
    assert sorted(found.tolist()) == list(range(len(packed)))
    assert (packed[found] == np.sort(packed)).all()
    assert sorted(order(packed, bits, exact=False).tolist()) == list(range(len(packed)))


def test_keys_of_a_great_range_are_told_apart(tmp_path: Path) -> None:
    """Two whole numbers that lie far apart in each of several columns make one key, without a number overflowing."""
    far = [0, 2**39, 2**39 + 1, 1, -(2**62), 2**62]
    pairs = [(a, b) for a in far for b in far]
    columns = {"a": pa.array([a for a, _ in pairs]), "b": pa.array([b for _, b in pairs])}
    path = write(tmp_path, columns | {EVENT: stamps([T0] * len(pairs)), "n": pa.array(range(len(pairs)))})
    keys = {"a": Dtype.INT64, "b": Dtype.INT64}
    declared = view("v", path, keys, {"n": Dtype.INT64}, created=False)
    asked = [*pairs, (2, 0), (0, 3)]
    columns_asked = {name: column(Dtype.INT64, [pair[i] for pair in asked]) for i, name in enumerate(keys)}
    got = answer(declared, spine([T0] * len(asked), columns_asked))
    assert plain(got.features["n"]) == [*range(len(pairs)), None, None]


def test_an_ask_that_a_tie_answered_is_told(tmp_path: Path) -> None:
    """`tied` marks asks whose row is one of several equal in keys and both times, and no others."""
    rows = [("a", 0, 0, 1.0), ("a", 0, 0, 2.0), ("a", 5, 5, 3.0), ("b", 0, 0, 1.0), ("b", 0, 1, 1.0), ("c", 0, 0, 7.0)]
    declared = temperatures(tmp_path, rows)
    asks = at(("a", 0), ("a", 4), ("a", 5), ("b", 9), ("c", 9), ("d", 9), (None, 9))
    with OfflineStore([declared]) as offline:
        answers = offline.answer(asks)["weather"]
        assert offline.tied("weather", asks, answers).tolist() == [True, True, False, False, False, False, False]


def test_ties_are_counted(tmp_path: Path) -> None:
    """Every row that repeats the keys and both times of another counts once, whatever its values."""
    rows: list[tuple[str | None, int | None, int | None, float | None]] = [
        ("a", 0, 0, 1.0),
        ("a", 0, 0, 1.0),
        ("a", 0, 0, 2.0),
        ("a", 0, 1, 3.0),
        ("b", 0, None, 1.0),
        ("b", 0, None, None),
        ("c", None, 0, 1.0),
        ("c", None, 0, 1.0),
    ]
    declared = temperatures(tmp_path, rows)
    with OfflineStore([declared]) as offline:
        assert offline.ties("weather") == 3
    assert values(declared, at(("a", 0), ("b", 0))) == [2.0, 1.0]


# -- what others ask of it --------------------------------------------------------------------------------------------


@given(histories(), MOMENTS, MOMENTS)
@settings(deadline=None, max_examples=30)
def test_what_is_published_is_what_was_known(folder: Path, history: History, since: int, until: int) -> None:
    """`changes` are the rows that became known in between, in order; `latest` each key's newest of those known."""
    declared = history.declare(folder)
    names = ["known", "event", "created", *(f"k{i}" for i in range(len(history.keys)))]
    with OfflineStore([declared]) as offline:
        changes, latest = offline.changes("v", since, until), offline.latest("v", until)
    assert changes.column_names == latest.column_names
    known = changes["known"].to_pylist()
    assert known == sorted(known)
    expected: set[tuple[Any, ...]] = set()
    newest: dict[tuple[Any, ...], tuple[int, int]] = {}
    for row in history.rows:
        if row.event is None or None in row.key:  # nobody can ask for a row without its keys
            continue
        created = row.created if history.has_created and row.created is not None else NO_TIME
        if since < max(row.event, created) <= until:
            expected.add((max(row.event, created), row.event, created, *row.key))
        if max(row.event, created) <= until:
            newest[row.key] = max(newest.get(row.key, (row.event, created)), (row.event, created))
    published = _tuples(changes, names)
    assert set(published) == expected
    assert len(published) == len(expected), "a tie is published once"
    found = [(row[3:], row[1:3]) for row in _tuples(latest, names)]
    assert sorted(map(str, found)) == sorted(map(str, newest.items()))


def _tuples(table: pa.Table, names: list[str]) -> list[tuple[Any, ...]]:
    """The rows that have all their keys; instants in microseconds."""
    whole = [c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c for c in (table[name] for name in names)]
    return [row for row in zip(*(c.to_pylist() for c in whole), strict=True) if None not in row]


def test_the_newest_row_known_is_named_for_any_instant(tmp_path: Path) -> None:
    """`best` names (event, created) per ask at instants other than the ask's own, no TTL applied."""
    declared = temperatures(tmp_path, [("a", 0, 0, 1.0), ("a", 10, 40, 2.0)], ttl_us=TTL)
    asks = at(("a", 100), ("a", 100), ("a", 100), ("x", 100))
    with OfflineStore([declared]) as offline:
        event, created = offline.best("weather", asks, T0 + np.array([-1, 39, 40, 40]))
    assert event.tolist() == [NO_TIME, T0, T0 + 10, NO_TIME]
    assert created.tolist() == [NO_TIME, T0, T0 + 40, NO_TIME]


def test_a_named_row_is_looked_up_exactly(tmp_path: Path) -> None:
    """`rows` answers the row of these keys and both times or none, under the ask's own clock and TTL."""
    declared = temperatures(tmp_path, [("a", 0, 0, 1.0), ("a", 0, 5, 2.0), ("a", 9, None, 3.0)], ttl_us=TTL)
    asks = at(("a", 5), ("a", 5), ("a", 50), ("a", 5), ("a", 5), ("b", 5))
    event = np.array([T0, T0, T0, T0 + 9, T0, T0])
    created = np.array([T0, T0 + 5, T0, NO_TIME, T0 + 1, T0])
    with OfflineStore([declared]) as offline:
        got = offline.rows("weather", asks, event, created)
    assert statuses(got) == ["present", "present", "expired", "future", "not_found", "not_found"]
    assert plain(got.features["temp"]) == [1.0, 2.0, None, None, None, None]
    assert got.event.tolist() == [T0, T0, T0, T0 + 9, NO_TIME, NO_TIME]


def test_people_see_the_rows_around_an_instant(tmp_path: Path) -> None:
    """`history` gives the newest rows up to an instant and the next one after it, newest first."""
    rows = [("a", 10 * i, 10 * i + 1 if i else None, float(i)) for i in range(5)]
    declared = temperatures(tmp_path, [*rows, ("b", 15, 15, 9.0)])
    with OfflineStore([declared]) as offline:
        table = offline.history("weather", at(("a", 25)), T0 + 25, 2)
        everything = offline.history("weather", at(("a", 25)), T0 + 25, 99)
        nothing = offline.history("weather", at((None, 25)), T0 + 25, 2)
    assert table.column_names == ["place", "event_time", "created_time", "temp"]
    assert table["temp"].to_pylist() == [3.0, 2.0, 1.0]
    assert everything["created_time"].null_count == 1
    assert len(nothing) == 0


def test_memory_and_threads_may_be_limited(tmp_path: Path) -> None:
    """The same answer under a memory limit and with one thread."""
    world = shop(tmp_path)
    asks = world.spine
    with world.offline(memory_limit="256MiB", threads=1) as limited, world.offline() as free:
        for name, rows in limited.answer(asks).items():
            assert_identical(rows, free.answer(asks)[name])


def test_a_result_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a memory limit or without, the same file; where writing fails, nothing is left."""
    declared = temperatures(tmp_path, [("a", i, i, float(i)) for i in range(50)])
    views = [replace(declared, name=name) for name in ("one", "two")]
    asks = pa.table({"event_timestamp": stamps([T0 + i for i in range(100)]), "place": pa.array(["a", "b"] * 50)})
    out = tmp_path / "out"
    out.mkdir()
    for limit in (None, "64MiB", "2kB"):
        with OfflineStore(views, memory_limit=None) as offline:
            offline._shelf.limit = None if limit is None else size_of(limit)
            offline.write(asks, out / f"{limit}.parquet")
    tables = [pq.read_table(file) for file in sorted(out.iterdir())]
    assert len(tables) == 3
    assert all(table.equals(tables[0]) for table in tables)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    for memory_limit in (None, "64MiB"):
        with OfflineStore(views, memory_limit=memory_limit) as offline, pytest.raises(OSError, match="No space left"):
            offline.write(asks, out / "more.parquet")
    assert len(list(out.iterdir())) == 3


def test_views_are_counted_at_the_same_time(tmp_path: Path) -> None:
    """Under a memory limit two views are counted and read at once, each on a connection of its own."""
    world = shop(tmp_path)
    asks = world.spine
    with world.offline() as free, world.offline(memory_limit="256MiB") as limited:
        limited._shelf.limit = 1000
        right = free.answer(asks)
        for _ in range(5):  # `answer` takes two views at a time
            for name, rows in limited.answer(asks).items():
                assert_identical(rows, right[name])


@pytest.mark.parametrize(
    ("asks", "said"),
    [
        ({"place": pa.array(["a"])}, "event_timestamp: column is missing; the asks have place"),
        ({"event_timestamp": stamps([T0])}, "place: column is missing; the asks have event_timestamp"),
        ({"event_timestamp": stamps([None]), "place": pa.array(["a"])}, "event_timestamp: 1 asks have no instant"),
        ({"event_timestamp": pa.array([T0]), "place": pa.array(["a"])}, "event_timestamp: expected instants with a"),
        ({"event_timestamp": stamps([T0]), "place": pa.array([1.5])}, "place: expected string, got double"),
        (
            {"event_timestamp": stamps([T0]), "place": pa.array(["a"]), "weather__temp": pa.array([1.0])},
            "weather__temp: is",
        ),
    ],
)
def test_asks_that_cannot_be_asked_are_refused(tmp_path: Path, asks: dict[str, pa.Array], said: str) -> None:
    """Column and reason."""
    with OfflineStore([temperatures(tmp_path, [])]) as offline, pytest.raises(AskError) as caught:
        offline.join(pa.table(asks))
    assert said in str(caught.value)


# -- bad input --------------------------------------------------------------------------------------------------------

GOOD = {
    "place": pa.array(["a"]),
    EVENT: stamps([T0]),
    CREATED: stamps([T0]),
    "temp": pa.array([1.0]),
    "n": pa.array([1]),
}


def declare(path: Path, key: Dtype = Dtype.STRING) -> View:
    """A view over a file that may not be what it should."""
    return view("weather", path, {"place": key}, {"temp": Dtype.FLOAT64, "n": Dtype.INT64})


def refusal(declared: View) -> str:
    """What the store says of a source that it cannot use; the same whichever question comes first."""
    asks = spine([T0], {"place": Column.absent(declared.keys[0].dtype, 1, Status.NULL)})
    said = set()
    questions: list[Callable[[OfflineStore], object]] = [
        lambda offline: offline.answer(asks),
        lambda offline: offline.changes("weather", 0, T0),
        lambda offline: offline.latest("weather", T0),
        lambda offline: offline.ties("weather"),
    ]
    for question in questions:
        with OfflineStore([declared]) as offline, pytest.raises(SourceError) as caught:
            question(offline)
        said.add(str(caught.value))
    assert len(said) == 1
    return said.pop()


@pytest.mark.parametrize("missing", ["place", EVENT, CREATED, "temp"])
def test_a_missing_column_is_named_beside_those_that_are_there(tmp_path: Path, missing: str) -> None:
    """File, view, column, expected type and the columns that the file has."""
    there = {name: array for name, array in GOOD.items() if name != missing}
    path = write(tmp_path, there)
    kind = {"place": "string", "temp": "float64"}.get(missing, "a timestamp")
    assert refusal(declare(path)) == (
        f"{path} (view weather): column {missing!r} ({kind}) is missing; it has {', '.join(there)}"
    )


@pytest.mark.parametrize(
    ("name", "array", "key", "said"),
    [
        ("place", pa.array([1.5]), Dtype.STRING, "expected string, got double"),
        ("place", pa.array(["7"]), Dtype.INT64, "expected int64, got string"),
        ("place", pa.array([True]), Dtype.INT64, "expected int64, got bool"),
        ("temp", pa.array(["1.0"]), Dtype.STRING, "expected float64, got string"),
        ("n", pa.array([True]), Dtype.STRING, "expected int64, got bool"),
        (EVENT, pa.array([T0]), Dtype.STRING, "expected a timestamp, got int64"),
        (CREATED, pa.array(["2013-01-01"]), Dtype.STRING, "expected a timestamp, got string"),
    ],
)
def test_a_column_of_another_type_is_named_with_both_types(
    tmp_path: Path, name: str, array: pa.Array, key: Dtype, said: str
) -> None:
    """Whether a row is asked for or not: a schema that is not the declared one is an error at once."""
    path = write(tmp_path, GOOD | {name: array})
    assert refusal(declare(path, key)) == f"{path} (view weather): column {name!r}: {said}"


@pytest.mark.parametrize(("array", "lost"), [(pa.array([1.0, 1.9]), "1.9"), (pa.array([math.nan, 1.0]), "nan")])
def test_a_key_that_would_be_rounded_is_refused_with_its_value(tmp_path: Path, array: pa.Array, lost: str) -> None:
    """Whole numbers in a column of floats are keys; 1.9 is nobody's key, and not 2."""
    columns = {name: pa.concat_arrays([part, part]) for name, part in GOOD.items()}
    path = write(tmp_path, columns | {"place": array})
    said = f"{path} (view weather): column 'place': {lost} does not fit int64 without loss (double in the source)."
    assert refusal(declare(path, Dtype.INT64)) == said
    whole = write(tmp_path, columns | {"place": pa.array([2.0, 3.0])})
    asks = spine([T0, T0], {"place": column(Dtype.INT64, [2, 4])})
    assert statuses(answer(declare(whole, Dtype.INT64), asks)) == ["present", "not_found"]


def test_a_key_out_of_range_is_refused_with_its_value(tmp_path: Path) -> None:
    """2**31 is no int32 key."""
    path = write(tmp_path, GOOD | {"place": pa.array([2**31])})
    assert str(2**31) in refusal(declare(path, Dtype.INT32))


def test_a_value_that_does_not_fit_is_refused_when_it_would_answer(tmp_path: Path) -> None:
    """1.9 under Int64 is an error that names file, view, column, value and type, and no 1."""
    path = write(tmp_path, GOOD | {"n": pa.array([1.9])})
    with pytest.raises(SourceError) as caught:
        answer(declare(path), at(("a", 0)))
    assert str(caught.value) == (
        f"{path} (view weather): column 'n': 1.9 does not fit int64 without loss (double in the source)."
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path where nothing lies, and an empty folder."""
    (tmp_path / "empty").mkdir()
    for name in ("nowhere.parquet", "empty"):
        said = f"{tmp_path / name} (view weather): expected Parquet, got IO Error: No files found"
        assert refusal(declare(tmp_path / name)).startswith(said)


@pytest.mark.parametrize("size", [0, 3, 200])
def test_a_file_that_is_no_whole_parquet_is_named(tmp_path: Path, size: int) -> None:
    """Empty, of another format, or cut off in the middle."""
    path = write(tmp_path, GOOD)
    path.write_bytes(path.read_bytes()[:size])
    assert refusal(declare(path)).startswith(f"{path} (view weather): expected Parquet, got ")


def test_a_file_broken_in_the_middle_is_named(tmp_path: Path) -> None:
    """The footer is sound, the pages are not: an error and no rows."""
    path = write(tmp_path, GOOD | {"temp": pa.array(np.random.default_rng(0).random(1))})
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(content)
    assert refusal(declare(path)).startswith(f"{path} (view weather): ")


def test_a_memory_limit_changes_nothing_but_the_memory(tmp_path: Path) -> None:
    """A source that is taken in parts, by a hash of its keys, gives the same answers in the same order."""
    source = tmp_path / "rows.parquet"
    rng = np.random.default_rng(5)
    n = 4000
    moments = pa.array(T0 + rng.integers(0, 1_000_000, n)).cast(pa.timestamp("us", tz="UTC"))
    rows = {
        "a": [f"k{i}" for i in rng.integers(0, 50, n)],
        "b": rng.integers(0, 9, n),
        "at": moments,
        "x": rng.random(n),
    }
    pq.write_table(pa.table(rows), source)
    keys = (Key("a", "a", Dtype.STRING), Key("b", "b", Dtype.INT64))
    feature = Feature("x", "x", Dtype.FLOAT64, Contract())
    declared = View("v", keys, (feature,), 500_000, 0, Source(str(source), "at", None))
    asks = {
        "a": pa.array([None if i == 51 else f"k{i}" for i in rng.integers(0, 52, 3000)]),
        "b": pa.array(rng.integers(0, 10, 3000)),
        "event_timestamp": pa.array(T0 + rng.integers(0, 1_500_000, 3000)).cast(pa.timestamp("us", tz="UTC")),
    }
    asked = read_spine(pa.table(asks), {"a": Dtype.STRING, "b": Dtype.INT64}, {})
    with OfflineStore([declared]) as whole, OfflineStore([declared], memory_limit="32MiB") as parted:
        parted._shelf.limit = 100_000  # some parts, whatever DuckDB itself is given
        assert parted._shelf.parts(declared) > 3
        one, other = whole.answer(asked)["v"], parted.answer(asked)["v"]
    assert (one.status == other.status).all()
    assert (one.event == other.event).all()
    assert same(one.features["x"], other.features["x"]).all()
    assert len(set(one.status.tolist())) > 2
