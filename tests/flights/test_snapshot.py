"""The snapshot of the flights against a second opinion, straight from the raw files."""

import math
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewguard.definitions import Bundle
from skewguard.definitions.feast import compile_service
from skewguard.snapshot import Snapshot, build_snapshot
from skewguard.values import Status
from tests.flights.brute_force import recompute

SAMPLE = 300


@pytest.fixture(scope="session")
def bundle(applied: Path) -> Bundle:
    """The feature service of the applied repository."""
    return compile_service(applied, "flight_delay")


@pytest.fixture(scope="session")
def sampled(built: Path) -> pa.Table:
    """Asks drawn by seed over the whole year, in their order."""
    asks = pq.read_table(built / "asks.parquet")
    return asks.take(sorted(random.Random(13).sample(range(len(asks)), SAMPLE)))


@pytest.fixture(scope="session")
def snapshot(bundle: Bundle, sampled: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Their snapshot."""
    out = tmp_path_factory.mktemp("snapshot") / "sample"
    return build_snapshot(bundle, sampled, out, labels=["late", "label_time"], id_column="flight_id")


def test_every_feature_of_a_sample_is_what_plain_loops_over_the_raw_files_give(
    snapshot: Snapshot, sampled: pa.Table
) -> None:
    """Every stored and derived feature and its status equals the brute-force recomputation from the CSVs."""
    truth = recompute(sampled.to_pylist())
    (served,) = snapshot.served()
    wrong = []
    for name, column in served.features(snapshot.bundle).items():
        for row, answer in enumerate(truth[name]):
            value, status = column.value(row), Status(int(column.status[row])).name.lower()
            equal = value == answer.value or (
                isinstance(value, float) and math.isclose(value, answer.value, rel_tol=1e-13)  # libm is not numpy
            )
            if not equal or status != answer.status:
                wrong.append((name, served.spine.ids[row], value, status, answer))
    assert wrong == []


def test_no_feature_could_have_been_known_only_after_its_ask(snapshot: Snapshot) -> None:
    """Event and created time of every source row that answered lie at or before the ask."""
    (served,) = snapshot.served()
    for name, rows in served.views.items():
        assert (rows.event <= served.spine.as_of).all(), name
        assert (rows.created <= served.spine.as_of).all(), name


def test_no_label_was_known_at_its_ask(snapshot: Snapshot) -> None:
    """The label of every flight became known after the question was asked."""
    table = snapshot.to_arrow(["event_timestamp", "late", "label_time"])
    known = np.asarray(table["late"].is_valid())
    asked = table["event_timestamp"].cast(pa.int64()).to_numpy()[known]
    assert (table["label_time"].cast(pa.int64()).to_numpy()[known] > asked).all()
    assert known.sum() > SAMPLE * 0.9
