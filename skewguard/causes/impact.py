"""What a difference does to the predictions: served vectors and their truths, both scored with the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from skewguard.definitions import Bundle
from skewguard.findings import Finding, Impact, Kind, Observed
from skewguard.model import Model
from skewguard.replay import Pairs
from skewguard.values import Array

SAMPLE = 1 << 15
"""So many rows are scored, evenly spread."""

MEASURED = (Kind.MISMATCH, Kind.STALE)

Floats = npt.NDArray[np.float64]


def with_impact(
    findings: Sequence[Finding],
    observed: Sequence[Observed],
    pairs: Pairs,
    model: Model,
    threshold: float,
    outcomes: Floats | None = None,
) -> list[Finding]:
    """The findings, one per observation, each with what it alone did to the predictions."""
    return [
        replace(finding, impact=measure([one], pairs, model, threshold, outcomes))
        for finding, one in zip(findings, observed, strict=True)
    ]


def measure(
    observed: Sequence[Observed], pairs: Pairs, model: Model, threshold: float, outcomes: Floats | None = None
) -> Impact | None:
    """What some observations did together; None where none is about what was served for a feature.

    The vector that entered the model is scored against the same with the truth in the columns concerned: those of the
    feature or the view, and those that are computed from them. A feature that does not enter the model moves nothing.
    `outcomes`: 0 or 1 per pair, NaN where unknown, shape (n,). A decision is whether a score reaches `threshold`.
    """
    judged = [one for one in observed if one.finding.kind in MEASURED and one.finding.feature != "prediction"]
    if not judged:
        return None
    rows = np.flatnonzero(np.logical_or.reduce([one.rows for one in judged]))
    count = len(rows)
    if count > SAMPLE:
        rows = rows[np.linspace(0, count - 1, SAMPLE).astype(np.int64)]
    served = pairs.served.vector[rows]
    repaired = served.copy()
    for one in judged:
        mine = np.flatnonzero(one.rows[rows])
        for column in _columns(pairs.bundle, one.finding.feature):
            repaired[mine, column] = pairs.truth.vector[rows[mine], column]
    changed = ((served != repaired) & ~(np.isnan(served) & np.isnan(repaired))).any(axis=1)
    if not changed.any():
        return Impact(len(rows), 0, 0, 0.0, 0.0, threshold)
    before, after = (model.predict(np.ascontiguousarray(matrix[changed])) for matrix in (served, repaired))
    delta = np.abs(before - after)
    flips = (before >= threshold) != (after >= threshold)
    impact = Impact(
        len(rows),
        int((delta > 0).sum()),
        int(flips.sum()),
        float(delta.sum() / len(rows)),
        float(delta.max()),
        threshold,
    )
    return impact if outcomes is None else _with_loss(impact, before, after, outcomes[rows][changed])


def _columns(bundle: Bundle, feature: str) -> list[int]:
    """The places in the vector of a feature or of a view's features, and of all that is computed from them."""
    touched = {feature} | {name for name, view in bundle.view_of.items() if view == feature}
    for spec in bundle.derived:  # in order: a model input may read a derived feature
        if touched & set(spec.inputs):
            touched.add(spec.full_name)
    return [place for place, name in enumerate(bundle.vector) if name in touched]


def _with_loss(impact: Impact, before: Floats, after: Floats, outcomes: Array) -> Impact:
    known = ~np.isnan(outcomes)
    if not known.any():
        return impact
    losses = [_log_loss(side[known], outcomes[known]) for side in (before, after)]
    return replace(impact, labelled=int(known.sum()), loss_served=losses[0], loss_truth=losses[1])


def _log_loss(score: Floats, outcome: Array) -> float:
    clipped = np.clip(score, 1e-15, 1 - 1e-15)
    return float(-(outcome * np.log(clipped) + (1 - outcome) * np.log(1 - clipped)).mean())
