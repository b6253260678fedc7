"""Where this process stands: in an MLflow server, which keeps its stores to itself, or at a client."""

from __future__ import annotations

import os
import sys
from typing import Any

from mlflow import MlflowClient

_HANDLERS = "mlflow.server.handlers"
_SERVED_STORE_ENV = "_MLFLOW_SERVER_FILE_STORE"  # MLflow's, for its workers; importing the name would import Flask


def in_server() -> bool:
    """Whether this process answers for `mlflow server`."""
    return _SERVED_STORE_ENV in os.environ and _HANDLERS in sys.modules


def has_basic_auth() -> bool:
    """Whether MLflow's basic-auth is on here. Its module alone says nothing: a question to GraphQL loads it, too."""
    auth = sys.modules.get("mlflow.server.auth")
    is_on = getattr(auth, "is_auth_enabled", None)
    return auth is not None and (is_on is None or bool(is_on()))


def handlers() -> Any:
    """The module that answers a server's requests: loaded if this is a server, and never by a client."""
    return sys.modules[_HANDLERS]


def tracking(uri: str | None) -> Any:
    """Where logged models are looked up: in a server its own store, else the client's."""
    if in_server():
        return handlers()._get_tracking_store()
    return MlflowClient(tracking_uri=uri)
