"""How a server reads its online store: within a deadline, never blocking the event loop, and not at all for a moment
after it has failed several times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Protocol

from skewguard.errors import StoreUnavailable
from skewguard.online import Lookup
from skewguard.spine import Spine, ViewRows

FAILURES = 3
"""So many failures in a row open the breaker."""
OPEN_SECONDS = 0.25
"""So long the store is then left alone."""


class Reading(Protocol):
    """Asks in, what each view answered out; raises `StoreUnavailable`."""

    async def read(self, spine: Spine) -> Mapping[str, ViewRows]:
        """Look up a micro-batch."""
        ...

    async def ready(self) -> None:
        """Raise `StoreUnavailable` unless the store answers and every view has been written to it."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


class Inline:
    """A store that is a file beside the server: asked at once, which is quicker than handing it to a thread."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    async def read(self, spine: Spine) -> Mapping[str, ViewRows]:
        """Look up a micro-batch."""
        return self._lookup.answer(spine)

    async def ready(self) -> None:
        """Raise `StoreUnavailable` unless every view has been written."""
        self._lookup.ready()

    async def close(self) -> None:
        """The lookup's store is its owner's to close."""


class Threaded:
    """Any other store, by its own blocking client in a thread."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    async def read(self, spine: Spine) -> Mapping[str, ViewRows]:
        """Look up a micro-batch."""
        return await asyncio.to_thread(self._lookup.answer, spine)

    async def ready(self) -> None:
        """Raise `StoreUnavailable` unless every view has been written."""
        await asyncio.to_thread(self._lookup.ready)

    async def close(self) -> None:
        """The lookup's store is its owner's to close."""


class Breaker:
    """Remembers failures, so that a dead store costs a request microseconds and not a deadline."""

    def __init__(self) -> None:
        self._failures = 0
        self._shut = 0.0
        self._why = ""

    @property
    def is_open(self) -> bool:
        """Whether the store is left alone just now."""
        return self._failures >= FAILURES and time.monotonic() < self._shut

    def check(self) -> None:
        """Raise `StoreUnavailable` while the breaker is open."""
        if self.is_open:
            raise StoreUnavailable(self._why)

    def failed(self, why: str) -> None:
        """Note a failure."""
        self._failures += 1
        self._why = why
        if self._failures >= FAILURES:
            self._shut = time.monotonic() + OPEN_SECONDS

    def succeeded(self) -> None:
        """Note an answer."""
        self._failures = 0


def reading_of(lookup: Lookup) -> Reading:
    """The way to read that fits a store: a file inline, anything else in a thread."""
    return Inline(lookup) if lookup.store.url.startswith("sqlite:") else Threaded(lookup)
