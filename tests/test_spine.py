"""Spine: asks as they were given, and the one rule of what is too old or not yet true."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewguard.errors import AskError
from skewguard.spine import ViewRows, expire, read_spine
from skewguard.values import NO_TIME, Dtype, Status
from tests.worlds import HOUR, T0, column, plain, stamps

KEYS = {"buyer": Dtype.INT64, "city": Dtype.STRING}
REQUEST = {"amount": Dtype.FLOAT64}


def asks(**changes: Any) -> pa.Table:
    """Three asks, some columns of which are changed or, with None, left out."""
    columns = {
        "event_timestamp": stamps([T0 + 5, T0, T0]),
        "buyer": pa.array([2**53 + 1, None, 7]),
        "city": pa.array(["東京", "", None]),
        "amount": pa.array([1.5, None, float("nan")]),
        "who": pa.array(["x", "x", "y"]),
    }
    return pa.table({name: array for name, array in (columns | changes).items() if array is not None})


def test_asks_keep_their_order_number_and_values() -> None:
    """One row, one ask: not sorted, duplicates and null keys kept, 2**53 + 1 exact, NaN a null."""
    got = read_spine(asks(), KEYS, REQUEST, id_column="who")
    assert len(got) == 3
    assert got.ids.tolist() == ["x", "x", "y"]
    assert got.as_of.tolist() == [T0 + 5, T0, T0]
    assert plain(got.keys["buyer"]) == [2**53 + 1, None, 7]
    assert plain(got.keys["city"]) == ["東京", "", None]
    assert plain(got.request["amount"]) == [1.5, None, None]


def test_asks_without_an_id_are_numbered() -> None:
    """Their place is their name; an id of whole numbers becomes text."""
    assert read_spine(asks(), {}, {}).ids.tolist() == ["0", "1", "2"]
    numbered = asks(who=pa.array([7, 8, 7]))
    assert read_spine(numbered, {}, {}, id_column="who").ids.tolist() == ["7", "8", "7"]


@pytest.mark.parametrize("kind", [pa.timestamp("ns", tz="UTC"), pa.timestamp("us", tz="America/New_York")], ids=str)
def test_an_instant_is_an_instant_in_any_zone_and_unit(kind: pa.DataType) -> None:
    """Microseconds since 1970 in UTC, whatever the column's unit and zone."""
    table = asks(event_timestamp=stamps([T0 + 5, T0, T0]).cast(kind))
    assert read_spine(table, {}, {}).as_of.tolist() == [T0 + 5, T0, T0]


def test_no_asks_are_no_asks() -> None:
    """An empty table, with or without chunks, is an empty spine of the right types."""
    for table in (asks().slice(0, 0), asks().schema.empty_table()):
        got = read_spine(table, KEYS, REQUEST, id_column="who")
        assert len(got) == len(got.ids) == len(got.keys["buyer"]) == 0
        assert got.as_of.dtype == np.int64


def test_asks_may_come_in_pieces() -> None:
    """Chunks do not show."""
    table = pa.concat_tables([asks().slice(0, 1), asks().slice(1)])
    assert plain(read_spine(table, KEYS, {}).keys["city"]) == ["東京", "", None]


@pytest.mark.parametrize("missing", ["event_timestamp", "buyer", "city", "amount", "who"])
def test_a_missing_column_is_named_beside_those_that_are_there(missing: str) -> None:
    """Key, request field, instant and id must all be there."""
    with pytest.raises(AskError) as caught:
        read_spine(asks(**{missing: None}), KEYS, REQUEST, id_column="who")
    assert caught.value.field == missing
    there = ", ".join(asks(**{missing: None}).column_names)
    assert str(caught.value) == f"{missing}: column is missing; the asks have {there}"


