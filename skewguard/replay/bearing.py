"""How many rows bear on each feature."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from skewguard.replay.pairs import Age, Pairs
from skewguard.values import Mask, Status


@dataclass
class Bearing:
    """Rows that are evidence for a feature, by its full name and the kind of evidence (`shadow`, `production`, ...).

    A row bears on a feature that was asked for and answered, and whose source row the sources can still witness. That
    there was no value is compared as a value is; of which features nothing else was, `absent` says.
    """

    _rows: dict[str, dict[str, int]] = field(default_factory=dict)
    _valued: set[str] = field(default_factory=set)

    def add(self, pairs: Pairs) -> None:
        """One more batch."""
        labels = pairs.labels["evidence"]
        kinds = sorted(set(labels.tolist()))
        within: list[Mask | None] = [labels == kind for kind in kinds] if len(kinds) > 1 else [None]
        witnessed = {view.name: _witnessed(pairs, view.name) for view in pairs.bundle.views}
        for name in pairs.bundle.dtypes:
            served = pairs.served.feature(pairs.bundle, name)
            rows = (served.status != Status.ERROR) & (served.status != Status.NOT_REQUESTED)
            if name in pairs.bundle.view_of:
                rows &= witnessed[pairs.bundle.view_of[name]]
            if name not in self._valued and (served.present | pairs.truth.feature(pairs.bundle, name).present).any():
                self._valued.add(name)
            counts = self._rows.setdefault(name, {})
            for kind, own in zip(kinds, within, strict=True):
                counts[kind] = counts.get(kind, 0) + int((rows if own is None else rows & own).sum())

    def rows(self, name: str) -> dict[str, int]:
        """By kind of evidence, the rows that bear on the feature; kinds without any are left out."""
        return {kind: rows for kind, rows in sorted(self._rows.get(name, {}).items()) if rows}

    @property
    def absent(self) -> tuple[str, ...]:
        """Features that had no value in any row, on either side, in the bundle's order."""
        return tuple(name for name in self._rows if name not in self._valued)

    def counts(self) -> tuple[tuple[str, tuple[tuple[str, int], ...]], ...]:
        """The same of every feature that was looked at, in the bundle's order."""
        return tuple((name, tuple(self.rows(name).items())) for name in self._rows)


def _witnessed(pairs: Pairs, view: str) -> Mask:
    age = pairs.age[view]
    rows = (age != Age.UNVERIFIABLE) & (age != Age.UNANSWERED)
    return np.asarray(rows & ~pairs.rewritten[view] if view in pairs.rewritten else rows)
