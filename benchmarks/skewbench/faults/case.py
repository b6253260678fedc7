"""A case: a window of traffic with something wrong in it, and what a detector ought to say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from benchmarks.skewbench.world import Window
from skewguard.answer import Served
from skewguard.offline import OfflineStore
from skewguard.snapshot import Snapshot
from skewguard.spine import Spine, ViewRows
from skewguard.values import Array, Column, Mask

Rng = np.random.Generator


@dataclass(frozen=True)
class Faulty:
    """Every row as it would be if the fault had hit it.

    `touched`: full names of the features that were served wrongly, or of their view, the request field, `request_id`,
    `log`, `prediction`: where a detector may point. `cause` is a word of `faults.CAUSES`. `stage`: where it enters.
    """

    served: Served
    touched: frozenset[str]
    cause: str
    stage: str = "store"
    lag_us: int = 0


@dataclass(frozen=True)
class Case:
    """What was logged, and everything beside it that a detector may see.

    `labels` are what processes write into their headers, by row. `snapshot` and `offline` stand in for the world's,
    where the fault lies in them; `outcome` for what became of the requests; `trained_on` is a training set that came
    from elsewhere, to be audited; `answered` is what the service counted. `rows` is how many rows are wrong, `since`
    and `slice` in which part of the traffic.
    """

    window: Window
    served: Served
    labels: Mapping[str, Array] = field(default_factory=dict)
    touched: frozenset[str] = frozenset()
    causes: tuple[str, ...] = ()
    stage: str = ""
    lag_us: int = 0
    rows: int = 0
    snapshot: Snapshot | None = None
    offline: OfflineStore | None = None
    outcome: npt.NDArray[np.bool_] | None = None
    trained_on: Snapshot | None = None
    answered: int | None = None
    slice: str = ""
    since: int = 0


def take(served: Served, rows: Array) -> Served:
    """The rows at `rows` (integer indices)."""
    return Served(
        served.spine.take(rows),
        {name: view.take(rows) for name, view in served.views.items()},
        {name: column.take(rows) for name, column in served.derived.items()},
        served.vector[rows],
        None if served.prediction is None else served.prediction[rows],
    )


def mixed(window: Window, clean: Served, faulty: Served, hit: Mask) -> Served:
    """The rows that were `hit` from `faulty`, the others from `clean`; the model asked for what entered it."""
    spine = Spine(
        np.where(hit, faulty.spine.ids, clean.spine.ids),
        np.where(hit, faulty.spine.as_of, clean.spine.as_of),
        _columns(clean.spine.keys, faulty.spine.keys, hit),
        _columns(clean.spine.request, faulty.spine.request, hit),
    )
    views = {name: _rows(view, faulty.views[name], hit) for name, view in clean.views.items()}
    derived = _columns(clean.derived, faulty.derived, hit)
    vector = np.where(hit[:, None], faulty.vector, clean.vector)
    served = window.finished(Served(spine, views, derived, vector))
    if faulty.prediction is not None and served.prediction is not None:
        served = replace(served, prediction=np.where(hit, faulty.prediction, served.prediction))
    return served


def differs(a: Served, b: Served) -> Mask:
    """Rows in which anything that a service answers or logs is another."""
    other = (a.spine.as_of != b.spine.as_of) | _unlike(a.spine.request, b.spine.request)
    other |= _unlike(a.spine.keys, b.spine.keys) | _unlike(a.derived, b.derived)
    for name, view in a.views.items():
        mine = b.views[name]
        other |= (view.event != mine.event) | (view.status != mine.status) | _unlike(view.features, mine.features)
    other |= ~((a.vector == b.vector) | (np.isnan(a.vector) & np.isnan(b.vector))).all(axis=1)
    if b.prediction is not None and a.prediction is not None:
        other |= a.prediction != b.prediction
    return np.asarray(other, dtype=bool)


def _unlike(a: Mapping[str, Column], b: Mapping[str, Column]) -> Mask:
    found = [(x.status != b[name].status) | ((x.values != b[name].values) & x.present) for name, x in a.items()]
    return np.asarray(np.logical_or.reduce(found), dtype=bool)


def _columns(a: Mapping[str, Column], b: Mapping[str, Column], hit: Mask) -> dict[str, Column]:
    return {name: _column(column, b[name], hit) for name, column in a.items()}


def _column(a: Column, b: Column, hit: Mask) -> Column:
    return a if a is b else Column(a.dtype, np.where(hit, b.values, a.values), np.where(hit, b.status, a.status))


def _rows(a: ViewRows, b: ViewRows, hit: Mask) -> ViewRows:
    if a is b:
        return a
    return ViewRows(
        np.where(hit, b.status, a.status),
        np.where(hit, b.event, a.event),
        np.where(hit, b.created, a.created),
        np.where(hit, b.watermark, a.watermark),
        _columns(a.features, b.features, hit),
    )


Make = Callable[[Window, Rng], Faulty | None]
"""A fault of rows: every row as it would be, with parameters drawn from the generator; None where the window has none
of what it needs."""
