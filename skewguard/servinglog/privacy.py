"""Keys that stand in the log as keyed hashes: the log says that two rows are of one person, and not of whom.

A pseudonym has its key's own type, so that nothing else changes: 32 hex characters for text, a signed 64-bit number for
an integer. It is HMAC-SHA-256 under a secret that the log never holds; who has the secret hashes the keys that a source
holds, and so finds out whose rows are whose (`reveal`).
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence

import pyarrow as pa

from skewguard.errors import LogError

MINIMUM_BYTES = 16
SECRET = "SKEWGUARD_PII_SECRET"
"""The environment's variable that holds the secret where none is given."""


def secret_here() -> bytes | None:
    """The secret of this process's environment."""
    text = os.environ.get(SECRET)
    return text.encode() if text else None


def key_id(secret: bytes) -> str:
    """Names a secret without giving it away; raises `LogError` for one that could be guessed."""
    if len(secret) < MINIMUM_BYTES:
        raise LogError(f"the secret for keys: expected {MINIMUM_BYTES} bytes or more, got {len(secret)}.")
    return hmac.digest(secret, b"skewguard key id", "sha256").hex()[:8]


def pseudonym(key: str | int, secret: bytes) -> str | int:
    """What stands in the log for `key`."""
    kind = b"i:" if isinstance(key, int) else b"s:"
    digest = hmac.digest(secret, kind + str(key).encode("utf-8", "surrogatepass"), hashlib.sha256)
    return int.from_bytes(digest[:8], "little", signed=True) if isinstance(key, int) else digest[:16].hex()


def check_columns(schema: pa.Schema, entities: Sequence[str]) -> list[str]:
    """The columns of these entities. Raises `LogError` for one that is not there or too narrow for a pseudonym."""
    columns = []
    for entity in entities:
        column = f"e__{entity}"
        if column not in schema.names:
            known = ", ".join(name.removeprefix("e__") for name in schema.names if name.startswith("e__"))
            raise LogError(f"pii: the log has no entity {entity!r}; it has {known}.")
        kind = schema.field(column).type
        if kind not in (pa.string(), pa.int64()):
            raise LogError(f"pii: {entity} is {kind}; only text and int64 keys can be hashed. Declare it so.")
        columns.append(column)
    return columns


def hidden(batch: pa.RecordBatch, columns: Sequence[str], secret: bytes) -> pa.RecordBatch:
    """The batch with pseudonyms in these columns; null stays null."""
    for column in columns:
        at = batch.schema.get_field_index(column)
        keys = [None if key is None else pseudonym(key, secret) for key in batch.column(at).to_pylist()]
        batch = batch.set_column(at, batch.schema.field(at), pa.array(keys, batch.schema.field(at).type))
    return batch


def reveal(batch: pa.RecordBatch, known: Mapping[str, Mapping[str | int, str | int]]) -> pa.RecordBatch:
    """The batch with the plain keys of `known` (column: pseudonym: key); a pseudonym that is not there becomes null."""
    for column, keys in known.items():
        at = batch.schema.get_field_index(column)
        if at >= 0:
            plain = [keys.get(one) for one in batch.column(at).to_pylist()]
            batch = batch.set_column(at, batch.schema.field(at), pa.array(plain, batch.schema.field(at).type))
    return batch
