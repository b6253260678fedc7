"""Watch: every row once, an alert for what decides and one when it is over, and no silence about what it cannot see."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

from skewguard.cli import main
from skewguard.errors import SkewguardError
from skewguard.findings import Kind
from skewguard.servinglog import ServingLog, read_log, to_table
from skewguard.servinglog.compaction import compact
from skewguard.statistics import watched, watched_log10_e
from skewguard.values import Column
from skewguard.verdict import Ruling, Scope, Verdict
from skewguard.workflows.watch import Looked, Settings, Watch
from skewguard.workflows.watch.metrics import Endpoint
from skewguard.workflows.watch.tail import Place, Tail
from skewguard.workflows.watch.window import Detector, Hits
from tests.loop import POLICY, SERVICE, Fault, Loop, Store, changed, us

NOW = 1_709_600_000.0
"""After the day of traffic, in seconds."""

LOST, HURRY = 0, replace(POLICY, minimum_rows=1)


@pytest.fixture(scope="module")
def skewed(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The rows of a day on which build B read wind in km/h."""

    def faster(column: Column) -> Column:
        return Column.build(column.dtype, column.values * 1.609344, column.status)

    weather = next(view for view in loop.bundle.views if view.name == "weather")
    fault = Fault(store=lambda store, _: Store(store, read=changed(weather, "wind", faster)))
    return rows_of(loop.play(tmp_path_factory.mktemp("skewed"), fault))


def rows_of(log: Path) -> pa.Table:
    """The rows of a log, in order of time."""
    return to_table(read_log(log, SERVICE)).sort_by("event_timestamp")


def append(log: ServingLog, rows: pa.Table, *, one_by_one: bool = True) -> None:
    """Log some rows again."""
    for batch in rows.combine_chunks().to_batches(max_chunksize=1 if one_by_one else None):
        log.append(batch)


