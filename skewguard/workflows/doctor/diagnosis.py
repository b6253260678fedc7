"""What the doctor says: defects with their causes, and what it could not look at."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType


class Where(enum.StrEnum):
    """Where a defect showed: in the team's own stores, or on made-up rows in a scratch copy."""

    STORES = "stores"
    SCRATCH = "scratch"
    ON_DEMAND = "on-demand"


_PLACES = {
    Where.STORES: "in your stores",
    Where.SCRATCH: "on edge cases, in a scratch copy",
    Where.ON_DEMAND: "run as Feast runs it",
}


class Cause(enum.StrEnum):
    """Why the two sides differ, as far as the values tell."""

    ERROR = "error"  # a side raises
    TTL = "ttl"  # the row is older than the view's TTL, and served
    CORRECTION = "correction"  # a later version of the same event never arrives
    TIE = "tie"  # several rows of one event, and no side says which
    LATE = "late"  # a late row is passed over
    STALE = "stale"  # an older row is served
    MISSING = "missing"  # a row is there offline and not online
    LEAK = "leak"  # training sees what was not known then
    FLOAT32 = "float32"
    SECONDS = "seconds"
    DIGITS = "digits"  # of an integer beyond 2**53
    TRUNCATED = "truncated"  # a fraction is cut off
    TEXT = "text"  # a number became a text by way of a float
    NAN = "nan"
    NULL = "null"  # what one side has null, the other has filled
    COLLISION = "collision"  # one feature's value under another's name
    WRONG_ROW = "wrong row"  # another key's value
    TRANSFORMED = "transformed"  # computed on one side only
    STATUS = "status"  # PRESENT for what is not there
    ROWS = "rows"  # asks are lost, multiplied or turned round
    NAME = "name"  # a column of the asks hides the feature
    DATASET = "dataset"  # a saved dataset comes back as another one
    ON_DEMAND = "on-demand"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Defect:
    """One difference, named: `rows` of `of` compared values show it. `feature` is empty for a whole view."""

    view: str
    feature: str
    cause: Cause
    where: Where
    message: str
    example: str
    remedy: str
    rows: int = 1
    of: int = 1


@dataclass(frozen=True, slots=True)
class Unchecked:
    """What could not be looked at, and why."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was found; `compared` counts values of which both sides were seen."""

    defects: tuple[Defect, ...]
    unchecked: tuple[Unchecked, ...]
    compared: int
    views: tuple[str, ...]
    seconds: float


_OF_ROWS = frozenset(
    {
        Cause.TTL,
        Cause.TIE,
        Cause.CORRECTION,
        Cause.LATE,
        Cause.STALE,
        Cause.MISSING,
        Cause.LEAK,
        Cause.TRANSFORMED,
    }
)
"""Causes that a row has as a whole: said once of the view, not of each of its features."""


def grouped(defects: Iterable[Defect]) -> list[Defect]:
    """One line per view, feature, cause and place, or per view where rows are at fault; the first example stands."""
    found: dict[tuple[str, str, Cause, Where], Defect] = {}
    for one in defects:
        whole = one.cause in _OF_ROWS or not one.feature
        key = (one.view, one.message if one.cause in (Cause.ERROR, Cause.ROWS) else "", one.cause, one.where)
        key = key if whole else (one.view, f"{one.feature} {key[1]}", one.cause, one.where)
        old = found.get(key)
        if old is None:
            found[key] = one
        else:
            feature = old.feature if old.feature == one.feature else ""
            found[key] = replace(old, feature=feature, rows=old.rows + one.rows, of=old.of + one.of)
    return sorted(found.values(), key=lambda one: (list(Where).index(one.where), one.view, bool(one.feature)))


def renderable(diagnosis: Diagnosis) -> RenderableType:
    """Tables for the terminal."""
    from rich.console import Group
    from rich.table import Column, Table
    from rich.text import Text

    count = f"{diagnosis.compared:,} values of {len(diagnosis.views)} views compared in {diagnosis.seconds:.0f} s"
    parts: list[RenderableType] = [Text(f"{count}: {len(diagnosis.defects)} findings")]
    if diagnosis.defects:
        table = Table(Column("where", overflow="fold"), "what differs, and what to do", show_lines=True)
        for places, one in _alike(diagnosis.defects):
            said = Text.assemble(one.message, "\n", (one.example, "dim"), "\n", (one.remedy, "green"))
            where = "\n".join(places)
            table.add_row(Text.assemble(where, "\n", (one.cause, "bold red"), f"\n{_PLACES[one.where]}"), said)
        parts.append(table)
    if diagnosis.unchecked:
        table = Table(Column("not checked", overflow="fold"), "why", show_lines=True)
        reasons: dict[str, list[str]] = {}
        for gap in diagnosis.unchecked:
            reasons.setdefault(gap.reason, []).append(gap.what)
        for reason, what in reasons.items():
            table.add_row(Text("\n".join(what)), Text(reason))
        parts.append(table)
    return Group(*parts)


def _alike(defects: Iterable[Defect]) -> Iterator[tuple[list[str], Defect]]:
    """What several views have in common is said once: (where it shows, the first of them)."""
    found: dict[tuple[Cause, Where, str, str, str], tuple[list[str], Defect]] = {}
    for one in defects:
        place = f"{one.view}:{one.feature}" if one.feature else one.view
        key = (one.cause, one.where, one.message, one.remedy, one.feature)
        found.setdefault(key, ([], one))[0].append(place)
    yield from found.values()
