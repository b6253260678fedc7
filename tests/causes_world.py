"""Pairs for the accuracy of causes: sensors that report at odd times, asked about for four days, and what may go wrong.

A fault takes a seeded generator, from which it draws its parameters out of wide ranges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewguard.answer import Served, answer
from skewguard.contract import Contract
from skewguard.definitions import Bundle, Feature, Key, Source, View
from skewguard.offline import OfflineStore
from skewguard.replay import HEADER_FIELDS, Pairs, Truth, recompute
from skewguard.spine import Spine, ViewRows
from skewguard.transforms import numeric_class
from skewguard.values import Array, Column, Dtype, Mask, Status

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
START = int(np.datetime64("2026-03-02", "us").astype(np.int64))
ASKS, DEVICES, DAYS = 6000, 24, 4
WORDS = ("Überlingen", "New York", " Oslo", "São Paulo", "st. gallen", "Zug", "Bern ", "Città Alta", "007", "A-12")
DTYPES = {
    "temp": Dtype.FLOAT64, "flow": Dtype.FLOAT64, "level": Dtype.FLOAT64, "count": Dtype.INT64, "big": Dtype.INT64,
    "code": Dtype.INT64, "place": Dtype.STRING, "maker": Dtype.STRING, "hour": Dtype.INT64, "seen": Dtype.TIMESTAMP,
    "clock": Dtype.FLOAT64, "passed": Dtype.INT64, "mean_size": Dtype.FLOAT64, "share_large": Dtype.FLOAT64,
}  # fmt: skip
WINDOW, LARGE = 6 * HOUR, 20
TTL = 150 * MINUTE
Events = dict[str, tuple[Array, Array]]
"""By device: when something passed, in order, and its size."""

Random = np.random.Generator


@dataclass(frozen=True)
class World:
    """Asks about devices and their truths. `clean` are the pairs when nothing goes wrong."""

    bundle: Bundle
    spine: Spine
    labels: dict[str, Array]
    truth: Truth
    clean: Pairs
    events: Events

    @property
    def view(self) -> View:
        """The one view."""
        return self.bundle.views[0]

    def at(self, instants: Array) -> ViewRows:
        """What the store would have answered had it been asked at other instants."""
        event, created = self.truth.best(self.view, self.spine, instants)
        asked = self.spine.as_of
        before = replace(self.spine, as_of=np.maximum(instants, asked))  # so that what was future then is there
        return self.truth.named(self.view, before, event, created)

    def served(self, rows: ViewRows, where: Mask) -> Pairs:
        """The pairs had these rows been served in `where`."""
        mine = self.clean.served.views["sensor"]
        at = np.flatnonzero(where)
        features = {name: put(column, at, rows.features[name].take(at)) for name, column in mine.features.items()}
        status, event, created = mine.status.copy(), mine.event.copy(), mine.created.copy()
        status[at], event[at], created[at] = rows.status[at], rows.event[at], rows.created[at]
        view = ViewRows(status, event, created, mine.watermark, features)
        return recompute(answer(self.bundle, self.spine, {"sensor": view}), self.labels, self.truth)

    def changed(self, name: str, change: Callable[[Column], Column], where: Mask) -> Pairs:
        """The pairs had a feature been served changed."""
        served = self.clean.served
        column = served.views["sensor"].features[name]
        at = np.flatnonzero(where)
        return self.with_columns({name: put(column, at, change(column).take(at))})

    def with_columns(self, columns: dict[str, Column]) -> Pairs:
        """The pairs had these columns been served."""
        served = self.clean.served
        view = served.views["sensor"]
        again: Served = answer(
            self.bundle, self.spine, {"sensor": replace(view, features={**view.features, **columns})}
        )
        return replace(self.clean, served=again, recomputed=again.derived)

    def column(self, name: str) -> Column:
        """What was served when nothing went wrong."""
        return self.clean.served.views["sensor"].features[name]


def put(column: Column, at: Array, some: Column) -> Column:
    """The column with other rows at these places."""
    values, status = column.values.copy(), column.status.copy()
    values[at], status[at] = some.values, some.status
    return Column.build(column.dtype, values, status)


def world(root: Path, seed: int = 7) -> World:
    """Build it; the offline store stays open as long as the process."""
    random = np.random.default_rng(seed)
    events = {f"dev-{i:03}": _passed(random) for i in range(DEVICES)}
    pq.write_table(_source(random, events), root / "sensor.parquet")
    features = tuple(Feature(name, name, dtype, Contract(max_lag_us=2 * MINUTE)) for name, dtype in DTYPES.items())
    source = Source(str(root / "sensor.parquet"), "at", "known")
    view = View("sensor", (Key("device", "device", Dtype.STRING),), features, TTL, 2 * MINUTE, source)
    outputs = tuple(view.full_name(name) for name in DTYPES)
    bundle = Bundle("world", "sensors", (view,), (), (), outputs)
    as_of = np.sort(random.integers(START + 12 * HOUR, START + DAYS * 24 * HOUR, ASKS))
    devices = np.array([f"dev-{i:03}" for i in range(DEVICES)], dtype=object)[random.integers(0, DEVICES, ASKS)]
    spine = Spine(
        np.array([f"r{i}" for i in range(ASKS)], dtype=object),
        as_of,
        {"device": Column.build(Dtype.STRING, devices, np.zeros(ASKS, np.uint8))},
        {},
    )
    labels = {name: np.full(ASKS, "", dtype=object) for name in HEADER_FIELDS}
    labels["build"] = np.array(["A", "B", "C"], dtype=object)[random.integers(0, 3, ASKS)]
    labels["host"] = np.array([f"web-{i}" for i in range(5)], dtype=object)[random.integers(0, 5, ASKS)]
    labels["numeric_class"] = np.full(ASKS, numeric_class(), dtype=object)
    truth = Truth(bundle, OfflineStore(bundle.views, threads=1))
    clean = recompute(answer(bundle, spine, truth.answers(spine)), labels, truth)
    return World(bundle, spine, labels, truth, clean, events)


def _passed(random: Random) -> tuple[Array, Array]:
    """Some twenty an hour, now more and now less."""
    at = START - 4 * 24 * HOUR + np.cumsum(random.exponential(3 * MINUTE, (DAYS + 4) * 24 * 24)).astype(np.int64)
    kept = random.random(len(at)) < 0.6 + 0.4 * np.sin(at / (7.3 * HOUR))
    return at[kept], random.poisson(16, int(kept.sum()))


def aggregates(events: Events, devices: Array, begin: Array, end: Array) -> dict[str, Column]:
    """What passed from `begin` until before `end`: how many, how large, how many of them large."""
    count, total, large = (np.zeros(len(devices)) for _ in range(3))
    for device, (at, size) in events.items():
        mine = np.flatnonzero(devices == device)
        sums = [np.concatenate([[0], np.cumsum(one)]) for one in (np.ones(len(size)), size, size > LARGE)]
        low, high = (np.searchsorted(at, edge[mine]) for edge in (begin, end))
        count[mine], total[mine], large[mine] = (one[np.maximum(high, low)] - one[low] for one in sums)
    status = np.where(count > 0, Status.PRESENT, Status.NULL).astype(np.uint8)
    most = np.maximum(count, 1)
    return {
        "passed": Column.build(Dtype.INT64, count.astype(np.int64), np.zeros(len(count), np.uint8)),
        "mean_size": Column.build(Dtype.FLOAT64, total / most, status),
        "share_large": Column.build(Dtype.FLOAT64, large / most, status),
    }


def _source(random: Random, events: Events) -> pa.Table:
    """Reports of every device, three quarters of an hour apart on average, known up to a quarter later; corrections."""
    rows = []
    for device in range(DEVICES):
        at = START - int(random.integers(0, HOUR))
        while at < START + DAYS * 24 * HOUR:
            at += int(random.exponential(45 * MINUTE)) + 3 * MINUTE
            known = at + int(random.integers(0, 15 * MINUTE))
            rows.append((f"dev-{device:03}", at, known))
            if random.random() < 0.15:
                rows.append((f"dev-{device:03}", at, known + int(random.integers(5 * MINUTE, 2 * HOUR))))
    n = len(rows)
    key, at_, known_ = zip(*rows, strict=True)
    temp = np.round(random.normal(15, 9, n), 2)
    gone = random.random(n) < 0.12
    stamp = pa.timestamp("us", tz="UTC")
    moments = np.array(at_)
    over = aggregates(events, np.array(key, dtype=object), moments - WINDOW, moments)
    return pa.table(
        {
            "device": pa.array(key),
            "at": pa.array(at_, stamp),
            "known": pa.array(known_, stamp),
            "temp": pa.array(temp, mask=gone),
            "flow": pa.array(random.gamma(2.0, 7.123456789, n)),
            "level": pa.array(random.uniform(0, 100, n), mask=random.random(n) < 0.05),
            "count": pa.array(random.poisson(40, n) + random.integers(0, 60, n)),
            "big": pa.array(random.integers(2**54, 2**60, n)),
            "code": pa.array(random.integers(0, 12, n)),
            "place": pa.array(np.array(WORDS, dtype=object)[random.integers(0, len(WORDS), n)]),
            "maker": pa.array(np.array([f"maker {i}" for i in range(9)], dtype=object)[random.integers(0, 9, n)]),
            "hour": pa.array((np.array(at_) // HOUR) % 24),
            "seen": pa.array(np.array(at_) - random.integers(0, HOUR, n), stamp),
            "clock": pa.array((moments // MINUTE) % (24 * 60) / 60),
            **{name: column.to_arrow() for name, column in over.items()},
        }
    )


# -- where in the traffic --------------------------------------------------------------------------------------------


def slice_of(w: World, random: Random, kind: str = "") -> tuple[Mask, tuple[str, ...]]:
    """A part of the traffic, drawn at random, with the words for it (without dates)."""
    kind = kind or str(random.choice(["all", "build", "host", "build+host", "device", "since"]))
    where, words = np.ones(ASKS, dtype=bool), []
    if "build" in kind:
        build = str(random.choice(["A", "B", "C"]))
        where &= w.labels["build"] == build
        words.append(f"only build {build}")
    if "host" in kind:
        host = f"web-{random.integers(0, 5)}"
        where &= w.labels["host"] == host
        words.append(f"only host {host}")
    if kind == "device":
        device = f"dev-{random.integers(0, DEVICES):03}"
        where &= w.spine.keys["device"].values == device
        words.append(f"only device {device}")
    if kind == "since":
        where &= w.spine.as_of >= START + int(random.integers(24 * HOUR, 72 * HOUR))
    return where, tuple(words)


# -- faults ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What went wrong: pairs, what the finding is about, and how old what was served is."""

    pairs: Pairs
    feature: str
    lag_us: int = 0


