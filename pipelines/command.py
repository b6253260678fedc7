"""What every command of the pipelines does where it could not run."""

from __future__ import annotations

import sys
from collections.abc import Callable

from skewguard.errors import SkewguardError

COULD_NOT_RUN = 2


def exit_code(name: str, body: Callable[[], int]) -> int:
    """What `body` returns; 2 and one sentence where it raised: a traceback would end with 1, which means refused."""
    try:
        return body()
    except (SkewguardError, OSError) as error:  # a path that cannot be read or written is named in the latter
        print(f"{name}: {error}", file=sys.stderr)
    return COULD_NOT_RUN
