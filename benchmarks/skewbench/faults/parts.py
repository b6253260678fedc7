"""How a fault changes an answer: at the store, after the transforms, at the model's input, or in the request itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from benchmarks.skewbench.faults.case import Faulty, Rng
from benchmarks.skewbench.world import Window
from skewguard.answer import Served, answer, vector
from skewguard.spine import ViewRows
from skewguard.values import Array, Column, Mask, Status

PRESENT = np.uint8(Status.PRESENT)
NULL = np.uint8(Status.NULL)
NOT_FOUND = np.uint8(Status.NOT_FOUND)

Values = tuple[Array, Array]
"""(values, statuses) of a column."""


def of_store(window: Window, rows: Mapping[str, ViewRows]) -> Served:
    """The service's answer where these views answered other rows."""
    return answer(window.bundle, window.spine, {**window.views, **rows})


def stored(window: Window, new: Mapping[str, Values]) -> Served:
    """The service's answer where these stored features, by full name, had other values."""
    changed: dict[str, ViewRows] = {}
    for name, (values, status) in new.items():
        view = window.bundle.view_of[name]
        rows = changed.get(view, window.views[view])
        short = name.removeprefix(view + "__")
        column = Column.build(rows.features[short].dtype, values, status)
        changed[view] = replace(rows, features={**rows.features, short: column})
    return of_store(window, changed)


def transformed(window: Window, new: Mapping[str, Values]) -> Served:
    """The service's answer where these derived features, by full name, came out otherwise."""
    served = window.served
    columns = {name: Column.build(served.derived[name].dtype, *values) for name, values in new.items()}
    changed = replace(served, derived={**served.derived, **columns}, prediction=None)
    return replace(changed, vector=vector(window.bundle, changed))


def asked(window: Window, new: Mapping[str, Values]) -> Served:
    """The service's answer where the caller brought other request fields along: it logs what it was asked."""
    fields = {name: Column.build(window.spine.request[name].dtype, *values) for name, values in new.items()}
    spine = replace(window.spine, request={**window.spine.request, **fields})
    return answer(window.bundle, spine, window.views)


def input_to_model(window: Window, matrix: Array) -> Served:
    """The service's answer where another vector entered the model."""
    return replace(window.served, vector=np.ascontiguousarray(matrix), prediction=None)


def column(window: Window, name: str) -> Column:
    """A stored or derived feature as it was honestly served."""
    return window.served.feature(window.bundle, name)


def numbers(window: Window, *, floats: bool | None = None, derived: bool = False) -> list[str]:
    """Full names of the stored (or derived) numeric features, in order; `floats` keeps those that are, or are not."""
    names = [d.full_name for d in window.bundle.derived] if derived else list(window.bundle.view_of)
    dtypes = window.bundle.dtypes
    kept = [name for name in names if dtypes[name].is_numeric]
    return [name for name in kept if floats is None or dtypes[name].is_float is floats]


def varied(window: Window, names: list[str]) -> list[str]:
    """Those of the features that have several values in this window: the others can hardly be got wrong."""
    return [name for name in names if len(np.unique(column(window, name).values[column(window, name).present])) > 1]


def pick(rng: Rng, names: list[str]) -> str:
    """One of the names."""
    return names[int(rng.integers(len(names)))]


def kept(values: Array, status: Array) -> Values:
    """As they are."""
    return values.copy(), status.copy()


def put(one: Column, at: Mask, value: object, status: int = Status.PRESENT) -> Values:
    """The column with one value at some rows."""
    values, statuses = kept(one.values, one.status)
    values[at], statuses[at] = value, status
    return values, statuses


def faulty(served: Served, name: str, cause: str, *, stage: str = "store", lag_us: int = 0) -> Faulty:
    """A fault of one feature (or view, or request field)."""
    return Faulty(served, frozenset({name}), cause, stage, lag_us)
