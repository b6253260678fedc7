"""TTL is applied on one side only."""

from __future__ import annotations

from collections.abc import Iterator

from skewguard.causes.evidence import Evidence, Explanation
from skewguard.causes.stale import span
from skewguard.values import Status

_MINIMUM = 8


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """A value was served where the truth has expired, or the reverse."""
    if evidence.served is None or evidence.truth is None:
        return
    served, truth = evidence.served.status, evidence.truth.status
    online = (truth == Status.EXPIRED) & (served <= Status.NULL)
    offline = (served == Status.EXPIRED) & (truth <= Status.NULL)
    if online.any():
        yield Explanation("ttl", "values older than the TTL were served", online, 4.0)
    if offline.any():
        yield Explanation("ttl", "values within the TTL were served as expired", offline, 4.0)
    yield from _shorter(evidence)


def _shorter(evidence: Evidence) -> Iterator[Explanation]:
    """Values that are missing from a certain age on, whatever they were said to be."""
    pairs, view, whole = evidence.pairs, evidence.view, evidence.observed.served
    if view is None or whole is None or evidence.served is None or evidence.truth is None:
        return
    gone = ~evidence.served.present & evidence.truth.present
    age = pairs.served.spine.as_of - pairs.truth.views[view].event
    there = age[evidence.peers & whole.present]
    if gone.sum() < _MINIMUM or len(there) < _MINIMUM:
        return
    limit = int(age[evidence.rows][gone].min())
    if limit > 0 and (there <= limit).all() and (there > limit * 0.5).any():
        what = f"values older than {span(limit)} were served as missing: a shorter TTL"
        yield Explanation("ttl", what, gone, 3.0)
