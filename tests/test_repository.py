import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Int64, String

import skewguard
from skewguard.answer import answer, schema, to_batch
from skewguard.cli import main
from skewguard.contract import contract
from skewguard.errors import AskError, DefinitionError, SkewguardError
from skewguard.offline import Rule
from skewguard.online import Lookup, open_store
from skewguard.policy import Policy
from skewguard.servinglog import ServingLog
from skewguard.snapshot import verify_snapshot
from skewguard.spine import read_spine
from skewguard.transforms import numeric_class
from skewguard.values import Dtype
from skewguard.verdict import Ruling
from skewguard.workflows.repository import Repository, read_entity_df
from tests.loop import MINUTE, Loop, asks_between, at, us

SERVICE = "planes"
YAML = """
project: own
registry: registry.db
provider: local
online_store: {type: sqlite, path: online_store.db}
entity_key_serialization_version: 3
"""


@pytest.fixture(scope="module")
def applied(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain Feast repository of one view over the world's planes, applied."""
    folder = tmp_path_factory.mktemp("feast")
    (folder / "feature_store.yaml").write_text(YAML)
    shutil.copy(loop.root / "plane.parquet", folder / "plane.parquet")
    entity = Entity(name="tail", join_keys=["tail"], value_type=ValueType.STRING)
    source = FileSource(
        name="plane", path=str(folder / "plane.parquet"), timestamp_field="at", created_timestamp_column="known"
    )
    view = FeatureView(
        name="plane", entities=[entity], source=source,
        ttl=timedelta(days=365), schema=[Field(name="tail", dtype=String), Field(name="seats", dtype=Int64)],
        tags=contract(max_lag="60s"),
    )  # fmt: skip
    store = FeatureStore(repo_path=str(folder))
    store.apply([entity, view, FeatureService(name=SERVICE, features=[view])])
    return folder


def test_opening_reads_nothing_until_a_bundle_is_asked_for(tmp_path: Path) -> None:
    """`skewguard.open` is free; a folder without a Feast repository is told when it is needed."""
    repository = skewguard.open(tmp_path)
    assert isinstance(repository, Repository)
    with pytest.raises(DefinitionError, match=r"expected a Feast repository with a feature_store\.yaml"):
        repository.bundle(SERVICE)


def test_a_bundle_is_compiled_from_the_registry_once(applied: Path) -> None:
    """Views, keys, dtypes, TTL, lag and source come from Feast; asked for again it is the same object."""
    repository = skewguard.open(applied)
    bundle = repository.bundle(SERVICE)
    (view,) = bundle.views
    assert (bundle.project, bundle.service, bundle.outputs) == ("own", SERVICE, ("plane__seats",))
    assert (view.ttl_us, view.max_lag_us) == (365 * 24 * 60 * MINUTE, MINUTE)
    assert (view.source.timestamp, view.source.created) == ("at", "known")
    assert bundle.keys == {"tail": Dtype.STRING}
    assert repository.bundle(SERVICE) is bundle


def test_a_service_that_is_not_there_names_those_that_are(applied: Path) -> None:
    """The error names the registry's project and its services."""
    with pytest.raises(DefinitionError, match="'delays' is not in the registry of project 'own'; it has planes"):
        skewguard.open(applied).bundle("delays")


def test_the_whole_way_from_a_repository_to_a_verdict(applied: Path, tmp_path: Path) -> None:
    """Snapshot, materialization, serving and guard hang together: what was served is what training saw."""
    repository = skewguard.open(applied)
    bundle = repository.bundle(SERVICE)
    asks = asks_between(at(13), timedelta(hours=1), 30)
    snapshot = repository.snapshot(SERVICE, asks, label="late", out=tmp_path / "snapshot", id_column="id")
    assert (snapshot.manifest.rows, snapshot.manifest.labels, snapshot.manifest.rule) == (30, ("late",), Rule.KNOWN)
    url = f"sqlite:{tmp_path / 'online.db'}"
    assert repository.materialize(SERVICE, url, known_by=us(at(13))) == {"plane": 10}
    _serve(bundle, url, asks, tmp_path / "log")
    policy = Policy(governs=("*",), minimum_rows=10)
    verdict = repository.guard(tmp_path / "log", snapshot, policy, registered_name="delay", cross_check=30)
    assert verdict.ruling is Ruling.PASS
    assert (verdict.coverage.equal, verdict.coverage.cross_checked) == (30, 30)
    assert verdict.subject.registered_name == "delay"


def test_a_set_from_elsewhere_is_adopted_and_one_as_served_is_built(applied: Path, tmp_path: Path) -> None:
    """`adopt` freezes values as they are given, under the rule that is named; `as_served` is said in the manifest."""
    repository = skewguard.open(applied)
    asks = asks_between(at(13), timedelta(hours=1), 30)
    built = repository.snapshot(SERVICE, asks, label="late", out=tmp_path / "s", id_column="id", as_served=True)
    assert built.manifest.as_served
    given = asks.append_column("plane__seats", built.to_arrow(["plane__seats"])["plane__seats"])
    pq.write_table(given, tmp_path / "train.parquet")
    table_ways = {"path": tmp_path / "train.parquet", "uri": (tmp_path / "train.parquet").as_uri(), "table": given}
    for name, rows in table_ways.items():
        adopted = repository.adopt(
            SERVICE, rows, label="late", out=(tmp_path / name).as_uri(), id_column="id", rule="known"
        )
        assert (adopted.manifest.adopted, adopted.manifest.labels) == ("known", ("late",))
        assert adopted.to_numpy()[0].tobytes() == built.to_numpy()[0].tobytes()
        assert verify_snapshot(skewguard.load_snapshot(tmp_path / name), full=True).same
    x, y = adopted.to_pandas()
    assert (list(x.columns), y.name, len(x)) == (["plane__seats"], "late", len(y))
    assert repository.adopt(SERVICE, given, out=tmp_path / "bare").manifest.adopted == "unknown"


def _serve(bundle: Any, url: str, asks: pa.Table, root: Path) -> None:
    names = ("build", "host", "model_id", "model_digest", "snapshot_id")
    header = dict.fromkeys(names, "") | {
        "evidence": "shadow", "bundle_digest": bundle.digest, "numeric_class": numeric_class(),
    }  # fmt: skip
    spine = read_spine(asks, bundle.keys, {}, id_column="id")
    with ServingLog(root, bundle.service, schema(bundle), header) as log:
        served = answer(bundle, spine, Lookup(bundle, open_store(url)).answer(spine))
        log.append(to_batch(bundle, served, schema(bundle)))


def test_materializing_without_an_instant_publishes_what_is_known_now(applied: Path, tmp_path: Path) -> None:
    """By default the clock says what has become known, and an opened store is taken as it is."""
    repository = skewguard.open(applied)
    store = open_store(f"sqlite:{tmp_path / 'online.db'}")
    assert sum(repository.materialize(SERVICE, store).values()) == 10
    spine = read_spine(asks_between(at(13), timedelta(hours=1), 4), {"tail": Dtype.STRING}, {}, id_column="id")
    assert Lookup(repository.bundle(SERVICE), store).answer(spine)["plane"].features["seats"].values[0] == 100


@pytest.mark.parametrize("kind", ["table", "file", "path text", "frame"])
def test_asks_may_come_as_table_file_or_frame(loop: Loop, tmp_path: Path, kind: str) -> None:
    """An Arrow table, a Parquet file and a pandas frame of the same asks are the same asks."""
    asks = loop.asks.select(["id", "event_timestamp", "tail"]).slice(0, 9)
    pq.write_table(asks, tmp_path / "asks.parquet")
    ways: dict[str, Callable[[], Any]] = {
        "table": lambda: asks,
        "file": lambda: tmp_path / "asks.parquet",
        "path text": lambda: str(tmp_path / "asks.parquet"),
        "frame": asks.to_pandas,
    }
    spine = read_spine(read_entity_df(ways[kind]()), {"tail": Dtype.STRING}, {}, id_column="id")
    assert spine.ids.tolist() == asks["id"].to_pylist()
    assert spine.as_of.tolist() == [us(t) for t in asks["event_timestamp"].to_pylist()]
    assert [spine.keys["tail"].value(i) for i in range(9)] == asks["tail"].to_pylist()


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"tail": ["N1"]}, "expected a pandas frame, an Arrow table or a Parquet file, got dict"),
        ("nowhere.parquet", r"nowhere\.parquet: expected a Parquet file"),
        (Path(__file__), r"test_repository\.py: expected a Parquet file"),
    ],
)
def test_asks_that_cannot_be_read_are_told(what: object, reason: str) -> None:
    """Something else than asks is an error that says what was expected."""
    with pytest.raises(AskError, match=f"^entity_df: .*{reason}"):
        read_entity_df(what)


def test_a_service_is_compiled_from_the_command_line(
    applied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`skewguard bundle` writes the bundle that `open` compiles; an unknown service is exit code 2 and one sentence."""
    out = tmp_path / "planes.bundle.json"
    flags = ["--repo", str(applied), "--bundle", str(out)]
    assert main(["bundle", SERVICE, *flags]) == 0
    bundle = skewguard.load_bundle(out)
    assert bundle == skewguard.open(applied).bundle(SERVICE)
    assert bundle.digest[:16] in capsys.readouterr().out
    assert main(["bundle", "delays", *flags]) == 2
    assert "'delays' is not in the registry" in capsys.readouterr().err
    assert main(["bundle", *flags]) == 2
    assert "service is not set: give SERVICE" in capsys.readouterr().err


def test_the_public_names_are_there_and_no_others() -> None:
    """Everything that the package offers can be had by its name, and a wrong name is an AttributeError."""
    assert all(getattr(skewguard, name) for name in skewguard.__all__)
    assert issubclass(skewguard.Refused, SkewguardError)
    with pytest.raises(AttributeError, match="no attribute 'Guard'"):
        _ = skewguard.Guard
