"""Online: packed rows, the same bytes and the same answers on SQLite and on a real Redis; an error, never a guess."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skewguard.definitions import Bundle, View
from skewguard.errors import LayoutError, StoreUnavailable
from skewguard.online import Layout, Lookup, OnlineStore, open_store, pack, row_key
from skewguard.online.keys import layout_key, prefixes, row_keys, watermark_key, watermark_of
from skewguard.online.layout import definition_of, unpack
from skewguard.online.redis import RedisStore
from skewguard.spine import Spine, ViewRows
from skewguard.values import NO_TIME, Column, Dtype, Status
from tests.conftest import _free_port, _redis_server, _wait_until_it_answers
from tests.worlds import (
    BUYER,
    HOUR,
    T0,
    assert_same_bits,
    bundle,
    column,
    columns,
    plain,
    spine,
    statuses,
    view,
)

Rows = Sequence[tuple[bytes, bytes]]
TIMES = st.integers(-(2**63), 2**63 - 1)


@pytest.fixture
def store(store_url: str) -> Iterator[OnlineStore]:
    """An empty store of each kind in turn."""
    with closing(open_store(store_url)) as opened:
        yield opened


# -- rows as bytes ----------------------------------------------------------------------------------------------------


@st.composite
def packable(draw: st.DrawFn) -> tuple[Layout, np.ndarray[Any, Any], np.ndarray[Any, Any], list[Column]]:
    """A layout, and rows of it: times and columns of any dtype, with nulls and all of Unicode."""
    dtypes = tuple(draw(st.lists(st.sampled_from(list(Dtype)), max_size=5)))
    names = tuple(draw(st.lists(st.text(max_size=4), min_size=len(dtypes), max_size=len(dtypes), unique=True)))
    n = draw(st.integers(1, 5))
    event, created = (np.array(draw(st.lists(TIMES, min_size=n, max_size=n)), dtype=np.int64) for _ in range(2))
    return Layout(names, dtypes), event, created, [draw(columns(dtype, rows=n)) for dtype in dtypes]


@given(packable(), TIMES)
def test_a_packed_row_is_read_back_bit_for_bit(made: Any, available: int) -> None:
    """Every dtype, null, NaN, text and time goes through the bytes unchanged; absent values come back as null."""
    layout, event, created, features = made
    packed = pack(layout, event, created, available, features)
    got = unpack(layout, packed)
    assert got.event.tolist() == event.tolist()
    assert got.created.tolist() == created.tolist()
    assert got.available.tolist() == [available] * len(event)
    assert list(got.features) == list(layout.names)
    for name, feature in zip(layout.names, features, strict=True):
        null = np.where(feature.present, np.uint8(Status.PRESENT), np.uint8(Status.NULL))
        assert_same_bits(got.features[name], Column(feature.dtype, feature.values, null))


@given(packable())
def test_one_row_packs_to_the_same_bytes_as_many(made: Any) -> None:
    """A row's bytes do not depend on the rows beside it."""
    layout, event, created, features = made
    together = pack(layout, event, created, 5, features)
    for i in range(len(event)):
        row = np.array([i])
        assert pack(layout, event[row], created[row], 5, [f.take(row) for f in features]) == [together[i]]


@given(packable(), st.data())
def test_a_row_that_is_cut_off_or_too_long_is_refused(made: Any, data: st.DataObject) -> None:
    """No beginning of a packed row is a packed row, and nothing may follow it."""
    layout, event, created, features = made
    row = pack(layout, event, created, 0, features)[0]
    for torn in (row[: data.draw(st.integers(0, len(row) - 1))], row + b"\0"):
        with pytest.raises(LayoutError, match="packed row: expected"):
            unpack(layout, [torn])


def test_the_bytes_of_a_row_are_those_that_are_documented() -> None:
    """A change of the format would strand every store that was written before it."""
    layout = Layout(("a", "b", "c"), (Dtype.INT64, Dtype.STRING, Dtype.BOOL))
    row = pack(
        layout,
        np.array([1]),
        np.array([NO_TIME]),
        2,
        [column(Dtype.INT64, [-2]), column(Dtype.STRING, ["é"]), column(Dtype.BOOL, [None])],
    )[0]
    assert row[:1] == b"\x01"
    assert row[1:9] == layout.digest == bytes.fromhex("5c1446f3ce87b714")
    assert row[9:17] == struct.pack(">Q", 2**63 + 1)
    assert row[17:25] == bytes(8)
    assert row[25:33] == struct.pack("<q", 2)
    assert row[33:] == b"\0\0\1" + struct.pack("<q", -2) + struct.pack("<I", 2) + b"\0" + "é".encode()


def test_a_text_that_is_none_is_refused() -> None:
    """Bytes that are no UTF-8 are no value."""
    layout = Layout(("a",), (Dtype.STRING,))
    row = pack(layout, np.array([1]), np.array([1]), 0, [column(Dtype.STRING, ["é"])])[0]
    with pytest.raises(LayoutError, match=r"packed row: a is no UTF-8"):
        unpack(layout, [row[:-1] + b"\xff"])


