"""Reads a Feast registry and compiles a feature service into a bundle; the only part of the room that loads Feast."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("FEAST_USAGE", "False")

from feast import FeatureStore, FileSource
from feast import types as feast_types

from skewguard.contract import PREFIX, Contract
from skewguard.definitions.bundle import Bundle, Derived, Feature, Key, RequestField, Source, View
from skewguard.errors import DefinitionError, SkewguardError
from skewguard.transforms import fingerprint, load
from skewguard.values import Dtype

_DTYPES = {
    feast_types.Float64: Dtype.FLOAT64,
    feast_types.Float32: Dtype.FLOAT32,
    feast_types.Int64: Dtype.INT64,
    feast_types.Int32: Dtype.INT32,
    feast_types.Bool: Dtype.BOOL,
    feast_types.String: Dtype.STRING,
    feast_types.UnixTimestamp: Dtype.TIMESTAMP,
}


def compile_service(repo: str | Path, service: str, feature_store_yaml: str | Path | None = None) -> Bundle:
    """Compile `service` of the Feast repository at `repo` (applied: what its registry holds counts, not its files).

    Raises `DefinitionError` with every complaint: an unknown service, a dtype or source that skewguard cannot read, a
    wrong tag, an on-demand view without its functions.
    """
    try:
        store = FeatureStore(
            repo_path=str(repo),  # relative paths of another yaml are the repository's too, as for the feast command
            fs_yaml_file=Path(feature_store_yaml) if feature_store_yaml else None,
        )
    except Exception as error:
        raise DefinitionError(f"{repo}: expected a Feast repository with a feature_store.yaml, got {error}") from error
    known = [s.name for s in store.list_feature_services()]
    if service not in known:
        raise DefinitionError(
            f"feature service {service!r} is not in the registry of project {store.project!r}; "
            f"it has {', '.join(known) or 'none (run `feast apply` first)'}"
        )
    return _Compiler(store).compile(service)


class _Compiler:
    """One compilation; collects complaints so that they come all at once."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self.complaints: list[str] = []

    def compile(self, name: str) -> Bundle:
        service = self.store.get_feature_service(name)
        stored: dict[str, View] = {}
        derived: dict[str, Derived] = {}
        request: dict[str, RequestField] = {}
        outputs: list[str] = []
        on_demand = {view.name: view for view in self.store.list_on_demand_feature_views()}
        for projection in service.feature_view_projections:
            if projection.name in on_demand:
                outputs += self._on_demand(on_demand[projection.name], projection, stored, derived, request)
            else:
                view = self._view(self.store.get_feature_view(projection.name), projection)
                stored[view.name] = _merge(stored.get(view.name), view)
                outputs += [view.full_name(feature.name) for feature in projection.features]
        if self.complaints:
            raise DefinitionError(self.complaints)
        bundle = Bundle(
            project=self.store.project,
            service=name,
            views=tuple(stored[view] for view in sorted(stored)),
            request=tuple(request[field] for field in sorted(request)),
            derived=tuple(derived[feature] for feature in sorted(derived)),
            outputs=tuple(outputs),
        )
        kinds: dict[str, Dtype] = {}
        for key in (key for view in bundle.views for key in view.keys):
            if kinds.setdefault(key.ask, key.dtype) is not key.dtype:
                raise DefinitionError(
                    f"service {name}: key {key.ask!r} is {kinds[key.ask]} in one view, {key.dtype} in another"
                )
        clashes = {r.name for r in bundle.request} & set(bundle.keys)
        if clashes:
            raise DefinitionError(f"service {name}: {', '.join(sorted(clashes))} is both a key and a request field")
        return bundle

    def _view(self, view: Any, projection: Any) -> View:
        where = f"feature view {view.name}"
        name = projection.name_alias or view.name
        source = view.batch_source
        wanted = [feature.name for feature in projection.features]
        fields = {field.name: field for field in view.features}
        back = {new: old for old, new in source.field_mapping.items()}
        renamed = dict(projection.join_key_map)
        keys = [
            Key(back.get(column.name, column.name), renamed.get(column.name, column.name), self._dtype(column, where))
            for column in view.entity_columns
        ]
        features = [
            Feature(
                feature,
                back.get(feature, feature),
                self._dtype(fields[feature], f"{where}: {feature}"),
                self._contract(f"{where}: {feature}", view.tags, fields[feature].tags),
            )
            for feature in wanted
        ]
        ttl = view.ttl
        return View(
            name=name,
            keys=tuple(sorted(keys, key=lambda key: key.column)),
            features=tuple(features),
            ttl_us=round(ttl.total_seconds() * 1_000_000) if ttl else None,
            max_lag_us=self._contract(where, view.tags).max_lag_us,
            source=self._source(source, back, where),
        )

    def _source(self, source: Any, back: dict[str, str], where: str) -> Source:
        path = source.path if isinstance(source, FileSource) else getattr(source, "path", None)
        if not path or (not isinstance(source, FileSource) and getattr(source, "file_format", "") != "parquet"):
            self.complaints.append(f"{where}: expected a FileSource over Parquet, got {type(source).__name__}")
            return Source("", "", None)
        root = Path(self.store.repo_path)
        for candidate in (Path(path), root / path):  # Feast itself reads relative to the working directory
            if candidate.exists():
                path = str(candidate)
                break
        created = source.created_timestamp_column
        stamp = source.timestamp_field
        return Source(path, back.get(stamp, stamp), back.get(created, created) if created else None)

    def _on_demand(
        self,
        view: Any,
        projection: Any,
        stored: dict[str, View],
        derived: dict[str, Derived],
        request: dict[str, RequestField],
    ) -> list[str]:
        where = f"on-demand view {view.name}"
        inputs: dict[str, list[str]] = {}
        for source in view.source_feature_view_projections.values():
            input_view = self._view(self.store.get_feature_view(source.name), source)
            stored[input_view.name] = _merge(stored.get(input_view.name), input_view)
            for feature in source.features:
                inputs.setdefault(feature.name, []).append(input_view.full_name(feature.name))
                inputs.setdefault(input_view.full_name(feature.name), []).append(input_view.full_name(feature.name))
        for fields in view.source_request_sources.values():
            for field in fields.schema:
                request[field.name] = RequestField(field.name, self._dtype(field, where))
                inputs.setdefault(field.name, []).append(field.name)
        functions = {ref.partition(":")[2]: ref for ref in view.tags.get(PREFIX + "transforms", "").split()}
        declared = {field.name: field for field in view.features}
        outputs = []
        for feature in projection.features:
            if feature.name not in functions:
                self.complaints.append(
                    f"{where}: no function for feature {feature.name!r}; name it in the view's tags: "
                    f"tags=transforms('module:{feature.name}')"
                )
                continue
            spec = self._derived(view, declared[feature.name], functions[feature.name], inputs)
            if spec:
                derived[spec.full_name] = spec
                outputs.append(spec.full_name)
        return outputs

    def _derived(self, view: Any, field: Any, reference: str, inputs: dict[str, list[str]]) -> Derived | None:
        where = f"on-demand view {view.name}: {field.name}"
        try:
            function = load(reference)
            digest = fingerprint(function)
        except SkewguardError as error:
            self.complaints.append(f"{where}: {error}")
            return None
        refs = []
        for parameter, _ in function.inputs:
            found = inputs.get(parameter, [])
            if len(found) != 1:
                ways = f"several: {', '.join(found)}; use the full name" if found else f"none of {', '.join(inputs)}"
                self.complaints.append(f"{where}: parameter {parameter!r} of {reference} is {ways}")
            else:
                refs.append(found[0])
        return Derived(
            field.name,
            view.name,
            reference,
            tuple(refs),
            self._dtype(field, where),
            self._contract(where, view.tags, field.tags),
            digest,
        )

    def _dtype(self, field: Any, where: str) -> Dtype:
        if field.dtype not in _DTYPES:
            self.complaints.append(
                f"{where}: dtype {field.dtype} of {field.name} is not supported; use {', '.join(map(str, _DTYPES))}"
            )
        return _DTYPES.get(field.dtype, Dtype.FLOAT64)

    def _contract(self, where: str, *tags: dict[str, str]) -> Contract:
        try:
            return Contract.from_tags(where, *tags)
        except DefinitionError as error:
            self.complaints += error.complaints
            return Contract()


def _merge(one: View | None, other: View) -> View:
    """A view that a service asks for and an on-demand view reads: all their features, in order of name."""
    features = {feature.name: feature for feature in (*(one.features if one else ()), *other.features)}
    return replace(other, features=tuple(features[name] for name in sorted(features)))
