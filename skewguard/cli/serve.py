"""`serve`: features and predictions over HTTP."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from skewguard.cli.command import PASS, Command
from skewguard.workflows.project import Project

if TYPE_CHECKING:
    from skewguard.service import Settings


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


def settings_of(arguments: argparse.Namespace, project: Project) -> Settings:
    """What the service is started with."""
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

    start(settings_of(arguments, project))
    return PASS


COMMANDS = {
    "serve": Command(_serve, _serve_flags, "serve", "serve features and predictions over HTTP"),
}
