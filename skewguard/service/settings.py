"""What a server is started with, and starting it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skewguard.definitions import Bundle
from skewguard.online import OnlineStore

Wrap = Callable[[OnlineStore, Bundle], OnlineStore]
"""What a deployment puts in front of the opened store."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One server. `store` is a URL (`sqlite:PATH`, `redis://...`); `evidence` says what its log may count as.

    `model` is a model folder, or a folder whose file `current` names one (see `swap`). `store_deadline` in seconds.
    `durability`, `on_log_failure`, `sample`, `pii` and its secret are the log's. `api_keys` is a file (see
    `admission`); the limits are per process.
    """

    bundle: Path
    store: str
    log: Path
    model: Path | None = None
    model_digest: str | None = None
    build: str = "dev"
    evidence: str = "production"
    accept_as_of: bool = False
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    durability: Literal["process", "disk"] = "process"
    on_log_failure: Literal["refuse", "answer_and_count"] = "refuse"
    sample: float = 1.0
    pii: tuple[str, ...] = ()
    pii_secret: str | None = None
    store_deadline: float = 0.25
    api_keys: Path | None = None
    body_bytes: int = 1 << 20
    request_rows: int = 1000
    rows_per_second: float = 0.0


def start(settings: Settings, wrap: Wrap | None = None) -> None:
    """Serve until SIGTERM, then seal the log. `wrap` lets a deployment put its own store in front.

    With several workers each is a process with segments of its own in the log; one that dies is started again.
    """
    if settings.workers > 1:
        from skewguard.service.workers import supervise

        supervise(settings, wrap)
    else:
        from skewguard.service.process import serve

        serve(settings, wrap)
