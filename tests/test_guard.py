import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from skewguard.answer import answer, schema, to_batch
from skewguard.contract import Contract
from skewguard.definitions import Bundle
from skewguard.errors import EvidenceError
from skewguard.findings import DOUBTS, Finding, Kind, Tap
from skewguard.offline import OfflineStore, Rule
from skewguard.online import Layout, OnlineStore
from skewguard.online.keys import row_key
from skewguard.online.layout import unpack
from skewguard.servinglog import ServingLog, read_log
from skewguard.snapshot import build_snapshot, load_snapshot
from skewguard.spine import Spine, ViewRows, read_spine
from skewguard.values import NO_TIME, Array, Column, Mask, Status
from skewguard.verdict import Ruling, load_findings
from skewguard.workflows.guard import Guarded, guard
from tests.loop import (
    HOUR,
    MINUTE,
    POLICY,
    PROJECT,
    SERVICE,
    Fault,
    Loop,
    Store,
    asks_between,
    at,
    bundle_of,
    changed,
    ids,
    never_expiring,
    other_code,
    us,
)

KMH = 1.609344


# -- clean ------------------------------------------------------------------------------------------------------------


def test_clean_traffic_passes_without_a_mismatch(loop: Loop) -> None:
    """A day on which nothing went wrong is PASS: every row is equal or legitimately lagged, and some are lagged."""
    verdict = loop.guard(loop.clean_log, cross_check=60).verdict
    seen = verdict.coverage
    assert (verdict.ruling, seen.rows, seen.mismatched, seen.unverifiable) == (Ruling.PASS, 180, 0, 0)
    assert seen.equal + seen.lagged == 180
    assert seen.lagged > 0
    assert seen.cross_checked == 60
    assert verdict.findings == ()


def test_a_row_that_lags_within_max_lag_is_lagged_and_no_other(clean: Guarded) -> None:
    """Lagged are exactly the rows asked for between a row's becoming known and the writer's next full minute."""
    assert clean.pairs is not None
    asks = clean.pairs.served.spine
    since = (asks.as_of - us(at(0)) - 20 * MINUTE - 10_000_000) % HOUR  # known at :20:10, read by the writer of :21
    observed = (asks.keys["origin"].values != "LGA") | (asks.as_of > us(at(12)))
    assert ids(clean, "lagged") == set(asks.ids[(since < 50_000_000) & observed].tolist())


def test_the_verdict_names_what_it_rests_on(loop: Loop, clean: Guarded) -> None:
    """The subject holds model, digests, service, builds and the kind of evidence, as they were logged."""
    subject = clean.verdict.subject
    assert (subject.model_id, subject.model_digest) == (loop.model.model_id, loop.model.digest)
    assert (subject.snapshot_id, subject.bundle_digest) == (loop.snapshot.id, loop.bundle.digest)
    assert (subject.service, subject.evidence, subject.builds) == (SERVICE, "shadow", ("A", "B"))
    assert subject.registered_name == "delay-model"


# -- faults -----------------------------------------------------------------------------------------------------------


def _in(view: str, feature: str, change: Callable[[Array], Array]) -> Fault:
    """Build B reads a feature whose values are changed."""

    def column(old: Column) -> Column:
        return Column.build(old.dtype, change(old.values), old.status)

    return Fault(store=lambda store, bundle: Store(store, changed(bundle.view(view), feature, column)))


def _filled(column: Column) -> Column:
    return Column.build(column.dtype, np.where(column.present, column.values, 0.0), np.zeros(len(column), np.uint8))


def _redirected(view: str, old: str, new: str) -> Fault:
    """Build B looks up another key."""

    def wrap(store: OnlineStore, bundle: Bundle) -> OnlineStore:
        keys = [row_key(PROJECT, bundle.view(view), (one,)) for one in (old, new)]
        return Store(store, look=lambda key: keys[1] if key == keys[0] else key)

    return Fault(store=wrap)


def _losing(tail: str, event: datetime) -> Fault:
    """One row of one plane is never written."""

    def wrap(store: OnlineStore, bundle: Bundle) -> OnlineStore:
        view = bundle.view("plane")
        lost = row_key(PROJECT, view, (tail,))
        return Store(store, write=lambda key, row: key != lost or unpack(Layout.of(view), [row]).event[0] != us(event))

    return Fault(writer=wrap)


