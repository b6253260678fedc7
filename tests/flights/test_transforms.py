from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from flights import transforms
from skewguard.transforms import Transform, fingerprint, run
from skewguard.transforms.learned import sample
from skewguard.values import Column, Dtype, Status

ALL = [sample(value) for value in vars(transforms).values() if isinstance(value, Transform)]
SUMMER = datetime(2013, 7, 4, 3, 30, tzinfo=UTC)  # 23:30 on Wednesday the 3rd in New York
WINTER = datetime(2014, 1, 1, 4, 45, tzinfo=UTC)  # 23:45 on 31 December in New York


def _column(dtype: Dtype, values: list[Any]) -> Column:
    array = np.array([np.datetime64(v.replace(tzinfo=None), "us") if isinstance(v, datetime) else v for v in values])
    return Column.build(dtype, array.astype(dtype.numpy), np.zeros(len(values), dtype=np.uint8))


def _run(transform: Transform, *columns: list[Any]) -> list[Any]:
    inputs = {name: _column(dtype, values) for (name, dtype), values in zip(transform.inputs, columns, strict=True)}
    result = run(transform, inputs)
    return [result.value(row) for row in range(len(result))]


@pytest.mark.parametrize(
    ("transform", "columns", "expected"),
    [
        (transforms.sched_hour, [[SUMMER, WINTER]], [23.5, 23.75]),
        (transforms.sched_weekday, [[SUMMER, WINTER]], [2, 1]),
        (transforms.log_distance, [[1.0, np.e]], [0.0, 1.0]),
        (transforms.carrier_code, [["9E", " ua ", "YV", "ZZ", ""]], [0, 11, 15, -1, -1]),
        (transforms.destination_code, [["AAA", "ZZZ", " bqn", "SFO1", "S1O"]], [0, 17_575, 1_105, -1, -1]),
        (transforms.gust_excess, [[30.0], [12.5]], [17.5]),
        (transforms.dewpoint_spread, [[39.02], [39.02]], [0.0]),
        (transforms.plane_age, [[SUMMER, WINTER], [2013, 1956]], [0, 57]),
        (transforms.delay_recovered, [[30, -5], [10, 20]], [20, -25]),
    ],
    ids=lambda value: value.name if isinstance(value, Transform) else "",
)
def test_a_transform_computes_what_it_says(transform: Transform, columns: list[list[Any]], expected: list[Any]) -> None:
    """Each feature's value on inputs whose answer a person can work out."""
    assert _run(transform, *columns) == expected


def test_a_carriers_usual_delay_is_the_mean_of_its_planes() -> None:
    """Whatever its case and blanks; a carrier that was not there when the mean was taken has none."""
    carriers = np.array(["UA", "b6", " ua ", "B6", "UA"], dtype=object)
    usual = transforms.usual_delay(carriers, np.array([10, 4, -1, 5, 3]))  # type: ignore[arg-type]
    assert usual == {"UA": 4.0, "B6": 4.5}
    assert _run(transforms.carrier_delay.bind({"usual": usual}), ["ua", "B6 ", "OO"]) == [4.0, 4.5, None]


def test_wind_along_the_runway_does_not_cross_it() -> None:
    """Crosswind is nothing along the runway, everything across it, and the same from either side."""
    along, across, other = _run(transforms.crosswind, [30.0, 120.0, 300.0], [20.0, 20.0, 20.0])
    assert along == 0.0
    assert (across, other) == (pytest.approx(20.0), pytest.approx(20.0))


def test_destination_codes_tell_all_destinations_apart() -> None:
    """The code of an airport is its letters: two airports never share one."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    codes = [a + b + c for a in letters for b in letters for c in letters]
    assert _run(transforms.destination_code, codes) == list(range(26**3))


@pytest.mark.parametrize("transform", ALL, ids=lambda transform: transform.name)
def test_a_row_does_not_depend_on_its_neighbours(transform: Transform) -> None:
    """1,003 rows at once, and each of them alone, give the same bits."""
    rng = np.random.default_rng(7)
    make: dict[Dtype, Any] = {
        Dtype.FLOAT64: lambda: rng.uniform(1, 4000, 1003),
        Dtype.INT64: lambda: rng.integers(-100, 2013, 1003),
        Dtype.TIMESTAMP: lambda: rng.integers(1_356_998_400, 1_388_534_400, 1003).astype("datetime64[s]"),
        Dtype.STRING: lambda: np.array([["UA", "SFO", "zz"][i % 3] for i in range(1003)], dtype=object),
    }
    status = np.zeros(1003, dtype=np.uint8)
    inputs = {name: Column.build(dtype, make[dtype]().astype(dtype.numpy), status) for name, dtype in transform.inputs}
    together = run(transform, inputs).values
    alone = [run(transform, {name: column.take(np.array([i])) for name, column in inputs.items()}) for i in range(1003)]
    assert together.tobytes() == np.concatenate([column.values for column in alone]).tobytes()


@pytest.mark.parametrize("transform", ALL, ids=lambda transform: transform.name)
def test_a_transform_can_be_fingerprinted(transform: Transform) -> None:
    """Every function, its helpers and its constants have a digest."""
    assert len(fingerprint(transform)) == 32


def test_a_value_is_as_present_as_its_least_present_input() -> None:
    """A missing input makes a missing value of the same status, and its neighbours are not touched."""
    gust = Column.build(Dtype.FLOAT64, np.array([30.0, 0.0, 30.0]), np.array([0, Status.NULL, 0], dtype=np.uint8))
    wind = Column.build(Dtype.FLOAT64, np.array([10.0, 10.0, 0.0]), np.array([0, 0, Status.EXPIRED], dtype=np.uint8))
    result = run(transforms.gust_excess, {"wind_gust": gust, "wind_speed": wind})
    assert result.status.tolist() == [Status.PRESENT, Status.NULL, Status.EXPIRED]
    assert result.value(0) == 20.0
