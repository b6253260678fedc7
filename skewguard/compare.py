"""Compare: Pairs -> findings and counts. Measures, never decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from skewguard.answer import vector
from skewguard.definitions import View
from skewguard.findings import Example, Finding, Kind, Observed, Tap
from skewguard.model import Model
from skewguard.replay import Age, Pairs
from skewguard.values import Array, Column, Dtype, Mask, Status, instant, same

EXAMPLES = 3
_HOUR = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found, and how the n rows fall: every row is in exactly one of the four masks, shape (n,)."""

    observed: tuple[Observed, ...]
    equal: Mask
    lagged: Mask
    mismatched: Mask
    unverifiable: Mask
    values: int


def compare(pairs: Pairs, model: Model | None = None) -> Comparison:
    """Hold every logged value against its truth, view by view, tap by tap.

    With the `model` that answered, the predictions as well: each must be what it says of the logged vector.
    """
    observed = [
        *_views(pairs),
        *_stored(pairs),
        *_derived(pairs),
        *_vector(pairs),
        *_prediction(pairs, model),
        *_contracts(pairs),
    ]
    n = len(pairs)
    mismatched = np.zeros(n, dtype=bool)
    for one in observed:
        if one.finding.kind is not Kind.CONTRACT:  # both sides may well agree on a value that breaks it
            mismatched |= one.rows
    unverifiable, lagged = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    for age in pairs.age.values():
        unverifiable |= (age == Age.UNVERIFIABLE) | (age == Age.UNANSWERED)
        lagged |= age == Age.LAGGED
    unverifiable &= ~mismatched
    lagged &= ~mismatched & ~unverifiable
    return Comparison(
        tuple(observed),
        ~(mismatched | unverifiable | lagged),
        lagged,
        mismatched,
        unverifiable,
        n * (len(pairs.bundle.dtypes) + len(pairs.bundle.vector)),
    )


def _views(pairs: Pairs) -> Iterator[Observed]:
    """What is wrong with the row that a view served, whatever its values."""
    about = {
        Age.STALE: (Kind.STALE, "an older row than max_lag allows"),
        Age.LEAK: (Kind.LEAK, "a row that was not known at the request"),
        Age.UNHEARD: (Kind.MISMATCH, "a row that the source does not have"),
    }
    for view in pairs.bundle.views:
        for age, (kind, what) in about.items():
            rows = pairs.age[view.name] == age
            if rows.any():
                count, n = int(rows.sum()), len(pairs)
                message = f"{view.name}: {count:,} of {n:,} rows were served {what}"
                examples = tuple(_row_example(pairs, view, i) for i in np.flatnonzero(rows)[:EXAMPLES])
                yield _observed(pairs, rows, (kind, view.name, message, Tap.STORE), examples)


def _stored(pairs: Pairs) -> Iterator[Observed]:
    """Stored features whose value is neither the truth nor that of the source row they name."""
    for view in pairs.bundle.views:
        judged = ~np.isin(pairs.age[view.name], [Age.UNHEARD, Age.UNANSWERED])
        for feature in view.features:
            name = view.full_name(feature.name)
            rows = judged & ~_same(pairs, name, pairs.served.views[view.name].features[feature.name])
            yield from _feature(pairs, name, rows, Tap.STORE)


def _derived(pairs: Pairs) -> Iterator[Observed]:
    """Derived features that the transform, run again on the logged raw values, does not give."""
    for spec in pairs.bundle.derived:
        served, again = pairs.served.derived[spec.full_name], pairs.recomputed[spec.full_name]
        yield from _feature(pairs, spec.full_name, ~_equal(pairs, spec.full_name, served, again), Tap.TRANSFORM)


def _vector(pairs: Pairs) -> Iterator[Observed]:
    """What entered the model but is not the feature that was served."""
    again = vector(pairs.bundle, pairs.served)
    for i, name in enumerate(pairs.bundle.vector):
        a, b = (_float_column(np.ascontiguousarray(m[:, i])) for m in (pairs.served.vector, again))
        rows = ~same(a, b, ulps=pairs.ulps)
        if rows.any():
            count = int(rows.sum())
            message = f"{name}: {count:,} of {len(pairs):,} values entered the model as something else than was served"
            examples = tuple(_example(pairs, a, b, r) for r in np.flatnonzero(rows)[:EXAMPLES])
            yield _observed(pairs, rows, (Kind.MISMATCH, name, message, Tap.MODEL_INPUT), examples)


