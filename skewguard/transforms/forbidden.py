"""What no transform may touch, and what to do instead."""

from __future__ import annotations

import ast
import builtins
import datetime as dt
import decimal
import types
from typing import Any

import numpy as np

from skewguard.transforms.source import public_module

FITTED = "what is learnt from data is a fitted argument, from the snapshot's manifest"
_CLOCK = "the request's own time as an input column (datetime)"
_CHANCE = "no chance in a feature; a hash of an input is zlib.crc32(text.encode())"
_ENVIRONMENT = "a constant at module level: settings of one machine are not part of a feature"
_FILES = "a constant at module level; " + FITTED
_STATE = "only inputs and constants"
_VERSION = "one way for every machine: what differs between versions is no feature"
_HASH = "zlib.crc32(text.encode()), the same in every process"
_LIBRARY = "numpy on columns, or rowmap with a plain function"

_MODULES: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("time", "sched"), ("reads the clock", _CLOCK)),
    **dict.fromkeys(("random", "secrets", "uuid", "_random", "numpy.random"), ("is random", _CHANCE)),
    **dict.fromkeys(
        ("os", "posix", "nt", "getpass", "pwd", "locale", "_locale", "site", "sysconfig", "argparse", "configparser"),
        ("reads the environment", _ENVIRONMENT),
    ),
    **dict.fromkeys(
        ("io", "_io", "pathlib", "tempfile", "shutil", "glob", "fileinput", "linecache", "mmap", "shelve", "dbm",
         "sqlite3", "zipfile", "tarfile", "gzip", "bz2", "lzma", "pkgutil", "importlib"),
        ("reads files", _FILES),
    ),
    **dict.fromkeys(
        ("socket", "_socket", "ssl", "urllib", "http", "ftplib", "smtplib", "requests", "httpx", "aiohttp", "redis",
         "boto3", "subprocess", "_posixsubprocess", "duckdb", "sqlalchemy"),
        ("talks to something outside", "an input: a request field, or a feature of a view"),
    ),
    **dict.fromkeys(
        ("threading", "_thread", "multiprocessing", "asyncio", "concurrent", "contextvars", "gc", "weakref", "inspect",
         "ctypes", "signal", "queue", "atexit", "logging"),
        ("depends on the state of the process", _STATE),
    ),
    **dict.fromkeys(("sys", "platform"), ("asks for the machine or the version of Python", _VERSION)),
    "polars": ("computes other bits for one row than for many (a column by a literal)", _LIBRARY),
    **dict.fromkeys(
        ("pandas", "scipy", "sklearn", "torch", "tensorflow", "jax", "numba", "cupy", "numexpr", "pyarrow"),
        ("is another engine, which nobody has shown to give one row the bits of many", _LIBRARY),
    ),
}  # fmt: skip

_BUILTINS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("open", "input"), ("reads files", _FILES)),
    "hash": ("differs from process to process", _HASH),
    "id": ("is an address in memory", "a key that is an input"),
    **dict.fromkeys(
        ("eval", "exec", "compile", "__import__", "globals", "locals", "vars", "dir", "breakpoint",
         "delattr", "setattr"),
        ("runs or reads code that nobody can check", "plain code"),
    ),
    **dict.fromkeys(("memoryview",), ("depends on addresses in memory", _STATE)),
}  # fmt: skip

_NUMPY: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("empty", "empty_like"), ("holds whatever the memory held", "np.zeros_like(column)")),
    **dict.fromkeys(
        ("load", "loadtxt", "genfromtxt", "fromfile", "memmap", "save", "savetxt", "tofile"), ("reads files", _FILES)
    ),
    **dict.fromkeys(
        ("__version__", "show_config", "__config__", "show_runtime", "get_include", "seterr", "geterr", "errstate",
         "setbufsize", "getbufsize", "version"),
        ("asks for numpy's version or settings", _VERSION),
    ),
    "float16": ("does not give one row the bits of many (log10, cbrt)", "float64"),
    "half": ("does not give one row the bits of many (log10, cbrt)", "float64"),
    "vectorize": ("hides the function that it maps", "rowmap(function, column, out=float)"),
    "frompyfunc": ("hides the function that it maps", "rowmap(function, column, out=float)"),
}  # fmt: skip

_FUNCTIONS: dict[tuple[str, str], tuple[str, str]] = {
    ("decimal", name): ("reads or sets how this thread rounds", "decimal.Context(prec=28).divide(a, b), quantize(...)")
    for name in ("getcontext", "setcontext")
}

_FUNCTIONS["zoneinfo._tzpath", "available_timezones"] = ("reads files", _FILES)

