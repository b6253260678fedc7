"""What evidence each missing column costs: a log or a source that says less must cry no wolf, and see what it can."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from skewguard.answer import answer, schema, to_batch
from skewguard.compare import compare
from skewguard.definitions import Bundle
from skewguard.findings import Kind
from skewguard.online import OnlineStore
from skewguard.replay import Pairs
from skewguard.snapshot import Snapshot, build_snapshot
from skewguard.spine import ViewRows
from skewguard.values import NO_TIME, Column, Status
from skewguard.verdict import Ruling
from skewguard.workflows.guard import guard
from tests.loop import MINUTE, POLICY, Fault, Loop, Store, asks_between, at, changed, ids, us

SECOND = 1_000_000
Poorer = Callable[[ViewRows], ViewRows]


def _of_a_stock_store(rows: ViewRows) -> ViewRows:
    """Feast's own Redis: no created time, events cut to seconds, no writer's mark; absent is absent."""
    n = len(rows.status)
    status = np.where(rows.status == Status.EXPIRED, np.uint8(Status.NULL), rows.status)
    event = np.where(rows.event == NO_TIME, NO_TIME, rows.event // SECOND * SECOND)
    return ViewRows(status, event, np.full(n, NO_TIME), np.full(n, NO_TIME), _absent_alike(rows))


def _of_values_alone(rows: ViewRows) -> ViewRows:
    """A log that somebody wrote who kept the values and nothing else."""
    n = len(rows.status)
    none = np.full(n, NO_TIME)
    status = np.where(rows.status == Status.PRESENT, rows.status, np.uint8(Status.NULL))
    return ViewRows(status, none, none.copy(), none.copy(), _absent_alike(rows))


def _absent_alike(rows: ViewRows) -> dict[str, Column]:
    def alike(column: Column) -> Column:
        return replace(column, status=np.where(column.present, column.status, np.uint8(Status.NULL)))

    return {name: alike(column) for name, column in rows.features.items()}


def _logged(loop: Loop, pairs: Pairs, root: Path, poorer: Poorer) -> Path:
    """What was served, in the log of a poorer writer."""
    views = {name: poorer(rows) for name, rows in pairs.served.views.items()}
    served = replace(answer(loop.bundle, pairs.served.spine, views), prediction=pairs.served.prediction)
    with loop.open_log(root) as log:
        log.append(to_batch(loop.bundle, served, schema(loop.bundle)))
    return root


@pytest.mark.parametrize("poorer", [_of_a_stock_store, _of_values_alone])
def test_a_poorer_log_of_a_clean_day_passes(loop: Loop, tmp_path: Path, poorer: Poorer) -> None:
    """Without created times, with events in seconds or none, and one kind of absence: nothing differs, none is lost."""
    guarded = loop.guard(_logged(loop, loop.pairs(), tmp_path, poorer))
    verdict = guarded.verdict
    assert (verdict.ruling, verdict.findings) == (Ruling.PASS, ())
    assert (verdict.coverage.mismatched, verdict.coverage.unverifiable) == (0, 0)
    assert verdict.coverage.lagged > 0


def _kmh(store: OnlineStore, bundle: Bundle) -> OnlineStore:
    def faster(column: Column) -> Column:
        return Column.build(column.dtype, column.values * 1.609344, column.status)

    return Store(store, changed(bundle.view("weather"), "wind", faster))


@pytest.mark.parametrize("poorer", [_of_a_stock_store, _of_values_alone])
def test_a_poorer_log_still_shows_wrong_values(loop: Loop, tmp_path: Path, poorer: Poorer) -> None:
    """A unit that is another is told from the values alone, in every row that it touches and in no other."""
    log = loop.play(tmp_path / "rich", Fault(store=_kmh))
    guarded = loop.guard(_logged(loop, loop.pairs(log), tmp_path / "poor", poorer))
    assert guarded.verdict.ruling is Ruling.FAIL
    assert {one.feature for one in guarded.verdict.findings} == {"weather__wind"}
    assert ids(guarded, "mismatched") == loop.touched(log)


def test_a_store_may_take_away_what_has_expired_and_nothing_else(loop: Loop, tmp_path: Path) -> None:
    """Rows beyond their TTL that the store no longer had pass; the same answer where a row was alive is a mismatch."""

    def without(gone: int) -> Poorer:
        def poorer(rows: ViewRows) -> ViewRows:
            here = rows.status == gone
            features = {
                name: Column.build(c.dtype, c.values, np.where(here, np.uint8(Status.NOT_FOUND), c.status))
                for name, c in rows.features.items()
            }
            status = np.where(here, np.uint8(Status.NOT_FOUND), rows.status)
            event, created = (np.where(here, NO_TIME, times) for times in (rows.event, rows.created))
            return replace(rows, status=status, event=event, created=created, features=features)

        return poorer

    assert any((rows.status == Status.EXPIRED).any() for rows in loop.pairs().served.views.values())
    passed = loop.guard(_logged(loop, loop.pairs(), tmp_path / "expired", without(Status.EXPIRED))).verdict
    assert (passed.ruling, passed.coverage.mismatched) == (Ruling.PASS, 0)
    failed = loop.guard(_logged(loop, loop.pairs(), tmp_path / "alive", without(Status.PRESENT))).verdict
    assert failed.ruling is Ruling.FAIL
    alive = [rows.status == Status.PRESENT for rows in loop.pairs().served.views.values()]
    assert failed.coverage.mismatched == int(np.logical_or.reduce(alive).sum())


def test_a_stock_store_that_stands_still_is_stale(loop: Loop, tmp_path: Path) -> None:
    """An event in seconds is enough to name the row, and its age follows."""
    log = loop.play(tmp_path / "rich", Fault(stopped=("weather", at(12), at(15))))
    rich = loop.guard(log)
    poor = loop.guard(_logged(loop, loop.pairs(log), tmp_path / "poor", _of_a_stock_store))
    assert {(one.kind, one.feature) for one in poor.verdict.findings} == {(Kind.STALE, "weather")}
    assert ids(poor, "mismatched") == ids(rich, "mismatched")


def test_a_refused_null_is_no_row_that_a_stock_store_says_null_for(loop: Loop) -> None:
    """Where no row exists, a store that knows one absence says null: that breaks no contract; a real null does."""
    pairs = loop.pairs()
    bundle = replace(loop.bundle)
    refused = replace(loop.bundle.contracts["plane__seats"], null="refused")
    bundle.__dict__["contracts"] = loop.bundle.contracts | {"plane__seats": refused}
    views = {name: _of_a_stock_store(rows) for name, rows in pairs.served.views.items()}
    poor = replace(pairs, bundle=bundle, served=replace(pairs.served, views=views))
    (finding,) = [one.finding for one in compare(poor).observed if one.finding.kind is Kind.CONTRACT]
    tails = pairs.served.spine.keys["tail"].values
    assert finding.rows == int((tails == "N5").sum())  # whose seats are null in the source


# -- sources that are not what they were -------------------------------------------------------------------------------


def _moved(loop: Loop, root: Path, view: str, change: Callable[[pa.Table], pa.Table]) -> Snapshot:
    """The snapshot, with one view's source rewritten since."""
    root.mkdir(exist_ok=True)
    source = loop.bundle.view(view).source
    pq.write_table(change(pq.read_table(source.path)), root / f"{view}.parquet")
    views = tuple(
        replace(v, source=replace(v.source, path=str(root / f"{view}.parquet"), created=v.source.created))
        if v.name == view
        else v
        for v in loop.bundle.views
    )
    return replace(loop.snapshot, bundle=replace(loop.bundle, views=views))


