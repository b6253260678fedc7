"""The cursor: from where a watch goes on after a restart, and what it has told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from skewguard.errors import SkewguardError
from skewguard.workflows.watch.tail import Place
from skewguard.workflows.watch.window import Mark

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """`mark` is where the window began that is judged: a restart reads on from there, so that it ends where it was."""

    about: Mapping[str, str]
    mark: Mark
    benign: Mapping[str, float] = field(default_factory=dict)
    alerts: Sequence[Mapping[str, Any]] = ()
    unsent: Sequence[str] = ()

    def to_json(self) -> str:
        """As `load_cursor` reads it."""
        data = {
            "format": FORMAT,
            "about": dict(self.about),
            "places": {stem: list(place) for stem, place in self.mark.places.items()},
            "evidence": {name: state.tolist() for name, state in self.mark.evidence.items()},
            "benign": dict(self.benign),
            "alerts": list(self.alerts),
            "unsent": list(self.unsent),
        }
        return json.dumps(data)


def load_cursor(path: Path, about: Mapping[str, str]) -> Cursor | None:
    """The cursor in a file; None where there is none. Raises `SkewguardError` for another watch's, or a damaged one."""
    try:
        data = json.loads(path.read_text())
        if data["format"] != FORMAT:
            raise SkewguardError(f"{path}: expected a cursor of format {FORMAT}, got {data['format']}")
        cursor = Cursor(
            data["about"],
            Mark(
                {stem: Place(int(a), int(b)) for stem, (a, b) in data["places"].items()},
                {name: np.array(state, dtype=np.float64) for name, state in data["evidence"].items()},
            ),
            data["benign"],
            data["alerts"],
            data["unsent"],
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise SkewguardError(
            f"{path}: expected the cursor of a watch, got {error!r}. Name another file, or remove it to begin anew."
        ) from error
    for name, value in about.items():
        if cursor.about.get(name) != value:
            raise SkewguardError(
                f"{path}: is the cursor of {name} {cursor.about.get(name)!r}, not {value!r}. Name another --cursor."
            )
    return cursor
