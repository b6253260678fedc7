from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from skewguard.gate import Refused, admit, admit_to_load, may_promote
from skewguard.policy import Policy
from skewguard.verdict import Ruling, Verdict
from tests.gate.verdicts import about, passing, recorded

NAME, MODEL, DIGEST = "flight-delay", "m-" + "1" * 32, "d" * 64
POLICY = Policy(governs=("flight-*",), digest="c" * 64)
GOOD = passing(NAME, MODEL, DIGEST, POLICY.digest)


def _admit(verdict: Verdict | None, **changes: Any) -> None:
    asked = {"registered_name": NAME, "model_id": MODEL, "model_digest": DIGEST, "policy": POLICY}
    admit(recorded(verdict) if verdict else None, **{**asked, "now": datetime.now(UTC), **changes})


def test_a_passing_verdict_about_this_model_admits_it() -> None:
    """Nothing is raised when everything fits."""
    _admit(GOOD)


@pytest.mark.parametrize(
    ("verdict", "says"),
    [
        (None, "it has no verdict; run `skewguard guard"),
        (about(GOOD, model_id="m-" + "2" * 32), "its verdict is about another model, m-2"),
        (about(GOOD, registered_name="other"), "its verdict is for the name 'other'"),
        (about(GOOD, model_digest="e" * 64), "its files have changed since it was judged"),
        (replace(GOOD, ruling=Ruling.FAIL, reasons=("wind\nis in km/h", "b")), "FAIL (wind is in km/h, and 1"),
        (replace(GOOD, ruling=Ruling.UNKNOWN, reasons=()), "its verdict is UNKNOWN; mend that"),
        (replace(GOOD, policy_digest="f" * 64), "given under another policy (ffffffffffff, now cccccccccccc)"),
        (passing(NAME, MODEL, DIGEST, POLICY.digest, age=timedelta(days=8)), "its verdict expired at 2"),
        (passing(NAME, MODEL, DIGEST, POLICY.digest, age=timedelta(hours=-1)), "issued in the future"),
        (replace(GOOD, expires_at="tomorrow"), "its verdict has no readable times"),
        (replace(GOOD, expires_at="2999-01-01T00:00:00"), "its verdict has no readable times"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_anything_else_is_refused_in_one_sentence_with_the_command_that_helps(
    verdict: Verdict | None, says: str
) -> None:
    """The sentence names model, name, what is wrong, and what to run; it has one line."""
    with pytest.raises(Refused) as refusal:
        _admit(verdict)
    sentence = str(refusal.value)
    assert sentence.startswith(f"model {MODEL} may not be registered as 'flight-delay': ")
    assert says in sentence
    assert f"run `skewguard guard --registered-name flight-delay --model-digest {DIGEST} --attach {MODEL}`" in sentence
    assert "\n" not in sentence


def test_a_verdict_lasts_no_longer_than_the_policy_says() -> None:
    """A later expiry written into the verdict does not stretch the policy's."""
    aged = passing(NAME, MODEL, DIGEST, POLICY.digest, age=timedelta(days=8), lasts=timedelta(days=365))
    with pytest.raises(Refused, match="expired"):
        _admit(aged)


def test_what_is_empty_is_not_equal() -> None:
    """A verdict without ids and digests does not fit a model or policy without them."""
    blank = about(replace(GOOD, policy_digest=""), model_id="", model_digest="")
    with pytest.raises(Refused, match="another model, none"):
        _admit(blank, model_id="")
    with pytest.raises(Refused, match="none then, none now"):
        _admit(about(GOOD, model_digest=""), model_digest="")
    with pytest.raises(Refused, match="another policy"):
        _admit(replace(GOOD, policy_digest=""), policy=Policy(governs=("*",)))


def test_a_revoked_verdict_admits_nobody() -> None:
    """What was taken back is refused, with when and why, at the gate and at load."""
    revoked = replace(
        recorded(GOOD), verdict=None, reason="labels were wrong", signed_at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    asked = {"registered_name": NAME, "model_id": MODEL, "model_digest": DIGEST}
    says = r"its verdict was revoked at 2026-01-01T00:00:00\+00:00 \(labels were wrong\)"
    with pytest.raises(Refused, match=says):
        admit(revoked, **asked, policy=POLICY, now=datetime.now(UTC))
    with pytest.raises(Refused, match=says):
        admit_to_load(revoked, **asked)


def test_loading_asks_for_the_same_files_and_not_for_the_time() -> None:
    """What was admitted loads after its verdict expired, and not when a file has changed or the name is another."""
    old = recorded(passing(NAME, MODEL, DIGEST, "another policy", age=timedelta(days=400)))
    asked = {"registered_name": NAME, "model_id": MODEL, "model_digest": DIGEST}
    assert admit_to_load(old, **asked) is old.verdict
    for change, says in (
        ({"model_digest": "e" * 64}, "its files have changed"),
        ({"registered_name": "other"}, "its verdict is for the name 'flight-delay'"),
        ({"model_id": "m-2"}, "its verdict is about another model"),
    ):
        with pytest.raises(Refused, match=f"may not be loaded as .*{says}"):
            admit_to_load(old, **{**asked, **change})
    failed = recorded(replace(GOOD, ruling=Ruling.FAIL, reasons=("wind",)))
    with pytest.raises(Refused, match=r"its verdict is FAIL \(wind\)"):
        admit_to_load(failed, **asked)


def test_shadow_evidence_registers_and_promotes_only_where_the_policy_says_so() -> None:
    """An alias asks for one of the policy's kinds of evidence; production alone, unless it says otherwise."""
    with pytest.raises(
        Refused, match=r"no alias or stage: its evidence is shadow, policy\.promotion asks for production"
    ):
        may_promote(GOOD, POLICY)
    may_promote(GOOD, replace(POLICY, promotion=("production", "shadow")))
    may_promote(about(GOOD, evidence="production, shadow"), POLICY)
