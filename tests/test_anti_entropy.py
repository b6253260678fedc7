"""Anti-entropy: every key that deviates is named, none that does not, and healing writes just these."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewguard.cli import main
from skewguard.definitions import Bundle
from skewguard.errors import DefinitionError, LayoutError, StoreUnavailable
from skewguard.offline import OfflineStore
from skewguard.online import Layout, open_store, pack
from skewguard.online.keys import row_key, values_of
from skewguard.online.store import UNANSWERED, KeptStore
from skewguard.values import Dtype
from skewguard.workflows import anti_entropy
from skewguard.workflows.anti_entropy import Deviates, Reconciled, reconcile
from skewguard.workflows.heal import heal
from skewguard.workflows.materialize import materialize
from tests.worlds import CREATED, EVENT, HOUR, MINUTE, T0, bundle, column, stamps, view, write

KEYS = 20_000
KNOWN_BY = T0 + HOUR


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """20,000 users of two versions each, and a view of one row."""
    folder = tmp_path_factory.mktemp("users")
    ids = np.tile(np.arange(KEYS), 2)
    late = np.repeat([0, 10 * MINUTE], KEYS)
    path = write(
        folder,
        {
            "user": pa.array(ids),
            "land": pa.array([f"l{i % 7}" for i in ids]),
            EVENT: stamps((T0 + late).tolist()),
            CREATED: stamps((T0 + late + MINUTE).tolist()),
            "score": pa.array(np.where(ids % 10 == 3, np.nan, ids / 8 + late)),
            "name": pa.array([f"n{i}" for i in ids]),
        },
    )
    rate = write(folder, {EVENT: stamps([T0]), CREATED: stamps([T0]), "rate": pa.array([1.5])})
    return bundle(
        view("user", path, {"user": Dtype.INT64, "land": Dtype.STRING}, {"score": Dtype.FLOAT64, "name": Dtype.STRING}),
        view("rate", rate, {}, {"rate": Dtype.FLOAT64}),
    )


@pytest.fixture
def store(world: Bundle, store_url: str) -> Iterator[KeptStore]:
    """A store of each kind, written up to the hour."""
    with closing(open_store(store_url)) as store, OfflineStore(world.views) as offline:
        materialize(world, offline, store, KNOWN_BY)
        yield store


def key(world: Bundle, user: int) -> bytes:
    """Where a user's row stands."""
    values = {"user": user, "land": f"l{user % 7}"}
    return row_key(world.project, world.views[0], [values[one.column] for one in world.views[0].keys])


def packed(world: Bundle, event: int, score: float, *, available: int = KNOWN_BY) -> bytes:
    """A row of the view of users."""
    times = np.array([event]), np.array([event + MINUTE])
    columns = [column(Dtype.FLOAT64, [score]), column(Dtype.STRING, ["n"])]
    return pack(Layout.of(world.views[0]), *times, available, columns)[0]


def put(store: KeptStore, rows: Mapping[bytes, bytes]) -> None:
    """Rows in the place of what stands there, whatever its time."""
    store.delete(list(rows))
    store.write(list(rows.items()), {})


def users(found: Reconciled, kind: Deviates) -> set[int]:
    """The users that are named as deviating in this way."""
    return {int(value) for one in found.named if one.kind is kind for value in one.values if isinstance(value, int)}


def looked(world: Bundle, store: KeptStore, limit: int = 1000) -> dict[str, Reconciled]:
    """Every view, reconciled."""
    with OfflineStore(world.views) as offline:
        return {one.view: one for one in reconcile(world, offline, store, limit=limit)}


