from datetime import date
from pathlib import Path

import pytest

from skewguard import load_policy
from skewguard.errors import PolicyError
from skewguard.findings import Kind
from skewguard.policy import EVIDENCE, Waiver

KINDS = ", ".join(EVIDENCE)
WHOLE = """
[policy]
governs = ["flight-delay", "delay-*"]
evidence = ["production"]
minimum_rows = 5000
maximum_unverifiable = 0.001
verdict_valid_for = "36h"

[limits]
expectation = 0.01
mismatch = 0

[[waiver]]
kind = "expectation"
feature = "plane__year"
reason = "70 planes have no year; the owner knows"
expires = 2027-01-01
"""
BAD = """
policies = 1

[policy]
governs = []
evidence = ["shadow", "hearsay"]
minimum_rows = 0
maximum_unverifiable = 1.0
verdict_valid_for = "a week"
rows = 5

[limits]
mismatches = 0.1
mismatch = 1
stale = "none"
leak = nan

[[waiver]]
kind = "mismatch"
feature = "weather__wind"
reason = ""

[[waiver]]
kind = "drift"
feature = "weather__wind"
reason = "so be it"
expires = 2027-01-01T00:00:00Z

[[waiver]]
kind = "stale"
feature = "weather"
reason = "so be it"
expires = 2027-01-01
until = 2028-01-01
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text)
    return path


def test_a_policy_is_read_whole(tmp_path: Path) -> None:
    """Every setting of the file is in the policy, which is identified by the file's content."""
    path = _write(tmp_path, WHOLE)
    policy = load_policy(path)
    assert policy.governs == ("flight-delay", "delay-*")
    assert (policy.evidence, policy.minimum_rows, policy.maximum_unverifiable) == (("production",), 5000, 0.001)
    assert policy.valid_for_us == 36 * 3_600_000_000
    assert (policy.limit(Kind.EXPECTATION), policy.limit(Kind.MISMATCH), policy.limit(Kind.LEAK)) == (0.01, 0.0, 0.0)
    reason = "70 planes have no year; the owner knows"
    assert policy.waivers == (Waiver(Kind.EXPECTATION, "plane__year", reason, date(2027, 1, 1)),)
    assert len(policy.digest) == 64
    assert load_policy(_write(tmp_path, WHOLE + "# more\n")).digest != policy.digest


def test_a_policy_that_says_little_is_strict(tmp_path: Path) -> None:
    """Only the governed names are needed; what is not said tolerates nothing and wants a thousand rows."""
    policy = load_policy(_write(tmp_path, '[policy]\ngoverns = ["a"]\n'))
    assert (policy.minimum_rows, policy.maximum_unverifiable, policy.valid_for_us) == (1000, 0.01, 7 * 86_400_000_000)
    assert policy.evidence == ("shadow", "production")
    assert {policy.limit(kind) for kind in Kind} == {0.0}
    assert policy.waivers == ()


@pytest.mark.parametrize(
    ("name", "governed"),
    [("flight-delay", True), ("delay-2", True), ("Delay-2", False), ("flight-delay-2", False), ("", False)],
)
def test_names_are_governed_by_shell_patterns_case_and_all(tmp_path: Path, name: str, governed: bool) -> None:
    """A pattern matches the whole registered name, and MLflow's names differ by case."""
    assert load_policy(_write(tmp_path, WHOLE)).governs_model(name) is governed


def test_every_complaint_about_a_bad_policy_comes_at_once(tmp_path: Path) -> None:
    """Nobody mends a file one error at a time: each complaint names file and place, what was expected and what came."""
    path = _write(tmp_path, BAD)
    with pytest.raises(PolicyError) as raised:
        load_policy(path)
    kinds, came = ", ".join(Kind), "got 'drift' and 2027-01-01 00:00:00+00:00"
    assert [complaint.removeprefix(f"{path}: ") for complaint in raised.value.complaints] == [
        "policies: unknown section",
        "policy.governs: expected a list of at least one registered model name",
        "policy.evidence: 'hearsay' is none of shadow, production, probe",
        "policy.minimum_rows: expected at least 1, got 0: no evidence is never a PASS",
        "policy.maximum_unverifiable: expected a share of rows in [0, 1), got 1.0",
        "policy.verdict_valid_for: expected a duration such as 45s, 2m, 3h or 1d, got 'a week'",
        "policy.rows: unknown setting",
        f"limits.mismatches: no such kind of finding; there are {kinds}",
        "limits.mismatch: expected a share of rows in [0, 1), got 1",
        "limits.stale: expected a share of rows in [0, 1), got 'none'",
        "limits.leak: expected a share of rows in [0, 1), got nan",
        "waiver 1: reason, expires missing; a waiver says what, why and until when",
        f"waiver 2: expected kind to be one of {kinds} and expires a date such as 2027-01-01, {came}",
        "waiver 3: until: unknown setting",
    ]
    assert str(raised.value) == "\n".join(raised.value.complaints)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        (
            'requires = ["wonder"]',
            "policy.requires: 'wonder' is no kind of finding; there are " + ", ".join(Kind),
        ),
        (
            "false_alarm_rate = 0.0",
            "policy: expected false_alarm_rate in (0, 0.5] and minimum_effect in [0, 1), got 0.0, 0.0",
        ),
        (
            "minimum_effect = 1.0",
            "policy: expected false_alarm_rate in (0, 0.5] and minimum_effect in [0, 1), got 0.05, 1.0",
        ),
        ("minimum_rows = 1.5", "policy.minimum_rows: expected a whole number, got 1.5"),
        ("minimum_rows = true", "policy.minimum_rows: expected a whole number, got True"),
        ('maximum_unverifiable = "1 %"', "policy.maximum_unverifiable: expected a number, got '1 %'"),
        ("maximum_unverifiable = nan", "policy.maximum_unverifiable: expected a share of rows in [0, 1), got nan"),
        ("maximum_unverifiable = -0.1", "policy.maximum_unverifiable: expected a share of rows in [0, 1), got -0.1"),
        ("verdict_valid_for = 7", "policy.verdict_valid_for: expected a duration such as 7d, got 7"),
        ('evidence = "shadow"', "policy.evidence: expected a list, got 'shadow'"),
        ("evidence = []", f"policy.evidence: expected at least one of {KINDS}: else nothing ever passes"),
        ("evidence = [1]", "policy.evidence: 1 is none of shadow, production, probe"),
    ],
)
def test_a_setting_of_another_type_is_told_in_words(tmp_path: Path, setting: str, complaint: str) -> None:
    """What was expected is said as a person would, not as a Python type."""
    path = _write(tmp_path, f'[policy]\ngoverns = ["a"]\n{setting}\n')
    with pytest.raises(PolicyError) as raised:
        load_policy(path)
    assert raised.value.complaints == [f"{path}: {complaint}"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("policy = 1\n", "policy: expected a section [policy]"),
        ('[policy]\ngoverns = ["a"]\n[waiver]\nkind = "stale"\n', "waiver: expected [[waiver]] sections"),
        ('waiver = [3]\n[policy]\ngoverns = ["a"]\n', "waiver 1: expected a section [[waiver]], got 3"),
        ('limits = 0.1\n[policy]\ngoverns = ["a"]\n', "limits: expected a section [limits]"),
        ('[policy]\ngoverns = "flight-delay"\n', "policy.governs: expected a list, got 'flight-delay'"),
        ("", "policy.governs: expected a list of at least one registered model name"),
    ],
)
def test_a_section_of_another_shape_is_told(tmp_path: Path, text: str, complaint: str) -> None:
    """A section that is a value, or a table in place of a list, is a complaint and no traceback."""
    path = _write(tmp_path, text)
    with pytest.raises(PolicyError) as raised:
        load_policy(path)
    assert f"{path}: {complaint}" in raised.value.complaints


@pytest.mark.parametrize("text", [b"[policy\n", b"\xff\xfe", None])
def test_a_policy_that_cannot_be_read_names_its_file(tmp_path: Path, text: bytes | None) -> None:
    """No TOML, no UTF-8, no file: a policy error with the path, for there is no policy to go by."""
    path = tmp_path / "policy.toml"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(PolicyError, match=f"^policy {path}: "):
        load_policy(path)


def test_the_examples_own_policy_is_sound() -> None:
    """The policy that the demo is judged by can be read, governs its model, and tolerates no mismatch."""
    policy = load_policy(Path(__file__).resolve().parents[1] / "feature_repo" / "policy.toml")
    assert policy.governs_model("flight-delay")
    assert policy.limit(Kind.MISMATCH) == policy.limit(Kind.STALE) == policy.limit(Kind.LEAK) == 0
