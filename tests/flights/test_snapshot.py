"""The snapshot of the flights against a second opinion, straight from the raw files."""

import math
import random
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from skewguard.definitions import Bundle
from skewguard.definitions.feast import compile_service
from skewguard.snapshot import Snapshot, build_snapshot
from skewguard.values import Status
from tests.flights.brute_force import recompute

SAMPLE = 300
FITTED_BEFORE = datetime(2013, 10, 1, tzinfo=UTC)


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
    labels = ["late", "label_time"]
    return build_snapshot(bundle, sampled, out, labels=labels, id_column="flight_id", fit_before=FITTED_BEFORE)


def test_every_feature_of_a_sample_is_what_plain_loops_over_the_raw_files_give(
    snapshot: Snapshot, sampled: pa.Table
) -> None:
    """Every stored and derived feature and its status equals the brute-force recomputation from the CSVs."""
    truth = recompute(sampled.to_pylist(), FITTED_BEFORE)
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


def test_what_is_fitted_is_fitted_on_earlier_asks_alone_and_ends_the_vector(
    snapshot: Snapshot, bundle: Bundle, sampled: pa.Table
) -> None:
    """The snapshot's bundle holds the carriers' means, its manifest the same ones; the vector ends with the feature."""
    (served,) = snapshot.served()
    usual = dict(snapshot.manifest.fitted["model_input__carrier_delay"]["usual"]["table"])
    early = sampled.filter(pc.less(sampled["event_timestamp"], FITTED_BEFORE))
    assert usual.keys() <= set(early["carrier"].to_pylist())
    assert snapshot.bundle.fitted_values == snapshot.manifest.fitted
    assert bundle.unfitted == ("model_input__carrier_delay",)
    assert snapshot.bundle.vector[-1] == "model_input__carrier_delay"
    expected = [usual.get(carrier, math.nan) for carrier in sampled["carrier"].to_pylist()]
    np.testing.assert_array_equal(served.vector[:, -1], expected)


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
