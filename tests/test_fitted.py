"""Fitted values: declared as arguments, learned from a snapshot's rows, and the same wherever the bundle goes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewguard.answer import answer
from skewguard.contract import Contract
from skewguard.definitions import Fitted, load_bundle
from skewguard.definitions.fitting import fit, fit_inputs
from skewguard.definitions.model_input import model_inputs
from skewguard.errors import AskError, DefinitionError, ModelError, SnapshotError
from skewguard.model import Model
from skewguard.snapshot import Snapshot, build_snapshot, load_snapshot, verify_snapshot
from skewguard.testing import check_transform
from skewguard.transforms import fitted, prove, run, transform
from skewguard.transforms.learned import decode, encode, learn
from skewguard.values import Column, Dtype, Status
from tests.worlds import (
    HOUR,
    T0,
    World,
    beyond_usual,
    column,
    derived,
    greeting,
    hour_share,
    plain,
    score_band,
    shop,
    spent_per_visit,
    view,
    with_model_inputs,
)

NAMES = ("model_input__beyond_usual", "model_input__score_band", "model_input__hour_share")
HALF_WAY = datetime.fromtimestamp((T0 + HOUR) / 1e6, UTC)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The shop with three model inputs."""
    return with_model_inputs(shop(tmp_path_factory.mktemp("shop"), seed=4))


@pytest.fixture(scope="module")
def snapshot(world: World, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """All its asks, fitted on those of the first hour."""
    return built(world, tmp_path_factory.mktemp("snapshot") / "s", fit_before=HALF_WAY)


def built(world: World, out: Path, **more: Any) -> Snapshot:
    """A snapshot of all asks."""
    return build_snapshot(world.bundle, world.asks, out, id_column="ask_id", **more)


# -- declaring --------------------------------------------------------------------------------------------------------


def test_a_fitted_argument_is_no_column() -> None:
    """It stands after the columns, names its fit, and the plain function takes it like any other argument."""
    assert beyond_usual.inputs == (("city", Dtype.STRING), ("spent", Dtype.FLOAT64))
    ((name, made),) = beyond_usual.fits
    assert (name, made.reference) == ("usual", "tests.worlds:usual_spending")
    assert made.inputs == beyond_usual.inputs
    assert beyond_usual(np.array(["a"], dtype=object), np.array([3.0]), {"a": 1.0}).tolist() == [2.0]
    bound = beyond_usual.bind({"usual": {"a": 1.0}})
    assert (bound.reference, bound.name) == (beyond_usual.reference, "beyond_usual")
    inputs = {"city": column(Dtype.STRING, ["a", "b"]), "spent": column(Dtype.FLOAT64, [3.0, 3.0])}
    assert plain(run(bound, inputs)) == [2.0, None]


def test_a_fitted_argument_without_a_value_is_refused() -> None:
    """By name, before anything runs."""
    with pytest.raises(DefinitionError, match="beyond_usual: usual is not fitted"):
        beyond_usual.bind({})


def mean(spent: float) -> float:
    """Fitted."""
    return float(np.mean(spent))


def broken(spent: float) -> float:
    """Fitted, or rather not."""
    raise ValueError(f"no such thing, of {np.size(spent)}")


def test_wrong_declarations_of_fits_are_refused() -> None:
    """A fitted argument before a column, a fit that reads what is no column, or something fitted itself."""

    def before(usual: Annotated[float, fitted(mean)], spent: float) -> float:
        return spent - usual

    def nested(spent: float, usual: Annotated[float, fitted(mean)]) -> float:
        return spent - usual

    def odd(spent: list[float]) -> float:
        return spent[0]

    with pytest.raises(DefinitionError, match="before: fitted arguments stand after the columns, got usual, spent"):
        transform(before)
    with pytest.raises(DefinitionError, match="nested: usual is fitted: a fit reads columns alone"):
        fitted(nested)
    with pytest.raises(DefinitionError, match="odd: spent must be annotated float"):
        fitted(odd)


def test_a_transform_is_proven_before_there_is_a_value_and_with_every_value() -> None:
    """With what its fits make of plain rows; the graph holds the value, so that another value is another graph."""
    checked = check_transform(beyond_usual, score_band, hour_share)
    assert all(one.proven and one.graph for one in checked)
    graphs = {prove(beyond_usual.bind({"usual": {"a": value}})).graph for value in (1.0, 1.0, math.nextafter(1.0, 2))}
    assert len(graphs) == 2
    assert prove(score_band.bind({"edges": np.zeros(3)})).graph != prove(score_band.bind({"edges": np.ones(3)})).graph


def test_a_fit_that_raises_is_an_objection_to_the_transform() -> None:
    """Whoever checks it hears what the fit said of plain rows."""

    @transform
    def feature(spent: float, usual: Annotated[float, fitted(broken)]) -> float:
        return spent - usual

    with pytest.raises(AssertionError, match=r"broken raised ValueError on 80 rows: no such thing, of 80"):
        check_transform(feature)


# -- values -----------------------------------------------------------------------------------------------------------

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1)
scalars = numbers | st.text(max_size=5) | st.booleans()
tables = st.dictionaries(st.text(max_size=3), scalars) | st.dictionaries(st.integers(-(2**53), 2**53), scalars)


