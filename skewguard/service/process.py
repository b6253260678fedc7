"""One serving process: everything is loaded, checked and run once before the first request."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import uvicorn

from skewguard.answer import answer, schema
from skewguard.definitions import Bundle, load_bundle
from skewguard.model import Model
from skewguard.online import Lookup, open_lookup
from skewguard.service.admission import Admission, read_keys
from skewguard.service.answering import CLIENT
from skewguard.service.app import create_app
from skewguard.service.reading import Reading, reading_of
from skewguard.service.settings import Settings, Wrap
from skewguard.service.swap import Swap, load_named, named_model
from skewguard.service.wire import wire_of
from skewguard.servinglog import ServingLog, recover
from skewguard.spine import Spine
from skewguard.transforms import numeric_class
from skewguard.values import Column, Status

_logger = logging.getLogger(__name__)
_REDIS = ("redis://", "rediss://", "unix://")


def serve(settings: Settings, wrap: Wrap | None = None, listener: socket.socket | None = None) -> None:
    """Serve until SIGTERM, then seal the log. Segments that a killed process left behind are sealed first."""
    _arrow_without_pandas()
    bundle = load_bundle(settings.bundle)
    lookup = open_lookup(bundle, settings.store)
    store = lookup.store
    if wrap:
        lookup = type(lookup)(bundle, wrap(store, bundle))
    named = named_model(settings.model, settings.model_digest) if settings.model else None
    model = load_named(named) if named else None
    keys = read_keys(settings.api_keys) if settings.api_keys else {}
    open_log = _log_opener(settings, bundle, clients=bool(keys))
    # uvicorn drains, then raises the signal again: leave by way of `finally`, which seals the log
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if (settings.log / bundle.service).exists():
        recover(settings.log, bundle.service)
    log = open_log(model)
    app = None
    try:
        app = create_app(
            bundle,
            lookup,
            log,
            model,
            accept_as_of=settings.accept_as_of,
            reading=_reading(settings, lookup, wrapped=wrap is not None),
            admission=Admission(keys, settings.body_bytes, settings.request_rows, settings.rows_per_second),
            blocking_log=settings.durability == "disk",
        )
        if named and named.pointer:
            app.state.background = [Swap(app.state.answering, named, open_log).watch]
        _warm(lookup, model)
        gc.collect()
        gc.freeze()  # what is loaded stays: full collections would cost over 100 ms each
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # nobody here asks who the caller's peer is
            server_header=False,
            loop="uvloop",
            http=wire_of(app.front) if app.front else "httptools",
            timeout_keep_alive=75,  # longer than the usual load balancer's 60 s, so that it is not us who hang up
        )
        uvicorn.Server(config).run(sockets=[listener] if listener else None)
    finally:
        (log if app is None else app.state.answering.deployed.log).close()


def _log_opener(settings: Settings, bundle: Bundle, *, clients: bool) -> Callable[[Model | None], ServingLog]:
    """What opens a log whose header names a model."""
    header = {
        "build": settings.build,
        "host": socket.gethostname(),
        "evidence": settings.evidence,
        "bundle_digest": bundle.digest,
        "numeric_class": numeric_class(),
        "other_values": " ".join(_other_values(bundle)),
    }
    columns = schema(bundle).append(CLIENT) if clients else schema(bundle)

    def open_log(model: Model | None) -> ServingLog:
        named = {
            "model_id": (model.model_id or "") if model else "",
            "model_digest": model.digest if model else "",
            "snapshot_id": model.snapshot_id if model else "",
            "trained_under": _trained_under(bundle, model),
        }
        return ServingLog(
            settings.log,
            bundle.service,
            columns,
            header | named,
            bundle=bundle,
            durability=settings.durability,
            on_failure=settings.on_log_failure,
            sample=settings.sample,
            pii=tuple(dict.fromkeys((*settings.pii, *bundle.pii))),
            secret=settings.pii_secret.encode() if settings.pii_secret else None,
        )

    return open_log


def _reading(settings: Settings, lookup: Lookup, *, wrapped: bool) -> Reading:
    if wrapped or not settings.store.startswith(_REDIS):
        return reading_of(lookup)
    from skewguard.service.redis import RedisReading

    return RedisReading(lookup, settings.store, deadline=settings.store_deadline)


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


def _trained_under(bundle: Bundle, model: Model | None) -> str:
    """The digest of the definitions that the model was trained under; that they are others is said before it serves."""
    trained = model.bundle_digest if model else ""
    if trained and trained != bundle.digest:
        _logger.warning(
            "%s: the definitions served here (%s) are not those that the model was trained under (%s). The guard will "
            "not compare the two: name the bundle.json of the model's snapshot, or train it again.",
            bundle.service,
            bundle.digest[:12],
            trained[:12],
        )
    return trained


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
    views = lookup.answer(spine)
    try:
        answer(bundle, spine, views, model)
    except Exception as error:  # noqa: BLE001  (whatever somebody's estimator raises)
        _logger.warning(
            "the model cannot take an ask about nobody, whose vector is all NaN: %s. It will be refused where a "
            "feature has no value.",
            error,
        )
