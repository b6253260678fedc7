"""Windows in which nothing is wrong, however different they look. Every alarm on one of them is false."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.skewbench.faults.case import Case, take
from benchmarks.skewbench.world import DAY, HOUR, MINUTE, SECOND, Window, World, changed
from skewguard.answer import Served, answer, vector
from skewguard.definitions import Bundle, Source, View
from skewguard.offline import OfflineStore
from skewguard.spine import ViewRows
from skewguard.values import NO_TIME, Array, Column, Dtype, Status

ROWS = 10_000
OTHER_CLASS = "another machine"


@dataclass(frozen=True)
class Clean:
    """One kind of healthy traffic: how many windows of it, and how they are made."""

    name: str
    windows: int
    make: Callable[[World, Sequence[int]], Iterator[Case]]
    own_world: bool = False


def cases(world: World, rows: int = ROWS, *, quick: bool = False) -> Iterator[tuple[str, Callable[[], Iterator[Case]]]]:
    """(kind, its cases) over the whole year."""
    last = len(world.asks) - rows
    for kind in KINDS:
        if quick and kind.own_world:
            continue
        count = max(2, kind.windows // 3) if quick else kind.windows
        firsts = [round(one) for one in np.linspace(0, last, count)]
        yield kind.name, lambda kind=kind, firsts=firsts: kind.make(world, firsts)  # type: ignore[misc]


# -- the flights as they are ------------------------------------------------------------------------------------------


def _seasons(world: World, firsts: Sequence[int]) -> Iterator[Case]:
    """A writer every 20 seconds, the year from end to end."""
    for first in firsts:
        window = world.window(first, ROWS)
        yield Case(window, window.served)


def _minute(world: World, firsts: Sequence[int]) -> Iterator[Case]:
    """A writer every minute: as slow as the contracts allow."""
    for first in firsts:
        window = world.window(first, ROWS, tick_us=MINUTE)
        yield Case(window, window.served)


def _other_traffic(world: World, firsts: Sequence[int]) -> Iterator[Case]:
    """The population moves and the pipeline does not: one origin's flights, one airline's, only those at night."""
    for number, first in enumerate(firsts):
        window = world.window(first, ROWS)
        served = window.served
        kept = [
            served.spine.keys["origin"].values == "LGA",
            served.spine.request["carrier"].values == "UA",
            served.derived["schedule__sched_hour"].values >= 18,
        ][number % 3]
        rows = np.flatnonzero(kept)
        window = replace(window, asks=window.asks.take(pa.array(rows)), spine=window.spine.take(rows))
        yield Case(window, take(served, rows))


def _other_machine(world: World, firsts: Sequence[int]) -> Iterator[Case]:
    """Transforms on another CPU or numpy: the last bits of computed floats differ, and the log says so."""
    for number, first in enumerate(firsts):
        window = world.window(first, ROWS)
        rng = np.random.default_rng([number, 5])
        derived = {name: _jittered(one, rng, 2) for name, one in window.served.derived.items()}
        served = replace(window.served, derived=derived)
        served = window.finished(replace(served, vector=vector(window.bundle, served)))
        yield Case(window, served, {"numeric_class": np.full(ROWS, OTHER_CLASS, dtype=object)})


def _stock_store(world: World, firsts: Sequence[int]) -> Iterator[Case]:
    """A log of Feast's own Redis: no created time, events in seconds, no watermark, one kind of absence."""
    for first in firsts:
        window = world.window(first, ROWS)
        views = {name: _poorer(rows) for name, rows in window.served.views.items()}
        yield Case(window, window.finished(answer(window.bundle, window.spine, views)))


def _values_alone(world: World, firsts: Sequence[int]) -> Iterator[Case]:
    """A log of values and nothing else."""
    for first in firsts:
        window = world.window(first, ROWS)
        none = np.full(ROWS, NO_TIME, dtype=np.int64)
        views = {
            name: replace(_poorer(rows), event=none, created=none.copy()) for name, rows in window.served.views.items()
        }
        yield Case(window, window.finished(answer(window.bundle, window.spine, views)))


# -- other definitions, other sources ---------------------------------------------------------------------------------


def _two_minutes(world: World, firsts: Sequence[int]) -> Iterator[Case]:
    """A writer every 2 minutes, declared."""

    def slower(bundle: Bundle, _: Path) -> Bundle:
        return _each_view(bundle, lambda view: replace(view, max_lag_us=120 * SECOND))

    other = changed(world, "two_minutes", slower)
    for first in firsts:
        window = other.window(first, ROWS, tick_us=120 * SECOND)
        yield Case(window, window.served)


