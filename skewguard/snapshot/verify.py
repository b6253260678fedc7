"""Verify: does a snapshot still follow from the sources, and if not, which rows and columns do not?

Cheap when nothing changed: the stored rows are hashed again, the sources are digested again, and only where a month of
a source is another than it was are the answers computed anew and held against the stored ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewguard.answer import Served, answer, from_table
from skewguard.definitions import Bundle, View
from skewguard.offline import OfflineStore
from skewguard.snapshot.build import answers
from skewguard.snapshot.erasure import explained
from skewguard.snapshot.frozen import Digest, Manifest, Origin, Snapshot
from skewguard.snapshot.hashing import hash_rows, whole
from skewguard.snapshot.sources import changed_months, source_digests
from skewguard.spine import Spine, ViewRows
from skewguard.transforms import numeric_class
from skewguard.values import NO_TIME, ULPS_ACROSS_CLASSES, Column, Mask, Status, instant, same

EXAMPLES = 3
REWRITTEN = "history was rewritten after training"
OTHERWISE = "the same sources answer otherwise than they did"
GIVEN = "the adopted values are not what the sources give"


@dataclass(frozen=True, slots=True)
class Otherwise:
    """One ask that is answered otherwise than it was: what was recorded, and what the sources say now."""

    id: str
    as_of: str
    keys: str
    column: str
    was: str
    now: str

    def __str__(self) -> str:
        asked = f"{self.keys}, as of" if self.keys else "as of"
        return f"ask {self.id}, {asked} {self.as_of}: {self.column} was {self.was}, is {self.now}"


@dataclass(frozen=True, slots=True)
class Rewritten:
    """One view that answers otherwise than it did.

    `asks`: rows of the snapshot whose answer is another. `rows`: source rows behind them. `since`: the earliest event
    time among these, as recorded or as it is now. `columns`: asks per feature that differs. `months`: of the source,
    those whose rows are others (empty where the snapshot keeps no digests). `why`: what that means. `examples`: the
    first asks.
    """

    view: str
    asks: int
    rows: int
    since: str
    columns: dict[str, int]
    months: tuple[str, ...] = ()
    why: str = REWRITTEN
    examples: tuple[Otherwise, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.rows:,} rows of {self.view}, since {self.since[:10]}"]
        parts.append(f"which answer {self.asks:,} asks otherwise")
        if self.columns:
            parts.append(", ".join(f"{name} {count:,}" for name, count in self.columns.items()))
        return f"{self.why}: {'; '.join(parts)}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What became of a snapshot of `rows` rows.

    `damage`: what is wrong with the stored rows themselves, empty if nothing. `months`: per view, the months of its
    source that are others than they were. `compared`: whether the answers were computed anew; `differ`: rows of the
    snapshot in which anything is another; `views` and `derived` say what.
    """

    id: str
    rows: int
    damage: str
    months: dict[str, tuple[str, ...]]
    compared: bool
    differ: int
    views: tuple[Rewritten, ...]
    derived: dict[str, int]

    @property
    def same(self) -> bool:
        """Whether the snapshot follows from today's sources, row by row."""
        return not self.damage and not self.differ


def verify_snapshot(snapshot: Snapshot, *, full: bool = False, offline: OfflineStore | None = None) -> Verification:
    """Hold a snapshot against today's sources, under the rule and the definitions that it was built with.

    `full` computes the answers anew even where the digests of all sources are what they were, as is always done for an
    adopted set: nobody has yet. `offline` must hold the
    snapshot's views under its rule. Raises `SourceError`, and `DefinitionError` where a transform's code is another.
    """
    manifest, bundle = snapshot.manifest, snapshot.bundle
    damage, cut = _stored(snapshot)
    store = offline or OfflineStore(bundle.views, manifest.rule)
    try:
        months = changed_months(manifest.sources, source_digests(store, bundle.views, cut))
        unfounded = bool(manifest.adopted) or not manifest.sources  # no digest says what its values came from
        if not (full or months or unfounded):
            return Verification(snapshot.id, manifest.rows, damage, {}, False, 0, (), {})
        held = _Held(bundle, months, _unrewritten(manifest))
        tolerance = _Tolerance(bool(manifest.adopted), _ulps(manifest.numeric_class))
        for served in snapshot.served():
            found = answers(store, bundle, served.spine, as_served=manifest.as_served)
            held.against(served, answer(bundle, served.spine, found), tolerance)
    finally:
        if offline is None:
            store.close()
    views = tuple(held.rewritten(view) for view in bundle.views if held.asks[view.name])
    return Verification(snapshot.id, manifest.rows, damage, months, True, held.differ, views, dict(held.derived))


def damage_of(snapshot: Snapshot) -> str:
    """What is wrong with the stored rows themselves, by the snapshot's id; empty if nothing. The sources are not read.

    Raises `SnapshotError` where they cannot be read at all.
    """
    return _stored(snapshot)[0]


def _unrewritten(manifest: Manifest) -> str:
    """Why a view answers otherwise whose source has the rows that it had."""
    if manifest.adopted:
        return GIVEN
    return OTHERWISE if manifest.sources else REWRITTEN


def _stored(snapshot: Snapshot) -> tuple[str, int]:
    """(what is wrong with the stored rows, the last ask in microseconds)."""
    manifest = snapshot.manifest
    digest = Digest(snapshot.bundle, Origin(manifest.rule, manifest.as_served, manifest.adopted))
    cut, labels = 0, None
    for i, batch in enumerate(snapshot.batches()):
        table = pa.table(batch)
        labels = table.select(list(manifest.labels))
        served = from_table(snapshot.bundle, table)
        digest.update(served, labels)
        if len(table):
            last = int(served.spine.as_of.max())
            cut = max(cut, last) if i else last
    if labels is None:  # a file of no rows has no batch
        return "", 0
    own = digest.hex(labels.schema)
    if own == snapshot.id or explained(snapshot.place, snapshot.id, own):
        return "", cut
    return f"{snapshot.place}: its rows are not those of its id: they were changed after it was built", cut


