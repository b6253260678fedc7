"""Snapshot: what a model was trained on, frozen whole or not at all, and named by its logical content."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import skewguard.snapshot.build as module
from skewguard.answer import answer
from skewguard.definitions import Bundle
from skewguard.errors import AskError, SnapshotError, SourceError
from skewguard.offline import OfflineStore, Rule
from skewguard.snapshot import Snapshot, build_snapshot, load_snapshot
from skewguard.values import Dtype
from tests.worlds import (
    CREATED,
    EVENT,
    T0,
    World,
    assert_identical,
    assert_same_bits,
    bundle,
    shop,
    stamps,
    view,
    write,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The shop; nobody changes it."""
    return shop(tmp_path_factory.mktemp("shop"), seed=6)


def build(world: World, out: Path, **options: Any) -> Snapshot:
    """A snapshot of the shop's asks, or of others."""
    given: dict[str, Any] = {"labels": ["paid"], "id_column": "ask_id", "asks": world.asks} | options
    return build_snapshot(given.pop("bundle", world.bundle), given.pop("asks"), out, **given)


def test_a_snapshot_holds_the_answers_of_its_asks_in_order(world: World, tmp_path: Path) -> None:
    """Rows, features and vectors are those of the join at every ask's instant, through the file and back."""
    asks = world.spine
    with world.offline() as offline:
        expected = answer(world.bundle, asks, offline.answer(asks))
    snapshot = build(world, tmp_path / "s")
    (served,) = snapshot.served()
    assert served.spine.ids.tolist() == asks.ids.tolist()
    for name, rows in expected.views.items():
        assert_identical(rows, served.views[name])
    for name, column in expected.features(world.bundle).items():
        assert_same_bits(column, served.feature(world.bundle, name))
    assert served.vector.tobytes() == expected.vector.tobytes()
    table = snapshot.to_arrow()
    assert table["id"].to_pylist() == world.asks["ask_id"].to_pylist()
    assert table["paid"].equals(world.asks["paid"])
    assert snapshot.to_arrow(["id", "paid"]).column_names == ["id", "paid"]
    assert [len(batch) for batch in snapshot.batches(rows=50)] == [50, 50, 20]
    assert next(snapshot.batches(["paid"])).schema.names == ["paid"]


def test_a_manifest_says_what_the_snapshot_is(world: World, tmp_path: Path) -> None:
    """Rule, rows, labels, columns, definitions and the span of the asks; opened again it is the same snapshot."""
    snapshot = build(world, tmp_path / "s", rule=Rule.FEAST)
    manifest = snapshot.manifest
    assert (manifest.rule, manifest.rows, manifest.labels) == (Rule.FEAST, len(world.asks), ("paid",))
    assert manifest.service == "checkout"
    assert manifest.bundle_digest == world.bundle.digest
    assert list(manifest.columns) == snapshot.to_arrow().column_names
    assert manifest.columns["buyer__visits"] == "int64"
    first, last = (pc.min_max(world.asks["event_timestamp"])[end].as_py() for end in ("min", "max"))
    assert manifest.since[:19] == first.isoformat()[:19]
    assert manifest.until[:19] == last.isoformat()[:19]
    again = load_snapshot(tmp_path / "s")
    assert again.manifest == manifest
    assert again.id == snapshot.id
    assert again.bundle.digest == world.bundle.digest
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [
        "bundle.json",
        "manifest.json",
        "profile.json",
        "rows.parquet",
    ]


def test_ties_of_the_sources_are_counted(tmp_path: Path) -> None:
    """Rows that repeat the keys and both times of another are a defect that the manifest names by view."""
    path = write(
        tmp_path,
        {"n": pa.array([1, 2, 2, 3]), EVENT: stamps([T0, T0, T0, T0 + 1]), CREATED: stamps([T0, T0, None, None])},
    )
    made = bundle(view("tied", path, {}, {"n": Dtype.INT64}), view("plain", path, {"n": Dtype.INT64}, {}))
    asks = pa.table({"event_timestamp": stamps([T0]), "n": pa.array([1])})
    assert build_snapshot(made, asks, tmp_path / "s").manifest.ties == {"tied": 1, "plain": 0}


