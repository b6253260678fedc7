"""Three answers to the same asks, held against each other: training's, serving's, and the one join's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from skewguard.workflows.doctor.cases import Case, Cases, Shape
from skewguard.workflows.doctor.causes import Seen, explain
from skewguard.workflows.doctor.cells import alike, shown
from skewguard.workflows.doctor.diagnosis import Cause, Defect, Where
from skewguard.workflows.doctor.feast.opened import Asked


@dataclass(frozen=True)
class Ask:
    """One row asked: a case (None for an unseen key) at an instant, which may be now."""

    key: tuple[Any, ...]
    at: datetime
    case: Case | None
    latest: bool


class _Lost:
    """Stands for a value that no side gave."""


LOST = _Lost()


@dataclass(frozen=True)
class Sides:
    """What every side gave, by feature, one value per ask."""

    asks: Sequence[Ask]
    offline: dict[str, list[Any]]
    online: dict[str, list[Any]]
    truth: dict[str, list[Any]]
    known: dict[str, list[Any]]


def _at(columns: dict[str, list[Any]], name: str, at: int) -> Any:
    return columns[name][at] if name in columns else LOST


def _nulled(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124


def asks_of(cases: Cases) -> list[Ask]:
    """Every instant of every case, newest first, so that an order of one's own shows; then a key nobody has."""
    found = [Ask(case.key, cases.end, case, True) for case in cases.cases if case.online]
    found += [Ask(case.key, at, case, False) for case in cases.cases for at in case.asks]
    return [*reversed(found), *([Ask(cases.unseen, cases.end, None, True)] if cases.unseen else [])]


def _others(cases: Cases, ask: Ask, name: str) -> tuple[Any, ...]:
    others: Iterable[Case] = (case for case in cases.cases if case.key != ask.key)
    return tuple(row.values.get(name) for case in others for row in case.rows if row.values.get(name) is not None)


def _tied(ask: Ask, name: str, *, phases: bool = False) -> tuple[Any, ...]:
    """The values of rows that have one event, whatever their created times."""
    rows = [row for row in ask.case.rows if row.event <= ask.at] if ask.case else []
    at = max((row.event for row in rows), default=None)
    tied = [row.values.get(name) for row in rows if row.event == at and (phases or not row.phase)]
    return tuple(tied) if len(tied) > 1 else ()


def _who(ask: Ask, shape: Shape) -> str:
    key = ", ".join(f"{name}={shown(value)}" for name, value in zip(shape.keys, ask.key, strict=True)) or "no key"
    about = ask.case.name if ask.case else "a key that nobody has"
    return f"{key} ({about}) as of {shown(ask.at)}"


class Comparison:
    """The comparison of one view's answers. `compared` counts values of which two sides were seen."""

    def __init__(self, shape: Shape, transformed: str, own_offline: bool) -> None:
        self.shape, self.transformed, self.own_offline = shape, transformed, own_offline
        self.compared = 0

    def of_feature(self, asked: Asked, name: str, sides: Sides, cases: Cases, full: bool = False) -> Iterator[Defect]:
        """First what is served against what training gets, then what training gets against the source."""
        found = []
        for i, ask in enumerate(sides.asks):
            trained, served = _at(sides.offline, name, i), _at(sides.online, name, i)
            dropped = trained is LOST and self.own_offline and name in sides.offline
            trained = _at(sides.truth, name, i) if dropped or (trained is LOST and not self.own_offline) else trained
            if trained is not LOST and served is not LOST:
                self.compared += 1
                if not alike(trained, served):
                    one = self._named(asked, name, ask, trained, served, sides, i, cases, full)
                    if not dropped:
                        found.append(one)
                    elif one.cause is Cause.TTL:  # an ask that is dropped is a finding of its own, why it is another
                        example = f"{_who(ask, self.shape)}: offline the ask is dropped, online {shown(served)}"
                        found.append(replace(one, example=example))
        collides = next((one for one in found if one.cause is Cause.COLLISION), None)
        if collides:  # the other feature's nulls come along
            vague = (Cause.MISSING, Cause.UNKNOWN)
            found = [replace(collides, example=one.example) if one.cause in vague else one for one in found]
        yield from found
        if not self.transformed:
            yield from self._against_source(asked, name, sides, cases, {one.cause for one in found})

    def _against_source(
        self, asked: Asked, name: str, sides: Sides, cases: Cases, said: set[Cause]
    ) -> Iterator[Defect]:
        for i, ask in enumerate(sides.asks):
            trained, truth, known = (_at(one, name, i) for one in (sides.offline, sides.truth, sides.known))
            if trained is LOST or truth is LOST:
                continue
            self.compared += 1
            given = _nulled(trained)
            if not alike(given, known) and alike(given, truth) and not ask.latest:
                yield self._leak(asked, name, ask, trained, known)
            elif not alike(given, truth) and not alike(given, known):
                wrong = self._wrong(asked, name, ask, trained, truth, cases)
                if wrong.cause not in said:
                    yield wrong

    def _named(
        self,
        asked: Asked,
        name: str,
        ask: Ask,
        trained: Any,
        served: Any,
        sides: Sides,
        i: int,
        cases: Cases,
        full: bool,
    ) -> Defect:
        past = [row for row in ask.case.rows if row.event <= ask.at] if ask.case else []
        newest = max(past, key=lambda row: (row.event, row.phase), default=None)
        same: list[Any] = []
        older: list[Any] = []
        for row in past:
            if newest and (row.event, row.phase) < (newest.event, newest.phase):
                (same if row.event == newest.event and full else older).append(row.values.get(name))
        beside = {one: column[i] for one, column in sides.online.items() if one != name and ask.case}
        seen = Seen(
            trained,
            served,
            declared=self.shape.declared[name],
            earlier=tuple(older),
            same_event=tuple(same),
            tied=_tied(ask, name),
            beside=beside,
            others=_others(cases, ask, name),
            late=bool(newest and newest.phase),
            age=ask.at - newest.event if newest else None,
            ttl=self.shape.ttl,
            transformed=self.transformed,
        )
        named = explain(seen)
        example = f"{_who(ask, self.shape)}: offline {shown(trained)}, online {shown(served)}"
        return Defect(asked.name, name, named.cause, Where.SCRATCH, named.message, example, named.remedy)

    def _wrong(self, asked: Asked, name: str, ask: Ask, trained: Any, truth: Any, cases: Cases) -> Defect:
        """Historical retrieval gives what the source does not say: named as (offline, truth) would be."""
        others, tied = _others(cases, ask, name), _tied(ask, name, phases=True)
        named = explain(Seen(trained, truth, declared=self.shape.declared[name], others=others, tied=tied))
        message = f"historical retrieval does not give what is declared over the source ({named.cause})"
        example = f"{_who(ask, self.shape)}: offline {shown(trained)}, the source says {shown(truth)}"
        return Defect(asked.name, name, named.cause, Where.SCRATCH, message, example, named.remedy)

    def _leak(self, asked: Asked, name: str, ask: Ask, trained: Any, known: Any) -> Defect:
        return Defect(
            asked.name,
            name,
            Cause.LEAK,
            Where.SCRATCH,
            "training sees rows that were created after the ask: no model in production could have known them",
            f"{_who(ask, self.shape)}: offline {shown(trained)}, known then {shown(known)}",
            "retrieve with filter_by_created_timestamp=True, or build a snapshot (skewguard snapshot build)",
        )
