"""The bundle and its parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from skewguard.contract import Contract
from skewguard.errors import DefinitionError
from skewguard.transforms import Transform, fingerprint, golden, load, prove
from skewguard.transforms.learned import decode
from skewguard.transforms.program import Program
from skewguard.values import Dtype

FORMAT = 3
MODEL_INPUT = "model_input"
"""The view of features that are computed for the model alone, after the on-demand views; never registered in Feast."""


@dataclass(frozen=True, slots=True)
class Key:
    """A join key of a view: `column` in the source, `ask` as an ask calls it, and its dtype.

    `join`: its name in Feast, where a field mapping makes that another than the column's.
    """

    column: str
    ask: str
    dtype: Dtype
    join: str = ""

    @property
    def feast_name(self) -> str:
        """The join key's own name in Feast."""
        return self.join or self.column


@dataclass(frozen=True, slots=True)
class Feature:
    """A stored feature: `column` in the source, `name` in the view."""

    name: str
    column: str
    dtype: Dtype
    contract: Contract


@dataclass(frozen=True, slots=True)
class Source:
    """Where a view's rows lie. `created` is None where the source does not say when it came to know a row."""

    path: str
    timestamp: str
    created: str | None


@dataclass(frozen=True, slots=True)
class View:
    """A feature view. `ttl_us` None means that rows never expire. Durations in microseconds.

    `availability_lag_us`: how long after a row became known the online store can serve it. `alias_of`: the view's own
    name in Feast, where the service gives it another.
    """

    name: str
    keys: tuple[Key, ...]
    features: tuple[Feature, ...]
    ttl_us: int | None
    max_lag_us: int
    source: Source
    availability_lag_us: int = 0
    alias_of: str = ""

    @property
    def feast_name(self) -> str:
        """The view's own name in Feast."""
        return self.alias_of or self.name

    def full_name(self, feature: str) -> str:
        """The name of a feature in snapshots, log and answers: `view__feature`, as in Feast."""
        return f"{self.name}__{feature}"


