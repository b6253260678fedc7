import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skops.io
import yaml
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from skewguard.errors import ModelError, PredictionError
from skewguard.model import (
    BUNDLE_KEY,
    FEATURES_KEY,
    FITTED_KEY,
    SNAPSHOT_KEY,
    TRUSTED_TYPES,
    load_model,
    model_digest,
)

Floats = npt.NDArray[np.float64]
NAMES = ["wind", "gust", "visibility", "delay", "carrier"]


def _table(rows: int = 1500, seed: int = 0) -> tuple[Floats, Floats]:
    """Five columns with gaps, the last of them a code from 0 to 11."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 5))
    x[:, 4] = random.integers(0, 12, rows)
    x[random.random(x.shape) < 0.1] = np.nan
    y = (np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 4]) % 3 + random.normal(size=rows) > 1).astype(np.float64)
    return x, y


def _write(folder: Path, estimator: Any, **changes: Any) -> Path:
    """The folder that MLflow's scikit-learn flavor writes, as far as it is read."""
    folder.mkdir()
    skops.io.dump(estimator, folder / "model.skops")
    flavor = {"pickled_model": "model.skops", "serialization_format": "skops", "code": None}
    described: dict[str, Any] = {
        "flavors": {"sklearn": flavor},
        "model_id": "m-" + "0" * 32,
        "metadata": {FEATURES_KEY: NAMES},
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(described | changes))
    (folder / "requirements.txt").write_text("scikit-learn\n")
    return folder


def _fit(kind: str) -> Any:
    x, y = _table()
    made: dict[str, Any] = {
        "classifier": HistGradientBoostingClassifier(max_iter=30, random_state=0),
        "classifier with categories": HistGradientBoostingClassifier(max_iter=30, categorical_features=[4, 1]),
        "regressor": HistGradientBoostingRegressor(max_iter=30),
        "regressor with categories": HistGradientBoostingRegressor(max_iter=30, categorical_features=[4]),
        "regressor of counts": HistGradientBoostingRegressor(max_iter=30, loss="poisson"),
        "stump": HistGradientBoostingClassifier(max_iter=1, max_depth=1),
        "one leaf": HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=1400),
    }
    if kind == "classifier with categories":
        x[:, 1] = np.abs(np.round(x[:, 1]))
    with threadpool_limits(1):  # two threads on a busy machine wait for each other
        return made[kind].fit(x, y)


def _public(estimator: Any, x: Floats) -> Floats:
    if hasattr(estimator, "predict_proba"):
        return np.array(estimator.predict_proba(x)[:, 1])
    return np.array(estimator.predict(x))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound model folder that nobody changes."""
    return _write(tmp_path_factory.mktemp("sound") / "model", _fit("classifier"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A sound model folder to spoil."""
    return _write(tmp_path / "model", _fit("stump"))


@pytest.mark.parametrize(
    "kind",
    [
        "classifier",
        "classifier with categories",
        "regressor",
        "regressor with categories",
        "regressor of counts",
        "stump",
        "one leaf",
    ],
)
def test_a_boosted_forest_predicts_scikit_learns_own_bits(kind: str, tmp_path: Path) -> None:
    """One row, a few rows and many rows get exactly the bits that scikit-learn's public method gives."""
    estimator = _fit(kind)
    model = load_model(_write(tmp_path / "model", estimator))
    x, _ = _table(12_000, seed=1)
    x[::7, 4] = 250.0  # a category that was never seen
    x[::11, 4] = -3.0
    x[::13, 0] = np.inf
    if "categories" not in kind:
        x[::17, 4] = -np.inf
    expected = _public(estimator, x)
    assert "forest" in model._predict.__code__.co_freevars, "the quick way is in use"
    assert model.predict(x).tobytes() == expected.tobytes()
    assert model.predict(x[:20]).tobytes() == expected[:20].tobytes()
    assert model.predict(np.asfortranarray(x[:20])).tobytes() == expected[:20].tobytes()
    assert all(model.predict(x[i : i + 1])[0] == expected[i] for i in range(400))


def test_no_row_is_no_prediction(folder: Path) -> None:
    """An empty vector gives an empty prediction."""
    assert load_model(folder).predict(np.empty((0, 5))).shape == (0,)


def test_a_model_says_which_one_it_is(folder: Path) -> None:
    """Digest, id and the names of the columns come with the model."""
    model = load_model(folder, expected_digest=model_digest(folder))
    assert (model.digest, model.model_id, model.width) == (model_digest(folder), "m-" + "0" * 32, 5)
    assert model.features == tuple(NAMES)


