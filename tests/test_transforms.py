"""Transforms: one runner whose rules hold whatever the body does, and a fingerprint of all that a body rests on."""

import importlib.util
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewguard.errors import DefinitionError
from skewguard.transforms import Transform, fingerprint, load, numeric_class, prove, rowmap, run, transform
from skewguard.values import Column, Dtype, Status
from tests.worlds import T0, assert_same_bits, column, greeting, plain, spent_per_visit


def returning(values: Any, output: type = float) -> Transform:
    """A transform of one column that returns the same thing whatever it gets."""

    def made(_: float) -> float:
        return values  # type: ignore[no-any-return]

    made.__annotations__ = {"_": float, "return": output}
    return transform(made)


def floats(*values: float | None) -> Column:
    """A float64 column."""
    return column(Dtype.FLOAT64, values)


# -- declaring --------------------------------------------------------------------------------------------------------


def test_a_transform_is_named_for_its_value() -> None:
    """Name, input columns and output come from the function's own signature, which stays callable."""
    assert spent_per_visit.name == "spent_per_visit"
    assert spent_per_visit.inputs == (("spent", Dtype.FLOAT64), ("visits", Dtype.INT64))
    assert spent_per_visit.output is Dtype.FLOAT64
    assert spent_per_visit.reference == "tests.worlds:spent_per_visit"
    assert spent_per_visit(8.0, 2) == 5.0
    assert load(spent_per_visit.reference) is spent_per_visit


def test_every_annotation_is_asked_for_at_once() -> None:
    """A parameter or a result without one of the five types is refused, each by name."""

    def odd(a: float, b, c: list[float]) -> complex:  # type: ignore[no-untyped-def]
        return a, b, c  # type: ignore[return-value]

    with pytest.raises(DefinitionError) as caught:
        transform(odd)
    assert len(caught.value.complaints) == 3
    assert "odd: b must be annotated float, int, bool, str or datetime, got nothing" in caught.value.complaints[0]
    assert "c must be annotated float, int, bool, str or datetime, got list[float]" in caught.value.complaints[1]
    assert "return must be annotated" in caught.value.complaints[2]


def test_a_parameter_is_one_column() -> None:
    """No columns at all, a star and a keyword-only parameter are refused where they are declared."""

    def none() -> float:
        return 1.0

    def star(*columns: float) -> float:
        return columns[0]

    def keyword(a: float, *, b: float) -> float:
        return a + b

    with pytest.raises(DefinitionError, match="needs at least one input column"):
        transform(none)
    with pytest.raises(DefinitionError, match="columns must be a plain parameter"):
        transform(star)
    with pytest.raises(DefinitionError, match="b must be a plain parameter"):
        transform(keyword)


def test_an_annotation_that_means_nothing_is_refused() -> None:
    """A name that does not exist is a definition's error and no crash."""

    def wrong(a: "Nothing") -> float:  # type: ignore[name-defined]  # noqa: F821
        return a  # type: ignore[no-any-return]

    with pytest.raises(DefinitionError, match="wrong: an annotation cannot be read: name 'Nothing'"):
        transform(wrong)


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("no.such.module:f", "No module named 'no'"),
        ("tests.worlds:nothing", "no attribute 'nothing'"),
        ("tests.worlds", "expected module:function"),
        ("", "expected module:function"),
        ("tests.worlds:shop", "expected a function decorated with @transform"),
    ],
)
def test_a_reference_leads_to_a_transform_or_an_error(reference: str, reason: str) -> None:
    """What is not `module:function` of a transform is refused with what it is."""
    with pytest.raises(DefinitionError, match=reason):
        load(reference)


# -- running ----------------------------------------------------------------------------------------------------------


def test_nulls_never_reach_the_body() -> None:
    """The body sees the rows in which every input is present, contiguous and of the declared dtype."""
    seen: list[tuple[Any, ...]] = []

    @transform
    def spy(a: float, b: int, c: str) -> float:
        seen.append((a, b, c))
        return a

    inputs = {
        "a": floats(1.0, None, 3.0, 4.0),
        "b": column(Dtype.INT64, [1, 2, 2**53 + 1, None]),
        "c": column(Dtype.STRING, ["x", "y", "z", "w"]),
    }
    assert plain(run(spy, inputs)) == [1.0, None, 3.0, None]
    (arrays,) = seen
    assert [array.tolist() for array in arrays] == [[1.0, 3.0], [1, 2**53 + 1], ["x", "z"]]
    assert [array.dtype for array in arrays] == [np.float64, np.int64, object]
    assert all(array.flags.c_contiguous for array in arrays)


