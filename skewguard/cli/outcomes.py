"""`outcomes`: bring in what became of requests."""

from __future__ import annotations

import argparse
import json

from skewguard.cli.command import PASS, Command
from skewguard.workflows.project import Project


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["import"])
    parser.add_argument("file", metavar="PARQUET", help="request ids and what became of them")
    parser.add_argument("--id", default="id", help="the column of request ids (default: id)")
    parser.add_argument("--outcome", default="outcome", help="the column of outcomes, numbers or bools")
    parser.add_argument("--as-of", metavar="COLUMN", help="when each was asked: then the log's gaps can be found")
    parser.add_argument("--outcomes", metavar="DIR", default="outcomes", help="where outcomes are kept")


def _run(arguments: argparse.Namespace, _: Project) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from skewguard.errors import EvidenceError
    from skewguard.workflows.outcomes import import_outcomes

    try:
        table = pq.read_table(arguments.file)
    except (OSError, pa.ArrowException) as error:
        raise EvidenceError(f"{arguments.file}: expected a Parquet file of outcomes, got {error}") from error
    done = import_outcomes(
        table, arguments.outcomes, id_column=arguments.id, outcome=arguments.outcome, as_of=arguments.as_of
    )
    if arguments.json:
        print(json.dumps({"path": str(done.path), "rows": done.rows, "timed": done.timed}))
    else:
        print(f"{done.path}: {done.rows:,} outcomes, {done.timed:,} of them with the time of their request")
    return PASS


COMMANDS = {"outcomes": Command(_run, _flags, "guard", "bring in what became of requests, for `guard --outcomes`")}
