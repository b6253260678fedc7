"""TTL is applied on one side only."""

from __future__ import annotations

from skewguard.causes.evidence import Evidence, Explanation
from skewguard.values import Status


def explain(evidence: Evidence) -> Explanation | None:
    """A value was served where the truth has expired, or the reverse."""
    if evidence.served is None or evidence.truth is None:
        return None
    served, truth = evidence.served.status, evidence.truth.status
    online = (truth == Status.EXPIRED) & (served <= Status.NULL)
    offline = (served == Status.EXPIRED) & (truth <= Status.NULL)
    count, what = max((int(online.sum()), "values older than the TTL were served"),
                      (int(offline.sum()), "values within the TTL were served as expired"))  # fmt: skip
    return Explanation("ttl", what, count / len(served)) if count else None
