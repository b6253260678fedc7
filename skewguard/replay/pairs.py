"""Pairs: logged rows beside what training would have said, in parts that can be taken and put together."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from skewguard.answer import Served
from skewguard.definitions import Bundle
from skewguard.spine import Spine, ViewRows
from skewguard.transforms import numeric_class
from skewguard.values import NO_TIME, ULPS_ACROSS_CLASSES, Array, Column, Mask

HEADER_FIELDS = (
    "build", "host", "evidence", "model_id", "model_digest", "snapshot_id", "bundle_digest", "numeric_class"
)  # fmt: skip


class Age(enum.IntEnum):
    """How the source row that was served stands to the one that should have been."""

    CURRENT = 0
    LAGGED = 1
    STALE = 2
    UNVERIFIABLE = 3  # only a late arrival, or a history that the source has lost since, could explain it
    LEAK = 4  # a row that was not known at the ask
    UNHEARD = 5  # the served row names a source row that the source does not have
    UNANSWERED = 6  # the store gave an error instead of an answer


@dataclass(frozen=True, slots=True)
class Pairs:
    """n logged rows with their truths. `age` per view: uint8 (n,) of `Age`. `labels`: header fields, str (n,) each.

    `recomputed` are the transforms run again on the raw values that the log holds: where they differ from what was
    served, the transform is at fault and not its inputs. `rewritten` per view: rows whose source row may have been
    overwritten since it was served, so that another value is no evidence; views without any are absent. `ulps` is the
    tolerance between numeric classes, per row.
    """

    bundle: Bundle
    served: Served
    truth: Served
    as_known: Served
    recomputed: Mapping[str, Column]
    age: Mapping[str, npt.NDArray[np.uint8]]
    lag_us: Mapping[str, npt.NDArray[np.int64]]
    labels: Mapping[str, Array]
    ulps: int
    rewritten: Mapping[str, Mask]

    def __len__(self) -> int:
        return len(self.served.spine)

    @property
    def witnessed(self) -> Served:
        """The truth without source rows where the source cannot say what they should have been: it may end there."""
        views = {
            name: replace(rows, event=np.where(self.age[name] == Age.UNVERIFIABLE, NO_TIME, rows.event))
            for name, rows in self.truth.views.items()
        }
        return replace(self.truth, views=views)

    def take(self, rows: Array) -> Pairs:
        """The rows at `rows` (integer indices), as pairs of their own."""
        return Pairs(
            self.bundle,
            take(self.served, rows),
            take(self.truth, rows),
            take(self.as_known, rows),
            {name: column.take(rows) for name, column in self.recomputed.items()},
            _each(self.age, rows),
            _each(self.lag_us, rows),
            _each(self.labels, rows),
            self.ulps,
            _each(self.rewritten, rows),
        )


def concat(parts: Sequence[Pairs]) -> Pairs:
    """Pairs of one bundle, one below the other."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    rewritten = {
        view: np.concatenate([p.rewritten.get(view, np.zeros(len(p), dtype=bool)) for p in parts])
        for view in sorted({view for p in parts for view in p.rewritten})
    }
    return Pairs(
        first.bundle,
        _concat([p.served for p in parts]),
        _concat([p.truth for p in parts]),
        _concat([p.as_known for p in parts]),
        _columns([p.recomputed for p in parts]),
        _arrays([p.age for p in parts]),
        _arrays([p.lag_us for p in parts]),
        _arrays([p.labels for p in parts]),
        max(p.ulps for p in parts),
        rewritten,
    )


def ulps_to(classes: Iterable[str]) -> int:
    """How many units in the last place two sides may differ: none where all ran on this numeric class."""
    return 0 if set(classes) == {numeric_class()} else ULPS_ACROSS_CLASSES


def _each(arrays: Mapping[str, Array], rows: Array) -> dict[str, Array]:
    return {name: values[rows] for name, values in arrays.items()}


def take(side: Served, rows: Array) -> Served:
    """The rows at `rows` (integer indices) of an answer."""
    return Served(
        side.spine.take(rows),
        {name: view.take(rows) for name, view in side.views.items()},
        {name: column.take(rows) for name, column in side.derived.items()},
        side.vector[rows],
        None if side.prediction is None else side.prediction[rows],
    )


def _concat(sides: Sequence[Served]) -> Served:
    spines = [side.spine for side in sides]
    spine = Spine(
        np.concatenate([s.ids for s in spines]),
        np.concatenate([s.as_of for s in spines]),
        _columns([s.keys for s in spines]),
        _columns([s.request for s in spines]),
    )
    predictions = [np.full(len(side.spine), np.nan) if side.prediction is None else side.prediction for side in sides]
    asked = any(side.prediction is not None for side in sides)
    return Served(
        spine,
        {name: _rows([side.views[name] for side in sides]) for name in sides[0].views},
        _columns([side.derived for side in sides]),
        np.concatenate([side.vector for side in sides]),
        np.concatenate(predictions) if asked else None,
    )


def _rows(parts: Sequence[ViewRows]) -> ViewRows:
    return ViewRows(
        np.concatenate([p.status for p in parts]),
        np.concatenate([p.event for p in parts]),
        np.concatenate([p.created for p in parts]),
        np.concatenate([p.watermark for p in parts]),
        _columns([p.features for p in parts]),
    )


def _columns(parts: Sequence[Mapping[str, Column]]) -> dict[str, Column]:
    return {name: Column.concat([part[name] for part in parts]) for name in parts[0]}


def _arrays(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
