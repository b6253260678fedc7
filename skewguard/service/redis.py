"""Reading a Redis server from the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hiredis
import redis.asyncio as asyncredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as Lost

from skewguard.errors import StoreUnavailable
from skewguard.online import Lookup
from skewguard.online.keys import watermark_key, watermark_of
from skewguard.service.reading import Breaker
from skewguard.spine import Spine, ViewRows
from skewguard.values import NO_TIME

Values = list[bytes | None]
_pack: Callable[[tuple[bytes, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub means one word


class RedisReading:
    """One MGET per micro-batch. `deadline` in seconds covers connecting, asking and one repetition.

    `lookup` says which keys answer an ask and what the rows under them mean; its own client is asked only for layouts
    that are seen for the first time.
    """

    def __init__(self, lookup: Lookup, url: str, *, deadline: float) -> None:
        self._lookup, self._deadline = lookup, deadline
        self._where = f"online store {lookup.store.url}"
        self._marks = [watermark_key(lookup.bundle.project, view.feast_name) for view in lookup.bundle.views]
        self.breaker = Breaker()
        self._line: _Line | None = None
        self._connecting = asyncio.Lock()
        # redis-py knows URLs, users, TLS and the handshake
        self._pool: Any = asyncredis.ConnectionPool.from_url(
            url,
            socket_timeout=deadline,
            socket_connect_timeout=deadline,
            retry=Retry(NoBackoff(), 1),
            decode_responses=False,
            protocol=2,
        )

    async def read(self, spine: Spine) -> Mapping[str, ViewRows]:
        """Look up a micro-batch."""
        keys = self._lookup.keys(spine)
        values = await self._mget([key for key in keys if key is not None])
        return self._lookup.read(spine, keys, values)

    async def ready(self) -> None:
        """Raise `StoreUnavailable` unless the store answers and every view has been written to it."""
        for view, value in zip(self._lookup.bundle.views, await self._mget([]), strict=True):
            if watermark_of(value) == NO_TIME:
                raise StoreUnavailable(f"view {view.name} was never materialized to {self._lookup.store.url}")

    async def _mget(self, keys: Sequence[bytes]) -> Values:
        """What stands under keys, and then the watermarks."""
        self.breaker.check()
        try:
            values = await self._asked(_command(keys, self._marks))
        except TimeoutError as error:
            raise self._failed(f"no answer within {self._deadline * 1000:.0f} ms") from error
        except AuthenticationError as error:
            raise self._failed(f"refuses the user or password: {error}") from error
        except (RedisError, OSError) as error:
            raise self._failed(str(error)) from error
        self.breaker.succeeded()
        return values

    def _failed(self, why: str) -> StoreUnavailable:
        self.breaker.failed(f"{self._where}: {why}")
        return StoreUnavailable(f"{self._where}: {why}")

    async def _asked(self, command: bytes) -> Values:
        """The answer to a command, asked again on a new connection where the one there was is lost."""
        until = asyncio.get_running_loop().time() + self._deadline
        try:
            return await (self._line or await self._connected(until)).ask(command, until)
        except (Lost, ConnectionError):
            return await (await self._connected(until)).ask(command, until)

    async def _connected(self, until: float) -> _Line:
        async with asyncio.timeout_at(until), self._connecting:
            if self._line is None:
                connection = self._pool.make_connection()
                try:
                    await connection.connect()
                except BaseException:
                    await connection.disconnect(nowait=True)
                    raise
                self._line = _Line(connection, self._hung_up)
            return self._line

    def _hung_up(self, line: _Line) -> None:
        if self._line is line:
            self._line = None

    async def close(self) -> None:
        """Close the connection."""
        if self._line is not None:
            self._line.hang_up(Lost("closed"))


def _command(keys: Sequence[bytes], more: Sequence[bytes]) -> bytes:
    """MGET of keys and a few more; those of one view's rows are often all of one length, and joined at once."""
    sizes = set(map(len, keys))
    if len(sizes) != 1:
        return _pack((b"MGET", *keys, *more))
    between = b"\r\n$%d\r\n" % sizes.pop()
    last = b"".join([b"\r\n$%d\r\n%b" % (len(key), key) for key in more])
    return b"*%d\r\n$4\r\nMGET%b%b%b\r\n" % (1 + len(keys) + len(more), between, between.join(keys), last)


class _Line(asyncio.Protocol):
    """A connection that redis-py has made, read by ourselves: its own way of waiting takes as long as Redis does.

    Questions may follow each other without waiting for answers, which come in their order.
    """

    def __init__(self, connection: Any, hung_up: Any) -> None:
        self._connection, self._hung_up = connection, hung_up  # who lets go of the connection closes it
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[Values]] = deque()
        self._reader = hiredis.Reader(protocolError=Lost, replyError=_refusal)
        self._transport: Any = connection._writer.transport  # noqa: SLF001  (redis-py has no word for it)
        self._transport.set_protocol(self)

    async def ask(self, command: bytes, until: float) -> Values:
        """The answer to one command; raises what Redis says, `Lost`, or `TimeoutError` at `until`, the loop's time."""
        answer: asyncio.Future[Values] = self._loop.create_future()
        self._waiting.append(answer)
        self._transport.write(command)
        alarm = self._loop.call_at(until, self.hang_up, TimeoutError())
        try:
            return await answer
        finally:
            alarm.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes of answers."""
        self._reader.feed(data)
        try:
            while (said := self._reader.gets()) is not False:
                answer = self._waiting.popleft()
                if answer.done():  # nobody waits for it any more
                    continue
                if isinstance(said, Exception):
                    answer.set_exception(said)
                else:
                    answer.set_result(said)
        except (Lost, IndexError) as error:
            self.hang_up(Lost(f"expected an answer, got {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The server has closed it."""
        self.hang_up(Lost(f"connection lost: {exc}" if exc else "connection closed by the server"))

    def hang_up(self, why: Exception) -> None:
        """Close it; nobody who waits gets an answer: after one that is late the next would be taken for it."""
        self._hung_up(self)
        self._transport.abort()
        self._connection._reader = self._connection._writer = None  # noqa: SLF001  (else it closes them once more)
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(why)


def _refusal(text: str) -> RedisError:
    return AuthenticationError(text) if text.startswith(("NOAUTH", "WRONGPASS")) else ResponseError(text)
