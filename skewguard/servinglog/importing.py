"""Logs that were written elsewhere, in our form: Feast's logging schema, or any table with a map of its columns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewguard.answer import Served, schema, to_batch, vector
from skewguard.definitions import Bundle, View
from skewguard.errors import CastError, LogError
from skewguard.servinglog.recording import short_names
from skewguard.servinglog.taken import Taken, view_rows
from skewguard.spine import Spine, ViewRows
from skewguard.values import NO_TIME, Column, Dtype, Status, instant

_DAY = 86_400_000_000
_EXACT = 2.0**53
_LATEST_SECOND = 1e11  # in the year 5138; milliseconds since 1973 are more
_OURS = {"id": ("__request_id",), "event_timestamp": ("__log_timestamp",), "prediction": ()}


@dataclass(frozen=True, slots=True)
class Names:
    """Which column of a foreign table holds what. By key: `id`, `event_timestamp`, `prediction`, keys, request fields,
    and full names of features, followed by `__timestamp` and `__status` for a feature's own."""

    of: Mapping[str, str]

    @classmethod
    def of_table(cls, bundle: Bundle, columns: Sequence[str], given: Mapping[str, str]) -> Names:
        """What `given` says, then our own names, then Feast's. Raises `LogError` for names that mean nothing."""
        full = short_names(bundle)
        asked = [*bundle.keys, *(field.name for field in bundle.request)]
        features = [*bundle.dtypes, *(f"{name}__{more}" for name in bundle.dtypes for more in ("timestamp", "status"))]
        known = [*_OURS, *asked, *features]
        wanted = {full.get(name, name): source for name, source in given.items()}
        odd = sorted(wanted.keys() - set(known)) + sorted(set(wanted.values()) - set(columns))
        if odd:
            raise LogError(
                f"log import: {', '.join(odd)}: unknown to {bundle.service} or not in the table. "
                f"Map one of {', '.join([*_OURS, *asked, *bundle.dtypes])} to one of {', '.join(columns)}."
            )
        for name in known:
            options = (name, *_OURS.get(name, ()), f"e__{name}", f"q__{name}")
            found = next((option for option in options if option in columns), None)
            if found is not None:
                wanted.setdefault(name, found)
        short = {name: s for s, name in full.items() if s in columns}
        return cls({name: source for name, source in short.items() if name not in wanted} | wanted)


def rows_of(
    bundle: Bundle, table: pa.Table, given: Mapping[str, str], *, first: int = 0, origin: str = ""
) -> pa.RecordBatch:
    """The rows of a foreign table in the flat form, what it does not say as not_requested or null.

    Rows without an id get one of `origin` and their number, counted from `first`. Raises `LogError` for a table
    without instants or keys, instants that lie ahead, and values that do not fit the definitions.
    """
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise LogError(f"log import: the table has several columns {', '.join(twice)}. Leave one of each.")
    names = Names.of_table(bundle, table.column_names, given).of
    asked = {**bundle.keys, **{field.name: field.dtype for field in bundle.request}}
    missing = [name for name in ("event_timestamp", *bundle.keys) if name not in names]
    if missing:
        raise LogError(
            f"log import: nothing says which column is {', '.join(missing)}. Name it; there are "
            f"{', '.join(table.column_names)}."
        )
    n = len(table)
    try:
        columns = {
            name: _column(table, names, name, dtype) or Column.absent(dtype, n, Status.NULL)
            for name, dtype in asked.items()
        }
        as_of = _asked_at(table, names["event_timestamp"])
        spine = Spine(
            _ids(table, names, first, origin),
            as_of,
            {name: columns[name] for name in bundle.keys},
            {field.name: columns[field.name] for field in bundle.request},
        )
        views = {view.name: _view(view, table, names) for view in bundle.views}
        derived = {
            spec.full_name: _column(table, names, spec.full_name, spec.dtype)
            or Column.absent(spec.dtype, n, Status.NOT_REQUESTED)
            for spec in bundle.derived
        }
        served = Served(spine, views, derived, np.empty((0, 0)))
        numbers = _column(table, names, "prediction", Dtype.FLOAT64)
        served = Served(spine, views, derived, vector(bundle, served), None if numbers is None else numbers.values)
    except CastError as error:
        raise LogError(f"log import: {error}") from error
    return to_batch(bundle, served, schema(bundle))


