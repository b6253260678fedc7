"""The proof of row independence, and what is said to who breaks it."""

import time
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from skewguard.transforms import Transform, fingerprint, prove, rowmap, run_all, transform
from skewguard.transforms.checks import Checked, check
from skewguard.transforms.objection import Ground
from skewguard.transforms.pool import batch, columns, pools
from skewguard.values import Column
from tests.corpus_transforms import bad, good, held_out, held_out_2, held_out_3, held_out_4


def transforms_of(module: Any, prefix: str = "") -> list[Transform]:
    """The transforms that a corpus defines."""
    found = [value for value in vars(module).values() if isinstance(value, Transform)]
    return [one for one in found if one.function.__module__ == module.__name__ and one.name.startswith(prefix)]


HELD_OUT = (held_out, held_out_2, held_out_3, held_out_4)
BAD = [*transforms_of(bad), *(one for module in HELD_OUT for one in transforms_of(module, "bad"))]
GOOD = [*transforms_of(good), *(one for module in HELD_OUT for one in transforms_of(module, "good"))]


@pytest.fixture(scope="module")
def judged() -> dict[str, Checked]:
    """Every transform of the corpus with what its checks found, other processes included."""
    return {one.transform.reference: one for one in check([*BAD, *GOOD])}


@pytest.mark.parametrize("one", BAD, ids=lambda one: one.name)
def test_a_bad_transform_is_refused(judged: dict[str, Checked], one: Transform) -> None:
    """Whatever looks at other rows, at the clock, at chance, at the machine, or fails for some value is refused."""
    assert not judged[one.reference].proven


@pytest.mark.parametrize("one", GOOD, ids=lambda one: one.name)
def test_a_good_transform_is_proven(judged: dict[str, Checked], one: Transform) -> None:
    """What is elementwise, or maps a pure function over rows, is accepted as it is written."""
    assert judged[one.reference].explained() == ""
    assert len(judged[one.reference].graph) == 32
    assert len(judged[one.reference].golden) == 32


@pytest.mark.parametrize("one", GOOD, ids=lambda one: one.name)
def test_what_is_proven_holds(one: Transform) -> None:
    """Any row of a batch has the bits that it has alone."""
    inputs = columns(one, batch(pools(one), 120))
    together = run_all([(one, inputs)])[0]
    alone = [run_all([(one, [column.take(np.array([i])) for column in inputs])])[0] for i in range(120)]
    assert together.content() == Column.concat(alone).content()


@pytest.mark.parametrize(
    ("name", "what", "instead", "line"),
    [
        ("centred", ".mean is not an operation on single rows", "fitted value", "return x - x.mean()"),
        ("only_large_batches", "how many rows the batch has", "fitted value", "if len(x) > 500:"),
        ("truth_of_column", "the truth of a whole column", "np.where(condition, a, b)", "return x if x > 0 else -x"),
        ("chained", "the truth of a whole column", "(0 < x) & (x < 1)", "return 0 < x < 10"),
        ("loop_with_memory", "goes through the rows", "rowmap(function, column", "for value in x:"),
        ("reversed_values", "picks rows out of the column", "window", "return x[::-1]"),
        ("written_out", "np.add(..., out=...) writes into an array", "assign the result", "np.add(x, 1.0, out=y)"),
        ("in_place", "changes a column in place", "total = total + x", "x += 1.0"),
        ("matrix_product", "np.stack reads several rows", "a + b + c", "np.stack([a, b], axis=1)"),
        ("share_by_reduce", "np.add.reduce reads several rows", "a + b + c", "x / np.add.reduce(x)"),
        ("large_by_shape", ".shape is not an operation", "fitted value", "x.shape[0] > 1"),
        ("half_precision", "makes float16 values", "float64", "astype(np.float16)"),
        ("text_width", "depends on the longest value of the batch", "rowmap(str, column, out=str)", "astype(str)"),
        ("by_type", "asks for the type of a column", "annotated dtype", "isinstance(x, np.ndarray)"),
        ("a_pair", "returns tuple, not a column", "one column", ""),
    ],
)
def test_a_refusal_names_the_line_and_the_way_to_write_it(
    judged: dict[str, Checked], name: str, what: str, instead: str, line: str
) -> None:
    """What was tried, the line of the user's own code, and what to write there instead."""
    first = judged[f"tests.corpus_transforms.bad:{name}"].objections[0]
    assert what in first.what
    assert instead in first.instead
    if line:
        assert first.place is not None
        assert first.place.file.endswith("bad.py")
        assert line in first.place.text


