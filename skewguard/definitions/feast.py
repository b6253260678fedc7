"""Reads a Feast registry and compiles a feature service into a bundle; the only part of the room that loads Feast."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

os.environ.setdefault("FEAST_USAGE", "False")

from feast import FeatureStore, FileSource
from feast import types as feast_types
from feast.data_format import ParquetFormat
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_NAME

from skewguard.contract import PREFIX, Contract, hides_keys, lag_until_available
from skewguard.definitions.bundle import MODEL_INPUT, Bundle, Derived, Feature, Key, RequestField, Source, View
from skewguard.definitions.model_input import model_inputs
from skewguard.definitions.proof import admit, waivers
from skewguard.errors import DefinitionError, SkewguardError
from skewguard.transforms import Transform, fingerprint, load, numeric_class, run, stub
from skewguard.values import Column, Dtype, Status

_DTYPES = {
    feast_types.Float64: Dtype.FLOAT64,
    feast_types.Float32: Dtype.FLOAT32,
    feast_types.Int64: Dtype.INT64,
    feast_types.Int32: Dtype.INT32,
    feast_types.Bool: Dtype.BOOL,
    feast_types.String: Dtype.STRING,
    feast_types.UnixTimestamp: Dtype.TIMESTAMP,
}


def dtype_of(feast_type: Any) -> Dtype | None:
    """The dtype that Feast's type is called here; None for lists, maps and what else skewguard computes nothing on."""
    return _DTYPES.get(feast_type)


def read_view(view: Any, projection: Any, features: Iterable[str], repo: Path, complaints: list[str]) -> View:
    """Feast's feature view, seen through a projection, as a View of `features`; contracts are left at their defaults.

    Relative paths are taken from `repo`. What skewguard cannot read is appended to `complaints`.
    """
    where = f"feature view {view.name}"
    if transformed := computed_by_feast(view):
        complaints.append(f"{where}: {transformed}")
    source = read_source(view.batch_source, repo, where, complaints)
    back = mapped_from(view.batch_source)
    fields = {field.name: field for field in view.features}
    renamed = dict(projection.join_key_map)
    columns = [column for column in view.entity_columns if column.name != DUMMY_ENTITY_ID]
    entities = [entity for entity in view.entities if entity != DUMMY_ENTITY_NAME]
    if len(columns) < len(entities):
        complaints.append(
            f"{where}: its join keys are {', '.join(column.name for column in columns) or 'unknown'}, its entities "
            f"{', '.join(entities)}; name every join key in the view's schema"
        )
    keys = [
        Key(
            column,
            renamed.get(key.name, key.name),
            _dtype(key, where, complaints),
            key.name if key.name != column else "",
        )
        for key in columns
        for column in (back.get(key.name, key.name),)
    ]
    read = []
    for name in features:
        if name not in fields:
            complaints.append(f"{where}: no feature {name!r}; it has {', '.join(fields)}")
        else:
            dtype = _dtype(fields[name], f"{where}: {name}", complaints)
            read.append(Feature(name, back.get(name, name), dtype, Contract()))
    return View(
        name=projection.name_alias or view.name,
        keys=tuple(sorted(keys, key=lambda key: key.column)),
        features=tuple(read),
        ttl_us=round(view.ttl.total_seconds() * 1_000_000) if view.ttl else None,
        max_lag_us=Contract().max_lag_us,
        source=source,
        alias_of=view.name if projection.name_alias not in (None, "", view.name) else "",
    )


def computed_by_feast(view: Any) -> str:
    """Why a feature view would be another one offline and online: Feast computes it on one side. Empty if it does not.

    (Feast's registry forgets the aggregations of a batch view: what is left of it lacks its columns.)
    """
    parts = {"feature_transformation": "a transformation", "aggregations": "aggregations"}
    has = [said for name, said in parts.items() if getattr(view, name, None)]
    if not has:
        return ""
    return (
        f"it has {' and '.join(has)}, which Feast runs when it materializes and not in historical retrieval: offline "
        "and online would differ. Transform before the source is written, or on demand."
    )


