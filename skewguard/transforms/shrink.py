"""From rows that show a fault to the smallest rows that show it: fewer rows, plainer values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skewguard.transforms.pool import CORNERS
from skewguard.transforms.runner import Transform

Rows = list[tuple[Any, ...]]


def smallest(transform: Transform, rows: Rows, shows: Callable[[Rows], bool]) -> Rows:
    """The smallest rows found for which `shows` holds; `rows` where it does not hold twice (a fault of chance)."""
    if not shows(rows):
        return rows
    rows = _plainer(transform, _fewer(rows, shows), shows)
    return _by_hypothesis(transform, rows, shows)


def _fewer(rows: Rows, shows: Callable[[Rows], bool]) -> Rows:
    """Delta debugging: leave out halves, then quarters, ... then single rows."""
    chunk = len(rows) // 2
    while chunk:
        at = 0
        while at < len(rows):
            rest = rows[:at] + rows[at + chunk :]
            if rest and shows(rest):
                rows = rest
            else:
                at += chunk
        chunk //= 2
    return rows


def _plainer(transform: Transform, rows: Rows, shows: Callable[[Rows], bool]) -> Rows:
    for at in range(len(rows)):
        for i, (_, dtype) in enumerate(transform.inputs):
            for value in CORNERS[dtype][:16]:
                if repr(value) == repr(rows[at][i]):
                    break
                tried = [*rows]
                tried[at] = (*rows[at][:i], value, *rows[at][i + 1 :])
                if shows(tried):
                    rows = tried
                    break
    return rows


def _by_hypothesis(transform: Transform, rows: Rows, shows: Callable[[Rows], bool]) -> Rows:
    """Hypothesis looks for values between those of the pool; where it is not installed, `rows` stand."""
    try:
        from hypothesis import HealthCheck, Phase, find, settings
        from hypothesis import strategies as st
        from hypothesis.errors import NoSuchExample
    except ImportError:
        return rows
    if len(rows) > _MOST:
        return rows
    kinds = {
        "float64": st.floats(allow_nan=False, width=32),
        "int64": st.integers(-(2**31), 2**31),
        "bool": st.booleans(),
        "string": st.text(max_size=8),
    }
    row = st.tuples(
        *(
            st.sampled_from([*CORNERS[dtype][:2], *(row[i] for row in rows)])
            if dtype.value not in kinds
            else st.one_of(kinds[dtype.value], st.sampled_from([row[i] for row in rows]))
            for i, (_, dtype) in enumerate(transform.inputs)
        )
    )
    try:
        found: Rows = find(
            st.lists(row, min_size=1, max_size=len(rows)),
            shows,
            settings=settings(
                max_examples=200,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
    except NoSuchExample:
        return rows
    return min((found, rows), key=lambda r: (len(r), len(repr(r))))


_MOST = 8
"""Hypothesis is asked about examples of up to so many rows."""
