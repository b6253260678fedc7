"""What an on-demand view reads: each input with values to try, in its source's type and in the declared one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore, Field
from feast.feature_view import DUMMY_ENTITY_NAME
from feast.types import Array, from_value_type

from skewguard.definitions.feast import dtype_of, locate, mapped_from
from skewguard.errors import SkewguardError
from skewguard.transforms.pool import CORNERS
from skewguard.values import Dtype

_NARROW = {Dtype.FLOAT32: (Dtype.FLOAT64, 1e38), Dtype.INT32: (Dtype.INT64, 2**31)}


@dataclass(frozen=True)
class Input:
    """One column: `field` as declared, `arrow` the type in which training reads it, `pool` the values to try, the plain
    ones first; empty where nothing is known to try. `brought` is what an ask brings along."""

    field: Field
    arrow: pa.DataType
    pool: tuple[Any, ...]
    brought: bool = False

    @property
    def name(self) -> str:
        """The column's name."""
        return str(self.field.name)


def inputs_of(store: FeatureStore, view: Any) -> list[Input]:
    """The inputs of an on-demand view: features, request fields, and join keys where it names entities."""
    found: dict[str, Input] = {}
    for source in view.source_feature_view_projections.values():
        kinds = _source_types(store, source.name)
        for field in source.features:
            found[field.name] = _input(field, kinds.get(field.name))
    for source in view.source_request_sources.values():
        for field in source.schema:
            found[field.name] = _input(field, None, brought=True)
    for name in view.entities or ():
        if name != DUMMY_ENTITY_NAME:
            entity = store.get_entity(name)
            key = Field(name=entity.join_key, dtype=from_value_type(entity.value_type))
            found.setdefault(entity.join_key, _input(key, None))
    return list(found.values())


def _input(field: Field, arrow: pa.DataType | None, brought: bool = False) -> Input:
    pool = _pool(field.dtype)
    declared = _arrow(field.dtype) if pool else pa.null()
    if arrow is not None and _holds(arrow, declared):
        return Input(field, arrow, pool, brought)
    return Input(field, declared, pool, brought)


def _pool(kind: Any) -> tuple[Any, ...]:
    if isinstance(kind, Array):
        inner = _pool(kind.base_type)
        return ([inner[1]], [], [inner[0]], list(inner[:3]), [inner[2]] * 2) if inner else ()
    dtype = dtype_of(kind)
    if dtype is None:
        return ()
    if dtype is Dtype.TIMESTAMP:  # Feast cuts to seconds online
        first = CORNERS[dtype][0]
        return (first, *CORNERS[dtype][1:], first + timedelta(milliseconds=950))
    if dtype in _NARROW:
        wide, limit = _NARROW[dtype]
        return tuple(value for value in CORNERS[wide] if abs(value) < limit)
    return tuple(CORNERS[dtype])


def _arrow(kind: Any) -> pa.DataType:
    if isinstance(kind, Array):
        return pa.list_(_arrow(kind.base_type))
    dtype = dtype_of(kind)
    return dtype.arrow if dtype else pa.null()


def _holds(source: pa.DataType, declared: pa.DataType) -> bool:
    """Whether a source column can carry the values to try: training reads them as they are, serving as declared."""
    wider = pa.types.is_floating(source) and pa.types.is_floating(declared)
    return bool(wider or (pa.types.is_integer(source) and declared.equals(pa.int32()) and source.equals(pa.int64())))


def _source_types(store: FeatureStore, view: str) -> dict[str, pa.DataType]:
    """The types of a view's columns in its Parquet source, as far as that can be read."""
    try:
        source: Any = store.get_feature_view(view).batch_source
        path = locate(source.path, Path(store.repo_path))
        files = sorted(Path(path).rglob("*.parquet")) if Path(path).is_dir() else [Path(path)]
        schema = pq.read_schema(files[0])
    except (SkewguardError, AttributeError, IndexError, OSError, pa.ArrowException):
        return {}
    back = {old: new for new, old in mapped_from(source).items()}
    return {back.get(field.name, field.name): field.type for field in schema}
