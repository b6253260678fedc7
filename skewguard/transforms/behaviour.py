"""What a transform does when it is run: one row against a batch, in other orders and sizes, again and again.

The proof says that rows are independent; these runs look for what a proof cannot see: a value on which it raises or
returns another type, state that survives a call, a library that computes other bits.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from types import BuiltinFunctionType, FrameType
from typing import Any

import numpy as np

from skewguard.errors import DefinitionError
from skewguard.transforms.declare import Transform
from skewguard.transforms.forbidden import forbidden
from skewguard.transforms.golden import bits
from skewguard.transforms.objection import Ground, Objection, Place, is_library_file, raised_at
from skewguard.transforms.patience import TooLong, patience
from skewguard.transforms.pool import batch, columns, pools
from skewguard.transforms.runner import run_all
from skewguard.transforms.shrink import smallest
from skewguard.values import Column, Status

Rows = list[tuple[Any, ...]]
_ALONE = 160
"""Rows that are also computed one by one."""

_SIZES = (2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 300, 1000, 4097)


def misbehaviour(transform: Transform, seconds: float = 20.0) -> list[Objection]:
    """Every objection that running `transform` brings up; the first of each kind, with its smallest example. One that
    does not come to an end within `seconds` is one."""
    try:
        with patience(seconds):
            return _misbehaviour(transform)
    except TooLong as error:
        what = f"{transform.name} did not come to an end within {seconds:.0f} s"
        return [Objection(Ground.BEHAVIOUR, what, raised_at(error.__traceback__), "a loop that ends for every value")]


def _misbehaviour(transform: Transform) -> list[Objection]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        rows = _rows(transform)
        chance = (random.getstate(), repr(np.random.get_state()))  # noqa: NPY002  (looked at, not used)
        found = _broken(transform, rows) or list(_beyond(transform, rows)) + list(_observed(transform, rows[:40]))
        if chance != (random.getstate(), repr(np.random.get_state())):  # noqa: NPY002
            found.append(
                Objection(Ground.PURITY, f"{transform.name} draws random numbers", None, "no chance in a feature")
            )
    return found


def _rows(transform: Transform) -> Rows:
    values = pools(transform)
    return batch(values, min(2000, max(_ALONE, *(3 * len(pool) for pool in values))))


def compute(transform: Transform, rows: Rows) -> Column:
    """The transform's answer to rows of plain values."""
    return run_all([(transform, columns(transform, rows))])[0]


# -- one row against a batch ------------------------------------------------------------------------------------------


def _complaint(transform: Transform, rows: Rows) -> tuple[str, Exception | None]:
    """What is wrong with a batch of these rows and each of them alone; empty where nothing is."""
    try:
        together = compute(transform, rows)
        alone = [compute(transform, [row]) for row in rows]
    except DefinitionError as error:
        return _kind(error), error
    apart = Column.concat(alone) if alone else together
    if bits(together) != bits(apart):
        return "depends on other rows", None
    return "", None


def _shows(transform: Transform, what: str, rows: Rows) -> bool:
    return _complaint(transform, rows)[0] == what


def _kind(error: DefinitionError) -> str:
    cause = error.__cause__
    return f"raises {type(cause).__name__}" if cause else "returns something else than declared"


def _broken(transform: Transform, rows: Rows) -> list[Objection]:
    """Raises, wrong dtype or length, or other bits in a batch than alone."""
    found: dict[str, Objection] = {}
    candidates = [[row] for row in rows] + [rows[:_ALONE], rows[:2], rows[:_ALONE:7]]
    for tried in candidates:
        what, error = _complaint(transform, tried)
        if not what or what in found:
            continue
        least = smallest(transform, tried, partial(_shows, transform, what))
        _, shown = _complaint(transform, least)
        found[what] = _objection(transform, what, shown or error, least)
        if len(found) > 3:
            break
    return list(found.values())


def _objection(transform: Transform, what: str, error: Exception | None, rows: Rows) -> Objection:
    shown = example(transform, rows)
    if error is None:
        together = compute(transform, rows)
        alone = Column.concat([compute(transform, [row]) for row in rows])
        shown += f" give {_values(together)} together, {_values(alone)} one by one"
        return Objection(Ground.ROWS, f"{transform.name}: a row's value {what}", None, "elementwise operations", shown)
    cause = error.__cause__
    place = raised_at(cause.__traceback__) if cause else None
    text = f"{type(cause).__name__}: {cause}" if cause else str(error).partition(": ")[2]
    advice = "a value for every input: guard it, np.where(condition, a, b), or if ... return in the row's function"
    return Objection(
        Ground.BEHAVIOUR, f"{transform.name} {what}: {text}", place, advice if cause else "what it declares", shown
    )


