"""The short way: a question that is understood goes from its bytes to the queue and back without the framework.

It measures and admits every POST; what it does not understand goes on to FastAPI with the body it has read. Where
`wire` reads the connection, plain questions do not even come as ASGI; who admits, understands and measures is the same.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import msgspec
from starlette.types import Message, Receive, Scope, Send

from skewguard.errors import AskError
from skewguard.service.admission import Admission
from skewguard.service.answering import Answering
from skewguard.service.batching import Question
from skewguard.service.bodies import QuickBody
from skewguard.service.faces import Faces
from skewguard.service.problems import MEDIA_TYPE, Unanswered, unclear

Rest = Callable[[Scope, Receive, Send], Awaitable[None]]

_JSON = (b"content-type", b"application/json")
_PROBLEM = (b"content-type", MEDIA_TYPE.encode())
_SHED = {401: "unauthorized", 413: "too_large", 429: "rate"}


class Front:
    """What stands before the application for every POST."""

    def __init__(self, answering: Answering, admission: Admission, faces: Faces) -> None:
        self._answering, self._admission, self._faces = answering, admission, faces
        self._metrics = answering.metrics
        service = answering.bundle.service
        self.short = {f"/v1/{service}/features": False, f"/v1/{service}/predict": True}
        self.largest = admission.body_bytes
        self.client = admission.client
        self.put = answering.put
        self._decode = msgspec.json.Decoder(QuickBody).decode

    async def __call__(self, scope: Scope, receive: Receive, send: Send, rest: Rest) -> None:
        """An ASGI application; `rest` answers what is not answered here."""
        began = time.perf_counter()
        status = 500
        try:
            client, is_json, body = await self._read(scope, receive)
            predicts = self.short.get(scope["path"]) if is_json else None
            question = None if predicts is None else self.question(body, client, predicts=predicts)
            if question is None:
                scope.setdefault("state", {})["client"] = client
                status = await _pass_on(scope, _again(body, receive), send, rest)
            else:
                answer = await self._answering.ask(question)
                status = 200
                await _send(send, 200, [_JSON], answer)
        except (AskError, Unanswered) as error:
            status = await _refuse(send, self.problem(error))
        finally:
            self.settled(status, began)

    def problem(self, error: AskError | Unanswered) -> Unanswered:
        """What the caller is told of a question that has no answer."""
        problem = error if isinstance(error, Unanswered) else unclear(error)
        if problem.code == "overloaded":
            self._metrics.shed(problem.code)
        return problem

    def settled(self, status: int, began: float) -> None:
        """Measure a request that has been answered; `began` by the clock of `time.perf_counter`."""
        self._metrics.request(status, time.perf_counter() - began)
        if status in _SHED:
            self._metrics.shed(_SHED[status])

    async def _read(self, scope: Scope, receive: Receive) -> tuple[str, bool, bytes]:
        """The caller's id, whether the body calls itself JSON, and the body."""
        key, is_json = b"", False
        for name, value in scope["headers"]:
            if name == b"content-type":
                is_json = value.startswith(b"application/json")
            elif name == b"x-api-key":
                key = value
            elif name == b"content-length" and value.isdigit():
                self._admission.size(int(value))
        client = self._admission.client(key)
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body", False):
            parts, length = [body], len(body)
            while message.get("more_body", False):
                message = await receive()
                parts.append(message.get("body", b""))
                length += len(parts[-1])
                self._admission.size(length)
            body = b"".join(parts)
        return client, is_json, body

    def question(self, body: bytes, client: str, *, predicts: bool) -> Question | None:
        """The question in a body, None where it is the framework's to say what it is.

        Raises `AskError` or `Unanswered` for one that is understood and not admitted.
        """
        try:
            read = self._decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return None
        if read.instances is None:
            if read.entities is None:
                return None
            return self._faces.one(read.entities, read.request_id, read.as_of, client, predicts=predicts)
        if read.entities is not None or not read.instances:
            return None
        return self._faces.several(read.instances, read.request_id, read.as_of, client, predicts=predicts)


def _again(body: bytes, receive: Receive) -> Receive:
    """The body once more, then whatever comes."""
    read = False

    async def again() -> Message:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _pass_on(scope: Scope, receive: Receive, send: Send, rest: Rest) -> int:
    """The status with which the rest answered."""
    status = 500

    async def watched(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        await send(message)

    await rest(scope, receive, watched)
    return status


async def _refuse(send: Send, problem: Unanswered) -> int:
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await _send(send, problem.status, [_PROBLEM, *headers], problem.body())
    return problem.status


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
