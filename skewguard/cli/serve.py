"""`serve`: features and predictions over HTTP."""

from __future__ import annotations

import argparse
import os
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
    parser.add_argument(
        "--model", metavar="DIR", help="a native MLflow model folder, or the folder of a `current` that names one"
    )
    parser.add_argument("--model-digest", help="refuse to start with another model than this")
    parser.add_argument("--build", default="dev", help="the name of this build, for the log")
    parser.add_argument("--evidence", choices=["production", "shadow", "probe"], default="production")
    parser.add_argument(
        "--accept-as-of", action="store_true", help="let requests name their own instant (replaying history)"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--workers", type=_positive, default=1, help="processes; each writes segments of its own")
    parser.add_argument("--durability", choices=["process", "disk"], default="process", help="what an answer survives")
    parser.add_argument(
        "--on-log-failure",
        choices=["refuse", "answer_and_count"],
        default="refuse",
        help="a full disk: refuse requests, or answer them and count the gap",
    )
    parser.add_argument("--sample", type=float, default=1.0, metavar="SHARE", help="of the requests, to be logged")
    parser.add_argument("--pii", action="append", default=[], metavar="ENTITY", help="hash its keys in the log")
    parser.add_argument("--store-deadline", type=float, default=0.25, metavar="SECONDS")
    parser.add_argument("--api-keys", metavar="FILE", help="SHA-256 of each key by the id of its owner (JSON)")
    parser.add_argument("--max-body", type=_positive, default=1 << 20, metavar="BYTES")
    parser.add_argument("--max-rows", type=_positive, default=1000, metavar="N", help="asks in one request")
    parser.add_argument("--rate", type=float, default=0.0, metavar="N", help="asks per second, key and worker; 0: any")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text}")
    return number


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
        workers=arguments.workers,
        durability=arguments.durability,
        on_log_failure=arguments.on_log_failure,
        sample=arguments.sample,
        pii=tuple(arguments.pii),
        pii_secret=os.environ.get("SKEWGUARD_PII_SECRET"),
        store_deadline=arguments.store_deadline,
        api_keys=Path(arguments.api_keys) if arguments.api_keys else None,
        body_bytes=arguments.max_body,
        request_rows=arguments.max_rows,
        rows_per_second=arguments.rate,
    )


def _serve(arguments: argparse.Namespace, project: Project) -> int:
    from skewguard.service import start

    start(settings_of(arguments, project))
    return PASS


COMMANDS = {
    "serve": Command(_serve, _serve_flags, "serve", "serve features and predictions over HTTP"),
}