@given(scalars | tables)
def test_a_value_comes_back_from_json_as_it_was(value: Any) -> None:
    """Bit for bit and type by type, whatever JSON knows of either."""
    back = decode(json.loads(json.dumps(encode(value, "f"), allow_nan=False)))
    assert (
        repr(dict(sorted(back.items()))) == repr(dict(sorted(value.items())))
        if isinstance(value, dict)
        else (repr(back) == repr(value))
    )


@given(st.lists(numbers, max_size=5), st.sampled_from(["float64", "int64", "bool"]))
def test_an_array_comes_back_from_json_as_it_was(values: list[Any], dtype: str) -> None:
    """Values and dtype, also of none; nobody writes into it."""
    array = np.array([value if dtype == "float64" else int(value) % 2**62 for value in values], dtype=dtype)
    back = decode(json.loads(json.dumps(encode(array, "f"), allow_nan=False)))
    assert (back.dtype, back.tobytes()) == (array.dtype, array.tobytes())
    assert not back.flags.writeable


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, "gives nan. Leave it out, or give what stands for it: a fitted value is finite"),
        ({"a": math.inf}, "gives inf. Leave it out"),
        (np.array([1.0, math.nan]), "gives nan. Leave it out, or give what stands for it: a fitted value is finite"),
        (None, "gives NoneType. A fitted value is a number, a text, a dict"),
        ([1.0], "gives list. A fitted value is"),
        ({"a": [1.0]}, "gives list. A fitted value is"),
        ({1: 1.0, "a": 2.0}, "gives a table by int, str"),
        ({1.5: 1.0}, "gives a table by float"),
        (np.zeros((2, 2)), r"gives an array float64 \(2, 2\)"),
        (np.array(["a"]), "gives an array <U1"),
        (np.zeros(2, dtype=np.float32), "gives an array float32"),
    ],
)
def test_a_value_that_cannot_be_kept_exactly_is_refused(value: Any, said: str) -> None:
    """With who gave it, and what is possible."""
    with pytest.raises(DefinitionError, match=f"who {said}"):
        encode(value, "who")


def test_a_fit_sees_the_rows_in_which_all_it_reads_has_a_value() -> None:
    """Of the declared dtype, read-only; numpy's own numbers become plain ones."""
    seen: list[Any] = []

    def spy(city: str, spent: float) -> Any:
        seen.extend([city, spent])
        return np.float32(0.1)

    columns = [column(Dtype.STRING, ["a", None, "c"]), column(Dtype.FLOAT32, [0.1, 2.0, None])]
    assert learn(fitted(spy), columns, "f") == float(np.float32(0.1))
    assert [array.tolist() for array in seen] == [["a"], [float(np.float32(0.1))]]
    assert seen[1].dtype == np.float64
    assert not any(array.flags.writeable for array in seen)


# -- a bundle ---------------------------------------------------------------------------------------------------------


def test_the_vector_ends_with_the_model_inputs(world: World) -> None:
    """After the service's own numbers, in the order in which they were named; the outputs are Feast's as before."""
    assert world.bundle.vector[-3:] == NAMES
    assert not set(NAMES) & set(world.bundle.outputs)
    assert world.bundle.raw.vector == world.bundle.vector[:-3]
    assert [one.inputs for one in world.bundle.derived if one.is_model_input] == [
        ("buyer__city", "buyer__spent"), ("buyer__score",), ("now__seen_hour",),
    ]  # fmt: skip


