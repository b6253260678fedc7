"""A suite: what the definitions and their contracts promise about a file, as Great Expectations writes it.

A suite is plain JSON of Great Expectations' own format (`name`, `expectations` of `type`, `kwargs`, `meta`, `id`), so
that its tools can read it. Each expectation's `meta.skewguard.feature` says which feature it is about; the suite's
`meta.skewguard` names the columns that tell a row from its neighbours, and the digest of what was generated, by which
an edited suite is told from one that only has grown old.

Nothing here imports Great Expectations.
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skewguard.contract import Contract
from skewguard.definitions import Bundle, Derived, View
from skewguard.errors import DefinitionError
from skewguard.values import Dtype, Status

Suite = dict[str, Any]
"""A suite as plain JSON; one of its expectations is a dict of the same kind."""

_NAMESPACE = uuid.UUID("6a1c6c2e-5b0f-5f55-9c43-5be1b54b1f3a")
_NUMBERS = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"]
_STRINGS = ["str", "StringDtype"]
_INTEGERS = [name for name in _NUMBERS if "int" in name]


def source_suite(view: View) -> Suite:
    """What the source of `view` must look like before it is materialized.

    Its columns are there and of a type that the cast accepts; event time, created time and keys are never null; a row
    is not created before its event; no two rows share keys, event and created time; and the contracts hold.
    """
    source = view.source
    times = [source.timestamp, *([source.created] if source.created else [])]
    keys = [key.column for key in view.keys]
    made: list[Suite] = []
    for column in times:
        made += [_exists(view.name, column, Dtype.TIMESTAMP), _castable(view.name, column, Dtype.TIMESTAMP)]
        made.append(_not_null(view.name, column))
    for key in view.keys:
        made += [_exists(view.name, key.column, key.dtype), _castable(view.name, key.column, key.dtype)]
        made.append(_not_null(view.name, key.column))
    if source.created:
        made.append(_not_before(view.name, source.created, source.timestamp))
    if len(keys + times) > 1:
        made.append(
            _expectation(
                "expect_compound_columns_to_be_unique", view.name, column_list=list(dict.fromkeys(keys + times))
            )
        )
    else:
        made.append(_expectation("expect_column_values_to_be_unique", view.name, column=times[0]))
    for feature in view.features:
        name = view.full_name(feature.name)
        made += [_exists(name, feature.column, feature.dtype), _castable(name, feature.column, feature.dtype)]
        if feature.contract.null == "refused":
            made.append(_not_null(name, feature.column))
        made += _contract(name, feature.column, feature.dtype, feature.contract)
    return _suite(f"source.{view.name}", made, kind="source", keys=keys, as_of=source.timestamp)


def snapshot_suite(bundle: Bundle, label: str | None = None, *, known_by_ask: bool = True) -> Suite:
    """What a snapshot of `bundle` must look like after it is built.

    Ids are unique; every column is there, of exactly the declared type; no row answers with an event (nor, where the
    rule was `known_by_ask`, with a row created) after its ask; statuses are statuses; and the contracts hold. A null is
    normal in a snapshot (not found, expired), so a contract that refuses null is held against those rows alone whose
    view answered with a present row; a derived feature's, where all its inputs have a value. The `label` is there; it
    may be null, because what has not happened has no outcome.
    """
    asks = {f"e__{name}": dtype for name, dtype in bundle.keys.items()}
    request = {f"q__{field.name}": field.dtype for field in bundle.request}
    made = [_exists("id", "id", None), _not_null("id", "id")]
    made.append(_expectation("expect_column_values_to_be_unique", "id", column="id"))
    made += [*_typed("event_timestamp", Dtype.TIMESTAMP), _not_null("event_timestamp", "event_timestamp")]
    for column, dtype in (asks | request).items():
        made += _typed(column, dtype)
    for view in bundle.views:
        made += _answered(view, known_by_ask)
    for derived in bundle.derived:
        made += _typed(derived.full_name, derived.dtype)
        if derived.contract.null == "refused":
            made.append(_not_null(derived.full_name, derived.full_name, _inputs_present(bundle, derived)))
        made += _contract(derived.full_name, derived.full_name, derived.dtype, derived.contract)
    if label is not None:
        made.append(_exists(label, label, None))
    return _suite(
        f"snapshot.{bundle.service}", made, kind="snapshot", keys=list(asks), as_of="event_timestamp", id="id"
    )


def _answered(view: View, known_by_ask: bool) -> Iterator[Suite]:
    """The columns with which one view answers."""
    status, event, created = (f"{view.name}__{part}" for part in ("status", "event_ts", "created_ts"))
    yield _exists(view.name, status, None, expected="uint8")
    yield _expectation("expect_column_values_to_be_of_type", view.name, column=status, type_="uint8")
    yield _not_null(view.name, status)
    yield _expectation(
        "expect_column_values_to_be_in_set", view.name, column=status, value_set=[int(s) for s in Status]
    )
    yield from _typed(event, Dtype.TIMESTAMP, view.name)
    yield _not_before(view.name, "event_timestamp", event)
    if view.source.created:
        yield from _typed(created, Dtype.TIMESTAMP, view.name)
        if known_by_ask:
            yield _not_before(view.name, "event_timestamp", created)
    for feature in view.features:
        name = view.full_name(feature.name)
        yield from _typed(name, feature.dtype)
        if feature.contract.null == "refused":
            yield _not_null(name, name, [_present(view.name)])
        yield from _contract(name, name, feature.dtype, feature.contract)


def _inputs_present(bundle: Bundle, derived: Derived) -> list[Suite]:
    """The conditions under which a derived value must be there: every input has a value."""
    conditions: list[Suite] = []
    request = {field.name for field in bundle.request}
    for name in derived.inputs:
        if name in bundle.view_of and (present := _present(bundle.view_of[name])) not in conditions:
            conditions.append(present)
        column = f"q__{name}" if name in request else name
        conditions.append({"type": "nullity", "column": {"name": column}, "is_null": False})
    return conditions


def _present(view: str) -> Suite:
    status = {"name": f"{view}__status"}
    return {"type": "comparison", "column": status, "operator": "==", "parameter": int(Status.PRESENT)}


def _exists(feature: str, column: str, dtype: Dtype | None, *, expected: str = "") -> Suite:
    made = _expectation("expect_column_to_exist", feature, column=column)
    if dtype or expected:
        made["meta"]["skewguard"]["dtype"] = expected or str(dtype)
    return made


def _typed(column: str, dtype: Dtype, feature: str = "") -> list[Suite]:
    """There, and of exactly the declared type: what skewguard writes itself."""
    type_ = {Dtype.STRING: "str", Dtype.TIMESTAMP: "Timestamp"}.get(dtype, str(dtype))
    typed = _expectation("expect_column_values_to_be_of_type", feature or column, column=column, type_=type_)
    typed["meta"]["skewguard"]["dtype"] = str(dtype)
    return [_exists(feature or column, column, dtype), typed]


def _castable(feature: str, column: str, dtype: Dtype) -> Suite:
    """Of a type that `values.cast` accepts for `dtype`; what it then loses is judged value by value."""
    if dtype is Dtype.TIMESTAMP:
        made = _expectation("expect_column_values_to_be_of_type", feature, column=column, type_="Timestamp")
    else:
        accepted = {Dtype.BOOL: ["bool"], Dtype.STRING: _STRINGS + _INTEGERS}.get(dtype, _NUMBERS)
        made = _expectation("expect_column_values_to_be_in_type_list", feature, column=column, type_list=list(accepted))
    made["meta"]["skewguard"]["dtype"] = str(dtype)
    return made


def _not_null(feature: str, column: str, conditions: Sequence[Suite] = ()) -> Suite:
    kwargs: dict[str, Any] = {"column": column}
    if conditions:
        kwargs["row_condition"] = (
            conditions[0] if len(conditions) == 1 else {"type": "and", "conditions": [*conditions]}
        )
    return _expectation("expect_column_values_to_not_be_null", feature, **kwargs)


def _not_before(feature: str, later: str, earlier: str) -> Suite:
    return _expectation(
        "expect_column_pair_values_a_to_be_greater_than_b", feature,
        column_A=later, column_B=earlier, or_equal=True, ignore_row_if="either_value_is_missing",
    )  # fmt: skip


def _contract(feature: str, column: str, dtype: Dtype, contract: Contract) -> Iterator[Suite]:
    """Range and vocabulary. Limits of a float32 make room for the value nearest to them."""
    given = {"min_value": contract.minimum, "max_value": contract.maximum}
    limits = {name: value for name, value in given.items() if value is not None}
    if limits and (not dtype.is_numeric or dtype is Dtype.BOOL):
        raise DefinitionError(f"{feature}: a minimum or maximum holds for numbers, not for {dtype}. Take it out.")
    low, high = limits.get("min_value", -math.inf), limits.get("max_value", math.inf)
    if not low <= high or any(not math.isfinite(limit) for limit in limits.values()):
        raise DefinitionError(f"{feature}: no number is from {low} to {high}. Mend the contract's minimum or maximum.")
    if dtype is Dtype.FLOAT32:
        for name, widen in (("min_value", min), ("max_value", max)):
            if name in limits:
                limits[name] = widen(limits[name], float(np.float32(limits[name])))
    if limits:
        yield _expectation("expect_column_values_to_be_between", feature, column=column, **limits)
    if contract.values is not None:
        allowed = [_value(feature, dtype, text) for text in contract.values]
        if dtype is Dtype.FLOAT32:
            allowed = sorted({*allowed, *(float(np.float32(value)) for value in allowed)})
        yield _expectation("expect_column_values_to_be_in_set", feature, column=column, value_set=allowed)


def _value(feature: str, dtype: Dtype, text: str) -> Any:
    """A value of a contract's `values`, which tags can only carry as text."""
    try:
        if dtype is Dtype.BOOL:
            return {"true": True, "false": False}[text.lower()]
        if dtype in (Dtype.INT64, Dtype.INT32):
            return int(text)
        if dtype.is_float:
            return float(text)
    except (KeyError, ValueError) as error:
        raise DefinitionError(f"{feature}: values holds {text!r}, which is no {dtype}. Mend the contract.") from error
    if dtype is Dtype.TIMESTAMP:
        raise DefinitionError(f"{feature}: a list of values holds for numbers, texts and bools, not for {dtype}.")
    return text


