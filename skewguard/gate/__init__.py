"""The gate: a governed model is registered and promoted only with a passing verdict that is about exactly that model.

`admit` decides, without MLflow and without I/O; `mlflow.py` stands with it in front of MLflow's model registry.
"""

from skewguard.errors import Refused
from skewguard.gate.admission import admit
from skewguard.gate.record import VERDICT_TAG, from_tag, to_tag

__all__ = ["VERDICT_TAG", "Refused", "admit", "from_tag", "to_tag"]
