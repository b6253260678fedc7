"""Several transforms at once: the steps that their bodies take, each taken once, however many of them share it.

A proven body takes the same elementwise steps whatever the rows are, so that its trace can be run in its place: the
same functions of numpy, called on the same arrays, without what the call of every body costs around it. A transform
with an input that lacks a value somewhere, a body that cannot be traced, and whatever raises goes to the runner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from skewguard.transforms.declare import Transform
from skewguard.transforms.runner import PRESENT, WITH_VALUE, finished, run_all
from skewguard.transforms.tracer import Ref, Step, trace
from skewguard.values import Array, Column, Dtype

Call = tuple[Transform, tuple[str, ...]]
"""A transform and the names of its columns, in the order of its parameters."""

_MOST = 512
"""So many combinations of missing inputs have a plan of their own; for others every body is called."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """`evaluate` computes the calls numbered `traced` from the arrays of the columns numbered `columns`; the runner has
    the `others`."""

    columns: tuple[int, ...]
    traced: tuple[int, ...]
    outputs: tuple[Dtype, ...]
    others: tuple[int, ...]
    evaluate: Callable[..., tuple[Array, ...]]


class Program:
    """Transforms that are run together, again and again. Those numbered in `as_they_are` are never traced."""

    def __init__(self, calls: Sequence[Call], as_they_are: Sequence[int] = ()) -> None:
        self.calls = tuple(calls)
        self._as_they_are = frozenset(as_they_are)
        self._names = tuple(dict.fromkeys(name for _, names in self.calls for name in names))
        place = {name: i for i, name in enumerate(self._names)}
        self._needs = [tuple(place[name] for name in names) for _, names in self.calls]
        self._plans: dict[tuple[bool, ...], _Plan] = {}
        wanted: list[set[Dtype]] = [set() for _ in self._names]
        for transform, names in self.calls:
            for name, (_, dtype) in zip(names, transform.inputs, strict=True):
                wanted[place[name]].add(dtype)
        self._wanted = [next(iter(dtypes)) if len(dtypes) == 1 else None for dtypes in wanted]

    def run(self, known: Mapping[str, Column]) -> list[Column]:
        """Every transform's column, in order, bit for bit as from `run_all`; `known` holds their inputs by name."""
        if not self.calls:
            return []
        columns = [known[name] for name in self._names]
        worst = _worst(columns)
        there = tuple(
            [s <= WITH_VALUE and c.dtype is w for s, c, w in zip(worst, columns, self._wanted)]  # noqa: B905  (one each)
        )
        plan = self._plans.get(there) or self._plan(there)
        found: list[Any] = [None] * len(self.calls)
        with np.errstate(all="ignore"):
            try:
                made = plan.evaluate(*[columns[i].values for i in plan.columns])
            except Exception:  # noqa: BLE001  (the runner says which transform it was, and on what)
                return self._run(columns, range(len(self.calls)))
        present = None if any(worst) else _present(columns[0].status)
        for number, dtype, values in zip(plan.traced, plan.outputs, made):  # noqa: B905  (one each)
            status = _status(columns, self._needs[number]) if present is None else present
            found[number] = finished(dtype, values, status)
        if plan.others:
            for number, column in zip(plan.others, self._run(columns, plan.others), strict=True):
                found[number] = column
        return found

    def _run(self, columns: Sequence[Column], numbers: Sequence[int]) -> list[Column]:
        return run_all([(self.calls[n][0], [columns[i] for i in self._needs[n]]) for n in numbers])

    def _plan(self, there: tuple[bool, ...]) -> _Plan:
        if not self._plans and not all(there):
            self._plan((True,) * len(there))  # what most asks will want, before the first of them comes
        if len(self._plans) >= _MOST:
            there = (False,) * len(there)
        numbers = range(len(self.calls))
        traced = [n for n in numbers if n in self._traces and all(there[i] for i in self._needs[n])]
        others = tuple(n for n in numbers if n not in traced)
        source = _Source(self._names)
        results = []
        for n in traced:
            result, steps = self._traces[n]
            results.append(source.value(result, steps))
        used = tuple(i for i, name in enumerate(self._names) if name in source.read)
        plan = _Plan(
            used,
            tuple(traced),
            tuple(self.calls[n][0].output for n in traced),
            others,
            source.compiled([f"a{i}" for i in used], results),
        )
        self._plans[there] = plan
        return plan

    @cached_property
    def _traces(self) -> dict[int, tuple[Ref, dict[str, Step]]]:
        """What can be traced, by number."""
        found = {}
        for number, (transform, names) in enumerate(self.calls):
            sources = [(name, dtype.numpy) for name, (_, dtype) in zip(names, transform.inputs, strict=True)]
            traced = None if number in self._as_they_are else trace(transform, sources)
            if traced:
                found[number] = traced
        return found


