"""What a hypothesis looks at, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from skewguard.answer import vector
from skewguard.causes.timeline import Timeline, encode, hashed
from skewguard.findings import Observed, Tap
from skewguard.replay import Pairs
from skewguard.values import Array, Column, Dtype, Mask

SAMPLE = 4096
"""So many rows behind a finding are looked at, evenly spread; shares are of these."""

_FEW = 4
_MOST_BITS = 16.0
_REPEATED = 0.5
_REAL = 0.8

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A cause: its kind, a sentence such as a colleague would write, and the rows it explains.

    `hits` is a mask over the evidence's rows; `bits` is how much it takes to say it, with its parameters; `lag_us` how
    old what was served is, 0 where the cause is no lag.
    """

    kind: str
    sentence: str
    hits: Mask
    bits: float
    lag_us: int = 0

    @property
    def explained(self) -> float:
        """Share of the rows, 0 to 1."""
        return float(self.hits.mean()) if len(self.hits) else 0.0


class Scene:
    """The pairs of one comparison, and what is worked out from them once for all findings."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self._timelines: dict[str, Timeline] = {}
        self._origins: dict[str, tuple[Ints, Ints, Mask]] = {}
        self._distinct: dict[tuple[str, tuple[str, ...]], int] = {}

    def timeline(self, view: str) -> Timeline:
        """The source rows of a view that the pairs witness."""
        if view not in self._timelines:
            self._timelines[view] = Timeline.of(self.pairs, view)
        return self._timelines[view]

    def origin(self, view: str, rows: Ints) -> tuple[Ints, Ints, Mask]:
        """Where the values of whole rows come from (`Timeline.origin`): worked out once for all, where they are few."""
        line, served, as_of = self.timeline(view), self.pairs.served.views[view].features, self.pairs.served.spine.as_of
        if len(self.pairs) > _FEW * SAMPLE:
            some = {name: column.take(rows) for name, column in served.items()}
            return line.origin(line.asked[rows], as_of[rows], some)
        if view not in self._origins:
            self._origins[view] = line.origin(line.asked, as_of, served)
        older, later, elsewhere = self._origins[view]
        return older[rows], later[rows], elsewhere[rows]

    @cached_property
    def vectors(self) -> tuple[Ints, Ints]:
        """(the vector that should have entered the model, the one that did), each as a number: equal ones are equal."""
        right, got = vector(self.pairs.bundle, self.pairs.served), self.pairs.served.vector
        whole = {}
        for i in range(right.shape[1]):
            both = np.concatenate([right[:, i], got[:, i]])
            whole[str(i)] = Column.build(Dtype.FLOAT64, both, np.zeros(len(both), dtype=np.uint8))
        codes = np.unique(hashed(whole), return_inverse=True)[1].astype(np.int64)
        return codes[: len(right)], codes[len(right) :]

    def distinct(self, view: str, names: tuple[str, ...]) -> int:
        """How many different rows of a view are witnessed, as far as these features tell."""
        if (view, names) not in self._distinct:
            self._distinct[view, names] = self.timeline(view).distinct(names)
        return self._distinct[view, names]


@dataclass(frozen=True, slots=True)
class Numbers:
    """Rows of which both sides have a finite number: `served` and `truth` as float64, `at` their places."""

    served: Floats
    truth: Floats
    at: Ints


@dataclass(frozen=True)
class Evidence:
    """The m rows behind one finding. `served` and `truth` are None for a finding about a whole view.

    At the model's input they are what entered it and what should have; after a transform, `truth` is the transform
    run again. `observed` holds the columns of all n rows that were compared.
    """

    scene: Scene
    observed: Observed
    view: str | None
    rows: Ints
    served: Column | None
    truth: Column | None

    @classmethod
    def of(cls, observed: Observed, scene: Scene) -> Evidence:
        """The evidence behind `observed`, at most `SAMPLE` rows of it."""
        rows = np.flatnonzero(observed.rows)
        if len(rows) > SAMPLE:
            rows = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype(np.int64))]
        feature = observed.finding.feature
        if observed.served is None or observed.truth is None:
            return cls(scene, observed, feature, rows, None, None)
        view = scene.pairs.bundle.view_of.get(feature)
        return cls(scene, observed, view, rows, observed.served.take(rows), observed.truth.take(rows))

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, some: Mask) -> Evidence:
        """The evidence of some of its rows."""
        columns = [None if c is None else c.take(np.flatnonzero(some)) for c in (self.served, self.truth)]
        return replace(self, rows=self.rows[some], served=columns[0], truth=columns[1])

    @property
    def pairs(self) -> Pairs:
        """All rows that were compared."""
        return self.scene.pairs

    @property
    def feature(self) -> str:
        """What the finding is about."""
        return self.observed.finding.feature

    @property
    def tap(self) -> Tap:
        """Where the first difference stands."""
        return self.observed.finding.tap

    @cached_property
    def numbers(self) -> Numbers | None:
        """The rows with a number on both sides, None for other dtypes or no such row."""
        if self.served is None or self.truth is None or not self.served.dtype.is_numeric:
            return None
        at = np.flatnonzero(self.served.present & self.truth.present)
        served, truth = (column.values[at].astype(np.float64) for column in (self.served, self.truth))
        finite = np.isfinite(served) & np.isfinite(truth)
        return Numbers(served[finite], truth[finite], at[finite]) if finite.any() else None

    def mask(self, at: Array) -> Mask:
        """A mask over the rows from places."""
        mask = np.zeros(len(self.rows), dtype=bool)
        mask[at] = True
        return mask

    @cached_property
    def peers(self) -> Mask:
        """Of all n rows: those that builds and hosts behind the finding answered between its first and last row."""
        as_of = self.pairs.served.spine.as_of
        bad = as_of[self.rows]
        peers = (as_of >= bad.min()) & (as_of <= bad.max())
        for name in ("build", "host"):
            if name in self.pairs.labels:
                values = self.pairs.labels[name]
                peers &= np.isin(values.astype(str), np.unique(values[self.rows].astype(str)))
        return np.asarray(peers)

    @cached_property
    def _codes(self) -> tuple[Ints, float]:
        """(which distinct pair of values each row is, how much one more of them says)."""
        if self.served is None or self.truth is None:
            return np.arange(len(self.rows)), _MOST_BITS
        served, truth = encode(self.served), encode(self.truth)
        _, codes = np.unique(served * (int(truth.max()) + 1) + truth, return_inverse=True)
        values = len(np.unique(truth)) + len(np.unique(served))
        real = self.served.dtype.is_float and codes.max(initial=0) + 1 >= _REAL * len(codes)
        return codes.astype(np.int64), float(np.clip(np.log2(1 + values), 8 if real else 2, _MOST_BITS))

    def gain(self, explanation: Explanation) -> float:
        """Bits saved by telling the cause instead of the rows: what it explains against what it takes to say it."""
        codes, each = self._codes
        hits = codes[explanation.hits]
        distinct = len(np.unique(hits))
        return distinct * each + (len(hits) - distinct) * _REPEATED - explanation.bits
