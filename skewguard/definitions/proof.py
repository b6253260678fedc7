"""Which transforms a bundle takes: the proven ones, and those that somebody waives until a day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime

from skewguard.contract import PREFIX
from skewguard.definitions.bundle import Derived
from skewguard.transforms import Transform, load
from skewguard.transforms.checks import Checked, check

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
        complaints += _against(name, result, waiver, today)
        admitted[name] = replace(spec, graph=result.graph, golden=result.golden, waived=waiver)
    return admitted


def unproven_functions(
    view: str, transforms: Sequence[Transform], tags: Mapping[str, str], today: date | None = None
) -> list[str]:
    """Complaints about a view's transforms that are neither proven in this process nor waived in `tags`.

    Compiling a bundle and `skewguard verify` ask other processes too; only they can say that a waiver is not needed.
    """
    today = today or datetime.now(UTC).date()
    waived = waivers(tags)
    complaints = [
        f"on-demand view {view}: a tag takes {name!r} unproven, but no function of that name is in the view"
        for name in waived.keys() - {one.name for one in transforms}
    ]
    for result in check(transforms, processes=False):
        if not result.proven:
            name = result.transform.name
            complaints += _against(f"{view}__{name}", result, waived.get(name, ""), today)
    return complaints


def _against(name: str, result: Checked, waiver: str, today: date) -> list[str]:
    """What keeps a feature out: it is not proven, or something is wrong with its waiver."""
    if waiver:
        complaint = waiver_complaint(name, waiver, result.proven, today)
        return [complaint] if complaint else []
    if result.proven:
        return []
    reference = result.transform.reference
    how = f"Rewrite it, or take it until a day: tags=unproven({reference!r}, reason=..., expires=...)"
    return [f"{name}: {reference} is not proven.\n{result.explained()}\n{how}"]


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