def test_a_body_without_a_row_is_not_called() -> None:
    """No rows, or none that is present, and the body is left alone."""
    never = returning(None)
    assert len(run(never, {"_": floats()})) == 0
    assert run(never, {"_": floats(None, None)}).status.tolist() == [Status.NULL, Status.NULL]


@given(st.lists(st.tuples(*[st.sampled_from(list(Status))] * 2), min_size=1, max_size=8))
def test_a_derived_value_is_as_present_as_its_least_present_input(statuses: list[tuple[Status, Status]]) -> None:
    """Of two inputs the greater status is the result's, and only what is present has a value."""

    @transform
    def total(a: float, b: float) -> float:
        return a + b

    ones = np.ones(len(statuses))
    a, b = (Column.build(Dtype.FLOAT64, ones, np.array([pair[i] for pair in statuses], dtype=np.uint8)) for i in (0, 1))
    got = run(total, {"a": a, "b": b})
    assert got.status.tolist() == [max(pair) for pair in statuses]
    assert plain(got) == [2.0 if max(pair).has_value else None for pair in statuses]


def test_a_result_that_is_no_number_is_null() -> None:
    """0/0 gives null, 1/0 infinity, and no warning."""

    @transform
    def ratio(a: float, b: float) -> float:
        return a / b

    got = run(ratio, {"a": floats(0.0, 1.0, 1.0), "b": floats(0.0, 0.0, 2.0)})
    assert got.status.tolist() == [Status.NULL, Status.PRESENT, Status.PRESENT]
    assert plain(got) == [None, math.inf, 0.5]


@pytest.mark.parametrize(
    ("result", "output", "reason"),
    [
        (np.ones(3), float, r"expected 2 values, one per row, got shape \(3,\)"),
        (1.0, float, r"expected 2 values, one per row, got shape \(\)"),
        (np.ones((2, 1)), float, r"expected 2 values, one per row, got shape \(2, 1\)"),
        (None, float, r"got shape \(\)"),
        ([1.5, 2.5], int, "declared int64, returned float64"),
        ([True, None], bool, "declared bool, returned object"),
        ([1, 2], bool, "declared bool, returned int64"),
        (["a", "b"], float, "declared float64, returned <U1"),
        ([1, 2], str, "declared string, returned int among the values"),
        (np.array(["a", None], dtype=object), str, "declared string, returned NoneType among the values"),
        (np.array([b"a", b"b"]), str, "declared string, returned bytes among the values"),
        ([1, 2], datetime, "returned int64"),
        (np.array([1, 2**63], dtype=np.uint64), int, "declared int64, returned uint64"),
        (np.array([1j, 1j]), float, "returned complex128"),
    ],
)
def test_a_result_of_another_shape_or_type_is_an_error(result: Any, output: type, reason: str) -> None:
    """One value per row, of the declared type, or an error that names the transform."""
    made = returning(result, output)
    with pytest.raises(DefinitionError, match=reason) as caught:
        run(made, {"_": floats(1.0, 2.0)})
    assert str(caught.value).startswith("tests.test_transforms:returning.<locals>.made")


@pytest.mark.parametrize(
    ("result", "output", "expected"),
    [
        ([1, 2], float, [1.0, 2.0]),
        ([True, False], int, [1, 0]),
        (np.array([1, 2], dtype=np.float32), float, [1.0, 2.0]),
        (np.array(["é", "b"]), str, ["é", "b"]),
        (np.array([1, 2], dtype="M8[s]"), datetime, [1_000_000, 2_000_000]),
        (np.array(["NaT", 2], dtype="M8[us]"), datetime, [None, 2]),
    ],
)
def test_a_result_that_widens_exactly_is_taken(result: Any, output: type, expected: list[Any]) -> None:
    """Whole numbers for floats, bools for numbers, coarser instants; no time is null."""
    got = run(returning(result, output), {"_": floats(1.0, 2.0)})
    assert plain(got) == expected
    assert got.values.dtype == got.dtype.numpy


