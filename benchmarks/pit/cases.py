"""The cases and their data, built by seed, once.

Beside the flights, synthetic views: ten doubles, a TTL of seven days, rows in no order, 5 % of them a later version
of another row (same key, same event, created later), and created times hours after the event. 2 % of the asks lie on
an edge of a row of theirs: at its event or a microsecond before, at the end of its TTL or a microsecond after, when it
came to be known or a microsecond before; one in a hundred asks for a key that no view has, some ask twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.pit.task import Task, ViewFile
from flights.asks import asks as asks_of_flights
from flights.instants import flights_with_instants
from flights.sources import tail_arrival, weather

SEED = 20260117
"""Of all data; the folder is named by it, hence a change of what is built here asks for another one."""

DAY = 86_400_000_000
HOUR = DAY // 24
START = 1_767_225_600_000_000  # 2026-01-01
SPAN = 90 * DAY
TTL = 7 * DAY
FEATURES = tuple(f"f{i}" for i in range(10))
ROW_GROUP = 122_880  # DuckDB's own: with a single group only one thread would read
INSTANT = pa.timestamp("us", tz="UTC")

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Case:
    """A case: its name on the command line and in the figures, a title for people, and what it is made of.

    `asks`, `rows` (of each view) and `keys` are numbers; 0 rows stands for the flights. `hopeless`: who takes far
    longer than the others here, and stays out of a quick race.
    """

    name: str
    title: str
    asks: int
    rows: int = 0
    keys: int = 0
    views: int = 2
    known: bool = False
    hopeless: tuple[str, ...] = ()

    def build(self, root: Path, scale: float) -> Task:
        """The task, its files under `root` built if they are not there; `scale` shrinks them."""
        place = root / (f"seed-{SEED}" if scale == 1 else f"seed-{SEED}-of-{scale:g}")
        if not self.rows:
            return _flights(place / "flights", round(self.asks * scale), self.known)
        rows, keys = (max(1, round(number * scale)) for number in (self.rows, self.keys))
        asks = max(10, round(self.asks * scale))
        sources = place / f"{rows}-rows-{keys}-keys"
        views = tuple(
            ViewFile(f"v{i}", str(sources / f"v{i}.parquet"), "entity", dict.fromkeys(FEATURES, "double"), TTL)
            for i in range(self.views)
        )
        for i, view in enumerate(views):
            _once(Path(view.path), lambda path, i=i: _write_rows(path, rows, keys, i))  # type: ignore[misc]
        path = sources / f"asks-{asks}-of-{self.views}.parquet"
        _once(path, lambda path: _write(_asks(asks, keys, views), path, "entity"))
        return Task(str(path), {"entity": "bigint"}, views, self.known)


CASES = (
    Case("flights", "flights: 337k asks, weather and previous arrival", 336_776, hopeless=("arg_max",)),
    Case("100k-1M-1-dense", "100k x 1M x 1 (1k keys)", 100_000, 1_000_000, 1_000, 1),
    Case("1M-1M-1-dense", "1M x 1M x 1 (1k keys)", 1_000_000, 1_000_000, 1_000, 1, hopeless=("arg_max",)),
    Case("1M-1M-1", "1M x 1M x 1 (100k keys)", 1_000_000, 1_000_000, 100_000, 1),
    Case("1M-1M-3", "1M x 1M x 3 (100k keys)", 1_000_000, 1_000_000, 100_000, 3),
    Case("1M-1M-10", "1M x 1M x 10 (100k keys)", 1_000_000, 1_000_000, 100_000, 10),
    Case("1M-10M-1", "1M x 10M x 1 (100k keys)", 1_000_000, 10_000_000, 100_000, 1),
    Case("1M-10M-3", "1M x 10M x 3 (100k keys)", 1_000_000, 10_000_000, 100_000, 3),
    Case("flights-known", "flights, as known at the ask", 336_776, known=True),
    Case("1M-1M-3-known", "1M x 1M x 3 (100k keys), as known at the ask", 1_000_000, 1_000_000, 100_000, 3, known=True),
)
QUICK = ("flights", "1M-1M-1-dense", "1M-1M-1")


def _once(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with another path, and give what it wrote this name; nothing happens where there is the name."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    write(partial)
    partial.replace(path)


def _write(table: pa.Table, path: Path, *repeating: str) -> None:
    pq.write_table(table, path, row_group_size=ROW_GROUP, use_dictionary=list(repeating))


def _flights(folder: Path, asks: int, known: bool) -> Task:
    def write_asks(path: Path) -> None:
        table = asks_of_flights().select(["event_timestamp", "origin", "tailnum"])
        every = np.arange(asks) * table.num_rows // asks
        _write(table.take(pa.array(every)), path, "origin", "tailnum")

    _once(folder / "weather.parquet", lambda path: _write(weather(), path, "origin"))
    _once(folder / "tail_arrival.parquet", lambda path: _write(_arrivals(), path, "tailnum"))
    _once(folder / f"asks-{asks}.parquet", write_asks)
    observed = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
    of_weather = ViewFile(
        "weather", str(folder / "weather.parquet"), "origin", dict.fromkeys(observed, "double"), 3 * HOUR
    )
    arrival = ViewFile(
        "tail_arrival", str(folder / "tail_arrival.parquet"), "tailnum", {"arr_delay": "bigint"}, 2 * DAY
    )
    keys = {"origin": "varchar", "tailnum": "varchar"}
    return Task(str(folder / f"asks-{asks}.parquet"), keys, (of_weather, arrival), known)


def _arrivals() -> pa.Table:
    """The greatest of the arrivals equal in tail, event and created time: any but ours would take any of them."""
    table = tail_arrival(flights_with_instants())
    distinct = table.group_by(["tailnum", "event_time", "created_time"]).aggregate([("arr_delay", "max")])
    distinct = distinct.rename_columns(["tailnum", "event_time", "created_time", "arr_delay"])
    return distinct.sort_by([("event_time", "ascending"), ("tailnum", "ascending")])


def _write_rows(path: Path, rows: int, keys: int, view: int) -> None:
    rng = np.random.default_rng([SEED, rows, keys, view])
    first = rows - rows // 20
    entity = rng.integers(0, keys, first)
    event = START + rng.integers(0, SPAN, first)
    created = event + rng.exponential(6 * HOUR, first).astype(np.int64)
    again = rng.permutation(first)[: rows - first]
    later = created[again] + 1 + rng.exponential(DAY, len(again)).astype(np.int64)
    shuffled = rng.permutation(rows)
    whole = {
        "entity": np.concatenate([entity, entity[again]])[shuffled],
        "event_time": np.concatenate([event, event[again]])[shuffled],
        "created_time": np.concatenate([created, later])[shuffled],
    }
    types = {
        "entity": pa.int64(),
        "event_time": INSTANT,
        "created_time": INSTANT,
        **dict.fromkeys(FEATURES, pa.float64()),
    }
    with pq.ParquetWriter(path, pa.schema(types), use_dictionary=["entity"]) as writer:
        for begin in range(0, rows, ROW_GROUP):
            part = {
                name: pa.array(values[begin : begin + ROW_GROUP]).cast(types[name]) for name, values in whole.items()
            }
            size = len(part["entity"])
            part |= {name: pa.array(rng.standard_normal(size)) for name in FEATURES}
            writer.write_table(pa.table(part), row_group_size=ROW_GROUP)


def _asks(asks: int, keys: int, views: tuple[ViewFile, ...]) -> pa.Table:
    rng = np.random.default_rng([SEED, asks, keys, len(views)])
    entity = rng.integers(0, keys, asks)
    time = START + rng.integers(0, SPAN, asks)
    unknown, edges, twice = np.split(rng.permutation(asks), np.cumsum([asks // 100, asks // 50]))
    entity[unknown] += keys
    for part, view in zip(np.array_split(edges, len(views)), views, strict=True):
        entity[part], time[part] = _edges(rng, len(part), view)
    twice = twice[: asks // 1000]
    other = rng.integers(0, asks, len(twice))
    entity[twice], time[twice] = entity[other], time[other]
    return pa.table({"event_timestamp": pa.array(time).cast(INSTANT), "entity": entity})


def _edges(rng: np.random.Generator, asks: int, view: ViewFile) -> tuple[Ints, Ints]:
    """Keys and times of asks on an edge of some row of the view, every other one a row that has versions."""
    table = pq.read_table(view.path, columns=["entity", "event_time", "created_time"])
    entity, event, created = (table[name].cast(pa.int64()).to_numpy() for name in table.column_names)
    order = np.lexsort((event, entity))
    versions = order[1:][(np.diff(entity[order]) == 0) & (np.diff(event[order]) == 0)]
    rows = rng.integers(0, len(entity), asks)
    if len(versions):
        rows[::2] = versions[rng.integers(0, len(versions), len(rows[::2]))]
    event, created = event[rows], created[rows]
    on = np.stack([event, event - 1, event + TTL, event + TTL + 1, created, created - 1])
    return entity[rows], on[rng.integers(0, len(on), asks), np.arange(asks)]