def _values(change: Callable[[Array], Array]) -> Callable[[Column], Column]:
    def changed(column: Column) -> Column:
        with np.errstate(all="ignore"):
            return Column.build(column.dtype, change(column.values), column.status)

    return changed


def _one(w: World, name: str, change: Callable[[Array], Array], where: Mask) -> Case:
    return Case(w.changed(name, _values(change), where), f"sensor__{name}")


def unit(w: World, r: Random, where: Mask) -> Case:
    """A factor, or a factor and an offset."""
    a = float(np.exp(r.uniform(-6, 6))) * (1 if r.random() < 0.8 else -1)
    b = float(r.uniform(-300, 300)) if r.random() < 0.4 else 0.0
    return _one(w, str(r.choice(["temp", "flow", "level"])), lambda v: a * v + b, where)


def lag(w: World, r: Random, where: Mask) -> Case:
    """Everything as of some time before."""
    late = int(np.exp(r.uniform(np.log(6 * MINUTE), np.log(20 * HOUR))))
    return Case(w.served(w.at(w.spine.as_of - late), where), "sensor", late)


def hidden_lag(w: World, r: Random, where: Mask) -> Case:
    """Older values under the newer row's name."""
    late = int(np.exp(r.uniform(np.log(30 * MINUTE), np.log(4 * HOUR))))
    old = w.at(w.spine.as_of - late)
    rows = np.flatnonzero(where & (old.status == 0))
    columns = {name: put(w.column(name), rows, column.take(rows)) for name, column in old.features.items()}
    return Case(w.with_columns(columns), "sensor__flow", late)


