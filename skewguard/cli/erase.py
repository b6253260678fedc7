"""`erase`: a person out of the online store, the log and the snapshots' rows."""

from __future__ import annotations

import argparse
from pathlib import Path

from skewguard.cli.command import FAIL, PASS, Command
from skewguard.errors import SkewguardError
from skewguard.workflows.project import Project


def _erase_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("person", metavar="ENTITY=KEY", help="the entity's key, such as customer_id=4711")
    parser.add_argument("--bundle")
    parser.add_argument("--log")
    parser.add_argument("--store")
    parser.add_argument("--snapshots", action="append", default=[], metavar="DIR", help="a snapshot; may be repeated")
    parser.add_argument("--receipt", metavar="PATH", help="write what was done there (JSON)")


def _erase(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.definitions import load_bundle
    from skewguard.servinglog.privacy import secret_here
    from skewguard.workflows.erase import erase

    entity, equals, key = arguments.person.partition("=")
    if not equals or not entity or not key:
        raise SkewguardError(f"erase: expected ENTITY=KEY, got {arguments.person!r}")
    receipt = erase(
        load_bundle(project.require("bundle")),
        entity,
        key,
        log=project.log or None,
        store=project.store or None,
        snapshots=arguments.snapshots or ([project.snapshot] if project.snapshot else []),
        secret=secret_here(),
    )
    if arguments.receipt:
        Path(arguments.receipt).write_text(receipt.to_json() + "\n")
    if arguments.json:
        print(receipt.to_json())
        return PASS if receipt.complete else FAIL
    for service, log in receipt.log.items():
        print(f"log of {service}: {log.removed:,} rows removed")
        for segment, rows in log.pending.items():
            print(f"  {segment}: {rows:,} rows hidden; run again once it is sealed")
    for view, rows in receipt.store.items():
        print(f"store, {view}: {rows:,} rows deleted")
    for view, reason in receipt.not_found_out.items():
        print(f"store, {view}: {reason}")
    for where, entry in receipt.snapshots.items():
        print(f"snapshot {where}: {entry['rows'] if entry else 0:,} rows removed")
    for one in receipt.not_touched:
        print(f"not touched: {one}")
    return PASS if receipt.complete else FAIL


COMMANDS = {
    "erase": Command(
        _erase, _erase_flags, "guard", "erase a person, with a receipt: exit 0 done, 1 rows are hidden until later"
    ),
}
