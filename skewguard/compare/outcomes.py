"""What became of the requests: completeness of the log against the outcomes, and the model's performance on them.

Outcomes arrive late and are joined by request id. Performance is held against the window before, never against
training: a model is always better there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewguard.compare.rows import EXAMPLES, by_hour
from skewguard.errors import EvidenceError
from skewguard.findings import Example, Finding, Kind, Tap
from skewguard.values import NO_TIME, Array, Dtype, Mask, instant

COLUMNS = pa.schema([("id", pa.string()), ("outcome", pa.float64()), ("event_timestamp", Dtype.TIMESTAMP.arrow)])
"""A file of outcomes: request id, what happened (0 or 1 for a classifier), and when it was asked, null if not told."""

FLOOR = 0.05
"""A fall below which nothing is told: accuracy or area under the curve, absolute."""

_SIGMAS = 5.0
_SURE = 6.0
_STRETCH = 400
_STRETCHES = 16
_MINIMUM = 100
_SLICED = 24
_HALF = 0.5


def read_outcomes(folder: str | Path) -> pa.Table:
    """All outcomes in a folder, one per id, the file that was imported last winning; raises `EvidenceError`."""
    files = sorted(Path(folder).glob("*.parquet"))
    if not files:
        raise EvidenceError(f"{folder}: expected outcomes, found none. Bring them in with `skewguard outcomes import`.")
    try:
        table = pa.concat_tables([pq.read_table(file).cast(COLUMNS) for file in files])
    except (OSError, ValueError) as error:
        raise EvidenceError(f"{folder}: outcomes that cannot be read: {error}") from error
    last = {one: row for row, one in enumerate(table["id"].to_pylist())}
    return table.take(pa.array(sorted(last.values()), pa.int64()))


@dataclass(frozen=True, slots=True)
class Predictions:
    """n answered rows. `ids` (object), `as_of` (int64 microseconds), `prediction` (float64), columns to slice by."""

    ids: Array
    as_of: npt.NDArray[np.int64]
    prediction: npt.NDArray[np.float64]
    by: Mapping[str, Array]

    def take(self, rows: Array) -> Predictions:
        """Some of the rows."""
        by = {name: values[rows] for name, values in self.by.items()}
        return Predictions(self.ids[rows], self.as_of[rows], self.prediction[rows], by)


@dataclass(frozen=True, slots=True)
class Performance:
    """A model on `rows` outcomes: shares and losses; `auc` is NaN where all outcomes are alike."""

    rows: int
    accuracy: float
    auc: float
    log_loss: float
    mean_prediction: float
    mean_outcome: float

    def __str__(self) -> str:
        return (
            f"accuracy {self.accuracy:.1%}, AUC {self.auc:.3f}, log loss {self.log_loss:.3f}, predicted "
            f"{self.mean_prediction:.1%} of {self.mean_outcome:.1%} on {self.rows:,} outcomes"
        )


def performance(prediction: Array, outcome: Array) -> Performance:
    """Of probabilities and outcomes of 0 or 1, shape (n,)."""
    clipped = np.clip(prediction, 1e-15, 1 - 1e-15)
    loss = -(outcome * np.log(clipped) + (1 - outcome) * np.log(1 - clipped))
    return Performance(
        len(outcome),
        float(((prediction >= _HALF) == (outcome >= _HALF)).mean()),
        _auc(prediction, outcome),
        float(loss.mean()),
        float(prediction.mean()),
        float(outcome.mean()),
    )


def missing(ids: Array, since: int, until: int, outcomes: pa.Table) -> Finding | None:
    """Requests between two instants (microseconds) that had an outcome and are not in the log; None where none is."""
    at = outcomes["event_timestamp"].cast(pa.int64()).fill_null(NO_TIME).to_numpy()
    inside = (at >= since) & (at <= until)
    asked = outcomes.filter(pa.array(inside))
    gone: Mask = ~np.asarray(pc.is_in(asked["id"], value_set=pa.array(ids, pa.string())))
    if not gone.any():
        return None
    when = at[inside]
    examples = tuple(
        Example(str(asked["id"][int(row)]), instant(int(when[row])), "", "not in the log", "had an outcome")
        for row in np.flatnonzero(gone)[:EXAMPLES]
    )
    count, of = int(gone.sum()), len(gone)
    message = f"log: {count:,} of {of:,} requests had an outcome and are not in the log"
    return Finding(Kind.INCOMPLETE, "log", count, of, message, examples=examples, by_hour=by_hour(when, gone))


def uncounted(logged: int, counted: int) -> Finding | None:
    """What the service counted as answered beside what is in the log; None where the log has it all."""
    if logged >= counted:
        return None
    message = f"log: {counted - logged:,} of {counted:,} answers that the service counted are not in the log"
    return Finding(Kind.INCOMPLETE, "log", counted - logged, counted, message)


def fell(now: Predictions, before: Predictions, outcomes: pa.Table) -> tuple[list[Finding], list[str]]:
    """(findings, sentences): how the model does on the outcomes of a window and of the one before.

    A finding where it does worse by more than `FLOOR` and than five standard errors, overall or in a slice.
    """
    current, past = _joined(now, outcomes), _joined(before, outcomes)
    if min(len(current[1]), len(past[1])) < _MINIMUM:
        few = f"{len(current[1]):,} outcomes of this window and {len(past[1]):,} of the one before"
        return [], [f"performance was not judged: {few}, at least {_MINIMUM} of each are needed"]
    one, other = performance(current[0].prediction, current[1]), performance(past[0].prediction, past[1])
    told = [f"this window: {one}", f"the window before: {other}"]
    worse = _worse(other, one)
    slices = [sentence for sentence, _ in _sliced(current, past)]
    if not worse and not slices:
        return [], told
    wrong = (current[0].prediction >= _HALF) != (current[1] >= _HALF)
    what = worse or f"in slices: {slices[0]}"
    finding = Finding(
        Kind.PERFORMANCE,
        "prediction",
        int(wrong.sum()),
        len(wrong),
        f"prediction: {int(wrong.sum()):,} of {len(wrong):,} outcomes were missed; {what}",
        Tap.PREDICTION,
        slices=tuple(slices[:EXAMPLES]),
        by_hour=by_hour(current[0].as_of, wrong),
    )
    return [finding], told


def contradicted(logged: Predictions, outcomes: pa.Table) -> Finding | None:
    """Outcomes that contradict the predictions in some stretch of the log: no season turns a model upside down.

    Told where the area under the curve lies more than `_SURE` standard errors below one half, in the worst of some
    stretches: then the outcomes are joined or coded wrongly, or the model is.
    """
    known, outcome = _joined(logged, outcomes)
    if not np.isin(outcome, (0.0, 1.0)).all():
        return None
    order = np.argsort(known.as_of, kind="stable")
    worst: tuple[float, Array, Performance] | None = None
    for rows in np.array_split(order, max(1, min(_STRETCHES, len(order) // _STRETCH))):
        if len(rows) < _MINIMUM:
            continue
        seen = performance(known.prediction[rows], outcome[rows])
        short = 0.0 if math.isnan(seen.auc) else _HALF - seen.auc - _SURE * _auc_error(seen)
        if short > 0 and (worst is None or short > worst[0]):
            worst = short, rows, seen
    if worst is None:
        return None
    _, rows, seen = worst
    at = known.as_of[rows]
    message = (
        f"prediction: {len(rows):,} of {len(order):,} outcomes, from {instant(int(at.min()))} on, contradict the "
        f"predictions (area under the curve {seen.auc:.3f}): they are joined or coded wrongly, or the model is"
    )
    return Finding(Kind.CONSTRAINT, "prediction", len(rows), len(order), message, Tap.PREDICTION)


def _joined(rows: Predictions, outcomes: pa.Table) -> tuple[Predictions, npt.NDArray[np.float64]]:
    """The rows that have an outcome, and that."""
    place = pc.index_in(pa.array(rows.ids, pa.string()), value_set=outcomes["id"].combine_chunks())
    at = place.fill_null(-1).to_numpy(zero_copy_only=False)
    values = outcomes["outcome"].to_numpy()
    there = (at >= 0) & np.isfinite(rows.prediction)
    there &= np.isfinite(np.append(values, np.nan)[at])
    return rows.take(np.flatnonzero(there)), values[at[there]]


def _worse(before: Performance, now: Performance) -> str:
    """What fell, in words; empty where nothing did."""
    error = math.hypot(*(math.sqrt(max(p.accuracy * (1 - p.accuracy), 1e-4) / p.rows) for p in (before, now)))
    if before.accuracy - now.accuracy > max(FLOOR, _SIGMAS * error):
        return f"accuracy fell from {before.accuracy:.1%} to {now.accuracy:.1%}"
    if math.isnan(before.auc) or math.isnan(now.auc):
        return ""
    if before.auc - now.auc > max(FLOOR, _SIGMAS * math.hypot(_auc_error(before), _auc_error(now))):
        return f"the area under the curve fell from {before.auc:.3f} to {now.auc:.3f}"
    return ""


def _sliced(current: tuple[Predictions, Array], past: tuple[Predictions, Array]) -> Iterator[tuple[str, Performance]]:
    """Slices of the traffic in which the model does worse than it did there before."""
    for name, values in current[0].by.items():
        for value in _few(values):
            here, there = values == value, past[0].by[name] == value
            if min(here.sum(), there.sum()) < _MINIMUM:
                continue
            now = performance(current[0].prediction[here], current[1][here])
            what = _worse(performance(past[0].prediction[there], past[1][there]), now)
            if what:
                yield f"{name} {value}: {what}", now


def _few(values: Array) -> Sequence[object]:
    found = sorted({str(value) for value in values.tolist()})
    return [] if len(found) > _SLICED else found


def _auc(prediction: Array, outcome: Array) -> float:
    """The share of pairs (late, on time) that the prediction ranks rightly, ties half."""
    positive = outcome >= _HALF
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return math.nan
    _, place, counts = np.unique(prediction, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * m))


def _auc_error(of: Performance) -> float:
    """The standard error of an area under the curve (Hanley and McNeil 1982)."""
    a, n = of.auc, max(of.mean_outcome * of.rows, 1.0)
    m = max(of.rows - n, 1.0)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    return math.sqrt(max(a * (1 - a) + (n - 1) * (q1 - a * a) + (m - 1) * (q2 - a * a), 0.0) / (n * m))
