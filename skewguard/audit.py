"""The training audit: could every value of a training set have been known when it was asked for?

`audit(snapshot)` replays the training rows themselves, against today's sources. It measures, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from skewguard.answer import Served, derive
from skewguard.definitions import Bundle, View
from skewguard.findings import Example, Finding, Kind, Tap
from skewguard.offline import OfflineStore, Rule
from skewguard.snapshot import Snapshot, answers
from skewguard.snapshot.verify import same_values
from skewguard.spine import Spine, ViewRows
from skewguard.values import NO_TIME, Column, Mask, Status, instant

EXAMPLES = 3
_EARLY = "created before their event"
_LATEST = int(np.datetime64("9999-01-01", "us").astype(np.int64))

Ints = npt.NDArray[np.int64]


def audit(snapshot: Snapshot) -> list[Finding]:
    """What is wrong with the rows of a training set, or with the sources that it came from.

    LEAK: values of a source row that was not known at the ask, or that had not happened. MISMATCH: values of an adopted
    set that no source row explains. CONTRACT: ties that answered, and source rows created before their event. Raises
    `SourceError`, `SnapshotError`, and `DefinitionError` where a transform's code is another.
    """
    bundle = snapshot.bundle
    tallies: Tallies = {}
    with OfflineStore(bundle.views) as known, OfflineStore(bundle.views, Rule.FEAST) as feast:
        ties = [view for view in bundle.views if known.ties(view.name)]
        cut = NO_TIME
        for served in snapshot.served():
            if not len(served.spine):
                continue
            cut = max(cut, int(served.spine.as_of.max()))
            rows = served.views
            if snapshot.manifest.adopted:
                rows = _behind(tallies, bundle, served, known, feast)
            else:
                for view in bundle.views:
                    _built(tallies, view, served, as_served=snapshot.manifest.as_served)
            for view in bundle.views:
                if view in ties:
                    _tied(tallies, view, served.spine, rows[view.name], known)
                _early(tallies, view, served.spine, rows[view.name])
        findings = [tally.finding(kind) for (kind, _), tally in tallies.items() if tally.rows and not tally.aside]
        findings += [one for view in bundle.views for one in _backwards(view, known, cut, tallies)]
    return findings


# -- what was not known -----------------------------------------------------------------------------------------------


Told = Column | Callable[[int], str]
"""What an example says of a row: a column's value, or a text."""


@dataclass
class _Tally:
    """Rows of one sentence, added up batch by batch; `aside` where another finding tells of them."""

    feature: str
    message: str
    aside: bool = False
    of: int = 0
    rows: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, spine: Spine, keys: Iterable[str], hit: Mask, got: Told, wanted: Told) -> None:
        self.of += len(hit)
        self.rows += int(hit.sum())
        for row in np.flatnonzero(hit)[: EXAMPLES - len(self.examples)].tolist():
            asked = ", ".join(f"{key} {spine.keys[key].value(row)}" for key in keys)
            told = [str(one.value(row)) if isinstance(one, Column) else one(row) for one in (got, wanted)]
            self.examples.append(Example(str(spine.ids[row]), instant(int(spine.as_of[row])), asked, *told))

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


def _tally(tallies: Tallies, kind: Kind, feature: str, message: str, *, aside: bool = False) -> _Tally:
    return tallies.setdefault((kind, feature + message), _Tally(feature, message, aside))


def _asked_by(view: View) -> list[str]:
    return [key.ask for key in view.keys]


