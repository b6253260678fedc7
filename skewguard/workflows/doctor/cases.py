"""Rows made up after the schema of a source, so that every edge has a key of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

US = timedelta(microseconds=1)
_HOUR = timedelta(hours=1)
_WIDE = 2**53 + 1
_EDGES = {
    "midnight in UTC": datetime(2024, 2, 29, tzinfo=UTC),
    "the hour that New York skips": datetime(2024, 3, 10, 7, tzinfo=UTC),
    "the hour that Berlin skips": datetime(2024, 3, 31, 1, tzinfo=UTC),
    "the hour that New York has twice": datetime(2024, 11, 3, 6, tzinfo=UTC),
}
_TRIED = ("Int32", "Int64", "Float32", "Float64", "Bool", "String", "UnixTimestamp", "Array")
Key = tuple[Any, ...]
Made = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """A source to imitate: Arrow types of its key and feature columns, of its times, and the names of all of them.

    `declared`: the name of each feature's declared type. `columns`: the source's column behind each feature.
    """

    keys: Mapping[str, pa.DataType]
    features: Mapping[str, pa.DataType]
    declared: Mapping[str, str]
    timestamp: str
    time_type: pa.DataType
    created: str | None
    created_type: pa.DataType | None
    ttl: timedelta | None


@dataclass(frozen=True, slots=True)
class Row:
    """A source row; one of `phase` 1 is written only after the first materialization."""

    event: datetime
    created: datetime | None
    values: Made
    phase: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """One edge on a key of its own: its rows, the instants to ask offline, and whether to ask online as of the end."""

    name: str
    key: Key
    rows: tuple[Row, ...]
    asks: tuple[datetime, ...] = ()
    online: bool = True


@dataclass(frozen=True, slots=True)
class Cases:
    """All cases of a view. `end`: the instant that counts as now; `middle`: the end of the first materialization."""

    cases: tuple[Case, ...]
    start: datetime
    middle: datetime
    end: datetime
    unseen: Key
    untried: tuple[str, ...] = field(default=())


def pool(kind: pa.DataType, declared: str) -> list[Any]:  # noqa: PLR0911  (one line per kind of type)
    """Values to try in a source column of this type that is declared as `declared`; the first is a plain one."""
    types = pa.types
    if declared.partition("(")[0] not in _TRIED:
        return []
    if types.is_list(kind) or types.is_large_list(kind):
        inner = pool(kind.value_type, declared.partition("(")[2].rstrip(")"))
        return [[inner[0]], inner[:2], [], None, [inner[0], None]] if inner else []
    if types.is_floating(kind):
        wide = [] if types.is_float32(kind) else [0.1, 1.9]
        return [2.0, *wide, -0.5, -0.0, float("nan"), None]
    if types.is_integer(kind):
        whole = declared in ("Int64", "String") and kind in (pa.int64(), pa.uint64())
        return [3, 90210 if kind.bit_width > 16 else 90, 0, *([_WIDE] if whole else []), None]
    if types.is_boolean(kind):
        return [True, False, None]
    if types.is_string(kind) or types.is_large_string(kind):
        return ["a", "", "Zürich \N{SNOWMAN} 東京", " 007 ", None]
    if types.is_timestamp(kind):
        return [*_EDGES.values(), datetime(2024, 1, 1, 0, 0, 0, 789_000, tzinfo=UTC), None]
    return []


def numbered(kind: pa.DataType, n: int) -> Any:  # noqa: PLR0911  (one line per kind of type)
    """A value that tells the n-th made-up row from the others, where the type has so many."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind):
        return [numbered(kind.value_type, n)]
    if types.is_floating(kind):
        return n + 0.5
    if types.is_integer(kind):
        return n % 100
    if types.is_boolean(kind):
        return n % 2 == 0
    if types.is_string(kind) or types.is_large_string(kind):
        return f"row {n}"
    if types.is_timestamp(kind):
        return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=n)
    return None


def make(shape: Shape, now: datetime, features: Sequence[str]) -> Cases:
    """Every case of a view for `features`, as of `now`."""
    return _Maker(shape, now, features).made()


