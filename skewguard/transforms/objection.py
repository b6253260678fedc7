"""An objection to a transform: what is wrong, at which line of the user's code, and how to write it instead."""

from __future__ import annotations

import ast
import enum
import linecache
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import Any

import numpy as np


class Ground(enum.StrEnum):
    """Why a transform is not accepted."""

    ROWS = "rows"  # a value may depend on other rows of its batch, or nothing shows that it does not
    PURITY = "purity"  # a value may depend on something that is no input: clock, chance, environment, files, state
    BEHAVIOUR = "behaviour"  # it raises on some value, or returns something else than declared
    UNCHECKED = "unchecked"  # a check could not be made: its source cannot be read, a process did not answer


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the user's code."""

    file: str
    line: int

    @property
    def text(self) -> str:
        """The line itself, without indentation."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


@dataclass(frozen=True, slots=True)
class Objection:
    """`what` is wrong, `place` where (None where there is no line), `instead` how to write it, `example` the smallest
    input that shows it."""

    ground: Ground
    what: str
    place: Place | None = None
    instead: str = ""
    example: str = ""

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        code = f"\n    {self.place.text}" if self.place and self.place.text else ""
        example = f"\n    for example: {self.example}" if self.example else ""
        instead = f"\n    instead: {self.instead}" if self.instead else ""
        return f"{where}{self.what}{code}{example}{instead}"


_LIBRARIES = tuple(
    str(Path(folder).resolve())
    for folder in {
        Path(__file__).parent,
        Path(np.__file__).parent,
        *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    }
)


def is_library_file(name: str) -> bool:
    """Whether a file belongs to Python, to an installed package or to the room that does the checking."""
    return name.startswith((*_LIBRARIES, "<frozen"))


def here() -> Place | None:
    """The innermost line of the user's code on the stack."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  (the only way to the caller's line)
    while frame is not None and is_library_file(frame.f_code.co_filename):
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno) if frame else None


def asked_by_numpy() -> bool:
    """Whether the question that is being answered comes from within a call of a numpy function, not from the user's
    own line (numpy's dispatch looks at the class of its arguments)."""
    frame = sys._getframe(2)  # noqa: SLF001  (the only way to the caller's line)
    if is_library_file(frame.f_code.co_filename):
        return str(frame.f_globals.get("__name__", "")).startswith("numpy")
    line, end_line, column, end = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    if not line or not end_line or column is None or end is None:
        return False
    lines = [linecache.getline(frame.f_code.co_filename, number).encode() for number in range(line, end_line + 1)]
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][column:]
    try:
        called = ast.parse(b"(" + b"".join(lines) + b")", mode="eval").body
    except SyntaxError:
        return False
    function = _named(called.func, frame.f_globals | frame.f_locals) if isinstance(called, ast.Call) else None
    module: object = getattr(function, "__module__", "")
    return isinstance(function, np.ufunc) or str(module).startswith("numpy")


def _named(node: ast.AST, names: dict[str, Any]) -> Any:
    """What a chain of names stands for, without running it."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute) and isinstance(owner := _named(node.value, names), ModuleType):
        return getattr(owner, node.attr, None)
    return None


def raised_at(traceback: TracebackType | None) -> Place | None:
    """The innermost line of the user's code in a traceback."""
    found = None
    while traceback is not None:
        if not is_library_file(traceback.tb_frame.f_code.co_filename):
            found = Place(traceback.tb_frame.f_code.co_filename, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found
