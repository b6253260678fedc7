"""On-demand views that Feast registers: generated bodies, which plain Feast runs to the bits of the runner."""

import importlib
import inspect
import linecache
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RequestSource, ValueType
from feast import types as ft
from feast.cli.cli import cli

import skewguard
from skewguard.contract import contract, unproven
from skewguard.definitions.feast import compile_service
from skewguard.errors import CastError, DefinitionError
from skewguard.transforms import Transform, run, stub
from skewguard.transforms.pool import CORNERS
from skewguard.values import Column, Dtype
from skewguard.workflows.verify import State, verify_repository
from tests import derived_features
from tests.corpus_transforms import bad, good, held_out
from tests.test_proof import GOOD

NOW = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
FEATURES = [value for value in vars(derived_features).values() if isinstance(value, Transform)]
STORED = {
    "buyer": pa.array([1, 2, 3, 4]),
    "amount": pa.array([0.1, -7.25, None, 1e300]),
    "visits": pa.array([3, 0, 2, None]),
    "active": pa.array([True, False, None, False]),
    "city": pa.array(["Zürich", None, "ß", ""]),
    "seen": pa.array([NOW - timedelta(days=d, microseconds=0) for d in range(4)], pa.timestamp("us", "UTC")),
    "event_at": pa.array([NOW] * 4, pa.timestamp("us", "UTC")),
}
ASKED: dict[str, list[Any]] = {
    "asked_for": ["tea ", "", "x", "y"],
    "at": [NOW + timedelta(seconds=s) for s in range(4)],
}
YAML = """
project: shop
provider: local
registry: registry.db
offline_store: {type: duckdb}
online_store: {type: sqlite, path: online.db}
entity_key_serialization_version: 3
"""
TYPES = {
    Dtype.FLOAT64: ft.Float64,
    Dtype.INT64: ft.Int64,
    Dtype.BOOL: ft.Bool,
    Dtype.STRING: ft.String,
    Dtype.TIMESTAMP: ft.UnixTimestamp,
}


def directly(function: Transform, rows: dict[str, list[Any]]) -> list[Any]:
    """What the runner computes, None where there is no value."""
    inputs = {
        name: Column.from_arrow(pa.array(rows[name], type=dtype.arrow), dtype, name) for name, dtype in function.inputs
    }
    result = run(function, inputs)
    return [result.value(row) for row in range(len(result))]


def same(got: list[Any], expected: list[Any], dtype: Dtype) -> bool:
    """Bit for bit, for Feast's own columns (which may come without a type, or with instants of another unit)."""
    one, other = (
        Column.from_arrow(pa.array(v, from_pandas=True).cast(dtype.arrow), dtype, "") for v in (got, expected)
    )
    return one.content() == other.content()


def asked(*functions: Transform) -> RequestSource:
    """A request source with every input of these functions."""
    inputs = dict(pair for function in functions for pair in function.inputs)
    return RequestSource(name="asked", schema=[Field(name=name, dtype=TYPES[dtype]) for name, dtype in inputs.items()])


def opened(folder: Path, *objects: Any) -> FeatureStore:
    """Feast's own store in `folder`, with these objects applied, as another process would open it."""
    (folder / "feature_store.yaml").write_text(YAML)
    FeatureStore(repo_path=str(folder)).apply(list(objects))
    return FeatureStore(repo_path=str(folder))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A repository with one on-demand view over a stored view and a request, applied and materialized."""
    folder = tmp_path_factory.mktemp("shop")
    pq.write_table(pa.table(STORED), folder / "buyers.parquet")
    buyer = Entity(name="buyer", join_keys=["buyer"], value_type=ValueType.INT64)
    kinds = {"amount": ft.Float64, "visits": ft.Int64, "active": ft.Bool, "city": ft.String, "seen": ft.UnixTimestamp}
    source = FileSource(name="buyers", path=str(folder / "buyers.parquet"), timestamp_field="event_at")
    view = FeatureView(
        name="buyer_facts",
        entities=[buyer],
        ttl=timedelta(days=1),
        schema=[Field(name=name, dtype=dtype) for name, dtype in kinds.items()],
        source=source,
    )
    request = RequestSource(
        name="ask", schema=[Field(name="asked_for", dtype=ft.String), Field(name="at", dtype=ft.UnixTimestamp)]
    )
    derived = skewguard.on_demand(
        name="derived", sources=[view, request], functions=FEATURES, tags=contract(owner="shop"), description="All."
    )
    service = FeatureService(name="all", features=[view, derived])
    made = opened(folder, buyer, view, derived, service)
    made.materialize(NOW - timedelta(hours=1), NOW + timedelta(hours=1))
    return made


def online(store: FeatureStore, rows: list[int], full: bool) -> dict[str, list[Any]]:
    """Feast's online answer to some of the stored buyers."""
    asks = [{"buyer": row + 1} | {name: values[row] for name, values in ASKED.items()} for row in rows]
    answer: dict[str, list[Any]] = store.get_online_features(
        store.get_feature_service("all"), asks, full_feature_names=full
    ).to_dict()
    return answer


