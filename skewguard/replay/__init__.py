"""Replay: what training would have said at the instant of every logged row.

`ServingLog + Snapshot -> Pairs`. For each row there are three answers: `served` (the log), `truth` (the join at the
row's instant, under the snapshot's rule and definitions) and `as_known` (the source rows that the served row itself
names, looked up exactly). `served` against `as_known` shows what was computed wrongly, `as_known` against `truth`
what was old. Old is legitimate (LAGGED) only where every newer row became known within the view's `max_lag`.

    pairs.py     the data        truth.py    what the sources say, and what they can still witness
    naming.py    which source row was served, and how old it was         stream.py   the log, batch by batch
    bearing.py   how many rows are evidence for each feature             cut.py      rows of other definitions
"""

from skewguard.replay.bearing import Bearing
from skewguard.replay.cut import CutTruth, cut_batches
from skewguard.replay.pairs import HEADER_FIELDS, Age, Pairs, concat, take, ulps_to
from skewguard.replay.stream import (
    BATCH_ROWS,
    alone,
    check_readable,
    comparable,
    equality,
    recompute,
    replay,
    served_batches,
)
from skewguard.replay.truth import InPlace, Sources, Truth

__all__ = [
    "BATCH_ROWS",
    "HEADER_FIELDS",
    "Age",
    "Bearing",
    "CutTruth",
    "InPlace",
    "Pairs",
    "Sources",
    "Truth",
    "alone",
    "check_readable",
    "comparable",
    "concat",
    "cut_batches",
    "equality",
    "recompute",
    "replay",
    "served_batches",
    "take",
    "ulps_to",
]