def test_a_refusal_in_a_helper_names_the_helpers_line(judged: dict[str, Checked]) -> None:
    """The line is where the column was misused, in whichever module that is."""
    first = judged["tests.corpus_transforms.bad:helper_in_another_module"].objections[0]
    assert first.place is not None
    assert first.place.file.endswith("shared.py")
    assert first.place.text == "return _minus(x, x.mean())"


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("centred", "x=[0.0, 1.0] give [-0.5, 0.5] together, [0.0, 0.0] one by one"),
        ("rare_value", "x=[0.0, 777.125] give [1.0, 778.125] together, [0.0, 778.125] one by one"),
        ("only_large_batches", "x=[0.0] gives -1.0 there"),
        ("raises_on_empty", "word=['']"),
        ("raises_on_zero", "x=[0.0]"),
        ("raises_on_constant", "x=[4321.5]"),
        ("other_type_for_some", "x=[100.0]"),
    ],
)
def test_the_smallest_example_is_shown(judged: dict[str, Checked], name: str, example: str) -> None:
    """A counterexample is shrunk to as few rows and as plain values as show it."""
    assert example in judged[f"tests.corpus_transforms.bad:{name}"].explained()


@pytest.mark.parametrize(
    ("scalar", "example"),
    [
        (lambda v: 1 / (v < 137), "n=[137]"),
        (lambda v: 1 / (v > -1_000_000), "n=[-1000000]"),
        (lambda v: 1 / (v.replace("a", "b").count("q") == 0), "n=['q']"),
        (lambda v: 1 / (v < 2345.0), "n=[2345.0]"),
        (lambda v: 1 / (v.year < 2013), "n=[2013-07-04T03:30:00+00:00]"),
    ],
    ids=["int", "negative", "text", "float", "instant"],
)
def test_a_counterexample_is_made_plainer_than_the_values_that_were_tried(scalar: Any, example: str) -> None:
    """The shrinking is our own: no package of the tests is asked for it."""
    kinds = {"n=['q']": str, "n=[2345.0]": float, "n=[2013-07-04T03:30:00+00:00]": datetime}
    kind = kinds.get(example, int)

    def mapped(n: Any) -> Any:
        return rowmap(scalar, n, out=float)

    mapped.__annotations__ = {"n": kind, "return": float}
    (checked,) = check([transform(mapped)], processes=False)
    assert f"for example: {example}" in checked.explained()


def test_what_the_body_catches_still_counts(judged: dict[str, Checked]) -> None:
    """No `except:` in a transform hides from the proof what it caught."""
    for name in ("caught", "suppressed"):
        assert judged[f"tests.corpus_transforms.bad:{name}"].objections[0].ground is Ground.ROWS


def test_the_graph_does_not_care_how_it_is_written() -> None:
    """Names, helpers and order of statements leave the graph as it is; a constant's last bit does not."""

    @transform
    def one(miles: float) -> float:
        return miles * 1.609344 + 1.0

    @transform
    def other(distance: float) -> float:
        def kilometres(x: float) -> float:
            return x * (1.609344)

        scaled = kilometres(distance)
        return scaled + 1.0

    @transform
    def third(miles: float) -> float:
        return miles * 1.6093440000000001 + 1.0000000000000002

    assert prove(one).graph == prove(other).graph != ""
    assert prove(one).graph != prove(third).graph
    assert fingerprint(one) != fingerprint(other)


def test_the_graph_holds_the_mapped_function() -> None:
    """A constant in a helper of the function that is mapped over rows changes the graph."""
    assert prove(bad.cached).graph == ""
    graphs = {prove(one).graph for one in (good.cleaned, good.bucket, good.words, good.by_rank, good.distinct)}
    assert len(graphs) == 5


def test_a_row_map_says_what_it_returns() -> None:
    """The dtype comes from the annotation or from `out`, never from the first row's value."""

    def half(value: float) -> float:
        return value / 2 if value % 2 else int(value) // 2

    assert rowmap(half, np.array([2.0])).dtype == np.float64
    assert rowmap(half, np.array([2.0, 3.0])).tolist() == [1.0, 1.5]
    assert rowmap(lambda v: v > 1, np.array([2.0]), out=bool).dtype == np.bool_


def test_repeated_texts_are_computed_once() -> None:
    """A row map calls its function once per distinct text where texts repeat, and the result is the same."""
    calls: list[str] = []

    def shout(text: str) -> str:
        calls.append(text)
        return text.upper()

    words = np.array(["a", "b"] * 500, dtype=object)
    assert rowmap(shout, words).tolist() == ["A", "B"] * 500
    assert calls == ["a", "b"]


def test_a_date_in_an_unknown_order_of_rows_is_still_proven() -> None:
    """Instants travel as they are: arithmetic on them is elementwise."""

    @transform
    def hours(a: datetime, b: datetime) -> float:
        return (b - a) / np.timedelta64(1, "h")

    assert prove(hours).objections == ()


def test_a_loop_that_does_not_end_is_refused(judged: dict[str, Checked]) -> None:
    """A transform that never returns is an objection, and the checks come to an end."""
    explained = judged["tests.corpus_transforms.held_out:bad_while"].explained()
    assert "np.max reads several rows" in explained


def test_a_proof_takes_milliseconds() -> None:
    """Proving all good transforms takes a few milliseconds each, so that it can be part of every apply."""
    started = time.perf_counter()
    for one in GOOD:
        prove(one)
    assert (time.perf_counter() - started) / len(GOOD) < 0.1