def test_the_signature_names_the_columns_where_the_metadata_does_not(tmp_path: Path) -> None:
    """MLflow's own signature is read, and a model without either has no names."""
    inputs = str([{"type": "double", "name": name} for name in NAMES]).replace("'", '"')
    estimator = _fit("stump")
    signed = _write(tmp_path / "signed", estimator, metadata=None, signature={"inputs": inputs, "outputs": None})
    assert load_model(signed).features == tuple(NAMES)
    assert load_model(_write(tmp_path / "bare", estimator, metadata=None)).features is None


def test_a_vector_of_another_shape_is_refused(folder: Path) -> None:
    """Another width or dtype is an error that names both."""
    model = load_model(folder)
    with pytest.raises(ModelError, match=r"expected a vector float64 \(n, 5\), got float64 \(1, 4\)"):
        model.predict(np.zeros((1, 4)))
    with pytest.raises(ModelError, match=r"got float32 \(1, 5\)"):
        model.predict(np.zeros((1, 5), dtype=np.float32))


def test_the_digest_is_of_every_file_but_the_one_that_mlflow_adds(own: Path) -> None:
    """A changed byte, a new name and a new file change the digest; MLflow's note on what it downloaded does not."""
    first = model_digest(own)
    (own / "registered_model_meta").write_text("model_name: x")
    assert model_digest(own) == first
    (own / "requirements.txt").rename(own / "requirement.txt")
    second = model_digest(own)
    (own / "requirement.txt").write_text("scikit-learm\n")
    third = model_digest(own)
    (own / "code").mkdir()
    (own / "code" / "registered_model_meta").write_text("")
    assert len({first, second, third, model_digest(own)}) == 4


def test_another_model_than_the_expected_one_is_not_loaded(own: Path) -> None:
    """A folder that was tampered with by one byte is refused with both digests."""
    expected = model_digest(own)
    (own / "requirements.txt").write_text("scikit-learn \n")
    with pytest.raises(ModelError, match=f"expected the model with digest {expected}, found "):
        load_model(own, expected_digest=expected)


@pytest.mark.parametrize("stored", ["pickle", "cloudpickle", None])
def test_a_pickle_is_refused(stored: str | None, own: Path) -> None:
    """A model that would run its file's code to load is refused, with the way to log it instead."""
    described = yaml.safe_load((own / "MLmodel").read_text())
    described["flavors"]["sklearn"]["serialization_format"] = stored
    if stored is None:
        del described["flavors"]["sklearn"]["serialization_format"]
    (own / "MLmodel").write_text(yaml.safe_dump(described))
    with pytest.raises(ModelError, match=r"runs whatever code the file brings. Log it again with .*skops"):
        load_model(own)


def test_the_artifacts_own_list_of_trusted_types_counts_for_nothing(own: Path) -> None:
    """What MLmodel says may be trusted is not asked; the refusal names the types."""
    described = yaml.safe_load((own / "MLmodel").read_text())
    described["flavors"]["sklearn"]["skops_trusted_types"] = list(TRUSTED_TYPES)
    (own / "MLmodel").write_text(yaml.safe_dump(described))
    with pytest.raises(ModelError, match=r"types that are not trusted: .*TreePredictor"):
        load_model(own, trusted_types=())


def test_the_trusted_types_are_those_that_a_boosted_forest_needs() -> None:
    """The list holds what skops asks for and nothing else."""
    asked = {
        name
        for kind in ("classifier", "classifier with categories", "regressor", "regressor with categories")
        for name in skops.io.get_untrusted_types(data=skops.io.dumps(_fit(kind)))
    }
    assert asked == set(TRUSTED_TYPES)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("left", 10_000),
        ("right", 0),
        ("feature_idx", 5),
        ("feature_idx", -1),
        ("is_categorical", 1),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_tree_that_leads_out_of_its_nodes_is_refused(field: str, value: int, wrapped: bool, tmp_path: Path) -> None:
    """scikit-learn would follow a crafted index out of the array, so no such tree is loaded, however deep it sits."""
    estimator = _fit("stump")
    estimator._predictors[0][0].nodes[field][0] = value
    if wrapped:
        outer = CalibratedClassifierCV(_fit("stump"), cv=2).fit(*_table(200))
        outer.calibrated_classifiers_[0].estimator = estimator
        estimator = outer
    trusted = {*TRUSTED_TYPES, "sklearn.calibration._CalibratedClassifier", "sklearn.calibration._SigmoidCalibration"}
    with pytest.raises(ModelError, match="nodes lead out of it"):
        load_model(_write(tmp_path / "model", estimator), trusted_types=trusted)


