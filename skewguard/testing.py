"""What users' own tests are made of.

from skewguard.testing import check_transform

def test_features_are_proven() -> None:
    check_transform(features.gust_ratio, features.wind_chill)
"""

from __future__ import annotations

from skewguard.transforms import Transform
from skewguard.transforms.checks import Checked, check


def check_transform(*transforms: Transform, processes: bool = True) -> list[Checked]:
    """Prove that each transform means the same for one row and for a million, here and in other processes.

    Raises `AssertionError` with every objection: the line, the smallest example, and how to write it instead. The two
    other processes (half a second for all transforms of one call) are left out with `processes=False`.
    """
    checked = check(transforms, processes=processes)
    against = [one.explained() for one in checked if not one.proven]
    if against:
        raise AssertionError("\n\n".join(against))
    return checked
