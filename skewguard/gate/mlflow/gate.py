"""The gate's decisions on logged models: for the store, for `skewguard gate` and for the puller."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlflow.entities import LoggedModel

from skewguard.errors import EvidenceError, PolicyError, Refused, SkewguardError
from skewguard.gate.admission import CLOCK_SKEW, admit, admit_to_load, may_promote
from skewguard.gate.keys import TRUST_ENV, Trust, load_trust
from skewguard.gate.ledger import LEDGER_ENV, Entry, Ledger, newest
from skewguard.gate.mlflow.logged import digest_of, records_of
from skewguard.gate.mlflow.server import tracking
from skewguard.gate.record import Record
from skewguard.policy import Mode, load_policy

POLICY_ENV = "SKEWGUARD_POLICY"


@dataclass(frozen=True, slots=True)
class Admitted:
    """A logged model that may bear the name: what was found in the tracking store, not what a caller said."""

    model_id: str
    run_id: str | None
    location: str
    record: Record

    def line(self, action: str, name: str, version: str = "") -> dict[str, str]:
        """What the ledger says of the admission."""
        about = {"model_id": self.model_id, "record": self.record.digest, "key_id": self.record.key_id}
        return {"action": action, "name": name, "version": str(version)} | about

    def must_lie_at(self, location: str, name: str, version: str) -> None:
        """Raise `Refused` where a version's files are not those of the logged model that was looked at."""
        if location.rstrip("/") != self.location.rstrip("/"):
            raise Refused(
                f"version {version} of {name!r} may not be used: its files lie at {location!r}, those of "
                f"model {self.model_id} at {self.location!r}; register the logged model anew"
            )


@dataclass(frozen=True, slots=True)
class Gate:
    """Policy, trusted keys and ledger, and the tracking URI whose logged models are asked for.

    The files are read at each decision, so that a new policy and a revoked key count at once. The policy is at
    SKEWGUARD_POLICY; the trusted keys at SKEWGUARD_TRUSTED_KEYS and the ledger at SKEWGUARD_LEDGER, else beside the
    policy as `trusted.json` and `ledger.jsonl`.
    """

    policy: Path
    trust: Path
    ledger: Path
    tracking: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, tracking_uri: str | None = None) -> Gate:
        """Raises `PolicyError` or `EvidenceError` where a file that must be there is not, or is wrong."""
        path = environment.get(POLICY_ENV, "")
        if not path:
            raise PolicyError(f"the gate needs a policy: set {POLICY_ENV} to a policy file")
        policy = Path(path).absolute()
        trust = Path(environment.get(TRUST_ENV) or policy.with_name("trusted.json")).absolute()
        ledger = Path(environment.get(LEDGER_ENV) or policy.with_name("ledger.jsonl")).absolute()
        load_policy(policy)
        load_trust(trust)
        return cls(policy, trust, ledger, tracking_uri)

    def mode(self, name: str) -> Mode | None:
        """What is refused to the registered model `name`; None where the policy does not govern it."""
        policy = load_policy(self.policy)
        return policy.mode_of(name) if policy.governs_model(name) else None

    @contextmanager
    def deciding(self, action: str, name: str, source: str, *, promotion: bool) -> Iterator[None]:
        """Write down what is refused inside, and let it pass where the model's mode only observes."""
        try:
            yield
        except SkewguardError as error:
            mode = self.mode(name)
            observed = mode is Mode.OBSERVE or (mode is Mode.PROMOTION and not promotion)
            did = {"action": action, "name": name, "source": source, "why": " ".join(str(error).split())}
            self.write("observed" if observed else "refused", did)
            if not observed:
                raise

    def ask(self, name: str, model_id: str, *, promotion: bool = False) -> Admitted:
        """The logged model, admitted to `name`, and with `promotion` to an alias. Remembers the records that it saw.

        Raises `SkewguardError` with the refusal.
        """
        policy = load_policy(self.policy)
        logged = self._logged(model_id)
        record, last = self._newest(name, logged)
        now = datetime.now(UTC)
        _not_before(last, now)
        verdict = admit(
            record,
            registered_name=name,
            model_id=model_id,
            model_digest=digest_of(logged, self.tracking),
            policy=policy,
            now=now,
        )
        if promotion:
            may_promote(verdict, policy)
        return _admitted(logged, record)

    def ask_to_load(self, name: str, model_id: str) -> Admitted:
        """The logged model, which was admitted to `name` once and whose files are the same still; raises `Refused`."""
        logged = self._logged(model_id)
        record, _ = self._newest(name, logged)
        digest = digest_of(logged, self.tracking)
        admit_to_load(record, registered_name=name, model_id=model_id, model_digest=digest)
        return _admitted(logged, record)

    def write(self, kind: str, body: Mapping[str, str]) -> Entry:
        """Add a line to the ledger."""
        return Ledger(self.ledger).append(kind, body)

    def _logged(self, model_id: str) -> LoggedModel:
        logged: LoggedModel = tracking(self.tracking).get_logged_model(model_id)
        return logged

    def _newest(self, name: str, logged: LoggedModel) -> tuple[Record | None, str]:
        """(the record that counts, when the ledger's last line was written)."""
        trust: Trust = load_trust(self.trust)
        carried = records_of(logged, name, trust)
        entries = Ledger(self.ledger).remember(carried)
        # One that was copied here is about another model or name, and is refused by that.
        found = newest(entries, logged.model_id, name, trust) or next(iter(carried), None)
        return found, entries[-1].at if entries else ""


def _not_before(last: str, now: datetime) -> None:
    """Raise `EvidenceError` where the clock stands before what was already decided: expired verdicts would count."""
    if last and now + CLOCK_SKEW < datetime.fromisoformat(last):
        raise EvidenceError(
            f"the gate's clock says {now.isoformat(timespec='seconds')}, and its ledger was written until {last}: the "
            "clock is wrong, or was; set it right, and begin a new ledger where it had run ahead"
        )


def _admitted(logged: LoggedModel, record: Record | None) -> Admitted:
    assert record is not None  # noqa: S101  (without a record nobody is admitted)
    return Admitted(logged.model_id, logged.source_run_id, logged.artifact_location, record)