def _swapped(batch: pa.RecordBatch) -> pa.RecordBatch:
    """What a server writes whose model was given two columns in each other's place."""
    at = batch.schema.names.index("vector")
    width = batch.schema.field("vector").type.list_size
    matrix = np.array(batch["vector"].flatten()).reshape(len(batch), width)
    matrix[:, [2, 3]] = matrix[:, [3, 2]]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), type=batch.schema.field("vector").type)
    return batch.set_column(at, batch.schema.field("vector"), vectors)


FAULTS: dict[str, tuple[Fault, Kind, str, Tap, str]] = {
    # what goes wrong, and the finding's kind, feature, tap and cause
    "a unit": (_in("weather", "wind", lambda v: v * KMH), Kind.MISMATCH, "weather__wind", Tap.STORE, "unit"),
    "a narrowing": (
        _in("weather", "wind", lambda v: v.astype(np.float32).astype(np.float64)),
        Kind.MISMATCH, "weather__wind", Tap.STORE, "float32",
    ),
    "an int off by one": (_in("plane", "seats", lambda v: v + 1), Kind.MISMATCH, "plane__seats", Tap.STORE, "unit"),
    "a string's case": (
        _in("plane", "maker", lambda v: np.array([x.lower() for x in v], dtype=object)),
        Kind.MISMATCH, "plane__maker", Tap.STORE, "text",
    ),
    "null as 0": (
        Fault(store=lambda store, bundle: Store(store, changed(bundle.view("weather"), "gust", _filled))),
        Kind.MISMATCH, "weather__gust", Tap.STORE, "null_fill",
    ),
    "no TTL": (Fault(runs=never_expiring), Kind.MISMATCH, "weather__wind", Tap.STORE, "ttl"),
    "another key's row of the same hour": (
        _redirected("weather", "JFK", "EWR"),
        Kind.MISMATCH, "weather__wind", Tap.STORE, "other_key",
    ),
    "another key's row": (
        _redirected("plane", "N4", "N3"),
        Kind.MISMATCH, "plane", Tap.STORE, "other_key",
    ),
    "another key's row for nobody": (
        _redirected("plane", "N10", "N3"),
        Kind.MISMATCH, "plane", Tap.STORE, "other_key",
    ),
    "a lost write": (
        _losing("N3", at(10)), Kind.STALE, "plane", Tap.STORE, "lost_write",
    ),
    "a lost first write": (
        _losing("N9", at(12)), Kind.STALE, "plane", Tap.STORE, "lost_write",
    ),
    "a writer that stands still": (
        Fault(stopped=("weather", at(12), at(15))), Kind.STALE, "weather", Tap.STORE, "stale"
    ),
    "rows before they were known": (Fault(ahead_us=15 * MINUTE), Kind.LEAK, "weather", Tap.STORE, "leak"),
    "rows of the future": (Fault(ahead_us=2 * HOUR), Kind.LEAK, "weather", Tap.STORE, "future"),
    "other code": (Fault(runs=other_code), Kind.MISMATCH, "derived__gust_ratio", Tap.TRANSFORM, "other_code"),
    "swapped columns": (Fault(log=_swapped), Kind.MISMATCH, "weather__wind", Tap.MODEL_INPUT, "feature_order"),
}  # fmt: skip


@dataclass(frozen=True)
class Spoiled:
    """A day with a fault, judged with a cross-check; and the finding that it must lead to."""

    log: Path
    guarded: Guarded
    kind: Kind
    feature: str
    tap: Tap
    cause: str


