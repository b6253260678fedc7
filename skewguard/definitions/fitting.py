"""Fitting: a bundle whose model inputs wait for their values, and the rows that give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from skewguard.definitions.bundle import Bundle, Derived
from skewguard.errors import DefinitionError
from skewguard.transforms import golden, load, numeric_class, prove
from skewguard.transforms.learned import decode, learn
from skewguard.values import Column


def fit_inputs(bundle: Bundle) -> tuple[str, ...]:
    """Names of the features and request fields that the fits of `bundle` read."""
    return tuple(dict.fromkeys(name for derived in bundle.derived for one in derived.fitted for name in one.inputs))


def fit(bundle: Bundle, columns: Mapping[str, Column]) -> Bundle:
    """The same bundle with every model input fitted on `columns`, by name as in `fit_inputs`.

    Raises `DefinitionError` with every complaint: a fit that raises or gives what is no fitted value, a transform that
    cannot be proven with it.
    """
    complaints: list[str] = []
    fitted = tuple(_fitted(derived, columns, complaints) if derived.fitted else derived for derived in bundle.derived)
    if complaints:
        raise DefinitionError(complaints)
    return replace(bundle, derived=fitted, numerics=numeric_class())


def _fitted(derived: Derived, columns: Mapping[str, Column], complaints: list[str]) -> Derived:
    transform = load(derived.function)
    fits = dict(transform.fits)
    if fits.keys() != {one.parameter for one in derived.fitted}:
        complaints.append(
            f"{derived.full_name}: {derived.function} has other fitted arguments now; compile the bundle again"
        )
        return derived
    try:
        values = tuple(
            replace(one, value=learn(fits[one.parameter], [columns[name] for name in one.inputs], derived.full_name))
            for one in derived.fitted
        )
    except DefinitionError as error:
        complaints += error.complaints
        return derived
    bound = transform.bind({one.parameter: decode(one.value) for one in values})
    proof = prove(bound)
    if derived.graph and proof.objections:
        complaints += [f"{derived.full_name}: {derived.function}: {objection}" for objection in proof.objections]
    return replace(derived, fitted=values, graph=proof.graph, golden=golden(bound) if derived.golden else "")
