"""`snapshot`: build, adopt, verify, compare, show and audit training sets."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from skewguard.cli.command import FAIL, PASS, Command, instant, tell_notes
from skewguard.errors import SkewguardError
from skewguard.workflows.project import Project


def _snapshot_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=list(_SNAPSHOT_ACTIONS))
    parser.add_argument("--bundle")
    parser.add_argument("--snapshot", metavar="DIR", help="the snapshot; build and adopt make it")
    parser.add_argument(
        "--entity-df",
        metavar="PARQUET",
        help="build, adopt: keys, request fields, event_timestamp, labels; to adopt, the feature columns as well",
    )
    parser.add_argument("--label", action="append", default=[], help="build, adopt: a label column; may be repeated")
    parser.add_argument("--id", help="build, adopt: a column that identifies each ask")
    parser.add_argument(
        "--rule", choices=["known", "feast", "unknown"], help="what counts as known; adopt: by which rule it was built"
    )
    parser.add_argument(
        "--as-served", action="store_true", help="build: count a row once the online store could serve it"
    )
    parser.add_argument(
        "--fit-before",
        metavar="INSTANT",
        help="build: fit model inputs on the asks before it (ISO with offset); default: on all of them",
    )
    parser.add_argument("--full", action="store_true", help="verify: compute every answer again, whatever the digests")
    parser.add_argument("--against", metavar="DIR", help="diff: the other snapshot")
    parser.add_argument("--out", metavar="PATH", help="audit: write the findings as JSON, for `guard --findings`")


def _snapshot(arguments: argparse.Namespace, project: Project) -> int:
    return _SNAPSHOT_ACTIONS[arguments.action](arguments, project)


def _snapshot_build(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.definitions import load_bundle
    from skewguard.offline import Rule
    from skewguard.snapshot import adopt_snapshot, build_snapshot
    from skewguard.workflows.repository import read_entity_df

    if not arguments.entity_df:
        raise SkewguardError(f"snapshot {arguments.action}: give --entity-df, a Parquet file of asks")
    if arguments.action == "build" and arguments.rule == "unknown":
        raise SkewguardError("snapshot build: --rule is known or feast; unknown is for what was built elsewhere")
    if arguments.action == "adopt" and arguments.as_served:
        raise SkewguardError("snapshot adopt: --as-served is for build; adopted values are taken as they are")
    bundle = load_bundle(project.require("bundle"))
    asks, out = read_entity_df(arguments.entity_df), project.require("snapshot")
    if arguments.action == "adopt":
        snapshot = adopt_snapshot(
            bundle, asks, out, labels=arguments.label, rule=arguments.rule or "unknown", id_column=arguments.id
        )
    else:
        snapshot = build_snapshot(
            bundle,
            asks,
            out,
            labels=arguments.label,
            rule=Rule(arguments.rule or "known"),
            as_served=arguments.as_served,
            id_column=arguments.id,
            fit_before=_fit_before(arguments),
        )
    tell_notes(bundle)
    if arguments.json:
        print(json.dumps({"id": snapshot.id, "rows": snapshot.manifest.rows, "ties": snapshot.manifest.ties}))
    else:
        print(f"{snapshot.place}: {snapshot.manifest.rows:,} rows, id {snapshot.id[:16]}")
    return PASS


def _fit_before(arguments: argparse.Namespace) -> datetime | None:
    if arguments.fit_before is None:
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant(arguments.fit_before, "--fit-before"))


def _snapshot_verify(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.snapshot import load_snapshot, verify_snapshot
    from skewguard.workflows.snapshots import verify_lines

    snapshot = load_snapshot(project.require("snapshot"))
    result = verify_snapshot(snapshot, full=arguments.full)
    tell_notes(snapshot.bundle)
    print(json.dumps(asdict(result) | {"same": result.same}) if arguments.json else "\n".join(verify_lines(result)))
    return PASS if result.same else FAIL


def _snapshot_diff(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.snapshot import diff_snapshots, load_snapshot
    from skewguard.workflows.snapshots import diff_lines

    if not arguments.against:
        raise SkewguardError("snapshot diff: give --against, the other snapshot")
    result = diff_snapshots(load_snapshot(project.require("snapshot")), load_snapshot(arguments.against))
    print(json.dumps(asdict(result) | {"same": result.same}) if arguments.json else "\n".join(diff_lines(result)))
    return PASS if result.same else FAIL


def _snapshot_show(arguments: argparse.Namespace, project: Project) -> int:
    from rich.console import Console

    from skewguard.snapshot import load_snapshot
    from skewguard.workflows.snapshots import describe, show_tables

    snapshot = load_snapshot(project.require("snapshot"))
    if arguments.json:
        print(json.dumps(describe(snapshot)))
        return PASS
    console = Console()
    for part in show_tables(snapshot):
        console.print(part)
    return PASS


def _snapshot_audit(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.audit import audit
    from skewguard.snapshot import load_snapshot
    from skewguard.workflows.snapshots import audit_lines

    snapshot = load_snapshot(project.require("snapshot"))
    findings = audit(snapshot)
    data = json.dumps([asdict(finding) for finding in findings], indent=1)
    if arguments.out:
        Path(arguments.out).write_text(data + "\n")
    print(data if arguments.json else "\n".join(audit_lines(findings, snapshot.manifest.rows)))
    return FAIL if findings else PASS


_SNAPSHOT_ACTIONS: dict[str, Callable[[argparse.Namespace, Project], int]] = {
    "build": _snapshot_build,
    "verify": _snapshot_verify,
    "diff": _snapshot_diff,
    "show": _snapshot_show,
    "adopt": _snapshot_build,
    "audit": _snapshot_audit,
}


COMMANDS = {
    "snapshot": Command(
        _snapshot,
        _snapshot_flags,
        "guard",
        "freeze a point-in-time training set, and look after it: exit 0 the same, 1 it differs",
    ),
}