def test_progress_is_told(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After every batch: how many asks are done, and of how many."""
    monkeypatch.setattr(module, "BATCH_ROWS", 50)
    told: list[tuple[int, int]] = []
    build(world, tmp_path / "s", progress=lambda done, all_: told.append((done, all_)))
    assert told == [(50, 120), (100, 120), (120, 120)]


# -- what training reads ----------------------------------------------------------------------------------------------


def test_only_rows_without_a_label_are_left_out(world: World, tmp_path: Path) -> None:
    """X and y in the order of the asks, features missing or not, as arrays and as frames alike."""
    snapshot = build(world, tmp_path / "s")
    (served,) = snapshot.served()
    paid = world.asks["paid"].to_pylist()
    known = [i for i, label in enumerate(paid) if label is not None]
    x, y = snapshot.to_numpy()
    assert 0 < len(known) < len(paid)
    assert x.tobytes() == served.vector[known].tobytes()
    assert y.tolist() == [paid[i] for i in known]
    assert np.isnan(x).any()
    frame, series = snapshot.to_pandas()
    assert list(frame.columns) == list(world.bundle.vector)
    pd.testing.assert_frame_equal(frame, pd.DataFrame(x, columns=list(world.bundle.vector)))
    assert series.name == "paid"
    assert series.tolist() == y.tolist()


def test_a_label_is_chosen_by_name(world: World, tmp_path: Path) -> None:
    """The first one unless another is named; one that is not there, or none at all, is an error."""
    asks = world.asks.append_column("late", pa.array([i % 2 == 0 for i in range(len(world.asks))]))
    snapshot = build(world, tmp_path / "s", asks=asks, labels=["paid", "late"])
    assert len(snapshot.to_numpy("late")[1]) == len(asks)
    assert snapshot.to_numpy("late")[1].dtype == np.bool_
    assert snapshot.to_pandas("late")[1].name == "late"
    with pytest.raises(SnapshotError, match="no label 'nothing'; it has paid, late"):
        snapshot.to_numpy("nothing")
    with pytest.raises(SnapshotError, match="has no label: name one with label= when it is built"):
        build(world, tmp_path / "bare", labels=[]).to_pandas()


def test_no_asks_are_a_snapshot_of_no_rows(world: World, tmp_path: Path) -> None:
    """An empty table is answered, frozen and read back."""
    snapshot = build(world, tmp_path / "s", asks=world.asks.slice(0, 0))
    assert load_snapshot(tmp_path / "s").manifest.rows == 0
    x, y = snapshot.to_numpy()
    assert x.shape == (0, len(world.bundle.vector))
    assert len(y) == 0


# -- the id -----------------------------------------------------------------------------------------------------------


def test_the_id_does_not_depend_on_how_it_was_built(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch sizes, threads, the sources' row groups and paths, the asks' chunks: the same id."""
    ids = {build(world, tmp_path / "first").id}
    for rows in (1, 7, 64):
        monkeypatch.setattr(module, "BATCH_ROWS", rows)
        ids.add(build(world, tmp_path / f"batches of {rows}").id)
    with world.offline(threads=1, memory_limit="512MiB") as offline:
        ids.add(build(world, tmp_path / "one thread", offline=offline).id)
    chunked = pa.concat_tables([world.asks.slice(0, 50), world.asks.slice(50)])
    ids.add(build(world, tmp_path / "chunked", asks=chunked).id)
    assert chunked["paid"].num_chunks == 2
    ids.add(build(world, tmp_path / "moved", bundle=_moved(world, tmp_path)).id)
    assert len(ids) == 1


def _moved(world: World, folder: Path) -> Bundle:
    """The same rows in other files: another order of columns, other row groups, other compression."""
    views = []
    for one in world.bundle.views:
        table = pq.read_table(one.source.path)
        path = folder / f"{one.name}.parquet"
        pq.write_table(table.select(table.column_names[::-1]), path, row_group_size=11, compression="gzip")
        views.append(replace(one, source=replace(one.source, path=str(path))))
    return replace(world.bundle, views=tuple(views))


def _edited(world: World, folder: Path, column: str, edit: Any) -> Bundle:
    """The shop with one column of its buyers changed."""
    buyer = world.bundle.view("buyer")
    table = pq.read_table(buyer.source.path)
    at = table.column_names.index(column)
    path = folder / f"edited-{column}.parquet"
    pq.write_table(table.set_column(at, column, pa.array(edit(table[column].to_pylist()), table[column].type)), path)
    edited = replace(buyer, source=replace(buyer.source, path=str(path)))
    return replace(world.bundle, views=(edited, *world.bundle.views[1:]))


def test_the_id_changes_with_whatever_a_model_could_learn_from(world: World, tmp_path: Path) -> None:
    """A label, a value, a null, an ask, its order or id, the rule, a definition: each makes another snapshot."""
    asks, made = world.asks, world.bundle

    def column(name: str, edit: Any) -> pa.Table:
        at = asks.column_names.index(name)
        return asks.set_column(at, name, pa.array(edit(asks[name].to_pylist()), asks[name].type))

    buyer = made.view("buyer")
    variants: dict[str, dict[str, Any]] = {
        "first": {},
        "label": {"asks": column("paid", lambda v: [1 - (v[0] or 0), *v[1:]])},
        "no label": {"labels": []},
        "label's type": {"asks": asks.set_column(6, "paid", asks["paid"].cast(pa.float64()))},
        "value": {"bundle": _edited(world, tmp_path, "spent", lambda v: [x and x + 0.25 for x in v])},
        "null": {"bundle": _edited(world, tmp_path, "city", lambda v: [None if x == "" else x for x in v])},
        "created": {"bundle": _edited(world, tmp_path, CREATED, lambda v: [None] * len(v))},
        "key": {"asks": column("buyer_id", lambda v: [7, 404, *v[2:]])},
        "request": {"asks": column("amount", lambda v: [123.0, *v[1:]])},
        "instant": {"asks": column("event_timestamp", lambda v: [v[1], v[0], *v[2:]])},
        "ask's id": {"asks": column("ask_id", lambda v: ["other", *v[1:]])},
        "order": {"asks": asks.take(pa.array([1, 0, *range(2, len(asks))]))},
        "one ask less": {"asks": asks.slice(1)},
        "rule": {"rule": Rule.FEAST},
        "ttl": {"bundle": replace(made, views=(replace(buyer, ttl_us=1), *made.views[1:]))},
        "outputs": {"bundle": replace(made, outputs=made.outputs[1:])},
        "service": {"bundle": replace(made, service="other")},
    }
    ids = {name: build(world, tmp_path / name, **options).id for name, options in variants.items()}
    assert len(set(ids.values())) == len(ids), ids


def test_ids_that_look_alike_when_joined_are_told_apart(world: World, tmp_path: Path) -> None:
    """Where one text ends and the next begins belongs to the content."""

    def named(*ids: str) -> str:
        asks = world.asks.slice(0, 2).set_column(0, "ask_id", pa.array(ids))
        return build(world, tmp_path / repr(ids), asks=asks).id

    assert len({named("a\0b", "c"), named("a", "b\0c"), named("ab", "c"), named("a", "bc"), named("", "abc")}) == 5


def test_negative_zero_and_the_bits_of_nan_do_not_count(tmp_path: Path) -> None:
    """What is the same value has the same id."""
    odd = np.array([0x7FF0000000000001, 0x8000000000000000], dtype=np.uint64).view(np.float64)
    ids: set[str] = set()
    for values in (pa.array([None, 0.0]), pa.array([float("nan"), -0.0]), pa.array(odd)):
        path = write(tmp_path, {"k": pa.array([1, 2]), "x": values, EVENT: stamps([T0, T0])})
        made = bundle(view("v", path, {"k": Dtype.INT64}, {"x": Dtype.FLOAT64}, created=False))
        asks = pa.table({"event_timestamp": stamps([T0, T0]), "k": pa.array([1, 2])})
        ids.add(build_snapshot(made, asks, tmp_path / f"s{len(ids)}-{path.name}").id)
    assert len(ids) == 1


# -- whole or not at all ----------------------------------------------------------------------------------------------


def left(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_snapshot_is_never_overwritten(world: World, tmp_path: Path) -> None:
    """A target that exists, as a snapshot or as anything else, stays as it is."""
    build(world, tmp_path / "s")
    (tmp_path / "file").write_text("mine")
    before = (tmp_path / "s" / "manifest.json").read_bytes()
    for name in ("s", "file"):
        with pytest.raises(SnapshotError, match=f"{name} exists; a snapshot is never overwritten"):
            build(world, tmp_path / name)
    assert (tmp_path / "s" / "manifest.json").read_bytes() == before
    assert left(tmp_path) == ["file", "s"]


@pytest.mark.parametrize("error", [SourceError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["answer", "ties"])
def test_a_source_that_breaks_midway_leaves_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], place: str
) -> None:
    """No half-written snapshot, no partial folder; and the next attempt succeeds."""
    monkeypatch.setattr(module, "BATCH_ROWS", 50)
    whole = getattr(OfflineStore, place)
    calls = []

    def breaking(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise error("broken")
        return whole(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(OfflineStore, place, breaking)
        with pytest.raises(error):
            build(world, tmp_path / "deep" / "s")
    assert left(tmp_path / "deep") == []
    assert build(world, tmp_path / "deep" / "s").id == build(world, tmp_path / "other").id


def test_what_a_killed_builder_left_behind_is_in_nobodys_way(world: World, tmp_path: Path) -> None:
    """A partial folder of an earlier attempt is no snapshot, and is replaced."""
    (tmp_path / "s.partial").mkdir()
    (tmp_path / "s.partial" / "rows.parquet").write_bytes(b"torn")
    with pytest.raises(SnapshotError):
        load_snapshot(tmp_path / "s.partial")
    build(world, tmp_path / "s")
    assert left(tmp_path) == ["s"]


def test_a_broken_source_is_named(world: World, tmp_path: Path) -> None:
    """A missing file and a column of another type, by file and column."""
    buyer = world.bundle.view("buyer")
    gone = replace(buyer, source=replace(buyer.source, path=str(tmp_path / "gone.parquet")))
    with pytest.raises(SourceError, match=r"gone\.parquet \(view buyer\)"):
        build(world, tmp_path / "s", bundle=replace(world.bundle, views=(gone, *world.bundle.views[1:])))
    features = tuple(replace(f, column="city") if f.name == "visits" else f for f in buyer.features)
    other = replace(buyer, features=features)
    with pytest.raises(SourceError, match=r"\(view buyer\): column 'city': expected int64, got string"):
        build(world, tmp_path / "s", bundle=replace(world.bundle, views=(other, *world.bundle.views[1:])))
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop_columns("buyer_id"), "buyer_id: column is missing"),
        (lambda t: t.drop_columns("event_timestamp"), "event_timestamp: column is missing"),
        (
            lambda t: t.set_column(1, "event_timestamp", t["event_timestamp"].cast(pa.timestamp("us"))),
            "event_timestamp: expected instants with a time zone",
        ),
        (lambda t: t.set_column(5, "amount", pa.array(["x"] * len(t))), "amount: expected float64, got string"),
    ],
)
def test_asks_that_cannot_be_understood_are_named(world: World, tmp_path: Path, change: Any, said: str) -> None:
    """A missing column, naive instants and a value of another type, before anything is written."""
    with pytest.raises(AskError) as caught:
        build(world, tmp_path / "s", asks=change(world.asks))
    assert str(caught.value).startswith(said)
    assert left(tmp_path) == []


