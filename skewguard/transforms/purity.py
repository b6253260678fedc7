"""What a transform may not read or change beside its inputs, found in its source and in that of its helpers.

Each name in the source is resolved to the object that it stands for, through imports, aliases, closures and modules'
attributes; the module-level line that made a constant is read too, so that `SCALE = float(os.environ["SCALE"])` counts.
"""

from __future__ import annotations

import ast
import sys
import types
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from skewguard.errors import DefinitionError
from skewguard.transforms.fingerprint import fingerprint
from skewguard.transforms.forbidden import FITTED, MUTATORS
from skewguard.transforms.objection import Ground, Objection, Place
from skewguard.transforms.reader import Reader, root_of
from skewguard.transforms.source import (
    CACHED,
    Scope,
    definition,
    is_library,
    module_tree,
    plain,
    reachable,
    used,
)


def impurities(function: Callable[..., Any]) -> list[Objection]:
    """Every objection to `function` and to what it reaches, one per line and reason."""
    found: dict[tuple[Any, ...], Objection] = {}
    root = plain(function)
    if root is not None:
        found |= {(objection.place, objection.what): objection for objection in _types_asked(root)}
    for one in reachable(function):
        for objection in _of_function(one):
            found.setdefault((objection.place, objection.what), objection)
    try:
        fingerprint(function)
    except DefinitionError as error:
        if not found:
            found[None, ""] = Objection(Ground.PURITY, str(error), None, "constants and plain functions")
    return list(found.values())


def _of_function(function: types.FunctionType) -> Iterator[Objection]:
    try:
        node = definition(function)
        module = module_tree(function)
    except DefinitionError as error:
        yield Objection(Ground.UNCHECKED, str(error), None, "a def in a module's file")
        return
    reader = Reader(function, node)
    yield from reader.objections()
    yield from _defaults(function, node)
    for name, value in used(function).items():
        if isinstance(value, CACHED) and not is_library(value.__module__):
            yield Objection(
                Ground.PURITY,
                f"{name} remembers earlier calls (lru_cache)",
                Place(function.__code__.co_filename, node.lineno),
                "the function without a cache: rowmap computes repeated texts and dates once anyway",
            )
    yield from _constants(function, module, reader.read, set())
    for value in used(function).values():
        yield from _class_bodies(value if isinstance(value, type) else type(value))


def _types_asked(function: types.FunctionType) -> Iterator[Objection]:
    """`type(column)`, which Python answers without asking the column."""
    asked = {f"type({name})" for name in function.__code__.co_varnames[: function.__code__.co_argcount]}
    try:
        node = definition(function)
    except DefinitionError:
        return
    for inner in ast.walk(node):
        if ast.unparse(inner) in asked and isinstance(inner, ast.Call):
            place = Place(function.__code__.co_filename, inner.lineno)
            yield Objection(Ground.ROWS, "asks for the type of a column", place, "nothing: its dtype is declared")


def _defaults(function: types.FunctionType, node: ast.AST) -> Iterator[Objection]:
    for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        if isinstance(default, list | dict | set | bytearray):
            yield Objection(
                Ground.PURITY,
                f"a default of {function.__name__} is a {type(default).__name__}, which keeps what calls put into it",
                Place(function.__code__.co_filename, getattr(node, "lineno", 0)),
                "a constant at module level, or a tuple",
            )


# -- what made a module-level value, and who changes it ---------------------------------------------------------------


def _constants(
    function: types.FunctionType, module: ast.Module, names: set[str], seen: set[str]
) -> Iterator[Objection]:
    """Objections to the module-level lines that make the values called `names`, and to functions that change them."""
    names = {name for name in names - seen if name in function.__globals__}
    seen |= names
    if not names:
        return
    plain_names = {
        name
        for name in names
        if not isinstance(function.__globals__[name], types.ModuleType | types.FunctionType | type)
    }
    further: set[str] = set()
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or not _binds(
            statement, plain_names
        ):
            continue
        reader = Reader(function, statement, _ModuleScope(function))
        for objection in reader.objections():
            if "is changed by" not in objection.what:
                yield objection
        for helper in reader.read:
            value = plain(function.__globals__.get(helper))
            if value is not None and not is_library(value.__module__):
                for inner in reachable(value):
                    yield from Reader(inner, definition(inner)).objections()
        further |= reader.read
    yield from _changed_elsewhere(function, module, plain_names)
    yield from _constants(function, module, further, seen)


def _class_bodies(kind: type) -> Iterator[Objection]:
    """Objections to what the bodies of a class of the user's compute, such as the defaults of its fields."""
    for one in kind.__mro__:
        module = sys.modules.get(one.__module__)
        file = getattr(module, "__file__", None)
        if is_library(one.__module__) or module is None or not file:
            continue
        code = (lambda: None).__code__.replace(co_filename=file)
        maker = types.FunctionType(code, vars(module))
        for statement in _class_statements(module_tree(maker), one.__name__):
            yield from Reader(maker, statement, _ModuleScope(maker)).objections()


@lru_cache(maxsize=256)
def _class_statements(module: ast.Module, name: str) -> list[ast.stmt]:
    """What the body of a class does beside defining functions."""
    found = [node for node in ast.walk(module) if isinstance(node, ast.ClassDef) and node.name == name]
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    return [statement for node in found for statement in node.body if not isinstance(statement, functions)]


class _ModuleScope(Scope):
    """Names in a module's own lines: nothing is local."""

    def __init__(self, function: types.FunctionType) -> None:
        super().__init__(
            types.FunctionType(function.__code__, function.__globals__, closure=function.__closure__), _NONE
        )


_NONE = ast.Pass()


def _binds(statement: ast.stmt, names: set[str]) -> bool:
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return False
    return any(
        isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load) and inner.id in names
        for inner in ast.walk(statement)
    )


def _changed_elsewhere(function: types.FunctionType, module: ast.Module, names: set[str]) -> Iterator[Objection]:
    """Functions of the same module that rebind or change a value that the transform reads."""
    for name, changer, line in _changers(module):
        if name in names:
            what = f"{name}, which {function.__name__} reads, is changed by {changer}"
            place = Place(function.__code__.co_filename, line)
            yield Objection(Ground.PURITY, what, place, "a constant; " + FITTED)


@lru_cache(maxsize=256)
def _changers(module: ast.Module) -> list[tuple[str, str, int]]:
    """(name of a value, the function that rebinds or changes it, line) throughout a module."""
    found = []
    for inner in ast.walk(module):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            declared = {name for node in ast.walk(inner) if isinstance(node, ast.Global) for name in node.names}
            for node in ast.walk(inner):
                line = getattr(node, "lineno", inner.lineno)
                found += [(name, inner.name, line) for name in sorted(_changed(node, declared))]
    return found


def _changed(node: ast.AST, declared: set[str]) -> set[str]:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign | ast.Delete):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    changed = set()
    for target in targets:
        root = root_of(target)
        if root is not None and (target is not root or root.id in declared):
            changed.add(root.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
        root = root_of(node.func.value)
        if root is not None:
            changed.add(root.id)
    return changed
