"""Values: one cast, one equality, one canonical form of a column."""

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewguard.errors import CastError
from skewguard.values import NO_TIME, Column, Dtype, Status, cast, instant, same
from tests.worlds import T0, assert_same_bits, column, columns, plain, stamps

US = pa.timestamp("us", tz="UTC")
NAN = float("nan")
BIG = 2**53 + 1


# -- cast -------------------------------------------------------------------------------------------------------------

ACCEPTED: list[tuple[Dtype, pa.Array, list[Any]]] = [
    (Dtype.FLOAT64, pa.array([1.5, NAN, None, -0.0]), [1.5, None, None, 0.0]),
    (Dtype.FLOAT64, pa.array([0.1, NAN, math.inf], pa.float32()), [0.10000000149011612, None, math.inf]),
    (Dtype.FLOAT64, pa.array([1.5, None], pa.float16()), [1.5, None]),
    (Dtype.FLOAT64, pa.array([2**53, None], pa.int64()), [2.0**53, None]),
    (Dtype.FLOAT64, pa.array([7], pa.uint8()), [7.0]),
    (Dtype.FLOAT64, pa.array([Decimal("1.25"), None], pa.decimal128(10, 2)), [1.25, None]),
    (Dtype.FLOAT32, pa.array([0.1, NAN, math.inf, None]), [float(np.float32(0.1)), None, math.inf, None]),
    (Dtype.FLOAT32, pa.array([0.1], pa.float32()), [float(np.float32(0.1))]),
    (Dtype.FLOAT32, pa.array([2**24], pa.int64()), [2.0**24]),
    (Dtype.FLOAT32, pa.array([Decimal("0.10")], pa.decimal128(10, 2)), [float(np.float32(0.1))]),
    (Dtype.INT64, pa.array([BIG, -(2**63), None]), [BIG, -(2**63), None]),
    (Dtype.INT64, pa.array([2.0, None]), [2, None]),
    (Dtype.INT64, pa.array([-3], pa.int8()), [-3]),
    (Dtype.INT64, pa.array([2**63 - 1], pa.uint64()), [2**63 - 1]),
    (Dtype.INT64, pa.array([Decimal("12.00")], pa.decimal128(10, 2)), [12]),
    (Dtype.INT32, pa.array([2**31 - 1, None], pa.int64()), [2**31 - 1, None]),
    (Dtype.INT32, pa.array([-2.0]), [-2]),
    (Dtype.BOOL, pa.array([True, False, None]), [True, False, None]),
    (Dtype.STRING, pa.array(["", "é", None]), ["", "é", None]),
    (Dtype.STRING, pa.array(["東", None], pa.large_string()), ["東", None]),
    (Dtype.STRING, pa.array(["a", None], pa.string_view()), ["a", None]),
    (Dtype.STRING, pa.array(["b", "a", "b", None]).dictionary_encode(), ["b", "a", "b", None]),
    (Dtype.STRING, pa.array([90210, None], pa.int64()), ["90210", None]),
    (Dtype.TIMESTAMP, stamps([T0, -1, None]), [T0, -1, None]),
    (Dtype.TIMESTAMP, pa.array([1999, -1, None], pa.timestamp("ns", tz="UTC")), [1, -1, None]),
    (Dtype.TIMESTAMP, pa.array([3], pa.timestamp("ms", tz="Europe/Zurich")), [3_000]),
    (Dtype.TIMESTAMP, pa.array([3], pa.timestamp("s")), [3_000_000]),
    (Dtype.TIMESTAMP, pa.array([1], pa.date32()), [86_400_000_000]),
    *((dtype, pa.nulls(2), [None, None]) for dtype in Dtype),
]


@pytest.mark.parametrize(("dtype", "source", "expected"), ACCEPTED, ids=lambda x: str(getattr(x, "type", x))[:24])
def test_a_value_comes_to_its_declared_dtype(dtype: Dtype, source: pa.Array, expected: list[Any]) -> None:
    """Each dtype takes the types that can become it, to the declared Arrow type, NaN becoming null."""
    result = cast(source, dtype, "here")
    assert result.type == dtype.arrow
    assert plain(Column.from_arrow(result, dtype, "here")) == expected


REFUSED = [
    (Dtype.FLOAT64, pa.array(["1"])),
    (Dtype.FLOAT64, pa.array([True])),
    (Dtype.INT64, pa.array(["7"])),
    (Dtype.INT64, stamps([T0])),
    (Dtype.INT32, pa.array([True])),
    (Dtype.BOOL, pa.array([1])),
    (Dtype.BOOL, pa.array(["true"])),
    (Dtype.STRING, pa.array([1.5])),
    (Dtype.STRING, pa.array([b"a"])),
    (Dtype.STRING, pa.array([True])),
    (Dtype.TIMESTAMP, pa.array([T0])),
    (Dtype.TIMESTAMP, pa.array(["2023-01-01"])),
    (Dtype.INT64, pa.array([[1]])),
]


