"""Forest: a boosted forest that answers a few rows in one call, with scikit-learn's own bits.

scikit-learn asks its trees one after the other, 5 us and more each, and encodes categories in 600 us. Here
all trees hang below one, whose upper nodes choose the tree by its number, so that one call of the same compiled
function walks every tree of a few rows. The leaves are then added in scikit-learn's order.
"""

# Nobody publishes a fitted forest's nodes.
# ruff: noqa: SLF001

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_QUICK_CELLS = 1 << 17  # rows x trees x columns beyond which scikit-learn is as fast, and needs less memory
_PROBES = 64


@dataclass(frozen=True, slots=True)
class Forest:
    """The trees of a boosted forest, and all of them below one, told by an extra column which to walk."""

    trees: tuple[tuple[npt.NDArray[Any], npt.NDArray[np.uint32]], ...]  # nodes and bitsets of each
    nodes: npt.NDArray[Any]
    numbers: Floats  # 0, 1, ... one per tree
    baseline: float
    left_bitsets: npt.NDArray[np.uint32]
    known_bitsets: npt.NDArray[np.uint32]
    bitset_of_feature: npt.NDArray[np.uint32]
    order: npt.NDArray[np.intp]  # the trees' columns as columns of the vector: categorical ones come first
    codes: tuple[dict[float, float], ...]  # of each categorical column: category -> code
    walk: Callable[..., None]

    @classmethod
    def of(cls, estimator: Any) -> Forest:
        """Raises for a forest of several outputs, and for insides that are not those known here."""
        from sklearn.ensemble._hist_gradient_boosting._predictor import _predict_from_raw_data

        trees = _trees(estimator)
        width = int(estimator.n_features_in_)
        known, of_feature = estimator._bin_mapper.make_known_categories_bitsets()
        order, codes = _encoding(estimator, width)
        return cls(
            trees=tuple((tree.nodes, tree.raw_left_cat_bitsets) for tree in trees),
            nodes=_below_one_root([t.nodes for t in trees], [len(t.raw_left_cat_bitsets) for t in trees], width),
            numbers=np.arange(len(trees), dtype=np.float64),
            baseline=float(np.asarray(estimator._baseline_prediction).item()),
            left_bitsets=np.ascontiguousarray(np.concatenate([t.raw_left_cat_bitsets for t in trees])),
            known_bitsets=known,
            bitset_of_feature=np.append(of_feature, 0).astype(np.uint32),
            order=order,
            codes=codes,
            walk=_predict_from_raw_data,
        )

    @property
    def quick_rows(self) -> int:
        """How many rows at once this is good for."""
        return max(1, _QUICK_CELLS // (len(self.trees) * (len(self.order) + 1)))

    def many(self, vector: Floats) -> Floats:
        """Baseline and leaves added up per row, shape (n, 1): tree after tree."""
        vector = self._encoded(vector)
        leaves = np.empty(len(vector))
        sums = np.full(len(vector), self.baseline)
        for nodes, bitsets in self.trees:
            # One thread: on a busy machine several wait for each other, at every tree.
            self.walk(nodes, vector, bitsets, self.known_bitsets, self.bitset_of_feature, 1, leaves)
            sums += leaves
        return sums[:, np.newaxis]

    def few(self, vector: Floats) -> Floats:
        """The same bits in one call: every row once per tree."""
        vector = self._encoded(vector)
        rows, trees = len(vector), len(self.trees)
        cells = np.empty((rows, trees, vector.shape[1] + 1))
        cells[:, :, :-1] = vector[:, np.newaxis]
        cells[:, :, -1] = self.numbers
        leaves = np.empty(rows * trees)
        cells = cells.reshape(rows * trees, vector.shape[1] + 1)
        self.walk(self.nodes, cells, self.left_bitsets, self.known_bitsets, self.bitset_of_feature, 1, leaves)
        sums = np.empty((rows, 1 + trees))
        sums[:, 0] = self.baseline
        sums[:, 1:] = leaves.reshape(rows, trees)
        return np.ascontiguousarray(np.add.accumulate(sums, axis=1)[:, -1:])  # in scikit-learn's order

    def _encoded(self, vector: Floats) -> Floats:
        """Categories as codes, in the trees' order of columns; an unseen category is missing."""
        if not self.codes:
            return vector
        vector = vector[:, self.order]
        for column, codes in enumerate(self.codes):
            vector[:, column] = [codes.get(value, np.nan) for value in vector[:, column].tolist()]
        return vector


def probes(estimator: Any) -> Floats:
    """Rows at, just below and just above the forest's own thresholds, and with NaN and unseen values."""
    nodes = np.concatenate([tree.nodes for tree in _trees(estimator)])
    nodes = nodes[nodes["is_leaf"] == 0]
    width = int(estimator.n_features_in_)
    choose = np.random.default_rng(0)
    odd = [np.nan, -1.0, -0.0, 0.5, *map(float, range(8)), 254.0, 255.0, 256.0, 1e300]
    if estimator._preprocessor is None:  # which refuses an infinite category, and looks at nothing else
        odd += [np.inf, -np.inf]
    rows = np.empty((_PROBES, width))
    for column in range(width):
        at = nodes["num_threshold"][nodes["feature_idx"] == column]
        at = choose.choice(at, 16) if len(at) else np.zeros(1)
        around = np.concatenate([at, np.nextafter(at, -np.inf), np.nextafter(at, np.inf), odd])
        rows[:, column] = choose.choice(around, _PROBES)
    return rows


def _trees(estimator: Any) -> list[Any]:
    return [tree for (tree,) in estimator._predictors]  # one per iteration, else there are several outputs


def _encoding(estimator: Any, width: int) -> tuple[npt.NDArray[np.intp], tuple[dict[float, float], ...]]:
    """What scikit-learn's preprocessor does to a vector: categories become codes and come first."""
    if estimator._preprocessor is None:
        return np.arange(width), ()
    categorical = np.asarray(estimator.is_categorical_, dtype=bool)
    encoder = estimator._preprocessor.named_transformers_["encoder"]
    codes = tuple(
        {float(one): float(code) for code, one in enumerate(categories) if not np.isnan(one)}
        for categories in encoder.categories_
    )
    return np.concatenate([np.flatnonzero(categorical), np.flatnonzero(~categorical)]), codes


def _below_one_root(trees: list[npt.NDArray[Any]], bitsets: list[int], width: int) -> npt.NDArray[Any]:
    """One tree whose upper nodes ask column `width` for the number of the tree to walk: a binary search."""
    routes: list[tuple[float, int, int]] = []

    def route(first: int, last: int) -> int:
        """The upper node that chooses among trees first..last, or -1 - tree where nothing is to be chosen."""
        if first == last:
            return -1 - first
        place, middle = len(routes), (first + last) // 2
        routes.append((0.0, 0, 0))
        routes[place] = (middle + 0.5, route(first, middle), route(middle + 1, last))
        return place

    route(0, len(trees) - 1)
    starts = len(routes) + np.cumsum([0, *map(len, trees)])
    flat = np.zeros(starts[-1], dtype=trees[0].dtype)
    for place, (threshold, left, right) in enumerate(routes):
        node = flat[place : place + 1]
        node["feature_idx"], node["num_threshold"] = width, threshold
        node["left"] = starts[-1 - left] if left < 0 else left
        node["right"] = starts[-1 - right] if right < 0 else right
    for tree, start, shift in zip(trees, starts[:-1], np.cumsum([0, *bitsets])[:-1], strict=True):
        nodes = flat[start : start + len(tree)]
        nodes[:] = tree
        inner = nodes["is_leaf"] == 0
        nodes["left"][inner] += np.uint32(start)
        nodes["right"][inner] += np.uint32(start)
        nodes["bitset_idx"] += np.uint32(shift)
    return flat
