"""The values of rows, fetched from wherever they lie: every piece is read once, and only where a row of it is wanted.

Values go straight to their places among the asks: beside the answer, one piece per thread is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewguard.errors import CastError, SourceError
from skewguard.offline.clock import NONE
from skewguard.offline.pieces import Pieces
from skewguard.values import Array, Column, Dtype, Mask, Status, cast

Ints = npt.NDArray[np.int64]
Statuses = npt.NDArray[np.uint8]

S = TypeVar("S")
T = TypeVar("T")

THREADS = 2
WORTH_A_THREAD = 1 << 25
"""Bytes of a source below which another thread costs more than it saves."""
_AT_ONCE = 1 << 25  # bytes of a piece that are read at once
_IN_PLACE = (Dtype.FLOAT64, Dtype.FLOAT32, Dtype.INT64, Dtype.INT32, Dtype.TIMESTAMP)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A column to fetch: its name in the pieces, and the dtype that it becomes; None leaves it as it lies there.

    `where` names file, view and column in an error.
    """

    name: str
    dtype: Dtype | None
    where: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """Values of one column for n asks: a numpy array that holds the filler where there is none, or an Arrow array.

    `nulls`: mask of the values that are null in the row that was fetched; None where there are none.
    """

    dtype: Dtype | None
    values: Array | pa.Array
    nulls: Mask | None

    def column(self, status: Statuses) -> Column:
        """With how present each is, `status` being that of the row; shared between columns, hence not to be changed."""
        if self.nulls is not None:
            status = np.where(self.nulls, np.uint8(Status.NULL), status)
        if self.dtype is None:
            raise TypeError("a carried column has no dtype")
        if isinstance(self.values, pa.Array):
            filled = self.values.fill_null(self.dtype.filler) if self.values.null_count else self.values
            return Column(self.dtype, filled.to_numpy(zero_copy_only=False), status)
        return Column(self.dtype, self.values, status)

    def arrow(self, found: Mask, bitmap: pa.Buffer | None) -> pa.Array:
        """As Arrow, without copying; `found` masks the asks that have a row, `bitmap` is that mask in bits."""
        if self.dtype is None or isinstance(self.values, pa.Array):
            return self.values
        if self.dtype is Dtype.BOOL:
            gone = ~found if self.nulls is None else self.nulls | ~found
            return pa.array(self.values, mask=gone)
        valid = bitmap if self.nulls is None else bits(found & ~self.nulls)
        return pa.Array.from_buffers(self.dtype.arrow, len(self.values), [valid, pa.py_buffer(self.values)])


def bits(mask: Mask) -> pa.Buffer | None:
    """A mask as Arrow has it; None where it masks nothing."""
    return None if mask.all() else pa.py_buffer(np.packbits(mask, bitorder="little"))


def fetch(pieces: Pieces, rows: Ints, wanted: Sequence[Wanted], threads: int = THREADS) -> list[Fetched]:
    """The wanted columns of `rows` (n,), nothing where that is NONE. Raises `SourceError`."""
    asks, chosen, cuts = _by_piece(pieces, rows)
    places = [_place(one, asks, len(rows)) for one in wanted]
    touched = np.flatnonzero(np.diff(cuts)).tolist()
    if not touched and len(cuts) > 1 and any(one.dtype is None for one in wanted):
        touched = [0]  # for the type of what is not there

    def read(piece: int, some: Sequence[_Place]) -> None:
        here = slice(int(cuts[piece]), int(cuts[piece + 1]))
        local = chosen[here] - pieces.starts[piece]
        size = int(pieces.starts[piece + 1] - pieces.starts[piece]) * 8
        step = max(1, _AT_ONCE // max(size, 1))
        for begin in range(0, len(some), step):
            part = some[begin : begin + step]
            for place, array in zip(part, pieces.read(piece, [p.wanted.name for p in part]), strict=True):
                place.put(here, array, local)

    ways = threads if len(touched) == 1 else 1  # of one piece, each thread reads some columns
    tasks = [(piece, places[way::ways]) for piece in touched for way in range(ways) if places[way::ways]]
    in_threads(lambda task: read(*task), tasks, threads)
    return [place.finish() for place in places]


def in_threads(work: Callable[[S], T], tasks: Iterable[S], threads: int) -> list[T]:
    """What the work comes to for every task, in order."""
    if threads == 1:
        return [work(task) for task in tasks]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, tasks))


