"""`log`: list, print, check, compact and query the serving log, and take in logs from elsewhere."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict

from skewguard.cli.command import FAIL, PASS, Command, instant
from skewguard.errors import SkewguardError
from skewguard.workflows.project import Project


def _log_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=list(_ACTIONS))
    parser.add_argument("query", nargs="?", help="sql: what to ask of `log` and `feast_log`")
    parser.add_argument("--log")
    parser.add_argument("--service", help="this service only (default: all that the log has)")
    parser.add_argument("--bundle", help="import, sql: the definitions")
    parser.add_argument("--request-id", help="cat: the rows of this request")
    parser.add_argument("--columns", help="cat: these columns only, with commas between them")
    parser.add_argument("--since", metavar="INSTANT", help="cat: rows from then on")
    parser.add_argument("--until", metavar="INSTANT", help="cat: rows up to then")
    parser.add_argument("--limit", type=int, help="cat: at most so many rows")
    parser.add_argument("--to", metavar="PLACE", help="compact: the archive's folder or URI, the first time")
    parser.add_argument(
        "--grace", type=float, default=3600, metavar="SECONDS", help="compact: keep replaced files for readers (3600)"
    )
    parser.add_argument("--file", metavar="PATH", help="import: Parquet (file, glob, folder, URI) or JSON lines")
    parser.add_argument(
        "--column", action="append", default=[], metavar="NAME=COLUMN", help="import: which column is what; repeatable"
    )
    parser.add_argument(
        "--header", action="append", default=[], metavar="NAME=TEXT", help="import: a header field; repeatable"
    )


def _log(arguments: argparse.Namespace, project: Project) -> int:
    return _ACTIONS[arguments.action](arguments, project)


def _ls(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.servinglog import read_log
    from skewguard.workflows.log import listing

    reading = read_log(project.require("log"), project.service or None)
    if arguments.json:
        gaps = [asdict(gap) for gap in reading.gaps]
        print(json.dumps({"segments": listing(reading), "rows": reading.rows, "gaps": gaps}))
        return PASS
    for one in listing(reading):
        marks = " DAMAGED" if one["damaged"] else f" {one['torn_bytes']:,} torn" if one["torn_bytes"] else ""
        print(
            f"{one['service']}/{one['segment']}  {one['state']:9}  {one['rows']:>10,} rows  {one['bytes']:>13,} bytes"
            f"  {one['started_at']}  {one['build']}{marks}"
        )
    print(f"{len(reading.segments)} segments, {reading.rows:,} rows, {len(reading.parts)} parts")
    if reading.lost_rows:
        print(f"{reading.lost_rows:,} rows were answered and not logged: see `log verify`")
    return PASS


def _cat(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.workflows.log import lines

    for line in lines(
        project.require("log"),
        project.service or None,
        columns=arguments.columns.split(",") if arguments.columns else None,
        request_id=arguments.request_id,
        since=instant(arguments.since, "--since") if arguments.since else None,
        until=instant(arguments.until, "--until") if arguments.until else None,
        limit=arguments.limit,
    ):
        print(line)
    return PASS


def _verify(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.workflows.log import check

    found = check(project.require("log"), project.service or None)
    if arguments.json:
        print(json.dumps(asdict(found)))
    else:
        for text in (*found.complaints, *(f"remark: {remark}" for remark in found.remarks)):
            print(text)
        print(f"{found.rows:,} rows in {found.segments} segments and {found.parts} parts: ", end="")
        print("wrong, see above" if found.complaints else "whole")
    return FAIL if found.complaints else PASS


def _compact(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.servinglog.compaction import compact
    from skewguard.workflows.log import services

    root = project.require("log")
    done = {
        name: compact(root, name, to=arguments.to, grace_seconds=arguments.grace)
        for name in ([project.service] if project.service else services(root))
    }
    if arguments.json:
        print(json.dumps({name: asdict(one) for name, one in done.items()}))
        return PASS
    for name, one in done.items():
        print(
            f"{name}: {one.rows:,} rows of {one.segments} segments into {one.parts} parts of {one.bytes:,} bytes; "
            f"{one.removed} replaced files removed"
        )
        for segment, reason in one.left.items():
            print(f"  left: {segment}: {reason}")
    return PASS


def _import(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.definitions import load_bundle
    from skewguard.workflows.log import import_log

    if not arguments.file:
        raise SkewguardError("log import: give --file, what to import")
    bundle = load_bundle(project.require("bundle"))
    done = import_log(
        project.require("log"),
        bundle,
        arguments.file,
        _pairs(arguments.column, "--column"),
        _pairs(arguments.header, "--header"),
    )
    print(json.dumps(asdict(done)) if arguments.json else f"{done.rows:,} rows of {done.files} files imported")
    return PASS


def _sql(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.definitions import load_bundle
    from skewguard.workflows.duckdb import connect, query

    if not arguments.query:
        raise SkewguardError("log sql: give a query, such as 'SELECT count(*) FROM log'")
    bundle = load_bundle(project.bundle) if project.bundle else None
    con = connect(project.require("log"), project.service or (bundle.service if bundle else None), bundle)
    table = query(con, arguments.query)
    if arguments.json:
        print(json.dumps(table.to_pylist(), default=str))
    else:
        print("\t".join(table.column_names))
        for row in table.to_pylist():
            print("\t".join(str(value) for value in row.values()))
    return PASS


def _pairs(texts: list[str], flag: str) -> dict[str, str]:
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise SkewguardError(f"{flag}: expected NAME=VALUE, got {wrong[0]!r}")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


_ACTIONS: dict[str, Callable[[argparse.Namespace, Project], int]] = {
    "ls": _ls,
    "cat": _cat,
    "verify": _verify,
    "compact": _compact,
    "import": _import,
    "sql": _sql,
}

COMMANDS = {
    "log": Command(_log, _log_flags, "guard", "look after the serving log: exit 0 done, 1 it is damaged or has gaps"),
}
