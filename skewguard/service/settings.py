"""What a server is started with, and starting it."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import uvicorn

from skewguard.answer import answer, schema
from skewguard.definitions import Bundle, load_bundle
from skewguard.model import Model, load_model
from skewguard.online import Lookup, OnlineStore, open_store
from skewguard.service.app import create_app
from skewguard.servinglog import ServingLog, recover
from skewguard.spine import Spine
from skewguard.transforms import numeric_class
from skewguard.values import Column, Status

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """One server. `store` is a URL (`sqlite:PATH`, `redis://...`); `evidence` says what its log may count as."""

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


def start(settings: Settings, wrap: Callable[[OnlineStore, Bundle], OnlineStore] | None = None) -> None:
    """Serve until SIGTERM, then seal the log. `wrap` lets a deployment put its own store in front.

    Segments that a killed process left behind are sealed first.
    """
    _arrow_without_pandas()
    bundle = load_bundle(settings.bundle)
    store = open_store(settings.store)
    lookup = Lookup(bundle, wrap(store, bundle) if wrap else store)
    model = load_model(settings.model, expected_digest=settings.model_digest) if settings.model else None
    header = {
        "build": settings.build,
        "host": socket.gethostname(),
        "evidence": settings.evidence,
        "bundle_digest": bundle.digest,
        "model_id": (model.model_id or "") if model else "",
        "model_digest": model.digest if model else "",
        "snapshot_id": model.snapshot_id if model else "",
        "numeric_class": numeric_class(),
        "other_values": " ".join(_other_values(bundle)),
    }
    # uvicorn drains, then raises the signal again: leave by way of the `with`, which seals the log
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if (settings.log / bundle.service).exists():
        recover(settings.log, bundle.service)
    with ServingLog(settings.log, bundle.service, schema(bundle), header) as log:
        app = create_app(bundle, lookup, log, model, accept_as_of=settings.accept_as_of)
        _warm(lookup, model)
        gc.collect()
        gc.freeze()  # what is loaded stays: full collections would cost over 100 ms each
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            loop="uvloop",
            http="httptools",
            timeout_keep_alive=75,  # longer than the usual load balancer's 60 s, so that it is not us who hang up
        )
        uvicorn.Server(config).run()


def _other_values(bundle: Bundle) -> tuple[str, ...]:
    """Features that compute other bits here than where the bundle was compiled; said before anything is served."""
    other = bundle.other_values
    if other:
        _logger.warning(
            "%s: %s compute other values here (%s) than where the bundle was compiled (%s). Compile the bundle and "
            "build the snapshot on this class of machine, or serve on that one.",
            bundle.service,
            ", ".join(other),
            numeric_class(),
            bundle.numerics,
        )
    return other


class _Hidden:
    """An import hook to which pandas is not installed."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def _arrow_without_pandas() -> None:
    """Let Arrow find no pandas: with its first array it would import what is merely installed (a second, 60 MB)."""
    sys.meta_path.insert(0, _Hidden)
    try:
        pa.array([0])  # looks once, and remembers
    finally:
        sys.meta_path.remove(_Hidden)


def _warm(lookup: Lookup, model: Model | None) -> None:
    """Run the whole path once on an ask about nobody, so that the first request pays for nothing. Not logged."""
    bundle = lookup.bundle
    keys = {name: Column.absent(dtype, 1, Status.NULL) for name, dtype in bundle.keys.items()}
    request = {field.name: Column.absent(field.dtype, 1, Status.NULL) for field in bundle.request}
    spine = Spine(np.array(["warm-up"], dtype=object), np.zeros(1, dtype=np.int64), keys, request)
    answer(bundle, spine, lookup.answer(spine), model)
