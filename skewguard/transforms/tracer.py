"""Opaque columns that allow elementwise operations alone, and the proof of row independence that follows from them.

A traced column has a dtype and no rows. A transform that runs through on traced columns cannot have looked at the
number of rows, at a value, or from one row at another: what it did is one fixed sequence of operations, each of which
acts row by row. Whatever else it tries is refused with the line of the user's code and the way to write it instead.
The sequence has a digest, the same for every spelling of the same computation.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skewguard.errors import DefinitionError
from skewguard.transforms.declare import Transform
from skewguard.transforms.fingerprint import constant_text, fingerprint
from skewguard.transforms.instead import ATTRIBUTE, FUNCTION, SPECIAL, UFUNC
from skewguard.transforms.objection import Ground, Objection, asked_by_numpy, here, raised_at
from skewguard.transforms.scalars import mapped, scalar_type
from skewguard.values import Dtype

_UFUNCS = {f for f in vars(np).values() if isinstance(f, np.ufunc) and f.signature is None}
_ELEMENTWISE = {
    np.where, np.clip, np.round, np.around, np.fix, np.nan_to_num, np.isclose, np.select, np.copy,
    np.full_like, np.zeros_like, np.ones_like,
}  # fmt: skip
_TABLES: dict[Any, tuple[str, ...]] = {  # the parameters by position, and `=` before those that must be constant tables
    np.searchsorted: ("=a", "v", "side", "sorter"),
    np.digitize: ("x", "=bins", "right"),
    np.isin: ("element", "=test_elements"),
    np.interp: ("x", "=xp", "=fp", "left", "right", "period"),
}


@dataclass(frozen=True, slots=True)
class Ref:
    """A traced column among the arguments of a step, by its key; and its dtype."""

    key: str
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, as the body called it: `function(*args, **options)`, of whose results the column is number `part`
    where there are several. In the arguments a traced column is a `Ref`."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]
    part: int | None = None


class Refusal(BaseException):
    """Leaves the transform's body; no `except Exception` there can swallow it."""


@dataclass
class Session:
    """One run on traced columns, or several that share their inputs. `steps` by the key of the column they make."""

    objections: list[Objection] = field(default_factory=list)
    operations: int = 0
    steps: dict[str, Step] = field(default_factory=dict)

    def refuse(self, what: str, instead: str) -> Refusal:
        self.objections.append(Objection(Ground.ROWS, what, here(), instead))
        return Refusal(what)

    def column(self, dtype: np.dtype[Any], *parts: str, step: Step | None = None) -> Traced:
        if dtype.kind not in "fiubMmOU" or dtype == np.float16:
            raise self.refuse(f"makes {dtype} values", "use float64, int64, bool, str or datetime")
        self.operations += 1
        text = "\0".join((dtype.str, *parts))
        key = hashlib.sha256(text.encode()).hexdigest()
        if step is not None:
            self.steps[key] = step
        return Traced(self, dtype, key)


