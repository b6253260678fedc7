import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from skewguard.cli import main
from skewguard.errors import AskError, DefinitionError, LogError, ModelError
from skewguard.model import Model
from skewguard.online import Layout, Lookup, OnlineStore, open_store, pack
from skewguard.online.keys import layout_key, row_key
from skewguard.online.redis import RedisStore
from skewguard.service import Settings, create_app, parse_ask, start
from skewguard.servinglog import read_log
from skewguard.values import Column, Dtype, Status
from tests.conftest import _free_port, _redis_server, _wait_until_it_answers
from tests.loop import (
    PROJECT,
    SERVICE,
    Loop,
    NoStore,
    Store,
    asks_between,
    at,
    entities,
    logged,
    other_code,
    save_model,
    us,
)
from tests.servers import NOON, OK, Client, Server


@pytest.fixture(scope="module")
def shared(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A client for requests that leave nothing behind."""
    return Client(loop, tmp_path_factory.mktemp("log"))


@pytest.fixture
def client(loop: Loop, tmp_path: Path) -> Client:
    """A client whose log is empty."""
    return Client(loop, tmp_path / "log")


# -- answers ---------------------------------------------------------------------------------------------------------


def test_features_are_answered_with_the_status_of_each(client: Client) -> None:
    """The body holds every output of the service, null where its status says why, and the instant it holds for."""
    answer = client.ask(request_id="r1", entities=OK | {"origin": "LGA", "tail": None}).json()
    assert (answer["request_id"], answer["service"], answer["as_of"]) == ("r1", SERVICE, NOON)
    assert answer["features"] == {
        "plane__maker": None, "plane__seats": None, "plane__thrust": None, "weather__gust": None, "weather__wind": None,
        "derived__gust_ratio": None, "derived__maker_code": None, "derived__per_stop": 472.25,
    }  # fmt: skip
    assert answer["statuses"] == {
        "plane__maker": "not_found", "plane__seats": "not_found", "plane__thrust": "not_found",
        "weather__gust": "expired", "weather__wind": "expired", "derived__gust_ratio": "expired",
        "derived__maker_code": "not_found", "derived__per_stop": "present",
    }  # fmt: skip


def test_a_prediction_names_its_model_and_what_was_missing(loop: Loop, client: Client) -> None:
    """The probability is the model's for the logged vector; the model and what it lacked are named beside it."""
    answer = client.ask("predict", entities=OK | {"tail": "N10"}).json()
    (row,) = logged(client.root)
    assert answer["prediction"] == row["prediction"] == loop.model.predict(np.array([row["vector"]]))[0]
    assert (answer["model_id"], answer["model_digest"]) == (loop.model.model_id, loop.model.digest)
    assert answer["missing"].items() >= {"plane__seats": "not_found", "plane__thrust": "not_found"}.items()
    assert "weather__wind" not in answer["missing"]


def test_a_request_without_an_id_gets_one_that_is_logged(client: Client) -> None:
    """The answer's request id leads to its row."""
    ids = [client.ask().json()["request_id"] for _ in range(2)]
    assert [row["id"] for row in logged(client.root)] == ids
    assert len(set(ids)) == 2


def test_without_an_instant_the_servers_clock_counts(loop: Loop, tmp_path: Path) -> None:
    """Where no as_of is given, or null, the request is answered and logged as of the server's own clock."""
    client = Client(loop, tmp_path, clock=lambda: us(at(12)) + 7, accept_as_of=False)
    assert client.ask(as_of=None).json()["as_of"] == "2024-03-04T12:00:00.000007Z"
    (row,) = logged(client.root)
    assert us(row["event_timestamp"]) == us(at(12)) + 7


def test_an_instant_with_another_offset_is_the_same_instant(client: Client) -> None:
    """Offsets of as_of and of request fields are read, and the log holds UTC."""
    answer = client.ask(as_of="2024-03-04T07:00:30-05:00", entities=OK | {"scheduled": "2024-03-04T14:00:00+01:00"})
    assert answer.json()["as_of"] == NOON
    assert us(logged(client.root)[0]["q__scheduled"]) == us(at(13))


def test_null_means_unknown_and_is_allowed(client: Client) -> None:
    """A key or request field that is null is 'unknown': answered, with the status of what rests on it."""
    statuses = client.ask(entities=dict.fromkeys(OK)).json()["statuses"]
    assert statuses["weather__wind"] == "not_found"
    assert statuses["derived__per_stop"] == "null"


def test_an_infinite_value_is_answered_as_text(client: Client) -> None:
    """What JSON has no number for is spelt out, not an error after the row was logged."""
    answer = client.ask(entities=OK | {"stops": -1})
    assert answer.status_code == 200
    assert answer.json()["features"]["derived__per_stop"] == "Infinity"
    assert (
        client.ask(entities=OK | {"stops": -1, "distance": -1.0}).json()["features"]["derived__per_stop"] == "-Infinity"
    )


def test_operations_say_what_is_served(loop: Loop, client: Client) -> None:
    """Liveness, readiness with the bundle's digest, the documents and the metrics are there."""
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {
        "status": "ready", "service": SERVICE, "bundle": loop.bundle.digest, "model_digest": loop.model.digest,
    }  # fmt: skip
    assert client.get("/docs").status_code == 200
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) >= {"/v1/{service}/features", "/v1/{service}/predict", "/healthz", "/readyz", "/metrics"}
    assert {"200", "404", "422", "503"} <= set(paths["/v1/{service}/predict"]["post"]["responses"])