def test_an_overwritten_dimension_leaves_its_old_rows_unverifiable(loop: Loop, tmp_path: Path) -> None:
    """A table that keeps one row per key cannot witness what it held before: UNKNOWN, and not a word of skew."""

    def newest(table: pa.Table) -> pa.Table:
        rows = {row["tail"]: row for row in sorted(table.to_pylist(), key=lambda row: row["at"])}
        return pa.Table.from_pylist(list(rows.values()), table.schema)

    guarded = guard(loop.clean_log, _moved(loop, tmp_path, "plane", newest), POLICY)
    assert guarded.verdict.findings == ()
    assert guarded.verdict.ruling is Ruling.UNKNOWN
    refitted = us(at(10)) + 5 * MINUTE
    asks = loop.asks.to_pylist()
    before = {row["id"] for row in asks if row["tail"] == "N3" and us(row["event_timestamp"]) < refitted + 2 * MINUTE}
    assert ids(guarded, "unverifiable") <= before
    assert {row["id"] for row in asks if row["tail"] == "N3" and us(row["event_timestamp"]) < refitted} <= ids(
        guarded, "unverifiable"
    )


def test_a_source_that_lost_its_history_is_no_mismatch(loop: Loop, tmp_path: Path) -> None:
    """Rows older than all that a source has left cannot be looked up: unverifiable, while the rest is judged."""

    def recent(table: pa.Table) -> pa.Table:
        return table.filter(pc.greater_equal(table["at"], pa.scalar(at(9), table["at"].type)))

    guarded = guard(loop.clean_log, _moved(loop, tmp_path, "weather", recent), POLICY)
    assert guarded.verdict.findings == ()
    assert guarded.verdict.ruling is Ruling.UNKNOWN
    assert 0 < len(ids(guarded, "unverifiable")) < 180


