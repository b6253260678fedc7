"""The routes, and what a request that cannot be answered gets instead."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skewguard.answer import Log, Served
from skewguard.definitions import Bundle
from skewguard.errors import AskError
from skewguard.model import Model
from skewguard.online import Lookup
from skewguard.service.answering import Answering, Unanswered
from skewguard.service.asks import instant_of
from skewguard.values import Column, Dtype, Status, instant


class Ask(BaseModel):
    """Who is asked about. `as_of` is accepted only where the server is configured to replay history."""

    model_config = ConfigDict(extra="forbid")

    entities: dict[str, Any] = Field(description="Entity keys and request fields, side by side.")
    request_id: str | None = Field(default=None, min_length=1, max_length=128)
    as_of: str | None = Field(default=None, json_schema_extra={"format": "date-time"})  # read as a request field is


class Features(BaseModel):
    """The features of one ask. A value is null where its status is not `present`, and "Infinity" where it is that."""

    request_id: str
    service: str
    as_of: str
    features: dict[str, Any]
    statuses: dict[str, str]


class Prediction(BaseModel):
    """A prediction and what it rests on. `missing` names the features without a value, with their status."""

    request_id: str
    service: str
    as_of: str
    prediction: float
    model_id: str
    model_digest: str
    missing: dict[str, str]


class Problem(BaseModel):
    """Why there is no answer (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str


_REFUSALS: dict[int | str, dict[str, Any]] = {404: {"model": Problem}, 503: {"model": Problem}}


def create_app(
    bundle: Bundle,
    lookup: Lookup,
    log: Log,
    model: Model | None = None,
    *,
    accept_as_of: bool = False,
    clock: Callable[[], int] = lambda: time.time_ns() // 1000,
) -> FastAPI:
    """The application for one bundle. `clock` gives microseconds UTC.

    `accept_as_of` lets a request name its own instant (replaying history); otherwise naming one is a 422. Raises
    `DefinitionError` where the transforms here are not those that the bundle was compiled from, and `ModelError` for a
    model that was fitted on other features.
    """
    _ = bundle.transforms  # loaded and checked now, not in the first request
    if model is not None:
        model.check(bundle.vector)
    answering = Answering(bundle, lookup, log, model, accept_as_of, clock)
    app = FastAPI(title=f"skewguard: {bundle.service}", version="1", docs_url="/docs", redoc_url=None)
    app.add_middleware(_Measured, answering=answering)
    _questions(app, answering)
    _operations(app, answering)
    _errors(app)
    return app


def _questions(app: FastAPI, answering: Answering) -> None:
    def known(service: str) -> None:
        own = answering.bundle.service
        if service != own:
            raise Unanswered(404, "unknown_service", f"no feature service {service!r} here; this server has {own!r}")

    @app.post("/v1/{service}/features", response_model=Features, responses=_REFUSALS)
    async def features(service: str, ask: Ask) -> Response:
        """The features of one ask, with the status of each."""
        known(service)
        served = answering.serve(ask.entities, ask.request_id, _as_of(ask), None)
        columns = {name: served.feature(answering.bundle, name) for name in answering.bundle.outputs}
        body = {
            "features": {name: _plain(column) for name, column in columns.items()},
            "statuses": {name: _status(column) for name, column in columns.items()},
        }
        return JSONResponse(_head(served, service) | body)

    @app.post("/v1/{service}/predict", response_model=Prediction, responses=_REFUSALS)
    async def predict(service: str, ask: Ask) -> Response:
        """The model's prediction for one ask."""
        known(service)
        model = answering.model
        if model is None:
            raise Unanswered(503, "model_unavailable", "this server was started without a model; use /features")
        served = answering.serve(ask.entities, ask.request_id, _as_of(ask), model)
        columns = {name: served.feature(answering.bundle, name) for name in answering.bundle.vector}
        prediction = served.prediction
        body = {
            "prediction": None if prediction is None else float(prediction[0]),
            "model_id": model.model_id,
            "model_digest": model.digest,
            "missing": {name: _status(column) for name, column in columns.items() if not column.present[0]},
        }
        return JSONResponse(_head(served, service) | body)


def _operations(app: FastAPI, answering: Answering) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"model": Problem}})
    async def readyz() -> dict[str, str]:
        """The store holds every view, and the log can be written."""
        answering.check()
        return {"status": "ready", "service": answering.bundle.service, "bundle": answering.bundle.digest}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(generate_latest(answering.metrics.registry), media_type=CONTENT_TYPE_LATEST)


class _Measured:
    """Counts and times the questions; plain ASGI, because Starlette's own middleware costs as much as the answer."""

    def __init__(self, app: ASGIApp, answering: Answering) -> None:
        self._app, self._metrics, self._service = app, answering.metrics, answering.bundle.service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(self._service, str(message["status"])).inc()
                self._metrics.duration.labels(self._service).observe(time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, counted)


def _errors(app: FastAPI) -> None:
    @app.exception_handler(Unanswered)
    async def unanswered(_: Request, problem: Unanswered) -> Response:
        body = Problem(
            type="about:blank", title=problem.code, status=problem.status, code=problem.code, detail=problem.detail
        )
        headers = {"Retry-After": "1"} if problem.status == 503 else None
        return JSONResponse(body.model_dump(), problem.status, headers, "application/problem+json")

    @app.exception_handler(AskError)
    async def unclear(_: Request, error: AskError) -> Response:
        where = ["body", "as_of"] if error.field == "as_of" else ["body", "entities", error.field]
        return JSONResponse({"detail": [{"type": "value_error", "loc": where, "msg": str(error)}]}, 422)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        if isinstance(error.body, bytes):  # not read as JSON, because it does not call itself that
            return _no_json("expected JSON with the header Content-Type: application/json")
        # without the input: it may hold what JSON cannot say, and what a log should not
        return JSONResponse({"detail": [{k: e[k] for k in ("type", "loc", "msg")} for e in error.errors()]}, 422)

    @app.exception_handler(HTTPException)
    async def unreadable(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:  # FastAPI's word for JSON that Python gives up on: too deep, or too many digits
            return _no_json("expected JSON, nested no deeper and with no longer numbers than anybody needs")
        return await http_exception_handler(request, error)


def _no_json(message: str) -> Response:
    return JSONResponse({"detail": [{"type": "json_invalid", "loc": ["body"], "msg": message}]}, 422)


def _as_of(ask: Ask) -> datetime | None:
    return None if ask.as_of is None else instant_of("as_of", ask.as_of)


def _head(served: Served, service: str) -> dict[str, Any]:
    return {"request_id": served.spine.ids[0], "service": service, "as_of": instant(int(served.spine.as_of[0]))}


def _plain(column: Column) -> Any:
    value = column.value(0)
    if value is not None and column.dtype is Dtype.TIMESTAMP:
        return instant(int(column.values.view("int64")[0]))
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _status(column: Column) -> str:
    return Status(int(column.status[0])).name.lower()
