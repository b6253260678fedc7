"""The doctor's hands: a Feast repository, its stores, and a scratch copy of them."""

from __future__ import annotations

import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from skewguard.errors import SkewguardError
from skewguard.workflows.doctor.cells import raised
from skewguard.workflows.doctor.diagnosis import Cause, Defect, Diagnosis, Unchecked, Where, grouped
from skewguard.workflows.doctor.feast.edges import Edges
from skewguard.workflows.doctor.feast.opened import Opened, opened, within
from skewguard.workflows.doctor.feast.scratch import Copy, scratch
from skewguard.workflows.doctor.feast.stores import Stores
from skewguard.workflows.feast import examined
from skewguard.workflows.verify import State, verify

Progress = Callable[[str, int, int], None]


def diagnose(
    repo: str | Path,
    service: str = "",
    *,
    keys: int = 100,
    patience: float = 30.0,
    feature_store_yaml: str | Path | None = None,
    progress: Progress = lambda _what, _done, _of: None,
) -> Diagnosis:
    """Look at the repository at `repo`, reading alone: its own stores for `keys` keys a view, edge cases in a copy.

    `patience`: seconds that one call may take. Raises `DefinitionError` where there is no repository that loads.
    """
    began = time.monotonic()
    with _quiet(), opened(repo, service, feature_store_yaml) as found:
        steps = 2 * len(found.views) + len(found.on_demand)
        defects, compared, done = [], 0, 0
        stores = Stores(found, keys, patience)
        for view in found.views:
            progress(f"{view.name} in your stores", done, steps)
            defects += stores.look(view) if found.applied else []
            done += 1
        with scratch(found, patience) as made:
            for view in found.views:
                progress(f"{view.name} in a scratch copy", done, steps)
                more, count = _edges(found, made, view)
                defects, compared, done = defects + more, compared + count, done + 1
        for view in found.on_demand:
            progress(f"{view.name} on demand", done, steps)
            defects += _on_demand(found, view, patience)
            done += 1
        names = tuple(view.name for view in (*found.views, *found.on_demand))
        unchecked = tuple(dict.fromkeys(found.unchecked))
    return Diagnosis(tuple(grouped(defects)), unchecked, compared + stores.compared, names, time.monotonic() - began)


@contextmanager
def _quiet() -> Iterator[None]:
    """Feast tells of its progress on stdout and stderr, and warns of what is experimental."""
    said, before = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(said), redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _edges(found: Opened, made: Copy, view: Any) -> tuple[list[Defect], int]:
    try:
        edges = Edges(found, made, view)
        edges.run()
    except Exception as error:  # noqa: BLE001  (one view that cannot be tried does not take the others along)
        reason = str(error) if isinstance(error, SkewguardError) else raised(error)
        found.unchecked.append(Unchecked(f"{view.name}: edge cases", reason))
        return [], 0
    return edges.defects, edges.comparison.compared


def _on_demand(found: Opened, view: Any, patience: float) -> list[Defect]:
    """What running an on-demand view both ways shows; `skewguard verify` says more."""
    try:
        lines = verify([within(patience, f"on-demand view {view.name}", lambda: examined(found.store, view))])
    except Exception as error:  # noqa: BLE001
        reason = str(error) if isinstance(error, SkewguardError) else raised(error)
        found.unchecked.append(Unchecked(f"on-demand view {view.name}", reason))
        return []
    defects = []
    for line in lines:
        if line.state is State.SKEWED:
            remedy = "write it with @transform and skewguard.on_demand (docs/transforms.md)"
            defects.append(
                Defect(view.name, line.feature, Cause.ON_DEMAND, Where.ON_DEMAND, line.why, "run as Feast does", remedy)
            )
        elif line.why.startswith("not run"):
            found.unchecked.append(Unchecked(f"on-demand view {view.name}", line.why))
    return defects