@given(st.lists(st.tuples(TIMES, TIMES), min_size=2, max_size=8))
def test_the_bytes_of_times_sort_as_the_times_do(times: list[tuple[int, int]]) -> None:
    """(event, created) as plain bytes are in order, negative times and no time included."""
    layout = Layout((), ())
    event, created = (np.array([t[i] for t in times], dtype=np.int64) for i in (0, 1))
    packed = pack(layout, event, created, 0, [])
    assert sorted(range(len(times)), key=lambda i: packed[i][9:25]) == sorted(range(len(times)), key=times.__getitem__)


@given(packable(), packable())
def test_a_layout_is_identified_by_names_and_dtypes_in_order(one: Any, other: Any) -> None:
    """Two layouts have the same digest if they are the same, and each comes back from its stored text."""
    a, b = one[0], other[0]
    assert (a.digest == b.digest) == (a == b)
    assert Layout.from_json(a.to_json()) == a
    assert len(a.digest) == 8


@pytest.mark.parametrize(
    "stored", [b"", b"\xff", b"[]", b"7", b'[2,["a"],["int64"]]', b'[1,["a"],["decimal"]]', b"[1,2,3]"]
)
def test_a_stored_layout_of_another_kind_is_refused(stored: bytes) -> None:
    """What is no layout of this format is an error that says what was expected."""
    with pytest.raises(LayoutError, match="stored layout: expected format 1, got"):
        Layout.from_json(stored)


# -- keys -------------------------------------------------------------------------------------------------------------

TWO = view("v", "", {"a": Dtype.STRING, "b": Dtype.STRING}, {})
ONE = view("v", "", {"a": Dtype.INT64}, {})
SHORT = st.text(alphabet="a:0\0é", max_size=3)
ROWS_KEYS = st.one_of(
    st.tuples(SHORT, SHORT, st.tuples(SHORT, SHORT), st.just(TWO)),
    st.tuples(SHORT, SHORT, st.tuples(st.integers(-(2**63), 2**63 - 1)), st.just(ONE)),
    st.tuples(SHORT, SHORT, st.just(()), st.just(replace(TWO, keys=()))),
)


@given(ROWS_KEYS, ROWS_KEYS)
@settings(max_examples=400)
def test_no_two_rows_share_a_key(one: Any, other: Any) -> None:
    """Project, view and key values, whatever signs they hold: keys are equal only if all of them are."""
    (p, v, values, declared), (p2, v2, values2, declared2) = one, other
    key, key2 = row_key(p, replace(declared, name=v), values), row_key(p2, replace(declared2, name=v2), values2)
    same_columns = [k.dtype for k in declared.keys] == [k.dtype for k in declared2.keys]
    assert (key == key2) == ((p, v, values) == (p2, v2, values2) and same_columns)
    assert key.startswith(prefixes(p))
    assert key2.startswith(prefixes(p)) == (p == p2), "no project owns another one's keys"


@given(SHORT, SHORT, SHORT, SHORT)
def test_rows_watermarks_and_layouts_are_apart(p: str, name: str, p2: str, name2: str) -> None:
    """No kind of key is another kind's, and each belongs to its project alone."""
    rows, mark, layout = row_key(p, replace(TWO, name=name, keys=()), ()), watermark_key(p, name), layout_key(p, b"x")
    assert len({rows, mark, layout}) == 3
    assert (watermark_key(p2, name2) == mark) == ((p, name) == (p2, name2))
    for key in (rows, mark, layout):
        assert key.startswith(prefixes(p2)) == (p == p2)


def test_keys_of_many_rows_are_keys_of_each() -> None:
    """Whole columns give the same keys as single values, None where a part is missing."""
    kinds = {"a": Dtype.STRING, "b": Dtype.INT64, "c": Dtype.BOOL, "d": Dtype.TIMESTAMP, "e": Dtype.INT32}
    declared = view("v", "", kinds, {})
    values: list[list[Any]] = [["é", "", None], [2**53 + 1, -1, 3], [True, False, True], [T0, -1, 0], [5, -5, 0]]
    keys = row_keys("p", declared, [column(d, v) for d, v in zip(kinds.values(), values, strict=True)])
    singly = [row_key("p", declared, row) for row in zip(*values, strict=True) if row[0] is not None]
    assert keys == [*singly, None]


def test_a_key_of_a_float_is_refused() -> None:
    """Nobody is looked up by a number that is never quite equal."""
    with pytest.raises(LayoutError, match="view v: a key of dtype float64 cannot be looked up; use string or int64"):
        row_key("p", view("v", "", {"a": Dtype.FLOAT64}, {}), [1.5])


@given(st.binary(max_size=12))
def test_a_watermark_is_eight_bytes_or_none(value: bytes) -> None:
    """What cannot be read is no watermark."""
    expected = int.from_bytes(value, "big", signed=True) if len(value) == 8 else NO_TIME
    assert watermark_of(value) == expected
    assert watermark_of(None) == NO_TIME