def _by_piece(pieces: Pieces, rows: Ints) -> tuple[Ints, Ints, Ints]:
    """Asks that have a row, their rows, and where each piece begins among them; in the order of the rows.

    Row and ask are packed into one number, because sorting numbers is several times faster than sorting by them.
    """
    asks = np.flatnonzero(rows != NONE)
    chosen = rows if len(asks) == len(rows) else rows[asks]
    if len(pieces.starts) > 2:
        width = np.int64(max(len(rows) - 1, 1).bit_length())
        packed = (chosen << width) | asks
        packed.sort()
        asks, chosen = packed & ((np.int64(1) << width) - np.int64(1)), packed >> width
        return asks, chosen, np.searchsorted(chosen, pieces.starts)
    return asks, chosen, np.array([0, len(asks)][: len(pieces.starts)])


class _Place:
    """Where the values of one column go: one array per slice of `asks`, out of `count` places."""

    def __init__(self, wanted: Wanted, asks: Ints, count: int) -> None:
        self.wanted, self._asks, self._count = wanted, asks, count

    def put(self, here: slice, array: pa.Array, rows: Ints) -> None:
        raise NotImplementedError

    def finish(self) -> Fetched:
        raise NotImplementedError

    def _cast(self, array: pa.Array) -> pa.Array:
        if self.wanted.dtype is None:
            return array
        try:
            return cast(array, self.wanted.dtype, f"{self.wanted.where}")
        except CastError as error:
            raise SourceError(str(error)) from error


class _Numbers(_Place):
    """Of one width, each at its place."""

    def __init__(self, wanted: Wanted, dtype: Dtype, asks: Ints, count: int) -> None:
        super().__init__(wanted, asks, count)
        self._dtype = dtype
        self._values: Array = np.full(count, dtype.filler, dtype=dtype.numpy)
        self._nulls: Mask | None = None
        self._lock = Lock()

    def put(self, here: slice, array: pa.Array, rows: Ints) -> None:
        asks = self._asks[here]
        if array.type != self._dtype.arrow or self._dtype not in _IN_PLACE:
            array, rows = self._cast(array.take(pa.array(rows))), slice(None)  # type: ignore[assignment]
        if self._dtype is Dtype.BOOL:
            self._values[asks] = array.fill_null(False).to_numpy(zero_copy_only=False)
        else:
            self._values[asks] = _storage(array, self._dtype)[rows]
        if array.null_count:
            gone = asks[~np.asarray(array.is_valid())[rows]]
            with self._lock:
                if self._nulls is None:
                    self._nulls = np.zeros(self._count, dtype=bool)
            self._nulls[gone] = True
            self._values[gone] = self._dtype.filler

    def finish(self) -> Fetched:
        if self._dtype.is_float:  # NaN is null, wherever it comes from
            nan = np.isnan(self._values)
            if np.count_nonzero(nan) > self._count - len(self._asks):
                self._values[nan] = self._dtype.filler
                if len(self._asks) < self._count:
                    found = np.zeros(self._count, dtype=bool)
                    found[self._asks] = True
                    nan &= found
                self._nulls = nan
        return Fetched(self._dtype, self._values, self._nulls)


class _Others(_Place):
    """Text and whatever else: taken piece by piece, and put in order at the end."""

    def __init__(self, wanted: Wanted, asks: Ints, count: int) -> None:
        super().__init__(wanted, asks, count)
        self._taken: dict[int, pa.Array] = {}
        self._empty: pa.DataType = wanted.dtype.arrow if wanted.dtype else pa.null()

    def put(self, here: slice, array: pa.Array, rows: Ints) -> None:
        self._taken[here.start] = self._cast(array.take(pa.array(rows)))

    def finish(self) -> Fetched:
        if not self._taken:
            return Fetched(self.wanted.dtype, pa.nulls(self._count, self._empty), None)
        taken = pa.concat_arrays([self._taken[start] for start in sorted(self._taken)])
        asks = self._asks
        whole = len(asks) == self._count and bool((asks[:-1] < asks[1:]).all())
        if not whole:
            turn = np.full(self._count, NONE, dtype=np.int64)
            turn[asks] = np.arange(len(asks))
            values = taken.take(pa.array(turn, mask=turn == NONE))
        else:
            values = taken
        nulls = None
        if taken.null_count:
            nulls = np.zeros(self._count, dtype=bool)
            nulls[asks] = np.asarray(taken.is_null())
        return Fetched(self.wanted.dtype, values, nulls)


def _place(wanted: Wanted, asks: Ints, count: int) -> _Place:
    if wanted.dtype is None or wanted.dtype is Dtype.STRING:
        return _Others(wanted, asks, count)
    return _Numbers(wanted, wanted.dtype, asks, count)


def _storage(array: pa.Array, dtype: Dtype) -> Array:
    """The values of an array as they lie in its buffer, whatever stands where it is null."""
    kind: np.dtype[Any] = dtype.numpy
    values: Array = np.frombuffer(array.buffers()[1], dtype=kind, count=array.offset + len(array))
    return values[array.offset :]
