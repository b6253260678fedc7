"""What the snapshot's rows teach: learnt once, and kept for the next log that is held against the same snapshot."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from threading import Lock

from skewguard.compare.constraints import Rules, rules
from skewguard.compare.evidence import training_rows
from skewguard.compare.frozen import Habits, habits
from skewguard.compare.unknown import Asked, asked
from skewguard.snapshot import Snapshot

_KEPT = 4


@dataclass(frozen=True)
class Learnt:
    """What always held between columns, how long sources stayed as they were, and which keys were asked for."""

    rules: Rules
    habits: Habits
    asked: Asked


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
            kept[key] = Learnt(rules(bundle, training), habits(bundle, training), asked(bundle, training))
        kept.move_to_end(key)
        while len(kept) > _KEPT:
            kept.popitem(last=False)
        return kept[key]
