"""A value lost digits on one side."""

from __future__ import annotations

import numpy as np

from skewguard.causes.evidence import Evidence, Explanation


def explain(evidence: Evidence) -> Explanation | None:
    """Served is the truth as float32, truncated, or rounded to a number of decimals."""
    numbers = evidence.numbers()
    if numbers is None:
        return None
    served, truth = numbers
    with np.errstate(all="ignore"):
        candidates = [
            ("float32", "served = truth as float32", truth.astype(np.float32).astype(np.float64)),
            ("truncated", "served = truth without its fraction", np.trunc(truth)),
            *((f"rounded_{d}", f"served = truth rounded to {d} decimals", np.round(truth, d)) for d in range(7)),
        ]
    best = max(candidates, key=lambda c: int((c[2] == served).sum()))
    hits = int((best[2] == served).sum())
    return Explanation(best[0], best[1], hits / len(evidence.rows)) if hits else None