def _prediction(pairs: Pairs, model: Model | None) -> Iterator[Observed]:
    """Predictions that the model does not give for the logged vector; a row of features alone has none."""
    served = pairs.served.prediction
    if model is None or served is None:
        return
    a, b = _float_column(served), _float_column(model.predict(pairs.served.vector))
    rows = a.present & ~same(a, b, ulps=pairs.ulps)
    if rows.any():
        message = f"prediction: {int(rows.sum()):,} of {len(pairs):,} are not what the model says of the logged vector"
        examples = tuple(_example(pairs, a, b, r) for r in np.flatnonzero(rows)[:EXAMPLES])
        yield _observed(pairs, rows, (Kind.MISMATCH, "prediction", message, Tap.PREDICTION), examples)


def _contracts(pairs: Pairs) -> Iterator[Observed]:
    """Served values that break the feature's own contract."""
    for name, column in pairs.served.features(pairs.bundle).items():
        contract = pairs.bundle.contracts[name]
        broken = np.zeros(len(pairs), dtype=bool)
        if contract.null == "refused":
            broken |= column.status == Status.NULL
        if column.dtype.is_numeric:
            for bound, beyond in ((contract.minimum, np.less), (contract.maximum, np.greater)):
                if bound is not None:
                    broken |= column.present & beyond(column.values, bound)
        if contract.values is not None:
            broken |= column.present & ~np.isin(column.values.astype(str), contract.values)
        if broken.any():
            message = f"{name}: {int(broken.sum()):,} of {len(pairs):,} served values break the contract"
            truth = pairs.truth.feature(pairs.bundle, name)
            examples = tuple(_example(pairs, column, truth, r) for r in np.flatnonzero(broken)[:EXAMPLES])
            yield _observed(pairs, broken, (Kind.CONTRACT, name, message, Tap.STORE), examples)


def _feature(pairs: Pairs, name: str, rows: Mask, tap: Tap) -> Iterator[Observed]:
    if not rows.any():
        return
    served, truth = (s.feature(pairs.bundle, name) for s in (pairs.served, pairs.as_known))
    if tap is Tap.TRANSFORM:
        truth = pairs.recomputed[name]
    message = f"{name}: {int(rows.sum()):,} of {len(pairs):,} values differ from the truth"
    downstream = [d.full_name for d in pairs.bundle.derived if name in d.inputs]
    if downstream:
        message += f"; carried into {', '.join(downstream)}"
    examples = tuple(_example(pairs, served, truth, r) for r in np.flatnonzero(rows)[:EXAMPLES])
    yield _observed(pairs, rows, (Kind.MISMATCH, name, message, tap), examples)


def _same(pairs: Pairs, name: str, served: Column) -> Mask:
    known, truth = (s.feature(pairs.bundle, name) for s in (pairs.as_known, pairs.truth))
    return _equal(pairs, name, served, known) | _equal(pairs, name, served, truth)


def _equal(pairs: Pairs, name: str, a: Column, b: Column) -> Mask:
    contract = pairs.bundle.contracts[name]
    return same(a, b, rtol=contract.rtol, atol=contract.atol, ulps=pairs.ulps)


def _observed(pairs: Pairs, rows: Mask, what: tuple[Kind, str, str, Tap], examples: tuple[Example, ...]) -> Observed:
    kind, feature, message, tap = what
    hours = by_hour(pairs.served.spine.as_of, rows)
    finding = Finding(kind, feature, int(rows.sum()), len(rows), message, tap, examples=examples, by_hour=hours)
    return Observed(finding, rows)


def by_hour(as_of: Array, rows: Mask) -> tuple[tuple[str, int, int], ...]:
    """(hour as ISO text, rows compared, rows that differ) for every hour in which something was asked."""
    hours, index = np.unique(as_of // _HOUR, return_inverse=True)
    every, bad = np.bincount(index), np.bincount(index, weights=rows).astype(int)
    return tuple((instant(int(h) * _HOUR), int(e), int(b)) for h, e, b in zip(hours, every, bad, strict=True))


def _row_example(pairs: Pairs, view: View, row: int) -> Example:
    def shown(side: str) -> str:
        rows = getattr(pairs, side).views[view.name]
        state = Status(int(rows.status[row])).name.lower()
        return f"{state}, row of {instant(int(rows.event[row]))}"

    return Example(*_who(pairs, row), shown("served"), shown("truth"))


def _example(pairs: Pairs, served: Column, truth: Column, row: int) -> Example:
    return Example(*_who(pairs, row), _shown(served, row), _shown(truth, row))


def _who(pairs: Pairs, row: int) -> tuple[str, str, str]:
    spine = pairs.served.spine
    keys = ", ".join(f"{name} {column.value(row)}" for name, column in spine.keys.items())
    return str(spine.ids[row]), instant(int(spine.as_of[row])), keys


def _shown(column: Column, row: int) -> str:
    value = column.value(row)
    return Status(int(column.status[row])).name.lower() if value is None else str(value)


def _float_column(values: Array) -> Column:
    return Column.build(Dtype.FLOAT64, values, np.zeros(len(values), dtype=np.uint8))