class Traced:
    """A column that nobody can look into. Everything that is not elementwise raises `Refusal`."""

    __slots__ = ("_dtype", "_key", "_session")

    def __init__(self, session: Session, dtype: np.dtype[Any], key: str) -> None:
        self._session, self._dtype, self._key = session, dtype, key

    # -- what is allowed

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        session, name = self._session, ufunc.__name__
        if method != "__call__" or ufunc.signature is not None:
            shown = f"np.{name}" if method == "__call__" else f"np.{name}.{method}"
            raise session.refuse(f"{shown} reads several rows", UFUNC.get(method, UFUNC["matmul"]))
        if "out" in kwargs or "where" in kwargs:
            raise session.refuse(
                f"np.{name}(..., {'out' if 'out' in kwargs else 'where'}=...) writes into an array",
                "assign the result to a name; choose between values with np.where(condition, a, b)",
            )
        if ufunc not in _UFUNCS:
            raise session.refuse(
                f"{name} is not one of numpy's own elementwise functions",
                "rowmap(function, column, out=float) with a function of one row's values",
            )
        ghosts, keys = _ghosts(session, f"np.{name}", inputs)
        keys += [f"{key}={value!r}" for key, value in sorted(kwargs.items())]
        with np.errstate(all="ignore"):
            made = ufunc(*ghosts, **kwargs)
        args = _refs(inputs)
        if isinstance(made, tuple):
            return tuple(
                session.column(one.dtype, name, str(i), *keys, step=Step(ufunc, args, kwargs, i))
                for i, one in enumerate(made)
            )
        return session.column(made.dtype, name, *keys, step=Step(ufunc, args, kwargs))

    def __array_function__(self, function: Any, _: Any, args: Any, kwargs: Any) -> Traced:
        session, name = self._session, f"np.{function.__name__}"
        if function not in _ELEMENTWISE and function not in _TABLES:
            raise session.refuse(
                f"{name} reads several rows, or may",
                FUNCTION.get(function.__name__, "elementwise numpy functions, or rowmap(function, column, out=float)"),
            )
        if function is np.where and len(args) != 3:
            raise session.refuse("np.where(condition) gives positions of rows", "np.where(condition, a, b)")
        if {"out", "where"} & set(kwargs):
            raise session.refuse(f"{name}(..., out=...) writes into an array", "assign the result to a name")
        if function in _TABLES:
            given = dict(zip((p.strip("=") for p in _TABLES[function]), args, strict=False)) | kwargs
            self._check_tables(function, given)
        ghosts, keys = _ghosts(session, name, args, tables=True)
        options = {key: _ghosts(session, name, [value], tables=True) for key, value in sorted(kwargs.items())}
        with np.errstate(all="ignore"):
            made = function(*ghosts, **{key: value[0][0] for key, value in options.items()})
        keys += [f"{key}={value[1][0]}" for key, value in options.items()]
        step = Step(function, _refs(args), dict(zip(kwargs, _refs(kwargs.values()), strict=True)))
        return session.column(np.asarray(made).dtype, name, *keys, step=step)

    def _check_tables(self, function: Any, given: dict[str, Any]) -> None:
        session, name = self._session, f"np.{function.__name__}"
        for parameter in _TABLES[function]:
            if not parameter.startswith("="):
                continue
            table: Any = given.get(parameter[1:])
            if type(table) is Traced or isinstance(table, set | frozenset | dict) or np.ndim(table) != 1:
                raise session.refuse(
                    f"{name}: {parameter[1:]} is not a constant table",
                    "a module-level tuple or one-dimensional array; the column goes into the other argument",
                )
            kind, own = np.asarray(table).dtype.kind, self._dtype.kind
            if function is np.isin and kind.replace("U", "O") != own:
                raise session.refuse(
                    f"{name} compares {self._dtype} with a table of {np.asarray(table).dtype}",
                    "a table of the column's own dtype",
                )

    def __rowmap__(self, function: Callable[..., Any], columns: tuple[Any, ...], out: Any) -> Traced:
        """What `rowmap` does with traced columns."""
        session = self._session
        if not all(type(column) is Traced for column in columns):
            raise session.refuse(
                "rowmap got something that is not a column", "pass columns; constants belong into the function"
            )
        kind = scalar_type(function, out)
        try:
            code = fingerprint(function)
        except DefinitionError as error:
            raise session.refuse(
                f"rowmap's function cannot be identified: {error}", "a function at module level"
            ) from error
        step = Step(mapped, (function, kind, *_refs(columns)), {})
        return session.column(kind.numpy, "rowmap", code, kind, *(column._key for column in columns), step=step)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that the declaration gives; the same for every batch."""
        return self._dtype

    def astype(self, dtype: Any, **_: Any) -> Traced:
        """A conversion value by value."""
        wanted = np.dtype(dtype)
        if wanted.kind in "USOV":
            raise self._session.refuse(
                "astype to text depends on the longest value of the batch", "rowmap(str, column, out=str)"
            )
        np.empty(0, self._dtype).astype(wanted)
        step = Step(np.ndarray.astype, (Ref(self._key, self._dtype), wanted), {})
        return self._session.column(wanted, "astype", self._key, step=step)

    def clip(self, *args: Any, **kwargs: Any) -> Any:
        """As np.clip."""
        return np.clip(self, *args, **kwargs)

    def round(self, decimals: int = 0) -> Any:
        """As np.round."""
        return np.round(self, decimals)

    def copy(self) -> Traced:
        """The same values."""
        return self

    # -- what is not

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # numpy and Python look for protocols that a column does not have
        raise self._session.refuse(
            f".{name} is not an operation on single rows",
            ATTRIBUTE.get(name, "elementwise numpy functions, or rowmap(function, column, out=float)"),
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in Traced.__slots__:
            raise self._session.refuse(f"sets .{name} of a column", "assign to a new name")
        object.__setattr__(self, name, value)

    @property  # type: ignore[misc]  # Python's own is a property too
    def __class__(self) -> type:
        if asked_by_numpy():
            return Traced
        raise self._session.refuse(
            "asks for the type of a column", "nothing to ask: it is a numpy array of the annotated dtype"
        )


def _elementwise(ufunc: np.ufunc, swapped: bool = False) -> Callable[..., Any]:
    def apply(self: Traced, *other: Any) -> Any:
        return ufunc(*other, self) if swapped else ufunc(self, *other)

    return apply


def _power(swapped: bool) -> Callable[..., Any]:
    """`x ** 2` is not np.power(x, 2): numpy squares it, and the last bit may be another."""

    def apply(self: Traced, other: Any) -> Traced:
        pair = (other, self) if swapped else (self, other)
        made = np.power(*pair)
        session, key = self._session, made._key
        return session.column(made._dtype, "operator.pow", key, step=Step(operator.pow, _refs(pair), {}))

    return apply


def _refs(values: Iterable[Any]) -> tuple[Any, ...]:
    """Arguments as a step keeps them."""

    def ref(value: Any) -> Any:
        if type(value) is Traced:
            return Ref(value._key, value._dtype)
        return [ref(part) for part in value] if type(value) in (list, tuple) else value

    return tuple(ref(value) for value in values)


def _refusing(what: str, instead: str) -> Callable[..., Any]:
    def refuse(self: Traced, *_: Any, **__: Any) -> Any:
        raise self._session.refuse(what, instead)

    return refuse


_OPERATORS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "floordiv": np.floor_divide,
    "mod": np.remainder, "divmod": np.divmod, "pow": np.power, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor, "lshift": np.left_shift, "rshift": np.right_shift, "matmul": np.matmul,
}  # fmt: skip
_PLAIN = {
    "neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert, "eq": np.equal,
    "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip
for _name, _ufunc in _OPERATORS.items():
    setattr(Traced, f"__{_name}__", _elementwise(_ufunc) if _name != "pow" else _power(swapped=False))
    setattr(Traced, f"__r{_name}__", _elementwise(_ufunc, swapped=True) if _name != "pow" else _power(swapped=True))
    setattr(
        Traced,
        f"__i{_name}__",
        _refusing("changes a column in place", "a new name for the result: total = total + x, not total += x"),
    )
for _name, _ufunc in _PLAIN.items():
    setattr(Traced, f"__{_name}__", _elementwise(_ufunc))
for _name, (_what, _instead) in SPECIAL.items():
    setattr(Traced, f"__{_name}__", _refusing(_what, _instead))


def _ghosts(session: Session, where: str, values: Any, tables: bool = False) -> tuple[list[Any], list[str]]:
    """Columns of no rows in place of traced ones, and a text that identifies each argument."""
    ghosts: list[Any] = []
    keys: list[str] = []
    for value in values:
        if type(value) is Traced:
            ghosts.append(np.empty(0, value._dtype))
            keys.append(value._key)
        elif tables and isinstance(value, list | tuple) and any(type(part) is Traced for part in value):
            inner, texts = _ghosts(session, where, value)
            ghosts.append(inner)
            keys.append(f"[{', '.join(texts)}]")
        else:
            if not tables and np.ndim(value):
                raise session.refuse(
                    f"{where} pairs the rows with a constant array of {np.size(value)} values",
                    "a single constant; a lookup in a table is rowmap(TABLE.__getitem__, column, out=float), "
                    "np.searchsorted or np.isin",
                )
            ghosts.append(value)
            keys.append(_text(session, where, value))
    return ghosts, keys


def _text(session: Session, where: str, value: Any) -> str:
    try:
        return constant_text(where, value)
    except DefinitionError as error:
        raise session.refuse(str(error), "numbers, texts, dates and arrays of them") from error


@dataclass(frozen=True, slots=True)
class Proof:
    """The outcome: `graph` identifies the computation (32 hex digits), empty where there are objections."""

    graph: str
    operations: int
    objections: tuple[Objection, ...]


def prove(transform: Transform) -> Proof:
    """Run `transform` on traced columns, twice: what came from anywhere but the inputs may differ the second time."""
    first, second = _trace(transform), _trace(transform)
    if first.objections or first.graph == second.graph:
        return first
    changed = Objection(
        Ground.PURITY,
        f"{transform.name} computes something else when it is run again: a constant in it changes",
        instead="only inputs and constants",
    )
    return Proof("", first.operations, (changed,))


def trace(transform: Transform, sources: Sequence[tuple[str, np.dtype[Any]]]) -> tuple[Ref, dict[str, Step]] | None:
    """(what `transform` makes of the columns called `sources`, the steps by key); None where it cannot be traced. The
    columns' keys are their names; a step has the same key in whichever transform it occurs."""
    session = Session()
    columns = [Traced(session, dtype, name) for name, dtype in sources]
    try:
        result = transform.function(*columns)
    except (Refusal, Exception):  # noqa: BLE001  (whatever it raises, it is no sequence of steps)
        return None
    traced = type(result) is Traced and not session.objections and result._dtype == transform.output.numpy
    return (Ref(result._key, result._dtype), session.steps) if traced else None


