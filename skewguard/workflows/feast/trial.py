"""Somebody's own on-demand code, run by the calls that Feast makes: offline and online, alone and in a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa
from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.type_map import python_values_to_proto_values
from feast.utils import _augment_response_with_on_demand_transforms, _populate_result_rows_from_columnar

from skewguard.transforms.frame import run_frame
from skewguard.workflows.feast.inputs import Input

Row = dict[str, Any]
Rows = list[Row]
Way = Callable[[Rows], Rows]
_TRIED = 48
_MANY = 1500
"""Rows of the largest batch: what asks how large a batch is mostly asks for less."""


def counterexample(view: Any, inputs: Sequence[Input], names: Sequence[str]) -> tuple[str, int]:
    """The first that shows, in words, with the smallest rows (empty where none does), and how many rows were tried.

    A row that has another value online than offline, or in a batch than alone; or that raises, and so takes its batch
    along.
    """
    ways: dict[str, Way] = {"offline": lambda rows: _offline(view, inputs, rows)}
    if not view.write_to_online_store:  # else they are computed when they are written
        ways["online"] = lambda rows: _online(view, inputs, names, rows)
    rows = _rows(inputs)
    nulls = [{**rows[at], one.name: None} for one in inputs for at in (0, 1)]
    trial = _Trial(ways, list(names), inputs)
    found = next(trial.objections(rows), "")
    if not found:
        found = next(trial.objections([*rows[:4], *nulls]), "")
        found += " (with a null)" if found else ""
    return found, len(rows) + len(nulls)


def disagreement(view: Any, inputs: Sequence[Input], functions: dict[str, str]) -> str:
    """Where the body of a view that names its functions gives something else than they give; empty where nowhere."""

    def functions_alone(rows: Rows) -> Rows:
        columns = {one.name: [row[one.name] for row in rows] for one in inputs}
        return _as_rows(run_frame(functions.values(), columns), len(rows))

    ways: dict[str, Way] = {"the functions": functions_alone, "the body": lambda rows: _offline(view, inputs, rows)}
    rows = _rows(inputs)
    return next(_Trial(ways, list(functions), inputs).objections([*rows, {one.name: None for one in inputs}]), "")


def _rows(inputs: Sequence[Input]) -> Rows:
    return [
        {one.name: one.pool[(row * (2 * i + 1)) % len(one.pool)] for i, one in enumerate(inputs)}
        for row in range(_TRIED)
    ]


# -- Feast's two ways ----------------------------------------------------------------------------------------------


def _offline(view: Any, inputs: Sequence[Input], rows: Rows) -> Rows:
    """As get_historical_features does: the source's values, one call for all rows."""
    table = pa.table({one.name: pa.array([row[one.name] for row in rows], one.arrow) for one in inputs})
    made = view.transform_arrow(table)
    return _as_rows({name: made[name].to_pylist() for name in made.column_names}, len(rows))


def _online(view: Any, inputs: Sequence[Input], names: Sequence[str], rows: Rows) -> Rows:
    """As get_online_features does: values as the online store holds them, outputs cast to what is declared."""
    types = {one.name: one.field.dtype.to_value_type() for one in inputs}
    stored = {name: python_values_to_proto_values([row[name] for row in rows], kind) for name, kind in types.items()}
    response = GetOnlineFeaturesResponse(results=[])
    _populate_result_rows_from_columnar(response, stored)
    known_as = view.projection.name_alias or view.name
    refs = [f"{known_as}:{name}" for name in names]
    _augment_response_with_on_demand_transforms(response, refs, [view], full_feature_names=False, feature_types=types)
    answer = OnlineResponse(response, feature_types=types).to_dict()
    missing = [name for name in names if name not in answer]
    if missing:
        raise KeyError(f"{', '.join(missing)} is not in Feast's answer")
    return _as_rows({name: answer[name] for name in names}, len(rows))


def _as_rows(columns: dict[str, list[Any]], count: int) -> Rows:
    for name, values in columns.items():
        if len(values) != count:
            raise ValueError(f"{name} has {len(values)} values for {count} rows")
    return [{name: values[row] for name, values in columns.items()} for row in range(count)]


# -- what differs --------------------------------------------------------------------------------------------------


