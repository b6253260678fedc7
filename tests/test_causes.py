from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from skewguard.causes import MINIMUM_ROWS, explain
from skewguard.causes.one_row import hint
from skewguard.causes.slices import slices
from skewguard.compare import compare
from skewguard.definitions import Fitted, View
from skewguard.findings import Finding, Kind, Observed, Tap
from skewguard.replay import Age, Pairs
from skewguard.values import Array, Column, Dtype, Mask, Status
from tests.loop import HOUR, MINUTE, SECOND, Loop, asks_between, at, respoken, us

NUMBERS = "weather__wind"


@pytest.fixture(scope="module")
def clean(loop: Loop) -> Pairs:
    """The clean day, replayed."""
    return loop.pairs()


def _values(change: Callable[[Array], Array]) -> Callable[[Column], Column]:
    return lambda column: Column.build(column.dtype, change(column.values), column.status)


def _explained(pairs: Pairs, feature: str) -> Finding:
    """The finding about a feature, with its cause."""
    (found,) = [one for one in compare(pairs).observed if one.finding.feature == feature]
    return explain(found, pairs)


def _skewed(
    pairs: Pairs, change: Callable[[Column], Column], feature: str = NUMBERS, rows: Mask | None = None
) -> Finding:
    """The finding where a stored feature was served changed, in every row that has a value unless told otherwise."""
    rows = pairs.served.feature(pairs.bundle, feature).present if rows is None else rows
    return _explained(respoken(pairs, feature, change, rows), feature)


# -- units ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda v: v * 1.609344, "served = truth x 1.609 (mph served as km/h)"),
        (lambda v: v / 1.609344, "served = truth x 0.6214 (km/h served as mph)"),
        (lambda v: v * 0.44704, "served = truth x 0.447 (mph served as m/s)"),
        (lambda v: (v - 32) * 5 / 9, "served = truth x 0.5556 - 17.78 (degrees Fahrenheit served as Celsius)"),
        (lambda v: v * 9 / 5 + 32, "served = truth x 1.8 + 32 (degrees Celsius served as Fahrenheit)"),
        (lambda v: v * 60, "served = truth x 60 (minutes served as seconds)"),
        (lambda v: v / 100, "served = truth x 0.01 (per cent served as a share)"),
        (lambda v: -v, "served = truth x -1 (served with the opposite sign)"),
        (lambda v: v * 7.25, "served = truth x 7.25"),
        (lambda v: v + 5, "served = truth + 5"),
        (lambda v: v - 0.5, "served = truth - 0.5"),
        (lambda v: v * 2.5 - 3, "served = truth x 2.5 - 3"),
    ],
)
def test_a_unit_is_found_by_name_factor_and_offset(
    clean: Pairs, change: Callable[[Array], Array], sentence: str
) -> None:
    """A line from truth to served is the cause, with its usual name where it has one."""
    finding = _skewed(clean, _values(change))
    assert (finding.cause_kind, finding.cause, finding.explained) == ("unit", sentence, 1.0)


def test_a_unit_survives_a_few_rows_that_are_wrong_otherwise(clean: Pairs) -> None:
    """One row in twenty beside the line is no reason to know nothing; the share says how much is explained."""

    def change(values: Array) -> Array:
        wrong = values * 1.609344
        wrong[::20] += 4.4
        return wrong

    finding = _skewed(clean, _values(change))
    assert finding.cause_kind == "unit"
    assert 0.9 < finding.explained < 1.0


def test_a_known_unit_is_told_even_where_the_truth_was_constant(clean: Pairs) -> None:
    """Rows of one and the same observation do not show a line, but a known factor is a hint worth having."""
    wind = clean.served.feature(clean.bundle, NUMBERS)
    values, counts = np.unique(wind.values[wind.present], return_counts=True)
    rows = wind.present & (wind.values == values[counts.argmax()])
    assert rows.sum() >= MINIMUM_ROWS
    assert _skewed(clean, _values(lambda v: v * 1.609344), rows=rows).cause.endswith("(mph served as km/h)")
    assert _skewed(clean, _values(lambda v: v * 1.7), rows=rows).cause_kind == "unknown"


