"""The one path from raw rows to a prediction: views -> transforms -> vector -> prediction -> Served.

The service, batch scoring and a shadow all come through here, and so do Snapshot and Replay (without a model). A
`Served` has one flat Arrow form, which is both a row of the serving log and a row of a snapshot:

    id, event_timestamp                       who asked, as of when
    e__<key>, q__<field>                      the keys and request fields of the ask
    <view>__status, __event_ts, __created_ts, __watermark     which source row answered, and how present it is
    <view>__<feature>                         stored and derived features, null where there is no value
    statuses                                  one byte per feature, in the order of `Bundle.dtypes`
    vector                                    what enters the model: float64, one per name in `Bundle.vector`
    prediction                                null where no model was asked
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewguard.definitions import Bundle, Derived
from skewguard.errors import CastError, DefinitionError
from skewguard.model import Model
from skewguard.spine import Spine, ViewRows
from skewguard.values import NO_TIME, Array, Block, Column, Dtype

_FEW = 4096
"""Rows up to which columns are gathered first: a copy that a snapshot of millions of rows would feel."""
_NOTHING = np.empty((0, 0))
_TIMES = ("event_ts", "created_ts", "watermark")


@dataclass(frozen=True, slots=True)
class Served:
    """n answered asks. `vector` float64 (n, k), NaN where a feature has no value; `prediction` float64 (n,) or None."""

    spine: Spine
    views: Mapping[str, ViewRows]
    derived: Mapping[str, Column]
    vector: npt.NDArray[np.float64]
    prediction: npt.NDArray[np.float64] | None = None

    def feature(self, bundle: Bundle, name: str) -> Column:
        """A stored or derived feature by its full name."""
        view = bundle.view_of.get(name)
        return self.derived[name] if view is None else self.views[view].features[name.removeprefix(view + "__")]

    def only_block(self, bundle: Bundle) -> Block | None:
        """All features, where they lie side by side already, in the order of `Bundle.dtypes`."""
        if len(bundle.views) != 1 or bundle.derived:
            return None
        features = self.views[bundle.views[0].name].features
        return features if isinstance(features, Block) else None

    def features(self, bundle: Bundle) -> dict[str, Column]:
        """Every stored and derived feature, by full name, in the order of `Bundle.dtypes`."""
        return {name: self.feature(bundle, name) for name in bundle.dtypes}


class Log(Protocol):
    """What the answer is written to before it is given."""

    def append(self, batch: pa.RecordBatch) -> None:
        """Write rows; when it returns they are in the log. Raises `LogError`."""
        ...

    def check(self) -> None:
        """Raise `LogError` where rows could not be written now."""
        ...


def answer(bundle: Bundle, spine: Spine, views: Mapping[str, ViewRows], model: Model | None = None) -> Served:
    """Run the transforms on what the views answered, build the vector, ask the model."""
    derived = derive(bundle, spine, views)
    matrix = vector(bundle, Served(spine, views, derived, _NOTHING))
    return Served(spine, views, derived, matrix, None if model is None else model.predict(matrix))


def derive(bundle: Bundle, spine: Spine, views: Mapping[str, ViewRows]) -> dict[str, Column]:
    """Every derived feature, by full name: those of the on-demand views, then the model inputs, which may read them."""
    if not bundle.derived:
        return {}
    known: dict[str, Column] = dict(spine.request)
    for view in bundle.views:
        known |= {view.full_name(name): column for name, column in views[view.name].features.items()}
    for specs, program in bundle.stages:
        for spec, column in zip(specs, program.run(known), strict=True):
            known[spec.full_name] = _declared(column, spec)
    return {spec.full_name: known[spec.full_name] for spec in bundle.derived}


def _declared(column: Column, spec: Derived) -> Column:
    """A derived value in its declared dtype (Float32 of a float transform narrows, on both sides)."""
    if column.dtype is spec.dtype:
        return column
    try:
        return Column.from_arrow(column.to_arrow(), spec.dtype, spec.full_name, column.status)
    except CastError as error:
        raise DefinitionError(f"{spec.function} is declared {spec.dtype}: {error}") from error


def vector(bundle: Bundle, served: Served) -> npt.NDArray[np.float64]:
    """What enters the model: float64 (n, k), C-contiguous, NaN where there is no value."""
    block = served.only_block(bundle)
    if block is not None and block.dtype is Dtype.FLOAT64 and bundle.straight:
        return np.ascontiguousarray(block.matrix.T)
    columns = [served.feature(bundle, name) for name in bundle.vector]
    n = len(served.spine)
    if 0 < n <= _FEW and columns and all(column.dtype is Dtype.FLOAT64 for column in columns):  # one gathering
        return np.ascontiguousarray(np.concatenate([column.values for column in columns]).reshape(-1, n).T)
    matrix = np.empty((n, len(columns)), dtype=np.float64)
    for i, column in enumerate(columns):
        matrix[:, i] = column.values
        if not column.dtype.is_float:
            matrix[~column.present, i] = np.nan
    return matrix


def statuses(bundle: Bundle, served: Served) -> npt.NDArray[np.uint8]:
    """The status of every feature, uint8 (n, features of `Bundle.dtypes`), C-contiguous."""
    block = served.only_block(bundle)
    if block is not None:
        return np.ascontiguousarray(block.statuses.T)
    columns = [column.status for column in served.features(bundle).values()]
    n, k = len(served.spine), len(columns)
    return np.ascontiguousarray(np.concatenate(columns or [np.empty(0, np.uint8)]).reshape(k, n).T)


# -- the flat form ----------------------------------------------------------------------------------------------------


def schema(bundle: Bundle) -> pa.Schema:
    """The Arrow schema of a `Served` of this bundle; raises `DefinitionError` where two columns would share a name."""
    stamp = Dtype.TIMESTAMP.arrow
    fields = [pa.field("id", pa.string(), nullable=False), pa.field("event_timestamp", stamp, nullable=False)]
    fields += [pa.field(f"e__{name}", dtype.arrow) for name, dtype in bundle.keys.items()]
    fields += [pa.field(f"q__{field.name}", field.dtype.arrow) for field in bundle.request]
    for view in bundle.views:
        fields.append(pa.field(f"{view.name}__status", pa.uint8(), nullable=False))
        fields += [pa.field(f"{view.name}__{time}", stamp) for time in _TIMES]
    fields += [pa.field(view.full_name(f.name), f.dtype.arrow) for view in bundle.views for f in view.features]
    fields += [pa.field(derived.full_name, derived.dtype.arrow) for derived in bundle.derived]
    fields.append(pa.field("statuses", pa.binary(len(bundle.dtypes)), nullable=False))
    fields.append(pa.field("vector", pa.list_(pa.float64(), len(bundle.vector)), nullable=False))
    fields.append(pa.field("prediction", pa.float64()))
    names = [field.name for field in fields]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DefinitionError(
            f"service {bundle.service}: two columns of its log would be called {', '.join(twice)}. Rename the feature: "
            "status, event_ts, created_ts and watermark are a view's own, and __ separates a view from its features."
        )
    return pa.schema(fields)


def to_batch(bundle: Bundle, served: Served, into: pa.Schema) -> pa.RecordBatch:
    """The flat form; `into` is `schema(bundle)`, made once by the caller."""
    spine = served.spine
    columns: list[pa.Array] = [pa.array(spine.ids, pa.string()), _instants(spine.as_of)]
    columns += [spine.keys[name].to_arrow() for name in bundle.keys]
    columns += [spine.request[field.name].to_arrow() for field in bundle.request]
    for view in bundle.views:
        rows = served.views[view.name]
        columns.append(pa.array(rows.status))
        columns += [_instants(times) for times in (rows.event, rows.created, rows.watermark)]
    by_row = statuses(bundle, served)
    whole = not by_row.any()
    columns += [column.to_arrow(whole=whole) for column in served.features(bundle).values()]
    columns.append(pa.Array.from_buffers(into.field("statuses").type, len(spine), [None, pa.py_buffer(by_row)]))
    flat = pa.array(np.ascontiguousarray(served.vector).reshape(-1))
    # `from_arrays` divides by the length of the lists, which is 0 where nothing is numeric
    columns.append(pa.Array.from_buffers(into.field("vector").type, len(spine), [None], children=[flat]))
    prediction = served.prediction
    columns.append(pa.nulls(len(spine), pa.float64()) if prediction is None else pa.array(prediction, from_pandas=True))
    return pa.RecordBatch.from_arrays(columns, schema=into)


def from_table(bundle: Bundle, table: pa.Table) -> Served:
    """Read the flat form back."""
    statuses = table["statuses"].combine_chunks()
    flat = statuses.chunk(0) if isinstance(statuses, pa.ChunkedArray) else statuses
    raw = b"".join(flat.to_pylist())
    codes = np.frombuffer(raw, dtype=np.uint8).reshape(len(table), len(bundle.dtypes))
    features = {
        name: Column.from_arrow(table[name], dtype, name, status=np.ascontiguousarray(codes[:, i]))
        for i, (name, dtype) in enumerate(bundle.dtypes.items())
    }
    views = {}
    for view in bundle.views:
        event, created, watermark = (_micros(table[f"{view.name}__{time}"]) for time in _TIMES)
        views[view.name] = ViewRows(
            np.ascontiguousarray(table[f"{view.name}__status"].to_numpy()),
            event,
            created,
            watermark,
            {f.name: features[view.full_name(f.name)] for f in view.features},
        )
    spine = Spine(
        table["id"].to_numpy(),
        _micros(table["event_timestamp"]),
        {name: Column.from_arrow(table[f"e__{name}"], dtype, name) for name, dtype in bundle.keys.items()},
        {f.name: Column.from_arrow(table[f"q__{f.name}"], f.dtype, f.name) for f in bundle.request},
    )
    matrix = np.array(table["vector"].combine_chunks().flatten()).reshape(len(table), len(bundle.vector))
    prediction = table["prediction"]
    return Served(
        spine,
        views,
        {d.full_name: features[d.full_name] for d in bundle.derived},
        matrix,
        None if prediction.null_count == len(table) else prediction.to_numpy(),
    )


def _instants(us: Array) -> pa.Array:
    gone = us == NO_TIME
    return pa.array(us, type=pa.int64(), mask=gone if gone.any() else None).view(Dtype.TIMESTAMP.arrow)


def _micros(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.ascontiguousarray(column.cast(pa.int64()).fill_null(NO_TIME).to_numpy())
