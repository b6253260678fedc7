"""The point-in-time join: DuckDB reads the sources, `timeline` finds the rows that answer.

TTL and clock are applied after, by `spine.expire`. See docs/offline.md, ADR 0002 and ADR 0011.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from types import TracebackType
from typing import Self

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewguard.definitions import View
from skewguard.errors import CastError, DefinitionError, SourceError
from skewguard.offline.scan.duckdb import first_line, microseconds, quoted, relation
from skewguard.offline.timeline import NONE, Timeline
from skewguard.spine import Spine, ViewRows, assemble, expire
from skewguard.values import NO_TIME, Array, Column, Dtype, Status, accepts, cast

Ints = npt.NDArray[np.int64]

_SQL_TYPE = {
    Dtype.FLOAT64: "DOUBLE",
    Dtype.FLOAT32: "FLOAT",
    Dtype.INT64: "BIGINT",
    Dtype.INT32: "INTEGER",
    Dtype.BOOL: "BOOLEAN",
    Dtype.STRING: "VARCHAR",
    Dtype.TIMESTAMP: "TIMESTAMPTZ",
}
_KEPT_BYTES = 1 << 30
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([KMGT]i?B)", re.IGNORECASE)
_UNITS = {f"{p}{s}": (1000 if s == "B" else 1024) ** (n + 1) for n, p in enumerate("KMGT") for s in ("B", "IB")}
_VIEWS_AT_ONCE = 2
_VALUE_BYTES = 16  # a value as it is read, and again as it is taken
_ROW_BYTES = 64  # times, packed numbers and places of a row


class Rule(enum.StrEnum):
    """What counts as known at an ask."""

    KNOWN = "known"
    FEAST = "feast"


class OfflineStore:
    """The sources of some views, open for asking. Not thread-safe; close it, or use it as a context manager.

    A source is read once, and kept while all that is kept stays below a gigabyte. `memory_limit` (`"1GiB"`) bounds
    what DuckDB uses for reading, and makes the join take a larger source in parts, by a hash of its keys.
    `carry` names, per view, source columns that ride along as they lie there, whatever their type. Raises `SourceError`
    where a source is missing, unreadable, or lacks a declared column.
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
        self._con = duckdb.connect(":memory:")
        self._con.execute("SET TimeZone='UTC'")
        self._limit: int | None = None
        if memory_limit:
            self._con.execute("SET memory_limit = ?", [memory_limit])
            self._limit = _bytes(memory_limit)
        if threads:
            self._con.execute("SET threads = ?", [threads])
        self._kept: dict[str, _Sheet] = {}
        self._keeping = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the connection and what was read."""
        self._kept.clear()
        self._con.close()

    # -- the join -----------------------------------------------------------------------------------------------------

    def answer(self, spine: Spine) -> dict[str, ViewRows]:
        """One answer per ask and view, in the spine's order."""
        with ThreadPoolExecutor(_VIEWS_AT_ONCE) as pool:  # sorting one view leaves a core idle
            answers = pool.map(lambda view: self._answer(view, spine), self.views.values())
            return dict(zip(self.views, answers, strict=True))

    def _answer(self, view: View, spine: Spine) -> ViewRows:
        parts = self._parts(view)
        if parts == 1:
            sheet = self._sheet(view)
            return sheet.rows(view, spine, sheet.timeline.best(_keys(view, spine), spine.as_of))
        dtypes = {feature.name: feature.dtype for feature in view.features}
        return assemble(len(spine), dtypes, self._by_part(view, spine, parts))

    def _by_part(self, view: View, spine: Spine, parts: int) -> Iterator[tuple[Array, ViewRows]]:
        """The answers of one part of the keys after the other; only one part's rows are in memory."""
        keys = _keys(view, spine)
        names = [f"k{i}" for i in range(len(keys))]
        asks = self._con.from_arrow(pa.table(dict(zip(names, keys, strict=True))))
        part = asks.project(f"{_part(names, parts)} AS part").to_arrow_table()["part"].to_numpy()
        for number in range(parts):
            where = np.flatnonzero(part == number)
            if len(where):
                asked = spine.take(where)
                sheet = self._read(view, number, parts)
                yield where, sheet.rows(view, asked, sheet.timeline.best(_keys(view, asked), asked.as_of))

    def _parts(self, view: View) -> int:
        """In how many parts a view has to be taken to stay below the memory limit; more than one at a time is open."""
        if self._limit is None or not view.keys:
            return 1
        columns = len(view.features) + len(view.keys) + len(self.carry.get(view.name, ()))
        rows = self._count(view)
        return max(1, -(-rows * (columns * _VALUE_BYTES + _ROW_BYTES) * _VIEWS_AT_ONCE // self._limit))

    def _count(self, view: View) -> int:
        try:
            return int(
                self._con.sql(f"SELECT count(*) AS n FROM {relation(view.source)}").to_arrow_table()["n"][0].as_py()
            )
        except duckdb.Error as error:
            raise SourceError(f"{view.source.path} (view {view.name}): {first_line(error)}") from error

    def best(self, view: str, spine: Spine, as_of: Ints) -> tuple[Array, Array]:
        """(event, created) of the newest row known at `as_of` (int64 microseconds) per ask, `NO_TIME` for none."""
        declared = self.views[view]
        sheet = self._sheet(declared)
        return sheet.times(sheet.timeline.best(_keys(declared, spine), as_of))

    def rows(self, view: str, spine: Spine, event: Array, created: Array) -> ViewRows:
        """The named source rows: exactly (keys, event, created) per ask, with TTL and clock applied at the ask.

        NOT_FOUND where the source has no such row. Two rows equal in keys and both times are a defect of the source;
        of these the greatest in (features, in order) answers, so that neither file nor thread order matters.
        """
        declared = self.views[view]
        sheet = self._sheet(declared)
        return sheet.rows(declared, spine, sheet.timeline.find(_keys(declared, spine), event, created))

    def carried(self, view: str, spine: Spine, answers: ViewRows) -> pa.Table:
        """The carried columns of the rows that answered: one row per ask, null where a row has no value to give."""
        declared = self.views[view]
        sheet = self._sheet(declared)
        found = sheet.timeline.find(_keys(declared, spine), answers.event, answers.created)
        rows = pa.array(found, mask=(found == NONE) | (answers.status != Status.PRESENT))
        names = self.carry[view]
        return pa.table({name: _whole(sheet.table[f"c{i}"]).take(rows) for i, name in enumerate(names)})

    # -- what the online writer reads ---------------------------------------------------------------------------------

    def latest(self, view: str, known_by: int) -> pa.Table:
        """The newest row of every key among those known by `known_by` (microseconds): columns as `changes`."""
        declared = self.views[view]
        sheet = self._sheet(declared)
        return sheet.changes(declared, sheet.timeline.newest(known_by))

    def changes(self, view: str, since: int, until: int) -> pa.Table:
        """All rows that became known in (since, until], in order of known time; of tied ones the one that answers.

        Columns: `known`, `event`, `created` (int64 microseconds), keys by name, features by name.
        """
        declared = self.views[view]
        sheet = self._sheet(declared)
        new = (sheet.known > since) & (sheet.known <= until)
        new[sheet.timeline.losers] = False
        return sheet.changes(declared, np.flatnonzero(new))

    def history(self, view: str, spine: Spine, until: int, rows: int) -> pa.Table:
        """The newest `rows` source rows of the first ask's keys with an event up to `until`, and the next one after it.

        Columns: keys, event and created time (UTC), features, by their names; newest first. For people to look at.
        """
        declared = self.views[view]
        sheet = self._sheet(declared)
        ordered = sheet.timeline.of_key(_keys(declared, spine.take(np.arange(1))))
        upto = int(np.searchsorted(sheet.event[ordered], until, side="right"))
        chosen = ordered[max(upto - rows, 0) : upto + 1][::-1]
        table = sheet.changes(declared, chosen, ordered=True)
        stamp = Dtype.TIMESTAMP.arrow
        times = {
            "event_time": table["event"].cast(stamp),
            "created_time": pc.if_else(pc.equal(table["created"], NO_TIME), None, table["created"]).cast(stamp),
        }
        keys = {key.column: table[key.column] for key in declared.keys}
        return pa.table(keys | times | {f.name: table[f"f__{f.name}"] for f in declared.features})

    def ties(self, view: str) -> int:
        """How many source rows repeat the keys and both times of another one, which answers alone: a defect."""
        return len(self._sheet(self.views[view]).timeline.losers)

    # -- reading ------------------------------------------------------------------------------------------------------

    def _sheet(self, view: View) -> _Sheet:
        sheet = self._kept.get(view.name) or self._read(view)
        with self._keeping:
            others = sum(kept.table.nbytes for name, kept in self._kept.items() if name != view.name)
            if others + sheet.table.nbytes <= _KEPT_BYTES:
                self._kept[view.name] = sheet
        return sheet

    def _read(self, view: View, part: int = 0, parts: int = 1) -> _Sheet:
        carried = self.carry.get(view.name, ())
        con = self._con.cursor()  # a thread's own, which starts without the settings of a session
        con.execute("SET TimeZone='UTC'")
        _check_columns(con, view, carried)
        source = view.source
        created = f"coalesce({microseconds(source.created)}, {NO_TIME})" if source.created else None
        columns = [f"CAST({quoted(key.column)} AS {_SQL_TYPE[key.dtype]}) AS k{i}" for i, key in enumerate(view.keys)]
        columns += [f"{microseconds(source.timestamp)} AS event", *([f"{created} AS created"] if created else [])]
        columns += [f"{quoted(feature.column)} AS f{i}" for i, feature in enumerate(view.features)]
        columns += [f"{quoted(column)} AS c{i}" for i, column in enumerate(carried)]
        query = f"SELECT {', '.join(columns)} FROM {relation(source)} WHERE {quoted(source.timestamp)} IS NOT NULL"
        if parts > 1:
            query = f"SELECT * FROM ({query}) WHERE {_part([f'k{i}' for i in range(len(view.keys))], parts)} = {part}"
        try:
            table = con.sql(query).to_arrow_table()
        except duckdb.Error as error:
            raise SourceError(f"{source.path} (view {view.name}): {first_line(error)}") from error
        return _Sheet(view, table, self.rule)


class _Sheet:
    """One source in memory, with the timeline over it. `event`, `created`, `known`: int64 microseconds (n,)."""

    def __init__(self, view: View, table: pa.Table, rule: Rule) -> None:
        self.event = _whole(table["event"]).to_numpy()
        has_created = "created" in table.column_names
        self.created = _whole(table["created"]).to_numpy() if has_created else np.full(len(table), NO_TIME)
        late = rule is Rule.KNOWN and has_created
        self.known = np.maximum(self.event, self.created) if late else self.event
        keys = [cast(table[f"k{i}"], key.dtype, key.column) for i, key in enumerate(view.keys)]
        self.table = table.drop_columns(["event", *(["created"] if has_created else [])])
        self._view = view
        self.timeline = Timeline(keys, self.event, self.created, self.known, self._resolve)

    def times(self, rows: Ints) -> tuple[Ints, Ints]:
        """(event, created) of rows, `NO_TIME` for NONE."""
        if not len(self.event):
            return np.full(len(rows), NO_TIME), np.full(len(rows), NO_TIME)
        found = rows != NONE
        return np.where(found, self.event[rows], NO_TIME), np.where(found, self.created[rows], NO_TIME)

    def rows(self, view: View, spine: Spine, rows: Ints) -> ViewRows:
        """The values of rows, one per ask, with TTL and clock applied."""
        found = rows != NONE
        event, created = self.times(rows)
        status = np.where(found, np.uint8(Status.PRESENT), np.uint8(Status.NOT_FOUND))
        status = expire(status, event, spine.as_of, view.ttl_us)
        taken = pa.array(rows, mask=~found)

        def column(i: int) -> Column:
            feature, values = view.features[i], _whole(self.table[f"f{i}"]).take(taken)
            return Column.from_arrow(values, feature.dtype, f"column {feature.column!r}", status)

        try:
            with ThreadPoolExecutor(_VIEWS_AT_ONCE) as pool:
                columns = dict(
                    zip((f.name for f in view.features), pool.map(column, range(len(view.features))), strict=True)
                )
        except CastError as error:
            raise SourceError(f"{view.source.path} (view {view.name}): {error}") from error
        return ViewRows(status, event, created, np.full(len(spine), NO_TIME, dtype=np.int64), columns)

    def changes(self, view: View, rows: Ints, *, ordered: bool = False) -> pa.Table:
        """Rows with their times, keys and features as the online writer reads them, by known time unless `ordered`."""
        if not ordered:
            place = self.timeline.places(rows)
            rows = rows[np.lexsort((place, self.known[rows]))]
        table = self.table.take(pa.array(rows))
        columns = {"known": pa.array(self.known[rows]), "event": pa.array(self.event[rows])}
        columns["created"] = pa.array(self.created[rows])
        columns |= {key.column: table[f"k{i}"] for i, key in enumerate(view.keys)}
        return pa.table(columns | {f"f__{f.name}": table[f"f{i}"] for i, f in enumerate(view.features)})

    def _resolve(self, rows: Ints) -> Ints:
        """Rows in ascending order of what they hold: as declared, null lowest, NaN null, as everywhere."""
        some = self.table.take(pa.array(rows))
        ranks: list[Array] = []
        for i, feature in enumerate(self._view.features):
            column = Column.from_arrow(some[f"f{i}"], feature.dtype, feature.column)
            ranks += [column.present, np.unique(column.values, return_inverse=True)[1]]
        for name in some.column_names:
            if name.startswith("c"):  # carried, of any type
                ranks.append(np.unique([repr(value) for value in some[name].to_pylist()], return_inverse=True)[1])
        return rows[np.lexsort(ranks[::-1])] if ranks else np.sort(rows)


def _part(keys: Sequence[str], parts: int) -> str:
    """In which part a row with these keys lies."""
    return f"hash({', '.join(keys)}) % {parts}"


def _bytes(text: str) -> int:
    """A size such as `512MiB` or `2GB` in bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise DefinitionError(f"memory_limit: expected a size such as 512MiB or 2GB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _keys(view: View, spine: Spine) -> list[pa.Array]:
    return [spine.keys[key.ask].to_arrow() for key in view.keys]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """One contiguous array: taking from chunks is slow."""
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _check_columns(con: duckdb.DuckDBPyConnection, view: View, carried: Sequence[str]) -> None:
    where = f"{view.source.path} (view {view.name})"
    try:
        found = con.sql(f"SELECT * FROM {relation(view.source)} LIMIT 0").to_arrow_table().schema
    except duckdb.Error as error:
        raise SourceError(f"{where}: expected Parquet, got {first_line(error)}") from error
    declared = [(key.column, key.dtype) for key in view.keys] + [(f.column, f.dtype) for f in view.features]
    times = [view.source.timestamp, *([view.source.created] if view.source.created else [])]
    asked = [*declared, *((time, "a timestamp") for time in times), *((column, "any type") for column in carried)]
    for column, dtype in asked:
        if column not in found.names:
            raise SourceError(f"{where}: column {column!r} ({dtype}) is missing; it has {', '.join(found.names)}")
        kind = found.field(column).type
        if not (
            accepts(dtype, kind) if isinstance(dtype, Dtype) else dtype == "any type" or pa.types.is_timestamp(kind)
        ):
            raise SourceError(f"{where}: column {column!r}: expected {dtype}, got {kind}")
    for key in view.keys:  # DuckDB's own cast would round 1.9 to 2
        if key.dtype in (Dtype.INT64, Dtype.INT32) and not pa.types.is_integer(found.field(key.column).type):
            name = quoted(key.column)
            whole = f"TRY_CAST({name} AS {_SQL_TYPE[key.dtype]}) IS NOT DISTINCT FROM {name}"
            lost = con.execute(f"SELECT {name} FROM {relation(view.source)} WHERE NOT ({whole}) LIMIT 1").fetchone()
            if lost:
                raise SourceError(f"{where}: column {key.column!r}: {lost[0]!r} does not fit {key.dtype} without loss")
