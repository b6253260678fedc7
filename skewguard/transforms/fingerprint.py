"""What identifies a transform's definition, and the numeric class of the machine that runs it."""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import hashlib
import importlib
import platform
import re
import struct
import types
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np

from skewguard.errors import DefinitionError
from skewguard.transforms.source import ABSENT, CACHED, Scope, definition, is_library, methods, plain, public_module


def fingerprint(function: Callable[..., Any]) -> str:
    """Digest (32 hex digits) of the normalised source with constants and helpers, recursively.

    Comments, formatting, docstrings, annotations and the names of locals, constants and helpers change nothing; a
    constant in a helper of a helper does. Library functions count by module and name. Raises `DefinitionError` for a
    global whose value cannot be fingerprinted.
    """
    return hashlib.sha256(_value("the function", function, {}).encode()).hexdigest()[:32]


def _function(function: types.FunctionType, seen: dict[int, int]) -> str:
    if id(function) in seen:
        return f"again {seen[id(function)]}"
    root = not seen
    seen[id(function)] = len(seen)
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    texts = [_value(f"a default of {function.__qualname__}", default, seen) for default in defaults]
    return f"function {_Dump(function, seen, root).text()} [{', '.join(texts)}]"


def _value(name: str, value: Any, seen: dict[int, int]) -> str:  # noqa: PLR0911  (one line per kind of value)
    """What a value outside of the function is, to the function."""
    if isinstance(value, CACHED) and not is_library(value.__module__):
        raise _unknown(name, value)
    if isinstance(value, functools.partial):
        return f"partial {[_value(name, part, seen) for part in (value.func, value.args, value.keywords)]}"
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType | type):  # a bound method, such as TABLE.get
        method = getattr(value, "__func__", None)
        return f"{_value(name, method, seen) if method else value.__name__} of {_value(name, owner, seen)}"
    body = plain(value)
    if body is not None and not is_library(body.__module__):
        return _function(body, seen)
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    if isinstance(value, type) and not is_library(value.__module__):
        return f"class {_members(value, seen)}"
    if isinstance(value, np.ufunc):
        return f"library numpy.{value.__name__}"
    if callable(value):
        module = public_module(value)
        top = module if not module.startswith("skewguard.") else "skewguard"  # its rooms may be moved
        return f"library {top}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    if isinstance(value, tuple | list | Mapping) and _holds_functions(value):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        parts = [f"{constant_text(name, key)}: {_value(name, part, seen)}" for key, part in pairs]
        return f"{type(value).__name__} [{', '.join(sorted(parts) if isinstance(value, Mapping) else parts)}]"
    own = f" of class {_members(type(value), seen)}" if methods(type(value)) else ""
    return constant_text(name, value) + own


def _holds_functions(value: Any) -> bool:
    return any(callable(part) for part in (value.values() if isinstance(value, Mapping) else value))


def _members(kind: type, seen: dict[int, int]) -> str:
    if id(kind) in seen:
        return f"again {seen[id(kind)]}"
    seen[id(kind)] = len(seen)
    members = []
    for name, member in sorted(vars(kind).items()):
        if isinstance(member, enum.Enum):
            members.append(constant_text(kind.__qualname__, member))
        elif not name.startswith("_") and not callable(member) and not hasattr(member, "__get__"):
            members.append(f"{name}: {_value(f'{kind.__qualname__}.{name}', getattr(member, 'value', member), seen)}")
    for name, member in sorted(methods(kind).items()):
        members.append(f"{name}: {_value(f'{kind.__qualname__}.{name}', member, seen)}")
    return f"[{', '.join(members)}]"


def constant_text(name: str, value: Any) -> str:  # noqa: C901, PLR0911  (one line per kind of value)
    """A constant as text, floats by their bits; raises `DefinitionError` for a value of another kind."""
    kind = type(value)
    if isinstance(value, enum.Enum):
        return f"enum {kind.__qualname__}.{value.name} {constant_text(name, value.value)}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return f"{kind.__qualname__} {constant_text(name, fields)}"
    if isinstance(value, np.generic):
        return f"scalar {value.dtype.str} {value.tobytes().hex()}"
    if isinstance(value, float):
        return f"float {struct.pack('<d', value).hex()}"
    if value is None or value is ... or isinstance(value, bool | int | str | bytes | complex | np.dtype):
        return f"{kind.__name__} {value!r}"
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return f"objects {value.shape} {constant_text(name, value.ravel().tolist())}"
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f"array {value.dtype.str} {value.shape} {content}"
    if isinstance(value, Mapping | types.SimpleNamespace):
        kind, value = dict, vars(value) if isinstance(value, types.SimpleNamespace) else value
        value = {(constant_text(name, k), constant_text(name, v)) for k, v in value.items()}
    if isinstance(value, set | frozenset | tuple | list):
        parts = [constant_text(name, part) for part in value]
        return f"{kind.__name__} [{', '.join(parts if isinstance(value, tuple | list) else sorted(parts))}]"
    if kind.__module__ in ("zoneinfo", "datetime", "_pydatetime", "decimal", "fractions", "uuid"):
        return f"{kind.__module__}.{kind.__qualname__} {value!s}"
    if isinstance(value, re.Pattern):
        return f"pattern {value.pattern!r} {value.flags}"
    raise _unknown(name, value)