# -- what a store does ------------------------------------------------------------------------------------------------


def _row(event: int, created: int = NO_TIME, text: str = "") -> bytes:
    return pack(SMALL, np.array([event]), np.array([created]), 0, [column(Dtype.STRING, [text])])[0]


SMALL = Layout(("text",), (Dtype.STRING,))


def test_a_store_gives_back_what_was_written(store: OnlineStore) -> None:
    """Values by key in the order asked for, duplicates and missing ones included, for any number of keys."""
    rows = [(b"key %d" % i, _row(i, text=f"é\0{i}")) for i in range(1700)]
    store.write(rows, {b"meta": b"\0\xff", b"empty": b""})
    asked = [*(key for key, _ in reversed(rows)), b"nobody", b"key 7", b"key 7", b"meta", b"empty"]
    expected = [*(row for _, row in reversed(rows)), None, rows[7][1], rows[7][1], b"\0\xff", b""]
    assert store.mget(asked) == expected
    assert store.mget([]) == []


def test_an_older_row_never_overwrites_a_newer_one(store: OnlineStore) -> None:
    """By event time, then by created time; a later correction does, and so does the same row written again."""
    steps: list[tuple[bytes, bool]] = [
        (_row(5, 5, "first"), True),
        (_row(4, 9, "older event"), False),
        (_row(5, 4, "earlier version"), False),
        (_row(5, 6, "correction"), True),
        (_row(5, 6, "the same times"), True),
        (_row(5, NO_TIME, "no created time"), False),
        (_row(-1, 99, "long ago"), False),
        (_row(6, NO_TIME, "newer event"), True),
    ]
    stands = None
    for row, wins in steps:
        store.write([(b"k", row)], {})
        stands = row if wins else stands
        assert store.mget([b"k"]) == [stands]


def test_the_newest_of_one_writing_stays(store: OnlineStore) -> None:
    """The same key several times in one writing, in any order."""
    store.write([(b"k", _row(t, text=str(t))) for t in (3, 9, 1, 7)], {})
    assert store.mget([b"k"]) == [_row(9, text="9")]


def test_meta_overwrites(store: OnlineStore) -> None:
    """Watermarks and layouts are not ordered by their bytes."""
    store.write([], {b"m": b"\xff" * 40})
    store.write([], {b"m": b"\0"})
    assert store.mget([b"m"]) == [b"\0"]


def test_forgetting_a_project_leaves_the_others_alone(store: OnlineStore) -> None:
    """Not the one whose name begins alike, nor one that a pattern would match."""
    projects = ["p", "p2", "p:q", "", "*", "[p]", "p\\", "é"]
    keys = {p: [row_key(p, TWO, ("a", "b")), watermark_key(p, "v"), layout_key(p, SMALL.digest)] for p in projects}
    store.write([(keys[p][0], _row(1)) for p in projects], {k: b"x" for p in projects for k in keys[p][1:]})
    for i, forgotten in enumerate(projects):
        store.clear(forgotten)
        for j, p in enumerate(projects):
            assert [v is None for v in store.mget(keys[p])] == [j <= i] * 3, (forgotten, p)


def test_two_threads_that_write_leave_the_newest_row(store_url: str) -> None:
    """Whoever writes last, no row is older than one that was written; meta is one writer's, whole."""
    keys = [b"key %d" % i for i in range(40)]

    def work(offset: int) -> None:
        with closing(open_store(store_url)) as own:
            for t in range(60):
                event = (t * 37 + offset * 11) % 60
                own.write([(key, _row(event, offset, f"{event}-{offset}")) for key in keys], {b"m": b"%d" % offset})

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with closing(open_store(store_url)) as reader:
        assert reader.mget(keys) == [_row(59, 1, "59-1")] * len(keys)
        assert reader.mget([b"m"]) in ([b"0"], [b"1"])


WRITER = """
import json, sys
from skewguard.online import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    store.write([(bytes.fromhex(key), bytes.fromhex(row)) for key, row in json.loads(line)], {})
"""


def test_processes_that_write_at_once_leave_the_newest_rows(store_url: str) -> None:
    """Several writers, the same keys in batches of any order: of each key the greatest (event, created) stays, and a
    reader who looks on never sees time run backwards."""
    draw, keys = random.Random(7), [b"key %d" % i for i in range(12)]
    versions = [(event, created) for event in range(6) for created in (NO_TIME, 1, 2)]
    writings = [(key, event, created) for key in keys for event, created in versions for _ in range(4)]
    draw.shuffle(writings)
    rows = [(key.hex(), _row(event, created, f"{event} {created}").hex()) for key, event, created in writings]
    command, pipe = [sys.executable, "-c", WRITER, store_url], subprocess.PIPE
    root = Path(__file__).resolve().parents[1]
    writers = [subprocess.Popen(command, cwd=root, text=True, stdin=pipe, stdout=pipe) for _ in range(3)]
    seen: dict[bytes, list[bytes]] = {key: [] for key in keys}
    with closing(open_store(store_url)) as reader, ExitStack() as stack:
        for writer in writers:
            stack.enter_context(writer)
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for own, writer in enumerate(writers):
            assert writer.stdin is not None
            mine = rows[own :: len(writers)]
            writer.stdin.writelines(json.dumps(mine[at : at + 5]) + "\n" for at in range(0, len(mine), 5))
            writer.stdin.close()
        while any(writer.poll() is None for writer in writers):
            for key, value in zip(keys, reader.mget(keys), strict=True):
                seen[key] += [value[9:25]] if value else []
            time.sleep(0.002)
        assert [writer.returncode for writer in writers] == [0] * len(writers)
        assert reader.mget(keys) == [_row(5, 2, "5 2")] * len(keys)
    assert all(times == sorted(times) for times in seen.values())


