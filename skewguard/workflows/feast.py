"""The on-demand views of a Feast registry, and what running those that are somebody's own code shows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from feast import FeatureStore

from skewguard.contract import PREFIX
from skewguard.definitions.feast import dtype_of
from skewguard.definitions.proof import waivers
from skewguard.errors import DefinitionError
from skewguard.transforms.pool import CORNERS
from skewguard.workflows.verify import OnDemand

Rows = list[dict[str, Any]]
_TRIED = 48


def on_demand_views(repo: str | Path, feature_store_yaml: str | Path | None = None) -> list[OnDemand]:
    """Every on-demand view in the registry. One without transforms is run, with the body that Feast rebuilds."""
    try:
        store = FeatureStore(repo_path=str(repo), fs_yaml_file=Path(feature_store_yaml) if feature_store_yaml else None)
        views = store.list_on_demand_feature_views()
    except Exception as error:
        raise DefinitionError(f"{repo}: expected an applied Feast repository, got {error}") from error
    return [_read(view) for view in views]


def _read(view: Any) -> OnDemand:
    references = view.tags.get(PREFIX + "transforms", "").split()
    by_name = {reference.partition(":")[2]: reference for reference in references}
    functions = {field.name: by_name[field.name] for field in view.features if field.name in by_name}
    without = [field.name for field in view.features if field.name not in by_name]
    return OnDemand(view.name, functions, waivers(view.tags), _run(view) if without else None)


def _run(view: Any) -> tuple[bool, str]:
    """Run a view's own code row by row and in a batch, by the calls that Feast makes offline and online."""
    fields = [
        field
        for source in (*view.source_feature_view_projections.values(), *view.source_request_sources.values())
        for field in (getattr(source, "features", None) or source.schema)
    ]
    types = {field.name: dtype_of(field.dtype) for field in fields}
    unknown = [name for name, dtype in types.items() if dtype is None]
    if unknown or view.mode not in ("pandas", "python"):
        return False, f"not run: mode {view.mode}, inputs of other types {', '.join(unknown) or '-'}"
    schema = pa.schema([pa.field(name, dtype.arrow) for name, dtype in types.items() if dtype is not None])
    pools = {name: CORNERS[_corner(dtype)] for name, dtype in types.items()}
    rows = [
        {name: pool[(row * (2 * i + 1)) % len(pool)] for i, (name, pool) in enumerate(pools.items())}
        for row in range(_TRIED)
    ]
    nulls = [*rows[:4], *({**rows[1], name: None} for name in pools)]
    ways: dict[str, Callable[[Rows], Rows]] = {
        "offline": lambda given: view.transform_arrow(pa.Table.from_pylist(given, schema)).to_pylist()
    }
    if view.mode == "python":
        ways["online"] = lambda given: _rows(view.transform_dict(_columns(given)), len(given))
    names = [field.name for field in view.features]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for given, what in ((rows, ""), (nulls, " with a null")):
            if found := _counterexample(ways, given, names):
                return True, found + what
    return False, f"own code in mode {view.mode}: {len(rows)} rows gave nothing to object to, which proves nothing"


def _corner(dtype: Any) -> Any:
    return {"float32": "float64", "int32": "int64"}.get(dtype, dtype)


def _columns(rows: Rows) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _rows(columns: dict[str, Any], count: int) -> Rows:
    lists = {name: value if isinstance(value, list) else [value] * count for name, value in columns.items()}
    return [{name: values[row] for name, values in lists.items()} for row in range(count)]


def _counterexample(ways: dict[str, Callable[[Rows], Rows]], rows: Rows, names: list[str]) -> str:
    """The smallest difference between one row and two, or between the ways; a raise counts. Empty where none shows."""
    alone: dict[str, list[dict[str, Any]]] = {}
    for way, run in ways.items():
        for row in rows:
            got = _tried(run, [row])
            if isinstance(got, str):
                return f"{way} it {got}, for example for {_shown(row)}"
            alone.setdefault(way, []).append(got[0])
    first = next(iter(ways))
    for way, run in ways.items():
        for i, row in enumerate(rows):
            for name in names:
                if not _equal(alone[first][i].get(name), alone[way][i].get(name)):
                    values = f"{alone[first][i].get(name)!r} {first}, {alone[way][i].get(name)!r} {way}"
                    return f"{name} is {values}, for example for {_shown(row)}"
        if found := _beside(way, run, rows, alone[way], names):
            return found
    return ""


def _beside(way: str, run: Callable[[Rows], Rows], rows: Rows, alone: Rows, names: list[str]) -> str:
    """A row whose value another row beside it changes."""
    for batch in ([0, 1], [1, 0], [2, 3], list(range(len(rows)))):
        got = _tried(run, [rows[i] for i in batch])
        if isinstance(got, str):
            return f"{way} it {got} for {len(batch)} rows, not for one; the first is {_shown(rows[batch[0]])}"
        for position, i in enumerate(batch):
            for name in names:
                if len(got) != len(batch) or not _equal(got[position].get(name), alone[i].get(name)):
                    there = got[position].get(name) if position < len(got) else None
                    return (
                        f"{way}, {name} of {_shown(rows[i])} is {alone[i].get(name)!r} alone and {there!r} in a batch "
                        f"of {len(batch)}" + (f" beside {_shown(rows[batch[1 - position]])}" if len(batch) == 2 else "")
                    )
    return ""


def _tried(run: Callable[[Rows], Rows], rows: Rows) -> Rows | str:
    try:
        return run(rows)
    except Exception as error:  # noqa: BLE001  (whatever somebody's own code raises is the finding)
        return f"raises {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _equal(a: Any, b: Any) -> bool:
    gone_a, gone_b = (value is None or (isinstance(value, float) and math.isnan(value)) for value in (a, b))
    return gone_a == gone_b and (gone_a or bool(a == b))


def _shown(row: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={value.isoformat() if hasattr(value, 'isoformat') else repr(value)}" for name, value in row.items()
    )
