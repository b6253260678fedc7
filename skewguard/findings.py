"""Finding: something that was observed about a feature, with its evidence; and the kinds there are.

A `Finding` may become a reason to refuse. A `Shift` never does: drift compares two times, skew two paths.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from skewguard.values import Column, Mask


class Kind(enum.StrEnum):
    """What a finding is about."""

    MISMATCH = "mismatch"  # served differs from the truth, and lag does not explain it
    STALE = "stale"  # the served row is an older one than max_lag allows
    LEAK = "leak"  # a snapshot value could not have been known at its ask
    EXPECTATION = "expectation"  # a Great Expectations check of a source or snapshot failed
    CONTRACT = "contract"  # a contract is broken (null refused, range, vocabulary)
    DEFINITION = "definition"  # log and snapshot were made from different definitions, transforms or fitted values
    ORACLE = "oracle"  # the join and the independent oracle disagree
    LOG = "log"  # the log itself is torn, empty or of another service
    DUPLICATE = "duplicate"  # a request id was logged more than once
    INCOMPLETE = "incomplete"  # requests that were answered, or had an outcome, are not in the log
    CONSTRAINT = "constraint"  # what always held in or between columns of the snapshot does not hold in the log
    FROZEN = "frozen"  # a source repeats itself, or stands still, longer than it ever did in the snapshot
    CLOCK = "clock"  # a column that encodes the time disagrees with the logged time
    PERFORMANCE = "performance"  # outcomes say that the model does worse than in the window before


DOUBTS = frozenset({Kind.DEFINITION, Kind.LOG})
"""Kinds by which nothing can be ruled: they make a verdict UNKNOWN, not FAIL."""


class Tap(enum.StrEnum):
    """Where the first difference stands: the store's answer, what the transforms made of it, what the model got."""

    STORE = "store"
    TRANSFORM = "transform"
    MODEL_INPUT = "model_input"
    PREDICTION = "prediction"
    NONE = "-"


@dataclass(frozen=True, slots=True)
class Example:
    """One row behind a finding. `as_of` as ISO text; values as short texts."""

    request_id: str
    as_of: str
    keys: str
    served: str
    truth: str


@dataclass(frozen=True, slots=True)
class Cause:
    """What explains the `explained` share of a finding's rows. `kind` is a word for machines, `sentence` for people.

    `slices` say in which part of the traffic its rows lie, and since when; `lag_seconds` how much older what was served
    is than what should have been, negative where it came from the future, 0 where the cause is no lag.
    """

    kind: str
    sentence: str
    explained: float
    slices: tuple[str, ...] = ()
    lag_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Impact:
    """What a finding did to the predictions of its rows: `served` against what the truth of its features gives.

    `moved` of `rows` predictions differ at all, by `mean_delta` and at most `greatest_delta` (absolute); `flips`
    decisions fall on the other side of `threshold`. Where outcomes are known of `labelled` rows, the log loss of both.
    """

    rows: int
    moved: int
    flips: int
    mean_delta: float
    greatest_delta: float
    threshold: float
    labelled: int = 0
    loss_served: float = 0.0
    loss_truth: float = 0.0

    @property
    def flip_share(self) -> float:
        """Share of the rows whose decision is another one than it should have been."""
        return self.flips / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One observation. `rows` of `of` compared rows show it; `cause` is a sentence, empty where none explains it.

    `slices` are sentences such as 'only build B' and 'since 2013-11-05T14:05Z'; `explained` the share of the rows that
    the cause explains. `benign` is the rate that the feature's contract declares harmless, `evidence` how sure it is
    that the rate lies above it: log10 of an e-value (`skewguard.statistics`), at most 300; without a benign rate one
    row settles it. `points` are some (truth, served) pairs of numbers, to draw. `causes` explain it together: none
    where it is unknown, two where two faults meet; `alternatives` are what else might. `impact` is None where no model
    was given to measure it.
    """

    kind: Kind
    feature: str
    rows: int
    of: int
    message: str
    tap: Tap = Tap.NONE
    cause: str = ""
    cause_kind: str = ""
    explained: float = 0.0
    slices: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    by_hour: tuple[tuple[str, int, int], ...] = field(default=())  # (hour as ISO text, rows compared, rows that differ)
    benign: float = 0.0
    evidence: float = 300.0
    points: tuple[tuple[float, float], ...] = ()
    causes: tuple[Cause, ...] = ()
    alternatives: tuple[Cause, ...] = ()
    impact: Impact | None = None

    @property
    def rate(self) -> float:
        """Share of the compared rows, 0 where none was compared."""
        return self.rows / self.of if self.of else 0.0


@dataclass(frozen=True, slots=True)
class Observed:
    """A finding with what lies behind it. `rows` is a mask over the replayed rows, shape (n,).

    `served` and `truth` are the columns that were compared, of all n rows; None for a finding about a whole view.
    """

    finding: Finding
    rows: Mask
    served: Column | None = None
    truth: Column | None = None


@dataclass(frozen=True, slots=True)
class Shift:
    """A feature whose logged distribution is another than the snapshot's: drift, never skew, and no reason to refuse.

    `distance` is the total variation of the two histograms (0 to 1), `at_least` a lower confidence bound of it;
    `message` says what moved. `skewed`: whether a finding concerns the same feature, so that the pipeline explains it.
    """

    feature: str
    distance: float
    at_least: float
    message: str
    skewed: bool = False
