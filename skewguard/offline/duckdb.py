"""The point-in-time join on DuckDB.

Per view, a *timeline*: source rows ordered by known time, each carrying the running maximum of (event, created) up to
and including its peers. One ASOF per ask on known time then finds the answer exactly, late corrections included; the
row itself is fetched by (keys, event, created). TTL is applied after. See docs/offline.md and ADR 0002.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewguard.definitions import View
from skewguard.errors import SourceError
from skewguard.spine import Spine, ViewRows, expire
from skewguard.values import NO_TIME, Array, Column, Dtype, Status

_SQL_TYPE = {
    Dtype.FLOAT64: "DOUBLE",
    Dtype.FLOAT32: "FLOAT",
    Dtype.INT64: "BIGINT",
    Dtype.INT32: "INTEGER",
    Dtype.BOOL: "BOOLEAN",
    Dtype.STRING: "VARCHAR",
    Dtype.TIMESTAMP: "TIMESTAMPTZ",
}


class Rule(enum.StrEnum):
    """What counts as known at an ask."""

    KNOWN = "known"
    FEAST = "feast"


class OfflineStore:
    """The sources of some views, open for asking. Not thread-safe; close it, or use it as a context manager.

    `memory_limit` is DuckDB's (`"1GiB"`); beyond it DuckDB spills. Raises `SourceError` where a source is missing,
    unreadable, or lacks a declared column.
    """

    def __init__(
        self,
        views: Sequence[View],
        rule: Rule = Rule.KNOWN,
        *,
        memory_limit: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.views = {view.name: view for view in views}
        self.rule = rule
        self._con = duckdb.connect(":memory:")
        self._con.execute("SET TimeZone='UTC'")
        if memory_limit:
            self._con.execute("SET memory_limit = ?", [memory_limit])
        if threads:
            self._con.execute("SET threads = ?", [threads])
        self._built: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the connection and its temporary tables."""
        self._con.close()

    # -- the join -----------------------------------------------------------------------------------------------

    def answer(self, spine: Spine) -> dict[str, ViewRows]:
        """One answer per ask and view, in the spine's order."""
        return {name: self._answer(view, spine) for name, view in self.views.items()}

    def _answer(self, view: View, spine: Spine) -> ViewRows:
        best = self._best(view, spine, spine.as_of)
        return self.rows(view.name, spine, best[0], best[1])

    def best(self, view: str, spine: Spine, as_of: npt.NDArray[np.int64]) -> tuple[Array, Array]:
        """(event, created) of the newest row known at `as_of` (int64 microseconds) per ask, `NO_TIME` for none."""
        return self._best(self.views[view], spine, as_of)

    def _best(self, view: View, spine: Spine, as_of: npt.NDArray[np.int64]) -> tuple[Array, Array]:
        self._build(view)
        self._register(view, spine, {"as_of": as_of})
        keys = _and(f"a.k{i} = t.k{i}" for i in range(len(view.keys)))
        table = self._table(
            f"SELECT a.ord, t.event, t.created FROM asks a ASOF JOIN {_q('timeline', view)} t "
            f"ON {keys} AND a.as_of >= t.known"
        )
        event = np.full(len(spine), NO_TIME, dtype=np.int64)
        created = event.copy()
        where = table["ord"].to_numpy()
        event[where] = table["event"].to_numpy()
        created[where] = table["created"].to_numpy()
        return event, created

    def rows(self, view: str, spine: Spine, event: Array, created: Array) -> ViewRows:
        """The named source rows: exactly (keys, event, created) per ask, with TTL and clock applied at the ask.

        NOT_FOUND where the source has no such row. Two rows equal in keys and both times are a defect of the source;
        of these the greatest in (features, in order) answers, so that neither file nor thread order matters.
        """
        declared = self.views[view]
        self._build(declared)
        self._register(declared, spine, {"event": event, "created": created})
        keys = _and(f"a.k{i} = r.k{i}" for i in range(len(declared.keys)))
        features = ", ".join(f"r.f{i}" for i in range(len(declared.features)))
        table = self._table(
            f"SELECT a.ord, {features} FROM asks a JOIN {_q('rows', declared)} r "
            f"ON {keys} AND a.event = r.event AND a.created = r.created ORDER BY a.ord"
        )
        where = table["ord"].to_numpy()
        status = np.full(len(spine), Status.NOT_FOUND, dtype=np.uint8)
        status[where] = Status.PRESENT
        found = status == Status.PRESENT
        status = expire(status, event, spine.as_of, declared.ttl_us)
        columns = {}
        for i, feature in enumerate(declared.features):
            got = Column.from_arrow(table[f"f{i}"], feature.dtype, f"{declared.source.path}: {feature.column}")
            columns[feature.name] = _spread(got, where, status)
        return ViewRows(
            status,
            np.where(found, event, NO_TIME),
            np.where(found, created, NO_TIME),
            np.full(len(spine), NO_TIME, dtype=np.int64),
            columns,
        )

    def _table(self, query: str, parameters: Sequence[object] = ()) -> pa.Table:
        return self._con.sql(query, params=list(parameters)).to_arrow_table()

    # -- what the online writer reads -----------------------------------------------------------------------------

    def latest(self, view: str, known_by: int) -> pa.Table:
        """The newest row of every key among those known by `known_by` (microseconds): columns as `changes`."""
        declared = self.views[view]
        self._build(declared)
        keys = ", ".join(f"k{i}" for i in range(len(declared.keys)))
        group = f"GROUP BY {keys}" if keys else ""
        best = f"SELECT {keys}{',' if keys else ''} max(ROW(event, created)) AS best FROM {_q('rows', declared)} "
        join = _and([*(f"r.k{i} = b.k{i}" for i in range(len(declared.keys))), "ROW(r.event, r.created) = b.best"])
        return self._table(
            f"SELECT {_changes(declared)} FROM {_q('rows', declared)} r "
            f"JOIN ({best} WHERE known <= ? {group}) b ON {join} WHERE r.known <= ?",
            [known_by, known_by],
        )

    def changes(self, view: str, since: int, until: int) -> pa.Table:
        """All rows that became known in (since, until], in order of known time.

        Columns: `known`, `event`, `created` (int64 microseconds), keys by name, features by name.
        """
        declared = self.views[view]
        self._build(declared)
        return self._table(
            f"SELECT {_changes(declared)} FROM {_q('rows', declared)} r WHERE known > ? AND known <= ? "
            f"ORDER BY known, event, created, {', '.join(f'k{i}' for i in range(len(declared.keys))) or '1'}",
            [since, until],
        )

    def history(self, view: str, spine: Spine, until: int, rows: int) -> pa.Table:
        """The newest `rows` source rows of the first ask's keys with an event up to `until`, and the next one after it.

        Columns: keys, event and created time (UTC), features, by their names; newest first. For people to look at.
        """
        declared = self.views[view]
        self._build(declared)
        keys = _and(f"r.k{i} = ?" for i in range(len(declared.keys)))
        values = [spine.keys[key.ask].value(0) for key in declared.keys]
        columns = [f"r.k{i} AS {_c(key.column)}" for i, key in enumerate(declared.keys)]
        columns += ["make_timestamptz(event) AS event_time"]
        columns += [f"CASE WHEN created = {NO_TIME} THEN NULL ELSE make_timestamptz(created) END AS created_time"]
        columns += [f"r.f{i} AS {_c(feature.name)}" for i, feature in enumerate(declared.features)]
        select = f"SELECT {', '.join(columns)} FROM {_q('rows', declared)} r WHERE {keys}"
        return self._table(
            f"({select} AND event > ? ORDER BY event, created LIMIT 1) UNION ALL "
            f"({select} AND event <= ? ORDER BY event DESC, created DESC LIMIT ?) "
            "ORDER BY event_time DESC, created_time DESC",
            [*values, until, *values, until, rows],
        )

    def ties(self, view: str) -> int:
        """How many source rows share keys and both times with another one: a defect of the source."""
        declared = self.views[view]
        self._build(declared)
        kept = f"SELECT count(*) FROM {_q('rows', declared)}"
        ties = self._table(f"SELECT count(*) - ({kept}) AS ties FROM ({self._source(declared)})")
        return int(ties["ties"][0].as_py())

    # -- building -------------------------------------------------------------------------------------------------

    def _source(self, view: View) -> str:
        keys = [f"CAST({_c(key.column)} AS {_SQL_TYPE[key.dtype]}) AS k{i}" for i, key in enumerate(view.keys)]
        created = f"coalesce({_us(view.source.created)}, {NO_TIME})" if view.source.created else str(NO_TIME)
        event = _us(view.source.timestamp)
        known = f"greatest({event}, {created})" if self.rule is Rule.KNOWN else event
        features = [f"{_c(feature.column)} AS f{i}" for i, feature in enumerate(view.features)]
        columns = ", ".join([*keys, f"{event} AS event", f"{created} AS created", f"{known} AS known", *features])
        return f"SELECT {columns} FROM {_scan(view)} WHERE {_c(view.source.timestamp)} IS NOT NULL"

    def _build(self, view: View) -> None:
        if view.name in self._built:
            return
        _check_columns(self._con, view)
        keys = ", ".join(f"k{i}" for i in range(len(view.keys)))
        comma = "," if keys else ""
        order = ", ".join(f"{_rank(i, f.dtype)} DESC NULLS LAST" for i, f in enumerate(view.features)) or "1"
        try:
            self._con.execute(
                f"CREATE OR REPLACE TEMP TABLE {_q('rows', view)} AS {self._source(view)} "
                f"QUALIFY row_number() OVER (PARTITION BY {keys}{comma} event, created ORDER BY {order}) = 1"
            )
        except duckdb.Error as error:
            raise SourceError(f"{view.source.path} (view {view.name}): cannot be read: {error}") from error
        partition = f"PARTITION BY {keys}" if keys else ""
        self._con.execute(
            f"CREATE OR REPLACE TEMP TABLE {_q('timeline', view)} AS SELECT DISTINCT {keys}{comma} known, "
            "best.event AS event, best.created AS created FROM ("
            f"SELECT {keys}{comma} known, max(struct_pack(event := event, created := created)) "
            f"OVER ({partition} ORDER BY known RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS best "
            f"FROM {_q('rows', view)})"
        )
        self._built.add(view.name)

    def _register(self, view: View, spine: Spine, times: Mapping[str, Array]) -> None:
        columns: dict[str, pa.Array] = {"ord": pa.array(np.arange(len(spine), dtype=np.int64))}
        for i, key in enumerate(view.keys):
            columns[f"k{i}"] = spine.keys[key.ask].to_arrow()
        columns |= {name: pa.array(values) for name, values in times.items()}
        self._con.register("asks", pa.table(columns))


