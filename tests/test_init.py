"""`skewguard init`, and the afternoon of docs/adopt.md on the repository that `feast init` makes."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore
from feast.repo_operations import init_repo, parse_repo

from skewguard import cli
from skewguard.contract import Contract, contract
from skewguard.definitions import Feature, Key, Source, View
from skewguard.policy import Mode, load_policy
from skewguard.values import Dtype
from skewguard.workflows.init import duration, initialise, propose
from skewguard.workflows.project import load_project
from tests import stock_repos as stock

ADOPT = Path(__file__).resolve().parents[1] / "docs" / "adopt.md"
SERVICE = (
    '\ndriver_stats = FeatureService(name="driver_stats", features=[driver_stats_fv[["conv_rate", "acc_rate"]]])\n'
)
NOW = datetime(2026, 1, 10, tzinfo=UTC)


def view(**kinds: Dtype) -> View:
    """A view of these features over a file that nobody reads."""
    features = tuple(Feature(name, name, kind, Contract()) for name, kind in kinds.items())
    return View("v", (Key("k", "k", Dtype.INT64),), features, None, 0, Source("a.parquet", "event", "created"))


def test_contracts_are_inferred_from_the_rows() -> None:
    """Nulls, ranges with a tenth to spare, vocabularies, and how late rows become known."""
    n = 200
    event = [NOW + timedelta(minutes=i) for i in range(n)]
    table = pa.table(
        {
            "x": pa.array([float(i) for i in range(n)]),
            "gaps": pa.array([None if i % 9 == 0 else -5 + i for i in range(n)]),
            "word": pa.array(["a", "b"] * (n // 2)),
            "name": pa.array([f"name {i}" for i in range(n)]),
            "event": pa.array(event, stock.STAMP),
            "created": pa.array([at + timedelta(seconds=90) for at in event], stock.STAMP),
        }
    )
    declared = view(x=Dtype.FLOAT64, gaps=Dtype.INT64, word=Dtype.STRING, name=Dtype.STRING)
    found = {one.feature: dict(one.arguments) for one in propose(declared, table, {})}
    assert found[""] == {"max_lag": "90s"}
    assert found["x"] == {"null": "refused", "minimum": 0.0, "maximum": 219.0}
    assert "null" not in found["gaps"]
    assert found["gaps"]["minimum"] < -4
    assert found["word"] == {"null": "refused", "values": ("a", "b")}
    assert found["name"] == {"null": "refused"}
    for arguments in found.values():
        assert contract(**arguments)
    served = propose(declared, table, {"x": pa.array([-10.0, 500.0])})
    assert {one.feature: dict(one.arguments) for one in served}["x"]["maximum"] > 500


def test_too_few_rows_promise_nothing() -> None:
    """No evidence, no contract."""
    few = pa.table({"x": [1.0], "event": pa.array([NOW], stock.STAMP), "created": pa.array([NOW], stock.STAMP)})
    assert propose(view(x=Dtype.FLOAT64), few, {}) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "1s"), (119, "119s"), (120, "2m"), (7_200, "2h"), (90_000, "25h"), (172_800, "2d")]
)
def test_a_duration_is_written_as_people_write_it(seconds: int, text: str) -> None:
    """At least as long, in the largest unit of which it has two."""
    assert duration(seconds) == text


def test_three_files_are_written_and_none_over_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Python that compiles, a policy that observes, settings that load; a second run says what is there."""
    folder = stock.clean(tmp_path)
    capsys.readouterr()  # Feast tells of its materialization
    assert cli.main(["init", "--repo", str(folder), "--feature-service", "svc", "--json"]) == 0
    assert [Path(file).name for file in json.loads(capsys.readouterr().out)["files"]] == [
        "contracts_proposal.py",
        "policy.toml",
        "skewguard.toml",
    ]
    ast.parse((folder / "contracts_proposal.py").read_text())
    policy = load_policy(folder / "policy.toml")
    assert policy.mode is Mode.OBSERVE
    assert policy.governs_model("svc")
    assert load_project(folder, environ={}).service == "svc"
    (folder / "policy.toml").write_text("mine")
    (folder / "skewguard.toml").unlink()
    again = initialise(folder, "svc")
    assert [Path(file).name for file in again.files] == ["skewguard.toml"]
    assert (folder / "policy.toml").read_text() == "mine"
    assert any("stays as it is" in note for note in again.notes)
    assert tomllib.loads((folder / "skewguard.toml").read_text())["skewguard"]["policy"] == "policy.toml"


def test_no_repository_is_exit_2(tmp_path: Path) -> None:
    """Nothing is written where there is nothing to read."""
    assert cli.main(["init", "--repo", str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []


# -- the afternoon ----------------------------------------------------------------------------------------------------


def shown() -> list[list[str]]:
    """Every command of skewguard on the page, in order."""
    blocks = re.findall(r"```console\n(.*?)```", ADOPT.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("$ skewguard ")]
    return [shlex.split(line)[2:] for line in lines]


def shop(folder: Path) -> Path:
    """What `feast init shop` makes, with the page's service."""
    init_repo("shop", "local", str(folder / "shop"))
    repo = folder / "shop" / "feature_repo"
    definitions = repo / "feature_definitions.py"
    definitions.write_text(definitions.read_text() + SERVICE)
    return repo


def applied(repo: Path) -> None:
    """`feast apply` and `feast materialize`, then what the page's later commands read."""
    store = FeatureStore(repo_path=str(repo))
    found = parse_repo(repo)
    store.apply([*found.entities, *found.feature_views, *found.on_demand_feature_views, *found.feature_services])
    rows = pq.read_table(repo / "data" / "driver_stats.parquet").to_pandas()
    newest = rows["event_timestamp"].max().to_pydatetime()
    store.materialize(newest - timedelta(days=1), newest + timedelta(minutes=1), feature_views=["driver_hourly_stats"])
    last = rows.sort_values("event_timestamp").tail(40)
    asks = pa.Table.from_pandas(last[["driver_id", "event_timestamp", "conv_rate", "acc_rate"]], preserve_index=False)
    at = asks.column_names.index("event_timestamp")
    asks = asks.set_column(at, "event_timestamp", asks["event_timestamp"].cast(stock.STAMP))
    late = pa.array([i % 2 for i in range(len(asks))])
    pq.write_table(asks.select(["driver_id", "event_timestamp"]).append_column("late", late), repo / "labels.parquet")
    pq.write_table(asks.append_column("score", pa.array([0.5] * len(asks))), repo / "served.parquet")


@pytest.mark.filterwarnings("ignore")
def test_the_afternoon_works_on_the_repository_of_feast_init(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's commands, one after the other, in the folder with feature_store.yaml."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        repo = shop(tmp_path)
        monkeypatch.chdir(repo)
        monkeypatch.syspath_prepend(str(repo))
        applied(repo)
    commands = shown()
    assert [words[0] for words in commands] == ["doctor", "init", "bundle", "snapshot", "log", "guard"]
    codes = []
    for words in commands:
        codes.append(cli.main(words))
        out = capsys.readouterr()
        assert "Traceback" not in out.err
        if words[0] == "doctor":
            assert "driver_hourly_stats" in out.out
        if words[0] == "guard":
            assert any(ruling in out.out for ruling in ("FAIL", "UNKNOWN"))
    assert codes[:-1] == [1, 0, 0, 0, 0]
    assert codes[-1] in (1, 3)
    assert (repo / "skew.html").is_file()
