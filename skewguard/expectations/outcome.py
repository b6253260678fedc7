"""From failed expectations to findings: each says what was expected, what came, in how many rows, and where."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skewguard.expectations.parquet import ParquetFile
from skewguard.expectations.suite import Suite
from skewguard.expectations.wording import expected, shown
from skewguard.findings import Example, Finding, Kind

EXISTENCE = "expect_column_to_exist"
TYPES = ("expect_column_values_to_be_of_type", "expect_column_values_to_be_in_type_list", "expect_column_type_to_be")
_NAMED = 12
_VALUES = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """The expectation at `index` failed. `rows` is None where it speaks of the column or table as a whole.

    `values` and `numbers` (of rows, in the file) are examples; `observed` is what was found as a whole; `error` says
    why it could not be evaluated at all.
    """

    index: int
    rows: int | None = None
    of: int = 0
    values: tuple[Any, ...] = ()
    numbers: tuple[int, ...] = ()
    observed: str = ""
    error: str = ""


def named_columns(one: Suite) -> list[str]:
    """The columns that an expectation's arguments name."""
    kwargs = one["kwargs"]
    names = [kwargs[name] for name in ("column", "column_A", "column_B") if isinstance(kwargs.get(name), str)]
    return [*names, *(kwargs.get("column_list") or [])]


class Outcome:
    """What one suite came to on one file. `prefix` is the view's name for a source, empty for a snapshot."""

    def __init__(self, file: ParquetFile, suite: Suite, prefix: str) -> None:
        self._file = file
        self._suite = suite
        self._prefix = prefix
        about = _about(suite)
        self._keys = [str(name) for name in about.get("keys") or []]
        self._as_of = str(about.get("as_of") or "")
        self._id = str(about.get("id") or "")

    def findings(self, failures: Sequence[Failure], absent: Mapping[str, int]) -> list[Finding]:
        """Findings in the suite's order.

        `absent` names columns that are not there, each with the first expectation that wants it. Such a column is one
        finding; so is a column of another type, and what else fails on it has to wait until the type is right.
        """
        missing = dict(absent)
        mistyped: set[str] = set()
        for failure in failures:
            one = self._one(failure)
            if one["type"] == EXISTENCE:
                missing.setdefault(one["kwargs"]["column"], failure.index)
            elif one["type"] in TYPES:
                mistyped.add(one["kwargs"]["column"])
        found = [(index, self._missing(column, index)) for column, index in missing.items()]
        places = self._places(failures)
        for failure in failures:
            one = self._one(failure)
            waits = one["type"] not in TYPES and mistyped.intersection(named_columns(one))
            if one["type"] != EXISTENCE and not waits:
                found.append((failure.index, self._finding(one, failure, places)))
        return [finding for _, finding in sorted(found, key=lambda pair: pair[0])]

    def _one(self, failure: Failure) -> Suite:
        one: Suite = self._suite["expectations"][failure.index]
        return one

    def _finding(self, one: Suite, failure: Failure, places: Mapping[int, Mapping[str, Any]]) -> Finding:
        path = self._file.path
        wish = expected(one["type"], one["kwargs"])
        column = one["kwargs"].get("column")
        if isinstance(column, str) and not self._feature(one).endswith(column):
            wish += f" (column {column})"
        if failure.error:
            return self._whole(one, f"expected {wish}, could not be evaluated on {path}: {failure.error}")
        if one["type"] in TYPES:
            return self._mistyped(one)
        if failure.rows is None:
            return self._whole(one, f"expected {wish}, got {failure.observed}; in {path}.")
        examples = tuple(
            self._example(one, v, n, places) for v, n in zip(failure.values, failure.numbers, strict=False)
        )
        got = list(dict.fromkeys(example.served for example in examples)) or [shown(value) for value in failure.values]
        place = "column" in one["kwargs"] and examples and examples[0].as_of  # else the values say where it is
        first = f"; first at {examples[0].keys}, {examples[0].as_of}" if place else ""
        told = (
            f"{_dotted(self._feature(one))}: expected {wish}, got {' / '.join(got[:_VALUES]) or 'another value'} in "
            f"{failure.rows:,} of {failure.of:,} rows{first}; in {path}."
        )
        return Finding(Kind.EXPECTATION, self._feature(one), failure.rows, failure.of, told, examples=examples)

    def _missing(self, column: str, index: int) -> Finding:
        one = self._suite["expectations"][index]
        names = self._file.names
        near = difflib.get_close_matches(column, names, n=1)
        listed = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
        hint = f"did you mean {near[0]}?" if near else f"the file has {listed}."
        dtype = _about(one).get("dtype")
        wanted = f"{column} ({dtype})" if dtype and one["kwargs"].get("column") == column else column
        return self._whole(one, f"expected a column {wanted} in {self._file.path}, found none; {hint}")

    def _mistyped(self, one: Suite) -> Finding:
        column = one["kwargs"]["column"]
        wanted = _about(one).get("dtype") or expected(one["type"], one["kwargs"]).removeprefix("type ")
        found = self._file.schema.field(column).type
        told = f"expected type {wanted} in column {column} of {self._file.path}, found {found}."
        return self._whole(one, f"{told} Write the file with that type, or declare the column's own.")

    def _whole(self, one: Suite, told: str) -> Finding:
        """About the column or table as a whole: every row shows it, and in a file without rows it still counts."""
        feature = self._feature(one)
        rows = self._file.rows
        return Finding(Kind.EXPECTATION, feature, max(rows, 1), rows, f"{_dotted(feature)}: {told}")

    def _feature(self, one: Suite) -> str:
        feature = _about(one).get("feature")
        if isinstance(feature, str) and feature:
            return feature
        parts = [self._prefix, *named_columns(one)[:1]] if "column" in one["kwargs"] else [self._prefix]
        return "__".join(part for part in parts if part) or self._file.path.stem

    def _places(self, failures: Sequence[Failure]) -> dict[int, dict[str, Any]]:
        """The rows that are shown as examples: what tells them from their neighbours, and the values in question."""
        numbers = sorted({number for failure in failures for number in failure.numbers})
        columns = [name for name in (self._id, self._as_of, *self._keys) if name]
        for failure in failures:
            columns += named_columns(self._one(failure))
        if not numbers or not columns:
            return {}
        return dict(zip(numbers, self._file.take(numbers, list(dict.fromkeys(columns))), strict=True))

    def _example(self, one: Suite, value: Any, number: int, places: Mapping[int, Mapping[str, Any]]) -> Example:
        row = places.get(number, {})
        keys = ", ".join(f"{name}={shown(row[name])}" for name in self._keys if name in row)
        as_of = shown(row[self._as_of]) if self._as_of in row else ""
        request = str(row[self._id]) if self._id in row else ""
        values = {name: row[name] for name in named_columns(one) if name in row} or value
        if "column" in one["kwargs"] and isinstance(values, dict):
            (values,) = values.values()  # as the file has it; pandas makes a float of an integer beside a null
        wish = f"expected {expected(one['type'], one['kwargs'])}"
        return Example(request, as_of, keys or f"row {number:,}", shown(values), wish)


def _about(one: Suite) -> Mapping[str, Any]:
    """What skewguard wrote into the meta of a suite or an expectation; somebody else's has none."""
    about = (one.get("meta") or {}).get("skewguard")
    return about if isinstance(about, Mapping) else {}


def _dotted(feature: str) -> str:
    return feature.replace("__", ".", 1)
