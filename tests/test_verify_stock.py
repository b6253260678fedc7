"""`skewguard verify --repo` on a Feast repository of other people's: what each of its views is, and why."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore

import skewguard
from skewguard.workflows.feast import examined
from skewguard.workflows.verify import State, Verified, verify_repository
from tests.corpus_transforms import good, stock_views
from tests.test_on_demand import YAML, asked

NOW = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
FACTS = {
    "driver_id": pa.array([1]),
    "n": pa.array([3]),
    "x": pa.array([7.0]),
    "p": pa.array([0.1]),  # declared Float32: training reads a double
    "last_seen": pa.array([NOW], pa.timestamp("us", "UTC")),
    "words": pa.array([["a"]]),
    "event_timestamp": pa.array([NOW], pa.timestamp("us", "UTC")),
}


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of stock views and one of ours, applied."""
    folder = tmp_path_factory.mktemp("stock")
    (folder / "feature_store.yaml").write_text(YAML)
    pq.write_table(pa.table(FACTS), folder / "facts.parquet")
    ours = skewguard.on_demand(name="ours", sources=[asked(good.clipped)], functions=[good.clipped])
    FeatureStore(repo_path=str(folder)).apply([stock_views.driver, stock_views.facts, *stock_views.VIEWS, ours])
    return folder


@pytest.fixture(scope="module")
def lines(repo: Path) -> dict[str, Verified]:
    """The worst that is said of each view."""
    order = list(State)
    found: dict[str, Verified] = {}
    for line in verify_repository(repo):
        if line.view not in found or order.index(line.state) > order.index(found[line.view].state):
            found[line.view] = line
    return found


def test_nothing_is_left_out(lines: dict[str, Verified]) -> None:
    """Every on-demand view of the registry is judged; only what is proven is proven."""
    assert set(lines) == {"ours", *(view.name for view in stock_views.VIEWS)}
    assert [name for name, line in lines.items() if line.state is State.PROVEN] == ["ours"]
    assert not any(line.state is State.REFUSED for line in lines.values())


@pytest.mark.parametrize(
    ("view", "why"),
    [
        ("mean_of_the_batch", "offline, centred of x=0.0 is 0.0 alone and -0.5 in a batch of 2 beside x=1.0"),
        ("large_batches", "in a batch of 500"),
        ("helper_of_a_module", "offline it raises NameError: name 'kilometres' is not defined, whatever the row"),
        ("module_of_a_module", "offline it raises NameError: name 'math' is not defined, whatever the row"),
        ("cast_online_only", "half is -0.5 offline, 0 online, for example for x=-1.0"),
        ("text_of_a_number", "(with a null)"),
        ("one_at_a_time", "offline it raises TypeError"),
        ("threshold", "over is False offline, True online, for example for p=0.1"),
        ("age_in_seconds", "age is "),
        ("longest_word", "offline it raises ValueError: max() "),
        ("says_it_is_clipped", "clipped is -50.0 the functions, -49.0 the body"),
        ("aggregated", "offline it raises AssertionError"),
    ],
)
def test_a_view_that_skews_is_shown_with_the_smallest_example(lines: dict[str, Verified], view: str, why: str) -> None:
    """One row and a batch, offline and online, a null, a cast that only one side makes: what differs, and for which."""
    assert lines[view].state is State.SKEWED
    assert why in lines[view].why


@pytest.mark.parametrize(
    ("view", "why"),
    [
        ("elementwise", "own code in mode pandas"),
        ("number_of_words", "own code in mode python"),
    ],
)
def test_a_view_without_a_counterexample_is_unproven(lines: dict[str, Verified], view: str, why: str) -> None:
    """That nothing was found proves nothing."""
    assert lines[view].state is State.UNPROVEN
    assert "which proves nothing" in lines[view].why
    assert why in lines[view].why


def test_what_cannot_be_run_here_is_said(repo: Path) -> None:
    """A view of another mode is unproven, and so is one that reads what there are no values to try for."""
    store = FeatureStore(repo_path=str(repo))
    assert examined(store, stock_views.in_substrait()).ran == (False, "not run: mode substrait")
    odd = stock_views.odd_input()
    assert examined(store, odd).ran == (False, "not run: inputs of other types: blob (Bytes)")
