"""Faults of the online store and of what reads it: rows that are old, missing or another's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.skewbench.faults.case import Faulty, Rng
from benchmarks.skewbench.faults.parts import NOT_FOUND, PRESENT, faulty, of_store, pick
from benchmarks.skewbench.world import DAY, HOUR, MINUTE, Instants, Window
from skewguard.spine import ViewRows
from skewguard.values import NO_TIME, Array, Column, Status

_CHANGING = ("weather", "tail_departure", "tail_arrival", "origin_congestion", "route")


def _lag(rng: Rng, least: int, most: int) -> int:
    """Between the two, evenly in its logarithm, to the second."""
    return int(np.exp(rng.uniform(np.log(least), np.log(most)))) // 1_000_000 * 1_000_000


def _view(rng: Rng) -> str:
    return pick(rng, list(_CHANGING))


def stale_view(window: Window, rng: Rng) -> Faulty:
    """1: the writer of a view runs behind by a constant lag, which its watermark admits."""
    view = _view(rng)
    lag = _lag(rng, 10 * MINUTE if view != "route" else DAY, 2 * DAY)
    rows = window.published(view, window.marks - lag)
    rows = replace(rows, watermark=window.marks - lag)
    return faulty(of_store(window, {view: rows}), view, "stale", lag_us=lag)


def stale_silently(window: Window, rng: Rng) -> Faulty:
    """1: the same from a replica of the store whose watermark is copied and whose rows are not."""
    view = _view(rng)
    lag = _lag(rng, 10 * MINUTE if view != "route" else DAY, 2 * DAY)
    return faulty(of_store(window, {view: window.published(view, window.marks - lag)}), view, "stale", lag_us=lag)


def stale_batch(window: Window, rng: Rng) -> Faulty:
    """1: what streams in training lands in batches, every few hours."""
    view = pick(rng, ["weather", "tail_departure", "tail_arrival", "origin_congestion"])
    period = int(rng.integers(2, 25)) * HOUR
    landed = window.marks // period * period
    rows = replace(window.published(view, landed), watermark=landed)
    return faulty(of_store(window, {view: rows}), view, "batch")


def stale_everything(window: Window, rng: Rng) -> Faulty:
    """1: the whole store is read from a replica that is behind."""
    lag = _lag(rng, 20 * MINUTE, 2 * DAY)
    rows = {view: window.published(view, window.marks - lag) for view in _CHANGING}
    return Faulty(of_store(window, rows), frozenset(_CHANGING), "stale", lag_us=lag)


def stale_one_feature(window: Window, rng: Rng) -> Faulty:
    """1: one column of a view is filled by a job of its own, which is late."""
    view = pick(rng, ["weather", "origin_congestion", "route"])
    lag = _lag(rng, HOUR if view != "route" else DAY, 2 * DAY)
    old = window.published(view, window.marks - lag)
    name = pick(rng, sorted(old.features))
    mine = window.views[view]
    found = mine.status == PRESENT
    now = mine.features[name]
    column = Column(
        now.dtype,
        np.where(found, old.features[name].values, now.values),
        np.where(found, old.features[name].status, now.status),
    )
    rows = replace(mine, features={**mine.features, name: column})
    return faulty(of_store(window, {view: rows}), f"{view}__{name}", "stale_feature", lag_us=lag)


def frozen_watermark(window: Window, rng: Rng) -> Faulty:
    """4: a watermark far in the future: every later increment writes nothing, and nobody is told."""
    view = _view(rng)
    stopped = int(window.spine.as_of[0]) - _lag(rng, HOUR, DAY)
    rows = window.published(view, np.full(len(window.spine), stopped))
    ahead = np.full(len(window.spine), int(window.spine.as_of[-1]) + 400 * DAY)
    return faulty(of_store(window, {view: replace(rows, watermark=ahead)}), view, "stopped")


def skipped_entities(window: Window, rng: Rng) -> Faulty:
    """2: the loader skipped some keys, and never wrote them."""
    view = pick(rng, ["tail_departure", "tail_arrival", "plane", "route"])
    return faulty(of_store(window, {view: _nobody(window.views[view])}), view, "missing")


def lost_late_row(window: Window, rng: Rng) -> Faulty:
    """3: a row that came late, below the watermark of an increment by event time, was never written."""
    view = _view(rng)
    rows = window.views[view]
    before = window.published(view, np.where(rows.event == NO_TIME, window.marks, _known(rows) - 1))
    return faulty(of_store(window, {view: before}), view, "lost_write")


def older_overwrites(window: Window, rng: Rng) -> Faulty:
    """7: batches were written out of order, and an old one last."""
    view = _view(rng)
    rows = window.views[view]
    for _ in range(int(rng.integers(2, 6))):
        earlier = np.where(rows.event == NO_TIME, window.marks, _known(rows) - 1)
        rows = window.published(view, earlier)
    return faulty(of_store(window, {view: rows}), view, "lost_write")


def future_row(window: Window, rng: Rng) -> Faulty:
    """5, 18: the store serves what is known only later: a source that is dated ahead, or a backfill of the future."""
    view = _view(rng)
    ahead = _lag(rng, 30 * MINUTE if view != "route" else DAY, 30 * HOUR)
    rows = window.published(view, window.marks + ahead)
    seen = replace(rows, status=np.where(rows.status == Status.FUTURE, PRESENT, rows.status))
    named = window.named(view, rows.event, rows.created, replace(window.spine, as_of=window.spine.as_of + ahead))
    return faulty(of_store(window, {view: replace(seen, features=named.features)}), view, "future")


def shifted_zone(window: Window, rng: Rng) -> Faulty:
    """11: the loader reads naive local times as UTC, so that every row is hours early or late."""
    view = pick(rng, ["weather", "origin_congestion"])
    hours = int(rng.choice([-5, -4, -8, 4, 5]))
    asked = replace(window.spine, as_of=window.spine.as_of + hours * HOUR)
    store = window.world.offline
    event, created = store.best(view, asked, window.marks + hours * HOUR)
    rows = store.rows(view, asked, event, created)
    moved = _shift(rows, -hours * HOUR, window.marks)
    return faulty(of_store(window, {view: moved}), view, "timezone")


def ttl_ignored(window: Window, rng: Rng) -> Faulty | None:
    """8, 26: the TTL holds offline only; what has expired is served, and called present."""
    views = [v for v in _CHANGING if (window.views[v].status == Status.EXPIRED).sum() >= 3]
    if not views:
        return None
    view = pick(rng, views)
    rows = window.views[view]
    young = replace(window.spine, as_of=np.where(rows.event == NO_TIME, window.spine.as_of, rows.event))
    alive = window.named(view, rows.event, rows.created, young)
    return faulty(of_store(window, {view: alive}), view, "ttl")


def ttl_too_short(window: Window, rng: Rng) -> Faulty:
    """8: the TTL was edited online only, and values expire too soon."""
    view = pick(rng, ["tail_departure", "tail_arrival", "route", "weather"])
    ttl = next(v.ttl_us for v in window.bundle.views if v.name == view) or DAY
    rows = window.views[view]
    age = window.spine.as_of - np.where(rows.event == NO_TIME, window.spine.as_of, rows.event)
    old = (rows.status == PRESENT) & (age > rng.uniform(0.05, 0.6) * ttl)
    return faulty(of_store(window, {view: _emptied(rows, old, Status.EXPIRED)}), view, "ttl")


def cached_client(window: Window, rng: Rng) -> Faulty:
    """10: a cache in front of the store keeps what it first read for some minutes or hours."""
    view = pick(rng, ["weather", "origin_congestion", "tail_arrival", "tail_departure"])
    period = _lag(rng, 10 * MINUTE, 12 * HOUR)
    offset = int(rng.integers(period))
    filled = (window.marks - offset) // period * period + offset
    return faulty(of_store(window, {view: window.published(view, filled)}), view, "cached")


def other_entity(window: Window, rng: Rng) -> Faulty:
    """23: a key is cast or cut before the look-up, and another entity answers."""
    view, key = [("weather", "origin"), ("origin_congestion", "origin"), ("tail_arrival", "tailnum"),
                 ("plane", "tailnum"), ("route", "dest")][int(rng.integers(5))]  # fmt: skip
    column = window.spine.keys[key]
    names = np.unique(column.values[column.present])
    turned = dict(zip(names.tolist(), np.roll(names, int(rng.integers(1, len(names)))).tolist(), strict=True))
    values = np.array([turned.get(one, one) for one in column.values.tolist()], dtype=object)
    spine = replace(window.spine, keys={**window.spine.keys, key: Column.build(column.dtype, values, column.status)})
    return faulty(of_store(window, {view: window.published(view, window.marks, spine)}), view, "other_entity")


def unknown_key(window: Window, rng: Rng) -> Faulty:
    """23: a key in another format (case, blanks, zeros) is found nowhere; the log has it as it was asked."""
    view = pick(rng, ["weather", "origin_congestion", "tail_arrival", "tail_departure", "plane", "route"])
    return faulty(of_store(window, {view: _nobody(window.views[view])}), view, "missing")


def error_as_default(window: Window, rng: Rng) -> Faulty:
    """25: the store timed out, and the client made a row of constants of it."""
    view = pick(rng, ["weather", "origin_congestion", "route", "plane"])
    rows = window.views[view]
    constant = float(rng.choice([0.0, -1.0, 1.0]))
    features = {
        name: Column.build(one.dtype, np.full_like(one.values, constant), np.full_like(one.status, PRESENT))
        for name, one in rows.features.items()
    }
    return faulty(of_store(window, {view: replace(rows, status=np.full_like(rows.status, PRESENT), features=features)}),
                  view, "default")  # fmt: skip


def missing_as_present(window: Window, rng: Rng) -> Faulty | None:
    """26: a row that is not there is served as zeros that are there."""
    views = [v for v in ("tail_departure", "tail_arrival", "plane") if (window.views[v].status > 0).sum() >= 3]
    if not views:
        return None
    view = pick(rng, views)
    rows = window.views[view]
    gone = rows.status > 1
    features = {
        name: Column.build(one.dtype, np.where(gone, 0, one.values), np.where(gone, PRESENT, one.status))
        for name, one in rows.features.items()
    }
    status = np.where(gone, PRESENT, rows.status)
    return faulty(of_store(window, {view: replace(rows, status=status, features=features)}), view, "null_fill")


def whole_view_absent(window: Window, rng: Rng) -> Faulty:
    """49: a view was never brought online: everything of it is missing."""
    view = pick(rng, ["weather", "origin_congestion", "plane"])
    return faulty(of_store(window, {view: _nobody(window.views[view])}), view, "missing")


def misaligned_batch(window: Window, rng: Rng) -> Faulty:
    """A batched look-up gives its answers back in another order: each row gets its neighbour's."""
    view = pick(rng, ["tail_arrival", "plane", "route", "weather"])
    by = int(rng.integers(1, 8))
    rows = window.views[view].take(np.roll(np.arange(len(window.spine)), by))
    return faulty(of_store(window, {view: rows}), view, "misaligned")


