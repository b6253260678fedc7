"""Watch: the guard, look by look, while the log grows."""

from skewguard.workflows.watch.watching import Looked, Settings, Watch, run

__all__ = ["Looked", "Settings", "Watch", "run"]
