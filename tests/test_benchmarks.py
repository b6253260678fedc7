"""The benchmarks run, at a size at which their figures mean nothing."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks.pit.__main__ import main
from benchmarks.pit.agreement import Agreement, compare
from benchmarks.pit.cases import CASES
from benchmarks.pit.figures import of_case
from benchmarks.pit.race import Limits, Standing, _watch, race

TINY = ["--scale", "0.001", "--rounds", "1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests of this file build their data."""
    return tmp_path_factory.mktemp("pit")


def _last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    last: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return last


def test_a_quick_race_ends_with_its_figures(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everybody answers as the floor does; the last line has every figure, and becomes the document's table."""
    assert main(["--quick", "--case", "1M-1M-1", "--root", str(root), *TINY]) == 0
    last = _last_line(capsys)
    (case,) = last["cases"].values()
    assert case["disagreements"] == 0
    assert case["ended"] == {}
    assert case["ratio_best"] == pytest.approx(case["ours_s"] / case["best_s"], abs=0.01)
    assert last["max_ratio_best"] == case["ratio_best"]
    assert last["min_ratio_feast"] == case["ratio_feast"] > 0
    assert case["ours_mib"] > 0 < case["ours_cpu_s"]
    assert {"ours_s", "best_s", "best", "feast_duckdb_s", "ratio_feast", "disagreements"} <= set(case)

    saved = tmp_path / "figures.json"
    saved.write_text(json.dumps(last))
    assert main(["--table", str(saved)]) == 0
    heads, _, row, *_ = capsys.readouterr().out.splitlines()
    assert "Feast duckdb" in heads
    assert row.startswith("| 1M x 1M x 1 (100k keys) |")
    assert heads.count("|") == row.count("|")


@pytest.mark.parametrize("case", ["flights-known", "1M-1M-3-known"])
def test_everybody_knows_the_same_at_the_ask(case: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With created times that come late, three formulations give one answer."""
    assert main(["--case", case, "--only", "ours", "running_max", "numpy", "--root", str(root), *TINY]) == 0
    found = _last_line(capsys)["cases"][case]
    assert set(found["rounds"]) == {"ours", "running_max", "numpy"}
    assert found["disagreements"] == 0


def test_who_takes_too_much_is_ended() -> None:
    """The watchdog says why: memory first, then patience."""
    for limits, why in ((Limits(100, 30), "> 0.0976562 GiB"), (Limits(10_000, 0.5), "> 0.5 s")):
        process = subprocess.Popen([sys.executable, "-c", "import time; a = bytearray(200 << 20); time.sleep(30)"])
        try:
            assert _watch(process, limits) == why
        finally:
            process.kill()
            process.wait()


def test_a_quick_race_has_no_time_for_a_second_round(root: Path) -> None:
    """After the deadline no further round begins; the first is always run."""
    case = next(case for case in CASES if case.name == "1M-1M-1")
    limits, among = Limits(4096, 60), ("ours", "floor")
    standings = race(case, root, rounds=5, limits=limits, among=among, scale=0.001, deadline=time.monotonic())
    assert {name: len(standing.runs) for name, standing in standings.items()} == {"ours": 1, "floor": 1}


def test_who_was_ended_counts_as_null() -> None:
    """It has no figures, not even of earlier rounds, and stays outside the minimum; so does who answers otherwise."""
    agrees, figures = Agreement(0, 0, 0), {"s": 1.0, "cpu_s": 1.0, "mib": 1.0}
    standings = {
        "floor": Standing([figures | {"s": 4.0}], agreement=agrees),
        "ours": Standing([figures | {"s": 2.0}], agreement=agrees),
        "numpy": Standing([figures], ended="> 13 GiB", agreement=agrees),
        "polars": Standing([figures], agreement=Agreement(0, 0, 3)),
        "feast_duckdb": Standing(ended="> 13 GiB"),
    }
    found = of_case(CASES[0], standings)
    assert (found["best"], found["ratio_best"]) == ("floor", 0.5)
    assert found["numpy_s"] is found["feast_duckdb_mib"] is found["ratio_feast"] is None
    assert found["disagreements"] == 3
    assert found["ended"] == {"numpy": "> 13 GiB", "feast_duckdb": "> 13 GiB"}


def test_a_differing_answer_is_counted(root: Path, tmp_path: Path) -> None:
    """A changed cell, a null, a lost ask and two asks in each other's place are all noticed."""
    task = next(case for case in CASES if case.name == "1M-1M-1").build(root, 0.001)
    right, wrong = tmp_path / "right.parquet", tmp_path / "wrong.parquet"
    asks = pq.read_table(task.asks, columns=task.columns)
    ord_ = pa.array(range(len(asks)), pa.int64())
    answer = asks.append_column("ord", ord_)
    for name in task.views[0].features:
        answer = answer.append_column(f"v0__{name}", ord_.cast(pa.float64()))
    pq.write_table(answer.drop_columns("ord"), right)

    def differs(changed: pa.Table) -> Agreement:
        pq.write_table(changed, wrong)
        return compare(task, right, wrong)

    assert differs(answer) == Agreement(0, 0, 0)
    place = answer.schema.get_field_index("v0__f3")
    first = pc.equal(answer["ord"], 0)
    for value in (7.5, None):
        column = pc.if_else(first, pa.scalar(value, pa.float64()), answer["v0__f3"])
        assert differs(answer.set_column(place, "v0__f3", column)) == Agreement(0, 0, 1)
    assert differs(answer.slice(1)) == Agreement(1, 0, 0)
    swapped = answer.take(pa.array([1, 0, *range(2, len(answer))])).drop_columns("ord")
    assert differs(swapped).displaced == 2
