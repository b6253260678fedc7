"""A scikit-learn model from a skops file: types trusted by name, trees checked before anything walks them."""

# Nobody publishes a fitted forest's trees.
# ruff: noqa: SLF001

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from threading import get_ident
from typing import Any

import numpy as np
import numpy.typing as npt

from skewguard.errors import MissingExtra, ModelError
from skewguard.model.forest import Forest, probes

Floats = npt.NDArray[np.float64]
Predict = Callable[[Floats], Floats]

_OPTIONAL = ("pandas", "pytest", "dask")
_OTHER_INSIDES = (AttributeError, ImportError, IndexError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What predicts, the width of its vector, and the columns' names where the estimator kept them."""

    predict: Predict
    width: int
    features: tuple[str, ...] | None


def load(content: bytes, trusted: Collection[str], where: str) -> Loaded:
    """The model in a skops file; raises `ModelError` for types not `trusted` and for malformed trees."""
    estimator = _read(content, trusted, where)
    names = getattr(estimator, "feature_names_in_", None)
    for part in _parts(estimator):
        if _is_boosted(part):
            _check_trees(part, where)
        # A vector carries no names; with these, scikit-learn would warn of it at every row.
        getattr(part, "__dict__", {}).pop("feature_names_in_", None)
    width = getattr(estimator, "n_features_in_", None)
    if not isinstance(width, int) or width < 1:
        raise ModelError(f"{where}: expected a fitted estimator, got {type(estimator).__name__}.")
    return Loaded(_predictor(estimator, where), width, None if names is None else tuple(map(str, names)))


def _read(content: bytes, trusted: Collection[str], where: str) -> Any:
    with _lean_imports():
        try:
            from skops.io import loads
            from skops.io.exceptions import UntrustedTypesFoundException
        except ImportError as error:
            raise MissingExtra("loading a model", "serve") from error
    try:
        return loads(content, trusted=sorted(trusted))
    except UntrustedTypesFoundException as error:
        listed = str(error).splitlines()[0].removeprefix("Untrusted types found in the file: ").rstrip(".")
        raise ModelError(
            f"{where}: the model file holds types that are not trusted: {listed}. "
            "If you have read what they do, pass their names in trusted_types."
        ) from error
    except Exception as error:  # whatever a torn or crafted file leads skops to raise
        raise ModelError(f"{where}: the model file is no skops file ({type(error).__name__}: {error}).") from error


class _Hide(MetaPathFinder):
    """Makes optional packages look, to the thread that made this, as if they were not installed."""

    def __init__(self) -> None:
        self.thread = get_ident()

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:  # noqa: ARG002 - importlib's
        """Nothing, so that the next finder is asked; or an error."""
        if fullname in _OPTIONAL and get_ident() == self.thread:
            raise ModuleNotFoundError(f"{fullname} is hidden while a model is loaded", name=fullname)


@contextmanager
def _lean_imports() -> Iterator[None]:
    """Hide from scikit-learn what it loads only because it is installed: pandas alone is a second and 60 MB."""
    hide = _Hide()
    sys.meta_path.insert(0, hide)
    try:
        yield
    finally:
        sys.meta_path.remove(hide)


def _predictor(estimator: Any, where: str) -> Predict:
    """The fastest way to predict that agrees bit for bit, on probes, with what scikit-learn publishes."""
    public = _public(estimator, where)
    if not _is_boosted(estimator):
        return public
    try:
        forest, loss = Forest.of(estimator), estimator._loss
        rows = probes(estimator)
        with _lean_imports():
            expected = public(rows)
    except _OTHER_INSIDES:
        return public

    def finish(raw: Floats) -> Floats:
        if hasattr(estimator, "classes_"):
            return np.array(loss.predict_proba(raw)[:, 1])
        return np.asarray(loss.link.inverse(raw.ravel()), dtype=np.float64)

    def predict(vector: Floats) -> Floats:
        return finish(forest.few(vector) if len(vector) <= forest.quick_rows else forest.many(vector))

    try:
        alone = np.concatenate([finish(forest.few(row[np.newaxis])) for row in rows])
        ways = (alone, finish(forest.few(rows)), finish(forest.many(rows)))
    except _OTHER_INSIDES:
        return public
    return predict if all(way.tobytes() == expected.tobytes() for way in ways) else public


def _public(estimator: Any, where: str) -> Predict:
    """What scikit-learn publishes, on one thread."""
    from sklearn.base import is_classifier
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    classes = getattr(estimator, "classes_", ())
    classifies = bool(is_classifier(estimator))
    if classifies and (not hasattr(estimator, "predict_proba") or len(classes) != 2):
        raise ModelError(
            f"{where}: expected a regressor, or a classifier with predict_proba and two classes; "
            f"got {type(estimator).__name__} with {len(classes)} classes."
        )
    if not hasattr(estimator, "predict"):
        raise ModelError(f"{where}: expected an estimator that predicts, got {type(estimator).__name__}.")
    threads = ThreadpoolController()

    def predict(vector: Floats) -> Floats:
        with threads.limit(limits=1, user_api="openmp"):
            if classifies:
                return np.array(estimator.predict_proba(vector)[:, 1], dtype=np.float64)
            return np.array(estimator.predict(vector), dtype=np.float64).ravel()

    return predict


def _parts(thing: Any) -> Iterator[Any]:
    """`thing` and every object inside it: a booster may sit in a pipeline or an ensemble."""
    seen: dict[int, Any] = {}
    todo = [thing]
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, type):
            continue
        seen[id(one)] = one
        yield one
        if isinstance(one, dict):
            todo.extend(one.values())
        elif isinstance(one, list | tuple | set):
            todo.extend(one)
        elif isinstance(one, np.ndarray) and one.dtype == object:
            todo.extend(one.ravel())
        else:
            todo.extend(getattr(one, "__dict__", {}).values())


