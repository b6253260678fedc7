import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from skewguard.online import open_store
from skewguard.service import create_app
from skewguard.service.admission import Admission, read_keys
from skewguard.service.batching import Limits
from skewguard.servinglog import read_log
from tests.loop import SERVICE, Loop, Store, asks_between, at, entities, logged, us
from tests.servers import JSON, NOON, OK, Client

FEATURES, PREDICT = f"/v1/{SERVICE}/features", f"/v1/{SERVICE}/predict"


@pytest.fixture
def client(loop: Loop, tmp_path: Path) -> Client:
    """A client whose log is empty."""
    return Client(loop, tmp_path / "log")


def _at_once(client: Client, bodies: Sequence[object], path: str = PREDICT) -> list[httpx2.Response]:
    """Answers to requests that are all there before the first is answered."""

    async def ask() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(client.application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://here", headers=JSON) as one:
            return list(await asyncio.gather(*(one.post(path, content=json.dumps(body)) for body in bodies)))

    return asyncio.run(ask())


def _asks(loop: Loop, count: int) -> list[dict[str, Any]]:
    rows = asks_between(at(12), at(12.2) - at(12), count).to_pylist()
    return [
        {"entities": entities(loop.bundle, row), "request_id": f"m-{i}", "as_of": row["event_timestamp"].isoformat()}
        for i, row in enumerate(rows)
    ]


# -- micro-batches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [FEATURES, PREDICT])
def test_a_micro_batch_gives_everybody_the_answer_they_would_get_alone(loop: Loop, tmp_path: Path, path: str) -> None:
    """Forty requests at once are answered bit by bit as one after another, and logged once each in fewer frames."""
    bodies = _asks(loop, 40)
    together, alone = Client(loop, tmp_path / "together"), Client(loop, tmp_path / "alone")
    answers = [one.json() for one in _at_once(together, bodies, path)]
    assert answers == [alone.post(path, content=json.dumps(body)).json() for body in bodies]
    rows, singles = logged(together.root), {row["id"]: row for row in logged(alone.root)}
    assert sorted(row["id"] for row in rows) == sorted(singles)
    assert all(repr(row) == repr(singles[row["id"]]) for row in rows)
    (segment,) = read_log(together.root, SERVICE).segments
    assert segment.frames < 40


def test_one_wrong_question_does_not_take_its_neighbours_along(client: Client, loop: Loop) -> None:
    """In a micro-batch the request that is not understood is refused; the others are answered and logged."""
    bodies = _asks(loop, 9)
    bodies[4]["entities"]["stops"] = "one"
    answers = _at_once(client, bodies)
    assert [one.status_code for one in answers] == [200] * 4 + [422] + [200] * 4
    assert answers[4].json()["errors"][0]["loc"] == ["body", "entities", "stops"]
    assert len(logged(client.root)) == client.rows() == 8


def test_a_model_that_raises_for_one_row_refuses_that_row_alone(loop: Loop, tmp_path: Path) -> None:
    """A model that cannot take NaN is a clear 503 for the asks that lack a feature, without a traceback."""

    def strict(rows: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        if np.isnan(rows).any():
            raise ValueError("Input X contains NaN.\nLogisticRegression does not accept missing values")
        return np.array(rows[:, 0])

    client = Client(loop, tmp_path, model=replace(loop.model, _predict=strict))
    bodies = [{"entities": OK | {"origin": "EWR", "tail": tail}, "as_of": NOON} for tail in ("N1", "N10", "N4")]
    whole, lacking, other = _at_once(client, bodies)
    assert lacking.status_code == 503
    assert lacking.json()["code"] == "model_failed"
    assert "raised ValueError: Input X contains NaN" in lacking.json()["detail"]
    assert "plane__seats" in lacking.json()["detail"]
    assert (whole.status_code, other.status_code, client.rows()) == (200, 200, 2)


def test_rows_that_no_layout_explains_refuse_their_own_requests_only(loop: Loop, tmp_path: Path) -> None:
    """A torn row of one plane is a 503 for whoever asks about it."""
    store = Store(
        open_store(loop.store_url), lambda key, row: b"\x01another!" + row[9:] if row and b"N1" in key else row
    )
    client = Client(loop, tmp_path, store=store)
    bodies = [{"entities": OK | {"tail": tail}, "as_of": NOON} for tail in ("N1", "N2", "N3")]
    answers = _at_once(client, bodies, FEATURES)
    assert [one.status_code for one in answers] == [503, 200, 200]
    assert answers[0].json()["code"] == "store_unreadable"
    assert client.rows() == 2


def test_what_would_wait_too_long_is_turned_away_at_once(loop: Loop, tmp_path: Path) -> None:
    """Beyond the bound of the queue a request is 503 with Retry-After, and the others are answered."""
    client = Client(loop, tmp_path, limits=Limits(batch_rows=1, waiting_rows=4))
    answers = _at_once(client, _asks(loop, 30))
    codes = [one.status_code for one in answers]
    assert set(codes) == {200, 503}
    shed = next(one for one in answers if one.status_code == 503)
    assert (shed.json()["code"], shed.headers["retry-after"]) == ("overloaded", "1")
    assert client.rows() == codes.count(200)
    assert client.counter("skewguard_shed_total") == codes.count(503)


# -- several asks in one request --------------------------------------------------------------------------------------


def test_instances_are_answered_in_order_and_logged_row_by_row(client: Client) -> None:
    """Features come as columns with what is missing per ask, predictions as a list; every ask is a row of the log."""
    tails = ["N10", "N1", None]
    body = {"instances": [OK | {"tail": tail} for tail in tails], "as_of": NOON, "request_id": "r"}
    singles = [client.ask(entities=OK | {"tail": tail}).json() for tail in tails]
    many = client.post(FEATURES, json=body).json()
    for name, column in many["features"].items():
        assert column == [one["features"][name] for one in singles]
    absent = [{n: status for n, status in one["statuses"].items() if status != "present"} for one in singles]
    assert many["missing"] == absent
    predicted = [client.ask("predict", entities=OK | {"tail": tail}).json() for tail in tails]
    many = client.post(PREDICT, json=body | {"request_id": "p"}).json()
    assert many["predictions"] == [one["prediction"] for one in predicted]
    assert many["missing"] == [one["missing"] for one in predicted]
    ids = [row["id"] for row in logged(client.root)]
    assert [one for one in ids if one[:2] in ("r-", "p-")] == ["r-0", "r-1", "r-2", "p-0", "p-1", "p-2"]


@pytest.mark.parametrize("wrap", [0, 1, 999])
def test_a_wrong_instance_is_named_and_nothing_of_its_request_is_logged(client: Client, wrap: int) -> None:
    """The place of the first wrong ask among a thousand, also where there is one only."""
    rows = [dict(OK) for _ in range(max(1, wrap + 1))]
    rows[wrap]["stops"] = 2**53 + 0.5 if wrap else "x"
    rows[wrap]["weather__wind"] = 3.0
    answer = client.post(PREDICT, json={"instances": rows})
    assert answer.status_code == 422
    (wrong,) = answer.json()["errors"]
    assert wrong["loc"] == ["body", "instances", wrap, "weather__wind"]
    assert "unknown field" in wrong["msg"]
    assert client.rows() == 0


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"instances": []}, ["body", "instances"]),
        ({"instances": [dict(OK)] * 1001}, ["body", "instances"]),
        ({"instances": [5]}, ["body", "instances", 0]),
        ({"instances": [OK], "entities": OK}, ["body", "entities"]),
        ({}, ["body", "entities"]),
        ({"entities": OK, "as_of": "2999-01-01T00:00:00Z"}, ["body", "as_of"]),
    ],
    ids=["none", "too many", "no object", "both", "neither", "the future"],
)
def test_what_is_wrong_with_a_body_is_said_the_same_way(
    client: Client, body: dict[str, Any], loc: list[object]
) -> None:
    """Every one of them is a 422 problem that names the place."""
    answer = client.post(PREDICT, json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["loc"] == loc
    assert client.rows() == 0


def test_keys_beyond_2_to_the_53_and_in_any_script_are_looked_up_as_they_are(client: Client) -> None:
    """A unicode key and a large integer go into the log digit by digit."""
    tail = "Ñ-東京-🛩"
    assert client.ask(entities=OK | {"tail": tail, "stops": 2**53 + 1}).status_code == 200
    (row,) = logged(client.root)
    assert (row["e__tail"], row["q__stops"]) == (tail, 2**53 + 1)


# -- other faces ------------------------------------------------------------------------------------------------------


def _tensors(rows: Sequence[dict[str, Any]], loop: Loop) -> list[dict[str, Any]]:
    known = loop.bundle.keys | {one.name: one.dtype for one in loop.bundle.request}
    kinds = {"string": "BYTES", "timestamp[us, UTC]": "BYTES", "int64": "INT64", "float64": "FP64", "bool": "BOOL"}
    return [
        {"name": name, "shape": [len(rows)], "datatype": kinds[str(dtype)], "data": [row[name] for row in rows]}
        for name, dtype in known.items()
    ]


def test_the_open_inference_protocol_gives_the_same_predictions(client: Client, loop: Loop) -> None:
    """Health, metadata and infer, with and without the version; the prediction is the one of /predict."""
    base, version = f"/v2/models/{SERVICE}", loop.model.model_id
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json()["name"] == "skewguard"
    for path in (base, f"{base}/versions/{version}"):
        told = client.get(path).json()
        assert (told["name"], told["versions"]) == (SERVICE, [version])
        assert {one["name"] for one in told["inputs"]} == set(OK)
        assert client.get(f"{path}/ready").json() == {"name": SERVICE, "ready": True}
        rows = [OK, OK | {"tail": "N2"}]
        answer = client.post(f"{path}/infer", json={"id": "i", "inputs": _tensors(rows, loop)}).json()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == (SERVICE, version, "i")
        (output,) = answer["outputs"]
        again = client.post(PREDICT, json={"instances": rows}).json()["predictions"]
        assert output == {"name": "prediction", "datatype": "FP64", "shape": [2], "data": again}
    assert client.get(f"{base}/versions/7").status_code == 404
    assert client.get("/v2/models/other").json()["code"] == "unknown_service"


@pytest.mark.parametrize(
    ("change", "loc"),
    [
        ({"shape": [3]}, ["body", "inputs", 0, "shape"]),
        ({"datatype": "FP64"}, ["body", "inputs", 0, "datatype"]),
        ({"data": ["N1", "N2"]}, ["body", "inputs", 0, "shape"]),
        ({"name": "nobody"}, ["body", "inputs", 0, "nobody"]),
    ],
)
def test_a_tensor_that_does_not_fit_is_422(
    client: Client, loop: Loop, change: dict[str, Any], loc: list[object]
) -> None:
    """Shape, datatype, length and name are checked, and nothing is logged."""
    inputs = _tensors([OK], loop)
    inputs[0] |= change
    answer = client.post(f"/v2/models/{SERVICE}/infer", json={"inputs": inputs})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["loc"] == loc
    assert client.rows() == 0


def test_mlflows_four_ways_to_write_rows_give_the_same_predictions(client: Client) -> None:
    """dataframe_split, dataframe_records, instances and inputs, as MLflow's scoring server takes them."""
    rows = [OK, OK | {"tail": "N2"}]
    split = {"columns": list(OK), "data": [list(row.values()) for row in rows]}
    columns = {name: [row[name] for row in rows] for name in OK}
    wanted = client.post(PREDICT, json={"instances": rows}).json()["predictions"]
    ways: list[dict[str, Any]] = [{name: rows} for name in ("dataframe_records", "instances", "inputs")]
    for body in (*ways, {"dataframe_split": split}, {"inputs": columns}):
        answer = client.post("/invocations", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"] == pytest.approx(wanted, abs=0.5)  # as of now, and that is some years later
    assert client.get("/ping").status_code == 200
    before = client.rows()
    for body in (
        {},
        {"inputs": rows, "instances": rows},
        {"dataframe_split": split | {"data": [[1]]}},
        {"instances": []},
    ):
        assert client.post("/invocations", json=body).status_code == 422
    assert client.rows() == before


# -- who may ask ------------------------------------------------------------------------------------------------------


def _guarded(loop: Loop, root: Path, **limits: Any) -> tuple[Any, Path]:
    from skewguard.answer import schema
    from skewguard.online import Lookup
    from skewguard.service.answering import CLIENT
    from skewguard.servinglog import ServingLog

    keys = {"team-a": hashlib.sha256(b"secret-a").hexdigest(), "team-b": hashlib.sha256(b"secret-b").hexdigest()}
    log = ServingLog(root, SERVICE, schema(loop.bundle).append(CLIENT), loop.header())
    lookup = Lookup(loop.bundle, open_store(loop.store_url))
    from fastapi.testclient import TestClient

    app = create_app(loop.bundle, lookup, log, loop.model, accept_as_of=True, admission=Admission(keys, **limits))
    return TestClient(app, headers=JSON), root


def test_without_a_known_key_nobody_is_answered_and_the_owner_is_logged(loop: Loop, tmp_path: Path) -> None:
    """401 for a missing or wrong key whatever the route; the owner's id, never the key, is in the row."""
    client, root = _guarded(loop, tmp_path)
    body = {"entities": OK, "as_of": NOON}
    for headers in ({}, {"X-API-Key": "secret-c"}, {"X-API-Key": ""}):
        for path in (PREDICT, FEATURES, "/invocations", f"/v2/models/{SERVICE}/infer"):
            answer = client.post(path, json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert client.get("/healthz").status_code == client.get("/metrics").status_code == 200
    assert client.post(PREDICT, json=body, headers={"X-API-Key": "secret-b"}).status_code == 200
    assert client.post("/invocations", json={"instances": [OK]}, headers={"X-API-Key": "secret-a"}).status_code == 200
    assert [row["client"] for row in logged(root)] == ["team-b", "team-a"]
    assert b"secret-b" not in b"".join(path.read_bytes() for path in root.rglob("*.open"))


def test_more_than_the_rate_is_429_until_the_bucket_fills(loop: Loop, tmp_path: Path) -> None:
    """Each owner has asks of their own; the answer says when to come back, and nothing is logged."""
    client, root = _guarded(loop, tmp_path, rows_per_second=3.0)
    body = {"instances": [OK, OK], "as_of": NOON}
    codes = [client.post(FEATURES, json=body, headers={"X-API-Key": "secret-a"}).status_code for _ in range(3)]
    assert codes[0] == 200
    assert 429 in codes
    refused = client.post(FEATURES, json=body | {"instances": [OK] * 3}, headers={"X-API-Key": "secret-a"})
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) >= 1
    assert client.post(FEATURES, json=body, headers={"X-API-Key": "secret-b"}).status_code == 200
    assert len(logged(root)) == 2 * (codes.count(200) + 1)


def test_a_body_that_is_too_large_is_413(loop: Loop, tmp_path: Path) -> None:
    """Ten megabytes are refused by their length."""
    client = Client(loop, tmp_path)
    answer = client.post(PREDICT, content=json.dumps({"entities": OK | {"tail": "x" * 10_000_000}}))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert client.rows() == 0


def test_ten_thousand_instances_are_refused_by_their_length_and_by_their_number(loop: Loop, tmp_path: Path) -> None:
    """More than a megabyte is 413; a server that takes such bodies still takes a thousand asks."""
    body = {"instances": [OK] * 10_000, "as_of": NOON}
    small, large = (
        Client(loop, tmp_path / "a"),
        Client(loop, tmp_path / "b", admission=Admission({}, 1 << 24, 1000, 0.0)),
    )
    told = small.post(FEATURES, json=body)
    assert (told.status_code, told.json()["code"]) == (413, "too_large")
    told = large.post(FEATURES, json=body)
    assert (told.status_code, told.json()["errors"][0]["loc"]) == (422, ["body", "instances"])
    assert small.rows() == large.rows() == 0


def test_a_clock_that_steps_back_makes_rows_future_and_loses_none(loop: Loop, tmp_path: Path) -> None:
    """What became true after the new now is `future`; the row says when it was answered, by that clock."""
    instants = iter([us(at(12)), us(at(4)), us(at(12)) + 1])
    client = Client(loop, tmp_path, clock=lambda: next(instants), accept_as_of=False)
    statuses = [client.ask(as_of=None, entities=OK | {"tail": "N3"}).json()["statuses"] for _ in range(3)]
    assert [one["weather__wind"] for one in statuses] == ["present", "future", "present"]
    assert [us(row["event_timestamp"]) for row in logged(client.root)] == [us(at(12)), us(at(4)), us(at(12)) + 1]


def test_a_file_of_keys_holds_digests_only(tmp_path: Path) -> None:
    """A key in the clear, an empty file and no JSON are refused with what is expected."""
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"a": "0" * 64}))
    assert read_keys(path) == {"a": "0" * 64}
    for wrong in ('{"a": "secret"}', "{}", "[]", "no"):
        path.write_text(wrong)
        with pytest.raises(Exception, match="API keys"):
            read_keys(path)


def test_statuses_of_a_batch_are_counted_once_each(client: Client) -> None:
    """The counters of a micro-batch add up to its rows, by feature and by view."""
    client.post(FEATURES, json={"instances": [OK | {"tail": t} for t in ("N1", "N10", "N10")], "as_of": NOON})
    text = client.get("/metrics").text
    for line in (
        f'skewguard_feature_status_total{{feature="plane__seats",service="{SERVICE}",status="present"}} 1.0',
        f'skewguard_feature_status_total{{feature="plane__seats",service="{SERVICE}",status="not_found"}} 2.0',
        "skewguard_batch_rows_sum 3.0",
        'skewguard_feature_age_seconds_count{view="weather"} 1.0',
        f'skewguard_log_frames_total{{service="{SERVICE}"}} 1.0',
    ):
        assert line in text.splitlines()
