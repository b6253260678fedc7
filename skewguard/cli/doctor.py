"""`doctor` and `init`: start on a Feast repository that is there already."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from skewguard.cli.command import FAIL, PASS, UNKNOWN, Command
from skewguard.errors import SkewguardError
from skewguard.workflows.project import Project

_MOST_KEYS = 100_000


def _doctor_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repo", default=".", metavar="PATH", help="the folder with feature_store.yaml")
    parser.add_argument("--feature-store-yaml", help="another feature_store.yaml than the repository's")
    parser.add_argument("--feature-service", metavar="NAME", default="", help="only the views that this one reaches")
    parser.add_argument(
        "--keys", type=int, default=100, metavar="N", help="keys of each view to compare (default: 100)"
    )
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="how long one call to a store may take"
    )


def _doctor(arguments: argparse.Namespace, _project: Project) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from skewguard.workflows.doctor import diagnose, renderable

    if not 0 < arguments.keys <= _MOST_KEYS or not arguments.timeout > 0:
        raise SkewguardError(f"doctor: expected --keys in 1..{_MOST_KEYS} and --timeout above 0")
    said = Console(file=sys.stderr)  # the stream itself: what Feast prints is caught
    columns = (TextColumn("{task.description}"), BarColumn())
    with Progress(*columns, console=said, transient=True, disable=arguments.json or not said.is_terminal) as bar:
        task = bar.add_task("opening the repository", total=None)
        diagnosis = diagnose(
            arguments.repo,
            arguments.feature_service,
            keys=arguments.keys,
            patience=arguments.timeout,
            feature_store_yaml=arguments.feature_store_yaml,
            progress=lambda what, done, of: bar.update(task, description=what, completed=done, total=of),
        )
    if arguments.json:
        print(json.dumps(asdict(diagnosis), indent=1))
    else:
        Console().print(renderable(diagnosis))
    if diagnosis.defects:
        return FAIL
    return PASS if diagnosis.compared else UNKNOWN


def _init_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repo", default=".", metavar="PATH", help="the folder with feature_store.yaml")
    parser.add_argument("--feature-store-yaml", help="another feature_store.yaml than the repository's")
    parser.add_argument("--feature-service", metavar="NAME", default="", help="the service that the settings name")
    parser.add_argument("--log", metavar="PATH", help="a serving log: what was served widens what is proposed")
    parser.add_argument("--out", metavar="DIR", help="where to write (default: the repository)")


def _init(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.workflows.init import initialise

    written = initialise(
        arguments.repo,
        arguments.feature_service or project.service,
        log=arguments.log,
        out=arguments.out,
        feature_store_yaml=arguments.feature_store_yaml,
    )
    if arguments.json:
        print(json.dumps(asdict(written), indent=1))
        return PASS
    print("\n".join([*(f"{path}: written" for path in written.files), *written.notes]))
    return PASS


COMMANDS = {
    "doctor": Command(
        _doctor,
        _doctor_flags,
        "feast",
        "look at a Feast repository, reading alone: what differs offline and online, and why: exit 0, 1, 2, 3",
    ),
    "init": Command(_init, _init_flags, "feast", "propose contracts, a policy in observe mode and skewguard.toml"),
}
