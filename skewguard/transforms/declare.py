"""What is declared: a transform, the columns it reads, and the values that it takes from a snapshot."""

from __future__ import annotations

import functools
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from skewguard.errors import DefinitionError
from skewguard.transforms.scalars import ANNOTATED
from skewguard.values import Dtype

Inputs = tuple[tuple[str, Dtype], ...]


@dataclass(frozen=True, slots=True)
class Fit:
    """The function that makes a fitted value out of a snapshot's columns, and the columns it reads."""

    function: Callable[..., Any]
    inputs: Inputs

    @property
    def reference(self) -> str:
        """`module:function`, for people."""
        return f"{self.function.__module__}:{self.function.__qualname__}"


@dataclass(frozen=True, slots=True)
class Transform:
    """A named, typed function of columns. Calling it calls the plain function, as a unit test would.

    `fits` are its fitted arguments, in order, after the columns. With `fitted` they are bound: what is called then
    takes columns alone.
    """

    function: Callable[..., Any]
    name: str
    inputs: Inputs
    output: Dtype
    fits: tuple[tuple[str, Fit], ...] = ()
    fitted: Mapping[str, Any] | None = None

    def __call__(self, *columns: Any) -> Any:
        return self.function(*columns)

    @property
    def reference(self) -> str:
        """`module:function`, by which a definition names this transform."""
        plain = self.function.func if isinstance(self.function, functools.partial) else self.function
        return f"{plain.__module__}:{plain.__qualname__}"

    def bind(self, values: Mapping[str, Any]) -> Transform:
        """The same transform with its fitted arguments; raises `DefinitionError` for one without a value."""
        missing = [name for name, _ in self.fits if name not in values]
        if missing:
            raise DefinitionError(f"{self.reference}: {missing[0]} is not fitted; a snapshot's bundle is")
        own = {name: values[name] for name, _ in self.fits}
        return replace(self, function=functools.partial(self.function, **own), fitted=own) if own else self


def fitted(function: Callable[..., Any]) -> Fit:
    """Mark a transform's argument as a value that `function` makes out of the columns of a snapshot's rows:

        def usual_delay(carrier: str, dep_delay: int) -> dict[str, float]: ...

        @transform
        def carrier_delay(carrier: str, usual: Annotated[Mapping[str, float], fitted(usual_delay)]) -> float: ...

    The parameters of `function` are columns, annotated as a transform's: features and request fields, and only rows in
    which all of them have a value. It returns a number, a text, a dict of these by text or whole number, or a
    one-dimensional array of numbers; all of them finite. Raises `DefinitionError` for any other parameter.
    """
    inputs, _, complaints = _columns(function)
    complaints += [f"{_where(function)}: {name} is fitted: a fit reads columns alone" for name, _ in _marked(function)]
    if complaints:
        raise DefinitionError(complaints)
    return Fit(function, inputs)


def transform(function: Callable[..., Any]) -> Transform:
    """Declare `function` as a feature. Raises `DefinitionError` for a parameter that is neither a column of one of the
    five types nor fitted."""
    inputs, hints, complaints = _columns(function)
    output = _dtype(function, "return", hints, complaints)
    fits = tuple(_marked(function))
    names = list(inspect.signature(function).parameters)
    if fits and names != [*(name for name, _ in inputs), *(name for name, _ in fits)]:
        complaints.append(f"{_where(function)}: fitted arguments stand after the columns, got {', '.join(names)}")
    if complaints:
        raise DefinitionError(complaints)
    return Transform(function, function.__name__, inputs, output, fits)


def load(reference: str) -> Transform:
    """The transform behind `module:function`; raises `DefinitionError` where there is none."""
    module, _, name = reference.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DefinitionError(f"transform {reference!r}: expected module:function, got {error}") from error
    if not isinstance(found, Transform):
        raise DefinitionError(f"transform {reference!r}: expected a function decorated with @transform, got {found!r}")
    return found


def _where(function: Callable[..., Any]) -> str:
    return f"{function.__module__}:{function.__qualname__}"


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise DefinitionError(f"{_where(function)}: an annotation cannot be read: {error}") from error


def _marked(function: Callable[..., Any]) -> list[tuple[str, Fit]]:
    """The parameters that are fitted."""
    return [
        (name, mark)
        for name, hint in _hints(function).items()
        for mark in getattr(hint, "__metadata__", ())
        if isinstance(mark, Fit)
    ]


def _columns(function: Callable[..., Any]) -> tuple[Inputs, dict[str, Any], list[str]]:
    """(the parameters that stand for a column, all annotations, complaints)."""
    complaints: list[str] = []
    hints = _hints(function)
    marked = {name for name, _ in _marked(function)}
    parameters = {n: p for n, p in inspect.signature(function).parameters.items() if n not in marked}
    inputs = tuple((name, _dtype(function, name, hints, complaints)) for name in parameters)
    for name, parameter in parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            complaints.append(
                f"{_where(function)}: {name} must be a plain parameter: each stands for one column, in order"
            )
    if not inputs:
        complaints.append(f"{_where(function)}: a transform needs at least one input column")
    return inputs, hints, complaints


def _dtype(function: Callable[..., Any], name: str, hints: Mapping[str, Any], complaints: list[str]) -> Dtype:
    kind = hints.get(name)
    kind = getattr(kind, "__origin__", kind) if hasattr(kind, "__metadata__") else kind  # Annotated[float, "miles"]
    if kind not in ANNOTATED:
        shown = "nothing" if kind is None else repr(kind)
        complaints.append(
            f"{_where(function)}: {name} must be annotated float, int, bool, str or datetime, got {shown}"
        )
    return ANNOTATED.get(typing.cast(type, kind), Dtype.FLOAT64)
