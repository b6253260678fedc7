"""Domain: values that no column ever held, held against what healthy stretches of the snapshot bring."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from skewguard.answer import Served, answer
from skewguard.compare import Domains
from skewguard.compare.domain import Domain, domains
from skewguard.compare.evidence import Tolerance
from skewguard.findings import Finding, Kind
from skewguard.offline import OfflineStore
from skewguard.replay import take
from skewguard.spine import read_spine
from skewguard.values import Array, Column, Mask, Status
from tests.loop import Loop, asks_between, at


def _answered(loop: Loop, asks: pa.Table) -> Served:
    bundle = loop.bundle
    spine = read_spine(asks, bundle.keys, {r.name: r.dtype for r in bundle.request}, id_column="id")
    with OfflineStore(bundle.views, threads=1) as offline:
        return answer(bundle, spine, offline.answer(spine))


@pytest.fixture(scope="module")
def training(loop: Loop) -> Served:
    """Three days of 4,000 asks, each of which reads a wind of its own, in whole knots."""
    return _in_knots(_answered(loop, asks_between(at(-72), timedelta(days=3), 4_000)))


@pytest.fixture(scope="module")
def today(loop: Loop) -> Served:
    """A clean day of 1,500 asks."""
    return _in_knots(_answered(loop, asks_between(at(0), timedelta(hours=20), 1_500)))


@pytest.fixture(scope="module")
def held(loop: Loop, training: Served) -> dict[str, Domain]:
    """What those three days teach."""
    return domains(loop.bundle, training)


def _in_knots(served: Served) -> Served:
    return _with_wind(served, 1.15078 * (np.arange(len(served.spine)) * 7 % 30))


def _with_wind(served: Served, values: Array) -> Served:
    rows, here = served.views["weather"], np.zeros(len(served.spine), dtype=np.uint8)
    wind = Column.build(rows.features["wind"].dtype, values, here)
    moved = replace(rows, status=here, event=np.arange(len(here)) * 1_000_000, features={**rows.features, "wind": wind})
    return replace(served, views={**served.views, "weather": moved})


def _with_distance(served: Served, values: Array, status: Array | None = None) -> Served:
    column = served.spine.request["distance"]
    given = Column.build(column.dtype, values, column.status if status is None else status)
    return replace(served, spine=replace(served.spine, request={**served.spine.request, "distance": given}))


def _found(loop: Loop, held: dict[str, Domain], served: Served) -> list[Finding]:
    check = Domains(loop.bundle, held)
    for rows in np.array_split(np.arange(len(served.spine)), 3):
        check.add(take(served, rows))
    return [one for one in check.findings() if one.evidence > 3]


def _some(served: Served, share: float) -> Mask:
    return np.asarray(np.arange(len(served.spine)) % round(1 / share) == 0)


def test_a_clean_day_stays_within_what_was_learnt(loop: Loop, held: dict[str, Domain], today: Served) -> None:
    """Nothing is found where nothing is wrong, whichever part of the traffic is looked at."""
    assert held["weather__wind"].unseen.shares
    assert held["distance"].outside.shares
    assert _found(loop, held, today) == []
    origin = today.spine.keys["origin"].values
    for name in sorted(set(origin.tolist())):
        assert _found(loop, held, take(today, np.flatnonzero(origin == name))) == []


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_a_measurement_in_another_unit_is_found_on_both_sides(
    loop: Loop, held: dict[str, Domain], today: Served, share: float
) -> None:
    """Winds in km/h are no whole knots, though both sides agree and none is out of range; other roundings neither."""
    wind = today.views["weather"].features["wind"].values
    for other in (wind * 1.609344, wind + 0.01):
        (finding,) = _found(loop, held, _with_wind(today, np.where(_some(today, share), other, wind)))
        assert (finding.kind, finding.feature) == (Kind.CONSTRAINT, "weather__wind")
        assert "never seen" in finding.message
    noise = wind * (1 + 1e-15)
    assert _found(loop, held, _with_wind(today, noise)) == []


def test_many_requests_of_one_odd_source_row_are_one_row(loop: Loop, held: dict[str, Domain], today: Served) -> None:
    """A storm's one new value, read by a tenth of the requests, is one row of the source."""
    wind = today.views["weather"].features["wind"].values
    hit = _some(today, 0.1)
    stormy = _with_wind(today, np.where(hit, 77.7, wind))
    rows = stormy.views["weather"]
    same = replace(rows, event=np.where(hit, 7, rows.event))
    keys = {
        **stormy.spine.keys,
        "origin": replace(stormy.spine.keys["origin"], values=np.full(len(hit), "EWR", object)),
    }
    once = replace(stormy, spine=replace(stormy.spine, keys=keys), views={**stormy.views, "weather": same})
    assert _found(loop, held, stormy) != []
    assert _found(loop, held, once) == []


