"""Contract: what a feature promises beyond its dtype, carried by Feast tags.

`contract(...)` makes the tags that a definition carries; `Contract.from_tags` reads them back. Tags of a field
override those of its view. Durations are texts such as `45s`, `2m`, `3h`, `1d`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from skewguard.errors import DefinitionError

PREFIX = "skewguard."
_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_DURATION = re.compile(r"(\d+)(us|ms|s|m|h|d)")


def microseconds(text: str) -> int:
    """A duration such as `90s` or `1h` in microseconds; raises `DefinitionError` for anything else."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise DefinitionError(f"expected a duration such as 45s, 2m, 3h or 1d, got {text!r}")
    return int(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True, slots=True)
class Contract:
    """What one feature promises.

    `null`: whether a null is `allowed` or `refused`. `minimum`, `maximum`: the range of a present value, inclusive.
    `values`: the only values there are. `rtol`, `atol`: declared tolerance of equality (0: exact). `max_lag_us`: how
    long after it became known a row may take until it is served. `benign_rate`: the share of rows that may differ
    for reasons nobody will mend. `unit`, `owner`: for people.
    """

    null: Literal["allowed", "refused"] = "allowed"
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] | None = None
    rtol: float = 0.0
    atol: float = 0.0
    max_lag_us: int = 0
    benign_rate: float = 0.0
    unit: str = ""
    owner: str = ""

    @classmethod
    def from_tags(cls, where: str, *tags: Mapping[str, str]) -> Contract:
        """Read tags, later ones overriding earlier; raises `DefinitionError` with every complaint about `where`."""
        merged: dict[str, str] = {}
        for one in tags:
            merged |= {k.removeprefix(PREFIX): v for k, v in one.items() if k.startswith(PREFIX)}
        known: dict[str, Any] = {}
        complaints = []
        for name, text in merged.items():
            if name.partition(".")[0] in _NOT_CONTRACT:
                continue
            if name not in _READERS:
                known_tags = "it belongs on an Entity" if name == "pii" else f"known are {', '.join(sorted(_READERS))}"
                complaints.append(f"{where}: unknown tag {PREFIX}{name}; {known_tags}")
                continue
            field, read = _READERS[name]
            try:
                known[field] = read(text)
            except (ValueError, DefinitionError) as error:
                complaints.append(f"{where}: tag {PREFIX}{name}={text!r}: {error}")
        low, high = known.get("minimum"), known.get("maximum")
        if low is not None and high is not None and low > high:
            complaints.append(f"{where}: {PREFIX}minimum {low} is greater than {PREFIX}maximum {high}")
        if complaints:
            raise DefinitionError(complaints)
        return cls(**known)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Contract:
        """The contract that `asdict` wrote."""
        given: dict[str, Any] = dict(data)
        if given.get("values") is not None:
            given["values"] = tuple(given["values"])
        return cls(**given)


def _null(text: str) -> str:
    if text not in ("allowed", "refused"):
        raise ValueError("expected allowed or refused")
    return text


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    return number


def _not_negative(text: str) -> float:
    number = _number(text)
    if number < 0:
        raise ValueError("expected a number that is not negative")
    return number


def _share(text: str) -> float:
    number = _number(text)
    if not 0 <= number <= 1:
        raise ValueError("expected a share from 0 to 1")
    return number


_READERS: dict[str, tuple[str, Any]] = {
    "null": ("null", _null),
    "minimum": ("minimum", _number),
    "maximum": ("maximum", _number),
    "values": ("values", lambda text: tuple(text.split("|"))),
    "rtol": ("rtol", _not_negative),
    "atol": ("atol", _not_negative),
    "max_lag": ("max_lag_us", microseconds),
    "benign_rate": ("benign_rate", _share),
    "unit": ("unit", str),
    "owner": ("owner", str),
}
_NOT_CONTRACT = {"availability_lag", "model_input", "transforms", "unproven"}  # read by definitions


