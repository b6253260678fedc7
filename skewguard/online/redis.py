"""The same packed rows as plain string values in Redis."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from skewguard.errors import StoreUnavailable
from skewguard.online.layout import ORDER, prefixes

_CHUNK = 500
# Compared byte by byte: Lua's `<` on strings follows the server's locale.
_NEWEST = f"""
for i = 1, #KEYS do
  local old = redis.call('GET', KEYS[i])
  local write = true
  if old then
    for at = {ORDER.start + 1}, {ORDER.stop} do
      local a, b = string.byte(ARGV[i], at), string.byte(old, at)
      if a ~= b then
        write = b == nil or a > b
        break
      end
    end
  end
  if write then redis.call('SET', KEYS[i], ARGV[i]) end
end
return #KEYS
"""


class RedisStore:
    """A Redis server, asked with a short deadline (seconds): a stalled store is an error, not a hang."""

    def __init__(self, url: str, *, deadline: float = 1.0) -> None:
        self.url = _safe(url)  # it ends up in messages, and those in answers
        self._redis: Any = redis.Redis.from_url(
            url,
            socket_timeout=deadline,
            socket_connect_timeout=deadline,
            retry=Retry(NoBackoff(), 1),
            decode_responses=False,
        )
        self._newest = self._redis.register_script(_NEWEST)
        try:
            self._redis.ping()
        except redis.RedisError as error:
            raise StoreUnavailable(f"online store {self.url}: does not answer: {error}") from error

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, in order: one MGET, hence one consistent reading."""
        if not keys:
            return []
        try:
            return list(self._redis.mget(keys))
        except redis.RedisError as error:
            raise StoreUnavailable(f"online store {self.url}: {error}") from error

    def write(self, rows: Sequence[tuple[bytes, bytes]], meta: Mapping[bytes, bytes]) -> None:
        """Rows by a script that compares and sets in one step, then meta."""
        try:
            for at in range(0, len(rows), _CHUNK):
                some = rows[at : at + _CHUNK]
                self._newest(keys=[key for key, _ in some], args=[value for _, value in some])
            if meta:
                self._redis.mset(dict(meta))
        except redis.RedisError as error:
            raise StoreUnavailable(f"online store {self.url}: not everything was written: {error}") from error

    def clear(self, project: str) -> None:
        """Delete the project's keys, found by SCAN."""
        try:
            for prefix in prefixes(project):
                literal = re.sub(rb"([*?\[\]\\])", rb"\\\1", prefix)
                keys = list(self._redis.scan_iter(match=literal + b"*", count=10_000))
                for at in range(0, len(keys), _CHUNK):
                    self._redis.unlink(*keys[at : at + _CHUNK])
        except redis.RedisError as error:
            raise StoreUnavailable(f"online store {self.url}: not cleared: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


def _safe(url: str) -> str:
    """The URL without a password, which may also stand in its query."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
