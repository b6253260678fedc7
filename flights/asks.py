"""The asks: one per flight, 60 minutes before its scheduled departure, with the label that came to be known later."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from flights.instants import LATE, MINUTE, flights_with_instants, microseconds, to_timestamps
from flights.sources import write

AHEAD = 60 * MINUTE
"""How long before its scheduled departure a flight is asked about."""


def build_asks(out: Path) -> None:
    """Write `asks.parquet` into `out`, whole or not at all. Raises `SourceError` as `flights.raw.read` does."""
    out.mkdir(parents=True, exist_ok=True)
    write(asks(), out / "asks.parquet")


def asks() -> pa.Table:
    """Every flight of the year as an ask, in the order of (event_timestamp, flight_id); 336,776 rows.

    flight_id; event_timestamp: when the model is asked; origin, dest, tailnum (null where unknown): the keys;
    sched_dep, distance (miles, float64), carrier, destination (the same as dest): what the asker brings along;
    late: whether it arrived more than 15 minutes late, null where it never arrived at its destination (cancelled or
    diverted); label_time: when that was known, null where late is. Times are `timestamp[us, UTC]`.
    """
    flights = flights_with_instants()
    table = pa.table(
        {
            "flight_id": flights["flight_id"],
            "event_timestamp": to_timestamps(microseconds(flights["sched_dep"]) - AHEAD),
            "origin": flights["origin"],
            "dest": flights["dest"],
            "tailnum": flights["tailnum"],
            "sched_dep": flights["sched_dep"],
            "distance": flights["distance"],
            "carrier": flights["carrier"],
            "destination": flights["dest"],
            "late": pc.greater(flights["arr_delay"], LATE),
            "label_time": flights["landing_known"],
        }
    )
    return table.sort_by([("event_timestamp", "ascending"), ("flight_id", "ascending")])
