"""May this logged model bear this registered name, and an alias? Decides; reads and writes nothing."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta

from skewguard.errors import Refused
from skewguard.gate.record import Record
from skewguard.policy import Policy
from skewguard.verdict import Ruling, Verdict

CLOCK_SKEW = timedelta(minutes=5)
_LONGEST_REASON = 300


def admit(
    record: Record | None,
    *,
    registered_name: str,
    model_id: str,
    model_digest: str,
    policy: Policy,
    now: datetime,
) -> Verdict:
    """The verdict by which exactly this model may bear this name under this policy, now; raises `Refused`.

    `record` is the newest signed record on the model and the name. `model_digest` is of the artifact as it lies there
    now. Nobody asks about a model that `policy` does not govern.
    """
    subject = f"model {model_id} may not be registered as {registered_name!r}"
    flags = f"--registered-name {shlex.quote(registered_name)} --model-digest {model_digest} --attach {model_id}"
    command = f"run `skewguard guard {flags}`"
    verdict = _counting(record, subject, command)
    if problem := _of_another(verdict, registered_name, model_id):
        raise Refused(f"{subject}: {problem}; {command}")
    if verdict.ruling is not Ruling.PASS:
        raise Refused(f"{subject}: its verdict is {verdict.ruling}{_because(verdict)}; mend that, then {command}")
    if problem := _changed(verdict, model_digest) or _stale(verdict, policy, now):
        raise Refused(f"{subject}: {problem}; {command}")
    return verdict


def admit_to_load(record: Record | None, *, registered_name: str, model_id: str, model_digest: str) -> Verdict:
    """The verdict by which this model was admitted to this name; raises `Refused`.

    As `admit`, without asking for today's policy and for the expiry: those are for new decisions, and what serves
    must not stop at midnight.
    """
    subject = f"model {model_id} may not be loaded as {registered_name!r}"
    hint = "register it through the gate"
    verdict = _counting(record, subject, hint)
    problem = _of_another(verdict, registered_name, model_id)
    if not problem and verdict.ruling is not Ruling.PASS:
        problem = f"its verdict is {verdict.ruling}{_because(verdict)}"
    if problem := problem or _changed(verdict, model_digest):
        raise Refused(f"{subject}: {problem}; {hint}")
    return verdict


def may_promote(verdict: Verdict, policy: Policy) -> None:
    """Raise `Refused` unless the admitted model may get an alias or a stage by the kind of its evidence."""
    kinds = verdict.subject.evidence.split(", ")
    if not set(kinds) & set(policy.promotion):
        raise Refused(
            f"model {verdict.subject.model_id} may bear the name {verdict.subject.registered_name!r} but no alias or "
            f"stage: its evidence is {', '.join(kinds)}, policy.promotion asks for {' or '.join(policy.promotion)}; "
            "guard it on such a log, or let the policy say otherwise"
        )
    missing = verdict.coverage.scope.unpromoted
    if missing.count:
        raise Refused(
            f"model {verdict.subject.model_id} may bear the name {verdict.subject.registered_name!r} but no alias or "
            f"stage: of {missing.count:,} of its {verdict.coverage.scope.features:,} features there is too little "
            f"{' or '.join(policy.promotion)} evidence ({missing}), and policy.promotion asks for it; "
            "guard it on such a log, or let the policy say otherwise"
        )


def _counting(record: Record | None, subject: str, command: str) -> Verdict:
    """The verdict in the record; raises `Refused` where there is none or it was revoked."""
    if record is None:
        raise Refused(f"{subject}: it has no verdict; {command}")
    if record.verdict is None:
        at = record.signed_at.isoformat(timespec="seconds")
        raise Refused(f"{subject}: its verdict was revoked at {at} ({record.reason}); {command}")
    return record.verdict


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
