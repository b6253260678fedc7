"""The definitions under which a log's rows were served: the bundles, beside the rows, each under its digest.

    <root>/<service>/definitions/<digest>.json

A file is written when a log is opened with a bundle, and never again: its name says what it holds. With it, whoever
reads the log later can tell which features of those rows are the same as their own (`skewguard.definitions.shared`).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skewguard.errors import DefinitionError, LogError
from skewguard.servinglog.archive import put

if TYPE_CHECKING:
    from skewguard.definitions import Bundle
    from skewguard.place import Place

FOLDER = "definitions"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def keep(folder: Path, bundle: Bundle) -> None:
    """Put the bundle beside the segments in `folder`, unless it is there. Raises `LogError`."""
    file = folder / FOLDER / f"{bundle.digest}.json"
    if file.exists():
        return
    partial = file.with_name(f"{bundle.digest}-{secrets.token_hex(4)}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial.write_text(bundle.text())
        partial.replace(file)  # of several writers the last wins: all write the same definitions
    except OSError as error:
        raise LogError(f"serving log {folder}: the definitions could not be put beside it: {error}.") from error


def kept(root: str | Path, service: str, digest: str) -> Bundle | None:
    """The bundle of this digest, None where none lies beside the log, or one that is not what its name says."""
    from skewguard.definitions import read_bundle
    from skewguard.place import place_of

    if not _DIGEST.fullmatch(digest):
        return None
    try:
        file = place_of(root) / service / FOLDER / f"{digest}.json"
        bundle = read_bundle(file.read().decode(), file)
    except (OSError, UnicodeDecodeError, DefinitionError):
        return None
    return bundle if bundle.digest == digest else None


def follow(folder: Path, archive: Place) -> None:
    """Copy what lies beside the segments into an archive elsewhere, where rows may be read without this folder.

    Raises `OSError`.
    """
    if archive.local is not None and archive.local.parent == folder:
        return
    for file in sorted((folder / FOLDER).glob("*.json")):
        to = archive / FOLDER
        if not (to / file.name).exists():
            to.make()
            put(to / file.name, _writer(file.read_bytes()))


def _writer(content: bytes) -> Callable[[Any], object]:
    return lambda stream: stream.write(content)
