"""What a body may say, and what an answer says: the models behind OpenAPI, and their quick counterpart."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

MOST_ROWS = 1000
"""Asks in one request, unless a server is told otherwise."""

RequestId = Annotated[str, Field(min_length=1, max_length=128)]


class _About(BaseModel):
    model_config = ConfigDict(extra="forbid")

    request_id: RequestId | None = None
    as_of: str | None = Field(
        default=None,
        description="Accepted only where the server is configured to replay history.",
        json_schema_extra={"format": "date-time"},  # read as a request field is
    )


class Ask(_About):
    """Who is asked about."""

    entities: dict[str, Any] = Field(description="Entity keys and request fields, side by side.")


class Asks(_About):
    """Several asks, as of one instant; the row of the i-th is logged as `request_id-i`."""

    instances: list[dict[str, Any]] = Field(min_length=1, description="Entity keys and request fields of each ask.")


def _which(body: Any) -> str:
    several = "instances" in body if isinstance(body, dict) else isinstance(body, Asks)
    return "several" if several else "one"


Question = Annotated[Annotated[Ask, Tag("one")] | Annotated[Asks, Tag("several")], Discriminator(_which)]


class QuickBody(msgspec.Struct, forbid_unknown_fields=True):
    """`Ask` or `Asks`, read ten times as fast; what does not fit is read again by the models, which say why."""

    entities: dict[str, Any] | None = None
    instances: list[dict[str, Any]] | None = None
    request_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    as_of: str | None = None


class Features(BaseModel):
    """The features of one ask. A value is null where its status is not `present`, and "Infinity" where it is that."""

    request_id: str
    service: str
    as_of: str
    features: dict[str, Any]
    statuses: dict[str, str]


class FeatureColumns(BaseModel):
    """The features of several asks: per feature a value for each ask, per ask the status of what is missing."""

    request_id: str
    service: str
    as_of: str
    features: dict[str, list[Any]]
    missing: list[dict[str, str]]


class Prediction(BaseModel):
    """A prediction and what it rests on. `missing` names the features without a value, with their status."""

    request_id: str
    service: str
    as_of: str
    prediction: float
    model_id: str
    model_digest: str
    missing: dict[str, str]


class Predictions(BaseModel):
    """Predictions and what they rest on, in the order of the asks."""

    request_id: str
    service: str
    as_of: str
    predictions: list[float]
    model_id: str
    model_digest: str
    missing: list[dict[str, str]]


class WrongPlace(BaseModel):
    """One thing that is wrong with a request."""

    loc: list[str | int]
    type: str
    msg: str


class Problem(BaseModel):
    """Why there is no answer (RFC 9457). `errors` names each thing that is wrong with a request."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[WrongPlace] | None = None


# -- the Open Inference Protocol, version 2 ----------------------------------------------------------------------------


class InferenceInput(BaseModel):
    """A tensor of n values: an entity key or a request field of each of n asks."""

    name: str
    shape: list[int] = Field(description="[n] or [n, 1]")
    datatype: str = Field(description="BOOL, INT32, INT64, FP32, FP64 or BYTES; instants are BYTES, ISO texts")
    parameters: dict[str, Any] | None = None
    data: list[Any]


class InferenceRequest(BaseModel):
    """n asks, a tensor per key and request field."""

    id: RequestId | None = None
    parameters: dict[str, Any] | None = None
    inputs: list[InferenceInput] = Field(min_length=1)
    outputs: list[dict[str, Any]] | None = None


class Tensor(BaseModel):
    """What a model takes or gives, by name."""

    name: str
    datatype: str
    shape: list[int]


class InferenceOutput(Tensor):
    """A tensor of predictions."""

    data: list[float]


class InferenceResponse(BaseModel):
    """A prediction per ask."""

    model_name: str
    model_version: str
    id: str
    outputs: list[InferenceOutput]


class ModelMetadata(BaseModel):
    """A model and its tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


# -- MLflow's scoring server -------------------------------------------------------------------------------------------


class Split(BaseModel):
    """A data frame as pandas' `orient="split"` writes it."""

    columns: list[str]
    data: list[list[Any]]
    index: list[Any] | None = None


class Invocation(BaseModel):
    """Exactly one of the four ways in which MLflow's clients write rows."""

    model_config = ConfigDict(extra="forbid")

    dataframe_split: Split | None = None
    dataframe_records: list[dict[str, Any]] | None = None
    instances: list[dict[str, Any]] | None = None
    inputs: dict[str, list[Any]] | list[dict[str, Any]] | None = None
    params: dict[str, Any] | None = None


class Invoked(BaseModel):
    """A prediction per row."""

    predictions: list[float]
    request_id: str
