"""One request of anybody's service on its way into the log, tapped at three points: store, transforms, model input.

What is recorded is what the service has seen, whoever fetched it: nothing is looked up or computed here. A value that
the service had is PRESENT, whatever its age; one that it had not is NOT_FOUND where the store has no row, else NULL.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewguard.answer import Served, to_batch, vector
from skewguard.definitions import Bundle, View
from skewguard.errors import LogError
from skewguard.servinglog.given import LARGEST, column_of, is_text, is_whole, listed, mapping, named_columns, numbers_of
from skewguard.servinglog.taken import Taken, view_rows
from skewguard.spine import Spine, ViewRows
from skewguard.values import NO_TIME, Column, Dtype, Status

if TYPE_CHECKING:
    from skewguard.servinglog.writer import ServingLog

CLIENT = "client"
_T = TypeVar("_T")
_STAMP = "__ts"


class Recording:
    """The rows of one request. Use it as `with log.request(...) as rec:`; every method gives back what it was given.

    When `prediction` has returned, the rows are in the log; a request without a prediction is logged when the block
    ends, and one whose block raises is not logged: it was not answered. Raises `LogError`, with `on_failure="refuse"`,
    for what cannot be logged; with "answer_and_count" it is counted, whatever is wrong with it.
    """

    def __init__(  # noqa: PLR0917  (only `ServingLog.request` calls it)
        self,
        log: ServingLog,
        bundle: Bundle,
        request_id: str,
        keys: Mapping[str, Any],
        request: Mapping[str, Any],
        as_of: int | None,
        client: str | None,
    ) -> None:
        self._log, self._bundle, self._id, self._client = log, bundle, request_id, client
        self._as_of = time.time_ns() // 1000 if as_of is None else as_of
        self._given: dict[str, list[Any]] = {name: listed(value) for name, value in {**keys, **request}.items()}
        self._wrong: LogError | None = None
        if not is_text(request_id):
            self._refuse(LogError(f"request: expected the request's id as text, got {request_id!r:.80}."))
        if not is_whole(self._as_of):
            self._refuse(LogError(f"request {request_id}: as_of: expected microseconds UTC, got {as_of!r:.80}."))
        unknown = self._given.keys() - bundle.keys.keys() - {field.name for field in bundle.request}
        if unknown:
            names = ", ".join(sorted(map(str, unknown)))
            self._refuse(LogError(f"request {request_id}: {bundle.service} has no key or request field {names}."))
        self._answer: Mapping[str, Any] = {}
        self._statuses: Mapping[str, Sequence[int]] = {}
        self._micros: Mapping[str, Sequence[int]] = {}
        self._derived: dict[str, list[Any]] = {}
        self._input: Any = None
        self._done = False

    def store(self, response: _T) -> _T:
        """What the online store answered: Feast's `OnlineResponse`, or its `to_dict(include_event_timestamps=True)`.

        Features by short or full name, a list of n values each, `<name>__ts` in seconds. Of the response itself
        statuses are known too. On-demand features in it are the second tap.
        """
        try:
            self._take(response)
        except Exception as error:  # noqa: BLE001  (whatever a foreign answer does, it is the log's affair)
            self._refuse(self._told(error))
        return response

    def _take(self, response: Any) -> None:
        proto = getattr(response, "proto", None)
        if proto is None:
            self._answer = mapping(response)
            return
        self._answer = response.to_dict(include_event_timestamps=True)
        names = list(proto.metadata.feature_names.val)
        results = dict(zip(names, proto.results, strict=True))
        self._statuses = {name: list(one.statuses) for name, one in results.items()}
        self._micros = {
            name: [stamp.seconds * 1_000_000 + stamp.nanos // 1000 for stamp in one.event_timestamps]
            for name, one in results.items()
        }

    def transformed(self, values: _T) -> _T:
        """What transforms made of it, beyond what the store's answer holds: derived features by short or full name."""
        try:
            self._derived |= {name: listed(value) for name, value in mapping(values).items()}
        except Exception as error:  # noqa: BLE001  (as above)
            self._refuse(self._told(error))
        return values

    def model_input(self, matrix: _T) -> _T:
        """What enters the model: named columns (a data frame, a table, a mapping) or an array of shape (n, k) or (k,)
        in the order of `Bundle.vector`."""
        self._input = matrix
        return matrix

    def prediction(self, values: _T) -> _T:
        """What the model said, one number for each row; the rows are in the log when this returns."""
        self._log_rows(values)
        return values

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._done:
            self._log_rows(None)

    # -- the row -------------------------------------------------------------------------------------------------------

    def _log_rows(self, prediction: Any) -> None:
        if self._done:
            raise LogError(f"request {self._id}: logged already. A request has one prediction for each of its rows.")
        self._done = True
        if self._wrong is not None:
            self._log.missed(self._rows(), self._wrong)
            return
        try:
            batch = self._batch(prediction)
        except Exception as error:  # noqa: BLE001  (a row that cannot be built must not take its service along)
            self._log.missed(self._rows(), self._told(error))
            return
        self._log.append(batch)

    def _refuse(self, error: LogError) -> None:
        """Raise, or, where answers are counted, remember that this request is going to be missed."""
        if self._log.on_failure == "refuse":
            raise error
        self._wrong = self._wrong or error

    def _told(self, error: Exception) -> LogError:
        if isinstance(error, LogError):
            return error
        said = str(error)
        where = f"request {self._id}: "
        made = LogError(said if said.startswith(where) else f"{where}{said}")
        made.__cause__ = error
        return made

    def _batch(self, prediction: Any) -> pa.RecordBatch:
        bundle, n = self._bundle, self._rows()
        ids = [self._id] if n == 1 else [f"{self._id}-{i}" for i in range(n)]
        spine = Spine(
            np.array(ids, dtype=object),
            np.full(n, self._as_of, dtype=np.int64),
            {name: self._ask(name, dtype, n) for name, dtype in bundle.keys.items()},
            {field.name: self._ask(field.name, field.dtype, n) for field in bundle.request},
        )
        views = {view.name: self._view(view, n) for view in bundle.views}
        derived = {spec.full_name: self._derive(spec.full_name, spec.dtype, n) for spec in bundle.derived}
        served = Served(spine, views, derived, np.empty((0, 0)))
        matrix = vector(bundle, served) if self._input is None else self._matrix(n)
        numbers = None if prediction is None else numbers_of(prediction, n, f"request {self._id}: the prediction")
        served = Served(spine, views, derived, matrix, numbers)
        batch = to_batch(bundle, served, self._log.flat_schema)
        if CLIENT in self._log.schema.names:
            column = pa.array([self._client or ""] * n, pa.string())
            batch = pa.RecordBatch.from_arrays([*batch.columns, column], schema=self._log.schema)
        return batch

    def _rows(self) -> int:
        asked = [*self._bundle.keys, *(field.name for field in self._bundle.request)]
        lists = [self._given.get(name, self._answer.get(name, [None])) for name in asked]
        return max((len(values) for values in lists), default=1)

    def _names(self) -> Mapping[str, str]:
        return self._log.feature_names

    def _ask(self, name: str, dtype: Dtype, n: int) -> Column:
        values = self._given.get(name, self._answer.get(name))
        if values is None:
            raise LogError(f"request {self._id}: {name} is missing. Name it in keys= or request=, None if unknown.")
        return column_of(list(values) * n if len(values) == 1 < n else values, dtype, n, f"request {self._id}: {name}")

    def _view(self, view: View, n: int) -> ViewRows:
        taken = {}
        for feature in view.features:
            ref = self._ref(view.full_name(feature.name), feature.name)
            if ref is not None:
                column = column_of(self._answer[ref], feature.dtype, n, f"request {self._id}: {ref}")
                said = self._statuses.get(ref)
                taken[feature.name] = Taken(
                    column, self._event(ref, n), None if said is None else np.array(said, dtype=np.uint8)
                )
        return view_rows(view, taken, n)

    def _event(self, ref: str, n: int) -> npt.NDArray[np.int64] | None:
        """Event times in microseconds; Feast says 0 where there is none."""
        if ref in self._micros:
            micros = np.array(self._micros[ref], dtype=np.int64)
        elif (seconds := self._answer.get(ref + _STAMP)) is not None:
            exact = np.nan_to_num(np.array([one or 0 for one in seconds], dtype=np.float64)) * 1e6
            if (np.abs(exact) >= LARGEST).any():
                raise LogError(f"request {self._id}: {ref}{_STAMP}: expected seconds since 1970, got {seconds!r:.80}.")
            micros = exact.round().astype(np.int64)
        else:
            return None
        if len(micros) != n:
            raise LogError(
                f"request {self._id}: {ref}{_STAMP}: expected {n} times, one for each row, got {len(micros)}."
            )
        return np.where(micros > 0, micros, NO_TIME)

    def _derive(self, name: str, dtype: Dtype, n: int) -> Column:
        short = name.rpartition("__")[2]
        values = self._derived.get(name, self._derived.get(short))
        if values is None:
            ref = self._ref(name, short)
            if ref is None:
                return Column.absent(dtype, n, Status.NOT_REQUESTED)
            values = self._answer[ref]
        return column_of(values, dtype, n, f"request {self._id}: {name}")

    def _ref(self, full: str, short: str) -> str | None:
        """The name under which the answer holds a feature."""
        if full in self._answer:
            return full
        return short if short in self._answer and self._names().get(short) == full else None

    def _matrix(self, n: int) -> npt.NDArray[np.float64]:
        names = self._bundle.vector
        given = named_columns(self._input)
        where = f"request {self._id}: the model's input"
        if given is None:
            matrix = np.asarray(self._input, dtype=np.float64)
            if matrix.size != n * len(names) or (matrix.ndim == 2 and len(matrix) != n):
                raise LogError(f"{where}: expected {n} x {len(names)} numbers, got an array of shape {matrix.shape}.")
            return np.ascontiguousarray(matrix.reshape(n, len(names)))
        matrix = np.empty((n, len(names)), dtype=np.float64)
        known = {self._names().get(name, name): values for name, values in given.items()}
        odd = sorted(set(known) ^ set(names))
        if odd:
            raise LogError(
                f"{where}: expected the columns {', '.join(names)}; one side only has {', '.join(odd)}. "
                "Compile a feature service that holds what this model takes."
            )
        for i, name in enumerate(names):
            matrix[:, i] = numbers_of(known[name], n, f"{where}: {name}")
        return matrix


def short_names(bundle: Bundle) -> dict[str, str]:
    """Full names by every name that a feature may be called by: its own where no other feature has it, and the full."""
    full = list(bundle.dtypes)
    short = [name.rpartition("__")[2] for name in full]
    return {s: f for s, f in zip(short, full, strict=True) if short.count(s) == 1} | {name: name for name in full}