def test_metrics_count_what_happened(client: Client) -> None:
    """Requests by outcome, rows in the log, statuses by view and how far the writer is behind are counted."""
    client.ask()
    client.ask("predict", entities=OK | {"tail": "N10"})
    client.ask(entities={})
    text = client.get("/metrics").text
    for line in (
        f'skewguard_requests_total{{code="200",service="{SERVICE}"}} 2.0',
        f'skewguard_requests_total{{code="422",service="{SERVICE}"}} 1.0',
        f'skewguard_log_rows_total{{service="{SERVICE}"}} 2.0',
        f'skewguard_view_status_total{{service="{SERVICE}",status="not_found",view="plane"}} 1.0',
        'skewguard_view_lag_seconds{view="weather"} 30.0',
        f'skewguard_request_duration_seconds_count{{service="{SERVICE}"}} 3.0',
    ):
        assert line in text.splitlines()


# -- requests that get no answer --------------------------------------------------------------------------------------


def _refused(answer: httpx2.Response, status: int, where: list[object] | None = None) -> str:
    """The reason, once it is clear that the request was refused, at the field where there is one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    wanted = {"type", "title", "status", "code", "detail"}
    if where is None:
        assert problem.keys() == wanted
        return str(problem["detail"])
    assert problem.keys() == wanted | {"errors"}
    (first, *_) = problem["errors"]
    assert first["loc"] == where
    return str(first["msg"])


@pytest.fixture
def nothing_logged(shared: Client) -> Iterator[None]:
    """What is refused is not logged as served."""
    before = shared.rows()
    yield
    assert shared.rows() == before


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize("what", ["features", "predict"])
def test_an_unknown_service_is_404(shared: Client, what: str) -> None:
    """The reason names the service that is here."""
    reason = _refused(shared.ask(what, "arrivals"), 404)
    assert reason == "no feature service 'arrivals' here; this server has 'delay'"


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize("what", ["features", "predict"])
@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("stops", "1", "expected int64, got a string '1'"),
        ("stops", True, "expected int64, got a bool True"),
        ("stops", 1.5, "expected int64, got a number 1.5, which does not fit without loss"),
        ("stops", 10**30, f"expected int64, got an integer {10**30}, which does not fit without loss"),
        ("stops", 2**63, f"expected int64, got an integer {2**63}, which does not fit without loss"),
        ("stops", [1], "expected int64, got a list [1]"),
        ("stops", [], "expected int64, got a list []"),
        ("distance", float("nan"), "expected float64, got nan"),
        ("distance", float("-inf"), "expected float64, got -inf"),
        ("distance", "944.5", "expected float64, got a string '944.5'"),
        ("distance", False, "expected float64, got a bool False"),
        ("distance", 2**53 + 1, "expected float64, got an integer 9007199254740993, which does not fit without loss"),
        ("origin", 5, "expected string, got an integer 5"),
        ("origin", {"a": 1}, "expected string, got an object {'a': 1}"),
        ("origin", "\ud800", "expected string, got half a character (a lone surrogate) in '\\ud800'"),
        ("direct", 1, "expected bool, got an integer 1"),
        ("scheduled", 1709557200, "expected timestamp[us, UTC], got an integer 1709557200"),
        ("scheduled", "tomorrow", "expected an ISO instant such as 2013-11-04T10:15:00Z, got 'tomorrow'"),
        ("scheduled", "2024-03-04T13:00:00", "the naive '2024-03-04T13:00:00'; add Z for UTC"),
        ("scheduled", "9999-12-31T23:59:59-14:00", "expected an instant in the years 1 to 9999 of UTC"),
    ],
)
def test_a_value_of_another_type_is_422_with_the_field_named(
    shared: Client, what: str, field: str, value: object, reason: str
) -> None:
    """Nothing is converted that the declaration does not ask for; the reason says what was expected and what came."""
    told = _refused(shared.ask(what, entities=OK | {field: value}), 422, ["body", "entities", field])
    assert told.startswith(f"{field}: ")
    assert reason in told


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize("field", sorted(OK))
def test_a_missing_key_or_request_field_is_422(shared: Client, field: str) -> None:
    """What is not known must be said to be null: a missing one is named, with what it is."""
    kind = "entity key" if field in ("origin", "tail") else "request field"
    rest = {name: value for name, value in OK.items() if name != field}
    told = _refused(shared.ask(entities=rest), 422, ["body", "entities", field])
    assert told.startswith(f"{field}: {kind} is missing; expected ")


@pytest.mark.usefixtures("nothing_logged")
def test_an_unknown_field_is_422(shared: Client) -> None:
    """A field that nobody asked for is named, with those that there are."""
    told = _refused(shared.ask(entities=OK | {"Origin": "JFK"}), 422, ["body", "entities", "Origin"])
    assert told == "Origin: unknown field; delay takes tail, origin, direct, distance, scheduled, stops"


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("as_of", "2024-03-04T12:00:30"),
        ("as_of", "2024-03-04"),
        ("as_of", "noon"),
        ("as_of", 1709553630),
        ("as_of", True),
        ("as_of", "0001-01-01T00:00:00+14:00"),
        ("request_id", ""),
        ("request_id", 5),
        ("request_id", "x" * 129),
        ("request_id", "\ud800"),
        ("entities", None),
        ("entities", [OK]),
        ("entity", OK),
    ],
)
def test_what_stands_beside_the_entities_is_checked_too(shared: Client, field: str, value: object) -> None:
    """A naive instant, a number for an instant (seconds or milliseconds?), a wrong id and an unknown member are 422."""
    body: dict[str, Any] = {field: value}
    _refused(shared.ask(**body), 422, ["body", field])


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"hello", b"\xff\xfe{}", b"[]", b"null", b"[" * 100_000, b'{"entities":{"stops":%s}}' % (b"9" * 5000)],
    ids=["empty", "torn", "text", "no UTF-8", "list", "null", "deep", "digits"],
)
def test_a_body_that_is_no_json_object_is_422(shared: Client, body: bytes) -> None:
    """Whatever comes instead of a JSON object, the answer is 422 about the body."""
    answer = shared.post(f"/v1/{SERVICE}/features", content=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"][0] == "body"


@pytest.mark.usefixtures("nothing_logged")
def test_json_that_does_not_call_itself_so_is_told_what_is_missing(shared: Client) -> None:
    """The reason names the header, not the model that would not parse."""
    answer = shared.post(
        f"/v1/{SERVICE}/features", content=json.dumps({"entities": OK}), headers={"Content-Type": "text/plain"}
    )
    assert "Content-Type: application/json" in _refused(answer, 422, ["body"])


def test_an_instant_is_refused_where_the_server_answers_as_of_its_clock(loop: Loop, tmp_path: Path) -> None:
    """Without --accept-as-of a request that names its own instant is 422, whatever the instant."""
    client = Client(loop, tmp_path, accept_as_of=False)
    told = _refused(client.ask(), 422, ["body", "as_of"])
    assert told == "as_of: this server answers as of its own clock; leave as_of out"
    assert client.rows() == 0


def test_parsing_an_ask_reads_it_as_a_spine_of_one(loop: Loop) -> None:
    """Keys and request fields come as columns of their declared dtypes; null has the status null."""
    spine = parse_ask(loop.bundle, OK | {"tail": None, "distance": 3}, "r1", 7)
    assert (spine.ids.tolist(), spine.as_of.tolist()) == (["r1"], [7])
    assert spine.keys["origin"].value(0) == "JFK"
    assert spine.keys["tail"].status.tolist() == [Status.NULL]
    assert spine.request["distance"].values.tolist() == [3.0]
    assert {name: column.dtype for name, column in spine.request.items()} == {
        one.name: one.dtype for one in loop.bundle.request
    }
    with pytest.raises(AskError, match="entity key is missing"):
        parse_ask(loop.bundle, {}, "r1", 7)


# -- no store, no log, no model ---------------------------------------------------------------------------------------


def _no_store(_: Loop, __: Path) -> OnlineStore:
    return NoStore()


def _empty_store(_: Loop, root: Path) -> OnlineStore:
    return open_store(f"sqlite:{root / 'empty.db'}")


def _half_written(loop: Loop, root: Path) -> OnlineStore:
    url = f"sqlite:{root / 'half.db'}"
    loop.materialize(url, at(12), replace(loop.bundle, views=loop.bundle.views[:1]))
    return open_store(url)


def _dropped_table(loop: Loop, root: Path) -> OnlineStore:
    url = f"sqlite:{root / 'dropped.db'}"
    loop.materialize(url, at(12))
    store = open_store(url)
    with sqlite3.connect(root / "dropped.db") as other:
        other.execute("DROP TABLE rows")
    other.close()
    return store


def _unknown_layout(loop: Loop, root: Path) -> OnlineStore:
    url = f"sqlite:{root / 'layout.db'}"
    loop.materialize(url, at(12))
    store = open_store(url)
    key = row_key(PROJECT, loop.bundle.view("weather"), ("JFK",))
    (row,) = store.mget([key])
    assert row is not None
    return Store(store, lambda one, old: row[:1] + b"another!" + row[9:] if one == key else old)


def _another_format(loop: Loop, root: Path) -> OnlineStore:
    store = _unknown_layout(loop, root)
    return Store(store, lambda _, row: row and b"\x09" + row[1:])


def _uncastable(loop: Loop, root: Path) -> OnlineStore:
    """A row of a known older layout in which a number was a text."""
    url = f"sqlite:{root / 'older.db'}"
    loop.materialize(url, at(12))
    store = open_store(url)
    older = Layout(("gust", "wind"), (Dtype.STRING, Dtype.STRING))
    text = Column.build(Dtype.STRING, np.array(["strong"], dtype=object), np.zeros(1, np.uint8))
    times = np.array([us(at(13))])
    row = pack(older, times, times, us(at(12)), [text, text])[0]
    key = row_key(PROJECT, loop.bundle.view("weather"), ("JFK",))
    store.write([(key, row)], {layout_key(PROJECT, older.digest): older.to_json()})
    return store


@pytest.mark.parametrize("what", ["features", "predict"])
@pytest.mark.parametrize(
    ("make", "code", "reason"),
    [
        (_no_store, "store_unavailable", "online store sqlite:gone: connection refused"),
        (_empty_store, "store_unavailable", "plane, weather never materialized to the online store sqlite:"),
        (_half_written, "store_unavailable", "weather never materialized to the online store sqlite:"),
        (_dropped_table, "store_unavailable", "no such table: rows"),
        (_unknown_layout, "store_unreadable", "the online store holds rows of weather that no known layout explains"),
        (_another_format, "store_unreadable", "the online store holds rows of plane, weather that no known layout"),
        (_uncastable, "store_unreadable", "the online store holds rows of weather that no known layout explains"),
    ],
)
def test_a_store_that_does_not_answer_is_503_and_never_nulls(
    loop: Loop, tmp_path: Path, make: Callable[[Loop, Path], OnlineStore], code: str, reason: str, what: str
) -> None:
    """No store, none that was written, and bytes that nobody can explain: a reason, and nothing is logged as served."""
    client = Client(loop, tmp_path / "log", store=make(loop, tmp_path))
    answer = client.ask(what, as_of="2024-03-04T13:30:00Z")
    assert reason in _refused(answer, 503)
    assert answer.json()["code"] == code
    assert answer.headers["retry-after"] == "1"
    assert client.rows() == 0


@pytest.mark.parametrize("make", [_no_store, _empty_store, _half_written, _dropped_table])
def test_a_server_without_its_store_is_alive_and_not_ready(
    loop: Loop, tmp_path: Path, make: Callable[[Loop, Path], OnlineStore]
) -> None:
    """Readiness is 503 with the reason until every view was written, while liveness stays 200."""
    client = Client(loop, tmp_path / "log", store=make(loop, tmp_path))
    _refused(client.get("/readyz"), 503)
    assert client.get("/healthz").status_code == 200


def test_a_redis_that_is_killed_is_503_until_it_is_back(
    loop: Loop, redis_url: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A request during the outage is refused within the deadline; afterwards an empty Redis still gives no nulls."""
    assert redis_url  # so that the test is skipped, or fails, where there is no Redis
    server = str(_redis_server())
    url = f"redis://:secret@127.0.0.1:{(port := _free_port())}/0"
    folder = tmp_path_factory.mktemp("own")

    def up() -> subprocess.Popen[bytes]:
        command = [server, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([*command, "--requirepass", "secret"], stdout=log, stderr=log)
        _wait_until_it_answers(url, process, folder / "log")
        return process

    process = up()
    try:
        loop.materialize(url, at(12))
        client = Client(loop, tmp_path, store=RedisStore(url))
        assert client.ask().status_code == 200
        process.kill()
        process.wait()
        began = time.monotonic()
        gone = [_refused(client.ask(), 503), _refused(client.get("/readyz"), 503)]
        assert time.monotonic() - began < 5
        process = up()
        empty = [_refused(client.ask(), 503), _refused(client.get("/readyz"), 503)]
    finally:
        process.kill()
        process.wait()
    assert all("online store redis://127.0.0.1:" in one for one in gone)
    assert all("never materialized to" in one for one in empty)
    assert not [one for one in gone + empty if "secret" in one]
    assert client.rows() == 1


@dataclass
class FullLog:
    """A log on a full disk."""

    def append(self, batch: pa.RecordBatch) -> None:
        """Refuse the rows."""
        raise LogError(f"serving log: {batch.num_rows} rows could not be written: no space left on device")

    def check(self) -> None:
        """Refuse too."""
        raise LogError("serving log: no space left on device")


@pytest.mark.parametrize("what", ["features", "predict"])
def test_what_cannot_be_logged_is_not_answered(loop: Loop, tmp_path: Path, what: str) -> None:
    """Where the log refuses a row the answer is 503 with the log's reason, and holds no feature and no prediction."""
    log = loop.open_log(tmp_path)
    log.close()
    for broken, reason in ((FullLog(), "no space left on device"), (log, "is closed")):
        client = Client(loop, tmp_path, log=broken)
        answer = client.ask(what)
        assert reason in _refused(answer, 503)
        assert answer.json()["code"] == "log_unavailable"
        assert client.get("/readyz").status_code == 503
        assert client.counter() == 0


def test_the_row_is_in_the_log_before_the_answer_goes_out(loop: Loop, tmp_path: Path) -> None:
    """Every byte of an answer is sent after its row was logged."""
    happened: list[str] = []
    real = loop.open_log(tmp_path)

    class Recording:
        def append(self, batch: pa.RecordBatch) -> None:
            real.append(batch)
            happened.append(f"logged {batch['id'][0]}")

        def check(self) -> None:
            real.check()

    app = Client(loop, tmp_path, log=Recording()).application

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            happened.append(message["type"])
            await send(message)

        await app(scope, receive, sent)

    client = TestClient(watched)
    for name in ("a", "b"):
        client.post(f"/v1/{SERVICE}/predict", json={"entities": OK, "as_of": NOON, "request_id": name})
    one = ["http.response.start", "http.response.body"]
    assert happened == ["logged a", *one, "logged b", *one]


def test_without_a_model_predictions_are_503_and_features_are_answered(loop: Loop, tmp_path: Path) -> None:
    """A server that was started without a model says so."""
    client = Client(loop, tmp_path, model=None)
    assert "without a model" in _refused(client.ask("predict"), 503)
    assert client.rows() == 0
    assert client.ask().status_code == 200
    assert logged(client.root)[0]["prediction"] is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_gives_no_number_is_503(loop: Loop, tmp_path: Path, value: float) -> None:
    """What JSON cannot say is no prediction: refused with the reason before it is logged."""
    client = Client(loop, tmp_path, model=replace(loop.model, _predict=lambda rows: np.full(len(rows), value)))
    assert f"the model gave {value}" in _refused(client.ask("predict"), 503)
    assert client.rows() == 0


# -- starting ---------------------------------------------------------------------------------------------------------


def test_an_application_refuses_code_that_its_bundle_was_not_compiled_from(loop: Loop) -> None:
    """A transform with another fingerprint is named before the first request."""
    derived = tuple(replace(one, fingerprint="0" * 32) for one in loop.bundle.derived[:1])
    bundle = replace(loop.bundle, derived=(*derived, *loop.bundle.derived[1:]))
    with pytest.raises(DefinitionError, match="derived__gust_ratio: the bundle was compiled from"):
        create_app(bundle, Lookup(bundle, NoStore()), FullLog())
    assert other_code(loop.bundle).transforms != loop.bundle.transforms


def _model(loop: Loop, **changes: Any) -> Model:
    return replace(loop.model, **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            lambda v: {"features": (v[1], v[0], *v[2:])},
            "column 0 of its vector is plane__thrust, the bundle's is plane__s",
        ),
        (lambda v: {"features": v[:-1]}, "column 5 of its vector is nothing, the bundle's is derived__per_stop"),
        (lambda v: {"features": (*v, "more")}, "column 6 of its vector is more, the bundle's is nothing"),
        (lambda _: {"features": None, "width": 5}, "expected a vector of 5 features, the bundle's has 6"),
    ],
)
def test_an_application_refuses_a_model_of_other_features(
    loop: Loop, changes: Callable[[Sequence[str]], dict[str, Any]], reason: str
) -> None:
    """A model that was fitted on other columns, in another order or of another width predicts nothing here."""
    model = _model(loop, **changes(loop.bundle.vector))
    with pytest.raises(ModelError, match=reason):
        create_app(loop.bundle, Lookup(loop.bundle, NoStore()), FullLog(), model)


