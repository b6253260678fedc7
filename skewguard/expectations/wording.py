"""What an expectation wants, and what was found, in words. Knows the format, not the library."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

LONGEST = 60
"""Characters of a value that a message shows."""


def expected(type_: str, kwargs: Mapping[str, Any]) -> str:
    """What the expectation wants, as the end of a sentence that begins with 'expected'."""
    wish = _wish(type_, kwargs)
    if (mostly := kwargs.get("mostly")) is not None and mostly < 1:
        wish += f" in {mostly:.6g} of the rows"
    if (condition := kwargs.get("row_condition")) is not None:
        wish += f" where {_condition(condition)}"
    return wish


def _wish(type_: str, kwargs: Mapping[str, Any]) -> str:
    if type_ in _WISHES:
        return _WISHES[type_](kwargs)
    about = {name: value for name, value in kwargs.items() if name not in ("column", "row_condition", "mostly")}
    told = ", ".join(f"{name}={json.dumps(value, default=str)}" for name, value in sorted(about.items()))
    return type_.removeprefix("expect_").replace("_", " ") + (f" ({told})" if told else "")


def _range(kwargs: Mapping[str, Any]) -> str:
    low, high = (None if (end := kwargs.get(name)) is None else shown(end) for name in ("min_value", "max_value"))
    low, high = (end and end.removesuffix(".0") for end in (low, high))
    if low and high and not kwargs.get("strict_min") and not kwargs.get("strict_max"):
        return f"{low} to {high}"
    above = f"{'more than' if kwargs.get('strict_min') else 'at least'} {low}" if low else ""
    below = f"{'less than' if kwargs.get('strict_max') else 'at most'} {high}" if high else ""
    return " and ".join(part for part in (above, below) if part)


def _condition(condition: Any) -> str:
    if not isinstance(condition, Mapping):
        return str(condition)
    kind = condition.get("type")
    if kind == "comparison":
        return f"{condition['column']['name']} {condition['operator']} {shown(condition['parameter'])}"
    if kind == "nullity":
        return f"{condition['column']['name']} is {'' if condition['is_null'] else 'not '}null"
    if kind in ("and", "or"):
        return f" {kind} ".join(_condition(one) for one in condition["conditions"])
    return str(condition.get("pass_through_filter", condition))


def _listed(values: Sequence[Any], most: int = 8) -> str:
    told = ", ".join(shown(value) for value in values[:most])
    return told + (f" and {len(values) - most:,} more" if len(values) > most else "")


_WISHES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "expect_column_to_exist": lambda kwargs: f"a column {kwargs['column']}",
    "expect_column_values_to_not_be_null": lambda _: "no null",
    "expect_column_values_to_be_null": lambda _: "null only",
    "expect_column_values_to_be_between": _range,
    "expect_column_values_to_be_in_set": lambda kwargs: f"one of {_listed(kwargs['value_set'])}",
    "expect_column_values_to_not_be_in_set": lambda kwargs: f"none of {_listed(kwargs['value_set'])}",
    "expect_column_values_to_be_unique": lambda _: "every value once",
    "expect_compound_columns_to_be_unique": lambda kwargs: f"one row for each {_listed(kwargs['column_list'])}",
    "expect_column_pair_values_a_to_be_greater_than_b": lambda kwargs: (
        f"{kwargs['column_A']} {'>=' if kwargs.get('or_equal') else '>'} {kwargs['column_B']}"
    ),
    "expect_column_values_to_be_of_type": lambda kwargs: f"type {kwargs['type_']}",
    "expect_column_type_to_be": lambda kwargs: f"type {kwargs['type_']}",
    "expect_column_values_to_be_in_type_list": lambda kwargs: f"one of the types {_listed(kwargs['type_list'])}",
}


def shown(value: Any) -> str:
    """A value as a short text: null for none, instants as ISO in UTC."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={shown(one)}" for name, one in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(shown(one) for one in value)
    if value is None or (not isinstance(value, str) and str(value) in ("nan", "NaT", "<NA>")):
        return "null"
    if isinstance(value, str) and not value.strip():
        return repr(value)
    if isinstance(value, datetime):
        text = value.isoformat()
        return text.removesuffix("+00:00") + ("Z" if text.endswith("+00:00") else "")
    text = repr(float(value)) if isinstance(value, float) and math.isfinite(value) else str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