def test_a_source_that_is_not_loaded_yet_is_no_mismatch(loop: Loop, tmp_path: Path) -> None:
    """What was served from rows that became known after the source ends cannot be judged, and it says since when."""

    def until_noon(table: pa.Table) -> pa.Table:
        return table.filter(pc.less(table["known"], pa.scalar(at(12), table["known"].type)))

    guarded = guard(loop.clean_log, _moved(loop, tmp_path, "weather", until_noon), POLICY)
    assert guarded.verdict.findings == ()
    assert guarded.verdict.ruling is Ruling.UNKNOWN
    assert 0 < len(ids(guarded, "unverifiable")) < 180
    assert "the source of weather ends at 2024-03-04T1" in "".join(guarded.verdict.reasons)


def test_a_source_that_lost_one_keys_rows_is_no_mismatch(loop: Loop, tmp_path: Path) -> None:
    """Where the snapshot's digest says that a source was rewritten, a row that it no longer has may have been there."""

    def without_newark(table: pa.Table) -> pa.Table:
        return table.filter(pc.not_equal(table["origin"], "EWR"))

    guarded = guard(loop.clean_log, _moved(loop, tmp_path, "weather", without_newark), POLICY)
    assert guarded.verdict.findings == ()
    assert guarded.verdict.ruling is Ruling.UNKNOWN
    from_newark = {row["id"] for row in loop.asks.to_pylist() if row["origin"] == "EWR"}
    assert ids(guarded, "unverifiable") <= from_newark


def test_values_that_were_rewritten_in_place_are_told_by_the_snapshots_digest(loop: Loop, tmp_path: Path) -> None:
    """A month whose rows are others than when the snapshot was built is named, and what rests on it is unverifiable."""

    def refitted(table: pa.Table) -> pa.Table:
        rows = [row | {"seats": row["seats"] + 7} if row["tail"] == "N4" else row for row in table.to_pylist()]
        return pa.Table.from_pylist(rows, table.schema)

    guarded = guard(loop.clean_log, _moved(loop, tmp_path, "plane", refitted), POLICY)
    assert guarded.verdict.findings == ()
    assert guarded.verdict.ruling is Ruling.UNKNOWN
    assert ids(guarded, "unverifiable") == {row["id"] for row in loop.asks.to_pylist() if row["tail"] == "N4"}
    assert "the source of plane holds other rows than when the snapshot was built, in 2024-01" in "".join(
        guarded.verdict.reasons
    )


def test_without_created_times_a_value_that_was_right_before_is_no_rewriting(loop: Loop, tmp_path: Path) -> None:
    """Build B's unit is skew in each row that follows a right answer from the same source row; others are doubtful."""
    views = tuple(replace(view, source=replace(view.source, created=None)) for view in loop.bundle.views)
    bundle = replace(loop.bundle, views=views)
    snapshot = build_snapshot(bundle, asks_between(at(-24), at(-20) - at(-24), 20), tmp_path / "snapshot")
    log = loop.play(tmp_path / "log", Fault(store=_kmh), bundle=bundle, snapshot_id=snapshot.id)
    guarded = guard(log, snapshot, POLICY)
    assert guarded.verdict.ruling is Ruling.FAIL
    (finding,) = guarded.verdict.findings
    assert (finding.kind, finding.feature, finding.cause_kind) == (Kind.MISMATCH, "weather__wind", "unit")
    assert finding.slices[0] == "only build B"


