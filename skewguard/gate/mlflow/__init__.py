"""The gate in front of MLflow's model registry, and what it needs of a logged model.

`store` is the model-registry store, which MLflow finds under the entry point `mlflow.model_registry_store`; `gate`
decides; `logged` reads a logged model's files and its signed records; `register` is a registration in one call.
"""

from skewguard.gate.mlflow.gate import POLICY_ENV, Admitted, Gate
from skewguard.gate.mlflow.logged import RULING_TAG, artifacts, attach_verdict, revoke_verdict
from skewguard.gate.mlflow.register import register
from skewguard.gate.mlflow.store import LEDGER_TAG, SCHEME, GateMixin, build_store

__all__ = [
    "LEDGER_TAG",
    "POLICY_ENV",
    "RULING_TAG",
    "SCHEME",
    "Admitted",
    "Gate",
    "GateMixin",
    "artifacts",
    "attach_verdict",
    "build_store",
    "register",
    "revoke_verdict",
]