def _unknown(name: str, value: Any) -> DefinitionError:
    return DefinitionError(
        f"{name}: a transform reads this global, whose value ({type(value).__name__}) cannot be fingerprinted. "
        "Use numbers, strings, tuples, dicts, arrays, dates or plain functions."
    )


class _Dump:
    """The source as text, without what does not change the meaning; a name from outside stands as its value.

    Own dump, because `ast.dump` changes between Python versions: no empty fields, floats by their bits. Locals are
    numbered; a helper's parameters keep their names, because a call may use them.
    """

    def __init__(self, function: types.FunctionType, seen: dict[int, int], root: bool) -> None:
        self.node = definition(function)
        self.where = function.__module__
        hidden = next(_hidden_imports(self.node), None)
        if hidden:
            raise DefinitionError(
                f"{function.__module__}:{function.__qualname__}: imports {hidden} in its body, out of sight; import it "
                "above"
            )
        self.seen = seen
        self.scope = Scope(function, self.node)
        own = {arg.arg for arg in self.node.args.args} if root else set()
        parameters = {inner.arg for inner in ast.walk(self.node) if isinstance(inner, ast.arg)} - own
        self.renamed = self.scope.local - parameters
        self.numbers: dict[str, int] = {}

    def text(self) -> str:
        body: list[ast.stmt] = [ast.Return(self.node.body)] if isinstance(self.node, ast.Lambda) else self.node.body
        return f"{self._dump(self.node.args)} {self._dump(_code(body))}"

    def _name(self, name: str) -> str:
        return f"local {self.numbers.setdefault(name, len(self.numbers))}" if name in self.renamed else name

    def _dump(self, node: Any) -> str:  # noqa: PLR0911  (one line per kind of node)
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            value = self.scope.resolve(node)
            if value is not ABSENT:
                return f"<{_value(f'{self.where}.{ast.unparse(node)}', value, self.seen)}>"
        if isinstance(node, ast.Name):
            return self._name(node.id)
        if isinstance(node, ast.arg):
            return self._name(node.arg)
        if isinstance(node, ast.Constant):
            return constant_text("literal", node.value)
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            node = ast.Assign(targets=[node.target], value=node.value)
        if isinstance(node, ast.AST):
            parts = [f"{f}={self._dump(v)}" for f, v in sorted(ast.iter_fields(node)) if _counts(node, f, v)]
            return f"{type(node).__name__}({', '.join(parts)})"
        if isinstance(node, list):
            return f"[{', '.join(self._dump(v) for v in node)}]"
        return repr(node)


def _hidden_imports(node: ast.AST) -> Iterator[str]:
    """The user's own modules that a body imports: what they hold is not in sight."""
    for inner in ast.walk(node):
        names = []
        if isinstance(inner, ast.Import):
            names = [alias.name for alias in inner.names]
        elif isinstance(inner, ast.ImportFrom):
            names = ["." * inner.level + (inner.module or "")]
        yield from (name for name in names if not is_library(name))


def _counts(node: ast.AST, field: str, value: Any) -> bool:
    """Whether a field of a syntax node belongs to the meaning."""
    if value is None or value == [] or field in ("kind", "ctx", "type_comment", "type_params", "annotation", "returns"):
        return False
    return not (field == "decorator_list" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _code(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements without the docstring."""
    first = body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return body[1:] or [ast.Pass()]
    return body


@cache
def numeric_class() -> str:
    """What decides the last bit of a float here: numpy's version, the CPU features it dispatches to, the C library, and
    the BLAS behind matrix products (a transform takes none, a model may)."""
    features: dict[str, bool] = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    enabled = "+".join(sorted(name for name, on in features.items() if on))
    cpu = hashlib.sha256(enabled.encode()).hexdigest()[:8]
    libc = "-".join(platform.libc_ver())
    built: Any = np.show_config(mode="dicts")
    blas = built.get("Build Dependencies", {}).get("blas", {})
    library = f"{blas.get('name', 'unknown')}-{blas.get('version', 'unknown')}"
    return f"numpy-{np.__version__}/{platform.machine()}-{cpu}/{libc or platform.system()}/{library}"
