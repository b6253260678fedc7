"""Opens what answers asks, by the URL of the store."""

from __future__ import annotations

from skewguard.definitions import Bundle
from skewguard.errors import MissingExtra
from skewguard.online.lookup import Lookup
from skewguard.online.store import open_store

FEAST = "feast+"
"""What a URL begins with whose Redis was written by Feast's own store."""


def open_lookup(bundle: Bundle, url: str) -> Lookup:
    """Open the online side of a bundle: packed rows at a URL of `open_store`, or, at `feast+redis://...`, what Feast's
    own Redis store wrote. The caller closes `lookup.store`. Raises `StoreUnavailable`, `DefinitionError`.
    """
    if not url.startswith(FEAST):
        return Lookup(bundle, open_store(url))
    try:
        from skewguard.online.feast_redis import FeastLookup
        from skewguard.online.redis import ClusterStore, RedisStore
    except ImportError as error:
        raise MissingExtra("an online store on Redis", "serve") from error
    own = url.removeprefix(FEAST)
    return FeastLookup(bundle, ClusterStore(own) if "+cluster://" in own else RedisStore(own))
