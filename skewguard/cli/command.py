"""What a command of the command line is, and what it may exit with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from skewguard.errors import SkewguardError
from skewguard.workflows.project import Project, load_project

if TYPE_CHECKING:
    from skewguard.definitions import Bundle

PASS, FAIL, COULD_NOT_RUN, UNKNOWN = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Command:
    """What a command runs, its flags, the extra whose packages it needs, and what it is for."""

    run: Callable[[argparse.Namespace, Project], int]
    flags: Callable[[argparse.ArgumentParser], None]
    extra: str
    about: str


def project_of(arguments: argparse.Namespace) -> Project:
    """skewguard.toml under the flags."""
    project = load_project(arguments.project)
    given = {name: getattr(arguments, name, None) for name in asdict(project)}
    return replace(project, **{name: value for name, value in given.items() if value})


def instant(text: str, flag: str) -> int:
    """The instant of a flag, in microseconds since 1970, UTC. SkewguardError where the text has no offset."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise SkewguardError(f"{flag}: expected an ISO instant with an offset such as 2013-11-04T00:00Z, got {text!r}")
    return round(when.timestamp() * 1_000_000)


def tell_notes(bundle: Bundle) -> None:
    """Print what is assumed of the sources to stderr, beside what a command prints."""
    from skewguard.workflows.snapshots import notes

    for line in notes(bundle):
        print(line, file=sys.stderr)
