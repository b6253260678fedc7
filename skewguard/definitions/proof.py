"""Which transforms a bundle takes: the proven ones, and those that somebody waives until a day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime

from skewguard.contract import PREFIX
from skewguard.definitions.bundle import Derived
from skewguard.transforms import load
from skewguard.transforms.checks import check

_TAG = f"{PREFIX}unproven."


def waivers(tags: Mapping[str, str]) -> dict[str, str]:
    """What a view's tags waive: `YYYY-MM-DD reason` by the function's name."""
    return {name.removeprefix(_TAG): text for name, text in tags.items() if name.startswith(_TAG)}


def admit(
    derived: Mapping[str, Derived], waived: Mapping[str, str], complaints: list[str], today: date | None = None
) -> dict[str, Derived]:
    """`derived` with what their checks found: the traced graph, golden values, waivers that were needed.

    `waived` holds `YYYY-MM-DD reason` by full name. An unproven transform without a waiver, a waiver that has expired,
    is not needed or cannot be read are appended to `complaints`.
    """
    today = today or datetime.now(UTC).date()
    functions = {spec.function: load(spec.function) for spec in derived.values()}
    checked = dict(zip(functions, check(list(functions.values())), strict=True))
    admitted = {}
    for name, spec in derived.items():
        result = checked[spec.function]
        waiver = waived.get(name, "")
        complaint = waiver_complaint(name, waiver, result.proven, today) if waiver else ""
        if complaint:
            complaints.append(complaint)
        elif not result.proven and not waiver:
            complaints.append(
                f"{name}: {spec.function} is not proven.\n{result.explained()}\nRewrite it, or take it until a day: "
                f"tags=unproven({spec.function!r}, reason=..., expires=...)"
            )
        admitted[name] = replace(spec, graph=result.graph, golden=result.golden, waived=waiver)
    return admitted


def waiver_complaint(name: str, waiver: str, proven: bool, today: date) -> str:
    """What is wrong with a waiver `YYYY-MM-DD reason` of the feature `name`; empty where nothing is."""
    day, _, reason = waiver.partition(" ")
    try:
        expires = date.fromisoformat(day)
    except ValueError:
        tag = f"{_TAG}{name.partition('__')[2]}={waiver!r}"
        return f"{name}: tag {tag}: expected a day and a reason; write it by unproven(...)"
    if proven:
        return f"{name}: the waiver ({reason}) is not needed, the transform is proven; remove the tag"
    if expires < today:
        return f"{name}: the waiver ({reason}) expired at the end of {expires}; rewrite the transform or extend it"
    return ""
