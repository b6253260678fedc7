"""Heal: publish again just the rows that deviate, by the writer's own ordered writes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from skewguard.definitions import Bundle, View
from skewguard.offline import OfflineStore
from skewguard.online import Layout
from skewguard.online.keys import layout_key
from skewguard.online.lookup import layout_written
from skewguard.online.store import KeptStore
from skewguard.online.stored import refuse_narrowing, stored_views
from skewguard.workflows.anti_entropy import Deviates, Deviation, Reconciled, reconcile

_CHUNK = 5_000


@dataclass(frozen=True, slots=True)
class Healed:
    """What was found, and what became of it: rows `written` and `deleted`; `left` deviate still, by design or since
    somebody else wrote meanwhile.
    """

    found: tuple[Reconciled, ...]
    written: int
    deleted: int
    left: int


def heal(
    bundle: Bundle,
    offline: OfflineStore,
    store: KeptStore,
    *,
    views: Collection[str] | None = None,
    limit: int = 1000,
    take_away: bool = False,
) -> Healed:
    """Write the missing, stale and different rows again, as known by the view's watermark, and look whether they stand.

    A newer row that a writer has published meanwhile stays. What the sources do not have is taken away only with
    `take_away`: keys that they lack, and rows that are newer than all of theirs. Watermarks stay as they are. Raises as
    `reconcile` does, and `DefinitionError` where the store has features that this service lacks; rows that were written
    until then are right.
    """
    for view in stored_views(bundle.views, views):
        written = layout_written(store, bundle.project, view.feast_name)
        refuse_narrowing(bundle.service, view, written, "Heal with a service that has all features of the view.")
    work = _Healing(bundle, store, take_away)
    found = reconcile(bundle, offline, store, views=views, limit=limit, visit=work.visit)
    return Healed(tuple(found), work.written, work.deleted, work.left)


class _Healing:
    def __init__(self, bundle: Bundle, store: KeptStore, take_away: bool) -> None:
        self._project, self._store, self._take_away = bundle.project, store, take_away
        self.written = self.deleted = self.left = 0

    def visit(self, view: View, deviations: Sequence[Deviation]) -> None:
        layout = Layout.of(view)
        meta = {layout_key(self._project, layout.digest): layout.to_json()}
        for at in range(0, len(deviations), _CHUNK):
            some = deviations[at : at + _CHUNK]
            away = [one.key for one in some if one.kind is Deviates.EXTRA or one.newer] if self._take_away else []
            rows = [(one.key, one.offline) for one in some if one.offline is not None]
            if away:
                self.deleted += self._store.delete(away)
            if rows:
                self._store.write(rows, meta)
            stands = dict(zip((one.key for one in some), self._store.mget([one.key for one in some]), strict=True))
            self.written += sum(stands[key] == row for key, row in rows)
            self.left += sum(_wrong(stands[one.key], one) for one in some)


def _wrong(stands: bytes | None, one: Deviation) -> bool:
    """Whether what stands there now is what stood there before, which deviated, or nothing where a row should be."""
    if one.offline is None:
        return stands is not None
    return stands is None or (stands != one.offline and stands == one.online)