def _trace(transform: Transform) -> Proof:
    session = Session()
    columns = [session.column(dtype.numpy, "input", str(i), dtype) for i, (_, dtype) in enumerate(transform.inputs)]
    graph = ""
    try:
        result = transform.function(*columns)
        graph = "".join(_result(session, transform, result))
    except Refusal:
        pass
    except Exception as error:  # noqa: BLE001  (whatever the body raises is an objection to it)
        what = f"{transform.name} raised {type(error).__name__}: {error}"
        session.objections.append(Objection(Ground.ROWS, what, raised_at(error.__traceback__), _RAISED))
    refused = tuple(session.objections)  # also what the body itself caught
    return Proof("" if refused else graph, session.operations - len(columns), refused)


_RAISED = "elementwise numpy functions on numbers and instants; rowmap(function, column, out=str) on texts"


def _result(session: Session, transform: Transform, result: Any) -> Iterator[str]:
    wanted = transform.output
    if type(result) is not Traced:
        what = f"{transform.name} returns {type(result).__name__}, not a column"
        raise session.refuse(what, "one column; a constant is np.full_like(column, value)")
    text = result._dtype.kind in "OU"
    if text != (wanted is Dtype.STRING) or not np.can_cast(result._dtype, wanted.numpy, "safe"):
        what = f"{transform.name} is declared {wanted} and returns {result._dtype}"
        session.objections.append(Objection(Ground.BEHAVIOUR, what, None, "the annotation of what it returns"))
    yield hashlib.sha256(f"{wanted}\0{result._key}".encode()).hexdigest()[:32]
