"""What the runs come to: rates, what was missed, and the table for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.skewbench.run import Trial

NOT_CAUSES = frozenset({"novel"})


def rate(hits: Iterable[bool]) -> float | None:
    """Share of those that are true, None of nothing."""
    found = list(hits)
    return round(sum(found) / len(found), 4) if found else None


def detection(one: Sequence[Trial], tenth: Sequence[Trial], five: Sequence[Trial]) -> dict[str, Any]:
    """Faults that replay can see at 1 % and 0.1 % of the rows, and all faults at 5 %."""
    return {
        "detect_visible_1pct": rate(t.detected for t in one if t.of_rows),
        "detect_visible_01pct": rate(t.detected for t in tenth if t.of_rows and t.rows >= 3),
        "detect_all_5pct": rate(t.detected for t in five),
        "detect_beyond_5pct": rate(t.detected for t in five if not t.of_rows),
        "trials": {"1pct": len(one), "01pct": len(tenth), "5pct": len(five)},
        "missed": sorted({f"{t.fault} at {t.share:.1%}: {t.ruling}" for t in (*one, *tenth, *five) if not t.detected}),
    }


def attribution(trials: Sequence[Trial], slices: Sequence[Trial], stacks: Sequence[Trial]) -> dict[str, Any]:
    """Causes of the detected faults of rows; a fault with a new cause is 'unknown' or it is wrong."""
    seen = [t for t in trials if t.of_rows and t.detected]
    known = [t for t in seen if t.causes[0] not in NOT_CAUSES]
    wrong = Counter(t.causes[0] for t in known if not t.top1)
    return {
        "cause_top1": rate(t.top1 for t in known),
        "cause_top3": rate(t.top3 for t in known),
        "novel_unknown": rate(t.top1 for t in seen if t.causes[0] in NOT_CAUSES),
        "lag_ok": rate(bool(t.lag) for t in known if t.lag is not None),
        "slice_ok": rate(bool(t.slice) for t in slices if t.detected and t.slice is not None),
        "stacked_both": rate(t.both for t in stacks if t.detected),
        "stage_ok": rate(bool(t.stage) for t in seen if t.stage is not None),
        "causes_not_named": dict(sorted(wrong.items())),
        "wrong_stage": sorted({t.fault for t in seen if t.stage is False}),
    }


def cleanliness(windows: Sequence[tuple[str, str, tuple[Any, ...]]]) -> dict[str, Any]:
    """Clean windows, those that failed, and by which kinds of finding."""
    failed = [(name, alarms) for name, _, alarms in windows if alarms]
    kinds = Counter(kind for _, alarms in failed for kind in {str(one.kind) for one in alarms})
    return {
        "clean_windows": len(windows),
        "false_alarms": len(failed),
        "false_alarms_by_kind": dict(sorted(kinds.items())),
        "false_alarms_in": dict(sorted(Counter(name for name, _ in failed).items())),
        "clean_unknown": dict(sorted(Counter(name for name, ruling, _ in windows if ruling == "UNKNOWN").items())),
    }
