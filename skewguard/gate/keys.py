"""Who may rule: ed25519 keys. A signer holds a private key; servers and loaders hold public ones in a trust file.

signing.pem       the private key, PEM (PKCS#8), readable by its owner only
signing.pem.pub   the public key, PEM, to be trusted elsewhere
trusted.json      the public keys that count, each with an id, a name, and the instant it was revoked, if it was
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from skewguard.errors import EvidenceError

SIGNING_KEY_ENV = "SKEWGUARD_SIGNING_KEY"
TRUST_ENV = "SKEWGUARD_TRUSTED_KEYS"

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key. `id` is the first 16 hex digits of the public key's sha256."""

    id: str
    _private: Ed25519PrivateKey

    @classmethod
    def new(cls) -> SigningKey:
        """A key that nobody has seen."""
        return _signing_key(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: str | Path) -> SigningKey:
        """The key in a PEM file. Raises `EvidenceError`."""
        try:
            key = load_pem_private_key(Path(path).read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise EvidenceError(f"signing key {path}: {error}; `skewguard keys new {path}` makes one") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise EvidenceError(f"signing key {path}: expected an ed25519 key, got {type(key).__name__}")
        return _signing_key(key)

    def save(self, path: str | Path) -> Path:
        """Write the private key (mode 0600) and beside it the public one, whose path is returned.

        Raises `EvidenceError` where there is a file already: a key is never overwritten.
        """
        private, public = Path(path), Path(f"{path}.pub")
        pem = self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(pem)
        except FileExistsError as error:
            raise EvidenceError(
                f"signing key {private}: there is a file already, and a key is not overwritten"
            ) from error
        public.write_bytes(self._private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return public

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._private.sign(message)


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key (32 bytes in hex) that counts, until the instant `revoked_at`. Instants are ISO texts, UTC."""

    id: str
    public: str
    name: str
    trusted_at: str
    revoked_at: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """The keys of a trust file, by id."""

    path: Path
    keys: tuple[TrustedKey, ...]

    def verify(self, key_id: str, message: bytes, signature: bytes) -> TrustedKey:
        """The key that signed `message`; raises `EvidenceError` for an unknown or revoked one, or a wrong signature.

        A revoked key does not count for earlier signatures either: whoever has it can write any date.
        """
        key = next((key for key in self.keys if key.id == key_id), None)
        if key is None:
            raise EvidenceError(f"it is signed by key {key_id}, which {self.path} does not trust")
        if key.revoked_at:
            raise EvidenceError(f"it is signed by key {key_id}, revoked at {key.revoked_at}: {key.reason}")
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public)).verify(signature, message)
        except (InvalidSignature, ValueError) as error:
            raise EvidenceError(
                f"its signature is not that of key {key_id}: it was changed after it was signed"
            ) from error
        return key


def load_trust(path: str | Path) -> Trust:
    """Read a trust file. Raises `EvidenceError`, also where a key's id is not that of its bytes."""
    try:
        data = json.loads(Path(path).read_text())
        if data["format"] != _FORMAT:
            raise EvidenceError(f"trusted keys {path}: expected format {_FORMAT}, got {data['format']!r}")
        keys = tuple(TrustedKey(**key) for key in data["keys"])
        wrong = [key.id for key in keys if _id(bytes.fromhex(key.public)) != key.id]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvidenceError(f"trusted keys {path}: {error}; `skewguard keys trust` writes the file") from error
    if wrong:
        raise EvidenceError(f"trusted keys {path}: {', '.join(wrong)}: the id is not that of the key")
    return Trust(Path(path), keys)


def trust_key(path: str | Path, public_pem: str | Path, name: str = "") -> TrustedKey:
    """Add a public key to the trust file, which is made where it is missing. Raises `EvidenceError`.

    A revoked key stays revoked: make a new one.
    """
    try:
        public = load_pem_public_key(Path(public_pem).read_bytes())
    except (OSError, ValueError) as error:
        raise EvidenceError(f"public key {public_pem}: {error}") from error
    if not isinstance(public, Ed25519PublicKey):
        raise EvidenceError(f"public key {public_pem}: expected an ed25519 key, got {type(public).__name__}")
    raw = public.public_bytes_raw()
    trust = load_trust(path) if Path(path).exists() else Trust(Path(path), ())
    known = next((key for key in trust.keys if key.id == _id(raw)), None)
    if known and known.revoked_at:
        raise EvidenceError(f"key {known.id} was revoked at {known.revoked_at}: {known.reason}; make a new one")
    if known:
        return known
    key = TrustedKey(_id(raw), raw.hex(), name, _now())
    _save(replace(trust, keys=(*trust.keys, key)))
    return key


def revoke_key(path: str | Path, key_id: str, reason: str) -> TrustedKey:
    """From now on nothing that this key signed counts. Raises `EvidenceError` where it is not trusted."""
    trust = load_trust(path)
    key = next((key for key in trust.keys if key.id == key_id), None)
    if key is None:
        raise EvidenceError(
            f"key {key_id} is not among the trusted keys of {path}: {', '.join(k.id for k in trust.keys)}"
        )
    if key.revoked_at is None:
        key = replace(key, revoked_at=_now(), reason=reason)
        _save(replace(trust, keys=tuple(key if other.id == key_id else other for other in trust.keys)))
    return key


def _save(trust: Trust) -> None:
    text = json.dumps({"format": _FORMAT, "keys": [asdict(key) for key in trust.keys]}, indent=1) + "\n"
    part = trust.path.with_name(f"{trust.path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(trust.path)


def _signing_key(private: Ed25519PrivateKey) -> SigningKey:
    return SigningKey(_id(private.public_key().public_bytes_raw()), private)


def _id(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:16]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
