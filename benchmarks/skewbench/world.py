"""The flights as the benchmark's world: sources, definitions, a snapshot of January to September, a model, and traffic.

A writer follows the sources and publishes at fixed ticks; what a request gets is what was there by then.
`Window.serve` computes that for all rows at once; `chain.py` runs the same through a real store and a real service.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flights.asks import build_asks
from flights.sources import build_sources
from skewguard.answer import Served, answer
from skewguard.definitions import Bundle, load_bundle
from skewguard.errors import SkewguardError
from skewguard.model import Model
from skewguard.offline import OfflineStore
from skewguard.snapshot import Snapshot, build_snapshot, load_snapshot
from skewguard.spine import Spine, ViewRows, read_spine

ROOT = Path("build/bench/skewbench")
SERVICE = "flight_delay"
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
TRAINED_UNTIL = datetime(2013, 10, 1, tzinfo=UTC)
TRAINED_ROWS = 20_000

Instants = npt.NDArray[np.int64]
Change = Callable[[Bundle, Path], Bundle]
"""Other definitions or other sources than the flights' own: takes the bundle and a folder for files."""


@dataclass(frozen=True)
class World:
    """Definitions, sources, and what the model was trained on. `asks` in order of time."""

    root: Path
    snapshot: Snapshot
    asks: pa.Table
    offline: OfflineStore

    @property
    def bundle(self) -> Bundle:
        """The snapshot's: fitted values included."""
        return self.snapshot.bundle

    @cached_property
    def model(self) -> Model:
        """A model on some of the snapshot's rows."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        matrix, label = self.snapshot.to_numpy("late")
        step = max(1, len(label) // TRAINED_ROWS)
        booster = HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=15, early_stopping=False, random_state=0)
        booster.fit(matrix[::step], label[::step])

        def predict(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return np.asarray(booster.predict_proba(rows)[:, 1], dtype=np.float64)

        return Model("b" * 64, "m-skewbench", matrix.shape[1], self.bundle.vector, predict, self.snapshot.id)

    def first(self, day: datetime) -> int:
        """The number of the first ask from `day` on."""
        at = self.asks["event_timestamp"]
        return int(pc.sum(pc.less(at, pa.scalar(day, at.type))).as_py())

    def window(self, first: int, rows: int, *, tick_us: int = 20 * SECOND) -> Window:
        """Honest traffic: `rows` asks from number `first` on, over a writer that publishes every `tick_us`."""
        asks = self.asks.slice(first, rows)
        request = {field.name: field.dtype for field in self.bundle.request}
        spine = read_spine(asks, self.bundle.keys, request, id_column="flight_id")
        return Window(self, asks, spine, tick_us)


@dataclass(frozen=True)
class Window:
    """Some rows of traffic over a `World`. `served` is what an honest service answered."""

    world: World
    asks: pa.Table
    spine: Spine
    tick_us: int

    @property
    def bundle(self) -> Bundle:
        """The world's."""
        return self.world.bundle

    @cached_property
    def marks(self) -> Instants:
        """Up to when the writer had published at each ask (microseconds)."""
        return (self.spine.as_of - 1) // self.tick_us * self.tick_us

    @cached_property
    def served(self) -> Served:
        """What an honest service answered."""
        return self.finished(answer(self.bundle, self.spine, self.views))

    @cached_property
    def views(self) -> Mapping[str, ViewRows]:
        """What an honest store answered."""
        return {view.name: self.published(view.name, self.marks) for view in self.bundle.views}

    def published(
        self, view: str, known_by: Instants, spine: Spine | None = None, offline: OfflineStore | None = None
    ) -> ViewRows:
        """What a store that was written up to `known_by` answers to each ask, under the ask's clock and TTL.

        `spine` may ask for other keys than the window does.
        """
        store, asked = offline or self.world.offline, spine or self.spine
        event, created = store.best(view, asked, known_by)
        return self.named(view, event, created, spine, store)

    def named(
        self,
        view: str,
        event: Instants,
        created: Instants,
        spine: Spine | None = None,
        offline: OfflineStore | None = None,
    ) -> ViewRows:
        """The answer from exactly these source rows."""
        rows = (offline or self.world.offline).rows(view, spine or self.spine, event, created)
        return replace(rows, watermark=self.marks.copy())

    def finished_like(self, served: Served) -> Served:
        """With the model's predictions, unless it brings its own."""
        return served if served.prediction is not None else self.finished(served)

    def finished(self, served: Served) -> Served:
        """With the model's predictions."""
        return replace(served, prediction=self.world.model.predict(served.vector))


