"""skewguard.toml: where the pieces of one deployment lie. It holds no secrets.

    [skewguard]
    service = "flight_delay"
    bundle = "flight_delay.bundle.json"      # paths are relative to the file
    store = "sqlite:online.db"
    log = "log"
    snapshot = "snapshot"
    policy = "policy.toml"
    registered_name = "flight-delay"

`SKEWGUARD_<NAME>` overrides each (`SKEWGUARD_STORE=redis://...`).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from skewguard.errors import DefinitionError

FILE = "skewguard.toml"
_PATHS = ("bundle", "log", "snapshot", "policy")


@dataclass(frozen=True, slots=True)
class Project:
    """The settings of one deployment; empty where not given. Relative paths are the working directory's."""

    service: str = ""
    bundle: str = ""
    store: str = ""
    log: str = ""
    snapshot: str = ""
    policy: str = ""
    registered_name: str = ""

    def require(self, name: str) -> str:
        """A setting that must be there; raises `DefinitionError` that says how to give it."""
        value: str = getattr(self, name)
        if not value:
            # the service is what a command is about, not one of its flags
            flag = name.upper() if name == "service" else f"--{name.replace('_', '-')}"
            variable = f"SKEWGUARD_{name.upper()}"
            raise DefinitionError(f"{name} is not set: give {flag}, put it into {FILE}, or set {variable}")
        return value


def load_project(path: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> Project:
    """Read `path` (a skewguard.toml or the folder that holds one); without one, what lies in the working directory.

    Raises `DefinitionError` for a file that is named but missing, and for unknown settings (all at once).
    """
    known = {field.name for field in fields(Project)}
    file = Path(path or FILE)
    file = file / FILE if file.is_dir() else file
    values: dict[str, str] = {}
    if file.exists():
        try:
            sections = tomllib.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise DefinitionError(f"{file}: {error}") from error
        wrong = [f"{file}: expected a section [skewguard], got {name!r}" for name in sections if name != "skewguard"]
        data = sections.get("skewguard", {})
        if not isinstance(data, dict):
            raise DefinitionError(f"{file}: expected a section [skewguard], got skewguard = {data!r}")
        wrong += [
            f"{file}: unknown setting {name!r}; known are {', '.join(sorted(known))}"
            for name in data
            if name not in known
        ]
        wrong += [
            f"{file}: {name}: expected a text, got {value!r}"
            for name, value in data.items()
            if not isinstance(value, str)
        ]
        if wrong:
            raise DefinitionError(wrong)
        values = {name: _relative(name, value, file.parent) for name, value in data.items()}
    elif path:
        raise DefinitionError(f"{file}: expected a {FILE}, found none")
    values |= {name: environ[key] for name in known if (key := f"SKEWGUARD_{name.upper()}") in environ}
    return Project(**values)


def _relative(name: str, value: str, root: Path) -> str:
    if name in _PATHS and "://" not in value:
        return str(root / value)
    if name == "store" and value.startswith("sqlite:"):
        return f"sqlite:{root / value.removeprefix('sqlite:').removeprefix('//')}"
    return value