def test_a_body_that_raises_is_an_error_that_names_it() -> None:
    """The exception's own words are kept, and it is the cause."""

    @transform
    def broken(a: float) -> float:
        raise KeyError(f"no such table: {a}")

    with pytest.raises(DefinitionError, match=r"broken raised KeyError: 'no such table: \[1\.\]'") as caught:
        run(broken, {"a": floats(1.0)})
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("values", [(1.0, 2.0), (1.0, None)])
def test_a_body_cannot_write_into_its_inputs(values: tuple[float | None, ...]) -> None:
    """Inputs are read-only, with and without a null among them, and stay what they were."""

    @transform
    def greedy(a: float) -> float:
        a[0] = 7.0  # type: ignore[index]
        return a

    given_column = floats(*values)
    with pytest.raises(DefinitionError, match="greedy raised ValueError: assignment destination is read-only"):
        run(greedy, {"a": given_column})
    assert plain(given_column) == list(values)


def test_an_input_of_a_narrower_type_is_widened_exactly() -> None:
    """float32 feeds a float, int32 an int or a float; anything else is refused with both types."""

    @transform
    def same_float(a: float) -> float:
        return a

    @transform
    def same_int(a: int) -> int:
        return a

    narrow = column(Dtype.FLOAT32, [0.1, None])
    assert plain(run(same_float, {"a": narrow})) == [float(np.float32(0.1)), None]
    assert plain(run(same_float, {"a": column(Dtype.INT32, [2**31 - 1])})) == [2.0**31 - 1]
    assert plain(run(same_int, {"a": column(Dtype.INT32, [-5])})) == [-5]
    for wrong in (column(Dtype.INT64, [1]), column(Dtype.STRING, ["1"]), column(Dtype.BOOL, [True])):
        with pytest.raises(DefinitionError, match=rf"same_float\(a\): .* annotated float64, .* declared {wrong.dtype}"):
            run(same_float, {"a": wrong})


@given(st.data())
def test_one_row_and_many_rows_get_the_same_bits(data: st.DataObject) -> None:
    """A derived value does not depend on the rows beside it."""
    n = data.draw(st.integers(1, 6))
    spent = column(Dtype.FLOAT64, data.draw(st.lists(st.none() | st.floats(), min_size=n, max_size=n)))
    visits = column(Dtype.INT64, data.draw(st.lists(st.none() | st.integers(-9, 9), min_size=n, max_size=n)))
    whole = run(spent_per_visit, {"spent": spent, "visits": visits})
    for i in range(n):
        row = np.array([i])
        assert_same_bits(run(spent_per_visit, {"spent": spent.take(row), "visits": visits.take(row)}), whole.take(row))


# -- row maps ---------------------------------------------------------------------------------------------------------


def test_a_row_map_hands_over_plain_python() -> None:
    """Strings are `str`, instants aware datetimes in UTC, numbers Python's own."""
    seen: list[tuple[Any, ...]] = []

    def spy(*row: Any) -> int:
        seen.append(row)
        return 1

    instants = np.array([T0, T0 + 1], dtype="int64").view("M8[us]")
    texts = np.array(["é", ""], dtype=object)
    rowmap(spy, texts, instants, np.array([1.5, 2.5]), np.array([1, 2**53 + 1]), np.array([True, False]))
    first = datetime.fromtimestamp(T0 / 1e6, UTC)
    assert seen == [("é", first, 1.5, 1, True), ("", first.replace(microsecond=1), 2.5, 2**53 + 1, False)]
    assert [type(value) for value in seen[0]] == [str, datetime, float, int, bool]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (["a", "bb\0"], object, ["a", "bb\0"]),
        ([1, 2**53 + 1], np.int64, [1, 2**53 + 1]),
        ([1.5, 2], np.float64, [1.5, 2.0]),
        ([True, False], np.bool_, [True, False]),
    ],
)
def test_a_row_map_returns_an_array_of_what_came_back(values: list[Any], dtype: Any, expected: list[Any]) -> None:
    """Strings stay whole objects, numbers become numpy's; the dtype is the declared one, whatever comes back first."""
    results = iter(values)
    got = rowmap(lambda _: next(results), np.arange(len(values)), out=type(values[0]))
    assert got.dtype == dtype
    assert got.tolist() == expected


def test_a_row_map_of_instants_gives_instants() -> None:
    """Aware datetimes come back as microseconds UTC, so that a transform may return them."""

    @transform
    def midnight(when: datetime) -> datetime:
        return rowmap(lambda t: t.replace(hour=0, minute=0, second=0), when, out=datetime)  # type: ignore[return-value]

    got = run(midnight, {"when": column(Dtype.TIMESTAMP, [T0, None])})
    assert plain(got) == [T0 - T0 % 86_400_000_000, None]


