"""`guard` and `explain`: replay the log and judge it, and look at one request."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from skewguard.cli.command import FAIL, PASS, UNKNOWN, Command, tell_notes
from skewguard.cli.gate import signing_key
from skewguard.workflows.project import Project

if TYPE_CHECKING:
    from skewguard.replay import Sources
    from skewguard.workflows.explain import Explanation


def _guard_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log")
    parser.add_argument("--snapshot")
    parser.add_argument("--policy")
    parser.add_argument("--registered-name", help="the registered model that the verdict is for")
    parser.add_argument("--model-digest", help="judge only what this model answered")
    parser.add_argument("--model", metavar="DIR", help="that model's folder: compute its predictions again")
    parser.add_argument("--findings", metavar="PATH", help="findings of other checks (JSON), judged with the rest")
    parser.add_argument(
        "--cross-check", type=_count, default=0, metavar="N", help="recompute N rows by the independent oracle"
    )
    parser.add_argument("--since", metavar="WHEN", help="only what was asked since: 24h, 7d, or an instant")
    parser.add_argument("--outcomes", metavar="DIR", help="what became of the requests, see `skewguard outcomes`")
    parser.add_argument("--counted", type=_count, metavar="N", help="answers that the service's own metrics counted")
    parser.add_argument("--audit", action="store_true", help="audit the snapshot too: could its rows have been known?")
    parser.add_argument("--feast-repo", metavar="DIR", help="read the truth through this repository's offline store")
    parser.add_argument("--feature-store-yaml", metavar="PATH", help="settings of that repository")
    parser.add_argument("--attach", metavar="MODEL_ID", help="store the verdict with this logged model, for the gate")
    parser.add_argument("--key", metavar="PATH", help="sign the verdict with this key (SKEWGUARD_SIGNING_KEY)")
    parser.add_argument("--tracking-uri", help="where that model was logged (default: MLflow's own)")
    parser.add_argument("--html", metavar="PATH", help="write the report")
    parser.add_argument("--out", metavar="PATH", help="write the verdict as JSON")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a count such as 0 or 200, got {text!r}")
    return int(text)


def _guard(arguments: argparse.Namespace, project: Project) -> int:
    from rich.console import Console

    from skewguard import report
    from skewguard.audit import audit
    from skewguard.errors import PolicyError
    from skewguard.model import load_model
    from skewguard.policy import load_policy
    from skewguard.servinglog.privacy import secret_here
    from skewguard.snapshot import load_snapshot
    from skewguard.verdict import Ruling, load_findings
    from skewguard.workflows.guard import guard

    log, snapshot = project.require("log"), load_snapshot(project.require("snapshot"))
    policy = load_policy(project.require("policy"))
    if project.registered_name and not policy.governs_model(project.registered_name):
        raise PolicyError(
            f"{project.require('policy')} governs {', '.join(policy.governs)}, not {project.registered_name!r}: "
            "no gate would ask for this verdict. Name the policy of that model, or add its name to `governs`"
        )
    extra = load_findings(arguments.findings) if arguments.findings else None
    if arguments.audit:
        extra = [*(extra or ()), *audit(snapshot)]
    verdict = guard(
        log,
        snapshot,
        policy,
        registered_name=project.registered_name,
        model_id=arguments.attach or "",
        model_digest=arguments.model_digest,
        model=load_model(arguments.model, expected_digest=arguments.model_digest) if arguments.model else None,
        extra=extra,
        cross_check=arguments.cross_check,
        since=_since(arguments.since) if arguments.since else None,
        outcomes=arguments.outcomes,
        counted=arguments.counted,
        secret=secret_here(),
        sources=_sources(arguments),
    ).verdict
    if not arguments.feast_repo:
        tell_notes(snapshot.bundle)
    if arguments.attach:
        from skewguard.gate.mlflow import attach_verdict

        attach_verdict(arguments.attach, verdict, signing_key(arguments.key), arguments.tracking_uri)
    if arguments.html:
        Path(arguments.html).write_text(report.to_html(verdict))
    if arguments.out:
        Path(arguments.out).write_text(report.to_json(verdict))
    if arguments.json:
        print(report.to_json(verdict))
    else:
        Console().print(report.renderable(verdict))
    return {Ruling.PASS: PASS, Ruling.FAIL: FAIL, Ruling.UNKNOWN: UNKNOWN}[verdict.ruling]


def _since(text: str) -> datetime:
    """`24h` ago, or an instant; raises `DefinitionError` for anything else."""
    from skewguard.contract import microseconds
    from skewguard.errors import DefinitionError

    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC) - timedelta(microseconds=microseconds(text))
    if instant.tzinfo is None:
        raise DefinitionError(f"--since {text}: expected an instant with a time zone, such as {text}Z")
    return instant


def _sources(arguments: argparse.Namespace) -> Sources:
    from skewguard.replay import InPlace

    if not arguments.feast_repo:
        return InPlace()
    from skewguard.workflows.feast.sources import FeastSources

    return FeastSources(arguments.feast_repo, arguments.feature_store_yaml)


def _explain_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("request_id")
    parser.add_argument("--log")
    parser.add_argument("--bundle")


def _explain(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.definitions import load_bundle
    from skewguard.servinglog.privacy import secret_here
    from skewguard.snapshot import load_snapshot
    from skewguard.workflows.explain import explain_request

    snapshot = load_snapshot(project.snapshot) if project.snapshot else None
    bundle = load_bundle(project.require("bundle"))
    explanation = explain_request(
        project.require("log"), bundle, arguments.request_id, snapshot=snapshot, secret=secret_here()
    )
    if arguments.json:
        print(json.dumps(asdict(explanation), indent=1))
    else:
        _show(explanation)
    return PASS


_STYLES = {"": "", "lagged": "dim", "unverifiable": "yellow", "carried": "red"}


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
        table.add_row(line.feature, line.served, line.truth, line.state, style=_STYLES.get(line.state, "bold red"))
    console.print(table)
    for line in explanation.lines:
        if line.why:
            console.print(f"{line.feature.replace('__', '.', 1)}: {line.why}", style="bold")
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


COMMANDS = {
    "guard": Command(
        _guard,
        _guard_flags,
        "guard",
        "replay the serving log and judge it: exit 0 pass, 1 fail, 2 could not run, 3 unknown",
    ),
    "explain": Command(
        _explain,
        _explain_flags,
        "guard",
        "one logged request: served, truth, source rows, and pandas that reproduces the truth",
    ),
}
