"""Small worlds to ask about: views over Parquet files, the bundle over them, asks. Built without Feast."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from skewguard.contract import Contract
from skewguard.definitions import Bundle, Derived, Feature, Key, RequestField, Source, View
from skewguard.definitions.model_input import model_inputs
from skewguard.offline import OfflineStore
from skewguard.spine import Spine, ViewRows, read_spine
from skewguard.transforms import Transform, fitted, rowmap, transform
from skewguard.values import Column, Dtype, Status

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
T0 = 1_700_000_000 * SECOND
"""Where these worlds begin: a night in November 2023."""

EVENT, CREATED = "event_at", "created_at"
_numbers = itertools.count()


# -- parts ------------------------------------------------------------------------------------------------------------


def stamps(us: Sequence[int | None]) -> pa.Array:
    """Instants in microseconds as `timestamp[us, UTC]`."""
    return pa.array(us, pa.int64()).view(pa.timestamp("us", tz="UTC"))


def write(folder: Path, columns: Mapping[str, pa.Array], *, name: str = "", row_group_size: int | None = None) -> Path:
    """A Parquet file of these columns, under a name that was not used before unless one is given."""
    path = folder / (name or f"rows-{next(_numbers)}.parquet")
    pq.write_table(pa.table(dict(columns)), path, row_group_size=row_group_size)
    return path


def view(
    name: str,
    path: Path | str,
    keys: Mapping[str, Dtype],
    features: Mapping[str, Dtype],
    *,
    ttl_us: int | None = None,
    created: bool = True,
    asks: Mapping[str, str] | None = None,
    max_lag_us: int = 0,
) -> View:
    """A view whose source names its columns as the view does; `asks` renames keys for those who ask."""
    return View(
        name,
        tuple(Key(column, (asks or {}).get(column, column), dtype) for column, dtype in sorted(keys.items())),
        tuple(Feature(feature, feature, dtype, Contract()) for feature, dtype in features.items()),
        ttl_us,
        max_lag_us,
        Source(str(path), EVENT, CREATED if created else None),
    )


def derived(name: str, function: Transform, inputs: Sequence[str], dtype: Dtype | None = None) -> Derived:
    """A derived feature of the on-demand view `now`."""
    from skewguard.transforms import fingerprint

    return Derived(
        name, "now", function.reference, tuple(inputs), dtype or function.output, Contract(), fingerprint(function)
    )


def bundle(
    *views: View,
    request: Mapping[str, Dtype] | None = None,
    computed: Sequence[Derived] = (),
    project: str = "shop",
    service: str = "checkout",
) -> Bundle:
    """A bundle whose outputs are all its features."""
    stored = [one.full_name(feature.name) for one in views for feature in one.features]
    return Bundle(
        project,
        service,
        views,
        tuple(RequestField(name, dtype) for name, dtype in (request or {}).items()),
        tuple(computed),
        (*stored, *(one.full_name for one in computed)),
    )


def column(dtype: Dtype, values: Sequence[Any]) -> Column:
    """A column of plain Python values, None for null; instants in microseconds."""
    array = stamps(values) if dtype is Dtype.TIMESTAMP else pa.array(values, dtype.arrow)
    return Column.from_arrow(array, dtype, "test")


def plain(answered: Column) -> list[Any]:
    """The values of a column, None where there is none; instants in microseconds."""
    if answered.dtype is Dtype.TIMESTAMP:
        answered = Column(Dtype.INT64, answered.values.view("int64"), answered.status)
    return [answered.value(row) for row in range(len(answered))]


def spine(
    as_of: Sequence[int], keys: Mapping[str, Column] | None = None, request: Mapping[str, Column] | None = None
) -> Spine:
    """Asks numbered in order."""
    ids = np.array([str(i) for i in range(len(as_of))], dtype=object)
    return Spine(ids, np.array(as_of, dtype=np.int64), keys or {}, request or {})


def assert_identical(one: ViewRows, other: ViewRows) -> None:
    """Status, times and every feature are the same, bit for bit; watermarks aside."""
    assert one.status.tolist() == other.status.tolist()
    assert one.event.tolist() == other.event.tolist()
    assert one.created.tolist() == other.created.tolist()
    assert list(one.features) == list(other.features)
    for name in one.features:
        assert_same_bits(one.features[name], other.features[name])


def assert_same_bits(one: Column, other: Column) -> None:
    """Two columns hold the same bits."""
    assert one.dtype is other.dtype
    assert one.status.dtype == other.status.dtype == np.uint8
    assert one.status.tolist() == other.status.tolist()
    if one.dtype is Dtype.STRING:
        assert one.values.tolist() == other.values.tolist()
    else:
        assert one.values.tobytes() == other.values.tobytes()


# -- any column --------------------------------------------------------------------------------------------------------

VALUES: dict[Dtype, st.SearchStrategy[Any]] = {
    Dtype.FLOAT64: st.none() | st.floats(),
    Dtype.FLOAT32: st.none() | st.floats(width=32),
    Dtype.INT64: st.none() | st.integers(-(2**63), 2**63 - 1),
    Dtype.INT32: st.none() | st.integers(-(2**31), 2**31 - 1),
    Dtype.BOOL: st.none() | st.booleans(),
    Dtype.STRING: st.none() | st.text(max_size=5),
    Dtype.TIMESTAMP: st.none() | st.integers(-(2**62), 2**62),
}


@st.composite
def columns(draw: st.DrawFn, dtype: Dtype | None = None, rows: int | None = None) -> Column:
    """A column with values, nulls and rows that are absent for other reasons; of any dtype and size, unless given."""
    kind = draw(st.sampled_from(list(Dtype))) if dtype is None else dtype
    size = draw(st.integers(0, 6)) if rows is None else rows
    values = draw(st.lists(VALUES[kind], min_size=size, max_size=size))
    status = draw(st.lists(st.sampled_from(list(Status)), min_size=size, max_size=size))
    made = column(kind, values)
    return Column.build(kind, made.values, np.maximum(made.status, np.array(status, dtype=np.uint8)))


# -- the shop ---------------------------------------------------------------------------------------------------------

RATE = 1.25
BUYER = {
    "spent": Dtype.FLOAT64,
    "score": Dtype.FLOAT32,
    "visits": Dtype.INT64,
    "level": Dtype.INT32,
    "active": Dtype.BOOL,
    "city": Dtype.STRING,
    "seen": Dtype.TIMESTAMP,
}
BUYERS = [2**53 + 1, 2**53, -5, 7]
PLACES = ["", "Zürich", "東京", "a"]


@transform
def spent_per_visit(spent: float, visits: int) -> float:
    """Money per visit."""
    return _in_dollars(spent) / visits


@transform
def amount_ratio(amount: float, score: float) -> float:
    """The asked amount against the score."""
    ratio: float = np.log1p(np.abs(amount)) * score
    return ratio


@transform
def city_code(city: str) -> int:
    """A number for the city."""
    return rowmap(_code, city)  # type: ignore[return-value]


@transform
def greeting(city: str, level: int) -> str:
    """A text made of a text and a number."""
    return rowmap(_greet, city, level)  # type: ignore[return-value]


@transform
def seen_hour(seen: datetime) -> float:
    """Hour of the day, UTC."""
    return rowmap(_hour, seen)  # type: ignore[return-value]


def usual_spending(city: str, spent: float) -> dict[str, float]:
    """Fitted: by city, the mean of what was spent."""
    return {one: float(np.mean(spent[city == one])) for one in sorted(set(city.tolist()))}  # type: ignore[attr-defined,index]


def score_edges(score: float) -> Any:
    """Fitted: what cuts the scores into four."""
    return np.quantile(score, [0.25, 0.5, 0.75]) if np.size(score) else np.zeros(3)


def latest_hour(seen_hour: float) -> float:
    """Fitted: the latest hour."""
    return float(np.max(seen_hour, initial=1.0))


@transform
def beyond_usual(city: str, spent: float, usual: Annotated[Mapping[str, float], fitted(usual_spending)]) -> float:
    """How much more than usual in the city; nothing for a city that was not known."""
    return spent - rowmap(usual.get, city, out=float)  # type: ignore[return-value]


@transform
def score_band(score: float, edges: Annotated[Any, fitted(score_edges)]) -> int:
    """In which quarter the score is."""
    return np.searchsorted(edges, score)  # type: ignore[return-value]


@transform
def hour_share(seen_hour: float, latest: Annotated[float, fitted(latest_hour)]) -> float:
    """The hour, of a feature that is derived itself, against the latest."""
    return seen_hour / latest


def _in_dollars(spent: float) -> float:
    return spent * RATE


def _code(city: str) -> int:
    return sum(ord(letter) for letter in city)


def _greet(city: str, level: int) -> str:
    return f"{city}/{level}"


def _hour(instant: datetime) -> float:
    return instant.hour + instant.minute / 60


@dataclass(frozen=True)
class World:
    """A bundle over files in `folder`, and asks about it in order."""

    folder: Path
    bundle: Bundle
    asks: pa.Table

    @property
    def spine(self) -> Spine:
        """The asks."""
        request = {field.name: field.dtype for field in self.bundle.request}
        return read_spine(self.asks, self.bundle.keys, request, id_column="ask_id")

    def offline(self, **options: Any) -> OfflineStore:
        """The sources, open."""
        return OfflineStore(self.bundle.views, **options)


def shop(folder: Path, *, seed: int = 0, rows: int = 300, asks: int = 120, project: str = "shop") -> World:
    """A shop with a view of every dtype, one of two renamed keys, one without keys, and transforms.

    Dense in ties, corrections, late and future rows, nulls, and asks at the edge of the TTL.
    """
    random = np.random.default_rng(seed)
    buyer = view("buyer", _buyers(folder, random, rows), {"buyer_id": Dtype.INT64}, BUYER, ttl_us=HOUR)
    road = view(
        "road",
        _roads(folder, random, rows),
        {"src": Dtype.STRING, "dst": Dtype.STRING},
        {"length": Dtype.FLOAT64, "toll": Dtype.INT64},
        created=False,
        asks={"src": "origin"},
    )
    globe = view("globe", _globe(folder, random), {}, {"rate": Dtype.FLOAT64}, ttl_us=2 * HOUR)
    computed = [
        derived("amount_ratio", amount_ratio, ["amount", "buyer__score"], Dtype.FLOAT32),
        derived("city_code", city_code, ["buyer__city"]),
        derived("greeting", greeting, ["buyer__city", "buyer__level"]),
        derived("seen_hour", seen_hour, ["buyer__seen"]),
        derived("spent_per_visit", spent_per_visit, ["buyer__spent", "buyer__visits"]),
    ]
    made = bundle(buyer, globe, road, request={"amount": Dtype.FLOAT64}, computed=computed, project=project)
    return World(folder, made, _asks(random, asks))


def with_model_inputs(world: World) -> World:
    """The same world whose service has three model inputs; they wait for a snapshot."""
    made = world.bundle
    functions = (beyond_usual, score_band, hour_share)
    complaints: list[str] = []
    inputs = model_inputs(
        [one.reference for one in functions], made.views, made.request, made.derived, Contract(), complaints
    )
    assert not complaints
    return replace(world, bundle=replace(made, derived=(*made.derived, *inputs.values())))


def _times(random: np.random.Generator, rows: int) -> tuple[pa.Array, pa.Array]:
    """Event times on few instants; created times before, at, shortly and long after them, and none."""
    event = T0 + random.integers(0, 12, rows) * 10 * MINUTE
    delay = random.choice([-MINUTE, 0, 0, 1, 30 * SECOND, 20 * MINUTE, HOUR], rows)
    created = [None if random.random() < 0.1 else int(t) for t in event + delay]
    return stamps(event.tolist()), stamps(created)


def _some(random: np.random.Generator, rows: int, values: Sequence[Any]) -> list[Any]:
    return [values[i] for i in random.integers(0, len(values), rows)]


def _buyers(folder: Path, random: np.random.Generator, rows: int) -> Path:
    event, created = _times(random, rows)
    return write(
        folder,
        {
            "buyer_id": pa.array(_some(random, rows, [*BUYERS, None]), pa.int64()),
            "spent": pa.array(_some(random, rows, [None, float("nan"), -0.0, 0.1, 1e300, 3.0]), pa.float64()),
            "score": pa.array(_some(random, rows, [None, 0.1, 0.1 + 1e-12, -2.5, 1 / 3]), pa.float64()),
            "visits": pa.array(_some(random, rows, [None, 1, 3, 2**53 + 1, -(2**63)]), pa.int64()),
            "level": pa.array(_some(random, rows, [None, 0, 5, -7]), pa.int16()),
            "active": pa.array(_some(random, rows, [None, True, False]), pa.bool_()),
            "city": pa.array(_some(random, rows, [None, *PLACES]), pa.string()),
            "seen": stamps(_some(random, rows, [None, T0 - 1, T0 + 123_456_789])),
            EVENT: event,
            CREATED: created,
        },
    )


def _roads(folder: Path, random: np.random.Generator, rows: int) -> Path:
    event, _ = _times(random, rows)
    return write(
        folder,
        {
            "src": pa.array(_some(random, rows, [*PLACES, None]), pa.string()),
            "dst": pa.array(_some(random, rows, PLACES), pa.string()),
            "length": pa.array(_some(random, rows, [None, 1.5, float("inf"), float("nan")]), pa.float32()),
            "toll": pa.array(_some(random, rows, [None, 0, 12]), pa.int32()),
            EVENT: event,
        },
    )


def _globe(folder: Path, random: np.random.Generator) -> Path:
    event, created = _times(random, 20)
    return write(folder, {"rate": pa.array(random.random(20)), EVENT: event, CREATED: created})


def _asks(random: np.random.Generator, asks: int) -> pa.Table:
    """Asks on the instants of the rows and a microsecond beside them, TTLs later, before the first row."""
    offset = _some(random, asks, [0, 0, 1, -1, HOUR, HOUR + 1, 30 * SECOND, 5 * MINUTE])
    as_of = T0 - 10 * MINUTE + random.integers(0, 14, asks) * 10 * MINUTE + np.array(offset)
    return pa.table(
        {
            "ask_id": pa.array([f"ask-{i}" for i in range(asks)]),
            "event_timestamp": stamps(as_of.tolist()),
            "buyer_id": pa.array(_some(random, asks, [*BUYERS, 404, None]), pa.int64()),
            "origin": pa.array(_some(random, asks, [*PLACES, "nowhere", None])),
            "dst": pa.array(_some(random, asks, PLACES)),
            "amount": pa.array(_some(random, asks, [None, 0.5, 100.0])),
            "paid": pa.array(_some(random, asks, [None, 0, 1]), pa.int64()),
        }
    )


def statuses(rows: ViewRows) -> list[str]:
    """The statuses of a view's answers by name, in lower case."""
    return [Status(code).name.lower() for code in rows.status.tolist()]
