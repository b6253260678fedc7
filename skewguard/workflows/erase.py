"""Erase: a person out of the online store, the serving log and the snapshots' rows, with a receipt.

What is not touched, because it is not ours: the sources (the next materialization brings their rows back), models that
were trained on the rows, and whatever a team copied elsewhere. The receipt says so.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from skewguard.definitions import Bundle, View
from skewguard.errors import AskError, DefinitionError, SkewguardError, SourceError
from skewguard.online import open_store, row_key
from skewguard.servinglog import blocks, read_log
from skewguard.servinglog.erasing import ErasedLog, erase_rows
from skewguard.servinglog.erasure import Tombstone
from skewguard.servinglog.privacy import key_id, pseudonym
from skewguard.snapshot.erasure import erase_rows as erase_from_snapshot
from skewguard.values import Dtype

NOT_TOUCHED = (
    "the sources: erase there first, or the next materialization brings the rows back",
    "models that were trained on the rows",
    "copies of log, store or snapshots that were made elsewhere",
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure did. The key itself is not in it: `digests` are salted (sha256 of `salt:key`).

    `store`: rows deleted by view. `not_found_out`: views of the store whose other keys nobody could name. `complete`:
    nothing is left to do but what `not_touched` says.
    """

    entity: str
    at: str
    digests: tuple[dict[str, str], ...]
    log: dict[str, ErasedLog] = field(default_factory=dict)
    store: dict[str, int] = field(default_factory=dict)
    not_found_out: dict[str, str] = field(default_factory=dict)
    snapshots: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    not_touched: tuple[str, ...] = NOT_TOUCHED

    @property
    def complete(self) -> bool:
        """Whether everything that is ours is done."""
        return not self.not_found_out and not any(one.pending for one in self.log.values())

    def to_json(self) -> str:
        """For the file."""
        return json.dumps(asdict(self) | {"complete": self.complete}, indent=1)


def erase(
    bundle: Bundle,
    entity: str,
    key: str,
    *,
    log: str | Path | None = None,
    store: str | None = None,
    snapshots: Sequence[str] = (),
    secret: bytes | None = None,
) -> Receipt:
    """Erase the person whose key `entity` is `key` from what is named. May be run again at any time.

    `secret` is what the log hashes this key with, where it does. Raises `SkewguardError`; what has been done until then
    is done.
    """
    value = _value(bundle, entity, key)
    now = time.time_ns() // 1000
    tombstones = [Tombstone.of(entity, value, now)]
    if log is not None and (Path(log) / bundle.service).is_dir():
        _check_hashed(log, bundle.service, entity, secret)
    else:
        log = None
    if secret is not None:
        tombstones.append(Tombstone.of(entity, pseudonym(value, secret), now))
    deleted: dict[str, int] = {}
    unknown: dict[str, str] = {}
    if store is not None:
        deleted, unknown = _from_store(bundle, entity, value, store, log)
    erased = {} if log is None else {bundle.service: erase_rows(log, bundle.service, tombstones)}
    record = {"at": datetime.now(UTC).isoformat(), "salt": tombstones[0].salt, "digest": tombstones[0].digest}
    return Receipt(
        entity,
        record["at"],
        tuple({"salt": one.salt, "digest": one.digest} for one in tombstones),
        erased,
        deleted,
        unknown,
        {str(where): erase_from_snapshot(where, entity, tombstones[0].means, record) for where in snapshots},
    )


def _value(bundle: Bundle, entity: str, key: str) -> str | int:
    dtype = bundle.keys.get(entity)
    if dtype is None:
        raise DefinitionError(f"{entity}: {bundle.service} has no such entity key; it has {', '.join(bundle.keys)}")
    if dtype is Dtype.STRING:
        return key
    try:
        return int(key)
    except ValueError as error:
        raise AskError(entity, f"expected {dtype}, got {key!r}") from error


def _check_hashed(log: str | Path, service: str, entity: str, secret: bytes | None) -> None:
    """Rows under a hash that nobody can compute would be left over in silence."""
    own = "" if secret is None else key_id(secret)
    hashed = {
        segment.header.get("pii_key", "")
        for segment in read_log(log, service).segments
        if segment.rows and entity in segment.header.get("pii", "").split(",")
    }
    if hashed - {own}:
        raise SkewguardError(
            f"erase: the log hashes {entity} with the secret {', '.join(sorted(hashed - {own}))}; "
            "give that secret, or its rows cannot be found"
        )


def _from_store(
    bundle: Bundle, entity: str, value: str | int, url: str, log: str | Path | None
) -> tuple[dict[str, int], dict[str, str]]:
    """(rows deleted by view, views of which not all keys are known)."""
    deleted: dict[str, int] = {}
    unknown: dict[str, str] = {}
    with closing(open_store(url)) as online:
        for view in bundle.views:
            if entity not in [key.ask for key in view.keys]:
                continue
            combinations = {(value,)} if len(view.keys) == 1 else _logged(view, entity, value, log, bundle.service)
            if len(view.keys) > 1:
                try:
                    combinations |= _sourced(view, entity, value)
                except (SourceError, OSError) as error:
                    unknown[view.name] = f"its source could not be asked for the other keys: {error}"
            keys = [row_key(bundle.project, view, one) for one in sorted(combinations, key=repr)]
            deleted[view.name] = online.delete(keys) if keys else 0
    return deleted, unknown


def _sourced(view: View, entity: str, value: str | int) -> set[tuple[Any, ...]]:
    """Values of all keys of the view, wherever its source holds this entity's."""
    from skewguard.offline.scan.duckdb import read_source

    table = read_source(view.source, [key.column for key in view.keys])
    own = next(key.column for key in view.keys if key.ask == entity)
    column = table[own].cast(pa.string() if isinstance(value, str) else pa.int64())
    found = table.filter(pc.equal(column, value))
    columns = [found[key.column].to_pylist() for key in view.keys]
    return {row for row in zip(*columns, strict=True) if None not in row}


def _logged(view: View, entity: str, value: str | int, log: str | Path | None, service: str) -> set[tuple[Any, ...]]:
    """The same, of the rows in the log."""
    if log is None:
        return set()
    names = [f"e__{key.ask}" for key in view.keys]
    own = names.index(f"e__{entity}")
    rows = itertools.chain.from_iterable(
        zip(*(batch.column(name).to_pylist() for name in names), strict=True)
        for segment, batch in blocks(read_log(log, service).segments)
        if set(names) <= set(segment.schema.names)
    )
    return {row for row in rows if row[own] == value and None not in row}
