"""The guard, asked as a user would ask it: a log on the disk, a snapshot, a policy."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.skewbench.faults.case import Case, take
from benchmarks.skewbench.world import Window, World, scratch
from skewguard.answer import Served, schema, to_batch
from skewguard.audit import audit
from skewguard.findings import Finding
from skewguard.offline import OfflineStore
from skewguard.policy import Policy
from skewguard.servinglog import ServingLog
from skewguard.snapshot import Snapshot
from skewguard.transforms import numeric_class
from skewguard.values import Array
from skewguard.verdict import Ruling, Verdict
from skewguard.workflows.guard import guard
from skewguard.workflows.outcomes import import_outcomes

POLICY = Policy(governs=("*",), minimum_rows=100, maximum_unverifiable=0.01)
_APPEND = 1000


@dataclass(frozen=True)
class Held:
    """Sources that stay open between two questions: reading them is what `speed.py` measures, once."""

    offline: OfflineStore
    name: str = "the sources, read once"

    def open(self, snapshot: Snapshot, span: object) -> AbstractContextManager[OfflineStore]:  # noqa: ARG002
        """The open store."""

        @contextmanager
        def held() -> Iterator[OfflineStore]:
            yield self.offline

        return held()


@dataclass(frozen=True)
class Judged:
    """What the guard said, and how long it took."""

    verdict: Verdict
    seconds: float

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """The findings that decided."""
        if self.verdict.ruling is not Ruling.FAIL:
            return ()
        return tuple(f for f in self.verdict.findings if f.message in self.verdict.reasons)


def judged(case: Case, root: Path) -> Judged:
    """The guard's verdict on what was logged."""
    folder = scratch(root)
    try:
        write_log(case.window.world, case.served, case.labels, folder / "log")
        outcomes = _outcomes(case, folder / "outcomes")
        snapshot = case.snapshot or case.window.world.snapshot
        found = audit(case.trained_on) if case.trained_on else []
        began = time.perf_counter()
        verdict = guard(
            folder / "log", snapshot, POLICY, model=case.window.world.model, extra=found,
            outcomes=outcomes, counted=case.answered, sources=Held(case.offline or case.window.world.offline),
        ).verdict  # fmt: skip
        return Judged(verdict, time.perf_counter() - began)
    finally:
        shutil.rmtree(folder)


def clean(window: Window) -> Case:
    """The window as it is."""
    return Case(window, window.served)


def write_log(world: World, served: Served, labels: Mapping[str, Array], root: Path) -> None:
    """One log for each build and host, as each process writes its own."""
    n = len(served.spine)
    names = sorted(labels)
    whose = np.array(["\0".join(str(labels[name][i]) for name in names) for i in range(n)], dtype=object)
    flat = schema(world.bundle)
    for one in sorted(set(whose.tolist())):
        rows = np.flatnonzero(whose == one)
        own = dict(zip(names, one.split("\0"), strict=True)) if names else {}
        with ServingLog(root, world.bundle.service, flat, _header(world) | own) as log:
            for at in range(0, len(rows), _APPEND):
                log.append(to_batch(world.bundle, take(served, rows[at : at + _APPEND]), flat))


def _header(world: World) -> dict[str, str]:
    return {
        "build": "A",
        "host": "web-1",
        "evidence": "production",
        "bundle_digest": world.bundle.digest,
        "snapshot_id": world.snapshot.id,
        "numeric_class": numeric_class(),
        "model_id": world.model.model_id,
        "model_digest": world.model.digest,
    }


def _outcomes(case: Case, folder: Path) -> Path:
    """What became of the requests, as far as it is known: of cancelled flights it never is."""
    asks = case.window.asks
    outcome = asks["late"] if case.outcome is None else pa.array(case.outcome, mask=np.asarray(asks["late"].is_null()))
    known = pa.table({"id": asks["flight_id"], "late": outcome, "at": asks["event_timestamp"]})
    import_outcomes(known, folder, id_column="id", outcome="late", as_of="at")
    return folder