def halt(w: World, r: Random, where: Mask) -> Case:
    """The writer stands still from some instant on."""
    stop = START + int(r.integers(24 * HOUR, 84 * HOUR))
    late = np.minimum(w.spine.as_of, stop)
    most = int((w.spine.as_of - stop)[where].max())
    return Case(w.served(w.at(late), where), "sensor", most)


def batches(w: World, r: Random, where: Mask) -> Case:
    """The store is written once in a while."""
    period = int(r.choice([30, 60, 120, 360])) * MINUTE
    phase = int(r.integers(0, period))
    late = (w.spine.as_of - phase) // period * period + phase
    return Case(w.served(w.at(late), where), "sensor", period)


def correction(w: World, r: Random, where: Mask) -> Case:  # noqa: ARG001
    """Corrections are dropped."""
    mine = w.clean.served.views["sensor"]
    first = w.truth.named(w.view, w.spine, mine.event, mine.created)
    table = pq.read_table(w.view.source.path)
    order = table.sort_by([("known", "descending")])
    oldest = {
        (d, a): k
        for d, a, k in zip(
            *(
                order[n].to_pylist() if n == "device" else order[n].cast("int64").to_pylist()
                for n in ("device", "at", "known")
            ),
            strict=True,
        )
    }
    keys = w.spine.keys["device"].values
    created = np.array(
        [oldest.get((k, e), c) for k, e, c in zip(keys, mine.event.tolist(), mine.created.tolist(), strict=True)]
    )
    found = mine.event > 0
    rows = w.truth.named(
        w.view, w.spine, np.where(found, mine.event, first.event), np.where(found, created, mine.created)
    )
    return Case(w.served(rows, where & found), "sensor")


