"""What is computed when it is asked for, by the functions of `flights.transforms`."""

from sources import asked
from views import plane, tail_arrival, tail_departure, weather

from flights.transforms import (
    carrier_code,
    crosswind,
    delay_recovered,
    destination_code,
    dewpoint_spread,
    gust_excess,
    log_distance,
    plane_age,
    sched_hour,
    sched_weekday,
)
from skewguard import on_demand
from skewguard.contract import contract

schedule = on_demand(
    name="schedule",
    sources=[asked],
    functions=[sched_hour, sched_weekday, log_distance, carrier_code, destination_code],
    tags=contract(null="refused", owner="flights"),
    description="Of the schedule alone: when, how far, by whom and where to.",
)

conditions = on_demand(
    name="conditions",
    sources=[
        weather[["temp", "dewp", "wind_dir", "wind_speed", "wind_gust"]],
        tail_departure,
        tail_arrival,
        plane[["year"]],
        asked,
    ],
    functions=[gust_excess, dewpoint_spread, crosswind, plane_age, delay_recovered],
    tags=contract(owner="flights"),
    description="Of what is stored: wind, fog, the plane's age and what it made good.",
)
