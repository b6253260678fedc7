"""Spine: rows of (who, as of when). A set of labels and a serving log are the same thing.

Users say `entity_df`, as in Feast; inside it is a Spine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewguard.errors import AskError, CastError
from skewguard.values import NO_TIME, Array, Column, Dtype, Status, cast


@dataclass(frozen=True, slots=True)
class Spine:
    """n asks, in order. `ids` (object array of str), `as_of` (int64 microseconds, UTC), keys and request columns."""

    ids: Array
    as_of: npt.NDArray[np.int64]
    keys: Mapping[str, Column]
    request: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.as_of)

    def take(self, rows: Array) -> Spine:
        """The asks at `rows`, as a spine of their own."""
        return Spine(
            self.ids[rows],
            self.as_of[rows],
            {name: column.take(rows) for name, column in self.keys.items()},
            {name: column.take(rows) for name, column in self.request.items()},
        )


def read_spine(
    table: pa.Table,
    keys: Mapping[str, Dtype],
    request: Mapping[str, Dtype],
    *,
    as_of: str = "event_timestamp",
    id_column: str | None = None,
) -> Spine:
    """Read asks from a table: one row, one ask, in order.

    `as_of` names the column of instants (timestamps with a time zone), `id_column` a string column that identifies
    each ask; without one, asks are numbered. Null keys are allowed (their answer is not_found); a missing column, a
    naive or null instant, a null id and a value of another type raise `AskError`.
    """
    wanted = {**keys, **request}
    instants = read_instants(table, as_of, [*wanted, *([id_column] if id_column else [])])
    if id_column and table[id_column].null_count:
        raise AskError(id_column, f"{table[id_column].null_count} asks have no id")
    with _asked():
        columns = {name: Column.from_arrow(table[name], dtype, name) for name, dtype in wanted.items()}
        numbers = pa.array(np.arange(len(table))).cast(pa.string())
        ids = Column.from_arrow(table[id_column] if id_column else numbers, Dtype.STRING, id_column or "").values
    return Spine(
        ids,
        instants,
        {name: columns[name] for name in keys},
        {name: columns[name] for name in request},
    )


def read_instants(table: pa.Table, as_of: str, beside: Iterable[str] = ()) -> npt.NDArray[np.int64]:
    """The instants of asks (int64 microseconds); the columns `beside` must be there as well. Raises `AskError`."""
    missing = [name for name in (as_of, *beside) if name not in table.column_names]
    if missing:
        raise AskError(missing[0], f"column is missing; the asks have {', '.join(table.column_names)}")
    kind = table.schema.field(as_of).type
    if not pa.types.is_timestamp(kind) or kind.tz is None:
        raise AskError(as_of, f"expected instants with a time zone (timestamp[us, UTC]), got {kind}")
    if table[as_of].null_count:
        raise AskError(as_of, f"{table[as_of].null_count} asks have no instant")
    with _asked():
        instants: npt.NDArray[np.int64] = cast(table[as_of], Dtype.TIMESTAMP, as_of).view(pa.int64()).to_numpy()
    return instants


def read_keys(table: pa.Table, name: str, dtype: Dtype) -> pa.Array:
    """A column of keys in its declared dtype. Raises `AskError`."""
    with _asked():
        return cast(table[name], dtype, name)


@contextmanager
def _asked() -> Iterator[None]:
    """What does not fit its dtype is said of the asks."""
    try:
        yield
    except CastError as error:
        raise AskError(str(error).partition(":")[0], str(error).partition(": ")[2]) from error


@dataclass(frozen=True, slots=True)
class ViewRows:
    """What one feature view answered to n asks, whichever side answered.

    `status` (uint8) says how present the row is; `event`, `created` (int64 microseconds, `NO_TIME` where there is none)
    name the source row; `watermark` (int64 microseconds) is the known time up to which the online store had been
    written, `NO_TIME` offline. `features` by the view's feature names.
    """

    status: npt.NDArray[np.uint8]
    event: npt.NDArray[np.int64]
    created: npt.NDArray[np.int64]
    watermark: npt.NDArray[np.int64]
    features: Mapping[str, Column]

    def take(self, rows: Array) -> ViewRows:
        """The answers to the asks at `rows`."""
        return ViewRows(
            self.status[rows],
            self.event[rows],
            self.created[rows],
            self.watermark[rows],
            {name: column.take(rows) for name, column in self.features.items()},
        )


def assemble(n: int, dtypes: Mapping[str, Dtype], parts: Iterable[tuple[Array, ViewRows]]) -> ViewRows:
    """Answers to some of n asks each, put at their places (integer indices); an ask in no part was not found."""
    status = np.full(n, Status.NOT_FOUND, dtype=np.uint8)
    event, created, watermark = (np.full(n, NO_TIME, dtype=np.int64) for _ in range(3))
    columns = {name: Column.absent(dtype, n, Status.NOT_FOUND) for name, dtype in dtypes.items()}
    for where, rows in parts:
        status[where], event[where], created[where] = rows.status, rows.event, rows.created
        watermark[where] = rows.watermark
        for name, column in rows.features.items():
            columns[name].values[where] = column.values
            columns[name].status[where] = column.status
    return ViewRows(status, event, created, watermark, columns)


def expire(
    status: npt.NDArray[np.uint8],
    event: npt.NDArray[np.int64],
    as_of: npt.NDArray[np.int64],
    ttl_us: int | None,
) -> npt.NDArray[np.uint8]:
    """The status of found rows once TTL and clock have been applied; both edges of the TTL are inclusive.

    A found row older than the TTL is EXPIRED, one whose event lies after the ask is FUTURE. The only place that knows
    this rule: join, lookup service and replay all call it.
    """
    found = status == _PRESENT
    late = found & (event > as_of)
    if late.any():
        status = np.where(late, _FUTURE, status)
    if ttl_us is not None:
        old = found & (event < as_of - ttl_us)
        if old.any():
            status = np.where(old, _EXPIRED, status)
    return status


# a member's attribute costs more than the comparison
_PRESENT, _FUTURE, _EXPIRED = (np.uint8(one) for one in (Status.PRESENT, Status.FUTURE, Status.EXPIRED))