def _summed_otherwise(world: World, firsts: Sequence[int]) -> Iterator[Case]:
    """Stored floats differ by 1e-15 of themselves (sums in another order), within a declared 1e-9."""
    other = changed(world, "tolerant", _tolerating(1e-9))
    for number, first in enumerate(firsts):
        window = other.window(first, ROWS)
        rng = np.random.default_rng([number, 6])

        def noisy(column: Column, rng: np.random.Generator = rng) -> Column:
            return _of_floats(column, lambda x: x * (1 + rng.normal(0, 1e-15, len(x))))

        yield Case(window, _with_stored(window, noisy))


def _narrow_store(world: World, firsts: Sequence[int]) -> Iterator[Case]:
    """The store keeps float32 by design, and a tolerance of 1e-6 says so."""
    other = changed(world, "narrow", _tolerating(1e-6))
    for first in firsts:
        window = other.window(first, ROWS)
        yield Case(window, _with_stored(window, lambda column: _of_floats(column, _narrow)))


def _declared_narrow(world: World, firsts: Sequence[int]) -> Iterator[Case]:
    """Float32 is declared: both sides narrow."""

    def narrow(bundle: Bundle, _: Path) -> Bundle:
        def of(view: View) -> View:
            if view.name != "route":
                return view
            features = [replace(f, dtype=Dtype.FLOAT32) if f.dtype.is_float else f for f in view.features]
            return replace(view, features=tuple(features))

        return _each_view(bundle, of)

    other = changed(world, "declared_narrow", narrow)
    for first in firsts:
        window = other.window(first, ROWS)
        yield Case(window, window.served)


def _corrected(world: World, firsts: Sequence[int]) -> Iterator[Case]:
    """One row in a hundred is corrected, hours to days later: what was served before was right then."""

    def corrected(bundle: Bundle, root: Path) -> Bundle:
        rng = np.random.default_rng(11)
        return _each_view(bundle, lambda view: _with_corrections(view, root, rng))

    other = changed(world, "corrected", corrected)
    for first in firsts:
        window = other.window(first, ROWS)
        yield Case(window, window.served)


def _no_created_time(world: World, firsts: Sequence[int]) -> Iterator[Case]:
    """The sources do not say when they came to know a row: the writer knew, and the log and the sources do not."""

    def untimed(bundle: Bundle, _: Path) -> Bundle:
        return _each_view(bundle, lambda view: replace(view, source=replace(view.source, created=None)))

    other = changed(world, "no_created_time", untimed)
    for first in firsts:
        window = world.window(first, ROWS)
        views = {
            name: replace(rows, created=np.full(ROWS, NO_TIME, dtype=np.int64))
            for name, rows in window.served.views.items()
        }
        there = replace(window, world=other)
        yield Case(there, there.finished(answer(other.bundle, window.spine, views)))


def _overwritten(world: World, firsts: Sequence[int]) -> Iterator[Case]:
    """The register of planes is overwritten in place: what it held when it was asked is gone."""

    def living(bundle: Bundle, root: Path) -> Bundle:
        return _each_view(bundle, lambda view: _refitted(view, root) if view.name == "plane" else view)

    other = changed(world, "overwritten", living)
    for number, first in enumerate(firsts):
        window = other.window(first, ROWS)
        kept = replace(other.bundle.view("plane"), source=_newest(other, number))
        views = [kept if view.name == "plane" else view for view in other.bundle.views]
        snapshot = replace(other.snapshot, bundle=replace(other.bundle, views=tuple(views)))
        yield Case(window, window.served, snapshot=snapshot, offline=OfflineStore(views))


KINDS = (
    Clean("20 s lag, every season", 33, _seasons),
    Clean("60 s lag", 9, _minute),
    Clean("other traffic", 9, _other_traffic),
    Clean("last bits differ", 8, _other_machine),
    Clean("stock Redis log", 10, _stock_store),
    Clean("log of values alone", 6, _values_alone),
    Clean("120 s lag", 10, _two_minutes, own_world=True),
    Clean("float noise 1e-15", 6, _summed_otherwise, own_world=True),
    Clean("float32 store", 6, _narrow_store, own_world=True),
    Clean("Float32 declared", 4, _declared_narrow, own_world=True),
    Clean("late corrections", 8, _corrected, own_world=True),
    Clean("no created time", 8, _no_created_time, own_world=True),
    Clean("overwritten dimension", 6, _overwritten, own_world=True),
)