_ALLOWED = {
    *(("uuid", name) for name in ("UUID", "uuid3", "uuid5")),
    *(("pathlib", name) for name in ("PurePath", "PurePosixPath", "PureWindowsPath")),
    *(("_io", name) for name in ("StringIO", "BytesIO")),
}
"""What computes on its arguments alone, in modules that mostly do not; `urllib.parse` is as a whole."""

_NOW = {"now", "utcnow", "today"}
MUTATORS = {
    "append", "extend", "insert", "remove", "pop", "clear", "update", "setdefault", "popitem", "add", "discard",
    "sort", "reverse", "write", "fill", "put", "itemset", "resize", "appendleft", "popleft", "send", "__setitem__",
    "difference_update", "intersection_update", "symmetric_difference_update",
}  # fmt: skip


def allowed(value: Any) -> bool:
    """Whether `value` is of a forbidden module, and yet computes on its arguments alone."""
    if isinstance(value, types.ModuleType):
        return value.__name__ == "urllib.parse"
    module = public_module(value)
    return callable(value) and (module == "urllib.parse" or (module, getattr(value, "__name__", "")) in _ALLOWED)


def forbidden(value: Any, shown: str) -> tuple[str, str] | None:
    """(what is wrong, what to do instead) for a name or attribute that stands for `value`."""
    if isinstance(value, types.ModuleType):
        found = None if allowed(value) else _module(value.__name__)
        return (f"{shown} {found[0]}", found[1]) if found else None
    name = getattr(value, "__name__", "")
    owner = getattr(value, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, dt.date) and name in _NOW:
        return f"{shown} reads the clock", _CLOCK
    module = getattr(value, "__module__", None) or (owner.__name__ if isinstance(owner, types.ModuleType) else "")
    if not module and owner is not None:
        module = type(owner).__module__
    if module == "builtins" and getattr(builtins, name, None) is value and name in _BUILTINS:
        return f"{shown} {_BUILTINS[name][0]}", _BUILTINS[name][1]
    last = shown.rpartition(".")[2]
    if last in _NUMPY and getattr(np, last, None) is value:
        return f"{shown} {_NUMPY[last][0]}", _NUMPY[last][1]
    if callable(value) and isinstance(getattr(value, "__name__", None), str):
        found = None if allowed(value) else _FUNCTIONS.get((public_module(value), name)) or _module(str(module))
        return (f"{shown} {found[0]}", found[1]) if found else None
    return _instance(value, shown)


def _instance(value: Any, shown: str) -> tuple[str, str] | None:
    """An object of a forbidden kind under any name: `rng = random.Random(7)`, `environ`."""
    found = None if allowed(type(value)) else _module(type(value).__module__)
    return (f"{shown} {found[0]}", found[1]) if found else None


def _module(name: str) -> tuple[str, str] | None:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if found := _MODULES.get(".".join(parts[:length])):
            return found
    return None


def local_names(text: str) -> bool:
    """Whether a date's format asks for names of days, months or zones."""
    return any(code in text for code in _LOCAL_NAMES)


LANGUAGE = "a date's format with names of days or months takes the machine's language", "a constant table of names"
_LOCAL_NAMES = ("%a", "%A", "%b", "%B", "%c", "%x", "%X", "%p", "%Z")


def forbidden_call(node: ast.Call, value: Any) -> tuple[str, str] | None:  # noqa: PLR0911  (one line per rule)
    """(what is wrong, what to do instead) for a call whose arguments decide."""
    shown = ast.unparse(node.func)
    attribute = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    if value is np.datetime64 and {text.lower() for text in texts} & {"now", "today"}:
        return f"{shown}({texts[0]!r}) reads the clock", _CLOCK
    if attribute == "astimezone" and not node.args and not node.keywords:
        return "astimezone() takes the machine's time zone", "astimezone(ZoneInfo('America/New_York'))"
    if attribute == "fromtimestamp" and len(node.args) + len(node.keywords) < 2:
        return f"{shown}(...) takes the machine's time zone", "fromtimestamp(seconds, UTC)"
    if value is object:
        return "object() is an address in memory", "None, or an enum's member"
    if value is decimal.localcontext and not node.args:
        return f"{shown}() {_FUNCTIONS['decimal', 'getcontext'][0]}", "localcontext(Context(prec=28))"
    if value in (type, isinstance, hasattr, getattr, callable) and _about_versions(node):
        return f"{ast.unparse(node)} asks what is installed", _VERSION
    out = [keyword for keyword in node.keywords if keyword.arg == "out"]
    if out and shown.startswith(("np.", "numpy.")):
        return f"{shown}(..., out=...) writes into an array", "assign the result to a name"
    return None


def _about_versions(node: ast.Call) -> bool:
    return bool(node.args) and isinstance(node.args[0], ast.Name) and node.args[0].id in ("np", "numpy", "sys", "os")
