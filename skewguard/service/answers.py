"""From an answered micro-batch to the JSON of each request in it, in bytes.

Statuses repeat: the JSON of a row's statuses is made once per distinct row of status bytes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from skewguard.answer import Served
from skewguard.definitions import Bundle
from skewguard.model import Model
from skewguard.values import Column, Dtype, Status, instant

NAMES = [status.name.lower() for status in Status]
_REMEMBERED = 4096
"""How many different rows of statuses are remembered; then all are forgotten."""


class Wording:
    """What the answers of one bundle have in common."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        at = {name: i for i, name in enumerate(bundle.dtypes)}
        self.outputs = list(bundle.outputs)
        self.output_at = [at[name] for name in bundle.outputs]
        self._vector_at = [(name, at[name]) for name in bundle.vector]
        self.only_floats = bundle.vector == bundle.outputs and {bundle.dtypes[n] for n in bundle.outputs} == {
            Dtype.FLOAT64
        }
        self.service = orjson.dumps(bundle.service)
        self.write = _writer(self.outputs)
        self._statuses: dict[bytes, bytes] = {}
        self._missing: dict[bytes, bytes] = {}
        self._absent: dict[bytes, bytes] = {}
        self.present = self.statuses(bytes(len(bundle.dtypes)))

    def statuses(self, row: bytes) -> bytes:
        """JSON of the status of each output; `row` holds a status byte per feature of `Bundle.dtypes`."""
        return _remembered(
            self._statuses,
            row,
            lambda: {name: NAMES[row[i]] for name, i in zip(self.outputs, self.output_at, strict=True)},
        )

    def missing(self, row: bytes) -> bytes:
        """JSON of the status of those features of the vector that have no value."""
        return _remembered(
            self._missing,
            row,
            lambda: {name: NAMES[row[i]] for name, i in self._vector_at if row[i] > Status.DEFAULTED},
        )

    def absent(self, row: bytes) -> bytes:
        """JSON of the status of those outputs that have no value."""
        return _remembered(
            self._absent,
            row,
            lambda: {
                name: NAMES[row[i]]
                for name, i in zip(self.outputs, self.output_at, strict=True)
                if row[i] > Status.DEFAULTED
            },
        )


def _writer(names: Sequence[str]) -> Callable[[Sequence[Any]], bytes]:
    """What writes an object of these members from a row of their values: twice as fast as by way of a dictionary."""
    fields = [(f"v{i}", Any) for i in range(len(names))]
    renamed = {f"v{i}": name for i, name in enumerate(names)}
    try:
        row = msgspec.defstruct("Row", fields, rename=renamed, gc=False)
    except ValueError:  # a name that JSON has to escape
        return lambda values: orjson.dumps(dict(zip(names, values, strict=True)))
    encode = msgspec.json.Encoder().encode
    return lambda values: encode(row(*values))


def _remembered(known: dict[bytes, bytes], key: bytes, make: Callable[[], Any]) -> bytes:
    found = known.get(key)
    if found is None:
        if len(known) >= _REMEMBERED:
            known.clear()
        made: bytes = orjson.dumps(make())
        known[key] = made
        return made
    return found


@dataclass(frozen=True)
class Answers:
    """An answered micro-batch. `statuses` uint8 (n, features of `Bundle.dtypes`), C-contiguous."""

    wording: Wording
    served: Served
    statuses: npt.NDArray[np.uint8]
    model: Model | None

    @cached_property
    def lacking(self) -> list[int]:
        """The rows, in order, of which not every value is present."""
        block = self.served.only_block(self.wording.bundle)
        by_feature = self.statuses.T if block is None else block.statuses
        rows: list[int] = np.flatnonzero(np.maximum.reduce(by_feature, axis=0, initial=0)).tolist()
        return rows

    @cached_property
    def worst(self) -> int:
        """The least present status of all."""
        return int(self.statuses[self.lacking].max()) if self.lacking else 0

    @cached_property
    def rows(self) -> Sequence[Sequence[Any]]:
        """Plain values of the outputs, row by row."""
        if self.wording.only_floats and not self._infinite:
            rows: list[list[Any]] = self.served.vector.tolist()
            return rows
        columns = [_listed(column) for column in self.columns(0, len(self.served.spine))]
        return list(zip(*columns, strict=True)) if columns else [()] * len(self.served.spine)

    def columns(self, start: int, stop: int) -> list[Any]:
        """Values of the outputs in some rows, as orjson takes them, column by column."""
        bundle, served, infinite = self.wording.bundle, self.served, self._infinite
        block = served.only_block(bundle) if self.wording.only_floats and bundle.straight and not infinite else None
        if block is not None:
            return list(block.matrix[:, start:stop])
        columns: list[Any] = []
        for name in self.wording.outputs:
            column = served.feature(bundle, name)
            if column.dtype.is_float:  # no value is NaN, which becomes null
                values = column.values[start:stop]
                if infinite or column.dtype is not Dtype.FLOAT64:
                    columns.append([_finite(value) for value in values.tolist()])
                else:
                    columns.append(values)
            else:
                columns.append(_plain(column, slice(start, stop)))
        return columns

    @cached_property
    def _infinite(self) -> bool:
        return bool(np.isinf(self.served.vector).any())

    @cached_property
    def predictions(self) -> list[float]:
        """One per row."""
        given = self.served.prediction
        return [] if given is None else given.tolist()

    def row_statuses(self, row: int) -> bytes:
        """The status bytes of one row."""
        width = self.statuses.shape[1]
        return self._status_bytes[row * width : (row + 1) * width]

    @cached_property
    def _status_bytes(self) -> bytes:
        return self.statuses.tobytes()

    def head(self, request_id: str, row: int) -> bytes:
        """What every answer begins with."""
        return b'{"request_id":%b,"service":%b,"as_of":"%b",' % (
            orjson.dumps(request_id),
            self.wording.service,
            _instant(int(self.served.spine.as_of[row])),
        )


