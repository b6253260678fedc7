"""What a log is declared to hold: its service, its schema and its header, given or read off a bundle."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from skewguard.errors import LogError

if TYPE_CHECKING:
    from skewguard.definitions import Bundle


def loaded(bundle: Bundle | str | Path | None) -> Bundle | None:
    """The bundle, read where its path is given."""
    if not isinstance(bundle, str | Path):
        return bundle
    from skewguard.definitions import load_bundle

    return load_bundle(bundle)


def described(
    bundle: Bundle, service: str, schema: pa.Schema | None, header: Mapping[str, str] | None
) -> tuple[str, pa.Schema, dict[str, str]]:
    """Service, schema and header of a bundle's log, where they are not given."""
    from skewguard.answer import schema as flat
    from skewguard.servinglog.recording import CLIENT
    from skewguard.transforms import numeric_class

    if service and service != bundle.service:
        raise LogError(f"the log: the bundle is of service {bundle.service}, not {service}. Leave the service out.")
    own = {
        "bundle_digest": bundle.digest,
        "numeric_class": numeric_class(),
        "host": socket.gethostname(),
        "build": "",
        "evidence": "production",
    }
    return bundle.service, schema or flat(bundle).append(pa.field(CLIENT, pa.string())), own | dict(header or {})


def checked(schema: pa.Schema) -> pa.Schema:
    """`schema`, if every name is there once and a frame is readable by itself: dictionaries lie elsewhere."""
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise LogError(f"the log's schema: expected every name once, got {', '.join(twice)} more often.")
    for field in schema:
        if _has_dictionary(field.type):
            raise LogError(
                f"{field.name}: expected a plain type in the log's schema, got {field.type}. "
                "Declare the type of its values."
            )
    return schema


def _has_dictionary(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        return True
    return any(_has_dictionary(kind.field(i).type) for i in range(kind.num_fields))
