"""What a transform may not read or change beside its inputs, found in its source and in that of its helpers.

Each name in the source is resolved to the object that it stands for, through imports, aliases, closures and modules'
attributes; the module-level line that made a constant is read too, so that `SCALE = float(os.environ["SCALE"])` counts.
"""

from __future__ import annotations

import ast
import builtins
import types
from collections.abc import Callable, Iterator
from typing import Any

from skewguard.errors import DefinitionError
from skewguard.transforms.fingerprint import fingerprint
from skewguard.transforms.forbidden import FITTED, MUTATORS, forbidden, forbidden_call
from skewguard.transforms.objection import Ground, Objection, Place
from skewguard.transforms.source import (
    ABSENT,
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
    reader = _Reader(function, node)
    yield from reader.objections()
    yield from _defaults(function, node)
    for name, value in used(function).items():
        if isinstance(value, CACHED):
            yield Objection(
                Ground.PURITY,
                f"{name} remembers earlier calls (lru_cache)",
                Place(function.__code__.co_filename, node.lineno),
                "the function without a cache: rowmap computes repeated texts and dates once anyway",
            )
    yield from _constants(function, module, reader.read, set())


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


class _Reader:
    """Walks one function; `read` collects the names of module-level values that it reads."""

    def __init__(self, function: types.FunctionType, node: ast.AST, scope: Scope | None = None) -> None:
        self.file = function.__code__.co_filename
        self.node = node
        self.scope = scope or Scope(function, node)
        self.sets = _set_names(node, self._is_set)
        self.read: set[str] = set()

    def objections(self) -> Iterator[Objection]:
        decorators = {inner for decorator in getattr(self.node, "decorator_list", []) for inner in ast.walk(decorator)}
        inside = {  # the `os` of an `os.environ` that is objected to already
            id(node.value) for node in ast.walk(self.node) if isinstance(node, ast.Attribute) and any(self._names(node))
        }
        ordered = {id(inner) for node in ast.walk(self.node) for inner in _order_free(node, self.scope)}
        for node in ast.walk(self.node):
            if node in decorators:
                continue
            if id(node) in inside:
                if isinstance(node, ast.Name):
                    self.read.add(node.id)
                continue
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and self.scope.free(node.id):
                self.read.add(node.id)
            for what, instead in (*self._names(node), *self._changes(node), *self._order(node, ordered)):
                yield Objection(Ground.PURITY, what, Place(self.file, getattr(node, "lineno", 0)), instead)

    def _names(self, node: ast.AST) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            value = self.scope.resolve(node)
            if value is not ABSENT and (found := forbidden(value, ast.unparse(node))):
                yield found
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]:
                if found := forbidden(types.ModuleType(name), name):
                    yield found
        if isinstance(node, ast.Call):
            value = self.scope.resolve(node.func)
            if found := forbidden_call(node, None if value is ABSENT else value):
                yield found
        if isinstance(node, ast.Try | ast.TryStar) and any(
            isinstance(n, ast.Import | ast.ImportFrom) for n in node.body
        ):
            yield "what is installed decides", "import at module level what the transform needs"

    def _changes(self, node: ast.AST) -> Iterator[tuple[str, str]]:
        advice = "only inputs and constants; " + FITTED
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield f"{', '.join(node.names)} is changed by every call", advice
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            root = _root(target)
            if target is not root and root is not None and self.scope.free(root.id):
                yield f"{root.id} is changed by every call", advice
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            root = _root(node.func.value)
            owner = self.scope.resolve(node.func.value)
            changes = isinstance(owner, list | dict | set | bytearray) or not (
                owner is ABSENT or isinstance(owner, types.ModuleType | type | str | bytes | tuple | frozenset)
            )
            if root is not None and self.scope.free(root.id) and changes:
                yield f"{ast.unparse(node.func)} changes {root.id}", advice

    def _order(self, node: ast.AST, order_free: set[int]) -> Iterator[tuple[str, str]]:
        if id(node) in order_free:
            return
        advice = "a tuple, or sorted(...)"
        iterated: list[ast.expr] = []
        if isinstance(node, ast.For):
            iterated = [node.iter]
        elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp):
            iterated = [generator.iter for generator in node.generators]
        elif isinstance(node, ast.Starred):
            iterated = [node.value]
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in _ORDERED or (name in _FREE and node.keywords):  # with a key, what comes first wins a tie
                iterated = list(node.args)
            if name == "pop" and isinstance(node.func, ast.Attribute):
                iterated = [node.func.value]
        for one in iterated:
            if self._is_set(one):
                yield f"the order of the set {ast.unparse(one)} differs between processes", advice

    def _is_set(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Set | ast.SetComp):
            return True
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
            return self._is_set(node.left) or self._is_set(node.right)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in _SET_METHODS:
                return self._is_set(node.func.value)
            return self.scope.resolve(node.func) in (set, frozenset)
        if isinstance(node, ast.Name) and node.id in getattr(self, "sets", ()):
            return True
        return isinstance(self.scope.resolve(node), set | frozenset)


_ORDERED = {
    "list",
    "tuple",
    "iter",
    "next",
    "enumerate",
    "zip",
    "map",
    "filter",
    "join",
    "fromkeys",
    "sum",
    "array",
    "fsum",
}
_SET_METHODS = {"union", "intersection", "difference", "symmetric_difference", "copy"}
_FREE = {"sorted", "set", "frozenset", "any", "all", "len", "min", "max"}


def _set_names(node: ast.AST, is_set: Callable[[ast.AST], bool]) -> set[str]:
    return {
        target.id
        for inner in ast.walk(node)
        if isinstance(inner, ast.Assign) and is_set(inner.value)
        for target in inner.targets
        if isinstance(target, ast.Name)
    }


def _order_free(node: ast.AST, scope: Scope) -> Iterator[ast.AST]:
    """Arguments of calls for which the order of what they go through does not matter."""
    if isinstance(node, ast.SetComp):
        yield node
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        name = node.func.id
        if name in _FREE and getattr(builtins, name) is scope.resolve(node.func):
            yield from node.args


def _root(node: ast.AST) -> ast.Name | None:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return node if isinstance(node, ast.Name) else None


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
        reader = _Reader(function, statement, _ModuleScope(function))
        for objection in reader.objections():
            if "is changed by" not in objection.what:
                yield objection
        for helper in reader.read:
            value = plain(function.__globals__.get(helper))
            if value is not None and not is_library(value.__module__):
                for inner in reachable(value):
                    yield from _Reader(inner, definition(inner)).objections()
        further |= reader.read
    yield from _changed_elsewhere(function, module, plain_names)
    yield from _constants(function, module, further, seen)


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
    file = function.__code__.co_filename
    for inner in ast.walk(module):
        if not isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        declared = {name for node in ast.walk(inner) if isinstance(node, ast.Global) for name in node.names}
        for node in ast.walk(inner):
            for name in _changed(node, declared) & names:
                yield Objection(
                    Ground.PURITY,
                    f"{name}, which {function.__name__} reads, is changed by {inner.name}",
                    Place(file, node.lineno if hasattr(node, "lineno") else inner.lineno),
                    "a constant; " + FITTED,
                )


def _changed(node: ast.AST, declared: set[str]) -> set[str]:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign | ast.Delete):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    changed = set()
    for target in targets:
        root = _root(target)
        if root is not None and (target is not root or root.id in declared):
            changed.add(root.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
        root = _root(node.func.value)
        if root is not None:
            changed.add(root.id)
    return changed
