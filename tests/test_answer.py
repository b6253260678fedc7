"""Answer: one path from what the views say to what the model sees, and a flat form that loses nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from skewguard.answer import Served, answer, derive, from_table, schema, to_batch, vector
from skewguard.definitions import Bundle
from skewguard.errors import DefinitionError, ModelError
from skewguard.model import Model
from skewguard.spine import Spine, ViewRows
from skewguard.transforms import transform
from skewguard.values import NO_TIME, Column, Dtype, Status
from tests.worlds import (
    T0,
    World,
    amount_ratio,
    assert_identical,
    assert_same_bits,
    bundle,
    city_code,
    column,
    derived,
    plain,
    shop,
    spine,
    view,
)


@transform
def doubled(n: int) -> int:
    """Twice as many."""
    return n * 2


@transform
def halved(n: int) -> float:
    """Half as many."""
    return n / 2


def rows(status: Status, **features: Column) -> ViewRows:
    """One answer of a view."""
    times = np.array([T0 if status is Status.PRESENT else NO_TIME])
    return ViewRows(np.array([status], dtype=np.uint8), times, times, times, features)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The shop."""
    return shop(tmp_path, seed=4)


@pytest.fixture
def served(world: World) -> Served:
    """All its asks, answered offline."""
    asks = world.spine
    with world.offline() as offline:
        return answer(world.bundle, asks, offline.answer(asks))


def test_every_feature_is_found_by_its_full_name(world: World, served: Served) -> None:
    """Stored and derived ones, in the order of the bundle's dtypes, each of the declared dtype."""
    features = served.features(world.bundle)
    assert list(features) == list(world.bundle.dtypes)
    for name, feature in features.items():
        assert feature.dtype is world.bundle.dtypes[name]
        assert len(feature) == len(world.spine)
    assert features["buyer__city"] is served.views["buyer"].features["city"]
    assert features["now__city_code"] is served.derived["now__city_code"]


def test_derived_values_are_those_of_their_functions(served: Served) -> None:
    """Row by row what the plain function gives, where every input is there; else as absent as the worst input."""
    amount, score = served.spine.request["amount"], served.views["buyer"].features["score"]
    ratio = served.derived["now__amount_ratio"]
    city = served.views["buyer"].features["city"]
    assert ratio.dtype is Dtype.FLOAT32
    for i in range(len(served.spine)):
        a, s = amount.value(i), score.value(i)
        expected = None if a is None or s is None else float(np.float32(amount_ratio(a, np.float64(s))))
        assert ratio.value(i) == expected
        assert ratio.status[i] == max(amount.status[i], score.status[i])
        text = city.value(i)
        assert served.derived["now__city_code"].value(i) == (None if text is None else sum(map(ord, text)))
    assert ratio.present.any()
    assert not ratio.present.all()


def test_the_vector_holds_the_numeric_outputs_in_order(world: World, served: Served) -> None:
    """float64, NaN exactly where there is no value, bools as 0 and 1; texts and instants stay outside."""
    numeric = [n for n in world.bundle.outputs if world.bundle.dtypes[n] not in (Dtype.STRING, Dtype.TIMESTAMP)]
    assert list(world.bundle.vector) == numeric
    assert served.vector.shape == (len(world.spine), len(numeric))
    assert served.vector.dtype == np.float64
    assert served.vector.flags.c_contiguous
    for i, name in enumerate(numeric):
        values = [np.nan if v is None else float(v) for v in plain(served.feature(world.bundle, name))]
        np.testing.assert_array_equal(served.vector[:, i], values)


def test_the_vector_follows_the_outputs_and_not_the_views(world: World, served: Served) -> None:
    """Another order of outputs is another order of columns; what is no output does not enter."""
    chosen = replace(world.bundle, outputs=("road__toll", "buyer__city", "buyer__spent"))
    matrix = vector(chosen, served)
    names = list(world.bundle.vector)
    assert chosen.vector == ("road__toll", "buyer__spent")
    expected = served.vector[:, [names.index("road__toll"), names.index("buyer__spent")]]
    np.testing.assert_array_equal(matrix, expected)


