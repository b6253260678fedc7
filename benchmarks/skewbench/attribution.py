"""Whether a finding points at what is wrong, and names the cause: the detectors' words held against the faults'."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from benchmarks.skewbench.faults.case import Case, differs
from benchmarks.skewbench.world import MINUTE, SECOND
from skewguard.definitions import Bundle
from skewguard.findings import Finding, Kind

ACCEPTED: dict[str, frozenset[str]] = {
    "stale": frozenset({"stale"}),
    "batch": frozenset({"stale", "cache", "forward_fill"}),
    "stopped": frozenset({"stale", "forward_fill", "lost_write"}),
    "stale_feature": frozenset({"stale", "forward_fill"}),
    "cached": frozenset({"cache", "stale", "forward_fill"}),
    "lost_write": frozenset({"lost_write", "overwritten", "dropped_correction", "stale"}),
    "missing": frozenset({"skipped_entities", "not_found", "not_onboarded", "key_format", "nulled"}),
    "future": frozenset({"future", "leak"}),
    "timezone": frozenset({"timezone", "off_by_day", "clock"}),
    "ttl": frozenset({"ttl"}),
    "other_entity": frozenset({"other_key", "misaligned"}),
    "default": frozenset({"default", "null_fill"}),
    "null_fill": frozenset({"null_fill", "default"}),
    "nulled": frozenset({"nulled", "not_onboarded"}),
    "misaligned": frozenset({"misaligned", "other_key"}),
    "unit": frozenset({"unit"}),
    "float32": frozenset({"float32"}),
    "float16": frozenset({"float16", "bfloat16"}),
    "rounded": frozenset({"rounded", "truncated", "floored", "ceiled"}),
    "truncated": frozenset({"truncated", "rounded", "floored"}),
    "overflow": frozenset({"overflow", "int", "uint"}),
    "clipped": frozenset({"clip"}),
    "other_feature": frozenset({"swap", "feature_order"}),
    "noise": frozenset({"noise", "unknown"}),
    "counted": frozenset({"duplicates", "window", "unknown"}),
    "vocabulary": frozenset({"vocabulary", "fitted_values"}),
    "other_code": frozenset({"other_code", "unit", "null_fill", "off_by_day"}),
    "window": frozenset({"window"}),
    "other_model": frozenset({"other_model", "unknown"}),
    "novel": frozenset({"unknown", "other_code"}),
}
"""By the fault's word, the guard's kinds that say the same, or that nothing in a log could tell from it. Of noise, of
events that were counted twice or never, and of another model, 'unknown' is as much as a replay can know; 'other_code'
says no more than that of a transform."""


def allowed(touched: frozenset[str], bundle: Bundle) -> frozenset[str]:
    """Where a detector may point: the touched, its view, the view's features, and what is computed from it."""
    names = set(touched)
    names |= {view for name, view in bundle.view_of.items() if name in touched}
    names |= {name for name, view in bundle.view_of.items() if view in touched}
    names |= {name.rpartition("__")[2] for name in touched}
    for derived in bundle.derived:
        if names & set(derived.inputs):
            names.add(derived.full_name)
    return frozenset(names)


def pointing(case: Case, findings: Sequence[Finding]) -> list[Finding]:
    """Findings about what is wrong: those of rows first, those with most rows first."""
    names = allowed(case.touched, case.window.bundle)
    return sorted((f for f in findings if f.feature in names), key=lambda f: (f.kind is Kind.PERFORMANCE, -f.rows))


def kinds(finding: Finding) -> list[str]:
    """What the guard thinks is the cause, likeliest first; several where it names several."""
    first = finding.cause_kind or str(finding.kind)
    others = [one.kind for one in (*finding.causes, *finding.alternatives)]
    return [first, *(one for one in others if one != first)]


def names_cause(cause: str, finding: Finding, among: int) -> bool:
    """Whether the cause is among the first `among` that the finding names."""
    wanted = ACCEPTED.get(cause, frozenset({cause}))
    return any(_plain(kind) in wanted for kind in kinds(finding)[:among])


def _plain(kind: str) -> str:
    """Without a number: `rounded_2`, `int8`."""
    return kind if kind in {"float32", "float16"} else re.sub(r"_?\d+$", "", kind)


def lag_right(case: Case, finding: Finding) -> bool:
    """Whether a cause that it names has the lag, to within 2 minutes or 5 %."""
    within = max(2 * MINUTE, 0.05 * case.lag_us)
    return any(abs(one.lag_seconds * SECOND - case.lag_us) <= within for one in finding.causes)


def slice_right(case: Case, finding: Finding) -> bool:
    """Whether the slice is named, and no other one; and the moment where there is one, and none where there is not."""
    only = [one for one in finding.slices if one.startswith("only ")]
    if only != ([f"only {case.slice}"] if case.slice else []):
        return False
    since = [one for one in finding.slices if one.startswith("since ")]
    if not case.since:
        return not since
    return len(since) == 1 and _near(since[0].removeprefix("since "), case)


def _near(text: str, case: Case) -> bool:
    """To within three times the rows between two wrong ones; or the first wrong row, before which nothing shows."""
    at = int(np.datetime64(text.rstrip("Z."), "us").astype(np.int64))
    as_of = case.window.spine.as_of
    between = np.abs(np.searchsorted(as_of, at) - np.searchsorted(as_of, case.since))
    first = int(as_of[np.flatnonzero(differs(case.window.served, case.served))[0]])
    return between <= max(2, 3 * len(as_of) / max(case.rows, 1)) or abs(at - first) <= MINUTE


def stage_right(case: Case, finding: Finding) -> bool:
    """Whether the tap is named at which the fault entered."""
    return str(finding.tap) == case.stage or (finding.kind == "stale" and case.stage == "store")
