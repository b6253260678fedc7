"""One source, ready to be asked: the times of its rows, the timeline over them, and where their values lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from skewguard.definitions import View
from skewguard.offline.clock import NONE, Ints
from skewguard.offline.gather import WORTH_A_THREAD, Fetched, Wanted, fetch, in_threads
from skewguard.offline.pieces import Held, Pieces
from skewguard.offline.timeline import Timeline
from skewguard.spine import ViewRows, expire
from skewguard.values import NO_TIME, Array, Status


class Sheet:
    """The rows of a view. `event`, `created`: int64 microseconds (n,), `NO_TIME` where there is none.

    `late`: a row is known from max(event, created), not from its event. Values stay where they lie until they are
    asked for, and from the second time on in memory, if `hold` says so.
    """

    def __init__(self, view: View, pieces: Pieces, carried: Sequence[str] = (), *, late: bool, threads: int) -> None:
        self.view, self._pieces = view, pieces
        self._threads = threads if pieces.nbytes > WORTH_A_THREAD else 1
        self._where = f"{view.source.path} (view {view.name})"
        self._carried = carried
        self._fetches = 0
        rows = int(pieces.starts[-1])
        self.event = np.empty(rows, dtype=np.int64)
        self.created = np.full(rows, NO_TIME) if view.source.created is None else np.empty(rows, dtype=np.int64)
        self._late = late and view.source.created is not None
        keys = self._read_times()
        self.timeline = Timeline(keys, self.event, self.created, late=self._late, resolve=self._resolve)

    @property
    def known(self) -> Ints:
        """When rows became known (n,)."""
        return np.maximum(self.event, self.created) if self._late else self.event

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        held = self._pieces.nbytes if isinstance(self._pieces, Held) else 0
        return self.event.nbytes + self.created.nbytes + self.timeline.nbytes + held

    def times(self, rows: Ints) -> tuple[Ints, Ints]:
        """(event, created) of rows, `NO_TIME` for NONE."""
        if not len(self.event):
            return np.full(len(rows), NO_TIME), np.full(len(rows), NO_TIME)
        found = rows != NONE
        return np.where(found, self.event[rows], NO_TIME), np.where(found, self.created[rows], NO_TIME)

    def judge(self, rows: Ints, as_of: Ints) -> tuple[Array, Ints]:
        """How present rows are at their asks, and those of them that are."""
        found = rows != NONE
        event = np.where(found, self.event[rows], NO_TIME) if len(self.event) else np.full(len(rows), NO_TIME)
        status = np.where(found, np.uint8(Status.PRESENT), np.uint8(Status.NOT_FOUND))
        status = expire(status, event, as_of, self.view.ttl_us)
        return status, np.where(status == Status.PRESENT, rows, NONE)

    def rows(self, rows: Ints, as_of: Ints) -> ViewRows:
        """The values of rows, one per ask, with TTL and clock applied."""
        status, present = self.judge(rows, as_of)
        event, created = self.times(rows)
        fetched = self.features(present)
        columns = {f.name: one.column(status) for f, one in zip(self.view.features, fetched, strict=True)}
        return ViewRows(status, event, created, np.full(len(rows), NO_TIME, dtype=np.int64), columns)

    def features(self, rows: Ints) -> list[Fetched]:
        """The features of rows, as declared."""
        return self._fetch(
            rows,
            [
                Wanted(f"f{i}", feature.dtype, f"{self._where}: column {feature.column!r}")
                for i, feature in enumerate(self.view.features)
            ],
        )

    def carried(self, rows: Ints) -> pa.Table:
        """The carried columns of rows, as they lie in the source."""
        wanted = [Wanted(f"c{i}", None, f"{self._where}: column {name!r}") for i, name in enumerate(self._carried)]
        return pa.table(dict(zip(self._carried, (one.values for one in self._fetch(rows, wanted)), strict=True)))

    def changes(self, rows: Ints, *, ordered: bool = False) -> pa.Table:
        """Rows with their times, keys and features as the online writer reads them, by known time unless `ordered`."""
        if not ordered:
            rows = rows[np.lexsort((self.timeline.places(rows), self.known[rows]))]
        names = [f"k{i}" for i in range(len(self.view.keys))] + [f"f{i}" for i in range(len(self.view.features))]
        taken = [one.values for one in self._fetch(rows, [Wanted(name, None, self._where) for name in names])]
        columns = {"known": pa.array(self.known[rows]), "event": pa.array(self.event[rows])}
        columns["created"] = pa.array(self.created[rows])
        columns |= dict(zip((key.column for key in self.view.keys), taken, strict=False))
        features = (f"f__{feature.name}" for feature in self.view.features)
        return pa.table(columns | dict(zip(features, taken[len(self.view.keys) :], strict=True)))

    def hold(self) -> None:
        """Keep the values in memory."""
        if not isinstance(self._pieces, Held):
            names = [f"k{i}" for i in range(len(self.view.keys))] + [f"f{i}" for i in range(len(self.view.features))]
            self._pieces = Held.of_pieces(self._pieces, names)

    @property
    def worth_holding(self) -> int:
        """How much more memory the values would take, 0 where they are there or have not been asked for twice."""
        return 0 if isinstance(self._pieces, Held) or self._fetches < 2 else self._pieces.nbytes

    def _fetch(self, rows: Ints, wanted: Sequence[Wanted]) -> list[Fetched]:
        self._fetches += 1
        return fetch(self._pieces, rows, wanted, self._threads)

    def _read_times(self) -> list[list[pa.Array]]:
        """Fill the times; the keys, piece by piece."""
        starts = self._pieces.starts
        names = [*(f"k{i}" for i in range(len(self.view.keys))), "event"]
        names += ["created"] if self.view.source.created is not None else []

        def read(piece: int) -> list[pa.Array]:
            arrays = self._pieces.read(piece, names)
            here = slice(int(starts[piece]), int(starts[piece + 1]))
            if names[-1] == "created":
                self.created[here] = arrays.pop().to_numpy()
            self.event[here] = arrays.pop().to_numpy()
            return arrays

        found = in_threads(read, range(len(starts) - 1), self._threads)
        return [[arrays[i] for arrays in found] for i in range(len(self.view.keys))]

    def _resolve(self, rows: Ints) -> Ints:
        """Rows in ascending order of what they hold: as declared, null lowest, NaN null, as everywhere."""
        ranks: list[Array] = []
        present = np.zeros(len(rows), dtype=np.uint8)
        for fetched in self.features(rows):
            column = fetched.column(present)
            ranks += [column.present, np.unique(column.values, return_inverse=True)[1]]
        for column in self.carried(rows).columns if self._carried else ():  # of any type
            ranks.append(np.unique([repr(value) for value in column.to_pylist()], return_inverse=True)[1])
        self._fetches = 0
        return rows[np.lexsort(ranks[::-1])] if ranks else np.sort(rows)
