"""What stands beside the replay: what it cannot see, the quiet channel, and outcomes."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewguard.answer import Served, answer
from skewguard.compare import Constraints, Drift, Frozen, Uniqueness, Unknown
from skewguard.compare.constraints import Rules, rules
from skewguard.compare.frozen import Habits, Spell, habits
from skewguard.compare.outcomes import (
    Predictions,
    contradicted,
    fell,
    missing,
    performance,
    read_outcomes,
    uncounted,
)
from skewguard.compare.unknown import asked
from skewguard.contract import Contract
from skewguard.errors import EvidenceError
from skewguard.findings import Finding, Kind
from skewguard.offline import OfflineStore
from skewguard.replay import take
from skewguard.servinglog import ServingLog, read_log
from skewguard.snapshot import build_snapshot
from skewguard.spine import read_spine
from skewguard.values import Array, Column, Status
from skewguard.verdict import Ruling
from skewguard.workflows.guard import guard
from skewguard.workflows.outcomes import import_outcomes
from tests.loop import DAY, HOUR, MINUTE, POLICY, SERVICE, Fault, Loop, asks_between, at, bundle_of, ids, us


def _answered(loop: Loop, asks: pa.Table) -> Served:
    bundle = loop.bundle
    spine = read_spine(asks, bundle.keys, {r.name: r.dtype for r in bundle.request}, id_column="id")
    with OfflineStore(bundle.views, threads=1) as offline:
        return answer(bundle, spine, offline.answer(spine))


def _routed(served: Served) -> Served:
    """The same, with a distance that follows from origin and tail."""
    origin, tail = (served.spine.keys[name] for name in ("origin", "tail"))
    distance = [
        100.0 + 7 * sum(map(ord, o)) + 13 * sum(map(ord, t)) for o, t in zip(origin.values, tail.values, strict=True)
    ]
    return _with_request(served, "distance", np.array(distance))


def _with_request(served: Served, name: str, values: Array) -> Served:
    column = served.spine.request[name]
    request = {**served.spine.request, name: Column.build(column.dtype, values, column.status)}
    return replace(served, spine=replace(served.spine, request=request))


def _with_feature(served: Served, view: str, name: str, values: Array) -> Served:
    rows = served.views[view]
    column = rows.features[name]
    features = {**rows.features, name: Column.build(column.dtype, values, column.status)}
    return replace(served, views={**served.views, view: replace(rows, features=features)})


@pytest.fixture(scope="module")
def training(loop: Loop) -> Served:
    """Three days of 4,000 asks."""
    return _routed(_answered(loop, asks_between(at(-72), timedelta(days=3), 4_000)))


@pytest.fixture(scope="module")
def today(loop: Loop) -> Served:
    """A clean day of 1,500 asks."""
    return _routed(_answered(loop, asks_between(at(0), timedelta(hours=20), 1_500)))


@pytest.fixture(scope="module")
def held(loop: Loop, training: Served) -> Rules:
    """What those three days teach."""
    return rules(loop.bundle, training)


def _broken(loop: Loop, held: Rules, served: Served) -> list[Finding]:
    check = Constraints(loop.bundle, held)
    for rows in np.array_split(np.arange(len(served.spine)), 3):
        check.add(take(served, rows))
    return check.findings()


# -- constraints ------------------------------------------------------------------------------------------------------


def test_what_always_held_is_learnt_and_holds_on_a_clean_day(loop: Loop, held: Rules, today: Served) -> None:
    """The distance follows from the route, the departure from the clock; a clean day breaks neither."""
    assert [(one.by, one.value) for one in held.dependencies] == [(("tail", "origin"), "distance")]
    assert list(held.clocks) == ["scheduled"]
    assert _broken(loop, held, today) == []


def test_a_request_that_contradicts_its_route_is_found(loop: Loop, held: Rules, today: Served) -> None:
    """A twentieth of the rows with another row's distance: a constraint is broken in just these."""
    wrong = np.arange(len(today.spine)) % 20 == 0
    distance = today.spine.request["distance"].values
    known = today.spine.keys["tail"].present
    sent = np.where(wrong, distance + 1.0, distance)
    (finding,) = _broken(loop, held, _with_request(today, "distance", sent))
    assert (finding.kind, finding.feature) == (Kind.CONSTRAINT, "distance")
    assert finding.rows == int((wrong & known).sum())
    assert finding.of == 1_500
    assert finding.evidence > 10


