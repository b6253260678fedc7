"""What a model card tells."""

from __future__ import annotations

from dataclasses import dataclass

from skewguard.compare.holdout import HeldOut
from skewguard.definitions import Bundle
from skewguard.snapshot import Manifest
from skewguard.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Signed:
    """The signed record behind the verdict: who signed it, when (ISO, UTC), sha256 (hex) of the envelope, and the tag
    of the logged model that carries it. `revoked` says why it was taken back; empty where it was not."""

    key_id: str
    signed_at: str
    digest: str
    tag: str
    revoked: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """One registered version, or a logged model on its way there (`version` is empty then).

    `logged` are the metrics that training logged, `parameters` the run's. `measured` is None where the model was not
    run on held-out rows, and `unmeasured` says why. `verdict` is None where nobody has ruled. `report` names the file
    beside the card that holds the whole report.
    """

    registered_name: str
    version: str
    model_id: str
    model_digest: str
    run_id: str
    logged_at: str
    bundle: Bundle
    manifest: Manifest
    label: str
    logged: tuple[tuple[str, float], ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    measured: HeldOut | None = None
    unmeasured: str = ""
    verdict: Verdict | None = None
    signed: Signed | None = None
    report: str = ""
