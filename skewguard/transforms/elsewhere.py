"""The same transforms in two other processes: other hash seeds, time zones, locales, working folders, and a clock that
is 400 days ahead in one of them. `python -m skewguard.transforms.elsewhere` is such a process.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import importlib
import json
import locale
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skewguard.errors import DefinitionError
from skewguard.transforms import scalars
from skewguard.transforms.behaviour import compute
from skewguard.transforms.declare import Transform, load
from skewguard.transforms.golden import bits
from skewguard.transforms.learned import decode, encode
from skewguard.transforms.objection import Ground, Objection
from skewguard.transforms.patience import TooLong, patience
from skewguard.transforms.pool import batch, pools
from skewguard.transforms.source import plain
from skewguard.transforms.tracer import prove
from skewguard.values import Dtype

_SHIFT = 400 * 86_400
_TIMEOUT, _PATIENCE = 120.0, 5.0
_COMPILED = ("pandas", "pyarrow")
"""Libraries whose compiled code wants the real `datetime` when it is imported; pandas would never come back."""
_WORLDS: list[dict[str, Any]] = [
    {"PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati", "LC_ALL": "C", "shift": 0, "reverse": False},
    {"PYTHONHASHSEED": "4242", "TZ": "America/St_Johns", "LC_ALL": "tr_TR.UTF-8", "shift": _SHIFT, "reverse": True},
]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Processes under way; `objections` waits for them."""

    transforms: Sequence[Transform]
    processes: Sequence[subprocess.Popen[bytes]]

    def objections(self, of: Collection[Transform]) -> dict[str, list[Objection]]:
        """To those of `of` that could be started, by reference; a process that fails is an objection to all."""
        expected = {one.reference: _patiently(one) for one in self.transforms if one in of}
        found: dict[str, list[Objection]] = {reference: [] for reference in expected}
        for process, world in zip(self.processes, _WORLDS, strict=bool(self.processes)):  # none where there was nothing
            got = _answer(process)
            for reference, mine in expected.items():
                theirs = got.get(reference) or got.get("") or "no answer"
                if theirs != mine and len(theirs) == len(mine):
                    found[reference].append(_differs(reference, world))
                elif theirs != mine:
                    what = f"{reference} could not be run in a process of its own: {theirs}"
                    found[reference].append(Objection(Ground.UNCHECKED, what, None, "a module that can be imported"))
        return {reference: objections[:1] for reference, objections in found.items()}


def _patiently(transform: Transform) -> str:
    try:
        with patience(_PATIENCE):
            return outcome(transform)
    except TooLong:
        return f"it did not come to an end within {_PATIENCE:.0f} s"


def _differs(reference: str, world: dict[str, Any]) -> Objection:
    clock = ", a clock 400 days ahead" if world["shift"] else ""
    return Objection(
        Ground.PURITY,
        f"{reference} gives other values in another process (hash seed {world['PYTHONHASHSEED']}, TZ={world['TZ']}, "
        f"LC_ALL={world['LC_ALL']}, another folder{clock})",
        None,
        "only inputs and constants; no order of sets, no time zone or language of the machine",
    )


def start(transforms: Iterable[Transform]) -> Elsewhere:
    """Start the processes for those transforms that can be imported by name."""
    importable = [one for one in transforms if can_import(one)]
    return Elsewhere(importable, [_spawn(importable, world) for world in _WORLDS] if importable else [])


def can_import(transform: Transform) -> bool:
    """Whether another process finds this very transform under its name."""
    module, _, name = transform.reference.partition(":")
    if module == "__main__" or "<" in name:
        return False
    try:
        return load(transform.reference).function is plain(transform)
    except DefinitionError:
        return False


