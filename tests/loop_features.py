"""The transforms of the small world in `tests/loop.py`; in a module of their own, which the server's process loads."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from skewguard.transforms import fitted, rowmap, transform


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


def wind_by_maker(maker_code: str, wind: float) -> dict[str, float]:
    """Fitted: the mean wind, by maker, of what an on-demand view made of the maker's name."""
    makers, winds = np.asarray(maker_code), np.asarray(wind)
    return {maker: float(winds[makers == maker].mean()) for maker in sorted(set(makers.tolist()))}


@transform
def maker_wind(maker_code: str, wind: float, usual: Annotated[Mapping[str, float], fitted(wind_by_maker)]) -> float:
    """How much windier it is than the maker's planes are used to."""
    return wind - rowmap(usual.get, maker_code, out=float)  # type: ignore[return-value]


@transform
def maker_code(maker: str) -> str:
    """The first three letters of a maker."""
    return rowmap(_code, maker)  # type: ignore[return-value]


def _code(maker: Any) -> str:
    return str(maker)[:3].upper()