@pytest.fixture(params=FAULTS, scope="module")
def spoiled(request: pytest.FixtureRequest, loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Spoiled:
    """One day per fault."""
    fault, kind, feature, tap, cause = FAULTS[request.param]
    log = loop.play(tmp_path_factory.mktemp("fault"), fault)
    return Spoiled(log, loop.guard(log, cross_check=40), kind, feature, tap, cause)


@pytest.fixture(scope="module")
def clean(loop: Loop) -> Guarded:
    """The day without a fault, judged."""
    return loop.guard(loop.clean_log, model_digest=loop.model.digest)


def test_every_fault_fails_and_is_told_by_feature_tap_and_cause(spoiled: Spoiled) -> None:
    """A fault in the online store, the writer, the server's code or the model's input is FAIL, named as what it is."""
    verdict = spoiled.guarded.verdict
    assert verdict.ruling is Ruling.FAIL
    (finding,) = [one for one in verdict.findings if one.feature == spoiled.feature]
    assert (finding.kind, finding.tap, finding.cause_kind) == (spoiled.kind, spoiled.tap, spoiled.cause)
    assert finding.message in verdict.reasons
    own = {spoiled.feature.partition("__")[0], *(("plane",) if spoiled.kind is Kind.LEAK else ())}
    assert {one.feature.partition("__")[0] for one in verdict.findings} <= own


def test_no_row_that_a_fault_touched_is_called_equal_or_lagged(loop: Loop, spoiled: Spoiled, clean: Guarded) -> None:
    """The mismatched rows are those in which something else was served than on the clean day, and no others."""
    touched = loop.touched(spoiled.log)
    if spoiled.kind is Kind.LEAK:  # a writer that is ahead also serves what the clean day's had not yet written
        touched -= ids(clean, "lagged") & _right(spoiled.guarded)
    assert touched
    assert ids(spoiled.guarded, "mismatched") == touched
    assert ids(spoiled.guarded, "lagged") <= ids(clean, "lagged")


def _right(guarded: Guarded) -> set[str]:
    """The rows in which every view answered with the very row that training would have taken."""
    assert guarded.pairs is not None
    right = np.ones(len(guarded.pairs), dtype=bool)
    for view, truth in guarded.pairs.truth.views.items():
        got = guarded.pairs.served.views[view]
        right &= (got.event == truth.event) & (got.created == truth.created) & (got.status == truth.status)
    return set(guarded.pairs.served.spine.ids[right].tolist())


def test_the_cross_check_agrees_whatever_was_served(spoiled: Spoiled) -> None:
    """The independent oracle finds the truth that the join finds."""
    verdict = spoiled.guarded.verdict
    assert verdict.coverage.cross_checked == 40
    assert [one for one in verdict.findings if one.kind is Kind.ORACLE] == []


def test_a_guard_whose_comparison_finds_nothing_lets_a_skewed_log_pass(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the comparison that refuses: with an equality that is always true the skewed log passes, else it fails."""
    log = loop.play(tmp_path, _in("weather", "wind", lambda v: v * KMH))
    assert loop.guard(log).verdict.ruling is Ruling.FAIL

    def always(a: Column, _: Column, **__: float) -> Mask:
        return np.ones(len(a), dtype=bool)

    monkeypatch.setattr("skewguard.compare.rows.same", always)
    assert loop.guard(log).verdict.ruling is Ruling.PASS


# -- at the edge of max_lag -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("late_us", "ruling"), [(-1, "lagged"), (0, "lagged"), (1, "mismatched")])
def test_max_lag_is_inclusive_to_the_microsecond(loop: Loop, tmp_path: Path, late_us: int, ruling: str) -> None:
    """A newer row known exactly max_lag before the request may be missing; known one microsecond longer it may not."""
    known = at(10) + timedelta(minutes=20, seconds=10)
    edge = known + timedelta(microseconds=loop.bundle.view("weather").max_lag_us + late_us)
    asks = _asks(loop, [at(10) + timedelta(minutes=15), edge], origin="JFK")
    stopped = Fault(stopped=("weather", at(10) + timedelta(minutes=18), at(12)))
    guarded = loop.guard(loop.play(tmp_path, stopped, asks=asks))
    assert ids(guarded, ruling) == {"r001"}
    assert ids(guarded, "equal") == {"r000"}


def _asks(loop: Loop, instants: list[datetime], **fields: str) -> pa.Table:
    """Asks of today at these instants."""
    table = loop.asks.slice(0, len(instants))
    for name, values in {"event_timestamp": instants, **{n: [v] * len(instants) for n, v in fields.items()}}.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    return table


# -- evidence that does not suffice ------------------------------------------------------------------------------------


def test_a_source_without_created_time_leaves_old_rows_unverifiable(loop: Loop, tmp_path: Path) -> None:
    """Only a late arrival could explain an old row of such a source: unverifiable, UNKNOWN by policy, never lagged."""
    views = tuple(
        replace(view, source=replace(view.source, created=None)) if view.name == "weather" else view
        for view in loop.bundle.views
    )
    bundle = replace(loop.bundle, views=views)
    asks = asks_between(at(-24), timedelta(hours=4), 20)
    snapshot = build_snapshot(bundle, asks, tmp_path / "snapshot", labels=["late"], id_column="id")
    stopped = Fault(stopped=("weather", at(12), at(15)))
    for name, fault, expected in (("clean", None, Ruling.PASS), ("stopped", stopped, Ruling.UNKNOWN)):
        log = loop.play(tmp_path / name, fault, bundle=bundle, snapshot_id=snapshot.id)
        guarded = guard(log, snapshot, POLICY)
        assert guarded.verdict.ruling is expected
        assert bool(ids(guarded, "unverifiable")) is (fault is not None)
        assert ids(guarded, "mismatched") == set()
    assert "are unverifiable, the policy allows 0.00%" in guarded.verdict.reasons[0]
    tolerant = guard(log, snapshot, replace(POLICY, maximum_unverifiable=0.5)).verdict
    assert tolerant.ruling is Ruling.PASS


def test_rows_in_which_the_store_did_not_answer_are_unverifiable(loop: Loop, tmp_path: Path) -> None:
    """A logged store error is no agreement: UNKNOWN, although nothing differs."""
    _log_by_hand(loop, tmp_path, lambda rows: _without(rows, Status.ERROR))
    guarded = loop.guard(tmp_path)
    assert len(ids(guarded, "unverifiable")) == 180
    assert guarded.verdict.ruling is Ruling.UNKNOWN


def test_a_row_that_was_served_as_not_found_is_a_mismatch(loop: Loop, tmp_path: Path) -> None:
    """Absent on one side is not agreement: a view that found nothing where training finds a row is FAIL."""
    _log_by_hand(loop, tmp_path, lambda rows: _without(rows, Status.NOT_FOUND))
    guarded = loop.guard(tmp_path)
    assert guarded.verdict.ruling is Ruling.FAIL
    present = {row["id"] for row in loop.asks.to_pylist() if row["tail"] not in (None, "N10", "N9")}
    assert ids(guarded, "mismatched") >= present


def _without(rows: ViewRows, status: Status) -> ViewRows:
    n = len(rows.status)
    nothing = np.full(n, NO_TIME, dtype=np.int64)
    features = {name: Column.absent(column.dtype, n, status) for name, column in rows.features.items()}
    return ViewRows(np.full(n, status, dtype=np.uint8), nothing, nothing, rows.watermark, features)


def _log_by_hand(loop: Loop, root: Path, plane: Callable[[ViewRows], ViewRows]) -> None:
    """A log as somebody's own service may write it: the truth, but for one view."""
    spine = read_spine(loop.asks, loop.bundle.keys, {r.name: r.dtype for r in loop.bundle.request}, id_column="id")
    with OfflineStore(loop.bundle.views) as offline, loop.open_log(root) as log:
        views = offline.answer(spine)
        served = answer(loop.bundle, spine, views | {"plane": plane(views["plane"])}, loop.model)
        log.append(to_batch(loop.bundle, served, schema(loop.bundle)))


def test_an_empty_log_is_unknown(loop: Loop, tmp_path: Path) -> None:
    """A service that has logged nothing yet is UNKNOWN with that reason, and claims no kind of evidence."""
    loop.open_log(tmp_path).close()
    guarded = loop.guard(tmp_path)
    assert guarded.verdict.ruling is Ruling.UNKNOWN
    assert "holds no row: nothing was served" in guarded.verdict.reasons[0]
    assert guarded.verdict.subject.evidence == "none"
    assert guarded.pairs is None


def test_a_log_that_is_not_there_is_unknown(loop: Loop, tmp_path: Path) -> None:
    """A missing folder, and a log of another service, are UNKNOWN and never an exception."""
    missing = loop.guard(tmp_path / "nowhere").verdict
    with ServingLog(tmp_path, "another", schema(loop.bundle), loop.header()) as log:
        log.append(_one_row(loop))
    for verdict in (missing, loop.guard(tmp_path).verdict):
        assert verdict.ruling is Ruling.UNKNOWN
        assert "expected the folder of a serving log, found none" in verdict.reasons[0]


def test_rows_of_another_service_under_our_name_are_unknown(loop: Loop, tmp_path: Path) -> None:
    """A folder that was renamed does not make another service's rows ours: its segments say whose they are."""
    with ServingLog(tmp_path, "another", schema(loop.bundle), loop.header()) as log:
        log.append(_one_row(loop))
    (tmp_path / "another").rename(tmp_path / SERVICE)
    verdict = loop.guard(tmp_path).verdict
    assert verdict.ruling is Ruling.UNKNOWN
    assert f"holds rows of service another, not {SERVICE}" in verdict.reasons[0]


def test_a_log_whose_only_segment_is_damaged_says_so(loop: Loop, tmp_path: Path) -> None:
    """Bytes that nobody can read are no empty log."""
    with ServingLog(tmp_path, SERVICE, schema(loop.bundle), loop.header()) as log:
        log.append(_one_row(loop))
    (segment,) = (tmp_path / SERVICE).glob("*.seg")
    segment.write_bytes(segment.read_bytes()[:-20])
    verdict = loop.guard(tmp_path).verdict
    assert verdict.ruling is Ruling.UNKNOWN
    assert f"{segment.name} is damaged" in verdict.reasons[0]


def test_a_snapshot_that_lost_a_column_is_unknown(loop: Loop, tmp_path: Path) -> None:
    """Rows that lack a column are named, and no exception."""
    shutil.copytree(loop.snapshot.path, tmp_path / "snapshot")
    rows = tmp_path / "snapshot" / "rows.parquet"
    pq.write_table(pq.read_table(rows).drop_columns(["weather__wind"]), rows)
    verdict = guard(loop.clean_log, load_snapshot(tmp_path / "snapshot"), POLICY).verdict
    assert verdict.ruling is Ruling.UNKNOWN
    assert "rows.parquet is torn" in verdict.reasons[0]


def test_a_snapshot_without_a_profile_says_that_drift_was_not_looked_at(loop: Loop, tmp_path: Path) -> None:
    """What is not looked at stands in the coverage, so that silence is no calm."""
    shutil.copytree(loop.snapshot.path, tmp_path / "snapshot")
    (tmp_path / "snapshot" / "profile.json").unlink()
    verdict = guard(loop.clean_log, load_snapshot(tmp_path / "snapshot"), POLICY).verdict
    assert verdict.ruling is Ruling.PASS
    assert any("whether the inputs moved" in line for line in verdict.coverage.blind)


def test_findings_that_are_no_list_are_refused(tmp_path: Path) -> None:
    """An empty object is no list without findings."""
    (tmp_path / "f.json").write_text("{}")
    with pytest.raises(EvidenceError, match="expected a JSON list of findings, got a dict"):
        load_findings(tmp_path / "f.json")


def _one_row(loop: Loop) -> pa.RecordBatch:
    _, batch = next(read_log(loop.clean_log, SERVICE).batches())
    return batch


def test_rows_that_another_model_answered_are_no_evidence(loop: Loop) -> None:
    """With a model's digest only its rows count; without any the verdict is UNKNOWN and says so."""
    verdict = loop.guard(loop.clean_log, model_digest="f" * 64, model_id="m-9").verdict
    assert verdict.ruling is Ruling.UNKNOWN
    assert verdict.reasons[0] == f"no logged row was answered by the model with digest {'f' * 12}"
    assert (verdict.subject.model_id, verdict.subject.model_digest) == ("m-9", "f" * 64)


def test_rows_that_were_served_under_other_definitions_are_unknown(loop: Loop, tmp_path: Path) -> None:
    """A log of another bundle cannot be held against the snapshot, not even in part."""
    other = bundle_of(loop.root, wind=Contract(max_lag_us=MINUTE, unit="mph"))
    log = loop.play(tmp_path, bundle=other, asks=loop.asks.slice(0, 120))
    with loop.open_log(log) as more:
        more.append(_one_row(loop))
    verdict = loop.guard(log).verdict
    assert verdict.ruling is Ruling.UNKNOWN
    assert verdict.reasons[0].startswith("120 of 121 logged rows were served under other definitions (")


def test_rows_of_a_model_that_was_trained_on_another_snapshot_are_unknown(loop: Loop, tmp_path: Path) -> None:
    """Evidence is held against the snapshot that the model was trained on, and against no other."""
    with loop.open_log(tmp_path, snapshot_id="0" * 64) as log:
        log.append(_one_row(loop))
    verdict = loop.guard(tmp_path).verdict
    assert verdict.ruling is Ruling.UNKNOWN
    assert verdict.reasons[0].startswith("the model that answered was trained on snapshot 000000000000, not ")


def test_predictions_are_computed_again_where_the_model_is_given(loop: Loop, tmp_path: Path) -> None:
    """A prediction that the model does not give for the logged vector is FAIL; rows of features alone have none."""

    def shifted(batch: pa.RecordBatch) -> pa.RecordBatch:
        place = batch.schema.get_field_index("prediction")
        return batch.set_column(place, "prediction", pc.add(batch["prediction"], 0.25))

    def withheld(batch: pa.RecordBatch) -> pa.RecordBatch:
        place = batch.schema.get_field_index("prediction")
        return batch.set_column(place, "prediction", pa.nulls(batch.num_rows, pa.float64()))

    assert loop.guard(loop.clean_log, model=loop.model).verdict.ruling is Ruling.PASS
    assert loop.guard(loop.play(tmp_path / "features", Fault(log=withheld)), model=loop.model).verdict.findings == ()
    log = loop.play(tmp_path / "shifted", Fault(log=shifted))
    assert loop.guard(log).verdict.ruling is Ruling.PASS
    verdict = loop.guard(log, model=loop.model).verdict
    assert verdict.ruling is Ruling.FAIL
    (finding,) = verdict.findings
    assert (finding.kind, finding.feature, finding.tap, finding.rows) == (
        Kind.MISMATCH, "prediction", Tap.PREDICTION, 60,
    )  # fmt: skip
    assert finding.slices == ("only build B", "since 2024-03-04T10:04Z")


def test_rows_without_a_name_for_their_definitions_are_unknown(loop: Loop, tmp_path: Path) -> None:
    """A writer that does not say under which definitions it served gives no evidence, and no exception."""
    for header in (loop.header(), {"build": "own"}):
        with ServingLog(tmp_path, SERVICE, schema(loop.bundle), header) as log:
            log.append(_one_row(loop))
    verdict = loop.guard(tmp_path).verdict
    assert verdict.ruling is Ruling.UNKNOWN
    assert "1 of 2 logged rows were served under other definitions" in verdict.reasons[0]


def test_sources_that_are_gone_are_unknown(loop: Loop, tmp_path: Path) -> None:
    """Without the sources there is no truth: UNKNOWN, naming file and view."""
    moved = replace(loop.snapshot, bundle=loop.bundle.with_sources(tmp_path))
    views = tuple(
        replace(view, source=replace(view.source, path=str(tmp_path / f"{view.name}.parquet")))
        for view in loop.bundle.views
    )
    moved = replace(loop.snapshot, bundle=replace(loop.bundle, views=views))
    verdict = guard(loop.clean_log, moved, POLICY).verdict
    assert verdict.ruling is Ruling.UNKNOWN
    assert "plane.parquet (view plane)" in verdict.reasons[0]


def test_a_source_whose_values_no_longer_fit_is_unknown(loop: Loop, tmp_path: Path) -> None:
    """A source that was rewritten with values beyond the declared dtype is UNKNOWN, naming the value."""
    table = pq.read_table(loop.root / "plane.parquet")
    at = table.schema.get_field_index("seats")
    pq.write_table(table.set_column(at, "seats", pa.array([1.5] * len(table))), tmp_path / "plane.parquet")
    plane, weather = loop.bundle.views
    plane = replace(plane, source=replace(plane.source, path=str(tmp_path / "plane.parquet")))
    moved = replace(loop.snapshot, bundle=replace(loop.bundle, views=(plane, weather)))
    verdict = guard(loop.clean_log, moved, POLICY).verdict
    assert verdict.ruling is Ruling.UNKNOWN
    assert "1.5 does not fit int64 without loss" in verdict.reasons[0]


def test_a_damaged_segment_is_unknown_and_a_torn_tail_is_not(loop: Loop, tmp_path: Path) -> None:
    """Bytes behind a sealed segment mean that acknowledged rows may be lost: UNKNOWN. A killed append does not."""
    log = loop.play(tmp_path)
    sealed = min((log / SERVICE).glob("*.seg"))
    torn = sealed.with_suffix(".open")
    sealed.rename(torn)
    with torn.open("ab") as file:
        file.write(b"\x9eSKW half a frame")
    assert loop.guard(log).verdict.ruling is Ruling.PASS
    torn.rename(sealed)
    verdict = loop.guard(log).verdict
    assert verdict.ruling is Ruling.UNKNOWN
    assert verdict.reasons == (f"{sealed.name} is damaged (17 bytes are no whole frame): logged rows may be lost",)


def test_findings_of_others_are_judged_with_the_rest(loop: Loop) -> None:
    """A failed expectation fails the verdict although no served row differs, also where nothing could be replayed."""
    failed = Finding(Kind.EXPECTATION, "plane__seats", 3, 10, "plane.seats: 3 of 10 rows are null")
    for log in (loop.clean_log, loop.root / "nowhere"):
        verdict = loop.guard(log, extra=[failed]).verdict
        assert verdict.ruling is Ruling.FAIL
        assert [one for one in verdict.findings if one.kind not in DOUBTS] == [failed]


def test_a_broken_contract_is_a_finding_and_no_mismatch(loop: Loop, tmp_path: Path) -> None:
    """A value that breaks its contract on both sides fails the verdict, but nothing was served wrongly."""
    bundle = bundle_of(loop.root, seats=Contract(max_lag_us=MINUTE, maximum=105.0))
    snapshot = build_snapshot(bundle, asks_between(at(-24), timedelta(hours=4), 20), tmp_path / "snapshot")
    guarded = guard(loop.play(tmp_path, bundle=bundle, snapshot_id=snapshot.id), snapshot, POLICY)
    assert guarded.verdict.ruling is Ruling.FAIL
    (finding,) = guarded.verdict.findings
    assert (finding.kind, finding.feature) == (Kind.CONTRACT, "plane__seats")
    assert guarded.verdict.coverage.mismatched == 0


def test_the_rule_of_the_snapshot_is_the_guards(loop: Loop) -> None:
    """A model that was trained by Feast's rule saw rows before they were known: serving honestly is skew, and FAIL."""
    leaky = replace(loop.snapshot, manifest=replace(loop.snapshot.manifest, rule=Rule.FEAST))
    verdict = guard(loop.clean_log, leaky, POLICY, cross_check=50).verdict
    assert verdict.ruling is Ruling.FAIL
    assert {one.kind for one in verdict.findings} == {Kind.STALE}


# -- the witness -------------------------------------------------------------------------------------------------------


def test_a_broken_join_is_caught_by_the_oracle(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A join that forgets the newest rows is told by the cross-check, as a finding about the join itself."""
    right = OfflineStore.answer

    def forgetful(store: OfflineStore, spine: Spine) -> dict[str, ViewRows]:
        return right(store, replace(spine, as_of=spine.as_of - 2 * HOUR))

    monkeypatch.setattr(OfflineStore, "answer", forgetful)
    verdict = loop.guard(loop.clean_log, cross_check=50).verdict
    assert verdict.ruling is Ruling.FAIL
    (finding,) = [one for one in verdict.findings if (one.kind, one.feature) == (Kind.ORACLE, "weather")]
    assert finding.of == verdict.coverage.cross_checked == 50
    assert finding.message == f"weather: the join and the oracle disagree on {finding.rows} of 50 rows"
    assert finding.message in verdict.reasons


def test_a_join_and_a_writer_that_are_wrong_alike_do_not_pass(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the online writer stands on the same broken reading nothing differs, and only the oracle refuses."""

    def doubled(rows: ViewRows) -> ViewRows:
        wind = rows.features["wind"]
        twice = Column.build(wind.dtype, wind.values * 2, wind.status)
        return replace(rows, features={**rows.features, "wind": twice})

    right = {name: getattr(OfflineStore, name) for name in ("answer", "rows", "latest", "changes")}

    def answer_twice(store: OfflineStore, spine: Spine) -> dict[str, ViewRows]:
        views: dict[str, ViewRows] = right["answer"](store, spine)
        return views | {"weather": doubled(views["weather"])}

    def rows_twice(store: OfflineStore, view: str, *more: Any) -> ViewRows:
        rows: ViewRows = right["rows"](store, view, *more)
        return doubled(rows) if view == "weather" else rows

    def table_twice(name: str) -> Callable[..., pa.Table]:
        def read(store: OfflineStore, view: str, *more: Any) -> pa.Table:
            table = right[name](store, view, *more)
            place = table.schema.get_field_index("f__wind")
            return table if place < 0 else table.set_column(place, "f__wind", pc.multiply(table["f__wind"], 2.0))

        return read

    for name, wrong in {
        "answer": answer_twice, "rows": rows_twice, "latest": table_twice("latest"), "changes": table_twice("changes"),
    }.items():  # fmt: skip
        monkeypatch.setattr(OfflineStore, name, wrong)
    log = loop.play(tmp_path)
    assert loop.guard(log).verdict.ruling is Ruling.PASS
    checked = loop.guard(log, cross_check=50).verdict
    assert checked.ruling is Ruling.FAIL
    assert [(one.kind, one.feature) for one in checked.findings] == [(Kind.ORACLE, "weather")]


def test_a_cross_check_of_more_rows_than_there_are_takes_all(loop: Loop) -> None:
    """The number of recomputed rows is told as it was, not as it was wished."""
    assert loop.guard(loop.clean_log, cross_check=10_000).verdict.coverage.cross_checked == 180
    assert loop.guard(loop.clean_log).verdict.coverage.cross_checked == 0


def test_a_verdict_is_issued_now_and_expires_as_the_policy_says(loop: Loop) -> None:
    """Its times are those of the given clock, in UTC."""
    verdict = loop.guard(loop.clean_log, now=datetime(2024, 3, 5, 12, tzinfo=UTC)).verdict
    assert verdict.issued_at == "2024-03-05T12:00:00+00:00"
    assert verdict.expires_at == "2024-03-12T12:00:00+00:00"


def test_a_log_of_two_kinds_of_evidence_passes_where_both_are_accepted(loop: Loop, tmp_path: Path) -> None:
    """Rows of a shadow and of production together are evidence of both kinds, each to be accepted by the policy."""
    rows = [batch for _, batch in read_log(loop.clean_log, SERVICE).batches()]
    for kind, some in (("shadow", rows[:90]), ("production", rows[90:])):
        with loop.open_log(tmp_path, evidence=kind) as log:
            for batch in some:
                log.append(batch)
    verdict = loop.guard(tmp_path).verdict
    assert (verdict.ruling, verdict.subject.evidence) == (Ruling.PASS, "production, shadow")
    picky = loop.guard(tmp_path, replace(POLICY, evidence=("production",))).verdict
    assert picky.ruling is Ruling.UNKNOWN
    assert picky.reasons == ("the evidence is of kind 'shadow', the policy accepts production",)


def test_answers_that_were_not_logged_are_unknown(loop: Loop, tmp_path: Path) -> None:
    """A log that counted answers it could not write is no ground for a PASS, and says how many and why."""
    from skewguard.servinglog.gaps import Gap

    log = loop.play(tmp_path)
    reading = read_log(log, SERVICE)
    gap = Gap(SERVICE, "boot", 7, us(at(9)), us(at(10)), "no space left")
    from skewguard.workflows.guard import _unlogged

    (finding,) = _unlogged(replace(reading, gaps=(gap,)))
    assert finding.kind is Kind.LOG
    assert finding.message.startswith("7 rows were answered and not logged, from 2024-03-04T09:00:00Z to 2024-03-04T10")


def test_hashed_keys_are_unknown_without_their_secret(loop: Loop, tmp_path: Path) -> None:
    """Keys that no source knows are no mismatch: the verdict is UNKNOWN and asks for the secret."""
    (_, batch), *_ = read_log(loop.clean_log, SERVICE).batches()
    header = loop.header()
    with ServingLog(tmp_path, SERVICE, schema(loop.bundle), header, pii=("tail",), secret=b"s" * 16) as log:
        log.append(batch)
    verdict = loop.guard(tmp_path).verdict
    assert verdict.ruling is Ruling.UNKNOWN
    assert verdict.reasons[0].startswith("the keys of tail are hashed in the log: give the secret")
    told = loop.guard(tmp_path, replace(POLICY, minimum_rows=1), secret=b"s" * 16).verdict
    assert (told.ruling, told.findings, told.coverage.rows) == (Ruling.PASS, (), 1)
    assert "Give the right one" in loop.guard(tmp_path, secret=b"t" * 16).verdict.reasons[0]