def test_a_label_has_a_name_of_its_own(world: World, tmp_path: Path) -> None:
    """One that is not among the asks, is named twice or is called as another column of the snapshot is refused."""
    with pytest.raises(
        SnapshotError, match="label 'late' is not among the columns of the asks: ask_id, event_timestamp"
    ):
        build(world, tmp_path / "s", labels=["late"])
    with pytest.raises(SnapshotError, match="label 'paid': the snapshot has another column of this name"):
        build(world, tmp_path / "s", labels=["paid", "paid"])
    for name in ("prediction", "buyer__city", "vector"):
        asks = world.asks.append_column(name, pa.array([1.0] * len(world.asks)))
        with pytest.raises(SnapshotError, match=f"label '{name}': the snapshot has another column of this name"):
            build(world, tmp_path / "s", asks=asks, labels=["paid", name])
    assert left(tmp_path) == []


# -- opening ----------------------------------------------------------------------------------------------------------


def spoil(folder: Path, name: str, content: bytes | None) -> None:
    """Replace a file of a snapshot, or remove it."""
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("name", ["manifest.json", "rows.parquet", "bundle.json"])
@pytest.mark.parametrize("kind", ["missing", "empty", "cut off", "another format"])
def test_a_torn_snapshot_is_refused_when_it_is_opened(world: World, tmp_path: Path, name: str, kind: str) -> None:
    """Whichever file is missing or damaged, the error names the folder."""
    build(world, tmp_path / "s")
    content = (tmp_path / "s" / name).read_bytes()
    damaged = {"missing": None, "empty": b"", "cut off": content[: len(content) // 2], "another format": b"[1, 2]"}
    spoil(tmp_path / "s", name, damaged[kind])
    with pytest.raises(SnapshotError, match=f"{tmp_path / 's'}: "):
        load_snapshot(tmp_path / "s")


def test_a_snapshot_of_another_format_says_so(world: World, tmp_path: Path) -> None:
    """The expected and the found format, and a manifest that lacks or has a field too many."""
    build(world, tmp_path / "s")
    file = tmp_path / "s" / "manifest.json"
    sound = json.loads(file.read_text())
    file.write_text(json.dumps(sound | {"format": 99}))
    with pytest.raises(SnapshotError, match="expected snapshot format 2, got 99"):
        load_snapshot(tmp_path / "s")
    for wrong in ({"rule": "guess"}, {"more": 1}):
        file.write_text(json.dumps(sound | wrong))
        with pytest.raises(SnapshotError, match="torn, or written by another version"):
            load_snapshot(tmp_path / "s")
    del sound["rule"]
    file.write_text(json.dumps(sound))
    with pytest.raises(SnapshotError, match="torn, or written by another version: 'rule'"):
        load_snapshot(tmp_path / "s")


def test_parts_of_two_snapshots_are_no_snapshot(world: World, tmp_path: Path) -> None:
    """Rows or definitions that are not those of the manifest are noticed."""
    build(world, tmp_path / "s")
    build(world, tmp_path / "less", asks=world.asks.slice(1))
    build(world, tmp_path / "other", bundle=replace(world.bundle, service="other"))
    for name, source in (("rows.parquet", "less"), ("bundle.json", "other")):
        mine = (tmp_path / "s" / name).read_bytes()
        spoil(tmp_path / "s", name, (tmp_path / source / name).read_bytes())
        with pytest.raises(SnapshotError, match="its manifest is of 120 rows under definitions"):
            load_snapshot(tmp_path / "s")
        spoil(tmp_path / "s", name, mine)
    load_snapshot(tmp_path / "s")


def test_a_folder_that_is_no_snapshot_is_refused(tmp_path: Path) -> None:
    """Nothing there, and a folder without a manifest."""
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(SnapshotError, match=r"expected a snapshot folder with a manifest\.json"):
            load_snapshot(path)
