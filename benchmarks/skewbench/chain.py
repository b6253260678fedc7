"""The real chain: a published SQLite store, two replicas of the service over HTTP, their log, the guard.

    python -m benchmarks.skewbench.chain [--fault NAME ...]

Replica B reads its store through a fault. The day, the writer and the replicas are those of `pipelines.shadow`; this
module also is what replica B runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewguard.definitions import Bundle
from skewguard.online import Layout, OnlineStore, pack
from skewguard.online.keys import view_prefix
from skewguard.online.layout import unpack
from skewguard.values import Column, Status

if TYPE_CHECKING:
    from benchmarks.skewbench.world import World
    from pipelines.train import Candidate
    from skewguard.verdict import Verdict

FAULT = "SKEWBENCH_FAULT"
DAY = date(2013, 11, 1)
SHARE = 0.1
"""Of the reads of replica B, which gets half of the requests."""

Change = Callable[[dict[str, Column]], dict[str, Column]]


@dataclass(frozen=True)
class Broken:
    """A fault of a reading store: of which view, and what it makes of a row (None: there is none)."""

    view: str
    change: Change | None
    touched: str


def _each(change: Callable[[Column], Column], *names: str) -> Change:
    def changed(features: dict[str, Column]) -> dict[str, Column]:
        return {name: change(one) if not names or name in names else one for name, one in features.items()}

    return changed


def _valued(one: Column, values: object) -> Column:
    return Column.build(one.dtype, np.asarray(values), one.status)


def _present(one: Column) -> Column:
    values = np.where(one.present, one.values, 0)
    return Column.build(one.dtype, values, np.full_like(one.status, Status.PRESENT))


READING: dict[str, Broken] = {
    "unit": Broken("weather", _each(lambda c: _valued(c, c.values * 1.609344), "wind_speed"), "weather"),
    "float32": Broken("route", _each(lambda c: _valued(c, c.values.astype(np.float32).astype(np.float64)),
                                     "late_share_30d", "mean_arr_delay_30d", "cancelled_share_30d"), "route"),
    "null_filled": Broken("weather", _each(_present, "wind_gust"), "weather"),
    "default_on_error": Broken("origin_congestion", _each(lambda c: _valued(c, np.zeros_like(c.values))),
                               "origin_congestion"),
    "skipped_entities": Broken("plane", None, "plane"),
}  # fmt: skip
STOPPED = ("weather", (datetime(2013, 11, 1, 12, tzinfo=UTC), datetime(2013, 11, 1, 15, tzinfo=UTC)))
NAMES = ("clean", *READING, "writer_stopped")
QUICK = ("clean", "unit")
QUICK_HOURS = (10, 14)


class Reader:
    """A store whose answers are wrong now and then."""

    def __init__(self, store: OnlineStore, bundle: Bundle, broken: Broken) -> None:
        self.url = store.url
        self._store, self._broken = store, broken
        self._layout = Layout.of(bundle.view(broken.view))
        self._prefix = view_prefix(bundle.project, broken.view)
        self._rng = np.random.default_rng(7)

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values by key; some of one view wrong."""
        hit = self._rng.random() < SHARE
        return [
            self._wrong(value) if hit and value and key.startswith(self._prefix) else value
            for key, value in zip(keys, self._store.mget(keys), strict=True)
        ]

    def _wrong(self, row: bytes) -> bytes | None:
        if self._broken.change is None:
            return None
        rows = unpack(self._layout, [row])
        changed = self._broken.change(dict(rows.features))
        columns = [changed[name] for name in self._layout.names]
        return pack(self._layout, rows.event, rows.created, int(rows.available[0]), columns)[0]

    def write(self, rows: Sequence[tuple[bytes, bytes]], meta: Mapping[bytes, bytes]) -> None:
        """As the store does."""
        self._store.write(rows, meta)

    def clear(self, project: str) -> None:
        """As the store does."""
        self._store.clear(project)

    def close(self) -> None:
        """As the store does."""
        self._store.close()


