"""A function's syntax tree, found in its file; and what its free names stand for."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import enum
import functools
import inspect
import linecache
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from skewguard.errors import DefinitionError

Node = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_ENUM = ("value", "name")
CACHED = type(functools.lru_cache(len))
"""What `functools.cache` and `lru_cache` make of a function."""
ABSENT = object()
"""Stands for a name that cannot be resolved without running the code."""


def plain(function: Any) -> types.FunctionType | None:
    """The Python function behind a transform, a bound method, a partial or a cached function; None where there is
    none."""
    for _ in range(8):
        if isinstance(function, types.FunctionType):
            return function
        for name in ("__wrapped__", "__func__", "function", "func"):
            inner = inner_of(function, name)
            if inner is not None:
                function = inner
                break
        else:
            return None
    return None


def inner_of(value: Any, name: str) -> Any:
    """Attribute `name` of `value` where it is callable."""
    if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
        return None
    inner = getattr(value, name, None)
    return inner if callable(inner) else None


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def module_tree(function: types.FunctionType) -> ast.Module:
    """The syntax tree of the file in which `function` stands; raises `DefinitionError` where it cannot be read."""
    file = function.__code__.co_filename
    lines = linecache.getlines(file, function.__globals__)
    if not lines:
        raise _unreadable(function, f"there is none in {file}")
    try:
        return _parsed("".join(lines))
    except (SyntaxError, ValueError) as error:
        raise _unreadable(function, str(error)) from error


def _unreadable(function: types.FunctionType, why: str) -> DefinitionError:
    return DefinitionError(
        f"{function.__module__}:{function.__qualname__}: its source cannot be read: {why}. "
        "Define it in a module's file."
    )


def definition(function: types.FunctionType) -> Node:
    """The `def` or `lambda` of `function`; raises `DefinitionError` where it cannot be found."""
    code = function.__code__
    found = _definitions(module_tree(function)).get((code.co_firstlineno, code.co_name), [])
    if len(found) > 1:  # several lambdas on one line
        spans = {(line, column) for line, _, column, _ in code.co_positions() if line and column}
        found = [node for node in found if _inside(node, spans)]
    if len(found) != 1:
        raise DefinitionError(
            f"{function.__module__}:{function.__qualname__}: its source cannot be told from its neighbours' or has "
            "changed since it was loaded. Give it a line of its own with def."
        )
    return found[0]


@functools.lru_cache(maxsize=256)
def _definitions(module: ast.Module) -> dict[tuple[int, str], list[Node]]:
    """Every function of a module by its first line and name."""
    found: dict[tuple[int, str], list[Node]] = {}
    for node in ast.walk(module):
        if isinstance(node, Node):
            found.setdefault((_first_line(node), _name(node)), []).append(node)
    return found


def _name(node: Node) -> str:
    return "<lambda>" if isinstance(node, ast.Lambda) else node.name


def _first_line(node: Node) -> int:
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _inside(node: Node, positions: set[tuple[int, int]]) -> bool:
    body = node.body if isinstance(node, ast.Lambda) else node.body[0]
    start, end = (body.lineno, body.col_offset), (body.end_lineno or body.lineno, body.end_col_offset or 0)
    return bool(positions) and all(start <= position < end for position in positions)


_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)


def bound_names(node: ast.AST) -> set[str]:
    """Every name that is bound anywhere inside of `node`: parameters, assignments, loops, imports, inner functions."""
    names = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.arg):
            names.add(inner.arg)
        elif isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load):
            names.add(inner.id)
        elif isinstance(inner, _NAMED) and inner is not node and inner.name:
            names.add(inner.name)
        elif isinstance(inner, ast.alias):
            names.add((inner.asname or inner.name).partition(".")[0])
    return names - {name for inner in ast.walk(node) if isinstance(inner, ast.Global) for name in inner.names}


class Scope:
    """What the free names of a function stand for, resolved without running it."""

    def __init__(self, function: types.FunctionType, node: ast.AST) -> None:
        self._globals = function.__globals__
        self._cells = dict(_cells(function))
        self.local = bound_names(node) - set(self._cells)
        self._imported = dict(_imports(node))

    def free(self, name: str) -> bool:
        """Whether `name` comes from outside of the function (a closure's name does)."""
        return name not in self.local

    def resolve(self, node: ast.AST) -> Any:
        """The object that a name or a chain of attributes stands for, `ABSENT` where only a run could tell."""
        if isinstance(node, ast.Name):
            if node.id in self._imported:
                return self._imported[node.id]
            if node.id in self.local:
                return ABSENT
            for place in (self._cells, self._globals, vars(builtins)):
                if node.id in place:
                    return place[node.id]
        if isinstance(node, ast.Attribute):
            owner = self.resolve(node.value)
            if isinstance(owner, types.ModuleType | type) or (isinstance(owner, enum.Enum) and node.attr in _ENUM):
                return getattr(owner, node.attr, ABSENT)
        return ABSENT


def _cells(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            continue


def _imports(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """Names that imports inside of the function bind, as far as their modules are loaded already."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            for alias in inner.names:
                name = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or name, sys.modules.get(name, ABSENT)
        elif isinstance(inner, ast.ImportFrom) and not inner.level:
            module = sys.modules.get(inner.module or "")
            for alias in inner.names:
                yield alias.asname or alias.name, getattr(module, alias.name, ABSENT)


def public_module(value: Any) -> str:
    """The module of a class or function, as older Pythons say: 3.13 says `_decimal`, `pathlib._local`."""
    module = str(getattr(value, "__module__", None) or "")
    return {"_decimal": "decimal", "pathlib._local": "pathlib"}.get(module, module)


def is_library(module: str | None) -> bool:
    """Whether a module is Python's own, numpy's or the house's: its code is identified by its version."""
    top = (module or "").partition(".")[0]
    return top in sys.stdlib_module_names or top in ("numpy", "skewguard")


def reachable(root: Callable[..., Any]) -> Iterator[types.FunctionType]:
    """`root` and every function of the user's that it can reach through names, closures, tables and defaults."""
    seen: set[int] = set()
    todo: list[Any] = [root]
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            todo += value.values()
        elif isinstance(value, list | tuple):
            todo += value
        elif isinstance(value, type) and not is_library(value.__module__):
            todo += methods(value).values()
        elif isinstance(value, functools.partial):
            todo += [value.func, *value.args, *value.keywords.values()]
        elif (function := plain(value)) is not None and not is_library(function.__module__):
            if function is not value and id(function) in seen:
                continue
            seen.add(id(function))
            yield function
            todo += used(function).values()
        elif function is None:  # an object's methods
            todo += methods(type(value)).values()


_GENERATED = ("<string>", dataclasses.__file__)


def methods(kind: type) -> dict[str, Any]:
    """What a class of the user's defines in its source, by name; not what Python generates, as for a dataclass."""
    users = [one for one in reversed(kind.__mro__) if not is_library(one.__module__)]
    members = {name: member for one in users for name, member in vars(one).items()}
    found = {name: (member, plain(member)) for name, member in members.items()}
    return {
        name: member
        for name, (member, function) in found.items()
        if function and not is_library(function.__module__) and _file(function) not in _GENERATED
    }


def _file(function: types.FunctionType) -> str:
    """Where the innermost stands: from Python 3.13 on a dataclass's __repr__ is wrapped by reprlib."""
    return str(inspect.unwrap(function).__code__.co_filename)


def used(function: types.FunctionType) -> dict[str, Any]:
    """What `function` reads from outside of itself, by the name in its source; `a.b.c` for what a module holds."""
    found = dict(_cells(function))
    try:
        node: ast.AST = definition(function)
    except DefinitionError:
        names = _code_names(function.__code__)
        return found | {n: function.__globals__[n] for n in sorted(names) if n in function.__globals__}
    scope = Scope(function, node)
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name | ast.Attribute) and (value := scope.resolve(inner)) is not ABSENT:
            found[ast.unparse(inner)] = value
    for number, default in enumerate((*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())):
        found[f"default {number}"] = default
    return found


def _code_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _code_names(constant)
    return names
