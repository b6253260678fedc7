"""Diff: what tells two snapshots apart. Asks are matched by what they ask (keys, instant, request), not by number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewguard.answer import from_table
from skewguard.definitions import Bundle
from skewguard.snapshot.frozen import Snapshot
from skewguard.snapshot.hashing import hash_rows, whole
from skewguard.snapshot.verify import same_values
from skewguard.values import ULPS_ACROSS_CLASSES, Array, Column, same

_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, slots=True)
class Difference:
    """What the second snapshot has otherwise than the first.

    `asks`: how many are in both; `added`, `removed` only in the second, the first. `reordered`: whether those in both
    come in another order. `rule`: sentences on rule and origin. `definitions`: sentences, per view and feature.
    `labels`: per label, asks whose label differs, or -1 where only one of the two has it. `values`: per feature, asks
    whose value or status differs; `rows`: asks in which any does. Only features of one dtype in both are compared.
    """

    ids: tuple[str, str]
    asks: int
    added: int
    removed: int
    reordered: bool
    rule: tuple[str, ...]
    definitions: tuple[str, ...]
    labels: dict[str, int]
    values: dict[str, int]
    rows: int

    @property
    def same(self) -> bool:
        """Whether a model could learn the same from both: all but the ids agree."""
        told = (self.added, self.removed, self.reordered, self.rule, self.definitions, self.labels, self.rows)
        return not any(told)


def diff_snapshots(one: Snapshot, other: Snapshot) -> Difference:
    """Compare two snapshots, which may be of different services."""
    first, second = _asks(one), _asks(other)
    mine, theirs = _matched(first, second)
    values, rows = _values(one, other, mine, theirs)
    return Difference(
        (one.id, other.id),
        len(mine),
        len(second) - len(mine),
        len(first) - len(mine),
        bool((np.diff(theirs) < 0).any()),
        tuple(_origin(one, other)),
        tuple(_definitions(one.bundle, other.bundle)),
        _labels(one, other, mine, theirs),
        values,
        rows,
    )


# -- asks -------------------------------------------------------------------------------------------------------------


def _asks(snapshot: Snapshot) -> npt.NDArray[Any]:
    """Two hashes per ask, as one value each."""
    bundle = snapshot.bundle
    names = [*(f"e__{name}" for name in sorted(bundle.keys)), *(f"q__{f.name}" for f in bundle.request)]
    dtypes = [*(bundle.keys[name] for name in sorted(bundle.keys)), *(f.dtype for f in bundle.request)]
    table = snapshot.to_arrow(["event_timestamp", *names])
    columns = [whole(np.ascontiguousarray(table["event_timestamp"].cast(pa.int64()).to_numpy()))]
    columns += [Column.from_arrow(table[name], dtype, name) for name, dtype in zip(names, dtypes, strict=True)]
    hashes = np.ascontiguousarray(hash_rows(columns, len(table)))
    return hashes.view([("a", np.uint64), ("b", np.uint64)]).reshape(-1)


def _matched(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> tuple[Array, Array]:
    """Row numbers of the asks that are in both, in the order of the first; repeated asks are paired in order."""
    _, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    mine, theirs = _numbered(codes[: len(first)]), _numbered(codes[len(first) :])
    _, at_first, at_second = np.intersect1d(mine, theirs, assume_unique=True, return_indices=True)
    turn = np.argsort(at_first)
    return at_first[turn], at_second[turn]


def _numbered(codes: Array) -> Array:
    """Codes made unique: the code, and the how-manieth of its kind."""
    turn = np.argsort(codes, kind="stable")
    ordered = codes[turn]
    fresh = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(codes) else np.empty(0, dtype=bool)
    place = np.arange(len(codes))
    numbers = np.empty(len(codes), dtype=np.int64)
    numbers[turn] = place - np.maximum.accumulate(np.where(fresh, place, 0))
    return codes.astype(np.int64) * (1 << 32) + numbers


# -- rule and definitions ---------------------------------------------------------------------------------------------


def _origin(one: Snapshot, other: Snapshot) -> Iterator[str]:
    for name, said in (("rule", "rule"), ("as_served", "as served"), ("adopted", "adopted")):
        was, is_ = getattr(one.manifest, name), getattr(other.manifest, name)
        if was != is_:
            yield f"{said}: {was or 'no'} -> {is_ or 'no'}"


def _definitions(one: Bundle, other: Bundle) -> Iterator[str]:
    if one.digest == other.digest:
        return
    for what in ("project", "service", "outputs"):
        was, is_ = getattr(one, what), getattr(other, what)
        if was != is_:
            yield f"{what}: {_told(was)} -> {_told(is_)}"
    yield from _changed("", _parts(one), _parts(other))


def _parts(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Everything that is defined, by name: views, request fields, stored and derived features."""
    parts: dict[str, dict[str, Any]] = {}
    for view in bundle.views:
        own = asdict(view)
        features = own.pop("features")
        own["source"].pop("path")
        parts[f"view {view.name}"] = own
        for feature in features:
            parts[view.full_name(feature.pop("name"))] = feature
    for field in bundle.request:
        parts[f"request field {field.name}"] = {"dtype": field.dtype}
    for derived in bundle.derived:
        own = asdict(derived)
        for evidence in ("golden", *(["fingerprint"] if derived.graph else [])):
            own.pop(evidence)
        parts[derived.full_name] = own
    return parts


