from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewguard.answer import answer, from_table, schema, to_batch
from skewguard.contract import Contract
from skewguard.errors import EvidenceError
from skewguard.offline import OfflineStore, Rule
from skewguard.replay import Age, Pairs, replay
from skewguard.servinglog import ServingLog, read_log
from skewguard.snapshot import build_snapshot
from skewguard.spine import ViewRows, read_spine
from skewguard.values import NO_TIME, Column, Status, same
from tests.loop import MINUTE, SECOND, SERVICE, Fault, Loop, at, bundle_of, us

STALE = Fault(stopped=("weather", at(12), at(15)))


@pytest.fixture(scope="module")
def clean(loop: Loop) -> Pairs:
    """The clean day, replayed."""
    return loop.pairs()


def _log(loop: Loop, root: Path, change: Callable[[dict[str, ViewRows]], None], rows: int = 12, **header: str) -> Path:
    """A log of the truth, but for what `change` does to what the views answered."""
    spine = read_spine(
        loop.asks.slice(0, rows), loop.bundle.keys, {r.name: r.dtype for r in loop.bundle.request}, id_column="id"
    )
    with OfflineStore(loop.bundle.views, threads=1) as offline, loop.open_log(root, **header) as log:
        views = offline.answer(spine)
        change(views)
        log.append(to_batch(loop.bundle, answer(loop.bundle, spine, views, loop.model), schema(loop.bundle)))
    return root


def _nothing(_: dict[str, ViewRows]) -> None:
    pass


# -- the three answers ------------------------------------------------------------------------------------------------


def test_every_logged_row_comes_back_once_in_order_of_time(loop: Loop, clean: Pairs) -> None:
    """Rows of all segments are one sequence, ordered by instant and id, with the header fields of each."""
    assert clean.served.spine.ids.tolist() == loop.asks["id"].to_pylist()
    assert clean.served.spine.as_of.tolist() == [us(t) for t in loop.asks["event_timestamp"].to_pylist()]
    builds = clean.labels["build"]
    assert set(builds.tolist()) == {"A", "B"}
    assert builds[:60].tolist() == ["A"] * 60
    assert builds[60:].tolist() == ["A", "B"] * 60
    assert set(clean.labels["model_digest"].tolist()) == {loop.model.digest}


def test_served_is_what_the_log_says(loop: Loop, clean: Pairs) -> None:
    """What was served is read from the log bit by bit: statuses, vector and prediction included."""
    (_, first), *_ = read_log(loop.clean_log, SERVICE).batches()
    logged = from_table(loop.bundle, pa.table(first))
    row = np.flatnonzero(clean.served.spine.ids == logged.spine.ids[0])
    for name, column in logged.features(loop.bundle).items():
        mine = clean.served.feature(loop.bundle, name).take(row)
        assert (mine.value(0), mine.status[0]) == (column.value(0), column.status[0])
    assert clean.served.vector[row].tobytes() == logged.vector.tobytes()
    assert clean.served.prediction is not None
    assert clean.served.prediction[row] == logged.prediction


def test_truth_is_what_a_snapshot_of_the_same_asks_holds(loop: Loop, clean: Pairs, tmp_path: Path) -> None:
    """A set of labels and a serving log are the same thing: the replayed truth is the snapshot's answer, bit by bit."""
    snapshot = build_snapshot(loop.bundle, loop.asks, tmp_path / "snapshot", id_column="id")
    (frozen,) = snapshot.served()
    for name, column in frozen.features(loop.bundle).items():
        truth = clean.truth.feature(loop.bundle, name)
        assert truth.status.tobytes() == column.status.tobytes()
        assert same(truth, column).all()
    assert clean.truth.vector.tobytes() == frozen.vector.tobytes()


def test_a_lagged_rows_known_answer_is_the_row_it_names(clean: Pairs) -> None:
    """Where an older row was served, `as_known` holds exactly that row's values, and the truth another row's."""
    lagged = np.flatnonzero(clean.age["weather"] == Age.LAGGED)
    assert len(lagged)
    served, known, truth = (side.views["weather"] for side in (clean.served, clean.as_known, clean.truth))
    assert (known.event[lagged] == served.event[lagged]).all()
    assert (known.event[lagged] < truth.event[lagged]).all()
    assert same(known.features["wind"], served.features["wind"]).all()
    assert not same(truth.features["wind"], served.features["wind"])[lagged].all()
    others = clean.age["weather"] == Age.CURRENT
    assert (known.event[others] == truth.event[others]).all()


