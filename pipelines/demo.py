"""The whole loop on real flights, from an empty folder. `make demo` runs it.

sources -> feast apply -> validation -> snapshot (Jan-Sep) -> training -> a week of November answered over HTTP by
the candidate -> replay -> verdict -> registration; then the same week with two faults, and the registry refuses.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("FEAST_USAGE", "False")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # more would wait for each other on a busy machine

import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flights.asks import build_asks
from flights.sources import build_sources
from pipelines.guard import Gated, Target, guard_and_register
from pipelines.memory import PeakMemory
from pipelines.score import asks_of
from pipelines.shadow import Incident, Week, answer_week
from pipelines.train import held_out_from, train
from skewguard import report
from skewguard.definitions import load_bundle
from skewguard.errors import SkewguardError
from skewguard.findings import Finding
from skewguard.gate.keys import SigningKey, trust_key
from skewguard.policy import load_policy
from skewguard.snapshot import Snapshot, build_snapshot
from skewguard.verdict import Ruling, load_findings

SERVICE = "flight_delay"
MODEL = "flight-delay"
TRAINED_UNTIL = datetime(2013, 10, 1, tzinfo=UTC)
WEEK = date(2013, 11, 4)
DEPLOYED = datetime(2013, 11, 6, 14, 5, tzinfo=UTC)
STOPPED = (datetime(2013, 11, 7, 12, tzinfo=UTC), datetime(2013, 11, 7, 15, tzinfo=UTC))
CROSS_CHECK = 200
SOURCES = 6

_console = Console()


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything of one run lies, and the URIs of its registry."""

    root: Path
    store: str

    @property
    def sources(self) -> Path:
        return self.root / "sources"

    @property
    def bundle(self) -> Path:
        return self.root / f"{SERVICE}.bundle.json"

    @property
    def snapshot(self) -> Path:
        return self.root / "snapshot"

    @property
    def fitted(self) -> Path:
        """The bundle with its fitted values, which is what is served: it lies in the snapshot."""
        return self.snapshot / "bundle.json"

    @property
    def signing_key(self) -> Path:
        return self.root / "signing.pem"

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.root.resolve() / 'mlflow.db'}"


