from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from skewguard.answer import vector
from skewguard.compare import EXAMPLES, by_hour, compare
from skewguard.contract import Contract
from skewguard.findings import Kind, Observed, Tap
from skewguard.replay import Age, Pairs
from skewguard.values import Column, Dtype, Mask, Status
from tests.loop import HOUR, Loop, at, respoken, us


@pytest.fixture(scope="module")
def clean(loop: Loop) -> Pairs:
    """The clean day, replayed."""
    return loop.pairs()


def _rows(pairs: Pairs, *chosen: int) -> Mask:
    mask = np.zeros(len(pairs), dtype=bool)
    mask[list(chosen)] = True
    return mask


def _with_value(pairs: Pairs, feature: str, count: int) -> Mask:
    """The first `count` rows in which the feature has a value."""
    present = np.flatnonzero(pairs.served.feature(pairs.bundle, feature).present)
    return _rows(pairs, *present[:count])


def _plus(amount: float) -> Any:
    return lambda column: Column.build(column.dtype, column.values + amount, column.status)


def _aged(pairs: Pairs, view: str, age: Age, rows: Mask) -> Pairs:
    """The same pairs, had the rows of a view been of this age."""
    ages: npt.NDArray[np.uint8] = np.where(rows, np.uint8(age), pairs.age[view])
    return replace(pairs, age={**pairs.age, view: ages})


def _contracted(pairs: Pairs, feature: str, contract: Contract) -> Pairs:
    """The same pairs under another contract of one feature."""
    bundle = replace(pairs.bundle)
    bundle.__dict__["contracts"] = pairs.bundle.contracts | {feature: contract}
    return replace(pairs, bundle=bundle)


def _only(observed: tuple[Observed, ...]) -> Observed:
    (one,) = observed
    return one


# -- what differs -----------------------------------------------------------------------------------------------------


def test_nothing_is_observed_where_nothing_differs(clean: Pairs) -> None:
    """A clean day has no finding, and every value of every row was compared."""
    found = compare(clean)
    assert found.observed == ()
    assert found.values == len(clean) * (len(clean.bundle.dtypes) + len(clean.bundle.vector))


def test_every_row_falls_in_exactly_one_group(clean: Pairs) -> None:
    """Equal, lagged, mismatched and unverifiable rows are all rows, each once, the worst that holds."""
    rows = _with_value(clean, "weather__wind", 30)
    pairs = respoken(clean, "weather__wind", _plus(1.0), rows)
    pairs = _aged(pairs, "plane", Age.UNVERIFIABLE, _rows(clean, 10, 11, 12, 100, 101))
    pairs = _aged(pairs, "weather", Age.LAGGED, _rows(clean, 11, 100, 110))
    found = compare(pairs)
    groups = (found.equal, found.lagged, found.mismatched, found.unverifiable)
    assert (np.sum(groups, axis=0) == 1).all()
    assert (found.mismatched == rows).all()
    assert set(np.flatnonzero(found.unverifiable)) == {10, 11, 12, 100, 101} - set(np.flatnonzero(rows))
    assert 110 in np.flatnonzero(found.lagged)
    assert 100 not in np.flatnonzero(found.lagged)


def test_a_differing_stored_value_is_told_with_its_examples(clean: Pairs) -> None:
    """The finding names feature, tap, rows, what is carried on, and a few rows with both values."""
    rows = _with_value(clean, "weather__wind", 7)
    one = _only(compare(respoken(clean, "weather__wind", _plus(0.1), rows)).observed)
    finding = one.finding
    assert (one.rows == rows).all()
    assert (finding.kind, finding.feature, finding.tap) == (Kind.MISMATCH, "weather__wind", Tap.STORE)
    assert (finding.rows, finding.of, finding.rate) == (7, 180, 7 / 180)
    expected = "weather__wind: 7 of 180 values differ from the truth; carried into derived__gust_ratio"
    assert finding.message == expected
    assert len(finding.examples) == EXAMPLES
    first = int(np.flatnonzero(rows)[0])
    example = finding.examples[0]
    truth = clean.truth.views["weather"].features["wind"].value(first)
    assert (example.served, example.truth) == (str(truth + 0.1), str(truth))
    assert example.request_id == clean.served.spine.ids[first]
    assert example.as_of == "2024-03-04T06:00:17Z"
    assert example.keys == "tail N0, origin EWR"