def test_recomputed_are_the_transforms_on_what_was_logged(clean: Pairs, loop: Loop) -> None:
    """The transforms run again on the logged raw values, request fields included, lagged or not."""
    distance, stops = (clean.served.spine.request[name].values for name in ("distance", "stops"))
    assert clean.recomputed["derived__per_stop"].values.tolist() == (distance / (stops + 1)).tolist()
    for name, column in clean.recomputed.items():
        assert same(column, clean.served.feature(loop.bundle, name)).all()


# -- ages -------------------------------------------------------------------------------------------------------------


def test_ages_tell_current_lagged_and_stale_rows_apart(loop: Loop, tmp_path: Path) -> None:
    """A row is stale from max_lag after the newer one became known, until the writer goes on."""
    pairs = loop.pairs(loop.play(tmp_path, STALE))
    spine, served = pairs.served.spine, pairs.served.views["weather"]
    source = pq.read_table(loop.root / "weather.parquet").to_pylist()
    times = [(row["origin"], us(row["at"]), us(row["known"])) for row in source]

    def newest_at(origin: str, until: int) -> tuple[int, int]:
        return max((event, created) for key, event, created in times if key == origin and created <= until)

    for row, origin in enumerate(spine.keys["origin"].values):
        newest, overdue = (newest_at(origin, spine.as_of[row] - delay) for delay in (0, MINUTE + 1))
        got = (served.event[row], served.created[row])
        expected = Age.CURRENT if got == newest else Age.LAGGED if got >= overdue else Age.STALE
        assert pairs.age["weather"][row] == expected
        assert pairs.lag_us["weather"][row] == (newest[0] - got[0] if got[0] != NO_TIME else 0)
    assert {Age.CURRENT, Age.LAGGED, Age.STALE} == set(pairs.age["weather"].tolist())
    assert set(pairs.age["plane"].tolist()) <= {Age.CURRENT, Age.LAGGED}


def _named(views: dict[str, ViewRows], view: str, event: int, created: int) -> None:
    """The view named this row."""
    rows = views[view]
    n = len(rows.status)
    views[view] = replace(rows, event=np.full(n, event), created=np.full(n, created))


@pytest.mark.parametrize(
    ("event", "created", "age"),
    [
        (us(at(5)), us(at(5)) + 20 * MINUTE + 10 * SECOND, Age.CURRENT),
        (us(at(4)), us(at(4)) + 20 * MINUTE + 10 * SECOND, Age.STALE),
        (us(at(4)), us(at(4)) + 1, Age.UNHEARD),
        (us(at(5)), us(at(4)), Age.UNHEARD),
        (us(at(6)), us(at(6)) + 20 * MINUTE + 10 * SECOND, Age.LEAK),
        (us(at(5)), us(at(6)) + 18 * SECOND, Age.LEAK),
        (us(at(6)) + 18 * SECOND, NO_TIME, Age.LEAK),
        (NO_TIME, NO_TIME, Age.CURRENT),
    ],
)
def test_the_age_follows_from_the_row_that_was_named(
    loop: Loop, tmp_path: Path, event: int, created: int, age: Age
) -> None:
    """By its event and created time a row is current, too old, unknown to the source, or known too early; a value
    without any time is the row that holds it."""
    pairs = loop.pairs(_log(loop, tmp_path, lambda views: _named(views, "weather", event, created), rows=1))
    assert pairs.served.spine.as_of.tolist() == [us(at(6)) + 17 * SECOND]
    assert pairs.age["weather"].tolist() == [age]


def test_a_correction_is_the_truth_from_when_it_came(clean: Pairs) -> None:
    """Of one observation two versions were known in turn: each is the truth of its time, and was served so."""
    spine, truth = clean.served.spine, clean.truth.views["weather"]
    rows = (spine.keys["origin"].values == "JFK") & (truth.event == us(at(8)))
    corrected = rows & (spine.as_of >= us(at(8)) + 35 * MINUTE)
    assert corrected.any()
    assert (rows & ~corrected).any()
    for side in (clean.truth, clean.served):
        wind = side.views["weather"].features["wind"].values
        assert set(wind[corrected & (clean.age["weather"] == Age.CURRENT)].tolist()) == {21.3}
        assert 21.3 not in wind[rows & ~corrected]


