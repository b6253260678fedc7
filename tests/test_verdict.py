import json
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from skewguard.findings import DOUBTS, Example, Finding, Kind, Shift, Tap
from skewguard.policy import Policy, Waiver
from skewguard.verdict import Coverage, Ruling, Subject, Verdict, finding_from_json, judge

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
POLICY = Policy(governs=("delay",), minimum_rows=100, maximum_unverifiable=0.01, digest="d" * 64)
SEEN = Coverage(rows=1000, equal=990, lagged=10, values=9000)
SUBJECT = Subject("delay", "m-1", "a" * 64, "s" * 64, "b" * 64, "delay", "shadow", ("A", "B"))
WIND = Finding(
    Kind.MISMATCH, "weather__wind", 12, 1000, "weather__wind: 12 of 1,000 values differ", Tap.STORE,
    "served = truth x 1.609", "unit", 1.0, ("only build B",),
    (Example("r1", "2024-03-04T10:00:00Z", "origin JFK", "16.1", "10.0"),), (("2024-03-04T10:00:00Z", 60, 12),),
)  # fmt: skip
YEAR = Finding(Kind.EXPECTATION, "plane__year", 70, 3322, "plane.year: 70 of 3,322 are null")
WAIVER = Waiver(Kind.EXPECTATION, "plane__year", "the owner knows", date(2026, 11, 21))


def _judge(*findings: Finding, policy: Policy = POLICY, coverage: Coverage = SEEN, **more: Any) -> Verdict:
    options: dict[str, Any] = {"now": NOW, "subject": SUBJECT} | more
    return judge(findings, coverage, options.pop("subject"), policy, **options)


# -- three values -----------------------------------------------------------------------------------------------------


def test_enough_evidence_without_a_finding_passes() -> None:
    """PASS is given for rows that were looked at, and says how many, and how many lagged."""
    verdict = _judge()
    assert verdict.ruling is Ruling.PASS
    assert verdict.reasons == ("1,000 rows replayed, 10 of them lagged within max_lag, none differs",)
    assert (verdict.findings, verdict.waived, verdict.policy_digest) == ((), (), "d" * 64)


def test_a_finding_beyond_its_limit_fails() -> None:
    """A single differing row is FAIL where the policy tolerates none, with the finding's message as the reason."""
    verdict = _judge(WIND)
    assert (verdict.ruling, verdict.reasons, verdict.findings) == (Ruling.FAIL, (WIND.message,), (WIND,))


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_fails_by_default(kind: Kind) -> None:
    """A kind of which the policy says nothing tolerates nothing; what cannot be compared is a doubt, not a failure."""
    expected = Ruling.UNKNOWN if kind in DOUBTS else Ruling.PASS if kind is Kind.PERFORMANCE else Ruling.FAIL
    assert _judge(replace(WIND, kind=kind, rows=1, of=10_000_000)).ruling is expected


def test_a_model_that_does_worse_is_a_note_unless_the_policy_names_performance() -> None:
    """A season moves a model as far as a fault does: told with what the replay says, judged where it is asked for."""
    worse = replace(WIND, kind=Kind.PERFORMANCE, feature="prediction", message="prediction: accuracy fell")
    verdict = _judge(worse)
    assert (verdict.ruling, verdict.findings) == (Ruling.PASS, ())
    assert "the replay is clean: the world moved" in verdict.notes[0]
    assert "do not retrain on broken data" in _judge(worse, WIND).notes[0]
    for policy in (
        replace(POLICY, requires=(Kind.PERFORMANCE,)),
        replace(POLICY, limits={Kind.PERFORMANCE: 0.01}),
    ):
        assert _judge(worse, policy=policy).reasons == (worse.message,)
    assert _judge(worse, policy=replace(POLICY, limits={Kind.PERFORMANCE: 0.02})).ruling is Ruling.PASS