def test_the_model_is_asked_with_the_vector(world: World, served: Served) -> None:
    """One prediction per ask; without a model none."""
    seen: list[Any] = []

    def predict(matrix: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        seen.append(matrix)
        return np.arange(len(matrix), dtype=np.float64)

    model = Model("digest", "m-1", len(world.bundle.vector), None, predict)
    got = answer(world.bundle, served.spine, served.views, model)
    assert got.prediction is not None
    assert got.prediction.tolist() == list(range(len(world.spine)))
    assert seen[0].tobytes() == served.vector.tobytes()
    assert served.prediction is None
    with pytest.raises(ModelError, match="expected a vector"):
        answer(world.bundle, served.spine, served.views, replace(model, width=2))


# -- declared dtypes --------------------------------------------------------------------------------------------------

V = view("v", "", {}, {"n": Dtype.INT64})


def computed(function: Any, dtype: Dtype, n: int) -> Column:
    """The derived feature of one ask whose `n` is given."""
    made = bundle(V, computed=[derived("out", function, ["v__n"], dtype)])
    return derive(made, spine([T0]), {"v": rows(Status.PRESENT, n=column(Dtype.INT64, [n]))})["now__out"]


def test_a_derived_value_takes_its_declared_dtype() -> None:
    """Int32 of a whole number, Float32 of a float: the one cast, on both sides."""
    assert plain(computed(doubled, Dtype.INT32, 5)) == [10]
    assert computed(doubled, Dtype.INT32, 5).dtype is Dtype.INT32
    assert plain(computed(halved, Dtype.FLOAT32, 1)) == [0.5]
    assert plain(computed(halved, Dtype.INT64, 4)) == [2]


@pytest.mark.parametrize(
    ("function", "dtype", "n", "said"),
    [
        (doubled, Dtype.INT32, 2**30, "2147483648 does not fit int32 without loss"),
        (halved, Dtype.INT64, 3, "1.5 does not fit int64 without loss"),
        (doubled, Dtype.BOOL, 1, "expected bool, got int64"),
    ],
)
def test_a_derived_value_that_does_not_fit_is_an_error(function: Any, dtype: Dtype, n: int, said: str) -> None:
    """Not wrapped around, not cut off: the function, the declared dtype and the value are named."""
    with pytest.raises(DefinitionError) as caught:
        computed(function, dtype, n)
    assert str(caught.value).startswith(f"{function.reference} is declared {dtype}: now__out: {said}")


def test_an_absent_input_makes_an_absent_output_of_any_declared_dtype() -> None:
    """The reason survives the cast."""
    made = bundle(V, computed=[derived("out", doubled, ["v__n"], Dtype.INT32)])
    for status in (Status.NOT_FOUND, Status.EXPIRED, Status.ERROR):
        absent = rows(status, n=Column.absent(Dtype.INT64, 1, status))
        assert derive(made, spine([T0]), {"v": absent})["now__out"].status.tolist() == [status]


# -- the flat form ----------------------------------------------------------------------------------------------------


def assert_same(made: Bundle, one: Served, other: Served) -> None:
    """Two answers are the same, bit for bit."""
    assert one.spine.ids.tolist() == other.spine.ids.tolist()
    assert one.spine.as_of.tolist() == other.spine.as_of.tolist()
    for mine, others in ((one.spine.keys, other.spine.keys), (one.spine.request, other.spine.request)):
        assert list(mine) == list(others)
        for name in mine:
            assert_same_bits(mine[name], others[name])
    for name, answered in one.views.items():
        assert_identical(answered, other.views[name])
        assert answered.watermark.tolist() == other.views[name].watermark.tolist()
    for name in made.dtypes:
        assert_same_bits(one.feature(made, name), other.feature(made, name))
    assert one.vector.tobytes() == other.vector.tobytes()
    predictions = [None if p is None else p.tolist() for p in (one.prediction, other.prediction)]
    assert predictions[0] == predictions[1]


def flat(made: Bundle, served: Served) -> pa.Table:
    """The flat form as a table."""
    batch = to_batch(made, served, schema(made))
    batch.validate(full=True)
    return pa.table(batch)


@pytest.mark.parametrize("take", [slice(None), slice(0, 1), slice(0, 0)])
@pytest.mark.parametrize("predicted", [True, False])
def test_the_flat_form_loses_nothing(world: World, served: Served, take: slice, predicted: bool) -> None:
    """All asks, one and none of them; with predictions and without."""
    part = _take(served, np.arange(len(served.spine))[take])
    if predicted and len(part.spine):
        part = replace(part, prediction=np.linspace(0, 1, len(part.spine)))
    table = flat(world.bundle, part)
    assert table.schema.equals(schema(world.bundle))
    assert_same(world.bundle, part, from_table(world.bundle, table))


def test_the_flat_form_may_come_in_pieces(world: World, served: Served) -> None:
    """Chunks and slices do not show."""
    table = flat(world.bundle, served)
    pieces = pa.concat_tables([table.slice(0, 7), table.slice(7, 30), table.slice(37)])
    assert_same(world.bundle, served, from_table(world.bundle, pieces))
    assert_same(world.bundle, _take(served, np.arange(5, 9)), from_table(world.bundle, table.slice(5, 4)))


def _take(served: Served, at: np.ndarray[Any, Any]) -> Served:
    return Served(
        served.spine.take(at),
        {name: answered.take(at) for name, answered in served.views.items()},
        {name: feature.take(at) for name, feature in served.derived.items()},
        served.vector[at],
    )


def test_the_flat_form_keeps_every_status() -> None:
    """Why a value is absent is logged beside its null, for rows and features apart."""
    made = bundle(V)
    n = len(Status)
    status = np.array(list(Status), dtype=np.uint8)
    feature = Column.build(Dtype.INT64, np.arange(n), status)
    times = np.where(status <= Status.EXPIRED, T0, NO_TIME)
    answers: Mapping[str, ViewRows] = {"v": ViewRows(status, times, times, np.full(n, T0), {"n": feature})}
    asks: Spine = spine([T0] * n)
    read = from_table(made, flat(made, answer(made, asks, answers)))
    assert read.views["v"].status.tolist() == status.tolist()
    assert read.views["v"].features["n"].status.tolist() == status.tolist()
    assert plain(read.views["v"].features["n"]) == plain(feature)


def test_the_flat_form_names_its_columns(world: World) -> None:
    """As the documentation says: ask, keys, request, views with their times, features, statuses, vector, prediction."""
    names = schema(world.bundle).names
    assert names[:6] == ["id", "event_timestamp", "e__buyer_id", "e__dst", "e__origin", "q__amount"]
    assert names[6:10] == ["buyer__status", "buyer__event_ts", "buyer__created_ts", "buyer__watermark"]
    assert names[18:] == [*world.bundle.dtypes, "statuses", "vector", "prediction"]
    assert schema(world.bundle).field("vector").type.list_size == len(world.bundle.vector)


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (bundle(view("v", "", {}, {"status": Dtype.STRING})), "v__status"),
        (bundle(view("v", "", {}, {"watermark": Dtype.TIMESTAMP})), "v__watermark"),
        (bundle(view("e", "", {"k": Dtype.INT64}, {"k": Dtype.INT64})), "e__k"),
        (bundle(view("q", "", {}, {"n": Dtype.INT64}), request={"n": Dtype.INT64}), "q__n"),
        (
            bundle(view("v", "", {}, {"a__b": Dtype.INT64}), view("v__a", "", {}, {"b": Dtype.INT64})),
            "v__a__b",
        ),
    ],
)
def test_two_columns_of_one_name_are_refused(made: Bundle, name: str) -> None:
    """A feature called as a view's own column, or as another view's feature, is an error and not a mixed up log."""
    with pytest.raises(DefinitionError, match=f"two columns of its log would be called {name}. Rename the feature"):
        schema(made)


def test_a_transform_that_changed_is_refused() -> None:
    """The code here must be the code that the bundle was compiled from."""
    made = bundle(V, computed=[replace(derived("out", doubled, ["v__n"]), fingerprint="0" * 32)])
    answers = {"v": rows(Status.PRESENT, n=column(Dtype.INT64, [1]))}
    with pytest.raises(DefinitionError, match=r"now__out: the bundle was compiled from tests\.test_answer:doubled"):
        answer(made, spine([T0]), answers)


def test_a_text_feeds_a_transform() -> None:
    """A request field of text reaches its function as it is."""
    made = bundle(V, request={"city": Dtype.STRING}, computed=[derived("code", city_code, ["city"])])
    asks = spine([T0, T0], request={"city": column(Dtype.STRING, ["ab", None])})
    times = np.full(2, NO_TIME)
    features = {"n": Column.absent(Dtype.INT64, 2, Status.NOT_FOUND)}
    absent = ViewRows(np.full(2, Status.NOT_FOUND, dtype=np.uint8), times, times, times, features)
    assert plain(derive(made, asks, {"v": absent})["now__code"]) == [195, None]
