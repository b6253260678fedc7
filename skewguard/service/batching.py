"""Micro-batches: what arrives while others are being answered is answered together.

Nobody waits for company: an idle server answers a request alone, at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from skewguard.service.answers import Encode
from skewguard.service.asks import Row
from skewguard.service.problems import Unanswered


class Asker(Protocol):
    """Who hears, once, what became of a question; nobody may be there any more to be told."""

    def give(self, answer: bytes) -> None:
        """The body of the answer; its rows are in the log."""
        ...

    def fail(self, error: Exception) -> None:
        """Why there is none."""
        ...


class Waiting:
    """An asker that waits for a future."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def give(self, answer: bytes) -> None:
        """The answer."""
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Why there is none."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(eq=False, slots=True)
class Question:
    """One request of n asks, all as of one instant (microseconds UTC). `client` is the id of its API key.

    `place` is the member of the body that lists the asks, empty where there is one ask and no list.
    """

    rows: Sequence[Row]
    request_id: str
    as_of: int
    encode: Encode
    predicts: bool
    place: str = ""
    client: str = ""
    born: float = field(default_factory=time.perf_counter)

    @property
    def ids(self) -> list[str]:
        """The id of each row in the log."""
        if not self.place:
            return [self.request_id]
        n = len(self.rows)
        endings = _ENDINGS[:n] if n <= len(_ENDINGS) else [f"-{i}" for i in range(n)]
        return [self.request_id + ending for ending in endings]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server takes on. A request that would wait longer than `patience_seconds` is turned away at once."""

    batch_rows: int = 512
    at_once: int = 1
    patience_seconds: float = 0.5
    waiting_rows: int = 20_000


Asked = tuple[Question, Asker]

_ENDINGS = [f"-{i}" for i in range(1000)]


class Batcher:
    """The queue in front of `run`, which must answer or fail every question it is given and never raise."""

    def __init__(self, run: Callable[[list[Asked]], Awaitable[None]], limits: Limits) -> None:
        self._run, self._limits = run, limits
        self._waiting: deque[Asked] = deque()
        self._rows = 0
        self._running = 0
        self._due = False
        self._seconds_per_row = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, question: Question, asker: Asker) -> None:
        """Queue a question; raises `Unanswered` (503) where it would wait too long."""
        rows = self._rows + len(question.rows)
        if self._waiting and (
            rows > self._limits.waiting_rows or rows * self._seconds_per_row > self._limits.patience_seconds
        ):
            raise Unanswered(
                503, "overloaded", f"{self._rows} asks are waiting already; this one would be late. Try again later."
            )
        self._waiting.append((question, asker))
        self._rows = rows
        self._soon()

    def _soon(self) -> None:
        """Start after the requests that this turn of the loop has still to read."""
        if not self._due and self._running < self._limits.at_once:
            self._due = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._due = False
        while self._waiting and self._running < self._limits.at_once:
            batch = [self._waiting.popleft()]
            rows = len(batch[0][0].rows)
            while self._waiting and rows + len(self._waiting[0][0].rows) <= self._limits.batch_rows:
                batch.append(self._waiting.popleft())
                rows += len(batch[-1][0].rows)
            self._rows -= rows
            self._running += 1
            task = asyncio.get_running_loop().create_task(self._through(batch, rows))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _through(self, batch: list[Asked], rows: int) -> None:
        began = time.perf_counter()
        try:
            await self._run(batch)
        finally:
            self._running -= 1
            took = (time.perf_counter() - began) / rows
            self._seconds_per_row += 0.1 * (took - self._seconds_per_row)
            if self._waiting:
                self._soon()