@pytest.mark.parametrize(
    ("limit", "ruling"), [(0.0119, Ruling.FAIL), (0.012, Ruling.PASS), (0.5, Ruling.PASS), (0.0, Ruling.FAIL)]
)
def test_a_limit_is_a_share_of_rows_of_one_kind(limit: float, ruling: Ruling) -> None:
    """Up to its limit, inclusive, a kind is tolerated; other kinds are not."""
    policy = replace(POLICY, limits={Kind.MISMATCH: limit})
    assert _judge(WIND, policy=policy).ruling is ruling
    assert _judge(replace(WIND, kind=Kind.STALE), policy=policy).ruling is Ruling.FAIL


def test_a_tolerated_finding_stays_in_the_verdict_and_in_its_words() -> None:
    """What is within the limit is still shown, and a PASS does not say that none differs."""
    seen = replace(SEEN, equal=978, mismatched=12)
    verdict = _judge(WIND, policy=replace(POLICY, limits={Kind.MISMATCH: 0.1}), coverage=seen)
    assert (verdict.ruling, verdict.findings) == (Ruling.PASS, (WIND,))
    assert "12 differ, within the policy's limits" in verdict.reasons[0]


def test_a_finding_about_nothing_fails_whatever_the_limit() -> None:
    """A finding that could not say of how many rows it is has no share that could be tolerated."""
    policy = replace(POLICY, limits={Kind.EXPECTATION: 0.9, Kind.LOG: 0.9})
    assert _judge(Finding(Kind.EXPECTATION, "x", 0, 0, "no such column"), policy=policy).ruling is Ruling.FAIL
    assert _judge(Finding(Kind.LOG, "log", 0, 0, "the log is torn"), policy=policy).ruling is Ruling.UNKNOWN


# -- fail closed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coverage", "reason"),
    [
        (Coverage(), "0 rows were replayed, the policy wants 100"),
        (Coverage(rows=99, equal=99), "99 rows were replayed, the policy wants 100"),
        (Coverage(rows=1000, equal=989, unverifiable=11), "11 of 1,000 rows are unverifiable, the policy allows 1.00%"),
    ],
)
def test_too_little_evidence_is_unknown(coverage: Coverage, reason: str) -> None:
    """No rows, too few, or too many of which nothing can be known: never PASS."""
    verdict = _judge(coverage=coverage)
    assert verdict.ruling is Ruling.UNKNOWN
    assert reason in verdict.reasons


def test_the_edges_of_enough_are_inclusive() -> None:
    """Exactly the minimum of rows and exactly the maximum of unverifiable ones are enough."""
    assert _judge(coverage=Coverage(rows=100, equal=99, unverifiable=1)).ruling is Ruling.PASS


@pytest.mark.parametrize("evidence", ["probe", "none", "", "shadow, probe", "Shadow"])
def test_evidence_of_another_kind_is_unknown(evidence: str) -> None:
    """Every kind among the evidence must be one that the policy accepts."""
    verdict = _judge(subject=replace(SUBJECT, evidence=evidence))
    assert verdict.ruling is Ruling.UNKNOWN
    other = evidence.rpartition(", ")[2]
    assert verdict.reasons == (f"the evidence is of kind {other!r}, the policy accepts shadow, production",)


def test_evidence_of_several_accepted_kinds_is_accepted() -> None:
    """A log to which a shadow and production both wrote is as good as either."""
    assert _judge(subject=replace(SUBJECT, evidence="production, shadow")).ruling is Ruling.PASS


def test_what_could_not_be_examined_makes_a_pass_unknown() -> None:
    """'Could not be checked' is not 'broken', and it is never PASS."""
    verdict = _judge(unexamined=["a segment is damaged"])
    assert (verdict.ruling, verdict.reasons) == (Ruling.UNKNOWN, ("a segment is damaged",))


def test_a_failure_outweighs_a_doubt_and_both_are_told() -> None:
    """What is broken is FAIL, however little else was seen; the doubts stand behind it."""
    verdict = _judge(WIND, coverage=Coverage(rows=50, equal=38, mismatched=12), unexamined=["torn"])
    assert verdict.ruling is Ruling.FAIL
    assert verdict.reasons == (WIND.message, "torn", "50 rows were replayed, the policy wants 100")


# -- waivers ----------------------------------------------------------------------------------------------------------