@dataclass
class Clock:
    """A clock that is moved by hand."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """A log that grows, and a watch over it that can be begun anew."""

    loop: Loop
    root: Path
    settings: Settings
    clock: Clock = field(default_factory=Clock)
    told: list[str] = field(default_factory=list)
    log: ServingLog | None = None

    def open(self) -> Watch:
        """A watch, or the next one over the same cursor."""
        return Watch(
            self.root / "log", self.loop.snapshot, HURRY, self.settings, tell=self.told.append, clock=self.clock
        )

    def grow(self, rows: pa.Table) -> None:
        """More rows in the log."""
        self.log = self.log or self.loop.open_log(self.root / "log")
        append(self.log, rows)

    def look(self, watch: Watch, later: float = 5.0) -> Looked:
        """The next look, some seconds later."""
        self.clock.now += later
        return watch.look()


@pytest.fixture
def world(loop: Loop, tmp_path: Path) -> Iterator[World]:
    """An empty world."""
    settings = Settings(since=LOST, cursor=tmp_path / "cursor.json", out=tmp_path / "verdict.json")
    world = World(loop, tmp_path, settings)
    yield world
    if world.log:
        world.log.close()


@dataclass
class Hook:
    """A webhook: what was posted; while `refuses`, nothing is taken."""

    url: str = ""
    refuses: bool = False
    posted: list[str] = field(default_factory=list)


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A webhook on this machine."""
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not hook.refuses:
                hook.posted.append(body["text"])
            self.send_response(503 if hook.refuses else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    hook.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    yield hook
    server.shutdown()
    server.server_close()


# -- the tail ---------------------------------------------------------------------------------------------------------


def test_every_row_is_read_once_over_restarts_sealing_and_compaction(loop: Loop, tmp_path: Path) -> None:
    """Two writers whose segments are sealed and compacted between looks, a reader that begins anew: all rows, once."""
    rows = rows_of(loop.clean_log)
    random = np.random.default_rng(5)
    schema = rows.schema
    found: list[str] = []
    places: dict[str, Place] = {}
    logs = [ServingLog(tmp_path, SERVICE, schema, loop.header(), segment_bytes=60_000) for _ in range(2)]
    for at in range(0, len(rows), 12):
        for number, log in enumerate(logs):
            append(log, rows.slice(at + 6 * number, 6), one_by_one=bool(random.integers(2)))
        if random.random() < 0.3:
            logs[0].seal()
        if random.random() < 0.3:
            compact(tmp_path, SERVICE, grace_seconds=0)
        if random.random() < 0.6:
            tail = Tail(tmp_path, SERVICE, json_places(places), LOST)
            found += ids_of(tail)
            places = dict(tail.places)
    for log in logs:
        log.close()
    compact(tmp_path, SERVICE)
    found += ids_of(Tail(tmp_path, SERVICE, json_places(places), LOST))
    assert sorted(found) == sorted(rows["id"].to_pylist())


def json_places(places: dict[str, Place]) -> dict[str, Place]:
    """Places as the cursor keeps them."""
    return {stem: Place(*place) for stem, place in json.loads(json.dumps(places)).items()}


def ids_of(tail: Tail) -> list[str]:
    """The ids of the rows of one look."""
    return [
        one
        for segment in tail.read().segments
        for block in segment.blocks()
        for one in block.column(block.schema.names.index("id")).to_pylist()
    ]


# -- the verdict ------------------------------------------------------------------------------------------------------


def test_a_healthy_log_is_judged_as_the_guard_judges_it(world: World, loop: Loop) -> None:
    """Look by look, the same ruling, coverage and findings as in one go; nothing is told; the file is the verdict."""
    rows = rows_of(loop.clean_log)
    with world.open() as watch:
        for at in range(0, len(rows), 60):
            world.grow(rows.slice(at, 60))
            looked = world.look(watch)
    whole = loop.guard(world.root / "log", HURRY).verdict
    ours = looked.verdict
    assert (ours.ruling, ours.findings) == (whole.ruling, whole.findings) == (Ruling.PASS, ())
    assert {one.own for one in whole.coverage.features} == {(("shadow", 180),)}
    in_sum = replace(whole.coverage, features=(), scope=Scope())  # feature by feature, the guard alone counts
    assert replace(ours.coverage, blind=()) == replace(in_sum, blind=())
    assert ours.subject.builds == whole.subject.builds
    assert world.told == []
    assert Verdict.from_json(json.loads((world.root / "verdict.json").read_text())) == ours


def test_what_decides_is_told_once_and_once_when_it_is_over(
    world: World, loop: Loop, skewed: pa.Table, hook: Hook
) -> None:
    """One message with cause and command, none at later looks or after a restart, one when it is over; then PASS."""
    clean = rows_of(loop.clean_log)
    world.settings = replace(world.settings, webhook=hook.url, calm=30.0)
    with world.open() as watch:
        world.grow(clean.slice(0, 10))
        assert world.look(watch).told == ()
        world.grow(skewed.slice(70, 50))
        looked = world.look(watch)
        assert looked.verdict.ruling is Ruling.FAIL
        (text,) = looked.told
        assert "weather.wind" in text
        assert "1.609" in text
        assert "skewguard explain r" in text
        world.grow(skewed.slice(120, 10))
        assert world.look(watch).told == ()
    with world.open() as watch:
        assert world.look(watch).told == ()
        assert 'skewguard_watch_finding{service="delay",kind="mismatch",feature="weather__wind"' in watch.metrics
        told: list[str] = []
        for at in range(130, 170, 8):
            world.grow(clean.slice(at, 8))
            told += world.look(watch, 10.0).told
        assert [text.partition("\n")[0].partition(", ")[0] for text in told] == ["skewguard watch delay: over"]
        world.grow(clean.slice(170, 10))
        assert world.look(watch).verdict.ruling is Ruling.PASS
        assert "skewguard_watch_finding{" not in watch.metrics
    assert hook.posted == [text, *told]
    assert world.told == hook.posted


def test_a_webhook_that_refuses_is_asked_again(world: World, skewed: pa.Table, hook: Hook) -> None:
    """A message waits, over a restart too, until it is taken."""
    world.settings = replace(world.settings, webhook=hook.url)
    hook.refuses = True
    world.grow(skewed)
    with world.open() as watch:
        assert world.look(watch).told
        assert "skewguard_watch_undelivered_messages" in watch.metrics
        assert any("did not take it" in text for text in world.told)
    hook.refuses = False
    with world.open() as watch:
        world.look(watch)
        assert len(hook.posted) == 1


@pytest.mark.parametrize("answer", [b"", b"what?\r\n\r\n"])
def test_what_is_no_webhook_stops_no_watch(
    world: World, skewed: pa.Table, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that never answers is left after its time, one that talks something else at once; the watch looks on."""
    monkeypatch.setattr("skewguard.gate.webhook._SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def talk() -> None:
            for _ in range(2):
                held.append(server.accept()[0])
                if answer:
                    held[-1].sendall(answer)

        threading.Thread(target=talk, daemon=True).start()
        world.settings = replace(world.settings, webhook=f"http://127.0.0.1:{server.getsockname()[1]}/hook")
        world.grow(skewed)
        with world.open() as watch:
            began = time.monotonic()
            assert world.look(watch).told
            assert world.look(watch).verdict.ruling is Ruling.FAIL
            assert metric(watch, "undelivered_messages") == 1
            assert time.monotonic() - began < 20
        assert any("did not take it" in text for text in world.told)
        for one in held:
            one.close()


def test_a_log_that_was_cut_off_is_said(world: World, loop: Loop) -> None:
    """A segment that is shorter than what was read of it has lost rows: UNKNOWN, and why."""
    world.grow(rows_of(loop.clean_log).slice(0, 40))
    with world.open() as watch:
        assert world.look(watch).verdict.ruling is Ruling.PASS
        assert world.log is not None
        world.log.close()
        world.log = None
        (segment,) = [path for path in (world.root / "log").rglob("*") if path.is_file() and path.stat().st_size > 2000]
        os.truncate(segment, 1000)
        verdict = world.look(watch).verdict
        assert verdict.ruling is Ruling.UNKNOWN
        assert any("its rows were cut off" in text for text in verdict.reasons)


def test_a_restart_counts_no_row_twice_and_loses_none(world: World, loop: Loop, skewed: pa.Table) -> None:
    """However often the watch begins anew, its window holds every row once."""
    for at in range(0, len(skewed), 45):
        world.grow(skewed.slice(at, 45))
        with world.open() as watch:
            looked = world.look(watch)
    whole = loop.guard(world.root / "log", HURRY).verdict
    assert (looked.verdict.coverage.rows, looked.verdict.coverage.mismatched) == (
        whole.coverage.rows,
        whole.coverage.mismatched,
    )
    assert len([text for text in world.told if "served values are not" in text]) >= 1


def test_a_window_ends_and_the_next_one_judges_on(world: World, loop: Loop) -> None:
    """The verdict is about the last half to whole window, after a restart as well."""
    rows = rows_of(loop.clean_log)
    world.settings = replace(world.settings, window=100.0)
    seen = []
    watch = world.open()
    for at in range(0, 150, 10):
        world.grow(rows.slice(at, 10))
        seen.append(world.look(watch, 10.0).verdict.coverage.rows)
    watch.__exit__(None, None, None)
    assert max(seen) <= 100
    assert min(seen[5:]) >= 40
    with world.open() as again:
        assert world.look(again, 0.0).verdict.coverage.rows == seen[-1]


def test_a_row_whose_source_row_is_not_there_yet_waits(loop: Loop, tmp_path: Path) -> None:
    """A store may be faster than the sources: no alarm within max_lag, and none when the row has come."""
    from tests.loop import build

    own = build(tmp_path / "own")
    path = Path(own.bundle.views[1].source.path)
    whole = pq.read_table(path)
    served = rows_of(loop.clean_log)
    served = served.filter(served["weather__created_ts"].is_valid())
    served = served.slice(len(served) - 1)
    named = served["weather__created_ts"][0].as_py()
    early = [known < named for known in whole["known"].to_pylist()]
    pq.write_table(whole.filter(pa.array(early)), path)
    asked = us(served["event_timestamp"][0].as_py()) / 1e6
    world = World(own, tmp_path, Settings(since=LOST, cursor=tmp_path / "cursor.json"), Clock(asked + 1))
    world.grow(served)
    with world.open() as watch:
        looked = world.look(watch, 0.0)
        assert (looked.rows, looked.told, looked.verdict.ruling) == (0, (), Ruling.UNKNOWN)
        assert 'skewguard_watch_waiting_rows{service="delay"} 1' in watch.metrics
        pq.write_table(whole, path)
        looked = world.look(watch, 61.0)
        assert (looked.rows, looked.verdict.coverage.equal + looked.verdict.coverage.lagged) == (1, 1)
        assert looked.verdict.ruling is Ruling.PASS
        assert world.told == []
    assert world.log is not None
    world.log.close()


# -- what cannot be seen ----------------------------------------------------------------------------------------------


def test_a_log_that_is_not_there_is_unknown_and_said_once(world: World, loop: Loop) -> None:
    """UNKNOWN while it cannot read, said once; the same when it can again."""
    with world.open() as watch:
        assert world.look(watch).verdict.ruling is Ruling.UNKNOWN
        assert world.look(watch).told == ()
        assert metric(watch, "failed_looks_total") == 2
        assert metric(watch, "last_success_timestamp_seconds") == 0
        world.grow(rows_of(loop.clean_log).slice(0, 20))
        looked = world.look(watch)
        assert looked.verdict.ruling is Ruling.PASS
        assert metric(watch, "last_look_timestamp_seconds") == pytest.approx(world.clock.now)
    assert ["cannot be judged" in text for text in world.told] == [True, False]
    assert "sees again" in world.told[-1]


def test_an_idle_log_is_unknown(world: World, loop: Loop) -> None:
    """No row for longer than `idle`: the verdict is UNKNOWN until one comes."""
    rows = rows_of(loop.clean_log)
    world.grow(rows.slice(0, 20))
    with world.open() as watch:
        assert world.look(watch).verdict.ruling is Ruling.PASS
        looked = world.look(watch, 301.0)
        assert looked.verdict.ruling is Ruling.UNKNOWN
        assert "does the service still log" in looked.told[0]
        world.grow(rows.slice(20, 20))
        assert world.look(watch).verdict.ruling is Ruling.PASS


def test_rows_of_other_definitions_are_a_doubt(world: World, loop: Loop) -> None:
    """They are not judged, and the verdict says so."""
    rows = rows_of(loop.clean_log)
    world.grow(rows.slice(0, 20))
    with loop.open_log(world.root / "log", bundle_digest="f" * 64) as other:
        append(other, rows.slice(20, 20))
    with world.open() as watch:
        looked = world.look(watch)
    assert (looked.verdict.ruling, looked.verdict.coverage.rows) == (Ruling.UNKNOWN, 20)
    assert any("under other definitions" in reason for reason in looked.verdict.reasons)


def test_a_cursor_of_another_watch_is_refused(world: World) -> None:
    """As is one that cannot be read; both say what to do."""
    world.root.joinpath("cursor.json").write_text("{}")
    with pytest.raises(SkewguardError, match="expected the cursor of a watch"):
        world.open()
    world.root.joinpath("cursor.json").unlink()
    with world.open() as watch:
        world.look(watch)
    (world.root / "elsewhere").mkdir()
    with pytest.raises(SkewguardError, match="Name another --cursor"):
        Watch(world.root / "elsewhere", world.loop.snapshot, HURRY, world.settings)


# -- statistics and metrics -------------------------------------------------------------------------------------------


def test_chance_is_no_alarm_and_a_change_is_one_soon() -> None:
    """Rows that break a rule as often as declared never stand; ten times as often they do soon."""
    random = np.random.default_rng(3)
    highest = -np.inf
    state = watched(None, 0, 250, 0.001)
    for _ in range(2000):
        state = watched(state, int(random.binomial(250, 0.001)), 250, 0.001)
        highest = max(highest, watched_log10_e(state, 2000))
    assert highest < 1.3
    looks = 0
    while watched_log10_e(state, 2000) < 3:
        state = watched(state, int(random.binomial(250, 0.01)), 250, 0.001)
        looks += 1
    assert looks <= 8


def test_evidence_is_carried_over_a_restart(world: World, loop: Loop) -> None:
    """What a rule's bets have won stands in the cursor of a window that began after it, and goes on from there."""
    rows = rows_of(loop.clean_log)
    world.settings = replace(world.settings, window=20.0)
    with world.open() as watch:
        watch._detector.add({"constraint:x:-": Hits(4, 1000, 0.001)}, 1000)
        for at in range(0, 50, 10):
            world.grow(rows.slice(at, 10))
            world.look(watch, 10.0)
        before = watch._windows[0].mark.evidence["constraint:x:-"]
    with world.open() as again:
        assert again._detector.state["constraint:x:-"].tolist() == before.tolist()
        assert again._detector.benign == {"constraint:x:-": 0.001}
        world.look(again)


def test_a_detector_forgets() -> None:
    """After that a finding begins anew, and one of a rule without exceptions is not its own."""
    detector = Detector(1000)
    detector.add({"a": Hits(40, 100, 0.001), "b": Hits(40, 100, 0.0)}, 100)
    assert list(detector.state) == ["a"]
    detector.forget("a")
    assert detector.state == {}


def metric(watch: Watch, name: str) -> float:
    """The one sample of a metric."""
    families = {
        sample.name: sample.value for one in text_string_to_metric_families(watch.metrics) for sample in one.samples
    }
    return float(families[f"skewguard_watch_{name}"])


def test_metrics_are_what_prometheus_reads(world: World, skewed: pa.Table) -> None:
    """Text that its parser takes, from a small server and nowhere else."""
    world.grow(skewed)
    with world.open() as watch:
        world.look(watch)
        text = watch.metrics
    rows = {
        sample.labels["state"]: sample.value
        for one in text_string_to_metric_families(text)
        for sample in one.samples
        if sample.name == "skewguard_watch_rows_total"
    }
    assert sum(rows.values()) == len(skewed)
    endpoint = Endpoint("127.0.0.1", 0)
    endpoint.text = text
    with closing(endpoint):
        with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics") as answer:
            assert answer.read().decode() == text
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/")


def test_the_command_looks_once_and_exits_as_the_guard_does(
    world: World, loop: Loop, skewed: pa.Table, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """3 without a log, 0 for a healthy one, 1 for a broken one; metrics and verdict are in their files."""
    monkeypatch.chdir(world.root)
    (world.root / "policy.toml").write_text('[policy]\ngoverns = ["delay-*"]\nminimum_rows = 10\n')
    given = ["--log", "log", "--snapshot", str(loop.snapshot.path), "--policy", "policy.toml"]
    given += ["--since", "2024-03-01T00:00Z", "--once", "--out", "verdict.json", "--textfile", "watch.prom"]
    assert main(["watch", *given]) == 3
    world.grow(rows_of(loop.clean_log))
    assert main(["watch", *given]) == 0
    capsys.readouterr()
    with loop.open_log(world.root / "broken") as log:
        append(log, skewed)
    given[1] = "broken"
    assert main(["watch", *given, "--cursor", "other.json", "--json"]) == 1
    shown = Verdict.from_json(json.loads(capsys.readouterr().out))
    assert Verdict.from_json(json.loads((world.root / "verdict.json").read_text())) == shown
    assert {one.kind for one in shown.findings} >= {Kind.MISMATCH}
    assert 'ruling="FAIL"} 1' in (world.root / "watch.prom").read_text()
    assert main(["watch", *given, "--webhook", "slack"]) == 2
    assert main(["watch", *given, "--rounds", "0"]) == 2
