"""May this logged model bear this registered name? Decides; reads and writes nothing."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta

from skewguard.errors import Refused
from skewguard.policy import Policy
from skewguard.verdict import Ruling, Verdict

CLOCK_SKEW = timedelta(minutes=5)
_LONGEST_REASON = 300


def admit(
    verdict: Verdict | None,
    *,
    registered_name: str,
    model_id: str,
    model_digest: str,
    policy: Policy,
    now: datetime,
) -> None:
    """Raise `Refused` unless `verdict` passes exactly this model for this name under this policy, now.

    Nobody asks about a model that `policy` does not govern. `model_digest` is of the artifact as it lies there now.
    """
    subject = f"model {model_id} may not be registered as {registered_name!r}"
    flags = f"--registered-name {shlex.quote(registered_name)} --model-digest {model_digest} --attach {model_id}"
    command = f"run `skewguard guard {flags}`"
    if verdict is None:
        raise Refused(f"{subject}: it has no verdict; {command}")
    if problem := _of_another(verdict, registered_name, model_id):
        raise Refused(f"{subject}: {problem}; {command}")
    if verdict.ruling is not Ruling.PASS:
        raise Refused(f"{subject}: its verdict is {verdict.ruling}{_because(verdict)}; mend that, then {command}")
    if problem := _changed(verdict, model_digest) or _stale(verdict, policy, now):
        raise Refused(f"{subject}: {problem}; {command}")


def _of_another(verdict: Verdict, registered_name: str, model_id: str) -> str:
    """What else the verdict is about; empty if it is about this."""
    about = verdict.subject
    if about.model_id != model_id or not model_id:
        return f"its verdict is about another model, {about.model_id or 'none'}"
    if about.registered_name != registered_name:
        return f"its verdict is for the name {about.registered_name!r}"
    return ""


def _changed(verdict: Verdict, model_digest: str) -> str:
    judged = verdict.subject.model_digest
    if judged == model_digest and model_digest:
        return ""
    return (
        f"its files have changed since it was judged ({judged[:12] or 'none'} then, {model_digest[:12] or 'none'} now)"
    )


def _because(verdict: Verdict) -> str:
    if not verdict.reasons:
        return ""
    first = " ".join(verdict.reasons[0].split())
    first = first if len(first) <= _LONGEST_REASON else first[: _LONGEST_REASON - 1] + "…"
    more = len(verdict.reasons) - 1
    return f" ({first}{f', and {more} more' if more else ''})"


def _stale(verdict: Verdict, policy: Policy, now: datetime) -> str:
    """Why the verdict, right as it was, no longer counts; empty if it does."""
    if verdict.policy_digest != policy.digest or not policy.digest:
        return (
            f"its verdict was given under another policy ({verdict.policy_digest[:12] or 'none'}, "
            f"now {policy.digest[:12] or 'none'})"
        )
    issued, expires = _instant(verdict.issued_at), _instant(verdict.expires_at)
    if issued is None or expires is None:
        return f"its verdict has no readable times ({verdict.issued_at!r} to {verdict.expires_at!r})"
    if issued > now + CLOCK_SKEW:
        return f"its verdict was issued in the future ({verdict.issued_at}), so a clock is wrong"
    end = min(expires, issued + timedelta(microseconds=policy.valid_for_us))
    if now >= end:
        return f"its verdict expired at {end.astimezone(UTC).isoformat(timespec='seconds')}"
    return ""


def _instant(text: str) -> datetime | None:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo else None
