"""Questions that are read from the connection itself, beside the same questions by way of uvicorn and ASGI."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from skewguard.answer import schema
from skewguard.online import Lookup, open_store
from skewguard.service.admission import Admission
from skewguard.service.answering import CLIENT
from skewguard.service.batching import Question
from skewguard.service.front import Front
from skewguard.service.reading import Inline, Reading
from skewguard.service.wire import Heads, Wire, wire_of
from skewguard.servinglog import ServingLog
from skewguard.spine import Spine, ViewRows
from tests.loop import SERVICE, Loop, logged
from tests.servers import NOON, OK, Client

FEATURES, PREDICT = f"/v1/{SERVICE}/features", f"/v1/{SERVICE}/predict"
COLD = "Range: items=1"
"""A header that changes nothing, and that uvicorn is left to read."""


@dataclass
class Answer:
    """One response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def said(self) -> tuple[object, ...]:
        """All of it that must not depend on the way."""
        kept = {name: value for name, value in self.headers.items() if name != "date"}
        return self.status, kept, self.body


class Line:
    """A connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *parts: bytes) -> None:
        """Without waiting."""
        self.writer.write(b"".join(parts))

    async def answer(self) -> Answer:
        """The next response."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)
        first, *lines = head.decode().rstrip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(first.split()[1]), headers, body)

    async def ended(self) -> bool:
        """Whether nothing more comes."""
        return await asyncio.wait_for(self.reader.read(), 20) == b""


class Counting(Wire):
    """Counts the questions that did not pass through uvicorn."""

    taken = 0

    def give(self, answer: bytes) -> None:
        type(self).taken += 1
        super().give(answer)