def test_a_clock_that_is_off_is_found(loop: Loop, held: Rules, today: Served) -> None:
    """Rows logged an hour late no longer stand an hour before their departure."""
    late = np.where(np.arange(len(today.spine)) % 10 == 0, HOUR, 0)
    shifted = replace(today, spine=replace(today.spine, as_of=today.spine.as_of + late))
    (finding,) = _broken(loop, held, shifted)
    assert (finding.kind, finding.feature, finding.rows) == (Kind.CLOCK, "scheduled", 150)


def test_a_request_that_waited_is_no_wrong_clock(loop: Loop, held: Rules, today: Served) -> None:
    """Real requests come seconds or minutes later than the asks of training, which are an hour before to the second."""
    waited = np.random.default_rng(0).integers(0, 9 * MINUTE, len(today.spine))
    shifted = replace(today, spine=replace(today.spine, as_of=today.spine.as_of + waited))
    assert _broken(loop, held, shifted) == []


def test_a_habit_is_no_law(loop: Loop, training: Served) -> None:
    """What held in the earlier days and not in the later is not held against anybody."""
    moved = training.spine.as_of > np.median(training.spine.as_of)
    distance = training.spine.request["distance"].values
    assert (
        rules(loop.bundle, _with_request(training, "distance", np.where(moved, distance + 5, distance))).dependencies
        == ()
    )


def test_an_order_is_a_bound_and_not_chance(loop: Loop, training: Served, today: Served) -> None:
    """Gusts close above the wind are a bound, and wind in another unit breaks it; distance above wind is chance."""
    random = np.random.default_rng(0)

    def bounded(served: Served) -> Served:
        wind = served.views["weather"].features["wind"].values
        column = served.views["weather"].features["gust"]
        gust = Column.build(column.dtype, wind + random.exponential(3, len(wind)), np.zeros(len(wind), np.uint8))
        rows = served.views["weather"]
        return replace(
            served, views={**served.views, "weather": replace(rows, features={**rows.features, "gust": gust})}
        )

    held = rules(loop.bundle, bounded(training))
    assert ("weather__wind", "weather__gust") in held.orders
    assert all("distance" not in pair for pair in held.orders)
    day = bounded(today)
    assert [one for one in _broken(loop, held, day) if one.feature == "weather__wind"] == []
    wind = day.views["weather"].features["wind"].values
    found = _broken(loop, held, _with_feature(day, "weather", "wind", wind * 3.6))
    assert (Kind.CONSTRAINT, "weather__wind") in {(one.kind, one.feature) for one in found}


def test_too_few_rows_teach_nothing(loop: Loop, today: Served) -> None:
    """Below a thousand rows nothing is learnt, and nothing is found."""
    few = rules(loop.bundle, take(today, np.arange(500)))
    assert few == Rules((), (), {})
    assert _broken(loop, few, today) == []


# -- frozen -----------------------------------------------------------------------------------------------------------


def _frozen(loop: Loop, learnt: Habits, served: Served) -> list[Finding]:
    check = Frozen(loop.bundle, learnt)
    for rows in np.array_split(np.arange(len(served.spine)), 3):
        check.add(take(served, rows))
    return check.findings()