def _plain(column: Column, rows: slice) -> list[Any]:
    """What JSON says of each value, null where there is none."""
    values: list[Any]
    if column.dtype is Dtype.TIMESTAMP:
        values = [instant(us) for us in column.values[rows].view("int64").tolist()]
    else:
        values = column.values[rows].tolist()
    if not column.status[rows].any():
        return values
    return [value if ok else None for value, ok in zip(values, column.present[rows].tolist(), strict=True)]


def _listed(column: Any) -> list[Any]:
    listed: list[Any] = column.tolist() if isinstance(column, np.ndarray) else column
    return listed


def _instant(us: int) -> bytes:
    """As `values.instant`, whose second is the same for many."""
    second, fraction = divmod(us, 1_000_000)
    text = _second(second)
    return b"%b.%06dZ" % (text, fraction) if fraction else text + b"Z"


@lru_cache(16)
def _second(seconds: int) -> bytes:
    return instant(seconds * 1_000_000).removesuffix("Z").encode()


def _finite(value: float) -> float | str:
    """JSON has no number for infinity."""
    return value if not math.isinf(value) else "Infinity" if value > 0 else "-Infinity"


Encode = Callable[[Answers, str, int, int], bytes]
"""The body of one request: the batch, the request's id, its first row and the row after its last."""


def one_features(answers: Answers, request_id: str, start: int, _: int) -> bytes:
    """The features of one ask."""
    said = answers.wording
    values = said.write(answers.rows[start])
    statuses = said.statuses(answers.row_statuses(start)) if answers.lacking else said.present
    return answers.head(request_id, start) + b'"features":%b,"statuses":%b}' % (values, statuses)


def many_features(answers: Answers, request_id: str, start: int, stop: int) -> bytes:
    """The features of several asks, column by column."""
    said = answers.wording
    columns = answers.columns(start, stop)
    values = orjson.dumps(dict(zip(said.outputs, columns, strict=True)), option=orjson.OPT_SERIALIZE_NUMPY)
    lacking = answers.lacking
    missing = [b"{}"] * (stop - start)
    for row in lacking[bisect_left(lacking, start) : bisect_left(lacking, stop)]:
        missing[row - start] = said.absent(answers.row_statuses(row))
    absent = b",".join(missing)
    return b"".join((answers.head(request_id, start), b'"features":', values, b',"missing":[', absent, b"]}"))


def one_prediction(answers: Answers, request_id: str, start: int, _: int) -> bytes:
    """The prediction for one ask."""
    missing = answers.wording.missing(answers.row_statuses(start))
    return answers.head(request_id, start) + b'"prediction":%b,%b,"missing":%b}' % (
        orjson.dumps(answers.predictions[start]),
        _named(answers.model),
        missing,
    )


def many_predictions(answers: Answers, request_id: str, start: int, stop: int) -> bytes:
    """The predictions for several asks, in their order."""
    missing = b",".join(answers.wording.missing(answers.row_statuses(row)) for row in range(start, stop))
    return answers.head(request_id, start) + b'"predictions":%b,%b,"missing":[%b]}' % (
        orjson.dumps(answers.predictions[start:stop]),
        _named(answers.model),
        missing,
    )


def mlflow_predictions(answers: Answers, request_id: str, start: int, stop: int) -> bytes:
    """As an MLflow scoring server answers."""
    return b'{"predictions":%b,"request_id":%b}' % (
        orjson.dumps(answers.predictions[start:stop]),
        orjson.dumps(request_id),
    )


def inference(answers: Answers, request_id: str, start: int, stop: int) -> bytes:
    """As the Open Inference Protocol answers."""
    model = answers.model
    return orjson.dumps(
        {
            "model_name": answers.wording.bundle.service,
            "model_version": (model.model_id or model.digest) if model else "",
            "id": request_id,
            "outputs": [
                {
                    "name": "prediction",
                    "shape": [stop - start],
                    "datatype": "FP64",
                    "data": answers.predictions[start:stop],
                }
            ],
        }
    )


def _named(model: Model | None) -> bytes:
    if model is None:
        return b'"model_id":null,"model_digest":null'
    return b'"model_id":%b,"model_digest":%b' % (orjson.dumps(model.model_id), orjson.dumps(model.digest))
