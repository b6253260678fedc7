"""The application: FastAPI for the contract, and in front of it a short way for the questions that are understood.

Both ways end in `Answering.ask`. What the short way does not understand goes to FastAPI, whose models say why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from skewguard.answer import Log
from skewguard.definitions import Bundle
from skewguard.errors import AskError
from skewguard.model import Model
from skewguard.online import Lookup
from skewguard.service import bodies, contract
from skewguard.service.admission import Admission
from skewguard.service.answering import Answering
from skewguard.service.batching import Limits
from skewguard.service.faces import Faces, metadata_of
from skewguard.service.front import Front
from skewguard.service.problems import MEDIA_TYPE, Unanswered, Wrong, invalid, unclear
from skewguard.service.reading import Reading

FLUSH_SECONDS = 5.0

_SAID = {
    401: "No API key, or an unknown one.",
    404: "No such feature service here.",
    413: "The body is too large.",
    422: "The body is not understood; `errors` says where.",
    429: "More asks than this key may send.",
    503: "No answer now: store, log or model are not available, or the server is overloaded.",
}


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with, for OpenAPI."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {code: {"description": _SAID[code], "content": {MEDIA_TYPE: schema}} for code in codes}


class Application(FastAPI):
    """A FastAPI application whose questions are measured, admitted and, where that is easy, answered in front of it."""

    front: Front | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] == "http" and scope["method"] == "POST" and self.front is not None:
            await self.front(scope, receive, send, super().__call__)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The document of this bundle: which keys and fields an ask has, and refusals as the problems they are."""
        if not self.openapi_schema:
            self.openapi_schema = contract.of(self.state.answering.bundle, super().openapi())
        return self.openapi_schema


def create_app(
    bundle: Bundle,
    lookup: Lookup,
    log: Log,
    model: Model | None = None,
    *,
    accept_as_of: bool = False,
    clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    reading: Reading | None = None,
    admission: Admission | None = None,
    limits: Limits | None = None,
    blocking_log: bool = False,
) -> Application:
    """The application for one bundle. `clock` gives microseconds UTC.

    `accept_as_of` lets a request name its own instant (replaying history); otherwise naming one is a 422. `reading`
    replaces the way the store is asked, `admission` says who may send how much, `limits` how much waits. Raises
    `DefinitionError` where the transforms here are not those that the bundle was compiled from, and `ModelError` for a
    model that was fitted on other features.
    """
    _ = bundle.transforms  # loaded and checked now, not in the first request
    if model is not None:
        model.check(bundle.vector, bundle.fitted_digest)
    admission = admission or Admission()
    answering = Answering(
        bundle,
        lookup,
        log,
        model,
        accept_as_of,
        clock,
        reading=reading,
        limits=limits,
        clients=bool(admission.keys),
        blocking_log=blocking_log,
    )
    app = Application(
        title=f"skewguard: {bundle.service}", version="1", docs_url="/docs", redoc_url=None, lifespan=_life
    )
    app.state.answering = answering
    faces = Faces(answering, admission)
    app.front = Front(answering, admission, faces)
    _questions(app, answering, faces)
    _inference(app, answering, faces)
    _operations(app, answering)
    _errors(app)
    return app


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    """What runs beside the requests: `app.state.background`, functions without arguments."""
    background = [*getattr(app.state, "background", []), partial(_counted, app.state.answering)]
    tasks = [asyncio.create_task(run()) for run in background]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await app.state.answering.reading.close()


async def _counted(answering: Answering) -> None:
    """Hand over what was counted, for the worker that is asked for the metrics of all."""
    while True:
        await asyncio.sleep(FLUSH_SECONDS)
        answering.metrics.flush(answering.deployed.log)


def _known(answering: Answering, service: str) -> None:
    own = answering.bundle.service
    if service != own:
        raise Unanswered(404, "unknown_service", f"no feature service {service!r} here; this server has {own!r}")


def _questions(app: FastAPI, answering: Answering, faces: Faces) -> None:
    told = refusals(401, 404, 413, 422, 429, 503)

    @app.post("/v1/{service}/features", response_model=bodies.Features | bodies.FeatureColumns, responses=told)
    async def features(service: str, ask: bodies.Question, request: Request) -> Response:
        """The features of one ask, or of several (`instances`), with the status of each value."""
        _known(answering, service)
        return _json(await answering.ask(faces.asked(ask, request.state.client, predicts=False)))

    @app.post("/v1/{service}/predict", response_model=bodies.Prediction | bodies.Predictions, responses=told)
    async def predict(service: str, ask: bodies.Question, request: Request) -> Response:
        """The model's prediction for one ask, or for several (`instances`)."""
        _known(answering, service)
        return _json(await answering.ask(faces.asked(ask, request.state.client, predicts=True)))

    @app.post("/invocations", response_model=bodies.Invoked, responses=refusals(401, 413, 422, 429, 503))
    async def invocations(body: bodies.Invocation, request: Request) -> Response:
        """Predictions, asked for as an MLflow scoring server is."""
        return _json(await answering.ask(faces.invoked(body, request.state.client)))


