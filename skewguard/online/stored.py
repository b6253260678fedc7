"""Which views lie in the store: a view is stored once, under Feast's own name, whatever a service calls it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from skewguard.definitions import View
from skewguard.errors import DefinitionError
from skewguard.online.layout import Layout


def stored_views(views: Sequence[View], only: Collection[str] | None = None) -> list[View]:
    """One view for each that is stored, or for those in `only` (by either name): the one that has the features of all.

    Raises `DefinitionError` where a service uses a view under several names with different features, none of which
    has them all: whoever is written last would take features away from the others.
    """
    groups: dict[str, list[View]] = {}
    for view in views:
        groups.setdefault(view.feast_name, []).append(view)
    chosen = []
    for name, those in groups.items():
        if only is not None and name not in only and not any(view.name in only for view in those):
            continue
        every = {feature.name for view in those for feature in view.features}
        whole = max(those, key=lambda view: len(view.features))
        lacking = sorted(every - {feature.name for feature in whole.features})
        if lacking:
            names = ", ".join(view.name for view in those)
            raise DefinitionError(
                f"view {name} is used as {names}, and none of them has all features of the others "
                f"({whole.name} lacks {', '.join(lacking)}). It is stored once: give one of them all of its "
                "features, or materialize it with Feast's engine."
            )
        chosen.append(whole)
    return chosen


def refuse_narrowing(service: str, view: View, written: Layout | None, what_to_do: str) -> None:
    """Raise `DefinitionError` where rows of `view` as this service has it would take features away that others read.

    `written`: the layout in which the store has all of the view's rows.
    """
    lost = set(written.names) - {feature.name for feature in view.features} if written else ()
    if lost:
        raise DefinitionError(
            f"view {view.name}: the online store also has {', '.join(sorted(lost))} of it, which the bundle of service "
            f"{service} lacks: another service may read it. {what_to_do}"
        )
