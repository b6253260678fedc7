"""The bare HTTP floor: a plain route in a FastAPI application that reads a body, runs a small transform on a row that
it has already, and answers as much JSON as a prediction. No store, no model, no log.

    uvicorn benchmarks.serving.floor:app
"""

from __future__ import annotations

import msgspec
import numpy as np
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.serving.world import MODEL_WIDTH

_ROW = np.random.default_rng(0).normal(size=(1, MODEL_WIDTH))
_decode = msgspec.json.Decoder(dict).decode


async def _predict(request: Request) -> Response:
    body = _decode(await request.body())
    row = _ROW.copy()
    row[:, 0] = np.log1p(np.abs(row[:, 1])) + np.sqrt(np.abs(row[:, 2]))
    row[:, 3] = row[:, 4] / (row[:, 5] + 10.0)
    answer = {
        "request_id": "0" * 32,
        "service": "floor",
        "as_of": "2026-01-01T00:00:00.000000Z",
        "prediction": row[0, 0].item(),
        "model_id": "m-" + "1" * 32,
        "model_digest": "0" * 64,
        "missing": {},
        "of": body["entities"]["id"],
    }
    return Response(msgspec.json.encode(answer), media_type="application/json")


async def _ready(_: Request) -> Response:
    return Response(b"{}")


app = FastAPI(routes=[Route("/predict", _predict, methods=["POST"]), Route("/readyz", _ready)])
