"""Several serving processes behind one socket, and the one that looks after them.

Each worker writes segments of its own. The master answers nothing: it starts a worker again that died, passes SIGTERM
and SIGHUP on, and workers whose master is gone stop by themselves.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from multiprocessing import connection
from multiprocessing.context import SpawnProcess

from skewguard.errors import SkewguardError
from skewguard.service.settings import Settings, Wrap

_logger = logging.getLogger(__name__)
_COULD_NOT_RUN = 2
_BACKLOG = 2048
GRACE_SECONDS = 30.0
_YOUNG_SECONDS = 5.0
"""A worker that dies younger than this is started again after a pause."""


def supervise(settings: Settings, wrap: Wrap | None) -> None:
    """Serve with `settings.workers` processes until SIGTERM; exits with 2 where a worker cannot start."""
    with tempfile.TemporaryDirectory(prefix="skewguard-metrics-") as metrics, _listen(settings) as listener:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
        try:
            _Master(settings, wrap, listener).run()
        finally:
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((settings.host, settings.port))
    listener.listen(_BACKLOG)
    return listener


class _Master:
    def __init__(self, settings: Settings, wrap: Wrap | None, listener: socket.socket) -> None:
        self._settings, self._wrap, self._listener = settings, wrap, listener
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[SpawnProcess, float] = {}
        self._wakeup, self._woken = socket.socketpair()
        self._stopping = False

    def run(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, self._on_signal)
        self._wakeup.setblocking(False)
        self._woken.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        try:
            while not self._stopping:
                while len(self._workers) < self._settings.workers:
                    self._start()
                self._wait(None)
        finally:
            self._stop()
            signal.set_wakeup_fd(-1)

    def _start(self) -> None:
        worker = self._context.Process(target=_work, args=(self._settings, self._wrap, self._listener), daemon=True)
        worker.start()
        self._workers[worker] = time.monotonic()

    def _wait(self, seconds: float | None) -> None:
        """Until a worker ends or a signal comes; what ended is taken off the list."""
        ready = connection.wait([*(worker.sentinel for worker in self._workers), self._woken.fileno()], seconds)
        if self._woken.fileno() in ready:
            self._woken.recv(4096)
        for worker in [one for one in self._workers if one.sentinel in ready]:
            worker.join()
            self._ended(worker, time.monotonic() - self._workers.pop(worker))

    def _ended(self, worker: SpawnProcess, lived: float) -> None:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
        if self._stopping:
            return
        if worker.exitcode == _COULD_NOT_RUN:
            self._stop()
            sys.exit(_COULD_NOT_RUN)
        _logger.warning("worker %s ended with %s and is started again", worker.pid, worker.exitcode)
        if lived < _YOUNG_SECONDS and not self._workers:
            time.sleep(1.0)

    def _on_signal(self, signum: int, _: object) -> None:
        if signum == signal.SIGHUP:
            self._pass_on(signal.SIGHUP)
        else:
            self._stopping = True

    def _pass_on(self, signum: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid is not None and worker.is_alive():
                os.kill(worker.pid, signum)

    def _stop(self) -> None:
        self._stopping = True
        self._pass_on(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while self._workers and (left := deadline - time.monotonic()) > 0:
            self._wait(left)
        for worker in list(self._workers):
            worker.kill()
            worker.join()


def _work(settings: Settings, wrap: Wrap | None, listener: socket.socket) -> None:
    """A worker's life."""
    from skewguard.service.process import serve

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.Thread(target=_follow_master, daemon=True).start()
    try:
        serve(settings, wrap, listener)
    except SkewguardError as error:
        print(f"skewguard: {error}", file=sys.stderr)  # noqa: T201  (a worker speaks for the command)
        sys.exit(_COULD_NOT_RUN)


def _follow_master() -> None:
    master = multiprocessing.parent_process()
    if master is not None:
        master.join()
        os.kill(os.getpid(), signal.SIGTERM)
