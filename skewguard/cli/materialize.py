"""`materialize`: publish to the online store."""

from __future__ import annotations

import argparse
import json

from skewguard.cli.command import PASS, Command, instant
from skewguard.workflows.project import Project


def _materialize_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle")
    parser.add_argument("--store", help="sqlite:PATH or redis://HOST:PORT")
    parser.add_argument("--narrow", action="store_true", help="features that the store has and the bundle lacks may go")
    parser.add_argument("--known-by", metavar="INSTANT", help="ISO instant with offset (default: now)")


def _materialize(arguments: argparse.Namespace, project: Project) -> int:
    import time

    from skewguard.definitions import load_bundle
    from skewguard.offline import OfflineStore
    from skewguard.online import open_store
    from skewguard.workflows.materialize import materialize

    bundle = load_bundle(project.require("bundle"))
    known_by = instant(arguments.known_by, "--known-by") if arguments.known_by else time.time_ns() // 1000
    with OfflineStore(bundle.views) as offline:
        store = open_store(project.require("store"))
        counts = materialize(bundle, offline, store, known_by, narrow=arguments.narrow)
    if arguments.json:
        print(json.dumps(counts))
    else:
        for view, rows in counts.items():
            print(f"{view}: {rows:,} rows")
    return PASS


COMMANDS = {
    "materialize": Command(
        _materialize, _materialize_flags, "guard", "publish what has become known to the online store"
    ),
}
