"""Verify: is every feature that is computed on demand the same for one request and for a million rows?"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from skewguard.definitions import load_bundle
from skewguard.definitions.proof import waiver_complaint
from skewguard.errors import DefinitionError, MissingExtra
from skewguard.transforms import Transform, load
from skewguard.transforms.checks import Checked, check

if TYPE_CHECKING:
    from rich.console import RenderableType


class State(enum.StrEnum):
    """What is known about one on-demand feature, or about a whole view that names no transforms."""

    PROVEN = "proven"
    WAIVED = "waived"  # a transform that is not proven, taken until a day
    REFUSED = "refused"  # a transform that is not proven
    UNPROVEN = "unproven"  # somebody's own code: no counterexample was found, and none can be excluded
    SKEWED = "skewed"  # somebody's own code, with a counterexample


@dataclass(frozen=True, slots=True)
class Verified:
    """One line of the result. `function` is empty for a view of somebody's own code, `why` for what is proven."""

    view: str
    feature: str
    function: str
    state: State
    why: str
    graph: str = ""
    proof_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class OnDemand:
    """An on-demand view: its features by the function behind each (`module:function`), waivers by the function's name,
    what running it as it is showed: (whether that is a counterexample, a sentence), and complaints about its body."""

    name: str
    functions: dict[str, str]
    waived: dict[str, str]
    ran: tuple[bool, str] | None = None
    complaints: tuple[str, ...] = ()


def verify_bundle(path: str | Path) -> list[Verified]:
    """Every transform of a bundle."""
    bundle = load_bundle(path)
    views = [
        OnDemand(spec.view, {spec.name: spec.function}, {spec.name: spec.waived} if spec.waived else {})
        for spec in bundle.derived
    ]
    return verify(views)


def verify_repository(repo: str | Path, feature_store_yaml: str | Path | None = None) -> list[Verified]:
    """Every on-demand view of an applied Feast repository, as its registry holds it."""
    try:
        from skewguard.workflows.feast import on_demand_views
    except ImportError as error:
        raise MissingExtra("reading a Feast registry", "feast") from error
    return verify(on_demand_views(repo, feature_store_yaml))


def verify(views: Sequence[OnDemand], today: date | None = None) -> list[Verified]:
    """Check the transforms of all views, and tell what running the others showed."""
    today = today or datetime.now(UTC).date()
    loaded: dict[str, Transform | str] = {}
    for reference in {reference for view in views for reference in view.functions.values()}:
        try:
            loaded[reference] = load(reference)
        except DefinitionError as error:
            loaded[reference] = str(error)
    found = [one for one in loaded.values() if isinstance(one, Transform)]
    checked = {one.transform.reference: one for one in check(found)}
    lines = []
    for view in views:
        for feature, reference in view.functions.items():
            one = loaded[reference]
            result = checked.get(one.reference) if isinstance(one, Transform) else str(one)
            lines.append(_line(view, feature, reference, result or "", today))
        lines += [Verified(view.name, "", "", State.REFUSED, complaint) for complaint in view.complaints]
        if view.ran is not None:
            counterexample, why = view.ran
            lines.append(Verified(view.name, "", "", State.SKEWED if counterexample else State.UNPROVEN, why))
    return lines


def _line(view: OnDemand, feature: str, reference: str, result: Checked | str, today: date) -> Verified:
    if isinstance(result, str):
        return Verified(view.name, feature, reference, State.REFUSED, result)
    waiver = view.waived.get(feature, "")
    complaint = waiver_complaint(f"{view.name}__{feature}", waiver, result.proven, today) if waiver else ""
    if complaint:
        state, why = State.REFUSED, complaint
    elif waiver:
        state, why = State.WAIVED, f"{waiver}\n{result.explained()}"
    else:
        state, why = (State.PROVEN, "") if result.proven else (State.REFUSED, result.explained())
    return Verified(view.name, feature, reference, state, why, result.graph, result.proof_ms)


_STYLES = {
    State.PROVEN: "green",
    State.WAIVED: "yellow",
    State.REFUSED: "bold red",
    State.UNPROVEN: "yellow",
    State.SKEWED: "bold red",
}


def renderable(lines: Sequence[Verified]) -> RenderableType:
    """A table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table("view", "feature", "", "why not, and how to write it instead")
    for line in sorted(lines, key=lambda one: (list(State).index(one.state), one.view)):
        why = line.why.replace(f"{line.function}: ", "") if line.function else line.why
        table.add_row(line.view, line.feature or "(own code)", Text(line.state, _STYLES[line.state]), Text(why))
    return table