@pytest.mark.parametrize("full", [False, True])
def test_plain_feast_answers_offline_with_the_runners_bits(store: FeatureStore, full: bool) -> None:
    """get_historical_features, the body rebuilt from the registry: every type, nulls among the rows."""
    entities = pa.table({"buyer": STORED["buyer"], **ASKED, "event_timestamp": STORED["event_at"]}).to_pandas()
    job = store.get_historical_features(entities, store.get_feature_service("all"), full_feature_names=full)
    table = job.to_arrow().sort_by("buyer")
    known = {name.partition("__")[2] or name: table[name].to_pylist() for name in table.column_names}
    for function in FEATURES:
        got = table[f"derived__{function.name}" if full else function.name].to_pylist()
        assert same(got, directly(function, known), function.output), function.name
    assert known["next_visit"] == [4, 1, 3, None]


@pytest.mark.parametrize("full", [False, True])
def test_plain_feast_answers_online_with_the_runners_bits(store: FeatureStore, full: bool) -> None:
    """get_online_features, four rows in one request and each alone: the same bits as the runner's."""
    batch = online(store, [0, 1, 2, 3], full)
    known = {name.partition("__")[2] or name: values for name, values in batch.items()}
    known |= {"at": [at.replace(microsecond=0) for at in ASKED["at"]], "asked_for": ASKED["asked_for"]}
    alone = [online(store, [row], full) for row in range(4)]
    for function in FEATURES:
        name = f"derived__{function.name}" if full else function.name
        expected = directly(function, known)
        assert same(batch[name], expected, function.output), name
        assert same([one[name][0] for one in alone], expected, function.output), name


CORPUS = GOOD


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A view for every good transform of the corpus, applied."""
    views = [skewguard.on_demand(name=f"v_{one.name}", sources=[asked(one)], functions=[one]) for one in CORPUS]
    return opened(tmp_path_factory.mktemp("corpus"), *views)


@pytest.mark.parametrize("function", CORPUS, ids=lambda one: one.name)
def test_every_view_from_the_registry_has_the_runners_bits(corpus: FeatureStore, function: Transform) -> None:
    """Loaded from the registry and run by Feast's own calls, offline in a batch with a null and online row by row."""
    view = corpus.get_on_demand_feature_view(f"v_{function.name}")
    pools = [CORNERS[dtype][:12] for _, dtype in function.inputs]
    rows = [[pool[(row * (i + 1)) % len(pool)] for i, pool in enumerate(pools)] for row in range(12)]
    brought = {name: [row[i] for row in rows] for i, (name, _) in enumerate(function.inputs)}
    table = pa.table({name: pa.array([*brought[name], None], dtype.arrow) for name, dtype in function.inputs})
    offline = view.transform_arrow(table)[function.name].to_pylist()
    assert same(offline, [*directly(function, brought), None], function.output)
    for row in (0, 1, 7):
        ask = {name: values[row] for name, values in brought.items()}
        answer = corpus.get_online_features([f"{view.name}:{function.name}"], [ask]).to_dict()[function.name]
        seconds = {
            name: [value.replace(microsecond=0) if isinstance(value, datetime) else value]
            for name, value in ask.items()
        }
        assert same(answer, directly(function, seconds), function.output)


def test_a_whole_number_that_feast_has_rounded_is_refused(corpus: FeatureStore) -> None:
    """2^53 + 1 beside a null comes as a float from Feast; that is an error, not another number."""
    view = corpus.get_on_demand_feature_view("v_good_divmod")
    (name,) = (name for name, _ in good_input("good_divmod"))
    exact = pa.table({name: pa.array([2**53 + 1])})
    assert view.transform_arrow(exact)["good_divmod"].to_pylist() == directly(held_out.good_divmod, {name: [2**53 + 1]})
    with pytest.raises(CastError, match="whole numbers beside a null over as floats"):
        view.transform_arrow(pa.table({name: pa.array([2**53 + 1, None])}))


