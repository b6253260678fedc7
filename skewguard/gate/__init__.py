"""The gate: a governed model is registered and promoted only with a signed, passing verdict about exactly that model.

`admit` decides, without MLflow and without I/O; `mlflow` stands with it in front of MLflow's model registry. Who may
sign is in `keys`, what is signed in `record`, and what was seen and decided in `ledger`.
"""

from skewguard.errors import Refused
from skewguard.gate.admission import admit, admit_to_load, may_promote
from skewguard.gate.ledger import Ledger
from skewguard.gate.record import VERDICT_TAG, Record, read_record, sign_revocation, sign_verdict

__all__ = [
    "VERDICT_TAG",
    "Ledger",
    "Record",
    "Refused",
    "admit",
    "admit_to_load",
    "may_promote",
    "read_record",
    "sign_revocation",
    "sign_verdict",
]