def test_a_line_through_two_truths_is_no_unit(clean: Pairs) -> None:
    """Between two values a line can always be drawn: a wrong mapping of a flag is not another unit."""
    distance = np.array([{0: 7.0, 1: 3.0}[i % 2] for i in range(len(clean))])
    two = np.array([{0: 1.0, 1: 2.0}[i % 2] for i in range(len(clean))])

    def flagged(values: Array) -> Callable[[Column], Column]:
        return lambda c: Column.build(c.dtype, values, np.zeros(len(c), np.uint8))

    everywhere = np.ones(len(clean), dtype=bool)
    true = respoken(clean, NUMBERS, flagged(two), everywhere)
    pairs = replace(respoken(clean, NUMBERS, flagged(distance), everywhere), truth=true.served, as_known=true.served)
    assert _explained(pairs, NUMBERS).cause_kind == "unknown"


def test_a_unit_of_whole_numbers_is_found(clean: Pairs) -> None:
    """An int64 feature off by one is an offset, not a rounding."""
    finding = _skewed(clean, _values(lambda v: v + 1), feature="plane__seats")
    assert (finding.cause_kind, finding.cause) == ("unit", "served = truth + 1")


def test_infinite_and_huge_values_are_left_out_of_the_line(clean: Pairs) -> None:
    """A division by zero on one side costs its own rows, not the explanation of the others."""

    def change(values: Array) -> Array:
        wrong = values * 7.25
        wrong[:10], wrong[10:15] = np.inf, 1e308
        return wrong

    finding = _skewed(clean, _values(change))
    assert (finding.cause_kind, finding.cause) == ("unit", "served = truth x 7.25")
    assert finding.explained < 1.0


# -- digits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        (lambda v: v.astype(np.float32).astype(np.float64), "float32", "served = truth as float32"),
        (np.trunc, "truncated", "served = truth without its fraction"),
        (lambda v: np.round(v, 0), "rounded_0", "served = truth rounded to 0 decimals"),
    ],
)
def test_lost_digits_are_found(clean: Pairs, change: Callable[[Array], Array], kind: str, sentence: str) -> None:
    """A narrowing, a truncation and a rounding are told apart, and none is called a unit."""
    finding = _skewed(clean, _values(change))
    assert (finding.cause_kind, finding.cause) == (kind, sentence)


def test_noise_in_the_last_digits_is_no_unit(clean: Pairs) -> None:
    """Values that are nearly the truth lie on the line 'served = truth', which explains nothing."""
    noise = np.random.default_rng(5).uniform(-1e-9, 1e-9, len(clean))
    assert _skewed(clean, _values(lambda v: v * (1 + noise))).cause_kind == "unknown"


# -- missing values ---------------------------------------------------------------------------------------------------


def test_a_filled_null_is_told_with_what_it_was_filled_with(clean: Pairs) -> None:
    """Null served as a constant is a fill."""

    def filled(column: Column) -> Column:
        return Column.build(
            column.dtype, np.where(column.present, column.values, -1.0), np.zeros(len(column), np.uint8)
        )

    null = clean.served.feature(clean.bundle, "weather__gust").status == Status.NULL
    finding = _skewed(clean, filled, "weather__gust", null)
    assert (finding.cause_kind, finding.cause) == ("null_fill", "a missing value was served as -1.0")
    assert finding.explained == 1.0


def test_a_constant_in_place_of_many_values_is_a_default(clean: Pairs) -> None:
    """One value whatever the truth is a default, not a unit with the factor 0."""
    finding = _skewed(clean, _values(lambda v: np.full_like(v, 12.5)))
    assert (finding.cause_kind, finding.cause) == ("default", "12.5 was served whatever the truth")


def test_a_value_that_was_lost_is_nulled(clean: Pairs) -> None:
    """A value that exists and was served as missing is the reverse of a fill."""
    finding = _skewed(clean, lambda c: Column.absent(c.dtype, len(c), Status.NULL))
    assert (finding.cause_kind, finding.cause) == ("nulled", "a value that exists was served as missing")


# -- TTL --------------------------------------------------------------------------------------------------------------