def future(w: World, r: Random, where: Mask) -> Case:
    """Rows that come later."""
    ahead = int(np.exp(r.uniform(np.log(20 * MINUTE), np.log(7 * HOUR)))) + 7 * MINUTE
    return Case(w.served(w.at(w.spine.as_of + ahead), where), "sensor", -ahead)


def lost_keys(w: World, r: Random, where: Mask) -> Case:
    """A few devices are not in the store."""
    gone = r.choice(DEVICES, int(r.integers(4, 9)), replace=False)
    lost = np.isin(w.spine.keys["device"].values.astype(str), [f"dev-{i:03}" for i in gone]) & where
    features = {
        name: Column.absent(column.dtype, ASKS, Status.NOT_FOUND)
        for name, column in w.clean.served.views["sensor"].features.items()
    }
    none = np.full(ASKS, np.iinfo(np.int64).min)
    rows = ViewRows(
        np.full(ASKS, Status.NOT_FOUND, dtype=np.uint8), none, none, w.clean.served.views["sensor"].watermark, features
    )
    return Case(w.served(rows, lost), "sensor")


def ttl(w: World, r: Random, where: Mask) -> Case:
    """A shorter TTL on the serving side."""
    mine = w.clean.served.views["sensor"]
    old = where & (w.spine.as_of - mine.event > int(r.integers(20 * MINUTE, 90 * MINUTE))) & (mine.status == 0)
    columns = {}
    for name, column in mine.features.items():
        status = np.where(old, np.uint8(Status.EXPIRED), column.status)
        columns[name] = Column.build(column.dtype, column.values, status)
    return Case(w.with_columns(columns), "sensor__flow")


def null_fill(w: World, r: Random, where: Mask) -> Case:
    """Null as a constant, zero or the mean."""
    value = float(r.choice([0.0, -1.0, -999.0, float(r.uniform(-40, 60)), 15.0]))

    def filled(column: Column) -> Column:
        null = column.status == Status.NULL
        return Column.build(
            column.dtype, np.where(null, value, column.values), np.where(null, 0, column.status).astype(np.uint8)
        )

    return Case(w.changed("temp", filled, where), "sensor__temp")


def nulled(w: World, r: Random, where: Mask) -> Case:
    """Values that went missing, in part of the rows."""
    some = where & (r.random(ASKS) < r.uniform(0.1, 1.0))
    name = str(r.choice(["temp", "flow", "count", "place"]))
    return Case(w.changed(name, lambda c: Column.absent(c.dtype, len(c), Status.NULL), some), f"sensor__{name}")


