"""A snapshot as MLflow's source of a dataset: what a run was trained on can be found again, held against its id.

No entry point announces it: MLflow would load snapshots, and DuckDB with them, whenever it is imported itself, on
servers too. `bind` makes it known to the process's MLflow; `SnapshotSource.from_json` reads it anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from mlflow.data.dataset_source import DatasetSource
from mlflow.data.dataset_source_registry import get_registered_sources, register_dataset_source

if TYPE_CHECKING:
    from skewguard.snapshot.frozen import Snapshot

SOURCE_TYPE = "skewguard"


class SnapshotSource(DatasetSource):
    """Where a snapshot lies, and its id. `mlflow.data.get_source(dataset).load()` gives the snapshot."""

    def __init__(self, place: str, snapshot_id: str) -> None:
        self.place, self.snapshot_id = place, snapshot_id

    def load(self) -> Snapshot:
        """The snapshot; raises `SnapshotError` where another one lies there now, or none."""
        from skewguard.errors import SnapshotError
        from skewguard.snapshot import load_snapshot

        snapshot = load_snapshot(self.place)
        if snapshot.id != self.snapshot_id:
            raise SnapshotError(
                f"{self.place}: expected snapshot {self.snapshot_id[:16]}, found {snapshot.id[:16]}: it was built anew"
            )
        return snapshot

    def to_dict(self) -> dict[str, Any]:
        """As MLflow keeps it."""
        return {"snapshot": self.place, "id": self.snapshot_id}

    @classmethod
    def from_dict(cls, source_dict: Mapping[Any, Any]) -> Self:
        """What `to_dict` gave."""
        return cls(str(source_dict["snapshot"]), str(source_dict["id"]))

    @staticmethod
    def _get_source_type() -> str:
        return SOURCE_TYPE

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        """A path or address is nobody's to claim: it may be anything."""
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> Self:
        raise NotImplementedError


def make_known() -> None:
    """Let `mlflow.data.get_source` in this process find snapshots."""
    known: list[Any] = list(get_registered_sources())
    if SnapshotSource not in known:
        own: Any = SnapshotSource  # MLflow's annotation says an instance and means the class
        register_dataset_source(own)
