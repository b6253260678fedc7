"""An ordinary Feast on-demand view, made of transforms."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

os.environ.setdefault("FEAST_USAGE", "False")

from feast import Field, OnDemandFeatureView
from feast import types as feast_types

from skewguard.contract import Contract, transforms
from skewguard.definitions.proof import unproven_functions
from skewguard.errors import DefinitionError
from skewguard.transforms import Transform, load, stub
from skewguard.values import Dtype

_TYPES = {
    Dtype.FLOAT64: feast_types.Float64,
    Dtype.INT64: feast_types.Int64,
    Dtype.BOOL: feast_types.Bool,
    Dtype.STRING: feast_types.String,
    Dtype.TIMESTAMP: feast_types.UnixTimestamp,
}


def on_demand(
    *,
    name: str,
    sources: Sequence[Any],
    functions: Iterable[Transform | str],
    tags: Mapping[str, str] | None = None,
    description: str = "",
    owner: str = "",
) -> OnDemandFeatureView:
    """Feast's on-demand view `name`, one feature per function, named for it and of its type.

    `sources` as in Feast: feature views, projections of them, request sources; each parameter of a function is a
    feature or field of exactly one of them, or `view__feature`. `functions` are decorated with `@transform` and lie in
    a module that can be imported wherever features are served; `module:function` will do. `tags` are the view's:
    contracts, and `unproven(...)` for a function that is taken although it is not proven.

    Raises `DefinitionError` with every complaint, and so stops `feast apply`: a function that is not proven and not
    waived, one that cannot be imported by its name, a parameter that no source has.
    """
    complaints: list[str] = []
    found = [one for function in functions if (one := _found(f"on_demand {name!r}", function, complaints))]
    complaints += _unread(name, sources, found)
    twice = sorted({one.name for one in found if [other.name for other in found].count(one.name) > 1})
    complaints += [f"on_demand {name!r}: two functions are called {one}" for one in twice]
    if not found and not complaints:
        complaints.append(f"on_demand {name!r}: expected at least one function")
    own = dict(tags or {})
    try:
        Contract.from_tags(f"on_demand {name!r}", own)
    except DefinitionError as error:
        complaints += error.complaints
    complaints += unproven_functions(name, found, own)
    if complaints:
        raise DefinitionError(complaints)
    text = stub.body(name, found)
    return OnDemandFeatureView(
        name=name,
        sources=list(sources),
        schema=[Field(name=one.name, dtype=_TYPES[one.output]) for one in found],
        udf=stub.function_of(name, text),
        udf_string=text,
        mode="pandas",
        tags=own | transforms(*(one.reference for one in found)),
        description=description,
        owner=owner,
    )


def _found(where: str, function: object, complaints: list[str]) -> Transform | None:
    """The transform, if a process that knows only its name finds the same."""
    if not isinstance(function, Transform | str):
        complaints.append(f"{where}: expected a function decorated with @transform, got {function!r}")
        return None
    reference = function if isinstance(function, str) else function.reference
    try:
        named = load(reference)
    except DefinitionError as error:
        complaints.append(
            f"{where}: {error}. Feast runs it by that name: define it at the top of an importable module."
        )
        return None
    if isinstance(function, Transform) and named.function is not function.function:
        complaints.append(f"{where}: {reference} is another function than the one given; Feast runs it by that name")
        return None
    if named.fits:
        complaints.append(
            f"{where}: {reference} has fitted arguments, and Feast runs a view before there is a snapshot. Name it in "
            f"the feature service: tags=model_input({reference!r})"
        )
        return None
    return named


def _unread(view: str, sources: Sequence[Any], functions: Sequence[Transform]) -> list[str]:
    """Complaints about parameters that are not exactly one of the inputs; silent where Feast has yet to infer those."""
    inputs: list[set[str]] = []
    for source in sources:
        columns = [field.name for field in getattr(source, "features", None) or getattr(source, "schema", None) or ()]
        if not columns:
            return []
        projection = getattr(source, "projection", source)
        known_as = getattr(projection, "name_alias", None) or source.name
        own = [{column, f"{known_as}__{column}"} for column in columns]
        inputs += [{column} for column in columns] if _is_request(source) else own
    names = ", ".join(sorted(min(names, key=len) for names in inputs))
    complaints = []
    for one in functions:
        for parameter, _ in one.inputs:
            count = sum(parameter in names for names in inputs)
            if count != 1:
                what = f"none of its inputs: {names}" if not count else "an input of several sources; use view__feature"
                complaints.append(f"on_demand {view!r}: {one.reference} reads {parameter!r}, {what}")
    return complaints


def _is_request(source: Any) -> bool:
    return not hasattr(source, "projection") and not hasattr(source, "name_alias")
