"""TTL is applied on one side only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skewguard.causes.evidence import Evidence, Explanation
from skewguard.causes.stale import span
from skewguard.causes.swap import same
from skewguard.causes.timeline import encode
from skewguard.values import Mask, Status

_MINIMUM = 8
_MOST = 0.9
_TOLD = 3
_RARE = 0.01


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """A value was served where the truth has expired, or the reverse."""
    if evidence.served is None or evidence.truth is None:
        return
    served, truth = evidence.served.status, evidence.truth.status
    online = (truth == Status.EXPIRED) & (served <= Status.NULL)
    offline = (served == Status.EXPIRED) & (truth <= Status.NULL)
    if online.any() and not _filled(evidence, online):
        yield Explanation("ttl", "values older than the TTL were served", online, 4.0)
    alone = _alone(evidence, offline) if offline.any() else None
    if alone:
        yield alone
        return
    if offline.any():
        yield Explanation("ttl", "values within the TTL were served as expired", offline, 4.0)
    yield from _shorter(evidence)


def _filled(evidence: Evidence, online: Mask) -> bool:
    """Whether one and the same value stands where many have expired that had others: no old value but a default."""
    served, view = evidence.served, evidence.view
    if served is None or view is None or served.status[online].max() > 0:
        return False
    line, expired = evidence.scene.timeline(view), evidence.pairs.truth.views[view].event[evidence.rows]
    place = line.dated(line.asked[evidence.rows], expired)  # witnessed while it was young
    told = online & (place >= 0)
    mine = line.features[evidence.feature.removeprefix(view + "__")]
    if told.sum() >= _TOLD:
        return bool(same(served.take(np.flatnonzero(told)), mine.take(place[told])).mean() < 1 - _MOST)
    if len(np.unique(np.stack([line.asked[evidence.rows], expired])[:, online], axis=1).T) < _TOLD:
        return False  # a row or two have a value or two
    values, counts = np.unique(encode(served)[online], return_counts=True)
    one = served.values[np.flatnonzero(online & (encode(served) == values[counts.argmax()]))[0]]
    usual = mine.values[mine.present] == one
    return bool(counts.max() >= max(_MOST * online.sum(), _TOLD) and (not len(usual) or usual.mean() < _RARE))


def _alone(evidence: Evidence, expired: Mask) -> Explanation | None:
    """Where the rest of the row has not expired, it is no TTL: the column is older than the row."""
    pairs, view = evidence.pairs, evidence.view
    if view is None:
        return None
    ttl = pairs.bundle.view(view).ttl_us
    mine = evidence.feature.removeprefix(view + "__")
    rest = [one.status[evidence.rows] for name, one in pairs.served.views[view].features.items() if name != mine]
    if not ttl or not rest or not (np.min(rest, axis=0)[expired] <= Status.NULL).mean() >= _MOST:
        return None
    what = f"the values of {view}.{mine} had expired and the rest of their rows had not"
    what += f": this column is filled apart, and more than {span(ttl)} behind"
    return Explanation("stale", what, expired, 4.0, ttl)


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
