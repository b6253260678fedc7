"""Probe: asks sent through a candidate's online path before anybody else asks it, and logged as what they are."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewguard.answer import answer, schema, to_batch
from skewguard.definitions import Bundle
from skewguard.errors import EvidenceError
from skewguard.model import Model
from skewguard.online import Lookup
from skewguard.servinglog import ServingLog
from skewguard.snapshot import Snapshot
from skewguard.spine import Spine
from skewguard.transforms import numeric_class
from skewguard.values import Array, Column, Dtype

BATCH_ROWS = 1024
_UNKNOWN: dict[Dtype, str | int] = {Dtype.INT64: -(2**62), Dtype.INT32: -(2**30), Dtype.STRING: "nobody-\N{SNOWMAN}"}


@dataclass(frozen=True, slots=True)
class Probed:
    """How many asks were answered and logged, `edges` of them at an edge."""

    rows: int
    edges: int


def probe(
    snapshot: Snapshot, lookup: Lookup, model: Model, log: str | Path, *, rows: int, as_of: int, build: str = "probe"
) -> Probed:
    """Ask the candidate `rows` times as of `as_of` (microseconds) and log its answers as evidence of kind `probe`.

    The asks are the snapshot's own, sampled with a fixed seed: the edges first (a key that nobody has, one that is
    null, the extremes of every number that callers bring along), then others. Answered as the service answers: lookup,
    transforms, model, log. Raises `ModelError` for a model of other features, `StoreUnavailable`, `LogError`.
    """
    bundle = snapshot.bundle
    model.check(bundle.vector, bundle.fitted_digest)
    spine, edges = asks(snapshot, rows, as_of)
    header = {
        "build": build,
        "host": socket.gethostname(),
        "evidence": "probe",
        "bundle_digest": bundle.digest,
        "numeric_class": numeric_class(),
        "model_id": model.model_id or "",
        "model_digest": model.digest,
        "snapshot_id": model.snapshot_id,
    }
    flat = schema(bundle)
    answered = [
        to_batch(bundle, answer(bundle, part, lookup.answer(part), model), flat) for part in _parts(spine)
    ]  # all of them or none: a store that stops answering half way leaves no half a probe
    with ServingLog(log, bundle.service, flat, header, bundle=bundle) as opened:
        for batch in answered:
            opened.append(batch)
    return Probed(len(spine), edges)


def asks(snapshot: Snapshot, rows: int, as_of: int) -> tuple[Spine, int]:
    """(`rows` asks at that instant, how many of them are edges). Raises `EvidenceError` for a snapshot without rows."""
    bundle = snapshot.bundle
    names = [*(f"e__{name}" for name in bundle.keys), *(f"q__{one.name}" for one in bundle.request)]
    known = snapshot.to_arrow(names) if names else None
    if known is None or not len(known):
        raise EvidenceError(f"snapshot {snapshot.id[:12]} has no asks to take any from: build one with rows")
    at = np.random.default_rng(0).integers(0, len(known), rows)
    extremes = _extremes(bundle, known)[:rows]
    at[: len(extremes)] = extremes
    table = known.take(pa.array(at)).combine_chunks()
    keys = {name: Column.from_arrow(table[f"e__{name}"], dtype, name) for name, dtype in bundle.keys.items()}
    request = {one.name: Column.from_arrow(table[f"q__{one.name}"], one.dtype, one.name) for one in bundle.request}
    edges = len(extremes)
    for name, dtype in bundle.keys.items():
        for value in (None, *((_UNKNOWN[dtype],) if dtype in _UNKNOWN else ())):
            if edges < rows:
                keys[name] = _put(keys[name], edges, value)
                edges += 1
    run = secrets.token_hex(6)
    ids = np.array([f"probe-{run}-{i}" for i in range(rows)], dtype=object)
    return Spine(ids, np.full(rows, as_of, dtype=np.int64), keys, request), edges


def _extremes(bundle: Bundle, known: pa.Table) -> list[int]:
    """Rows with the least and the greatest value of every number that callers bring along."""
    found: list[int] = []
    for one in bundle.request:
        column = known[f"q__{one.name}"]
        if one.dtype.is_numeric and column.null_count < len(column):
            number = column.cast(pa.float64())
            ends = pc.min_max(number)
            found += [pc.index(number, ends[end]).as_py() for end in ("min", "max")]
    return list(dict.fromkeys(row for row in found if row >= 0))


def _put(column: Column, at: int, value: str | int | None) -> Column:
    one = Column.from_arrow(pa.array([value], column.dtype.arrow), column.dtype, "probe")
    before, after = np.arange(at), np.arange(at + 1, len(column))
    return Column.concat([column.take(before), one, column.take(after)])


def _parts(spine: Spine) -> Iterator[Spine]:
    every: Array = np.arange(len(spine))
    for at in range(0, len(spine), BATCH_ROWS):
        yield spine.take(every[at : at + BATCH_ROWS])
