"""The connection itself: plain questions are read from its bytes and answered on it; all else is uvicorn's and ASGI's.

A request is plain where its head says no more than a POST of so many bytes of JSON to one of the two paths that
`Front` answers, by HTTP/1.1. Whether a head is plain is found out by the parser that uvicorn uses and remembered by the
head's bytes, because a client's heads repeat themselves. What is not plain, or has a body that `Front` does not
understand, goes to uvicorn with every byte, and from there to `Front` and FastAPI: there is one contract.

One plain question of a connection is under way at a time; what comes behind it waits here, so that answers keep their
order. While uvicorn has a request of this connection, or a part of one, the bytes are uvicorn's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from skewguard.service.answering import refusal
from skewguard.service.front import Front
from skewguard.service.problems import MEDIA_TYPE, Unanswered

_logger = logging.getLogger(__name__)
_HIGH = 65_536
"""Bytes behind a question under way, or of one, before no more are read."""
_HEAD = 4096
_REMEMBERED = 1024
"""Heads that are remembered; then all are forgotten."""
_END = b"\r\n\r\n"
_PLAIN = frozenset(
    b"accept accept-encoding accept-language authorization b3 baggage cache-control cookie dnt forwarded host origin "
    b"pragma priority referer user-agent via".split()
)
"""Headers that change nothing here, among those that clients and proxies send by themselves."""
_JSON, _PROBLEM, _TEXT = b"application/json", MEDIA_TYPE.encode(), b"text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Head:
    """A plain head: which of the two paths, how many bytes follow, and the caller's API key, empty for none."""

    predicts: bool
    length: int
    key: bytes


class Heads:
    """The heads of one server's requests: which are plain."""

    def __init__(self, short: Mapping[str, bool], largest: int) -> None:
        self._short = {path.encode(): predicts for path, predicts in short.items()}
        self._starts = tuple(b"POST %b HTTP/1.1\r\n" % path for path in self._short)
        self._largest = largest
        self._known: dict[bytes, Head | None] = {}

    def find(self, data: bytes) -> tuple[Head, int] | None:
        """The plain head with which `data` begins, and its length; None where it begins with anything else."""
        size = data.find(_END, 0, _HEAD) + len(_END)
        start = data[:size]
        head = self._known.get(start, _UNSEEN)
        if head is _UNSEEN:
            if not data.startswith(self._starts) or size < len(_END):
                return None
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            head = self._known[start] = self._read(start)
        return None if head is None else (head, size)

    def _read(self, start: bytes) -> Head | None:
        said = _Said()
        if start.count(b"\n") != start.count(b"\r\n"):
            return None
        parser = httptools.HttpRequestParser(said)
        try:
            parser.feed_data(start)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        predicts = self._short.get(said.url)
        headers = dict(said.headers)
        length = headers.pop(b"content-length", b"")
        kind = headers.pop(b"content-type", b"")
        key = headers.pop(b"x-api-key", b"")
        alive = headers.pop(b"connection", b"keep-alive").lower() == b"keep-alive" and parser.should_keep_alive()
        twice = len(dict(said.headers)) != len(said.headers)
        odd = twice or said.more or any(_changes(name) for name in headers)
        if predicts is None or odd or not alive or not kind.startswith(_JSON) or not length.isdigit():
            return None
        return Head(predicts, int(length), key) if 0 < int(length) <= min(self._largest, _HIGH * 4) else None


_UNSEEN: Any = object()


def _changes(name: bytes) -> bool:
    """Whether a header may change how a request is read: all that HTTP itself knows, but for a few that do not."""
    return not (name in _PLAIN or name.startswith((b"x-", b"trace", b"sec-")))


