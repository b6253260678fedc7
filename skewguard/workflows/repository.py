"""`skewguard.open`: a Feast repository as the place to start from in a notebook or a pipeline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewguard.definitions import Bundle
from skewguard.errors import AskError, MissingExtra
from skewguard.offline import OfflineStore, Rule
from skewguard.online import OnlineStore, open_store
from skewguard.place import place_of, shown
from skewguard.policy import Policy, load_policy
from skewguard.snapshot import Snapshot, adopt_snapshot, build_snapshot
from skewguard.verdict import Verdict
from skewguard.workflows.guard import guard
from skewguard.workflows.materialize import materialize

if TYPE_CHECKING:
    import pandas as pd


class Repository:
    """An applied Feast repository. Its registry is read when a bundle is first asked for."""

    def __init__(self, path: str | Path, feature_store_yaml: str | Path | None = None) -> None:
        self.path = Path(path)
        self.feature_store_yaml = feature_store_yaml
        self._bundles: dict[str, Bundle] = {}

    def bundle(self, service: str) -> Bundle:
        """The compiled feature service; raises `DefinitionError` with every complaint."""
        if service not in self._bundles:
            try:
                from skewguard.definitions.feast import compile_service
            except ImportError as error:
                raise MissingExtra("reading a Feast registry", "feast") from error
            self._bundles[service] = compile_service(self.path, service, self.feature_store_yaml)
        return self._bundles[service]

    def snapshot(
        self,
        service: str,
        entity_df: pd.DataFrame | pa.Table | str | Path,
        *,
        label: str | Sequence[str] = (),
        out: str | Path,
        id_column: str | None = None,
        rule: Rule = Rule.KNOWN,
        as_served: bool = False,
        fit_before: datetime | None = None,
    ) -> Snapshot:
        """A point-in-time training set, frozen at `out`, a folder or a URI.

        `entity_df` has keys, request fields, `event_timestamp` (UTC) and the label columns: a pandas frame, an Arrow
        table or a Parquet file. One row in, one row out, in order. `as_served` counts a row once the online store could
        serve it: its view's `availability_lag` after it was known. `fit_before` keeps the asks from then on out of what
        model inputs are fitted on.
        """
        return build_snapshot(
            self.bundle(service),
            read_entity_df(entity_df),
            out,
            labels=_names(label),
            rule=rule,
            as_served=as_served,
            id_column=id_column,
            fit_before=fit_before,
        )

    def adopt(
        self,
        service: str,
        rows: pd.DataFrame | pa.Table | str | Path,
        *,
        label: str | Sequence[str] = (),
        out: str | Path,
        id_column: str | None = None,
        rule: str = "unknown",
    ) -> Snapshot:
        """A training set that was built elsewhere, frozen at `out` as it is given.

        `rows` is an `entity_df` that has the service's features as well, by their full names (`view__feature`) or,
        where no other feature has it, their own. `rule`: by which it was built, `known`, `feast` or `unknown`.
        """
        return adopt_snapshot(
            self.bundle(service), read_entity_df(rows), out, labels=_names(label), rule=rule, id_column=id_column
        )

    def materialize(self, service: str, store: str | OnlineStore, *, known_by: int | None = None) -> dict[str, int]:
        """Publish what has become known (by now, or by `known_by` in microseconds) to the online store."""
        bundle = self.bundle(service)
        target = open_store(store) if isinstance(store, str) else store
        with OfflineStore(bundle.views) as offline:
            return materialize(bundle, offline, target, time.time_ns() // 1000 if known_by is None else known_by)

    def guard(self, log: str | Path, snapshot: Snapshot, policy: Policy | str | Path, **settings: Any) -> Verdict:
        """Replay a serving log against the snapshot's definitions and judge it.

        `settings` are those of `workflows.guard.guard`: registered_name, model_id, model_digest, model, extra,
        cross_check.
        """
        rules = policy if isinstance(policy, Policy) else load_policy(policy)
        return guard(log, snapshot, rules, **settings).verdict


def open(path: str | Path, *, feature_store_yaml: str | Path | None = None) -> Repository:  # noqa: A001
    """Open the Feast repository at `path` (the folder with feature_store.yaml), applied beforehand."""
    return Repository(path, feature_store_yaml)


def _names(label: str | Sequence[str]) -> list[str]:
    return [label] if isinstance(label, str) else list(label)


def read_entity_df(entity_df: Any) -> pa.Table:
    """Asks as an Arrow table, whatever they came as; raises `AskError` where they cannot be read."""
    if isinstance(entity_df, pa.Table):
        return entity_df
    if isinstance(entity_df, str | Path):
        try:
            place = place_of(entity_df)
            return pq.read_table(place.path, filesystem=place.filesystem)
        except (OSError, pa.ArrowException) as error:
            raise AskError("entity_df", f"{shown(entity_df)}: expected a Parquet file: {error}") from error
    if hasattr(entity_df, "to_records"):
        return pa.Table.from_pandas(entity_df, preserve_index=False)
    raise AskError(
        "entity_df", f"expected a pandas frame, an Arrow table or a Parquet file, got {type(entity_df).__name__}"
    )