def locate(path: str, repo: Path) -> str:
    """Where a relative path (file, directory or glob) leads: below the repository, where Feast's own
    `FileSource.get_uri_for_file_path` looks, else below the working directory, where its DuckDB store does.
    """
    path = without_scheme(path)
    if "://" in path or Path(path).is_absolute():
        return path
    found = (str(root / path) for root in (repo, Path()) if any(root.glob(path)))
    return next(found, path)


def without_scheme(path: str) -> str:
    """The path that a `file://` URI names; anything else as it is."""
    return url2pathname(urlparse(path).path) if path.startswith("file://") else path


def read_source(source: Any, repo: Path, where: str, complaints: list[str]) -> Source:
    """Feast's data source as a Source, its columns by the names they have in the file."""
    if not _is_parquet(source):
        got = f"{type(source).__name__} {getattr(source, 'name', '')}".strip() if source else "no batch source"
        complaints.append(
            f"{where}: expected a FileSource over Parquet, or SparkSource(path=..., file_format='parquet'), got {got}"
        )
        return Source("", "", None)
    if getattr(source, "s3_endpoint_override", "") or source.connection_ref:
        complaints.append(f"{where}: s3_endpoint_override and connection_ref of a source are not supported")
    back = mapped_from(source)
    created, stamp = source.created_timestamp_column, source.timestamp_field
    return Source(locate(source.path, repo), back.get(stamp, stamp), back.get(created, created) if created else None)


def is_generated(view: Any) -> bool:
    """Whether the body that Feast registered for an on-demand view is one that `skewguard.on_demand` makes."""
    return f"from {stub.__name__} import run" in (getattr(view.feature_transformation, "udf_string", "") or "")


def registered_otherwise(view: Any) -> list[str]:
    """What is wrong with the body that Feast registered for an on-demand view of `skewguard.on_demand`: made from other
    code than is here, or edited. Nothing is known about a body of somebody's own."""
    if not is_generated(view):
        return []
    identities = stub.read(view.name, view.feature_transformation.udf_string)
    references = view.tags.get(PREFIX + "transforms", "").split()
    if list(identities) != references:
        return ["its registered body is not as skewguard.on_demand generates it; run `feast apply` again"]
    try:
        return stub.changes(identities)
    except SkewguardError:
        return []  # a function that is not here, or cannot be read, is complained about by name


def mapped_from(source: Any) -> dict[str, str]:
    """The source's own column name behind every name that its field mapping gives."""
    return {new: old for old, new in source.field_mapping.items()} if source else {}


def _is_parquet(source: Any) -> bool:
    if isinstance(source, FileSource):
        return source.file_format is None or isinstance(source.file_format, ParquetFormat)
    of_files = getattr(source, "path", None) and not getattr(source, "table_format", None)
    return bool(of_files) and getattr(source, "file_format", None) == "parquet"