@pytest.mark.redis
@given(st.tuples(TIMES, TIMES), st.tuples(TIMES, TIMES))
@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
def test_redis_orders_rows_as_their_times_are_ordered(
    redis_url: str, one: tuple[int, int], other: tuple[int, int]
) -> None:
    """Over all of 64 bits, negative times and no time included, and as SQLite does."""
    expected = _row(*max(one, other), "second" if other >= one else "first")
    for url in (redis_url, "sqlite::memory:"):
        with closing(open_store(url)) as store:
            store.clear("shop")
            key = row_key("shop", TWO, ("a", "b"))
            store.write([(key, _row(*one, "first")), (key, _row(*other, "second"))], {})
            assert store.mget([key]) == [expected], url


# -- answers ----------------------------------------------------------------------------------------------------------

DECLARED = view("buyer", "", {"buyer_id": Dtype.INT64}, BUYER, ttl_us=HOUR)
SHOP = bundle(DECLARED)
FULL: dict[str, Any] = {
    "spent": 0.1,
    "score": 0.5,
    "visits": 2**53 + 1,
    "level": -7,
    "active": True,
    "city": "東京",
    "seen": T0,
}


def put(
    store: OnlineStore,
    rows: Sequence[tuple[int, int, int, dict[str, Any]]],
    declared: View = DECLARED,
    *,
    watermark: int | None = T0,
) -> None:
    """Write rows of (buyer, event, created, features), their layout, and the view's watermark."""
    layout = Layout.of(declared)
    meta = {layout_key("shop", layout.digest): layout.to_json()}
    if watermark is not None:
        meta[watermark_key("shop", declared.name)] = struct.pack(">q", watermark)
    made = [(row_key("shop", declared, [who]), packed(declared, event, at, values)) for who, event, at, values in rows]
    store.write(made, meta)


def packed(declared: View, event: int, created: int, features: dict[str, Any]) -> bytes:
    """One packed row; features that are not given are null."""
    made = [column(f.dtype, [features.get(f.name)]) for f in declared.features]
    return pack(Layout.of(declared), np.array([event]), np.array([created]), T0, made)[0]


def asks(*who: int | None, as_of: int = T0) -> Spine:
    """Asks about buyers at one instant."""
    return spine([as_of] * len(who), {"buyer_id": column(Dtype.INT64, who)})


def lookup(store: OnlineStore, asked: Spine, made: Bundle = SHOP) -> ViewRows:
    """The answers of the view `buyer`."""
    return Lookup(made, store).answer(asked)["buyer"]


def names(column: Column) -> list[str]:
    """Statuses of a column by name."""
    return [Status(code).name.lower() for code in column.status.tolist()]


def test_an_answer_tells_apart_why_there_is_no_value(store: OnlineStore) -> None:
    """Present, null, expired, future and not found; times named where there is a row, duplicates and order kept."""
    put(
        store,
        [
            (1, T0, T0 - 5, FULL),
            (2, T0 - HOUR, NO_TIME, {"visits": 1}),
            (3, T0 - HOUR - 1, T0, FULL),
            (4, T0 + 1, T0, FULL),
        ],
    )
    got = lookup(store, asks(4, 1, None, 3, 404, 2, 1))
    assert statuses(got) == ["future", "present", "not_found", "expired", "not_found", "present", "present"]
    assert names(got.features["spent"]) == [
        "future",
        "present",
        "not_found",
        "expired",
        "not_found",
        "null",
        "present",
    ]
    assert plain(got.features["visits"]) == [None, 2**53 + 1, None, None, None, 1, 2**53 + 1]
    assert got.event.tolist() == [T0 + 1, T0, NO_TIME, T0 - HOUR - 1, NO_TIME, T0 - HOUR, T0]
    assert got.created.tolist() == [T0, T0 - 5, NO_TIME, T0, NO_TIME, NO_TIME, T0 - 5]
    assert got.watermark.tolist() == [T0] * 7
    assert {name: plain(feature)[1] for name, feature in got.features.items()} == FULL


def test_no_asks_get_no_answers(store: OnlineStore) -> None:
    """An empty spine is answered with empty columns."""
    put(store, [])
    got = lookup(store, asks())
    assert len(got.status) == len(got.features["city"]) == 0


