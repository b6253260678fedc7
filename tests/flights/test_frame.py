from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flights import transforms
from skewguard.errors import CastError, DefinitionError
from skewguard.transforms.frame import run_frame

DEPARTS = datetime(2013, 11, 5, 20, 45, tzinfo=UTC)


def test_a_dict_of_lists_comes_back_as_a_dict_of_lists() -> None:
    """What Feast's mode `python` hands over keeps its kind; None in gives None out, whole numbers stay whole."""
    rows: dict[str, list[Any]] = {"dep_delay": [5, None, 9], "arr_delay": [7, 1, None], "else": ["x", "y", "z"]}
    assert run_frame([transforms.delay_recovered], rows) == {"delay_recovered": [-2, None, None]}


def test_a_data_frame_comes_back_as_a_data_frame() -> None:
    """What mode `pandas` hands over keeps its kind and index; a whole number beside a null stays whole."""
    frame = pd.DataFrame(
        {
            "sched_dep": pd.to_datetime([DEPARTS, DEPARTS]),
            "year": [2003.0, np.nan],  # pandas' own doing: Int64 with a null arrives as float
            "temp": [50.0, np.nan],
            "dewp": [40.0, 40.0],
        },
        index=[7, 9],
    )
    result = run_frame([transforms.plane_age, transforms.dewpoint_spread], frame)
    assert result.index.tolist() == [7, 9]
    assert result["plane_age"].tolist() == [10, None]
    assert type(result["plane_age"][7]) is int
    assert result["dewpoint_spread"][7] == 10.0
    assert np.isnan(result["dewpoint_spread"][9])


def test_a_transform_may_be_named() -> None:
    """`module:function` stands for the transform, so that a body needs one import."""
    rows: dict[str, list[Any]] = {"carrier": ["UA"]}
    assert run_frame(["flights.transforms:carrier_code"], rows) == {"carrier_code": [11]}


def test_nothing_but_nulls_gives_nothing_but_nulls() -> None:
    """A list without a single value has no type, and needs none."""
    for empty in ([None, None], [float("nan"), None]):
        assert run_frame([transforms.gust_excess], {"wind_gust": empty, "wind_speed": [1.0, 2.0]}) == {
            "gust_excess": [None, None]
        }


def test_a_column_may_come_under_its_full_name() -> None:
    """`view__name` serves a parameter `name` where there is no column of that name."""
    rows = {"weather__wind_gust": [30.0], "weather__wind_speed": [10.0]}
    assert run_frame([transforms.gust_excess], rows) == {"gust_excess": [20.0]}


def test_a_parameter_without_a_column_is_an_error_that_names_it() -> None:
    """None, and more than one, are both refused with what was found."""
    with pytest.raises(DefinitionError, match=r"gust_excess\(wind_speed\): expected one column wind_speed"):
        run_frame([transforms.gust_excess], {"wind_gust": [30.0]})
    with pytest.raises(DefinitionError, match=r"a__wind_speed.*b__wind_speed"):
        run_frame([transforms.gust_excess], {"wind_gust": [3.0], "a__wind_speed": [1.0], "b__wind_speed": [1.0]})


def test_a_value_that_does_not_fit_is_refused() -> None:
    """1.5 is no whole number, in a frame as anywhere."""
    with pytest.raises(CastError, match=r"1\.5 does not fit int64"):
        run_frame([transforms.delay_recovered], {"dep_delay": [1.5], "arr_delay": [1]})