def _expectation(type_: str, feature: str, /, **kwargs: Any) -> Suite:
    return {"type": type_, "kwargs": kwargs, "meta": {"skewguard": {"feature": feature}}}


def _suite(name: str, made: Sequence[Suite], **about: Any) -> Suite:
    """The suite, each expectation once, with ids that follow from what it says."""
    unique: dict[str, Suite] = {}
    for one in made:
        said = json.dumps([one["type"], one["kwargs"]], sort_keys=True)
        unique.setdefault(said, one | {"id": str(uuid.uuid5(_NAMESPACE, f"{name}\n{said}"))})
    expectations = list(unique.values())
    about["generated"] = _digest(expectations)
    return {"name": name, "expectations": expectations, "meta": {"skewguard": about}, "notes": None}


def _digest(expectations: Sequence[Suite]) -> str:
    return hashlib.sha256(json.dumps(expectations, sort_keys=True).encode()).hexdigest()[:16]


def save(directory: str | Path, suite: Suite) -> Path:
    """Write `suite` to `<directory>/<name>.json`, sorted and indented so that a change reads well in a diff."""
    path = _path(directory, suite["name"])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(suite, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def load(directory: str | Path, name: str) -> Suite:
    """Read the suite called `name`; raises `DefinitionError` with every complaint about its form."""
    path = _path(directory, name)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DefinitionError(f"suite {path}: expected a Great Expectations suite as JSON, got {error}") from error
    complaints = [f"suite {path}: {complaint}" for complaint in _complaints(data)]
    if complaints:
        raise DefinitionError(complaints)
    return dict(data)


def keep(directory: str | Path, generated: Suite) -> Suite:
    """The suite to run: the one kept in `directory` where somebody edited or wrote it, else `generated`, which is kept.

    A kept suite that nobody edited follows the definitions.
    """
    path = _path(directory, generated["name"])
    if path.exists():
        kept = load(directory, generated["name"])
        if kept == generated or _edited(kept):
            return kept
    save(directory, generated)
    return generated


def _edited(suite: Suite) -> bool:
    about = (suite.get("meta") or {}).get("skewguard") or {}
    return about.get("generated") != _digest(suite["expectations"])


def _path(directory: str | Path, name: str) -> Path:
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise DefinitionError(f"suite {name!r}: a suite's name is a file's name, without a path.")
    return Path(directory) / f"{name}.json"


def _complaints(data: Any) -> Iterator[str]:
    if not isinstance(data, dict) or not isinstance(data.get("expectations"), list):
        yield "expected an object with a list called expectations"
        return
    if not isinstance(data.get("name"), str):
        old = " It was written by Great Expectations before 1.0." if "expectation_suite_name" in data else ""
        yield f"$.name: expected a text, got {data.get('name')!r}.{old}"
    for index, one in enumerate(data["expectations"]):
        at = f"$.expectations[{index}]"
        if not isinstance(one, dict):
            yield f"{at}: expected an object, got {one!r}"
        elif not isinstance(one.get("type"), str) or not isinstance(one.get("kwargs"), dict):
            yield f"{at}: expected a type (a text such as expect_column_to_exist) and kwargs (an object)"
