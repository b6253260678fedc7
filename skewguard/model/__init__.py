"""Model: a native model folder, verified and loaded without MLflow.

A folder is what MLflow's scikit-learn flavor writes: `MLmodel`, a model file in skops format, and text files. Its
digest identifies all of it. Which types the file may bring is the reader's list, never the folder's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skewguard.errors import ModelError, PredictionError
from skewguard.model.folder import BUNDLE_KEY, FEATURES_KEY, FITTED_KEY, SNAPSHOT_KEY, ModelFolder, model_digest

__all__ = [
    "BUNDLE_KEY",
    "FEATURES_KEY",
    "FITTED_KEY",
    "SNAPSHOT_KEY",
    "TRUSTED_TYPES",
    "Model",
    "load_model",
    "model_digest",
]

Floats = npt.NDArray[np.float64]

TRUSTED_TYPES = (
    # The trees of scikit-learn's histogram gradient boosting; their nodes are checked after loading.
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    # Its preprocessor where it has categorical features: a partial of check_array, which only validates.
    "functools.partial",
    "sklearn.utils.validation.check_array",
)
"""What a model file may hold beyond what skops trusts by itself; `mlflow.sklearn.log_model` wants it too."""


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model. `digest` identifies its folder, `features` the columns of a vector where recorded.

    `snapshot_id` is the snapshot that it was trained on, `bundle_digest` that snapshot's definitions, `fitted_digest`
    the values that were fitted on it; each empty where it was not recorded.
    """

    digest: str
    model_id: str
    width: int
    features: tuple[str, ...] | None
    _predict: Callable[[Floats], Floats] = field(repr=False, compare=False)
    snapshot_id: str = ""
    bundle_digest: str = ""
    fitted_digest: str = ""

    def check(self, vector: Sequence[str], fitted_digest: str = "") -> None:
        """Raise `ModelError` unless the model was fitted on the columns named in `vector`, in that order, and with the
        bundle's fitted values, as far as it recorded their digest."""
        if fitted_digest and self.fitted_digest and fitted_digest != self.fitted_digest:
            raise ModelError(
                f"model {self.model_id}: it was trained with the fitted values {self.fitted_digest[:12]}, the bundle's "
                f"are {fitted_digest[:12]}. Name the bundle.json of the snapshot that it was trained on"
                f"{f' ({self.snapshot_id[:12]})' if self.snapshot_id else ''}, or train it again."
            )
        if self.features is not None and tuple(vector) != self.features:
            pairs = zip_longest(self.features, vector, fillvalue="nothing")
            at, (fitted, given) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
            raise ModelError(
                f"model {self.model_id}: column {at} of its vector is {fitted}, the bundle's is {given}. "
                "It was fitted on other features: name the bundle that it was trained with, or train it again."
            )
        if len(vector) != self.width:
            raise ModelError(
                f"model {self.model_id}: expected a vector of {self.width} features, the bundle's has {len(vector)}. "
                "The bundle's features are not those of this model."
            )

    def predict(self, vector: Floats) -> Floats:
        """Shape (n, width) to (n,): the positive class's probability, or a regressor's value.

        A boosted forest gives a row the same bits whatever rows are beside it. Threads may call this at once. Raises
        `PredictionError` where the estimator raises, as many do on a NaN, and names the columns without a value.
        """
        if vector.ndim != 2 or vector.shape[1] != self.width or vector.dtype != np.float64:
            raise ModelError(
                f"model {self.model_id}: expected a vector float64 (n, {self.width}), "
                f"got {vector.dtype} {vector.shape}. The bundle's features are not those of this model."
            )
        if not len(vector):
            return np.empty(0)
        try:
            return self._predict(vector)
        except Exception as error:
            raise self._speechless(vector, error) from error

    def _speechless(self, vector: Floats, error: Exception) -> PredictionError:
        gone = np.flatnonzero(np.isnan(vector).any(axis=0))
        missing = tuple(self.features[i] if self.features else f"column {i}" for i in gone)
        advice = f" It had no value of {', '.join(missing)}: train one that takes missing values." if missing else ""
        first = (str(error).splitlines() or [""])[0]
        return PredictionError(f"model {self.model_id}: raised {type(error).__name__}: {first}{advice}", missing)


def load_model(
    folder: str | Path,
    *,
    expected_digest: str | None = None,
    trusted_types: Collection[str] = TRUSTED_TYPES,
) -> Model:
    """Load the model in `folder`; with `expected_digest`, only if it is exactly that model.

    What is loaded are the bytes that were digested. Raises `ModelError` with what is wrong and what to do.
    """
    found = ModelFolder.read(Path(folder))
    if expected_digest is not None and found.digest != expected_digest:
        raise ModelError(
            f"{folder}: expected the model with digest {expected_digest}, found {found.digest}. "
            "A file was changed, added or is missing; fetch the folder again from where it was logged."
        )
    from skewguard.model.sklearn import load

    loaded = load(found.model_file(), trusted_types, str(folder))
    features = found.features() or loaded.features
    if features is not None and len(features) != loaded.width:
        raise ModelError(
            f"{folder}: MLmodel records {len(features)} features, the model was fitted on {loaded.width}. "
            "Log the model again with the names of the columns it was fitted on."
        )
    return Model(
        found.digest,
        found.model_id,
        loaded.width,
        features,
        loaded.predict,
        found.snapshot_id,
        found.recorded(BUNDLE_KEY),
        found.recorded(FITTED_KEY),
    )