def run(
    world: World, names: Sequence[str] = NAMES, *, hours: tuple[int, int] = (0, 24)
) -> dict[str, dict[str, object]]:
    """Each fault for the requests of some hours of a day: the ruling, and whether what decided points at the fault."""
    from benchmarks.skewbench.ours import POLICY
    from benchmarks.skewbench.world import scratch
    from pipelines.shadow import Incident, Week, answer_week
    from skewguard.workflows.guard import guard

    folder = scratch(world.root)
    before = os.environ.get(FAULT)
    try:
        candidate = _candidate(world.snapshot.path, world.snapshot.id, folder / "model")
        found: dict[str, dict[str, object]] = {}
        for name in names:
            os.environ[FAULT] = name  # replica B is a process of its own
            incident = Incident("benchmarks.skewbench.chain", *(STOPPED if name == "writer_stopped" else ("", None)))
            week = Week(_asks(world, hours), folder / name, datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC))
            answer_week(
                world.snapshot.path / "bundle.json", f"sqlite:{folder / 'online.db'}", week, candidate, incident,
                lambda *_: None,
            )  # fmt: skip
            verdict = guard(folder / name, world.snapshot, POLICY, extra=(), counted=week.asks.num_rows).verdict
            found[name] = _told(name, verdict, world.bundle)
        return found
    finally:
        shutil.rmtree(folder)
        os.environ.pop(FAULT)
        if before is not None:
            os.environ[FAULT] = before


def _asks(world: World, hours: tuple[int, int]) -> pa.Table:
    """The requests of the day from one hour to another (UTC)."""
    from pipelines.score import asks_of

    day = asks_of(world.asks, DAY)
    hour = pc.hour(day["event_timestamp"])
    return day.filter(pc.and_(pc.greater_equal(hour, hours[0]), pc.less(hour, hours[1])))


def _told(name: str, verdict: Verdict, bundle: Bundle) -> dict[str, object]:
    from benchmarks.skewbench.attribution import allowed

    deciding = [f for f in verdict.findings if f.message in verdict.reasons]
    touched = READING[name].touched if name in READING else STOPPED[0]
    right = [f for f in deciding if f.feature in allowed(frozenset({touched}), bundle)]
    return {
        "ruling": str(verdict.ruling),
        "detected": bool(right) and name != "clean",
        "rows": max((f.rows for f in deciding), default=0),
        "of": verdict.coverage.rows,
        "cause": right[0].cause if right else "",
        "slices": list(right[0].slices) if right else [],
        "reason": verdict.reasons[0],
    }


def _candidate(snapshot: Path, snapshot_id: str, folder: Path) -> Candidate:
    """A model folder as MLflow's flavor writes it, of a small booster on some rows of the snapshot."""
    import skops.io
    from sklearn.ensemble import HistGradientBoostingClassifier

    from pipelines.train import Candidate
    from skewguard.model import FEATURES_KEY, FITTED_KEY, SNAPSHOT_KEY, model_digest
    from skewguard.snapshot import load_snapshot

    of = load_snapshot(snapshot)
    matrix, label = of.to_numpy("late")
    booster = HistGradientBoostingClassifier(max_iter=20, early_stopping=False, random_state=0)
    booster.fit(matrix[::20], label[::20])
    folder.mkdir(parents=True)
    skops.io.dump(booster, folder / "model.skops")
    keys = {FEATURES_KEY: list(of.bundle.vector), SNAPSHOT_KEY: of.id, FITTED_KEY: of.bundle.fitted_digest}
    described = {
        "flavors": {"sklearn": {"pickled_model": "model.skops", "serialization_format": "skops", "code": None}},
        "model_id": "m-" + "2" * 32,
        "metadata": keys,
    }
    (folder / "MLmodel").write_text(json.dumps(described))  # JSON is YAML
    return Candidate("m-" + "2" * 32, "", model_digest(folder), folder, snapshot_id, 0.0, 0.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the core set."""
    from benchmarks.skewbench.world import ROOT, alone, build

    parser = argparse.ArgumentParser(prog="python -m benchmarks.skewbench.chain", description=__doc__)
    parser.add_argument("--fault", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--root", type=Path, default=ROOT)
    arguments = parser.parse_args(argv)
    with alone(arguments.root):
        print(json.dumps(run(build(arguments.root), arguments.fault)))
    return 0


def _serve() -> None:
    """Replica B."""
    from skewguard.cli import serve_settings
    from skewguard.service import start

    broken = READING.get(os.environ[FAULT])
    settings = serve_settings(sys.argv[1:])
    if broken is None:
        start(settings)
    else:
        start(settings, wrap=lambda store, bundle: Reader(store, bundle, broken))


if __name__ == "__main__":
    if "--bundle" in sys.argv:
        _serve()
    else:
        sys.exit(main())