def test_a_row_map_of_nothing_is_nothing() -> None:
    """No rows, no calls."""
    assert rowmap(returning(None).function, np.array([], dtype=object)).tolist() == []


def test_a_null_among_a_row_maps_texts_is_an_error() -> None:
    """A string transform gives a string for every row, or says nothing that could be taken for one."""

    @transform
    def sometimes(city: str) -> str:
        return rowmap(lambda text: text or None, city, out=str)  # type: ignore[return-value]

    assert plain(run(sometimes, {"city": column(Dtype.STRING, ["a", None])})) == ["a", None]
    with pytest.raises(DefinitionError, match="declared string, returned None for a row"):
        run(sometimes, {"city": column(Dtype.STRING, ["a", ""])})


def test_text_and_number_together() -> None:
    """The worlds' own string transform, with a null on either side."""
    inputs = {"city": column(Dtype.STRING, ["Zürich", None, "a"]), "level": column(Dtype.INT32, [1, 2, None])}
    assert plain(run(greeting, inputs)) == ["Zürich/1", None, None]


# -- fingerprints -----------------------------------------------------------------------------------------------------

Define = Callable[..., ModuleType]

SOURCE = """
import numpy as np
from math import exp

SCALE = 3.0
TABLE = {"a": 1, "b": 2}


def inner(x):
    return x * SCALE


def helper(x):
    return inner(x) + TABLE["a"]


def feature(x: float, y: float) -> float:
    local = np.log1p(x) + exp(0.0)
    return helper(local) / y
"""


@pytest.fixture
def define(tmp_path: Path) -> Iterator[Define]:
    """Makes a module of a source text, under a name of its own unless one is given."""
    made: list[str] = []
    numbers = itertools.count()

    def make(source: str, name: str = "") -> ModuleType:
        module_name = name or f"defined_{next(numbers)}"
        path = tmp_path / f"{next(numbers)}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        made.append(module_name)
        spec.loader.exec_module(module)
        return module

    yield make
    for name in made:
        sys.modules.pop(name, None)


def prints(define: Define, source: str) -> str:
    """The fingerprint of `feature` in a source text."""
    return fingerprint(define(source).feature)


def edited(old: str, new: str) -> str:
    """The source with one place changed."""
    assert SOURCE.count(old) == 1
    return SOURCE.replace(old, new)


@pytest.mark.parametrize(
    "source",
    [
        edited("    return helper", "    # a comment\n\n    return helper"),
        edited("helper(local) / y", "(helper(local)\n        / y)"),
        edited("def inner(x):", 'def inner(x):\n    """What it does."""'),
        edited("(x: float, y: float) -> float", "(x, y)"),
        edited("    local = ", '    local: "np.ndarray" = '),
        edited('{"a": 1, "b": 2}', "{'b': 2, 'a': 1}"),
        edited("SCALE = 3.0", "SCALE = 1.5 * 2"),
        edited("SCALE = 3.0", "SCALE = 3.0\nUNUSED = object()"),
        "from skewguard.transforms import transform\n" + edited("def feature", "@transform\ndef feature"),
        SOURCE.replace("local", "other"),
        SOURCE.replace("SCALE", "FACTOR"),
        SOURCE.replace("inner", "innermost"),
    ],
    ids=[
        "comment",
        "formatting",
        "docstring",
        "annotations",
        "annotated local",
        "table's order",
        "constant computed",
        "unused global",
        "declared a transform",
        "a local renamed",
        "a constant renamed",
        "a helper renamed",
    ],
)
def test_what_does_not_change_the_meaning_does_not_change_the_fingerprint(define: Define, source: str) -> None:
    """Comments, formatting, docstrings, annotations, names and a table's order are nobody's business."""
    assert prints(define, source) == prints(define, SOURCE)