def _dtype(field: Any, where: str, complaints: list[str]) -> Dtype:
    dtype = dtype_of(field.dtype)
    if dtype is None:
        complaints.append(
            f"{where}: dtype {field.dtype} of {field.name} is not supported; use {', '.join(map(str, _DTYPES))}"
        )
    return dtype or Dtype.FLOAT64


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
        self.waived: dict[str, str] = {}
        self.pii: set[str] = set()

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
                self._add(stored, view)
                outputs += [view.full_name(feature.name) for feature in projection.features]
        inputs = self._model_inputs(service, stored, derived, request)
        derived = admit(derived | inputs, self.waived, self.complaints)
        self._keys(name, stored, request)
        if self.complaints:
            raise DefinitionError(list(dict.fromkeys(self.complaints)))
        return Bundle(
            project=self.store.project,
            service=name,
            views=tuple(stored[view] for view in sorted(stored)),
            request=tuple(request[field] for field in sorted(request)),
            derived=tuple(derived[feature] for feature in (*sorted(derived.keys() - inputs.keys()), *inputs)),
            outputs=tuple(outputs),
            numerics=numeric_class(),
            pii=tuple(sorted(self.pii)),
        )

    def _add(self, stored: dict[str, View], view: View) -> None:
        """A view that a service asks for and an on-demand view reads: all their features, in order of name."""
        one = stored.get(view.name, view)
        if replace(one, features=()) != replace(view, features=()):
            self.complaints.append(
                f"feature view {view.name} is asked for twice, under other keys or as another view; give one of the "
                "two a name of its own: .with_name(...)"
            )
        features = {feature.name: feature for feature in (*one.features, *view.features)}
        stored[view.name] = replace(view, features=tuple(features[name] for name in sorted(features)))

    def _model_inputs(
        self, service: Any, stored: dict[str, View], derived: dict[str, Derived], request: dict[str, RequestField]
    ) -> dict[str, Derived]:
        """What the service's own tags name, computed after its on-demand views."""
        where, tags = f"feature service {service.name}", service.tags or {}
        references = tags.get(PREFIX + "model_input", "").split()
        for name, text in waivers(tags).items():
            self.waived[f"{MODEL_INPUT}__{name}"] = text
            if name not in [reference.partition(":")[2] for reference in references]:
                self.complaints.append(
                    f"{where}: a tag takes {name!r} unproven, but no model input of that name is there"
                )
        contract = self._contract(where, tags) if references else Contract()
        return model_inputs(
            references, list(stored.values()), list(request.values()), list(derived.values()), contract, self.complaints
        )

    def _keys(self, service: str, stored: dict[str, View], request: dict[str, RequestField]) -> None:
        kinds: dict[str, Dtype] = {}
        for view in stored.values():
            for key in view.keys:
                if kinds.setdefault(key.ask, key.dtype) is not key.dtype:
                    self.complaints.append(
                        f"service {service}: key {key.ask!r} is {kinds[key.ask]} in one view, {key.dtype} in another"
                    )
                if key.dtype.is_float:
                    self.complaints.append(
                        f"feature view {view.name}: key {key.column} is {key.dtype}, and nobody finds a float again; "
                        "use Int64 or String"
                    )
        for name in sorted(request.keys() & kinds.keys()):
            self.complaints.append(f"service {service}: {name} is both a key and a request field")

    def _view(self, view: Any, projection: Any) -> View:
        where = f"feature view {view.name}"
        found = len(self.complaints)
        own = self._contract(where, view.tags)
        shared = view.tags if len(self.complaints) == found else {}  # what is wrong with it is said once
        tags = {field.name: field.tags for field in view.features}
        wanted = [feature.name for feature in projection.features]
        read = read_view(view, projection, wanted, Path(self.store.repo_path), self.complaints)
        features = [
            replace(feature, contract=self._contract(f"{where}: {feature.name}", shared, tags[feature.name]))
            for feature in read.features
        ]
        self._hide(view, read)
        lag = self._availability_lag(where, view)
        return replace(read, features=tuple(features), max_lag_us=own.max_lag_us, availability_lag_us=lag)

    def _hide(self, view: Any, read: View) -> None:
        """Take note of the keys that their entity wants hidden."""
        back = mapped_from(view.batch_source)
        for name in view.entities:
            if name == DUMMY_ENTITY_NAME:
                continue
            entity = self.store.get_entity(name)
            try:
                hidden = hides_keys(f"entity {name}", entity.tags or {})
            except DefinitionError as error:
                self.complaints += error.complaints
                continue
            for key in read.keys if hidden else ():
                if key.column != back.get(entity.join_key, entity.join_key):
                    continue
                self.pii.add(key.ask)
                if key.dtype not in (Dtype.STRING, Dtype.INT64):
                    self.complaints.append(
                        f"entity {name}: its key {key.column} is {key.dtype}; only text and int64 keys can be hashed. "
                        "Declare it so."
                    )

    def _availability_lag(self, where: str, view: Any) -> int:
        self.complaints += [
            f"{where}: {field.name}: {PREFIX}availability_lag is a view's, not a field's: a row is served whole"
            for field in view.features
            if PREFIX + "availability_lag" in field.tags
        ]
        try:
            return lag_until_available(where, view.tags)
        except DefinitionError as error:
            self.complaints += error.complaints
            return 0

    def _on_demand(
        self,
        view: Any,
        projection: Any,
        stored: dict[str, View],
        derived: dict[str, Derived],
        request: dict[str, RequestField],
    ) -> list[str]:
        where = f"on-demand view {view.name}"
        inputs: dict[str, dict[str, Dtype]] = {}  # by the names that a parameter may have, what is meant
        for source in view.source_feature_view_projections.values():
            input_view = self._view(self.store.get_feature_view(source.name), source)
            self._add(stored, input_view)
            for feature in input_view.features:
                full_name = input_view.full_name(feature.name)
                inputs.setdefault(feature.name, {})[full_name] = feature.dtype
                inputs[full_name] = {full_name: feature.dtype}
        for field in self._asked(where, view, request):
            inputs.setdefault(field.name, {})[field.name] = field.dtype
        functions = {ref.partition(":")[2]: ref for ref in view.tags.get(PREFIX + "transforms", "").split()}
        declared = {field.name: field for field in view.features}
        for name, text in waivers(view.tags).items():
            if name not in functions:
                self.complaints.append(
                    f"{where}: a tag takes {name!r} unproven, but no function of that name is in the tags"
                )
            self.waived[f"{view.name}__{name}"] = text
        self.complaints += [f"{where}: {said}" for said in registered_otherwise(view)]
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

    def _asked(self, where: str, view: Any, request: dict[str, RequestField]) -> list[RequestField]:
        """What the on-demand view reads of the ask itself; one name is one dtype throughout a service."""
        fields = [field for source in view.source_request_sources.values() for field in source.schema]
        asked = [RequestField(field.name, _dtype(field, where, self.complaints)) for field in fields]
        for field in asked:
            other = request.setdefault(field.name, field)
            if other != field:
                self.complaints.append(f"{where}: request field {field.name} is {field.dtype}, elsewhere {other.dtype}")
        return asked

    def _derived(self, view: Any, field: Any, reference: str, inputs: dict[str, dict[str, Dtype]]) -> Derived | None:
        where = f"on-demand view {view.name}: {field.name}"
        try:
            function = load(reference)
            digest = fingerprint(function)
        except SkewguardError as error:
            self.complaints.append(f"{where}: {error}")
            return None
        if function.fits:
            self.complaints.append(
                f"{where}: {reference} has fitted arguments, and Feast runs this view before there is a snapshot. Name "
                f"it in the feature service: tags=model_input({reference!r})"
            )
            return None
        refs: dict[str, tuple[str, Dtype]] = {}
        for parameter, _ in function.inputs:
            found = inputs.get(parameter, {})
            if len(found) != 1:
                ways = (
                    f"several: {', '.join(sorted(found))}; use the full name"
                    if found
                    else f"none of {', '.join(inputs)}"
                )
                self.complaints.append(f"{where}: parameter {parameter!r} of {reference} is {ways}")
            else:
                refs[parameter] = next(iter(found.items()))
        dtype = _dtype(field, where, self.complaints)
        if len(refs) == len(function.inputs):
            self.complaints += _mistyped(where, function, {name: kind for name, (_, kind) in refs.items()}, dtype)
        return Derived(
            field.name,
            view.name,
            reference,
            tuple(ref for ref, _ in refs.values()),
            dtype,
            self._contract(where, view.tags, field.tags),
            digest,
        )

    def _contract(self, where: str, *tags: dict[str, str]) -> Contract:
        try:
            return Contract.from_tags(where, *tags)
        except DefinitionError as error:
            self.complaints += error.complaints
            return Contract()


_NARROWED = {(Dtype.FLOAT64, Dtype.FLOAT32), (Dtype.INT64, Dtype.INT32)}


def _mistyped(where: str, function: Transform, inputs: dict[str, Dtype], dtype: Dtype) -> list[str]:
    """What of a transform's types does not fit what it is declared to read and to give."""
    complaints = []
    try:
        run(function, {name: Column.absent(kind, 0, Status.NULL) for name, kind in inputs.items()})
    except DefinitionError as error:
        complaints.append(f"{where}: {error}")
    if function.output is not dtype and (function.output, dtype) not in _NARROWED:
        complaints.append(f"{where}: declared {dtype}, {function.reference} returns {function.output}")
    return complaints
