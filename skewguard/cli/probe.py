"""`probe`: ask a candidate before anybody else does."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import closing
from dataclasses import asdict

from skewguard.cli.command import PASS, Command, instant
from skewguard.workflows.project import Project

_MOST_ROWS = 1_000_000


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="the candidate's native MLflow model folder")
    parser.add_argument("--model-digest", help="refuse another model than this")
    parser.add_argument("--snapshot", help="what it was trained on: its asks are asked again")
    parser.add_argument("--store", help="the online store that the candidate would answer from")
    parser.add_argument("--log")
    parser.add_argument("--rows", type=int, default=100, metavar="N", help="how many asks (default: 100)")
    parser.add_argument("--as-of", metavar="WHEN", help="the instant to ask at, with a time zone (default: now)")


def _probe(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.errors import DefinitionError
    from skewguard.model import load_model
    from skewguard.online import open_lookup
    from skewguard.snapshot import load_snapshot
    from skewguard.workflows.probe import probe

    if not 0 < arguments.rows <= _MOST_ROWS:
        raise DefinitionError(f"--rows: expected 1 to {_MOST_ROWS}, got {arguments.rows}")
    as_of = instant(arguments.as_of, "--as-of") if arguments.as_of else time.time_ns() // 1000
    snapshot = load_snapshot(project.require("snapshot"))
    lookup = open_lookup(snapshot.bundle, project.require("store"))
    with closing(lookup.store):
        model = load_model(arguments.model, expected_digest=arguments.model_digest)
        done = probe(snapshot, lookup, model, project.require("log"), rows=arguments.rows, as_of=as_of)
    said = f"{done.rows:,} asks were answered and logged as a probe, {done.edges} of them at an edge"
    print(json.dumps(asdict(done) | {"model_digest": model.digest}) if arguments.json else said)
    return PASS


COMMANDS = {
    "probe": Command(_probe, _flags, "guard", "ask a candidate before anybody else does, and log it as evidence"),
}