def default(w: World, r: Random, where: Mask) -> Case:
    """One constant in part of the rows."""
    some = where & (r.random(ASKS) < r.uniform(0.05, 1.0))
    value = float(r.choice([0.0, float(r.uniform(0, 30)), 20.0]))
    return _one(w, str(r.choice(["temp", "flow", "level"])), lambda v: np.full_like(v, value), some)


def narrow(w: World, r: Random, where: Mask) -> Case:  # noqa: ARG001
    """Float32."""
    return _one(w, "flow", lambda v: v.astype(np.float32).astype(np.float64), where)


def rounded(w: World, r: Random, where: Mask) -> Case:
    """Rounded to a number of decimals."""
    d = int(r.integers(0, 5))
    return _one(w, str(r.choice(["flow", "level"])), lambda v: np.round(v, d), where)


def truncated(w: World, r: Random, where: Mask) -> Case:
    """The fraction is cut off."""
    return _one(w, str(r.choice(["flow", "level"])), np.trunc, where)


def through_double(w: World, r: Random, where: Mask) -> Case:  # noqa: ARG001
    """A large whole number by way of a float."""
    return _one(w, "big", lambda v: v.astype(np.float64).astype(np.int64), where)


def overflow(w: World, r: Random, where: Mask) -> Case:
    """A large whole number in a narrower type."""
    kind = str(r.choice(["int32", "uint32", "int16"]))
    return _one(w, "big", lambda v: v.astype(kind).astype(np.int64), where)


def clip(w: World, r: Random, where: Mask) -> Case:
    """Held at a bound."""
    name = str(r.choice(["temp", "flow", "level"]))
    values = w.column(name).values
    bound = float(np.nanquantile(values, r.uniform(0.55, 0.95)))
    return _one(w, name, lambda v: np.minimum(v, bound), where)


def duplicates(w: World, r: Random, where: Mask) -> Case:
    """Every event counted twice or more."""
    times = int(r.integers(2, 4))
    return _one(w, "count", lambda v: v * times, where)


def window(w: World, r: Random, where: Mask) -> Case:
    """A window that is longer or shorter."""
    share = r.uniform(0.05, 0.6)
    more = r.random() < 0.5

    def change(values: Array) -> Array:
        extra = 1 + r.binomial(np.maximum(values, 0), share)
        return values + extra if more else np.maximum(values - extra, 0)

    return _one(w, "count", change, where)


def _recounted(w: World, where: Mask, length: int, delay: int) -> Case:
    """The aggregates of the very same rows over another window."""
    mine = w.clean.served.views["sensor"]
    end = mine.event - delay
    fresh = aggregates(w.events, w.spine.keys["device"].values, end - length, end)
    rows = np.flatnonzero(where & (mine.status == 0))
    return Case(
        w.with_columns({name: put(w.column(name), rows, one.take(rows)) for name, one in fresh.items()}),
        "sensor__passed",
    )


def other_length(w: World, r: Random, where: Mask) -> Case:
    """A window of another length."""
    times = float(np.exp(r.uniform(np.log(1.2), np.log(8))))
    return _recounted(w, where, int(WINDOW * (times if r.random() < 0.5 else 1 / times)), 0)


def edge(w: World, r: Random, where: Mask) -> Case:
    """The edge of the window is some minutes off."""
    return _recounted(w, where, WINDOW + int(r.choice([-1, 1])) * int(r.integers(5, 20)) * MINUTE, 0)


def delayed(w: World, r: Random, where: Mask) -> Case:
    """The window ends before the row says that it does."""
    return _recounted(w, where, WINDOW, int(r.integers(20, 120)) * MINUTE)


def zone(w: World, r: Random, where: Mask) -> Case:
    """An instant or an hour by another clock."""
    hours = int(r.choice([-9, -8, -5, -4, -1, 1, 2, 3, 8, 10]))
    kind = int(r.integers(3))
    if kind < 2:
        return _one(w, ("hour", "clock")[kind], lambda v: (v + hours) % 24, where)
    return _one(w, "seen", lambda v: v + np.timedelta64(hours, "h"), where)