def test_many_asks_are_answered_from_one_reading(store: OnlineStore) -> None:
    """More asks than fit a statement, each at its place."""
    put(store, [(i, T0, T0, {"visits": i}) for i in range(0, 1500, 2)])
    got = lookup(store, asks(*range(1500)))
    assert plain(got.features["visits"]) == [None if i % 2 else i for i in range(1500)]


def test_a_view_without_keys_and_a_renamed_key(store: OnlineStore) -> None:
    """One row for all asks; and a key that asks call otherwise."""
    globe = view("globe", "", {}, {"rate": Dtype.FLOAT64})
    road = view("road", "", {"src": Dtype.STRING, "dst": Dtype.STRING}, {"toll": Dtype.INT64}, asks={"src": "origin"})
    store.write(
        [
            (row_key("shop", globe, []), packed(globe, T0, T0, {"rate": 1.5})),
            (row_key("shop", road, ["b", "a"]), packed(road, T0, T0, {"toll": 3})),
        ],
        {},
    )
    keys = {"origin": column(Dtype.STRING, ["a", "b", None]), "dst": column(Dtype.STRING, ["b", "a", "b"])}
    got = Lookup(bundle(globe, road), store).answer(spine([T0, T0, T0 - 1], keys))
    assert statuses(got["globe"]) == ["present", "present", "future"]
    assert plain(got["globe"].features["rate"]) == [1.5, 1.5, None]
    assert [key.column for key in road.keys] == ["dst", "src"]
    assert plain(got["road"].features["toll"]) == [3, None, None]


def test_an_older_layout_is_decoded(store: OnlineStore) -> None:
    """Features that were added since were not found then, removed ones are left, widened ones take their values."""
    changed = {"visits": Dtype.INT32, "spent": Dtype.FLOAT32}
    kept = [replace(f, dtype=changed.get(f.name, f.dtype)) for f in reversed(DECLARED.features) if f.name != "city"]
    removed = replace(DECLARED.features[0], name="gone", dtype=Dtype.STRING)
    older = replace(DECLARED, features=(*kept, removed))
    put(store, [(1, T0, T0, {"visits": 7, "spent": 0.5, "gone": "x", "level": 3}), (2, T0, T0, {})], older)
    put(store, [(3, T0, T0, FULL)])
    got = lookup(store, asks(1, 2, 3, 4))
    assert statuses(got) == ["present", "present", "present", "not_found"]
    assert list(got.features) == list(BUYER)
    assert plain(got.features["visits"]) == [7, None, 2**53 + 1, None]
    assert got.features["visits"].dtype is Dtype.INT64
    assert plain(got.features["spent"]) == [0.5, None, 0.1, None]
    assert plain(got.features["level"]) == [3, None, -7, None]
    assert names(got.features["city"]) == ["not_found", "not_found", "present", "not_found"]


def test_a_value_that_no_longer_fits_is_an_error_of_its_own(store: OnlineStore) -> None:
    """Where a dtype was narrowed, what does not fit is an error, and the rows beside it are answered."""
    wider = replace(
        DECLARED, features=tuple(replace(f, dtype=Dtype.INT64) if f.name == "level" else f for f in DECLARED.features)
    )
    put(store, [(1, T0, T0, {"level": 2**31, "visits": 1}), (2, T0, T0, {"level": 5}), (3, T0, T0, {})], wider)
    together = lookup(store, asks(1, 2, 3))
    assert names(together.features["level"]) == ["error", "present", "null"]
    assert plain(together.features["level"]) == [None, 5, None]
    assert plain(together.features["visits"]) == [1, None, None]
    for i, who in enumerate((1, 2, 3)):
        assert_same_bits(lookup(store, asks(who)).features["level"], together.features["level"].take(np.array([i])))


def _errors(store: OnlineStore, value: bytes) -> None:
    """Of two rows, one of which holds `value`, that one is an error without a value and the other is answered."""
    put(store, [(2, T0, T0, FULL)])
    store.write([], {row_key("shop", DECLARED, [1]): value})
    got = lookup(store, asks(1, 2, 3))
    assert statuses(got) == ["error", "present", "not_found"], value
    assert got.event.tolist() == [NO_TIME, T0, NO_TIME]
    for name, feature in got.features.items():
        assert names(feature) == ["error", "present", "not_found"]
        assert plain(feature) == [None, FULL[name], None]
    assert statuses(lookup(store, asks(1))) == ["error"]


def test_a_torn_row_is_an_error_wherever_it_is_cut(store: OnlineStore) -> None:
    """No beginning of a row, however long, gives a value; nor does a row with something behind it."""
    row = packed(DECLARED, T0, T0, FULL)
    for cut in range(len(row)):
        _errors(store, row[:cut])
    _errors(store, row + b"\0")


def test_bytes_that_no_layout_explains_are_an_error(store: OnlineStore) -> None:
    """Another format, an unknown layout, text that is none: status error, never a guess."""
    row = packed(DECLARED, T0, T0, FULL)
    for value in (b"\x02" + row[1:], b"\x00" + row[1:], row[:1] + b"12345678" + row[9:], b"{}", b"\x01"):
        _errors(store, value)
    _errors(store, row[:-2] + b"\xff\xff")


