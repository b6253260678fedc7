"""A signed text: DSSE (Dead Simple Signing Envelope, github.com/secure-systems-lab/dsse) with one ed25519 signature."""

from __future__ import annotations

import base64
import binascii
import json

from skewguard.errors import EvidenceError
from skewguard.gate.keys import SigningKey, Trust

PAYLOAD_TYPE = "application/vnd.skewguard+json"


def seal(payload: bytes, key: SigningKey) -> str:
    """`payload` in an envelope, as compact JSON."""
    signature = {"keyid": key.id, "sig": _text(key.sign(_encoding(PAYLOAD_TYPE, payload)))}
    envelope = {"payloadType": PAYLOAD_TYPE, "payload": _text(payload), "signatures": [signature]}
    return json.dumps(envelope, separators=(",", ":"))


def unseal(text: str, trust: Trust) -> tuple[bytes, str]:
    """The payload, and the id of the trusted key that signed it. Raises `EvidenceError` for anything else.

    The payload is read after its signature was found right, never before.
    """
    try:
        envelope = json.loads(text)
        kind, payload = envelope["payloadType"], _bytes(envelope["payload"])
        (signature,) = envelope["signatures"]
        key_id, signed = signature["keyid"], _bytes(signature["sig"])
    except (KeyError, TypeError, ValueError) as error:
        raise EvidenceError(f"expected a signed record, got {text[:80]!r}") from error
    if kind != PAYLOAD_TYPE:
        raise EvidenceError(f"expected a record of type {PAYLOAD_TYPE}, got {kind!r}")
    trust.verify(key_id, _encoding(kind, payload), signed)
    return payload, key_id


def _encoding(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed says its own type and lengths."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