def test_other_estimators_predict_as_they_publish(tmp_path: Path) -> None:
    """What is no boosted forest goes through its public method; its column names cause no warning."""
    x, y = _table(300)
    estimator = LogisticRegression().fit(np.nan_to_num(x), y)
    expected = _public(estimator, np.nan_to_num(x))
    estimator.feature_names_in_ = np.array(NAMES, dtype=object)
    model = load_model(_write(tmp_path / "model", estimator, metadata=None))
    assert model.features == tuple(NAMES)
    np.testing.assert_array_equal(model.predict(np.nan_to_num(x)), expected)


def test_a_model_that_takes_no_missing_values_says_which_were_missing(tmp_path: Path) -> None:
    """What the estimator raises on a NaN becomes an error with the columns' names; other rows are answered as ever."""
    x, y = _table(300)
    whole = np.nan_to_num(x)
    model = load_model(_write(tmp_path / "model", LogisticRegression().fit(whole, y)))
    assert len(model.predict(whole[:2])) == 2
    torn = whole[:2].copy()
    torn[1, 0] = torn[0, 2] = np.nan
    with pytest.raises(PredictionError, match="raised ValueError: Input X contains NaN") as caught:
        model.predict(torn)
    assert caught.value.missing == (NAMES[0], NAMES[2])
    assert f"no value of {NAMES[0]}, {NAMES[2]}: train one that takes missing values" in str(caught.value)
    assert isinstance(caught.value, ModelError)


def test_a_model_says_what_it_was_trained_on(tmp_path: Path) -> None:
    """The snapshot, its definitions and its fitted values, as the metadata records them; empty where it does not."""
    keys = {SNAPSHOT_KEY: "s", BUNDLE_KEY: "b", FITTED_KEY: "f", FEATURES_KEY: list(NAMES)}
    for metadata, expected in ((keys, ("s", "b", "f")), ({FEATURES_KEY: list(NAMES)}, ("", "", ""))):
        model = load_model(_write(tmp_path / f"model{len(metadata)}", _fit("stump"), metadata=metadata))
        assert (model.snapshot_id, model.bundle_digest, model.fitted_digest) == expected


def test_a_classifier_of_three_classes_is_refused(tmp_path: Path) -> None:
    """There is no probability of the positive class among three."""
    x, _ = _table(300)
    estimator = HistGradientBoostingClassifier(max_iter=2).fit(x, np.arange(300) % 3)
    with pytest.raises(ModelError, match="two classes; got HistGradientBoostingClassifier with 3 classes"):
        load_model(_write(tmp_path / "model", estimator))


def test_what_is_no_model_folder_is_refused_with_what_was_found(tmp_path: Path, own: Path) -> None:
    """A missing folder, an empty one, one without MLmodel, another flavor, a torn file: each says which."""
    with pytest.raises(ModelError, match="expected a model folder, found nothing"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="found an empty one"):
        load_model(tmp_path / "empty")
    (tmp_path / "empty" / "x").write_text("x")
    with pytest.raises(ModelError, match="holds no MLmodel"):
        load_model(tmp_path / "empty")
    (own / "model.skops").write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match="is no skops file"):
        load_model(own)
    (own / "model.skops").unlink()
    with pytest.raises(ModelError, match=r"names the model file 'model.skops', which is not in the folder"):
        load_model(own)
    (own / "MLmodel").write_text("flavors: {xgboost: {}}")
    with pytest.raises(ModelError, match="expected the flavor sklearn, found xgboost"):
        load_model(own)
    (own / "MLmodel").write_text("a: [")
    with pytest.raises(ModelError, match="is no YAML"):
        load_model(own)


def test_a_symbolic_link_is_refused(own: Path) -> None:
    """What a link leads to can change after it was digested."""
    (own / "extra").symlink_to(own / "MLmodel")
    with pytest.raises(ModelError, match="'extra' is a symbolic link"):
        model_digest(own)


def test_names_that_do_not_fit_the_model_are_refused(tmp_path: Path) -> None:
    """A folder that records another number of columns than the estimator was fitted on is inconsistent."""
    folder = _write(tmp_path / "model", _fit("stump"), metadata={FEATURES_KEY: NAMES[:4]})
    with pytest.raises(ModelError, match="records 4 features, the model was fitted on 5"):
        load_model(folder)


def test_loading_and_predicting_loads_no_heavy_vendor(tmp_path: Path) -> None:
    """A serving process has neither pandas nor MLflow, feast or duckdb in memory, though they are installed."""
    folder = _write(tmp_path / "model", _fit("classifier with categories"))
    script = (
        "import sys; from skewguard.model import load_model; import numpy as np\n"
        f"load_model({str(folder)!r}).predict(np.zeros((1, 5)))\n"
        "print(*sys.modules)\n"
        "import pandas"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    absent = {"pandas", "mlflow", "feast", "duckdb", "great_expectations", "pyarrow", "dask", "pytest"}
    assert absent & set(loaded) == set()