@pytest.mark.parametrize("stored", [b"[]", b"\xff", Layout(("spent",), (Dtype.FLOAT64,)).to_json()])
def test_a_stored_layout_that_is_another_one_explains_nothing(store: OnlineStore, stored: bytes) -> None:
    """A layout counts when its own digest is the one that the row names."""
    other = replace(DECLARED, features=DECLARED.features[:3])
    put(store, [(1, T0, T0, {"visits": 1})], other)
    assert statuses(lookup(store, asks(1))) == ["present"]
    store.write([], {layout_key("shop", Layout.of(other).digest): stored})
    assert statuses(lookup(store, asks(1))) == ["error"]


def test_a_layout_that_appears_later_is_understood(store: OnlineStore) -> None:
    """What was unknown is asked for again, until it is known."""
    other = replace(DECLARED, features=DECLARED.features[:3])
    reader = Lookup(SHOP, store)
    store.write([(row_key("shop", DECLARED, [1]), packed(other, T0, T0, {"visits": 1}))], {})
    assert statuses(reader.answer(asks(1))["buyer"]) == ["error"]
    put(store, [], other)
    assert statuses(reader.answer(asks(1))["buyer"]) == ["present"]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=8))
@settings(deadline=None, max_examples=25)
def test_one_ask_and_many_asks_get_the_same_bits(rows: list[tuple[int, int, int]]) -> None:
    """Whatever lies in the store, sound or torn, of whichever layout, an answer does not depend on its neighbours."""
    older = replace(DECLARED, features=DECLARED.features[2:5])
    with closing(open_store("sqlite::memory:")) as store:
        put(store, [], older)
        put(store, [])
        for buyer, age, kind in rows:
            row = packed((DECLARED, older, DECLARED)[kind], T0 - age * HOUR // 2, T0, FULL)
            store.write([(row_key("shop", DECLARED, [buyer]), row[:-1] if kind == 2 else row)], {})
        reader = Lookup(SHOP, store)
        together = reader.answer(asks(1, 2, 3, None))["buyer"]
        for i, who in enumerate((1, 2, 3, None)):
            alone, row_of = reader.answer(asks(who))["buyer"], together.take(np.array([i]))
            assert alone.status.tolist() == row_of.status.tolist()
            assert alone.event.tolist() == row_of.event.tolist()
            for name in BUYER:
                assert_same_bits(alone.features[name], row_of.features[name])


def test_a_store_is_ready_when_every_view_was_written(store: OnlineStore) -> None:
    """Without a watermark that can be read, a view was never materialized."""
    other = view("globe", "", {}, {"rate": Dtype.FLOAT64})
    reader = Lookup(bundle(DECLARED, other), store)
    put(store, [])
    for mark in (None, b"torn"):
        if mark is not None:
            store.write([], {watermark_key("shop", "globe"): mark})
        with pytest.raises(StoreUnavailable, match="view globe was never materialized to"):
            reader.ready()
        assert reader.answer(asks(1))["globe"].watermark.tolist() == [NO_TIME]
    put(store, [], other)
    reader.ready()


@pytest.mark.redis
def test_both_stores_hold_the_same_bytes(tmp_path: Path, redis_store_url: str) -> None:
    """What is written to one is, byte for byte, what is written to the other; and so are the answers."""
    held, answers = [], []
    keys = [row_key("shop", DECLARED, [i]) for i in range(9)]
    keys += [watermark_key("shop", "buyer"), layout_key("shop", Layout.of(DECLARED).digest)]
    for url in (f"sqlite:{tmp_path / 'x.db'}", redis_store_url):
        with closing(open_store(url)) as store:
            for t in (5, 3, 9):
                put(store, [(i, T0 + (t * i) % 7, T0, FULL | {"visits": t}) for i in range(8)])
            held.append(store.mget(keys))
            answers.append(lookup(store, asks(*range(9), as_of=T0 + 3)))
    assert held[0] == held[1]
    assert [v is None for v in held[0]] == [False] * 8 + [True, False, False]
    assert answers[0].status.tolist() == answers[1].status.tolist()
    for name in BUYER:
        assert_same_bits(answers[0].features[name], answers[1].features[name])


# -- a store that is not there ----------------------------------------------------------------------------------------


def every_way(store: OnlineStore) -> list[Any]:
    """Everything that asks something of a store."""
    return [
        lambda: store.mget([b"k"]),
        lambda: store.mget([b"k%d" % i for i in range(1200)]),
        lambda: store.write([(b"k", _row(1))], {b"m": b"x"}),
        lambda: store.write([], {b"m": b"x"}),
        lambda: store.clear("shop"),
        lambda: Lookup(SHOP, store).answer(asks(1)),
        lambda: Lookup(SHOP, store).ready(),
    ]


def assert_gone(store: OnlineStore, within: float) -> None:
    """Each call raises `StoreUnavailable` that names the store, soon."""
    for call in every_way(store):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="online store "):
            call()
        assert time.monotonic() - began < within


