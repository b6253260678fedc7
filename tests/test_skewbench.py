"""SkewBench: the generator knows no detector, the judge of answers is strict, and a thin run ends with its figures."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.skewbench import attribution, looks
from benchmarks.skewbench.chain import Broken, Reader, _each
from benchmarks.skewbench.clean import KINDS
from benchmarks.skewbench.faults import CAUSES, FAULTS
from benchmarks.skewbench.faults.case import Case, differs, mixed
from benchmarks.skewbench.figures import rate
from benchmarks.skewbench.peers import TESTS
from benchmarks.skewbench.world import HOUR, Window, World
from skewguard.answer import answer
from skewguard.findings import Cause, Finding, Kind, Tap
from skewguard.offline import OfflineStore
from skewguard.online import Layout, open_store
from skewguard.online.keys import row_key
from skewguard.online.layout import unpack
from skewguard.spine import read_spine
from skewguard.values import Column
from skewguard.workflows.materialize import materialize
from tests.loop import PROJECT, Loop, at, us

GENERATOR = Path("benchmarks/skewbench/faults")
DETECTORS = ("compare", "replay", "causes", "verdict", "workflows", "audit", "statistics", "policy", "findings")


@pytest.fixture(scope="module")
def window(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Window:
    """A day of the small world, as the benchmark sees traffic."""
    world = World(tmp_path_factory.mktemp("bench"), loop.snapshot, loop.asks, OfflineStore(loop.bundle.views))
    request = {field.name: field.dtype for field in loop.bundle.request}
    spine = read_spine(loop.asks, loop.bundle.keys, request, id_column="id")
    model = replace(loop.model, _predict=lambda matrix: np.nan_to_num(matrix).sum(axis=1) % 1)
    world.__dict__["model"] = model
    return Window(world, loop.asks, spine, 20_000_000)


def test_the_generator_of_faults_reads_no_detector() -> None:
    """Somebody else can add faults without knowing what looks for them."""
    for path in sorted(GENERATOR.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not any(name.startswith(f"skewguard.{room}") for room in DETECTORS), f"{path}: {name}"
                own = name.removeprefix("benchmarks.skewbench.")
                assert own in {name, "world"} or own.startswith("faults"), f"{path}: {name}"


def test_every_fault_has_a_name_and_numbers_of_its_own() -> None:
    """The catalogue is of many faults, each told apart, and every cause that is accepted is one of the generator's."""
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names)) > 70
    assert set(attribution.ACCEPTED) <= set(CAUSES)
    assert sum(kind.windows for kind in KINDS) >= 100


def test_only_the_rows_that_were_hit_are_wrong(window: Window) -> None:
    """What is mixed differs from the honest answer where it was hit, and nowhere else."""
    old = window.published("weather", window.marks - 3 * HOUR)
    faulty = window.finished(answer(window.bundle, window.spine, {**window.views, "weather": old}))
    wrong = np.flatnonzero(differs(window.served, faulty))
    assert len(wrong) > 3
    hit = np.zeros(len(window.spine), dtype=bool)
    hit[wrong[::2]] = True
    served = mixed(window, window.served, faulty, hit)
    assert np.flatnonzero(differs(window.served, served)).tolist() == wrong[::2].tolist()
    assert not differs(window.served, mixed(window, window.served, faulty, ~hit))[wrong[::2]].any()


def test_an_answer_counts_only_where_it_points_at_the_fault(window: Window) -> None:
    """A finding elsewhere is no detection; the view, its features and what reads them are."""
    view = next(iter(window.views))
    case = Case(window, window.served, touched=frozenset({view}), causes=("stale",), stage="store", lag_us=HOUR)
    mine = Finding(Kind.STALE, view, 5, 10, "late", Tap.STORE, cause_kind="stale",
                   causes=(Cause("stale", "an hour", 1.0, (), 3600.0),))  # fmt: skip
    assert attribution.pointing(case, [mine, replace(mine, feature="elsewhere")]) == [mine]
    assert attribution.names_cause("stale", mine, 1)
    assert not attribution.names_cause("unit", mine, 3)
    assert attribution.names_cause("rounded", replace(mine, cause_kind="rounded_2"), 1)
    assert attribution.lag_right(case, mine)
    assert not attribution.lag_right(replace(case, lag_us=2 * HOUR), mine)
    assert attribution.stage_right(case, mine)


def test_looking_often_does_not_alarm_and_one_test_repeated_does() -> None:
    """Under the benign rate, few runs of 200 looks ever alarm; half a per cent is told within thousands of rows."""
    seen = looks.look(60)
    assert seen.judged <= seen.alone <= 0.05 < seen.repeated
    assert seen.rows_to_alarm_alone <= seen.rows_to_alarm < 5000


def test_the_peers_own_tests_see_what_moved_and_nothing_else() -> None:
    """Each of the tests that run here alarms on a column that moved by half its spread, and on no other."""
    rng = np.random.default_rng(0)
    still, moved = rng.normal(size=(2, 5000))
    reference = {"still": still, "moved": moved}
    current = {"still": rng.permutation(still), "moved": moved * 2 + 1.5}
    for test in TESTS.values():
        assert test(reference, current) == {"moved"}


def test_a_rate_of_nothing_is_no_rate() -> None:
    """No trial is no figure."""
    assert rate([]) is None
    assert rate([True, False]) == 0.5


def test_a_broken_reader_changes_its_own_view_now_and_then_and_no_other(loop: Loop, tmp_path: Path) -> None:
    """What replica B of the chain reads is wrong in a share of the reads, in one feature of one view."""
    store = open_store(f"sqlite:{tmp_path / 'online.db'}")
    with OfflineStore(loop.bundle.views) as offline:
        materialize(loop.bundle, offline, store, us(at(0)))
    asked = [row_key(PROJECT, loop.bundle.view(name), (key,)) for name, key in (("weather", "EWR"), ("plane", "N1"))]
    broken = Broken("weather", _each(lambda c: Column.build(c.dtype, c.values + 1, c.status), "wind"), "weather")
    reader = Reader(store, loop.bundle, broken)
    right = store.mget(asked)
    read = [reader.mget(asked) for _ in range(200)]
    assert all(one[1] == right[1] for one in read)
    wrong = [one[0] for one in read if one[0] is not None and one[0] != right[0]]
    assert 0 < len(wrong) < 60
    layout = Layout.of(loop.bundle.view("weather"))
    served, true = (unpack(layout, rows).features["wind"].values[0] for rows in (wrong[:1], [right[0] or b""]))
    assert served == true + 1
    store.close()