@pytest.mark.parametrize("origins", [("EWR", "JFK", "LGA"), ("JFK",)])
def test_a_source_that_repeats_itself_is_found_for_all_keys_or_one(
    loop: Loop, training: Served, today: Served, origins: tuple[str, ...]
) -> None:
    """New rows with the old values over eight hours, which never happened before: frozen, in those rows alone."""
    learnt = replace(habits(loop.bundle, _varied(training)), oldest={})  # LGA is silent for nine hours in truth
    day = _varied(today)
    assert _frozen(loop, learnt, day) == []
    event, origin = day.views["weather"].event, day.spine.keys["origin"].values
    stuck = (event >= us(at(12))) & (event < us(at(20))) & np.isin(origin, origins)
    still = _with_feature(day, "weather", "wind", np.where(stuck, 11.0, day.views["weather"].features["wind"].values))
    gust = still.views["weather"].features["gust"]
    still = _with_feature(still, "weather", "gust", np.where(stuck, 13.0, gust.values))
    found = _frozen(loop, learnt, still)
    assert found
    assert {one.kind for one in found} == {Kind.FROZEN}
    assert {one.feature.partition("__")[0] for one in found} == {"weather"}
    assert max(one.rows for one in found) == int((stuck & (day.views["weather"].status <= 2)).sum())


def _varied(served: Served) -> Served:
    """The same with a gust in every row, so that statuses do not stand in the way."""
    rows = served.views["weather"]
    wind = rows.features["wind"]
    gust = Column.build(wind.dtype, wind.values * 1.5, wind.status)
    return replace(served, views={**served.views, "weather": replace(rows, features={**rows.features, "gust": gust})})


def test_spells_that_the_snapshot_is_too_short_for_are_not_judged(loop: Loop, today: Served) -> None:
    """A snapshot of a day says nothing of spells of eight hours."""
    day = _varied(today)
    stuck = (day.views["weather"].event >= us(at(12))) & (day.views["weather"].event < us(at(20)))
    still = _with_feature(day, "weather", "wind", np.where(stuck, 11.0, day.views["weather"].features["wind"].values))
    held = {("weather", "wind"): _never_longer_than(HOUR)}
    assert _frozen(loop, Habits(held, {}, DAY), still) == []
    assert _frozen(loop, Habits(held, {}, 100 * DAY), still) != []


def test_a_spell_ends_where_the_log_shows_nothing(loop: Loop, today: Served) -> None:
    """The same wind in the morning and in the evening, and nothing asked between, is no spell of the whole day."""
    event = today.views["weather"].event
    seen = np.flatnonzero((event < us(at(3))) | (event >= us(at(17))))
    wind = today.views["weather"].features["wind"].values
    still = take(_with_feature(today, "weather", "wind", np.full(len(wind), 11.0)), seen)
    held = Habits({("weather", "wind"): _never_longer_than(4 * HOUR)}, {}, 100 * DAY)
    assert _frozen(loop, held, still) != []
    assert _frozen(loop, replace(held, spacing={"weather": 5 * HOUR}), still) == []


def _never_longer_than(spell: int) -> Spell:
    return Spell(np.empty(0, dtype=np.uint64), None, spell)


def test_a_row_that_is_usual_may_stay_and_another_may_not(loop: Loop, training: Served, today: Served) -> None:
    """Calm nights teach nothing about winds: a row that stands still for hours is found, a calm as long is not."""

    def calm(served: Served, value: float, from_hour: int, hours: int) -> Served:
        event = served.views["weather"].event // HOUR
        night = (event % 24 >= from_hour) & (event % 24 < from_hour + hours)
        still = _varied(served)
        for name in ("wind", "gust"):
            values = still.views["weather"].features[name].values
            still = _with_feature(still, "weather", name, np.where(night, value, values))
        return still

    learnt = replace(habits(loop.bundle, calm(training, 0.0, 2, 7)), oldest={}, span=100 * DAY)
    spell = learnt.longest["weather", ""]
    assert spell.longest is not None
    assert spell.seldom is not None
    assert spell.seldom < spell.longest
    only = replace(learnt, longest={("weather", ""): spell})
    assert _frozen(loop, only, calm(today, 0.0, 2, 9)) == []
    (finding,) = _frozen(loop, only, calm(today, 11.7, 2, 9))
    assert finding.feature == "weather"


