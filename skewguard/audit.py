"""The training audit: could every value of a training set have been known when it was asked for?

`audit(snapshot)` replays the training rows themselves, against today's sources. It measures, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds

from skewguard.answer import Served
from skewguard.definitions import Bundle, View
from skewguard.findings import Example, Finding, Kind, Tap
from skewguard.offline import OfflineStore, Rule
from skewguard.snapshot import Snapshot, answers
from skewguard.snapshot.hashing import hash_rows, whole
from skewguard.snapshot.verify import same_values
from skewguard.spine import Spine, ViewRows
from skewguard.values import NO_TIME, Column, Dtype, Mask, Status, instant

EXAMPLES = 3
_LATEST = int(np.datetime64("9999-01-01", "us").astype(np.int64))

Ints = npt.NDArray[np.int64]


def audit(snapshot: Snapshot) -> list[Finding]:
    """What is wrong with the rows of a training set, or with the sources that it came from.

    LEAK: values of a source row that was not known at the ask, or that had not happened. MISMATCH: values of an adopted
    set that no source row explains. CONTRACT: ties that answered, and source rows created before their event. Raises
    `SourceError`, `SnapshotError`.
    """
    bundle = snapshot.bundle
    adopted = bool(snapshot.manifest.adopted)
    tallies: dict[tuple[Kind, str], _Tally] = {}
    with OfflineStore(bundle.views) as known, OfflineStore(bundle.views, Rule.FEAST) as feast:
        twins = {view.name: _twins(view, known) for view in bundle.views}
        cut = NO_TIME
        for served in snapshot.served():
            if not len(served.spine):
                continue
            cut = max(cut, int(served.spine.as_of.max()))
            rows = served.views
            if adopted:
                rows = _behind(tallies, snapshot, served, known, feast)
            for view in bundle.views:
                if not adopted:
                    _built(tallies, view, served, as_served=snapshot.manifest.as_served)
                _tied(tallies, view, served.spine, rows[view.name], twins[view.name])
        findings = [tally.finding(kind) for (kind, _), tally in tallies.items() if tally.rows]
        findings += [one for view in bundle.views for one in _backwards(view, known, cut)]
    return findings


# -- what was not known -----------------------------------------------------------------------------------------------


@dataclass
class _Tally:
    """Rows of one sentence, added up batch by batch."""

    feature: str
    message: str
    of: int = 0
    rows: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, spine: Spine, view: View, hit: Mask, got: str | Column, wanted: Sequence[str] | Column) -> None:
        self.of += len(hit)
        self.rows += int(hit.sum())
        for row in np.flatnonzero(hit)[: EXAMPLES - len(self.examples)].tolist():
            keys = ", ".join(f"{key.ask} {spine.keys[key.ask].value(row)}" for key in view.keys)
            shown = [str(one.value(row)) if isinstance(one, Column) else one if isinstance(one, str) else one[row]
                     for one in (got, wanted)]  # fmt: skip
            self.examples.append(Example(str(spine.ids[row]), instant(int(spine.as_of[row])), keys, shown[0], shown[1]))

    def finding(self, kind: Kind) -> Finding:
        return Finding(
            kind,
            self.feature,
            self.rows,
            self.of,
            f"{self.feature}: {self.rows:,} of {self.of:,} {self.message}",
            Tap.STORE,
            examples=tuple(self.examples),
        )


Tallies = dict[tuple[Kind, str], _Tally]


def _tally(tallies: Tallies, kind: Kind, feature: str, message: str) -> _Tally:
    return tallies.setdefault((kind, feature + message), _Tally(feature, message))


def _built(tallies: Tallies, view: View, served: Served, *, as_served: bool) -> None:
    """A set that was built here names the row behind every value."""
    rows, as_of = served.views[view.name], served.spine.as_of
    there = (rows.status <= Status.NULL) & (rows.event != NO_TIME)
    known = np.maximum(rows.event, rows.created) + (view.availability_lag_us if as_served else 0)
    late = there & (known > as_of)
    when = np.array([f"known {instant(int(t))}" for t in known[late]], dtype=object)
    texts = np.full(len(late), "", dtype=object)
    texts[late] = when
    message = "training rows hold what nobody knew at their ask"
    _tally(tallies, Kind.LEAK, view.name, message).add(served.spine, view, late, "in training", texts.tolist())


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One way in which a value may have come about: what the view would answer then."""

    rows: ViewRows
    leaks: Mask
    why: str


def _behind(
    tallies: Tallies, snapshot: Snapshot, served: Served, known: OfflineStore, feast: OfflineStore
) -> Mapping[str, ViewRows]:
    """Find out how the values of an adopted set came about; the rows that should have answered."""
    bundle, spine = snapshot.bundle, served.spine
    true = answers(known, bundle, spine)
    for view in bundle.views:
        candidates = list(_candidates(view, spine, true[view.name], known, feast))
        for feature in view.features:
            given = served.views[view.name].features[feature.name]
            if (given.status == Status.NOT_REQUESTED).all():
                continue
            _explained(tallies, bundle, view, spine, feature.name, given=given, candidates=candidates)
    return true


