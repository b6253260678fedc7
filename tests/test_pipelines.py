import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

import pipelines.guard
import pipelines.score
import pipelines.train
from pipelines import demo, shadow
from pipelines.faults import KMH_PER_MPH, MetricWeather
from pipelines.guard import Gated, Target, guard_and_register
from pipelines.memory import PeakMemory
from pipelines.score import asks_of, score_day
from pipelines.shadow import Incident, Server, Week, answer_week
from pipelines.train import Candidate, load_candidate, train
from skewguard.answer import schema
from skewguard.definitions import Bundle, load_bundle
from skewguard.errors import SkewguardError
from skewguard.gate.keys import SigningKey, trust_key
from skewguard.model import load_model
from skewguard.offline import OfflineStore
from skewguard.online import Lookup, OnlineStore, open_store
from skewguard.policy import Policy
from skewguard.service import create_app
from skewguard.servinglog import ServingLog, read_log
from skewguard.spine import read_spine
from skewguard.transforms import numeric_class
from skewguard.verdict import Coverage, Ruling, Subject, Verdict
from skewguard.workflows.guard import guard
from tests.loop import POLICY, PROJECT, SERVICE, Loop, Store, asks_between, at, logged, us

GOVERNED = '[policy]\ngoverns = ["delay-*"]\nminimum_rows = 50\npromotion = ["shadow"]\n'


def _named(asks: pa.Table) -> pa.Table:
    """Asks under the names that the example's files use."""
    return asks.rename_columns(["flight_id" if name == "id" else name for name in asks.column_names])


# -- asks of a day ----------------------------------------------------------------------------------------------------


def test_a_day_begins_and_ends_at_midnight_utc() -> None:
    """The first microsecond of the day is in, the first of the next is not; several days follow each other."""
    midnight = datetime(2024, 3, 4, tzinfo=UTC)
    step = timedelta(microseconds=1)
    times = [midnight - step, midnight, midnight + timedelta(days=1) - step, midnight + timedelta(days=1)]
    asks = pa.table({"event_timestamp": pa.array(times, pa.timestamp("us", tz="UTC"))})
    assert asks_of(asks, date(2024, 3, 4))["event_timestamp"].to_pylist() == times[1:3]
    assert asks_of(asks, date(2024, 3, 3), days=2)["event_timestamp"].to_pylist() == times[:3]
    assert len(asks_of(asks, date(2024, 3, 6))) == 0


