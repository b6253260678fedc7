"""Pairs -> findings and counts: every logged value against its truth, view by view, tap by tap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from skewguard.answer import vector
from skewguard.definitions import View
from skewguard.findings import Example, Finding, Kind, Observed, Tap
from skewguard.model import Model
from skewguard.replay import Age, Pairs
from skewguard.values import NO_TIME, Array, Column, Dtype, Mask, Status, instant, same

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
    for rewritten in pairs.rewritten.values():
        unverifiable |= rewritten
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
        Age.STALE: (Kind.STALE, "rows were served an older row than max_lag allows"),
        Age.LEAK: (Kind.LEAK, "rows were served a row that was not known at the request"),
        Age.UNHEARD: (Kind.MISMATCH, "rows were served a row that the source does not have"),
    }
    for view in pairs.bundle.views:
        for age, (kind, what) in about.items():
            rows = pairs.age[view.name] == age
            if rows.any():
                examples = tuple(_row_example(pairs, view, i) for i in np.flatnonzero(rows)[:EXAMPLES])
                benign = max((feature.contract.benign_rate for feature in view.features), default=0.0)
                yield _observed(pairs, rows, _Told(kind, view.name, what, Tap.STORE, benign), examples)


def _stored(pairs: Pairs) -> Iterator[Observed]:
    """Stored features whose value is neither the truth nor that of the source row they name."""
    for view in pairs.bundle.views:
        served, known = pairs.served.views[view.name], pairs.as_known.views[view.name]
        judged = ~np.isin(pairs.age[view.name], [Age.UNHEARD, Age.UNANSWERED])
        judged &= (served.event == NO_TIME) | (known.event != NO_TIME)  # what is gone cannot be held against
        if view.name in pairs.rewritten:
            judged &= ~pairs.rewritten[view.name]
        for feature in view.features:
            name = view.full_name(feature.name)
            rows = judged & ~_same(pairs, name, served.features[feature.name])
            yield from _feature(pairs, name, rows, Tap.STORE, known.features[feature.name])


def _derived(pairs: Pairs) -> Iterator[Observed]:
    """Derived features that the transform, run again on the logged raw values, does not give.

    A model input may read a derived feature: where that one differs already, it is told there.
    """
    differing: dict[str, Mask] = {}
    for spec in pairs.bundle.derived:
        name = spec.full_name
        served, again = pairs.served.derived[name], pairs.recomputed[name]
        rows = ~_equal(pairs, name, served, again)
        for source in spec.inputs:
            if source in differing:
                rows &= ~differing[source]
        differing[name] = rows
        yield from _feature(pairs, name, rows, Tap.MODEL_INPUT if _is_model_input(spec) else Tap.TRANSFORM, again)


def _is_model_input(spec: object) -> bool:
    return bool(getattr(spec, "is_model_input", False))


def _vector(pairs: Pairs) -> Iterator[Observed]:
    """What entered the model but is not the feature that was served."""
    again = vector(pairs.bundle, pairs.served)
    got = pairs.served.vector
    differs = ~((got == again) | (np.isnan(got) & np.isnan(again))).all(axis=0)
    for i in np.flatnonzero(differs):
        name = pairs.bundle.vector[i]
        a, b = (_float_column(np.ascontiguousarray(m[:, i])) for m in (got, again))
        rows = ~same(a, b, ulps=pairs.ulps)
        if rows.any():
            told = _Told(Kind.MISMATCH, name, "values entered the model as something else than was served",
                         Tap.MODEL_INPUT, pairs.bundle.contracts[name].benign_rate)  # fmt: skip
            yield _observed(pairs, rows, told, _examples(pairs, a, b, rows), a, b)


def _prediction(pairs: Pairs, model: Model | None) -> Iterator[Observed]:
    """Predictions that the model does not give for the logged vector; a row of features alone has none."""
    served = pairs.served.prediction
    if model is None or served is None:
        return
    a, b = _float_column(served), _float_column(model.predict(pairs.served.vector))
    rows = a.present & ~same(a, b, ulps=pairs.ulps)
    if rows.any():
        what = "are not what the model says of the logged vector"
        told = _Told(Kind.MISMATCH, "prediction", what, Tap.PREDICTION)
        yield _observed(pairs, rows, told, _examples(pairs, a, b, rows), a, b)


def _contracts(pairs: Pairs) -> Iterator[Observed]:
    """Served values that break the feature's own contract."""
    for name, column in pairs.served.features(pairs.bundle).items():
        contract = pairs.bundle.contracts[name]
        broken = np.zeros(len(pairs), dtype=bool)
        if contract.null == "refused":
            # A store that tells no absence from another says null where there is no row.
            broken |= (column.status == Status.NULL) & (pairs.truth.feature(pairs.bundle, name).status <= Status.NULL)
        if column.dtype.is_numeric:
            for bound, beyond in ((contract.minimum, np.less), (contract.maximum, np.greater)):
                if bound is not None:
                    broken |= column.present & beyond(column.values, bound) & ~_near(pairs, name, column, bound)
        if contract.values is not None:
            broken |= column.present & ~np.isin(column.values.astype(str), contract.values)
        if broken.any():
            truth = pairs.truth.feature(pairs.bundle, name)
            told = _Told(Kind.CONTRACT, name, "served values break the contract", Tap.STORE, contract.benign_rate)
            yield _observed(pairs, broken, told, _examples(pairs, column, truth, broken), column, truth)


