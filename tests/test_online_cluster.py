"""A Redis Cluster of three real nodes: the same answers as one server; a node that is gone takes its own keys along."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from skewguard.errors import StoreUnavailable
from skewguard.online import Layout, Lookup, OnlineStore, open_store, pack, row_key
from skewguard.online.keys import layout_key, watermark, watermark_key
from skewguard.online.redis import ClusterStore
from skewguard.online.store import UNANSWERED
from skewguard.spine import Spine
from skewguard.values import Dtype
from tests.conftest import _redis_server
from tests.worlds import T0, bundle, column, plain, spine, statuses, view

pytestmark = pytest.mark.redis

SLOTS = 16384
BUYERS = 300
BUYER = view("buyer", "", {"buyer_id": Dtype.INT64}, {"spent": Dtype.FLOAT64})
BASKET = view("basket", "", {"buyer_id": Dtype.INT64}, {"items": Dtype.INT64})
SHOP = bundle(BUYER, BASKET)


class Nodes:
    """Three servers, and the harm that can be done to them."""

    def __init__(self, folder: Path) -> None:
        self.ports = _ports(3)
        self.processes = [self._start(folder, port) for port in self.ports]

    def _start(self, folder: Path, port: int) -> subprocess.Popen[bytes]:
        own = folder / str(port)
        own.mkdir()
        options = ["--bind", "127.0.0.1", "--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", "400"]
        options += ["--cluster-require-full-coverage", "no", "--dir", str(own), "--port", str(port)]
        with (own / "log").open("wb") as log:
            return subprocess.Popen([str(_redis_server()), *options], stdout=log)

    @property
    def url(self) -> str:
        """The cluster's address by all of its nodes."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def form(self) -> None:
        """Make a cluster of them: a third of the slots each."""
        for i, port in enumerate(self.ports):
            node: Any = redis.Redis(port=port)
            with node as client:
                _until(lambda client=client: bool(_answers(client)))  # type: ignore[misc]
                client.execute_command("CLUSTER ADDSLOTS", *range(i * SLOTS // 3, (i + 1) * SLOTS // 3))
                client.execute_command("CLUSTER MEET", "127.0.0.1", self.ports[0])
        for port in self.ports:
            with redis.Redis(port=port) as client:
                _until(lambda client=client: _whole(client))  # type: ignore[misc]

    def move(self, slot: int, keys: list[bytes], source: int, target: int) -> None:
        """Move a slot with its keys from one node to another, as `redis-cli --cluster reshard` does."""
        clients: list[Any] = [redis.Redis(port=port) for port in self.ports]
        names = [client.execute_command("CLUSTER MYID").decode() for client in clients]
        clients[target].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", names[source])
        clients[source].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", names[target])
        clients[source].execute_command("MIGRATE", "127.0.0.1", self.ports[target], "", 0, 5000, "KEYS", *keys)
        for client in (clients[target], clients[source]):
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", names[target])
            client.close()

    def stop(self) -> None:
        """End all of them."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _whole(client: Any) -> bool:
    client.set_response_callback("CLUSTER INFO", lambda raw, **_: raw)
    info = client.execute_command("CLUSTER INFO").decode()
    return "cluster_state:ok" in info and "cluster_slots_assigned:16384" in info and "cluster_known_nodes:3" in info


def _until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _ports(n: int) -> list[int]:
    """Free ports whose bus ports (10,000 above) are free as well."""
    found: list[int] = []
    for port in range(21_000, 55_000, 7):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        found.append(port)
        if len(found) == n:
            return found
    raise AssertionError("no free ports")


@pytest.fixture
def nodes(tmp_path: Path, redis_url: str) -> Iterator[Nodes]:
    """A cluster of this test's own; `redis_url` skips where there is no server to start."""
    assert redis_url
    made = Nodes(tmp_path)
    try:
        made.form()
        yield made
    finally:
        made.stop()


def _fill(store: OnlineStore) -> None:
    rows = []
    for declared in (BUYER, BASKET):
        layout = Layout.of(declared)
        values = [column(f.dtype, list(range(BUYERS))) for f in declared.features]
        times = np.full(BUYERS, T0)
        keys = [row_key("shop", declared, [i]) for i in range(BUYERS)]
        rows += list(zip(keys, pack(layout, times, times, T0, values), strict=True))
        meta = {
            layout_key("shop", layout.digest): layout.to_json(),
            watermark_key("shop", declared.name): watermark(T0),
        }
        store.write([], meta)
    store.write(rows, {})


def _asks() -> Spine:
    return spine([T0] * (BUYERS + 1), {"buyer_id": column(Dtype.INT64, list(range(BUYERS + 1)))})


def test_a_cluster_answers_as_one_server_does_and_loses_what_a_lost_node_held(nodes: Nodes) -> None:
    """Rows of one entity lie in one slot. A stalled and a killed node cost a deadline, not nine seconds; its rows are
    errors, those of the others are answered; whoever reads a watermark has the rows behind it."""
    with closing(ClusterStore(nodes.url, deadline=0.5)) as store:
        _fill(store)
        for i in range(20):
            slots = {store._reader.keyslot(row_key("shop", declared, [i])) for declared in (BUYER, BASKET)}
            assert len(slots) == 1
        reader = Lookup(SHOP, store)
        reader.ready()
        got = reader.answer(_asks())
        assert statuses(got["buyer"]) == statuses(got["basket"]) == ["present"] * BUYERS + ["not_found"]
        assert plain(got["basket"].features["items"]) == [*range(BUYERS), None]
        older = pack(Layout.of(BUYER), np.array([T0 - 1]), np.array([T0]), T0, [column(Dtype.FLOAT64, [-1.0])])[0]
        store.write([(row_key("shop", BUYER, [i]), older) for i in range(BUYERS)], {})
        assert plain(reader.answer(_asks())["buyer"].features["spent"])[:3] == [0.0, 1.0, 2.0]

        nodes.processes[1].send_signal(signal.SIGSTOP)
        _lost_a_part(reader, within=4)
        nodes.processes[1].send_signal(signal.SIGCONT)
        _until(lambda: statuses(reader.answer(_asks())["buyer"]) == ["present"] * BUYERS + ["not_found"])

        nodes.processes[1].kill()
        nodes.processes[1].wait()
        _lost_a_part(reader, within=4)
        began = time.monotonic()
        for _ in range(20):
            _lost_a_part(reader, within=4)
        assert time.monotonic() - began < 10
        with pytest.raises(StoreUnavailable, match="not everything was written"):
            _fill(store)
        for process in (nodes.processes[0], nodes.processes[2]):
            process.kill()
            process.wait()
        with pytest.raises(StoreUnavailable, match=r"online store redis\+cluster://.*no node answers"):
            reader.answer(_asks())
    with pytest.raises(StoreUnavailable, match="does not answer"):
        open_store(nodes.url)


def _lost_a_part(reader: Lookup, within: float) -> None:
    began = time.monotonic()
    got = reader.answer(_asks())
    assert time.monotonic() - began < within
    said = statuses(got["buyer"])[:-1]
    assert said == statuses(got["basket"])[:-1]  # an entity is lost whole
    assert set(said) == {"present", "error"}
    assert 50 < said.count("error") < 150
    for value, status in zip(plain(got["buyer"].features["spent"]), said, strict=False):
        assert (value is None) == (status == "error")


def test_a_slot_that_moves_is_followed_and_the_newest_of_one_writing_stays(nodes: Nodes) -> None:
    """A reader and a writer whose map is old learn where the slot went, within the same question."""
    with closing(ClusterStore(nodes.url, deadline=2.0)) as store:
        _fill(store)
        reader = Lookup(SHOP, store)
        keys = [row_key("shop", declared, [7]) for declared in (BUYER, BASKET)]
        slot = store._reader.keyslot(keys[0])
        source = slot * 3 // SLOTS
        for target in ((source + 1) % 3, (source + 2) % 3):
            nodes.move(slot, keys, source, target)
            got = reader.answer(_asks())
            assert statuses(got["buyer"]) == statuses(got["basket"]) == ["present"] * BUYERS + ["not_found"]
            source = target
        nodes.move(slot, keys, source, (source + 1) % 3)
        times = [T0 + 5, T0 + 9, T0 + 1, T0 + 7]
        rows = [
            pack(Layout.of(BUYER), np.array([t]), np.array([t]), T0, [column(Dtype.FLOAT64, [float(t - T0)])])[0]
            for t in times
        ]
        store.write([(keys[0], row) for row in rows], {})
        assert store.mget([keys[0]]) == [rows[1]]


def test_a_cluster_forgets_views_and_projects(nodes: Nodes) -> None:
    """Wherever their keys lie; and hashes are read from it in one go."""
    with closing(open_store(nodes.url)) as store:
        _fill(store)
        store.forget("shop", "buyer")
        got = Lookup(SHOP, store).answer(_asks())
        assert set(statuses(got["buyer"])) == {"not_found"}
        assert statuses(got["basket"]) == ["present"] * BUYERS + ["not_found"]
        assert store.delete([row_key("shop", BASKET, [i]) for i in (0, 1, BUYERS)]) == 2
        store.clear("shop")
        assert set(statuses(Lookup(SHOP, store).answer(_asks())["basket"])) == {"not_found"}
        assert UNANSWERED not in store.mget([watermark_key("shop", "basket")])
        assert isinstance(store, ClusterStore)
        store._writer.hset("h", "a", "1")
        assert store.hmget([(b"h", [b"a", b"b"]), (b"other", [b"a"]), (b"h", [b"b"])]) == [[b"1", None], [None], [None]]
