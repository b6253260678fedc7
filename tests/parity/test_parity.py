"""The same asks online and offline: identical answers, derived features and vectors, bit for bit, on both stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from skewguard.answer import Served, answer, from_table, schema, to_batch
from skewguard.definitions import load_bundle
from skewguard.online import Lookup, open_store
from skewguard.oracle import brute_force
from skewguard.snapshot import build_snapshot
from skewguard.spine import Spine, ViewRows
from skewguard.values import NO_TIME, Status
from skewguard.workflows.materialize import Publisher
from tests.worlds import HOUR, World, assert_identical, assert_same_bits, shop, with_model_inputs


def moments(world: World) -> Iterator[tuple[int, Spine]]:
    """The asks in time order, those of one instant together."""
    asks = world.spine
    for as_of in np.unique(asks.as_of):
        yield int(as_of), asks.take(np.flatnonzero(asks.as_of == as_of))


def assert_same_answer(world: World, one: Served, other: Served) -> None:
    """Rows, derived features and the vector that enters the model are the same bits."""
    for name in one.views:
        assert_identical(one.views[name], other.views[name])
    for name, column in one.features(world.bundle).items():
        assert_same_bits(column, other.feature(world.bundle, name))
    assert one.vector.tobytes() == other.vector.tobytes()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("lookahead", [0, 3 * HOUR])
def test_what_is_served_is_what_training_saw(store_url: str, tmp_path: Path, seed: int, lookahead: int) -> None:
    """With the store written up to the ask's instant, online and offline give one answer, and so does brute force."""
    world = shop(tmp_path, seed=seed)
    seen: set[int] = set()
    with world.offline() as offline, closing(open_store(store_url)) as store:
        publisher = Publisher(world.bundle, offline, store, lookahead_us=lookahead)
        reader = Lookup(world.bundle, store)
        for known_by, asks in moments(world):
            publisher.advance(known_by)
            online, truth = reader.answer(asks), offline.answer(asks)
            assert {rows.watermark[0] for rows in online.values()} == {known_by}
            assert_same_answer(world, answer(world.bundle, asks, online), answer(world.bundle, asks, truth))
            for view in world.bundle.views:
                assert_identical(online[view.name], brute_force(view, asks))
                seen |= set(online[view.name].status.tolist())
    assert seen == {Status.PRESENT, Status.EXPIRED, Status.NOT_FOUND}


def test_what_is_fitted_is_the_same_on_both_sides(store_url: str, tmp_path: Path) -> None:
    """Model inputs with a snapshot's values: online and offline, one by one and together, and as in the snapshot."""
    world = with_model_inputs(shop(tmp_path, seed=6))
    snapshot = build_snapshot(world.bundle, world.asks, tmp_path / "snapshot", id_column="ask_id")
    fitted = replace(world, bundle=load_bundle(tmp_path / "snapshot" / "bundle.json"))
    (frozen,) = snapshot.served()
    whole = world.spine
    with world.offline() as offline, closing(open_store(store_url)) as store:
        publisher = Publisher(fitted.bundle, offline, store)
        reader = Lookup(fitted.bundle, store)
        for known_by, asks in moments(fitted):
            publisher.advance(known_by)
            online = answer(fitted.bundle, asks, reader.answer(asks))
            assert_same_answer(fitted, online, answer(fitted.bundle, asks, offline.answer(asks)))
            assert_same_answer(fitted, online, _rows(frozen, np.flatnonzero(whole.as_of == known_by)))
            for i in range(len(asks)):
                one = asks.take(np.array([i]))
                alone = answer(fitted.bundle, one, reader.answer(one))
                assert_same_answer(fitted, alone, _rows(online, np.array([i])))
    for spec in fitted.bundle.derived:
        assert not spec.is_model_input or frozen.derived[spec.full_name].present.any()


