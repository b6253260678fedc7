"""Reads one function, or one line of a module: what each name in it stands for, and what it changes."""

from __future__ import annotations

import ast
import builtins
import types
from collections.abc import Callable, Iterator

import numpy as np

from skewguard.transforms.forbidden import FITTED, LANGUAGE, MUTATORS, allowed, forbidden, forbidden_call, local_names
from skewguard.transforms.objection import Ground, Objection, Place
from skewguard.transforms.source import ABSENT, Scope


class Reader:
    """Walks one function; `read` collects the names of module-level values that it reads."""

    def __init__(self, function: types.FunctionType, node: ast.AST, scope: Scope | None = None) -> None:
        self.file = function.__code__.co_filename
        self.node = node
        self.scope = scope or Scope(function, node)
        self.sets = _set_names(node, self._is_set)
        self.read: set[str] = set()
        first = function.__code__.co_varnames[:1] if _is_method(function) else ()
        self.own = first[0] if first else ""
        """What a method calls its object."""

    def objections(self) -> Iterator[Objection]:
        decorators = {inner for decorator in getattr(self.node, "decorator_list", []) for inner in ast.walk(decorator)}
        inside = {  # the `os` of an `os.environ` that is objected to already
            id(node.value) for node in ast.walk(self.node) if isinstance(node, ast.Attribute) and any(self._names(node))
        }
        inside |= {id(node.func) for node in ast.walk(self.node) if isinstance(node, ast.Call) and self._silences(node)}
        inside |= {
            id(inner)
            for node in ast.walk(self.node)
            if isinstance(node, ast.Attribute) and allowed(self.scope.resolve(node))
            for inner in ast.walk(node)
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

    def _silences(self, node: ast.Call) -> bool:
        """`np.errstate(divide="ignore")`, which changes no value."""
        given = [keyword.value for keyword in node.keywords]
        quiet = all(isinstance(value, ast.Constant) and value.value == "ignore" for value in given)
        return quiet and not node.args and self.scope.resolve(node.func) is np.errstate

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
        if any(local_names(text) for text in self._date_formats(node)):
            yield LANGUAGE
        if isinstance(node, ast.Try | ast.TryStar) and any(
            isinstance(n, ast.Import | ast.ImportFrom) for n in node.body
        ):
            yield "what is installed decides", "import at module level what the transform needs"

    def _date_formats(self, node: ast.AST) -> Iterator[str]:
        """The texts that may be a date's format: `strftime(FORMAT)`, `format(date, "%A")`, `f"{date:%A}"`."""
        parts: list[ast.expr] = []
        if isinstance(node, ast.FormattedValue) and isinstance(node.format_spec, ast.JoinedStr):
            parts = node.format_spec.values
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("strftime", "strptime", "format", "__format__"):
                parts = [*node.args, *([node.func.value] if isinstance(node.func, ast.Attribute) else [])]
        for part in parts:
            value = part.value if isinstance(part, ast.Constant) else self.scope.resolve(part)
            if isinstance(value, str):
                yield value

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
            root = root_of(target)
            if target is not root and root is not None and self.scope.free(root.id):
                yield f"{root.id} is changed by every call", advice
            elif target is not root and root is not None and root.id == self.own:
                yield f"{ast.unparse(target)} is changed: the object remembers earlier calls", advice
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            root = root_of(node.func.value)
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


def _is_method(function: types.FunctionType) -> bool:
    """Whether it belongs to a class and is not what builds the object."""
    owner = function.__qualname__.rpartition(".")[0]
    return bool(owner) and not owner.endswith("<locals>") and function.__name__ not in ("__init__", "__post_init__")


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


def root_of(node: ast.AST) -> ast.Name | None:
    """The name at the beginning of `a.b[0].c`."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return node if isinstance(node, ast.Name) else None