def text(w: World, r: Random, where: Mask) -> Case:
    """Another spelling."""
    forms: tuple[Callable[[str], str], ...] = (
        str.lower,
        str.upper,
        str.strip,
        lambda x: x.encode("ascii", "ignore").decode(),
        lambda x: x[:4],
    )
    form = forms[r.integers(0, 5)]
    return _one(w, "place", lambda v: np.array([form(x) for x in v], dtype=object), where)


def vocabulary(w: World, r: Random, where: Mask) -> Case:
    """Codes or words that changed places."""
    name = str(r.choice(["code", "maker", "place"]))
    values = np.unique(w.column(name).values[w.column(name).present].astype(str))
    while True:
        order = r.permutation(len(values))
        shift = len(np.unique((order - np.arange(len(values))) % len(values)))
        if shift > 2:
            break
    images = dict(zip(values.tolist(), values[order].tolist(), strict=True))
    kind = int if name == "code" else str
    return _one(w, name, lambda v: np.array([kind(images.get(str(x), x)) for x in v], dtype=v.dtype), where)


def recoded(w: World, r: Random, where: Mask) -> Case:
    """Codes that moved on by some places, or many values that changed places."""
    if r.random() < 0.5:
        by = int(r.integers(1, 12))
        return _one(w, "code", lambda v: (v + by) % 12, where)
    values = np.unique(w.column("count").values[w.column("count").present])
    images = values[r.permutation(len(values))]
    return _one(w, "count", lambda v: images[np.minimum(np.searchsorted(values, v), len(values) - 1)], where)


def swap(w: World, r: Random, where: Mask) -> Case:
    """Another column's values."""
    one, other = r.choice(["temp", "flow", "level"], 2, replace=False)
    return Case(w.changed(str(one), lambda _: w.column(str(other)), where), f"sensor__{one}")


def order(w: World, r: Random, where: Mask) -> Case:
    """Two columns of the vector changed places."""
    i, j = r.choice(5, 2, replace=False)
    matrix = w.clean.served.vector.copy()
    matrix[np.ix_(where, [i, j])] = matrix[np.ix_(where, [j, i])]
    return Case(replace(w.clean, served=replace(w.clean.served, vector=matrix)), w.bundle.vector[i])


def misaligned(w: World, r: Random, where: Mask) -> Case:
    """The values of the row before or after."""
    step = int(r.choice([-2, -1, 1, 2]))
    return _one(w, str(r.choice(["flow", "level"])), lambda v: np.roll(v, step), where)


def vectors(w: World, r: Random, where: Mask) -> Case:
    """Whole rows changed places before the model."""
    rolled = np.roll(w.clean.served.vector, int(r.integers(1, 40)), axis=0)
    matrix = np.where(where[:, None], rolled, w.clean.served.vector)
    return Case(replace(w.clean, served=replace(w.clean.served, vector=matrix)), "sensor__flow")


def renamed(w: World, r: Random, where: Mask) -> Case:
    """Rows whose times were read in another zone."""
    by = int(r.choice([-8, -5, -4, -1, 1, 2, 5, 8])) * HOUR
    rows = w.at(w.spine.as_of + by)
    found = rows.status == 0
    moved = replace(rows, event=np.where(found, rows.event - by, rows.event),
                    created=np.where(found, rows.created - by, rows.created))  # fmt: skip
    return Case(w.served(moved, where & found), "sensor")


def late_column(w: World, r: Random, where: Mask) -> Case:
    """A column of its own job, later than the TTL."""
    some = where & (w.clean.served.views["sensor"].status == 0) & (r.random(ASKS) < r.uniform(0.2, 1))
    return Case(w.changed("flow", lambda c: Column.absent(c.dtype, len(c), Status.EXPIRED), some), "sensor__flow")


def expired_filled(w: World, r: Random, where: Mask) -> Case:
    """A default where the row has expired."""
    value = float(r.choice([0.0, -1.0, -999.0, 15.0]))
    expired = w.column("temp").status == Status.EXPIRED
    return Case(
        w.changed("temp", lambda c: Column.build(c.dtype, np.full(len(c), value), np.zeros(len(c), np.uint8)),
                  where & expired), "sensor__temp",
    )  # fmt: skip


