"""Transforms: one function per feature, one body for one row or a million, one runner for both sides.

A transform is a plain typed function, columns in and column out, named for its value:

    @transform
    def gust_ratio(wind_gust: float, wind_speed: float) -> float:
        return wind_gust / (wind_speed + 1.0)

Its parameters are contiguous numpy arrays of one length whose dtype follows from the annotation (`float` float64,
`int` int64, `bool` bool, `datetime` datetime64[us] in UTC, `str` an object array of `str`), never from the data.
Strings and dates go row by row through `rowmap`. The runner calls the body on the rows in which every input is
present; a derived value is only as present as its least present input.
"""

from skewguard.transforms.declare import Transform, fitted, load, transform
from skewguard.transforms.fingerprint import fingerprint, numeric_class
from skewguard.transforms.golden import golden
from skewguard.transforms.runner import run, run_all
from skewguard.transforms.scalars import rowmap
from skewguard.transforms.tracer import prove

__all__ = [
    "Transform",
    "fingerprint",
    "fitted",
    "golden",
    "load",
    "numeric_class",
    "prove",
    "rowmap",
    "run",
    "run_all",
    "transform",
]
