"""A verdict as the value of a tag: what the gate needs of it, and the digest of the whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from skewguard.errors import EvidenceError
from skewguard.verdict import Verdict

VERDICT_TAG = "skewguard.verdict"
"""The logged model's tag that carries its newest verdict."""

LONGEST = 4900
"""Characters of a tag's value; MLflow's stores take 5,000 and more."""

_FORMAT = 1
_LONGEST_REASON = 300


def to_tag(verdict: Verdict) -> str:
    """Compact JSON of at most `LONGEST` characters: all that binds the verdict, reasons and builds cut.

    Findings are left out; `verdict` is the digest of the whole. Raises `EvidenceError` if even that is too long.
    """
    reasons = [" ".join(reason.split())[:_LONGEST_REASON] for reason in verdict.reasons]
    builds = [build[:64] for build in verdict.subject.builds]
    small = replace(verdict, findings=(), waived=(), coverage=replace(verdict.coverage, blind=()))
    while True:
        shown = replace(small, reasons=tuple(reasons), subject=replace(small.subject, builds=tuple(builds)))
        data = {"format": _FORMAT, "verdict": verdict.digest, **asdict(shown)}
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        if len(text) <= LONGEST:
            return text
        if len(reasons) > 1:
            reasons.pop()
        elif builds:
            builds.pop()
        else:
            raise EvidenceError(f"verdict on {verdict.subject.model_id}: {len(text)} characters do not fit a tag")


def from_tag(text: str) -> Verdict:
    """The verdict that `to_tag` wrote, without findings. Raises `EvidenceError` for anything else."""
    try:
        data: Mapping[str, Any] = json.loads(text)
        if data["format"] != _FORMAT:
            raise EvidenceError(f"expected a verdict of format {_FORMAT}, got {data['format']!r}")
        verdict = Verdict.from_json(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EvidenceError(f"expected a verdict's JSON, got {text[:80]!r}") from error
    about = verdict.subject
    texts = [about.registered_name, about.model_id, about.model_digest, *verdict.reasons]
    texts += [verdict.policy_digest, verdict.issued_at, verdict.expires_at]
    if not all(isinstance(text, str) for text in texts):
        raise EvidenceError(f"expected a verdict's texts, got {texts!r}")
    return verdict
