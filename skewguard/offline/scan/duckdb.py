"""Reading sources with DuckDB, without a question to answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from skewguard.definitions import Source
from skewguard.errors import AskError, SourceError


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