def test_a_store_error_is_unanswered(loop: Loop, tmp_path: Path) -> None:
    """A view whose store gave an error has no age but that."""

    def failed(views: dict[str, ViewRows]) -> None:
        rows = views["plane"]
        n = len(rows.status)
        nothing = np.full(n, NO_TIME)
        features = {name: Column.absent(c.dtype, n, Status.ERROR) for name, c in rows.features.items()}
        views["plane"] = ViewRows(np.full(n, Status.ERROR, np.uint8), nothing, nothing, nothing, features)

    pairs = loop.pairs(_log(loop, tmp_path, failed))
    assert set(pairs.age["plane"].tolist()) == {Age.UNANSWERED}
    assert set(pairs.age["weather"].tolist()) == {Age.CURRENT}


def test_the_rule_of_the_join_is_the_truths(loop: Loop) -> None:
    """Under Feast's rule the truth takes rows before they were known, so what was served honestly shows as stale."""
    with OfflineStore(loop.bundle.views, Rule.FEAST) as offline:
        pairs = replay(read_log(loop.clean_log, SERVICE), loop.snapshot, offline)
    truth = pairs.truth.views["weather"]
    early = np.maximum(truth.event, truth.created) > pairs.served.spine.as_of
    assert early.any()
    assert set(pairs.age["weather"][early].tolist()) <= {Age.LAGGED, Age.STALE}
    assert (pairs.age["weather"] == Age.STALE).any()


# -- what cannot be replayed -------------------------------------------------------------------------------------------


def test_an_empty_log_is_no_evidence(loop: Loop, tmp_path: Path) -> None:
    """A log without rows raises, naming its folder."""
    loop.open_log(tmp_path).close()
    with pytest.raises(
        EvidenceError, match=r"^the log at .* holds no row: nothing was served, or it was written elsew"
    ):
        loop.pairs(tmp_path)


def test_other_definitions_are_no_evidence(loop: Loop, tmp_path: Path) -> None:
    """Rows that were served under another bundle raise, with their number and both digests."""
    other = bundle_of(loop.root, wind=Contract(max_lag_us=2 * MINUTE))
    log = loop.play(tmp_path, bundle=other, asks=loop.asks.slice(0, 3))
    expected = (
        f"^3 of 3 logged rows .* other definitions .{other.digest[:12]}. than the snapshot's .{loop.bundle.digest[:12]}"
    )
    with pytest.raises(EvidenceError, match=expected):
        loop.pairs(log)


def test_a_models_digest_keeps_its_rows_and_no_others(loop: Loop, tmp_path: Path) -> None:
    """Of a log that two models answered, one's rows are replayed; a model without a row raises."""
    _log(loop, tmp_path, _nothing, rows=5, model_digest="a" * 64, model_id="m-a")
    _log(loop, tmp_path, _nothing, rows=9)
    assert len(loop.pairs(tmp_path)) == 14
    mine = loop.pairs(tmp_path, model_digest="a" * 64)
    assert len(mine) == 5
    assert set(mine.labels["model_id"].tolist()) == {"m-a"}
    with pytest.raises(EvidenceError, match="no logged row was answered by the model with digest bbbbbbbbbbbb"):
        loop.pairs(tmp_path, model_digest="b" * 64)


def test_floats_may_differ_in_the_last_places_between_numeric_classes_only(loop: Loop, tmp_path: Path) -> None:
    """Where every row was served on this numeric class equality is exact; with another one 4 ulp are allowed."""
    assert loop.pairs().ulps == 0
    _log(loop, tmp_path, _nothing, rows=3)
    assert loop.pairs(tmp_path).ulps == 0
    _log(loop, tmp_path, _nothing, rows=3, numeric_class="numpy-1.0/other")
    assert loop.pairs(tmp_path).ulps == 4


def test_header_fields_that_a_writer_left_out_are_empty(loop: Loop, tmp_path: Path) -> None:
    """A segment that does not say which build wrote it has an empty label, not None."""
    _log(loop, tmp_path, _nothing, rows=2)
    header = {name: value for name, value in loop.header().items() if name != "build"}
    with ServingLog(tmp_path, SERVICE, schema(loop.bundle), header) as log:
        (_, batch), *_ = read_log(loop.clean_log, SERVICE).batches()
        log.append(batch)
    assert sorted(loop.pairs(tmp_path).labels["build"].tolist()) == ["", "A", "A"]
