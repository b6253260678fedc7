"""Fitting a bundle's model inputs on the rows of the snapshot that is about to be built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import numpy as np

from skewguard.answer import derive
from skewguard.definitions import Bundle
from skewguard.definitions.fitting import fit, fit_inputs
from skewguard.errors import AskError
from skewguard.spine import Spine, ViewRows
from skewguard.values import Column

Answer = Callable[[Spine], Mapping[str, ViewRows]]


def fitted_on(bundle: Bundle, spine: Spine, views: Answer, before: datetime | None, rows: int) -> Bundle:
    """`bundle` with its model inputs fitted on the asks of `spine` before `before` (all of them without one), answered
    by `views`, `rows` at a time. A bundle that is fitted already, or has none, stays as it is.

    Raises `AskError` where no ask is left to fit on, `DefinitionError` as `definitions.fitting.fit` does.
    """
    if not bundle.unfitted:
        return bundle
    asked = np.arange(len(spine)) if before is None else np.flatnonzero(spine.as_of < _us(before))
    if not len(asked):
        when = "" if before is None else f", none of which is before {before}"
        raise AskError("event_timestamp", f"{', '.join(bundle.unfitted)} cannot be fitted on {len(spine)} asks{when}")
    names = fit_inputs(bundle)
    parts: list[dict[str, Column]] = []
    for at in range(0, len(asked), rows):
        part = spine.take(asked[at : at + rows])
        found = views(part)
        known = dict(part.request) | derive(bundle.raw, part, found)
        for view in bundle.views:
            known |= {view.full_name(name): column for name, column in found[view.name].features.items()}
        parts.append({name: known[name] for name in names})
    return fit(bundle, {name: Column.concat([part[name] for part in parts]) for name in names})


def _us(instant: datetime) -> int:
    if instant.tzinfo is None:
        raise AskError("fit_before", f"expected an instant with a time zone, got {instant}; add UTC")
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
