"""Verdicts for tests, passing unless told otherwise."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from skewguard.gate.keys import SigningKey
from skewguard.gate.record import Record
from skewguard.verdict import Coverage, Ruling, Subject, Verdict

KEY = SigningKey.new()
"""Who signs in the tests, and is trusted."""


def passing(
    registered_name: str,
    model_id: str,
    model_digest: str,
    policy_digest: str,
    *,
    age: timedelta = timedelta(),
    lasts: timedelta = timedelta(days=7),
) -> Verdict:
    """A verdict that lets exactly this model pass for exactly this name."""
    issued = datetime.now(UTC) - age
    return Verdict(
        ruling=Ruling.PASS,
        reasons=("2,000 rows replayed, none differs",),
        subject=Subject(registered_name, model_id, model_digest, "snap-1", "b" * 64, "delay", "shadow", ("A", "B")),
        coverage=Coverage(rows=2000, equal=2000, values=20_000, blind=("it sees no label",)),
        findings=(),
        waived=(),
        policy_digest=policy_digest,
        issued_at=issued.isoformat(timespec="seconds"),
        expires_at=(issued + lasts).isoformat(timespec="seconds"),
    )


def recorded(verdict: Verdict) -> Record:
    """The verdict as the gate finds it, its signature checked."""
    about = verdict.subject
    return Record(about.registered_name, about.model_id, datetime.now(UTC), verdict, "", KEY.id, "")


def about(verdict: Verdict, **changes: Any) -> Verdict:
    """The same verdict about something else."""
    return replace(verdict, subject=replace(verdict.subject, **changes))
