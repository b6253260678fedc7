"""Verdicts for tests, passing unless told otherwise."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from benchmarks.gate.world import KEY, passing
from skewguard.gate.record import Record
from skewguard.verdict import Verdict

__all__ = ["KEY", "about", "passing", "recorded"]


def recorded(verdict: Verdict) -> Record:
    """The verdict as the gate finds it, its signature checked."""
    about = verdict.subject
    return Record(about.registered_name, about.model_id, datetime.now(UTC), verdict, "", KEY.id, "")


def about(verdict: Verdict, **changes: Any) -> Verdict:
    """The same verdict about something else."""
    return replace(verdict, subject=replace(verdict.subject, **changes))
