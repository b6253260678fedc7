"""The serving log as views of DuckDB: `log` over segments and parts alike, `feast_log` in Feast's logging schema."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from skewguard.definitions import Bundle
from skewguard.errors import LogError
from skewguard.servinglog import LogReading, Segment, read_log
from skewguard.servinglog.archive import SEGMENT, Part
from skewguard.values import Status

FEAST_STATUS = {
    Status.PRESENT: 1,
    Status.DEFAULTED: 1,
    Status.NULL: 2,
    Status.NOT_FOUND: 3,
    Status.EXPIRED: 4,
    Status.FUTURE: 0,
    Status.NOT_REQUESTED: 0,
    Status.ERROR: 0,
}
"""Feast's FieldStatus: 0 invalid, 1 present, 2 null, 3 not found, 4 outside its maximum age."""


def connect(root: str | Path, service: str | None = None, bundle: Bundle | None = None) -> duckdb.DuckDBPyConnection:
    """A connection with the view `log`: every row, its columns, and its segment's header as `h__<name>`.

    With a bundle there is `feast_log` as well. Parts are scanned where they lie; the few rows that are still in
    segments are held in memory. Raises `LogError`.
    """
    reading = read_log(root, service)
    con = duckdb.connect()
    con.execute("SET TimeZone='UTC'")
    selects = [_part_view(con, i, group) for i, group in enumerate(_by_schema(reading.parts))]
    selects += [_tail_view(con, i, table) for i, table in enumerate(_tail(reading))]
    if not selects:
        raise LogError(f"{reading.root}: the log holds no segment.")
    con.register("segment_headers", _headers(reading))
    union = " UNION ALL BY NAME ".join(selects)
    con.execute(f"CREATE VIEW log AS SELECT * FROM ({union}) JOIN segment_headers USING ({SEGMENT})")
    if bundle is not None:
        con.execute(f"CREATE VIEW feast_log AS {feast_select(bundle)}")
    return con


def query(con: duckdb.DuckDBPyConnection, text: str) -> pa.Table:
    """What a query gives, as a table. Raises `LogError` with DuckDB's own words."""
    try:
        result: duckdb.DuckDBPyRelation | None = con.sql(text)
        return pa.table({}) if result is None else result.to_arrow_table()
    except duckdb.Error as error:
        raise LogError(f"log sql: {error}") from error


def feast_select(bundle: Bundle) -> str:
    """The SELECT that turns `log` into Feast's logging schema of the bundle's service."""
    columns = [f'e__{name}" AS "{name}"' for name in bundle.keys]
    columns += [f'q__{field.name}" AS "{field.name}"' for field in bundle.request]
    parts = [f'"{column}' for column in columns]
    views = {name: f'"{view}__event_ts"' for name, view in bundle.view_of.items()}
    for i, name in enumerate(bundle.dtypes):
        code = f"CAST(substr(hex(statuses), {2 * i + 1}, 2) AS INTEGER)"  # one byte each, and none above 7
        cases = " ".join(f"WHEN {int(own)} THEN {feast}" for own, feast in FEAST_STATUS.items())
        parts.append(f'"{name}"')
        parts.append(f'{views.get(name, "event_timestamp")} AS "{name}__timestamp"')
        parts.append(f'CAST(CASE {code} {cases} ELSE 0 END AS INTEGER) AS "{name}__status"')
    parts += [
        "event_timestamp AS __log_timestamp",
        "CAST(event_timestamp AS DATE) AS __log_date",
        "id AS __request_id",
    ]
    return f"SELECT {', '.join(parts)} FROM log"


def _by_schema(parts: tuple[Part, ...]) -> list[list[Part]]:
    groups: list[list[Part]] = []
    for part in parts:
        group = next((one for one in groups if one[0].schema.equals(part.schema)), None)
        if group is None:
            groups.append([part])
        else:
            group.append(part)
    return groups


def _part_view(con: duckdb.DuckDBPyConnection, number: int, parts: list[Part]) -> str:
    places = [part.place for part in parts if part.place is not None]
    con.register(f"parts_{number}", ds.dataset([p.path for p in places], filesystem=places[0].filesystem))
    return f"SELECT * EXCLUDE (l__frame, l__row) FROM parts_{number}"


def _tail(reading: LogReading) -> list[pa.Table]:
    """Rows that are still in segments, a table for each schema."""
    tables: list[pa.Table] = []
    for segment in reading.segments:
        if segment.compacted or not segment.header:
            continue
        table = pa.Table.from_batches(segment.batches(), segment.schema).combine_chunks()
        table = table.append_column(SEGMENT, pa.array([segment.path.stem] * len(table), pa.string()))
        at = next((i for i, one in enumerate(tables) if one.schema.equals(table.schema)), None)
        if at is None:
            tables.append(table)
        else:
            tables[at] = pa.concat_tables([tables[at], table])
    return tables


def _tail_view(con: duckdb.DuckDBPyConnection, number: int, table: pa.Table) -> str:
    con.register(f"tail_{number}", table)
    return f"SELECT * FROM tail_{number}"


def _headers(reading: LogReading) -> pa.Table:
    segments: list[Segment] = [segment for segment in reading.segments if segment.header]
    names = sorted({name for segment in segments for name in segment.header})
    columns = {SEGMENT: [segment.path.stem for segment in segments]}
    columns |= {f"h__{name}": [segment.header.get(name) for segment in segments] for name in names}  # type: ignore[misc]
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
