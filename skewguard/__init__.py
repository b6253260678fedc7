"""skewguard: a feature store on Feast plus a guard against training-serving skew.

The public names are loaded when they are first used: importing the package loads no vendor.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "Refused": "skewguard.errors",
    "ServingLog": "skewguard.servinglog",
    "SkewguardError": "skewguard.errors",
    "load_bundle": "skewguard.definitions",
    "load_policy": "skewguard.policy",
    "load_snapshot": "skewguard.snapshot",
    "on_demand": "skewguard.definitions.on_demand.feast",
    "open": "skewguard.workflows.repository",
    "transform": "skewguard.transforms",
}

__all__ = [
    "Refused",
    "ServingLog",
    "SkewguardError",
    "__version__",
    "load_bundle",
    "load_policy",
    "load_snapshot",
    "on_demand",
    "open",
    "transform",
]

if TYPE_CHECKING:
    from skewguard.definitions import load_bundle
    from skewguard.definitions.on_demand.feast import on_demand
    from skewguard.errors import Refused, SkewguardError
    from skewguard.policy import load_policy
    from skewguard.servinglog import ServingLog
    from skewguard.snapshot import load_snapshot
    from skewguard.transforms import transform
    from skewguard.workflows.repository import open  # noqa: A004  (as in `skewguard.open`)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'skewguard' has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)
