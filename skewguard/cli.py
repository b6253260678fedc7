"""The command line. Exit codes: 0 pass or done, 1 fail, 2 could not run, 3 unknown."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    except SkewguardError as error:
        print(f"skewguard: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        print(
            f"skewguard: {MissingExtra(f'`skewguard {arguments.command}`', _EXTRA[arguments.command])} ({error})",
            file=sys.stderr,
        )
    return COULD_NOT_RUN


_EXTRA = {
    "bundle": "feast",
    "materialize": "guard",
    "snapshot": "guard",
    "serve": "serve",
    "guard": "guard",
    "explain": "guard",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="skewguard", description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, about: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about, description=about)
        one.add_argument(
            "--project", metavar="PATH", help="skewguard.toml, or its folder (default: the working directory)"
        )
        one.add_argument("--json", action="store_true", help="print one JSON document instead of text")
        one.set_defaults(run=run)
        return one

    bundle = command("bundle", _bundle, "compile a feature service of an applied Feast repository into a bundle")
    bundle.add_argument("service", nargs="?")
    bundle.add_argument("--repo", default=".", help="the folder with feature_store.yaml")
    bundle.add_argument("--feature-store-yaml", help="another feature_store.yaml than the repository's")
    bundle.add_argument("--bundle", help="where to write it")

    materialize = command("materialize", _materialize, "publish what has become known to the online store")
    materialize.add_argument("--bundle")
    materialize.add_argument("--store", help="sqlite:PATH or redis://HOST:PORT")
    materialize.add_argument("--known-by", metavar="INSTANT", help="ISO instant with offset (default: now)")

    snapshot = command("snapshot", _snapshot, "build a point-in-time training set, frozen")
    snapshot.add_argument("action", choices=["build"])
    snapshot.add_argument("--bundle")
    snapshot.add_argument(
        "--entity-df", required=True, metavar="PARQUET", help="keys, request fields, event_timestamp, labels"
    )
    snapshot.add_argument("--label", action="append", default=[], help="a label column; may be repeated")
    snapshot.add_argument("--id", help="a column that identifies each ask")
    snapshot.add_argument("--rule", choices=["known", "feast"], default="known")
    snapshot.add_argument("--snapshot", metavar="DIR", help="where to write it")

    serve = command("serve", _serve, "serve features and predictions over HTTP")
    serve.add_argument("--bundle")
    serve.add_argument("--store")
    serve.add_argument("--log")
    serve.add_argument("--model", metavar="DIR", help="a native MLflow model folder")
    serve.add_argument("--model-digest", help="refuse to start with another model than this")
    serve.add_argument("--build", default="dev", help="the name of this build, for the log")
    serve.add_argument("--evidence", choices=["production", "shadow"], default="production")
    serve.add_argument(
        "--accept-as-of", action="store_true", help="let requests name their own instant (replaying history)"
    )
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8080)

    guard = command(
        "guard", _guard, "replay the serving log and judge it: exit 0 pass, 1 fail, 2 could not run, 3 unknown"
    )
    guard.add_argument("--log")
    guard.add_argument("--snapshot")
    guard.add_argument("--policy")
    guard.add_argument("--registered-name", help="the registered model that the verdict is for")
    guard.add_argument("--model-digest", help="judge only what this model answered")
    guard.add_argument(
        "--cross-check", type=int, default=0, metavar="N", help="recompute N rows by the independent oracle"
    )
    guard.add_argument("--attach", metavar="MODEL_ID", help="store the verdict with this logged model, for the gate")
    guard.add_argument("--tracking-uri", help="where that model was logged (default: MLflow's own)")
    guard.add_argument("--html", metavar="PATH", help="write the report")
    guard.add_argument("--out", metavar="PATH", help="write the verdict as JSON")

    explain = command(
        "explain", _explain, "one logged request: served, truth, source rows, and pandas that reproduces the truth"
    )
    explain.add_argument("request_id")
    explain.add_argument("--log")
    explain.add_argument("--bundle")
    return parser


def _project(arguments: argparse.Namespace) -> Project:
    """skewguard.toml under the flags."""
    project = load_project(arguments.project)
    given = {name: getattr(arguments, name, None) for name in asdict(project)}
    return replace(project, **{name: value for name, value in given.items() if value})


def _bundle(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.definitions.feast import compile_service

    bundle = compile_service(arguments.repo, project.require("service"), arguments.feature_store_yaml)
    bundle.save(project.require("bundle"))
    if arguments.json:
        print(json.dumps({"digest": bundle.digest, "features": list(bundle.outputs)}))
    else:
        print(f"{project.bundle}: {bundle.service}, {len(bundle.outputs)} features, digest {bundle.digest[:16]}")
    return PASS


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


def _snapshot(arguments: argparse.Namespace, project: Project) -> int:
    import pyarrow.parquet as pq

    from skewguard.definitions import load_bundle
    from skewguard.offline import Rule
    from skewguard.snapshot import build_snapshot

    snapshot = build_snapshot(
        load_bundle(project.require("bundle")),
        pq.read_table(arguments.entity_df),
        project.require("snapshot"),
        labels=arguments.label,
        rule=Rule(arguments.rule),
        id_column=arguments.id,
    )
    if arguments.json:
        print(json.dumps({"id": snapshot.id, "rows": snapshot.manifest.rows, "ties": snapshot.manifest.ties}))
    else:
        print(f"{snapshot.path}: {snapshot.manifest.rows:,} rows, id {snapshot.id[:16]}")
    return PASS


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


def _guard(arguments: argparse.Namespace, project: Project) -> int:
    from rich.console import Console

    from skewguard import report
    from skewguard.policy import load_policy
    from skewguard.snapshot import load_snapshot
    from skewguard.verdict import Ruling
    from skewguard.workflows.guard import guard

    verdict = guard(
        project.require("log"),
        load_snapshot(project.require("snapshot")),
        load_policy(project.require("policy")),
        registered_name=project.registered_name,
        model_id=arguments.attach or "",
        model_digest=arguments.model_digest,
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


def _explain(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.definitions import load_bundle
    from skewguard.workflows.explain import explain_request

    bundle = load_bundle(project.require("bundle"))
    explanation = explain_request(project.require("log"), bundle, arguments.request_id)
    if arguments.json:
        print(json.dumps(asdict(explanation), indent=1))
    else:
        _show(explanation)
    return PASS


def _show(explanation: Explanation) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    who = ", ".join(f"{name} {value}" for name, value in explanation.keys.items())
    served_by = explanation.header
    console.print(f"request {explanation.request_id}: {who}, as of {explanation.as_of}")
    console.print(
        f"answered by build {served_by['build']} on {served_by['host']}, model {served_by['model_id'] or 'none'}"
    )
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


if __name__ == "__main__":
    sys.exit(main())