@pytest.mark.parametrize(
    ("field", "array", "message"),
    [
        (
            "event_timestamp",
            pa.array([0, 0, 0], pa.timestamp("us")),
            "expected instants with a time zone (timestamp[us, UTC]), got timestamp[us]",
        ),
        (
            "event_timestamp",
            pa.array(["2023"] * 3),
            "expected instants with a time zone (timestamp[us, UTC]), got string",
        ),
        ("event_timestamp", stamps([T0, None, None]), "2 asks have no instant"),
        ("who", pa.array(["a", None, "b"]), "1 asks have no id"),
        ("buyer", pa.array(["1", "2", "3"]), "expected int64, got string. Declare the column's own type or fix the"),
        ("buyer", pa.array([1.0, 2.5, 3.0]), "2.5 does not fit int64 without loss (double in the source)."),
        ("amount", pa.array([True] * 3), "expected float64, got bool."),
    ],
    ids=["naive", "text", "null instant", "null id", "key of text", "broken key", "request of another type"],
)
def test_what_cannot_be_understood_names_its_field(field: str, array: pa.Array, message: str) -> None:
    """A naive or missing instant, a missing id and a value of another type are errors about their column."""
    with pytest.raises(AskError) as caught:
        read_spine(asks(**{field: array}), KEYS, REQUEST, id_column="who")
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: {message}")


def test_some_asks_are_a_spine_of_their_own() -> None:
    """Rows by number or by mask, in that order, with all that belongs to them."""
    whole = read_spine(asks(), KEYS, REQUEST, id_column="who")
    some = whole.take(np.array([2, 0, 0]))
    assert some.ids.tolist() == ["y", "x", "x"]
    assert plain(some.keys["buyer"]) == [7, 2**53 + 1, 2**53 + 1]
    assert plain(some.request["amount"]) == [None, 1.5, 1.5]
    assert whole.take(whole.as_of > T0).ids.tolist() == ["x"]


def test_some_answers_are_answers() -> None:
    """A view's answers to some of the asks."""
    status, times = np.array([0, 5], dtype=np.uint8), np.array([T0, NO_TIME])
    rows = ViewRows(status, times, times, times, {"f": column(Dtype.INT64, [1, None])})
    taken = rows.take(np.array([1, 0, 1]))
    assert taken.status.tolist() == [5, 0, 5]
    assert taken.created.tolist() == [NO_TIME, T0, NO_TIME]
    assert plain(taken.features["f"]) == [None, 1, None]


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (-1, Status.FUTURE),
        (0, Status.PRESENT),
        (HOUR, Status.PRESENT),
        (HOUR + 1, Status.EXPIRED),
        (10**15, Status.EXPIRED),
    ],
)
def test_both_edges_of_a_ttl_are_inside(age: int, expected: Status) -> None:
    """A row counts from its own microsecond to the last one of its TTL."""
    got = expire(np.zeros(1, dtype=np.uint8), np.array([T0]), np.array([T0 + age]), HOUR)
    assert got.tolist() == [expected]
    assert got.dtype == np.uint8
    forever = expire(np.zeros(1, dtype=np.uint8), np.array([T0]), np.array([T0 + age]), None)
    assert forever.tolist() == [Status.FUTURE if age < 0 else Status.PRESENT]


@given(st.lists(st.tuples(st.sampled_from(list(Status)), st.integers(0, 2**60), st.integers(0, 2**60)), min_size=1))
def test_only_a_found_row_grows_old(rows: list[tuple[Status, int, int]]) -> None:
    """Whatever was not found, or is an error, stays what it is; nothing is written into the caller's arrays."""
    status = np.array([r[0] for r in rows], dtype=np.uint8)
    event = np.array([r[1] if r[0] is Status.PRESENT else NO_TIME for r in rows])
    as_of = np.array([r[2] for r in rows])
    before = status.copy()
    got = expire(status, event, as_of, 0)
    assert status.tolist() == before.tolist()
    for (was, then, now), after in zip(rows, got.tolist(), strict=True):
        if was is not Status.PRESENT:
            assert after == was
        else:
            assert after == (Status.FUTURE if then > now else Status.PRESENT if then == now else Status.EXPIRED)
