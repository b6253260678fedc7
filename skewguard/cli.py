"""The command line. Exit codes: 0 pass or done, 1 fail, 2 could not run, 3 unknown."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from skewguard.errors import MissingExtra, SkewguardError
from skewguard.workflows.project import Project, load_project

if TYPE_CHECKING:
    from skewguard.service import Settings
    from skewguard.workflows.explain import Explanation

PASS, FAIL, COULD_NOT_RUN, UNKNOWN = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; what it prints is for people, with `--json` for machines."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments, _project(arguments)))
    except (SkewguardError, OSError) as error:  # a path that cannot be read or written is named in the latter
        print(f"skewguard: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        missing = MissingExtra(f"`skewguard {arguments.command}`", _COMMANDS[arguments.command].extra)
        print(f"skewguard: {missing} ({error})", file=sys.stderr)
    return COULD_NOT_RUN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="skewguard", description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in _COMMANDS.items():
        one = commands.add_parser(name, help=command.about, description=command.about)
        one.add_argument(
            "--project", metavar="PATH", help="skewguard.toml, or its folder (default: the working directory)"
        )
        one.add_argument("--json", action="store_true", help="print one JSON document instead of text")
        command.flags(one)
        one.set_defaults(run=command.run)
    return parser


def _project(arguments: argparse.Namespace) -> Project:
    """skewguard.toml under the flags."""
    project = load_project(arguments.project)
    given = {name: getattr(arguments, name, None) for name in asdict(project)}
    return replace(project, **{name: value for name, value in given.items() if value})


def _bundle_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", nargs="?")
    parser.add_argument("--repo", default=".", help="the folder with feature_store.yaml")
    parser.add_argument("--feature-store-yaml", help="another feature_store.yaml than the repository's")
    parser.add_argument("--bundle", help="where to write it")


def _bundle(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.definitions.feast import compile_service

    bundle = compile_service(arguments.repo, project.require("service"), arguments.feature_store_yaml)
    bundle.save(project.require("bundle"))
    if arguments.json:
        print(json.dumps({"digest": bundle.digest, "features": list(bundle.outputs)}))
    else:
        print(f"{project.bundle}: {bundle.service}, {len(bundle.outputs)} features, digest {bundle.digest[:16]}")
        unbounded = [view.name for view in bundle.views if not view.max_lag_us]
        if unbounded:
            print(
                f"without max_lag, so that any lag is a finding: {', '.join(unbounded)}; tags=contract(max_lag='60s')"
            )
    return PASS


def _verify_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repo", help="a Feast repository: all on-demand views of its registry")
    parser.add_argument("--feature-store-yaml", help="another feature_store.yaml than the repository's")
    parser.add_argument("--bundle", help="a bundle: all of its transforms (the default, from skewguard.toml)")


def _verify(arguments: argparse.Namespace, project: Project) -> int:
    from rich.console import Console

    from skewguard.workflows.verify import State, renderable, verify_bundle, verify_repository

    if arguments.repo:
        lines = verify_repository(arguments.repo, arguments.feature_store_yaml)
    else:
        lines = verify_bundle(project.require("bundle"))
    if arguments.json:
        print(json.dumps([asdict(line) for line in lines], indent=1))
    else:
        Console().print(renderable(lines))
    states = {line.state for line in lines}
    if states & {State.REFUSED, State.SKEWED}:
        return FAIL
    return UNKNOWN if State.UNPROVEN in states else PASS


def _materialize_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle")
    parser.add_argument("--store", help="sqlite:PATH or redis://HOST:PORT")
    parser.add_argument("--known-by", metavar="INSTANT", help="ISO instant with offset (default: now)")


def _materialize(arguments: argparse.Namespace, project: Project) -> int:
    import time

    from skewguard.definitions import load_bundle
    from skewguard.offline import OfflineStore
    from skewguard.online import open_store
    from skewguard.workflows.materialize import materialize

    bundle = load_bundle(project.require("bundle"))
    known_by = _instant(arguments.known_by) if arguments.known_by else time.time_ns() // 1000
    with OfflineStore(bundle.views) as offline:
        counts = materialize(bundle, offline, open_store(project.require("store")), known_by)
    if arguments.json:
        print(json.dumps(counts))
    else:
        for view, rows in counts.items():
            print(f"{view}: {rows:,} rows")
    return PASS


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
        )
    if arguments.json:
        print(json.dumps({"id": snapshot.id, "rows": snapshot.manifest.rows, "ties": snapshot.manifest.ties}))
    else:
        print(f"{snapshot.path}: {snapshot.manifest.rows:,} rows, id {snapshot.id[:16]}")
    return PASS


def _snapshot_verify(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.snapshot import load_snapshot, verify_snapshot
    from skewguard.workflows.snapshots import verify_lines

    result = verify_snapshot(load_snapshot(project.require("snapshot")), full=arguments.full)
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


def _serve_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle")
    parser.add_argument("--store")
    parser.add_argument("--log")
    parser.add_argument("--model", metavar="DIR", help="a native MLflow model folder")
    parser.add_argument("--model-digest", help="refuse to start with another model than this")
    parser.add_argument("--build", default="dev", help="the name of this build, for the log")
    parser.add_argument("--evidence", choices=["production", "shadow"], default="production")
    parser.add_argument(
        "--accept-as-of", action="store_true", help="let requests name their own instant (replaying history)"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)


def serve_settings(argv: Sequence[str]) -> Settings:
    """What `skewguard serve` with these flags would be started with, for a deployment that starts the server itself."""
    arguments = _parser().parse_args(["serve", *argv])
    return _settings(arguments, _project(arguments))


def _settings(arguments: argparse.Namespace, project: Project) -> Settings:
    from skewguard.service import Settings

    return Settings(
        bundle=Path(project.require("bundle")),
        store=project.require("store"),
        log=Path(project.require("log")),
        model=Path(arguments.model) if arguments.model else None,
        model_digest=arguments.model_digest,
        build=arguments.build,
        evidence=arguments.evidence,
        accept_as_of=arguments.accept_as_of,
        host=arguments.host,
        port=arguments.port,
    )


def _serve(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.service import start

    start(_settings(arguments, project))
    return PASS


def _guard_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log")
    parser.add_argument("--snapshot")
    parser.add_argument("--policy")
    parser.add_argument("--registered-name", help="the registered model that the verdict is for")
    parser.add_argument("--model-digest", help="judge only what this model answered")
    parser.add_argument("--model", metavar="DIR", help="that model's folder: compute its predictions again")
    parser.add_argument("--findings", metavar="PATH", help="findings of other checks (JSON), judged with the rest")
    parser.add_argument(
        "--cross-check", type=int, default=0, metavar="N", help="recompute N rows by the independent oracle"
    )
    parser.add_argument("--attach", metavar="MODEL_ID", help="store the verdict with this logged model, for the gate")
    parser.add_argument("--tracking-uri", help="where that model was logged (default: MLflow's own)")
    parser.add_argument("--html", metavar="PATH", help="write the report")
    parser.add_argument("--out", metavar="PATH", help="write the verdict as JSON")


def _guard(arguments: argparse.Namespace, project: Project) -> int:
    from rich.console import Console

    from skewguard import report
    from skewguard.model import load_model
    from skewguard.policy import load_policy
    from skewguard.snapshot import load_snapshot
    from skewguard.verdict import Ruling, load_findings
    from skewguard.workflows.guard import guard

    verdict = guard(
        project.require("log"),
        load_snapshot(project.require("snapshot")),
        load_policy(project.require("policy")),
        registered_name=project.registered_name,
        model_id=arguments.attach or "",
        model_digest=arguments.model_digest,
        model=load_model(arguments.model, expected_digest=arguments.model_digest) if arguments.model else None,
        extra=load_findings(arguments.findings) if arguments.findings else (),
        cross_check=arguments.cross_check,
    ).verdict
    if arguments.attach:
        from skewguard.gate.mlflow import attach_verdict

        attach_verdict(arguments.attach, verdict, arguments.tracking_uri)
    if arguments.html:
        Path(arguments.html).write_text(report.to_html(verdict))
    if arguments.out:
        Path(arguments.out).write_text(report.to_json(verdict))
    if arguments.json:
        print(report.to_json(verdict))
    else:
        Console().print(report.renderable(verdict))
    return {Ruling.PASS: PASS, Ruling.FAIL: FAIL, Ruling.UNKNOWN: UNKNOWN}[verdict.ruling]


def _explain_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("request_id")
    parser.add_argument("--log")
    parser.add_argument("--bundle")


def _explain(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.definitions import load_bundle
    from skewguard.offline import Rule
    from skewguard.snapshot import load_snapshot
    from skewguard.workflows.explain import explain_request

    bundle = load_bundle(project.require("bundle"))
    rule = Rule(load_snapshot(project.snapshot).manifest.rule) if project.snapshot else Rule.KNOWN
    explanation = explain_request(project.require("log"), bundle, arguments.request_id, rule=rule)
    if arguments.json:
        print(json.dumps(asdict(explanation), indent=1))
    else:
        _show(explanation)
    return PASS


def _show(explanation: Explanation) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)  # what stands in brackets is somebody's key, not a style
    who = ", ".join(f"{name} {value}" for name, value in explanation.keys.items())
    served_by = explanation.header
    console.print(f"request {explanation.request_id}: {who}, as of {explanation.as_of}")
    build, host, model = (served_by.get(name) or "none" for name in ("build", "host", "model_id"))
    console.print(f"answered by build {build} on {host}, model {model}")
    table = Table("feature", "served", "truth", "")
    for line in explanation.lines:
        style = "" if line.equal else "bold red"
        table.add_row(line.feature, line.served, line.truth, "" if line.equal else "differs", style=style)
    console.print(table)
    differing = {line.feature.partition("__")[0] for line in explanation.lines if not line.equal}
    for source in explanation.sources:
        if source.view in differing or not differing:
            console.print(f"\n{source.view}: served {source.served}; truth {source.truth}; from {source.path}")
            rows = Table(*(source.rows[0] if source.rows else ["no row of this key"]))
            for row in source.rows:
                rows.add_row(*row.values())
            console.print(rows)
            if source.view in explanation.pandas:
                console.print("the truth without skewguard:")
                print(explanation.pandas[source.view])


def _instant(text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise SkewguardError(
            f"--known-by: expected an ISO instant with an offset such as 2013-11-04T00:00Z, got {text!r}"
        )
    return round(instant.timestamp() * 1_000_000)


@dataclass(frozen=True, slots=True)
class _Command:
    """What a command runs, its flags, the extra whose packages it needs, and what it is for."""

    run: Callable[[argparse.Namespace, Project], int]
    flags: Callable[[argparse.ArgumentParser], None]
    extra: str
    about: str


_COMMANDS = {
    "bundle": _Command(
        _bundle, _bundle_flags, "feast", "compile a feature service of an applied Feast repository into a bundle"
    ),
    "verify": _Command(
        _verify,
        _verify_flags,
        "guard",
        "prove that every on-demand feature is the same for one row and for a million: exit 0, 1, 2, 3",
    ),
    "materialize": _Command(
        _materialize, _materialize_flags, "guard", "publish what has become known to the online store"
    ),
    "snapshot": _Command(
        _snapshot,
        _snapshot_flags,
        "guard",
        "freeze a point-in-time training set, and look after it: exit 0 the same, 1 it differs",
    ),
    "serve": _Command(_serve, _serve_flags, "serve", "serve features and predictions over HTTP"),
    "guard": _Command(
        _guard,
        _guard_flags,
        "guard",
        "replay the serving log and judge it: exit 0 pass, 1 fail, 2 could not run, 3 unknown",
    ),
    "explain": _Command(
        _explain,
        _explain_flags,
        "guard",
        "one logged request: served, truth, source rows, and pandas that reproduces the truth",
    ),
}


if __name__ == "__main__":
    sys.exit(main())
