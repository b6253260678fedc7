"""What the snapshot's rows teach: learnt once, and kept for the next log that is held against the same snapshot."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from threading import Lock

from skewguard.compare.constraints import Constraints, Rules, rules
from skewguard.compare.domain import Domain, Domains, domains
from skewguard.compare.evidence import Check, training_rows
from skewguard.compare.frozen import Frozen, Habits, habits
from skewguard.compare.population import Among, Population, population
from skewguard.compare.texts import Texts, Wardrobe, wardrobes
from skewguard.compare.uniqueness import Uniqueness
from skewguard.compare.unknown import Asked, Unknown, asked
from skewguard.definitions import Bundle
from skewguard.snapshot import Snapshot

_KEPT = 4


@dataclass(frozen=True)
class Learnt:
    """What always held between columns and in each, how long sources stayed as they were, and which keys were asked
    for."""

    bundle: Bundle
    rules: Rules
    habits: Habits
    asked: Asked
    domains: dict[str, Domain]
    texts: dict[str, Wardrobe]
    population: Population

    def by_row(self) -> list[Check]:
        """Fresh checks that tell of every row whether it breaks something."""
        brought = {field.name for field in self.bundle.request}
        every = brought | set(self.bundle.keys)
        return [
            Among(Constraints(self.bundle, self.rules), self.population, every),
            Among(Unknown(self.bundle, self.asked), self.population, brought),
            Among(Domains(self.bundle, self.domains), self.population, every),
            Texts(self.bundle, self.texts),
        ]

    def checks(self) -> list[Check]:
        """All fresh checks beside the replay."""
        return [Uniqueness(), Among(Frozen(self.bundle, self.habits), self.population, ()), *self.by_row()]


@cache
def _kept() -> tuple[OrderedDict[tuple[str, str], Learnt], Lock]:
    return OrderedDict(), Lock()


def learn(snapshot: Snapshot) -> Learnt:
    """From the rows of a snapshot, or evenly spread ones of a large one."""
    kept, lock = _kept()
    key = (str(snapshot.path), snapshot.id)
    with lock:
        if key not in kept:
            training = training_rows(snapshot)
            bundle = snapshot.bundle
            kept[key] = Learnt(
                bundle,
                rules(bundle, training),
                habits(bundle, training),
                asked(bundle, training),
                domains(bundle, training),
                wardrobes(training),
                population(training),
            )
        kept.move_to_end(key)
        while len(kept) > _KEPT:
            kept.popitem(last=False)
        return kept[key]