def test_a_ttl_that_one_side_ignores_is_told_and_is_no_fill(clean: Pairs) -> None:
    """Expired on one side, the one row's value on the other: the TTL, in either direction."""
    wind = clean.served.feature(clean.bundle, NUMBERS)
    old = wind.status == Status.EXPIRED

    def kept(column: Column) -> Column:
        return Column.build(column.dtype, np.full(len(column), 26.6), np.zeros(len(column), np.uint8))

    finding = _skewed(clean, kept, rows=old)
    assert (finding.cause_kind, finding.cause) == ("ttl", "values older than the TTL were served")
    there = wind.present

    def gone(column: Column) -> Column:
        return Column.absent(column.dtype, len(column), Status.EXPIRED)

    (beside,) = [one for one in clean.bundle.view_of if one.startswith("weather__") and one != NUMBERS]
    finding = _skewed(respoken(clean, beside, gone, there), gone, rows=there)
    assert (finding.cause_kind, finding.cause) == ("ttl", "values within the TTL were served as expired")


def test_one_column_that_had_expired_is_an_old_column_and_no_ttl(clean: Pairs) -> None:
    """The rest of the row has not: the column is filled by a job of its own, which is late."""
    finding = _skewed(clean, lambda c: Column.absent(c.dtype, len(c), Status.EXPIRED))
    assert finding.cause_kind == "stale"
    assert finding.cause.startswith("the values of weather.wind had expired and the rest of their rows had not")


# -- stale ------------------------------------------------------------------------------------------------------------


def _stale(pairs: Pairs, rows: Mask, behind_us: Callable[[Array], Array], lag_us: int = 2 * HOUR) -> Finding:
    """The finding where weather was stale in `rows`, while its writer was that far behind."""
    as_of = pairs.served.spine.as_of
    weather = replace(pairs.served.views["weather"], watermark=as_of - behind_us(as_of))
    aged = replace(
        pairs,
        age={**pairs.age, "weather": np.where(rows, np.uint8(Age.STALE), pairs.age["weather"])},
        lag_us={**pairs.lag_us, "weather": np.where(rows, lag_us, 0)},
        served=replace(pairs.served, views={**pairs.served.views, "weather": weather}),
    )
    return _explained(aged, "weather")


def _between(pairs: Pairs, start: float, end: float) -> Mask:
    as_of = pairs.served.spine.as_of
    return np.asarray((as_of >= us(at(start))) & (as_of < us(at(end))))


def test_a_writer_that_stood_still_is_told_with_when(clean: Pairs) -> None:
    """One watermark in all stale rows, growing older: the writer stopped there."""
    finding = _stale(clean, _between(clean, 13, 16), lambda as_of: as_of - us(at(12.5)))
    expected = "the writer of weather stood still at 2024-03-04T12:30:00Z, up to 3 h 26 min behind"
    assert (finding.cause_kind, finding.cause, finding.explained) == ("stale", expected, 1.0)
    assert finding.slices == ("since 2024-03-04T13:00Z", "until 2024-03-04T15:56Z")


def test_a_writer_that_ran_behind_is_told_with_how_far(clean: Pairs) -> None:
    """A watermark that moves, but too late."""
    finding = _stale(clean, _between(clean, 13, 16), lambda as_of: np.full(len(as_of), 25 * MINUTE + 3 * SECOND))
    expected = "the writer of weather ran up to 25 min 03 s behind (max_lag 1 min 00 s)"
    assert (finding.cause_kind, finding.cause) == ("stale", expected)


def test_a_row_that_was_lost_on_the_way_is_no_slow_writer(clean: Pairs) -> None:
    """The watermark had passed the newer rows, and they are not there: a lost write."""
    finding = _stale(clean, _between(clean, 13, 16), lambda as_of: np.full(len(as_of), 17 * SECOND))
    expected = (
        "newer rows of weather never reached the online store although its writer had passed them; "
        "what was served is up to 2 h 00 min older"
    )
    assert (finding.cause_kind, finding.cause) == ("lost_write", expected)
    never = _stale(clean, _between(clean, 13, 16), lambda as_of: np.full(len(as_of), 17 * SECOND), lag_us=0)
    assert never.cause.endswith("although its writer had passed them")


# -- unknown ----------------------------------------------------------------------------------------------------------


def test_what_nothing_explains_is_unknown(clean: Pairs) -> None:
    """Random values are no unit, no rounding and no default."""
    noise = np.random.default_rng(6).uniform(0, 50, len(clean))
    finding = _skewed(clean, _values(lambda _: noise))
    assert (finding.cause_kind, finding.explained) == ("unknown", 0.0)
    assert finding.cause == "unknown: no hypothesis explains it"


