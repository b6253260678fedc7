"""How Feast's views lie in the online store: the layout and the keys that skewguard's own publisher gives them."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_NAME
from feast.types import Array as FeastArray

from skewguard.contract import Contract
from skewguard.definitions import Feature, Key, Source, View
from skewguard.definitions.feast import dtype_of, mapped_from
from skewguard.errors import DefinitionError
from skewguard.online.keys import layout_key, row_key
from skewguard.online.layout import Carried, Kind, Layout
from skewguard.online.lists import list_of
from skewguard.values import Dtype

VALUE = Carried("feast.Value")
"""What skewguard computes nothing on and no list of what it does: a serialized feast.types.Value."""

_KEYS = ("string_val", "int64_val", "int32_val", "unix_timestamp_val")


@dataclass(frozen=True)
class Stored:
    """A view of Feast as it lies in the store.

    `view` has its keys and all its features; `layout` their types as packed; `names` the join keys as Feast calls them,
    in the order of the view's keys; `types` Feast's own types by feature.
    """

    view: View
    layout: Layout
    names: tuple[str, ...]
    types: Mapping[str, Any]

    def key(self, project: str, values: Mapping[str, Any]) -> bytes | None:
        """The key of the row of these `feast.types.Value`s by join key, None where one of them is null."""
        plain = []
        for name, key in zip(self.names, self.view.keys, strict=True):
            if name not in values:
                raise KeyError(f"feature view {self.view.name}: join key {name!r} is missing; got {', '.join(values)}")
            field = values[name].WhichOneof("val")
            if field is None:
                return None
            value = getattr(values[name], field)
            if field not in _KEYS or (key.dtype is Dtype.STRING) != (field == "string_val"):
                raise DefinitionError(f"feature view {self.view.name}: key {name}: expected {key.dtype}, got {field}")
            plain.append(value * 1_000_000 if key.dtype is Dtype.TIMESTAMP else value)
        return row_key(project, self.view, plain)

    def layout_entry(self, project: str) -> dict[bytes, bytes]:
        """The layout as the store keeps it beside the rows."""
        return {layout_key(project, self.layout.digest): self.layout.to_json()}


_known: dict[int, tuple[weakref.ref[Any], Stored]] = {}


def stored(table: Any) -> Stored:
    """How a feature view, or an on-demand view that is written, lies in the store; raises `DefinitionError`."""
    entry = _known.get(id(table))
    if entry and entry[0]() is table:
        return entry[1]
    made = _read(table)
    at = id(table)
    _known[at] = (weakref.ref(table, lambda _: _known.pop(at, None) and None), made)
    return made


def _read(table: Any) -> Stored:
    source = getattr(table, "batch_source", None)
    back = mapped_from(source)
    columns = [column for column in table.entity_columns if column.name != DUMMY_ENTITY_ID]
    entities = [name for name in table.entities or [] if name != DUMMY_ENTITY_NAME]
    if len(columns) < len(entities):
        raise DefinitionError(
            f"feature view {table.name}: the join keys of {', '.join(entities)} are unknown; apply it"
        )
    keys = sorted(
        ((Key(back.get(c.name, c.name), c.name, _key_dtype(table, c)), c.name) for c in columns),
        key=lambda pair: pair[0].column,
    )
    own = {key.name for key in columns}
    fields = [field for field in table.features if field.name not in own]
    kinds = {field.name: kind_of(field.dtype) for field in fields}
    features = [Feature(f.name, back.get(f.name, f.name), kinds[f.name], Contract()) for f in fields]  # type: ignore[arg-type]
    ttl = getattr(table, "ttl", None)
    stamp, created = (getattr(source, at, "") or "" for at in ("timestamp_field", "created_timestamp_column"))
    view = View(
        name=table.name,
        keys=tuple(key for key, _ in keys),
        features=tuple(features),
        ttl_us=round(ttl.total_seconds() * 1_000_000) if ttl else None,
        max_lag_us=Contract().max_lag_us,
        source=Source("", back.get(stamp, stamp), back.get(created, created) if created else None),
    )
    return Stored(view, Layout.of(view), tuple(name for _, name in keys), {f.name: f.dtype for f in fields})


def _key_dtype(table: Any, field: Any) -> Dtype:
    dtype = dtype_of(field.dtype)
    if dtype is None or dtype.is_float:
        raise DefinitionError(
            f"feature view {table.name}: a join key of type {field.dtype} ({field.name}) cannot be looked up; "
            "use Int64, Int32, String or UnixTimestamp"
        )
    return dtype


def kind_of(feast_type: Any) -> Kind:
    """How values of Feast's type are packed."""
    dtype = dtype_of(feast_type)
    if dtype is not None:
        return dtype
    element = dtype_of(feast_type.base_type) if isinstance(feast_type, FeastArray) else None
    return list_of(element) if element else VALUE


def names_of(requested: Sequence[str] | None, made: Stored) -> list[str]:
    """The features that are asked for; all where none are named."""
    return list(requested) if requested else list(made.layout.names)
