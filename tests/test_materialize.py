"""Materialize: rows reach the online store when they are known, each once, never before, and none is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skewguard.definitions import Bundle, View
from skewguard.errors import DefinitionError, SourceError, StoreUnavailable
from skewguard.offline import OfflineStore, Rule
from skewguard.online import Lookup, OnlineStore, open_store
from skewguard.online.keys import watermark_key, watermark_of
from skewguard.spine import ViewRows
from skewguard.values import NO_TIME, Dtype, Status
from skewguard.workflows import materialize as module
from skewguard.workflows.materialize import Publisher, materialize
from tests.worlds import (
    CREATED,
    EVENT,
    MINUTE,
    T0,
    assert_identical,
    bundle,
    column,
    plain,
    shop,
    spine,
    stamps,
    statuses,
    view,
    write,
)

Row = tuple[str | None, int | None, int | None, float | None]
PLACES = ["a", "b", "c", None]


def weather(folder: Path, rows: Sequence[Row], name: str = "weather") -> View:
    """A view of rows (place, event, created, temperature), times relative to T0."""
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
    return view(name, path, {"place": Dtype.STRING}, {"temp": Dtype.FLOAT64})


def served(made: Bundle, store: OnlineStore, as_of: int) -> ViewRows:
    """What the store answers about every place at an instant relative to T0."""
    asks = spine([T0 + as_of] * len(PLACES), {"place": column(Dtype.STRING, PLACES)})
    return Lookup(made, store).answer(asks)["weather"]


def marks(made: Bundle, store: OnlineStore) -> list[int]:
    """The watermarks, relative to T0."""
    values = store.mget([watermark_key(made.project, one.name) for one in made.views])
    return [mark - T0 if (mark := watermark_of(value)) != NO_TIME else NO_TIME for value in values]


LATE: list[Row] = [
    ("a", 0, 0, 1.0),
    ("a", 10, 50, 2.0),  # observed at 10, published at 50
    ("a", 20, 20, 3.0),
    ("b", 5, None, 4.0),
    ("b", 5, 30, 5.0),  # a correction
    ("c", 90, -5, 6.0),  # a forecast: known before it is true
    (None, 1, 1, 7.0),
    ("a", None, 1, 8.0),
]


def test_a_row_is_published_when_it_is_known_and_not_before(store_url: str, tmp_path: Path) -> None:
    """At every instant the store holds each place's newest row of those known, late ones and corrections included."""
    made = bundle(weather(tmp_path, LATE))
    expected: dict[int, list[float | None]] = {
        -1: [None, None, None, None],
        0: [1.0, None, None, None],
        5: [1.0, 4.0, None, None],
        19: [1.0, 4.0, None, None],
        20: [3.0, 4.0, None, None],
        30: [3.0, 5.0, None, None],
        50: [3.0, 5.0, None, None],
        89: [3.0, 5.0, None, None],
        90: [3.0, 5.0, 6.0, None],
    }
    with OfflineStore(made.views) as offline, closing(open_store(store_url)) as store:
        publisher = Publisher(made, offline, store)
        for known_by, values in expected.items():
            publisher.advance(T0 + known_by)
            got = served(made, store, known_by)
            assert plain(got.features["temp"]) == values, known_by
            assert (got.watermark == T0 + known_by).all()


def test_a_late_row_between_two_others_is_published_late(tmp_path: Path) -> None:
    """What an increment by event time would skip: known at 50, true since 10, newest until 20 is known."""
    made = bundle(weather(tmp_path, [("a", 0, 0, 1.0), ("a", 10, 50, 2.0)]))
    with OfflineStore(made.views) as offline, closing(open_store("sqlite::memory:")) as store:
        publisher = Publisher(made, offline, store)
        seen = []
        for known_by in (0, 15, 49, 50):
            publisher.advance(T0 + known_by)
            seen.append(plain(served(made, store, known_by).features["temp"])[0])
    assert seen == [1.0, 1.0, 1.0, 2.0]


