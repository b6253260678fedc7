"""The on-demand views of a Feast registry, and what running those that are somebody's own code shows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from feast import FeatureStore

from skewguard.contract import PREFIX
from skewguard.definitions.feast import is_generated, registered_otherwise
from skewguard.definitions.proof import waivers
from skewguard.errors import DefinitionError
from skewguard.workflows.feast.inputs import inputs_of
from skewguard.workflows.feast.trial import counterexample, disagreement
from skewguard.workflows.verify import OnDemand


def on_demand_views(repo: str | Path, feature_store_yaml: str | Path | None = None) -> list[OnDemand]:
    """Every on-demand view in the registry. A body that `skewguard.on_demand` generated is held against the code that
    is here; any other is run as it is, by the calls that Feast makes."""
    try:
        store = FeatureStore(repo_path=str(repo), fs_yaml_file=Path(feature_store_yaml) if feature_store_yaml else None)
        views = store.list_on_demand_feature_views()
    except Exception as error:
        raise DefinitionError(f"{repo}: expected an applied Feast repository, got {error}") from error
    return [examined(store, view) for view in views]


def examined(store: FeatureStore, view: Any) -> OnDemand:
    """One view of Feast's, with what its tags say and what running it shows."""
    references = view.tags.get(PREFIX + "transforms", "").split()
    by_name = {reference.partition(":")[2]: reference for reference in references}
    functions = {field.name: by_name[field.name] for field in view.features if field.name in by_name}
    own = [field.name for field in view.features if field.name not in by_name]
    ran = None
    if own:
        ran = _run(store, view, own)
    elif not is_generated(view):
        ran = _held_against(store, view, functions)
    return OnDemand(view.name, functions, waivers(view.tags), ran, tuple(registered_otherwise(view)))


def _run(store: FeatureStore, view: Any, names: list[str]) -> tuple[bool, str]:
    """(whether there is a counterexample, what to say) of somebody's own code, both ways, alone and together."""
    if view.mode not in ("pandas", "python"):
        return False, f"not run: mode {view.mode}"
    inputs = inputs_of(store, view)
    unknown = [f"{one.name} ({one.field.dtype})" for one in inputs if not one.pool]
    if unknown:
        return False, f"not run: inputs of other types: {', '.join(unknown)}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, rows = counterexample(view, inputs, names)
    if found:
        return True, found
    where = "offline" if view.write_to_online_store else "offline and online"
    return False, f"own code in mode {view.mode}: {rows} rows, {where}, gave nothing to object to, which proves nothing"


def _held_against(store: FeatureStore, view: Any, functions: dict[str, str]) -> tuple[bool, str] | None:
    """A body of somebody's own that names functions in a tag has to give what they give."""
    inputs = inputs_of(store, view)
    if view.mode not in ("pandas", "python") or not all(one.pool for one in inputs):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = disagreement(view, inputs, functions)
    return (True, found) if found else None
