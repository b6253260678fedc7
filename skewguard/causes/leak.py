"""What was served could not have been known when it was asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skewguard.causes.evidence import Evidence, Explanation
from skewguard.causes.stale import HOUR, MINUTE, span
from skewguard.replay import Age
from skewguard.values import NO_TIME

_ZONE_HOURS = 14


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """Rows of a view from the future: the event itself, or a correction that came later; a clock ahead by hours."""
    pairs, view = evidence.pairs, evidence.view
    if evidence.served is not None or view is None or view not in pairs.age:
        return
    rows = evidence.rows
    leak = pairs.age[view][rows] == Age.LEAK
    if not leak.any():
        return
    got, as_of = pairs.served.views[view].take(rows), pairs.served.spine.as_of[rows]
    ahead = got.event - as_of
    future = leak & (got.event != NO_TIME) & (ahead > 0)
    if future.any():
        line = evidence.scene.timeline(view)
        known = np.maximum(got.event, got.created)
        most = int((known - as_of)[future].max())
        reach = (line.following(line.asked[rows], known) - as_of)[future]  # the next one was not reached
        hours = round(most / HOUR)
        if future.sum() * 5 > leak.sum():  # corrections of the future belong to it
            future = leak
        whole = 1 <= hours <= _ZONE_HOURS and most <= hours * HOUR + MINUTE and hours * HOUR - MINUTE <= reach.min()
        watermark = pairs.served.views[view].watermark[rows]
        if np.median((watermark - as_of)[watermark != NO_TIME]) > 0 if (watermark != NO_TIME).any() else False:
            whole, what = False, f"the writer of {view} wrote events up to {span(most)} before they happened"
            yield Explanation("future", what, future, 12.0, -most)
        if whole and most > hours * HOUR - max(10 * MINUTE, most // 20):
            what = f"{view} was asked as of {hours} h later, by a clock of another time zone"
            yield Explanation("timezone", what, future, 18.0, -most)
        what = f"events of {view} were served up to {span(most)} before they happened"
        yield Explanation("future", what, future, 20.0, -most)
    late = leak & ~future
    if late.any():
        most = int((got.created - as_of)[late].max())
        what = f"{view} was served as it was corrected up to {span(most)} after the request: by event time alone"
        yield Explanation("leak", what, late, 20.0, -most)
