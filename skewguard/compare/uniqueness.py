"""Request ids that were logged more than once: a retry that was answered twice, or a log that was copied."""

from __future__ import annotations

import numpy as np

from skewguard.answer import Served
from skewguard.compare.rows import EXAMPLES
from skewguard.findings import Example, Finding, Kind
from skewguard.values import Array, instant


class Uniqueness:
    """Counts rows whose id an earlier row has. Keeps 8 bytes per row: a hash of its id."""

    def __init__(self) -> None:
        self._ids: list[Array] = []
        self._examples: list[Example] = []
        self._rows, self._repeated = 0, 0

    def add(self, served: Served) -> None:
        """One more batch."""
        ids = np.fromiter(map(hash, served.spine.ids), dtype=np.int64, count=len(served.spine))
        order = np.argsort(ids, kind="stable")
        again = order[1:][ids[order[1:]] == ids[order[:-1]]]
        before = np.isin(ids, np.concatenate(self._ids)) if self._ids else np.zeros(len(ids), dtype=bool)
        rows = np.union1d(again, np.flatnonzero(before))
        for row in rows[: EXAMPLES - len(self._examples)].tolist():
            keys = ", ".join(f"{name} {column.value(row)}" for name, column in served.spine.keys.items())
            at = instant(int(served.spine.as_of[row]))
            self._examples.append(Example(str(served.spine.ids[row]), at, keys, "logged again", "logged once"))
        self._ids.append(np.unique(ids))
        self._repeated += len(rows)
        self._rows += len(ids)

    def findings(self) -> list[Finding]:
        """One finding, or none."""
        if not self._repeated:
            return []
        message = f"request_id: {self._repeated:,} of {self._rows:,} rows repeat the id of another"
        return [
            Finding(Kind.DUPLICATE, "request_id", self._repeated, self._rows, message, examples=tuple(self._examples))
        ]
