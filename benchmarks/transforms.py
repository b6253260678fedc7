"""Ten features with texts and instants: one row, 100 rows, a million, the proof, and other ways to write the same.

`python -m benchmarks.transforms [--quick]` prints a table and, last, one JSON line. Every way computes the same values;
what another engine's last bit is, is counted, not asserted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import ten
from skewguard.transforms import Transform, prove, run_all
from skewguard.transforms.program import Program
from skewguard.values import Column, Dtype

TEN = [value for value in vars(ten).values() if isinstance(value, Transform)]
BATCH = 65_536
CARRIERS = ["UA ", "dl", "9E", " b6", "AA", "ev", "WN", "MQ", "us", "VX", "F9", "HA"]


def make(rows: int) -> dict[str, Column]:
    """Inputs: 12 carriers, 105 destinations, a year of departures at whole minutes, two numbers with nulls."""
    rng = np.random.default_rng(7)
    airports = [f"{a}{b}X" for a in "ABCDEFGHIJKLMNO" for b in "ABCDEFG"]
    start = np.datetime64("2013-01-01", "us").astype(np.int64)

    def null(share: float) -> Any:
        return (rng.random(rows) < share).astype(np.uint8) * 2

    def texts(of: list[str]) -> Any:
        return np.array(of, dtype=object)[rng.integers(0, len(of), rows)]

    zero = np.zeros(rows, dtype=np.uint8)
    return {
        "distance": Column.build(Dtype.FLOAT64, rng.uniform(80, 5000, rows), zero),
        "wind_speed": Column.build(Dtype.FLOAT64, rng.uniform(0, 40, rows), null(0.02)),
        "wind_dir": Column.build(Dtype.FLOAT64, rng.uniform(0, 360, rows), null(0.03)),
        "temp": Column.build(Dtype.FLOAT64, rng.uniform(10, 100, rows), null(0.01)),
        "air_time": Column.build(Dtype.FLOAT64, rng.uniform(0, 600, rows), zero),
        "sched_dep": Column.build(
            Dtype.TIMESTAMP,
            (start + rng.integers(0, 525_600, rows) * 60_000_000).astype("datetime64[us]"),
            zero,
        ),
        "carrier": Column.build(Dtype.STRING, texts(CARRIERS), zero),
        "origin": Column.build(Dtype.STRING, texts(["EWR", "JFK", "LGA"]), zero),
        "dest": Column.build(Dtype.STRING, texts(airports), zero),
    }


PROGRAM = Program([(one, tuple(name for name, _ in one.inputs)) for one in TEN])


def calls(columns: dict[str, Column]) -> list[tuple[Transform, list[Column]]]:
    """The ten transforms, each with its columns."""
    return [(one, [columns[name] for name, _ in one.inputs]) for one in TEN]


def microseconds(function: Callable[[], Any], seconds: float) -> float:
    """Median of what one call takes, over as many as fit into `seconds`."""
    function()
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(taken) < 5:
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return round(statistics.median(taken) * 1e6, 1)


def rows_per_second(rows: int, runs: int) -> int:
    """Batches of 65,536, as an offline join streams them, on this one thread and by its own clock (others may be
    at work on this machine); nulls among them."""
    columns = make(rows)
    batches = [
        {name: column.take(np.arange(at, min(at + BATCH, rows))) for name, column in columns.items()}
        for at in range(0, rows, BATCH)
    ]
    best = float("inf")
    for _ in range(runs):
        started = time.thread_time()
        for batch in batches:
            PROGRAM.run(batch)
        best = min(best, time.thread_time() - started)
    return round(rows / best)


def first(columns: dict[str, Column], rows: int) -> dict[str, Column]:
    """The first rows, all with a value."""
    full = np.flatnonzero(np.max([column.status for column in columns.values()], axis=0) == 0)
    return {name: column.take(full[:rows]) for name, column in columns.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the time, rougher figures")
    quick = parser.parse_args().quick
    seconds = 0.2 if quick else 2.0
    columns = make(4_000)
    one, hundred = first(columns, 1), first(columns, 100)
    _check(hundred)
    started = time.thread_time()
    proofs = [prove(transform) for transform in TEN]
    proof_ms = (time.thread_time() - started) * 1e3 / len(TEN)
    assert not any(proof.objections for proof in proofs)
    figures: dict[str, Any] = {
        "row_us": microseconds(lambda: PROGRAM.run(one), seconds),
        "rows100_us": microseconds(lambda: PROGRAM.run(hundred), seconds),
        "offline_rows_per_s": rows_per_second(200_000 if quick else 1_000_000, 2 if quick else 5),
        "proof_ms": round(proof_ms, 3),
        "vs": others(first(columns, 100), seconds),
    }
    for name, value in figures.items():
        print(f"{name:20} {value}")
    print(json.dumps(figures))


def _check(hundred: dict[str, Column]) -> None:
    """One row by itself, a hundred at once, and the bodies one by one give the same bits."""
    together = PROGRAM.run(hundred)
    for alone, column in zip(run_all(calls(hundred)), together, strict=True):
        assert alone.content() == column.content(), "a body differs from its trace"
    for i in range(100):
        row = PROGRAM.run({name: column.take(np.array([i])) for name, column in hundred.items()})
        for alone, column in zip(row, together, strict=True):
            assert alone.content() == column.take(np.array([i])).content(), "one row differs from a hundred"


def others(columns: dict[str, Column], seconds: float) -> dict[str, dict[str, float]]:
    """The same ten features by other means: microseconds for one row and for 100, and how many of the 1,000 values
    have other bits than ours."""
    ours = {t.name: column for (t, _), column in zip(calls(columns), run_all(calls(columns)), strict=True)}
    found = {}
    for name, make_run in (("feast_python", _feast_python), ("feast_pandas", _feast_pandas), ("duckdb", _duckdb)):
        run = {rows: make_run(first(columns, rows)) for rows in (1, 100)}
        got = run[100]()
        different = sum(
            _plain(ours[feature].value(row)) != _plain(got[feature][row]) for feature in ours for row in range(100)
        )
        found[name] = {
            "row_us": microseconds(run[1], seconds),
            "rows100_us": microseconds(run[100], seconds),
            "other_bits": different,
        }
    return found


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _lists(columns: dict[str, Column]) -> dict[str, list[Any]]:
    return {name: [column.value(row) for row in range(len(column))] for name, column in columns.items()}


def _view(mode: str, body: Callable[[Any], Any]) -> Any:
    """An on-demand view as Feast runs it, without a registry or a store around it."""
    import warnings

    from feast import Field, RequestSource
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.transformation.pandas_transformation import PandasTransformation
    from feast.transformation.python_transformation import PythonTransformation
    from feast.types import Bool, Float64, String, UnixTimestamp

    types = {
        Dtype.FLOAT64: Float64,
        Dtype.STRING: String,
        Dtype.BOOL: Bool,
        Dtype.TIMESTAMP: UnixTimestamp,
    }
    inputs = {name: dtype for transform in TEN for name, dtype in transform.inputs}
    kind: Any = PandasTransformation if mode == "pandas" else PythonTransformation
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return OnDemandFeatureView(
            name="ten",
            sources=[RequestSource(name="asked", schema=[Field(name=n, dtype=types[d]) for n, d in inputs.items()])],
            schema=[Field(name=t.name, dtype=types[t.output]) for t in TEN],
            feature_transformation=kind(udf=body, udf_string="..."),
            mode=mode,
        )


def _feast_python(columns: dict[str, Column]) -> Callable[[], Any]:
    view, rows = _view("python", ten.python_lists), _lists(columns)
    return lambda: view.transform_dict(dict(rows))


def _feast_pandas(columns: dict[str, Column]) -> Callable[[], Any]:
    view = _view("pandas", ten.pandas_frame)
    table = pa.table({name: column.to_arrow() for name, column in columns.items()})
    return lambda: view.transform_arrow(table).to_pydict()


def _duckdb(columns: dict[str, Column]) -> Callable[[], Any]:
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET threads = 1; SET TimeZone = 'UTC'")
    table = pa.table({name: column.to_arrow() for name, column in columns.items()})

    def run() -> Any:
        connection.register("asks", table)
        return connection.sql(ten.SQL).to_arrow_table().to_pydict()

    return run


if __name__ == "__main__":
    main()