def test_the_rows_written_are_counted_by_view(tmp_path: Path) -> None:
    """A new store gets each key's newest row, then every row that became known; rows without a key are not counted."""
    made = bundle(weather(tmp_path, LATE), weather(tmp_path, [("a", 0, 0, 1.0)], "other"))
    with OfflineStore(made.views) as offline, closing(open_store("sqlite::memory:")) as store:
        publisher = Publisher(made, offline, store)
        assert publisher.advance(T0 + 20) == {"weather": 2, "other": 1}
        assert publisher.advance(T0 + 50) == {"weather": 2, "other": 0}
        assert publisher.advance(T0 + 50) == {}
        assert publisher.advance(T0 + 20) == {}
        assert marks(made, store) == [50, 50]


def test_one_view_may_stand_still(tmp_path: Path) -> None:
    """`only` moves some views; the others' watermarks say that they are behind, and they catch up."""
    made = bundle(weather(tmp_path, LATE), weather(tmp_path, LATE, "other"))
    with OfflineStore(made.views) as offline, closing(open_store("sqlite::memory:")) as store:
        publisher = Publisher(made, offline, store)
        publisher.advance(T0 + 5)
        assert publisher.advance(T0 + 20, only={"other"}) == {"other": 1}
        assert marks(made, store) == [5, 20]
        assert plain(served(made, store, 20).features["temp"])[0] == 1.0
        publisher.advance(T0 + 20)
        assert marks(made, store) == [20, 20]
        assert plain(served(made, store, 20).features["temp"])[0] == 3.0


def test_publishing_again_changes_nothing(store_url: str, tmp_path: Path) -> None:
    """The same instant, an earlier one, a second publisher: the store stays as it is."""
    world = shop(tmp_path)
    asks = world.spine
    with world.offline() as offline, closing(open_store(store_url)) as store:
        first = materialize(world.bundle, offline, store, T0 + 60 * MINUTE)
        assert first.keys() == {"buyer", "globe", "road"}
        before = Lookup(world.bundle, store).answer(asks)
        for known_by in (T0 + 60 * MINUTE, T0, T0 + 60 * MINUTE):
            assert materialize(world.bundle, offline, store, known_by) == {}
        after = Lookup(world.bundle, store).answer(asks)
    for name, rows in before.items():
        assert_identical(rows, after[name])
        assert rows.watermark.tolist() == after[name].watermark.tolist()


def test_a_new_publisher_continues_where_the_store_stands(store_url: str, tmp_path: Path) -> None:
    """It writes what became known since the watermark, and nothing of what lies before it."""
    made = bundle(weather(tmp_path, LATE))
    with OfflineStore(made.views) as offline, closing(open_store(store_url)) as store:
        assert materialize(made, offline, store, T0 + 5) == {"weather": 2}
        assert materialize(made, offline, store, T0 + 30) == {"weather": 2}
        assert materialize(made, offline, store, T0 + 90) == {"weather": 2}
        assert plain(served(made, store, 90).features["temp"]) == [3.0, 5.0, 6.0, None]