def _feature(pairs: Pairs, name: str, rows: Mask, tap: Tap, truth: Column) -> Iterator[Observed]:
    if not rows.any():
        return
    served = pairs.served.feature(pairs.bundle, name)
    what = "values differ from the truth"
    downstream = [d.full_name for d in pairs.bundle.derived if name in d.inputs]
    if downstream:
        what += f"; carried into {', '.join(downstream)}"
    told = _Told(Kind.MISMATCH, name, what, tap, pairs.bundle.contracts[name].benign_rate)
    yield _observed(pairs, rows, told, _examples(pairs, served, truth, rows), served, truth)


def _same(pairs: Pairs, name: str, served: Column) -> Mask:
    known, truth = (s.feature(pairs.bundle, name) for s in (pairs.as_known, pairs.truth))
    equal = _equal(pairs, name, served, known)
    return equal if truth is known or equal.all() else equal | _equal(pairs, name, served, truth)


def _equal(pairs: Pairs, name: str, a: Column, b: Column) -> Mask:
    contract = pairs.bundle.contracts[name]
    return same(a, b, rtol=contract.rtol, atol=contract.atol, ulps=pairs.ulps)


def _near(pairs: Pairs, name: str, column: Column, bound: float) -> Mask:
    """What equals the bound as far as the contract tells values apart."""
    if not column.dtype.is_float:
        return np.zeros(len(column.values), dtype=bool)
    return _equal(pairs, name, column, Column.build(column.dtype, np.full_like(column.values, bound), column.status))


@dataclass(frozen=True, slots=True)
class _Told:
    """What a finding says: `what` follows on 'feature: some of many'."""

    kind: Kind
    feature: str
    what: str
    tap: Tap
    benign: float = 0.0


def _observed(
    pairs: Pairs,
    rows: Mask,
    told: _Told,
    examples: tuple[Example, ...],
    served: Column | None = None,
    truth: Column | None = None,
) -> Observed:
    count, of = int(rows.sum()), len(rows)
    message = f"{told.feature}: {count:,} of {of:,} {told.what}"
    hours = by_hour(pairs.served.spine.as_of, rows)
    finding = Finding(
        told.kind, told.feature, count, of, message, told.tap,
        examples=examples, by_hour=hours, benign=told.benign,
    )  # fmt: skip
    return Observed(finding, rows, served, truth)


def by_hour(as_of: Array, rows: Mask) -> tuple[tuple[str, int, int], ...]:
    """(hour as ISO text, rows compared, rows that differ) for every hour in which something was asked."""
    return told_by_hour([counted_by_hour(as_of, rows)])


def counted_by_hour(as_of: Array, rows: Mask) -> Array:
    """Hours since 1970 in which something was asked, rows compared, rows that differ: int64, shape (3, hours)."""
    hours, index = np.unique(as_of // _HOUR, return_inverse=True)
    return np.stack([hours, np.bincount(index), np.bincount(index, weights=rows).astype(np.int64)])


def told_by_hour(counts: Sequence[Array]) -> tuple[tuple[str, int, int], ...]:
    """Counts by hour, added up and put into words."""
    every = np.concatenate([np.empty((3, 0), dtype=np.int64), *counts], axis=1)
    hours, index = np.unique(every[0], return_inverse=True)
    sums = (np.bincount(index, weights=every[i], minlength=len(hours)).astype(int) for i in (1, 2))
    return tuple((instant(int(h) * _HOUR), int(e), int(b)) for h, e, b in zip(hours, *sums, strict=True))


def _row_example(pairs: Pairs, view: View, row: int) -> Example:
    def shown(side: str) -> str:
        rows = getattr(pairs, side).views[view.name]
        state = Status(int(rows.status[row])).name.lower()
        return f"{state}, row of {instant(int(rows.event[row]))}"

    return Example(*_who(pairs, row), shown("served"), shown("truth"))


def _examples(pairs: Pairs, served: Column, truth: Column, rows: Mask) -> tuple[Example, ...]:
    return tuple(
        Example(*_who(pairs, row), _shown(served, row), _shown(truth, row)) for row in np.flatnonzero(rows)[:EXAMPLES]
    )


def _who(pairs: Pairs, row: int) -> tuple[str, str, str]:
    spine = pairs.served.spine
    keys = ", ".join(f"{name} {column.value(row)}" for name, column in spine.keys.items())
    return str(spine.ids[row]), instant(int(spine.as_of[row])), keys


def _shown(column: Column, row: int) -> str:
    value = column.value(row)
    return Status(int(column.status[row])).name.lower() if value is None else str(value)


def _float_column(values: Array) -> Column:
    return Column.build(Dtype.FLOAT64, values, np.zeros(len(values), dtype=np.uint8))