def test_a_waived_finding_does_not_count_and_is_told() -> None:
    """Until the end of its day a waiver takes one kind of finding of one feature out of the ruling, visibly."""
    policy = replace(POLICY, waivers=(WAIVER,))
    verdict = _judge(YEAR, policy=policy, now=datetime(2026, 11, 21, 23, 59, 59, tzinfo=UTC))
    assert (verdict.ruling, verdict.findings, verdict.waived) == (Ruling.PASS, (), (YEAR,))
    assert f"waived until 2026-11-21, because the owner knows: {YEAR.message}" in verdict.reasons


@pytest.mark.parametrize("finding", [replace(YEAR, feature="plane__seats"), replace(YEAR, kind=Kind.CONTRACT)])
def test_a_waiver_covers_its_own_finding_only(finding: Finding) -> None:
    """Another feature, or the same feature with another kind of finding, is not waived."""
    verdict = _judge(YEAR, finding, policy=replace(POLICY, waivers=(WAIVER,)))
    assert (verdict.ruling, verdict.findings, verdict.waived) == (Ruling.FAIL, (finding,), (YEAR,))


def test_an_expired_waiver_fails_and_its_finding_counts_again() -> None:
    """The day after, in UTC whatever the clock's zone, the exception is over and says so."""
    policy = replace(POLICY, waivers=(WAIVER,))
    east = timezone(timedelta(hours=9))
    still = _judge(YEAR, policy=policy, now=datetime(2026, 11, 22, 8, tzinfo=east))
    over = _judge(YEAR, policy=policy, now=datetime(2026, 11, 22, 9, tzinfo=east))
    assert still.ruling is Ruling.PASS
    assert over.ruling is Ruling.FAIL
    assert over.reasons == (YEAR.message, "waiver for expectation of plane__year expired on 2026-11-21")
    assert over.findings == (YEAR,)


def test_an_unused_waiver_fails() -> None:
    """An exception that nothing needs any more must go."""
    verdict = _judge(policy=replace(POLICY, waivers=(WAIVER,)))
    assert verdict.ruling is Ruling.FAIL
    assert verdict.reasons == ("waiver for expectation of plane__year is unused; take it out",)


def test_where_not_everything_was_examined_no_waiver_is_called_unused() -> None:
    """An empty log says nothing about what a waiver is for: UNKNOWN, not FAIL."""
    verdict = _judge(policy=replace(POLICY, waivers=(WAIVER,)), coverage=Coverage(), unexamined=["the log is empty"])
    assert verdict.ruling is Ruling.UNKNOWN
    assert verdict.reasons == ("the log is empty", "0 rows were replayed, the policy wants 100")


# -- the record -------------------------------------------------------------------------------------------------------


def test_a_verdict_survives_json() -> None:
    """What `to_json` writes, through text, `from_json` reads back as the same verdict with the same digest."""
    policy = replace(POLICY, waivers=(WAIVER,))
    for verdict in (_judge(), _judge(WIND, YEAR, policy=policy), _judge(coverage=Coverage(blind=("labels",)))):
        again = Verdict.from_json(json.loads(json.dumps(verdict.to_json(), allow_nan=False)))
        assert again == verdict
        assert again.digest == verdict.digest
    assert finding_from_json(json.loads(json.dumps(asdict(WIND)))) == WIND


def test_the_digest_covers_every_field() -> None:
    """Another ruling, reason, subject, row count, finding or time is another digest."""
    verdict = _judge(WIND)
    others = [
        replace(verdict, ruling=Ruling.PASS),
        replace(verdict, reasons=()),
        replace(verdict, subject=replace(SUBJECT, model_digest="c" * 64)),
        replace(verdict, coverage=replace(SEEN, lagged=11)),
        replace(verdict, findings=(replace(WIND, rows=13),)),
        replace(verdict, waived=(YEAR,)),
        replace(verdict, policy_digest="e" * 64),
        replace(verdict, issued_at="2026-11-21T12:00:01+00:00"),
        replace(verdict, expires_at="2027-11-21T12:00:01+00:00"),
    ]
    assert len({one.digest for one in (verdict, *others)}) == 10