def _changed(where: str, was: Mapping[str, Any], is_: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*was, *is_}):
        place = f"{where}: {name}" if where else name
        if name not in was or name not in is_:
            yield f"{place}: {'added' if name in is_ else 'removed'}"
        elif isinstance(was[name], dict) and isinstance(is_[name], dict):
            yield from _changed(place, was[name], is_[name])
        elif was[name] != is_[name]:
            yield f"{place}: {_told(was[name])} -> {_told(is_[name])}"


def _told(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


# -- labels and values ------------------------------------------------------------------------------------------------


def _labels(one: Snapshot, other: Snapshot, mine: Array, theirs: Array) -> dict[str, int]:
    differ: dict[str, int] = {}
    names = [*one.manifest.labels, *(name for name in other.manifest.labels if name not in one.manifest.labels)]
    for name in names:
        if name not in one.manifest.labels or name not in other.manifest.labels:
            differ[name] = -1
            continue
        was = one.to_arrow([name])[name].take(pa.array(mine)).to_pylist()
        is_ = other.to_arrow([name])[name].take(pa.array(theirs)).to_pylist()
        count = sum(repr(a) != repr(b) for a, b in zip(was, is_, strict=True))
        if count:
            differ[name] = count
    return differ


def _values(one: Snapshot, other: Snapshot, mine: Array, theirs: Array) -> tuple[dict[str, int], int]:
    common = [n for n, dtype in one.bundle.dtypes.items() if other.bundle.dtypes.get(n) is dtype]
    if not len(mine) or not common:
        return {}, 0
    ulps = 0 if one.manifest.numeric_class == other.manifest.numeric_class else ULPS_ACROSS_CLASSES
    bare = bool(one.manifest.adopted) != bool(other.manifest.adopted)  # an adopted set does not know why there is none
    differ = dict.fromkeys(common, 0)
    rows = 0
    was_all, is_all = one.to_arrow(), other.to_arrow()
    for at in range(0, len(mine), _ROWS_AT_ONCE):
        was = from_table(one.bundle, was_all.take(pa.array(mine[at : at + _ROWS_AT_ONCE])))
        is_ = from_table(other.bundle, is_all.take(pa.array(theirs[at : at + _ROWS_AT_ONCE])))
        anything = np.zeros(len(was.spine), dtype=bool)
        for name in common:
            a, b = was.feature(one.bundle, name), is_.feature(other.bundle, name)
            unequal = ~(same_values(a, b, ulps=ulps) if bare else same(a, b, ulps=ulps))
            differ[name] += int(unequal.sum())
            anything |= unequal
        rows += int(anything.sum())
    return {name: count for name, count in differ.items() if count}, rows