class _Said:
    """What a head says, as the parser tells it."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.more = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, _: bytes) -> None:
        self.more = True


class Wire(HttpToolsProtocol):
    """One connection. Made by `wire_of`, which says for which server."""

    front: Front
    heads: Heads

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._asking = False
        self._began = 0.0
        self._rest = b""  # a part of a plain question, or what came behind one that is under way
        self._inside = False  # uvicorn's parser has begun a request and not ended it
        self._upgraded = self._last = self._ended = False
        self._active = 0.0
        self._idle: asyncio.TimerHandle | None = None

    # -- what comes ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes of the connection."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        while data:
            if self._asking or self.flow.write_paused:
                self._keep(data)
                return
            if self._inside or self._upgraded or self._serving:
                self._hand_over(data)
                return
            data = self._begin(data)

    @property
    def _serving(self) -> bool:
        """Whether uvicorn has a request of this connection under way."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _hand_over(self, data: bytes) -> None:
        super().data_received(data)
        if self._last and self._serving:
            self.cycle.keep_alive = False

    def _keep(self, data: bytes) -> None:
        self._rest = data
        if len(data) > _HIGH:
            self.flow.pause_reading()

    def _begin(self, data: bytes) -> bytes:
        """Take the request with which `data` begins; what there is to do behind it."""
        if self.transport.is_closing():
            return b""
        found = self.heads.find(data)
        if found is None:
            self._hand_over(data)
            return b""
        head, start = found
        stop = start + head.length
        self._unset_keepalive_if_required()
        if len(data) < stop:
            self._rest = data
            return b""
        self._ask(head, data[start:stop], data[:stop])
        return data[stop:]

    def _ask(self, head: Head, body: bytes, whole: bytes) -> None:
        front = self.front
        self._began = time.perf_counter()
        try:
            question = front.question(body, front.client(head.key), predicts=head.predicts)
            if question is None:
                self._hand_over(whole)
                return
            self._asking = True
            front.put(question, self)
        except Exception as error:  # noqa: BLE001  (as any that an answer may fail with)
            self._asking = True
            self.fail(error)

    # -- what goes -----------------------------------------------------------------------------------------------------

    def give(self, answer: bytes) -> None:
        """The answer to the question under way."""
        if self._asking:
            self._answer(200, _JSON, answer)

    def fail(self, error: Exception) -> None:
        """Why it has none."""
        if not self._asking:
            return
        problem = refusal(error)
        if problem is not None:
            self._refuse(self.front.problem(problem))
            return
        _logger.error("a question failed", exc_info=error)
        self._last = True
        self._answer(500, _TEXT, b"Internal Server Error")

    def _refuse(self, problem: Unanswered) -> None:
        more = b"".join(b"%b: %b\r\n" % (n.lower().encode(), v.encode()) for n, v in problem.headers.items())
        self._answer(problem.status, _PROBLEM, problem.body(), more)

    def _answer(self, status: int, kind: bytes, body: bytes, more: bytes = b"") -> None:
        self._asking = False
        self.front.settled(status, self._began)
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        dates = b"".join([b"%b: %b\r\n" % header for header in self.server_state.default_headers])
        closes = b"connection: close\r\n" if self._last else b""
        head = b"%bcontent-type: %b\r\n%bcontent-length: %d\r\n%b\r\n" % (dates, kind, more, len(body), closes)
        if len(body) > _HIGH:  # a copy would cost more than a second piece
            self.transport.write(STATUS_LINE[status] + head)
            self.transport.write(body)
        else:
            self.transport.write(b"".join((STATUS_LINE[status], head, body)))
        if self._last:
            self._rest = b""
            self.transport.close()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """After an answer: what has come meanwhile, else wait for more, but not for ever."""
        if self._rest:
            asyncio.get_running_loop().call_soon(self._resume)
            return
        self._active = self.loop.time()
        if self._ended:
            self.transport.close()
        elif self._idle is None:
            self._idle = self.loop.call_later(self.timeout_keep_alive, self._look)

    def _resume(self) -> None:
        self.flow.resume_reading()
        if not self._asking and not self.transport.is_closing():
            self.data_received(b"")
            self._end()

    def _look(self) -> None:
        """Close a connection on which nothing has come since the last answer; a timer per request would cost more."""
        self._idle = None
        busy = self._asking or self._rest or self._inside or self._serving
        left = self._active + self.timeout_keep_alive - self.loop.time()
        if busy or left > 0:
            self._idle = self.loop.call_later(max(left, 1.0), self._look)
        elif self.timeout_keep_alive_task is None:  # else uvicorn looks after it
            self.transport.close()

    # -- the connection ------------------------------------------------------------------------------------------------

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn never keeps it open
        """The caller has said all that it will say; it may still be listening."""
        self._ended = True
        return self._end()

    def _end(self) -> bool:
        """Where nothing more will come: whether something is still to be answered, after which the end is."""
        if not self._ended or self._asking:
            return True
        if self._serving and not self._inside:
            self.cycle.keep_alive = False
            return True
        self.transport.close()
        return False

    def resume_writing(self) -> None:
        """The caller reads again."""
        super().resume_writing()
        if self._rest:
            self._resume()

    def shutdown(self) -> None:
        """Close, after the answer that is under way."""
        if self._asking or self._rest:
            self._last = True
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone; a question under way is answered and logged all the same."""
        self._rest = b""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        super().connection_lost(exc)

    # -- where uvicorn is ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Uvicorn has a request, or the beginning of one."""
        self._inside = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """After an upgrade the connection speaks another language."""
        self._upgraded = self._upgraded or self.parser.should_upgrade()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """It has the whole of it."""
        self._inside = False
        super().on_message_complete()


def wire_of(front: Front) -> type[Wire]:
    """The connections of one server, for uvicorn's `http`."""
    return type("Wire", (Wire,), {"front": front, "heads": Heads(front.short, front.largest)})
