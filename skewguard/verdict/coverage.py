"""Coverage: what was looked at, and which features there is too little evidence for under a policy."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from skewguard.findings import Kind
from skewguard.policy import Policy

NAMED = 20
"""How many features a verdict names that lack evidence; of the others it says how many they are."""
OWN = ("shadow", "probe")
"""Evidence that a candidate gives of itself before it answers anybody."""

Counts = tuple[tuple[str, int], ...]
"""Rows by kind of evidence."""


@dataclass(frozen=True, slots=True)
class Covered:
    """The rows that bear on one feature, by kind of evidence: those that the candidate answered itself, and `others`,
    answered by another model from the same definition of this feature."""

    name: str
    own: Counts = ()
    others: Counts = ()

    @property
    def rows(self) -> int:
        """All of them."""
        return sum(rows for _, rows in (*self.own, *self.others))

    @property
    def by_kind(self) -> dict[str, int]:
        """All of them, by kind."""
        kinds: dict[str, int] = {}
        for kind, rows in (*self.own, *self.others):
            kinds[kind] = kinds.get(kind, 0) + rows
        return kinds


@dataclass(frozen=True, slots=True)
class Names:
    """How many features, and the first of them by name."""

    count: int = 0
    first: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Collection[str]) -> Names:
        """The first `NAMED` of them."""
        return cls(len(names), tuple(names)[:NAMED])

    def __str__(self) -> str:
        more = self.count - len(self.first)
        return ", ".join((*self.first, *((f"{more} more",) if more else ()))) or "none"


@dataclass(frozen=True, slots=True)
class Scope:
    """What the features' evidence comes to under a policy; all of it that a signed record has room for.

    `features`: how many the candidate has. `uncovered`: those that lack evidence. `unpromoted`: those that lack it of
    the kinds that the policy asks for before an alias. `digest`: sha256 (hex) of the rows of every feature.
    """

    features: int = 0
    uncovered: Names = Names()
    unpromoted: Names = Names()
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was looked at. `rows` requests replayed: `equal` + `lagged` + `mismatched` + `unverifiable`.

    `values` compared values; `since`, `until` ISO texts of the first and last ask; `cross_checked` rows that the
    independent oracle recomputed; `blind` sentences on what this check cannot see. `truth` says what the rows were held
    against; `checked` the kinds of finding that were looked for; `tested` how many features have a benign rate.
    `others`: rows that another model answered, replayed for the features that it shares. `features`: the evidence for
    each feature, empty where it was not counted, and `scope` what that comes to.
    """

    rows: int = 0
    equal: int = 0
    lagged: int = 0
    mismatched: int = 0
    unverifiable: int = 0
    values: int = 0
    since: str = ""
    until: str = ""
    cross_checked: int = 0
    blind: tuple[str, ...] = ()
    truth: str = ""
    checked: tuple[Kind, ...] = ()
    tested: int = 0
    others: int = 0
    features: tuple[Covered, ...] = ()
    scope: Scope = Scope()


def coverage_from_json(data: Mapping[str, Any]) -> Coverage:
    """The coverage that `asdict` and JSON wrote; what an earlier version did not write is as it is without."""
    scope = dict(data.get("scope") or {})
    names = {name: Names(one["count"], tuple(one["first"])) for name, one in scope.items() if isinstance(one, Mapping)}
    return Coverage(
        **(
            dict(data)
            | {
                "blind": tuple(data["blind"]),
                "checked": tuple(Kind(kind) for kind in data.get("checked", ())),
                "features": tuple(
                    Covered(one["name"], _counts(one["own"]), _counts(one["others"]))
                    for one in data.get("features", ())
                ),
                "scope": Scope(**(scope | names)),
            }
        )
    )


def _counts(data: Any) -> Counts:
    return tuple((str(kind), int(rows)) for kind, rows in data)


def scope_of(coverage: Coverage, policy: Policy) -> Scope:
    """Which features lack evidence under the policy."""
    if not coverage.features:
        return Scope()
    plain = [asdict(one) for one in coverage.features]
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return Scope(
        len(coverage.features),
        Names.of([one.name for one in coverage.features if not _enough(one, coverage, policy, None)]),
        Names.of([one.name for one in coverage.features if not _enough(one, coverage, policy, policy.promotion)]),
        hashlib.sha256(canonical.encode()).hexdigest(),
    )


def lacking(coverage: Coverage, policy: Policy) -> tuple[str, ...]:
    """The features that the candidate's own rows leave below the policy's minimum."""
    least = _least(policy.minimum_rows, policy)
    return tuple(one.name for one in coverage.features if sum(rows for _, rows in one.own) < least)


def thin(coverage: Coverage, scope: Scope, policy: Policy) -> list[str]:
    """Why the evidence is too little, a sentence each; empty where it is enough."""
    total = coverage.rows + coverage.others
    if total < policy.minimum_rows:
        return [f"{total:,} rows were replayed, the policy wants {policy.minimum_rows:,}"]
    told = []
    if coverage.rows < policy.own_rows:
        told.append(
            f"{coverage.rows:,} rows were answered by the candidate itself, the policy wants {policy.own_rows:,}; "
            + _command(policy)
        )
    if scope.uncovered.count:
        counts = {one.name: one.rows for one in coverage.features}
        first = ", ".join(f"{name} ({counts[name]:,} rows)" for name in scope.uncovered.first[:3])
        more = scope.uncovered.count - min(3, len(scope.uncovered.first))
        told.append(
            f"{scope.uncovered.count:,} of {scope.features:,} features have too little evidence: {first}"
            f"{f' and {more:,} more' if more else ''}; the policy wants {policy.minimum_rows:,} rows served from the "
            f"same definition, or {policy.own_rows:,} of a shadow or probe; {_command(policy)}"
        )
    return told


def _enough(one: Covered, coverage: Coverage, policy: Policy, kinds: Collection[str] | None) -> bool:
    """Whether the rows of these kinds (None: any) are enough: of all, or of what the candidate showed of itself."""

    def counts(kind: str) -> bool:
        return kinds is None or kind in kinds

    if sum(rows for kind, rows in one.by_kind.items() if counts(kind)) >= _least(policy.minimum_rows, policy):
        return True
    shown = sum(rows for kind, rows in one.own if counts(kind) and kind in OWN)
    enough = coverage.rows + coverage.others >= policy.minimum_rows
    return enough and shown >= _least(policy.own_rows, policy)


def _least(rows: int, policy: Policy) -> int:
    """So many rows must bear on a feature where `rows` are wanted: some may be unverifiable."""
    return max(1, math.ceil(rows * (1 - policy.maximum_unverifiable)))


def _command(policy: Policy) -> str:
    probe = f" or run `skewguard probe --model DIR --rows {policy.own_rows}`" if "probe" in policy.evidence else ""
    return f"serve it as a shadow (`skewguard serve --evidence shadow --model DIR`){probe}"