def test_one_ask_at_a_time_is_answered_as_in_a_batch(store_url: str, tmp_path: Path) -> None:
    """Whoever is asked about beside it, an ask gets the same bits; online, offline, and all asks in one join."""
    world = shop(tmp_path, seed=7)
    whole = world.spine
    with world.offline() as offline, closing(open_store(store_url)) as store:
        everything = answer(world.bundle, whole, offline.answer(whole))
        publisher = Publisher(world.bundle, offline, store)
        reader = Lookup(world.bundle, store)
        for known_by, asks in moments(world):
            publisher.advance(known_by)
            together = answer(world.bundle, asks, reader.answer(asks))
            assert_same_answer(world, together, _rows(everything, np.flatnonzero(whole.as_of == known_by)))
            for i in range(len(asks)):
                row = np.array([i])
                one = asks.take(row)
                alone = answer(world.bundle, one, reader.answer(one))
                assert_same_answer(world, alone, _rows(together, row))


def _rows(served: Served, rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Served:
    return Served(
        served.spine.take(rows),
        {name: view.take(rows) for name, view in served.views.items()},
        {name: column.take(rows) for name, column in served.derived.items()},
        served.vector[rows],
    )


def test_what_is_logged_reads_back_as_it_was_served(store_url: str, tmp_path: Path) -> None:
    """The flat form, through Arrow and back, has the same answer in it, statuses and watermarks included."""
    world = shop(tmp_path, seed=5)
    asks = world.spine
    with world.offline() as offline, closing(open_store(store_url)) as store:
        Publisher(world.bundle, offline, store).advance(int(asks.as_of.max()))
        served = answer(world.bundle, asks, Lookup(world.bundle, store).answer(asks))
    logged = from_table(world.bundle, pa.table(to_batch(world.bundle, served, schema(world.bundle))))
    assert_same_answer(world, served, logged)
    assert logged.spine.ids.tolist() == asks.ids.tolist()
    for name, rows in served.views.items():
        assert logged.views[name].watermark.tolist() == rows.watermark.tolist()


def test_a_writer_that_is_behind_serves_what_was_known_then(store_url: str, tmp_path: Path) -> None:
    """A store written up to an earlier instant answers with the row of that instant, under the ask's own clock."""
    world = shop(tmp_path, seed=3)
    asks = world.spine
    behind = int(np.median(asks.as_of))
    later = asks.take(asks.as_of >= behind)
    with world.offline() as offline, closing(open_store(store_url)) as store:
        Publisher(world.bundle, offline, store).advance(behind)
        online = Lookup(world.bundle, store).answer(later)
        as_known = _as_known(world, later, offline.answer(replace(later, as_of=np.full(len(later), behind))))
    for name, rows in online.items():
        assert rows.event.tolist() == as_known[name].event.tolist()
        assert rows.created.tolist() == as_known[name].created.tolist()
        assert_identical(rows, as_known[name])


def _as_known(world: World, asks: Spine, rows: Mapping[str, ViewRows]) -> dict[str, ViewRows]:
    """The rows that were named then, looked up exactly, at the asks' own instants."""
    with world.offline() as offline:
        return {name: offline.rows(name, asks, one.event, one.created) for name, one in rows.items()}


def test_two_projects_in_one_store_do_not_meet(store_url: str, tmp_path: Path) -> None:
    """The same views under another project are other rows; forgetting one leaves the other's answers."""
    worlds = [shop(tmp_path, seed=seed, project=project) for seed, project in ((1, "shop"), (2, "shop:2"))]
    with closing(open_store(store_url)) as store:
        for world in worlds:
            with world.offline() as offline:
                Publisher(world.bundle, offline, store).advance(int(world.spine.as_of.max()))
        store.clear("shop")
        emptied, kept = (Lookup(world.bundle, store).answer(world.spine) for world in worlds)
        with worlds[1].offline() as offline:
            asks = worlds[1].spine
            latest = asks.take(asks.as_of == asks.as_of.max())
            truth = offline.answer(latest)
    for name, rows in truth.items():
        assert set(emptied[name].status.tolist()) == {Status.NOT_FOUND}
        assert set(emptied[name].watermark.tolist()) == {NO_TIME}
        assert_identical(kept[name].take(asks.as_of == asks.as_of.max()), rows)
