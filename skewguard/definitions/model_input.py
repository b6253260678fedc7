"""Model inputs: what a feature service computes after its on-demand views, for the model alone."""

from __future__ import annotations

from collections.abc import Sequence

from skewguard.contract import Contract
from skewguard.definitions.bundle import MODEL_INPUT, Derived, Fitted, RequestField, View
from skewguard.errors import SkewguardError
from skewguard.transforms import fingerprint, load
from skewguard.transforms.declare import Inputs
from skewguard.transforms.runner import WIDENED
from skewguard.values import Dtype

Known = dict[str, dict[str, Dtype]]
"""By the names that a parameter may have: the full names that it may mean, with their dtypes."""


def model_inputs(
    references: Sequence[str],
    views: Sequence[View],
    request: Sequence[RequestField],
    derived: Sequence[Derived],
    contract: Contract,
    complaints: list[str],
) -> dict[str, Derived]:
    """The model inputs that `references` (`module:function`) name, by full name and in that order.

    A parameter is a request field or a feature, stored or derived, by its full name or, where no other has it, its own.
    What is wrong is appended to `complaints`.
    """
    known = _known(views, request, derived)
    found: dict[str, Derived] = {}
    if references and any(view.name == MODEL_INPUT for view in views):
        complaints.append(
            f"feature view {MODEL_INPUT}: the name is that of the service's own model inputs; rename the view"
        )
    for reference in references:
        where = f"model input {reference}"
        try:
            function = load(reference)
            digest = fingerprint(function)
        except SkewguardError as error:
            complaints.append(f"{where}: {error}")
            continue
        spec = Derived(
            function.name,
            MODEL_INPUT,
            reference,
            _resolved(where, function.inputs, known, complaints),
            function.output,
            contract,
            digest,
            fitted=tuple(
                Fitted(name, fit.reference, _resolved(f"{where}: {fit.reference}", fit.inputs, known, complaints))
                for name, fit in function.fits
            ),
        )
        if spec.full_name in found:
            complaints.append(f"{where}: there are two model inputs of this name")
        found[spec.full_name] = spec
    return found


def _known(views: Sequence[View], request: Sequence[RequestField], derived: Sequence[Derived]) -> Known:
    named = [(feature.name, view.full_name(feature.name), feature.dtype) for view in views for feature in view.features]
    named += [(spec.name, spec.full_name, spec.dtype) for spec in derived]
    known: Known = {}
    for own, full, dtype in named:
        known.setdefault(own, {})[full] = dtype
    for field in request:
        known.setdefault(field.name, {})[field.name] = field.dtype
    return known | {full: {full: dtype} for _, full, dtype in named}


def _resolved(where: str, inputs: Inputs, known: Known, complaints: list[str]) -> tuple[str, ...]:
    """What each parameter means, by full name."""
    names = []
    for parameter, wanted in inputs:
        found = known.get(parameter, {})
        if len(found) != 1:
            ways = f"several: {', '.join(sorted(found))}; use the full name" if found else f"none of {', '.join(known)}"
            complaints.append(f"{where}: parameter {parameter!r} is {ways}")
            continue
        name, dtype = next(iter(found.items()))
        if dtype is not wanted and (dtype, wanted) not in WIDENED:
            complaints.append(f"{where}: parameter {parameter!r} is annotated {wanted}, {name} is declared {dtype}")
        names.append(name)
    return tuple(names)
