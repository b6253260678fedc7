"""Init: what a team starts from: contracts that its sources and its log suggest, a policy that observes, settings.

A proposal is a file to read and to copy from, never one that anything loads; nothing that is there is overwritten.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewguard.errors import MissingExtra, SkewguardError
from skewguard.values import Dtype, Status, cast

if TYPE_CHECKING:
    from skewguard.definitions import View

CONTRACTS, POLICY, SETTINGS = "contracts_proposal.py", "policy.toml", "skewguard.toml"
_ENOUGH = 100  # rows without a null, before nulls are refused
_WORDS, _REPEATS = 30, 10  # a vocabulary: at most so many words, each so often on average
_LATE = 0.999
_LATEST = 30 * 86_400  # a created time so long after the event says when the row was copied, not when it was known
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


@dataclass(frozen=True, slots=True)
class Written:
    """The files that were written, and what is to be said about them."""

    files: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one view or feature seems to promise: the arguments of `contract`, and on how many rows that rests."""

    view: str
    feature: str
    arguments: tuple[tuple[str, Any], ...]
    rows: int

    def text(self) -> str:
        """The call, as it is written in Python."""
        return f"contract({', '.join(f'{name}={value!r}' for name, value in self.arguments)})"


def initialise(
    repo: str | Path,
    service: str = "",
    *,
    log: str | Path | None = None,
    out: str | Path | None = None,
    feature_store_yaml: str | Path | None = None,
) -> Written:
    """Write the three files beside the repository's own, or into `out`; those that are there stay.

    Raises `DefinitionError` where the repository does not load, `LogError` where the log cannot be read.
    """
    try:
        from skewguard.workflows.doctor.feast.sources import views_of
    except ImportError as error:
        raise MissingExtra("reading a Feast registry", "feast") from error
    found = views_of(repo, service, feature_store_yaml)
    served = _served(log) if log else {}
    proposals: list[Proposal] = []
    notes = list(found.unread)
    for view, table in found.views:
        proposals += propose(view, table, {name: served.get(view.full_name(name)) for name in table.column_names})
    folder = Path(out or repo)
    name = found.service or "model"
    texts = {
        CONTRACTS: contracts_text(proposals, notes),
        POLICY: _policy(name),
        SETTINGS: _settings(found.service, log, folder),
    }
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        try:
            with (folder / file).open("x", encoding="utf-8") as target:
                target.write(text)
        except FileExistsError:
            notes.append(f"{folder / file}: is there already, and stays as it is")
        else:
            written.append(str(folder / file))
    if not found.service:
        notes.append("no feature service was chosen: name it in skewguard.toml, or give --feature-service")
    return Written(tuple(written), tuple(notes))


def propose(view: View, table: pa.Table, served: dict[str, pa.Array | None]) -> list[Proposal]:
    """What a view's rows suggest; `served`: the same features as the log has them.

    `table`: the features by name (any Arrow type), `event` and, where the source has one, `created` (timestamps).
    """
    found = [Proposal(view.name, "", lag, len(table))] if (lag := _lag(table)) else []
    for feature in view.features:
        parts = [one for one in (table[feature.name], served.get(feature.name)) if one is not None and len(one)]
        try:
            column = pa.concat_arrays([cast(one, feature.dtype, feature.name) for one in parts])
        except SkewguardError:
            continue  # the doctor says why: the declared type does not hold its source
        if arguments := _of_values(column, feature.dtype):
            found.append(Proposal(view.name, feature.name, arguments, len(column)))
    return found


def _lag(table: pa.Table) -> tuple[tuple[str, Any], ...]:
    """How late rows become known, all but one in a thousand: nobody can serve them sooner."""
    if "created" not in table.column_names:
        return ()
    pairs = table.select(["event", "created"]).drop_null()
    stamps = [cast(pairs[name], Dtype.TIMESTAMP, name).view(pa.int64()).to_numpy() for name in ("event", "created")]
    late = np.maximum(stamps[1] - stamps[0], 0)
    if len(late) < _ENOUGH:
        return ()
    seconds = max(math.ceil(float(np.quantile(late, _LATE, method="higher")) / 1e6), 1)
    return (("max_lag", duration(seconds)),) if seconds <= _LATEST else ()