# -- training and the gate --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow store in one SQLite file; what was set before is put back."""
    before = mlflow.get_tracking_uri()
    yield f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def candidate(loop: Loop, tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A model that was trained on the world's snapshot and logged, and is registered nowhere."""
    out = tmp_path_factory.mktemp("train") / "candidate.json"
    made = train(loop.snapshot, out, tracking_uri=tracking_uri, experiment="loop")
    assert load_candidate(out) == made
    return made


def test_training_logs_a_model_that_the_service_can_load(loop: Loop, candidate: Candidate, tracking_uri: str) -> None:
    """The native folder holds exactly the logged model, with its features and its snapshot; nothing is registered."""
    model = load_model(candidate.folder, expected_digest=candidate.digest)
    assert (model.features, model.snapshot_id) == (loop.bundle.vector, loop.snapshot.id)
    assert (model.model_id, candidate.snapshot_id) == (candidate.model_id, loop.snapshot.id)
    client = mlflow.MlflowClient(tracking_uri)
    run = client.get_run(candidate.run_id)
    assert run.data.tags["skewguard.snapshot"] == loop.snapshot.id
    assert run.data.metrics["auc"] == candidate.auc
    assert 0.4 < candidate.auc <= 1.0
    assert candidate.log_loss > 0
    assert client.search_registered_models() == []


def test_training_holds_the_last_tenth_out(loop: Loop, candidate: Candidate, tracking_uri: str) -> None:
    """The model is judged on the last tenth in time, which it has not seen."""
    run = mlflow.MlflowClient(tracking_uri).get_run(candidate.run_id)
    _, labels = loop.snapshot.to_numpy("late")
    assert int(run.data.params["rows"]) == int(len(labels) * 0.9)
    model = load_model(candidate.folder)
    matrix, _ = loop.snapshot.to_numpy("late")
    tail = model.predict(matrix[int(len(labels) * 0.9) :])
    loss = -np.where(labels[int(len(labels) * 0.9) :], np.log(tail), np.log(1 - tail)).mean()
    assert loss == pytest.approx(candidate.log_loss)


class InProcess:
    """Stands in for a replica: the same application, without a process of its own."""

    started: ClassVar[list[tuple[str, str]]] = []

    def __init__(self, module: str, build: str, bundle: Path, store: str, log: Path, candidate: Candidate) -> None:
        self.started.append((module, build))
        loaded = load_bundle(bundle)
        model = load_model(candidate.folder, expected_digest=candidate.digest)
        header = {
            "build": build, "host": "here", "evidence": "shadow", "bundle_digest": loaded.digest,
            "model_id": model.model_id, "model_digest": model.digest, "snapshot_id": model.snapshot_id,
            "numeric_class": numeric_class(),
        }  # fmt: skip
        self.log = ServingLog(log, loaded.service, schema(loaded), header)
        opened: OnlineStore = open_store(store)
        if module == "pipelines.faults":
            opened = Store(opened, look=lambda key: key.replace(b"JFK", b"EWR"))
        self.client = TestClient(create_app(loaded, Lookup(loaded, opened), self.log, model, accept_as_of=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.log.close()

    def wait(self) -> None:
        """Ready at once."""

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request that must be answered."""
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()
        return data


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> type[InProcess]:
    """Replicas in this process."""
    monkeypatch.setattr(InProcess, "started", [])
    monkeypatch.setattr(shadow, "Server", InProcess)
    return InProcess


def _week(loop: Loop, root: Path) -> Week:
    return Week(_named(loop.asks.slice(30, 90)), root / "log", at(10))


@pytest.mark.usefixtures("in_process")
def test_a_candidate_is_registered_after_a_clean_shadow_and_refused_after_a_skewed_one(
    loop: Loop, candidate: Candidate, tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate takes the model whose shadow passed, with alias, verdict and reports, and refuses after a skewed one."""
    policy = tmp_path / "policy.toml"
    policy.write_text(GOVERNED)
    monkeypatch.setenv("SKEWGUARD_POLICY", str(policy))
    key = SigningKey.new()
    trust_key(tmp_path / "trusted.json", key.save(tmp_path / "signing.pem"))
    told: list[tuple[int, int]] = []
    gated = {}
    for name, incident in (("skewed", Incident("pipelines.faults")), ("clean", Incident())):
        root = tmp_path / name
        store = f"sqlite:{root / 'online.db'}"
        week = _week(loop, root)
        rows = answer_week(loop.bundle_path, store, week, candidate, incident, lambda *at: told.append(at))
        assert rows == 90
        target = Target("delay-model", tracking_uri)
        gated[name] = guard_and_register(
            week.log, loop.snapshot, policy, candidate, target, key, out=root / "report", cross_check=10
        )
        verdict = Verdict.from_json(json.loads((root / "report.json").read_text()))
        assert verdict == gated[name].verdict
        assert "delay-model" in (root / "report.html").read_text()
    assert told[-1] == (90, 90)
    skewed, clean = gated["skewed"], gated["clean"]
    assert (skewed.verdict.ruling, skewed.version) == (Ruling.FAIL, None)
    assert "its verdict is FAIL" in skewed.refusal
    assert (clean.verdict.ruling, clean.version, clean.refusal) == (Ruling.PASS, "1", "")
    client = mlflow.MlflowClient(tracking_uri)
    assert str(client.get_model_version_by_alias("delay-model", "champion").version) == "1"
    assert (skewed.card, clean.card) == ("", "skewguard/card/delay-model-1")
    card = Path(client.download_artifacts(candidate.run_id, f"{clean.card}/card.md")).read_text()
    assert "# Model card: delay-model, version 1" in card
    assert "nobody said until when" not in card


def test_asks_go_out_in_time_order_to_two_replicas_and_build_b_from_its_deployment(
    loop: Loop, candidate: Candidate, tmp_path: Path, in_process: type[InProcess]
) -> None:
    """Whatever their order in the table, asks are sent by instant; build B takes the second replica's place in time."""
    week = _week(loop, tmp_path)
    shuffled = replace(week, asks=week.asks.take(np.random.default_rng(0).permutation(len(week.asks))))
    answer_week(loop.bundle_path, f"sqlite:{tmp_path / 'o.db'}", shuffled, candidate, Incident(), lambda *_: None)
    assert in_process.started == [("serving", "A"), ("serving", "A"), ("serving", "B")]
    segments = read_log(week.log, SERVICE).segments
    rows = {(s.header["build"], i): [b["id"][0].as_py() for b in s.batches()] for i, s in enumerate(segments)}
    assert all(ids == sorted(ids) for ids in rows.values())
    (of_b,) = [ids for (build, _), ids in rows.items() if build == "B"]
    times = dict(zip(week.asks["flight_id"].to_pylist(), week.asks["event_timestamp"].to_pylist(), strict=True))
    assert min(times[one] for one in of_b) >= at(10)
    assert len(of_b) == sum(time >= at(10) for time in times.values()) // 2
    assert sorted(one for ids in rows.values() for one in ids) == sorted(times)


def test_the_clock_of_the_writer_is_the_last_full_minute_before_the_request(
    loop: Loop, candidate: Candidate, tmp_path: Path, in_process: type[InProcess]
) -> None:
    """Before a request at t all rows known by the last full minute are written, and the log says so per view."""
    assert in_process
    week = _week(loop, tmp_path)
    incident = Incident(stopped_view="weather", stopped=(at(11), at(12)))
    answer_week(loop.bundle_path, f"sqlite:{tmp_path / 'o.db'}", week, candidate, incident, lambda *_: None)
    for row in logged(week.log):
        minute = row["event_timestamp"].replace(second=0)
        assert row["plane__watermark"] == minute
        stopped = at(11) <= minute < at(12)
        assert row["weather__watermark"] == (at(11) if stopped else minute)


def test_a_request_on_the_full_minute_sees_the_minute_before(loop: Loop, tmp_path: Path) -> None:
    """A row that is written at t is not there for a request at t: the writer's minute lies strictly before."""
    store = open_store(f"sqlite:{tmp_path / 'o.db'}")
    with OfflineStore(loop.bundle.views) as offline:
        writer = shadow._Writer(loop.bundle, offline, store, Incident(), us(at(0)))
        marks = []
        for now in (us(at(6)), us(at(6)) + 1):
            writer.follow(now)
            spine = read_spine(loop.asks.slice(0, 1), loop.bundle.keys, {r.name: r.dtype for r in loop.bundle.request})
            marks.append(int(Lookup(loop.bundle, store).answer(spine)["weather"].watermark[0]))
    assert marks == [us(at(6)) - 60_000_000, us(at(6))]


def test_a_replica_that_does_not_start_is_told(loop: Loop, candidate: Candidate, tmp_path: Path) -> None:
    """The shadow does not wait for a server that has ended, and leaves no process behind."""
    with Server("serving", "A", tmp_path / "none.json", loop.store_url, tmp_path / "log", candidate) as server:
        began = time.monotonic()
        with pytest.raises(SkewguardError, match=r"the server on port \d+ ended with exit code 2"):
            server.wait()
        assert time.monotonic() - began < 60
    assert server._process.returncode == 2


# -- faults -----------------------------------------------------------------------------------------------------------


def test_build_b_reads_wind_in_kilometres_and_nothing_else(loop: Loop) -> None:
    """The example's fault changes one feature of one view; times, nulls, other views and watermarks stay."""
    plane, weather = loop.bundle.views
    renamed = tuple(replace(f, name="wind_speed") if f.name == "wind" else f for f in weather.features)
    bundle: Bundle = replace(
        loop.bundle, project="faults", views=(plane, replace(weather, features=renamed)), derived=(), outputs=()
    )
    url = f"sqlite:{loop.root / 'faults.db'}"
    loop.materialize(url, at(12), bundle)
    spine = read_spine(loop.asks, bundle.keys, {}, id_column="id")
    plain = Lookup(bundle, open_store(url)).answer(spine)
    metric = Lookup(bundle, MetricWeather(open_store(url), bundle)).answer(spine)
    wind = plain["weather"].features["wind_speed"]
    assert metric["weather"].features["wind_speed"].values[wind.present] == pytest.approx(
        wind.values[wind.present] * KMH_PER_MPH
    )
    for view in ("plane", "weather"):
        for times in ("status", "event", "created", "watermark"):
            assert getattr(plain[view], times).tolist() == getattr(metric[view], times).tolist()
        for name, column in plain[view].features.items():
            assert column.status.tolist() == metric[view].features[name].status.tolist()
            if name != "wind_speed":
                assert column.to_arrow().equals(metric[view].features[name].to_arrow())
    assert bundle.project != PROJECT


# -- batch scoring ----------------------------------------------------------------------------------------------------


def test_a_days_batch_is_logged_as_such_and_proves_nothing_about_serving(
    loop: Loop, candidate: Candidate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The day's asks are predicted and logged as evidence of kind 'batch', which no policy takes for serving."""
    asks = _named(pa.concat_tables([loop.asks, asks_between(at(30), timedelta(hours=4), 20)]))
    pq.write_table(asks, tmp_path / "asks.parquet")
    (tmp_path / "candidate.json").write_text(json.dumps(_plain(candidate)))
    flags = {
        "--bundle": loop.bundle_path, "--asks": tmp_path / "asks.parquet", "--day": "2024-03-04",
        "--candidate": tmp_path / "candidate.json", "--log": tmp_path / "log", "--out": tmp_path / "out.parquet",
    }  # fmt: skip
    assert pipelines.score.main([str(x) for flag in flags.items() for x in flag]) == 0
    assert "180 predictions" in capsys.readouterr().out
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == loop.asks["id"].to_pylist()
    (segment,) = read_log(tmp_path / "log", SERVICE).segments
    assert (segment.header["evidence"], segment.header["model_digest"]) == ("batch", candidate.digest)
    judged = guard(tmp_path / "log", loop.snapshot, POLICY).verdict
    assert (judged.ruling, judged.coverage.equal) == (Ruling.UNKNOWN, 180)


def _plain(candidate: Candidate) -> dict[str, Any]:
    return asdict(candidate) | {"folder": str(candidate.folder)}


def test_scoring_wants_exactly_the_candidates_model(loop: Loop, candidate: Candidate, tmp_path: Path) -> None:
    """A folder that is no longer the judged model scores nothing."""
    pq.write_table(_named(loop.asks), tmp_path / "asks.parquet")
    other = replace(candidate, digest="0" * 64)
    with pytest.raises(SkewguardError, match="expected the model with digest 0000"):
        score_day(loop.bundle, tmp_path / "asks.parquet", date(2024, 3, 4), other, tmp_path / "log", tmp_path / "o")
    assert not (tmp_path / "log").exists()


# -- commands ---------------------------------------------------------------------------------------------------------


def test_the_guards_command_exits_with_0_1_and_2(
    loop: Loop, candidate: Candidate, tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Registered is 0, refused is 1, and what could not be run is 2 with one sentence: no traceback that reads as 1."""
    results = iter([Gated(_verdict(Ruling.PASS), "3", ""), Gated(_verdict(Ruling.FAIL), None, "refused: skewed")])
    monkeypatch.setattr(pipelines.guard, "guard_and_register", lambda *_, **__: next(results))
    (tmp_path / "candidate.json").write_text(json.dumps(_plain(candidate)))
    flags = {
        "--log": loop.clean_log, "--snapshot": loop.snapshot.path, "--policy": tmp_path / "policy.toml",
        "--candidate": tmp_path / "candidate.json", "--tracking-uri": tracking_uri, "--out": tmp_path / "report",
        "--key": tmp_path / "signing.pem",
    }  # fmt: skip
    SigningKey.new().save(tmp_path / "signing.pem")

    def run(**more: object) -> tuple[int, str, str]:
        given = flags | {f"--{name}": value for name, value in more.items()}
        code = pipelines.guard.main([str(x) for flag in given.items() for x in flag])
        return (code, *capsys.readouterr())

    code, out, _ = run()
    assert code == 0
    assert "registered as version 3" in out
    code, out, _ = run()
    assert code == 1
    assert "refused: skewed" in out
    for name in ("snapshot", "candidate"):
        code, _, err = run(**{name: tmp_path / "nowhere"})
        assert code == 2
        assert "nowhere" in err
        assert "Traceback" not in err


def _verdict(ruling: Ruling) -> Verdict:
    instant = "2026-11-21T00:00:00+00:00"
    return Verdict(ruling, ("so it is",), Subject(), Coverage(rows=1), (), (), "", instant, instant)


def test_training_and_scoring_that_cannot_run_exit_with_2(
    loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing snapshot, bundle or candidate is exit code 2 and one sentence."""
    flags = ["--snapshot", str(tmp_path / "nowhere"), "--out", str(tmp_path / "c.json"), "--tracking-uri", "sqlite://"]
    assert pipelines.train.main(flags) == 2
    assert "nowhere: expected a snapshot folder" in capsys.readouterr().err
    flags = ["--bundle", str(loop.bundle_path), "--asks", "x", "--day", "2024-03-04", "--candidate", "nowhere.json"]
    assert pipelines.score.main([*flags, "--log", "l", "--out", "o"]) == 2
    assert "nowhere.json" in capsys.readouterr().err


# -- the demo ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clean", "skewed", "code"),
    [
        ((Ruling.PASS, "1"), (Ruling.FAIL, None), 0),
        ((Ruling.PASS, "1"), (Ruling.PASS, "2"), 1),
        ((Ruling.PASS, "1"), (Ruling.UNKNOWN, None), 1),
        ((Ruling.PASS, "1"), (Ruling.FAIL, "2"), 1),
        ((Ruling.FAIL, None), (Ruling.FAIL, None), 1),
        ((Ruling.PASS, None), (Ruling.FAIL, None), 1),
    ],
)
def test_the_demo_succeeds_only_where_the_clean_week_passes_and_the_skewed_one_fails(
    loop: Loop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clean: tuple[Ruling, str | None],
    skewed: tuple[Ruling, str | None],
    code: int,
) -> None:
    """With a guard that finds nothing the skewed week passes, and the demo itself fails: it cannot run without one."""
    halves = iter([Gated(_verdict(ruling), version, "no") for ruling, version in (clean, skewed)])
    monkeypatch.setattr(demo, "_prepare", lambda _: (loop.snapshot, []))
    monkeypatch.setattr(demo, "_half", lambda *_, **__: next(halves))
    monkeypatch.setattr(demo, "_tell", lambda *_: None)
    monkeypatch.setenv("SKEWGUARD_POLICY", "")
    assert demo.run(tmp_path / "demo", None) == code
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert summary["clean"]["ruling"] == clean[0]
    assert summary["clean"]["registered_version"] == clean[1]
    assert summary["skewed"]["registered"] is (skewed[1] is not None)
    assert summary["online_store"] == "sqlite"
    assert summary["seconds"] >= 0
    assert Policy(governs=()).digest == ""


def test_a_demo_that_cannot_run_exits_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error on the way is one sentence."""

    def broken(*_: object) -> int:
        raise SkewguardError("feast failed with 1")

    monkeypatch.setattr(demo, "run", broken)
    assert demo.main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "demo: feast failed with 1\n"


def test_the_peak_counts_memory_that_was_given_back() -> None:
    """What was held for half a second is in the peak although it is gone at the end."""
    with PeakMemory() as memory:
        held = np.ones(40_000_000)  # 305 MiB
        time.sleep(0.5)
        assert held[0] == 1
        del held
        time.sleep(0.3)
    assert memory.mib > 305