@pytest.mark.parametrize(
    "source",
    [
        edited("SCALE = 3.0", "SCALE = 3.0000000000000004"),
        edited("SCALE = 3.0", "SCALE = 3"),
        edited("SCALE = 3.0", "SCALE = -3.0"),
        edited('"a": 1', '"a": 1.0'),
        edited('"b": 2', '"c": 2'),
        edited("x * SCALE", "SCALE * x"),
        edited("exp(0.0)", "exp(-0.0)"),
        edited("from math import exp", "from math import log as exp"),
        edited("np.log1p", "np.log2"),
        edited("import numpy as np", "import math as np"),
    ],
    ids=[
        "last bit of a constant",
        "whole number for a float",
        "sign",
        "type of a table's value",
        "another key",
        "order of operands",
        "sign of zero",
        "another library function",
        "another attribute",
        "another module",
    ],
)
def test_what_may_change_a_value_changes_the_fingerprint(define: Define, source: str) -> None:
    """A constant in a helper of a helper does, to the last bit."""
    assert prints(define, source) != prints(define, SOURCE)


def test_where_a_function_lies_does_not_matter(define: Define) -> None:
    """The same text in another module has the same fingerprint, and it has 32 hex digits."""
    assert define(SOURCE).__name__ != define(SOURCE).__name__
    found = prints(define, SOURCE)
    assert len(found) == 32
    assert int(found, 16) >= 0


HELPERS = "def scale(x):\n    return x * 3.0\n"


@pytest.mark.parametrize(
    "source",
    [
        "import helpers_a as h\ndef feature(x: float) -> float:\n    return h.scale(x)\n",
        "import helpers_a\ndef feature(x: float) -> float:\n    return helpers_a.scale(x)\n",
        "from helpers_a import scale as s\ndef feature(x: float) -> float:\n    return s(x)\n",
        "from helpers_a import scale\ndef feature(x: float) -> float:\n    return [scale(v) for v in x][0]\n",
        "from helpers_a import scale\ndef feature(x: float, by=scale) -> float:\n    return by(x)\n",
        "from helpers_a import scale\ndef feature(x: float, *, by=scale) -> float:\n    return by(x)\n",
        """from helpers_a import scale
def outer(f):
    def feature(x: float) -> float:
        return f(x)
    return feature
feature = outer(scale)
""",
        """from helpers_a import scale
def wrap(f):
    import functools
    @functools.wraps(f)
    def inner(x):
        return scale(f(x))
    return inner
@wrap
def feature(x: float) -> float:
    return x
""",
        """from helpers_a import scale
def again(x, depth):
    return scale(x) if not depth else again(x, depth - 1)
def feature(x: float) -> float:
    return again(x, 2)
""",
    ],
    ids=[
        "through a module",
        "through a module's own name",
        "under another name",
        "in a comprehension",
        "as a default",
        "as a keyword default",
        "in a closure",
        "in a decorator",
        "behind a recursion",
    ],
)
def test_a_helper_is_found_however_it_is_reached(define: Define, source: str) -> None:
    """A change in another module's helper shows, by whichever way the body comes to it."""
    found = []
    for helpers in (HELPERS, HELPERS.replace("3.0", "4.0"), "# moved\n" + HELPERS):
        define(helpers, "helpers_a")
        found.append(prints(define, source))
    assert found[0] != found[1]
    assert found[0] == found[2]


@pytest.mark.parametrize(
    ("setup", "kind"),
    [
        ("THING = object()", "object"),
        ("import functools\nTHING = functools.lru_cache(lambda x: x)", "_lru_cache_wrapper"),
        ("THING = open(__file__)\nTHING.close()", "TextIOWrapper"),
        ("THING = {'a': [object()]}", "object"),
    ],
)
def test_a_global_without_a_fingerprint_is_refused(define: Define, setup: str, kind: str) -> None:
    """What a body reads and nobody can pin down is an error that names it and says what is possible."""
    module = define(f"{setup}\ndef feature(x: float) -> float:\n    return THING or x\n")
    with pytest.raises(DefinitionError, match=rf"THING: a transform reads this global, whose value \({kind}\)"):
        fingerprint(module.feature)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("np.array([1.0, 2.0])", "np.array([1.0, 3.0])"),
        ("np.array([1, 2])", "np.array([1.0, 2.0])"),
        ("np.array([[1, 2]])", "np.array([1, 2])"),
        ("(1, 2)", "[1, 2]"),
        ("{1, 2}", "{1, 3}"),
        ("True", "1"),
        ("b'a'", "'a'"),
        ("zoneinfo.ZoneInfo('Europe/Zurich')", "zoneinfo.ZoneInfo('Europe/Berlin')"),
        ("datetime.date(2020, 1, 1)", "datetime.date(2020, 1, 2)"),
        ("None", "0"),
        ("{'a': {'b': 1}}", "{'a': {'b': 2}}"),
        ("np.int64(3)", "np.int64(4)"),
        ("re.compile('a')", "re.compile('b')"),
        ("type('T', (), {'scale': 3.0})", "type('T', (), {'scale': 4.0})"),
    ],
)
def test_a_constant_counts_by_type_and_value(define: Define, one: str, other: str) -> None:
    """Arrays, tables, zones and dates have a fingerprint: the same value the same one, another one another."""
    text = """
import datetime, re, zoneinfo
import numpy as np
THING = {}
def feature(x: float) -> float:
    return THING
"""
    assert prints(define, text.format(one)) == prints(define, text.format(one))
    assert prints(define, text.format(one)) != prints(define, text.format(other))