def frozen(w: World, r: Random, where: Mask) -> Case:
    """One column stands still while the row moves on."""
    stop = START + int(r.integers(24 * HOUR, 72 * HOUR))
    then = np.minimum(w.spine.as_of, stop)
    old = w.truth.named(w.view, replace(w.spine, as_of=then), *w.truth.best(w.view, w.spine, then))
    after = np.flatnonzero(where & (old.status == 0))
    return Case(
        w.with_columns({"flow": put(w.column("flow"), after, old.features["flow"].take(after))}), "sensor__flow"
    )


def cached(w: World, r: Random, where: Mask) -> Case:
    """Every host keeps an answer for some time."""
    keep = int(r.integers(40 * MINUTE, 5 * HOUR))
    asked = w.spine.as_of.copy()
    fetched: dict[tuple[str, str], int] = {}
    for i, (host, device, now) in enumerate(
        zip(w.labels["host"], w.spine.keys["device"].values, w.spine.as_of.tolist(), strict=True)
    ):
        last = fetched.get((host, device))
        if last is None or now - last > keep:
            fetched[host, device] = last = now
        asked[i] = last
    return Case(w.served(w.at(asked), where), "sensor", keep)


def other_key(w: World, r: Random, where: Mask) -> Case:
    """The values of another device."""
    swapped = (np.arange(ASKS) + int(r.integers(50, 900))) % ASKS
    mine = w.clean.served.views["sensor"].features
    rows = np.flatnonzero(where & (w.clean.served.views["sensor"].status == 0)[swapped])
    return Case(w.with_columns({n: put(c, rows, c.take(swapped[rows])) for n, c in mine.items()}), "sensor__flow")


FAULTS: dict[str, tuple[Callable[[World, Random, Mask], Case], frozenset[str]]] = {
    "unit": (unit, frozenset({"unit", "duplicates"})),
    "lag": (lag, frozenset({"stale"})),
    "hidden lag": (hidden_lag, frozenset({"stale"})),
    "halt": (halt, frozenset({"stale"})),
    "batches": (batches, frozenset({"stale", "cache"})),
    "dropped correction": (correction, frozenset({"dropped_correction"})),
    "future": (future, frozenset({"future", "leak"})),
    "lost keys": (lost_keys, frozenset({"skipped_entities"})),
    "ttl": (ttl, frozenset({"ttl"})),
    "null fill": (null_fill, frozenset({"null_fill"})),
    "nulled": (nulled, frozenset({"nulled"})),
    "default": (default, frozenset({"default"})),
    "float32": (narrow, frozenset({"float32"})),
    "rounded": (rounded, frozenset({f"rounded_{d}" for d in range(6)})),
    "truncated": (truncated, frozenset({"truncated"})),
    "through a double": (through_double, frozenset({"float64"})),
    "overflow": (overflow, frozenset({"overflow"})),
    "clip": (clip, frozenset({"clip"})),
    "duplicates": (duplicates, frozenset({"duplicates"})),
    "window": (window, frozenset({"window"})),
    "another length": (other_length, frozenset({"window"})),
    "another edge": (edge, frozenset({"window"})),
    "another end": (delayed, frozenset({"window"})),
    "time zone": (zone, frozenset({"timezone"})),
    "text": (text, frozenset({"text"})),
    "vocabulary": (vocabulary, frozenset({"vocabulary"})),
    "recoded": (recoded, frozenset({"vocabulary"})),
    "swap": (swap, frozenset({"swap"})),
    "feature order": (order, frozenset({"feature_order"})),
    "misaligned": (misaligned, frozenset({"misaligned"})),
    "vectors": (vectors, frozenset({"misaligned"})),
    "renamed": (renamed, frozenset({"timezone"})),
    "late column": (late_column, frozenset({"stale"})),
    "expired, filled": (expired_filled, frozenset({"null_fill"})),
    "frozen": (frozen, frozenset({"stale"})),
    "cache": (cached, frozenset({"cache"})),
    "other key": (other_key, frozenset({"other_key"})),
}