def good_input(name: str) -> tuple[tuple[str, Dtype], ...]:
    """The inputs of one of the corpus' transforms."""
    return next(one.inputs for one in CORPUS if one.name == name)


# -- the definition ------------------------------------------------------------------------------------------------


def test_an_ordinary_view_comes_back() -> None:
    """Feast's own class, mode pandas, a field of its type for each function, and the text that is registered."""
    view = skewguard.on_demand(
        name="odd-name", sources=[asked(*FEATURES)], functions=FEATURES, tags=contract(owner="me")
    )
    assert [(field.name, field.dtype) for field in view.features] == [(f.name, TYPES[f.output]) for f in FEATURES]
    assert view.tags["skewguard.owner"] == "me"
    assert view.feature_transformation is not None
    text = view.feature_transformation.udf_string
    assert stub.read("odd-name", text) == {one.reference: stub.identity(one) for one in FEATURES}
    assert stub.read("odd-name", text + "\n") == stub.read("other", text) == {}
    assert view.udf is not None
    assert inspect.getsource(view.udf) == text


def test_an_unproven_transform_stops_the_definition() -> None:
    """`feast apply` runs the definition; it raises the line, the example, and how to waive it until a day."""
    with pytest.raises(DefinitionError, match=r"bad:centred is not proven") as caught:
        skewguard.on_demand(name="v", sources=[asked(bad.centred)], functions=[bad.centred, good.ratio])
    assert "return x - x.mean()" in str(caught.value)
    assert "for example: x=[0.0, 1.0]" in str(caught.value)
    assert any("reads 'a', none of its inputs: x" in one for one in caught.value.complaints)


def test_a_waiver_names_function_reason_and_day() -> None:
    """With it the view is made; expired, or for a function that is not there, it is not."""

    def made(tags: dict[str, str]) -> Any:
        return skewguard.on_demand(name="v", sources=[asked(bad.centred)], functions=[bad.centred], tags=tags)

    later = (datetime.now(UTC) + timedelta(days=9)).date().isoformat()
    view = made(unproven("centred", reason="replaced in spring", expires=later))
    assert view.tags["skewguard.unproven.centred"] == f"{later} replaced in spring"
    with pytest.raises(DefinitionError, match="expired at the end of 2001-01-01"):
        made(unproven("centred", reason="replaced in spring", expires="2001-01-01"))
    with pytest.raises(DefinitionError, match="no function of that name"):
        made(unproven("other", reason="replaced in spring", expires=later))


def test_what_feast_could_not_find_by_name_is_refused() -> None:
    """Undecorated, local and missing functions, two of one name, none at all, and a wrong tag: all at once."""

    @skewguard.transform
    def local(x: float) -> float:
        return x

    with pytest.raises(DefinitionError) as caught:
        skewguard.on_demand(
            name="v",
            sources=[asked(good.clipped)],
            functions=[local, len, "tests.nowhere:f", good.clipped, "tests.corpus_transforms.good:clipped"],  # type: ignore[list-item]
            tags={"skewguard.lag": "1s"},
        )
    text = "\n".join(caught.value.complaints)
    for expected in (
        "<locals>",
        "decorated with @transform",
        "tests.nowhere",
        "two functions are called clipped",
        "lag",
    ):
        assert expected in text
    with pytest.raises(DefinitionError, match="expected at least one function"):
        skewguard.on_demand(name="v", sources=[asked(good.clipped)], functions=[])


# -- feast apply and plan ------------------------------------------------------------------------------------------


FEATURE = """
from skewguard import transform

FACTOR = {factor}


@transform
def changing(x: float) -> float:
    {comment}
    return x * FACTOR
"""
VIEWS = """
from feast import FeatureService, Field, RequestSource
from feast.types import Float64

from changing_features import changing
from skewguard import on_demand

asked = RequestSource(name="asked", schema=[Field(name="x", dtype=Float64)])
view = on_demand(name="view", sources=[asked], functions=[changing])
service = FeatureService(name="service", features=[view])
"""