def build(root: Path = ROOT, *, fresh: bool = False) -> World:
    """The flights as they are. What is there already is used: below `root`, a folder for each state of the code."""
    if fresh:
        for old in root.glob("*/"):
            shutil.rmtree(old)
    root.mkdir(parents=True, exist_ok=True)
    sources = root / "sources"
    if not (sources / "asks.parquet").exists():
        build_sources(sources)
        build_asks(sources)
    own = root / _code()[:12]
    if not (own / "snapshot").exists() or not _fits(own / "snapshot"):
        own.mkdir(exist_ok=True)
        opened(own, _compiled(own, sources), sources, own / "snapshot")
    snapshot = load_snapshot(own / "snapshot")
    return World(own, snapshot, pq.read_table(sources / "asks.parquet"), OfflineStore(snapshot.bundle.views))


def scratch(root: Path) -> Path:
    """A new folder of this run's own, which `alone` takes away at last."""
    return Path(mkdtemp(prefix=f"run-{os.getpid()}-", dir=root))


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Nobody else builds or reads below `root` meanwhile: data that change under a guard make it say UNKNOWN.

    Raises `RuntimeError` where another run does. What this one leaves in scratch folders is taken away.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"another run uses {root}: wait for it, or name another folder with --root") from None
        try:
            yield
        finally:
            for left in root.glob(f"*/run-{os.getpid()}-*"):
                shutil.rmtree(left, ignore_errors=True)


def _code() -> str:
    """A digest of the definitions that what is built depends on."""
    digest = hashlib.sha256()
    for path in sorted([*Path("feature_repo").rglob("*.py"), *Path("flights").rglob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _fits(snapshot: Path) -> bool:
    """Whether today's code still reads what was built, and computes the same."""
    try:
        return bool(load_snapshot(snapshot).bundle.transforms)
    except SkewguardError:
        return False


def changed(world: World, name: str, change: Change) -> World:
    """The same year under other definitions or over other sources, with a snapshot of its own."""
    root = world.root / "worlds" / name
    root.mkdir(parents=True, exist_ok=True)
    unfitted = load_bundle(world.root / f"{SERVICE}.bundle.json")
    return opened(root, change(unfitted, root), world.root.parent / "sources", root / "snapshot")


def opened(root: Path, bundle: Bundle, sources: Path, at: Path) -> World:
    """A world over a bundle whose snapshot is built anew: it costs seconds, and is never stale."""
    shutil.rmtree(at, ignore_errors=True)
    asks = pq.read_table(sources / "asks.parquet")
    known = asks.filter(pc.less(asks["event_timestamp"], pa.scalar(TRAINED_UNTIL, asks["event_timestamp"].type)))
    snapshot = build_snapshot(bundle, known, at, labels=["late"], id_column="flight_id")
    return World(root, snapshot, asks, OfflineStore(snapshot.bundle.views))


def _compiled(root: Path, sources: Path) -> Bundle:
    """`feast apply` and the bundle, as a user would."""
    yaml = root.resolve() / "feature_store.yaml"
    yaml.write_text(Path("feature_repo/feature_store.yaml").read_text().replace("data/", f"{root.resolve()}/feast/"))
    (root / "feast").mkdir(exist_ok=True)
    environment = os.environ | {"FLIGHTS_DATA": str(sources), "FEAST_USAGE": "False"}
    bundle = root / f"{SERVICE}.bundle.json"
    compiling = [sys.executable, "-m", "skewguard.cli", "bundle", SERVICE, "--repo", "feature_repo"]
    for command in (
        [str(Path(sys.executable).parent / "feast"), "-c", "feature_repo", "-f", str(yaml), "apply"],
        [*compiling, "--feature-store-yaml", str(yaml), "--bundle", str(bundle)],
    ):
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)  # noqa: S603
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout[-500:]}{done.stderr[-1500:]}")
    return load_bundle(bundle)
