"""What somebody else's service or log says of a view, in our form: one meaning for a recording and for an import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skewguard.definitions import View
from skewguard.spine import ViewRows
from skewguard.values import NO_TIME, Column, Status

_FEAST = np.full(256, Status.NULL, dtype=np.uint8)
_FEAST[[1, 2, 3, 4]] = [Status.PRESENT, Status.NULL, Status.NOT_FOUND, Status.EXPIRED]


@dataclass(frozen=True, slots=True)
class Taken:
    """A feature's n values, with its event times (int64 microseconds, `NO_TIME` for none) and Feast's statuses (0 to
    4), each where known."""

    column: Column
    event: npt.NDArray[np.int64] | None = None
    said: npt.NDArray[np.uint8] | None = None

    def judged(self) -> Column:
        """The values with a reason where there is none: what was said, else not_found where there is no time."""
        column = self.column
        gone = ~column.present
        if not gone.any():
            return column
        status = column.status.copy()
        if self.said is not None:
            status[gone] = np.maximum(_FEAST[self.said], np.uint8(Status.NULL))[gone]
        elif self.event is not None:
            status[gone & (self.event == NO_TIME)] = Status.NOT_FOUND
        else:  # without times nobody can tell a null from a row that is not there
            status[gone] = Status.NOT_FOUND
        return Column.build(column.dtype, column.values, status)


def view_rows(view: View, taken: Mapping[str, Taken], n: int) -> ViewRows:
    """What the view answered to n asks; features that nobody took are NOT_REQUESTED."""
    event = np.full(n, NO_TIME, dtype=np.int64)
    status = np.full(n, Status.NOT_REQUESTED, dtype=np.uint8)
    features: dict[str, Column] = {}
    for feature in view.features:
        one = taken.get(feature.name)
        if one is None:
            features[feature.name] = Column.absent(feature.dtype, n, Status.NOT_REQUESTED)
            continue
        features[feature.name] = one.judged()
        status = np.minimum(status, features[feature.name].status)
        if one.event is not None:
            event = np.maximum(event, one.event)
    # A row is there as soon as one of its values is, be it null.
    status = np.where(status == Status.NULL, np.uint8(Status.PRESENT), status).astype(np.uint8)
    none = np.full(n, NO_TIME, dtype=np.int64)
    return ViewRows(status, event, none, none, features)
