"""Comparisons of batches, added up: counts exactly, and so many rows of evidence as memory allows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from skewguard.compare.rows import EXAMPLES, Comparison, by_hour
from skewguard.findings import Finding, Kind, Observed, Tap
from skewguard.replay import BATCH_ROWS, Pairs, concat
from skewguard.statistics import log10_e
from skewguard.values import Array, Column, Mask, Status

Key = tuple[Kind, str, Tap]
_POINTS = 80
_LEAST = 1024
_FIRST = 64


@dataclass
class Tally:
    """What the batches of one log came to. `rows`: all that were compared, of which the four others."""

    kept_rows: int = BATCH_ROWS
    rows: int = 0
    equal: int = 0
    lagged: int = 0
    mismatched: int = 0
    unverifiable: int = 0
    values: int = 0
    _sums: dict[Key, Finding] = field(default_factory=dict)
    _hours: dict[str, int] = field(default_factory=dict)
    _evidence: list[tuple[Pairs, dict[Key, Observed], Comparison]] = field(default_factory=list)

    def add(self, pairs: Pairs, comparison: Comparison) -> None:
        """One more batch."""
        self.rows += len(pairs)
        for name in ("equal", "lagged", "mismatched", "unverifiable"):
            setattr(self, name, getattr(self, name) + int(getattr(comparison, name).sum()))
        self.values += comparison.values
        for one in comparison.observed:
            key = _key(one)
            self._sums[key] = _added(self._sums[key], one.finding) if key in self._sums else one.finding
        for hour, of, _ in by_hour(pairs.served.spine.as_of, np.zeros(len(pairs), dtype=bool)):
            self._hours[hour] = self._hours.get(hour, 0) + of
        self._keep(pairs, comparison)

    def observed(self) -> Iterator[Observed]:
        """Every finding over all rows, with the rows of evidence that were kept (masks over `pairs`)."""
        if not self._evidence:
            return
        whole = len(self._evidence) == 1 and len(self._evidence[0][0]) == self.rows
        for key, finding in self._sums.items():
            told = finding if whole else self._retold(finding)
            evidence = log10_e(told.rows, told.of, told.benign)
            rows, served, truth = self._behind(key)
            yield Observed(replace(told, evidence=evidence, points=_points(rows, served, truth)), rows, served, truth)

    def _retold(self, finding: Finding) -> Finding:
        """The finding among all rows: batches without it were compared as well."""
        what = finding.message.partition(": ")[2].partition(" of ")[2].partition(" ")[2]
        bad = {hour: rows for hour, _, rows in finding.by_hour}
        hours = tuple((hour, of, bad.get(hour, 0)) for hour, of in sorted(self._hours.items()))
        message = f"{finding.feature}: {finding.rows:,} of {self.rows:,} {what}"
        return replace(finding, of=self.rows, message=message, by_hour=hours)

    def pairs(self) -> Pairs | None:
        """The rows that were kept: all, where the log is not greater than that; else those that differ, and some."""
        return concat([pairs for pairs, _, _ in self._evidence]) if self._evidence else None

    def comparison(self) -> Comparison | None:
        """The comparison of the rows that were kept."""
        if not self._evidence:
            return None
        parts = [comparison for _, _, comparison in self._evidence]
        if len(parts) == 1:
            return replace(parts[0], observed=tuple(self.observed()))
        masks = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("equal", "lagged", "mismatched", "unverifiable")
        }
        return Comparison(tuple(self.observed()), **masks, values=self.values)

    def _behind(self, key: Key) -> tuple[Mask, Column | None, Column | None]:
        """(rows, served, truth) of one finding over the kept rows; batches in which it does not occur have none."""
        masks: list[Mask] = []
        served: list[Column] = []
        truth: list[Column] = []
        some = next(found[key] for _, found, _ in self._evidence if key in found)
        for pairs, found, _ in self._evidence:
            n = len(pairs)
            one = found.get(key)
            masks.append(one.rows if one else np.zeros(n, dtype=bool))
            if some.served is not None and some.truth is not None:
                for columns, column in ((served, some.served), (truth, some.truth)):
                    mine = one and (one.served if columns is served else one.truth)
                    columns.append(mine or _nothing(column, n))
        whole = [Column.concat(columns) if columns else None for columns in (served, truth)]
        return np.concatenate(masks), whole[0], whole[1]

    def _keep(self, pairs: Pairs, comparison: Comparison) -> None:
        """Keep all rows of a batch while there is room; then those that differ, and as many others, seeded."""
        held = sum(len(kept) for kept, _, _ in self._evidence)
        found = {_key(one): one for one in comparison.observed}
        if held + len(pairs) <= self.kept_rows:
            self._evidence.append((pairs, found, comparison))
            return
        random = np.random.default_rng(self.rows)
        room = max((self.kept_rows - held) // 2, _LEAST if held < 2 * self.kept_rows else 0)
        chosen: Mask = np.zeros(len(pairs), dtype=bool)
        bad = np.zeros(len(pairs), dtype=bool)
        for one in comparison.observed:
            bad |= one.rows
        for some in (bad, ~bad):
            at = np.flatnonzero(some)
            chosen[at if len(at) <= room else random.choice(at, room, replace=False)] = True
        for key, one in found.items():  # what has never been kept is, however full it is
            if not any(key in kept for _, kept, _ in self._evidence):
                chosen[np.flatnonzero(one.rows)[:_FIRST]] = True
        rows = np.flatnonzero(chosen)
        taken = {key: _taken(one, rows) for key, one in found.items() if one.rows[rows].any()}
        masks = {n: getattr(comparison, n)[rows] for n in ("equal", "lagged", "mismatched", "unverifiable")}
        self._evidence.append(
            (pairs.take(rows), taken, Comparison(tuple(taken.values()), **masks, values=comparison.values))
        )


def _points(rows: Mask, served: Column | None, truth: Column | None) -> tuple[tuple[float, float], ...]:
    """Some pairs (truth, served) of the rows behind a finding, evenly spread; of numbers only."""
    if served is None or truth is None or not served.dtype.is_numeric:
        return ()
    at = np.flatnonzero(rows & served.present & truth.present)
    at = at[np.unique(np.linspace(0, len(at) - 1, _POINTS).astype(int))] if len(at) > _POINTS else at
    pairs = zip(truth.values[at].astype(float).tolist(), served.values[at].astype(float).tolist(), strict=True)
    return tuple((x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y))


def _key(one: Observed) -> Key:
    return one.finding.kind, one.finding.feature, one.finding.tap


def _taken(one: Observed, rows: Array) -> Observed:
    served, truth = (None if c is None else c.take(rows) for c in (one.served, one.truth))
    return Observed(one.finding, one.rows[rows], served, truth)


def _nothing(like: Column, rows: int) -> Column:
    return Column.absent(like.dtype, rows, Status.NOT_REQUESTED)


def _added(one: Finding, other: Finding) -> Finding:
    """The finding over the rows of both."""
    hours: dict[str, tuple[int, int]] = {}
    for hour, of, rows in (*one.by_hour, *other.by_hour):
        before = hours.get(hour, (0, 0))
        hours[hour] = (before[0] + of, before[1] + rows)
    return replace(
        one,
        rows=one.rows + other.rows,
        of=one.of + other.of,
        examples=(*one.examples, *other.examples)[:EXAMPLES],
        by_hour=tuple((hour, of, rows) for hour, (of, rows) in sorted(hours.items())),
    )
