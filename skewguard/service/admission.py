"""Who may ask, and how much: API keys, the size of a body, asks per request and per second."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skewguard.errors import SkewguardError
from skewguard.service.bodies import MOST_ROWS
from skewguard.service.problems import Unanswered, Wrong, invalid

_MIB = 1 << 20


@dataclass
class Admission:
    """What is let in. `keys` holds the SHA-256 (hex) of each API key by the id of its owner; none: everybody may ask.

    `rows_per_second` and as many at once are granted to each owner, 0 for as many as they like.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    body_bytes: int = _MIB
    rows: int = MOST_ROWS
    rows_per_second: float = 0.0
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def client(self, key: bytes) -> str:
        """The id behind a key, empty where none is needed; raises `Unanswered` (401).

        Every known key is compared, each in constant time: how long it takes says nothing.
        """
        if not self.keys:
            return ""
        given = hashlib.sha256(key).hexdigest()
        found = ""
        for owner, known in self.keys.items():
            if hmac.compare_digest(known, given):
                found = owner
        if not found:
            told = "is unknown" if key else "is missing"
            raise Unanswered(401, "unauthorized", f"the header X-API-Key {told}")
        return found

    def size(self, length: int) -> None:
        """Raise `Unanswered` (413) for a body that is too large."""
        if length > self.body_bytes:
            raise Unanswered(413, "too_large", f"a body has at most {self.body_bytes} bytes, this one has more")

    def count(self, client: str, rows: int, place: str) -> None:
        """Raise `Unanswered` for too many asks in one request (422) or, from this client, in a second (429)."""
        if rows > self.rows:
            told = f"a request holds at most {self.rows} asks, this one holds {rows}"
            raise invalid([Wrong(("body", place), "too_long", told)])
        if not self.rows_per_second:
            return
        now = time.monotonic()
        tokens, then = self._buckets.get(client, (self.rows_per_second, now))
        tokens = min(self.rows_per_second, tokens + (now - then) * self.rows_per_second)
        if tokens < min(rows, self.rows_per_second):
            self._buckets[client] = (tokens, now)
            wait = max(1, round((rows - tokens) / self.rows_per_second))
            told = f"more than {self.rows_per_second:g} asks per second"
            raise Unanswered(429, "rate_limited", told, retry_after=wait)
        self._buckets[client] = (tokens - rows, now)


def read_keys(path: Path) -> dict[str, str]:
    """A JSON object of owner to SHA-256 (hex) of the owner's key; raises `SkewguardError` for anything else."""
    try:
        keys = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SkewguardError(f"API keys {path}: expected a JSON object, got {error}") from error
    if not isinstance(keys, dict) or not keys or not all(_is_digest(value) and key for key, value in keys.items()):
        raise SkewguardError(
            f"API keys {path}: expected the SHA-256 of each key in 64 hex digits, by the id of its owner. "
            'printf %s "$KEY" | sha256sum prints it.'
        )
    return {str(owner): str(digest).lower() for owner, digest in keys.items()}


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value.lower()) - set("0123456789abcdef")