def test_less_than_half_explained_is_unknown(clean: Pairs) -> None:
    """A cause for a minority of the rows is not the cause."""
    noise = np.random.default_rng(7).uniform(100, 200, len(clean))
    third = np.arange(len(clean)) % 3 == 0
    finding = _skewed(clean, _values(lambda v: np.where(third, np.trunc(v), noise)))
    assert finding.cause_kind == "unknown"


@pytest.mark.parametrize("rows", [1, 2])
def test_fewer_than_three_rows_are_too_few_to_tell(clean: Pairs, rows: int) -> None:
    """Through two points there is always a line: no cause and no slice is claimed."""
    present = clean.served.feature(clean.bundle, NUMBERS).present
    chosen = present & (np.cumsum(present) <= rows)
    finding = _skewed(clean, _values(lambda v: v * 1.609344), rows=chosen)
    assert (finding.rows, finding.cause_kind, finding.slices) == (rows, "unknown", ())
    assert finding.cause == "unknown: too few rows to tell"


def test_a_transform_that_differs_inexplicably_ran_other_code(clean: Pairs) -> None:
    """Right inputs and another output that no unit explains: the sentence says so."""
    noise = np.random.default_rng(8).uniform(0, 9, len(clean))
    derived = {**clean.served.derived}
    derived["derived__per_stop"] = replace(derived["derived__per_stop"], values=noise)
    wrong = replace(clean, served=replace(clean.served, derived=derived))
    (found,) = [one for one in compare(wrong).observed if one.finding.tap is Tap.TRANSFORM]
    finding = explain(found, wrong)
    assert finding.cause == "the transform gives another value for the logged inputs: the server ran other code"


def test_what_entered_the_model_is_explained_by_what_was_served(clean: Pairs) -> None:
    """At the model's input the two sides are the vector and the served feature, not the feature and itself."""
    matrix = clean.served.vector.copy()
    wind = clean.bundle.vector.index(NUMBERS)
    matrix[:, wind] *= 1.609344
    scaled = replace(clean, served=replace(clean.served, vector=matrix))
    assert _explained(scaled, NUMBERS).cause == "served = truth x 1.609 (mph served as km/h)"
    matrix = np.nan_to_num(clean.served.vector)
    imputed = replace(clean, served=replace(clean.served, vector=matrix))
    assert _explained(imputed, NUMBERS).cause == "a missing value was served as 0.0"


@pytest.mark.parametrize("kind", [Kind.LEAK, Kind.CONTRACT])
def test_findings_whose_kind_is_their_cause_come_back_as_they_are(clean: Pairs, kind: Kind) -> None:
    """A leak and a broken contract need no hypothesis."""
    rows = np.ones(len(clean), dtype=bool)
    finding = Finding(kind, "weather", 180, 180, "so")
    assert explain(Observed(finding, rows), clean) is finding


# -- one row ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "served", "truth", "said"),
    [
        (Dtype.FLOAT64, 16.09344, 10.0, "served = truth x 1.609 (mph served as km/h)"),
        (Dtype.FLOAT64, 10.123, 10.12345, "served = truth rounded to 3 decimals"),
        (Dtype.FLOAT64, 0.0, None, "a value that is missing (null) was served as 0.0"),
        (Dtype.FLOAT64, None, 7.5, "a value that exists was served as missing (null)"),
        (Dtype.STRING, "jfk", "JFK", "served = truth in small letters"),
        (Dtype.FLOAT64, 3.3, 17.0, ""),
    ],
)
def test_one_row_says_what_it_can(dtype: Dtype, served: Any, truth: Any, said: str) -> None:
    """What makes one value of the other is a hint; what might be anything is none."""
    columns = []
    for value in (served, truth):
        values = np.array(["" if dtype is Dtype.STRING else 0.0] if value is None else [value], dtype=object)
        status = np.array([Status.NULL if value is None else Status.PRESENT], dtype=np.uint8)
        columns.append(Column.build(dtype, values if dtype is Dtype.STRING else values.astype(np.float64), status))
    assert hint(*columns) == said


# -- slices -----------------------------------------------------------------------------------------------------------


def _slices(pairs: Pairs, rows: Mask, feature: str = NUMBERS) -> tuple[str, ...]:
    finding = Finding(Kind.MISMATCH, feature, int(rows.sum()), len(rows), "so", Tap.STORE)
    return slices(Observed(finding, rows), pairs)


def test_one_build_is_told_and_since_when(clean: Pairs) -> None:
    """All bad rows of the build that was deployed in the midst: only that build, since its first bad row."""
    assert _slices(clean, clean.labels["build"] == "B") == ("only build B", "since 2024-03-04T10:04Z")