@pytest.mark.parametrize(("dtype", "source"), REFUSED, ids=lambda x: str(getattr(x, "type", x))[:24])
def test_another_type_is_refused_with_both_types(dtype: Dtype, source: pa.Array) -> None:
    """What is no number is never read as one, and the error names the place, the expected and the found type."""
    with pytest.raises(CastError) as caught:
        cast(source, dtype, "file.parquet: age")
    assert str(caught.value).startswith(f"file.parquet: age: expected {dtype}, got {source.type}.")


LOST = [
    (Dtype.INT64, pa.array([1.0, None, 1.9, 2.9]), "1.9"),
    (Dtype.INT64, pa.array([2, 2**63], pa.uint64()), str(2**63)),
    (Dtype.INT64, pa.array([Decimal("1.50")], pa.decimal128(10, 2)), "Decimal('1.50')"),
    (Dtype.INT64, pa.array([1.0, NAN]), "nan"),
    (Dtype.INT64, pa.array([1e19]), "1e+19"),
    (Dtype.INT32, pa.array([1, 2**31], pa.int64()), str(2**31)),
    (Dtype.FLOAT64, pa.array([2**53, BIG]), str(BIG)),
    (Dtype.FLOAT32, pa.array([2**24 + 1], pa.int64()), str(2**24 + 1)),
    (Dtype.FLOAT32, pa.array([1.0, 1e300]), "1e+300"),
    (Dtype.TIMESTAMP, pa.array([0, 2**60], pa.timestamp("s")), str(2**60)),
]


@pytest.mark.parametrize(("dtype", "source", "shown"), LOST, ids=lambda x: str(getattr(x, "type", x))[:24])
def test_a_loss_that_was_not_asked_for_is_refused_with_the_value(dtype: Dtype, source: pa.Array, shown: str) -> None:
    """The first value that the dtype cannot hold stands in the error, beside the type that it came in."""
    with pytest.raises(CastError) as caught:
        cast(source, dtype, "visits")
    assert str(caught.value) == f"visits: {shown} does not fit {dtype} without loss ({source.type} in the source)."


def test_the_lost_value_is_found_among_many() -> None:
    """One bad value in a long column is the one that is named."""
    values = np.zeros(100_001)
    values[99_998] = 0.25
    with pytest.raises(CastError, match=r"^here: 0\.25 does not fit int64"):
        cast(pa.array(values), Dtype.INT64, "here")


def test_a_column_in_pieces_is_cast_as_one() -> None:
    """Chunks, no chunks at all and a slice in the middle give one contiguous array."""
    pieces = pa.chunked_array([[1.0], [NAN, 2.0]])
    assert cast(pieces, Dtype.FLOAT32, "x").to_pylist() == [1.0, None, 2.0]
    assert cast(pa.chunked_array([], pa.int64()), Dtype.INT64, "x").to_pylist() == []
    assert plain(Column.from_arrow(pa.array([9, 1, None, 3])[1:], Dtype.INT64, "x")) == [1, None, 3]


@given(st.lists(st.floats(width=64)))
def test_narrowing_is_numpys_or_refused(values: list[float]) -> None:
    """Float32 takes the nearest value; a finite value that it has no room for is refused."""
    with np.errstate(over="ignore"):
        narrow = np.array(values).astype(np.float32)
    if (np.isinf(narrow) & np.isfinite(values)).any():
        with pytest.raises(CastError, match="does not fit float32"):
            cast(pa.array(values, pa.float64()), Dtype.FLOAT32, "x")
    else:
        got = Column.from_arrow(pa.array(values, pa.float64()), Dtype.FLOAT32, "x")
        assert got.values[got.present].tobytes() == narrow[~np.isnan(narrow)].tobytes()


@given(st.lists(st.none() | st.floats() | st.integers(-(2**54), 2**54).map(float)))
def test_whole_floats_are_integers_and_others_are_refused(values: list[float | None]) -> None:
    """Int64 of a float is exact, or an error."""
    array = pa.array(values, pa.float64())
    if all(v is None or (v.is_integer() and abs(v) < 2**63) for v in values):
        assert cast(array, Dtype.INT64, "x").to_pylist() == [None if v is None else int(v) for v in values]
    else:
        with pytest.raises(CastError, match="does not fit int64"):
            cast(array, Dtype.INT64, "x")


# -- columns ----------------------------------------------------------------------------------------------------------