def break_some(world: Bundle, store: KeptStore) -> dict[Deviates, set[int]]:
    """37 keys dropped, and some of every other kind; who they are."""
    chosen = np.random.default_rng(7).permutation(KEYS)
    parts = [set(chosen[a:b].tolist()) for a, b in ((0, 37), (37, 50), (50, 61))]
    missing, stale, different = parts
    store.delete([key(world, user) for user in missing])
    put(store, {key(world, user): packed(world, T0, user / 8) for user in stale})
    put(store, {key(world, user): packed(world, T0 + 10 * MINUTE, -1.0) for user in different})
    put(store, {key(world, user): packed(world, T0, 0.0) for user in (KEYS, KEYS + 1)})
    return {
        Deviates.MISSING: missing,
        Deviates.STALE: stale,
        Deviates.DIFFERENT: different,
        Deviates.EXTRA: {KEYS, KEYS + 1},
    }


def test_a_store_that_was_written_deviates_nowhere(world: Bundle, store: KeptStore) -> None:
    """Every key is compared, and nothing is named."""
    found = looked(world, store)
    assert (found["user"].keys, found["user"].stored, found["user"].deviating) == (KEYS, KEYS, 0)
    assert (found["rate"].keys, found["rate"].deviating) == (1, 0)


def test_exactly_the_keys_that_deviate_are_named_and_healed(world: Bundle, store: KeptStore) -> None:
    """37 dropped, 13 stale, 11 altered and 2 extra keys: all of them, nobody else; healing leaves the extra ones."""
    broken = break_some(world, store)
    found = looked(world, store)["user"]
    assert {kind: users(found, kind) for kind in Deviates} == broken
    assert (found.missing, found.stale, found.different, found.extra) == (37, 13, 11, 2)
    with OfflineStore(world.views) as offline:
        healed = heal(world, offline, store)
        assert (healed.written, healed.deleted, healed.left) == (61, 0, 2)
        again = looked(world, store)["user"]
        assert (again.deviating, users(again, Deviates.EXTRA)) == (2, {KEYS, KEYS + 1})
        assert heal(world, offline, store, take_away=True).deleted == 2
    assert looked(world, store)["user"].deviating == 0


