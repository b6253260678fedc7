"""Snapshot: what a model was trained on, frozen. A folder of two files:

    rows.parquet     one row per ask, in order: the flat form of `answer.Served`, and the label columns
    manifest.json    the id and what it covers, and evidence beside it

The id covers asks, labels, rule, definitions, transforms and the logical answer rows; not Parquet bytes, paths, thread
counts, batch sizes or times of day.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewguard.answer import Served, answer, from_table, schema, to_batch
from skewguard.definitions import Bundle, load_bundle
from skewguard.errors import SnapshotError
from skewguard.offline import OfflineStore, Rule
from skewguard.spine import read_spine
from skewguard.transforms import numeric_class
from skewguard.values import Column, Dtype

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot says of itself. `ties`: source rows per view that share keys and both times with another."""

    format: int
    id: str
    service: str
    rule: Rule
    bundle_digest: str
    rows: int
    labels: tuple[str, ...]
    columns: dict[str, str]
    since: str
    until: str
    numeric_class: str
    ties: dict[str, int]
    built_at: str


@dataclass(frozen=True)
class Snapshot:
    """A snapshot on disk. `bundle` is the one it was built with."""

    path: Path
    manifest: Manifest
    bundle: Bundle

    @property
    def id(self) -> str:
        """sha256 (hex) of the logical content."""
        return self.manifest.id

    def batches(self, columns: Sequence[str] | None = None, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The rows, streamed in order."""
        with pq.ParquetFile(self.path / "rows.parquet") as file:
            yield from file.iter_batches(batch_size=rows, columns=list(columns) if columns else None)

    def served(self) -> Iterator[Served]:
        """The rows as answers, streamed in order."""
        for batch in self.batches():
            yield from_table(self.bundle, pa.table(batch))

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows (or some columns of them), in the order of the asks."""
        return pq.read_table(self.path / "rows.parquet", columns=list(columns) if columns else None)

    def to_pandas(self, label: str | None = None) -> tuple[pd.DataFrame, pd.Series[Any]]:
        """(X, y): model inputs as float64 columns named as in `Bundle.vector`, and the label.

        Rows whose label is null (nobody knows the outcome) are left out; `label` defaults to the first.
        """
        import pandas as pd

        matrix, y = self.to_numpy(label)
        return pd.DataFrame(matrix, columns=list(self.bundle.vector)), pd.Series(
            y, name=label or self.manifest.labels[0]
        )

    def to_numpy(self, label: str | None = None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """(X, y) as arrays: float64 (n, k) with NaN for missing, and the label's values; null labels left out."""
        if not self.manifest.labels:
            raise SnapshotError(f"snapshot {self.path} has no label: name one with label= when it is built")
        name = label or self.manifest.labels[0]
        if name not in self.manifest.labels:
            raise SnapshotError(f"snapshot {self.path}: no label {name!r}; it has {', '.join(self.manifest.labels)}")
        table = self.to_arrow(["vector", name])
        matrix = table["vector"].combine_chunks().flatten().to_numpy().reshape(len(table), len(self.bundle.vector))
        known = np.asarray(table[name].is_valid())
        return matrix[known], np.asarray(table[name].drop_null())


def build_snapshot(
    bundle: Bundle,
    asks: pa.Table,
    out: str | Path,
    *,
    labels: Sequence[str] = (),
    rule: Rule = Rule.KNOWN,
    id_column: str | None = None,
    as_of: str = "event_timestamp",
    offline: OfflineStore | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Snapshot:
    """Answer every ask at its instant and freeze the answers at `out`, which must not exist yet.

    `asks` is the entity table: keys, request fields, `as_of` and label columns; `id_column` names the column that
    identifies each ask. Written beside `out` first, then renamed: no half-written snapshot. Raises `AskError`,
    `SourceError`, `SnapshotError`.
    """
    out = Path(out)
    if out.exists():
        raise SnapshotError(f"{out} exists; a snapshot is never overwritten. Choose another place or remove it.")
    missing = [name for name in labels if name not in asks.column_names]
    if missing:
        raise SnapshotError(
            f"label {missing[0]!r} is not among the columns of the asks: {', '.join(asks.column_names)}"
        )
    request = {field.name: field.dtype for field in bundle.request}
    spine = read_spine(asks, bundle.keys, request, as_of=as_of, id_column=id_column)
    label_table = asks.select(list(labels)).combine_chunks()
    flat = schema(bundle)
    target = pa.schema([*flat, *label_table.schema])
    store = offline or OfflineStore(bundle.views, rule)
    digest = _Digest(bundle, rule)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        with pq.ParquetWriter(partial / "rows.parquet", target, compression="zstd") as writer:
            for at in range(0, max(len(spine), 1), BATCH_ROWS):
                rows = np.arange(at, min(at + BATCH_ROWS, len(spine)))
                part = spine.take(rows)
                served = answer(bundle, part, store.answer(part))
                some = label_table.slice(at, len(rows))
                batch = to_batch(bundle, served, flat)
                digest.update(served, some)
                writer.write_table(pa.table([*batch.columns, *some.columns], schema=target))
                if progress:
                    progress(at + len(rows), len(spine))
        ties = {view.name: store.ties(view.name) for view in bundle.views}
        first, last = (spine.as_of.min(), spine.as_of.max()) if len(spine) else (0, 0)
        manifest = Manifest(
            FORMAT, digest.hex(label_table), bundle.service, rule, bundle.digest, len(spine), tuple(labels),
            {field.name: str(field.type) for field in target}, _iso(int(first)), _iso(int(last)), numeric_class(),
            ties, datetime.now(UTC).isoformat(timespec="seconds"),
        )  # fmt: skip
        bundle.save(partial / "bundle.json")
        (partial / "manifest.json").write_text(json.dumps(asdict(manifest), indent=1, sort_keys=True) + "\n")
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        if offline is None:
            store.close()
    return Snapshot(out, manifest, bundle)


def load_snapshot(path: str | Path) -> Snapshot:
    """Open a snapshot; raises `SnapshotError` where it is missing, torn or was written by another version."""
    path = Path(path)
    try:
        data = json.loads((path / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise SnapshotError(f"{path}: expected a snapshot folder with a manifest.json, got {error}") from error
    if data.get("format") != FORMAT:
        raise SnapshotError(f"{path}: expected snapshot format {FORMAT}, got {data.get('format')!r}")
    manifest = Manifest(**(data | {"rule": Rule(data["rule"]), "labels": tuple(data["labels"])}))
    return Snapshot(path, manifest, load_bundle(path / "bundle.json"))


class _Digest:
    """The running id: hashes that go on from batch to batch, so that the size of a batch does not matter."""

    def __init__(self, bundle: Bundle, rule: Rule) -> None:
        self.bundle = bundle
        self.head = hashlib.sha256(f"{FORMAT}\0{bundle.digest}\0{rule}\0".encode())
        self.streams: dict[tuple[str, int], hashlib._Hash] = {}

    def update(self, served: Served, labels: pa.Table) -> None:
        def add(name: str, *content: bytes) -> None:
            for i, part in enumerate(content):
                self.streams.setdefault((name, i), hashlib.sha256(f"{name}\0{i}\0".encode())).update(part)

        spine = served.spine
        add("event_timestamp", spine.as_of.tobytes())
        add("id", *Column(Dtype.STRING, spine.ids, np.zeros(len(spine), np.uint8)).content())
        for name, key in spine.keys.items():
            add(f"e__{name}", *key.content())
        for name, value in spine.request.items():
            add(f"q__{name}", *value.content())
        for name, rows in served.views.items():
            add(f"{name}__status", rows.status.tobytes())
            add(f"{name}__event_ts", rows.event.tobytes())
            add(f"{name}__created_ts", rows.created.tobytes())
        for name, feature in served.features(self.bundle).items():
            add(name, *feature.content())
        for name in labels.column_names:
            values = labels[name].cast(pa.int64()) if pa.types.is_timestamp(labels[name].type) else labels[name]
            add(f"label {name}", "".join(f"{value!r}," for value in values.to_pylist()).encode())

    def hex(self, labels: pa.Table) -> str:
        for field in labels.schema:
            self.head.update(f"{field.name}:{field.type}\0".encode())
        for stream in sorted(self.streams):
            self.head.update(self.streams[stream].digest())
        return self.head.hexdigest()


def _iso(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="seconds")