def test_one_key_is_told(clean: Pairs) -> None:
    """All bad rows about one origin: that origin, and since ever."""
    assert _slices(clean, clean.served.spine.keys["origin"].values == "JFK") == ("only origin JFK",)
    assert _slices(clean, clean.served.spine.keys["tail"].values == "N4", "plane__seats") == ("only tail N4",)


@pytest.mark.parametrize("feature", ["derived__gust_ratio", "derived__maker_code"])
def test_a_feature_is_sliced_by_all_keys_that_were_asked(clean: Pairs, feature: str) -> None:
    """Those that it hangs on, and those that it does not: a replica may serve one airport alone."""
    jfk = clean.served.spine.keys["origin"].values == "JFK"
    assert _slices(clean, jfk, feature) == ("only origin JFK",)


def test_only_rows_in_which_the_cause_would_show_count(clean: Pairs) -> None:
    """Nulls are of one station's day alone; that all filled ones are there says nothing about the fill."""
    wind = clean.served.feature(clean.bundle, NUMBERS)
    gone = np.asarray(wind.status == Status.EXPIRED)
    assert gone.any()
    assert len(np.unique(clean.served.spine.keys["origin"].values[gone].astype(str))) == 1
    finding = _skewed(
        clean, lambda c: Column.build(c.dtype, np.full(len(c), 0.0), np.zeros(len(c), np.uint8)), rows=gone
    )
    assert finding.slices == ()


def test_the_keys_are_those_of_the_features_own_view(clean: Pairs) -> None:
    """A view whose name begins with another's is not taken for it."""
    plane, weather = clean.bundle.views
    longer = View("plane_weather", weather.keys, weather.features, None, 0, weather.source)
    bundle = replace(clean.bundle, views=(plane, longer, weather))
    truth = replace(clean.truth, views={**clean.truth.views, "plane_weather": clean.truth.views["weather"]})
    pairs = replace(clean, bundle=bundle, truth=truth)
    jfk = clean.served.spine.keys["origin"].values == "JFK"
    assert _slices(pairs, jfk, "plane_weather__wind") == ("only origin JFK",)


def test_a_window_is_told_where_the_rows_around_it_are_right(clean: Pairs) -> None:
    """A fault with a beginning and an end has a since and an until; one with neither has none."""
    assert _slices(clean, _between(clean, 12, 14)) == ("since 2024-03-04T12:00Z", "until 2024-03-04T13:56Z")
    assert _slices(clean, _between(clean, 12, 24)) == ("since 2024-03-04T12:00Z",)
    assert _slices(clean, np.ones(len(clean), dtype=bool)) == ()


def test_a_build_that_was_not_there_meanwhile_is_no_reason_to_accuse_the_other(clean: Pairs) -> None:
    """All rows of the morning are build A's, because there was no other: that is a date, and not a build."""
    assert (clean.labels["build"][_between(clean, 0, 9)] == "A").all()
    assert _slices(clean, _between(clean, 0, 9)) == ("until 2024-03-04T08:56Z",)


def test_some_rows_within_a_window_still_date_it(clean: Pairs) -> None:
    """A fault in part of the traffic is dated by the rows before and after all the same."""
    some = _between(clean, 10, 15) & (np.random.default_rng(1).random(len(clean)) < 0.4)
    assert _slices(clean, some) == ("since 2024-03-04T10:00Z", "until 2024-03-04T14:40Z")


@pytest.mark.parametrize(("rows", "share"), [(1000, 0.01), (1000, 0.003), (180, 0.03)])
def test_rows_that_are_bad_at_random_have_no_slice_and_no_date(loop: Loop, rows: int, share: float) -> None:
    """What strikes one row in a hundred at random begins and ends by chance: next to never is it given a date."""
    pairs = _many(loop, rows)
    random = np.random.default_rng(9)
    told: list[tuple[str, ...]] = []
    while len(told) < 300:
        bad = random.random(rows) < share
        if bad.sum() >= MINIMUM_ROWS:
            told.append(_slices(pairs, bad))
    assert sum(bool(one) for one in told) <= 6


