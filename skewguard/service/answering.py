"""Requests on their way: parse -> look up -> answer -> log. Nothing is answered that is not logged."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from skewguard.answer import Log, Served, answer, schema, statuses, to_batch
from skewguard.definitions import Bundle
from skewguard.errors import AskError, DefinitionError, LogError, PredictionError, StoreUnavailable
from skewguard.model import Model
from skewguard.online import Lookup
from skewguard.service.answers import Answers, Wording
from skewguard.service.asks import parse_asks
from skewguard.service.batching import Asked, Asker, Batcher, Limits, Question, Waiting
from skewguard.service.frames import Frames
from skewguard.service.metrics import Metrics
from skewguard.service.problems import Unanswered, WrongRow, unclear
from skewguard.service.reading import Reading, reading_of
from skewguard.servinglog import ServingLog
from skewguard.servinglog.message import Message, Rows
from skewguard.spine import Spine, ViewRows
from skewguard.values import NO_TIME, Status

CLIENT = pa.field("client", pa.string())
"""The column of the log that holds the id of the caller's API key, where there are keys."""


class Deployed:
    """A model (or none) and the log whose header names it. Batches under way keep the one they began with."""

    def __init__(self, model: Model | None, log: Log) -> None:
        self.model, self.log = model, log
        self._users = 0
        self._idle: asyncio.Future[None] | None = None

    def append(self, rows: Rows) -> bool:
        """Log rows; whether they are in the log. Raises `LogError` unless the log counts what it cannot take."""
        before = getattr(self.log, "lost_rows", 0)
        if isinstance(self.log, ServingLog):
            self.log.append(rows)
        else:
            self.log.append(rows.batch() if isinstance(rows, Message) else rows)
        return bool(getattr(self.log, "lost_rows", 0) == before)

    @contextmanager
    def used(self) -> Iterator[None]:
        """While a micro-batch is answered."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users and self._idle is not None and not self._idle.done():
                self._idle.set_result(None)

    async def idle(self) -> None:
        """Once this has been replaced: until no micro-batch uses it any more."""
        if self._users:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle


class Answering:
    """All that requests need. `clock` gives microseconds UTC; `accept_as_of` lets a request name its own instant.

    `clients`: the log has a column for the id of the caller's API key. `blocking_log`: an append may take
    milliseconds and is left to a thread.
    """

    def __init__(
        self,
        bundle: Bundle,
        lookup: Lookup,
        log: Log,
        model: Model | None,
        accept_as_of: bool,
        clock: Callable[[], int],
        *,
        reading: Reading | None = None,
        limits: Limits | None = None,
        clients: bool = False,
        blocking_log: bool = False,
    ) -> None:
        self.bundle, self.lookup, self.accept_as_of, self.clock = bundle, lookup, accept_as_of, clock
        self.deployed = Deployed(model, log)
        self.reading = reading or reading_of(lookup)
        self.metrics = Metrics(bundle)
        self.metrics.swap("", model)
        self.schema = schema(bundle)
        self.recent: np.ndarray[Any, np.dtype[np.float64]] | None = None
        self._wording = Wording(bundle)
        self._clients, self._blocking_log = clients, blocking_log
        self._frames = Frames(bundle, self.schema.append(CLIENT) if clients else self.schema)
        # While a disk is waited for the next batches are looked up; else one at a time makes the largest.
        self.limits = limits or Limits(at_once=2 if blocking_log else 1)
        self._features = Batcher(self._run, self.limits)
        self._predictions = Batcher(self._run, self.limits)

    @property
    def model(self) -> Model | None:
        """The model that answers now."""
        return self.deployed.model

    # -- many at once --------------------------------------------------------------------------------------------------

    def ask(self, question: Question) -> asyncio.Future[bytes]:
        """The body of the answer, as `put` gives it; raises at once what `put` raises."""
        waiting = Waiting()
        self.put(question, waiting)
        return waiting.answer

    def put(self, question: Question, asker: Asker) -> None:
        """Tell `asker` the body of the answer once it is in the log; or why there is none, and nothing is logged.

        Raises `Unanswered` at once where the question would wait too long, or needs a model and there is none.
        """
        if not question.predicts:
            self._features.put(question, asker)
        elif self.deployed.model is None:
            raise Unanswered(503, "model_unavailable", "this server was started without a model; use /features")
        else:
            self._predictions.put(question, asker)

    async def _run(self, asked: list[Asked]) -> None:
        """Answer a micro-batch. Where one of its questions has no answer, the others still get theirs."""
        try:
            with self.deployed.used():
                await self._answer(asked, self.deployed)
        except StoreUnavailable as error:
            _refuse(asked, Unanswered(503, "store_unavailable", str(error)))
        except LogError as error:
            _refuse(asked, Unanswered(503, "log_unavailable", str(error)))
        except Exception as error:  # noqa: BLE001  (a question that fails must not take its neighbours along)
            if len(asked) == 1:
                question, asker = asked[0]
                asker.fail(_placed(error, question))
                return
            half = len(asked) // 2
            await self._run(asked[:half])
            await self._run(asked[half:])

    async def _answer(self, asked: list[Asked], deployed: Deployed) -> None:
        began = time.perf_counter()
        questions = [question for question, _ in asked]
        self.metrics.waited(began - questions[0].born)
        spine = self._spine(questions)
        with self.metrics.stage("store"):
            views = await self.reading.read(spine)
        with self.metrics.stage("answer"):
            answers = self._answered(spine, views, deployed.model if questions[0].predicts else None)
        with self.metrics.stage("log"):
            clients = [question.client for question in questions for _ in question.rows] if self._clients else None
            rows = self._frames.message(answers.served, answers.statuses, clients)
            if self._blocking_log:
                logged = await asyncio.to_thread(deployed.append, rows)
            else:
                logged = deployed.append(rows)
        self.metrics.batch(answers, logged=logged)
        with self.metrics.stage("encode"):
            start = 0
            for question, asker in asked:
                stop = start + len(question.rows)
                asker.give(question.encode(answers, question.request_id, start, stop))
                start = stop

    def _spine(self, questions: Sequence[Question]) -> Spine:
        if len(questions) == 1:
            (one,) = questions
            return parse_asks(self.bundle, one.rows, one.ids, np.full(len(one.rows), one.as_of))
        rows = list(chain.from_iterable([question.rows for question in questions]))
        ids = list(chain.from_iterable([question.ids for question in questions]))
        as_of = np.array([question.as_of for question in questions])
        if len(rows) > len(questions):
            as_of = np.repeat(as_of, [len(question.rows) for question in questions])
        return parse_asks(self.bundle, rows, ids, as_of, pinpoint=False)

    # -- one at a time -------------------------------------------------------------------------------------------------

    def serve(
        self, entities: Mapping[str, Any], request_id: str | None, as_of: datetime | None, model: Model | None
    ) -> Served:
        """Answer one ask and have it in the log; raises `AskError` or `Unanswered`, and then nothing is logged."""
        spine = parse_asks(self.bundle, [entities], [request_id or new_id()], [self.instant(as_of)])
        try:
            answers = self._answered(spine, self.lookup.answer(spine), model)
            self.deployed.log.append(to_batch(self.bundle, answers.served, self.schema))
        except StoreUnavailable as error:
            raise Unanswered(503, "store_unavailable", str(error)) from error
        except LogError as error:
            raise Unanswered(503, "log_unavailable", str(error)) from error
        self.metrics.batch(answers)
        return answers.served

    def instant(self, as_of: datetime | None) -> int:
        """Now, or `as_of` where this server lets a request say so (else `AskError`); microseconds UTC."""
        if as_of is None:
            return self.clock()
        if not self.accept_as_of:
            raise AskError("as_of", "this server answers as of its own clock; leave as_of out")
        return (as_of - _EPOCH) // timedelta(microseconds=1)

    # -- both ----------------------------------------------------------------------------------------------------------

    def _answered(self, spine: Spine, views: Mapping[str, ViewRows], model: Model | None) -> Answers:
        """The answers; raises rather than let nulls stand for what the store did not say."""
        self._written(views)
        try:
            served = answer(self.bundle, spine, views, model)
        except DefinitionError as error:
            raise Unanswered(503, "transform_failed", str(error)) from error
        except PredictionError as error:
            raise Unanswered(503, "model_failed", str(error)) from error
        answers = Answers(self._wording, served, statuses(self.bundle, served), model)
        self._explained(answers)
        if served.prediction is not None:
            finite = np.isfinite(served.prediction)
            if not finite.all():
                wrong = served.prediction[~finite][0]
                raise Unanswered(503, "model_unavailable", f"the model gave {wrong}, which is no prediction")
            self.recent = served.vector
        return answers

    def _written(self, views: Mapping[str, ViewRows]) -> None:
        empty = [view for view, rows in views.items() if rows.watermark[0] == NO_TIME]
        if empty and self.lookup.marked:
            where = self.lookup.store.url
            raise StoreUnavailable(f"{', '.join(empty)} never materialized to the online store {where}")

    def _explained(self, answers: Answers) -> None:
        views = answers.served.views
        if answers.worst < _ERROR and all(rows.status.max() < _ERROR for rows in views.values()):
            return
        failed = [
            name
            for name, rows in views.items()
            if (rows.status == _ERROR).any() or any((c.status == _ERROR).any() for c in rows.features.values())
        ]
        reason = (
            f"the online store holds rows of {', '.join(failed)} that no known layout explains, or a part of it is gone"
        )
        raise Unanswered(503, "store_unreadable", reason)

    async def check(self) -> None:
        """Raise `Unanswered` unless the store holds every view and the log can be written."""
        try:
            await self.reading.ready()
            self.deployed.log.check()
        except StoreUnavailable as error:
            raise Unanswered(503, "store_unavailable", str(error)) from error
        except LogError as error:
            raise Unanswered(503, "log_unavailable", str(error)) from error


_random = random.Random()  # noqa: S311  (ids are no secrets; seeded by the system, and apart from a model's `random`)
os.register_at_fork(after_in_child=_random.seed)


def new_id() -> str:
    """An id for a request that brings none."""
    return f"{_random.getrandbits(128):032x}"


def refusal(error: Exception) -> Unanswered | None:
    """What a failed question is told; None where the failure is this program's own."""
    if isinstance(error, Unanswered):
        return error
    return unclear(error) if isinstance(error, AskError) else None


def _placed(error: Exception, question: Question) -> Exception:
    """The error, with its row where the question has rows."""
    if not question.place or not isinstance(error, AskError) or error.field == "as_of":
        return error
    row = error.row if isinstance(error, WrongRow) else 0
    return WrongRow(error.field, str(error).removeprefix(f"{error.field}: "), row, question.place)


def _refuse(asked: Sequence[Asked], why: Unanswered) -> None:
    for _, asker in asked:
        asker.fail(why)


_ERROR = int(Status.ERROR)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