@pytest.mark.parametrize("url", ["", "memory", "http://x", "sqlite", "postgres://x"])
def test_an_unknown_kind_of_store_is_refused(url: str) -> None:
    """The error says which kinds there are."""
    with pytest.raises(StoreUnavailable, match="expected sqlite:PATH or redis://HOST:PORT, got"):
        open_store(url)


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    """A folder, and a file of another format."""
    (tmp_path / "other.db").write_bytes(b"no database" * 100)
    for path in (tmp_path, tmp_path / "other.db", tmp_path / "other.db" / "below.db"):
        with pytest.raises(StoreUnavailable, match=f"online store sqlite:{path}: cannot be opened"):
            open_store(f"sqlite:{path}")


def test_a_closed_store_is_unavailable(tmp_path: Path) -> None:
    """Every question to it says so."""
    store = open_store(f"sqlite:{tmp_path / 'x.db'}")
    put(store, [(1, T0, T0, FULL)])
    store.close()
    assert_gone(store, within=1.0)


def test_a_store_whose_table_went_away_is_unavailable(tmp_path: Path) -> None:
    """A database that somebody emptied under the service is no store without rows."""
    store = open_store(f"sqlite:{tmp_path / 'x.db'}")
    put(store, [(1, T0, T0, FULL)])
    with closing(sqlite3.connect(tmp_path / "x.db")) as other:
        other.execute("DROP TABLE rows")
        other.commit()
    assert_gone(store, within=1.0)
    store.close()


def test_a_writer_that_is_kept_waiting_gives_up_and_loses_nothing(tmp_path: Path) -> None:
    """While another process writes, readers read; a writer says that nothing was written, and may try again."""
    store = open_store(f"sqlite:{tmp_path / 'x.db'}")
    store._con.execute("PRAGMA busy_timeout = 50")  # type: ignore[attr-defined]
    put(store, [(1, T0, T0, FULL)])
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="nothing was written: database is locked"):
            put(store, [(1, T0 + 1, T0, FULL)])
        assert statuses(lookup(store, asks(1))) == ["present"]
        other.execute("ROLLBACK")
    put(store, [(1, T0 + 1, T0, FULL)])
    assert statuses(lookup(store, asks(1))) == ["future"]
    store.close()


def test_a_failed_writing_leaves_no_part_of_it(tmp_path: Path) -> None:
    """Rows and watermark are one transaction: a reader that sees one sees the other."""
    store = open_store(f"sqlite:{tmp_path / 'x.db'}")
    broken: Any = [(b"a", _row(1)), (b"b", object())]
    with pytest.raises(StoreUnavailable, match="nothing was written"):
        store.write(broken, {b"m": b"x"})
    assert store.mget([b"a", b"m"]) == [None, None]
    store.write([(b"a", _row(1))], {b"m": b"x"})
    assert store.mget([b"m"]) == [b"x"]
    store.close()


