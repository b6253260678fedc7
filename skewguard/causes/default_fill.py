"""A missing value was replaced by a constant on one side."""

from __future__ import annotations

import numpy as np

from skewguard.causes.evidence import Evidence, Explanation


def explain(evidence: Evidence) -> Explanation | None:
    """The truth has no value where one and the same value was served, or a constant was served in place of many."""
    if evidence.served is None or evidence.truth is None:
        return None
    served, truth = evidence.served, evidence.truth
    filled = served.present & ~truth.present
    if filled.any():
        values, counts = np.unique(served.values[filled], return_counts=True)
        return Explanation(
            "null_fill", f"a missing value was served as {values[counts.argmax()]}", int(counts.max()) / len(served)
        )
    emptied = ~served.present & truth.present
    if emptied.any():
        return Explanation("nulled", "a value that exists was served as missing", int(emptied.sum()) / len(served))
    values, counts = np.unique(served.values, return_counts=True)
    if counts.max() * 2 > len(served) and len(np.unique(truth.values)) > 2:
        share = int(counts.max()) / len(served)
        return Explanation("default", f"{values[counts.argmax()]} was served whatever the truth", share)
    return None
