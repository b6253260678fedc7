"""Contract: what a feature promises, in and out of Feast's tags."""

from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewguard.contract import Contract, contract, microseconds, transforms
from skewguard.errors import DefinitionError

SECOND = 1_000_000


def test_what_is_promised_is_read_back() -> None:
    """Every promise that `contract` writes into tags comes back from them."""
    tags = contract(
        null="refused",
        minimum=-1.5,
        maximum=3,
        values=("a", "b c"),
        rtol=1e-9,
        atol=0.25,
        max_lag="90s",
        benign_rate=0.01,
        unit="km/h",
        owner="weather desk",
    )
    assert all(name.startswith("skewguard.") and isinstance(text, str) for name, text in tags.items())
    assert Contract.from_tags("view", tags) == Contract(
        "refused", -1.5, 3.0, ("a", "b c"), 1e-9, 0.25, 90 * SECOND, 0.01, "km/h", "weather desk"
    )


def test_only_what_is_given_is_written() -> None:
    """No promise, no tag; without tags everything is allowed and equality is exact."""
    assert contract() == {}
    assert contract(minimum=0) == {"skewguard.minimum": "0"}
    assert Contract.from_tags("view") == Contract("allowed", None, None, None, 0.0, 0.0, 0, 0.0, "", "")


def test_a_fields_tags_override_its_views() -> None:
    """Later tags win one by one, and the tags of others are left alone."""
    read = Contract.from_tags("v: f", {"team": "x"} | contract(owner="a", null="refused"), contract(owner="b"))
    assert (read.owner, read.null) == ("b", "refused")


def test_a_contract_survives_json() -> None:
    """`asdict` and `from_json` lose nothing; lists become tuples again."""
    made = Contract(values=("a", "b"), minimum=0.0)
    data: dict[str, Any] = asdict(made)
    data["values"] = list(data["values"])
    assert Contract.from_json(data) == made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0s", 0),
        ("7us", 7),
        ("5ms", 5_000),
        ("45s", 45 * SECOND),
        ("2m", 120 * SECOND),
        ("3h", 10_800 * SECOND),
        (" 1d ", 86_400 * SECOND),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, expected: int) -> None:
    """Microseconds of `45s`, `2m`, `3h`, `1d` and the smaller ones."""
    assert microseconds(text) == expected


@pytest.mark.parametrize("text", ["", "5", "s", "1.5h", "-1s", "1 h", "1h30m", "1w", "1H"])
def test_anything_else_is_no_duration(text: str) -> None:
    """A duration without a unit, or with another one, is refused with what was expected."""
    with pytest.raises(DefinitionError, match="expected a duration such as 45s, 2m, 3h or 1d, got"):
        microseconds(text)


def test_every_complaint_comes_at_once() -> None:
    """One reading names each wrong tag, with the place."""
    tags = {
        "skewguard.null": "maybe",
        "skewguard.minimum": "low",
        "skewguard.max_lag": "soon",
        "skewguard.maximun": "3",
        "skewguard.rtol": "-0.1",
    }
    with pytest.raises(DefinitionError) as caught:
        Contract.from_tags("feature view weather: temp", tags)
    complaints = caught.value.complaints
    assert len(complaints) == 5
    assert all(complaint.startswith("feature view weather: temp: ") for complaint in complaints)
    assert complaints[0].endswith("tag skewguard.null='maybe': expected allowed or refused")
    assert complaints[2].endswith("expected a duration such as 45s, 2m, 3h or 1d, got 'soon'")
    assert "unknown tag skewguard.maximun; known are atol, benign_rate, max_lag, maximum, minimum" in complaints[3]


@pytest.mark.parametrize("name", ["minimum", "maximum", "rtol", "atol", "benign_rate"])
@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_no_promise_is_switched_off_by_a_number_that_is_none(name: str, text: str) -> None:
    """NaN and infinity, under which a check would pass everything, are refused."""
    with pytest.raises(DefinitionError, match=f"tag skewguard.{name}='{text}': expected a finite number"):
        Contract.from_tags("view", {f"skewguard.{name}": text})


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("benign_rate", "5", "expected a share from 0 to 1"),
        ("benign_rate", "-1", "expected a share from 0 to 1"),
        ("rtol", "-1", "expected a number that is not negative"),
        ("atol", "-1", "expected a number that is not negative"),
    ],
)
def test_a_rate_is_a_share_and_a_tolerance_is_not_negative(name: str, text: str, expected: str) -> None:
    """A benign rate of five would let every row differ; a negative tolerance none be equal."""
    with pytest.raises(DefinitionError, match=f"{name}='{text}': {expected}"):
        Contract.from_tags("view", {f"skewguard.{name}": text})


def test_a_range_without_a_value_is_refused() -> None:
    """A minimum above the maximum is a mistake, also where the view gives one and the field the other."""
    with pytest.raises(DefinitionError, match=r"view: skewguard.minimum 5.0 is greater than skewguard.maximum 1.0"):
        Contract.from_tags("view", contract(maximum=1), contract(minimum=5))


def test_a_contract_that_cannot_be_read_back_is_not_written() -> None:
    """What `contract` is given wrongly is an error where it is written, not at `feast apply`."""
    with pytest.raises(DefinitionError, match="expected a duration"):
        contract(max_lag="1 minute")
    with pytest.raises(DefinitionError, match=r"the tag joins values by '\|', and 'a\|b' holds one"):
        contract(values=("a|b", "c"))


def test_the_tag_of_transforms_is_no_contract() -> None:
    """An on-demand view carries both; each reader takes its own."""
    tags = contract(null="refused") | transforms("acme.features:a", "acme.features:b")
    assert tags["skewguard.transforms"] == "acme.features:a acme.features:b"
    assert Contract.from_tags("view", tags) == Contract(null="refused")


@given(st.floats(0, 1e300), st.floats(0, 1))
def test_numbers_keep_every_bit_in_a_tag(tolerance: float, rate: float) -> None:
    """A number goes through its text unchanged."""
    read = Contract.from_tags("view", contract(rtol=tolerance, benign_rate=rate, minimum=-tolerance))
    assert (read.rtol, read.benign_rate, read.minimum) == (tolerance, rate, -tolerance)