def _values(column: Column) -> str:
    shown = len(column) if len(column) <= _SHOWN else 2
    return (
        "[" + ", ".join(repr(column.value(row)) for row in range(shown)) + ("]" if shown == len(column) else ", ...]")
    )


def example(transform: Transform, rows: Rows) -> str:
    """Rows as a person writes them: `wind=[0.0, 1.0], gust=[2.0, 2.0]`."""
    shown = rows if len(rows) <= _SHOWN else rows[:2]
    parts = [f"{name}=[{', '.join(_short(row[i]) for row in shown)}]" for i, (name, _) in enumerate(transform.inputs)]
    return ", ".join(parts) + ("" if shown is rows else f" and {len(rows) - 2} more rows")


_SHOWN = 6


def _short(value: Any) -> str:
    text = value.isoformat() if hasattr(value, "isoformat") else repr(value)
    return text if len(text) < 60 else f"{text[:40]}...' ({len(value)} characters)"


# -- other orders, sizes, nulls, and again ----------------------------------------------------------------------------


def _beyond(transform: Transform, rows: Rows) -> Iterator[Objection]:
    inputs = columns(transform, rows)
    before = [bits(column) for column in inputs]
    expected = run_all([(transform, inputs)])[0]
    for what, take in _arrangements(len(rows)):
        try:
            got = run_all([(transform, [column.take(take) for column in inputs])])[0]
        except DefinitionError as error:
            yield Objection(Ground.BEHAVIOUR, f"{transform.name}, {what}: {error}", None, "the same for every batch")
            return
        if bits(got) != bits(expected.take(take)):
            wrong = _first_difference(got, expected.take(take))
            shown = f"{example(transform, [rows[take[wrong]]])} gives {got.value(wrong)!r} there"
            yield Objection(
                Ground.ROWS, f"{transform.name}: other values {what}", None, "elementwise operations", shown
            )
            return
    for i, (name, dtype) in enumerate(transform.inputs):
        gone = list(inputs)
        gone[i] = Column.absent(dtype, len(rows), Status.NULL)
        if run_all([(transform, gone)])[0].present.any():
            yield Objection(Ground.BEHAVIOUR, f"{transform.name} has values where {name} is null", None, "")
    if before != [bits(column) for column in inputs]:
        yield Objection(Ground.PURITY, f"{transform.name} changes its inputs", None, "a new name for the result")


def _arrangements(rows: int) -> Iterator[tuple[str, Any]]:
    everything = np.arange(rows)
    yield "when it is run again", everything
    yield "in the opposite order", everything[::-1].copy()
    yield "in another order", np.argsort((everything * 7919) % 1009, kind="stable")
    for size in _SIZES:
        yield f"in a batch of {size} rows", np.resize(everything, size)
    for row in range(0, rows, max(1, rows // 8)):
        yield "when one row is repeated", np.full(33, row)
    yield "in an empty batch", everything[:0]
    yield "when it is run for the last time", everything


def _first_difference(a: Column, b: Column) -> int:
    return next(row for row in range(len(a)) if bits(a.take(np.array([row]))) != bits(b.take(np.array([row]))))


# -- what it calls while it runs --------------------------------------------------------------------------------------


def _observed(transform: Transform, rows: Rows) -> list[Objection]:
    """Forbidden functions that the code calls while it runs, whatever spelling it reached them by."""
    found: dict[str, Objection] = {}
    inputs = columns(transform, rows)

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call" and not is_library_file(frame.f_code.co_filename):
            complain(frame, argument)

    def complain(frame: FrameType, called: BuiltinFunctionType) -> None:
        objection = forbidden(called, getattr(called, "__qualname__", str(called)))
        if objection and objection[0] not in found:
            place = Place(frame.f_code.co_filename, frame.f_lineno)
            found[objection[0]] = Objection(Ground.PURITY, objection[0], place, objection[1])

    before: Callable[..., Any] | None = sys.getprofile()
    sys.setprofile(watch)
    try:
        run_all([(transform, inputs)])
    finally:
        sys.setprofile(before)
    return list(found.values())
