"""The event loop's own connection to Redis."""

import asyncio
from typing import Any

import hiredis
import pytest
import redis

from skewguard.online import Lookup, open_store
from skewguard.service.redis import RedisReading, _command
from tests.loop import Loop


@pytest.mark.parametrize("keys", [[], [b"a"], [b"ab", b"c\r\n"], [b"ab", b"c"], [b"\x00" * 40] * 300])
@pytest.mark.parametrize("more", [[], [b"mark", b"another mark"]])
def test_a_command_is_written_as_the_client_library_writes_it(keys: list[bytes], more: list[bytes]) -> None:
    """Keys of one length or of several, and none."""
    pack: Any = hiredis.pack_command
    assert _command(keys, more) == pack((b"MGET", *keys, *more))


def test_many_readings_at_once_each_get_their_own_answer_and_a_lost_connection_is_made_again(
    loop: Loop, redis_store_url: str
) -> None:
    """Answers come in order on one connection; when the server closes it, what was asked is asked once more."""
    store = open_store(redis_store_url)
    reading = RedisReading(Lookup(loop.bundle, store), redis_store_url, deadline=2.0)
    with redis.Redis.from_url(redis_store_url) as admin:
        admin.mset({f"k{i}": f"value {i}" for i in range(60)})

        async def read() -> None:
            for _ in range(3):
                found = await asyncio.gather(*(reading._mget([b"k%d" % i, b"none"]) for i in range(60)))
                assert [values[:2] for values in found] == [[b"value %d" % i, None] for i in range(60)]
                admin.client_kill_filter(_type="normal", skipme=True)
            await reading.close()

        asyncio.run(read())
    store.close()


def test_a_refusal_of_redis_is_said_and_the_connection_goes_on(loop: Loop, redis_store_url: str) -> None:
    """An error in place of an answer is that reading's alone."""
    store = open_store(redis_store_url)
    reading = RedisReading(Lookup(loop.bundle, store), redis_store_url, deadline=2.0)

    async def ask() -> None:
        until = asyncio.get_running_loop().time() + 2.0
        line = await reading._connected(until)
        pack: Any = hiredis.pack_command
        wrong, right = line.ask(pack((b"NOSUCH",)), until), line.ask(pack((b"MGET", b"nothing")), until)
        told, found = await asyncio.gather(wrong, right, return_exceptions=True)
        assert "unknown command" in str(told)
        assert found == [None]
        assert reading._line is line
        await reading.close()

    asyncio.run(ask())
    store.close()
