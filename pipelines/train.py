"""Train on a snapshot and log the candidate to MLflow; nothing is registered here.

`python -m pipelines.train --help`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sklearn
import skops
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss, roc_auc_score

from pipelines.command import exit_code
from skewguard.gate.mlflow import artifacts
from skewguard.gate.mlflow.card import TRAINED_UNTIL_TAG
from skewguard.model import BUNDLE_KEY, FEATURES_KEY, FITTED_KEY, SNAPSHOT_KEY, TRUSTED_TYPES, model_digest
from skewguard.snapshot import Snapshot, load_snapshot

HOLDOUT = 0.1
"""The last tenth of the labelled rows, in time, is held out: a model is judged on days that it has not seen."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A logged model that has no registered name yet. `folder` is its native files; metrics are of the holdout."""

    model_id: str
    run_id: str
    digest: str
    folder: Path
    snapshot_id: str
    auc: float
    log_loss: float


def train(
    snapshot: Snapshot,
    out: Path,
    *,
    tracking_uri: str,
    experiment: str = "flight-delay",
    label: str = "late",
    learning_rate: float = 0.1,
) -> Candidate:
    """Fit, evaluate on the held-out tail, log to MLflow; writes `out` (JSON), which the other pipelines read."""
    matrix, y = snapshot.to_numpy(label)
    cut = _cut(len(y))
    parameters = {"max_iter": 120, "learning_rate": learning_rate, "max_leaf_nodes": 31, "random_state": 0}
    estimator = HistGradientBoostingClassifier(early_stopping=False, **parameters).fit(matrix[:cut], y[:cut])
    probability = estimator.predict_proba(matrix[cut:])[:, 1]
    metrics = {
        "auc": float(roc_auc_score(y[cut:], probability)),
        "log_loss": float(log_loss(y[cut:], probability)),
        "late_share": float(np.mean(y[cut:])),
    }
    mlflow.set_tracking_uri(tracking_uri)
    if mlflow.get_experiment_by_name(experiment) is None:
        mlflow.create_experiment(experiment, artifact_location=(out.parent / "artifacts").resolve().as_uri())
    mlflow.set_experiment(experiment)
    with mlflow.start_run() as run:
        mlflow.set_tag(TRAINED_UNTIL_TAG, _trained_until(snapshot, label, cut).isoformat())
        mlflow.log_params(parameters | {"rows": cut})
        info = mlflow.sklearn.log_model(
            estimator,
            name="model",
            serialization_format="skops",
            skops_trusted_types=list(TRUSTED_TYPES),
            pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"skops=={skops.__version__}"],
            metadata={
                FEATURES_KEY: list(snapshot.bundle.vector),
                SNAPSHOT_KEY: snapshot.id,
                BUNDLE_KEY: snapshot.bundle.digest,
                FITTED_KEY: snapshot.bundle.fitted_digest,
            },
        )
        snapshot.bind(info, tracking_uri)
        mlflow.log_metrics(metrics, model_id=info.model_id)
    with artifacts(info.model_id, tracking_uri) as folder:
        candidate = Candidate(
            info.model_id,
            run.info.run_id,
            model_digest(folder),
            folder,
            snapshot.id,
            metrics["auc"],
            metrics["log_loss"],
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(asdict(candidate) | {"folder": str(folder)}, indent=1) + "\n")
    return candidate


def held_out_from(asks: pa.Table, label: str = "late") -> datetime:
    """The first ask that a model trained on `asks` (in order of time) does not see. What is fitted for it must not see
    later ones either: else the holdout would flatter the model."""
    known = asks["event_timestamp"].filter(asks[label].is_valid())
    held_out: datetime = known[_cut(len(known))].as_py()
    return held_out


def _trained_until(snapshot: Snapshot, label: str, cut: int) -> datetime:
    """The last ask among the rows that are trained on."""
    asks = snapshot.to_arrow(["event_timestamp", label])
    until: datetime = pc.max(asks["event_timestamp"].filter(asks[label].is_valid())[:cut]).as_py()
    return until


def _cut(rows: int) -> int:
    return int(rows * (1 - HOLDOUT))


def load_candidate(path: Path) -> Candidate:
    """What `train` wrote."""
    data = json.loads(path.read_text())
    return Candidate(**(data | {"folder": Path(data["folder"])}))


def main(argv: Sequence[str] | None = None) -> int:
    """Train one candidate."""
    return exit_code("train", lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.train", description=__doc__)
    parser.add_argument("--snapshot", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where to write what is known of the candidate (JSON)")
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    arguments = parser.parse_args(argv)
    candidate = train(
        load_snapshot(arguments.snapshot),
        arguments.out,
        tracking_uri=arguments.tracking_uri,
        learning_rate=arguments.learning_rate,
    )
    print(f"{candidate.model_id}: AUC {candidate.auc:.4f} on the last tenth, digest {candidate.digest[:16]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
