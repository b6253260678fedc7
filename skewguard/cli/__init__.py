"""The command line. Exit codes: 0 pass or done, 1 fail, 2 could not run, 3 unknown.

A command lies in the file of its noun, loads what it needs when it runs, and holds no arithmetic.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from skewguard.cli import (
    card,
    definitions,
    doctor,
    erase,
    gate,
    guard,
    log,
    materialize,
    online,
    outcomes,
    probe,
    serve,
    snapshot,
    watch,
)
from skewguard.cli.command import COULD_NOT_RUN, project_of
from skewguard.errors import MissingExtra, SkewguardError

if TYPE_CHECKING:
    from skewguard.service import Settings

_COMMANDS = {
    **doctor.COMMANDS,
    **definitions.COMMANDS,
    **materialize.COMMANDS,
    **online.COMMANDS,
    **snapshot.COMMANDS,
    **serve.COMMANDS,
    **probe.COMMANDS,
    **guard.COMMANDS,
    **watch.COMMANDS,
    **log.COMMANDS,
    **erase.COMMANDS,
    **outcomes.COMMANDS,
    **gate.COMMANDS,
    **card.COMMANDS,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; what it prints is for people, with `--json` for machines."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments, project_of(arguments)))
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


def serve_settings(argv: Sequence[str]) -> Settings:
    """What `skewguard serve` with these flags would be started with, for a deployment that starts the server itself."""
    arguments = _parser().parse_args(["serve", *argv])
    return serve.settings_of(arguments, project_of(arguments))