def _many(loop: Loop, rows: int) -> Pairs:
    """Pairs of that many rows; only instants, keys and labels are looked at."""
    clean = loop.pairs()
    pick = np.arange(rows) % len(clean)
    clean = clean.take(pick)
    asks = asks_between(at(0), at(24) - at(0), rows)
    as_of = np.array([us(t) for t in asks["event_timestamp"].to_pylist()])
    spine = replace(clean.served.spine, as_of=as_of)
    labels = {**clean.labels, "build": np.where(np.arange(rows) % 2, "A", "B").astype(object)}
    return replace(clean, served=replace(clean.served, spine=spine), labels=labels)


def test_a_slice_that_begins_with_the_traffic_is_not_dated(loop: Loop) -> None:
    """That the first ask about an origin comes a minute after the first of all is no 'since'."""
    pairs = _many(loop, 600)
    for rows in (pairs.labels["build"] == "A", pairs.served.spine.keys["origin"].values == "LGA"):
        assert not [one for one in _slices(pairs, rows) if one.startswith(("since", "until"))]


def test_a_handful_of_rows_that_share_a_label_by_chance_is_no_slice(loop: Loop) -> None:
    """Three rows of one of two builds are a coin thrown three times."""
    pairs = _many(loop, 600)
    bad = np.zeros(600, dtype=bool)
    bad[[100, 300, 500]] = True
    assert set(pairs.labels["build"][bad].tolist()) == {"B"}
    assert not [one for one in _slices(pairs, bad) if one.startswith("only build")]


def test_the_whole_explanation_reads_as_a_colleague_would_say_it(clean: Pairs) -> None:
    """Kind, sentence, share and slices come together in one finding, which is otherwise as it was."""
    bad: Any = (clean.labels["build"] == "B") & clean.served.feature(clean.bundle, NUMBERS).present
    finding = _skewed(clean, _values(lambda v: v * 1.609344), rows=bad)
    assert finding.cause == "served = truth x 1.609 (mph served as km/h)"
    assert finding.slices == ("only build B", "since 2024-03-04T10:12Z")
    assert finding.rows == bad.sum()
    assert finding.message.startswith("weather__wind: 5")


def test_a_wrong_prediction_gets_a_cause(loop: Loop, clean: Pairs) -> None:
    """What was answered beside what the model says of the logged vector is evidence like any other."""
    served = clean.served.prediction
    assert served is not None
    shifted = replace(clean, served=replace(clean.served, prediction=served + 0.25))
    (observed,) = [one for one in compare(shifted, loop.model).observed if one.finding.feature == "prediction"]
    finding = explain(observed, shifted)
    assert (finding.cause_kind, finding.cause) == ("unit", "served = truth + 0.25")


# -- the stage --------------------------------------------------------------------------------------------------------


def test_a_transform_that_gives_a_line_leaves_other_code_among_the_causes(clean: Pairs) -> None:
    """The inputs are right, so that it is the code, whatever the line says of it."""
    derived = {**clean.served.derived}
    ratio = derived["derived__per_stop"]
    derived["derived__per_stop"] = Column.build(ratio.dtype, ratio.values * 1.37, ratio.status)
    wrong = replace(clean, served=replace(clean.served, derived=derived))
    (found,) = [one for one in compare(wrong).observed if one.finding.tap is Tap.TRANSFORM]
    finding = explain(found, wrong)
    assert finding.cause == "served = truth x 1.37; the inputs are right, so the server ran other code"
    assert "other_code" in {one.kind for one in (*finding.causes, *finding.alternatives)}


def test_a_fitted_transform_that_gives_a_line_was_fitted_otherwise(clean: Pairs) -> None:
    """A factor or an offset at a fitted value's place is another fitted value."""
    specs = [
        replace(spec, fitted=(Fitted("mean", "mean", ("distance",), 4.0),)) if spec.name == "per_stop" else spec
        for spec in clean.bundle.derived
    ]
    derived = {**clean.served.derived}
    ratio = derived["derived__per_stop"]
    derived["derived__per_stop"] = Column.build(ratio.dtype, ratio.values - 3.25, ratio.status)
    wrong = replace(
        clean, bundle=replace(clean.bundle, derived=tuple(specs)), served=replace(clean.served, derived=derived)
    )
    (found,) = [one for one in compare(wrong).observed if one.finding.tap is Tap.TRANSFORM]
    finding = explain(found, wrong)
    assert finding.cause_kind == "fitted_values"
    assert finding.cause.startswith("served = truth - 3.25: as other fitted values")
