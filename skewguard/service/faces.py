"""The ways to put a question: our own, the Open Inference Protocol's, MLflow's. Each becomes one `Question`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from skewguard.definitions import Bundle
from skewguard.errors import AskError
from skewguard.service import answers, bodies
from skewguard.service.admission import Admission
from skewguard.service.answering import Answering, new_id
from skewguard.service.asks import instant_of
from skewguard.service.batching import Question
from skewguard.service.problems import Wrong, invalid
from skewguard.values import Dtype, instant

_FUTURE_US = 24 * 3600 * 1_000_000
"""How far ahead of the server's clock a request may place itself."""

_DATATYPES = {
    Dtype.FLOAT64: ("FP64", "FP32"),
    Dtype.FLOAT32: ("FP32", "FP64"),
    Dtype.INT64: ("INT64", "INT32"),
    Dtype.INT32: ("INT32", "INT64"),
    Dtype.BOOL: ("BOOL",),
    Dtype.STRING: ("BYTES",),
    Dtype.TIMESTAMP: ("BYTES",),
}


class Faces:
    """Bodies in, questions out; raises `AskError` or `Unanswered`."""

    def __init__(self, answering: Answering, admission: Admission) -> None:
        self._answering, self._admission = answering, admission

    def asked(self, body: bodies.Ask | bodies.Asks, client: str, *, predicts: bool) -> Question:
        """Our own body."""
        if isinstance(body, bodies.Asks):
            return self.several(body.instances, body.request_id, body.as_of, client, predicts=predicts)
        return self.one(body.entities, body.request_id, body.as_of, client, predicts=predicts)

    def one(
        self, entities: Mapping[str, Any], request_id: str | None, as_of: str | None, client: str, *, predicts: bool
    ) -> Question:
        """One ask."""
        self._admission.count(client, 1, "entities")
        encode = answers.one_prediction if predicts else answers.one_features
        now = self._answering.clock() if as_of is None else self._as_of(as_of)
        return Question([entities], request_id or new_id(), now, encode, predicts, "", client)

    def several(
        self,
        rows: Sequence[Mapping[str, Any]],
        request_id: str | None,
        as_of: str | None,
        client: str,
        *,
        predicts: bool,
    ) -> Question:
        """Several asks."""
        encode = answers.many_predictions if predicts else answers.many_features
        now = self._answering.clock() if as_of is None else self._as_of(as_of)
        return self._rows(rows, "instances", request_id, client, encode, predicts=predicts, as_of=now)

    def invoked(self, body: bodies.Invocation, client: str) -> Question:
        """MLflow's body."""
        rows, place = _frame(body)
        return self._rows(rows, place, None, client, answers.mlflow_predictions)

    def inferred(self, body: bodies.InferenceRequest, client: str) -> Question:
        """The Open Inference Protocol's body."""
        rows = _tensors(self._answering.bundle, body.inputs)
        return self._rows(rows, "inputs", body.id, client, answers.inference)

    def _rows(
        self,
        rows: Sequence[Mapping[str, Any]],
        place: str,
        request_id: str | None,
        client: str,
        encode: answers.Encode,
        *,
        predicts: bool = True,
        as_of: int | None = None,
    ) -> Question:
        if not rows:
            raise invalid([Wrong(("body", place), "too_short", "expected at least one ask")])
        self._admission.count(client, len(rows), place)
        now = self._answering.clock() if as_of is None else as_of
        return Question(rows, request_id or new_id(), now, encode, predicts, place, client)

    def _as_of(self, text: str) -> int:
        given = instant_of("as_of", text)
        us = self._answering.instant(given)
        now = self._answering.clock()
        if us > now + _FUTURE_US:
            raise AskError("as_of", f"{text!r:.60} lies in the future; here it is {instant(now)}")
        return us


def _frame(body: bodies.Invocation) -> tuple[Sequence[Mapping[str, Any]], str]:
    """The rows of MLflow's body, and the member that holds them."""
    names = ("dataframe_split", "dataframe_records", "instances", "inputs")
    given = [name for name in names if getattr(body, name) is not None]
    if len(given) != 1:
        told = f"expected exactly one of {', '.join(names)}, got {', '.join(given) or 'none'}"
        raise invalid([Wrong(("body",), "value_error", told)])
    (place,) = given
    if body.dataframe_split is not None:
        columns = body.dataframe_split.columns
        _distinct(columns, place)
        for i, row in enumerate(body.dataframe_split.data):
            if len(row) != len(columns):
                told = f"expected {len(columns)} values, one per column, got {len(row)}"
                raise invalid([Wrong(("body", place, "data", i), "value_error", told)])
        return [dict(zip(columns, row, strict=True)) for row in body.dataframe_split.data], place
    if isinstance(body.inputs, dict):
        return _transposed(body.inputs, place), place
    return getattr(body, place), place


def _transposed(columns: Mapping[str, Sequence[Any]], place: str) -> list[dict[str, Any]]:
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        told = f"expected as many values of each, got {', '.join(f'{n}: {len(v)}' for n, v in columns.items())}"
        raise invalid([Wrong(("body", place), "value_error", told)])
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _distinct(names: Sequence[str], place: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise invalid([Wrong(("body", place), "value_error", f"{', '.join(twice)}: given more than once")])


def _tensors(bundle: Bundle, inputs: Sequence[bodies.InferenceInput]) -> list[dict[str, Any]]:
    known = bundle.keys | {field.name: field.dtype for field in bundle.request}
    _distinct([one.name for one in inputs], "inputs")
    columns: dict[str, Sequence[Any]] = {}
    for i, one in enumerate(inputs):
        allowed = _DATATYPES[known[one.name]] if one.name in known else (one.datatype,)
        if one.datatype not in allowed:
            told = f"{one.name}: expected datatype {allowed[0]}, got {one.datatype!r:.60}"
            raise invalid([Wrong(("body", "inputs", i, "datatype"), "value_error", told)])
        values = one.data
        if len(one.shape) == 2 and one.shape[1] == 1 and all(isinstance(v, list) and len(v) == 1 for v in values):
            values = [value[0] for value in values]
        if one.shape not in ([len(values)], [len(values), 1]):
            told = f"{one.name}: expected shape [n] or [n, 1] of n values, got {one.shape!r:.60} of {len(values)}"
            raise invalid([Wrong(("body", "inputs", i, "shape"), "value_error", told)])
        columns[one.name] = values
    return _transposed(columns, "inputs")


def metadata_of(bundle: Bundle, version: str) -> bodies.ModelMetadata:
    """What the Open Inference Protocol says of a model."""
    known = bundle.keys | {field.name: field.dtype for field in bundle.request}
    return bodies.ModelMetadata(
        name=bundle.service,
        versions=[version],
        platform="skewguard",
        inputs=[bodies.Tensor(name=name, datatype=_DATATYPES[dtype][0], shape=[-1]) for name, dtype in known.items()],
        outputs=[bodies.Tensor(name="prediction", datatype="FP64", shape=[-1])],
    )
