"""The transforms of the small world in `tests/loop.py`; in a module of their own, which the server's process loads."""

from typing import Any

from skewguard.transforms import rowmap, transform


@transform
def gust_ratio(gust: float, wind: float) -> float:
    """How gusty the wind is."""
    return gust / (wind + 1.0)


@transform
def gust_ratio_of_build_b(gust: float, wind: float) -> float:
    """What somebody rewrote it to."""
    return gust / wind


@transform
def per_stop(distance: float, stops: int) -> float:
    """Distance per leg; infinite for a caller's -1 stops."""
    return distance / (stops + 1)


@transform
def maker_code(maker: str) -> str:
    """The first three letters of a maker."""
    return rowmap(_code, maker)  # type: ignore[return-value]


def _code(maker: Any) -> str:
    return str(maker)[:3].upper()