def lag_until_available(where: str, tags: Mapping[str, str]) -> int:
    """How long after a row of a view became known the online store can serve it, in microseconds; 0 without the tag.

    A view's alone. Raises `DefinitionError` for what is no duration.
    """
    text = tags.get(PREFIX + "availability_lag", "0s")
    try:
        return microseconds(text)
    except DefinitionError as error:
        raise DefinitionError(f"{where}: tag {PREFIX}availability_lag={text!r}: {error}") from error


def hides_keys(where: str, tags: Mapping[str, str]) -> bool:
    """Whether an entity's keys are written to the log as keyed hashes only; False without the tag.

    Raises `DefinitionError` for a way of hiding them that there is not.
    """
    how = tags.get(PREFIX + "pii")
    if how not in (None, "hash"):
        raise DefinitionError(f"{where}: tag {PREFIX}pii={how!r}: expected hash")
    return how is not None


def contract(  # noqa: PLR0913  (one argument per promise)
    *,
    null: Literal["allowed", "refused"] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    values: tuple[str, ...] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_lag: str | None = None,
    availability_lag: str | None = None,
    benign_rate: float | None = None,
    unit: str | None = None,
    owner: str | None = None,
    pii: Literal["hash"] | None = None,
) -> dict[str, str]:
    """The tags of a Feast view or field that say what it promises; only what is given is written. `pii` is an entity's:
    its keys stand in the log as keyed hashes.

    Raises `DefinitionError` for what cannot be promised.

    >>> contract(max_lag="60s", null="refused")
    {'skewguard.null': 'refused', 'skewguard.max_lag': '60s'}
    """
    piped = [value for value in values or () if "|" in value]
    if piped:
        raise DefinitionError(f"contract(...): the tag joins values by '|', and {piped[0]!r} holds one")
    given = {
        "null": null,
        "minimum": minimum,
        "maximum": maximum,
        "values": None if values is None else "|".join(values),
        "rtol": rtol,
        "atol": atol,
        "max_lag": max_lag,
        "availability_lag": availability_lag,
        "benign_rate": benign_rate,
        "unit": unit,
        "owner": owner,
    }
    tags = {PREFIX + name: str(value) for name, value in given.items() if value is not None}
    Contract.from_tags("contract(...)", tags)
    lag_until_available("contract(...)", tags)
    if pii is None:
        return tags
    hides_keys("contract(...)", {PREFIX + "pii": pii})
    return tags | {PREFIX + "pii": pii}


def transforms(*functions: str) -> dict[str, str]:
    """The tag by which an on-demand view names the functions behind its features, each as `module:function`.

    >>> transforms("acme.features:gust_ratio")
    {'skewguard.transforms': 'acme.features:gust_ratio'}
    """
    return {PREFIX + "transforms": " ".join(functions)}


def model_input(*functions: str) -> dict[str, str]:
    """The tag by which a feature service names the transforms that run after the on-demand views, for the model alone:
    those with fitted arguments. Each as `module:function`; in this order they end the model's vector.

    >>> model_input("acme.features:carrier_delay")
    {'skewguard.model_input': 'acme.features:carrier_delay'}
    """
    return {PREFIX + "model_input": " ".join(functions)}


def unproven(function: str, *, reason: str, expires: str) -> dict[str, str]:
    """The tag by which an on-demand view takes `function` although it is not proven, until the end of a day (UTC).

    >>> unproven("gust_ratio", reason="vendor's model, replaced in spring", expires="2027-03-31")
    {'skewguard.unproven.gust_ratio': "2027-03-31 vendor's model, replaced in spring"}
    """
    try:
        day = date.fromisoformat(expires)
    except ValueError:
        day = None
    if day is None or not reason.strip():
        raise DefinitionError(
            f"unproven({function!r}): expected a reason and a day such as 2027-03-31, got {reason!r}, {expires!r}"
        )
    return {f"{PREFIX}unproven.{function.rpartition(':')[2]}": f"{day} {reason.strip()}"}