def test_an_unfitted_bundle_answers_nothing(world: World) -> None:
    """Not a server, not a batch: it says what is missing and where the values are."""
    assert world.bundle.unfitted == NAMES
    with pytest.raises(DefinitionError, match=r"model_input__beyond_usual, .*: not fitted yet. Build a snapshot"):
        _ = world.bundle.transforms
    with world.offline() as offline, pytest.raises(DefinitionError, match="not fitted yet"):
        answer(world.bundle, world.spine, offline.answer(world.spine))


def test_a_model_input_reads_what_it_names_and_no_other(world: World) -> None:
    """A name that several features have, or none, a dtype that does not fit, two of one name, a view of their name."""
    made = world.bundle.raw
    views = (
        *made.views,
        view("again", "", {}, {"spent": Dtype.FLOAT64}),
        view("model_input", "", {}, {"n": Dtype.INT64}),
    )
    complaints: list[str] = []
    references = [one.reference for one in (beyond_usual, hour_share, spent_per_visit, hour_share)] + [
        "tests.worlds:no"
    ]
    model_inputs(references, views, made.request, [derived("seen_hour", greeting, [])], Contract(), complaints)
    said = "\n".join(complaints)
    assert "feature view model_input: the name is that of the service's own model inputs; rename the view" in said
    assert "beyond_usual: parameter 'spent' is several: again__spent, buyer__spent; use the full name" in said
    assert "usual_spending: parameter 'spent' is several" in said
    assert "hour_share: parameter 'seen_hour' is annotated float64, now__seen_hour is declared string" in said
    assert "hour_share: there are two model inputs of this name" in said
    assert "model input tests.worlds:no" in said


def test_fitting_complains_of_everything_at_once(world: World) -> None:
    """A value that is not finite, and a transform whose arguments are others by now."""
    wrong = [replace(one, fitted=(Fitted("other", "m:f", ()),)) if one.name == "score_band" else one
             for one in world.bundle.derived]  # fmt: skip
    columns = {name: Column.absent(world.bundle.raw.dtypes[name], 2, Status.NULL) for name in fit_inputs(world.bundle)}
    columns["buyer__city"] = column(Dtype.STRING, ["a", "a"])
    columns["buyer__spent"] = column(Dtype.FLOAT64, [math.inf, -math.inf])
    with pytest.raises(DefinitionError) as caught:
        fit(replace(world.bundle, derived=tuple(wrong)), columns)
    assert len(caught.value.complaints) == 2
    assert "model_input__beyond_usual: tests.worlds:usual_spending gives nan" in caught.value.complaints[0]
    assert "score_band has other fitted arguments now; compile the bundle again" in caught.value.complaints[1]


# -- a snapshot -------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_fitted_on_its_own_rows_before_an_instant(world: World, snapshot: Snapshot) -> None:
    """The values are those of plain functions over the raw rows of earlier asks; manifest and bundle hold them."""
    with world.offline() as offline:
        early = world.spine.take(world.spine.as_of < T0 + HOUR)
        raw = answer(world.bundle.raw, early, offline.answer(early))
    features = raw.features(world.bundle.raw)
    city, spent, score, hour = (
        plain(features[name]) for name in ("buyer__city", "buyer__spent", "buyer__score", "now__seen_hour")
    )
    known = [(c, s) for c, s in zip(city, spent, strict=True) if c is not None and s is not None]
    expected = {c: float(np.mean([s for other, s in known if other == c])) for c, _ in known}
    values = snapshot.bundle.fitted_values
    assert dict(values[NAMES[0]]["usual"]["table"]) == expected
    edges = np.quantile([s for s in score if s is not None], [0.25, 0.5, 0.75]).tolist()
    assert values[NAMES[1]]["edges"] == {"array": edges, "dtype": "float64"}
    assert values[NAMES[2]]["latest"] == max([1.0, *[one for one in hour if one is not None]])
    assert snapshot.manifest.fitted == values
    assert load_snapshot(snapshot.path).bundle == snapshot.bundle
    assert load_bundle(snapshot.path / "bundle.json").digest == snapshot.bundle.digest != world.bundle.digest