def _is_boosted(thing: Any) -> bool:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    return isinstance(thing, HistGradientBoostingClassifier | HistGradientBoostingRegressor)


def _check_trees(booster: Any, where: str) -> None:
    """Refuse trees that lead out of their arrays: scikit-learn follows an index wherever it leads."""
    from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

    try:
        width = int(booster.n_features_in_)
        categorical = np.asarray(booster._bin_mapper.is_categorical_, dtype=bool)
        trees = [tree for iteration in booster._predictors for tree in iteration]
        sound = categorical.shape == (width,) and all(
            _is_sound(tree, width, categorical, PREDICTOR_RECORD_DTYPE) for tree in trees
        )
    except _OTHER_INSIDES:
        sound = False
    if not sound:
        raise ModelError(
            f"{where}: the model file holds a tree whose nodes lead out of it: scikit-learn did not "
            "write it, or another version did. Log the model again from a fitted estimator."
        )


def _is_sound(tree: Any, width: int, categorical: npt.NDArray[np.bool_], dtype: np.dtype[Any]) -> bool:
    nodes, bitsets = tree.nodes, tree.raw_left_cat_bitsets
    if nodes.dtype != dtype or nodes.ndim != 1 or not len(nodes):
        return False
    if bitsets.dtype != np.uint32 or bitsets.ndim != 2 or bitsets.shape[1] != 8:
        return False
    places = np.flatnonzero(nodes["is_leaf"] == 0)
    inner = nodes[places]
    feature = inner["feature_idx"]
    if not ((feature >= 0) & (feature < width)).all():
        return False
    by_category = inner["is_categorical"] != 0
    return bool(
        # Children come after their parent, so that every walk ends.
        ((inner["left"] > places) & (inner["left"] < len(nodes))).all()
        and ((inner["right"] > places) & (inner["right"] < len(nodes))).all()
        and (inner["bitset_idx"][by_category] < len(bitsets)).all()
        and categorical[feature[by_category]].all()
    )