def _spawn(transforms: Sequence[Transform], world: dict[str, Any]) -> subprocess.Popen[bytes]:
    path = [os.path.abspath(folder) for folder in sys.path]  # noqa: PTH100  (what it names need not exist)
    task = {"references": {one.reference: _fitted(one) for one in transforms}, "path": path} | world
    task["libraries"] = [name for name in _COMPILED if name in sys.modules]
    environment = os.environ | {name: world[name] for name in ("PYTHONHASHSEED", "TZ", "LC_ALL")}
    environment |= {"PYTHONPATH": os.pathsep.join(path), "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        [sys.executable, "-m", "skewguard.transforms.elsewhere"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=tempfile.gettempdir(),
    )
    if process.stdin is not None:
        process.stdin.write(json.dumps(task).encode())
        process.stdin.close()
        process.stdin = None
    return process


def _fitted(transform: Transform) -> dict[str, Any]:
    return {name: encode(value, name) for name, value in (transform.fitted or {}).items()}


def _answer(process: subprocess.Popen[bytes]) -> dict[str, str]:
    try:
        out, err = process.communicate(timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"": f"no answer within {_TIMEOUT:.0f} s"}
    if process.returncode:
        return {"": (err.decode(errors="replace").strip().splitlines() or ["it stopped"])[-1]}
    answer: dict[str, str] = json.loads(out)
    return answer


def outcome(transform: Transform) -> str:
    """A digest of the traced graph and of the values on the pool, or what was raised."""
    rows = batch(pools(transform), 300)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            content = bits(compute(transform, rows))
        except DefinitionError as error:
            content = str(type(error.__cause__)).encode()
        return hashlib.sha256(content + prove(transform).graph.encode()).hexdigest()


# -- inside of such a process -----------------------------------------------------------------------------------------


def main() -> None:
    """Read a task from standard input, answer on standard output; what the user's code prints goes elsewhere."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    task = json.load(sys.stdin)
    sys.path[:] = task["path"]
    with contextlib.suppress(locale.Error):  # this machine may not know that language
        locale.setlocale(locale.LC_ALL, "")
    if task["shift"]:
        for name in task["libraries"]:
            importlib.import_module(name)
        _shift_clocks(task["shift"])
    outcomes = {}
    for reference in sorted(task["references"], reverse=task["reverse"]):
        try:
            values = {name: decode(value) for name, value in task["references"][reference].items()}
            outcomes[reference] = _patiently(load(reference).bind(values))
        except Exception as error:  # noqa: BLE001  (whatever importing it raises is the answer)
            outcomes[reference] = f"{type(error).__name__}: {error}"
    json.dump(outcomes, answer)
    answer.close()


def _shift_clocks(seconds: int) -> None:
    """`time` and `datetime` from now on tell a time `seconds` ahead, to code that is imported from now on."""
    for name, unit in (("time", 1), ("time_ns", 10**9), ("monotonic", 1), ("perf_counter", 1), ("monotonic_ns", 10**9)):
        setattr(time, name, _later(getattr(time, name), seconds * unit))
    ahead = dt.timedelta(seconds=seconds)
    today = dt.date.today

    class AsReal(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, cls.__mro__[1])

    class ShiftedDate(dt.date, metaclass=AsReal):
        @classmethod
        def today(cls) -> Any:
            return today() + ahead

    class ShiftedDatetime(dt.datetime, metaclass=AsReal):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return super().now(tz) + ahead

        @classmethod
        def utcnow(cls) -> Any:
            return super().now(dt.UTC).replace(tzinfo=None) + ahead

        @classmethod
        def today(cls) -> Any:
            return super().now() + ahead

    for shifted in (ShiftedDate, ShiftedDatetime):  # to a fingerprint they are what they stand for
        shifted.__module__, shifted.__qualname__ = "datetime", shifted.__mro__[1].__qualname__
    scalars.ANNOTATED[ShiftedDatetime] = Dtype.TIMESTAMP
    dt.date = ShiftedDate  # type: ignore[misc]
    dt.datetime = ShiftedDatetime  # type: ignore[misc]


def _later(clock: Callable[[], Any], ahead: int) -> Callable[[], Any]:
    return lambda: clock() + ahead


if __name__ == "__main__":
    main()
