"""Register a logged model through the gate, in one call that leaves nothing behind where it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking._model_registry import utils as registry

from skewguard.errors import Refused
from skewguard.gate.mlflow.store import DENIAL, SCHEME, GateMixin


def register(
    model_id: str,
    registered_name: str,
    *,
    alias: str | None = None,
    registry_uri: str,
    tracking_uri: str,
) -> str:
    """Register a logged model and set `alias`; returns the version. Raises `Refused` and leaves nothing behind.

    `registry_uri` is gated here (`skewguard:sqlite:///...`) or leads to a server (`http://...`), which gates or not.
    """
    if not registry_uri.startswith((SCHEME, "http:", "https:")):
        raise Refused(f"{registry_uri!r} is a registry without a gate; use '{SCHEME}{registry_uri}'")
    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=registry_uri)
    store = registry._get_store(registry_uri, tracking_uri)
    source = f"models:/{model_id}"
    if isinstance(store, GateMixin):
        promotion = alias is not None
        with store.gate.deciding("register", registered_name, source, promotion=promotion):
            if store.gate.mode(registered_name) is not None:
                store.gate.ask(registered_name, model_id, promotion=promotion)  # before anything is created
    with _refusals():
        try:
            client.create_registered_model(registered_name)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
        created = client.create_model_version(registered_name, source, model_id=model_id)
        if alias is not None:
            client.set_registered_model_alias(registered_name, alias, created.version)
    return str(created.version)


@contextmanager
def _refusals() -> Iterator[None]:
    """A server's or a store's denial, as the refusal that it was."""
    try:
        yield
    except MlflowException as error:
        _, gate, sentence = error.message.partition(DENIAL)
        if gate and error.error_code == ErrorCode.Name(PERMISSION_DENIED):
            raise Refused(sentence) from error
        raise
