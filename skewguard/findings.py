"""Finding: something that was observed about a feature, with its evidence; and the kinds there are."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from skewguard.values import Mask


class Kind(enum.StrEnum):
    """What a finding is about."""

    MISMATCH = "mismatch"  # served differs from the truth, and lag does not explain it
    STALE = "stale"  # the served row is an older one than max_lag allows
    LEAK = "leak"  # a snapshot value could not have been known at its ask
    EXPECTATION = "expectation"  # a Great Expectations check of a source or snapshot failed
    CONTRACT = "contract"  # a contract is broken (null refused, range, vocabulary)
    DEFINITION = "definition"  # log and snapshot were made from different definitions or transforms
    ORACLE = "oracle"  # the join and the independent oracle disagree
    LOG = "log"  # the log itself is torn, empty or of another service


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
class Finding:
    """One observation. `rows` of `of` compared rows show it; `cause` is a sentence, empty where none explains it.

    `slices` are sentences such as 'only build B' and 'since 2013-11-05T14:05Z'; `explained` the share of the rows that
    the cause explains.
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

    @property
    def rate(self) -> float:
        """Share of the compared rows, 0 where none was compared."""
        return self.rows / self.of if self.of else 0.0


@dataclass(frozen=True, slots=True)
class Observed:
    """A finding with the rows behind it: `rows` is a mask over the replayed rows, shape (n,)."""

    finding: Finding
    rows: Mask
