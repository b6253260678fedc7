"""What a contestant gets, and what it gives. Imports nothing, so that each process holds only what it needs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ViewFile:
    """A view: its Parquet file with the columns `key`, event_time, created_time and features, `double` or `bigint`."""

    name: str
    path: str
    key: str
    features: dict[str, str]
    ttl_us: int


@dataclass(frozen=True, slots=True)
class Task:
    """What a contestant gets: `asks` (Parquet: event_timestamp and keys, `bigint` or `varchar`), views, and the rule.

    `known`: a row counts where its created time, too, is not after the ask; else created times only break ties. The
    answer is Parquet: the columns of the asks, then `view__feature` of every view; one row per ask, in their order.
    """

    asks: str
    keys: dict[str, str]
    views: tuple[ViewFile, ...]
    known: bool

    @property
    def columns(self) -> list[str]:
        """The columns of the answer that the asks bring."""
        return ["event_timestamp", *self.keys]

    @property
    def files(self) -> list[str]:
        """Every file that is read."""
        return [self.asks, *(view.path for view in self.views)]

    def to_json(self) -> str:
        """For the contestant's process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """What `to_json` wrote."""
        data: dict[str, Any] = json.loads(text)
        return cls(**data | {"views": tuple(ViewFile(**view) for view in data["views"])})