def run(root: Path, redis: str | None) -> int:
    """The demo; returns an exit code: 0 where the clean week passed and the skewed one was refused."""
    started = time.monotonic()
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    place = Place(root, redis or f"sqlite:{root / 'online.db'}")
    os.environ["SKEWGUARD_POLICY"] = "feature_repo/policy.toml"
    os.environ["SKEWGUARD_LEDGER"] = str(root / "ledger.jsonl")
    os.environ["SKEWGUARD_TRUSTED_KEYS"] = str(root / "trusted.json")
    trust_key(root / "trusted.json", SigningKey.new().save(place.signing_key), "the demo")
    with PeakMemory() as memory:
        snapshot, findings = _prepare(place)
        clean = _half(place, "clean", snapshot, findings, Incident(), learning_rate=0.1)
        incident = Incident("pipelines.faults", "weather", STOPPED)
        skewed = _half(place, "skewed", snapshot, findings, incident, learning_rate=0.08)
    summary = {
        "clean": {
            "ruling": clean.verdict.ruling,
            "rows": clean.verdict.coverage.rows,
            "lagged": clean.verdict.coverage.lagged,
            "mismatches": clean.verdict.coverage.mismatched,
            "unverifiable": clean.verdict.coverage.unverifiable,
            "registered_version": clean.version,
        },
        "skewed": {
            "ruling": skewed.verdict.ruling,
            "registered": skewed.version is not None,
            "refusal": skewed.refusal,
            "findings": [
                {"feature": f.feature.replace("__", "."), "kind": f.kind, "cause": f.cause, "rows": f.rows}
                for f in skewed.verdict.findings
                if f.message in skewed.verdict.reasons  # the rest stays within the policy's limits
            ],
        },
        "seconds": round(time.monotonic() - started, 1),
        "peak_mib": memory.mib,
        "online_store": "redis" if redis else "sqlite",
    }
    (root / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    _tell(place, clean, skewed, summary)
    passed = clean.verdict.ruling is Ruling.PASS and clean.version is not None
    return 0 if passed and skewed.verdict.ruling is Ruling.FAIL and skewed.version is None else 1


def _prepare(place: Place) -> tuple[Snapshot, list[Finding]]:
    """Sources, `feast apply`, the bundle, validation, the snapshot."""
    with _step("sources: a year of flights, weather, planes") as tell:
        files = count(1)
        build_sources(place.sources, progress=lambda *_: tell(next(files), SOURCES))
        build_asks(place.sources)
    with _step("feast apply, and the bundle"):
        _apply(place)
        bundle = load_bundle(place.bundle)
    with _step("Great Expectations on the sources"):
        findings = _validated(place, "--bundle", place.bundle, "sources")
    with _step("snapshot: point-in-time values, January to September") as tell:
        asks = pq.read_table(place.sources / "asks.parquet")
        known = asks.filter(pc.less(asks["event_timestamp"], TRAINED_UNTIL))
        snapshot = build_snapshot(
            bundle, known, place.snapshot, labels=["late"], id_column="flight_id", progress=tell,
            fit_before=held_out_from(known),
        )  # fmt: skip
    with _step("Great Expectations on the snapshot"):
        findings += _validated(place, "--snapshot", snapshot.path, "snapshot")
    return snapshot, findings


def _half(
    place: Place, name: str, snapshot: Snapshot, findings: list[Finding], incident: Incident, *, learning_rate: float
) -> Gated:
    """One candidate: trained, asked for a week, judged, and brought to the registry."""
    root = place.root / name
    with _step(f"{name}: training a candidate"):
        candidate = train(
            snapshot, root / "candidate.json", tracking_uri=place.tracking_uri, learning_rate=learning_rate
        )
    asks = asks_of(pq.read_table(place.sources / "asks.parquet"), WEEK, days=7)
    with _step(f"{name}: the candidate answers a week of November") as tell:
        week = Week(asks, root / "log", DEPLOYED)
        answer_week(place.fitted, place.store, week, candidate, incident, tell)
    _write_project(root)
    with _step(f"{name}: replay, verdict, gate"):
        return guard_and_register(
            root / "log", snapshot, Path(os.environ["SKEWGUARD_POLICY"]), candidate, Target(MODEL, place.tracking_uri),
            SigningKey.load(place.signing_key), out=root / "report", findings=findings, cross_check=CROSS_CHECK,
        )  # fmt: skip


# -- the steps' helpers -----------------------------------------------------------------------------------------------


@contextmanager
def _step(title: str) -> Iterator[Any]:
    """A progress bar; yields `tell(done, total)`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_console) as progress:
        task = progress.add_task(title, total=None)

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield tell
        total = progress.tasks[0].total
        progress.update(task, completed=total or 1, total=total or 1)


def _apply(place: Place) -> None:
    """Apply the plain Feast repository with its registry under the demo's folder, and compile the bundle from it."""
    root = place.root.resolve()
    settings = Path("feature_repo/feature_store.yaml").read_text()
    yaml = root / "feature_store.yaml"
    yaml.write_text(settings.replace("data/", f"{root}/feast/"))
    (root / "feast").mkdir()
    environment = os.environ | {"FLIGHTS_DATA": str(place.sources)}
    here = Path(sys.executable).parent
    _command([here / "feast", "-c", "feature_repo", "-f", yaml, "apply"], environment)
    flags = ["--repo", "feature_repo", "--feature-store-yaml", yaml, "--bundle", place.bundle]
    _command([sys.executable, "-m", "skewguard.cli", "bundle", SERVICE, *flags], environment)


def _validated(place: Place, flag: str, what: Path, name: str) -> list[Finding]:
    """Run the expectations in a process of their own: they need memory that the rest of the demo should not hold."""
    out = place.root / "expectations" / f"{name}.json"
    command = [sys.executable, "-m", "pipelines.validate", flag, what, "--out", out]
    done = _run(command, dict(os.environ))
    if not out.exists():
        raise SkewguardError(f"validation of {what} could not run:\n{done.stderr[-2000:]}")
    return load_findings(out)


def _command(command: Sequence[object], environment: dict[str, str]) -> None:
    done = _run(command, environment)
    if done.returncode:
        raise SkewguardError(f"{command[0]} failed with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _run(command: Sequence[object], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    arguments = [str(part) for part in command]
    return subprocess.run(arguments, check=False, capture_output=True, text=True, env=environment)  # noqa: S603  (our own)


def _write_project(root: Path) -> None:
    """A skewguard.toml beside the week's log, so that `skewguard explain` and `guard` need no flags."""
    policy = os.path.relpath(os.environ["SKEWGUARD_POLICY"], root)
    lines = [
        "[skewguard]", f'service = "{SERVICE}"', 'bundle = "../snapshot/bundle.json"', 'log = "log"',
        'snapshot = "../snapshot"', f'policy = "{policy}"', f'registered_name = "{MODEL}"',
    ]  # fmt: skip
    (root / "skewguard.toml").write_text("\n".join(lines) + "\n")


def _tell(place: Place, clean: Gated, skewed: Gated, summary: dict[str, Any]) -> None:
    """What happened, for people."""
    _console.rule("the clean week")
    _console.print(report.renderable(clean.verdict))
    promotion = " or ".join(load_policy(os.environ["SKEWGUARD_POLICY"]).promotion)
    _console.print(
        f"MLflow registered {MODEL} version {clean.version}, alias champion: its evidence is "
        f"{clean.verdict.subject.evidence}, and for an alias the policy's promotion asks for {promotion}."
        if clean.version
        else clean.refusal
    )
    _console.rule("the same week, with build B and a writer that stood still")
    _console.print(report.renderable(skewed.verdict))
    _console.print(f"MLflow refused: {skewed.refusal}" if skewed.refusal else "MLflow registered it.")
    _console.rule()
    requests = (e.request_id for f in skewed.verdict.findings for e in f.examples if e.request_id)
    example = next(requests, "REQUEST_ID")
    _console.print(f"card      {clean.card}/card.html among the artifacts of the run in MLflow")
    _console.print(f"reports   {place.root}/clean/report.html, {place.root}/skewed/report.html")
    _console.print(f"one row   .venv/bin/skewguard explain {example} --project {place.root}/skewed")
    _console.print(
        f"summary   {place.root}/summary.json ({summary['seconds']:.0f} s, peak {summary['peak_mib']:,} MiB)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    parser.add_argument(
        "--redis", metavar="URL", help="serve from this Redis instead of SQLite (redis://127.0.0.1:6379)"
    )
    arguments = parser.parse_args(argv)
    try:
        return run(arguments.out, arguments.redis)
    except SkewguardError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
