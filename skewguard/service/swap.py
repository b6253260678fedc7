"""Another model, without a dropped request: the folder that `current` names replaces the one that answers.

    models/
      current               the digest of the model to serve: replaced by a rename, when the folder is whole
      10e2bdc6.../          a model folder by its digest; never changed once it is named

`skewguard pull` writes it so. The server looks once a second, and on SIGHUP. A
model that is not the one named, was fitted on other features, or fails on the rows that were served last, is refused
with a line in the server's output and `skewguard_model_swaps_total{outcome="refused"}`; the old one goes on.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skewguard.errors import ModelError, SkewguardError
from skewguard.model import Model, load_model
from skewguard.service.answering import Answering, Deployed
from skewguard.servinglog import ServingLog

POINTER = "current"
LOOK_SECONDS = 1.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model folder and the digest it must have (None: any). `pointer` is the file that named it, if one did."""

    folder: Path
    digest: str | None
    pointer: Path | None = None


def named_model(root: Path, digest: str | None) -> NamedModel:
    """The model folder `root`, or the one that `root/current` names; raises `ModelError` for a torn pointer."""
    pointer = root / POINTER
    if not pointer.is_file():
        return NamedModel(root, digest)
    return _read(pointer)


def _read(pointer: Path) -> NamedModel:
    try:
        digest = pointer.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{pointer}: expected a model's digest, got {error}") from error
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ModelError(f"{pointer}: expected a model's digest, 64 hex digits, got {digest!r:.80}")
    return NamedModel(pointer.parent / digest, digest, pointer)


def load_named(named: NamedModel) -> Model:
    """The model, if it is the one that was named; raises `ModelError`."""
    return load_model(named.folder, expected_digest=named.digest)


class Swap:
    """Watches the pointer of one server. `open_log` opens a log whose header names the model."""

    def __init__(self, answering: Answering, named: NamedModel, open_log: Callable[[Model | None], ServingLog]) -> None:
        assert named.pointer is not None  # noqa: S101  (only a model that a pointer named is watched)
        self._answering, self._open_log, self._pointer = answering, open_log, named.pointer
        self._seen = _stamp(self._pointer)
        self._asked = asyncio.Event()

    async def watch(self) -> None:
        """For as long as the server runs."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._asked.set)
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._asked.wait()
            except TimeoutError:
                pass
            asked = self._asked.is_set()
            self._asked.clear()
            stamp = _stamp(self._pointer)
            if asked or stamp != self._seen:
                self._seen = stamp
                await self.look()

    async def look(self) -> bool:
        """Take the named model if it verifies; whether another one answers now."""
        answering, old = self._answering, self._answering.deployed
        try:
            named = _read(self._pointer)
            if old.model is not None and named.digest == old.model.digest:
                return False
            model = await asyncio.to_thread(self._verified, named, answering.recent)
            log = await asyncio.to_thread(self._open_log, model)
        except SkewguardError as error:
            _logger.error("the model that %s names is refused, the old one goes on: %s", self._pointer, error)  # noqa: TRY400  (what is wrong is said)
            answering.metrics.swap("refused", old.model)
            return False
        answering.deployed = Deployed(model, log)
        answering.metrics.swap("swapped", model)
        gc.freeze()  # the new one stays as well
        await old.idle()  # batches that began with it end with it
        await asyncio.to_thread(_close, old)
        answering.metrics.flush(old.log)
        return True

    def _verified(self, named: NamedModel, recent: npt.NDArray[np.float64] | None) -> Model:
        model = load_named(named)
        model.check(self._answering.bundle.vector, self._answering.bundle.fitted_digest)
        if recent is not None:
            try:
                given = model.predict(recent)
            except Exception as error:
                told = f"{named.folder}: the model raised {type(error).__name__} on rows that were served: {error}"
                raise ModelError(told) from error
            if given.shape != (len(recent),) or not np.isfinite(given).all():
                raise ModelError(f"{named.folder}: the model gave no finite number for rows that were served")
        return model


def _close(deployed: Deployed) -> None:
    if isinstance(deployed.log, ServingLog):
        try:
            deployed.log.close()
        except SkewguardError as error:
            _logger.warning("%s", error)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size)
