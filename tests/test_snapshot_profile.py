"""The profile of a snapshot: what it says is true, and its parts add up."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewguard.errors import SnapshotError
from skewguard.snapshot import build_snapshot, load_profile
from skewguard.snapshot.profile import KEPT, ColumnProfile, profile_column
from skewguard.values import Column, Dtype
from tests.worlds import column, columns, plain, shop


def together(one: Column, other: Column) -> Column:
    """The rows of both."""
    return Column.concat([one, other])


@given(st.data(), st.sampled_from(list(Dtype)))
def test_merged_profiles_are_the_profile_of_all_rows(data: st.DataObject, dtype: Dtype) -> None:
    """Of any two columns of one dtype, in either order."""
    one, other = data.draw(columns(dtype)), data.draw(columns(dtype))
    merged = profile_column(one).merge(profile_column(other))
    assert merged == profile_column(together(one, other))
    assert merged == profile_column(other).merge(profile_column(one))


@pytest.mark.parametrize("dtype", [Dtype.FLOAT64, Dtype.FLOAT32, Dtype.INT64, Dtype.STRING, Dtype.TIMESTAMP])
def test_merging_is_exact_beyond_what_is_counted_one_by_one(dtype: Dtype) -> None:
    """Two columns that are few alone and many together, and many with few, and many with many."""
    random = np.random.default_rng(3)
    values = [int(v) for v in random.integers(-(10**6), 10**6, 6000)]
    made = column(dtype, [str(v) for v in values] if dtype is Dtype.STRING else values)
    whole = profile_column(made)
    assert whole.counts is None
    for cuts in ([700, 1400], [100, 5000], [3000], [1, 2, 3]):
        parts = np.split(np.arange(len(values)), cuts)
        merged = profile_column(made.take(parts[0]))
        for part in parts[1:]:
            merged = merged.merge(profile_column(made.take(part)))
        assert merged == whole
    assert whole.distinct == pytest.approx(len(set(values)), rel=0.15)  # five standard errors


@given(st.sampled_from(list(Dtype)).flatmap(columns))
def test_a_profile_survives_json(made: Column) -> None:
    """What is written is what is read."""
    profile = profile_column(made)
    assert ColumnProfile.from_json(profile.to_json()) == profile


@given(columns())
def test_a_profile_tells_what_brute_force_tells(made: Column) -> None:
    """Least, greatest, exact sum, values and their rows, over plain Python values."""
    profile = profile_column(made)
    values = [v for v in plain(made) if v is not None]
    assert (profile.rows, profile.present) == (len(made), len(values))
    assert profile.low == min(values, default=None)
    assert profile.high == max(values, default=None)
    assert profile.counts == Counter(values)
    if made.dtype.is_numeric:
        finite = [Fraction(v) for v in values if v not in (float("inf"), float("-inf"))]
        assert profile.total == sum(finite)
        assert profile.infinite == (values.count(float("-inf")), values.count(float("inf")))


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=50), st.floats(0, 1))
def test_a_quantile_from_buckets_is_near_the_exact_one(values: list[float], share: float) -> None:
    """Within 0.4 % of the value that is asked for."""
    exact = profile_column(column(Dtype.FLOAT64, values))
    rough = ColumnProfile(**{**exact.__dict__, "counts": None})
    wanted = exact.quantile(share)
    assert wanted == sorted(values)[max(int(np.ceil(round(share * len(values), 9))), 1) - 1] or len(set(values)) < 50
    assert rough.quantile(share) == pytest.approx(wanted, rel=2**-8, abs=1e-300)


def test_profiles_of_two_dtypes_do_not_add_up() -> None:
    """It is an error, not a guess."""
    with pytest.raises(SnapshotError, match="a profile of int64 does not add up with one of string"):
        profile_column(column(Dtype.INT64, [1])).merge(profile_column(column(Dtype.STRING, ["1"])))


def test_a_snapshot_keeps_the_profile_of_its_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, request fields, features and labels; the same whatever the batches; a missing file is an error."""
    world = shop(tmp_path)
    given_ = {"labels": ["paid"], "id_column": "ask_id"}
    profiles = []
    for rows in (65_536, 7):
        monkeypatch.setattr("skewguard.snapshot.build.BATCH_ROWS", rows)
        snapshot = build_snapshot(world.bundle, world.asks, tmp_path / f"by {rows}", **given_)  # type: ignore[arg-type]
        profiles.append(load_profile(snapshot.path))
    assert profiles[0] == profiles[1]
    (served,) = snapshot.served()
    for name, one in served.features(world.bundle).items():
        assert profiles[0].columns[name] == profile_column(one)
    paid = world.asks["paid"].to_pylist()
    assert profiles[0].columns["paid"].counts == {v: paid.count(v) for v in (0, 1)}
    assert {"e__origin", "q__amount", "event_timestamp"} <= profiles[0].columns.keys()
    assert sum(profiles[0].views["buyer"].values()) == len(world.asks)
    (snapshot.path / "profile.json").unlink()
    with pytest.raises(SnapshotError, match="no profile that can be read"):
        load_profile(snapshot.path)


def test_counting_stops_where_it_is_said_to() -> None:
    """So many different values are counted one by one, and not one more."""
    assert profile_column(column(Dtype.INT64, list(range(KEPT)))).counts is not None
    assert profile_column(column(Dtype.INT64, list(range(KEPT + 1)))).counts is None
