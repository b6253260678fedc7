"""What is stored and served: types, time to live, and contracts with ranges that hold over the whole year."""

from datetime import timedelta

from entities import dest, origin, tail
from feast import FeatureView, Field
from feast.types import Float64, Int64, String
from sources import (
    origin_congestion_rows,
    plane_rows,
    route_rows,
    tail_arrival_rows,
    tail_departure_rows,
    weather_rows,
)

from skewguard.contract import contract

weather = FeatureView(
    name="weather",
    entities=[origin],
    ttl=timedelta(hours=3),
    schema=[
        Field(name="temp", dtype=Float64, tags=contract(unit="degrees F", minimum=-10, maximum=110)),
        Field(name="dewp", dtype=Float64, tags=contract(unit="degrees F", minimum=-30, maximum=85)),
        Field(name="humid", dtype=Float64, tags=contract(unit="percent", minimum=0, maximum=100)),
        Field(name="wind_dir", dtype=Float64, tags=contract(unit="degrees", minimum=0, maximum=360)),
        Field(name="wind_speed", dtype=Float64, tags=contract(unit="miles per hour", minimum=0, maximum=60)),
        Field(name="wind_gust", dtype=Float64, tags=contract(unit="miles per hour", minimum=0, maximum=90)),
        Field(name="precip", dtype=Float64, tags=contract(unit="inches", minimum=0, maximum=3, null="refused")),
        Field(name="pressure", dtype=Float64, tags=contract(unit="millibars", minimum=950, maximum=1060)),
        Field(name="visib", dtype=Float64, tags=contract(unit="miles", minimum=0, maximum=10, null="refused")),
    ],
    source=weather_rows,
    tags=contract(max_lag="60s", owner="weather desk"),
)

tail_departure = FeatureView(
    name="tail_departure",
    entities=[tail],
    ttl=timedelta(days=2),
    schema=[
        Field(name="dep_delay", dtype=Int64, tags=contract(unit="minutes", minimum=-60, maximum=1440, null="refused")),
    ],
    source=tail_departure_rows,
    tags=contract(max_lag="60s", owner="operations"),
)

tail_arrival = FeatureView(
    name="tail_arrival",
    entities=[tail],
    ttl=timedelta(days=2),
    schema=[
        Field(name="arr_delay", dtype=Int64, tags=contract(unit="minutes", minimum=-120, maximum=1440, null="refused")),
    ],
    source=tail_arrival_rows,
    tags=contract(max_lag="60s", owner="operations"),
)

origin_congestion = FeatureView(
    name="origin_congestion",
    entities=[origin],
    ttl=timedelta(hours=1),
    schema=[
        Field(name="departures_1h", dtype=Int64, tags=contract(unit="flights", minimum=0, maximum=60, null="refused")),
        Field(name="mean_dep_delay_1h", dtype=Float64, tags=contract(unit="minutes", minimum=-60, maximum=1440)),
        Field(name="late_share_1h", dtype=Float64, tags=contract(unit="share", minimum=0, maximum=1)),
    ],
    source=origin_congestion_rows,
    tags=contract(max_lag="60s", owner="operations"),
)

route = FeatureView(
    name="route",
    entities=[origin, dest],
    ttl=timedelta(days=3),
    schema=[
        Field(name="flights_30d", dtype=Int64, tags=contract(unit="flights", minimum=1, maximum=1200, null="refused")),
        Field(name="arrived_30d", dtype=Int64, tags=contract(unit="flights", minimum=0, maximum=1200, null="refused")),
        Field(name="late_share_30d", dtype=Float64, tags=contract(unit="share", minimum=0, maximum=1)),
        Field(name="mean_arr_delay_30d", dtype=Float64, tags=contract(unit="minutes", minimum=-120, maximum=1440)),
        Field(
            name="cancelled_share_30d", dtype=Float64, tags=contract(unit="share", minimum=0, maximum=1, null="refused")
        ),
    ],
    source=route_rows,
    tags=contract(max_lag="60s", owner="planning"),
)

plane = FeatureView(
    name="plane",
    entities=[tail],
    schema=[
        Field(name="year", dtype=Int64, tags=contract(unit="year of manufacture", minimum=1950, maximum=2013)),
        Field(name="seats", dtype=Int64, tags=contract(unit="seats", minimum=1, maximum=500, null="refused")),
        Field(name="engines", dtype=Int64, tags=contract(unit="engines", minimum=1, maximum=4, null="refused")),
        Field(name="manufacturer", dtype=String, tags=contract(null="refused")),
    ],
    source=plane_rows,
    tags=contract(max_lag="60s", owner="fleet"),
)