def test_model_inputs_follow_from_the_rows_before_them(world: World, snapshot: Snapshot) -> None:
    """Row by row what the plain function gives with the fitted value; as absent as the least present input."""
    (served,) = snapshot.served()
    usual = dict(snapshot.bundle.fitted_values[NAMES[0]]["usual"]["table"])
    features = served.features(snapshot.bundle)
    city, spent = features["buyer__city"], features["buyer__spent"]
    got = features[NAMES[0]]
    for row in range(len(world.asks)):
        c, s = city.value(row), spent.value(row)
        expected = None if c is None or s is None or c not in usual else s - usual[c]
        assert got.value(row) == expected
        least = max(city.status[row], spent.status[row])
        assert got.status[row] == (Status.NULL if expected is None and least <= Status.DEFAULTED else least)
    at = snapshot.bundle.vector.index(NAMES[0])
    np.testing.assert_array_equal(served.vector[:, at], [math.nan if v is None else v for v in plain(got)])


def test_the_same_rows_give_the_same_snapshot_and_another_value_another(
    world: World, snapshot: Snapshot, tmp_path: Path
) -> None:
    """Id and digest are those of the values; who fits on other rows has another snapshot of the same asks."""
    again = built(world, tmp_path / "again", fit_before=HALF_WAY)
    whole = built(world, tmp_path / "whole")
    assert (again.id, again.bundle.digest) == (snapshot.id, snapshot.bundle.digest)
    assert whole.bundle.fitted_digest != snapshot.bundle.fitted_digest
    assert whole.id != snapshot.id
    assert whole.bundle.digest != snapshot.bundle.digest


def test_a_fitted_bundle_keeps_its_values(world: World, snapshot: Snapshot, tmp_path: Path) -> None:
    """A later snapshot under the first one's bundle is not fitted again: that is how a model is judged on new rows."""
    later = build_snapshot(snapshot.bundle, world.asks.slice(60), tmp_path / "later", id_column="ask_id")
    assert later.bundle == snapshot.bundle
    assert verify_snapshot(later, full=True).same


def test_nothing_to_fit_on_is_an_error_and_leaves_nothing(world: World, tmp_path: Path) -> None:
    """Before the first ask, and before an instant that nobody can place."""
    with pytest.raises(AskError, match="cannot be fitted on 120 asks, none of which is before 1970"):
        built(world, tmp_path / "s", fit_before=datetime(1970, 1, 1, tzinfo=UTC))
    with pytest.raises(AskError, match="fit_before: expected an instant with a time zone"):
        built(world, tmp_path / "s", fit_before=datetime(2023, 11, 14))  # noqa: DTZ001  (that is the point)
    assert not list(tmp_path.iterdir())


def test_a_snapshot_of_the_format_before_says_so(snapshot: Snapshot, tmp_path: Path) -> None:
    """What knew nothing of fitted values is to be built again."""
    for name, error, said in (
        ("manifest.json", SnapshotError, "expected snapshot format 2, got 1. Build it again"),
        ("bundle.json", DefinitionError, "expected format 3, got 2. Compile it again"),
    ):
        content = json.loads((snapshot.path / name).read_text())
        file = tmp_path / name
        file.write_text(json.dumps(content | {"format": content["format"] - 1}))
        with pytest.raises(error, match=said):
            load_snapshot(tmp_path) if name == "manifest.json" else load_bundle(file)


# -- a model ----------------------------------------------------------------------------------------------------------


def test_a_model_refuses_other_fitted_values(snapshot: Snapshot) -> None:
    """Those that it was trained with, or an error that names the snapshot; one that recorded none cannot tell."""
    names = snapshot.bundle.vector
    model = Model("d", "m-1", len(names), names, lambda x: x[:, 0], "s" * 64, "b" * 64, snapshot.bundle.fitted_digest)
    model.check(names, snapshot.bundle.fitted_digest)
    replace(model, fitted_digest="").check(names, "f" * 64)
    with pytest.raises(
        ModelError, match=r"m-1: it was trained with the fitted values .* bundle.json .* \(ssssssssssss\)"
    ):
        model.check(names, "f" * 64)