def _inference(app: FastAPI, answering: Answering, faces: Faces) -> None:
    def known(name: str, version: str | None = None) -> str:
        _known(answering, name)
        model = answering.model
        here = (model.model_id or model.digest) if model else ""
        if model is None or version not in (None, here):
            raise Unanswered(404, "unknown_version", f"no version {version!r} of {name} here; there is {here!r}")
        return here

    @app.get("/v2")
    async def server_metadata() -> dict[str, Any]:
        """What this server is, by the Open Inference Protocol."""
        return {"name": "skewguard", "version": "1", "extensions": []}

    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        """The process answers."""
        return {"live": True}

    @app.get("/v2/health/ready", responses=refusals(503))
    async def ready() -> dict[str, bool]:
        """As /readyz."""
        await answering.check()
        return {"ready": True}

    @app.get("/v2/models/{name}", response_model=bodies.ModelMetadata, responses=refusals(404))
    @app.get("/v2/models/{name}/versions/{version}", response_model=bodies.ModelMetadata, responses=refusals(404))
    async def metadata(name: str, version: str | None = None) -> Any:
        """The model's version and tensors."""
        return metadata_of(answering.bundle, known(name, version))

    @app.get("/v2/models/{name}/ready", responses=refusals(404, 503))
    @app.get("/v2/models/{name}/versions/{version}/ready", responses=refusals(404, 503))
    async def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
        """The model answers."""
        known(name, version)
        await answering.check()
        return {"name": name, "ready": True}

    told = refusals(401, 404, 413, 422, 429, 503)

    @app.post("/v2/models/{name}/infer", response_model=bodies.InferenceResponse, responses=told)
    @app.post("/v2/models/{name}/versions/{version}/infer", response_model=bodies.InferenceResponse, responses=told)
    async def infer(name: str, body: bodies.InferenceRequest, request: Request, version: str | None = None) -> Response:
        """Predictions; entity keys and request fields come as tensors."""
        known(name, version)
        return _json(await answering.ask(faces.inferred(body, request.state.client)))


def _operations(app: FastAPI, answering: Answering) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/ping")
    async def ping() -> dict[str, str]:
        """The same, by MLflow's name."""
        return {"status": "ok"}

    @app.get("/readyz", responses=refusals(503))
    async def readyz() -> dict[str, str]:
        """The store holds every view, and the log can be written."""
        await answering.check()
        model = answering.model
        return {
            "status": "ready",
            "service": answering.bundle.service,
            "bundle": answering.bundle.digest,
            "model_digest": model.digest if model else "",
        }

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(answering.metrics.text(answering.deployed.log), media_type=CONTENT_TYPE_LATEST)


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _errors(app: FastAPI) -> None:
    def told(problem: Unanswered, more: dict[str, str] | None = None) -> Response:
        return Response(problem.body(), problem.status, problem.headers | (more or {}), MEDIA_TYPE)

    @app.exception_handler(Unanswered)
    async def unanswered(_: Request, problem: Unanswered) -> Response:
        return told(problem)

    @app.exception_handler(AskError)
    async def unclear_ask(_: Request, error: AskError) -> Response:
        return told(unclear(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        service = request.path_params.get("service") or request.path_params.get("name")
        own = app.state.answering.bundle.service
        if service is not None and service != own:  # whatever is wrong with what it was asked
            return told(
                Unanswered(404, "unknown_service", f"no feature service {service!r} here; this server has {own!r}")
            )
        if isinstance(error.body, bytes):  # not read as JSON, because it does not call itself that
            return told(_no_json("expected JSON with the header Content-Type: application/json"))
        # without the input: it may hold what JSON cannot say, and what a log should not
        return told(invalid([Wrong(_place(e["loc"]), e["type"], e["msg"]) for e in error.errors()]))

    @app.exception_handler(HTTPException)
    async def unreadable(_: Request, error: HTTPException) -> Response:
        if error.status_code == 400:  # FastAPI's word for JSON that Python gives up on: too deep, or too many digits
            return told(_no_json("expected JSON, nested no deeper and with no longer numbers than anybody needs"))
        code = {404: "unknown_path", 405: "unknown_method"}.get(error.status_code, "http_error")
        return told(Unanswered(error.status_code, code, str(error.detail)), dict(error.headers or {}))


def _place(loc: Sequence[str | int]) -> tuple[str | int, ...]:
    """Without the name of the model that was tried."""
    if len(loc) > 1 and loc[1] in ("one", "several"):
        return (loc[0], *loc[2:])
    return tuple(loc)


def _no_json(message: str) -> Unanswered:
    return invalid([Wrong(("body",), "json_invalid", message)])
