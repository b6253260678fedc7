"""Faults that agree with the offline truth: of requests, of the log itself, of sources, of outcomes, of training.

A replay of the rows cannot see them. Each makes a whole case, of about `share` of the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.skewbench.faults.case import Case, Rng, mixed, take
from benchmarks.skewbench.faults.parts import asked, pick
from benchmarks.skewbench.world import DAY, HOUR, TRAINED_UNTIL, Window, World, scratch
from skewguard.answer import Served, answer
from skewguard.offline import OfflineStore
from skewguard.snapshot import adopt_snapshot
from skewguard.values import Array, Column, Mask

_ROWS_OF_TRAINING = 10_000


def _hit(window: Window, rng: Rng, share: float) -> Mask:
    n = len(window.spine)
    hit = np.zeros(n, dtype=bool)
    hit[rng.choice(n, max(3, round(share * n)), replace=False)] = True
    return hit


def _span(window: Window, rng: Rng, share: float) -> Mask:
    """So many rows in a row: what a source does, it does for a while."""
    n = len(window.spine)
    size = max(3, round(share * n))
    first = int(rng.integers(0, n - size))
    return np.asarray((np.arange(n) >= first) & (np.arange(n) < first + size))


def _requested(window: Window, name: str, values: Array, hit: Mask, cause: str) -> Case:
    one = window.spine.request[name]
    served = mixed(window, window.served, asked(window, {name: (values, one.status)}), hit)
    derived = [d.full_name for d in window.bundle.derived if name in d.inputs]
    return Case(window, served, touched=frozenset({name, *derived}), causes=(cause,), stage="request",
                rows=int(hit.sum()))  # fmt: skip


def distance_of_another_route(window: Window, rng: Rng, share: float) -> Case:
    """43: the client sends what it sent for the request before."""
    hit = _hit(window, rng, share)
    values = np.roll(window.spine.request["distance"].values, int(rng.integers(1, 50)))
    return _requested(window, "distance", values, hit, "request")


def distance_in_kilometres(window: Window, rng: Rng, share: float) -> Case:
    """33, 43: the client speaks another unit."""
    factor = float(rng.choice([1.609344, 0.868976]))
    return _requested(window, "distance", window.spine.request["distance"].values * factor, _hit(window, rng, share),
                      "request")  # fmt: skip


def destination_of_another(window: Window, rng: Rng, share: float) -> Case:
    """43: a request field contradicts the key."""
    values = rng.permutation(window.spine.request["destination"].values)
    return _requested(window, "destination", values, _hit(window, rng, share), "request")


def departure_in_local_time(window: Window, rng: Rng, share: float) -> Case:
    """11, 43: the client sends a local time as UTC."""
    values = window.spine.request["sched_dep"].values - np.timedelta64(int(rng.choice([4, 5, 8])), "h")
    return _requested(window, "sched_dep", values, _hit(window, rng, share), "request")


def clock_is_off(window: Window, rng: Rng, share: float) -> Case:
    """The host's clock is off: the log says another instant than the request had, and the look-up believed it."""
    hit = _hit(window, rng, share)
    by = int(rng.choice([-1, 1])) * int(rng.integers(20, 300)) * 60_000_000
    moved = replace(window.spine, as_of=window.spine.as_of + np.where(hit, by, 0))
    other = replace(window, spine=moved)
    touched = frozenset({"sched_dep", *window.bundle.view_of.values()})
    return Case(window, other.served, touched=touched, causes=("clock",), stage="log", rows=int(hit.sum()))


def logged_twice(window: Window, rng: Rng, share: float) -> Case:
    """45: a retry was logged as another request, under the same id."""
    hit = np.flatnonzero(_hit(window, rng, share))
    rows = np.sort(np.concatenate([np.arange(len(window.spine)), hit]))
    return Case(window, take(window.served, rows), touched=frozenset({"request_id"}), causes=("duplicate",),
                stage="log", rows=len(hit))  # fmt: skip


def lost_from_the_log(window: Window, rng: Rng, share: float) -> Case:
    """46: rows were answered and never logged; what became of them is known."""
    hit = _hit(window, rng, share)
    return Case(window, take(window.served, np.flatnonzero(~hit)), touched=frozenset({"log"}), causes=("lost",),
                stage="log", rows=int(hit.sum()), answered=len(window.spine))  # fmt: skip


def lost_of_one_kind(window: Window, rng: Rng, share: float) -> Case:
    """46: only one origin's requests are lost, and the service does not count."""
    values = window.spine.keys["origin"].values
    mine = np.flatnonzero(values == pick(rng, sorted(set(values.tolist()))))
    gone = rng.choice(mine, min(len(mine), max(3, round(share * len(values)))), replace=False)
    rows = np.setdiff1d(np.arange(len(values)), gone)
    return Case(window, take(window.served, rows), touched=frozenset({"log"}), causes=("lost",), stage="log",
                rows=len(gone))  # fmt: skip