class _Maker:
    def __init__(self, shape: Shape, now: datetime, features: Sequence[str]) -> None:
        self.shape, self.end, self.features = shape, now, list(features)
        self.step = min(_HOUR, shape.ttl / 8) if shape.ttl else _HOUR
        self.middle = now - self.step
        self.rows = 0
        self.keys = _Keys(list(shape.keys.values()))
        self.cases: list[Case] = []

    def made(self) -> Cases:
        if not self.shape.keys:  # one row answers everybody
            self._case("older and newer rows", *(self._row(n) for n in (2, 4, 3)))
            return Cases(tuple(self.cases), self._ago(5), self.middle, self.end, ())
        pools = {name: pool(self.shape.features[name], self.shape.declared[name]) for name in self.features}
        for at in range(max((len(one) for one in pools.values()), default=0)):
            values = {name: _at(one, at + i) for i, (name, one) in enumerate(pools.items())}
            self._case("a value of its own", Row(self._ago(3), self._ago(3), values))
        self._times()
        if self.shape.created:
            self._versions()
        while self.keys.distinct:
            self._case("a key that resembles another", self._row(3))
        reach = (self.shape.ttl or timedelta(0)) + timedelta(days=3)
        untried = tuple(name for name, one in pools.items() if not one)
        return Cases(tuple(self.cases), self.end - reach, self.middle, self.end, self.keys.next(), untried)

    def _times(self) -> None:
        step, ttl = self.step, self.shape.ttl
        newest = self._ago(2)
        between = (self._ago(3), self._ago(3) - US, newest, newest - US, newest + US, self._ago(4) - US)
        self._case("older and newer rows", *(self._row(n) for n in (2, 4, 3)), asks=between)
        empty = Row(newest, newest, dict.fromkeys(self.features))
        self._case("the newest row is null", self._row(3), empty)
        self._case("a row from the future", self._row(3), self._row(-1))
        for name, instant in _EDGES.items():
            rows = [self._row_at(instant - step / 2), self._row_at(instant)]
            self._case(name, *rows, asks=(instant - US, instant, instant + US), online=False)
        if ttl:
            row = self._row_at(self.end - 2 * ttl)
            edges = (row.event + ttl, row.event + ttl + US)
            self._case("exactly as old as the TTL", row, asks=edges, online=False)
            self._case("older than the TTL", self._row_at(self.end - ttl - step))

    def _versions(self) -> None:
        """What a created time tells apart: ties, corrections, late rows, rows that nobody knew yet."""
        event, known = self._ago(3), self.end - self.step / 2
        null = Row(event, None, self._values())
        tied = [self._row_at(event), Row(event, event + self.step / 4, self._values()), null]
        self._case("rows of one event", *tied, asks=(event + self.step,))
        self._case("a corrected row", self._row_at(event), Row(event, known, self._values(), 1))
        late = Row(self._ago(2), known, self._values(), 1)
        self._case("a late row", self._row(3), late)
        unknown = Row(event, event + self.step, self._values())
        self._case("a row created later", self._row_at(self._ago(4)), unknown, asks=(event + US,), online=False)

    def _case(self, name: str, *rows: Row, asks: tuple[datetime, ...] = (), online: bool = True) -> None:
        self.cases.append(Case(name, self.keys.next(), rows, asks, online))

    def _ago(self, steps: int) -> datetime:
        return self.end - steps * self.step

    def _row(self, steps: int) -> Row:
        return self._row_at(self._ago(steps))

    def _row_at(self, event: datetime) -> Row:
        return Row(event, event, self._values())

    def _values(self) -> Made:
        self.rows += 1
        return {name: numbered(self.shape.features[name], self.rows + 7 * i) for i, name in enumerate(self.features)}


def _at(values: Sequence[Any], at: int) -> Any:
    return values[at % len(values)] if values else None


class _Keys:
    """Keys of their own, those first that resemble each other."""

    def __init__(self, kinds: list[pa.DataType]) -> None:
        self.kinds, self.n = kinds, 0
        self.distinct: list[Key] = _alike(kinds)

    def next(self) -> Key:
        if self.distinct:
            return self.distinct.pop(0)
        self.n += 1
        return tuple(_key(kind, self.n) for kind in self.kinds)


def _key(kind: pa.DataType, n: int) -> Any:
    if pa.types.is_integer(kind):
        return 100 + n % (27 if kind.bit_width <= 8 else 10_000)
    return f"key {n}" if not pa.types.is_boolean(kind) else n % 2 == 0


def _alike(kinds: list[pa.DataType]) -> list[Key]:
    """Composite keys that agree in a part or, glued together, as a whole; long, odd and empty ones."""
    texts: list[Any] = ["1", "11", "", "ключ 鍵", "A", "a"]
    numbers: list[Any] = [1, 11, _WIDE, _WIDE - 1, -1, 0]
    pools = [numbers if kind == pa.int64() else numbers[:2] if pa.types.is_integer(kind) else texts for kind in kinds]
    if not kinds or any(pa.types.is_boolean(kind) for kind in kinds):
        return []
    if len(kinds) == 1:
        return [(one,) for one in pools[0]]
    first, second = [one[0] for one in pools], [one[1] for one in pools]
    swapped = [second[0], *first[1:]]
    return [tuple(first), (first[0], *second[1:]), tuple(swapped), tuple(second)]