@dataclass(frozen=True, slots=True)
class RequestField:
    """A value that the caller brings along with the ask."""

    name: str
    dtype: Dtype


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted argument of a transform: the parameter, the `module:function` that fits it, and the full names of the
    features (or names of the request fields) that it is fitted on. `value` is plain JSON, None before it is fitted."""

    parameter: str
    function: str
    inputs: tuple[str, ...]
    value: Any = field(default=None, hash=False)


@dataclass(frozen=True, slots=True)
class Derived:
    """A feature that a transform computes. `inputs` are full names of stored features or names of request fields; of a
    model input, of derived features as well.

    `fingerprint` identifies the transform's source, `graph` what it computes (empty where it is not proven, and then
    `waived` says until when and why it is taken all the same), `golden` its values where the bundle was compiled.
    """

    name: str
    view: str
    function: str
    inputs: tuple[str, ...]
    dtype: Dtype
    contract: Contract
    fingerprint: str
    graph: str = ""
    golden: str = ""
    waived: str = ""
    fitted: tuple[Fitted, ...] = ()

    @property
    def is_model_input(self) -> bool:
        """Whether it is computed after the on-demand views, for the model alone."""
        return self.view == MODEL_INPUT

    @property
    def full_name(self) -> str:
        """`view__name`, as in Feast."""
        return f"{self.view}__{self.name}"


@dataclass(frozen=True)
class Bundle:
    """One feature service, compiled. `outputs` are the full names of its features, in the service's order.

    `numerics`: the numeric class of the machine that compiled it, whose values `Derived.golden` are. `pii`: the keys
    (as an ask calls them) that the log holds as keyed hashes only.
    """

    project: str
    service: str
    views: tuple[View, ...]
    request: tuple[RequestField, ...]
    derived: tuple[Derived, ...]
    outputs: tuple[str, ...]
    numerics: str = ""
    pii: tuple[str, ...] = ()

    @cached_property
    def keys(self) -> dict[str, Dtype]:
        """The keys that an ask must bring, by the name the ask gives them."""
        return {key.ask: key.dtype for view in self.views for key in view.keys}

    @cached_property
    def dtypes(self) -> dict[str, Dtype]:
        """Dtype of every stored and derived feature, by full name."""
        stored = {view.full_name(f.name): f.dtype for view in self.views for f in view.features}
        return stored | {d.full_name: d.dtype for d in self.derived}

    @cached_property
    def contracts(self) -> dict[str, Contract]:
        """Contract of every stored and derived feature, by full name."""
        stored = {view.full_name(f.name): f.contract for view in self.views for f in view.features}
        return stored | {d.full_name: d.contract for d in self.derived}

    @cached_property
    def vector(self) -> tuple[str, ...]:
        """Full names of what enters the model, in order: the numeric outputs, then the numeric model inputs. Strings
        and instants do not."""
        names = (*self.outputs, *(derived.full_name for derived in self.derived if derived.is_model_input))
        return tuple(name for name in names if self.dtypes[name].is_numeric)

    @cached_property
    def straight(self) -> bool:
        """Whether every feature enters the model, in the order of `dtypes`."""
        return self.vector == tuple(self.dtypes)

    @cached_property
    def view_of(self) -> dict[str, str]:
        """The feature view behind each stored feature, by full name."""
        return {view.full_name(f.name): view.name for view in self.views for f in view.features}

    @cached_property
    def transforms(self) -> tuple[tuple[Derived, Transform], ...]:
        """Every derived feature with the function behind it, loaded from its module.

        Raises `DefinitionError` where the code here is not the code that the bundle was compiled from, and where a
        value is not fitted.
        """
        loaded = []
        complaints = []
        if self.unfitted:
            raise DefinitionError(
                f"service {self.service}: {', '.join(self.unfitted)}: not fitted yet. Build a snapshot with this "
                "bundle, and name the bundle.json that lies in it: it holds the fitted values."
            )
        for derived in self.derived:
            values = {one.parameter: decode(one.value) for one in derived.fitted}
            function = load(derived.function).bind(values)
            here = fingerprint(function)
            if here != derived.fingerprint and not (derived.graph and prove(function).graph == derived.graph):
                complaints.append(
                    f"{derived.full_name}: the bundle was compiled from {derived.function} with fingerprint "
                    f"{derived.fingerprint}, the code here has {here}. Compile the bundle again, or deploy that code."
                )
            loaded.append((derived, function))
        if complaints:
            raise DefinitionError(complaints)
        return tuple(loaded)

    @cached_property
    def stages(self) -> tuple[tuple[tuple[Derived, ...], Program], ...]:
        """What runs one after the other: the transforms of the on-demand views, then the model inputs. Each with the
        features that come out of it, in order; those that were waived run as they are, because they are not proven."""
        stages = []
        for last in (False, True):
            own = [one for one in self.transforms if one[0].is_model_input is last]
            waived = [number for number, (spec, _) in enumerate(own) if spec.waived]
            program = Program([(transform, spec.inputs) for spec, transform in own], waived)
            stages.append((tuple(spec for spec, _ in own), program))
        return tuple(stages)

    @cached_property
    def unfitted(self) -> tuple[str, ...]:
        """Full names of the model inputs that wait for a snapshot to be fitted on."""
        return tuple(d.full_name for d in self.derived if any(one.value is None for one in d.fitted))

    @cached_property
    def raw(self) -> Bundle:
        """The same without model inputs: what a snapshot's rows are before anything is fitted on them."""
        return replace(self, derived=tuple(derived for derived in self.derived if not derived.is_model_input))

    @cached_property
    def fitted_values(self) -> dict[str, dict[str, Any]]:
        """The fitted values as plain JSON, by full name and parameter."""
        return {d.full_name: {one.parameter: one.value for one in d.fitted} for d in self.derived if d.fitted}

    @cached_property
    def fitted_digest(self) -> str:
        """sha256 (hex) of the fitted values; empty where nothing is fitted."""
        values = self.fitted_values
        return hashlib.sha256(canonical(values)).hexdigest() if values else ""

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of the definitions: not of where sources lie, by which name Feast stores a view, how a proven
        transform is written, and what a machine makes of it."""
        data = self.to_json()
        del data["numerics"]
        if not data["pii"]:
            del data["pii"]
        for view in data["views"]:
            del view["source"]["path"]
            del view["alias_of"]
            for key in view["keys"]:
                del key["join"]
            if not view["availability_lag_us"]:
                del view["availability_lag_us"]
        for derived in data["derived"]:
            del derived["golden"]
            if derived["graph"]:
                del derived["fingerprint"]
        return hashlib.sha256(canonical(data)).hexdigest()

    @cached_property
    def other_values(self) -> tuple[str, ...]:
        """Full names of derived features that compute other bits on this machine than where the bundle was compiled."""
        return tuple(
            spec.full_name for spec, function in self.transforms if spec.golden and golden(function) != spec.golden
        )

    def view(self, name: str) -> View:
        """The view called `name`."""
        return next(view for view in self.views if view.name == name)

    def with_sources(self, root: str | Path) -> Bundle:
        """The same bundle with relative source paths taken from `root`."""
        views = [
            replace(view, source=replace(view.source, path=str(Path(root) / view.source.path))) for view in self.views
        ]
        return replace(self, views=tuple(views))

    def to_json(self) -> dict[str, Any]:
        """Plain data, canonical in order."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"format": FORMAT} | data

    def save(self, path: str | Path) -> None:
        """Write the bundle as JSON, atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(path.suffix + ".partial")
        partial.write_text(self.text())
        partial.replace(path)

    def text(self) -> str:
        """What lies in a bundle's file."""
        return json.dumps(self.to_json() | {"digest": self.digest}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Bundle:
        """The bundle that `to_json` wrote; raises `DefinitionError` for another format."""
        if data.get("format") != FORMAT:
            raise DefinitionError(f"bundle: expected format {FORMAT}, got {data.get('format')!r}. Compile it again.")
        return cls(
            project=data["project"],
            service=data["service"],
            views=tuple(_view(view) for view in data["views"]),
            request=tuple(RequestField(r["name"], Dtype(r["dtype"])) for r in data["request"]),
            derived=tuple(
                Derived(
                    **(d | {"dtype": Dtype(d["dtype"]), "inputs": tuple(d["inputs"])})
                    | {"contract": Contract.from_json(d["contract"])}
                    | {"fitted": tuple(Fitted(**(f | {"inputs": tuple(f["inputs"])})) for f in d["fitted"])}
                )
                for d in data["derived"]
            ),
            outputs=tuple(data["outputs"]),
            numerics=data["numerics"],
            pii=tuple(data.get("pii", ())),
        )


def _view(data: Mapping[str, Any]) -> View:
    return View(
        name=data["name"],
        keys=tuple(Key(k["column"], k["ask"], Dtype(k["dtype"]), k.get("join", "")) for k in data["keys"]),
        features=tuple(
            Feature(f["name"], f["column"], Dtype(f["dtype"]), Contract.from_json(f["contract"]))
            for f in data["features"]
        ),
        ttl_us=data["ttl_us"],
        max_lag_us=data["max_lag_us"],
        source=Source(**data["source"]),
        availability_lag_us=data.get("availability_lag_us", 0),
        alias_of=data.get("alias_of", ""),
    )


def canonical(data: Any) -> bytes:
    """Canonical JSON bytes: sorted keys, no spaces, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle file; raises `DefinitionError` where it is missing, torn or was edited by hand."""
    try:
        text = Path(path).read_text()
    except (OSError, ValueError) as error:
        raise DefinitionError(
            f"bundle {path}: expected the JSON that `skewguard bundle` writes, got {error}"
        ) from error
    return read_bundle(text, path)


def read_bundle(text: str, path: object) -> Bundle:
    """The bundle that `Bundle.text` gave; `path` is how it is told of. Raises as `load_bundle` does."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise DefinitionError(
            f"bundle {path}: expected the JSON that `skewguard bundle` writes, got {error}"
        ) from error
    try:
        bundle = Bundle.from_json(data)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DefinitionError(
            f"bundle {path}: not what `skewguard bundle` writes ({error!r}); compile it again"
        ) from error
    if bundle.digest != data.get("digest"):
        raise DefinitionError(
            f"bundle {path}: its content has digest {bundle.digest[:16]}, it names {str(data.get('digest'))[:16]}. "
            "It was edited by hand or written by another version; compile it again."
        )
    return bundle
