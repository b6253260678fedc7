"""Where the rows lie: the Parquet files that `flights.sources.build_sources` writes, in the folder FLIGHTS_DATA.

The registry keeps whole paths: a relative one Feast checks against this folder but reads from the working directory.
"""

import os
from pathlib import Path

from feast import Field, FileSource, RequestSource
from feast.data_format import ParquetFormat
from feast.types import Float64, String, UnixTimestamp

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDER = CHECKOUT / os.environ.get("FLIGHTS_DATA", "build/flights")


def _parquet(name: str, description: str) -> FileSource:
    return FileSource(
        name=f"{name}_rows",
        path=str(FOLDER / f"{name}.parquet"),
        file_format=ParquetFormat(),
        timestamp_field="event_time",
        created_timestamp_column="created_time",
        description=description,
    )


weather_rows = _parquet("weather", "Hourly observations of the three airports")
tail_departure_rows = _parquet("tail_departure", "Every departure from New York, by tail number")
tail_arrival_rows = _parquet("tail_arrival", "Every arrival of a flight from New York, by tail number")
origin_congestion_rows = _parquet("origin_congestion", "The last hour's departures of each origin, every 15 minutes")
route_rows = _parquet("route", "The last 30 days of each route, daily")
plane_rows = _parquet("plane", "Register of planes")

asked = RequestSource(
    name="asked",
    schema=[
        Field(name="sched_dep", dtype=UnixTimestamp, description="Scheduled departure"),
        Field(name="distance", dtype=Float64, description="Miles"),
        Field(name="carrier", dtype=String, description="Airline, two characters"),
        Field(name="destination", dtype=String, description="Airport, three letters; the same as the key dest"),
    ],
    description="What the asker brings along",
)
