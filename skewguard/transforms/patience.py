"""A limit on how long somebody's code may run here."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class TooLong(BaseException):
    """Raised inside of code that has run for too long; no `except Exception` there can swallow it."""


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Raise `TooLong` in this thread unless the block ends within `seconds` (a call into C is not interrupted)."""
    thread = ctypes.c_ulong(threading.get_ident())
    ended = threading.Lock()
    state = {"ended": False}

    def interrupt() -> None:
        with ended:
            if not state["ended"]:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(TooLong))

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    collecting = gc.isenabled()
    gc.disable()  # an exception that arrives while the collector calls back would be lost there
    timer.start()
    try:
        yield
    finally:
        with ended:
            state["ended"] = True
        timer.cancel()
        if collecting:
            gc.enable()
