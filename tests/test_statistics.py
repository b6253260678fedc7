import math
from collections.abc import Iterator

import numpy as np
import pytest

from skewguard.statistics import CAP, distance_floor, e_bh, log10_e, lower_bound, path_log10_e

BENIGN = 0.001
ALARM = math.log10(1 / 0.05)


def _alarms(rate: float, rows: int, looks: int, runs: int, seed: int = 1) -> Iterator[float]:
    """Per run the rows at the first look that alarms, infinity where none does."""
    random = np.random.default_rng(seed)
    at = np.linspace(rows / looks, rows, looks).astype(np.int64)
    for _ in range(runs):
        hits = np.cumsum(random.random(rows) < rate, dtype=np.int64)[at - 1]
        over = np.flatnonzero(path_log10_e(hits, at, BENIGN) >= ALARM)
        yield float(at[over[0]]) if len(over) else math.inf


def test_over_200_looks_at_a_benign_rate_few_runs_alarm() -> None:
    """However often one looks, a rate that is benign alarms in at most 5 % of runs."""
    alarms = [math.isfinite(at) for at in _alarms(BENIGN, 20_000, 200, 600)]
    assert np.mean(alarms) <= 0.05


def test_five_times_the_benign_rate_alarms_within_2000_rows() -> None:
    """At a true 0.5 % with 0.1 % benign the median run needs at most 2,000 rows."""
    assert np.median(list(_alarms(0.005, 8_000, 800, 200))) <= 2_000


@pytest.mark.parametrize("rate", [BENIGN, BENIGN / 3])
def test_the_expected_bet_gains_nothing_under_the_null(rate: float) -> None:
    """The mean of the e-value over all outcomes is at most 1, for every rate up to the benign one: exactly computed."""
    rows = 400
    hits = np.arange(rows + 1)
    logs = np.array([math.lgamma(rows + 1) - math.lgamma(h + 1) - math.lgamma(rows - h + 1) for h in hits])
    chance = logs + hits * math.log(rate) + (rows - hits) * math.log1p(-rate)
    bets = path_log10_e(hits, np.full(rows + 1, rows), BENIGN) * math.log(10)
    assert float(np.exp(chance + bets).sum()) <= 1 + 1e-9


def test_without_a_benign_rate_one_row_settles_it() -> None:
    """Where nothing is benign one hit is all the evidence there can be; no hit is none."""
    assert log10_e(1, 1_000_000, 0.0) == CAP
    assert log10_e(0, 1_000_000, 0.0) == 0.0
    assert log10_e(0, 0, 0.01) == 0.0
    assert log10_e(5, 10, 1.0) == 0.0


def test_no_hits_are_evidence_for_the_null_and_many_are_capped() -> None:
    """Evidence falls below 1 where fewer rows are hit than benign, and never exceeds what JSON can hold."""
    assert log10_e(1, 100_000, 0.01) < 0
    assert log10_e(100_000, 100_000, 0.001) == CAP


def test_e_bh_keeps_what_stands_among_all_that_were_tested() -> None:
    """Of m hypotheses the k best stand where each is at least m / (alpha k)."""
    evidence = {"a": 4.0, "b": 2.0, "c": 1.2, "d": 0.1}
    assert e_bh(evidence, 0.05) == {"a", "b"}  # thresholds 80, 40, 26.7, 20
    assert e_bh(evidence, 0.05, tested=1000) == frozenset()
    assert e_bh({"a": 4.5}, 0.05, tested=1000) == {"a"}
    assert e_bh({}, 0.05) == frozenset()


def test_e_bh_rarely_finds_anything_where_nothing_is() -> None:
    """With 30 benign features, dependent on each other, at most 5 % of families have a false finding."""
    random = np.random.default_rng(5)
    families = 0
    for _ in range(200):
        shared = random.random(2_000) < BENIGN
        hits = [int(shared.sum()) if i % 2 else int((random.random(2_000) < BENIGN).sum()) for i in range(30)]
        families += bool(e_bh({str(i): log10_e(h, 2_000, BENIGN) for i, h in enumerate(hits)}, 0.05))
    assert families / 200 <= 0.05


def test_a_lower_bound_lies_below_and_comes_near() -> None:
    """The bound is below the observed rate, rises with the rows, and covers the truth nearly always."""
    assert lower_bound(0, 100) == lower_bound(5, 0) == 0.0
    assert lower_bound(10, 100) < lower_bound(100, 1_000) < lower_bound(1_000, 10_000) < 0.1
    random = np.random.default_rng(2)
    assert np.mean([lower_bound(int(random.binomial(2_000, 0.02)), 2_000) <= 0.02 for _ in range(500)]) >= 0.998


def test_a_distance_is_told_by_how_much_at_least() -> None:
    """Two samples of one distribution are nothing apart at least; of two, nearly their distance."""
    random = np.random.default_rng(3)

    def drawn(n: int, shares: list[float]) -> list[int]:
        return [int(count) for count in random.multinomial(n, shares)]

    shares, others = [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]
    alike = [distance_floor(drawn(5_000, shares), drawn(5_000, shares))[1] for _ in range(200)]
    assert np.mean([at_least > 0 for at_least in alike]) <= 0.01
    distance, at_least = distance_floor([50_000, 30_000, 20_000], [20_000, 30_000, 50_000])
    assert distance == pytest.approx(0.3)
    assert 0.27 < at_least < 0.3
    assert distance_floor(drawn(300, shares), drawn(300, others))[1] < 0.3
    assert distance_floor([0, 0], [1, 2]) == (0.0, 0.0)
