"""What always held between columns of the snapshot, and must hold in the log: for what replay cannot see.

A request that was sent wrong, and a source that changed its unit, agree with the offline truth. They disagree with
each other: the distance with the route, the dew point with the temperature, the scheduled departure with the clock.
Mined from the training rows; a rule is kept only where chance would hardly have spared it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from skewguard.answer import Served
from skewguard.compare.evidence import Hits, numbers
from skewguard.definitions import Bundle
from skewguard.findings import Finding, Kind
from skewguard.replay import take
from skewguard.snapshot.hashing import hash_rows, hash_values
from skewguard.values import Array, Column, Dtype, Mask

MINIMUM_ROWS = 1000
BENIGN = 0.001
"""So many rows may break what was mined: a new route that is a mile longer is no fault."""

_GROUPS = 20
_GROUP_ROWS = 5
_ENTITIES = 1000
"""So many groups or more are things of their own, such as planes, which change hands one day: no law."""

_PURE = 0.99
_NEAR = 0.05  # of the spread between quartiles
_NEAR_ROWS = 100
_DAY = 86_400_000_000
_SOUGHT_IN = 30_000
_BROKEN = 0.0001
_MARGIN = 0.1
_WAIT = 600_000_000
"""A request may wait, or be sent again: below 10 minutes (microseconds) no clock is wrong; zones differ by 15."""


@dataclass(frozen=True)
class Dependency:
    """`value` follows from `by`: the hash of the value by the hash of what determines it, both sorted by the latter."""

    by: tuple[str, ...]
    value: str
    groups: npt.NDArray[np.uint64]
    values: npt.NDArray[np.uint64]

    @property
    def sentence(self) -> str:
        """For people."""
        return f"values are not those that {' and '.join(self.by)} had in the snapshot"


@dataclass(frozen=True)
class Rules:
    """What always held: dependencies of request fields, pairs of numbers of which the first never exceeds the second,
    and instants of a request by their least and greatest distance from the ask (microseconds)."""

    dependencies: tuple[Dependency, ...]
    orders: tuple[tuple[str, str], ...]
    clocks: dict[str, tuple[int, int]]


def rules(bundle: Bundle, training: Served) -> Rules:
    """Sought in some of the training rows, and held against all of them; none where there are too few."""
    n = len(training.spine)
    if n < MINIMUM_ROWS:
        return Rules((), (), {})
    some = take(training, np.arange(0, n, max(1, n // _SOUGHT_IN)))
    dependencies = [_dependency_of(one.by, one.value, bundle, training) for one in _dependencies(bundle, some)]
    columns = numbers(bundle, training)
    orders = (pair for pair in _orders(bundle, some) if not _exceeds(columns[pair[0]], columns[pair[1]]).any())
    laws = tuple(one for one in dependencies if one is not None and _is_law(one, bundle, training))
    return Rules(laws, tuple(orders), dict(_clocks(training)))


class Constraints:
    """The log held against the rules."""

    def __init__(self, bundle: Bundle, held: Rules) -> None:
        self.bundle, self.held = bundle, held
        self._hits: dict[str, Hits] = {}
        self._groups: dict[str, set[int]] = {}

    def add(self, served: Served) -> None:
        """One more batch."""
        for dependency in self.held.dependencies:
            self._dependency(served, dependency)
        columns = numbers(self.bundle, served) if self.held.orders else {}
        for low, high in self.held.orders:
            a, b = columns[low], columns[high]
            hit = _exceeds(a, b)
            what = f"values exceed {high}, which they never did in the snapshot"
            hits = self._of(Kind.CONSTRAINT, low, what)
            hits.add(
                served, hit, [f"{x!r}" for x in a[hit][:3].tolist()], [f"at most {y!r}" for y in b[hit][:3].tolist()]
            )
        for name, (least, most) in self.held.clocks.items():
            column = served.spine.request[name]
            ahead = column.values.view(np.int64) - served.spine.as_of
            hit = column.present & ((ahead < least) | (ahead > most))
            what = "values stand in another relation to the logged time than ever in the snapshot"
            hits = self._of(Kind.CLOCK, name, what)
            hits.add(
                served, hit, [_span(one) for one in ahead[hit][:3].tolist()], [f"{_span(least)} to {_span(most)}"] * 3
            )

    def findings(self) -> list[Finding]:
        """One per rule that is broken; a dependency only where several groups break it."""
        found = []
        for sentence, hits in self._hits.items():
            groups = self._groups.get(sentence)
            finding = hits.finding() if groups is None or len(groups) >= 3 else None
            if finding is not None:
                found.append(finding)
        return found

    def _of(self, kind: Kind, feature: str, what: str) -> Hits:
        return self._hits.setdefault(feature + what, Hits(kind, feature, what, BENIGN))

    def _dependency(self, served: Served, one: Dependency) -> None:
        _, hit = _broken(one, self.bundle, served)
        columns = _columns(self.bundle, served)
        group = _group([columns[name] for name in one.by], len(served.spine))
        hits = self._of(Kind.CONSTRAINT, one.value, one.sentence)
        self._groups.setdefault(one.value + one.sentence, set()).update(np.unique(group[hit]).tolist())
        rows = np.flatnonzero(hit)[:3]
        got = [str(columns[one.value].value(row)) for row in rows]
        hits.add(served, hit, got, ["as in the snapshot"] * len(rows))


def _columns(bundle: Bundle, served: Served) -> dict[str, Column]:
    return {**served.spine.keys, **{field.name: served.spine.request[field.name] for field in bundle.request}}


def _group(columns: list[Column], rows: int) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(hash_rows(columns, rows)[:, 0])


def _dependencies(bundle: Bundle, training: Served) -> Iterator[Dependency]:
    """Request fields that follow from one or two keys and texts, in all but a few rows."""
    by = [
        name
        for name, column in _columns(bundle, training).items()
        if column.dtype in (Dtype.STRING, Dtype.INT64, Dtype.INT32)
    ]
    for field in bundle.request:
        found: list[tuple[str, ...]] = []
        for names in (*((one,) for one in by), *combinations(by, 2)):
            if field.name in names or any(set(smaller) <= set(names) for smaller in found):
                continue
            dependency = _dependency_of(names, field.name, bundle, training)
            if dependency is not None:
                found.append(names)
                yield dependency


def _dependency_of(names: tuple[str, ...], field: str, bundle: Bundle, training: Served) -> Dependency | None:
    """The values of a field by what determines it, where it does so in nearly all rows; else None."""
    columns = _columns(bundle, training)
    there = columns[field].present & np.logical_and.reduce([columns[name].present for name in names])
    group = _group([columns[name] for name in names], len(there))[there]
    value = hash_values(columns[field])[there]
    order = np.lexsort((value, group))
    group, value = group[order], value[order]
    if not len(group):
        return None
    first = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    sizes = np.diff(np.append(first, len(group)))
    pure = value[first] == value[first + sizes - 1]  # in order: the least is the greatest
    enough, judged = pure & (sizes >= _GROUP_ROWS), sizes >= 2
    if not _GROUPS <= enough.sum() <= _ENTITIES or sizes[enough].sum() < MINIMUM_ROWS:
        return None
    if sizes[pure & judged].sum() < _PURE * sizes[judged].sum() or len(np.unique(value[first[enough]])) < 3:
        return None
    return Dependency(names, field, group[first[enough]], value[first[enough]])


def _is_law(one: Dependency, bundle: Bundle, training: Served) -> bool:
    """Whether what the earlier half of the rows teaches holds in the later half: a plane's airline is a habit."""
    earlier = training.spine.as_of < np.median(training.spine.as_of)
    learnt = _dependency_of(one.by, one.value, bundle, take(training, np.flatnonzero(earlier)))
    if learnt is None:
        return False
    known, broken = _broken(learnt, bundle, take(training, np.flatnonzero(~earlier)))
    return int(known.sum()) >= MINIMUM_ROWS // 2 and broken.sum() <= _BROKEN * known.sum()


