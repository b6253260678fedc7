"""`skewguard verify`, and which transforms a bundle takes."""

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from skewguard.cli import main
from skewguard.contract import Contract, unproven
from skewguard.definitions import Bundle, Derived, load_bundle
from skewguard.definitions.proof import admit, waivers
from skewguard.errors import DefinitionError
from skewguard.transforms import fingerprint, golden, load, prove
from skewguard.values import Dtype
from skewguard.workflows.verify import OnDemand, State, verify

GOOD, BAD = "tests.corpus_transforms.good:ratio", "tests.corpus_transforms.bad:centred"
TODAY = datetime.now(UTC).date()
LATER, EARLIER = (TODAY + timedelta(days=30)).isoformat(), (TODAY - timedelta(days=1)).isoformat()
ROOT = Path(__file__).resolve().parents[1]


def derived(reference: str) -> Derived:
    """A derived feature of that function, as it is before its checks."""
    function = load(reference)
    inputs = tuple(name for name, _ in function.inputs)
    return Derived(function.name, "view", reference, inputs, Dtype.FLOAT64, Contract(), fingerprint(function))


def bundle(*references: str) -> Bundle:
    """A bundle of derived features alone."""
    specs = [derived(reference) for reference in references]
    complaints: list[str] = []
    admitted = admit({spec.full_name: spec for spec in specs}, {}, complaints)
    return Bundle("p", "s", (), (), tuple(admitted.values()), tuple(admitted), "class")


def judged(reference: str, waiver: str = "", today: date = TODAY) -> tuple[Derived, list[str]]:
    """What `admit` makes of one derived feature under a waiver, and its complaints."""
    spec = derived(reference)
    complaints: list[str] = []
    waived = {spec.full_name: waiver} if waiver else {}
    (admitted,) = admit({spec.full_name: spec}, waived, complaints, today).values()
    return admitted, complaints


def test_a_bundle_holds_what_is_proven() -> None:
    """A proven transform is taken with its graph and its golden values."""
    admitted, complaints = judged(GOOD)
    assert complaints == []
    assert admitted.graph == prove(load(GOOD)).graph
    assert admitted.golden == golden(load(GOOD))


def test_a_bundle_takes_no_unproven_transform() -> None:
    """The complaint holds the line, the example, the way to write it instead, and how to waive it."""
    _, (complaint,) = judged(BAD)
    assert "view__centred: tests.corpus_transforms.bad:centred is not proven" in complaint
    assert "return x - x.mean()" in complaint
    assert "for example: x=[0.0, 1.0]" in complaint
    assert "tags=unproven('tests.corpus_transforms.bad:centred'" in complaint


def test_a_waiver_holds_until_the_end_of_its_day() -> None:
    """By name, reason and expiry: taken until then and marked, refused from then on."""
    tags = unproven(BAD, reason="replaced in spring", expires=LATER)
    waiver = waivers(tags)["centred"]
    admitted, complaints = judged(BAD, waiver)
    assert (complaints, admitted.waived, admitted.graph) == ([], f"{LATER} replaced in spring", "")
    assert judged(BAD, waiver, date.fromisoformat(LATER))[1] == []
    _, (complaint,) = judged(BAD, waiver, date.fromisoformat(LATER) + timedelta(days=1))
    assert "(replaced in spring) expired at the end of" in complaint


def test_a_waiver_that_nobody_needs_is_an_error() -> None:
    """A proven transform needs no waiver, and a text that is no waiver is none."""
    assert "is not needed, the transform is proven" in judged(GOOD, f"{LATER} why not")[1][0]
    assert "expected a day and a reason" in judged(BAD, "soon")[1][0]
    with pytest.raises(DefinitionError, match="expected a reason and a day"):
        unproven(BAD, reason=" ", expires=LATER)
    with pytest.raises(DefinitionError, match="expected a reason and a day"):
        unproven(BAD, reason="because", expires="soon")


def test_the_same_computation_written_otherwise_is_the_same_bundle() -> None:
    """A proven transform's digest is its graph's: neither its source's nor what this machine makes of it."""
    from dataclasses import replace

    one = bundle(GOOD)
    (spec,) = one.derived
    other = replace(one, derived=(replace(spec, fingerprint="0" * 32, golden="1" * 32),), numerics="another")
    assert other.digest == one.digest
    assert [transform.name for _, transform in other.transforms] == ["ratio"]
    changed = replace(one, derived=(replace(spec, fingerprint="0" * 32, graph="2" * 32),))
    assert changed.digest != one.digest
    with pytest.raises(DefinitionError, match=r"the bundle was compiled from tests\.corpus_transforms\.good:ratio"):
        _ = changed.transforms


def test_a_machine_that_computes_other_bits_is_noticed() -> None:
    """The golden values of the bundle are compared with those of the machine that loads it."""
    from dataclasses import replace

    one = bundle(GOOD)
    assert one.other_values == ()
    (spec,) = one.derived
    assert replace(one, derived=(replace(spec, golden="1" * 32),)).other_values == ("view__ratio",)