def _candidates(
    view: View, spine: Spine, true: ViewRows, known: OfflineStore, feast: OfflineStore
) -> Iterator[_Candidate]:
    nothing = np.zeros(len(spine), dtype=bool)
    yield _Candidate(true, nothing, "")
    event, created = feast.best(view.name, spine, spine.as_of)
    rows = feast.rows(view.name, spine, event, created)
    late = (rows.status <= Status.NULL) & (np.maximum(event, created) > spine.as_of)
    yield _Candidate(rows, late, "values are of a correction that came after the ask (Feast's rule takes it)")
    event, created = known.best(view.name, spine, np.full(len(spine), _LATEST))
    then = replace(spine, as_of=np.where(event == NO_TIME, spine.as_of, event))  # its values, whatever the clock says
    rows = known.rows(view.name, then, event, created)
    yield _Candidate(rows, np.maximum(event, created) > spine.as_of, "values are of the newest row, whatever the ask")


def _explained(
    tallies: Tallies,
    bundle: Bundle,
    view: View,
    spine: Spine,
    feature: str,
    *,
    given: Column,
    candidates: Sequence[_Candidate],
) -> None:
    name = view.full_name(feature)
    contract = bundle.contracts[name]
    truth = candidates[0].rows.features[feature]
    open_ = np.ones(len(spine), dtype=bool)
    for candidate in candidates:
        alike = same_values(given, candidate.rows.features[feature], contract.rtol, contract.atol)
        if candidate.why:
            leaks = open_ & alike & candidate.leaks
            _tally(tallies, Kind.LEAK, name, candidate.why).add(spine, view, leaks, given, truth)
            open_ &= ~leaks
        else:
            open_ &= ~alike
    message = "values are those of no source row that could be meant"
    _tally(tallies, Kind.MISMATCH, name, message).add(spine, view, open_, given, truth)


# -- the sources ------------------------------------------------------------------------------------------------------


def _backwards(view: View, store: OfflineStore, cut: int) -> Iterator[Finding]:
    """Source rows that claim to have been known before they happened, among those known by the last ask."""
    if view.source.created is None or cut == NO_TIME:
        return
    rows = store.changes(view.name, NO_TIME, cut)
    event, created = rows["event"].to_numpy(), rows["created"].to_numpy()
    early = (created != NO_TIME) & (created < event)
    if early.any():
        first = instant(int(event[early].min()))
        yield Finding(
            Kind.CONTRACT,
            view.name,
            int(early.sum()),
            len(rows),
            f"{view.name}: {int(early.sum()):,} of {len(rows):,} source rows were created before their event, the "
            f"first at {first}; they count as known at their event",
        )


def _tied(tallies: Tallies, view: View, spine: Spine, rows: ViewRows, twins: npt.NDArray[np.void] | None) -> None:
    """Asks that were answered by one of several rows equal in keys and both times."""
    if twins is None or not len(twins):
        return
    keys = [spine.keys[key.ask] for key in view.keys]
    hit = np.isin(_void(keys, rows.event, rows.created), twins) & (rows.status <= Status.NULL)
    message = "training rows were answered by one of several source rows equal in keys and both times: which is true?"
    _tally(tallies, Kind.CONTRACT, view.name, message).add(spine, view, hit, "one of them", ["another"] * len(hit))


def _twins(view: View, store: OfflineStore) -> npt.NDArray[np.void] | None:
    """Hashes of (keys, event, created) that several source rows share; None where there is none of them."""
    if not store.ties(view.name):
        return None
    source = view.source
    table = ds.dataset(source.path, format="parquet").to_table(
        columns=[*(key.column for key in view.keys), source.timestamp, *([source.created] if source.created else [])]
    )
    keys = [Column.from_arrow(table[key.column], key.dtype, key.column) for key in view.keys]
    event = _times(table, source.timestamp)
    hashes = _void(keys, event, _times(table, source.created))
    whole_keys = np.logical_and.reduce([np.ones(len(table), dtype=bool), event != NO_TIME, *(k.present for k in keys)])
    distinct, rows = np.unique(hashes[whole_keys], return_counts=True)
    return distinct[rows > 1]


def _void(keys: Sequence[Column], event: Ints, created: Ints) -> npt.NDArray[np.void]:
    hashes = np.ascontiguousarray(hash_rows([*keys, whole(event), whole(created)], len(event)))
    return hashes.view([("a", np.uint64), ("b", np.uint64)]).reshape(-1)


def _times(table: pa.Table, name: str | None) -> Ints:
    if name is None:
        return np.full(len(table), NO_TIME, dtype=np.int64)
    column = Column.from_arrow(table[name], Dtype.TIMESTAMP, name)
    return np.where(column.present, column.values.view(np.int64), NO_TIME)
