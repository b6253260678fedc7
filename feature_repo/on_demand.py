"""What is computed when it is asked for. The functions are named in the tags and lie in `flights.transforms`.

Feast runs these bodies again from their source text, with nothing but pandas in sight: hence the imports inside. A
field here carries no tags, because Feast compares it, tags included, with what it infers from a trial run of the body.
Mode `pandas`, because in mode `python` Feast drops the outputs online when it is asked for full feature names.
"""

import pandas as pd
from feast import Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64
from sources import asked
from views import plane, tail_arrival, tail_departure, weather

from skewguard.contract import contract, transforms


@on_demand_feature_view(
    sources=[asked],
    schema=[
        Field(name="sched_hour", dtype=Float64),
        Field(name="sched_weekday", dtype=Int64),
        Field(name="log_distance", dtype=Float64),
        Field(name="carrier_code", dtype=Int64),
        Field(name="destination_code", dtype=Int64),
    ],
    mode="pandas",
    tags=contract(null="refused", owner="flights")
    | transforms(
        "flights.transforms:sched_hour",
        "flights.transforms:sched_weekday",
        "flights.transforms:log_distance",
        "flights.transforms:carrier_code",
        "flights.transforms:destination_code",
    ),
)
def schedule(inputs: pd.DataFrame) -> pd.DataFrame:
    """Of the schedule alone: when, how far, by whom and where to."""
    from flights import transforms

    return transforms.schedule(inputs)


@on_demand_feature_view(
    sources=[
        weather[["temp", "dewp", "wind_dir", "wind_speed", "wind_gust"]],
        tail_departure,
        tail_arrival,
        plane[["year"]],
        asked,
    ],
    schema=[
        Field(name="gust_excess", dtype=Float64),
        Field(name="dewpoint_spread", dtype=Float64),
        Field(name="crosswind", dtype=Float64),
        Field(name="plane_age", dtype=Int64),
        Field(name="delay_recovered", dtype=Int64),
    ],
    mode="pandas",
    tags=contract(owner="flights")
    | transforms(
        "flights.transforms:gust_excess",
        "flights.transforms:dewpoint_spread",
        "flights.transforms:crosswind",
        "flights.transforms:plane_age",
        "flights.transforms:delay_recovered",
    ),
)
def conditions(inputs: pd.DataFrame) -> pd.DataFrame:
    """Of what is stored: wind, fog, the plane's age and what it made good."""
    from flights import transforms

    return transforms.conditions(inputs)