TIMES = st.integers(0, 12)
ROWS = st.lists(
    st.tuples(st.sampled_from(PLACES), TIMES, st.none() | TIMES, st.none() | st.integers(0, 9).map(float)), max_size=12
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples of properties leave their files."""
    return tmp_path_factory.mktemp("published")


@given(ROWS, st.lists(TIMES, min_size=1, max_size=6), st.sampled_from([0, 1, 5, 100]), st.booleans())
@settings(max_examples=40)
def test_how_a_publisher_reads_changes_nothing_about_what_is_visible_when(
    folder: Path, rows: list[Row], steps: list[int], lookahead: int, renewed: bool
) -> None:
    """In one go or step by step, far ahead or not, by one publisher or by many: the truth of that instant."""
    made = bundle(weather(folder, rows))
    with OfflineStore(made.views) as offline, closing(open_store("sqlite::memory:")) as store:
        publisher = Publisher(made, offline, store, lookahead_us=lookahead)
        reached = -1
        for known_by in steps:
            publisher = Publisher(made, offline, store, lookahead_us=lookahead) if renewed else publisher
            publisher.advance(T0 + known_by)
            reached = max(reached, known_by)
            got = served(made, store, reached)
            asks = spine([T0 + reached] * len(PLACES), {"place": column(Dtype.STRING, PLACES)})
            assert_identical(got, offline.answer(asks)["weather"])
            assert marks(made, store) == [reached]


class Failing:
    """A store whose writing fails at chosen calls, before or after it was done."""

    def __init__(self, store: OnlineStore) -> None:
        self.store, self.url = store, store.url
        self.calls = 0
        self.fail_before: set[int] = set()
        self.fail_after: set[int] = set()

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self.store.mget(keys)

    def write(self, rows: Sequence[tuple[bytes, bytes]], meta: Mapping[bytes, bytes]) -> None:
        self.calls += 1
        if self.calls in self.fail_before:
            raise StoreUnavailable("down")
        self.store.write(rows, meta)
        if self.calls in self.fail_after:
            raise StoreUnavailable("the answer was lost")

    def clear(self, project: str) -> None:
        self.store.clear(project)

    def close(self) -> None:
        self.store.close()


@pytest.mark.parametrize("chunk", [1, 2, 20_000])
@pytest.mark.parametrize("kind", ["fail_before", "fail_after"])
def test_what_could_not_be_written_is_written_next_time(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, kind: str
) -> None:
    """Whichever writing fails, no row is lost to the same publisher, and no watermark promises what is not there."""
    monkeypatch.setattr(module, "_CHUNK", chunk)
    made = bundle(weather(tmp_path, LATE))
    for failing in range(2, 8):
        with OfflineStore(made.views) as offline, closing(Failing(open_store(store_url))) as store:
            store.clear("shop")
            publisher = Publisher(made, offline, store, lookahead_us=1000)
            getattr(store, kind).add(failing)
            for known_by in (5, 30, 50, 90):
                try:
                    publisher.advance(T0 + known_by)
                except StoreUnavailable:
                    assert marks(made, store)[0] in (NO_TIME, 5, 30, 50, 90)
                    before = marks(made, store)
                    assert kind == "fail_after" or before != [known_by]
                    publisher.advance(T0 + known_by)
                got = served(made, store, known_by)
                asks = spine([T0 + known_by] * len(PLACES), {"place": column(Dtype.STRING, PLACES)})
                assert_identical(got, offline.answer(asks)["weather"])


def test_a_store_that_lost_everything_is_filled_again(store_url: str, tmp_path: Path) -> None:
    """A Redis that restarted empty, a table that was cleared: the same publisher begins anew, layouts included."""
    made = bundle(weather(tmp_path, LATE))
    with OfflineStore(made.views) as offline, closing(open_store(store_url)) as store:
        publisher = Publisher(made, offline, store, lookahead_us=1000)
        publisher.advance(T0 + 30)
        store.clear("shop")
        publisher.advance(T0 + 90)
        assert plain(served(made, store, 90).features["temp"]) == [3.0, 5.0, 6.0, None]
        narrower = bundle(view("weather", "", {"place": Dtype.STRING}, {}))
        assert statuses(served(narrower, store, 90)) == ["present", "present", "present", "not_found"]


def test_a_torn_watermark_is_none(tmp_path: Path) -> None:
    """What cannot be read promises nothing: everything is published again."""
    made = bundle(weather(tmp_path, LATE))
    with OfflineStore(made.views) as offline, closing(open_store("sqlite::memory:")) as store:
        materialize(made, offline, store, T0 + 90)
        store.write([], {watermark_key("shop", "weather"): b"torn"})
        assert materialize(made, offline, store, T0 + 90) == {"weather": 3}
        assert marks(made, store) == [90]


def test_a_view_without_keys_and_one_without_created_times_are_published(store_url: str, tmp_path: Path) -> None:
    """One row for everybody; and rows known at their event."""
    path = write(tmp_path, {"rate": pa.array([1.0, 2.0]), EVENT: stamps([T0, T0 + 5])})
    made = bundle(view("globe", path, {}, {"rate": Dtype.FLOAT64}, created=False))
    with OfflineStore(made.views) as offline, closing(open_store(store_url)) as store:
        publisher = Publisher(made, offline, store)
        for known_by, rate in ((-1, None), (0, 1.0), (4, 1.0), (5, 2.0)):
            publisher.advance(T0 + known_by)
            got = Lookup(made, store).answer(spine([T0 + known_by]))["globe"]
            assert plain(got.features["rate"]) == [rate]


def test_rows_are_only_published_under_our_rule(tmp_path: Path) -> None:
    """Under Feast's a late row would be served before it was known."""
    made = bundle(weather(tmp_path, LATE))
    with (
        OfflineStore(made.views, Rule.FEAST) as offline,
        closing(open_store("sqlite::memory:")) as store,
        pytest.raises(DefinitionError, match="under the rule known, got feast"),
    ):
        Publisher(made, offline, store)


def test_a_value_that_does_not_fit_stops_its_writer(tmp_path: Path) -> None:
    """The error names file, view, column, value and type; nothing of the view is promised."""
    path = write(tmp_path, {"n": pa.array([1.5]), EVENT: stamps([T0])})
    made = bundle(view("v", path, {}, {"n": Dtype.INT64}, created=False))
    with OfflineStore(made.views) as offline, closing(open_store("sqlite::memory:")) as store:
        with pytest.raises(SourceError) as caught:
            materialize(made, offline, store, T0)
        assert str(caught.value) == (
            f"{path} (view v): column 'n': 1.5 does not fit int64 without loss (double in the source)."
        )
        assert marks(made, store) == [NO_TIME]


def test_a_missing_source_stops_its_writer(tmp_path: Path) -> None:
    """The error names the file."""
    made = bundle(view("v", tmp_path / "nowhere.parquet", {}, {"n": Dtype.INT64}))
    with (
        OfflineStore(made.views) as offline,
        closing(open_store("sqlite::memory:")) as store,
        pytest.raises(SourceError, match=r"nowhere\.parquet \(view v\)"),
    ):
        materialize(made, offline, store, T0)


def test_many_rows_are_written_in_pieces(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than one writing takes: all there, and the watermark with the last of them."""
    monkeypatch.setattr(module, "_CHUNK", 700)
    n = 2000
    path = write(
        tmp_path,
        {"id": pa.array(np.arange(n)), "x": pa.array(np.arange(n) / 3), EVENT: stamps([T0 + i % 7 for i in range(n)])},
    )
    made = bundle(view("v", path, {"id": Dtype.INT64}, {"x": Dtype.FLOAT64}, created=False))
    asks = spine([T0 + 9] * n, {"id": column(Dtype.INT64, list(range(n)))})
    with OfflineStore(made.views) as offline, closing(open_store(store_url)) as store:
        sizes: list[tuple[int, int]] = []
        whole = store.write

        def spy(rows: Sequence[tuple[bytes, bytes]], meta: Mapping[bytes, bytes]) -> None:
            sizes.append((len(rows), len(meta)))
            whole(rows, meta)

        monkeypatch.setattr(store, "write", spy)
        assert Publisher(made, offline, store).advance(T0 + 9) == {"v": n}
        assert plain(Lookup(made, store).answer(asks)["v"].features["x"]) == [i / 3 for i in range(n)]
    assert [size for size in sizes if size[0]] == [(700, 0), (700, 0), (600, 2)]  # watermark and layout come last


def _wider(folder: Path, **more: Dtype) -> View:
    """A view over three keys, one of them long written; `x` and whatever else is asked for."""
    path = write(
        folder,
        {
            "id": pa.array([1, 2, 3]),
            EVENT: stamps([T0 - 100, T0 + 5, T0 + 20]),
            "x": pa.array([1.0, 2.0, 3.0]),
            "y": pa.array([10, 20, 30]),
        },
        name="wider.parquet",
    )
    return view("v", path, {"id": Dtype.INT64}, {"x": Dtype.FLOAT64} | more, created=False)


def test_an_added_feature_is_published_for_rows_that_were_written_before(store_url: str, tmp_path: Path) -> None:
    """A changed definition is written whole, by a new publisher and even where nothing new became known; once."""
    narrow, wide = bundle(_wider(tmp_path)), bundle(_wider(tmp_path, y=Dtype.INT64))
    asks = spine([T0 + 10] * 3, {"id": column(Dtype.INT64, [1, 2, 3])})
    with closing(open_store(store_url)) as store:
        with OfflineStore(narrow.views) as offline:
            assert Publisher(narrow, offline, store).advance(T0 + 10) == {"v": 2}
        before = Lookup(wide, store).answer(asks)["v"]
        assert [Status(code).name for code in before.features["y"].status] == ["NOT_FOUND"] * 3
        with OfflineStore(wide.views) as offline:
            assert Publisher(wide, offline, store).advance(T0 + 10) == {"v": 2}
            assert plain(Lookup(wide, store).answer(asks)["v"].features["y"]) == [10, 20, None]
            assert Publisher(wide, offline, store).advance(T0 + 10) == {}
            assert Publisher(wide, offline, store).advance(T0 + 20) == {"v": 1}
        assert plain(Lookup(narrow, store).answer(asks)["v"].features["x"]) == [1.0, 2.0, None]  # from the future


def test_a_feature_that_now_comes_from_another_column_is_published_again(store_url: str, tmp_path: Path) -> None:
    """Names and dtypes are the same, the definition is not."""
    declared = _wider(tmp_path)
    changed = replace(declared, features=(replace(declared.features[0], column="y"),))
    with closing(open_store(store_url)) as store:
        for declared_now, values in ((declared, [1.0, 2.0]), (changed, [10.0, 20.0])):
            made = bundle(declared_now)
            with OfflineStore(made.views) as offline:
                assert Publisher(made, offline, store).advance(T0 + 10) == {"v": 2}
            asks = spine([T0 + 10] * 2, {"id": column(Dtype.INT64, [1, 2])})
            assert plain(Lookup(made, store).answer(asks)["v"].features["x"]) == values


def test_a_feature_that_others_may_read_is_not_taken_away_unasked(store_url: str, tmp_path: Path) -> None:
    """A service with fewer features of a view does not publish it, unless told that the others may go."""
    wide, narrow = bundle(_wider(tmp_path, y=Dtype.INT64)), bundle(_wider(tmp_path), service="other")
    asks = spine([T0 + 10], {"id": column(Dtype.INT64, [1])})
    with closing(open_store(store_url)) as store:
        with OfflineStore(wide.views) as offline:
            materialize(wide, offline, store, T0 + 10)
        with OfflineStore(narrow.views) as offline:
            with pytest.raises(
                DefinitionError, match=r"view v: the online store also has y of it, which .* service other"
            ):
                materialize(narrow, offline, store, T0 + 10)
            assert plain(Lookup(wide, store).answer(asks)["v"].features["y"]) == [10]
            assert plain(Lookup(narrow, store).answer(asks)["v"].features["x"]) == [1.0]
            assert materialize(narrow, offline, store, T0 + 10, narrow=True) == {"v": 2}
        assert plain(Lookup(wide, store).answer(asks)["v"].features["y"]) == [None]


def test_a_change_that_could_not_be_written_whole_is_written_next_time(tmp_path: Path) -> None:
    """Until all rows are in the new layout nobody is told that they are."""
    narrow, wide = bundle(_wider(tmp_path)), bundle(_wider(tmp_path, y=Dtype.INT64))
    asks = spine([T0 + 10] * 2, {"id": column(Dtype.INT64, [1, 2])})
    with closing(open_store("sqlite::memory:")) as store:
        with OfflineStore(narrow.views) as offline:
            materialize(narrow, offline, store, T0 + 10)
        failing = Failing(store)
        with OfflineStore(wide.views) as offline:
            publisher = Publisher(wide, offline, failing)
            failing.fail_before = {failing.calls + 1}
            with pytest.raises(StoreUnavailable):
                publisher.advance(T0 + 10)
            assert publisher.advance(T0 + 10) == {"v": 2}
        assert plain(Lookup(wide, store).answer(asks)["v"].features["y"]) == [10, 20]
