"""All checks of a transform together: the proof, the purity of its source, its behaviour, and other processes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from skewguard.errors import DefinitionError
from skewguard.transforms.behaviour import misbehaviour
from skewguard.transforms.declare import Transform
from skewguard.transforms.elsewhere import start
from skewguard.transforms.golden import golden
from skewguard.transforms.learned import sample
from skewguard.transforms.objection import Ground, Objection
from skewguard.transforms.purity import impurities
from skewguard.transforms.tracer import prove


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known about one transform. `graph` identifies the traced computation, `golden` its values here (both
    empty where there are none), `operations` counts its elementwise steps, `proof_ms` is what the proof took."""

    transform: Transform
    objections: tuple[Objection, ...]
    graph: str
    golden: str
    operations: int
    proof_ms: float

    @property
    def proven(self) -> bool:
        """Whether nothing stands against it."""
        return not self.objections

    def explained(self) -> str:
        """Every objection with its line, its example and the way to write it instead."""
        return "\n".join(f"{self.transform.reference}: {objection}" for objection in self.objections)


def check(transforms: Sequence[Transform], *, processes: bool = True) -> list[Checked]:
    """Check all `transforms`; the other processes (`processes`) run meanwhile, once for all of them.

    One with fitted arguments that are not bound is checked with what its fits make of a few plain rows.
    """
    bound = [_bound(one) for one in transforms]
    under_way = start([one for one in bound if isinstance(one, Transform)] if processes else [])
    own = [_check(one) if isinstance(one, Transform) else one for one in bound]
    other = under_way.objections([one.transform for one in own if one.proven])
    return [
        Checked(
            one.transform,
            one.objections or tuple(other.get(one.transform.reference, ())),
            one.graph,
            one.golden,
            one.operations,
            one.proof_ms,
        )
        for one in own
    ]


def _bound(transform: Transform) -> Transform | Checked:
    try:
        return sample(transform)
    except DefinitionError as error:
        advice = "a fit that gives a finite value for any rows, also for none"
        return Checked(transform, (Objection(Ground.BEHAVIOUR, str(error), None, advice),), "", "", 0, 0.0)


_PATIENCE = 20.0
"""Seconds that one transform may take; less where its code has been objected to already, and only an example lacks."""


def _check(transform: Transform) -> Checked:
    started = time.perf_counter()
    proof = prove(transform)
    took = (time.perf_counter() - started) * 1e3
    read = [*proof.objections, *impurities(transform)]
    objections = _merged(read, misbehaviour(transform, _PATIENCE if not read else _PATIENCE / 10))
    values = "" if objections else golden(transform)
    return Checked(transform, tuple(objections), proof.graph, values, proof.operations, round(took, 3))


def _merged(read: list[Objection], seen: list[Objection]) -> list[Objection]:
    """What was seen when it ran is the example of what was read in the code, where the two are one."""
    merged = list(read)
    for objection in seen:
        same = [
            i
            for i, one in enumerate(merged)
            if objection.example
            and not one.example
            and (objection.place == one.place if objection.place else objection.ground is Ground.ROWS)
        ]
        if same:
            merged[same[0]] = replace(merged[same[0]], example=objection.example)
        else:
            merged.append(objection)
    return list({(o.place, o.what): o for o in merged}.values())
