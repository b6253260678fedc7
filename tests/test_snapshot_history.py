"""What becomes of a snapshot: verify, source digests, diff, adopt, audit, and rows as they are served."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewguard.audit import audit
from skewguard.cli import main
from skewguard.contract import contract, lag_until_available
from skewguard.definitions import Bundle
from skewguard.errors import AskError, DefinitionError, SnapshotError
from skewguard.findings import Kind
from skewguard.offline import OfflineStore, Rule
from skewguard.oracle import brute_force
from skewguard.snapshot import (
    Snapshot,
    adopt_snapshot,
    build_snapshot,
    diff_snapshots,
    load_snapshot,
    source_digests,
    verify_snapshot,
)
from skewguard.spine import expire
from skewguard.values import NO_TIME, Dtype, Status
from skewguard.workflows.snapshots import notes, verify_lines
from tests.worlds import (
    CREATED,
    EVENT,
    HOUR,
    MINUTE,
    RATE,
    T0,
    World,
    bundle,
    derived,
    shop,
    spent_per_visit,
    stamps,
    view,
    with_model_inputs,
    write,
)

DAY = 24 * HOUR


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The shop, whose files a test may rewrite."""
    return shop(tmp_path, seed=6)


def build(world: World, name: str = "s", **options: Any) -> Snapshot:
    """A snapshot of the shop's asks."""
    settings: dict[str, Any] = {"labels": ["paid"], "id_column": "ask_id", "asks": world.asks, "bundle": world.bundle}
    settings |= options
    return build_snapshot(settings.pop("bundle"), settings.pop("asks"), world.folder / name, **settings)


