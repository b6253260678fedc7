"""Definitions: a Feast registry becomes one bundle, whose digest names all that it means; complaints come at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RequestSource, ValueType
from feast import types as ft
from feast.data_format import DeltaFormat
from feast.on_demand_feature_view import on_demand_feature_view

from skewguard.contract import Contract, contract, model_input, transforms, unproven
from skewguard.definitions import Bundle, Derived, Feature, Key, RequestField, Source, View, load_bundle
from skewguard.definitions.feast import compile_service
from skewguard.errors import DefinitionError
from skewguard.offline import OfflineStore
from skewguard.transforms import fingerprint
from skewguard.values import Dtype
from tests.worlds import (
    HOUR,
    T0,
    bundle,
    column,
    derived,
    greeting,
    plain,
    seen_hour,
    shop,
    spent_per_visit,
    spine,
    stamps,
    write,
)

YAML = """
project: shop
provider: local
registry: registry.db
offline_store: {type: file}
online_store: {type: sqlite, path: online.db}
entity_key_serialization_version: 3
"""

BUYERS = {
    "cust": pa.array([7, 2**53 + 1]),
    "amt": pa.array([1.5, None]),
    "score": pa.array([0.5, 0.25], pa.float32()),
    "visits": pa.array([1, None]),
    "level": pa.array([1, None], pa.int32()),
    "active": pa.array([True, None]),
    "city": pa.array(["Zürich", None]),
    "seen": stamps([T0, None]),
    "tags": pa.array([["a"], None]),
    "ts": stamps([T0, T0]),
    "written": stamps([T0, T0 + 5]),
}
ROADS = {
    "src": pa.array(["a", "b"]),
    "dst": pa.array(["b", "a"]),
    "toll": pa.array([3, 4]),
    "event_at": stamps([T0, T0]),
}
GLOBE = {"rate": pa.array([1.25]), "event_at": stamps([T0])}


def fields(**types: Any) -> list[Field]:
    """A schema."""
    return [Field(name=name, dtype=dtype) for name, dtype in types.items()]


class Repo:
    """A Feast repository in a folder, with sources, entities and three views."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "feature_store.yaml").write_text(YAML)
        self.buyer_id = Entity(name="buyer", join_keys=["buyer_id"], value_type=ValueType.INT64)
        self.src = Entity(name="from", join_keys=["src"], value_type=ValueType.STRING)
        self.dst = Entity(name="to", join_keys=["dst"], value_type=ValueType.STRING)
        self.buyers = FileSource(
            name="buyers",
            path=str(write(folder, BUYERS, name="buyers.parquet")),
            timestamp_field="event_at",
            created_timestamp_column="created_at",
            field_mapping={"cust": "buyer_id", "amt": "spent", "ts": "event_at", "written": "created_at"},
        )
        self.roads = FileSource(
            name="roads", path=str(write(folder, ROADS, name="roads.parquet")), timestamp_field="event_at"
        )
        self.rates = FileSource(
            name="rates", path=str(write(folder, GLOBE, name="globe.parquet")), timestamp_field="event_at"
        )
        self.asked = RequestSource(name="asked", schema=fields(amount=ft.Float64))
        self.buyer = FeatureView(
            name="buyer",
            entities=[self.buyer_id],
            ttl=timedelta(hours=1, microseconds=1),
            schema=[
                Field(name="spent", dtype=ft.Float64, tags=contract(minimum=0, owner="desk")),
                *fields(score=ft.Float32, visits=ft.Int64, level=ft.Int32, active=ft.Bool, city=ft.String),
                *fields(seen=ft.UnixTimestamp, buyer_id=ft.Int64),
            ],
            source=self.buyers,
            tags=contract(max_lag="60s", owner="shop") | {"team": "x"},
        )
        self.road = FeatureView(
            name="road",
            entities=[self.src, self.dst],
            ttl=timedelta(0),
            schema=fields(toll=ft.Int64, src=ft.String, dst=ft.String),
            source=self.roads,
        )
        self.globe = FeatureView(name="globe", entities=[], ttl=None, schema=fields(rate=ft.Float64), source=self.rates)

    def apply(self, *objects: Any) -> None:
        """Register the entities and `objects`."""
        FeatureStore(repo_path=str(self.folder)).apply([self.buyer_id, self.src, self.dst, *objects])

    @cache  # noqa: B019  (a repository lives as long as its test)
    def compile(self, name: str) -> Bundle:
        """The service of that name."""
        return compile_service(self.folder, name)

    def complaints(self, name: str) -> list[str]:
        """What is wrong with it."""
        with pytest.raises(DefinitionError) as caught:
            self.compile(name)
        return caught.value.complaints


