"""`bundle` and `verify`: compile the definitions, prove the transforms."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from skewguard.cli.command import FAIL, PASS, UNKNOWN, Command
from skewguard.workflows.project import Project


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


COMMANDS = {
    "bundle": Command(
        _bundle, _bundle_flags, "feast", "compile a feature service of an applied Feast repository into a bundle"
    ),
    "verify": Command(
        _verify,
        _verify_flags,
        "guard",
        "prove that every on-demand feature is the same for one row and for a million: exit 0, 1, 2, 3",
    ),
}
