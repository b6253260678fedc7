"""Reading sources with DuckDB, without a question to answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewguard.definitions import Source, View
from skewguard.errors import AskError, SourceError
from skewguard.values import NO_TIME, Dtype

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


def read_source(
    source: Source,
    columns: Sequence[str] | None = None,
    *,
    since: int | None = None,
    until: int | None = None,
    newest_by: Sequence[str] | None = None,
) -> pa.Table:
    """Rows of a source as they lie there, in its order and with its types; `columns` None means all of them.

    Only rows with an event in [since, until] (microseconds, both ends included); with `newest_by`, only the newest of
    these for every value of those columns. Raises `SourceError` where the source is missing, unreadable, or lacks a
    column.
    """
    with _opened(source) as (con, schema):
        times = [source.timestamp, *([source.created] if source.created else [])]
        needed = [*(columns or ()), *(newest_by or ()), *(times if newest_by is not None else ())]
        missing = [column for column in needed if column not in schema.names]
        if missing:
            raise SourceError(
                f"{source.path}: column {missing[0]!r} is missing; it has {', '.join(map(str, schema.names))}"
            )
        chosen = [quoted(column) for column in (schema.names if columns is None else columns)]
        bounds = [
            f"{microseconds(source.timestamp)} {sign} {at}"
            for sign, at in ((">=", since), ("<=", until))
            if at is not None
        ]
        query = f"SELECT {', '.join(chosen)} FROM {relation(source)} WHERE {' AND '.join(bounds) or 'TRUE'}"
        if newest_by is not None:
            partition = f"PARTITION BY {', '.join(map(quoted, newest_by))}" if newest_by else ""
            order = ", ".join(f"{rank} DESC NULLS LAST" for rank in [*map(microseconds, times), *chosen])
            query += f" QUALIFY row_number() OVER ({partition} ORDER BY {order}) = 1"
        return con.sql(query).to_arrow_table()


def source_schema(source: Source) -> pa.Schema:
    """Names and types of a source's columns, partition columns included."""
    with _opened(source) as (_, schema):
        return schema


class ViewScan:
    """A view's source, read by DuckDB under the names of `pieces`; rows without an event are left out.

    `memory_limit` and `threads` are DuckDB's. To be closed. Raises `SourceError`.
    """

    def __init__(self, view: View, memory_limit: str | None = None, threads: int | None = None) -> None:
        self._view = view
        self._where = f"{view.source.path} (view {view.name})"
        self._con = duckdb.connect(":memory:")
        self._con.execute("SET TimeZone='UTC'")
        if memory_limit:
            self._con.execute("SET memory_limit = ?", [memory_limit])
        if threads:
            self._con.execute("SET threads = ?", [threads])

    def close(self) -> None:
        """Release the connection."""
        self._con.close()

    def schema(self) -> pa.Schema:
        """Names and types of the source's columns."""
        try:
            return self._con.sql(f"SELECT * FROM {relation(self._view.source)} LIMIT 0").to_arrow_table().schema
        except duckdb.Error as error:
            raise SourceError(f"{self._where}: expected Parquet, got {first_line(error)}") from error

    def count(self) -> int:
        """How many rows there are."""
        return int(self._table(f"SELECT count(*) AS n FROM {relation(self._view.source)}")["n"][0].as_py())

    def check_keys(self, schema: pa.Schema) -> None:
        """DuckDB's own cast would round 1.9 to 2."""
        for key in self._view.keys:
            kind = schema.field(key.column).type
            if key.dtype in (Dtype.INT64, Dtype.INT32) and not pa.types.is_integer(kind):
                name = quoted(key.column)
                whole = f"TRY_CAST({name} AS {_SQL_TYPE[key.dtype]}) IS NOT DISTINCT FROM {name}"
                query = f"SELECT {name} AS n FROM {relation(self._view.source)} WHERE NOT ({whole}) LIMIT 1"
                for lost in self._table(query)["n"].to_pylist():
                    raise SourceError(
                        f"{self._where}: column {key.column!r}: {lost!r} does not fit {key.dtype} without loss "
                        f"({kind} in the source)."
                    )

    def read(self, carried: Sequence[str] = (), part: int = 0, parts: int = 1) -> pa.Table:
        """The rows, or one part of them, by a hash of their keys."""
        view, source = self._view, self._view.source
        columns = [f"CAST({quoted(key.column)} AS {_SQL_TYPE[key.dtype]}) AS k{i}" for i, key in enumerate(view.keys)]
        columns += [f"{microseconds(source.timestamp)} AS event"]
        columns += [f"coalesce({microseconds(source.created)}, {NO_TIME}) AS created"] if source.created else []
        columns += [f"{quoted(feature.column)} AS f{i}" for i, feature in enumerate(view.features)]
        columns += [f"{quoted(column)} AS c{i}" for i, column in enumerate(carried)]
        query = f"SELECT {', '.join(columns)} FROM {relation(source)} WHERE {quoted(source.timestamp)} IS NOT NULL"
        if parts > 1:
            query = f"SELECT * FROM ({query}) WHERE {_part(len(view.keys), parts)} = {part}"
        return self._table(query)

    def part_of(self, keys: Sequence[pa.Array], parts: int) -> Ints:
        """In which part the rows with these keys lie, by ask (n,)."""
        asks = self._con.from_arrow(pa.table({f"k{i}": key for i, key in enumerate(keys)}))
        found: Ints = asks.project(f"{_part(len(keys), parts)} AS part").to_arrow_table()["part"].to_numpy()
        return found

    def _table(self, query: str) -> pa.Table:
        try:
            return self._con.sql(query).to_arrow_table()
        except duckdb.Error as error:
            raise SourceError(f"{self._where}: {first_line(error)}") from error


