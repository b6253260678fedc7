"""What identifies a transform's definition, and the numeric class of the machine that runs it."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import platform
import struct
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, cast

import numpy as np

from skewguard.errors import DefinitionError


def fingerprint(function: Callable[..., Any]) -> str:
    """Digest (32 hex digits) of the normalised source with constants and helpers, recursively.

    Comments, formatting, docstrings and annotations change nothing; a constant in a helper of a helper does. Library
    functions count by module and name. Raises `DefinitionError` for a global whose value cannot be fingerprinted.
    """
    digest = hashlib.sha256()
    for piece in _function(function, seen=set()):
        digest.update(piece.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def _function(function: Callable[..., Any], seen: set[int]) -> Iterator[str]:
    function = cast(types.FunctionType, getattr(function, "function", function))  # a Transform stands for its body
    if id(function) in seen:
        yield "recursion"
        return
    seen.add(id(function))
    yield _normalised(function)
    for name in sorted(_free_names(function.__code__)):
        if name in function.__globals__:
            yield from _value(f"{function.__module__}.{name}", function.__globals__[name], seen)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield from _value(name, cell.cell_contents, seen)


def _free_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _free_names(constant)
    return names


def _value(name: str, value: Any, seen: set[int]) -> Iterator[str]:
    body = getattr(value, "function", value)
    if isinstance(value, types.ModuleType):
        yield f"module {value.__name__}"
    elif isinstance(body, types.FunctionType) and not _is_library(body.__module__):
        yield from _function(body, seen)
    elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType | np.ufunc):
        yield f"library {getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"
    else:
        yield _constant(name, value)


def _constant(name: str, value: Any) -> str:
    kind = type(value)
    if isinstance(value, float):
        return f"float {struct.pack('<d', value).hex()}"
    if value is None or isinstance(value, bool | int | str | bytes):
        return f"{kind.__name__} {value!r}"
    if isinstance(value, np.ndarray):
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f"array {value.dtype.str} {value.shape} {content}"
    if isinstance(value, dict):
        value = {(_constant(name, k), _constant(name, v)) for k, v in value.items()}
    if isinstance(value, set | frozenset | tuple | list):
        parts = [_constant(name, part) for part in value]
        return f"{kind.__name__} [{', '.join(parts if isinstance(value, tuple | list) else sorted(parts))}]"
    if kind.__module__ in ("zoneinfo", "datetime", "_pydatetime", "decimal"):
        return f"{kind.__module__}.{kind.__qualname__} {value}"
    raise DefinitionError(
        f"{name}: a transform reads this global, whose value ({type(value).__name__}) cannot be fingerprinted. "
        "Use numbers, strings, tuples, dicts, arrays, dates or plain functions."
    )


def _is_library(module: str) -> bool:
    top = module.partition(".")[0]
    return top in sys.stdlib_module_names or top in ("numpy", "skewguard")


def _normalised(function: types.FunctionType) -> str:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError) as error:
        raise DefinitionError(
            f"{function.__module__}:{function.__qualname__}: its source cannot be read: {error}"
        ) from error
    return _dump(_Plain().visit(tree))


class _Plain(ast.NodeTransformer):
    """Drops what does not change the meaning: decorators, annotations, docstrings."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.decorator_list, node.returns, node.name = [], None, "f"
        if node.body and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant):
            node.body = node.body[1:] or [ast.Pass()]
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node


def _dump(node: Any) -> str:
    """Own dump, because `ast.dump` changes between Python versions: no empty fields, floats by their bits."""
    if isinstance(node, ast.Constant):
        return _constant("literal", node.value) if node.value is not ... else "..."
    if isinstance(node, ast.AST):
        parts = [f"{f}={_dump(v)}" for f, v in sorted(ast.iter_fields(node)) if v not in (None, []) and f != "kind"]
        return f"{type(node).__name__}({', '.join(parts)})"
    if isinstance(node, list):
        return f"[{', '.join(_dump(v) for v in node)}]"
    return repr(node)


@cache
def numeric_class() -> str:
    """What decides the last bit of a float here: numpy's version, the CPU features it dispatches to, the C library."""
    features: dict[str, bool] = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    enabled = "+".join(sorted(name for name, on in features.items() if on))
    cpu = hashlib.sha256(enabled.encode()).hexdigest()[:8]
    libc = "-".join(platform.libc_ver())
    return f"numpy-{np.__version__}/{platform.machine()}-{cpu}/{libc or platform.system()}"
