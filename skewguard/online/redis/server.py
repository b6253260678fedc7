"""Packed rows as plain string values in one Redis server; and what a cluster shares with it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from skewguard.errors import StoreUnavailable
from skewguard.online.keys import prefixes, view_prefix, watermark_key, written_key
from skewguard.online.layout import ORDER

DEADLINE = 0.25
"""Seconds that a reading may take; a piece of a writing may take `WRITING` times as long."""

WRITING = 5
_CHUNK = 500
_SCANNED = 1000
FAILURES, _OPEN = 3, 0.25
FAILED = (redis.RedisError, redis.exceptions.RedisClusterException)
GONE = (redis.ConnectionError, redis.TimeoutError, redis.exceptions.ClusterDownError)

# Sixteen bytes as four numbers: a double holds 32 bits exactly, and Lua's `<` on strings follows the server's locale.
# The order of a row is read without the row.
NEWEST = f"""
for i = 1, #KEYS do
  local old = redis.call('GETRANGE', KEYS[i], {ORDER.start}, {ORDER.stop - 1})
  local write = #old < {ORDER.stop - ORDER.start}
  if not write then
    local a, b, c, d = struct.unpack('>I4I4I4I4', old)
    local e, f, g, h = struct.unpack('>I4I4I4I4', ARGV[i], {ORDER.start + 1})
    if e ~= a then write = e > a
    elseif f ~= b then write = f > b
    elseif g ~= c then write = g > c
    else write = h >= d end
  end
  if write then redis.call('SET', KEYS[i], ARGV[i]) end
end
return #KEYS
"""

T = TypeVar("T")


class Breaker:
    """After some failures in a row nobody is asked for a moment: who waits for a dead server blocks those behind."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    @property
    def open(self) -> bool:
        """Whether there is no use in asking now."""
        return self._failures >= FAILURES and time.monotonic() < self._until

    def failed(self) -> None:
        """Count a failure."""
        self._failures += 1
        self._until = time.monotonic() + _OPEN

    def answered(self) -> None:
        """Forget the failures."""
        self._failures = 0


class Kept:
    """How keys are taken away, on whatever kind of Redis."""

    url: str
    _writer: Any

    def delete(self, keys: Sequence[bytes]) -> int:
        """Delete what stands under `keys`; how many there were."""
        raise NotImplementedError

    def clear(self, project: str) -> None:
        """Delete the project's keys, found by SCAN."""
        self._clear(prefixes(project))

    def forget(self, project: str, view: str) -> None:
        """Delete the view's rows, its watermark, and in which layout it was written."""
        self._clear([view_prefix(project, view)])
        self.delete([watermark_key(project, view), written_key(project, view)])

    def keys(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Every key that begins with `prefix`, by SCAN: some may come twice, and the server is not blocked."""
        found = self._writer.scan_iter(match=_literal(prefix) + b"*", count=_SCANNED)
        try:
            while some := list(islice(found, _SCANNED)):
                yield some
        except FAILED as error:
            raise StoreUnavailable(f"online store {self.url}: its keys cannot be read: {error}") from error

    def _clear(self, begin: Sequence[bytes]) -> None:
        try:
            for prefix in begin:
                self.delete(list(self._writer.scan_iter(match=_literal(prefix) + b"*", count=10_000)))
        except FAILED as error:
            raise StoreUnavailable(f"online store {self.url}: not cleared: {error}") from error


class RedisStore(Kept):
    """A Redis server, asked with a short deadline (seconds): a stalled store is an error, not a hang.

    The URL may carry user, password, and what redis-py takes in its query (`?socket_timeout=0.1`); `rediss://` is TLS,
    with `?ssl_ca_certs=PATH`. May be shared by threads.
    """

    def __init__(self, url: str, *, deadline: float = DEADLINE) -> None:
        self.url = safe(url)  # it ends up in messages, and those in answers
        self._breaker = Breaker()
        try:
            self._redis: Any = redis.Redis.from_url(url, **connecting(deadline))
            self._writer: Any = redis.Redis.from_url(url, **connecting(WRITING * deadline))
            self._newest = self._writer.register_script(NEWEST)
            self._redis.ping()
        except (redis.RedisError, ValueError, TypeError) as error:
            raise StoreUnavailable(f"online store {self.url}: does not answer: {error}") from error

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, in order: one MGET, hence one consistent reading."""
        if not keys:
            return []
        return self.ask(lambda: list(self._redis.mget(keys)))

    def hmget(self, asked: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[list[bytes | None] | None]:
        """The fields of hashes, in order, in one round trip."""

        def pipelined() -> list[list[bytes | None] | None]:
            pipe = self._redis.pipeline(transaction=False)
            for key, fields in asked:
                pipe.execute_command("HMGET", key, *fields)
            return list(pipe.execute())

        return self.ask(pipelined) if asked else []

    def ask(self, question: Callable[[], T]) -> T:
        """What a question to the server gives; raises `StoreUnavailable`, at once after several failures in a row."""
        if self._breaker.open:
            raise StoreUnavailable(f"online store {self.url}: did not answer {FAILURES} times in a row")
        try:
            answer = question()
        except redis.RedisError as error:
            if isinstance(error, GONE):
                self._breaker.failed()
            raise StoreUnavailable(f"online store {self.url}: {error}") from error
        self._breaker.answered()
        return answer

    def write(self, rows: Sequence[tuple[bytes, bytes]], meta: Mapping[bytes, bytes]) -> None:
        """Rows by a script that compares and sets in one step, then meta."""
        try:
            for some in _pieces(rows):
                self._newest(keys=[key for key, _ in some], args=[value for _, value in some])
            if meta:
                self._writer.mset(dict(meta))
        except redis.RedisError as error:
            raise StoreUnavailable(f"online store {self.url}: not everything was written: {error}") from error

    def delete(self, keys: Sequence[bytes]) -> int:
        """Delete what stands under `keys`; how many there were."""
        try:
            return sum(self._writer.unlink(*some) for some in _pieces(keys))
        except redis.RedisError as error:
            raise StoreUnavailable(f"online store {self.url}: not everything was deleted: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
        self._writer.close()


def connecting(seconds: float) -> dict[str, Any]:
    """How a connection is made that answers within `seconds` or fails."""
    # A connection that the server closed is opened again once; who timed out is not asked a second time.
    retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": retry, "decode_responses": False}


def _pieces(things: Sequence[T]) -> Iterable[Sequence[T]]:
    return (things[at : at + _CHUNK] for at in range(0, len(things), _CHUNK))


def _literal(prefix: bytes) -> bytes:
    return re.sub(rb"([*?\[\]\\])", rb"\\\1", prefix)


def safe(url: str) -> str:
    """The URL without a password, which may also stand in its query."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
