"""Which columns a retrieval has: of which view, under which name, in which dtype."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from feast.errors import FeatureNameCollisionError
from feast.feature_view import FeatureView
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import Array

from skewguard.definitions import View
from skewguard.definitions.feast import dtype_of, mapped_from, read_view
from skewguard.errors import AskError, DefinitionError
from skewguard.offline.scan import run_query
from skewguard.offline.tables import Output, elements, widened
from skewguard.values import Dtype, accepts, cast


@dataclass(frozen=True, slots=True)
class Computed:
    """A column that an on-demand view computes: its name in the answer, its type in Feast, its place in an error."""

    name: str
    feast_type: Any
    where: str


def asked_of(
    feature_views: Iterable[FeatureView], refs: Sequence[str], full: bool, repo: Path
) -> tuple[dict[str, View], list[Output]]:
    """The views behind the references `view:feature`, and a column for each, in the order of views and references."""
    views: dict[str, View] = {}
    outputs: list[Output] = []
    complaints: list[str] = []
    for view in feature_views:
        name = view.projection.name_to_use()
        wanted = dict.fromkeys(ref.partition(":")[2] for ref in refs if ref.partition(":")[0] == name)
        types = {field.name: field.dtype for field in view.features}
        scalars = [feature for feature in wanted if feature not in types or dtype_of(types[feature])]
        views[name] = read_view(view, view.projection, scalars, repo, complaints)
        back = mapped_from(view.batch_source)
        for feature in wanted:
            column = f"{views[name].name}__{feature}" if full else feature
            if feature in scalars:
                outputs.append(Output(column, name, feature, dtype_of(types.get(feature))))
            else:
                outputs.append(Output(column, name, back.get(feature, feature), _element(types[feature]), carried=True))
    if complaints:
        raise DefinitionError(complaints)
    return views, outputs


def apart(
    outputs: Sequence[Output], asked: Sequence[str], derived: Sequence[Computed], read: set[str], full: bool
) -> list[Output]:
    """The outputs under names that no two columns share: the asks' own columns keep theirs.

    A feature named as one of these comes as `view__feature`, with a warning, unless an on-demand view computes with
    it (`read`: names of such features); nothing else can be told apart and is refused.
    """
    clashing = [output for output in outputs if output.name in asked]
    renamed = {id(output): f"{output.view.partition('@')[0]}__{output.name}" for output in clashing if not full}
    result = [replace(output, name=renamed.get(id(output), output.name)) for output in outputs]
    names = [*asked, *(output.name for output in result), *(column.name for column in derived)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice and not set(twice) & set(asked):
        refs = [f"{output.view}:{output.feature}" for output in outputs if output.name in twice]
        raise FeatureNameCollisionError(refs, full)
    lost = twice or sorted(read & {output.name for output in clashing})
    if lost:
        hint = "rename the column" if full else "rename the column, or ask with full_feature_names=True"
        raise AskError(lost[0], f"is a column of the asks and the name of a feature; {hint}")
    for output in clashing:
        warnings.warn(
            f"{output.name} is a column of the asks and a feature of {output.view}: "
            f"the feature comes as {renamed[id(output)]}",
            stacklevel=4,
        )
    return result


def computed(on_demand: Iterable[OnDemandFeatureView], refs: Sequence[str], full: bool) -> list[Computed]:
    """The columns that on-demand views compute, as far as they are asked for."""
    on_demand = list(on_demand)
    complaints = [
        f"on-demand feature view {view.name}: {why}"
        for view in on_demand
        for why in (
            "Feast carries out its aggregations neither here nor online" if view.aggregations else "",
            "Feast hands a singleton's function single values online and whole columns here; write it for columns"
            if view.singleton
            else "",
        )
        if why
    ]
    if complaints:
        raise DefinitionError(complaints)
    return [
        Computed(
            f"{view.projection.name_to_use()}__{feature.name}" if full else feature.name,
            feature.dtype,
            f"on-demand feature view {view.name}: {feature.name}",
        )
        for view in on_demand
        for feature in view.features
        if {f"{view.name}:{feature.name}", f"{view.projection.name_to_use()}:{feature.name}"} & set(refs)
    ]


def declared(column: pa.ChunkedArray, feast_type: Any, where: str) -> pa.Array | pa.ChunkedArray:
    """A computed column in its declared dtype, through the one cast."""
    dtype = dtype_of(feast_type)
    if dtype is not None:
        return widened(cast(column, dtype, where), dtype)
    return elements(column, _element(feast_type), where)


def _element(feast_type: Any) -> Dtype | None:
    """The dtype of a list's elements; None for a list of something else, and for what is no list."""
    return dtype_of(feast_type.base_type) if isinstance(feast_type, Array) else None


def entity_table(entity_df: pd.DataFrame | pa.Table | str, repo: Path) -> tuple[pa.Table, str]:
    """The asks as a table, and the name of their column of instants: `event_timestamp`, or the only one there is.

    A string is a SQL query over files, for DuckDB. An instant without a time zone is read as UTC, one that is text is
    parsed. Raises `AskError`.
    """
    if isinstance(entity_df, str):
        entity_df = run_query(entity_df, repo)
    if isinstance(entity_df, pa.Table):
        table, as_of = entity_df, _instants(dict(entity_df.schema.empty_table().to_pandas().dtypes))
    elif isinstance(entity_df, pd.DataFrame):
        as_of = _instants(dict(zip(entity_df.columns, entity_df.dtypes, strict=True)))
        try:
            if pd.api.types.is_string_dtype(entity_df[as_of]) or pd.api.types.is_object_dtype(entity_df[as_of]):
                entity_df = entity_df.assign(**{as_of: pd.to_datetime(entity_df[as_of], utc=True)})
            table = pa.Table.from_pandas(entity_df, preserve_index=False)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise AskError("entity_df", f"expected columns of one type each: {error}") from error
    else:
        raise AskError("entity_df", f"expected a data frame or a SQL query, got {type(entity_df).__name__}")
    if len(table) and not accepts(Dtype.TIMESTAMP, table.schema.field(as_of).type):
        raise AskError(as_of, f"expected instants, got {table.schema.field(as_of).type}")
    return table, as_of


def _instants(schema: dict[str, Any]) -> str:
    name: str = infer_event_timestamp_from_entity_df(schema)
    return name


_IN_SPARK = {
    "bool": "boolean",
    "int8": "tinyint",
    "int16": "smallint",
    "int32": "int",
    "int64": "bigint",
    "uint8": "smallint",
    "uint16": "int",
    "uint32": "bigint",
    "large_string": "string",
    "date32[day]": "date",
}


def type_in_arrow(kind: pa.DataType) -> str:
    """A column's type as Feast's file sources spell it."""
    return f"list<item: {type_in_arrow(kind.value_type)}>" if pa.types.is_list(kind) else str(kind)


def type_in_spark(kind: pa.DataType) -> str:
    """A column's type as Feast's Spark sources spell it."""
    if pa.types.is_list(kind):
        return f"array<{type_in_spark(kind.value_type)}>"
    name = str(kind).partition("[" if pa.types.is_timestamp(kind) else "\0")[0]
    return _IN_SPARK.get(name, name)
