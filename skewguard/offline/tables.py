"""Asks and answers as Arrow tables: what a data frame of asks becomes, and what it comes back as."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewguard.definitions import Key, View
from skewguard.errors import AskError, CastError, SourceError
from skewguard.offline.scan import read_source
from skewguard.offline.store import OfflineStore, Rule
from skewguard.spine import Spine
from skewguard.values import NO_TIME, Column, Dtype, Status, cast

if TYPE_CHECKING:
    import pandas as pd

_WIDE = {Dtype.FLOAT32: pa.float64(), Dtype.INT32: pa.int64()}
"""A declared value in the type that Python has for it. The answer of an online store arrives in these types, and a
function that computes on both must see the same."""

_EXACT = 1 << 53
"""Up to here float64 holds every integer."""


@dataclass(frozen=True, slots=True)
class Output:
    """A column of the answer: a feature of `view` (its key in `Question.views`), under the name the asker expects.

    `carried` columns come as they lie in the source, `feature` is their name there, and `dtype` is that of a list's
    elements, None for whatever is no list of a dtype.
    """

    name: str
    view: str
    feature: str
    dtype: Dtype | None
    carried: bool = False


@dataclass(frozen=True)
class Question:
    """What to answer to a table of asks: the views by name, and the columns to append, in order."""

    views: Mapping[str, View]
    outputs: Sequence[Output]
    rule: Rule = Rule.FEAST
    memory_limit: str | None = None
    threads: int | None = None

    @cached_property
    def _asked(self) -> list[View]:
        """The views under the names by which they are asked here, and each key apart from another dtype's."""
        return [
            replace(view, name=name, keys=tuple(replace(key, ask=_typed(key)) for key in view.keys))
            for name, view in self.views.items()
        ]

    def answer(self, asks: pa.Table, as_of: str) -> pa.Table:
        """The asks with an answer beside each: same rows, same order, their own columns untouched."""
        spine = self.spine(asks, as_of)
        with self._store() as store:
            return self._beside(asks, spine, store)

    def batches(self, asks: pa.Table, as_of: str, rows: int) -> Iterator[pa.RecordBatch]:
        """The same in batches of `rows`, each answered when it is taken."""
        spine = self.spine(asks, as_of)
        with self._store() as store:
            for start in range(0, len(asks), rows):
                chosen = np.arange(start, min(start + rows, len(asks)))
                table = self._beside(asks.slice(start, rows), spine.take(chosen), store)
                yield from table.combine_chunks().to_batches()

    def spine(self, asks: pa.Table, as_of: str) -> Spine:
        """The asks as a spine; an ask without an instant is kept, and nothing is known to it.

        Raises `AskError` for a missing key, or a value that is not of the key's declared dtype.
        """
        keys: dict[str, Column] = {}
        for name, view in self.views.items():
            for key in view.keys:
                if key.ask not in asks.column_names:
                    raise AskError(
                        key.ask,
                        f"column is missing: feature view {name} is asked by it; "
                        f"the asks have {', '.join(asks.column_names)}",
                    )
                if _typed(key) not in keys:
                    keys[_typed(key)] = _column(asks, key.ask, key.dtype)
        instants = _column(asks, as_of, Dtype.TIMESTAMP)
        stamps = np.where(instants.present, instants.values.view(np.int64), NO_TIME)
        return Spine(np.full(len(asks), "", dtype=object), stamps, keys, {})

    def _store(self) -> OfflineStore:
        carry: dict[str, list[str]] = {}
        for output in self.outputs:
            if output.carried:
                carry.setdefault(output.view, []).append(output.feature)
        return OfflineStore(self._asked, self.rule, memory_limit=self.memory_limit, threads=self.threads, carry=carry)

    def _beside(self, asks: pa.Table, spine: Spine, store: OfflineStore) -> pa.Table:
        answers = store.answer(spine)
        carried = {view: store.carried(view, spine, answers[view]) for view in store.carry}
        for output in self.outputs:
            if output.carried:
                where = f"{self.views[output.view].source.path} (view {output.view}): column {output.feature!r}"
                column = elements(carried[output.view][output.feature], output.dtype, where)
            else:
                column = widened(answers[output.view].features[output.feature].to_arrow(), output.dtype)
            asks = asks.append_column(output.name, column)
        return asks


