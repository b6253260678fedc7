"""Program: many transforms at once, step by step, with the bits of every body called by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flights import transforms as flights
from skewguard.errors import DefinitionError
from skewguard.transforms import Transform, rowmap, run_all, transform
from skewguard.transforms.learned import sample
from skewguard.transforms.pool import batch, columns, pools
from skewguard.transforms.program import Call, Program
from skewguard.values import Column, Dtype, Status
from tests import loop_features, worlds
from tests.corpus_transforms import good
from tests.worlds import assert_same_bits, column, plain


def of(*modules: Any) -> list[Transform]:
    """The transforms of some modules, those with fitted arguments bound to a sample."""
    return [sample(v) for module in modules for v in vars(module).values() if isinstance(v, Transform)]


def calls_of(transforms: list[Transform]) -> list[Call]:
    """Each with the columns of its parameters' names; of two dtypes under one name, with two columns."""
    return [(one, tuple(f"{name} {dtype}" for name, dtype in one.inputs)) for one in transforms]


CORPUS = calls_of(of(good))
WHOLE = Program(CORPUS)
SMALL = [Program(calls_of(of(module))) for module in (flights, worlds, loop_features)]


def both(program: Program, known: Mapping[str, Column]) -> None:
    """The program's columns and the runner's have the same bits, or the same complaint."""
    calls = [(one, [known[name] for name in names]) for one, names in program.calls]
    mine, expected = complaint_or(lambda: program.run(known)), complaint_or(lambda: run_all(calls))
    if isinstance(mine, str) or isinstance(expected, str):
        assert mine == expected
        return
    for one, other in zip(mine, expected, strict=True):
        assert_same_bits(one, other)


def complaint_or(run: Callable[[], list[Column]]) -> list[Column] | str:
    """What comes back, or what is complained of."""
    try:
        return run()
    except DefinitionError as error:
        return str(error)


@settings(max_examples=60)
@given(st.data(), st.sampled_from([WHOLE, *SMALL]), st.sampled_from([0, 1, 1, 1, 2, 5]))
def test_whatever_the_values_and_their_absence_a_program_gives_the_runners_bits(
    data: st.DataObject, program: Program, rows: int
) -> None:
    """One row, several and none; any value, any status; all good transforms there are."""
    dtypes = {name: dtype for one, names in program.calls for name, (_, dtype) in zip(names, one.inputs, strict=True)}
    both(program, {name: data.draw(worlds.columns(dtype, rows)) for name, dtype in dtypes.items()})


@pytest.mark.parametrize("rows", [1, 2, 17, 300])
def test_on_the_corners_of_every_type_a_program_gives_the_runners_bits(rows: int) -> None:
    """All inputs present, so that every step is taken in the bodies' place."""
    for call in CORPUS:
        given_rows = batch(pools(call[0]), 300)
        for at in range(0, 300, max(rows, 13)):
            known = dict(zip(call[1], columns(call[0], given_rows[at : at + rows]), strict=True))
            both(Program([call]), known)


def test_every_good_transform_is_traced() -> None:
    """None of them falls back to the call of its body."""
    for program in (WHOLE, *SMALL):
        assert set(program._traces) == set(range(len(program.calls)))


def test_what_two_transforms_share_is_computed_once() -> None:
    """The weekday of one instant is asked for once, by whichever function of the same text."""

    def weekday(instant: datetime) -> int:
        return instant.weekday()

    @transform
    def day(when: datetime) -> int:
        return rowmap(weekday, when)  # type: ignore[return-value]

    @transform
    def weekend(at: datetime) -> bool:
        return np.greater(rowmap(weekday, at), 4)  # type: ignore[return-value]

    program = Program([(day, ("t",)), (weekend, ("t",))])
    got = program.run({"t": column(Dtype.TIMESTAMP, [worlds.T0])})
    assert [plain(one) for one in got] == [[1], [False]]
    (plan,) = program._plans.values()
    names = plan.evaluate.__code__.co_varnames
    assert len([name for name in names if name.startswith("v")]) == 2  # the weekday, and the comparison
    both(program, {"t": column(Dtype.TIMESTAMP, [worlds.T0, worlds.T0 + worlds.HOUR * 90])})


def test_the_operator_and_the_function_of_a_power_are_two_steps() -> None:
    """numpy squares x ** 2, and np.power(x, 2) may round otherwise: neither stands for the other."""

    @transform
    def operator(x: float) -> float:
        return x**2

    @transform
    def function(x: float) -> float:
        return np.power(x, 2)  # type: ignore[no-any-return]

    values = np.random.default_rng(1).uniform(-1e3, 1e3, 1000)
    known = {"x": Column.build(Dtype.FLOAT64, values, np.zeros(1000, dtype=np.uint8))}
    both(Program([(operator, ("x",)), (function, ("x",))]), known)
    assert operator.function(values).tobytes() == (values**2).tobytes()


def test_a_missing_input_takes_its_own_transforms_out_and_no_others() -> None:
    """Of two transforms the one whose input is null has no value; the other is computed as ever."""
    program = Program(calls_of([worlds.spent_per_visit, worlds.city_code]))
    spent, visits, city = (name for _, names in program.calls for name in names)
    known = {
        spent: column(Dtype.FLOAT64, [None]),
        visits: column(Dtype.INT64, [3]),
        city: column(Dtype.STRING, ["ab"]),
    }
    one, other = program.run(known)
    assert (plain(one), plain(other)) == ([None], [195])
    assert one.status.tolist() == [Status.NULL]
    both(program, known)


def test_a_narrower_column_widens_as_the_runner_does_it() -> None:
    """A declared float32 or int32 goes to the runner, whatever is beside it."""
    program = Program([(loop_features.per_stop, ("distance", "stops"))])
    both(program, {"distance": column(Dtype.FLOAT32, [0.1]), "stops": column(Dtype.INT32, [2])})


def test_who_raises_is_named_by_the_runner() -> None:
    """Among several transforms, with its own exception; a body that the trace cannot follow raises as well."""

    def strict(text: str) -> int:
        return int(text)

    @transform
    def number(city: str) -> int:
        return rowmap(strict, city)  # type: ignore[return-value]

    program = Program([(worlds.city_code, ("city",)), (number, ("city",))])
    assert [plain(one) for one in program.run({"city": column(Dtype.STRING, ["12"])})] == [[99], [12]]
    with pytest.raises(DefinitionError, match=r"number raised ValueError: invalid literal for int\(\).*'x'"):
        program.run({"city": column(Dtype.STRING, ["x"])})


def test_what_is_not_proven_is_called_as_it_is() -> None:
    """A body that looks at its neighbours cannot be traced; one that was waived is not, though it could be."""
    calls = 0

    @transform
    def centred(x: float) -> float:
        return x - np.mean(x)  # type: ignore[return-value]

    @transform
    def counting(x: float) -> float:
        nonlocal calls
        calls += 1
        return x + 1.0

    program = Program([(centred, ("x",)), (counting, ("x",))], as_they_are=[1])
    known = {"x": column(Dtype.FLOAT64, [1.0, 3.0])}
    assert [plain(one) for one in program.run(known)] == [[-1.0, 1.0], [2.0, 4.0]]
    assert [plain(one) for one in program.run(known)] == [[-1.0, 1.0], [2.0, 4.0]]
    assert calls == 2


def test_a_program_of_nothing_is_nothing() -> None:
    """No transforms, no columns."""
    assert Program([]).run({}) == []
