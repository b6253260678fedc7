from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from skewguard.errors import EvidenceError
from skewguard.findings import Finding, Kind
from skewguard.gate import Refused, admit, from_tag, to_tag
from skewguard.policy import Policy
from skewguard.verdict import Ruling, Verdict
from tests.gate.verdicts import about, passing

NAME, MODEL, DIGEST = "flight-delay", "m-" + "1" * 32, "d" * 64
POLICY = Policy(governs=("flight-*",), digest="c" * 64)
GOOD = passing(NAME, MODEL, DIGEST, POLICY.digest)


def _admit(verdict: Verdict | None, **changes: Any) -> None:
    asked = {"registered_name": NAME, "model_id": MODEL, "model_digest": DIGEST, "policy": POLICY}
    admit(verdict, **{**asked, "now": datetime.now(UTC), **changes})


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


def test_a_verdict_survives_its_tag() -> None:
    """All that admission asks for is in the tag, and the digest of the whole verdict."""
    finding = Finding(Kind.MISMATCH, "wind", 4, 2000, "wind: 4 of 2,000 rows")
    whole = replace(GOOD, findings=(finding,), waived=(finding,))
    text = to_tag(whole)
    assert from_tag(text) == replace(GOOD, coverage=replace(GOOD.coverage, blind=()))
    assert whole.digest in text
    _admit(from_tag(text))


def test_a_tag_stays_within_what_mlflow_stores() -> None:
    """Reasons and builds are cut; what binds the verdict is not."""
    wordy = replace(GOOD, reasons=tuple(f"reason {i} " + '"é\n' * 400 for i in range(50)))
    wordy = replace(wordy, subject=replace(wordy.subject, builds=tuple("x" * 400 for _ in range(200))))
    text = to_tag(wordy)
    assert len(text) < 5000
    back = from_tag(text)
    assert back.reasons[0].startswith("reason 0")
    assert replace(back.subject, builds=()) == replace(GOOD.subject, builds=())
    with pytest.raises(EvidenceError, match="do not fit a tag"):
        to_tag(about(GOOD, registered_name="x" * 5000))


@pytest.mark.parametrize("text", ["", "PASS", "[]", "{}", '{"format":2}', "null", to_tag(GOOD).replace("PASS", "FINE")])
def test_a_damaged_tag_is_no_verdict(text: str) -> None:
    """What cannot be read as a verdict is an error, never a pass."""
    with pytest.raises(EvidenceError, match="expected a verdict"):
        from_tag(text)


def test_a_tag_with_another_type_inside_is_no_verdict() -> None:
    """A number where a digest belongs is refused before anything compares it."""
    with pytest.raises(EvidenceError, match="expected a verdict's texts"):
        from_tag(to_tag(GOOD).replace(f'"{DIGEST}"', "1"))