def _part(keys: int, parts: int) -> str:
    return f"hash({', '.join(f'k{i}' for i in range(keys))}) % {parts}"


def run_query(query: str, folder: str | Path) -> pa.Table:
    """What a SQL query over files answers; relative paths in it are taken from `folder`. Raises `AskError`."""
    with duckdb.connect(":memory:") as con:
        con.execute("SET TimeZone='UTC'")
        con.execute("SET file_search_path = ?", [str(folder)])
        try:
            return con.sql(query).to_arrow_table()
        except duckdb.Error as error:
            raise AskError("entity_df", f"the query cannot be run: {first_line(error)}") from error


@contextmanager
def _opened(source: Source) -> Iterator[tuple[duckdb.DuckDBPyConnection, pa.Schema]]:
    with duckdb.connect(":memory:") as con:
        con.execute("SET TimeZone='UTC'")
        try:
            yield con, con.sql(f"SELECT * FROM {relation(source)} LIMIT 0").to_arrow_table().schema
        except duckdb.Error as error:
            raise SourceError(f"{source.path}: expected Parquet, got {first_line(error)}") from error


def first_line(error: duckdb.Error) -> str:
    """What DuckDB says, without the picture of the query below it."""
    return str(error).partition("\n")[0]


def relation(source: Source) -> str:
    """A source in the FROM clause: a file, a glob, a URI, or a directory with all that lies in it."""
    path = source.path
    if "://" not in path and Path(path).is_dir():
        path = str(Path(path) / "**" / "*.parquet")
    return "read_parquet('" + path.replace("'", "''") + "')"


def microseconds(column: str) -> str:
    """Microseconds since 1970, rounded down as by `values.cast`; DuckDB itself rounds nanoseconds to the nearest."""
    name = quoted(column)
    down = f"(epoch_ns({name}) - CASE WHEN epoch_ns({name}) < 0 THEN 999 ELSE 0 END) // 1000"
    return f"CASE WHEN typeof({name}) LIKE '%NS' THEN {down} ELSE epoch_us(CAST({name} AS TIMESTAMPTZ)) END"


def quoted(column: str) -> str:
    """A column's name in a query."""
    return '"' + column.replace('"', '""') + '"'