class Repository:
    """A Feast repository whose one function the tests change, and Feast's own command on it."""

    def __init__(self, folder: Path) -> None:
        self.repo = folder / "repo"
        self.folder = folder
        self.repo.mkdir()
        (self.repo / "feature_store.yaml").write_text(YAML)
        (self.repo / "views.py").write_text(VIEWS)

    def write(self, factor: str = "2.0", comment: str = "# doubled") -> None:
        """The function's module, as it is from now on."""
        (self.folder / "changing_features.py").write_text(FEATURE.format(factor=factor, comment=comment))

    def feast(self, command: str) -> str:
        """What `feast COMMAND` prints, or raises, in this process as if it were a new one."""
        for module in ("views", "changing_features"):
            sys.modules.pop(module, None)
        importlib.invalidate_caches()
        linecache.checkcache()
        ran = CliRunner().invoke(cli, ["-c", str(self.repo), command])
        return ran.output + str(ran.exception or "")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """The repository; its function's module can be imported here too, and is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", [*sys.path])  # Feast's command adds to it, and changes the folder
    monkeypatch.chdir(tmp_path)
    yield Repository(tmp_path)
    for module in ("views", "changing_features"):
        sys.modules.pop(module, None)


def test_a_second_apply_changes_nothing_and_changed_code_does(repository: Repository) -> None:
    """`feast plan` is empty after an apply and after a new comment, shows a constant of the function, and an apply
    with an unproven function is refused."""
    repository.write()
    assert "Created on demand feature view view" in repository.feast("apply")
    repository.write(comment="# said otherwise")
    assert "No changes to registry" in repository.feast("plan")
    repository.write(factor="2.5")
    assert "Updated on demand feature view view" in repository.feast("plan")
    repository.write(comment="x = x - x.mean()")
    refused = repository.feast("apply")
    assert "changing is not proven" in refused
    assert "x = x - x.mean()" in refused


def test_a_body_registered_from_other_code_says_so(repository: Repository) -> None:
    """When it runs, when a bundle is compiled and when the repository is verified: with both identities."""
    repository.write()
    module = importlib.import_module("changing_features")
    view = skewguard.on_demand(name="view", sources=[asked(module.changing)], functions=[module.changing])
    store = opened(repository.repo, view, FeatureService(name="service", features=[view]))
    assert compile_service(repository.repo, "service").outputs == ("view__changing",)
    before = stub.identity(module.changing)
    repository.write(factor="2.5")
    importlib.invalidate_caches()
    after = stub.identity(importlib.reload(module).changing)
    assert before != after
    rebuilt = store.get_on_demand_feature_view("view")
    with pytest.warns(RuntimeWarning, match=f"changing was registered as {before}, the code here is {after}"):
        rebuilt.transform_arrow(pa.table({"x": [1.0]}))
    with warnings.catch_warnings():  # once is enough
        warnings.simplefilter("error")
        assert rebuilt.transform_arrow(pa.table({"x": [1.0]}))["changing"].to_pylist() == [2.5]
    with pytest.raises(DefinitionError, match=f"registered as {before}, the code here is {after}: run `feast apply`"):
        compile_service(repository.repo, "service")


def test_verify_says_which_body_was_registered_from_other_code(repository: Repository) -> None:
    """The function is proven, the view is refused: what Feast serves is not what was registered."""
    repository.write()
    module = importlib.import_module("changing_features")
    view = skewguard.on_demand(name="view", sources=[asked(module.changing)], functions=[module.changing])
    opened(repository.repo, view)
    assert [line.state for line in verify_repository(repository.repo)] == [State.PROVEN]
    repository.write(factor="2.5")
    linecache.checkcache()
    importlib.invalidate_caches()
    importlib.reload(module)
    proven, refused = verify_repository(repository.repo)
    assert (proven.state, refused.state) == (State.PROVEN, State.REFUSED)
    assert "changing was registered as" in refused.why


def test_an_edited_body_is_refused(repository: Repository) -> None:
    """A registered body that is not as it was generated compiles to nothing."""
    repository.write()
    module = importlib.import_module("changing_features")
    view = skewguard.on_demand(name="view", sources=[asked(module.changing)], functions=[module.changing])
    assert view.feature_transformation is not None
    view.feature_transformation.udf_string += "    # edited\n"
    opened(repository.repo, view, FeatureService(name="service", features=[view]))
    with pytest.raises(DefinitionError, match=r"not as skewguard\.on_demand generates it"):
        compile_service(repository.repo, "service")
