"""What a store of packed rows can do, and how one is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from skewguard.errors import MissingExtra, StoreUnavailable


class OnlineStore(Protocol):
    """Bytes by key. Every method raises `StoreUnavailable` where the store does not answer."""

    url: str

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, in order, None where there is none; one consistent reading."""
        ...

    def write(self, rows: Sequence[tuple[bytes, bytes]], meta: Mapping[bytes, bytes]) -> None:
        """Write packed rows, each only where it is not older than the stored one by (event, created); then `meta`.

        `meta` overwrites. A reader that sees the new `meta` sees the rows.
        """
        ...

    def clear(self, project: str) -> None:
        """Forget every row, layout and watermark of one project; other projects' stay."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


def open_store(url: str) -> OnlineStore:
    """Open `sqlite:PATH` or `redis://HOST:PORT[/DB]`; raises `StoreUnavailable` where the URL says neither."""
    if url.startswith("sqlite:"):
        from skewguard.online.sqlite import SqliteStore

        return SqliteStore(url)
    if url.startswith(("redis://", "rediss://", "unix://")):
        try:
            from skewguard.online.redis import RedisStore
        except ImportError as error:
            raise MissingExtra("an online store on Redis", "serve") from error
        return RedisStore(url)
    raise StoreUnavailable(f"online store: expected sqlite:PATH or redis://HOST:PORT, got {url!r}")
