from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore

from flights import transforms
from skewguard.contract import Contract
from skewguard.transforms import Transform, load, run
from skewguard.values import Column
from tests.flights.conftest import ROOT, apply, copy_repo

VIEWS = {"weather", "tail_departure", "tail_arrival", "origin_congestion", "route", "plane"}
TAIL = "N14228"
MORNING, EVENING = datetime(2013, 3, 10, 11, 15, tzinfo=UTC), datetime(2013, 11, 6, 0, 59, tzinfo=UTC)
ROWS: dict[str, list[Any]] = {
    "sched_dep": [MORNING, EVENING, MORNING],
    "distance": [200.0, 2586.0, 1400.0],
    "carrier": ["UA", "b6 ", "??"],
    "destination": ["SFO", "BQN", "X9"],
    "temp": [50.0, None, 41.0],
    "dewp": [41.5, 30.0, 41.0],
    "wind_dir": [270.0, 10.0, None],
    "wind_speed": [13.8, 0.0, 9.2],
    "wind_gust": [None, None, 25.3],
    "dep_delay": [12, None, -3],
    "arr_delay": [15, 7, None],
    "year": [None, 1998, 2013],
}


@pytest.fixture(scope="module")
def store(applied: Path) -> FeatureStore:
    """Feast's own view of the applied repository: what the registry holds."""
    return FeatureStore(repo_path=str(applied))


def _directly(function: Transform, rows: dict[str, list[Any]]) -> list[Any]:
    inputs = {
        name: Column.from_arrow(pa.array(rows[name], type=dtype.arrow), dtype, name) for name, dtype in function.inputs
    }
    result = run(function, inputs)
    return [result.value(row) for row in range(len(result))]


def test_applying_registers_everything(store: FeatureStore) -> None:
    """`feast -c feature_repo apply` registers the views, both on-demand views and the service."""
    assert {view.name for view in store.list_feature_views()} == VIEWS
    assert {view.name for view in store.list_on_demand_feature_views()} == {"schedule", "conditions"}
    assert [service.name for service in store.list_feature_services()] == ["flight_delay"]


def test_applying_elsewhere_needs_no_data_and_leaves_the_definitions_alone(tmp_path: Path) -> None:
    """`feast -c feature_repo -f other.yaml apply`, with whole paths in the YAML and before any Parquet file exists,
    registers everything where the YAML says and writes nothing beside the definitions."""
    yaml = tmp_path / "feature_store.yaml"
    text = (ROOT / "feature_repo" / "feature_store.yaml").read_text()
    yaml.write_text(text.replace("data/", f"{tmp_path}/"))
    repo = copy_repo(tmp_path / "checkout")
    assert "Created feature service flight_delay" in apply(repo, tmp_path / "nowhere", "-f", str(yaml))
    assert {"registry.db", "online_store.db"} <= {file.name for file in tmp_path.iterdir()}
    assert not (repo / "data").exists()


@pytest.mark.parametrize("name", ["schedule", "conditions"])
def test_an_on_demand_view_from_the_registry_equals_its_transforms(store: FeatureStore, name: str) -> None:
    """The body that Feast rebuilds from the registry's text gives what its functions give, nulls included."""
    view = store.get_on_demand_feature_view(name)
    functions = {load(ref).name: load(ref) for ref in view.tags["skewguard.transforms"].split()}
    assert set(functions) == {field.name for field in view.features}
    asked = {parameter for function in functions.values() for parameter, _ in function.inputs}
    answer = view.transform_arrow(pa.table({column: ROWS[column] for column in asked}))
    for feature, function in functions.items():
        assert answer[feature].to_pylist() == _directly(function, ROWS), feature


@pytest.mark.parametrize("full", [True, False])
def test_feast_online_equals_the_transforms(store: FeatureStore, built: Path, full: bool) -> None:
    """Feast's own online answer, one row found and one not, holds every derived feature under either kind of name."""
    for source, key, value in (
        ("weather", "origin", "EWR"),
        ("plane", "tailnum", TAIL),
        ("tail_departure", "tailnum", TAIL),
        ("tail_arrival", "tailnum", TAIL),
    ):
        table = pq.read_table(built / f"{source}.parquet")
        store.write_to_online_store(source, table.filter(pc.equal(table[key], value)).slice(0, 1).to_pandas())
    brought = {name: ROWS[name][0] for name in ("sched_dep", "distance", "carrier", "destination")}
    asks = [{"origin": o, "dest": "SFO", "tailnum": t} | brought for o, t in (("EWR", TAIL), ("???", "N?"))]
    answer = store.get_online_features(
        store.get_feature_service("flight_delay"), asks, full_feature_names=full
    ).to_dict()
    known = {name.partition("__")[2] or name: values for name, values in answer.items()}
    known |= {name: [value, value] for name, value in brought.items()}
    for view in store.list_on_demand_feature_views():
        for reference in view.tags["skewguard.transforms"].split():
            function = load(reference)
            name = f"{view.name}__{function.name}" if full else function.name
            assert answer[name] == _directly(function, known), name


def test_feast_itself_answers_from_the_sources(store: FeatureStore, built: Path) -> None:
    """get_historical_features works on plain Feast, and its derived features are the transforms of its own inputs."""
    asks = pq.read_table(built / "asks.parquet").slice(280_000, 12)
    keep = ["event_timestamp", "origin", "dest", "tailnum", "sched_dep", "distance", "carrier", "destination"]
    job = store.get_historical_features(
        asks.select(keep).to_pandas(), store.get_feature_service("flight_delay"), full_feature_names=True
    )
    rows = job.to_arrow().to_pydict()
    assert len(rows["origin"]) == 12
    known = {name.partition("__")[2] or name: values for name, values in rows.items()}
    for view in store.list_on_demand_feature_views():
        for reference in view.tags["skewguard.transforms"].split():
            function = load(reference)
            assert rows[f"{view.name}__{function.name}"] == _directly(function, known)


def test_every_range_in_a_contract_is_true_of_the_year(store: FeatureStore, built: Path) -> None:
    """Minimum, maximum and the null rule of each stored feature hold in every row of its source."""
    for view in store.list_feature_views():
        table = pq.read_table(built / f"{view.name}.parquet")
        for field in view.features:
            promised = Contract.from_tags(field.name, view.tags, field.tags)
            least, greatest = pc.min_max(table[field.name]).as_py().values()
            assert promised.minimum is None or promised.minimum <= least, field.name
            assert promised.maximum is None or greatest <= promised.maximum, field.name
            assert promised.null == "allowed" or table[field.name].null_count == 0, field.name
            assert promised.max_lag_us == 60_000_000


def test_the_model_gets_numbers_only(store: FeatureStore) -> None:
    """The service names every numeric feature and every transform, the fitted one in its tags, and not the
    manufacturer."""
    service = store.get_feature_service("flight_delay")
    names = [feature.name for projection in service.feature_view_projections for feature in projection.features]
    kinds = {str(feature.dtype) for projection in service.feature_view_projections for feature in projection.features}
    assert "manufacturer" not in names
    assert kinds == {"Float64", "Int64"}
    fitted = service.tags["skewguard.model_input"].split()
    assert fitted == ["flights.transforms:carrier_delay"]
    names += [reference.partition(":")[2] for reference in fitted]
    assert {value.name for value in vars(transforms).values() if isinstance(value, Transform)} <= set(names)