def duration(seconds: int) -> str:
    """At least so many seconds, in the largest unit in which that is at least two."""
    unit, size = next(((unit, size) for unit, size in _UNITS if seconds >= 2 * size), ("s", 1))
    return f"{math.ceil(seconds / size)}{unit}"


def _of_values(column: pa.Array, dtype: Dtype) -> tuple[tuple[str, Any], ...]:
    arguments: list[tuple[str, Any]] = []
    present = column.drop_null()
    if len(column) >= _ENOUGH and not column.null_count:
        arguments.append(("null", "refused"))
    if dtype.is_numeric and dtype is not Dtype.BOOL and len(present) >= _ENOUGH:
        least, most = (float(pc.min_max(present)[end].as_py()) for end in ("min", "max"))
        if math.isfinite(least) and math.isfinite(most):
            room = (most - least) / 10
            low = 0.0 if least >= 0 > least - room else least - room
            arguments += [("minimum", _short(low, math.floor)), ("maximum", _short(most + room, math.ceil))]
    if dtype is Dtype.STRING and present:
        words = sorted(pc.unique(present).to_pylist())
        if len(words) <= _WORDS and len(present) >= _REPEATS * len(words) and not any("|" in word for word in words):
            arguments.append(("values", tuple(words)))
    return tuple(arguments)


def _short(number: float, towards: Any) -> float:
    """Three digits, rounded outwards."""
    if not number:
        return 0.0
    scale = 10.0 ** (math.floor(math.log10(abs(number))) - 2)
    return float(f"{towards(number / scale) * scale:.12g}")


def _served(log: str | Path) -> dict[str, pa.Array]:
    """Every raw value that a log has, by full name."""
    from skewguard.servinglog import read_log, to_table

    table = to_table(read_log(log))
    found = {}
    for name in table.column_names:
        status = f"{name.partition('__')[0]}__status"
        rows = table.filter(pc.equal(table[status], Status.PRESENT)) if status in table.column_names else table
        found[name] = rows[name].combine_chunks()
    return found


# -- the texts ---------------------------------------------------------------------------------------------------------


def contracts_text(proposals: Iterable[Proposal], notes: Sequence[str]) -> str:
    """A Python module that holds the proposals: tags by view, and by view and feature."""
    views, fields = [], []
    for one in proposals:
        line = f"{one.text()},  # {one.rows:,} rows"
        if one.feature:
            fields.append(f"    ({one.view!r}, {one.feature!r}): {line}")
        else:
            views.append(f"    {one.view!r}: {line}")
    head = (
        '"""Contracts that the sources suggest. Read them, then copy what you would sign into the definitions:\n\n'
        "    FeatureView(..., tags=VIEWS[name])    Field(..., tags=FIELDS[view, name])\n\n"
        "max_lag: how late all but one in a thousand rows became known. Ranges have a tenth of their width to spare.\n"
        + "".join(f"Not read: {note}\n" for note in notes)
        + '"""\n\nfrom skewguard import contract\n\n'
    )
    return head + "\n".join(["VIEWS = {", *views, "}", "", "FIELDS = {", *fields, "}", ""])


def _policy(name: str) -> str:
    return (
        "# It observes: the gate writes down what it would refuse. Later: promotion, then registration.\n"
        f'[policy]\ngoverns = ["{name}", "{name}-*"]\nmode = "observe"\nevidence = ["shadow", "production"]\n'
        "minimum_rows = 1000\nmaximum_unverifiable = 0.01\n"
    )


def _settings(service: str, log: str | Path | None, folder: Path) -> str:
    lines = ["[skewguard]"]
    if service:
        lines += [f'service = "{service}"', f'bundle = "{service}.bundle.json"', f'registered_name = "{service}"']
    where = Path(log).resolve() if log else None
    inside = where is not None and where.is_relative_to(folder.resolve())
    path = "log" if where is None else where.relative_to(folder.resolve()).as_posix() if inside else where.as_posix()
    lines += [f'log = "{path}"', 'snapshot = "snapshot"', f'policy = "{POLICY}"']
    return "\n".join(lines) + "\n"