@contextmanager
def own_redis(folder: Path, port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Redis server to do harm to."""
    command = [str(_redis_server()), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    log = folder / "own.log"
    with log.open("ab") as out:
        process = subprocess.Popen([*command, *options], stdout=out, stderr=out)
    try:
        if port:
            _wait_until_it_answers(f"redis://127.0.0.1:{port}/0", process, log)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.wait()


@pytest.mark.usefixtures("redis_url")
def test_a_password_is_asked_for_and_a_changed_one_is_an_error(tmp_path: Path) -> None:
    """User and password stand in the URL; a wrong one is refused without a word about the right one."""
    import redis

    port = _free_port()
    with own_redis(tmp_path, port):
        with redis.Redis(port=port) as client:
            client.config_set("requirepass", "p@ss/word")
        url = f"redis://default:p%40ss%2Fword@127.0.0.1:{port}/0"
        with closing(open_store(url)) as store:
            store.write([(b"k", _row(1))], {})
            assert store.mget([b"k"]) == [_row(1)]
            assert "word" not in store.url
            with redis.Redis(port=port, password="p@ss/word") as client:
                client.config_set("requirepass", "another")
                client.client_kill_filter(_type="normal", skipme=True)
            with pytest.raises(StoreUnavailable) as caught:
                store.mget([b"k"])
            assert "word" not in str(caught.value).replace("password", "")
        for wrong in (f"redis://:wrong@127.0.0.1:{port}/0", f"redis://127.0.0.1:{port}/0"):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                open_store(wrong)


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    secret.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return cert, secret


@pytest.mark.usefixtures("redis_url")
def test_rediss_is_tls_and_checks_the_certificate(tmp_path: Path) -> None:
    """With the authority in the URL it answers; without it, and without TLS, nothing is sent."""
    cert, key = _certificate(tmp_path)
    port = _free_port()
    options = ["--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key)]
    with own_redis(tmp_path, 0, *options, "--tls-ca-cert-file", str(cert), "--tls-auth-clients", "no") as server:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={cert}"
        store = None
        for _ in range(200):
            if server.poll() is not None:
                pytest.skip("this Redis server was built without TLS")
            with suppress(StoreUnavailable):
                store = open_store(url)
                break
            time.sleep(0.02)
        assert store is not None
        with closing(store):
            store.write([(b"k", _row(1))], {})
            assert store.mget([b"k"]) == [_row(1)]
        for other in (f"rediss://127.0.0.1:{port}/0", f"redis://127.0.0.1:{port}/0"):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                open_store(other)


@pytest.mark.usefixtures("redis_url")
def test_a_redis_that_stalls_dies_or_comes_back_empty_is_never_a_null(tmp_path: Path) -> None:
    """A stalled and a killed server are errors within the deadline; an empty one says that nothing was written."""
    port = _free_port()
    with own_redis(tmp_path, port) as server:
        store = RedisStore(f"redis://127.0.0.1:{port}/0", deadline=0.1)
        put(store, [(1, T0, T0, FULL)])
        reader = Lookup(SHOP, store)
        assert statuses(reader.answer(asks(1))["buyer"]) == ["present"]
        server.send_signal(signal.SIGSTOP)
        assert_gone(store, within=1.0)
        server.send_signal(signal.SIGCONT)
        time.sleep(0.3)  # until the breaker lets somebody try
        assert statuses(reader.answer(asks(1))["buyer"]) == ["present"]
        server.kill()
        server.wait()
        assert_gone(store, within=1.0)
    with own_redis(tmp_path, port):
        time.sleep(0.3)
        with pytest.raises(StoreUnavailable, match="view buyer was never materialized"):
            reader.ready()
        assert reader.answer(asks(1))["buyer"].watermark.tolist() == [NO_TIME]
        put(store, [(1, T0, T0, FULL)])
        assert statuses(reader.answer(asks(1))["buyer"]) == ["present"]
        store.close()


@pytest.mark.usefixtures("redis_url")
def test_who_waits_for_a_stalled_redis_blocks_nobody_behind_them(tmp_path: Path) -> None:
    """After three deadlines nobody is asked for a moment: a hundred questions cost nothing, and then it answers."""
    port = _free_port()
    with own_redis(tmp_path, port) as server:
        store = RedisStore(f"redis://127.0.0.1:{port}/0", deadline=0.1)
        server.send_signal(signal.SIGSTOP)
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                store.mget([b"k"])
        began, behind = time.monotonic(), 0
        while time.monotonic() - began < 0.2:
            with pytest.raises(StoreUnavailable, match="did not answer 3 times in a row"):
                store.mget([b"k"])
            behind += 1
        assert behind > 100
        server.send_signal(signal.SIGCONT)
        time.sleep(0.3)
        assert store.mget([b"k"]) == [None]
        store.close()


@pytest.mark.usefixtures("redis_url")
def test_a_writing_that_a_dying_redis_cuts_short_is_an_error(tmp_path: Path) -> None:
    """The writer is told that not everything was written, soon and not by way of a crash."""
    port = _free_port()
    many = [(b"key %d" % i, _row(i, text="x" * 2000)) for i in range(20_000)]
    with own_redis(tmp_path, port) as server:
        store = RedisStore(f"redis://127.0.0.1:{port}/0", deadline=0.5)

        def write_on() -> None:
            for _ in range(100):
                store.write(many, {b"m": b"all"})

        killer = threading.Timer(0.05, server.kill)
        killer.start()
        with pytest.raises(StoreUnavailable, match="not everything was written"):
            write_on()
        killer.join()
        store.close()


def test_a_redis_that_is_not_there_is_refused_without_its_password() -> None:
    """The address stands in the error, the password does not."""
    with socket.socket() as taken:  # bound, not listening: nobody answers
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(StoreUnavailable) as caught:
            open_store(f"redis://me:secret@127.0.0.1:{port}/0?password=secret")
    assert str(caught.value).startswith(f"online store redis://127.0.0.1:{port}/0: does not answer: ")
    assert "secret" not in str(caught.value)


@pytest.mark.redis
def test_a_redis_key_of_another_kind_is_an_error(redis_store_url: str) -> None:
    """A list where a row should be is nobody's null."""
    import redis

    with redis.Redis.from_url(redis_store_url) as client:
        client.lpush(watermark_key("shop", "buyer").decode(), "x")
    with closing(open_store(redis_store_url)) as store:
        assert lookup(store, asks(1)).watermark.tolist() == [NO_TIME]
        with pytest.raises(StoreUnavailable, match="not everything was written"):
            store.write([(watermark_key("shop", "buyer"), _row(1))], {})


def test_the_stored_layout_is_readable() -> None:
    """Plain JSON: format, names and dtypes in order, and the definition's fingerprint."""
    said = [1, list(BUYER), [str(dtype) for dtype in BUYER.values()], definition_of(DECLARED)]
    assert json.loads(Layout.of(DECLARED).to_json()) == said
