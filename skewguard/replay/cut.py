"""Rows of other definitions, cut to the features that are the same, and held against the truth of these alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from skewguard.answer import Served, vector
from skewguard.definitions import Bundle, View
from skewguard.offline import OfflineStore
from skewguard.replay.stream import served_batches
from skewguard.replay.truth import Truth
from skewguard.servinglog import Segment
from skewguard.snapshot import Snapshot
from skewguard.spine import Spine, ViewRows
from skewguard.values import NO_TIME, Array, Mask


def cut_batches(
    segments: Sequence[Segment], theirs: Bundle, ours: Bundle, rows: int, since: int = NO_TIME
) -> Iterator[tuple[Served, dict[str, Array]]]:
    """As `served_batches`, of rows that were served under `theirs`, with the features of `ours` alone.

    All features of `ours` must be the same in `theirs`. What their model was given and what it said is left out.
    """
    for served, labels in served_batches(segments, theirs, rows, since):
        spine = served.spine
        asked = Spine(
            spine.ids,
            spine.as_of,
            {name: spine.keys[name] for name in ours.keys},
            {one.name: spine.request[one.name] for one in ours.request},
        )
        views = {view.name: _of(view, served.views[view.name]) for view in ours.views}
        derived = {one.full_name: served.derived[one.full_name] for one in ours.derived}
        some = Served(asked, views, derived, np.empty((0, 0)))
        yield replace(some, vector=vector(ours, some)), labels


class CutTruth(Truth):
    """The truth of some features alone. `offline` holds their views whole: by all columns a source is known again."""

    def __init__(self, of: Snapshot, ours: Bundle, offline: OfflineStore) -> None:
        super().__init__(of, offline)
        self.bundle = ours

    def answers(self, spine: Spine) -> dict[str, ViewRows]:
        """Of these views, these features."""
        found = super().answers(spine)
        return {view.name: _of(view, found[view.name]) for view in self.bundle.views}

    def named(self, view: View, spine: Spine, event: Array, created: Array) -> ViewRows:
        """The same rows, these features."""
        return _of(view, super().named(view, spine, event, created))

    def may_be_rewritten(self, view: View, event: Array, created: Array) -> Mask:
        """As the whole view says."""
        return super().may_be_rewritten(self._whole(view), event, created)

    def may_be_lost(self, view: View, event: Array, created: Array) -> Mask:
        """As the whole view says."""
        return super().may_be_lost(self._whole(view), event, created)

    def _whole(self, view: View) -> View:
        assert self.snapshot is not None  # noqa: S101  (it was made of one)
        return self.snapshot.bundle.view(view.name)


def _of(view: View, rows: ViewRows) -> ViewRows:
    return replace(rows, features={one.name: rows.features[one.name] for one in view.features})