def test_every_state_is_told_apart() -> None:
    """Proven, waived, refused, unproven and skewed, each by name with the reason."""
    views = [
        OnDemand("a", {"ratio": GOOD}, {}),
        OnDemand("b", {"centred": BAD}, {"centred": f"{LATER} soon gone"}),
        OnDemand("c", {"centred": BAD}, {"centred": f"{EARLIER} was soon gone"}),
        OnDemand("d", {"centred": BAD, "nothing": "no.module:f"}, {}),
        OnDemand("e", {}, {}, (False, "nothing to object to")),
        OnDemand("f", {}, {}, (True, "x is 1.0 alone and 2.0 in a batch")),
    ]
    lines = verify(views)
    assert [(line.view, line.state) for line in lines] == [
        ("a", State.PROVEN),
        ("b", State.WAIVED),
        ("c", State.REFUSED),
        ("d", State.REFUSED),
        ("d", State.REFUSED),
        ("e", State.UNPROVEN),
        ("f", State.SKEWED),
    ]
    assert lines[0].why == ""
    assert "soon gone" in lines[1].why
    assert "expired" in lines[2].why
    assert "x.mean()" in lines[3].why
    assert "No module named 'no'" in lines[4].why


def test_the_command_verifies_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0 and a table, or JSON; exit 1 for an unproven transform with the way to write it."""
    path = tmp_path / "s.bundle.json"
    bundle(GOOD).save(path)
    assert load_bundle(path).derived[0].graph
    assert main(["verify", "--bundle", str(path)]) == 0
    assert "proven" in capsys.readouterr().out
    bundle(GOOD, BAD).save(path)
    assert main(["verify", "--bundle", str(path), "--json"]) == 1
    lines = json.loads(capsys.readouterr().out)
    assert [line["state"] for line in lines] == ["proven", "refused"]
    assert lines[0]["proof_ms"] < 1000
    assert "x.mean()" in lines[1]["why"]
    assert main(["verify", "--bundle", str(tmp_path / "nothing.json")]) == 2


PLAIN = """
import pandas as pd
from datetime import timedelta
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64

FACTOR = 2.0
asked = RequestSource(name="asked", schema=[Field(name="x", dtype=Float64), Field(name="n", dtype=Int64)])


@on_demand_feature_view(sources=[asked], schema=[Field(name="centred", dtype=Float64)], mode="pandas")
def mean_view(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"centred": inputs["x"] - inputs["x"].mean()})


@on_demand_feature_view(sources=[asked], schema=[Field(name="helped", dtype=Float64)], mode="pandas")
def helper_view(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"helped": inputs["x"] * FACTOR})


@on_demand_feature_view(sources=[asked], schema=[Field(name="fine", dtype=Float64)], mode="pandas")
def fine_view(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"fine": inputs["x"] * 2.0})


@on_demand_feature_view(sources=[asked], schema=[Field(name="doubled", dtype=Float64)], mode="python")
def python_view(inputs: dict) -> dict:
    return {"doubled": [x * 2.0 for x in inputs["x"]]}


@on_demand_feature_view(
    sources=[asked],
    schema=[Field(name="clipped", dtype=Float64)],
    mode="pandas",
    tags={"skewguard.transforms": "tests.corpus_transforms.good:clipped"},
)
def proven_view(inputs: pd.DataFrame) -> pd.DataFrame:
    from skewguard.transforms.frame import run_frame

    return run_frame(["tests.corpus_transforms.good:clipped"], inputs)
"""


def test_any_feast_repository_is_told_which_views_are_safe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Views that name transforms are proven; somebody's own code is run from the registry, row against batch, and
    reported with a counterexample where there is one."""
    (tmp_path / "feature_store.yaml").write_text(
        "project: p\nprovider: local\nregistry: registry.db\nonline_store:\n  type: sqlite\n  path: online.db\n"
        "entity_key_serialization_version: 3\n"
    )
    (tmp_path / "views.py").write_text(PLAIN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FEAST_USAGE": "False"}
    feast = [sys.executable, "-c", "from feast.cli.cli import cli; cli()", "apply"]
    applied = subprocess.run(feast, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert applied.returncode == 0, applied.stdout + applied.stderr
    assert main(["verify", "--repo", str(tmp_path), "--json"]) == 1
    lines = {line["view"]: line for line in json.loads(capsys.readouterr().out)}
    assert {view: line["state"] for view, line in lines.items()} == {
        "mean_view": "skewed",
        "helper_view": "skewed",
        "fine_view": "unproven",
        "python_view": "skewed",
        "proven_view": "proven",
    }
    assert "centred of x=0.0, n=0 is 0.0 alone and" in lines["mean_view"]["why"]
    assert "NameError: name 'FACTOR' is not defined" in lines["helper_view"]["why"]
    assert "with a null" in lines["python_view"]["why"]
    assert "proves nothing" in lines["fine_view"]["why"]