@pytest.fixture
def flags(loop: Loop, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The flags of a server that would start; the signal handler is put back."""
    handler = signal.getsignal(signal.SIGTERM)
    yield {
        "--bundle": str(loop.bundle_path), "--store": loop.store_url, "--log": str(tmp_path / "log"),
        "--model": str(loop.model_folder), "--port": "0",
    }  # fmt: skip
    signal.signal(signal.SIGTERM, handler)


def _start(flags: dict[str, str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a server says that does not start."""
    assert main(["serve", *(x for flag in flags.items() for x in flag)]) == 2
    return capsys.readouterr().err


def test_a_model_with_another_digest_is_not_served(
    loop: Loop, flags: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """With --model-digest the server starts with exactly that model, or not at all, and opens no log."""
    told = _start(flags | {"--model-digest": "0" * 64}, capsys)
    assert f"expected the model with digest {'0' * 64}, found {loop.model.digest}" in told
    assert not Path(flags["--log"]).exists()


def test_a_model_of_another_width_is_not_served(
    loop: Loop, flags: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that was fitted on fewer columns keeps the server from starting, and leaves no row behind."""
    matrix, labels = loop.snapshot.to_numpy("late")
    folder = save_model(tmp_path / "narrow", loop.snapshot, matrix[:, :-1], labels)
    told = _start(flags | {"--model": str(folder)}, capsys)
    assert "It was fitted on other features" in told
    assert read_log(flags["--log"], SERVICE).rows == 0


@pytest.mark.parametrize(
    ("flag", "value", "reason"),
    [
        ("--bundle", "nowhere.json", "bundle nowhere.json: expected the JSON that `skewguard bundle` writes"),
        ("--store", "mysql://here", "online store: expected sqlite:PATH or redis://HOST:PORT, got 'mysql://here'"),
        ("--store", "redis://127.0.0.1:1", "online store redis://127.0.0.1:1: does not answer"),
        ("--model", "nowhere", "nowhere: expected a model folder, found nothing"),
        ("--log", "/dev/null/log", "could not be put beside it"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    flags: dict[str, str], flag: str, value: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong setting is one sentence and exit code 2."""
    assert reason in _start(flags | {flag: value}, capsys)


def test_a_deployment_may_put_a_store_of_its_own_in_front(loop: Loop, flags: dict[str, str]) -> None:
    """`start` hands the opened store and the bundle to `wrap`, and serves what comes back."""
    given: list[object] = []

    class Stop(Exception):
        pass

    def wrap(store: OnlineStore, bundle: object) -> OnlineStore:
        given.extend((store.url, bundle))
        raise Stop

    with pytest.raises(Stop):
        start(Settings(loop.bundle_path, flags["--store"], Path(flags["--log"])), wrap)
    assert given == [loop.store_url, loop.bundle]


# -- a real server ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A running server, and the folder of its log, which was there before, and empty."""
    log = tmp_path_factory.mktemp("log")
    with Server(loop, log, "A7") as server:
        yield server.wait(), log


def test_the_log_is_written_by_the_process_that_answered(loop: Loop, server: tuple[Server, Path]) -> None:
    """The header of the row's segment holds the server's own pid, build, host, evidence, model and definitions."""
    process, root = server
    status, answer = process.predict("mine")
    assert (status, answer["request_id"]) == (200, "mine")
    (segment,) = read_log(root, SERVICE).segments
    assert segment.owned
    header = segment.header
    assert header["pid"] == str(process.process.pid) != str(os.getpid())
    assert (header["build"], header["evidence"], header["host"]) == ("A7", "production", socket.gethostname())
    assert (header["model_digest"], header["bundle_digest"]) == (loop.model.digest, loop.bundle.digest)
    assert answer["prediction"] == next(row["prediction"] for row in logged(root) if row["id"] == "mine")


def test_a_server_answers_as_the_application_does(loop: Loop, server: tuple[Server, Path], shared: Client) -> None:
    """Over HTTP the same asks get the same features, bit by bit, as in process."""
    process, _ = server
    for ask in loop.asks.slice(60, 20).to_pylist():
        body = {"entities": entities(loop.bundle, ask), "as_of": ask["event_timestamp"].isoformat()}
        _, answer = process.send("POST", f"/v1/{SERVICE}/features", body)
        again = shared.post(f"/v1/{SERVICE}/features", json=body).json()
        assert answer["features"] == again["features"]
        assert answer["statuses"] == again["statuses"]


def test_requests_at_once_are_each_logged_once(server: tuple[Server, Path]) -> None:
    """Forty requests on as many connections give forty answers and forty rows."""
    process, root = server
    names = [f"at-once-{i}" for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(process.predict, names))
    assert {status for status, _ in answers} == {200}
    assert len({answer["prediction"] for _, answer in answers}) == 1
    assert sorted(row["id"] for row in logged(root) if row["id"] in names) == sorted(names)


def test_a_refused_request_over_http_leaves_no_row(server: tuple[Server, Path]) -> None:
    """404 and 422 are answered by the server itself, and nothing is logged."""
    process, root = server
    before = read_log(root, SERVICE).rows
    assert process.send("POST", "/v1/arrivals/predict", {"entities": OK})[0] == 404
    assert process.predict("bad", entities={"origin": "JFK"})[0] == 422
    assert read_log(root, SERVICE).rows == before


def test_an_acknowledged_row_survives_kill_9_and_sigterm_seals_the_log(loop: Loop, tmp_path: Path) -> None:
    """What was answered is in the log of a killed server; the next one seals it, and its own log when it ends."""
    log = tmp_path / "log"
    with Server(loop, log, "A") as killed:
        killed.wait()
        assert killed.predict("acknowledged")[0] == 200
        killed.process.kill()
        killed.process.wait()
    (segment,) = read_log(log, SERVICE).segments
    assert (segment.rows, segment.damaged, segment.owned, segment.sealed) == (1, False, False, False)
    with Server(loop, log, "B") as ended:
        ended.wait()
        open_connection = http.client.HTTPConnection("127.0.0.1", ended.port, timeout=30)
        open_connection.request("GET", "/healthz")
        open_connection.getresponse().read()  # kept alive: no reason not to end
        assert ended.predict("last")[0] == 200
        ended.process.send_signal(signal.SIGTERM)
        assert ended.process.wait(timeout=30) == 0
        open_connection.close()
    reading = read_log(log, SERVICE)
    assert [(one.header["build"], one.rows, one.sealed) for one in reading.segments] == [("A", 1, True), ("B", 1, True)]
    assert [row["id"] for row in logged(log)] == ["acknowledged", "last"]
    assert not list(log.rglob("*.open"))


def test_a_servers_log_is_evidence_for_the_guard(loop: Loop, server: tuple[Server, Path]) -> None:
    """What a real server logged can be replayed: rows that are no older than the store are all equal."""
    process, root = server
    for ask in asks_between(at(11.9), at(12) - at(11.9), 4).to_pylist():
        process.predict(f"g-{ask['id']}", entities=entities(loop.bundle, ask), as_of="2024-03-04T12:00:00Z")
    guarded = loop.guard(root)
    assert guarded.pairs is not None
    assert guarded.comparison is not None
    mine = [str(one).startswith("g-") for one in guarded.pairs.served.spine.ids]
    assert guarded.comparison.equal[mine].all()
    assert guarded.verdict.subject.evidence == "production"
