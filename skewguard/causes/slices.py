"""Where in the traffic the differing rows lie, and since when."""

from __future__ import annotations

from math import exp, lgamma

import numpy as np

from skewguard.definitions import Bundle, View
from skewguard.findings import Observed
from skewguard.replay import Pairs
from skewguard.values import Array, Mask, instant

LABELS = ("build", "host", "model_id")
_MINUTE = 60_000_000
_CHANCE = 0.001


def slices(observed: Observed, pairs: Pairs) -> tuple[str, ...]:
    """Sentences such as 'only build B', 'only origin JFK', 'since 2013-11-05T14:05Z' and 'until ...'.

    Each is said only where rows that were hit at random would hardly ever fall so.
    """
    bad = observed.rows
    found = []
    inside = np.ones(len(bad), dtype=bool)
    columns = {name: pairs.labels[name] for name in LABELS if name in pairs.labels}
    for view in _views(observed.finding.feature, pairs.bundle):
        columns |= {key.ask: pairs.served.spine.keys[key.ask].values for key in view.keys}
    times = pairs.served.spine.as_of
    meanwhile = (times >= times[bad].min()) & (times <= times[bad].max())
    for name, values in columns.items():
        where = _only(values, bad, meanwhile)
        if where is not None:
            found.append(f"only {name} {values[np.flatnonzero(bad)[0]]}")
            inside &= where
    found += _window(times, bad, inside)
    return tuple(found)


def _views(feature: str, bundle: Bundle) -> list[View]:
    """The view that a finding is about or that holds the feature, or those that a derived feature reads."""
    spec = next((derived for derived in bundle.derived if derived.full_name == feature), None)
    names = [bundle.view_of.get(name, name) for name in (spec.inputs if spec else (feature,))]
    return [view for view in bundle.views if view.name in names]


def _only(values: Array, bad: Mask, meanwhile: Mask) -> Mask | None:
    """The rows of the one value that all bad rows share, None where they share none or might by chance.

    Chance is what would spare the rows of other values `meanwhile`: a build that was not there yet shows nothing.
    """
    where: Mask = np.asarray(values == values[np.flatnonzero(bad)[0]], dtype=bool)
    others = int((~where & meanwhile).sum())
    shared = not (bad & ~where).any()
    return where if shared and _spared_by_chance(others, int(meanwhile.sum()), int(bad.sum())) < _CHANCE else None


def _window(as_of: Array, bad: Mask, inside: Mask) -> list[str]:
    """Since and until when: where the right rows of the slice before or after are too many to be chance.

    A slice that itself begins late (a build that was deployed) dates it as well.
    """
    times, wrong = as_of[inside], bad[inside]
    first, last = int(times[wrong].min()), int(times[wrong].max())
    before, after = int((times < first).sum()), int((times > last).sum())
    earlier = int((as_of < times.min()).sum())
    size, hit = len(times), int(wrong.sum())
    found = []
    if min(_spared_by_chance(before, size, hit), _spared_by_chance(earlier, len(as_of), size)) < _CHANCE:
        found.append(f"since {_minute(first)}")
    if _spared_by_chance(after, size, hit) < _CHANCE:
        found.append(f"until {_minute(last)}")
    return found


def _spared_by_chance(spared: int, rows: int, hit: int) -> float:
    """How likely `hit` of `rows`, drawn at random, are to leave out `spared` given ones."""
    if spared > rows - hit:
        return 0.0
    left = rows - spared
    return exp(lgamma(left + 1) - lgamma(left - hit + 1) - lgamma(rows + 1) + lgamma(rows - hit + 1))


def _minute(us: int) -> str:
    return instant(int(us) // _MINUTE * _MINUTE).replace(":00Z", "Z")