# -- parts ------------------------------------------------------------------------------------------------------------


def _each_view(bundle: Bundle, change: Callable[[View], View]) -> Bundle:
    return replace(bundle, views=tuple(change(view) for view in bundle.views))


def _tolerating(rtol: float) -> Callable[[Bundle, Path], Bundle]:
    def tolerant(bundle: Bundle, _: Path) -> Bundle:
        def of(view: View) -> View:
            features = [
                replace(f, contract=replace(f.contract, rtol=rtol)) if f.dtype.is_float else f for f in view.features
            ]
            return replace(view, features=tuple(features))

        return _each_view(bundle, of)

    return tolerant


def _with_stored(window: Window, change: Callable[[Column], Column]) -> Served:
    views = {
        name: replace(rows, features={feature: change(column) for feature, column in rows.features.items()})
        for name, rows in window.views.items()
    }
    return window.finished(answer(window.bundle, window.spine, views))


def _of_floats(column: Column, change: Callable[[Array], Array]) -> Column:
    return Column.build(column.dtype, change(column.values), column.status) if column.dtype.is_float else column


def _narrow(values: Array) -> Array:
    return values.astype(np.float32).astype(np.float64)


def _jittered(column: Column, rng: np.random.Generator, ulps: int) -> Column:
    def moved(values: Array) -> Array:
        steps = rng.integers(-ulps, ulps + 1, len(values))
        return values + steps * np.spacing(np.abs(values))

    return _of_floats(column, moved)


def _poorer(rows: ViewRows) -> ViewRows:
    n = len(rows.status)
    status = np.where(rows.status == Status.EXPIRED, np.uint8(Status.NULL), rows.status)
    event = np.where(rows.event == NO_TIME, NO_TIME, rows.event // SECOND * SECOND)
    features = {
        name: replace(one, status=np.where(one.present, one.status, np.uint8(Status.NULL)))
        for name, one in rows.features.items()
    }
    return ViewRows(status, event, np.full(n, NO_TIME), np.full(n, NO_TIME), features)


def _with_corrections(view: View, root: Path, rng: np.random.Generator) -> View:
    table = pq.read_table(view.source.path)
    chosen = np.flatnonzero(rng.random(len(table)) < 0.01)
    some = table.take(pa.array(chosen))
    later = np.exp(rng.uniform(np.log(HOUR), np.log(3 * DAY), len(chosen))).astype(np.int64)
    created = some["created_time"].cast(pa.int64()).to_numpy() + later
    stamp = table.schema.field("created_time").type
    some = some.set_column(some.column_names.index("created_time"), "created_time", pa.array(created).cast(stamp))
    name = view.features[0].column
    kind = table.schema.field(name).type
    some = some.set_column(some.column_names.index(name), name, pc.add(some[name], pa.scalar(1, kind)).cast(kind))
    path = root / f"{view.name}.parquet"
    pq.write_table(pa.concat_tables([table, some]), path)
    return replace(view, source=replace(view.source, path=str(path)))


def _refitted(view: View, root: Path) -> View:
    """Every third plane gets other seats some time in the year."""
    table = pq.read_table(view.source.path)
    rng = np.random.default_rng(12)
    some = table.take(pa.array(np.flatnonzero(rng.random(len(table)) < 0.33)))
    at = some["event_time"].cast(pa.int64()).to_numpy() + rng.integers(0, 360 * DAY, len(some))
    stamp = table.schema.field("event_time").type
    for name in ("event_time", "created_time"):
        some = some.set_column(some.column_names.index(name), name, pa.array(at).cast(stamp))
    some = some.set_column(some.column_names.index("seats"), "seats", pc.add(some["seats"], 12))
    path = root / "plane.parquet"
    pq.write_table(pa.concat_tables([table, some]), path)
    return replace(view, source=replace(view.source, path=str(path)))


def _newest(world: World, number: int) -> Source:
    """The register as it is at the end of the year: one row for each plane."""
    source = world.bundle.view("plane").source
    table = pq.read_table(source.path).sort_by([("tailnum", "ascending"), ("event_time", "ascending")])
    tails = table["tailnum"].to_pylist()
    last = [i for i in range(len(tails)) if i + 1 == len(tails) or tails[i] != tails[i + 1]]
    path = world.root / f"plane-{number}.parquet"
    pq.write_table(table.take(pa.array(last)), path)
    return replace(source, path=str(path))