class _Trial:
    """The rows that were tried, each way."""

    def __init__(self, ways: dict[str, Way], names: list[str], inputs: Sequence[Input]) -> None:
        self.ways, self.names, self.inputs = ways, names, inputs

    def objections(self, rows: Rows) -> Iterator[str]:
        """What can be said against the view, the worst first."""
        alone = {way: [self._tried(way, [row]) for row in rows] for way in self.ways}
        failed = {way: [i for i, got in enumerate(answers) if isinstance(got, str)] for way, answers in alone.items()}
        for way, indices in failed.items():
            if len(indices) == len(rows):
                yield f"{way} it {alone[way][0]}, whatever the row, such as {_shown(rows[0])}"
        fine = [i for i in range(len(rows)) if not any(i in indices for indices in failed.values())]
        first = next(iter(self.ways))
        for i in fine:
            for way in self.ways:
                for name in self.names:
                    if self._differs(name, first, way, rows[i]):
                        row = self._plainer(rows[i], partial(self._differs, name, first, way))
                        one, other = (self._tried(each, [row])[0].get(name) for each in (first, way))
                        yield f"{name} is {one!r} {first}, {other!r} {way}, for example for {_shown(row)}"
        for way in self.ways:
            yield from self._together(way, [rows[i] for i in fine])
        for way, indices in failed.items():
            for i in indices[:1]:
                row = self._plainer(rows[i], partial(self._fails, way))
                yield f"{way} it {self._tried(way, [row])}, for example for {_shown(row)}"

    def _tried(self, way: str, rows: Rows) -> Any:
        """The rows that come back, or what is raised."""
        try:
            got = self.ways[way](rows)
        except Exception as error:  # noqa: BLE001  (whatever somebody's own code raises is the finding)
            said = str(error).splitlines()
            return f"raises {type(error).__name__}: {said[0] if said else ''}"
        missing = [name for name in self.names if name not in (got[0] if got else {})]
        return f"gives no {', '.join(missing)}" if missing else got

    def _fails(self, way: str, row: Row) -> bool:
        return isinstance(self._tried(way, [row]), str)

    def _differs(self, name: str, way: str, other: str, row: Row) -> bool:
        got = [self._tried(each, [row]) for each in (way, other)]
        return not any(isinstance(one, str) for one in got) and not _equal(got[0][0][name], got[1][0][name])

    def _plainer(self, row: Row, shows: Callable[[Row], bool]) -> Row:
        """The row with the plainest values that still show it."""
        for one in self.inputs:
            for value in one.pool[:8]:
                if row[one.name] is None or value == row[one.name]:
                    break
                tried = {**row, one.name: value}
                if shows(tried):
                    row = tried
                    break
        return row

    def _together(self, way: str, rows: Rows) -> Iterator[str]:
        """A row whose value the rows beside it change, with as few of them as show it."""
        pairs = [rows[i : i + 2] for i in range(len(rows) - 1)]
        many = [rows[i % len(rows)] for i in range(_MANY)] if rows else []
        for batch in (*pairs, rows, many):
            if said := self._changed(way, batch):
                least = self._fewer(way, batch)
                yield self._changed(way, least) or said
                return

    def _changed(self, way: str, batch: Rows) -> str:
        if len(batch) < 2:
            return ""
        got = self._tried(way, batch)
        beside = f" beside {_shown(batch[1])}" if len(batch) == 2 else ""
        if isinstance(got, str):
            return f"{way} it {got} in a batch of {len(batch)}, not for one; the first is {_shown(batch[0])}{beside}"
        seen: dict[str, Any] = {}
        for position, row in enumerate(batch):
            key = _shown(row)
            if key not in seen:
                seen[key] = self._tried(way, [row])[0]
            for name in self.names:
                if not _equal(got[position][name], seen[key][name]):
                    beside = f" beside {_shown(batch[1 - position])}" if len(batch) == 2 else ""
                    return (
                        f"{way}, {name} of {key} is {seen[key][name]!r} alone and {got[position][name]!r} in a batch "
                        f"of {len(batch)}{beside}"
                    )
        return ""

    def _fewer(self, way: str, batch: Rows) -> Rows:
        """The shortest beginning that shows it, then without every row that it does not need."""
        short, long = 0, len(batch)
        while long - short > 1:
            middle = (short + long) // 2
            short, long = (short, middle) if self._changed(way, batch[:middle]) else (middle, long)
        batch = batch[:long]
        at = len(batch) - 1 if len(batch) <= _TRIED else -1
        while at >= 0:
            rest = batch[:at] + batch[at + 1 :]
            batch = rest if self._changed(way, rest) else batch
            at -= 1
        return batch


def _equal(a: Any, b: Any) -> bool:
    gone_a, gone_b = (value is None or (isinstance(value, float) and math.isnan(value)) for value in (a, b))
    if gone_a or gone_b:
        return gone_a == gone_b
    if isinstance(a, datetime) and isinstance(b, datetime):
        a, b = (value if value.tzinfo else value.replace(tzinfo=UTC) for value in (a, b))
    return bool(a == b)


def _shown(row: Row) -> str:
    return ", ".join(
        f"{name}={value.isoformat() if hasattr(value, 'isoformat') else repr(value)}" for name, value in row.items()
    )