def _worst(columns: Sequence[Column]) -> list[int]:
    """The least present status of every column."""
    if columns[0].status.size == 1:
        return [column.status.item() for column in columns]
    if not columns[0].status.size:
        return [WITH_VALUE + 1] * len(columns)  # a body is not called on no rows
    seen: dict[int, int] = {}
    for column in columns:
        if id(column.status) not in seen:
            seen[id(column.status)] = int(column.status.max())
    return [seen[id(column.status)] for column in columns]


def _present(like: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return PRESENT if like.size == 1 else np.zeros(len(like), dtype=np.uint8)


def _status(columns: Sequence[Column], needs: Sequence[int]) -> npt.NDArray[np.uint8]:
    status = columns[needs[0]].status
    for i in needs[1:]:
        status = np.maximum(status, columns[i].status)
    return status


def _converted(step: Step) -> Sequence[Any]:
    """The arguments, with a plain number as the array that numpy would make of it in every call."""
    args = step.args[1:] if step.function is np.where else step.args
    kinds = {value.dtype for value in args if type(value) is Ref}
    if len(kinds) != 1 or not (isinstance(step.function, np.ufunc) or step.function is np.where) or step.options:
        return step.args
    (kind,) = kinds
    own = {np.dtype(np.float64): float, np.dtype(np.int64): int}.get(kind)
    numbers = [np.array(value, dtype=kind) if type(value) is own else value for value in args]
    return [*step.args[: len(step.args) - len(args)], *numbers]


@dataclass
class _Source:
    """The text of a function that takes steps, and the objects behind the names in it."""

    inputs: Sequence[str]
    lines: list[str] = field(default_factory=list)
    objects: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    def value(self, value: Any, steps: Mapping[str, Step]) -> str:
        """The name of a traced column, or of a constant."""
        if type(value) is list and any(type(part) in (Ref, list) for part in value):
            return f"[{', '.join(self.value(part, steps) for part in value)}]"
        if type(value) is not Ref:
            return self._object(value)
        key = value.key
        if key not in self.names:
            if key not in steps:  # a column of the inputs, which is called by its own name
                self.read.add(key)
                self.names[key] = f"a{list(self.inputs).index(key)}"
            else:
                self.names[key] = self._step(steps[key], steps)
        return self.names[key]

    def _step(self, step: Step, steps: Mapping[str, Step]) -> str:
        given = [self.value(value, steps) for value in _converted(step)]
        given += [f"{name}={self.value(value, steps)}" for name, value in step.options.items()]
        name = f"v{len(self.lines)}"
        part = "" if step.part is None else f"[{step.part}]"
        self.lines.append(f"{name} = {self._object(step.function)}({', '.join(given)}){part}")
        return name

    def _object(self, value: Any) -> str:
        name = f"c{len(self.objects)}"
        self.objects[name] = value
        return name

    def compiled(self, arguments: Sequence[str], results: Sequence[str]) -> Callable[..., tuple[Array, ...]]:
        """`def evaluate(arguments): ...; return results`."""
        text = "\n ".join(
            [
                f"def evaluate({', '.join(arguments)}):",
                *self.lines,
                f"return ({''.join(f'{one}, ' for one in results)})",
            ]
        )
        exec(text, self.objects)  # noqa: S102  (names of our own making only)
        evaluate: Callable[..., tuple[Array, ...]] = self.objects["evaluate"]
        return evaluate