def _broken(one: Dependency, bundle: Bundle, served: Served) -> tuple[Mask, Mask]:
    """(rows whose determinants the dependency knows, rows that break it)."""
    columns = _columns(bundle, served)
    group = _group([columns[name] for name in one.by], len(served.spine))
    place = np.searchsorted(one.groups, group)
    place[place == len(one.groups)] = 0
    known = (one.groups[place] == group) & columns[one.value].present
    return known, known & (one.values[place] != hash_values(columns[one.value]))


def _orders(bundle: Bundle, training: Served) -> Iterator[tuple[str, str]]:
    """Pairs whose first never exceeds the second although it often comes close: a bound, not chance."""
    columns = {
        name: values for name, values in numbers(bundle, training).items() if np.isfinite(values).sum() >= MINIMUM_ROWS
    }
    spreads = {name: _spread(values) for name, values in columns.items()}
    for one, other in combinations(columns, 2):
        for low, high in ((one, other), (other, one)):
            gap = columns[high] - columns[low]
            there = np.isfinite(gap)
            spread = min(spreads[low], spreads[high])
            if there.sum() < MINIMUM_ROWS or spread == 0:
                continue
            some = gap[there]
            near = int(((some > 0) & (some <= _NEAR * spread)).sum())  # ties alone may be of calm days
            if some.min() >= 0 and near >= _NEAR_ROWS and (some > _NEAR * spread).sum() >= _NEAR_ROWS:
                yield low, high


def _exceeds(low: Array, high: Array) -> Mask:
    with np.errstate(invalid="ignore"):
        return np.asarray(low > high + 1e-9 * np.maximum(np.abs(low), np.abs(high)))


def _spread(values: Array) -> float:
    low, high = np.nanquantile(values, [0.25, 0.75])
    return float(high - low)


def _clocks(training: Served) -> Iterator[tuple[str, tuple[int, int]]]:
    """Instants that a request brings along and that stand in a narrow relation to the time of the request."""
    for name, column in training.spine.request.items():
        if column.dtype is not Dtype.TIMESTAMP or column.present.sum() < MINIMUM_ROWS:
            continue
        ahead = (column.values.view(np.int64) - training.spine.as_of)[column.present]
        least, most = int(ahead.min()), int(ahead.max())
        if most - least <= _DAY:
            margin = max(int(_MARGIN * (most - least)), _WAIT)
            yield name, (least - margin, most + margin)


def _span(us: int) -> str:
    return f"{us / 60_000_000:+.1f} min"