FAULTS: tuple[Callable[[Window, Rng], Faulty | None], ...] = (
    stale_view, stale_silently, stale_batch, stale_everything, stale_one_feature, frozen_watermark, skipped_entities,
    lost_late_row, older_overwrites, future_row, shifted_zone, ttl_ignored, ttl_too_short, cached_client, other_entity,
    unknown_key, error_as_default, missing_as_present, whole_view_absent, misaligned_batch,
)  # fmt: skip


def _known(rows: ViewRows) -> Instants:
    return np.maximum(rows.event, rows.created)


def _nobody(rows: ViewRows) -> ViewRows:
    n = len(rows.status)
    none = np.full(n, NO_TIME, dtype=np.int64)
    features = {name: Column.absent(one.dtype, n, Status.NOT_FOUND) for name, one in rows.features.items()}
    return ViewRows(np.full(n, NOT_FOUND), none, none.copy(), rows.watermark, features)


def _emptied(rows: ViewRows, at: Array, status: Status) -> ViewRows:
    features = {
        name: Column.build(one.dtype, one.values, np.where(at, np.uint8(status), one.status))
        for name, one in rows.features.items()
    }
    return replace(rows, status=np.where(at, np.uint8(status), rows.status), features=features)


def _shift(rows: ViewRows, by: int, marks: Instants) -> ViewRows:
    def moved(times: Instants) -> Instants:
        return np.where(times == NO_TIME, NO_TIME, times + by)

    return replace(rows, event=moved(rows.event), created=moved(rows.created), watermark=marks.copy())