def widened(array: pa.Array, dtype: Dtype | None) -> pa.Array:
    """Values of a dtype in the type that Python has for them: floats and integers of 64 bits."""
    return array.cast(_WIDE[dtype]) if dtype in _WIDE else array


def elements(column: pa.ChunkedArray, dtype: Dtype | None, where: str) -> pa.Array | pa.ChunkedArray:
    """A column of lists whose elements went through the cast to `dtype`; as it is where `dtype` is None."""
    if dtype is None:
        return column
    kind = column.type
    if pa.types.is_null(kind):
        return column.cast(pa.list_(_WIDE.get(dtype, dtype.arrow)))
    if pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
        column = column.cast(pa.list_(kind.value_type))
    if not pa.types.is_list(column.type):
        raise SourceError(f"{where}: expected a list of {dtype}, got {kind}")
    lists = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)
    try:
        values = widened(cast(lists.values, dtype, where), dtype)
    except CastError as error:
        raise SourceError(str(error)) from error
    return pa.ListArray.from_arrays(lists.offsets, values, mask=lists.is_null())


def range_asks(views: Mapping[str, View], as_of: str, since: int, until: int) -> pa.Table:
    """Every (keys, event) that the views' sources have in [since, until] (microseconds), each once, in order of time.

    A view without keys asks only where no view has any. Rows without a key ask nothing.
    """
    keyed = {name: view for name, view in views.items() if view.keys} or dict(views)
    found = []
    for name, view in keyed.items():
        where = f"{view.source.path} (view {name})"
        columns = [*(key.column for key in view.keys), view.source.timestamp]
        table = read_source(view.source, columns, since=since, until=until)
        asks = {key.ask: _cast(table[key.column], key.dtype, f"{where}: {key.column}") for key in view.keys}
        asks[as_of] = _cast(table[view.source.timestamp], Dtype.TIMESTAMP, f"{where}: {view.source.timestamp}")
        found.append(pa.table(asks).drop_null())
    try:
        together = pa.concat_tables(found, promote_options="permissive")
    except pa.ArrowException as error:
        raise AskError(
            "entity_df", f"the views' keys have no type in common, ask with a data frame: {error}"
        ) from error
    names = [*(name for name in together.column_names if name != as_of), as_of]
    distinct = together.group_by(names, use_threads=False).aggregate([]).select(names)
    return distinct.sort_by([(name, "ascending") for name in (as_of, *names[:-1])])


def to_frame(table: pa.Table, dtypes: Mapping[str, Dtype]) -> pd.DataFrame:
    """The table as a data frame in which no declared value is another one.

    An integer column that has nulls is float64, as pandas will have it, unless that loses digits: then Int64. A
    float32 column is float32; without nulls it is pandas' Float32, because numpy's gives its values out as doubles
    (0.1 as 0.10000000149011612).
    """
    import pandas as pd

    frame: pd.DataFrame = table.to_pandas()
    for name in set(dtypes) & set(table.column_names):
        dtype, column = dtypes[name], table[name]
        if dtype is Dtype.FLOAT32:
            narrow = frame[name].astype("float32")
            frame[name] = narrow if column.null_count else narrow.astype(pd.Float32Dtype())
        elif dtype is Dtype.INT64 and column.null_count and _beyond(column):
            frame[name] = column.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return frame.reset_index(drop=True)


def _beyond(column: pa.ChunkedArray) -> bool:
    ends = pc.min_max(column).as_py()
    return ends["min"] is not None and (ends["min"] < -_EXACT or ends["max"] > _EXACT)


def _typed(key: Key) -> str:
    """Views may declare one column of the asks with different dtypes: to each its own."""
    return f"{key.ask}: {key.dtype}"


def _column(asks: pa.Table, name: str, dtype: Dtype) -> Column:
    if not len(asks):  # an empty data frame has columns of any type
        return Column.absent(dtype, 0, Status.NULL)
    try:
        return Column.from_arrow(asks[name], dtype, name)
    except CastError as error:
        raise AskError(name, str(error).removeprefix(f"{name}: ")) from error


def _cast(column: pa.ChunkedArray, dtype: Dtype, where: str) -> pa.Array:
    try:
        return cast(column, dtype, where)
    except CastError as error:
        raise SourceError(str(error)) from error
