"""From rows that show a fault to the smallest rows that show it: fewer rows, plainer values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from skewguard.transforms.declare import Transform
from skewguard.transforms.pool import CORNERS

Rows = list[tuple[Any, ...]]
Shows = Callable[[Rows], bool]


def smallest(transform: Transform, rows: Rows, shows: Shows) -> Rows:
    """The smallest rows found for which `shows` holds; `rows` where it does not hold twice (a fault of chance)."""
    if not shows(rows):
        return rows
    rows = _fewer(rows, shows)
    if len(rows) > _MOST:
        return rows
    for at in range(len(rows)):
        for i, (_, dtype) in enumerate(transform.inputs):
            rows = _plainer(rows, at, i, CORNERS[dtype][:16], shows)
    ordered = sorted(rows, key=lambda row: (len(repr(row)), repr(row)))
    return ordered if shows(ordered) else rows


_PLAINEST = 4
"""The first so many corners of a dtype are as plain as it gets."""
_MOST = 32
"""Of so many rows each value is made plainer."""


def _fewer(rows: list[Any], shows: Callable[[list[Any]], bool]) -> list[Any]:
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


def _plainer(rows: Rows, at: int, i: int, plain: list[Any], shows: Shows) -> Rows:
    """The same rows with the plainest value found in row `at`, column `i`."""

    def put(value: Any) -> Rows:
        return [*rows[:at], (*rows[at][:i], value, *rows[at][i + 1 :]), *rows[at + 1 :]]

    found = next((value for value in plain if repr(value) == repr(rows[at][i]) or shows(put(value))), rows[at][i])
    if found in plain[:_PLAINEST]:
        return put(found)
    toward = _toward(found, lambda value: shows(put(value)))
    return put(next((value for value in toward if shows(put(value))), found))


def _toward(value: Any, holds: Callable[[Any], bool]) -> Iterator[Any]:
    """Plainer values than `value`, the plainest first."""
    if isinstance(value, str):
        yield "".join(_fewer(list(value), lambda letters: holds("".join(letters))))
    elif isinstance(value, datetime):
        yield from (value.replace(hour=0, minute=0, second=0, microsecond=0), value.replace(second=0, microsecond=0))
        yield value.replace(microsecond=0)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield _nearest_zero(value, holds)
    elif isinstance(value, float) and math.isfinite(value):
        whole = float(math.trunc(value))
        if holds(whole):
            yield float(_nearest_zero(int(whole), lambda number: holds(float(number))))
        away = whole + math.copysign(1.0, value)
        yield from (away, *(round(value, digits) for digits in range(1, 7)))


def _nearest_zero(number: int, holds: Callable[[int], bool]) -> int:
    """The whole number nearest to zero for which it still holds, where it holds from some number on."""
    sign, without, with_it = (-1 if number < 0 else 1), 0, abs(number)
    while with_it - without > 1:
        middle = (with_it + without) // 2
        without, with_it = (without, middle) if holds(sign * middle) else (middle, with_it)
    return sign * with_it