def _rank(i: int, dtype: Dtype) -> str:
    """How tied rows are ordered by a feature: NaN is null, as everywhere."""
    return f"CASE WHEN isnan(f{i}) THEN NULL ELSE f{i} END" if dtype.is_float else f"f{i}"


def _spread(found: Column, where: Array, status: npt.NDArray[np.uint8]) -> Column:
    """Place the found values at their asks; rows whose own status has no value lose it."""
    spread = Column.absent(found.dtype, len(status), Status.NOT_FOUND)
    spread.values[where] = found.values
    own = status.copy()
    own[where] = np.maximum(status[where], found.status)
    return Column.build(found.dtype, spread.values, own)


def _changes(view: View) -> str:
    keys = [f"r.k{i} AS {_c(key.column)}" for i, key in enumerate(view.keys)]
    features = [f"r.f{i} AS {_c('f__' + feature.name)}" for i, feature in enumerate(view.features)]
    return ", ".join(["r.known AS known", "r.event AS event", "r.created AS created", *keys, *features])


def _check_columns(con: duckdb.DuckDBPyConnection, view: View) -> None:
    path = view.source.path
    try:
        found = {row[0]: row[1] for row in con.execute(f"DESCRIBE SELECT * FROM {_scan(view)}").fetchall()}
    except duckdb.IOException as error:
        raise SourceError(f"{path} (view {view.name}): expected Parquet, got {str(error).splitlines()[0]}") from error
    except duckdb.Error as error:
        raise SourceError(f"{path} (view {view.name}): cannot be read: {str(error).splitlines()[0]}") from error
    wanted = {key.column: str(key.dtype) for key in view.keys} | {f.column: str(f.dtype) for f in view.features}
    times = [view.source.timestamp, *([view.source.created] if view.source.created else [])]
    wanted |= dict.fromkeys(times, "a timestamp")
    for column, dtype in wanted.items():
        if column not in found:
            raise SourceError(
                f"{path} (view {view.name}): column {column!r} ({dtype}) is missing; it has {', '.join(found)}"
            )
        if column in times and not found[column].startswith("TIMESTAMP"):
            raise SourceError(
                f"{path} (view {view.name}): column {column!r}: expected a timestamp, got {found[column]}"
            )


def _scan(view: View) -> str:
    path = view.source.path
    if "://" not in path and Path(path).is_dir():
        path = str(Path(path) / "**" / "*.parquet")
    return "read_parquet('" + path.replace("'", "''") + "')"


def _us(column: str) -> str:
    return f"epoch_us(CAST({_c(column)} AS TIMESTAMPTZ))"


def _c(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _q(kind: str, view: View) -> str:
    return _c(f"{kind}__{view.name}")


def _and(terms: Iterable[str]) -> str:
    return " AND ".join(terms) or "TRUE"
