"""Texts: known values in other clothes are told where that makes a difference, and news are not."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from skewguard.answer import Served, answer, derive
from skewguard.compare.texts import Texts, Wardrobe, wardrobes
from skewguard.findings import Finding, Kind
from skewguard.offline import OfflineStore
from skewguard.replay import take
from skewguard.spine import read_spine
from skewguard.values import Array, Column, Dtype, Status
from tests.loop import Loop, asks_between, at


def _answered(loop: Loop, hour: float, days: float, rows: int) -> Served:
    asks = asks_between(at(hour), timedelta(days=days), rows)
    spine = read_spine(asks, loop.bundle.keys, {r.name: r.dtype for r in loop.bundle.request}, id_column="id")
    with OfflineStore(loop.bundle.views, threads=1) as offline:
        return answer(loop.bundle, spine, offline.answer(spine))


@pytest.fixture(scope="module")
def held(loop: Loop) -> dict[str, Wardrobe]:
    """What 2,000 asks teach."""
    return wardrobes(_answered(loop, -72, 3, 2_000))


@pytest.fixture(scope="module")
def today(loop: Loop) -> Served:
    """A clean day."""
    return _answered(loop, 0, 0.8, 600)


def _sent(loop: Loop, served: Served, name: str, change: Callable[[str], str], share: float = 0.1) -> Served:
    """A share of the rows with another text under a key, which no source knows unless it is one."""
    key = served.spine.keys[name]
    hit = np.arange(len(served.spine)) % round(1 / share) == 0
    values: Array = np.array([change(v) if h else v for v, h in zip(key.values, hit, strict=True)], dtype=object)
    spine = replace(served.spine, keys={**served.spine.keys, name: Column.build(key.dtype, values, key.status)})
    with OfflineStore(loop.bundle.views, threads=1) as offline:
        return answer(loop.bundle, spine, offline.answer(spine))


def _found(loop: Loop, held: dict[str, Wardrobe], served: Served) -> list[Finding]:
    check = Texts(loop.bundle, held)
    for rows in np.array_split(np.arange(len(served.spine)), 3):
        check.add(take(served, rows))
    return check.findings()


@pytest.mark.parametrize(
    "change", [str.lower, lambda t: f"0{t}", lambda t: f"{t} ", lambda t: t.replace("E", "\uff25")]
)
def test_a_key_in_other_clothes_is_found(
    loop: Loop, held: dict[str, Wardrobe], today: Served, change: Callable[[str], str]
) -> None:
    """Lower case, a zero in front, a blank behind, full-width letters: each is told with what was meant."""
    served = _sent(loop, today, "origin", change)
    changed = int((served.spine.keys["origin"].values != today.spine.keys["origin"].values).sum())
    (finding,) = _found(loop, held, served)
    assert (finding.kind, finding.feature, finding.rows) == (Kind.CONSTRAINT, "origin", changed)
    assert finding.evidence > 10
    assert finding.examples[0].truth.strip("'") in {"EWR", "JFK", "LGA"}


def test_known_and_wholly_new_texts_are_no_fault(loop: Loop, held: dict[str, Wardrobe], today: Served) -> None:
    """The day itself, another known airport, and an airport that was opened since."""
    assert _found(loop, held, today) == []
    assert _found(loop, held, _sent(loop, today, "origin", lambda _: "JFK")) == []
    assert _found(loop, held, _sent(loop, today, "origin", lambda _: "SWF")) == []


def test_a_request_text_counts_where_a_transform_takes_it_for_another(loop: Loop, today: Served) -> None:
    """What a transform undresses itself is computed alike, and no finding; what it does not is one, in these rows."""
    n = len(today.spine)
    dressed = np.arange(n) % 4 == 0
    texts = np.where(dressed, "ua ", "UA").astype(object)
    column = Column.build(Dtype.STRING, texts, np.zeros(n, dtype=np.uint8))
    served = replace(today, spine=replace(today.spine, request={**today.spine.request, "carrier": column}))
    check = Texts(loop.bundle, {"carrier": Wardrobe(frozenset({"UA"}), {"ua": "UA"})})
    check.add(served)
    assert check.findings() == []  # no transform of this service reads it
    assert derive(loop.bundle, served.spine, served.views).keys() == today.derived.keys()


def test_too_few_rows_and_ambiguous_forms_teach_nothing(loop: Loop) -> None:
    """Below a thousand rows nothing is learnt; where two known texts look alike, neither is meant."""
    assert wardrobes(_answered(loop, 0, 0.5, 300)) == {}
    many = _answered(loop, -72, 3, 1_200)
    origin = many.spine.keys["origin"]
    values = np.where(np.arange(1_200) % 2 == 0, "ewr", origin.values)
    both = replace(many.spine, keys={**many.spine.keys, "origin": Column.build(origin.dtype, values, origin.status)})
    learnt = wardrobes(replace(many, spine=both))["origin"]
    assert learnt.known == {"ewr", "EWR", "JFK", "LGA"}
    assert learnt.plain == {"jfk": "JFK", "lga": "LGA"}
    assert Status.NULL not in set(origin.status.tolist())