@pytest.mark.parametrize("status", [s for s in Status if not s.has_value])
def test_a_value_that_is_missing_for_another_reason_differs(clean: Pairs, status: Status) -> None:
    """Absent on both sides is no agreement: the statuses must be the same as well."""

    def gone(column: Column) -> Column:
        return Column.absent(column.dtype, len(column), status)

    null = clean.served.feature(clean.bundle, "weather__gust").status == Status.NULL
    found = compare(respoken(clean, "weather__gust", gone, null))
    assert found.mismatched.sum() == (0 if status is Status.NULL else null.sum())
    if status is not Status.NULL:
        assert {e.truth for e in found.observed[0].finding.examples} == {"null"}
        assert {e.served for e in found.observed[0].finding.examples} == {status.name.lower()}


@pytest.mark.parametrize(
    ("feature", "change"),
    [
        ("plane__seats", _plus(1)),
        ("plane__thrust", lambda c: Column.build(c.dtype, np.nextafter(c.values, np.float32(np.inf)), c.status)),
        ("weather__wind", lambda c: Column.build(c.dtype, np.nextafter(c.values, np.inf), c.status)),
        ("weather__wind", lambda c: Column.build(c.dtype, -c.values, c.status)),
        ("plane__maker", lambda c: Column.build(c.dtype, c.values + " ", c.status)),
        ("plane__maker", lambda c: Column.build(c.dtype, np.full(len(c), "", object), np.zeros(len(c), np.uint8))),
    ],
)
def test_the_least_difference_counts(clean: Pairs, feature: str, change: Any) -> None:
    """One unit in the last place, a sign, a blank: without a declared tolerance nothing is nearly the same."""
    rows = _with_value(clean, feature, 5)
    assert (compare(respoken(clean, feature, change, rows)).mismatched == rows).all()


def test_a_declared_tolerance_is_honoured_and_no_more(clean: Pairs) -> None:
    """Within the contract's rtol or atol values are the same; beyond it they differ."""
    rows = _with_value(clean, "weather__gust", 9)
    near = respoken(clean, "weather__gust", _plus(0.01), rows)
    for contract, differ in (
        (Contract(), 9), (Contract(atol=0.0101), 0), (Contract(atol=0.0099), 9), (Contract(rtol=0.5), 0),
    ):  # fmt: skip
        assert compare(_contracted(near, "weather__gust", contract)).mismatched.sum() == differ


def test_another_numeric_class_may_differ_in_four_last_places(clean: Pairs) -> None:
    """Between machines whose arithmetic differs 4 ulp are the same number, 5 are not; on one machine none is."""
    rows = _with_value(clean, "weather__wind", 6)

    def steps(count: int) -> Any:
        def change(column: Column) -> Column:
            values = column.values
            for _ in range(count):
                values = np.nextafter(values, np.inf)
            return Column.build(column.dtype, values, column.status)

        return change

    for count, ulps, differ in ((1, 0, 6), (4, 4, 0), (5, 4, 6)):
        pairs = replace(respoken(clean, "weather__wind", steps(count), rows), ulps=ulps)
        assert compare(pairs).mismatched.sum() == differ


def test_a_lagged_row_must_still_be_the_row_that_it_names(clean: Pairs) -> None:
    """Lag excuses an older row, not another value: one that neither the old nor the new row has is a mismatch."""
    lagged = clean.age["weather"] == Age.LAGGED
    lagged &= clean.served.feature(clean.bundle, "weather__wind").present
    assert lagged.any()
    found = compare(respoken(clean, "weather__wind", _plus(0.5), lagged))
    assert (found.mismatched == lagged).all()
    assert not found.lagged[lagged].any()