def _built(tallies: Tallies, view: View, served: Served, *, as_served: bool) -> None:
    """A set that was built here names the row behind every value."""
    rows, as_of = served.views[view.name], served.spine.as_of
    there = (rows.status <= Status.NULL) & (rows.event != NO_TIME)
    known = np.maximum(rows.event, rows.created) + (view.availability_lag_us if as_served else 0)
    late = there & (known > as_of)
    message = "training rows hold what nobody knew at their ask"
    _tally(tallies, Kind.LEAK, view.name, message).add(
        served.spine,
        _asked_by(view),
        late,
        lambda _: "in training",
        lambda row: f"known {instant(int(known[row]))}",
    )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One way in which values may have come about: what the views would answer then, and which rows nobody knew."""

    views: Mapping[str, ViewRows]
    leaks: Mapping[str, Mask]
    why: str


def _behind(
    tallies: Tallies, bundle: Bundle, served: Served, known: OfflineStore, feast: OfflineStore
) -> Mapping[str, ViewRows]:
    """Find out how the values of an adopted set came about; the rows that should have answered."""
    spine = served.spine
    candidates = _candidates(bundle, spine, known, feast)
    for view in bundle.views:
        ways = [(c.views[view.name].features, c.leaks[view.name], c.why) for c in candidates]
        for feature in view.features:
            columns = [(features[feature.name], leaks, why) for features, leaks, why in ways]
            _explained(tallies, bundle, view.full_name(feature.name), served, _asked_by(view), columns)
    asked = [name for name, column in served.derived.items() if not _unasked(column)]
    if asked:
        nobody = [np.logical_or.reduce([np.zeros(len(spine), bool), *c.leaks.values()]) for c in candidates]
        computed = [derive(bundle, spine, candidate.views) for candidate in candidates]
        own = derive(bundle, spine, served.views)
        for name in asked:
            followed = (own[name], nobody[0], "")  # from what was given, each of which is judged by itself
            ways_to = [(one[name], leak, c.why) for one, leak, c in zip(computed, nobody, candidates, strict=True)]
            _explained(tallies, bundle, name, served, list(bundle.keys), [ways_to[0], followed, *ways_to[1:]])
    return candidates[0].views


Way = tuple[Column, Mask, str]
"""What a value would be, in which rows nobody knew that, and the sentence that says so (empty: nothing is wrong)."""


def _unasked(column: Column) -> bool:
    return bool((column.status == Status.NOT_REQUESTED).all())


def _candidates(bundle: Bundle, spine: Spine, known: OfflineStore, feast: OfflineStore) -> list[_Candidate]:
    """What was known; what Feast's rule takes; the newest row of all."""
    nothing = np.zeros(len(spine), dtype=bool)
    corrected: dict[str, ViewRows] = {}
    newest: dict[str, ViewRows] = {}
    late: dict[str, Mask] = {}
    later: dict[str, Mask] = {}
    for view in bundle.views:
        event, created = feast.best(view.name, spine, spine.as_of)
        corrected[view.name] = rows = feast.rows(view.name, spine, event, created)
        late[view.name] = (rows.status <= Status.NULL) & (np.maximum(event, created) > spine.as_of)
        event, created = known.best(view.name, spine, np.full(len(spine), _LATEST))
        then = replace(spine, as_of=np.where(event == NO_TIME, spine.as_of, event))  # whatever the clock says
        newest[view.name] = known.rows(view.name, then, event, created)
        later[view.name] = np.maximum(event, created) > spine.as_of
    return [
        _Candidate(answers(known, bundle, spine), dict.fromkeys(newest, nothing), ""),
        _Candidate(corrected, late, "values are of a correction that came after the ask (Feast's rule takes it)"),
        _Candidate(newest, later, "values are of the newest row, whatever the ask"),
    ]


def _explained(
    tallies: Tallies, bundle: Bundle, name: str, served: Served, keys: Sequence[str], ways: Sequence[Way]
) -> None:
    given = served.feature(bundle, name)
    if _unasked(given):
        return
    contract, spine = bundle.contracts[name], served.spine
    truth = ways[0][0]
    open_ = np.ones(len(spine), dtype=bool)
    for column, unknown, why in ways:
        alike = open_ & same_values(given, column, contract.rtol, contract.atol)
        alike &= column.status != Status.NOT_REQUESTED  # computed from nothing: that explains no value
        if why:
            alike &= unknown
            _tally(tallies, Kind.LEAK, name, why).add(spine, keys, alike, given, truth)
        open_ &= ~alike
    message = "values are those of no source row that could be meant"
    _tally(tallies, Kind.MISMATCH, name, message).add(spine, keys, open_, given, truth)


# -- the sources ------------------------------------------------------------------------------------------------------


def _early(tallies: Tallies, view: View, spine: Spine, rows: ViewRows) -> None:
    """Asks that were answered by a row which claims to have been known before it happened."""
    hit = (rows.status <= Status.NULL) & (rows.created != NO_TIME) & (rows.created < rows.event)
    _tally(tallies, Kind.CONTRACT, view.name, _EARLY, aside=True).add(
        spine,
        _asked_by(view),
        hit,
        lambda row: f"created {instant(int(rows.created[row]))}",
        lambda row: f"its event {instant(int(rows.event[row]))} or later",
    )


def _backwards(view: View, store: OfflineStore, cut: int, tallies: Tallies) -> Iterator[Finding]:
    """Source rows that claim to have been known before they happened, among those known by the last ask."""
    if view.source.created is None or cut == NO_TIME:
        return
    rows = store.changes(view.name, NO_TIME, cut)
    event, created = rows["event"].to_numpy(), rows["created"].to_numpy()
    early = (created != NO_TIME) & (created < event)
    if early.any():
        told = tallies[Kind.CONTRACT, view.name + _EARLY]
        first = instant(int(event[early].min()))
        message = (
            f"{view.name}: {int(early.sum()):,} of {len(rows):,} source rows were created before their event, the "
            f"first at {first}, and answered {told.rows:,} of {told.of:,} training rows; they count as known at their "
            "event"
        )
        examples = tuple(told.examples)
        yield Finding(Kind.CONTRACT, view.name, int(early.sum()), len(rows), message, Tap.STORE, examples=examples)


def _tied(tallies: Tallies, view: View, spine: Spine, rows: ViewRows, store: OfflineStore) -> None:
    """Asks that were answered by one of several rows equal in keys and both times."""
    hit = store.tied(view.name, spine, rows) & (rows.status <= Status.NULL)
    message = "training rows were answered by one of several source rows equal in keys and both times: which is true?"
    _tally(tallies, Kind.CONTRACT, view.name, message).add(
        spine, _asked_by(view), hit, lambda _: "one of them", lambda _: "another"
    )