def test_sets_and_tables_have_no_order(define: Define) -> None:
    """The order of a set's or a dict's entries is an accident, that of a list is not."""
    text = "THING = {}\ndef feature(x: float) -> float:\n    return THING\n"
    assert prints(define, text.format("{'x', 'y', 'z'}")) == prints(define, text.format("{'z', 'y', 'x'}"))
    assert prints(define, text.format("['x', 'y']")) != prints(define, text.format("['y', 'x']"))


def test_an_import_out_of_sight_is_refused(define: Define) -> None:
    """A body that imports its own helpers hides them from the fingerprint; a library it may import."""
    hidden = "def feature(x: float) -> float:\n    from helpers_a import scale\n    return scale(x)\n"
    with pytest.raises(DefinitionError, match="feature: imports helpers_a in its body, out of sight; import it above"):
        prints(define, hidden)
    assert prints(define, hidden.replace("helpers_a", "numpy.random"))


@pytest.mark.parametrize(
    "call",
    ["TABLE.get", "TABLE.__getitem__", "functools.partial(TABLE.get)", "SHIFT.add", "lambda key: TABLE[key]"],
)
def test_what_a_rows_function_is_bound_to_counts_in_the_fingerprint_and_in_the_graph(define: Define, call: str) -> None:
    """`TABLE.get` is another function with another table, though the method is the same; so is a value's own method."""
    text = f"""
import dataclasses, functools
from skewguard.transforms import rowmap, transform
@dataclasses.dataclass(frozen=True)
class Shift:
    by: float
    def add(self, key: str) -> float:
        return self.by
TABLE = {{"a": 1.0}}
SHIFT = Shift(1.0)
@transform
def feature(key: str) -> float:
    return rowmap({call}, key, out=float)
"""
    made = [define(source).feature for source in (text, text, text.replace("1.0", "2.0"))]
    for digest in (fingerprint, lambda one: prove(one).graph):
        one, same, other = map(digest, made)
        assert one == same != other


def test_the_operator_and_the_function_of_a_power_are_two_graphs() -> None:
    """numpy squares `x ** 2`; np.power(x, 2) may round otherwise."""

    @transform
    def operator(x: float) -> float:
        return x**2

    @transform
    def function(x: float) -> float:
        return np.power(x, 2)  # type: ignore[no-any-return]

    assert prove(operator).graph
    assert prove(operator).graph != prove(function).graph


def test_a_function_without_source_is_refused() -> None:
    """What was made by `exec` has no text to take a fingerprint of."""
    names: dict[str, Any] = {}
    exec("def feature(x): return x", names)
    with pytest.raises(DefinitionError, match="feature: its source cannot be read"):
        fingerprint(names["feature"])


def test_library_functions_count_by_name(define: Define) -> None:
    """numpy's own code is not looked into, its functions are told apart."""
    text = "from numpy import {} as f\ndef feature(x: float) -> float:\n    return f(x)\n"
    found = [prints(define, text.format(name)) for name in ("mean", "median", "sin", "cos")]
    assert len(set(found)) == 4


def test_the_numeric_class_names_what_decides_the_last_bit() -> None:
    """numpy's version, the machine, its CPU features, the C library and the BLAS; the same within one process."""
    assert numeric_class() == numeric_class()
    assert numeric_class().startswith(f"numpy-{np.__version__}/")
    assert numeric_class().count("/") == 3
    assert "blas" in numeric_class().rpartition("/")[2]


def test_a_date_is_no_column_type() -> None:
    """The five types are all there are."""

    def day(when: date) -> float:
        return float(when.day)

    with pytest.raises(DefinitionError, match="when must be annotated float, int, bool, str or datetime"):
        transform(day)
