"""The OpenAPI document, made true: FastAPI knows the models, this file knows the bundle and how refusals look."""

from __future__ import annotations

from typing import Any

from skewguard.definitions import Bundle
from skewguard.service import bodies
from skewguard.values import Dtype

_REF = "#/components/schemas/"
_INT64, _INT32 = 1 << 63, 1 << 31
_TYPES: dict[Dtype, dict[str, Any]] = {
    Dtype.FLOAT64: {"type": "number"},
    Dtype.FLOAT32: {"type": "number"},
    Dtype.INT64: {"type": "integer", "format": "int64", "minimum": -_INT64, "maximum": _INT64 - 1},
    Dtype.INT32: {"type": "integer", "format": "int32", "minimum": -_INT32, "maximum": _INT32 - 1},
    Dtype.BOOL: {"type": "boolean"},
    Dtype.STRING: {"type": "string"},
    Dtype.TIMESTAMP: {"type": "string", "format": "date-time"},
}


def of(bundle: Bundle, document: dict[str, Any]) -> dict[str, Any]:
    """`document` with the bundle's keys and request fields in place of 'any object', and problems for refusals."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own form of a 422, which does not occur
        schemas.pop(name, None)
    for model in (bodies.Problem, bodies.WrongPlace):
        made = model.model_json_schema(ref_template=_REF + "{model}")
        made.pop("$defs", None)
        schemas[model.__name__] = made
    schemas["Entities"] = _entities(bundle)
    ref = {"$ref": f"{_REF}Entities"}
    schemas["Ask"]["properties"]["entities"] = ref
    schemas["Asks"]["properties"]["instances"]["items"] = ref
    return document


def _entities(bundle: Bundle) -> dict[str, Any]:
    known = bundle.keys | {field.name: field.dtype for field in bundle.request}
    return {
        "title": "Entities",
        "description": f"Every entity key and request field of {bundle.service}; null says that it is not known.",
        "type": "object",
        "properties": {name: {"anyOf": [_TYPES[dtype], {"type": "null"}]} for name, dtype in known.items()},
        "required": list(known),
        "additionalProperties": False,
    }