def key_mangled_by_client(window: Window, rng: Rng, share: float) -> Case:
    """23: the client sends keys in another case or with a zero in front: both sides look up what was sent."""
    hit = _hit(window, rng, share)
    one = window.spine.keys["tailnum"]
    mangle: Callable[[str], str] = [str.lower, lambda t: "0" + t, lambda t: t + " "][int(rng.integers(3))]
    values = np.array([mangle(text) for text in one.values.tolist()], dtype=object)
    values = np.where(hit & one.present, values, one.values)
    spine = replace(window.spine, keys={**window.spine.keys, "tailnum": Column.build(one.dtype, values, one.status)})
    other = replace(window, spine=spine)
    touched = frozenset({"tailnum", "tail_departure", "tail_arrival", "plane"})
    return Case(window, other.served, touched=touched, causes=("request",), stage="request", rows=int(hit.sum()))


def source_in_other_unit(window: Window, rng: Rng, share: float) -> Case:
    """32: the supplier changed a unit at some moment, and both sides read it."""
    span = _span(window, rng, share)
    feature, change = [
        ("temp", lambda x: (x - 32.0) / 1.8), ("dewp", lambda x: x * 1.8 + 32.0),
        ("wind_speed", lambda x: x * 1.609344),
        ("visib", lambda x: x * 1.609344), ("pressure", lambda x: x / 33.8639), ("wind_gust", lambda x: x * 0.44704),
    ][int(rng.integers(6))]  # fmt: skip
    return _with_source(window, "weather", span, {feature: change}, "source", frozenset({"weather", feature}))


def source_stands_still(window: Window, rng: Rng, share: float) -> Case:
    """The supplier repeats itself: new rows come, with the old values."""
    view = pick(rng, ["weather", "origin_congestion"])
    span = _span(window, rng, share)
    names = [feature.column for feature in window.bundle.view(view).features]
    return _with_source(window, view, span, dict.fromkeys(names), "frozen", frozenset({view}))


def source_of_one_key_stands_still(window: Window, rng: Rng, share: float) -> Case:
    """One station of many repeats itself."""
    span = _span(window, rng, min(1.0, 3 * share))
    origin = pick(rng, sorted(set(window.spine.keys["origin"].values.tolist())))
    names = [feature.column for feature in window.bundle.view("weather").features]
    return _with_source(window, "weather", span, dict.fromkeys(names), "frozen", frozenset({"weather"}), key=origin)


def source_loses_values(window: Window, rng: Rng, share: float) -> Case:
    """27, 49: the supplier's field is empty from some moment on, on both sides."""
    feature = pick(rng, ["visib", "precip"])
    span = _span(window, rng, share)

    def emptied(values: Array) -> Array:
        return np.full_like(values, np.nan)

    return _with_source(window, "weather", span, {feature: emptied}, "source", frozenset({"weather", feature}))


def outcomes_turned(window: Window, rng: Rng, share: float) -> Case:
    """Labels were joined wrongly: they say the contrary, in the last part of the window."""
    n = len(window.spine)
    late = pc.fill_null(window.asks["late"], False).to_numpy(zero_copy_only=False)
    size = max(round(2 * share * n), 400)
    hit = np.arange(n) >= n - size
    turned = np.where(hit & (rng.random(n) < 0.5), ~late, late)
    return Case(window, window.served, touched=frozenset({"prediction"}), causes=("outcome",), stage="log",
                rows=int(hit.sum()), outcome=turned)  # fmt: skip


def trained_on_the_future(window: Window, rng: Rng, share: float) -> Case:
    """18: some rows of the training set hold values that were known only later."""
    view = pick(rng, ["weather", "tail_arrival", "origin_congestion", "tail_departure"])
    ahead = int(rng.integers(1, 30)) * HOUR
    return _trained(window, rng, share, view, ahead, "leak")


def trained_on_the_outcome(window: Window, rng: Rng, share: float) -> Case:
    """19: the last arrival of the plane that training joined is the flight's own."""
    return _trained(window, rng, share, "tail_arrival", DAY, "leak")


def trained_by_other_code(window: Window, rng: Rng, share: float) -> Case:
    """51: a backfill by other code gave some training rows other values."""
    return _trained(window, rng, share, pick(rng, ["weather", "route"]), 0, "training")


Made = Callable[[Window, Rng, float], Case]
FAULTS: tuple[Made, ...] = (
    distance_of_another_route, distance_in_kilometres, destination_of_another, departure_in_local_time, clock_is_off,
    logged_twice, lost_from_the_log, lost_of_one_kind, key_mangled_by_client, source_in_other_unit, source_stands_still,
    source_of_one_key_stands_still, source_loses_values, outcomes_turned, trained_on_the_future, trained_on_the_outcome,
    trained_by_other_code,
)  # fmt: skip