# -- the other taps ---------------------------------------------------------------------------------------------------


def test_a_transform_that_gives_something_else_differs_at_the_transform(clean: Pairs) -> None:
    """Right inputs and a wrong output: the finding stands at the transform, against the transform run again."""
    rows = _with_value(clean, "derived__per_stop", 4)
    old = clean.served.derived["derived__per_stop"]
    wrong = Column.build(old.dtype, np.where(rows, old.values * 2, old.values), old.status)
    served = replace(clean.served, derived={**clean.served.derived, "derived__per_stop": wrong})
    served = replace(served, vector=vector(clean.bundle, served))
    one = _only(compare(replace(clean, served=served)).observed)
    assert (one.finding.feature, one.finding.tap) == ("derived__per_stop", Tap.TRANSFORM)
    assert (one.rows == rows).all()
    assert one.finding.examples[0].truth == str(old.values[np.flatnonzero(rows)[0]])


def test_a_wrong_input_is_told_at_the_store_and_not_at_the_transform(clean: Pairs) -> None:
    """What a wrong value leads to further on is no finding of its own."""
    rows = _with_value(clean, "weather__gust", 12)
    observed = compare(respoken(clean, "weather__gust", _plus(3.0), rows)).observed
    assert [(one.finding.feature, one.finding.tap) for one in observed] == [("weather__gust", Tap.STORE)]


def test_a_vector_that_is_not_the_features_differs_at_the_models_input(clean: Pairs) -> None:
    """What entered the model is held against what was served, column by column; NaN stands for missing."""
    matrix = clean.served.vector.copy()
    seats, wind = (clean.bundle.vector.index(name) for name in ("plane__seats", "weather__wind"))
    matrix[3, seats] += 1
    gone = int(np.flatnonzero(~clean.served.feature(clean.bundle, "weather__wind").present)[0])
    matrix[gone, wind] = 0.0  # a missing value that was imputed on the way
    found = compare(replace(clean, served=replace(clean.served, vector=matrix)))
    told = {one.finding.feature: one for one in found.observed}
    assert {name: np.flatnonzero(one.rows).tolist() for name, one in told.items()} == {
        "plane__seats": [3], "weather__wind": [gone],
    }  # fmt: skip
    assert {one.finding.tap for one in told.values()} == {Tap.MODEL_INPUT}
    example = told["weather__wind"].finding.examples[0]
    assert (example.served, example.truth) == ("0.0", "null")
    assert np.flatnonzero(found.mismatched).tolist() == sorted({3, gone})


# -- whole views ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "kind", "what"),
    [
        (Age.STALE, Kind.STALE, "an older row than max_lag allows"),
        (Age.LEAK, Kind.LEAK, "a row that was not known at the request"),
        (Age.UNHEARD, Kind.MISMATCH, "a row that the source does not have"),
    ],
)
def test_a_view_that_served_the_wrong_row_is_told_whatever_its_values(
    clean: Pairs, age: Age, kind: Kind, what: str
) -> None:
    """An old, an early or an unknown row is a finding about the view even where its values are equal."""
    rows = _rows(clean, 2, 5, 7, 11)
    one = _only(compare(_aged(clean, "plane", age, rows)).observed)
    assert (one.finding.kind, one.finding.feature, one.finding.tap) == (kind, "plane", Tap.STORE)
    assert one.finding.message == f"plane: 4 of 180 rows were served {what}"
    assert one.finding.examples[0].served == "present, row of 2024-01-24T00:00:00Z"
    assert (one.rows == rows).all()


@pytest.mark.parametrize("age", [Age.UNVERIFIABLE, Age.UNANSWERED])
def test_a_view_that_cannot_be_judged_is_neither_equal_nor_lagged(clean: Pairs, age: Age) -> None:
    """Rows of which nothing can be known are unverifiable, and no finding."""
    rows = _rows(clean, 1, 2, 3)
    found = compare(_aged(clean, "weather", age, rows))
    assert found.observed == ()
    assert (found.unverifiable == rows).all()
    assert not (found.equal & rows).any()