def test_a_snapshot_as_served_is_replayed_as_served(loop: Loop, tmp_path: Path) -> None:
    """Truth takes a row when the store could serve it: what lagged before is equal now, and the oracle agrees."""
    views = tuple(replace(view, availability_lag_us=MINUTE) for view in loop.bundle.views)
    bundle = replace(loop.bundle, views=views)
    asks = asks_between(at(-24), at(-20) - at(-24), 20)
    counts = {}
    for name in ("ordinary", "served"):
        snapshot = build_snapshot(bundle, asks, tmp_path / f"s-{name}", as_served=name == "served")
        log = loop.play(tmp_path / name, bundle=bundle, snapshot_id=snapshot.id)
        guarded = guard(log, snapshot, POLICY, cross_check=60)
        assert (guarded.verdict.ruling, guarded.verdict.findings) == (Ruling.PASS, ())
        counts[name] = ids(guarded, "lagged")
    assert counts["ordinary"] - counts["served"]


def test_a_log_whose_sources_are_gone_is_still_held_against_itself(loop: Loop, tmp_path: Path) -> None:
    """Without sources every row is unverifiable, yet a transform that gives other values than were logged is found."""
    from tests.loop import other_code

    gone = _moved(loop, tmp_path / "gone", "plane", lambda table: table)
    (tmp_path / "gone" / "plane.parquet").unlink()
    log = loop.play(tmp_path / "log", Fault(runs=other_code))
    clean = guard(loop.clean_log, gone, POLICY).verdict
    assert clean.ruling is Ruling.UNKNOWN
    assert clean.coverage.rows == clean.coverage.unverifiable == 180
    assert clean.coverage.truth == "none: the sources cannot be read"
    (finding,) = guard(log, gone, POLICY).verdict.findings
    assert finding.feature == "derived__gust_ratio"


# -- sources that DuckDB does not read ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning", "ignore::UserWarning")
def test_the_truth_through_feasts_offline_store_is_the_same(loop: Loop, tmp_path: Path) -> None:
    """Rows that a repository's own store gives lead to the same verdict, which names where they came from."""
    from skewguard.workflows.feast.sources import FeastSources

    _feast_repository(loop, tmp_path / "repo")
    log = loop.play(tmp_path, Fault(store=_kmh))
    here, there = loop.guard(log), loop.guard(log, sources=FeastSources(tmp_path / "repo"))
    assert there.verdict.coverage.truth.startswith("the rows that the offline store of")
    for which in ("equal", "lagged", "mismatched", "unverifiable"):
        assert ids(there, which) == ids(here, which)
    assert there.verdict.findings == here.verdict.findings
    missing = loop.guard(log, sources=FeastSources(tmp_path / "nowhere")).verdict
    assert missing.ruling is Ruling.UNKNOWN
    assert "its offline store gave no rows" in missing.reasons[0]


def _feast_repository(loop: Loop, folder: Path) -> None:
    """The loop's views as a plain Feast repository with Feast's own file store."""
    from datetime import timedelta

    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Float32, Float64, Int64, String

    kinds = {"float64": Float64, "float32": Float32, "int64": Int64, "string": String}
    folder.mkdir()
    (folder / "feature_store.yaml").write_text(
        "project: loop\nprovider: local\nregistry: registry.db\noffline_store:\n  type: dask\n"
        "online_store:\n  type: sqlite\n  path: online.db\nentity_key_serialization_version: 3\n"
    )
    things: list[Any] = []
    for view in loop.bundle.views:
        entity = Entity(name=view.keys[0].column, value_type=ValueType.STRING)
        source = FileSource(
            name=view.name, path=view.source.path, timestamp_field="at", created_timestamp_column="known"
        )
        schema_ = [Field(name=f.name, dtype=kinds[f.dtype.value]) for f in view.features]
        ttl = timedelta(microseconds=view.ttl_us or 0)
        things += [entity, FeatureView(name=view.name, entities=[entity], ttl=ttl, source=source, schema=schema_)]
    FeatureStore(repo_path=str(folder)).apply(things)