def test_a_source_that_stands_still_grows_too_old(loop: Loop, training: Served, today: Served) -> None:
    """Rows older at the ask than twice the oldest ever: the source itself gave nothing new."""
    learnt = Habits({}, {"weather": 3 * HOUR})
    rows = today.views["weather"]
    old = replace(today, views={**today.views, "weather": replace(rows, event=rows.event - 9 * HOUR)})
    assert _frozen(loop, learnt, today) == []
    (finding,) = _frozen(loop, learnt, old)
    assert (finding.kind, finding.feature) == (Kind.FROZEN, "weather")
    assert "weather" in habits(loop.bundle, training).oldest or "plane" not in habits(loop.bundle, training).oldest


def _winds(served: Served, still: tuple[str, ...] = (), since: int = 0) -> Served:
    """Every source row with a wind of its own, but that of the `still` origins, which stays 11 knots `since` then."""
    event, origin = served.views["weather"].event, served.spine.keys["origin"].values
    moving = (event // MINUTE % 997).astype(np.float64)
    return _with_feature(served, "weather", "wind", np.where(np.isin(origin, still) & (event >= since), 11.0, moving))


def test_a_column_that_stands_still_for_every_key_at_once_is_found(loop: Loop, training: Served, today: Served) -> None:
    """The winds of one airport may be calm for half a day; those of all airports at once never were."""
    longest = {("weather", "wind"): _never_longer_than(12 * HOUR)}
    learnt = replace(habits(loop.bundle, _winds(training)), longest=longest, oldest={}, span=100 * DAY)
    assert _frozen(loop, learnt, _winds(today)) == []
    assert _frozen(loop, learnt, _winds(today, ("JFK",), us(at(9)))) == []
    origin = today.spine.keys["origin"].values
    only = take(today, np.flatnonzero(origin == "JFK"))
    assert _frozen(loop, learnt, _winds(only, ("JFK",), us(at(9)))) == []
    still = _winds(today, ("EWR", "JFK", "LGA"), us(at(9)))
    (finding,) = _frozen(loop, learnt, still)
    assert (finding.kind, finding.feature) == (Kind.FROZEN, "weather__wind")
    assert "for every key at once" in finding.message
    assert _frozen(loop, replace(learnt, still={}), still) == []


# -- uniqueness -------------------------------------------------------------------------------------------------------


def test_an_id_that_was_logged_again_is_found_across_batches_and_within(today: Served) -> None:
    """Every row that repeats an id counts once, wherever the first one lies."""
    check = Uniqueness()
    for rows in ([0, 1, 2, 3], [2, 4, 5, 5], [6, 0, 6, 6]):
        check.add(take(today, np.array(rows)))
    (finding,) = check.findings()
    assert (finding.kind, finding.feature, finding.rows, finding.of) == (Kind.DUPLICATE, "request_id", 5, 12)
    clean = Uniqueness()
    clean.add(today)
    assert clean.findings() == []


def test_a_request_that_was_answered_twice_fails_the_verdict(loop: Loop, tmp_path: Path) -> None:
    """A retry in the log is a finding of its own, and no mismatch."""
    log = loop.play(tmp_path)
    batches = [batch for _, batch in read_log(log, SERVICE).batches()]
    with loop.open_log(log) as more:
        more.append(batches[3])
    verdict = loop.guard(log).verdict
    assert verdict.ruling is Ruling.FAIL
    (finding,) = verdict.findings
    assert (finding.kind, finding.rows, verdict.coverage.mismatched) == (Kind.DUPLICATE, 1, 0)


# -- drift ------------------------------------------------------------------------------------------------------------


def test_what_moved_is_told_quietly_and_decides_nothing(loop: Loop) -> None:
    """Windier asks than the snapshot's are drift: the verdict passes, says so, and advises."""
    clean = loop.guard(loop.clean_log).verdict
    assert clean.ruling is Ruling.PASS
    drift = Drift(loop.snapshot)
    served = loop.pairs().served
    drift.add(_with_request(served, "distance", served.spine.request["distance"].values * 20))
    (shift,) = [one for one in drift.shifts([]) if one.feature == "distance"]
    assert shift.at_least > 0.3
    assert not shift.skewed
    assert "mean" in shift.message
    finding = Finding(Kind.MISMATCH, "distance", 1, 2, "distance: 1 of 2 values differ")
    assert [one.skewed for one in drift.shifts([finding]) if one.feature == "distance"] == [True]


def test_profiles_of_batches_add_up_to_the_same_drift(loop: Loop) -> None:
    """However the log is cut, the same is told."""
    served = loop.pairs().served
    whole, parts = Drift(loop.snapshot), Drift(loop.snapshot)
    whole.add(served)
    for rows in np.array_split(np.arange(len(served.spine)), 7):
        parts.add(take(served, rows))
    assert whole.shifts([]) == parts.shifts([])


# -- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [17, 90])
def test_a_log_in_batches_is_judged_as_in_one(loop: Loop, tmp_path: Path, rows: int) -> None:
    """Counts, hours and rulings do not depend on how much of the log is held at a time."""
    log = loop.play(tmp_path, Fault(stopped=("weather", at(12), at(15))))
    whole, parts = (loop.guard(log, batch_rows=size).verdict for size in (1_000, rows))
    assert parts.ruling is whole.ruling
    for name in ("rows", "equal", "lagged", "mismatched", "unverifiable", "values", "since", "until"):
        assert getattr(parts.coverage, name) == getattr(whole.coverage, name)

    def told(finding: Finding) -> tuple[object, ...]:
        return (
            finding.kind,
            finding.feature,
            finding.rows,
            finding.of,
            finding.message,
            finding.by_hour,
            finding.cause_kind,
        )

    assert [told(one) for one in parts.findings] == [told(one) for one in whole.findings]


# -- keys -------------------------------------------------------------------------------------------------------------


def test_keys_that_a_client_mangles_are_found(loop: Loop, training: Served, today: Served) -> None:
    """A tenth of the origins with a blank in front, which no source knows: told for the view; a few are not."""
    held = asked(loop.bundle, training)

    def found(share: float, origin: Array) -> list[Finding]:
        hit = np.arange(len(today.spine)) % round(1 / share) == 0
        key = today.spine.keys["origin"]
        mangled = Column.build(key.dtype, np.where(hit, origin, key.values), key.status)
        keys = {**today.spine.keys, "origin": mangled}
        rows = today.views["weather"]
        status = np.where(hit, np.uint8(Status.NOT_FOUND), rows.status)
        served = replace(today, spine=replace(today.spine, keys=keys))
        check = Unknown(loop.bundle, held)
        for part in np.array_split(np.arange(1_500), 3):
            views = {**today.views, "weather": replace(rows, status=status)}
            check.add(take(replace(served, views=views), part))
        return check.findings()

    names = today.spine.keys["origin"].values
    blank = np.array([f" {name}" for name in names], dtype=object)
    (finding,) = found(0.1, blank)
    assert (finding.kind, finding.feature, finding.rows, finding.of) == (Kind.CONSTRAINT, "weather", 150, 1_500)
    assert finding.evidence > 10
    assert finding.examples[0].served.startswith("' ")
    assert found(0.01, blank) == []
    assert found(0.1, names) == []  # asked for in the snapshot
    assert asked(loop.bundle, take(training, np.arange(500))).keys == {}


# -- outcomes ---------------------------------------------------------------------------------------------------------


def _outcomes(loop: Loop, folder: Path, flip: Callable[[int], bool] = lambda _: False) -> Path:
    """What became of the clean day's requests: what the model said, but for those that are flipped."""
    served = loop.pairs().served
    assert served.prediction is not None
    late = [(p >= 0.5) != flip(i) for i, p in enumerate(served.prediction.tolist())]
    table = pa.table({"rid": served.spine.ids.tolist(), "late": late, "at": pa.array(served.spine.as_of, pa.int64())})
    stamps = table["at"].cast(pa.timestamp("us", tz="UTC"))
    import_outcomes(table.set_column(2, "at", stamps), folder, id_column="rid", outcome="late", as_of="at")
    return folder


def test_requests_with_an_outcome_that_are_not_in_the_log_are_missing(loop: Loop, tmp_path: Path) -> None:
    """A log that lost every fourth row is incomplete against the outcomes; a whole one is not."""
    folder = _outcomes(loop, tmp_path / "outcomes")
    assert loop.guard(loop.clean_log, outcomes=folder).verdict.ruling is Ruling.PASS
    with loop.open_log(tmp_path / "log") as log:
        for i, (_, batch) in enumerate(read_log(loop.clean_log, SERVICE).batches()):
            if i % 4 or i in (0, 179):
                log.append(batch)
    verdict = loop.guard(tmp_path / "log", outcomes=folder).verdict
    assert verdict.ruling is Ruling.FAIL
    (finding,) = verdict.findings
    assert finding.kind is Kind.INCOMPLETE
    assert finding.rows == 180 - verdict.coverage.rows > 30


def test_answers_that_the_service_counted_are_missing(loop: Loop) -> None:
    """Fewer rows than the service counted is a gap; as many, or more, is none."""
    verdict = loop.guard(loop.clean_log, counted=200).verdict
    assert verdict.ruling is Ruling.FAIL
    assert verdict.findings[0].message == "log: 20 of 200 answers that the service counted are not in the log"
    assert loop.guard(loop.clean_log, counted=180).verdict.ruling is Ruling.PASS
    assert uncounted(5, 4) is None


def _window(count: int, wrong: float, seed: int) -> tuple[Predictions, pa.Table]:
    random = np.random.default_rng(seed)
    outcome = (random.random(count) < 0.4).astype(float)
    says = np.where(random.random(count) < wrong, 1 - outcome, outcome) * 0.6 + 0.2 + random.random(count) * 0.1
    names = np.array([f"{seed}-{i}" for i in range(count)], dtype=object)
    origin = np.array(["JFK", "EWR"], dtype=object)[np.arange(count) % 2]
    rows = Predictions(names, np.arange(count) * MINUTE, says, {"origin": origin})
    return rows, pa.table({"id": names.tolist(), "outcome": outcome})


def test_a_model_that_does_worse_than_in_the_window_before_is_found() -> None:
    """From 94 % to 87 % on 4,000 outcomes each is a finding that says so; 94 % twice is none."""
    before, first = _window(4_000, 0.06, 1)
    now, second = _window(4_000, 0.13, 2)
    findings, told = fell(now, before, pa.concat_tables([first, second]))
    (finding,) = findings
    assert finding.kind is Kind.PERFORMANCE
    assert "accuracy fell from 9" in finding.message
    assert len(told) == 2
    again, third = _window(4_000, 0.06, 3)
    assert fell(again, before, pa.concat_tables([first, third]))[0] == []


def test_outcomes_that_contradict_the_predictions_are_found_and_a_poor_model_is_not() -> None:
    """Outcomes turned over in the last third fail in that stretch; outcomes that nobody could predict do not."""
    rng = np.random.default_rng(3)
    n = 3_000
    prediction = rng.random(n)
    logged = Predictions(np.array([str(i) for i in range(n)], dtype=object), np.arange(n) * MINUTE, prediction, {})

    def became(late: Array) -> pa.Table:
        columns = [pa.array(logged.ids, pa.string()), pa.array(late.astype(float)), pa.array(logged.as_of)]
        return pa.table(
            [*columns[:2], columns[2].cast(pa.timestamp("us", "UTC"))], ["id", "outcome", "event_timestamp"]
        )

    right = rng.random(n) < prediction
    assert contradicted(logged, became(right)) is None
    assert contradicted(logged, became(rng.random(n) < 0.3)) is None
    finding = contradicted(logged, became(np.where(np.arange(n) >= 2_000, ~right, right)))
    assert finding is not None
    assert (finding.kind, finding.feature) == (Kind.CONSTRAINT, "prediction")
    assert contradicted(logged, became(~right * 2.5)) is None  # no classifier's outcomes
    assert contradicted(logged.take(np.arange(50)), became(~right)) is None


def test_a_slice_that_does_worse_is_named() -> None:
    """What falls for one origin only is found there, though the whole hardly moves."""
    before, first = _window(4_000, 0.06, 1)
    now, second = _window(4_000, 0.06, 2)
    jfk = now.by["origin"] == "JFK"
    flipped = replace(now, prediction=np.where(jfk & (np.arange(4_000) % 16 < 3), 1 - now.prediction, now.prediction))
    (finding,), _ = fell(flipped, before, pa.concat_tables([first, second]))
    assert finding.slices[0].startswith("origin JFK: accuracy fell from")


def test_too_few_outcomes_are_told_and_judge_nothing() -> None:
    """Fewer than a hundred outcomes on either side say nothing about a model."""
    before, first = _window(90, 0.0, 1)
    now, second = _window(4_000, 0.9, 2)
    findings, told = fell(now, before, pa.concat_tables([first, second]))
    assert findings == []
    assert told[0].startswith("performance was not judged: 4,000 outcomes of this window and 90 of the one before")


def test_performance_is_what_its_definitions_say() -> None:
    """Accuracy and the area under the curve, ties half, by counting pairs."""
    said, was = np.array([0.9, 0.6, 0.6, 0.2, 0.1]), np.array([1.0, 1.0, 0.0, 1.0, 0.0])
    measured = performance(said, was)
    pairs = [(a > b) + 0.5 * (a == b) for a in said[was == 1] for b in said[was == 0]]
    assert measured.auc == pytest.approx(sum(pairs) / len(pairs))
    assert measured.accuracy == pytest.approx(3 / 5)
    assert np.isnan(performance(said, np.ones(5)).auc)


def test_an_outcome_that_was_imported_again_replaces_the_old_one(tmp_path: Path) -> None:
    """The last import wins, row by row; what is not known yet is left out; a repeated id is refused."""
    import_outcomes(pa.table({"id": ["a", "b"], "outcome": [0, 1]}), tmp_path, id_column="id", outcome="outcome")
    import_outcomes(pa.table({"id": ["b", "c"], "outcome": [0, None]}), tmp_path, id_column="id", outcome="outcome")
    assert dict(zip(*(read_outcomes(tmp_path)[n].to_pylist() for n in ("id", "outcome")), strict=True)) == {
        "a": 0,
        "b": 0,
    }
    with pytest.raises(EvidenceError, match="must name every request once"):
        import_outcomes(pa.table({"id": ["a", "a"], "outcome": [0, 1]}), tmp_path, id_column="id", outcome="outcome")
    with pytest.raises(EvidenceError, match="no column 'late'; there are id, outcome"):
        import_outcomes(pa.table({"id": ["a"], "outcome": [0]}), tmp_path, id_column="id", outcome="late")
    with pytest.raises(EvidenceError, match="expected outcomes, found none"):
        read_outcomes(tmp_path / "nowhere")


def test_outcomes_outside_the_window_are_not_missing() -> None:
    """Only requests asked within the log's window can be missing from it."""
    stamps = pa.array([1 * DAY, 2 * DAY, 3 * DAY], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    table = pa.table({"id": ["a", "b", "c"], "outcome": [1.0, 1.0, 0.0], "event_timestamp": stamps})
    assert missing(np.array(["b"]), 2 * DAY, 2 * DAY, table) is None
    finding = missing(np.array(["b"]), DAY, 2 * DAY, table)
    assert finding is not None
    assert (finding.rows, finding.of, finding.examples[0].request_id) == (1, 2, "a")


# -- the window and benign rates ---------------------------------------------------------------------------------------


def test_only_what_was_asked_since_counts(loop: Loop) -> None:
    """A window leaves the earlier rows alone, and one without a row is UNKNOWN."""
    guarded = loop.guard(loop.clean_log, replace(POLICY, minimum_rows=10), since=at(12))
    asked = {row["id"] for row in loop.asks.to_pylist() if row["event_timestamp"] >= at(12)}
    assert ids(guarded, "equal") | ids(guarded, "lagged") == asked
    verdict = loop.guard(loop.clean_log, since=at(40)).verdict
    assert verdict.ruling is Ruling.UNKNOWN
    assert verdict.reasons[0].startswith("no logged row was asked since 2024-03-05T16:00")


def test_a_benign_rate_is_benign_until_the_evidence_says_otherwise(loop: Loop, tmp_path: Path) -> None:
    """One differing row of 180 under a benign rate of 2 % passes; a third of them does not."""
    bundle = bundle_of(loop.root, seats=Contract(max_lag_us=MINUTE, benign_rate=0.02))
    snapshot = build_snapshot(bundle, asks_between(at(-24), timedelta(hours=4), 20), tmp_path / "snapshot")
    log = loop.play(tmp_path / "log", bundle=bundle, snapshot_id=snapshot.id)
    batches = [batch for _, batch in read_log(log, SERVICE).batches()]
    header = loop.header(bundle_digest=bundle.digest, snapshot_id=snapshot.id)
    for count, expected in ((1, Ruling.PASS), (60, Ruling.FAIL)):
        with ServingLog(tmp_path / str(count), SERVICE, batches[0].schema, header) as copy:
            done = 0
            for batch in batches:
                differs = batch["plane__seats"][0].is_valid and done < count
                done += differs
                copy.append(_roomier(batch, bundle.vector.index("plane__seats")) if differs else batch)
        verdict = guard(tmp_path / str(count), snapshot, POLICY).verdict
        (finding,) = verdict.findings
        assert (finding.feature, finding.rows, finding.benign) == ("plane__seats", count, 0.02)
        assert verdict.ruling is expected


def _roomier(batch: pa.RecordBatch, place: int) -> pa.RecordBatch:
    """A row of one seat more, in the store's answer and in what entered the model."""
    seats = batch["plane__seats"][0].as_py() + 1
    matrix = np.array(batch["vector"].flatten())
    matrix[place] = seats
    for name, values in (("plane__seats", pa.array([seats])), ("vector", pa.array([matrix.tolist()]))):
        at_ = batch.schema.get_field_index(name)
        batch = batch.set_column(at_, batch.schema.field(at_), values.cast(batch.schema.field(at_).type))
    return batch


def test_a_folder_of_outcomes_that_cannot_be_read_is_unknown(loop: Loop, tmp_path: Path) -> None:
    """Outcomes that were asked for and are not there make the verdict UNKNOWN, with the reason."""
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    verdict = loop.guard(loop.clean_log, outcomes=tmp_path).verdict
    assert verdict.ruling is Ruling.UNKNOWN
    assert "outcomes that cannot be read" in verdict.reasons[0]
    pq.write_table(pa.table({"x": [1]}), tmp_path / "bad.parquet")
    assert loop.guard(loop.clean_log, outcomes=tmp_path).verdict.ruling is Ruling.UNKNOWN
