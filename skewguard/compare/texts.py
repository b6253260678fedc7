"""Texts that differ from a known one in case, blanks, width or leading zeros alone: a known value in other clothes.

A client that sends `ua ` for `UA` agrees with the offline truth, which gets the same text. A text that is wholly new is
news of the world, and no finding. Nor is one that a transform undresses itself: where what it computes is the same, and
every source knows the key.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewguard.answer import Served, derive
from skewguard.compare.evidence import Hits
from skewguard.definitions import Bundle
from skewguard.findings import Finding, Kind
from skewguard.spine import Spine
from skewguard.values import Array, Column, Dtype, Mask, Status

MINIMUM_ROWS = 1000
BENIGN = 0.001
_MOST = 100_000


@dataclass(frozen=True)
class Wardrobe:
    """The texts of one column in the snapshot, and by its plain form each that has one of its own."""

    known: frozenset[str]
    plain: Mapping[str, str]


def wardrobes(training: Served) -> dict[str, Wardrobe]:
    """Of every key and request field that is a text; none where there are too few rows, or too many texts."""
    if len(training.spine) < MINIMUM_ROWS:
        return {}
    found = {}
    for name, column in _texts(training.spine).items():
        known = frozenset(pc.unique(pa.array(column.values[column.present], pa.string())).to_pylist())
        if known and len(known) <= _MOST:
            forms: dict[str, list[str]] = {}
            for text in known:
                forms.setdefault(_plain(text), []).append(text)
            found[name] = Wardrobe(known, {plain: texts[0] for plain, texts in forms.items() if len(texts) == 1})
    return found


class Texts:
    """Rows whose key or request field is a known text in other clothes, where that makes a difference."""

    def __init__(self, bundle: Bundle, held: Mapping[str, Wardrobe]) -> None:
        self.bundle, self.held = bundle, held
        self._hits: dict[str, Hits] = {}

    def add(self, served: Served) -> None:
        """One more batch."""
        for name, column in _texts(served.spine).items():
            if name not in self.held:
                continue
            meant = _meant(column, self.held[name])
            hit: Mask = np.array([text is not None for text in meant], dtype=np.bool_)
            if hit.any():
                hit[hit] = self._matters(served, name, meant, np.flatnonzero(hit))
            rows = np.flatnonzero(hit)[:3]
            self._of(name).add(
                served, hit, [repr(column.value(row)) for row in rows], [repr(meant[row]) for row in rows]
            )

    def findings(self) -> list[Finding]:
        """One per column."""
        return [one for hits in self._hits.values() if (one := hits.finding()) is not None]

    def _of(self, name: str) -> Hits:
        what = "texts are those of the snapshot in another case, with blanks or zeros, and are taken for other ones"
        return self._hits.setdefault(name, Hits(Kind.CONSTRAINT, name, what, BENIGN))

    def _matters(self, served: Served, name: str, meant: Array, rows: Array) -> Mask:
        """Of `rows` those in which a source does not know the key, or a transform computes something else."""
        spine = served.spine.take(rows)
        if name in spine.keys:
            asked = [view.name for view in self.bundle.views if any(key.ask == name for key in view.keys)]
            lost = [served.views[view].status[rows] == Status.NOT_FOUND for view in asked]
            return np.asarray(np.logical_or.reduce(lost)) if lost else np.zeros(len(rows), dtype=bool)
        column = spine.request[name]
        undressed = Column.build(column.dtype, meant[rows], column.status)
        views = {view: held.take(rows) for view, held in served.views.items()}
        plain, given = (
            derive(self.bundle, one, views)
            for one in (replace(spine, request={**spine.request, name: undressed}), spine)
        )
        other = [(one.status != given[of].status) | _unlike(one, given[of]) for of, one in plain.items()]
        return np.asarray(np.logical_or.reduce(other)) if other else np.zeros(len(rows), dtype=bool)


def _texts(spine: Spine) -> dict[str, Column]:
    return {name: one for name, one in {**spine.keys, **spine.request}.items() if one.dtype is Dtype.STRING}


def _meant(column: Column, held: Wardrobe) -> Array:
    """The known text that each row means, None where it is one, or means none."""
    coded = pa.array(column.values, pa.string()).dictionary_encode()
    means = [None if text in held.known else held.plain.get(_plain(text)) for text in coded.dictionary.to_pylist()]
    found: Array = np.array([*means, None], dtype=object)[:-1][coded.indices.to_numpy()]
    found[~column.present] = None
    return found


def _plain(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split()).lstrip("0")


def _unlike(a: Column, b: Column) -> Mask:
    return np.asarray((a.values != b.values) & a.present & b.present)
