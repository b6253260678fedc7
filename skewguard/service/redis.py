"""Reading a Redis server from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import redis.asyncio as asyncredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from skewguard.errors import StoreUnavailable
from skewguard.online import Lookup
from skewguard.online.keys import watermark_key, watermark_of
from skewguard.service.reading import Breaker
from skewguard.spine import Spine, ViewRows
from skewguard.values import NO_TIME


class RedisReading:
    """One MGET per micro-batch. `deadline` in seconds covers connecting, asking and one repetition.

    `lookup` says which keys answer an ask and what the rows under them mean; its own client is asked only for layouts
    that are seen for the first time.
    """

    def __init__(self, lookup: Lookup, url: str, *, deadline: float) -> None:
        self._lookup, self._deadline = lookup, deadline
        self._where = f"online store {lookup.store.url}"
        self._marks = [watermark_key(lookup.bundle.project, view.name) for view in lookup.bundle.views]
        self.breaker = Breaker()
        self._redis: Any = asyncredis.Redis.from_url(
            url,
            socket_timeout=deadline,
            socket_connect_timeout=deadline,
            retry=Retry(NoBackoff(), 1),
            decode_responses=False,
            # micro-batches follow each other: a pool that looks after its connections takes a third of the time
            single_connection_client=True,
        )

    async def read(self, spine: Spine) -> Mapping[str, ViewRows]:
        """Look up a micro-batch."""
        keys = self._lookup.keys(spine)
        values = await self._mget([*(key for key in keys if key is not None), *self._marks])
        return self._lookup.read(spine, keys, values)

    async def ready(self) -> None:
        """Raise `StoreUnavailable` unless the store answers and every view has been written to it."""
        for view, value in zip(self._lookup.bundle.views, await self._mget(self._marks), strict=True):
            if watermark_of(value) == NO_TIME:
                raise StoreUnavailable(f"view {view.name} was never materialized to {self._lookup.store.url}")

    async def _mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.breaker.check()
        try:
            async with asyncio.timeout(self._deadline):
                values: list[bytes | None] = await self._redis.mget(keys)
        except TimeoutError as error:
            why = f"{self._where}: no answer within {self._deadline * 1000:.0f} ms"
            self.breaker.failed(why)
            raise StoreUnavailable(why) from error
        except AuthenticationError as error:
            why = f"{self._where}: refuses the user or password: {error}"
            self.breaker.failed(why)
            raise StoreUnavailable(why) from error
        except (RedisError, OSError) as error:
            why = f"{self._where}: {error}"
            self.breaker.failed(why)
            raise StoreUnavailable(why) from error
        self.breaker.succeeded()
        return values

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
