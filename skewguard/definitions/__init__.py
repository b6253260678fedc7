"""Definitions: views, request fields, derived features and the Bundle, as frozen data.

A Bundle is all that the service, the log and the guard need to know about one feature service. It is compiled once
from a Feast registry (`definitions.feast`), saved as one canonical JSON file and named by its digest; nothing that
runs on a bundle loads Feast.
"""

from skewguard.definitions.bundle import (
    Bundle,
    Derived,
    Feature,
    Fitted,
    Key,
    RequestField,
    Source,
    View,
    load_bundle,
    read_bundle,
)
from skewguard.definitions.scope import cut, fingerprints, shared

__all__ = [
    "Bundle",
    "Derived",
    "Feature",
    "Fitted",
    "Key",
    "RequestField",
    "Source",
    "View",
    "cut",
    "fingerprints",
    "load_bundle",
    "read_bundle",
    "shared",
]
