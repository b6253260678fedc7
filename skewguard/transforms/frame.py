"""Transforms inside a Feast on-demand view: from the frame that Feast hands over to the frame that it wants back.

`skewguard.on_demand` makes such a view, body included. A body of one's own is an import and a call, because Feast runs
it again from its source text, so that nothing outside of it is in sight:

    @on_demand_feature_view(..., mode="pandas", tags=transforms("acme.features:gust_ratio"))
    def wind(inputs: pd.DataFrame) -> pd.DataFrame:
        from skewguard.transforms.frame import run_frame
        return run_frame(["acme.features:gust_ratio"], inputs)

Mode `python` works too, except that Feast 0.67 drops its outputs online when full feature names are asked for. A null
that Feast hands over is a null to the transform. Nothing here loads pandas.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from skewguard.errors import CastError, DefinitionError
from skewguard.transforms.declare import Transform, load
from skewguard.transforms.runner import run
from skewguard.values import Column, Dtype

Frame = TypeVar("Frame", bound=Any)
"""A dict of lists (Feast's mode `python`) or a pandas DataFrame (mode `pandas`), one entry or row per ask."""


def run_frame(functions: Iterable[Transform | str], frame: Frame) -> Frame:
    """Run transforms, given as such or as `module:function`, on `frame`; the outputs alone come back, by name.

    A parameter takes the column of its name, else the one column called `view__name`. The result is of `frame`'s
    kind: a dict of lists with None for null, or a DataFrame on the same index in which a whole number or a bool beside
    a null stays one (as object), and null floats are NaN. Raises `DefinitionError` for a parameter without a column
    and `CastError` for a column of another type.
    """
    outputs: dict[str, pa.Array] = {}
    for function in functions:
        transform = load(function) if isinstance(function, str) else function
        inputs = {name: _column(frame, name, dtype, transform.reference) for name, dtype in transform.inputs}
        outputs[transform.name] = run(transform, inputs).to_arrow()
    if isinstance(frame, dict):
        return {name: array.to_pylist() for name, array in outputs.items()}  # type: ignore[return-value]
    series = {name: array.to_pandas(integer_object_nulls=True).to_numpy() for name, array in outputs.items()}
    returned: Frame = type(frame)(series, index=frame.index)
    return returned


def _column(frame: Any, name: str, dtype: Dtype, reference: str) -> Column:
    names = list(frame)
    found = [name] if name in names else [other for other in names if str(other).endswith(f"__{name}")]
    where = f"{reference}({name})"
    if len(found) != 1:
        raise DefinitionError(f"{where}: expected one column {name} or view__{name}, found {found or names}")
    return Column.from_arrow(_array(frame[found[0]], dtype, where), dtype, where)


def _array(values: Any, dtype: Dtype, where: str) -> pa.Array | pa.ChunkedArray:
    """Arrow, with NaN, NaT and None as null; a list of nothing but nulls has no type of its own."""
    array = pa.Array.from_pandas(values) if hasattr(values, "dtype") else pa.array(values, from_pandas=True)
    if dtype is Dtype.INT64 and pa.types.is_floating(array.type):
        extremes = pc.min_max(array).as_py().values()
        rounded = [value for value in extremes if value is not None and abs(value) >= _EXACT]
        if rounded:
            raise CastError(
                f"{where}: Feast hands whole numbers beside a null over as floats, where {rounded[0]:.0f} may be one "
                "of its neighbours; ask for rows with a null apart from such numbers"
            )
    return array.cast(dtype.arrow) if pa.types.is_null(array.type) else array


_EXACT = 2.0**53
"""From here on floats skip whole numbers."""