def test_the_least_present_status_is_the_greatest() -> None:
    """Statuses are ordered by how present they are, and only the first two have a value behind them."""
    names = ["PRESENT", "DEFAULTED", "NULL", "EXPIRED", "FUTURE", "NOT_FOUND", "NOT_REQUESTED", "ERROR"]
    assert [status.name for status in sorted(Status)] == names
    assert [status.has_value for status in sorted(Status)] == [True, True, *[False] * 6]


@pytest.mark.parametrize("dtype", Dtype)
def test_rows_without_a_value_hold_the_filler(dtype: Dtype) -> None:
    """Whatever stood in a row that has no value, equal columns are equal in bytes."""
    values = np.array([T0, T0], "int64").view("M8[us]") if dtype is Dtype.TIMESTAMP else np.ones(2, dtype.numpy)
    if dtype is Dtype.STRING:
        values = np.array(["left", "over"], dtype=object)
    status = np.array([Status.EXPIRED, Status.NOT_FOUND], dtype=np.uint8)
    built = Column.build(dtype, values, status)
    assert plain(built) == [None, None]
    absent = Column.concat([Column.absent(dtype, 1, Status.EXPIRED), Column.absent(dtype, 1, Status.NOT_FOUND)])
    assert_same_bits(built, absent)
    assert built.values.dtype == dtype.numpy
    assert built.values.flags.c_contiguous
    assert built.to_arrow().null_count == 2


def test_building_leaves_the_callers_array_alone() -> None:
    """What was handed in is not written to."""
    values = np.array([1.0, 2.0, NAN])
    status = np.array([0, Status.EXPIRED, 0], dtype=np.uint8)
    Column.build(Dtype.FLOAT64, values, status)
    assert values[:2].tolist() == [1.0, 2.0]
    assert status.tolist() == [0, Status.EXPIRED, 0]


def test_no_number_and_no_time_are_null() -> None:
    """NaN of any bits, and NaT, become null where they enter; a value that was defaulted stays defaulted."""
    odd = np.array([0x7FF0000000000001, 0xFFF8000000000000, 0x3FF0000000000000], dtype=np.uint64).view(np.float64)
    got = Column.build(Dtype.FLOAT64, odd, np.array([0, 1, 1], dtype=np.uint8))
    assert got.status.tolist() == [Status.NULL, Status.NULL, Status.DEFAULTED]
    assert_same_bits(got.take(np.array([0, 1])), Column.absent(Dtype.FLOAT64, 2, Status.NULL))
    times = Column.build(Dtype.TIMESTAMP, np.array(["NaT", 5], dtype="M8[us]"), np.zeros(2, dtype=np.uint8))
    assert times.status.tolist() == [Status.NULL, Status.PRESENT]


def test_the_rows_own_status_outweighs_its_null() -> None:
    """A null in a row that has expired is expired."""
    status = np.array([0, Status.EXPIRED, Status.EXPIRED, 0], dtype=np.uint8)
    got = Column.from_arrow(pa.array([1, 2, None, None]), Dtype.INT64, "x", status=status)
    assert got.status.tolist() == [Status.PRESENT, Status.EXPIRED, Status.EXPIRED, Status.NULL]
    assert plain(got) == [1, None, None, None]


@given(columns())
def test_a_column_survives_arrow(made: Column) -> None:
    """To Arrow and back under the same statuses, bit for bit."""
    assert_same_bits(Column.from_arrow(made.to_arrow(), made.dtype, "x", made.status), made)


@given(columns(), st.integers(0, 6))
def test_content_does_not_depend_on_where_a_column_is_cut(made: Column, cut: int) -> None:
    """The streams of two parts, one behind the other, are those of the whole."""
    parts = [made.take(np.arange(len(made)) < cut), made.take(np.arange(len(made)) >= cut)]
    joined = [b"".join(streams) for streams in zip(*(part.content() for part in parts), strict=True)]
    assert joined == list(made.content())
    assert_same_bits(Column.concat(parts), made)


@given(st.data(), st.sampled_from(list(Dtype)))
def test_content_differs_exactly_where_values_do(data: st.DataObject, dtype: Dtype) -> None:
    """Two columns have the same content if, and only if, they are the same."""
    a, b = data.draw(columns(dtype, rows=2)), data.draw(columns(dtype, rows=2))
    assert (a.content() == b.content()) == bool(same(a, b).all())


# -- equality ---------------------------------------------------------------------------------------------------------


def floats(*values: float | None) -> Column:
    """A float64 column."""
    return column(Dtype.FLOAT64, values)


def test_equal_means_equal_in_status_and_bits() -> None:
    """Null equals null, -0.0 equals 0.0, infinity itself; the next float, another sign and a null beside 0 do not."""
    a = floats(None, -0.0, math.inf, 0.1, math.inf, None, 1.0)
    b = floats(None, 0.0, math.inf, math.nextafter(0.1, 1), -math.inf, 0.0, 1.0)
    assert same(a, b).tolist() == [True, True, True, False, False, False, True]


