"""The model card: gathered from snapshot, tracking store, model and verdict, and put into MLflow."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from skewguard.compare.holdout import HeldOut, held_out
from skewguard.errors import EvidenceError, ModelError, PredictionError, SnapshotError
from skewguard.gate.keys import Trust
from skewguard.gate.mlflow.card import Logged, describe, log_card, look, verdict_digest, version_of
from skewguard.gate.mlflow.logged import artifacts
from skewguard.gate.record import Record, tag_of
from skewguard.model import load_model
from skewguard.report import to_html as report_page
from skewguard.report.card import Card, Signed, to_html, to_markdown
from skewguard.report.card.markdown import to_description
from skewguard.snapshot import Snapshot
from skewguard.verdict import Verdict

PAGE, TEXT, REPORT = "card.html", "card.md", "report.html"


@dataclass(frozen=True, slots=True)
class Stores:
    """Where models are logged and registered, and whose signatures count. None is MLflow's own default."""

    trust: Trust
    tracking_uri: str | None = None
    registry_uri: str | None = None


@dataclass(frozen=True, slots=True)
class Whole:
    """A verdict with its findings, and the digest by which a signed record names it."""

    verdict: Verdict
    digest: str

    @classmethod
    def of(cls, verdict: Verdict) -> Whole:
        """One that was just given."""
        return cls(verdict, verdict.digest)

    @classmethod
    def read(cls, path: str | Path) -> Whole:
        """What `skewguard guard --out` wrote, be it with another release: the digest is that of the file's content.

        Raises `EvidenceError`.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            verdict = Verdict.from_json(data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EvidenceError(f"{path}: expected a verdict as JSON, got {error!r}") from error
        canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return cls(verdict, hashlib.sha256(canonical.encode()).hexdigest())


def make_card(
    model_id: str,
    registered_name: str,
    snapshot: Snapshot,
    stores: Stores,
    *,
    verdict: Whole | None = None,
    label: str = "",
    trained_until: datetime | None = None,
    slice_by: Sequence[str] = (),
) -> Card:
    """The card of a logged model under that name. The model's files are read and not written.

    `verdict` is the whole one, as `skewguard guard --out` wrote it; without it the signed record's is shown, which has
    no findings. `trained_until` is the last ask that the model was trained on; without it, what training wrote down.
    Raises `EvidenceError` where snapshot or verdict are not this model's, `Refused` where its record is not right.
    """
    logged = look(model_id, registered_name, stores.trust, stores.tracking_uri)
    judged = _judged(logged.record, verdict)
    if judged and judged.subject.snapshot_id not in ("", snapshot.id):
        raise EvidenceError(
            f"model {model_id} was judged on snapshot {judged.subject.snapshot_id[:16]}, not {snapshot.id[:16]}: "
            "name that one"
        )
    label = label or (snapshot.manifest.labels or ("",))[0]
    until = trained_until or (datetime.fromisoformat(logged.trained_until) if logged.trained_until else None)
    measured, unmeasured = _measured(logged, snapshot, stores, label, until, slice_by)
    return Card(
        registered_name=registered_name,
        version=version_of(model_id, registered_name, stores.registry_uri, stores.tracking_uri),
        model_id=model_id,
        model_digest=logged.digest,
        run_id=logged.run_id,
        logged_at=logged.logged_at,
        bundle=snapshot.bundle,
        manifest=snapshot.manifest,
        label=label,
        logged=logged.metrics,
        parameters=logged.parameters,
        measured=measured,
        unmeasured=unmeasured,
        verdict=judged,
        signed=_signed(logged.record, registered_name),
        report=REPORT if verdict and judged is verdict.verdict else "",
    )


def publish(card: Card, stores: Stores) -> str:
    """Put the card among the artifacts of the model's run, and its first lines into the version's description.

    Returns where, relative to the run's artifacts. Raises `EvidenceError` for a model without a run.
    """
    if not card.run_id:
        raise EvidenceError(f"model {card.model_id} was logged outside of a run, which has no place for a card")
    files = {PAGE: to_html(card), TEXT: to_markdown(card)}
    if card.report and card.verdict:
        files[REPORT] = report_page(card.verdict)
    name = re.sub(r"[^\w.-]", "_", card.registered_name)
    where = log_card(card.run_id, f"{name}-{card.version or 'unregistered'}", files, stores.tracking_uri)
    if card.version:
        text = to_description(card, f"{where}/{PAGE}")
        describe(card.registered_name, card.version, text, stores.registry_uri, stores.tracking_uri)
    return where


def _judged(record: Record | None, whole: Whole | None) -> Verdict | None:
    """The whole verdict, if it is the one that was signed."""
    if whole is None or record is None or record.verdict is None:
        return record.verdict if record else None
    if verdict_digest(record) != whole.digest:
        raise EvidenceError(
            f"the verdict {whole.digest[:12]} is not the one that was signed for model {record.model_id} "
            f"({verdict_digest(record)[:12]}): name the file that `skewguard guard --out` wrote with it"
        )
    return whole.verdict


def _signed(record: Record | None, registered_name: str) -> Signed | None:
    if record is None:
        return None
    at = record.signed_at.isoformat(timespec="seconds")
    revoked = record.reason if record.verdict is None else ""
    return Signed(record.key_id, at, record.digest, tag_of(registered_name), revoked)


def _measured(
    logged: Logged, snapshot: Snapshot, stores: Stores, label: str, until: datetime | None, slice_by: Sequence[str]
) -> tuple[HeldOut | None, str]:
    """The model on the rows that it was not trained on, or why it was not run on any."""
    if until is None:
        return None, "By slice nothing was measured: nobody said until when the model was trained."
    if not label:
        return None, "By slice nothing was measured: the snapshot has no label."
    after = round(until.timestamp() * 1_000_000)
    try:
        with artifacts(logged.model_id, stores.tracking_uri) as folder:
            model = load_model(folder, expected_digest=logged.digest)
        model.check(snapshot.bundle.vector, snapshot.bundle.fitted_digest)
        return held_out(snapshot, model, label, after, slice_by), ""
    except (EvidenceError, ModelError, PredictionError, SnapshotError) as error:
        return None, f"By slice nothing was measured: {error}"