def on_demand(name: str, sources: Sequence[Any], schema: Sequence[Field], tags: dict[str, str]) -> Any:
    """An on-demand view whose body, that nobody here runs, returns a constant of each type."""
    kinds: dict[Any, str] = {ft.String: "str", ft.Int64: "int64", ft.Float32: "float32", ft.Float64: "float64"}
    answers = {field.name: np.zeros(1, kinds[field.dtype]) for field in schema}

    def body(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({key: value.repeat(len(inputs)) for key, value in answers.items()})

    body.__name__ = name
    return on_demand_feature_view(sources=list(sources), schema=list(schema), mode="pandas", tags=tags)(body)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A sound repository with several services."""
    made = Repo(tmp_path_factory.mktemp("repo"))
    now = on_demand(
        "now",
        [made.buyer[["spent", "visits", "city", "level", "seen"]], made.asked],
        fields(spent_per_visit=ft.Float32, greeting=ft.String, seen_hour=ft.Float64),
        transforms("tests.worlds:spent_per_visit", "tests.worlds:greeting", "tests.worlds:seen_hour")
        | contract(rtol=0.5),
    )
    back = made.road.with_name("back").with_join_key_map({"src": "dst", "dst": "src"})
    made.apply(
        made.buyer,
        made.road,
        made.globe,
        now,
        FeatureService(name="plain", features=[made.globe, made.buyer[["visits", "spent"]]]),
        FeatureService(name="renamed", features=[made.road.with_join_key_map({"src": "origin"}), back]),
        FeatureService(name="whole", features=[made.buyer[["score"]], now, made.road]),
        FeatureService(name="part", features=[now[["seen_hour"]]]),
    )
    return made


# -- from a registry to a bundle --------------------------------------------------------------------------------------


def test_a_view_is_compiled_with_all_that_the_join_needs(repo: Repo) -> None:
    """Mapped columns, keys, dtypes, TTL to the microsecond, lag, contracts of field over view, the service's order."""
    made = repo.compile("plain")
    promised = Contract(max_lag_us=60_000_000, owner="shop")
    assert made.view("buyer") == View(
        "buyer",
        (Key("cust", "buyer_id", Dtype.INT64, "buyer_id"),),
        (
            Feature("spent", "amt", Dtype.FLOAT64, replace(promised, minimum=0.0, owner="desk")),
            Feature("visits", "visits", Dtype.INT64, promised),
        ),
        HOUR + 1,
        60_000_000,
        Source(str(repo.folder / "buyers.parquet"), "ts", "written"),
    )
    assert (made.project, made.service) == ("shop", "plain")
    assert made.outputs == ("globe__rate", "buyer__visits", "buyer__spent")
    assert made.keys == {"buyer_id": Dtype.INT64}
    assert (made.request, made.derived) == ((), ())


def test_a_view_without_entities_has_no_keys(repo: Repo) -> None:
    """Feast's own dummy key is nobody's to give, and no TTL is none."""
    assert repo.compile("plain").view("globe") == View(
        "globe",
        (),
        (Feature("rate", "rate", Dtype.FLOAT64, Contract()),),
        None,
        0,
        Source(str(repo.folder / "globe.parquet"), "event_at", None),
    )


def test_a_view_may_be_asked_for_twice_under_other_keys(repo: Repo) -> None:
    """A join key map renames what is asked for, an alias the view; a TTL of zero is none, as in Feast."""
    made = repo.compile("renamed")
    assert made.keys == {"dst": Dtype.STRING, "src": Dtype.STRING, "origin": Dtype.STRING}
    assert made.view("road").keys == (Key("dst", "dst", Dtype.STRING), Key("src", "origin", Dtype.STRING))
    assert made.view("back").keys == (Key("dst", "src", Dtype.STRING), Key("src", "dst", Dtype.STRING))
    assert made.view("road").ttl_us is None
    assert [view.feast_name for view in (made.view("road"), made.view("back"))] == ["road", "road"]
    assert made.outputs == ("road__toll", "back__toll")
    keys = {"origin": ["a"], "dst": ["b"], "src": ["a"]}
    with OfflineStore(made.views) as offline:
        got = offline.answer(spine([T0], {name: column(Dtype.STRING, value) for name, value in keys.items()}))
    assert plain(got["road"].features["toll"]) == [3]
    assert plain(got["back"].features["toll"]) == [4]


def test_an_entity_says_that_its_keys_are_hashed_in_the_log(tmp_path: Path) -> None:
    """The bundle names them as an ask calls them, whichever way the view is asked for, and its digest says so."""
    made = Repo(tmp_path)
    services = [
        FeatureService(name="mapped", features=[made.buyer[["spent"]]]),
        FeatureService(name="renamed", features=[made.road.with_join_key_map({"src": "origin"}), made.globe]),
    ]
    made.apply(made.buyer, made.road, made.globe, *services)
    before = compile_service(tmp_path, "renamed")
    assert before.pii == ()
    assert '"pii": []' in before.text()
    made.buyer_id = Entity(name="buyer", join_keys=["buyer_id"], value_type=ValueType.INT64, tags=contract(pii="hash"))
    made.src = Entity(name="from", join_keys=["src"], value_type=ValueType.STRING, tags=contract(pii="hash"))
    made.apply()
    assert compile_service(tmp_path, "mapped").pii == ("buyer_id",)
    after = compile_service(tmp_path, "renamed")
    assert after.pii == ("origin",)
    assert after.digest != before.digest == replace(after, pii=()).digest
    after.save(tmp_path / "b.json")
    assert load_bundle(tmp_path / "b.json") == after


def test_hiding_keys_is_asked_for_of_an_entity_and_in_one_way(tmp_path: Path) -> None:
    """Another word, the tag on a view, or a key that no hash fits into: refused when it is compiled."""
    with pytest.raises(DefinitionError, match="expected hash"):
        contract(pii="mask")  # type: ignore[arg-type]
    made = Repo(tmp_path)
    made.src = Entity(name="from", join_keys=["src"], value_type=ValueType.STRING, tags={"skewguard.pii": "mask"})
    narrow = Entity(name="level", join_keys=["level"], value_type=ValueType.INT32, tags=contract(pii="hash"))
    levels = FeatureView(
        name="levels", entities=[narrow], schema=fields(visits=ft.Int64, level=ft.Int32), source=made.buyers
    )
    told = FeatureView(
        name="told",
        entities=[made.buyer_id],
        schema=fields(visits=ft.Int64, buyer_id=ft.Int64),
        source=made.buyers,
        tags={"skewguard.pii": "hash"},
    )
    made.apply(narrow, levels, told, made.road, FeatureService(name="s", features=[levels, told, made.road]))
    assert sorted(made.complaints("s")) == [
        "entity from: tag skewguard.pii='mask': expected hash",
        "entity level: its key level is int32; only text and int64 keys can be hashed. Declare it so.",
        "feature view told: unknown tag skewguard.pii; it belongs on an Entity",
    ]


def test_an_on_demand_view_brings_its_inputs_along(repo: Repo) -> None:
    """Functions by feature, inputs by full name, the declared dtype, and stored features that nobody asked for."""
    made = repo.compile("whole")
    assert made.request == (RequestField("amount", Dtype.FLOAT64),)
    assert [f.name for f in made.view("buyer").features] == ["city", "level", "score", "seen", "spent", "visits"]
    assert made.outputs == (
        "buyer__score",
        "now__spent_per_visit",
        "now__greeting",
        "now__seen_hour",
        "road__toll",
    )
    assert made.vector == ("buyer__score", "now__spent_per_visit", "now__seen_hour", "road__toll")
    by_name = {one.name: one for one in made.derived}
    assert by_name["greeting"].inputs == ("buyer__city", "buyer__level")
    assert by_name["spent_per_visit"].dtype is Dtype.FLOAT32
    assert by_name["spent_per_visit"].contract == Contract(rtol=0.5)
    assert by_name["seen_hour"].fingerprint == fingerprint(seen_hour)
    assert [function for _, function in made.transforms] == [greeting, seen_hour, spent_per_visit]


def test_some_features_of_an_on_demand_view_bring_all_its_inputs(repo: Repo) -> None:
    """One output asked for, one derived feature; its inputs are the view's."""
    made = repo.compile("part")
    assert [one.full_name for one in made.derived] == ["now__seen_hour"]
    assert made.outputs == ("now__seen_hour",)


def test_a_bundle_is_compiled_the_same_every_time(repo: Repo, tmp_path: Path) -> None:
    """The same definitions, compiled again or applied in another folder, have the same digest."""
    other = Repo(tmp_path)
    other.apply(
        other.globe, other.buyer, FeatureService(name="plain", features=[other.globe, other.buyer[["visits", "spent"]]])
    )
    first, again, moved = repo.compile("plain"), compile_service(repo.folder, "plain"), other.compile("plain")
    assert first == again
    assert first.digest == again.digest == moved.digest
    assert first.views != moved.views


def test_a_relative_source_is_found_from_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the working directory is, a file beside the definitions is meant."""
    made = Repo(tmp_path)
    monkeypatch.chdir(tmp_path)
    source = FileSource(name="r", path="roads.parquet", timestamp_field="event_at")
    road = FeatureView(
        name="road",
        entities=[made.src, made.dst],
        schema=fields(toll=ft.Int64, src=ft.String, dst=ft.String),
        source=source,
    )
    made.apply(road, FeatureService(name="s", features=[road]))
    monkeypatch.chdir("/")
    assert made.compile("s").view("road").source.path == str(tmp_path / "roads.parquet")


# -- complaints -------------------------------------------------------------------------------------------------------


def test_an_unknown_service_is_named_beside_those_that_are_there(repo: Repo, tmp_path: Path) -> None:
    """And where nothing was applied, the error says what to do."""
    (said,) = repo.complaints("nothing")
    assert said.startswith("feature service 'nothing' is not in the registry of project 'shop'; it has ")
    assert {"plain", "renamed", "whole", "part"} <= set(said.partition("it has ")[2].split(", "))
    (said,) = Repo(tmp_path).complaints("plain")
    assert said.endswith("it has none (run `feast apply` first)")


def test_a_folder_without_a_repository_is_refused(tmp_path: Path) -> None:
    """The error names the folder and the file that was expected."""
    with pytest.raises(DefinitionError, match=rf"{tmp_path}: expected a Feast repository with a feature_store\.yaml"):
        compile_service(tmp_path, "plain")


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The complaints about one service in which all is wrong that can be."""
    made = Repo(tmp_path_factory.mktemp("bad"))
    lists = FeatureView(
        name="lists",
        entities=[made.buyer_id],
        schema=fields(tags=ft.Array(ft.String), visits=ft.Int64, spent=ft.String, buyer_id=ft.Int64),
        source=made.buyers,
        tags={"skewguard.max_lag": "soon"},
    )
    delta = FeatureView(
        name="delta",
        entities=[],
        schema=fields(rate=ft.Float64),
        source=FileSource(name="d", path=str(made.folder), file_format=DeltaFormat(), timestamp_field="event_at"),
    )
    wrong = on_demand(
        "wrong",
        [made.buyer[["spent", "visits", "city"]]],
        fields(nameless=ft.Float64, absent=ft.Float64, spent_per_visit=ft.String, city_code=ft.Float64)
        + fields(greeting=ft.String),
        transforms(
            "tests.nowhere:absent",
            "tests.worlds:spent_per_visit",
            "tests.worlds:city_code",
            "tests.worlds:greeting",
        ),
    )
    texts = on_demand("texts", [lists[["spent", "visits"]]], fields(spent_per_visit=ft.Float64), wrong.tags)
    double = on_demand(
        "double",
        [made.buyer[["spent"]], lists[["spent", "visits"]]],
        fields(spent_per_visit=ft.Float64),
        wrong.tags,
    )
    views = [lists, delta, wrong, texts, double]
    made.apply(made.buyer, *views, FeatureService(name="bad", features=views))
    return made.complaints("bad")


@pytest.mark.parametrize(
    "expected",
    [
        "feature view lists: tags: dtype Array(String) of tags is not supported; use Float64",
        "feature view lists: tag skewguard.max_lag='soon': expected a duration such as 45s",
        "feature view delta: expected a FileSource over Parquet",
        "on-demand view wrong: no function for feature 'nameless'; name it in the view's tags",
        "on-demand view wrong: absent: transform 'tests.nowhere:absent': expected module:function, got No module",
        "on-demand view wrong: greeting: parameter 'level' of tests.worlds:greeting is none of spent, ",
        "on-demand view wrong: spent_per_visit: declared string, tests.worlds:spent_per_visit returns float64",
        "on-demand view wrong: city_code: declared float64, tests.worlds:city_code returns int64",
        (
            "on-demand view texts: spent_per_visit: tests.worlds:spent_per_visit(spent): the parameter is annotated "
            "float64, its input is declared string"
        ),
        (
            "on-demand view double: spent_per_visit: parameter 'spent' of tests.worlds:spent_per_visit is several: "
            "buyer__spent, lists__spent; use the full name"
        ),
    ],
)
def test_every_complaint_comes_at_once(bad: list[str], expected: str) -> None:
    """Dtypes, sources, tags, functions, parameters: one compilation names all that is wrong with each."""
    assert any(complaint.startswith(expected) for complaint in bad), "\n".join(bad)


def test_no_complaint_comes_twice(bad: list[str]) -> None:
    """What is wrong with a view is said once, however many features it has."""
    assert sorted(bad) == sorted(set(bad))
    assert sum("'soon'" in complaint for complaint in bad) == 1


def test_a_key_is_of_one_dtype_and_no_request_field(tmp_path: Path) -> None:
    """Two views that call different things by one name, and a request field called as a key."""
    made = Repo(tmp_path)
    keyed = FeatureView(
        name="keyed",
        entities=[made.src],
        schema=fields(toll=ft.Int64, src=ft.String),
        source=made.roads,
    )
    asked = RequestSource(name="also", schema=fields(buyer_id=ft.Int64))
    view = on_demand(
        "now", [made.buyer[["city", "level"]], asked], fields(greeting=ft.String), transforms("tests.worlds:greeting")
    )
    made.apply(
        made.buyer,
        keyed,
        view,
        FeatureService(name="two", features=[made.buyer, keyed.with_join_key_map({"src": "buyer_id"})]),
        FeatureService(name="both", features=[view]),
    )
    assert any("key 'buyer_id' is int64 in one view, string in another" in one for one in made.complaints("two"))
    assert any("buyer_id is both a key and a request field" in one for one in made.complaints("both"))


def test_a_view_under_two_key_maps_needs_two_names(tmp_path: Path) -> None:
    """Asked for twice under one name, one of the two maps would silently win."""
    made = Repo(tmp_path)
    twice = [made.road.with_join_key_map({"src": "origin"}), made.road.with_join_key_map({"src": "start"})]
    made.apply(made.road, FeatureService(name="s", features=twice))
    assert any("road" in one and "with_name" in one for one in made.complaints("s"))


def test_a_key_that_cannot_be_looked_up_is_refused(tmp_path: Path) -> None:
    """Nobody finds a float again."""
    made = Repo(tmp_path)
    weight = Entity(name="weight", join_keys=["amt"], value_type=ValueType.DOUBLE)
    source = FileSource(name="b", path=str(tmp_path / "buyers.parquet"), timestamp_field="ts")
    view = FeatureView(name="weights", entities=[weight], schema=fields(visits=ft.Int64, amt=ft.Float64), source=source)
    made.apply(weight, view, FeatureService(name="s", features=[view]))
    (said,) = made.complaints("s")
    assert said.startswith("feature view weights: key amt is float64")


# -- the bundle -------------------------------------------------------------------------------------------------------


def test_a_bundle_survives_its_file(repo: Repo, tmp_path: Path) -> None:
    """Saved and loaded it is the same bundle, digest included; and no partial file stays."""
    for name in ("plain", "renamed", "whole"):
        made = repo.compile(name)
        made.save(tmp_path / "deep" / f"{name}.json")
        assert load_bundle(tmp_path / "deep" / f"{name}.json") == made
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["plain.json", "renamed.json", "whole.json"]


@pytest.mark.parametrize("content", [None, "", "{", "[]", "7", '{"format": 0}', '{"format": 2}'])
def test_a_file_that_is_no_bundle_is_refused(tmp_path: Path, content: str | None) -> None:
    """Missing, torn, of another format or of another kind: the error names the file."""
    if content is not None:
        (tmp_path / "b.json").write_text(content)
    with pytest.raises(DefinitionError, match=r"bundle"):
        load_bundle(tmp_path / "b.json")


def test_a_bundle_edited_by_hand_is_refused(tmp_path: Path) -> None:
    """Its content no longer has the digest that it names."""
    shop(tmp_path).bundle.save(tmp_path / "b.json")
    data = json.loads((tmp_path / "b.json").read_text())
    data["views"][0]["ttl_us"] = 1
    (tmp_path / "b.json").write_text(json.dumps(data))
    with pytest.raises(DefinitionError, match="It was edited by hand or written by another version; compile it again"):
        load_bundle(tmp_path / "b.json")


def test_the_digest_is_of_what_a_bundle_means(tmp_path: Path) -> None:
    """Where the sources lie does not count; every name, dtype, key, time, contract, function and output does."""
    made = shop(tmp_path).bundle
    buyer = made.view("buyer")
    first = buyer.features[0]

    def of_buyer(**changes: Any) -> Bundle:
        return replace(made, views=(replace(buyer, **changes), *made.views[1:]))

    def of_first(**changes: Any) -> Bundle:
        return of_buyer(features=(replace(first, **changes), *buyer.features[1:]))

    def of_derived(**changes: Any) -> Bundle:
        return replace(made, derived=(replace(made.derived[0], **changes), *made.derived[1:]))

    variants = [
        made,
        replace(made, project="other"),
        replace(made, service="other"),
        replace(made, outputs=made.outputs[::-1]),
        replace(made, request=(RequestField("amount", Dtype.FLOAT32),)),
        of_buyer(ttl_us=None),
        of_buyer(max_lag_us=1),
        of_buyer(keys=(replace(buyer.keys[0], ask="who"),)),
        of_buyer(keys=(replace(buyer.keys[0], column="who"),)),
        of_buyer(source=replace(buyer.source, created=None)),
        of_buyer(source=replace(buyer.source, timestamp="other")),
        of_first(name="other"),
        of_first(column="other"),
        of_first(dtype=Dtype.FLOAT32),
        of_first(contract=Contract(minimum=0.0)),
        of_derived(fingerprint="0" * 32),
        of_derived(inputs=("amount", "buyer__spent")),
        of_derived(dtype=Dtype.FLOAT64),
    ]
    assert len({one.digest for one in variants}) == len(variants)
    moved = of_buyer(source=replace(buyer.source, path="/elsewhere.parquet"))
    assert moved.digest == made.digest
    assert len(made.digest) == 64


def test_sources_may_be_moved_as_a_whole(tmp_path: Path) -> None:
    """Relative paths are taken from a folder; the bundle stays the same in what it means."""
    made = shop(tmp_path).bundle
    relative = replace(
        made,
        views=tuple(replace(v, source=replace(v.source, path=Path(v.source.path).name)) for v in made.views),
    )
    assert relative.with_sources(tmp_path).views == made.views
    assert relative.digest == made.digest


def test_names_lead_to_what_they_name(tmp_path: Path) -> None:
    """Keys, dtypes, contracts, the view behind a stored feature, the numeric outputs."""
    made = shop(tmp_path).bundle
    assert made.keys == {"buyer_id": Dtype.INT64, "dst": Dtype.STRING, "origin": Dtype.STRING}
    assert made.dtypes["buyer__score"] is Dtype.FLOAT32
    assert made.dtypes["now__greeting"] is Dtype.STRING
    assert made.view_of["road__toll"] == "road"
    assert "now__greeting" not in made.view_of
    assert set(made.contracts) == set(made.dtypes)
    assert not {"buyer__city", "buyer__seen", "now__greeting"} & set(made.vector)


def test_code_that_changed_is_refused_with_both_fingerprints() -> None:
    """Every transform whose code is not the bundle's is named at once, with what to do."""
    changed: list[Derived] = [
        replace(derived(name, function, inputs), fingerprint="0" * 32)
        for name, function, inputs in (("a", greeting, ["c", "d"]), ("b", seen_hour, ["e"]))
    ]
    with pytest.raises(DefinitionError) as caught:
        _ = bundle(computed=changed).transforms
    assert len(caught.value.complaints) == 2
    assert f"{'0' * 32}, the code here has {fingerprint(greeting)}" in caught.value.complaints[0]
    assert "Compile the bundle again, or deploy that code." in caught.value.complaints[1]


# -- model inputs -----------------------------------------------------------------------------------------------------


def test_a_service_names_its_model_inputs(repo: Repo) -> None:
    """They wait for a snapshot, read stored and derived features and request fields, and end the vector in their order;
    what the service's tags say counts for them."""
    now = on_demand("hours", [repo.buyer], fields(seen_hour=ft.Float64), transforms("tests.worlds:seen_hour"))
    tags = model_input("tests.worlds:hour_share", "tests.worlds:beyond_usual") | contract(rtol=1e-9, owner="shop")
    repo.apply(repo.buyer, now, FeatureService(name="fitted", features=[repo.buyer[["spent", "city"]], now], tags=tags))
    made = repo.compile("fitted")
    assert made.unfitted == ("model_input__hour_share", "model_input__beyond_usual")
    assert made.vector == ("buyer__spent", "hours__seen_hour", *made.unfitted)
    share, usual = made.derived[-2:]
    assert (share.inputs, usual.inputs) == (("hours__seen_hour",), ("buyer__city", "buyer__spent"))
    assert [(one.parameter, one.function, one.inputs, one.value) for one in usual.fitted] == [
        ("usual", "tests.worlds:usual_spending", ("buyer__city", "buyer__spent"), None)
    ]
    assert (usual.contract.rtol, usual.contract.owner) == (1e-9, "shop")
    assert usual.graph
    assert Bundle.from_json(made.to_json()) == made


def test_what_is_wrong_with_model_inputs_is_said(repo: Repo) -> None:
    """In an on-demand view a fitted argument is refused; in a service a function that is not there, an input that the
    service does not have, and a waiver for nothing."""
    now = on_demand(
        "misfit_now", [repo.buyer], fields(beyond_usual=ft.Float64), transforms("tests.worlds:beyond_usual")
    )
    tags = model_input("tests.worlds:hour_share", "tests.worlds:no") | unproven("x", reason="r", expires="2099-01-01")
    repo.apply(repo.buyer, now, FeatureService(name="misfit", features=[repo.buyer[["spent"]], now], tags=tags))
    said = "\n".join(repo.complaints("misfit"))
    assert "beyond_usual has fitted arguments, and Feast runs this view before there is a snapshot" in said
    assert "model input tests.worlds:hour_share: parameter 'seen_hour' is none of" in said
    assert "model input tests.worlds:no: transform 'tests.worlds:no'" in said
    assert "feature service misfit: a tag takes 'x' unproven, but no model input of that name is there" in said
