"""Doctor: a stock Feast repository, looked at without writing to it: what differs offline and online, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skewguard.errors import MissingExtra
from skewguard.workflows.doctor.diagnosis import Cause, Defect, Diagnosis, Unchecked, Where, renderable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Cause", "Defect", "Diagnosis", "Unchecked", "Where", "diagnose", "renderable"]


def diagnose(repo: str | Path, service: str = "", **settings: Any) -> Diagnosis:
    """Look at the Feast repository at `repo`; `settings` are those of `workflows.doctor.feast.diagnose`."""
    try:
        from skewguard.workflows.doctor import feast
    except ImportError as error:
        raise MissingExtra("reading a Feast registry", "feast") from error
    return feast.diagnose(repo, service, **settings)
