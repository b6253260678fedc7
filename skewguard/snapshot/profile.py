"""Profile: what the columns of a snapshot look like, in parts that add up.

`merge(a, b)` is exactly the profile of a's rows followed by b's, whatever the order and the cut: sums are exact
fractions, values are counted one by one up to 1,024 different ones; beyond, quantiles come from buckets 0.8 % wide and
the number of different values from the 1,024 smallest of their hashes. docs/snapshot.md says why no sketch library.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewguard.answer import Served
from skewguard.definitions import Bundle
from skewguard.errors import CastError, SnapshotError
from skewguard.place import Place, place_of
from skewguard.snapshot.hashing import Hashes, hash_values, whole
from skewguard.snapshot.staging import PROFILE
from skewguard.values import Array, Column, Dtype, Status, instant

FORMAT = 1
KEPT = 1024
"""So many different values are counted one by one; beyond, so many hashes are kept."""

_MANTISSA = 45  # bits of a float64 below those that name its bucket: exponent and 7 bits, hence 2**-7 wide
_DAY = 86_400_000_000


@dataclass(frozen=True)
class ColumnProfile:
    """One column. `statuses`: rows by status. `low`, `high`: the least and greatest value, None where there is none.

    `total`: the exact sum of the finite numbers. `infinite`: rows of -inf and inf. `buckets`: rows per bucket of
    numbers (days, of instants). `counts`: rows per value, None once there were more than `KEPT`; then `smallest` are
    the `KEPT` smallest hashes of different values. Values are plain Python, instants microseconds.
    """

    dtype: Dtype
    statuses: Mapping[str, int]
    low: Any
    high: Any
    total: Fraction
    infinite: tuple[int, int]
    buckets: Mapping[int, int]
    counts: Mapping[Any, int] | None
    smallest: tuple[int, ...]

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(self.statuses.values())

    @property
    def present(self) -> int:
        """Rows that have a value."""
        return sum(rows for name, rows in self.statuses.items() if Status[name.upper()].has_value)

    @property
    def mean(self) -> float | None:
        """Correctly rounded; None for what is no number, or none at all."""
        if not self.dtype.is_numeric or not self.present:
            return None
        below, above = self.infinite
        if below or above:
            return float("nan") if below and above else float("inf") if above else float("-inf")
        return float(self.total / self.present)

    @property
    def distinct(self) -> int:
        """How many different values: exact up to `KEPT`, beyond that within some 3 % (one standard error)."""
        if self.counts is not None:
            return len(self.counts)
        return round((KEPT - 1) / ((self.smallest[-1] + 1) / 2**64))

    def quantile(self, share: float) -> Any:
        """The value below which `share` of them lie: exact while values are counted, else to 0.4 % (half a day)."""
        counted = self.buckets if self.counts is None else self.counts
        if not counted or self.dtype is Dtype.STRING:
            return None
        ordered = sorted(counted)
        upto = np.cumsum([counted[one] for one in ordered])
        one = ordered[int(np.searchsorted(upto, max(share * upto[-1], 1)))]
        if self.counts is not None:
            return one
        return min(max(_middle(one, self.dtype), self.low), self.high)

    def top(self, n: int) -> list[tuple[Any, int]]:
        """The most frequent values and their rows; empty once there were too many to count."""
        return sorted((self.counts or {}).items(), key=lambda pair: (-pair[1], pair[0]))[:n]

    def merge(self, other: ColumnProfile) -> ColumnProfile:
        """The profile of both columns' rows. Raises `SnapshotError` for columns of two dtypes."""
        if self.dtype is not other.dtype:
            raise SnapshotError(f"a profile of {self.dtype} does not add up with one of {other.dtype}")
        lows = [one.low for one in (self, other) if one.low is not None]
        highs = [one.high for one in (self, other) if one.high is not None]
        counts: dict[Any, int] | None = None
        if self.counts is not None and other.counts is not None:
            counts = dict(Counter(self.counts) + Counter(other.counts))
            if len(counts) > KEPT:
                counts = None
        smallest: tuple[int, ...] = ()
        if counts is None:
            smallest = tuple(sorted({*self._hashes(), *other._hashes()})[:KEPT])
        return ColumnProfile(
            self.dtype,
            _added(self.statuses, other.statuses),
            min(lows, default=None),
            max(highs, default=None),
            self.total + other.total,
            (self.infinite[0] + other.infinite[0], self.infinite[1] + other.infinite[1]),
            _added(self.buckets, other.buckets),
            counts,
            smallest,
        )

    def _hashes(self) -> tuple[int, ...]:
        if self.counts is None:
            return self.smallest
        return _smallest(hash_values(_plain_column(self.dtype, list(self.counts))))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "dtype": self.dtype.value,
            "statuses": dict(sorted(self.statuses.items())),
            "low": _text(self.low),
            "high": _text(self.high),
            "mean": _text(self.mean),
            "distinct": self.distinct,
            "total": str(self.total),
            "infinite": list(self.infinite),
            "buckets": [[bucket, rows] for bucket, rows in sorted(self.buckets.items())],
            "counts": None if self.counts is None else [[_text(v), rows] for v, rows in sorted(self.counts.items())],
            "smallest": base64.b64encode(np.array(self.smallest, dtype="<u8").tobytes()).decode(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ColumnProfile:
        """What `to_json` wrote."""
        dtype = Dtype(data["dtype"])

        def value(text: Any) -> Any:
            return float(text) if dtype.is_float and text is not None else text

        counts = data["counts"]
        return cls(
            dtype,
            data["statuses"],
            value(data["low"]),
            value(data["high"]),
            Fraction(data["total"]),
            (data["infinite"][0], data["infinite"][1]),
            {bucket: rows for bucket, rows in data["buckets"]},  # noqa: C416  (pairs are lists in JSON)
            None if counts is None else {value(one): rows for one, rows in counts},
            tuple(np.frombuffer(base64.b64decode(data["smallest"]), dtype="<u8").tolist()),
        )


@dataclass(frozen=True)
class Profile:
    """All columns by name, and the statuses of every view's rows by name."""

    columns: Mapping[str, ColumnProfile]
    views: Mapping[str, Mapping[str, int]]

    def merge(self, other: Profile) -> Profile:
        """The profile of both sets of rows, which have the same columns; one without columns is of no rows."""
        if not self.columns or not other.columns:
            return self if self.columns else other
        if self.columns.keys() != other.columns.keys() or self.views.keys() != other.views.keys():
            raise SnapshotError("profiles of other columns do not add up")
        return Profile(
            {name: column.merge(other.columns[name]) for name, column in self.columns.items()},
            {view: _added(statuses, other.views[view]) for view, statuses in self.views.items()},
        )

    def text(self) -> str:
        """What lies in a profile's file."""
        columns = {name: column.to_json() for name, column in self.columns.items()}
        data = {"format": FORMAT, "columns": columns, "views": self.views}
        return json.dumps(data, allow_nan=False) + "\n"


def load_profile(folder: str | Path | Place) -> Profile:
    """The profile of the snapshot in `folder`; raises `SnapshotError` where there is none that can be read."""
    try:
        data = json.loads((place_of(folder) / PROFILE).read())
        if data["format"] != FORMAT:
            raise SnapshotError(f"{folder}: expected profile format {FORMAT}, got {data['format']!r}")
        columns = {name: ColumnProfile.from_json(one) for name, one in data["columns"].items()}
        return Profile(columns, data["views"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise SnapshotError(f"{folder}: no profile that can be read ({error}). Build the snapshot again.") from error


def profile_of(bundle: Bundle, served: Served, labels: pa.Table) -> Profile:
    """The profile of some rows: instants, keys, request fields, features and labels by their names in the flat form."""
    spine = served.spine
    columns = {"event_timestamp": profile_column(_instants(whole(spine.as_of)))}
    columns |= {f"e__{name}": profile_column(key) for name, key in spine.keys.items()}
    columns |= {f"q__{name}": profile_column(value) for name, value in spine.request.items()}
    columns |= {name: profile_column(feature) for name, feature in served.features(bundle).items()}
    columns |= {name: profile_column(_label(labels[name])) for name in labels.column_names}
    return Profile(columns, {name: _statuses(rows.status) for name, rows in served.views.items()})


def profile_column(column: Column) -> ColumnProfile:
    """The profile of one column."""
    values, rows = _counted(column)
    plain = _plain(values, column.dtype)
    few = len(plain) <= KEPT
    finite = np.isfinite(values) if column.dtype.is_float else np.ones(len(values), dtype=bool)
    infinite = (0, 0)
    if not finite.all():
        infinite = (int(rows[values == -np.inf].sum()), int(rows[values == np.inf].sum()))
    return ColumnProfile(
        column.dtype,
        _statuses(column.status),
        plain[0] if plain else None,
        plain[-1] if plain else None,
        _total(values[finite], rows[finite]) if column.dtype.is_numeric else Fraction(0),
        infinite,
        _buckets(values, rows, column.dtype),
        dict(zip(plain, rows.tolist(), strict=True)) if few else None,
        () if few else _smallest(hash_values(Column(column.dtype, values, np.zeros(len(values), dtype=np.uint8)))),
    )


def _counted(column: Column) -> tuple[Array, npt.NDArray[np.int64]]:
    """The different values in order, and the rows of each."""
    some = column.values[column.present] if not column.present.all() else column.values
    if column.dtype is Dtype.STRING:
        coded = pa.array(some, pa.string()).dictionary_encode()
        texts = np.array(coded.dictionary.to_pylist(), dtype=object)
        turn = np.argsort(texts) if len(texts) else np.empty(0, dtype=np.int64)
        return texts[turn], np.bincount(coded.indices.to_numpy(), minlength=len(texts))[turn]
    if column.dtype.is_float:
        some = some + column.dtype.numpy.type(0)  # -0.0 + 0.0 is 0.0
    values, rows = np.unique(some, return_counts=True)
    return values, rows


def _plain(values: Array, dtype: Dtype) -> list[Any]:
    plain: list[Any] = (values.view(np.int64) if dtype is Dtype.TIMESTAMP else values).tolist()
    return plain


def _plain_column(dtype: Dtype, values: list[Any]) -> Column:
    """The column of plain values, all present."""
    raw = np.array(values, dtype=np.int64 if dtype is Dtype.TIMESTAMP else dtype.numpy)
    raw = raw.view(dtype.numpy) if dtype is Dtype.TIMESTAMP else raw
    return Column(dtype, raw, np.zeros(len(values), dtype=np.uint8))


def _smallest(hashes: Hashes) -> tuple[int, ...]:
    kept = np.unique(hashes)[:KEPT]
    return tuple(kept.tolist())


def _statuses(status: npt.NDArray[np.uint8]) -> dict[str, int]:
    codes, rows = np.unique(status, return_counts=True)
    return {Status(code).name.lower(): count for code, count in zip(codes.tolist(), rows.tolist(), strict=True)}


def _total(values: Array, rows: npt.NDArray[np.int64]) -> Fraction:
    """The sum of finite numbers, exact: mantissas are added as integers, exponent by exponent."""
    if not len(values):
        return Fraction(0)
    if values.dtype.kind != "f":
        return Fraction(_weighed(values.astype(np.int64), rows))
    mantissa, exponent = np.frexp(values.astype(np.float64))
    whole_mantissa = (mantissa * 2.0**53).astype(np.int64)
    total = Fraction(0)
    for power in np.unique(exponent).tolist():
        chosen = exponent == power
        total += _weighed(whole_mantissa[chosen], rows[chosen]) * Fraction(2) ** (power - 53)
    return total


def _weighed(numbers: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> int:
    """Sum of numbers x rows: in halves of 32 bits, so that 2**31 rows do not overflow."""
    high, low = numbers >> 32, numbers & 0xFFFFFFFF
    return (int((high * rows).sum()) << 32) + int((low * rows).sum())


def _buckets(values: Array, rows: npt.NDArray[np.int64], dtype: Dtype) -> dict[int, int]:
    if dtype is Dtype.STRING or not len(values):
        return {}
    if dtype is Dtype.TIMESTAMP:
        bucket = values.view(np.int64) // _DAY
    else:
        wide = values.astype(np.float64)
        bucket = np.sign(wide).astype(np.int64) * ((np.abs(wide).view(np.int64) >> _MANTISSA) + 1)
    firsts = np.flatnonzero(np.concatenate([[True], bucket[1:] != bucket[:-1]]))  # values are in order, so are buckets
    added = np.add.reduceat(rows, firsts)
    return dict(zip(bucket[firsts].tolist(), added.tolist(), strict=True))


def _middle(bucket: int, dtype: Dtype) -> Any:
    if dtype is Dtype.TIMESTAMP:
        return bucket * _DAY + _DAY // 2
    if not bucket:
        middle = 0.0
    else:
        ends = np.array([abs(bucket) - 1, abs(bucket)], dtype=np.int64) << _MANTISSA
        low, high = ends.view(np.float64).tolist()
        middle = (low if np.isinf(high) or np.isnan(high) else (low + high) / 2) * (1 if bucket > 0 else -1)
    return middle if dtype.is_float else round(middle)


def _added(one: Mapping[Any, int], other: Mapping[Any, int]) -> dict[Any, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in {*one, *other}}


def _instants(column: Column) -> Column:
    return Column(Dtype.TIMESTAMP, column.values.view("datetime64[us]"), column.status)


def _label(values: pa.ChunkedArray) -> Column:
    """A label may have any type: as the dtype that holds it, else as text."""
    kinds = [Dtype.INT64, Dtype.BOOL, Dtype.FLOAT64, Dtype.STRING, Dtype.TIMESTAMP]
    if pa.types.is_floating(values.type):
        kinds = [Dtype.FLOAT64]
    for dtype in kinds:
        try:
            return Column.from_arrow(values, dtype, "label")
        except CastError:
            continue
    texts = pa.array([None if one is None else repr(one) for one in values.to_pylist()], pa.string())
    return Column.from_arrow(texts, Dtype.STRING, "label")


def _text(value: Any) -> Any:
    """What JSON has no number for, as text."""
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def shown(value: Any, dtype: Dtype) -> str:
    """A value for people."""
    if value is None:
        return "-"
    if dtype is Dtype.TIMESTAMP:
        return instant(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
