"""Causes: one hypothesis per file. Each looks at the rows behind a finding and says what explains how many of them.

`explain` asks them all and keeps the one that saves most: rows explained against what it takes to say it, a whole view
before a single column. Where one leaves a part, a second one is sought for that part. Then it adds in which slice of
the traffic, and since when. Fewer than three rows, or three quarters unexplained, is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from skewguard.causes import (
    clip,
    default_fill,
    elsewhere,
    leak,
    misaligned,
    precision,
    renamed,
    skipped,
    stale,
    swap,
    text,
    timezone,
    unexpired,
    unit,
    vocabulary,
    window,
)
from skewguard.causes.evidence import Evidence, Explanation, Scene
from skewguard.causes.slices import slices
from skewguard.findings import Cause, Finding, Kind, Observed, Tap
from skewguard.replay import Pairs
from skewguard.values import Mask

HYPOTHESES = (
    skipped.explain, stale.explain, leak.explain, elsewhere.explain, renamed.explain, unexpired.explain,
    timezone.explain, text.explain, default_fill.explain, clip.explain, precision.explain, swap.explain,
    misaligned.explain, unit.explain, vocabulary.explain,
)  # fmt: skip
LAST = (window.explain,)
"""Asked where nothing else explains nearly all: they say least, and take longest."""

MINIMUM_ROWS = 3
MINIMUM_SHARE = 0.75
ALTERNATIVES = 3
_TRIED = 3
_WHOLE = 0.97
_PART = 0.1
_MANY = 20
_TOGETHER = 0.9
_KINDS = (Kind.MISMATCH, Kind.STALE, Kind.LEAK)
_UNKNOWN = "unknown: no hypothesis explains it"
_OTHER_CODE = "the transform gives another value for the logged inputs: the server ran other code"

__all__ = ["Evidence", "Explanation", "Scene", "explain", "explain_all"]


def explain_all(observed: Sequence[Observed], pairs: Pairs) -> list[Finding]:
    """The findings with their causes; what is worked out of the pairs is shared."""
    scene = Scene(pairs)
    return [explain(one, pairs, scene) for one in observed]


def explain(observed: Observed, pairs: Pairs, scene: Scene | None = None) -> Finding:
    """The finding with its cause, the share of rows that this explains, and its slices.

    `causes` has what explains it together (one, or two where two faults meet), and then what else might. A broken
    contract is told by its kind, and comes back as it is.
    """
    finding = observed.finding
    if finding.kind not in _KINDS or (observed.served is None and finding.feature not in pairs.age):
        return finding
    if finding.rows < MINIMUM_ROWS or not observed.rows.any():
        if finding.kind is Kind.LEAK:  # its kind tells enough
            return finding
        return replace(finding, cause="unknown: too few rows to tell", cause_kind="unknown")
    evidence = Evidence.of(observed, scene or Scene(pairs))
    ranked = rank(evidence)
    named = _named(evidence, ranked)
    if not named:
        return _unexplained(observed, evidence, ranked)
    causes = [_cause(observed, evidence, one) for one in named]
    told = {cause.kind for cause in causes}
    others = [_bare(one) for one in (*ranked[:1], *_of_the_stage(evidence), *ranked[1:]) if one.kind not in told]
    apart = len({cause.slices for cause in causes}) > 1  # then each says its own
    union = np.logical_or.reduce([one.hits for one in named])
    best = causes[0]
    return replace(
        finding,
        cause="; and ".join(_with_slices(one) if apart else one.sentence for one in causes),
        cause_kind=best.kind,
        explained=float(union.mean()),
        slices=() if apart else best.slices,
        causes=tuple(causes),
        alternatives=tuple(_distinct(others)[: ALTERNATIVES - 1]),
    )


def rank(evidence: Evidence) -> list[Explanation]:
    """What any hypothesis says of the evidence, the one that saves most bits first; none that costs more than it
    saves.
    """
    found = [_at_its_stage(one, evidence) for hypothesis in HYPOTHESES for one in hypothesis(evidence)]
    if max((one.explained for one in found), default=0.0) < _WHOLE:
        found += [_at_its_stage(one, evidence) for hypothesis in LAST for one in hypothesis(evidence)]
    gains = {id(one): evidence.gain(one) for one in found}
    return sorted((one for one in found if gains[id(one)] > 0), key=lambda one: -gains[id(one)])


def _named(evidence: Evidence, ranked: Sequence[Explanation]) -> list[Explanation]:
    """The best, and the best for what it leaves where that is much; the next best where that is too much."""
    for best in ranked[:_TRIED]:
        if best.explained >= _WHOLE:
            return [best]
        second = _second(evidence, best)
        if second is not None:
            return _together(evidence, best, second)
        if best.explained >= MINIMUM_SHARE:
            return [best]
    return []


def _second(evidence: Evidence, best: Explanation) -> Explanation | None:
    """The best for the rows that are left, where it is of another kind and leaves hardly any."""
    rest: Mask = ~best.hits
    if rest.sum() < MINIMUM_ROWS or (rest.mean() < _PART and rest.sum() < _MANY):
        return None
    for one in rank(evidence.take(rest))[:1]:
        hits = np.zeros(len(evidence), dtype=bool)
        hits[np.flatnonzero(rest)[one.hits]] = True
        much = hits.mean() >= _PART or hits.sum() >= _MANY
        if one.kind != best.kind and much and (hits | best.hits).mean() >= _TOGETHER:
            return replace(one, hits=hits)
    return None


def _together(evidence: Evidence, best: Explanation, second: Explanation) -> list[Explanation]:
    """Two causes; a constant beside a line may be a bound."""
    if (best.kind, second.kind) == ("unit", "default"):
        return [best, clip.beyond_a_line(evidence, best, second)]
    if (best.kind, second.kind) == ("default", "unit"):
        return [clip.beyond_a_line(evidence, second, best), second]
    return [best, second]


def _unexplained(observed: Observed, evidence: Evidence, ranked: Sequence[Explanation]) -> Finding:
    finding = observed.finding
    if finding.kind is Kind.LEAK:
        return finding
    where = slices(observed, evidence.pairs)
    others = tuple(_distinct([_bare(one) for one in ranked])[: ALTERNATIVES - 1])
    for stage in _of_the_stage(evidence):
        kind = replace(_bare(stage), slices=where)
        return replace(
            finding, cause=kind.sentence, cause_kind=kind.kind, explained=1.0, slices=where, causes=(kind,),
            alternatives=others,
        )  # fmt: skip
    return replace(finding, cause=_UNKNOWN, cause_kind="unknown", slices=where, alternatives=others)


def _of_the_stage(evidence: Evidence) -> list[Explanation]:
    """What may always be at fault where the inputs are right: the code that ran, or the fitted values it ran with."""
    spec = next((d for d in evidence.pairs.bundle.derived if d.full_name == evidence.feature), None)
    if spec is None or evidence.tap not in (Tap.TRANSFORM, Tap.MODEL_INPUT):
        return []
    every = np.ones(len(evidence), dtype=bool)
    if spec.fitted:
        return [Explanation("fitted_values", "other fitted values than the snapshot's were used", every, 0.0)]
    return [Explanation("other_code", _OTHER_CODE, every, 0.0)]


def _at_its_stage(one: Explanation, evidence: Evidence) -> Explanation:
    """The cause as it is called where it stands: a fitted value, or the code that ran."""
    spec = next((d for d in evidence.pairs.bundle.derived if d.full_name == evidence.feature), None)
    if spec is None:
        return one
    if spec.fitted and one.kind in ("unit", "vocabulary", "default", "null_fill", "clip"):
        what = f"{one.sentence}: as other fitted values than the snapshot's make it"
        return replace(one, kind="fitted_values", sentence=what)
    if evidence.tap is Tap.TRANSFORM and one.kind not in ("swap", "misaligned"):
        return replace(one, sentence=f"{one.sentence}; the inputs are right, so the server ran other code")
    return one


def _cause(observed: Observed, evidence: Evidence, one: Explanation) -> Cause:
    """The cause with the slice of the traffic in which its own rows lie."""
    bad = observed.rows
    if one.explained < _WHOLE:
        bad = np.zeros(len(observed.rows), dtype=bool)
        bad[evidence.rows[one.hits]] = True
    return replace(_bare(one), slices=slices(observed, evidence.pairs, bad, _could(evidence, one)))


def _could(evidence: Evidence, one: Explanation) -> Mask | None:
    """In which of all rows the cause would have shown: what is old only where something newer had come since."""
    if evidence.view is None or one.lag_us <= 0 or evidence.view not in evidence.pairs.age:
        return None
    true = evidence.pairs.truth.views[evidence.view]
    return np.asarray(evidence.pairs.served.spine.as_of - np.maximum(true.event, true.created) < one.lag_us)


def _bare(one: Explanation) -> Cause:
    return Cause(one.kind, one.sentence, one.explained, (), one.lag_us / 1e6)


def _with_slices(cause: Cause) -> str:
    return ", ".join([cause.sentence, *cause.slices])


def _distinct(causes: Sequence[Cause]) -> list[Cause]:
    """One per kind, in order."""
    kinds = [one.kind for one in causes]
    return [one for i, one in enumerate(causes) if one.kind not in kinds[:i]]
