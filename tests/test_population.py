"""Population: what a cut training set teaches is asked of rows like its own, and of no others."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from skewguard.answer import Served, answer
from skewguard.compare.population import Among, Population, population
from skewguard.findings import Finding
from skewguard.offline import OfflineStore
from skewguard.replay import take
from skewguard.spine import read_spine
from skewguard.values import Mask
from tests.loop import DAY, Loop, asks_between, at


class Counting:
    """A check that says how many rows it saw."""

    def __init__(self) -> None:
        self.rows = 0

    def add(self, served: Served) -> None:
        """One more batch."""
        self.rows += len(served.spine)

    def findings(self) -> list[Finding]:
        """Nothing."""
        return []


@pytest.fixture(scope="module")
def training(loop: Loop) -> Served:
    """Three days of 600 asks."""
    asks = asks_between(at(-72), timedelta(days=3), 600)
    spine = read_spine(asks, loop.bundle.keys, {r.name: r.dtype for r in loop.bundle.request}, id_column="id")
    with OfflineStore(loop.bundle.views, threads=1) as offline:
        return answer(loop.bundle, spine, offline.answer(spine))


def _seen(of: Population, served: Served, names: tuple[str, ...]) -> int:
    check = Counting()
    among = Among(check, of, names)
    for rows in np.array_split(np.arange(len(served.spine)), 3):
        among.add(take(served, rows))
    assert among.findings() == []
    return check.rows


def _from(served: Served, origin: str) -> Mask:
    return np.asarray(served.spine.keys["origin"].values == origin)


def test_a_log_of_other_airports_is_asked_nothing_about_them(training: Served) -> None:
    """Trained on JFK, only rows of JFK are judged by what it taught; who does not ask for the airport judges all."""
    of = population(take(training, np.flatnonzero(_from(training, "JFK"))))
    assert _seen(of, training, ("origin",)) == int(_from(training, "JFK").sum())
    assert _seen(of, training, ()) == len(training.spine)
    assert _seen(population(training), training, ("origin", "tail")) == len(training.spine)


def test_a_log_further_away_than_the_training_is_long_is_asked_nothing(training: Served) -> None:
    """Three days teach about three days before and after, not about next month."""
    of = population(training)

    def later(days: float) -> Served:
        return replace(training, spine=replace(training.spine, as_of=training.spine.as_of + round(days * DAY)))

    assert _seen(of, later(2.9), ()) == len(training.spine)
    assert _seen(of, later(30), ()) == _seen(of, later(-30), ()) == 0


def test_texts_of_many_values_are_no_kind_and_no_rows_teach_nothing(training: Served) -> None:
    """Ids of things come and go; of an empty training set nothing is like."""
    n = len(training.spine)
    tail = training.spine.keys["tail"]
    many = replace(tail, values=np.array([f"N{i}" for i in range(n)], dtype=object), status=np.zeros(n, dtype=np.uint8))
    spine = replace(training.spine, keys={**training.spine.keys, "tail": many})
    assert "tail" not in population(replace(training, spine=spine)).kinds
    assert population(training).kinds["origin"].sort() == pa.array(["EWR", "JFK", "LGA"])
    assert population(take(training, np.arange(0))).kinds == {}
