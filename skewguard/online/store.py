"""What a store of packed rows can do, and how one is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from skewguard.errors import MissingExtra, StoreUnavailable

UNANSWERED = b""
"""Stands for a value that could not be asked for while others could: a node of a cluster is gone. No value is empty."""


class OnlineStore(Protocol):
    """Bytes by key. Every method raises `StoreUnavailable` where the store does not answer."""

    url: str

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, in order, None where there is none, `UNANSWERED` where a part of the store is gone.

        A watermark is never newer than the rows that come with it.
        """
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


class KeptStore(OnlineStore, Protocol):
    """A store whose rows can also be taken away."""

    def forget(self, project: str, view: str) -> None:
        """Forget every row of one view, its watermark, and in which layout it was written."""
        ...

    def delete(self, keys: Sequence[bytes]) -> int:
        """Delete what stands under `keys`; how many there were."""
        ...

    def keys(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Every key that begins with `prefix`, some at a time; what stands there throughout comes once at least."""
        ...


def open_store(url: str) -> KeptStore:
    """Open `sqlite:PATH`, `redis://HOST:PORT[/DB]`, `rediss://` (TLS), `unix://`, or a Redis Cluster by one or more of
    its nodes, `redis+cluster://HOST:PORT[,HOST:PORT]`; raises `StoreUnavailable` for anything else.
    """
    if url.startswith("sqlite:"):
        from skewguard.online.sqlite import SqliteStore

        return SqliteStore(url)
    if url.startswith(("redis://", "rediss://", "unix://", "redis+cluster://", "rediss+cluster://")):
        try:
            from skewguard.online.redis import ClusterStore, RedisStore
        except ImportError as error:
            raise MissingExtra("an online store on Redis", "serve") from error
        return ClusterStore(url) if "+cluster://" in url else RedisStore(url)
    raise StoreUnavailable(f"online store: expected sqlite:PATH or redis://HOST:PORT, got {url!r}")
