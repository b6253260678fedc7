"""What travels with a logged model: a signed verdict, or the signed revocation of one. Small enough for a tag."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from skewguard.errors import EvidenceError
from skewguard.gate.envelope import seal, unseal
from skewguard.gate.keys import SigningKey, Trust
from skewguard.verdict import Coverage, Names, Verdict
from skewguard.verdict.coverage import NAMED

VERDICT_TAG = "skewguard.verdict"
"""The tag of a registered version that carries the record by which it was admitted."""

LONGEST = 4900
"""Characters of a tag's value; MLflow's stores take 5,000 and more."""

_FORMAT = 2
_LONGEST_REASON = 300
_FEW_NAMES = 3


@dataclass(frozen=True, slots=True)
class Record:
    """A signed record whose signature was right. `verdict` is None in a revocation, whose `reason` says why.

    `text` is the envelope, `digest` its sha256 (hex), `key_id` who signed it, `signed_at` when (UTC, microseconds).
    """

    registered_name: str
    model_id: str
    signed_at: datetime
    verdict: Verdict | None
    reason: str
    key_id: str
    text: str

    @property
    def digest(self) -> str:
        """sha256 (hex) of the envelope."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def tag_of(registered_name: str) -> str:
    """The tag of a logged model that carries its newest verdict for that name. Names may hold what tags may not."""
    return f"{VERDICT_TAG}.{hashlib.sha256(registered_name.encode()).hexdigest()[:16]}"


def revocation_tag_of(registered_name: str) -> str:
    """The tag of a logged model that says that its verdict for that name was taken back."""
    return tag_of(registered_name).replace(VERDICT_TAG, "skewguard.revoked")


def sign_verdict(verdict: Verdict, key: SigningKey) -> str:
    """The verdict as an envelope of at most `LONGEST` characters: all that binds it; reasons, builds and the names of
    features without evidence cut.

    Findings, drift, notes and the rows of each feature are left out: of these stand how many features lack evidence,
    the first of them, and a digest. `verdict` is the digest of the whole. Raises `EvidenceError` if even that is too
    long.
    """
    reasons = [" ".join(reason.split())[:_LONGEST_REASON] for reason in verdict.reasons]
    builds = [build[:64] for build in verdict.subject.builds]
    small = replace(verdict, findings=(), waived=(), quiet=(), advice="", notes=())
    names = NAMED
    while True:
        shown = replace(
            small,
            reasons=tuple(reasons),
            subject=replace(small.subject, builds=tuple(builds)),
            coverage=_bounded(verdict.coverage, names),
        )
        text = seal(_canonical({"kind": "verdict", "verdict": verdict.digest, **asdict(shown)}), key)
        if len(text) <= LONGEST:
            return text
        if names > _FEW_NAMES:
            names -= 1
        elif len(reasons) > 1:
            reasons.pop()
        elif builds:
            builds.pop()
        elif names:
            names -= 1
        else:
            raise EvidenceError(f"verdict on {verdict.subject.model_id}: {len(text)} characters do not fit a tag")


def _bounded(coverage: Coverage, names: int) -> Coverage:
    """The coverage without what grows with the features, but for the first names of those that lack evidence."""

    def few(all_names: Names) -> Names:
        return Names(all_names.count, all_names.first[:names])

    scope = replace(coverage.scope, uncovered=few(coverage.scope.uncovered), unpromoted=few(coverage.scope.unpromoted))
    return replace(coverage, blind=(), features=(), truth=coverage.truth[:_LONGEST_REASON], scope=scope)


def sign_revocation(model_id: str, registered_name: str, reason: str, key: SigningKey) -> str:
    """The statement that no earlier verdict on the model for that name counts any more."""
    about = {"model_id": model_id, "registered_name": registered_name}
    return seal(_canonical({"kind": "revocation", "subject": about, "reason": reason}), key)


def read_record(text: str, trust: Trust) -> Record:
    """The record in an envelope. Raises `EvidenceError` for another text, signature, key or format."""
    payload, key_id = unseal(text, trust)
    try:
        data: Mapping[str, Any] = json.loads(payload)
        if data["format"] != _FORMAT:
            raise EvidenceError(f"expected a record of format {_FORMAT}, got {data['format']!r}")
        verdict = Verdict.from_json(data) if data["kind"] == "verdict" else None
        about = data["subject"]
        signed_at = datetime.fromisoformat(data["signed_at"]).astimezone(UTC)
        record = Record(
            about["registered_name"],
            about["model_id"],
            signed_at,
            verdict,
            data.get("reason", ""),
            key_id,
            text,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EvidenceError(f"expected a verdict or a revocation, got {payload[:80]!r}") from error
    return record


def _canonical(data: Mapping[str, Any]) -> bytes:
    signed_at = datetime.now(UTC).isoformat(timespec="microseconds")
    data = {"format": _FORMAT, "signed_at": signed_at, **data}
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
