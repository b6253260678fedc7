"""What a difference does to the predictions, and a policy that judges by it."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skewguard.causes.impact import measure
from skewguard.compare import compare
from skewguard.errors import PolicyError
from skewguard.findings import Finding, Impact, Kind, Observed, Tap
from skewguard.model import Model
from skewguard.policy import Policy, load_policy
from skewguard.replay import Pairs
from skewguard.report.wording import effect
from skewguard.values import Array, Column, Mask
from skewguard.verdict import Coverage, Ruling, Subject, Verdict, judge
from tests.loop import POLICY, Fault, Loop, Store, changed, respoken

WIND = "weather__wind"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def clean(loop: Loop) -> Pairs:
    """The clean day, replayed."""
    return loop.pairs()


def _model(pairs: Pairs, feature: str, score: Callable[[Array], Array]) -> Model:
    """A model that looks at one feature."""
    place = pairs.bundle.vector.index(feature)

    def predict(matrix: Array) -> Array:
        return np.asarray(score(np.nan_to_num(matrix[:, place])), dtype=np.float64)

    return Model("d" * 64, "m-1", len(pairs.bundle.vector), None, predict)


def _faster(pairs: Pairs) -> tuple[Pairs, Mask]:
    """Wind served in km/h wherever there is any."""
    rows = pairs.served.feature(pairs.bundle, WIND).present
    return respoken(pairs, WIND, lambda c: Column.build(c.dtype, c.values * 1.609344, c.status), rows), rows


def _about(pairs: Pairs, feature: str = WIND) -> list[Observed]:
    return [one for one in compare(pairs).observed if one.finding.feature == feature]


def test_decisions_that_turn_are_counted_as_by_hand(clean: Pairs) -> None:
    """Every row behind the finding is scored with what was served and with the truth."""
    pairs, rows = _faster(clean)
    model = _model(pairs, WIND, lambda wind: 1 / (1 + np.exp(15 - wind)))
    impact = measure(_about(pairs), pairs, model, 0.5)
    sides = (pairs.served, pairs.truth)
    before, after = (1 / (1 + np.exp(15 - side.feature(clean.bundle, WIND).values[rows])) for side in sides)
    assert impact is not None
    assert (impact.rows, impact.flips) == (rows.sum(), ((before >= 0.5) != (after >= 0.5)).sum())
    assert 0 < impact.flips < impact.rows
    assert impact.mean_delta == pytest.approx(np.abs(before - after).mean())
    assert impact.greatest_delta == pytest.approx(np.abs(before - after).max())


def test_a_feature_that_the_model_does_not_use_moves_nothing(clean: Pairs) -> None:
    """Wrong in every row, and without any effect."""
    pairs, rows = _faster(clean)
    model = _model(pairs, "plane__seats", lambda seats: seats / 300)
    assert measure(_about(pairs), pairs, model, 0.5) == Impact(int(rows.sum()), 0, 0, 0.0, 0.0, 0.5)


def test_what_is_computed_from_a_wrong_feature_counts_with_it(clean: Pairs) -> None:
    """A model that sees only the ratio of gust and wind is moved by the wind."""
    pairs, _ = _faster(clean)
    model = _model(pairs, "derived__gust_ratio", lambda ratio: np.clip(ratio / 3, 0, 1))
    impact = measure(_about(pairs), pairs, model, 0.5)
    assert impact is not None
    assert impact.moved > 0


def test_the_loss_is_told_where_outcomes_are_known(clean: Pairs) -> None:
    """Log loss of both sides over the rows that moved and whose outcome is known."""
    pairs, rows = _faster(clean)
    model = _model(pairs, WIND, lambda wind: 1 / (1 + np.exp(15 - wind)))
    truth = clean.served.feature(clean.bundle, WIND).values
    outcomes = np.where(rows, (truth > 15).astype(np.float64), np.nan)
    impact = measure(_about(pairs), pairs, model, 0.5, outcomes)
    assert impact is not None
    assert impact.labelled == rows.sum()
    assert impact.loss_served > impact.loss_truth > 0
    assert measure(_about(pairs), pairs, model, 0.5, np.full(len(pairs), np.nan)) == measure(
        _about(pairs), pairs, model, 0.5
    )


def test_what_is_not_about_what_was_served_has_no_impact(clean: Pairs) -> None:
    """A leak of the snapshot or a broken contract is judged by itself."""
    finding = Finding(Kind.CONTRACT, WIND, 3, 180, "so")
    rows = np.ones(len(clean), dtype=bool)
    assert measure([Observed(finding, rows)], clean, _model(clean, WIND, lambda x: x), 0.5) is None


@pytest.mark.parametrize(
    ("impact", "words"),
    [
        (None, ""),
        (Impact(9, 0, 0, 0.0, 0.0, 0.5), "no prediction moves"),
        (
            Impact(900, 90, 1, 0.0123, 0.4, 0.5),
            "90 of 900 predictions move, by 0.0123 on average and 0.4 at most; 1 decision at 0.5 turns",
        ),
        (
            Impact(900, 90, 7, 0.01, 0.4, 0.25, 80, 0.51, 0.42),
            (
                "90 of 900 predictions move, by 0.01 on average and 0.4 at most; 7 decisions at 0.25 turn; "
                "log loss 0.510 instead of 0.420 on 80 outcomes"
            ),
        ),
    ],
)
def test_the_effect_is_told_in_words(impact: Impact | None, words: str) -> None:
    """As it stands in a report."""
    assert effect(impact) == words


# -- judged by --------------------------------------------------------------------------------------------------------

BY_DECISIONS = replace(POLICY, flips=0.005)
SEEN = Coverage(rows=1000, mismatched=1000)
SUBJECT = Subject("delay-model")


def _found(flips: int, rows: int = 1000, kind: Kind = Kind.MISMATCH) -> Finding:
    impact = Impact(rows, flips, flips, 0.01, 0.4, 0.5)
    return Finding(kind, f"f{flips}", rows, 1000, f"f{flips}: {rows} of 1,000", Tap.STORE, impact=impact)


def _judged(*findings: Finding, policy: Policy = BY_DECISIONS, **more: Any) -> Verdict:
    return judge(findings, SEEN, SUBJECT, policy, now=NOW, **more)


def test_an_unused_feature_that_is_always_wrong_is_a_warning() -> None:
    """It stays in the verdict and is no reason to refuse, unless rows decide."""
    verdict = _judged(_found(0))
    assert (verdict.ruling, len(verdict.findings)) == (Ruling.PASS, 1)
    assert _judged(_found(0), policy=POLICY).ruling is Ruling.FAIL


@pytest.mark.parametrize(("flips", "ruling"), [(4, Ruling.PASS), (5, Ruling.FAIL), (900, Ruling.FAIL)])
def test_half_a_percent_of_turned_decisions_is_a_failure(flips: int, ruling: Ruling) -> None:
    """From the share on that the policy names, of all decisions; even within the limit of its kind."""
    lenient = replace(BY_DECISIONS, limits={Kind.MISMATCH: 0.99})
    assert _judged(_found(flips)).ruling is ruling
    assert _judged(_found(flips, rows=900), policy=lenient).ruling is ruling


def test_small_effects_that_add_up_are_a_failure() -> None:
    """Two findings, each below the share, above it together."""
    together = Impact(1000, 6, 6, 0.01, 0.4, 0.5)
    verdict = _judged(_found(3), _found(4), impact=together)
    assert verdict.ruling is Ruling.FAIL
    assert verdict.reasons[0].startswith("0.60% of all decisions are others than the truth's")
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


def test_what_was_not_measured_is_judged_by_rows() -> None:
    """Without a model at hand nothing is excused."""
    assert _judged(replace(_found(0), impact=None)).ruling is Ruling.FAIL


def test_a_policy_file_says_from_where_on(tmp_path: Path) -> None:
    """[impact] names the share and the score; what it does not mean is a complaint."""
    path = tmp_path / "policy.toml"
    path.write_text('[policy]\ngoverns = ["a"]\n[impact]\nflips = 0.005\nthreshold = 0.3\n')
    policy = load_policy(path)
    assert (policy.flips, policy.threshold) == (0.005, 0.3)
    for text, complaint in (
        ("flips = 0", "expected a share of decisions in (0, 1], got 0"),
        ("flips = true", "got True"),
        ("threshold = 0.3", "flips: missing"),
        ('flips = 0.1\nthreshold = "x"', "expected a score such as 0.5, got 'x'"),
        ("flips = 0.1\nloss = 3", "loss: unknown setting"),
    ):
        path.write_text(f'[policy]\ngoverns = ["a"]\n[impact]\n{text}\n')
        with pytest.raises(PolicyError, match="impact") as error:
            load_policy(path)
        assert complaint in str(error.value)


def test_the_guard_measures_with_the_model_that_it_is_given(loop: Loop, tmp_path: Path) -> None:
    """One day with wind in km/h: the finding and the verdict say what that did; without the model, nothing."""

    def faster(column: Column) -> Column:
        return Column.build(column.dtype, column.values * 1.609344, column.status)

    fault = Fault(store=lambda store, bundle: Store(store, changed(bundle.view("weather"), "wind", faster)))
    log = loop.play(tmp_path, fault)
    verdict = loop.guard(log, model=loop.model).verdict
    (finding,) = [one for one in verdict.findings if one.feature == WIND]
    assert finding.impact is not None
    assert finding.impact.rows == finding.rows
    assert verdict.impact is not None
    assert loop.guard(log).verdict.impact is None