def test_a_verdict_expires_when_the_policy_says() -> None:
    """Its instants are UTC whatever the clock's zone, and whole seconds."""
    east = datetime(2026, 11, 21, 21, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=9)))
    verdict = _judge(now=east, policy=replace(POLICY, valid_for_us=90_000_000))
    assert (verdict.issued_at, verdict.expires_at) == ("2026-11-21T12:00:00+00:00", "2026-11-21T12:01:30+00:00")


# -- what was looked for, chance, and the quiet channel ----------------------------------------------------------------


def test_a_waiver_of_a_kind_that_nobody_looked_for_is_not_unused() -> None:
    """Without findings of expectations their waivers are neither used nor rotten."""
    policy = replace(POLICY, waivers=(WAIVER,))
    looked = replace(SEEN, checked=(Kind.MISMATCH,))
    assert _judge(policy=policy, coverage=looked).ruling is Ruling.PASS
    thorough = replace(SEEN, checked=(Kind.MISMATCH, Kind.EXPECTATION))
    assert _judge(policy=policy, coverage=thorough).ruling is Ruling.FAIL
    gone = Finding(Kind.LOG, "delay", 0, 0, "the log is torn")
    assert _judge(gone, policy=policy, coverage=thorough).ruling is Ruling.UNKNOWN


def test_what_the_policy_requires_must_have_been_looked_for() -> None:
    """A kind that is required and was not looked for makes the verdict UNKNOWN, and is named."""
    policy = replace(POLICY, requires=(Kind.EXPECTATION,))
    verdict = _judge(policy=policy, coverage=replace(SEEN, checked=(Kind.MISMATCH,)))
    assert verdict.ruling is Ruling.UNKNOWN
    assert verdict.reasons == ("the policy requires findings of kind expectation, and none were looked for",)
    both = replace(SEEN, checked=(Kind.MISMATCH, Kind.EXPECTATION))
    assert _judge(policy=policy, coverage=both).ruling is Ruling.PASS


def test_with_a_benign_rate_a_finding_must_stand_against_chance() -> None:
    """Evidence is judged among all features that were tested, and an effect may be too small to matter."""
    benign = replace(WIND, benign=0.01)
    assert _judge(replace(benign, evidence=1.0)).ruling is Ruling.PASS
    assert _judge(replace(benign, evidence=1.5)).ruling is Ruling.FAIL
    many = replace(SEEN, tested=100)
    assert _judge(replace(benign, evidence=1.5), coverage=many).ruling is Ruling.PASS
    assert _judge(replace(benign, evidence=3.5), coverage=many).ruling is Ruling.FAIL
    large = replace(POLICY, minimum_effect=0.005)
    assert _judge(replace(benign, evidence=9.0), policy=large).ruling is Ruling.PASS  # 1.2 % of 1 % benign


MOVED = Shift("weather__temp", 0.4, 0.3, "mean 50, now 30")


@pytest.mark.parametrize(
    ("findings", "quiet", "advice"),
    [
        ((), (), "The pipeline is sound, and the inputs look as in training."),
        ((), (MOVED,), "The pipeline is sound, the inputs moved: what was served is what training would have seen."),
        ((), None, "Whether the inputs moved is not known"),
        ((WIND,), None, "The pipeline broke: mend it first. Whether the inputs moved is not known"),
        ((WIND,), (), "The pipeline broke, the world did not change"),
        ((WIND,), (MOVED,), "The pipeline broke, and the inputs moved"),
    ],
)
def test_drift_decides_nothing_and_gives_advice(
    findings: tuple[Finding, ...], quiet: tuple[Shift, ...] | None, advice: str
) -> None:
    """Pipeline broke or world changed, both or neither: the ruling follows from the findings alone."""
    verdict = _judge(*findings, quiet=quiet, notes=["accuracy 87 %"])
    assert verdict.ruling is (Ruling.FAIL if findings else Ruling.PASS)
    assert verdict.reasons == _judge(*findings).reasons
    assert verdict.advice.startswith(advice)
    assert ("Do not retrain" in verdict.advice) is bool(findings and quiet)
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict
