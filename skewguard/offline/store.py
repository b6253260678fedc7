"""The point-in-time join: sources are read, `timeline` finds the rows that answer, `gather` fetches their values.

TTL and clock are applied after, by `spine.expire`. See docs/offline.md, ADR 0002 and ADR 0011.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewguard.definitions import View
from skewguard.errors import AskError
from skewguard.offline.clock import NONE, Ints
from skewguard.offline.gather import THREADS, bits, in_threads
from skewguard.offline.parquet import spool, write_rows
from skewguard.offline.scan.parquet import stamps_of
from skewguard.offline.sheet import Sheet
from skewguard.offline.shelf import VIEWS_AT_ONCE, Limits, Shelf
from skewguard.spine import Spine, ViewRows, assemble, read_instants, read_keys
from skewguard.values import NO_TIME, Array, Dtype, Mask, Status

T = TypeVar("T")

_SMALL = 1 << 22  # bytes of all sources together, which one thread has read before another one has begun


class Rule(enum.StrEnum):
    """What counts as known at an ask."""

    KNOWN = "known"
    FEAST = "feast"


@dataclass(frozen=True, slots=True)
class _Asked:
    """Asks of a table: instants (int64 microseconds), and keys in every dtype in which some view asks for them."""

    as_of: Ints
    keys: Mapping[tuple[str, Dtype], pa.Array]


class OfflineStore:
    """The sources of some views, open for asking. Not thread-safe; close it, or use it as a context manager.

    Of a source, keys and times are kept in memory, and values that are asked for again, while all that is kept stays
    below a gigabyte. Local files that have changed are read anew; for what lies elsewhere, `refresh` says when.
    `memory_limit` (`"1GiB"`) makes the join take a larger source in parts, by a hash of its keys, and bounds what
    DuckDB uses for reading. `threads`: how many read at once. `carry` names, per view, source columns that ride along
    as they lie there, whatever their type. Raises `SourceError` where a source is missing, unreadable, or lacks a
    declared column.
    """

    def __init__(
        self,
        views: Sequence[View],
        rule: Rule = Rule.KNOWN,
        *,
        memory_limit: str | None = None,
        threads: int | None = None,
        carry: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.views = {view.name: view for view in views}
        self.carry = carry or {}
        self.rule = rule
        self._threads = min(threads or THREADS, os.cpu_count() or 1)
        self._shelf = Shelf(Limits(memory_limit, self._threads, threads), self.carry, late=rule is Rule.KNOWN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release what was read."""
        self._shelf.clear()

    def refresh(self) -> None:
        """Forget what was read: the next question reads the sources anew, wherever they lie."""
        self._shelf.clear()

    def notices(self) -> list[str]:
        """What a reader of the sources has to assume, in sentences: times without a zone are read as UTC."""
        found = []
        for view in self.views.values():
            schema = self._shelf.schema(view)
            for name in (view.source.timestamp, view.source.created):
                kind = schema.field(name).type if name in schema.names else None
                if kind is not None and pa.types.is_timestamp(kind) and kind.tz is None:
                    found.append(f"{view.source.path} (view {view.name}): {name} has no time zone; it is read as UTC")
        return found

    # -- the join -----------------------------------------------------------------------------------------------------

    def answer(self, spine: Spine) -> dict[str, ViewRows]:
        """One answer per ask and view, in the spine's order."""
        return dict(zip(self.views, self._of_views(lambda view: self._answer(view, spine)), strict=True))

    def _of_views(self, work: Callable[[View], T]) -> list[T]:
        """What it comes to for every view; several at once where they are large, for sorting one leaves a core idle."""
        stamps = [stamps_of(view.source) for view in self.views.values()]
        small = None not in stamps and sum(size for files in stamps for *_, size, _ in files or ()) < _SMALL
        return in_threads(work, self.views.values(), 1 if small else min(self._threads, VIEWS_AT_ONCE))

    def join(self, asks: pa.Table, *, as_of: str = "event_timestamp") -> pa.Table:
        """The asks with every feature beside them, as `view__feature`: the same rows in the same order.

        Values in their declared dtypes, null where there is none. What is read for it is not kept. Raises `AskError`
        for a missing key, an ask without an instant or with a naive one, a value of another type, or a feature's name.
        """
        asked = self._asked(asks, as_of)
        for table in self._of_views(lambda view: self._joined(view, asked)):
            for name, column in zip(table.column_names, table.columns, strict=True):
                asks = asks.append_column(name, column)
        return asks

    def write(self, asks: pa.Table, path: Path, *, as_of: str = "event_timestamp") -> None:
        """The same into a Parquet file, which appears whole or not at all.

        Under a memory limit one view is answered after the other, and its features wait on the disk beside `path`.
        """
        if self._shelf.limit is None:
            write_rows([self.join(asks, as_of=as_of)], path, asks.column_names)
            return
        asked = self._asked(asks, as_of)
        with spool(path) as aside:
            features = [aside(self._joined(view, asked)) for view in self.views.values()]
            write_rows([asks, *features], path, asks.column_names)

    def _asked(self, asks: pa.Table, as_of: str) -> _Asked:
        features = {view.full_name(feature.name) for view in self.views.values() for feature in view.features}
        for name in features.intersection(asks.column_names):
            raise AskError(name, "is a column of the asks and a feature's name; rename the column")
        keys = sorted({(key.ask, key.dtype) for view in self.views.values() for key in view.keys})
        instants = read_instants(asks, as_of, [name for name, _ in keys])
        return _Asked(instants, {(name, dtype): read_keys(asks, name, dtype) for name, dtype in keys})

    def _joined(self, view: View, asked: _Asked) -> pa.Table:
        keys, as_of = [asked.keys[key.ask, key.dtype] for key in view.keys], asked.as_of
        names = [view.full_name(feature.name) for feature in view.features]

        def arrays(sheet: Sheet) -> list[pa.Array]:
            status, present = sheet.judge(sheet.timeline.best(keys, as_of), as_of)
            found = status == Status.PRESENT
            bitmap = bits(found)
            return [one.arrow(found, bitmap) for one in sheet.features(present)]

        parts = self._shelf.parts(view)
        if parts == 1:
            return pa.table(dict(zip(names, self._shelf.ask(view, arrays, keep=False), strict=True)))
        rows = self._assembled(view, keys, as_of, parts)
        return pa.table({view.full_name(name): column.to_arrow() for name, column in rows.features.items()})

    def _answer(self, view: View, spine: Spine) -> ViewRows:
        parts, keys, as_of = self._shelf.parts(view), _keys(view, spine), spine.as_of
        if parts == 1:
            return self._shelf.ask(view, lambda sheet: sheet.rows(sheet.timeline.best(keys, as_of), as_of))
        return self._assembled(view, keys, as_of, parts)

    def _assembled(self, view: View, keys: list[pa.Array], as_of: Ints, parts: int) -> ViewRows:
        """The answers of one part of the keys after the other; only one part's rows are in memory."""

        def answers() -> Iterator[tuple[Array, ViewRows]]:
            for where, sheet in self._shelf.by_part(view, keys, parts):
                rows = sheet.timeline.best([key.take(pa.array(where)) for key in keys], as_of[where])
                yield where, sheet.rows(rows, as_of[where])

        return assemble(len(as_of), {feature.name: feature.dtype for feature in view.features}, answers())

    def best(self, view: str, spine: Spine, as_of: Ints) -> tuple[Array, Array]:
        """(event, created) of the newest row known at `as_of` (int64 microseconds) per ask, `NO_TIME` for none."""
        declared = self.views[view]
        keys = _keys(declared, spine)
        return self._shelf.ask(declared, lambda sheet: sheet.times(sheet.timeline.best(keys, as_of)))

    def rows(self, view: str, spine: Spine, event: Array, created: Array) -> ViewRows:
        """The named source rows: exactly (keys, event, created) per ask, with TTL and clock applied at the ask.

        NOT_FOUND where the source has no such row. Two rows equal in keys and both times are a defect of the source;
        of these the greatest in (features, in order) answers, so that neither file nor thread order matters.
        """
        declared = self.views[view]
        keys = _keys(declared, spine)
        return self._shelf.ask(
            declared, lambda sheet: sheet.rows(sheet.timeline.find(keys, event, created), spine.as_of)
        )

    def carried(self, view: str, spine: Spine, answers: ViewRows) -> pa.Table:
        """The carried columns of the rows that answered: one row per ask, null where a row has no value to give."""
        declared = self.views[view]
        keys = _keys(declared, spine)

        def carried(sheet: Sheet) -> pa.Table:
            found = sheet.timeline.find(keys, answers.event, answers.created)
            return sheet.carried(np.where(answers.status == Status.PRESENT, found, NONE))

        return self._shelf.ask(declared, carried)

    # -- what the online writer reads ---------------------------------------------------------------------------------

    def latest(self, view: str, known_by: int) -> pa.Table:
        """The newest row of every key among those known by `known_by` (microseconds): columns as `changes`."""
        return self._shelf.ask(self.views[view], lambda sheet: sheet.changes(sheet.timeline.newest(known_by)))

    def changes(self, view: str, since: int, until: int) -> pa.Table:
        """All rows that became known in (since, until], in order of known time; of tied ones the one that answers.

        Columns: `known`, `event`, `created` (int64 microseconds), keys by name, features by name.
        """

        def changes(sheet: Sheet) -> pa.Table:
            known = sheet.known
            new = (known > since) & (known <= until) & (sheet.event != NO_TIME)
            new[sheet.timeline.losers] = False
            return sheet.changes(np.flatnonzero(new))

        return self._shelf.ask(self.views[view], changes)

    def history(self, view: str, spine: Spine, until: int, rows: int) -> pa.Table:
        """The newest `rows` source rows of the first ask's keys with an event up to `until`, and the next one after it.

        Columns: keys, event and created time (UTC), features, by their names; newest first. For people to look at.
        """
        declared = self.views[view]
        first = _keys(declared, spine.take(np.arange(1)))

        def around(sheet: Sheet) -> pa.Table:
            ordered = sheet.timeline.of_key(first)
            upto = int(np.searchsorted(sheet.event[ordered], until, side="right"))
            return sheet.changes(ordered[max(upto - rows, 0) : upto + 1][::-1], ordered=True)

        table = self._shelf.ask(declared, around)
        stamp = Dtype.TIMESTAMP.arrow
        times = {
            "event_time": table["event"].cast(stamp),
            "created_time": pc.if_else(pc.equal(table["created"], NO_TIME), None, table["created"]).cast(stamp),
        }
        keys = {key.column: table[key.column] for key in declared.keys}
        return pa.table(keys | times | {f.name: table[f"f__{f.name}"] for f in declared.features})

    # -- defects of a source ------------------------------------------------------------------------------------------

    def ties(self, view: str) -> int:
        """How many source rows repeat the keys and both times of another one, which answers alone: a defect."""
        return self._shelf.ask(self.views[view], lambda sheet: len(sheet.timeline.losers))

    def tied(self, view: str, spine: Spine, answers: ViewRows) -> Mask:
        """Which asks were answered by one of several rows equal in keys and both times (n,)."""
        declared = self.views[view]
        keys = _keys(declared, spine)

        def tied(sheet: Sheet) -> Mask:
            found = sheet.timeline.find(keys, answers.event, answers.created)
            return np.isin(found, sheet.timeline.tied)

        return self._shelf.ask(declared, tied)


def _keys(view: View, spine: Spine) -> list[pa.Array]:
    return [spine.keys[key.ask].to_arrow() for key in view.keys]