@pytest.mark.parametrize("sent", [1e9, -999.0])
def test_requests_far_outside_all_that_was_sent_are_found(
    loop: Loop, held: dict[str, Domain], today: Served, sent: float
) -> None:
    """A sentinel or another unit in a tenth of the requests, which both sides agree about."""
    values = today.spine.request["distance"].values
    (finding,) = _found(loop, held, _with_distance(today, np.where(_some(today, 0.1), sent, values)))
    assert (finding.kind, finding.feature, finding.rows) == (Kind.CONSTRAINT, "distance", 150)
    assert "far outside" in finding.message
    assert _found(loop, held, _with_distance(today, np.where(_some(today, 0.01), sent, values))) == []


def test_new_values_of_a_request_are_news_and_no_fault(loop: Loop, held: dict[str, Domain], today: Served) -> None:
    """A route that was never flown has a distance that was never seen."""
    values = today.spine.request["distance"].values
    assert _found(loop, held, _with_distance(today, np.where(_some(today, 0.1), values + 0.5, values))) == []


def test_a_request_field_that_is_null_is_found_and_a_few_are_not(
    loop: Loop, held: dict[str, Domain], today: Served
) -> None:
    """A field that a client no longer sends is told; one request in a hundred is not."""
    column = today.spine.request["distance"]

    def without(share: float) -> list[Finding]:
        status = np.where(_some(today, share), np.uint8(Status.NULL), column.status)
        return _found(loop, held, _with_distance(today, column.values, status))

    (finding,) = without(0.1)
    assert "null" in finding.message
    assert without(0.01) == []


def test_a_column_that_keeps_bringing_new_values_or_grows_has_no_domain(loop: Loop, training: Served) -> None:
    """A counter is never where it was, and a measurement never twice the same: neither teaches what is unseen."""
    n = len(training.spine)
    rank = np.argsort(np.argsort(training.spine.as_of, kind="stable")).astype(float)
    counter = domains(loop.bundle, _with_wind(training, rank))["weather__wind"]
    assert not counter.outside.shares
    assert counter.unseen.at(1_000) == 1
    measured = np.random.default_rng(0).normal(size=n)
    assert domains(loop.bundle, _with_wind(training, measured))["weather__wind"].unseen.at(1_000) == 1


def test_too_few_rows_have_no_domain(loop: Loop, training: Served) -> None:
    """Below 1,600 rows nothing is learnt."""
    assert domains(loop.bundle, take(training, np.arange(1_599))) == {}


def test_a_short_log_may_be_as_odd_as_the_worst_stretch_of_its_length() -> None:
    """By brute force: three times the worst stretch, or two points more; nothing is said of less than 100 rows."""
    odd = np.zeros(10_000, dtype=bool)
    odd[4_000:4_030] = True  # a storm
    tolerance = Tolerance.of(odd)
    for rows in (100, 250, 1_000, 4_000):
        worst = max(odd[i : i + rows].mean() for i in range(len(odd) - rows + 1))
        wanted = max(3 * worst, worst + 0.02)
        assert tolerance.at(rows) == pytest.approx(wanted if wanted <= 0.5 else 1.0)
    assert tolerance.at(999) == tolerance.at(500)
    assert tolerance.at(99) == 1
    assert tolerance.at(10**9) == tolerance.at(4_000)
