"""The snapshot on disk: its manifest, its rows, the running id, and the one way in which it is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewguard.answer import Served, from_table, schema, to_batch
from skewguard.definitions import Bundle, read_bundle
from skewguard.errors import DefinitionError, MissingExtra, SnapshotError
from skewguard.offline import Rule
from skewguard.place import Place, place_of, shown
from skewguard.snapshot.profile import Profile, profile_of
from skewguard.snapshot.sources import SourceMonth
from skewguard.snapshot.staging import BUNDLE, MANIFEST, PROFILE, ROWS, Staging
from skewguard.transforms import numeric_class
from skewguard.values import Column, Dtype

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2
BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot says of itself. `ties`: source rows per view that share keys and both times with another.

    `as_served`: rows counted once the online store could serve them. `adopted`: the rule by which a set that came from
    elsewhere says it was built (`known`, `feast`, `unknown`), empty where we built it. `sources`: evidence beside the
    id. `fitted`: the values that the model inputs were fitted to, by full name and argument, as in the bundle.
    """

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
    as_served: bool = False
    adopted: str = ""
    sources: dict[str, dict[str, SourceMonth]] = field(default_factory=dict)
    fitted: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """A snapshot, on a disk or elsewhere. `bundle` is the one it was built with."""

    place: Place
    manifest: Manifest
    bundle: Bundle

    @property
    def id(self) -> str:
        """sha256 (hex) of the logical content."""
        return self.manifest.id

    @property
    def path(self) -> Path:
        """Its folder on this disk; raises `SnapshotError` where it lies elsewhere."""
        if self.place.local is None:
            raise SnapshotError(f"{self.place}: expected a snapshot on a local disk; copy it to one")
        return self.place.local

    def batches(self, columns: Sequence[str] | None = None, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The rows, streamed in order. Raises `SnapshotError` where they cannot be read, or lack a column."""
        names = self._names(columns)
        with self._rows() as file:
            for batch in file.iter_batches(batch_size=rows, columns=names):
                yield batch if names is None else batch.select(names)

    def served(self) -> Iterator[Served]:
        """The rows as answers, streamed in order."""
        for batch in self.batches():
            yield from_table(self.bundle, pa.table(batch))

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows (or some columns of them), in the order of the asks. Raises `SnapshotError` as `batches` does."""
        names = self._names(columns)
        with self._rows() as file:
            table: pa.Table = file.read(columns=names)
        return table if names is None else table.select(names)

    def _names(self, columns: Sequence[str] | None) -> list[str] | None:
        unknown = [name for name in columns or () if name not in self.manifest.columns]
        if unknown:
            raise SnapshotError(f"{self.place}: no column {unknown[0]!r}; it has {', '.join(self.manifest.columns)}")
        return list(columns) if columns else None

    @contextmanager
    def _rows(self) -> Iterator[pq.ParquetFile]:
        try:
            with (self.place / ROWS).open() as stream, pq.ParquetFile(stream) as file:
                yield file
        except (OSError, pa.ArrowException) as error:
            raise SnapshotError(f"{self.place}: its rows cannot be read: {error}") from error

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
            raise SnapshotError(f"snapshot {self.place} has no label: name one with label= when it is built")
        name = label or self.manifest.labels[0]
        if name not in self.manifest.labels:
            raise SnapshotError(f"snapshot {self.place}: no label {name!r}; it has {', '.join(self.manifest.labels)}")
        table = self.to_arrow(["vector", name])
        matrix = table["vector"].combine_chunks().flatten().to_numpy().reshape(len(table), len(self.bundle.vector))
        known = np.asarray(table[name].is_valid())
        return matrix[known], np.asarray(table[name].drop_null())

    def bind(self, info: Any, tracking_uri: str | None = None) -> None:
        """Tell MLflow that the logged model `info` was trained on this: lineage, nothing else.

        Raises `SnapshotError` where the model names another snapshot, or other columns.
        """
        try:
            from skewguard.snapshot.mlflow import bind
        except ImportError as error:
            raise MissingExtra("telling MLflow what a model was trained on", "mlflow") from error
        bind(self, info, tracking_uri)


def load_snapshot(path: str | Path) -> Snapshot:
    """Open the snapshot in a folder or at a URI (`s3://bucket/snapshot`).

    Raises `SnapshotError` where it is missing, torn or was written by another version.
    """
    try:
        place = place_of(path)
        data = json.loads((place / MANIFEST).read())
    except (OSError, ValueError) as error:
        raise SnapshotError(f"{shown(path)}: expected a snapshot folder with a manifest.json, got {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        got = data.get("format") if isinstance(data, dict) else data
        raise SnapshotError(f"{place}: expected snapshot format {FORMAT}, got {got!r}. Build it again.")
    try:
        manifest = manifest_of(data)
        with (place / ROWS).open() as stream:
            rows = pq.read_metadata(stream).num_rows
        bundle = read_bundle((place / BUNDLE).read().decode(), place / BUNDLE)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DefinitionError) as error:
        raise SnapshotError(f"{place}: torn, or written by another version: {error}. Build it again.") from error
    if (rows, bundle.digest) != (manifest.rows, manifest.bundle_digest):
        raise SnapshotError(
            f"{place}: its manifest is of {manifest.rows} rows under definitions {manifest.bundle_digest[:12]}, but "
            f"beside it lie {rows} rows and definitions {bundle.digest[:12]}. Build it again."
        )
    return Snapshot(place, manifest, bundle)


def manifest_of(data: Mapping[str, Any]) -> Manifest:
    """What a manifest.json says. Raises whatever a wrong one leads to: KeyError, TypeError, ValueError."""
    sources = {
        view: {month: SourceMonth(**one) for month, one in months.items()}
        for view, months in data.get("sources", {}).items()
    }
    typed = {"rule": Rule(data["rule"]), "labels": tuple(data["labels"]), "sources": sources}
    return Manifest(**(dict(data) | typed))


@dataclass(frozen=True, slots=True)
class Origin:
    """By which rule rows came about, and whether here: as in `Manifest`."""

    rule: Rule
    as_served: bool = False
    adopted: str = ""


class Digest:
    """The running id: hashes that go on from batch to batch, so that the size of a batch does not matter."""

    def __init__(self, bundle: Bundle, origin: Origin) -> None:
        self.bundle = bundle
        self.head = hashlib.sha256(f"{FORMAT}\0{bundle.digest}\0{origin.rule}\0".encode())
        if origin.as_served:
            self.head.update(b"as served\0")
        if origin.adopted:
            self.head.update(f"adopted {origin.adopted}\0".encode())
        self.streams: dict[tuple[str, int], hashlib._Hash] = {}

    def update(self, served: Served, labels: pa.Table) -> None:
        """The rows that follow."""

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

    def hex(self, labels: pa.Schema) -> str:
        """The id of all rows so far."""
        for one in labels:
            self.head.update(f"{one.name}:{one.type}\0".encode())
        for stream in sorted(self.streams):
            self.head.update(self.streams[stream].digest())
        return self.head.hexdigest()


class Freezing:
    """A snapshot while it is written: whole with `finish`, or nothing is left. A context manager."""

    def __init__(self, out: str | Path, bundle: Bundle, labels: pa.Schema, origin: Origin) -> None:
        self.bundle, self.labels, self.origin = bundle, labels, origin
        try:
            self.out = place_of(out)
            self._staging = Staging(self.out)
        except OSError as error:
            raise SnapshotError(f"{shown(out)}: a snapshot cannot be written there: {error}") from error
        self._flat = schema(bundle)
        names = labels.names
        taken = [name for name in names if name in self._flat.names or names.count(name) > 1]
        if taken:
            raise SnapshotError(f"label {taken[0]!r}: the snapshot has another column of this name; rename the label")
        self._target = pa.schema([*self._flat, *labels])
        self._digest = Digest(bundle, origin)
        self._profile = Profile({}, {})
        self._done = False
        self._rows, self._first, self._last = 0, 0, 0

    def __enter__(self) -> Self:
        try:
            self._folder = self._staging.open()
            rows = self._folder / ROWS
            self._writer = pq.ParquetWriter(rows.path, self._target, compression="zstd", filesystem=rows.filesystem)
        except OSError as error:
            self._staging.discard()
            raise self._unwritable(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._done:
            return
        try:
            with suppress(OSError):  # the disk is full, and that is what is being told already
                self._writer.close()
        finally:
            self._staging.discard()
        if isinstance(error, OSError):
            raise self._unwritable(error) from error

    def add(self, served: Served, labels: pa.Table) -> None:
        """The rows that follow, and their labels."""
        batch = to_batch(self.bundle, served, self._flat)
        self._digest.update(served, labels)
        self._profile = self._profile.merge(profile_of(self.bundle, served, labels))
        self._writer.write_table(pa.table([*batch.columns, *labels.columns], schema=self._target))
        if len(served.spine):
            first, last = int(served.spine.as_of.min()), int(served.spine.as_of.max())
            self._first, self._last = (min(self._first, first), max(self._last, last)) if self._rows else (first, last)
        self._rows += len(served.spine)

    @property
    def cut(self) -> int:
        """The last ask so far, in microseconds."""
        return self._last

    def finish(self, ties: dict[str, int], sources: dict[str, dict[str, SourceMonth]]) -> Snapshot:
        """Close the files and put them in their place."""
        self._writer.close()
        manifest = Manifest(
            FORMAT, self._digest.hex(self.labels), self.bundle.service, self.origin.rule, self.bundle.digest,
            self._rows, tuple(self.labels.names), {one.name: str(one.type) for one in self._target},
            _iso(self._first), _iso(self._last), numeric_class(), ties,
            datetime.now(UTC).isoformat(timespec="seconds"), self.origin.as_served, self.origin.adopted, sources,
            self.bundle.fitted_values,
        )  # fmt: skip
        (self._folder / BUNDLE).write(self.bundle.text().encode())
        (self._folder / PROFILE).write(self._profile.text().encode())
        (self._folder / MANIFEST).write((json.dumps(asdict(manifest), indent=1, sort_keys=True) + "\n").encode())
        self._staging.publish()
        self._done = True
        return Snapshot(self.out, manifest, self.bundle)

    def _unwritable(self, error: OSError) -> SnapshotError:
        return SnapshotError(f"{self.out}: the snapshot could not be written, and nothing of it was left: {error}")


def _iso(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="seconds")