def test_rows_are_looked_at_in_groups(world: Bundle, store: KeptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few rows are held at once, the same keys are named; of those at most as many as asked for."""
    broken = break_some(world, store)
    monkeypatch.setattr(anti_entropy, "ROWS_AT_ONCE", 8)
    assert {kind: users(looked(world, store)["user"], kind) for kind in Deviates} == broken
    few = looked(world, store, limit=5)["user"]
    assert (len(few.named), few.deviating) == (5, 63)


def test_what_a_writer_has_just_published_is_on_its_way(world: Bundle, store: KeptStore) -> None:
    """A newer row that was written beyond the watermark is no deviation; one that nobody published is."""
    later, lie = T0 + 2 * HOUR, T0 + 3 * HOUR
    put(store, {key(world, 5): packed(world, later, 1.0, available=later), key(world, 6): packed(world, lie, 1.0)})
    found = looked(world, store)["user"]
    assert (found.moving, found.deviating, users(found, Deviates.DIFFERENT)) == (1, 1, {6})
    with OfflineStore(world.views) as offline:
        assert heal(world, offline, store).left == 1
        assert heal(world, offline, store, take_away=True).left == 0


def test_bytes_that_nothing_explains_are_different(world: Bundle, store: KeptStore) -> None:
    """A torn row is named, and healed."""
    put(store, {key(world, 8): b"torn", key(world, 9): b"\x01" + b"?" * 60})
    assert users(looked(world, store)["user"], Deviates.DIFFERENT) == {8, 9}
    with OfflineStore(world.views) as offline:
        assert heal(world, offline, store, take_away=True).left == 0
    assert looked(world, store)["user"].deviating == 0


def test_rows_of_another_order_of_features_are_equal(world: Bundle, store: KeptStore) -> None:
    """Another layout that says the same of every feature deviates nowhere."""
    user, rate = world.views
    turned = replace(user, features=user.features[::-1])
    assert Layout.of(turned).digest != Layout.of(user).digest
    assert looked(bundle(turned, rate), store)["user"].deviating == 0


def test_a_view_that_was_never_written_is_unknown(world: Bundle, tmp_path: Path) -> None:
    """No watermark promises anything: nothing was compared."""
    with closing(open_store(f"sqlite:{tmp_path / 'empty.db'}")) as store:
        assert [one.examined for one in looked(world, store).values()] == [False, False]


class _Partly:
    """A store of which a part is gone."""

    def __init__(self, store: KeptStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [UNANSWERED if number == 7 else row for number, row in enumerate(self._store.mget(keys))]


def test_a_part_that_does_not_answer_is_not_missing(world: Bundle, store: KeptStore) -> None:
    """What could not be asked for is an error, never a deviation."""
    with pytest.raises(StoreUnavailable, match="a part does not answer"):
        looked(world, _Partly(store))  # type: ignore[arg-type]


def test_a_view_that_the_bundle_lacks_is_an_error(world: Bundle, store: KeptStore) -> None:
    """It says which views there are."""
    with OfflineStore(world.views) as offline, pytest.raises(DefinitionError, match="no view users; it has user, rate"):
        reconcile(world, offline, store, views=["users"])


def test_a_key_says_whose_it_is(world: Bundle) -> None:
    """The values come back from a row's key, and no other key passes for one."""
    user = world.views[0]
    for values in (["l}{3", -(2**60)], ["ä", 0]):
        ordered = values if user.keys[0].dtype is Dtype.STRING else values[::-1]
        assert list(values_of(world.project, user, row_key(world.project, user, ordered))) == ordered
    for other in (b"", key(world, 3)[:-1], key(world, 3) + b"x"):
        with pytest.raises(LayoutError, match="expected the key of a row"):
            values_of(world.project, user, other)


def test_the_commands_say_what_deviates_and_heal_it(
    world: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1 with the keys by name; a dry run writes nothing; after healing exit 0; a store never written is 3."""
    url = f"sqlite:{tmp_path / 'online.db'}"
    world.save(tmp_path / "checkout.bundle.json")
    given = ["--bundle", str(tmp_path / "checkout.bundle.json"), "--store", url]
    assert main(["reconcile", *given]) == 3
    assert "never written" in capsys.readouterr().out
    with closing(open_store(url)) as store, OfflineStore(world.views) as offline:
        materialize(world, offline, store, KNOWN_BY)
        store.delete([key(world, user) for user in (11, 12)])
    assert main(["reconcile", *given]) == 1
    shown = capsys.readouterr().out
    assert "user: 2 of 20,000 keys deviate: 2 missing" in shown
    assert "user 11" in shown
    assert main(["heal", "--dry-run", "--json", "--view", "user", *given]) == 1
    (told,) = json.loads(capsys.readouterr().out)["views"]
    assert sorted(one["keys"]["user"] for one in told["named"]) == [11, 12]
    assert main(["heal", *given]) == 0
    assert "written 2, deleted 0, left 0" in capsys.readouterr().out
    assert main(["reconcile", "--limit", "0", *given]) == 0


def test_the_sources_are_only_read(world: Bundle, store: KeptStore) -> None:
    """Reconciling writes nothing, neither here nor there."""
    path = Path(world.views[0].source.path)
    before = path.stat().st_mtime_ns, pq.read_metadata(path).num_rows
    break_some(world, store)
    keys = sorted(one for page in store.keys(b"sg2") for one in page)
    rows = store.mget(keys)
    looked(world, store)
    assert sorted({one for page in store.keys(b"sg2") for one in page}) == keys
    assert store.mget(keys) == rows
    assert (path.stat().st_mtime_ns, pq.read_metadata(path).num_rows) == before


def test_the_benchmark_names_exactly_what_it_spoiled(capsys: pytest.CaptureFixture[str]) -> None:
    """At a size at which its seconds mean nothing."""
    from benchmarks.anti_entropy import main as benchmark

    assert benchmark(["--keys", "500", "--only", "sqlite"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["sqlite"]["wrong"], last["sqlite"]["left"]) == (0, 0)
