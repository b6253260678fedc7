"""Scope: what one feature is, apart from all others of its bundle; and a bundle cut to some features."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from skewguard.definitions.bundle import Bundle, Derived, View, canonical


def fingerprints(bundle: Bundle) -> dict[str, str]:
    """sha256 (hex) of what decides each feature's value, by full name, in the order of `Bundle.dtypes`.

    Of a stored one: its view's keys, TTL, times and lag of availability, column and dtype. Of a derived one: what its
    transform computes, on which features and request fields, these included, its fitted values and its dtype. Not the
    contract (by which a value is judged, not made), not where sources lie, and not what else the bundle holds.
    """
    known = {field.name: _digest({"request": field.name, "dtype": field.dtype}) for field in bundle.request}
    for view in bundle.views:
        own = _of_view(bundle, view)
        for one in view.features:
            about = {"name": view.full_name(one.name), "column": one.column, "dtype": one.dtype}
            known[view.full_name(one.name)] = _digest(own | about)
    for derived in bundle.derived:
        known[derived.full_name] = _digest(_of_derived(derived, known))
    return {name: known[name] for name in bundle.dtypes}


def shared(bundle: Bundle, other: Bundle) -> tuple[str, ...]:
    """Full names of the features of `bundle` that are the same in `other`, by their fingerprints."""
    theirs = fingerprints(other)
    return tuple(name for name, own in fingerprints(bundle).items() if theirs.get(name) == own)


def cut(bundle: Bundle, names: Collection[str]) -> Bundle:
    """The bundle of these features alone, with what they are computed from."""
    needed = set(names)
    for derived in reversed(bundle.derived):
        if derived.full_name in needed:
            needed.update(derived.inputs)
    views = [
        replace(view, features=tuple(one for one in view.features if view.full_name(one.name) in needed))
        for view in bundle.views
    ]
    return replace(
        bundle,
        views=tuple(view for view in views if view.features),
        request=tuple(field for field in bundle.request if field.name in needed),
        derived=tuple(derived for derived in bundle.derived if derived.full_name in needed),
        outputs=tuple(name for name in bundle.outputs if name in needed),
    )


def _of_view(bundle: Bundle, view: View) -> dict[str, Any]:
    return {
        "project": bundle.project,
        "keys": [(key.column, key.ask, key.dtype) for key in view.keys],
        "ttl_us": view.ttl_us,
        "availability_lag_us": view.availability_lag_us,
        "timestamp": view.source.timestamp,
        "created": view.source.created,
    }


def _of_derived(derived: Derived, known: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": derived.full_name,
        "dtype": derived.dtype,
        "computes": derived.graph or derived.fingerprint,
        "inputs": [known[name] for name in derived.inputs],
        "fitted": [(one.parameter, [known[name] for name in one.inputs], one.value) for one in derived.fitted],
    }


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(data)).hexdigest()
