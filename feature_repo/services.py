"""What one model asks for."""

from feast import FeatureService
from on_demand import conditions, schedule
from views import origin_congestion, plane, route, tail_arrival, tail_departure, weather

from skewguard.contract import model_input

flight_delay = FeatureService(
    name="flight_delay",
    features=[
        weather,
        tail_departure,
        tail_arrival,
        origin_congestion,
        route,
        plane[["year", "seats", "engines"]],
        schedule,
        conditions,
    ],
    tags=model_input("flights.transforms:carrier_delay"),
    description="Will the flight arrive more than 15 minutes late? Asked 60 minutes before its scheduled departure.",
)
