"""Tombstones: who was erased from a log, without saying who.

A tombstone holds a salted digest of the key. Readers leave out the rows it means at once, compaction removes them.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from skewguard.errors import LogError
from skewguard.values import Mask

FILE = "erased.json"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Rows whose `e__<entity>` has this digest and whose instant is not after `until` (microseconds, UTC)."""

    entity: str
    salt: str
    digest: str
    until: int

    @classmethod
    def of(cls, entity: str, key: str | int, until: int) -> Tombstone:
        """A tombstone of one key, with a salt of its own."""
        salt = secrets.token_hex(16)
        return cls(entity, salt, _digest(salt, key), until)

    def means(self, key: object) -> bool:
        """Whether it is this key's."""
        return key is not None and _digest(self.salt, key) == self.digest


def _digest(salt: str, key: object) -> str:
    return hashlib.sha256(f"{salt}:{key}".encode("utf-8", "surrogatepass")).hexdigest()


def erased_rows(tombstones: Sequence[Tombstone], batch: pa.RecordBatch | pa.Table) -> Mask:
    """Mask of the rows that the tombstones mean, shape (n,)."""
    gone = np.zeros(batch.num_rows, dtype=bool)
    for tombstone in tombstones:
        column = f"e__{tombstone.entity}"
        if column not in batch.schema.names:
            continue
        keys = batch.column(column).to_pylist()
        those = {key for key in set(keys) if tombstone.means(key)}
        if those:
            gone |= np.array([key in those for key in keys], dtype=bool) & ~_after(batch, tombstone.until)
    return gone


def without(tombstones: Sequence[Tombstone], batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch without the rows that the tombstones mean."""
    gone = erased_rows(tombstones, batch)
    return batch.filter(pa.array(~gone)) if gone.any() else batch


def _after(batch: pa.RecordBatch | pa.Table, until: int) -> Mask:
    """Rows asked after the erasure: the person came back."""
    if "event_timestamp" not in batch.schema.names:
        return np.zeros(batch.num_rows, dtype=bool)
    at = batch.column("event_timestamp").cast(pa.int64()).fill_null(0)
    return np.asarray(at.to_numpy(zero_copy_only=False) > until)


def load_tombstones(folder: Path) -> tuple[Tombstone, ...]:
    """The tombstones of a service's folder. Raises `LogError` for a file that is none: its rows must stay hidden."""
    file = folder / FILE
    try:
        return tuple(Tombstone(**one) for one in json.loads(file.read_text()))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError) as error:
        raise LogError(f"{file}: expected a list of erasures, got {error!r}. Restore it.") from error


def save_tombstones(folder: Path, tombstones: Sequence[Tombstone]) -> None:
    """Make these the folder's tombstones."""
    from skewguard.place import place_of
    from skewguard.servinglog.archive import put

    text = json.dumps([asdict(one) for one in tombstones])
    put(place_of(folder / FILE), lambda file: file.write(text.encode()))
