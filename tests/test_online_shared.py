"""One view, many names: services that share or rename a Feast view read rows that are stored once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

from skewguard.definitions.feast import compile_service
from skewguard.errors import DefinitionError
from skewguard.offline import OfflineStore
from skewguard.online import Lookup, open_store
from skewguard.online.keys import row_key, row_keys, values_of, view_prefix
from skewguard.values import Dtype
from skewguard.workflows.anti_entropy import reconcile
from skewguard.workflows.heal import heal
from skewguard.workflows.materialize import Publisher, materialize
from tests.feast_online import HOUR, NOW, repositories
from tests.worlds import column, plain, spine, statuses

NOW_US = round(NOW.timestamp()) * 1_000_000
PLACES = ["JFK", "SFO", "BOS"]
STATION = Entity(name="station", join_keys=["station"], value_type=ValueType.STRING)


@pytest.fixture
def build(tmp_path: Path, store_url: str) -> Iterator[Any]:
    """Opens a repository on a store of each kind in turn."""
    with repositories(tmp_path, store_url) as opened:
        yield opened


def weather(folder: Path) -> FeatureView:
    """Two features of three places, one of which was measured too long ago."""
    at = pa.array([NOW - HOUR, NOW - HOUR, NOW - 9 * HOUR], pa.timestamp("us", tz="UTC"))
    pq.write_table(
        pa.table({"station": PLACES, "at": at, "wind": [1.5, 2.5, 9.5], "gust": [3, 4, 5]}), folder / "w.parquet"
    )
    fields = [Field(name="wind", dtype=Float64), Field(name="gust", dtype=Int64)]
    source = FileSource(path=str(folder / "w.parquet"), timestamp_field="at")
    return FeatureView(name="weather", entities=[STATION], ttl=3 * HOUR, schema=fields, source=source)


def applied(build: Any, folder: Path, **more: Any) -> FeatureStore:
    """Services that read the weather at both ends of a flight, and one that reads it under its own name."""
    view = weather(folder)
    start = view.with_name("start").with_join_key_map({"station": "origin"})
    end = view[["wind"]].with_name("end").with_join_key_map({"station": "dest"})
    store: FeatureStore = build(
        STATION,
        view,
        FeatureService(name="both", features=[start, end]),
        FeatureService(name="plain", features=[view]),
        FeatureService(name="half", features=[view[["gust"]].with_name("start"), view[["wind"]].with_name("end")]),
        FeatureService(name="gusts", features=[view[["gust"]]]),
        **more,
    )
    (folder / "feature_store.yaml").write_text(
        f"project: shop\nregistry: {store.config.registry.path}\nprovider: local\n"
    )
    return store


@pytest.mark.parametrize("writer", ["engine", "feast", "publisher", "other service"])
def test_a_renamed_view_is_stored_once_and_read_by_every_name(
    build: Any, tmp_path: Path, store_url: str, writer: str
) -> None:
    """Whoever wrote the rows, Feast and the lookup give the same answers under both names, from one row per key."""
    feast = applied(build, tmp_path, engine="local" if writer == "feast" else None)
    both, own = compile_service(tmp_path, "both"), compile_service(tmp_path, "plain")
    with closing(open_store(store_url)) as store:
        if writer in ("engine", "feast"):
            feast.materialize(NOW - 24 * HOUR, NOW)
        else:
            made = both if writer == "publisher" else own
            with OfflineStore(made.views) as offline:
                assert materialize(made, offline, store, NOW_US) == {"weather": 3}
        assert sum(len(page) for page in store.keys(view_prefix("shop", ""))) == 0
        assert sum(len(page) for page in store.keys(view_prefix("shop", "weather"))) == 3
        places = {"origin": ["JFK", "BOS", "JFK", "LAX"], "dest": ["SFO", "JFK", "JFK", "SFO"]}
        keys = {name: column(Dtype.STRING, values) for name, values in places.items()}
        lookup = Lookup(both, store)
        got = lookup.answer(spine([NOW_US] * 4, keys))
        if writer != "feast":  # whose engine knows no watermarks
            lookup.ready()
        assert statuses(got["start"]) == ["present", "expired", "present", "not_found"]
        assert plain(got["start"].features["gust"]) == [3, None, 3, None]
        assert plain(got["end"].features["wind"]) == [2.5, 1.5, 1.5, 2.5]
        rows = [{"origin": a, "dest": b} for a, b in zip(*places.values(), strict=True)]
        theirs = feast.get_online_features(
            features=feast.get_feature_service("both"), entity_rows=rows, full_feature_names=True
        ).to_dict()
        for name in ("start__gust", "start__wind", "end__wind"):
            view, _, feature = name.partition("__")
            assert plain(got[view].features[feature]) == theirs[name], name


def test_names_that_share_no_whole_view_are_refused(build: Any, tmp_path: Path, store_url: str) -> None:
    """Of two names with different features whoever writes last would take the other's away: nothing is written."""
    applied(build, tmp_path)
    half = compile_service(tmp_path, "half")
    with (
        closing(open_store(store_url)) as store,
        OfflineStore(half.views) as offline,
        pytest.raises(DefinitionError, match=r"view weather is used as end, start, .* lacks (gust|wind)"),
    ):
        Publisher(half, offline, store)


def test_a_service_with_fewer_features_heals_nothing(build: Any, tmp_path: Path, store_url: str) -> None:
    """Rows that it would write lack what another service reads; with the whole view the healing goes on."""
    applied(build, tmp_path).materialize(NOW - 24 * HOUR, NOW)
    gusts, both = compile_service(tmp_path, "gusts"), compile_service(tmp_path, "both")
    with closing(open_store(store_url)) as store:
        (first, *_) = next(iter(store.keys(view_prefix("shop", "weather"))))
        store.delete([first])
        with (
            OfflineStore(gusts.views) as offline,
            pytest.raises(DefinitionError, match=r"also has wind .* gusts lacks"),
        ):
            heal(gusts, offline, store)
        with OfflineStore(both.views) as offline:
            (found,) = reconcile(both, offline, store)
            assert (found.missing, found.deviating) == (1, 1)
            assert [one.missing for one in reconcile(both, offline, store, views={"end"})] == [1]
            assert heal(both, offline, store).written == 1
            assert heal(both, offline, store, views={"weather"}).written == 0


def test_keys_and_values_are_those_of_the_view_itself(build: Any, tmp_path: Path) -> None:
    """Under whatever name: one row's key, many rows' keys, and the way back, by which a person is erased."""
    applied(build, tmp_path)
    (own,), both = compile_service(tmp_path, "plain").views, compile_service(tmp_path, "both").views
    for view in both:
        key = row_key("shop", view, ["JFK"])
        assert key == row_key("shop", own, ["JFK"])
        assert row_keys("shop", view, [column(Dtype.STRING, ["JFK", None])]) == [key, None]
        assert values_of("shop", view, key) == ("JFK",)


def test_only_may_say_either_name(build: Any, tmp_path: Path, store_url: str) -> None:
    """A publisher that follows some views knows them by the service's name and by Feast's."""
    applied(build, tmp_path)
    both = compile_service(tmp_path, "both")
    with closing(open_store(store_url)) as store, OfflineStore(both.views) as offline:
        assert Publisher(both, offline, store).advance(NOW_US, only={"nothing"}) == {}
        assert Publisher(both, offline, store).advance(NOW_US, only={"end"}) == {"weather": 3}
        assert Publisher(both, offline, store).advance(NOW_US + 1, only={"weather"}) == {"weather": 0}
