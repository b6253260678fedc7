"""Where in the traffic the differing rows lie, and since when."""

from __future__ import annotations

import numpy as np

from skewguard.findings import Observed
from skewguard.replay import Pairs
from skewguard.values import Array, Mask, instant

LABELS = ("build", "host", "model_id")
_MINUTE = 60_000_000
_CHANCE = 0.01


def slices(observed: Observed, pairs: Pairs) -> tuple[str, ...]:
    """Sentences such as 'only build B', 'only origin JFK' and 'since 2013-11-05T14:05Z until ...'."""
    bad = observed.rows
    found = []
    inside = np.ones(len(bad), dtype=bool)
    columns = {name: pairs.labels[name] for name in LABELS if name in pairs.labels}
    view = next((v for v in pairs.bundle.views if observed.finding.feature.startswith(v.name)), None)
    keys = view.keys if view else ()
    columns |= {key.ask: pairs.served.spine.keys[key.ask].values for key in keys}
    for name, values in columns.items():
        where = _only(values, bad)
        if where is not None:
            found.append(f"only {name} {values[np.flatnonzero(bad)[0]]}")
            inside &= where
    found += _window(pairs.served.spine.as_of, bad, inside)
    return tuple(found)


def _only(values: Array, bad: Mask) -> Mask | None:
    """The rows of the one value that all bad rows share, None where they share none or every row has it."""
    first = values[np.flatnonzero(bad)[0]]
    where: Mask = np.asarray(values == first, dtype=bool)
    return where if not (bad & ~where).any() and not where.all() else None


def _window(as_of: Array, bad: Mask, inside: Mask) -> list[str]:
    """Since and until when: where right rows of the slice before or after are too many to be chance.

    A slice that begins with the first bad row (a build that was deployed) dates it as well.
    """
    times, wrong = as_of[inside], bad[inside]
    first, last = int(times[wrong].min()), int(times[wrong].max())
    within = (times >= first) & (times <= last)
    rate = wrong.sum() / within.sum()
    before, after = int((times < first).sum()), int((times > last).sum())
    found = []
    if (before or (as_of < first).any()) and (not before or (1 - rate) ** before < _CHANCE):
        found.append(f"since {_minute(first)}")
    if after and (1 - rate) ** after < _CHANCE:
        found.append(f"until {_minute(last)}")
    return found


def _minute(us: int) -> str:
    return instant(int(us) // _MINUTE * _MINUTE).replace(":00Z", "Z")