# -- contracts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feature", "contract", "breaks"),
    [
        ("weather__gust", Contract(null="refused"), lambda c: c.status == Status.NULL),
        ("plane__seats", Contract(minimum=103.0), lambda c: c.present & (c.values < 103)),
        ("plane__seats", Contract(maximum=103.0), lambda c: c.present & (c.values > 103)),
        ("plane__maker", Contract(values=("Airbus",)), lambda c: c.present & (c.values != "Airbus")),
        ("derived__per_stop", Contract(maximum=1000.0), lambda c: c.values > 1000),
    ],
)
def test_a_broken_contract_is_told_and_is_no_mismatch(
    clean: Pairs, feature: str, contract: Contract, breaks: Any
) -> None:
    """A value that breaks its contract is a finding of that kind; both sides may agree on it."""
    found = compare(_contracted(clean, feature, contract))
    one = _only(found.observed)
    expected = breaks(clean.served.feature(clean.bundle, feature))
    assert expected.any()
    assert (one.rows == expected).all()
    assert (one.finding.kind, one.finding.feature) == (Kind.CONTRACT, feature)
    assert not found.mismatched.any()


@pytest.mark.parametrize(("contract", "broken"), [(Contract(rtol=1e-9), 0), (Contract(atol=1e-9), 0), (Contract(), 1)])
def test_a_range_ends_where_the_tolerance_does(clean: Pairs, contract: Contract, broken: int) -> None:
    """A value beyond its bound by less than the declared tolerance breaks nothing; by more, or without one, it does."""
    gust = clean.served.feature(clean.bundle, "weather__gust")
    most = float(gust.values[gust.present].max())
    for bound, found in ((np.nextafter(most, 0), broken), (most - 1.0, 1)):
        within = replace(contract, maximum=float(bound))
        assert len(compare(_contracted(clean, "weather__gust", within)).observed) == found


def test_a_missing_row_breaks_no_contract(clean: Pairs) -> None:
    """Where there is no row, or an expired one, the null rule and the range have nothing to refuse."""
    refused = Contract(null="refused", minimum=0.0)
    found = compare(_contracted(clean, "weather__wind", refused))
    assert (clean.served.feature(clean.bundle, "weather__wind").status == Status.EXPIRED).any()
    assert found.observed == ()


# -- by hour ----------------------------------------------------------------------------------------------------------


def test_hours_count_every_row_and_those_that_differ(clean: Pairs) -> None:
    """Every hour in which something was asked is there, with its rows and those behind the finding."""
    rows = _with_value(clean, "weather__wind", 20)
    finding = _only(compare(respoken(clean, "weather__wind", _plus(1.0), rows)).observed).finding
    assert len(finding.by_hour) == 12
    assert [every for _, every, _ in finding.by_hour] == [15] * 12
    assert sum(bad for *_, bad in finding.by_hour) == 20
    assert finding.by_hour[0][0] == "2024-03-04T06:00:00Z"


def test_an_hour_begins_where_utc_says() -> None:
    """Hours are of UTC, the first microsecond inside, and hours without a row are left out."""
    start = us(at(6))
    times = np.array([start - 1, start, start + HOUR - 1, start + 3 * HOUR])
    assert by_hour(times, np.array([True, False, True, True])) == (
        ("2024-03-04T05:00:00Z", 1, 1),
        ("2024-03-04T06:00:00Z", 2, 1),
        ("2024-03-04T09:00:00Z", 1, 1),
    )


def test_dtypes_are_compared_as_declared(clean: Pairs) -> None:
    """Every stored and derived feature has one dtype on all sides of a pair."""
    for name, dtype in clean.bundle.dtypes.items():
        for side in (clean.served, clean.truth, clean.as_known):
            assert side.feature(clean.bundle, name).dtype is dtype
    assert Dtype.FLOAT32 in clean.bundle.dtypes.values()