def _ulps(trained_on: str) -> int:
    return 0 if trained_on == numeric_class() else ULPS_ACROSS_CLASSES


@dataclass(frozen=True, slots=True)
class _Tolerance:
    """How exactly the recorded and the computed value must agree; of an adopted set, values alone are known."""

    adopted: bool
    ulps: int

    def equal(self, bundle: Bundle, name: str, recorded: Column, now: Column) -> Mask:
        if not self.adopted:
            return same(recorded, now, ulps=self.ulps)
        contract = bundle.contracts[name]
        return same_values(recorded, now, contract.rtol, contract.atol, self.ulps)


def same_values(one: Column, other: Column, rtol: float = 0.0, atol: float = 0.0, ulps: int = 0) -> Mask:
    """`same` of values alone: why there is none does not matter."""
    bare = [Column(c.dtype, c.values, np.where(c.present, np.uint8(0), np.uint8(Status.NULL))) for c in (one, other)]
    return same(*bare, rtol=rtol, atol=atol, ulps=ulps)


def _told(column: Column, row: int) -> str:
    value = column.value(row)
    return Status(int(column.status[row])).name.lower() if value is None else str(value)


class _Held:
    """Adds up what differs, batch by batch."""

    def __init__(self, bundle: Bundle, months: Mapping[str, tuple[str, ...]], unrewritten: str) -> None:
        self.bundle, self.months, self.unrewritten = bundle, months, unrewritten
        self.differ = 0
        self.asks: Counter[str] = Counter()
        self.derived: Counter[str] = Counter()
        self._columns: dict[str, Counter[str]] = {view.name: Counter() for view in bundle.views}
        self._since: dict[str, int] = {}
        self._rows: dict[str, list[npt.NDArray[Any]]] = {view.name: [] for view in bundle.views}
        self._examples: dict[str, list[Otherwise]] = {view.name: [] for view in bundle.views}

    def against(self, recorded: Served, now: Served, tolerance: _Tolerance) -> None:
        anything = np.zeros(len(recorded.spine), dtype=bool)
        for view in self.bundle.views:
            was, is_ = recorded.views[view.name], now.views[view.name]
            other = np.zeros(len(recorded.spine), dtype=bool)
            columns: dict[str, Mask] = {}
            if not tolerance.adopted:
                other = (was.event != is_.event) | (was.created != is_.created) | (was.status != is_.status)
            for feature in view.features:
                name = view.full_name(feature.name)
                column = was.features[feature.name]
                differs = ~tolerance.equal(self.bundle, name, column, is_.features[feature.name])
                differs &= column.status != Status.NOT_REQUESTED
                if differs.any():
                    self._columns[view.name][feature.name] += int(differs.sum())
                    columns[feature.name] = differs
                other |= differs
            if other.any():
                self._note(view, recorded.spine, was, is_, other)
                self._show(view, recorded.spine, was, is_, other, columns)
            anything |= other
        for spec in self.bundle.derived:
            name = spec.full_name
            column = recorded.derived[name]
            differs = ~tolerance.equal(self.bundle, name, column, now.derived[name])
            differs &= column.status != Status.NOT_REQUESTED
            if differs.any():
                self.derived[name] += int(differs.sum())
            anything |= differs
        self.differ += int(anything.sum())

    def _note(self, view: View, spine: Spine, was: ViewRows, is_: ViewRows, other: Mask) -> None:
        self.asks[view.name] += int(other.sum())
        event = np.where(was.event == NO_TIME, is_.event, was.event)[other]
        created = np.where(was.event == NO_TIME, is_.created, was.created)[other]
        keys = [spine.keys[key.ask].take(other) for key in view.keys]
        hashes = hash_rows([*keys, whole(event), whole(created)], len(event))
        self._rows[view.name].append(np.unique(hashes, axis=0))
        times = np.concatenate([was.event[other], is_.event[other]])
        times = times[times != NO_TIME]
        if len(times):
            self._since[view.name] = min(self._since.get(view.name, int(times.min())), int(times.min()))

    def _show(
        self, view: View, spine: Spine, was: ViewRows, is_: ViewRows, other: Mask, columns: Mapping[str, Mask]
    ) -> None:
        examples = self._examples[view.name]
        for row in np.flatnonzero(other)[: EXAMPLES - len(examples)].tolist():
            keys = ", ".join(f"{key.ask} {spine.keys[key.ask].value(row)}" for key in view.keys)
            name = next((name for name, differs in columns.items() if differs[row]), None)
            if name is None:
                told = [instant(int(one.event[row])) for one in (was, is_)]
            else:
                told = [_told(one.features[name], row) for one in (was, is_)]
            place = "the source row's event" if name is None else view.full_name(name)
            examples.append(Otherwise(str(spine.ids[row]), instant(int(spine.as_of[row])), keys, place, *told))

    def rewritten(self, view: View) -> Rewritten:
        return Rewritten(
            view.name,
            self.asks[view.name],
            len(np.unique(np.concatenate(self._rows[view.name]), axis=0)),
            instant(self._since.get(view.name, NO_TIME)),
            dict(self._columns[view.name]),
            self.months.get(view.name, ()),
            REWRITTEN if view.name in self.months else self.unrewritten,
            tuple(self._examples[view.name]),
        )