@dataclass
class Served:
    """A server in this process."""

    port: int
    wire: type[Counting]
    server: uvicorn.Server
    client: Client
    lines: list[Line] = field(default_factory=list)

    async def line(self) -> Line:
        """A new connection."""
        self.lines.append(Line(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.lines[-1]

    async def one(self, request: bytes) -> Answer:
        """One request on a connection of its own."""
        line = await self.line()
        line.send(request)
        return await line.answer()

    async def hang_up(self) -> None:
        """Close every connection."""
        for line in self.lines:
            line.writer.close()
            with suppress(OSError):
                await line.writer.wait_closed()


@asynccontextmanager
async def served(loop: Loop, root: Path, **more: Any) -> AsyncIterator[Served]:
    """The application behind `wire`, until the block ends; `keep_alive` in seconds."""
    keep_alive = more.pop("keep_alive", 75)
    client = Client(loop, root, **more)
    front: Front = client.application.front  # type: ignore[attr-defined]
    wire: type[Counting] = type("Own", (Counting, wire_of(front)), {"taken": 0})
    config = uvicorn.Config(
        client.application, http=wire, log_level="error", access_log=False, server_header=False,
        timeout_keep_alive=keep_alive, loop="asyncio",
    )  # fmt: skip
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve(sockets=[listener]))
        here = Served(listener.getsockname()[1], wire, server, client)
        while not server.started:  # noqa: ASYNC110  (uvicorn has no event for it)
            await asyncio.sleep(0.005)
        try:
            yield here
        finally:
            await here.hang_up()
            server.should_exit = True
            await asyncio.wait_for(running, 20)


def request(body: object, *headers: str, path: str = FEATURES, start: str = "POST {} HTTP/1.1") -> bytes:
    """A request; `body` as it is if it is bytes, else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [start.format(path), "Host: here", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content


def ask(request_id: str, **body: Any) -> dict[str, Any]:
    """A body about OK as of noon."""
    return {"entities": OK, "as_of": NOON, "request_id": request_id} | body


def run(test: Callable[[], Awaitable[None]]) -> None:
    """In a loop of its own."""
    asyncio.run(asyncio.wait_for(test(), 60))


BODIES: list[object] = [
    ask("r"),
    ask("r", entities=OK | {"tail": None}),
    ask("r", entities=OK | {"tail": "Zürich ✈ 東京"}),
    ask("r", entities=OK | {"stops": -1}),  # infinity comes of it
    {"instances": [OK, OK | {"tail": "N10"}, OK | {"origin": None}], "as_of": NOON, "request_id": "r"},
    ask("é✈" * 40),
    # what is wrong with them is said by the models behind OpenAPI, or by the parser of asks
    b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"entities": ' + b"[" * 2000, b'{"request_id": "\\ud800"}',
    json.dumps(ask("r", entities=OK | {"distance": float("nan")})).encode(),
    ask("r", entities=OK | {"distance": 2**53 + 1}),
    ask("r", entities=OK | {"stops": 2**63}),
    ask("r", entities=OK | {"tail": 7}),
    ask("r", entities=OK | {"tail": "\ud800"}),
    ask("r", entities={}),
    ask("r", entities=OK | {"other": 1}),
    ask("r", entities=None),
    ask("r", as_of="2024-03-04T12:00:00"),
    ask("r", as_of="9999-12-31T23:59:59-14:00"),
    ask(""), ask("x" * 129), ask("r", more=1),
    {"instances": [], "request_id": "r"},
    {"instances": [OK, OK | {"stops": "one"}], "as_of": NOON, "request_id": "r"},
    {"instances": [OK] * 10_000, "as_of": NOON, "request_id": "r"},
    {"instances": [OK], "entities": OK, "as_of": NOON, "request_id": "r"},
]  # fmt: skip


@pytest.mark.parametrize("path", [FEATURES, PREDICT])
def test_both_ways_answer_every_body_alike(loop: Loop, tmp_path: Path, path: str) -> None:
    """Status, headers and body are the same byte by byte, and so are the rows in the log."""

    async def test() -> None:
        async with served(loop, tmp_path, admission=Admission(body_bytes=4 << 20)) as here:
            for body in BODIES:
                quick = await here.one(request(body, path=path))
                slow = await here.one(request(body, COLD, path=path))
                assert quick.said == slow.said, body
            assert here.wire.taken == 6  # those that were understood, once each

    run(test)
    rows = [repr(row) for row in logged(tmp_path)]
    assert len(rows) == 2 * 8
    assert all(rows.count(row) % 2 == 0 for row in rows)


@pytest.mark.parametrize(
    ("header", "plain"),
    [
        ("User-Agent: x", True), ("X-Request-Id: 7", True), ("traceparent: 00-1", True),
        ("Connection: keep-alive", True),
        ("Authorization: Bearer x", True), ("Cookie: a=b", True), ("Connection: close", False), ("Upgrade: h2c", False),
        ("Expect: 100-continue", False), ("Transfer-Encoding: chunked", False), ("Content-Encoding: gzip", False),
        ("Content-Length: 5", False), ("Content-Type: text/plain", False), ("Range: x", False),
        ("X-A: 1\nX-B: 2", False), ("Host: there", False),
    ],
)  # fmt: skip
def test_a_head_is_plain_where_nothing_in_it_changes_how_it_is_read(header: str, plain: bool) -> None:
    """Also when it comes a second time; everything else is uvicorn's to read."""
    heads = Heads({FEATURES: False, PREDICT: True}, 1000)
    data = request(ask("r"), header, path=PREDICT)
    for _ in range(2):
        found = heads.find(data)
        assert (found is not None) is plain
        if found is not None:
            head, size = found
            assert head.predicts
            assert json.loads(data[size : size + head.length]) == ask("r")


@pytest.mark.parametrize(
    "start",
    ["POST {} HTTP/1.0", "POST {}?x=1 HTTP/1.1", "GET {} HTTP/1.1", "POST /v1/other/features HTTP/1.1",
     "POST  {} HTTP/1.1", "POST {}/ HTTP/1.1", "post {} HTTP/1.1"],
)  # fmt: skip
def test_another_first_line_is_uvicorns(start: str) -> None:
    """Another method, path, query or version."""
    heads = Heads({FEATURES: False, PREDICT: True}, 1000)
    assert heads.find(request(ask("r"), start=start)) is None
    assert heads.find(request(b"", start="POST {} HTTP/1.1")) is None
    assert heads.find(request(b"x" * 1001, start="POST {} HTTP/1.1")) is None


def test_heads_are_forgotten_before_they_are_too_many() -> None:
    """A client whose every head is another one costs time, not memory."""
    heads = Heads({FEATURES: False}, 1000)
    for i in range(3000):
        assert heads.find(request(ask("r"), f"X-Request-Id: {i}")) is not None
    assert len(heads._known) <= 1024


def test_what_is_sent_at_once_is_answered_in_order(loop: Loop, tmp_path: Path) -> None:
    """Plain questions, refused ones and uvicorn's own, all in one piece, keep their order and are logged once each."""
    kinds: Sequence[Callable[[str], bytes]] = (
        lambda name: request(ask(name)),
        lambda name: request(ask(name), COLD),
        lambda name: request(ask(name, entities=OK | {"stops": "x"})),
        lambda _: request(b"{"),
        lambda name: request(ask(name), path=PREDICT),
        lambda _: request(b"", start="GET /healthz HTTP/1.1"),
    )

    async def test() -> None:
        async with served(loop, tmp_path) as here:
            line = await here.line()
            asked = [(i * 7 + i // 5) % len(kinds) for i in range(120)]
            line.send(*(kinds[kind](f"r{i}") for i, kind in enumerate(asked)))
            for i, kind in enumerate(asked):
                answer = await line.answer()
                if kind in (0, 1, 4):
                    assert (answer.status, answer.json["request_id"]) == (200, f"r{i}")
                else:
                    assert answer.status == (200 if kind == 5 else 422)
            expected = sorted(f"r{i}" for i, kind in enumerate(asked) if kind in (0, 1, 4))
            assert sorted(row["id"] for row in logged(tmp_path)) == expected
            assert 0 < here.wire.taken < len(expected)

    run(test)


@pytest.mark.parametrize("step", [1, 7, 150])
def test_a_request_in_pieces_is_put_together(loop: Loop, tmp_path: Path, step: int) -> None:
    """Wherever it is cut, head and body; two of them on one connection."""

    async def test() -> None:
        async with served(loop, tmp_path) as here:
            line = await here.line()
            whole = request(ask("a")) + request(ask("b"))
            for at in range(0, len(whole), step):
                line.send(whole[at : at + step])
                await line.writer.drain()
                await asyncio.sleep(0)
            assert [(await line.answer()).json["request_id"] for _ in range(2)] == ["a", "b"]
            line.send(request(ask("c"))[:-5])  # a body that comes late
            await asyncio.sleep(0.05)
            line.send(request(ask("c"))[-5:])
            assert (await line.answer()).json["request_id"] == "c"
            assert here.wire.taken >= 1

    run(test)


@pytest.mark.parametrize("more", [(), (COLD,)])
def test_who_has_said_all_is_still_answered(loop: Loop, tmp_path: Path, more: tuple[str, ...]) -> None:
    """A caller that closes its half of the connection gets every answer, then the end; half a request gets the end."""

    async def test() -> None:
        async with served(loop, tmp_path) as here:
            line = await here.line()
            line.send(request(ask("a"), *more), request(ask("b")))
            if not more:
                line.send(request(ask("c"))[:-3])
            line.writer.write_eof()
            assert [(await line.answer()).json["request_id"] for _ in range(2)] == ["a", "b"]
            assert await line.ended()

    run(test)
    assert [row["id"] for row in logged(tmp_path)] == ["a", "b"]


def test_older_and_odder_requests_are_answered_as_ever(loop: Loop, tmp_path: Path) -> None:
    """HTTP/1.0, a connection to be closed, a body in chunks, and one that asks whether it may come."""

    async def test() -> None:
        async with served(loop, tmp_path) as here:
            for one in (request(ask("a"), start="POST {} HTTP/1.0"), request(ask("b"), "Connection: close")):
                line = await here.line()
                line.send(request(ask("first")), one)
                assert (await line.answer()).json["request_id"] == "first"
                answer = await line.answer()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
                assert await line.ended()
            line = await here.line()
            content = json.dumps(ask("c")).encode()
            head = f"POST {FEATURES} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n".encode()
            line.send(head, b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(content), content, b"\r\n0\r\n\r\n")
            assert (await line.answer()).json["request_id"] == "c"
            line.send(head, b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(content))
            assert (await line.answer()).status == 100
            line.send(content)
            assert (await line.answer()).json["request_id"] == "c"

    run(test)


def test_a_body_of_ten_megabytes_is_refused(loop: Loop, tmp_path: Path) -> None:
    """Before it has been read."""

    async def test() -> None:
        async with served(loop, tmp_path) as here:
            answer = await here.one(request(b" " * (10 << 20)))
            assert (answer.status, answer.json["code"]) == (413, "too_large")

    run(test)
    assert not logged(tmp_path)


def test_a_caller_that_does_not_read_is_waited_for(loop: Loop, tmp_path: Path) -> None:
    """Its questions are answered as it reads on; nobody else is held up."""

    async def test() -> None:
        async with served(loop, tmp_path) as here:
            line = await here.line()
            body = {"instances": [OK] * 200, "as_of": NOON}
            line.send(*(request(body | {"request_id": f"r{i}"}) for i in range(60)))
            await asyncio.sleep(0.3)
            assert (await here.one(request(ask("other")))).status == 200
            for i in range(60):
                assert (await line.answer()).json["request_id"] == f"r{i}"

    run(test)


class Slow(Inline):
    """A store that takes its time."""

    def __init__(self, reading: Lookup, seconds: float) -> None:
        super().__init__(reading)
        self.seconds = seconds

    async def read(self, spine: Spine) -> Mapping[str, ViewRows]:
        await asyncio.sleep(self.seconds)
        return await super().read(spine)


def _slow(loop: Loop, seconds: float = 0.3) -> Reading:
    return Slow(Lookup(loop.bundle, open_store(loop.store_url)), seconds)


def test_a_stop_waits_for_the_answer_under_way(loop: Loop, tmp_path: Path) -> None:
    """The answer says that the connection ends; one that is idle ends at once, and what was answered is logged."""

    async def test() -> None:
        async with served(loop, tmp_path, reading=_slow(loop)) as here:
            idle, line = await here.line(), await here.line()
            line.send(request(ask("a")), request(ask("b")))
            await asyncio.sleep(0.1)
            here.server.should_exit = True
            answer = await line.answer()
            assert (answer.json["request_id"], answer.headers["connection"]) == ("a", "close")
            assert await line.ended()
            assert await idle.ended()

    run(test)
    assert [row["id"] for row in logged(tmp_path)] == ["a"]


def test_a_caller_that_is_gone_takes_nothing_along(loop: Loop, tmp_path: Path) -> None:
    """Its row is logged, and the others are answered."""

    async def test() -> None:
        async with served(loop, tmp_path, reading=_slow(loop, 0.1)) as here:
            line, other = await here.line(), await here.line()
            line.send(request(ask("gone")))
            other.send(request(ask("here")))
            await asyncio.sleep(0.05)
            line.writer.transport.abort()
            assert (await other.answer()).json["request_id"] == "here"

    run(test)
    assert {row["id"] for row in logged(tmp_path)} == {"gone", "here"}


def test_an_idle_connection_is_closed_after_a_while(loop: Loop, tmp_path: Path) -> None:
    """Not while a question is under way, and not before the time has passed since the last answer."""

    async def test() -> None:
        async with served(loop, tmp_path, keep_alive=1, reading=_slow(loop, 1.2)) as here:
            line = await here.line()
            for name in ("a", "b"):
                line.send(request(ask(name)))
                assert (await line.answer()).json["request_id"] == name
                await asyncio.sleep(0.3)
            assert await line.ended()

    run(test)


def test_keys_and_rates_hold_on_both_ways(loop: Loop, tmp_path: Path) -> None:
    """Without a key 401, beyond the rate 429 with a time to wait; who asks is in the log."""
    known = {"team-a": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"}  # of "foo"

    async def test() -> None:
        admission = Admission(known, rows_per_second=5.0)
        log = ServingLog(tmp_path, SERVICE, schema(loop.bundle).append(CLIENT), {})
        async with served(loop, tmp_path, admission=admission, log=log) as here:
            for headers in ((), ("X-API-Key: bar",), ("X-API-Key:",)):
                quick, slow = [await here.one(request(ask("r"), *headers, *more)) for more in ((), (COLD,))]
                assert quick.said == slow.said
                assert (quick.status, quick.headers["www-authenticate"]) == (401, "ApiKey")
            many = {"instances": [OK] * 3, "as_of": NOON, "request_id": "r"}
            assert (await here.one(request(many, "X-API-Key: foo"))).status == 200
            quick, slow = [await here.one(request(many, "X-API-Key: foo", *more)) for more in ((), (COLD,))]
            assert (quick.status, quick.headers["retry-after"]) == (429, "1")
            assert quick.said == slow.said
            assert here.client.counter("skewguard_shed_total") == 8

    run(test)
    assert [row["client"] for row in logged(tmp_path)] == ["team-a"] * 3


def test_a_failure_of_the_program_itself_is_500_and_no_hanging_connection(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As uvicorn answers one: the connection ends, the others go on, and the log of the process says why."""

    async def test() -> None:
        async with served(loop, tmp_path) as here:
            good = Question.ids.fget  # type: ignore[attr-defined]

            def broken(question: Question) -> list[str]:
                if question.request_id == "bad":
                    raise RuntimeError("a defect")
                ids: list[str] = good(question)
                return ids

            monkeypatch.setattr(Question, "ids", property(broken))
            quick, slow, fine = [
                await here.one(one) for one in (request(ask("bad")), request(ask("bad"), COLD), request(ask("fine")))
            ]
            assert quick.said == slow.said
            assert (quick.status, quick.headers["connection"], fine.status) == (500, "close", 200)

    run(test)
    assert "a defect" in caplog.text
