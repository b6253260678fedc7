"""ModelFolder: what lies in a model folder, and the digest of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skewguard.errors import MissingExtra, ModelError

FEATURES_KEY = "skewguard.features"
"""Where MLmodel's metadata holds the names of the vector's columns, in order."""
SNAPSHOT_KEY = "skewguard.snapshot"
"""Where it holds the id of the snapshot that the model was trained on."""
BUNDLE_KEY = "skewguard.bundle"
"""Where it holds the digest of that snapshot's definitions."""
FITTED_KEY = "skewguard.fitted"
"""Where it holds the digest of the values that were fitted on that snapshot."""

_DESCRIPTION = "MLmodel"
_WRITTEN_ON_DOWNLOAD = "registered_model_meta"  # MLflow adds it at the root of what it downloads, even in place
_UNSAFE_FORMATS = ("pickle", "cloudpickle")


def model_digest(folder: str | Path) -> str:
    """sha256 (hex) over the sorted lines `sha256(file)  relative path` of all that was logged in `folder`.

    Raises `ModelError` for a folder that is missing or empty, or holds what no digest pins (a symbolic link).
    """
    root = Path(folder)
    return _digest(root, _files(root), {})


def _files(root: Path) -> list[str]:
    """Relative POSIX paths of the logged files, sorted."""
    if not root.is_dir():
        raise ModelError(f"{root}: expected a model folder, found {'a file' if root.exists() else 'nothing'}.")
    found: list[str] = []
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(parent, name)
            relative = path.relative_to(root).as_posix()
            if path.is_symlink() or not relative.isprintable():
                raise ModelError(
                    f"{root}: {relative!r} is a symbolic link or not printable. Copy the files themselves."
                )
            if name in files and relative != _WRITTEN_ON_DOWNLOAD:
                found.append(relative)
    if not found:
        raise ModelError(f"{root}: expected a model folder, found an empty one.")
    return sorted(found)


def _digest(root: Path, files: list[str], known: Mapping[str, bytes]) -> str:
    """The digest of `files`; `known` holds the content of those that have been read already."""
    lines = []
    for relative in files:
        if relative in known:
            digest = hashlib.sha256(known[relative])
        else:
            try:
                with (root / relative).open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256")
            except OSError as error:
                raise ModelError(f"{root / relative}: cannot be read ({error}).") from error
        lines.append(f"{digest.hexdigest()}  {relative}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder whose digest is known. What is read from it is what was digested."""

    root: Path
    digest: str
    description: Mapping[str, Any]
    contents: Mapping[str, bytes]

    @classmethod
    def read(cls, root: Path) -> ModelFolder:
        """Read the description and the model file, and digest everything."""
        files = _files(root)
        if _DESCRIPTION not in files:
            raise ModelError(f"{root}: holds no {_DESCRIPTION}. Name the folder that MLflow logged the model into.")
        text = (root / _DESCRIPTION).read_bytes()
        description = _parse(text, root)
        contents = {_DESCRIPTION: text}
        name = _flavor(description).get("pickled_model")
        if isinstance(name, str) and name in files:
            contents[name] = (root / name).read_bytes()
        return cls(root, _digest(root, files, contents), description, contents)

    @property
    def model_id(self) -> str:
        """The logged model's id, empty where the folder was saved without one."""
        return str(self.description.get("model_id") or "")

    @property
    def snapshot_id(self) -> str:
        """The snapshot that the model was trained on, as recorded in the metadata; empty where it was not."""
        return self.recorded(SNAPSHOT_KEY)

    def recorded(self, key: str) -> str:
        """A text of the metadata; empty where it was not recorded."""
        return str((self.description.get("metadata") or {}).get(key) or "")

    def model_file(self) -> bytes:
        """The model file; raises `ModelError` unless it is a scikit-learn model in skops format."""
        flavor = _flavor(self.description)
        if not flavor:
            flavors = ", ".join(self.description.get("flavors") or {}) or "none"
            raise ModelError(
                f"{self.root}: expected the flavor sklearn, found {flavors}. Log it with mlflow.sklearn.log_model."
            )
        stored = flavor.get("serialization_format", "pickle")  # MLflow's own default for folders that do not say
        if stored in _UNSAFE_FORMATS:
            raise ModelError(
                f"{self.root}: the model is stored as {stored}, which runs whatever code the file brings. "
                "Log it again with serialization_format='skops' and "
                "skops_trusted_types=list(skewguard.model.TRUSTED_TYPES)."
            )
        if stored != "skops":
            raise ModelError(f"{self.root}: expected serialization_format skops, found {stored!r}.")
        name = str(flavor.get("pickled_model"))
        if name not in self.contents:
            raise ModelError(f"{self.root}: {_DESCRIPTION} names the model file {name!r}, which is not in the folder.")
        return self.contents[name]

    def features(self) -> tuple[str, ...] | None:
        """The vector's columns as recorded: in the metadata, else in the signature."""
        recorded = (self.description.get("metadata") or {}).get(FEATURES_KEY)
        if recorded is None:
            recorded = self._signature_names()
        if recorded is None:
            return None
        if not isinstance(recorded, list) or not all(isinstance(name, str) for name in recorded):
            raise ModelError(
                f"{self.root}: {_DESCRIPTION}: {FEATURES_KEY}: expected a list of names, got {recorded!r}."
            )
        return tuple(recorded)

    def _signature_names(self) -> list[str] | None:
        try:
            inputs = json.loads((self.description.get("signature") or {})["inputs"])
            return [column["name"] for column in inputs]
        except (KeyError, TypeError, ValueError):
            return None  # a tensor's signature, or none at all, names no columns


def _parse(text: bytes, root: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("loading a model", "serve") from error
    try:
        description = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ModelError(f"{root / _DESCRIPTION}: is no YAML: {error}") from error
    if not isinstance(description, dict) or not isinstance(description.get("flavors", {}), dict):
        raise ModelError(f"{root / _DESCRIPTION}: expected a mapping with flavors.")
    return description


def _flavor(description: Mapping[str, Any]) -> Mapping[str, Any]:
    flavor = (description.get("flavors") or {}).get("sklearn")
    return flavor if isinstance(flavor, dict) else {}