def _with_source(
    window: Window,
    view: str,
    span: Mask,
    changes: dict[str, Callable[[Array], Array] | None],
    cause: str,
    touched: frozenset[str],
    *,
    key: str = "",
) -> Case:
    """Both sides read a source whose rows of the span are other ones; None repeats the row that came before."""
    times = window.spine.as_of[span]
    declared = window.bundle.view(view)
    table = pq.read_table(declared.source.path)
    event = table["event_time"].cast(pa.int64()).to_numpy()
    inside = (event >= times.min()) & (event <= times.max())
    if key:
        inside &= np.asarray(pc.equal(table["origin"], key))
    keys = np.asarray(table[declared.keys[0].column].to_numpy(zero_copy_only=False))
    before = _row_before(keys, event, inside, int(times.min()))
    for name, change in changes.items():
        column = table[name].to_numpy(zero_copy_only=False)
        new = column[before] if change is None else change(column)
        mixed_ = np.where(inside, new, column)
        gone = np.isnan(mixed_.astype(np.float64))
        array = pa.array(mixed_, mask=gone).cast(table.schema.field(name).type)
        table = table.set_column(table.column_names.index(name), table.schema.field(name), array)
    folder = scratch(window.world.root)
    path = folder / f"{view}.parquet"
    pq.write_table(table, path)
    views = [replace(v, source=replace(v.source, path=str(path))) if v.name == view else v for v in window.bundle.views]
    offline = OfflineStore(views)
    world = World(window.world.root, replace(window.world.snapshot, bundle=replace(window.bundle, views=tuple(views))),
                  window.world.asks, offline)  # fmt: skip
    world.__dict__["model"] = window.world.model
    there = replace(window, world=world)
    rows = there.published(view, window.marks)
    mine = window.views[view]
    served = window.finished(answer(window.bundle, window.spine, {**window.views, view: rows}))
    odd = np.zeros(len(window.spine), dtype=bool)
    for name in changes:
        short = next(f.name for f in declared.features if f.column == name)
        a, b = mine.features[short], rows.features[short]
        odd |= (a.status != b.status) | ((a.values != b.values) & a.present)
    full = frozenset(declared.full_name(name) for name in (*touched, *changes) if name != view)
    return Case(there, served, touched=touched | full, causes=(cause,), stage="source", rows=int(odd.sum()),
                offline=offline)  # fmt: skip


def _row_before(keys: Array, event: Array, inside: Mask, start: int) -> Array:
    """For every row of the span the last one of its key before it; itself for the others."""
    before = np.arange(len(keys))
    for key in sorted(set(keys.tolist())):
        mine = np.flatnonzero(keys == key)
        earlier = mine[event[mine] < start]
        if len(earlier):
            before[mine] = earlier[np.argmax(event[earlier])]
    return np.where(inside, before, np.arange(len(keys)))


def _trained(window: Window, rng: Rng, share: float, view: str, ahead: int, cause: str) -> Case:
    """A training set from elsewhere, some of whose rows hold a view's values of `ahead` later, or others at all."""
    world = window.world
    first = int(rng.integers(0, world.first(TRAINED_UNTIL) - _ROWS_OF_TRAINING))
    past = world.window(first, _ROWS_OF_TRAINING)
    hit = _hit(past, rng, share)
    truth = answer(past.bundle, past.spine, world.offline.answer(past.spine))
    rows = dict(truth.views)
    if ahead:
        moved = replace(past.spine, as_of=past.spine.as_of + ahead)
        rows[view] = world.offline.answer(moved)[view]
    else:
        name = min(rows[view].features)
        one = rows[view].features[name]
        other = Column.build(one.dtype, one.values * 1.07 + 1, one.status)
        rows[view] = replace(rows[view], features={**rows[view].features, name: other})
    other_served = answer(past.bundle, past.spine, rows)
    wrong = hit & _unlike_values(truth, other_served, view)
    set_ = _table(past, mixed(past, truth, other_served, hit))
    folder = scratch(world.root)
    snapshot = adopt_snapshot(world.bundle, set_, folder / "snapshot", labels=["late"], id_column="flight_id")
    full = frozenset(name for name, own in world.bundle.view_of.items() if own == view)
    return Case(window, window.served, touched=full | {view},
                causes=(cause,), stage="training", rows=int(wrong.sum()), trained_on=snapshot)  # fmt: skip


def _unlike_values(a: Served, b: Served, view: str) -> Mask:
    one, other = a.views[view].features, b.views[view].features
    found = [(x.status != other[n].status) | ((x.values != other[n].values) & x.present) for n, x in one.items()]
    return np.asarray(np.logical_or.reduce(found), dtype=bool)


def _table(window: Window, served: Served) -> pa.Table:
    """A training set as others keep them: asks, features, label; nothing of where they came from."""
    table = window.asks
    for name, column in served.features(window.bundle).items():
        table = table.append_column(name, column.to_arrow())
    return table