def rewrite(world: World, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the file behind a view."""
    path = world.bundle.view(name).source.path
    pq.write_table(change(pq.read_table(path)), path)


def edit(column: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    """Change one column."""

    def edited(table: pa.Table) -> pa.Table:
        at = table.column_names.index(column)
        return table.set_column(at, column, pa.array(change(table[column].to_pylist()), table[column].type))

    return edited


# -- verify -----------------------------------------------------------------------------------------------------------


def test_an_untouched_history_verifies_without_computing_anything_again(world: World) -> None:
    """Nothing differs, cheaply and in full; other files with the same rows are the same history."""
    snapshot = build(world)
    cheap, full = verify_snapshot(snapshot), verify_snapshot(load_snapshot(snapshot.path), full=True)
    assert (cheap.same, cheap.compared, full.same, full.compared) == (True, False, True, True)
    rewrite(world, "buyer", lambda table: table.take(pa.array(np.random.default_rng(0).permutation(len(table)))))
    assert not verify_snapshot(snapshot).compared


def test_rows_that_come_later_change_nothing(world: World) -> None:
    """Rows known after the last ask, be their event before it, are no rewritten history."""
    snapshot = build(world)
    after = T0 + 30 * DAY

    def append(table: pa.Table) -> pa.Table:
        late = edit(CREATED, lambda values: [after] * len(values))(table)
        return pa.concat_tables([table, late.slice(0, 20), edit(EVENT, lambda v: [after] * len(v))(late).slice(0, 9)])

    rewrite(world, "buyer", append)
    assert not verify_snapshot(snapshot).months
    assert verify_snapshot(snapshot, full=True).same


def test_a_rewritten_history_names_rows_columns_and_months(world: World) -> None:
    """As many asks and columns as differ by comparing a new build row by row."""
    before = build(world)
    rewrite(world, "buyer", edit("spent", lambda values: [None if v is None else v + 0.25 for v in values]))
    after = build(world, "after")
    result = verify_snapshot(before)
    was, is_ = (one.to_arrow(["buyer__spent"])["buyer__spent"].to_pylist() for one in (before, after))
    differ = sum(a != b for a, b in zip(was, is_, strict=True))
    (buyer,) = result.views
    assert 0 < differ == buyer.asks == buyer.columns["spent"]
    assert set(buyer.columns) == {"spent"}
    assert result.months == {"buyer": buyer.months} == {"buyer": ("2023-11",)}
    assert "now__spent_per_visit" in result.derived
    assert str(buyer).startswith(f"history was rewritten after training: {buyer.rows} rows of buyer, since 2023-11-14")
    assert buyer.rows <= buyer.asks
    assert len(buyer.examples) == 3
    first = next(row for row, (a, b) in enumerate(zip(was, is_, strict=True)) if a != b)
    asked = world.asks.slice(first, 1).to_pylist()[0]
    told = buyer.examples[0]
    assert (told.id, told.keys) == (asked["ask_id"], f"buyer_id {asked['buyer_id']}")
    assert (told.column, told.was, told.now) == ("buyer__spent", str(was[first]), str(is_[first]))
    assert f"    {told}" in list(verify_lines(result))


def test_the_sentence_counts_the_source_rows_and_dates_the_first(tmp_path: Path) -> None:
    """'41 rows of weather, since 2013-08-02': of 60 hours 41 were rewritten, each asked for twice."""
    since = 1_375_401_600_000_000  # 2013-08-02
    hours = [since + (hour - 19) * HOUR for hour in range(60)]
    table = {"k": pa.array([1] * 60), "wind": pa.array([1.0] * 60), EVENT: stamps(hours)}
    path = write(tmp_path, table)
    made = bundle(view("weather", path, {"k": Dtype.INT64}, {"wind": Dtype.FLOAT64}, created=False))
    asks = pa.table({"k": pa.array([1] * 120), "event_timestamp": stamps([t + d for t in hours for d in (1, 2)])})
    snapshot = build_snapshot(made, asks, tmp_path / "s")
    values = [1.0 if hour < 19 else 2.0 for hour in range(60)]
    pq.write_table(pa.table(table | {"wind": pa.array(values)}), path)
    result = verify_snapshot(snapshot)
    assert list(verify_lines(result)) == [
        (
            "history was rewritten after training: 41 rows of weather, since 2013-08-02; which answer 82 asks "
            "otherwise; wind 82"
        ),
        "    ask 38, k 1, as of 2013-08-02T00:00:00.000001Z: weather__wind was 1.0, is 2.0",
        "    ask 39, k 1, as of 2013-08-02T00:00:00.000002Z: weather__wind was 1.0, is 2.0",
        "    ask 40, k 1, as of 2013-08-02T01:00:00.000001Z: weather__wind was 1.0, is 2.0",
        "source of weather: other rows than it had in 2013-08",
        "82 of 120 rows differ",
    ]


def test_a_row_that_went_is_told_by_what_answers_in_its_place(tmp_path: Path) -> None:
    """Nothing, or an older row of the same value: then its event tells them apart."""
    table = {"k": pa.array([1, 2, 2]), "x": pa.array([1.0, 5.0, 5.0]), EVENT: stamps([T0, T0, T0 + MINUTE])}
    path = write(tmp_path, table)
    made = bundle(view("v", path, {"k": Dtype.INT64}, {"x": Dtype.FLOAT64}, created=False))
    asks = pa.table({"k": pa.array([1, 2]), "event_timestamp": stamps([T0 + HOUR] * 2)})
    snapshot = build_snapshot(made, asks, tmp_path / "s")
    pq.write_table(pa.table({name: values.slice(1, 1) for name, values in table.items()}), path)
    (told,) = verify_snapshot(snapshot).views
    assert [str(one) for one in told.examples] == [
        "ask 0, k 1, as of 2023-11-14T23:13:20Z: v__x was 1.0, is not_found",
        (
            "ask 1, k 2, as of 2023-11-14T23:13:20Z: the source row's event was 2023-11-14T22:14:20Z, "
            "is 2023-11-14T22:13:20Z"
        ),
    ]


def test_adopted_values_that_never_were_the_sources_are_no_rewritten_history(tmp_path: Path) -> None:
    """Where no month of the source changed since, the set was given so."""
    made, asks = leaky(tmp_path)
    adopted = adopt_snapshot(made, asks.append_column("v__x", pa.array([7.0, 2.0])), tmp_path / "a")
    (told,) = verify_snapshot(adopted).views
    assert str(told).startswith("the adopted values are not what the sources give: 1 rows of v, since 2023-11-14; ")


def test_a_row_that_nobody_asked_for_is_named_by_its_month_alone(world: World) -> None:
    """The source is another one, and every answer is what it was."""
    snapshot = build(world)

    def add(table: pa.Table) -> pa.Table:
        row = edit(EVENT, lambda _: [T0 - 40 * DAY])(edit("buyer_id", lambda _: [999])(table.slice(0, 1)))
        return pa.concat_tables([table, edit(CREATED, lambda _: [None])(row)])

    rewrite(world, "buyer", add)
    result = verify_snapshot(snapshot)
    assert result.months == {"buyer": ("2023-10",)}
    assert (result.same, result.compared, result.differ) == (True, True, 0)


def test_rows_that_were_changed_on_disk_are_noticed(world: World) -> None:
    """The stored rows are not those of the id."""
    snapshot = build(world)
    table = edit("paid", lambda values: [1 - (values[0] or 0), *values[1:]])(snapshot.to_arrow())
    pq.write_table(table, snapshot.path / "rows.parquet")
    result = verify_snapshot(load_snapshot(snapshot.path))
    assert not result.same
    assert "its rows are not those of its id" in result.damage


@pytest.mark.parametrize("rule", list(Rule))
def test_digests_see_exactly_the_rows_that_are_known_by_the_cut(world: World, rule: Rule) -> None:
    """Changing one row that no tie hides changes the digest where the rule counts it by then, and not elsewhere."""
    buyer = world.bundle.view("buyer")
    table = pq.read_table(buyer.source.path)
    cut = T0 + HOUR
    event = table[EVENT].cast(pa.int64()).to_pylist()
    created = table[CREATED].cast(pa.int64()).to_pylist()
    same_row = list(zip(table["buyer_id"].to_pylist(), event, created, strict=True))
    alone = [row for row in range(len(table)) if same_row.count(same_row[row]) == 1]
    with OfflineStore([buyer], rule) as store:
        before = source_digests(store, [buyer], cut)
    seen = set()
    for row in alone[::4]:
        keyed = edit("city", lambda values, row=row: [*values[:row], "elsewhere", *values[row + 1 :]])(table)  # type: ignore[misc]
        pq.write_table(keyed, buyer.source.path)
        known = max(event[row], created[row] or 0) if rule is Rule.KNOWN else event[row]
        with OfflineStore([buyer], rule) as store:
            changed = source_digests(store, [buyer], cut) != before
        assert changed == (known <= cut)
        seen.add(changed)
    assert seen == {True, False}


# -- diff -------------------------------------------------------------------------------------------------------------


def test_two_snapshots_of_the_same_are_told_to_be_the_same(world: World) -> None:
    """Also where the asks are numbered and not named, repeated ones among them."""
    asks = pa.concat_tables([world.asks, world.asks.slice(0, 5)])
    assert diff_snapshots(build(world, asks=asks), build(world, "t", asks=asks, id_column=None)).same


def test_what_differs_is_counted(world: World) -> None:
    """Asks, order, labels, rule, definitions by feature, and values by feature."""
    one = build(world)
    buyer = world.bundle.view("buyer")
    less = replace(buyer, ttl_us=1, features=buyer.features[1:])
    changed = replace(world.bundle, views=(less, *world.bundle.views[1:]), derived=world.bundle.derived[:-1])
    changed = replace(changed, outputs=tuple(name for name in changed.outputs if name in changed.dtypes))
    asks = edit("paid", lambda v: [None, *v[1:]])(edit("paid", lambda v: [7, *v[1:]])(world.asks)).slice(0, 100)
    other = build(world, "t", bundle=changed, asks=asks, rule=Rule.FEAST)
    result = diff_snapshots(one, other)
    assert (result.asks, result.added, result.removed) == (100, 0, 20)
    assert result.rule == ("rule: known -> feast",)
    assert "buyer__spent: removed" in result.definitions
    assert "now__spent_per_visit: removed" in result.definitions
    assert f"view buyer: ttl_us: {HOUR} -> 1" in result.definitions
    was, is_ = (s.to_arrow(["buyer__status"])["buyer__status"].to_pylist() for s in (one, other))
    assert result.values["buyer__city"] >= sum(a != b for a, b in zip(was, is_, strict=False)) > 0
    turned = build(world, "turned", asks=world.asks.take(pa.array([1, 0, *range(2, len(world.asks))])))
    assert diff_snapshots(one, turned).reordered


# -- adopt ------------------------------------------------------------------------------------------------------------


def elsewhere(world: World, snapshot: Snapshot) -> pa.Table:
    """A training set as somebody else would hand it over: asks, labels and features."""
    given = {name: snapshot.to_arrow([name])[name] for name in world.bundle.outputs}
    return pa.table({name: world.asks[name] for name in world.asks.column_names} | given)


@pytest.mark.parametrize("rule", list(Rule))
def test_an_adopted_set_is_held_against_the_rule_it_names(world: World, rule: Rule) -> None:
    """Its values are the snapshot's, it verifies under its own rule, and it is another snapshot than a built one."""
    built = build(world, rule=rule)
    adopted = adopt_snapshot(
        world.bundle, elsewhere(world, built), world.folder / "a", labels=["paid"], rule=rule, id_column="ask_id"
    )
    assert (adopted.manifest.adopted, adopted.manifest.rule) == (rule, rule)
    assert load_snapshot(adopted.path).manifest == adopted.manifest
    assert adopted.id != built.id
    assert adopted.to_numpy()[0].tobytes() == built.to_numpy()[0].tobytes()
    assert verify_snapshot(adopted, full=True).same
    assert diff_snapshots(built, adopted).values == {}


def test_what_an_adopted_set_lacks_is_named(world: World) -> None:
    """Missing features all at once, a value that does not fit, and a rule that nobody knows; nothing is left behind."""
    table = elsewhere(world, build(world))
    lacking = table.drop_columns(["buyer__city", "globe__rate"])
    with pytest.raises(AskError, match="no column for buyer__city, globe__rate"):
        adopt_snapshot(world.bundle, lacking, world.folder / "a")
    text = table.set_column(table.column_names.index("buyer__level"), "buyer__level", pa.array(["x"] * len(table)))
    with pytest.raises(AskError, match="buyer__level"):
        adopt_snapshot(world.bundle, text, world.folder / "a")
    with pytest.raises(SnapshotError, match="rule 'guess': expected one of known, feast, unknown"):
        adopt_snapshot(world.bundle, table, world.folder / "a", rule="guess")
    short = table.rename_columns([name.removeprefix("globe__") for name in table.column_names])
    assert adopt_snapshot(world.bundle, short, world.folder / "a").manifest.rows == len(table)


# -- audit ------------------------------------------------------------------------------------------------------------


def leaky(folder: Path) -> tuple[Bundle, pa.Table]:
    """One key; a value, its correction an hour later, and a newer value after the asks."""
    path = write(
        folder,
        {
            "k": pa.array([1, 1, 1]),
            "x": pa.array([1.0, 2.0, 3.0]),
            EVENT: stamps([T0, T0, T0 + DAY]),
            CREATED: stamps([T0, T0 + HOUR, T0 + DAY]),
        },
    )
    asks = pa.table({"k": pa.array([1, 1]), "event_timestamp": stamps([T0 + MINUTE, T0 + 2 * HOUR])})
    return bundle(view("v", path, {"k": Dtype.INT64}, {"x": Dtype.FLOAT64})), asks


def test_a_correction_that_came_after_the_ask_is_a_leak(tmp_path: Path) -> None:
    """Under Feast's rule; under ours there is nothing to find."""
    made, asks = leaky(tmp_path)
    assert audit(build_snapshot(made, asks, tmp_path / "ours")) == []
    (finding,) = audit(build_snapshot(made, asks, tmp_path / "feast", rule=Rule.FEAST))
    assert (finding.kind, finding.feature, finding.rows, finding.of) == (Kind.LEAK, "v", 1, 2)
    assert finding.examples[0].as_of == "2023-11-14T22:14:20Z"


def test_the_values_of_an_adopted_set_are_explained(tmp_path: Path) -> None:
    """Known, leaked by Feast's rule, leaked from the future, or of no row at all."""
    made, asks = leaky(tmp_path)
    found = {}
    for value in (1.0, 2.0, 3.0, 4.0):
        table = asks.slice(0, 1).append_column("v__x", pa.array([value]))
        found[value] = audit(adopt_snapshot(made, table, tmp_path / str(value)))
    assert found.pop(1.0) == []
    kinds = {value: (findings[0].kind, findings[0].feature) for value, findings in found.items()}
    assert kinds == {2.0: (Kind.LEAK, "v__x"), 3.0: (Kind.LEAK, "v__x"), 4.0: (Kind.MISMATCH, "v__x")}
    assert "correction" in found[2.0][0].message
    assert "newest row" in found[3.0][0].message


def test_every_leak_of_the_shop_is_found(world: World) -> None:
    """As many as brute force finds rows known after their ask."""
    snapshot = build(world, rule=Rule.FEAST)
    leaks = {f.feature: f.rows for f in audit(snapshot) if f.kind is Kind.LEAK}
    expected = {}
    for one in world.bundle.views:
        rows = brute_force(one, world.spine, known=False)
        late = (rows.status <= Status.NULL) & (np.maximum(rows.event, rows.created) > world.spine.as_of)
        if late.any():
            expected[one.name] = int(late.sum())
    assert leaks == expected != {}


def test_ties_that_answered_and_rows_created_before_their_event_are_told(tmp_path: Path) -> None:
    """Only ties that answer an ask, and only rows known by the last one."""
    path = write(
        tmp_path,
        {
            "k": pa.array([1, 1, 2, 2, 3]),
            EVENT: stamps([T0] * 5),
            CREATED: stamps([T0, T0, None, None, T0 - MINUTE]),
            "x": pa.array([1.0, 2.0, 1.0, 2.0, 3.0]),
        },
    )
    made = bundle(view("v", path, {"k": Dtype.INT64}, {"x": Dtype.FLOAT64}))
    asks = pa.table({"k": pa.array([1, 1, 3]), "event_timestamp": stamps([T0, T0 + 1, T0 + 2])})
    tie, early = audit(build_snapshot(made, asks, tmp_path / "s"))
    assert (tie.kind, tie.rows, tie.of) == (Kind.CONTRACT, 2, 3)
    assert "several source rows equal in keys and both times" in tie.message
    assert (early.kind, early.rows) == (Kind.CONTRACT, 1)
    assert "1 of 5 source rows were created before their event" not in early.message  # of tied rows one is counted
    assert "1 of 3 source rows were created before their event" in early.message
    assert "and answered 1 of 3 training rows" in early.message
    (example,) = early.examples
    assert (example.keys, example.served) == ("k 3", "created 2023-11-14T22:12:20Z")


def test_a_tie_is_found_in_a_source_of_many_files(tmp_path: Path) -> None:
    """A folder of hive partitions, a glob of them: wherever the join reads, the audit does."""
    for day, x in ((1, 1.0), (2, 2.0)):
        folder = tmp_path / "tree" / f"day={day}"
        folder.mkdir(parents=True)
        write(folder, {"k": pa.array([1]), EVENT: stamps([T0]), CREATED: stamps([T0]), "x": pa.array([x])})
    asks = pa.table({"k": pa.array([1]), "event_timestamp": stamps([T0])})
    for at, path in enumerate(("tree", "tree/*/*.parquet", "tree/**/*.parquet")):
        made = bundle(view("v", tmp_path / path, {"k": Dtype.INT64}, {"x": Dtype.FLOAT64}))
        (tie,) = audit(build_snapshot(made, asks, tmp_path / f"s{at}"))
        assert (tie.kind, tie.rows) == (Kind.CONTRACT, 1)


def test_what_was_derived_from_a_leak_is_a_leak(tmp_path: Path) -> None:
    """Of an adopted set that holds nothing but derived features; and one that follows from its own inputs is explained
    by them."""
    path = write(
        tmp_path,
        {
            "k": pa.array([1, 1]),
            "spent": pa.array([10.0, 20.0]),
            "visits": pa.array([2, 2]),
            EVENT: stamps([T0, T0]),
            CREATED: stamps([T0, T0 + HOUR]),
        },
    )
    buyer = view("buyer", path, {"k": Dtype.INT64}, {"spent": Dtype.FLOAT64, "visits": Dtype.INT64})
    whole = bundle(buyer, computed=[derived("per", spent_per_visit, ["buyer__spent", "buyer__visits"])])
    alone = replace(whole, outputs=("now__per",))
    asks = pa.table({"k": pa.array([1]), "event_timestamp": stamps([T0 + MINUTE])})
    known, corrected = 10.0 * RATE / 2, 20.0 * RATE / 2
    said = {}
    for value in (known, corrected, 1.0):
        table = asks.append_column("now__per", pa.array([value]))
        said[value] = [(f.kind, f.feature) for f in audit(adopt_snapshot(alone, table, tmp_path / str(value)))]
    assert said == {known: [], corrected: [(Kind.LEAK, "now__per")], 1.0: [(Kind.MISMATCH, "now__per")]}
    table = asks.append_column("buyer__spent", pa.array([99.0])).append_column("buyer__visits", pa.array([2]))
    table = table.append_column("now__per", pa.array([99.0 * RATE / 2]))
    found = audit(adopt_snapshot(whole, table, tmp_path / "own"))
    assert [(f.kind, f.feature) for f in found] == [(Kind.MISMATCH, "buyer__spent")]


# -- as served --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lag", [0, 1, MINUTE, 20 * MINUTE, HOUR])
def test_a_set_as_served_holds_what_had_been_known_for_the_lag(world: World, lag: int) -> None:
    """Brute force as of the ask less the lag, with TTL and clock judged at the ask; recorded in manifest and id."""
    views = tuple(replace(one, availability_lag_us=lag) for one in world.bundle.views)
    lagging = replace(world.bundle, views=views)
    snapshot = build(world, bundle=lagging, as_served=True)
    (served,) = snapshot.served()
    asks = world.spine
    for one in views:
        then = replace(asks, as_of=asks.as_of - lag)
        rows = brute_force(replace(one, ttl_us=None), then)
        status = expire(rows.status, rows.event, asks.as_of, one.ttl_us)
        got = served.views[one.name]
        assert got.status.tolist() == status.tolist()
        assert got.event.tolist() == rows.event.tolist()
        assert got.created.tolist() == rows.created.tolist()
        for name, column in rows.features.items():
            there = np.flatnonzero(status <= Status.NULL).tolist()
            assert [got.features[name].value(i) for i in there] == [column.value(i) for i in there]
        assert (got.event[got.status == Status.NOT_FOUND] == NO_TIME).all()
    assert snapshot.manifest.as_served
    assert verify_snapshot(snapshot, full=True).same
    assert [one for one in audit(snapshot) if one.kind is Kind.LEAK] == []
    assert snapshot.id != build(world, "plain", bundle=lagging).id


def test_as_served_goes_with_what_was_known_only(world: World) -> None:
    """An online store serves nothing before it is known."""
    with pytest.raises(SnapshotError, match="as_served goes with rule 'known'"):
        build(world, as_served=True, rule=Rule.FEAST)


def test_a_lag_of_none_leaves_the_definitions_digest_as_it_was(world: World) -> None:
    """And one that is declared makes other definitions, which survive JSON."""
    first, *rest = world.bundle.views
    lagging = replace(world.bundle, views=(replace(first, availability_lag_us=5), *rest))
    assert "availability_lag" in str(lagging.to_json())
    assert Bundle.from_json(lagging.to_json()) == lagging
    assert lagging.digest != world.bundle.digest
    old = world.bundle.to_json()
    for one in old["views"]:
        del one["availability_lag_us"]
    assert Bundle.from_json(old).digest == world.bundle.digest


def test_an_availability_lag_is_read_from_tags() -> None:
    """As it was written; what is no duration is refused where it stands."""
    assert lag_until_available("view v", contract(availability_lag="90s")) == 90_000_000
    assert lag_until_available("view v", {}) == 0
    with pytest.raises(DefinitionError, match=r"view v: tag skewguard\.availability_lag='soon'"):
        lag_until_available("view v", {"skewguard.availability_lag": "soon"})
    with pytest.raises(DefinitionError):
        contract(availability_lag="soon")


# -- the command line -------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_no_snapshot_and_says_where(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is named, the reason is told, and nothing lies there."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(SnapshotError, match=r"s: the snapshot could not be written.*No space left on device"):
        build(world)
    assert not [path.name for path in world.folder.iterdir() if path.name.startswith("s")]


def test_the_commands_answer_by_their_exit_codes(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 the same or done, 1 it differs, 2 could not run; what is printed names what differs."""
    monkeypatch.chdir(world.folder)
    world.bundle.save("b.json")
    pq.write_table(world.asks, "asks.parquet")
    common = ["--bundle", "b.json", "--entity-df", "asks.parquet", "--label", "paid", "--id", "ask_id"]

    def run(*arguments: str) -> tuple[int, str]:
        code = main(["snapshot", *arguments])
        return code, capsys.readouterr().out

    assert run("build", *common, "--snapshot", "s")[0] == 0
    assert run("build", *common, "--snapshot", "f", "--rule", "feast")[0] == 0
    assert run("build", *common, "--snapshot", "x", "--rule", "unknown")[0] == 2
    code, out = run("verify", "--snapshot", "s")
    assert code == 0
    assert "no month of any source changed" in out
    code, out = run("diff", "--snapshot", "s", "--against", "f")
    assert code == 1
    assert "rule: known -> feast" in out
    assert run("diff", "--snapshot", "s", "--against", "s")[0] == 0
    assert run("diff", "--snapshot", "s")[0] == 2
    code, out = run("show", "--snapshot", "s")
    assert code == 0
    assert "label paid: " in out
    assert run("show", "--snapshot", "s", "--json")[0] == 0
    assert run("audit", "--snapshot", "f", "--out", "findings.json")[0] == 1
    pq.write_table(elsewhere(world, load_snapshot("f")), "train.parquet")
    adopted = ["--bundle", "b.json", "--entity-df", "train.parquet", "--label", "paid", "--rule", "feast"]
    assert run("adopt", *adopted, "--snapshot", "a")[0] == 0
    rewrite(world, "road", edit("toll", lambda values: [v and v + 1 for v in values]))
    code, out = run("verify", "--snapshot", "s")
    assert code == 1
    assert "history was rewritten after training" in out
    assert run("verify", "--snapshot", "nowhere")[0] == 2


def test_model_inputs_are_fitted_on_the_asks_before_an_instant(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the flag says; the snapshot verifies and audits under the fitted definitions, and a set is adopted under these
    and under no unfitted ones."""
    monkeypatch.chdir(world.folder)
    unfitted = with_model_inputs(world).bundle
    unfitted.save("b.json")
    pq.write_table(world.asks, "asks.parquet")
    common = ["--bundle", "b.json", "--entity-df", "asks.parquet", "--id", "ask_id"]
    when = "2023-11-14T23:13:20+00:00"
    assert main(["snapshot", "build", *common, "--snapshot", "s", "--fit-before", when]) == 0
    snapshot = load_snapshot("s")
    expected = build_snapshot(
        unfitted, world.asks, "t", id_column="ask_id", fit_before=datetime.fromisoformat(when)
    )  # fmt: skip
    assert snapshot.id == expected.id
    assert snapshot.id != build_snapshot(unfitted, world.asks, "all", id_column="ask_id").id
    assert main(["snapshot", "build", *common, "--snapshot", "u", "--fit-before", "2023-11-14"]) == 2
    assert "--fit-before: expected an ISO instant with an offset" in capsys.readouterr().err
    assert verify_snapshot(snapshot, full=True).same
    given = elsewhere(replace(world, bundle=snapshot.bundle), snapshot)
    given = given.select([*world.asks.column_names, *snapshot.bundle.outputs])
    adopted = adopt_snapshot(snapshot.bundle, given, "a", rule="known", id_column="ask_id")
    assert verify_snapshot(adopted, full=True).same
    assert [one for one in audit(adopted) if one.kind is not Kind.CONTRACT] == []
    with pytest.raises(DefinitionError, match="not fitted, so that nobody could compute the set again"):
        adopt_snapshot(unfitted, given, "b")


def test_times_without_a_zone_are_told_wherever_the_sources_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`build` and `verify` say on stderr what is assumed, `--json` stays JSON, and a source that is gone is no note."""
    monkeypatch.chdir(tmp_path)
    naive = pa.array([T0]).view(pa.timestamp("us"))
    source = write(tmp_path, {"k": pa.array(["a"]), "x": pa.array([1.0]), EVENT: naive, CREATED: stamps([T0])})
    made = bundle(view("v", str(source), {"k": Dtype.STRING}, {"x": Dtype.FLOAT64}))
    made.save("b.json")
    pq.write_table(pa.table({"k": ["a"], "event_timestamp": stamps([T0 + 1])}), "asks.parquet")
    note = f"note: {source} (view v): {EVENT} has no time zone; it is read as UTC\n"
    words = ["--bundle", "b.json", "--entity-df", "asks.parquet", "--snapshot", "s", "--json"]
    assert main(["snapshot", "build", *words]) == 0
    told = capsys.readouterr()
    assert (json.loads(told.out)["rows"], told.err) == (1, note)
    assert main(["snapshot", "verify", "--snapshot", "s"]) == 0
    assert capsys.readouterr().err == note
    source.unlink()
    assert notes(made) == []
