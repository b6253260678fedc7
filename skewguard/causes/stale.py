"""The writer of the online store stood still, or ran behind, for a whole view."""

from __future__ import annotations

import numpy as np

from skewguard.causes.evidence import Evidence, Explanation
from skewguard.replay import Age
from skewguard.values import NO_TIME, instant


def explain(evidence: Evidence) -> Explanation | None:
    """Rows of a view older than `max_lag` allows; the logged watermarks tell a writer that stopped from a lost row."""
    pairs, view = evidence.pairs, evidence.view
    if evidence.served is not None or view is None or view not in pairs.age:
        return None
    rows = evidence.rows
    stale = pairs.age[view][rows] == Age.STALE
    if not stale.any():
        return None
    as_of = pairs.served.spine.as_of[rows]
    watermark = pairs.served.views[view].watermark[rows]
    max_lag = pairs.bundle.view(view).max_lag_us
    behind = np.where(watermark == NO_TIME, 0, as_of - watermark)
    late_writer = stale & (behind > max_lag)
    worst = _span(int(behind[stale].max()))
    if late_writer.sum() * 2 > stale.sum():
        stops = np.unique(watermark[late_writer])
        if len(stops) == 1:
            what = f"the writer of {view} stood still at {instant(int(stops[0]))}, up to {worst} behind"
        else:
            what = f"the writer of {view} ran up to {worst} behind (max_lag {_span(max_lag)})"
        return Explanation("stale", what, float(late_writer.sum() / len(rows)))
    lag = int(pairs.lag_us[view][rows].max())
    what = f"newer rows of {view} never reached the online store although its writer had passed them"
    if lag:  # none where no row of the key ever did
        what += f"; what was served is up to {_span(lag)} older"
    return Explanation("lost_write", what, float(stale.sum() / len(rows)))


def _span(us: int) -> str:
    minutes, seconds = divmod(round(us / 1_000_000), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