def _asked_at(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    """When each row was served; a log has no row without an instant, and none of tomorrow."""
    as_of = _instants(table[name], name)
    if (as_of == NO_TIME).any():
        raise LogError(f"log import: {int((as_of == NO_TIME).sum())} rows have no instant in {name}.")
    late = as_of > time.time_ns() // 1000 + _DAY
    if late.any():
        at = int(np.argmax(late))
        raise LogError(
            f"log import: {int(late.sum())} rows were served in the future, row {at} at {instant(int(as_of[at]))} "
            f"by {name}. Name the column of the requests' instants, and check its unit and zone."
        )
    return as_of


def _ids(table: pa.Table, names: Mapping[str, str], first: int, origin: str) -> npt.NDArray[np.object_]:
    made = [f"{origin}-{first + i}" for i in range(len(table))]
    if "id" not in names:
        return np.array(made, dtype=object)
    given = table[names["id"]].cast(pa.string()).to_pylist()
    return np.array([own or other for own, other in zip(given, made, strict=True)], dtype=object)


def _column(table: pa.Table, names: Mapping[str, str], name: str, dtype: Dtype) -> Column | None:
    if name not in names:
        return None
    column = table[names[name]]
    if dtype is Dtype.TIMESTAMP and not pa.types.is_null(column.type):
        micros = _instants(column, names[name])
        status = np.where(micros == NO_TIME, np.uint8(Status.NULL), np.uint8(Status.PRESENT))
        return Column.build(dtype, micros.view("datetime64[us]"), status)
    if dtype in (Dtype.INT64, Dtype.INT32) and pa.types.is_floating(column.type):
        _check_digits(column, names[name])
    return Column.from_arrow(column, dtype, names[name])


def _check_digits(column: pa.ChunkedArray, name: str) -> None:
    """JSON with 7 in one line and 7.0 in another is read as floats, and so are integers beside a null elsewhere."""
    numbers = column.cast(pa.float64()).fill_null(0.0).to_numpy()
    wrong = np.abs(numbers) >= _EXACT
    if wrong.any():
        raise LogError(
            f"log import: {name}: {numbers[wrong][0]:.0f} came as a float, which holds no such integer exactly. "
            "Write the whole column as integers."
        )


def _view(view: View, table: pa.Table, names: Mapping[str, str]) -> ViewRows:
    taken = {}
    for feature in view.features:
        full = view.full_name(feature.name)
        column = _column(table, names, full, feature.dtype)
        if column is None:
            continue
        stamp, said = names.get(f"{full}__timestamp"), names.get(f"{full}__status")
        own = names.get(f"{view.name}__event_ts", f"{view.name}__event_ts")
        stamp = stamp or (own if own in table.column_names else None)
        event = None if stamp is None else _instants(table[stamp], stamp)
        codes = None if said is None else table[said].cast(pa.int64()).fill_null(0).to_numpy()
        taken[feature.name] = Taken(
            column,
            None if event is None else np.where(event > 0, event, NO_TIME),  # Feast's zero is no time
            None if codes is None else np.clip(codes, 0, 255).astype(np.uint8),
        )
    return view_rows(view, taken, len(table))


def _instants(column: pa.ChunkedArray, name: str) -> npt.NDArray[np.int64]:
    """Microseconds UTC of timestamps, dates, ISO texts and seconds; a naive one is read as UTC. `NO_TIME` for null."""
    kind = column.type
    try:
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return _of_seconds(column, name)
        if pa.types.is_timestamp(kind) and kind.tz is None:
            column = column.cast(pa.timestamp(kind.unit, tz="UTC"))
        cast = column.cast(pa.timestamp("us", tz="UTC"), safe=False)
    except pa.ArrowException as error:
        raise LogError(f"log import: {name}: expected instants, got {kind}: {error}") from error
    return np.ascontiguousarray(cast.cast(pa.int64()).fill_null(NO_TIME).to_numpy())


def _of_seconds(column: pa.ChunkedArray, name: str) -> npt.NDArray[np.int64]:
    seconds = column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()
    gone = np.isnan(seconds)
    wrong = np.abs(np.where(gone, 0.0, seconds)) > _LATEST_SECOND
    if wrong.any():
        raise LogError(
            f"log import: {name}: numbers are read as seconds since 1970, got {column[int(np.argmax(wrong))]}. "
            "Milliseconds and finer come as timestamps: give the column that type, or divide."
        )
    return np.where(gone, NO_TIME, np.round(np.where(gone, 0.0, seconds) * 1e6).astype(np.int64))
