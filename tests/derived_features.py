# mypy: ignore-errors
"""Transforms of every type, by the names of the columns that tests/test_on_demand.py stores."""

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np

from skewguard.transforms import rowmap, transform

TOKYO = ZoneInfo("Asia/Tokyo")
FACTOR = 0.1


@transform
def scaled(amount: float) -> float:
    """A tenth of the amount's logarithm."""
    return np.log1p(np.abs(amount)) * FACTOR


@transform
def share(amount: float, visits: int) -> float:
    """Amount per visit."""
    return amount / visits


@transform
def next_visit(visits: int) -> int:
    """Number of the next visit."""
    return visits + 1


@transform
def quiet(active: bool, visits: int) -> bool:
    """Inactive and seldom here."""
    return ~active & (visits < 3)


@transform
def greeting(city: str, asked_for: str) -> str:
    """Two texts in one."""
    return rowmap(lambda city, what: f"{what.strip()} in {city.upper()}", city, asked_for, out=str)


@transform
def local_hour(seen: datetime) -> int:
    """Hour in Tokyo."""
    return rowmap(_hour, seen)


def _hour(seen: datetime) -> int:
    return seen.astimezone(TOKYO).hour


@transform
def next_morning(seen: datetime) -> datetime:
    """Six o'clock on the next day, UTC."""
    return seen.astype("datetime64[D]") + np.timedelta64(30, "h")


@transform
def days_since(seen: datetime, at: datetime) -> float:
    """Days between two instants."""
    return (at - seen) / np.timedelta64(1, "D")
