"""Causes: one hypothesis per file. Each looks at the rows behind a finding and says what explains how many of them.

`explain` asks them all, keeps the one that explains most (the simplest of equals, in the order of `HYPOTHESES`), and
adds in which slice of the traffic, and since when. Fewer than three rows, or less than half explained, is unknown.
"""

from __future__ import annotations

from dataclasses import replace

from skewguard.causes import default_fill, precision, stale, unexpired, unit
from skewguard.causes.evidence import Evidence, Explanation
from skewguard.causes.slices import slices
from skewguard.findings import Finding, Kind, Observed, Tap
from skewguard.replay import Pairs

HYPOTHESES = (stale.explain, unexpired.explain, default_fill.explain, precision.explain, unit.explain)
MINIMUM_ROWS = 3
MINIMUM_SHARE = 0.5

__all__ = ["Evidence", "Explanation", "explain"]


def explain(observed: Observed, pairs: Pairs) -> Finding:
    """The finding with its cause, the share of rows that this explains, and its slices.

    A leak and a broken contract are told by their kind, and come back as they are.
    """
    finding = observed.finding
    if finding.kind not in (Kind.MISMATCH, Kind.STALE):
        return finding
    if finding.rows < MINIMUM_ROWS:
        return replace(finding, cause="unknown: too few rows to tell", cause_kind="unknown")
    where = slices(observed, pairs)
    evidence = Evidence.of(observed, pairs)
    found = [e for hypothesis in HYPOTHESES if (e := hypothesis(evidence)) is not None]
    best = max(found, key=lambda e: round(e.explained, 2), default=None)
    if best is None or best.explained < MINIMUM_SHARE:
        unknown = "unknown: no hypothesis explains it"
        if finding.tap is Tap.TRANSFORM:
            unknown = "the transform gives another value for the logged inputs: the server ran other code"
        return replace(finding, cause=unknown, cause_kind="unknown", slices=where)
    return replace(finding, cause=best.sentence, cause_kind=best.kind, explained=best.explained, slices=where)