def test_absent_for_another_reason_is_not_equal() -> None:
    """Null differs from not_found, and a default from the same value present."""
    two = (Column.absent(Dtype.INT64, 1, Status.NULL), Column.absent(Dtype.INT64, 1, Status.NOT_FOUND))
    assert same(*two).tolist() == [False]
    one = np.ones(1, dtype=np.int64)
    present, defaulted = (Column.build(Dtype.INT64, one, np.array([s], dtype=np.uint8)) for s in (0, 1))
    assert same(present, defaulted).tolist() == [False]


def test_great_integers_and_instants_are_compared_exactly() -> None:
    """2**53 and 2**53 + 1 differ, whatever the tolerance, and so do instants a microsecond apart."""
    a, b = column(Dtype.INT64, [2**53, 5]), column(Dtype.INT64, [2**53 + 1, 5])
    assert same(a, b, rtol=0.5, atol=10, ulps=4).tolist() == [False, True]
    times = column(Dtype.TIMESTAMP, [T0, T0]), column(Dtype.TIMESTAMP, [T0 + 1, T0])
    assert same(*times).tolist() == [False, True]
    assert same(column(Dtype.STRING, ["\u00e9"]), column(Dtype.STRING, ["e\u0301"])).tolist() == [False]


def test_columns_of_two_dtypes_are_not_compared() -> None:
    """They come of two declarations, which is an error and no difference."""
    with pytest.raises(CastError, match="cannot compare float64 with float32"):
        same(floats(1.0), column(Dtype.FLOAT32, [1.0]))


@pytest.mark.parametrize("dtype", [Dtype.FLOAT64, Dtype.FLOAT32])
@pytest.mark.parametrize("start", [1.0, -1.0, 0.0, 1e-40, 12345.678, -3e38])
def test_units_in_the_last_place_are_counted_exactly(dtype: Dtype, start: float) -> None:
    """Four steps away is within four ulps, five are not, across zero as well; and so are five hundred not."""
    values = np.full(3, start, dtype=dtype.numpy)
    moved = values.copy()
    for i, steps in enumerate((4, 5, 500)):
        for _ in range(steps):
            moved[i] = np.nextafter(moved[i], dtype.numpy.type(np.inf))
    present = np.zeros(3, dtype=np.uint8)
    a, b = Column.build(dtype, values, present), Column.build(dtype, moved, present)
    assert same(a, b, ulps=4).tolist() == [True, False, False]
    assert same(b, a, ulps=4).tolist() == [True, False, False]
    assert same(a, b).tolist() == [False, False, False]


def test_nothing_finite_is_near_infinity() -> None:
    """No tolerance takes the greatest float for infinity, and infinity equals itself under each."""
    a = floats(1.7976931348623157e308, 1.0, math.inf, -math.inf)
    b = floats(math.inf, math.inf, math.inf, math.inf)
    for options in ({"ulps": 4}, {"rtol": 0.1}, {"atol": 1.0}):
        assert same(a, b, **options).tolist() == [False, False, True, False]


def test_tolerance_is_what_the_contract_declares() -> None:
    """`atol` is absolute, `rtol` relative to the greater, both edges included; the signs of zero do not matter."""
    assert same(floats(1.0, 1.0, 0.0), floats(1.5, 1.75, -0.5), atol=0.5).tolist() == [True, False, True]
    assert same(floats(0.75, 0.5), floats(1.0, 1.0), rtol=0.25).tolist() == [True, False]
    assert same(floats(1.0, 1.0), floats(0.75, 0.5), rtol=0.25).tolist() == [True, False]
    assert same(floats(None), floats(0.0), atol=1.0).tolist() == [False]


@given(
    st.data(),
    st.sampled_from(list(Dtype)),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([0, 4]),
)
def test_equality_is_symmetric_and_reflexive(
    data: st.DataObject, dtype: Dtype, rtol: float, atol: float, ulps: int
) -> None:
    """`same(a, b)` is `same(b, a)`, and everything is the same as itself."""
    a, b = data.draw(columns(dtype, rows=4)), data.draw(columns(dtype, rows=4))
    forth, back = (same(x, y, rtol=rtol, atol=atol, ulps=ulps) for x, y in ((a, b), (b, a)))
    assert forth.tolist() == back.tolist()
    assert same(a, a, rtol=rtol, atol=atol, ulps=ulps).all()
    assert (same(a, b) <= forth).all(), "a tolerance never makes a difference out of equals"


def test_an_instant_is_readable() -> None:
    """ISO in UTC, no fraction where there is none, a dash for no time."""
    assert instant(T0) == "2023-11-14T22:13:20Z"
    assert instant(T0 + 1) == "2023-11-14T22:13:20.000001Z"
    assert instant(NO_TIME) == "-"
