"""Packed rows in a Redis Cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry

from skewguard.errors import StoreUnavailable
from skewguard.online.keys import is_watermark
from skewguard.online.redis.server import (
    DEADLINE,
    FAILED,
    FAILURES,
    GONE,
    NEWEST,
    WRITING,
    Breaker,
    Kept,
    connecting,
    safe,
)
from skewguard.online.store import UNANSWERED

_REFRESH = 1.0


class ClusterStore(Kept):
    """A Redis Cluster. A node that is gone takes its own keys along (`UNANSWERED`), not those of the others.

    Rows of one entity lie in one slot; each slot is asked by one MGET, each node in one round trip.
    """

    def __init__(self, url: str, *, deadline: float = DEADLINE) -> None:
        self.url = safe(url)
        self._breakers: dict[str, Breaker] = {}
        self._refreshed = 0.0
        self._refreshing = threading.Lock()
        try:
            self._reader, self._writer = (_cluster(url, seconds) for seconds in (deadline, WRITING * deadline))
        except (*FAILED, ValueError, TypeError) as error:
            raise StoreUnavailable(f"online store {self.url}: does not answer: {error}") from error

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, in order. Watermarks are read first: the rows are never older than they say."""
        found: dict[bytes, bytes | None] = {}
        marks = [key for key in keys if is_watermark(key)]
        for some in (marks, [key for key in keys if not is_watermark(key)]):
            groups = list(_by_slot(self._reader, dict.fromkeys(some)).values())
            answers = self._each(self._reader, groups, lambda pipe, group: pipe.execute_command("MGET", *group))
            for group, answer in zip(groups, answers, strict=True):
                gone = isinstance(answer, Exception)
                found.update(zip(group, [UNANSWERED] * len(group) if gone else answer, strict=True))
        if found and all(value == UNANSWERED for value in found.values()):
            raise StoreUnavailable(f"online store {self.url}: no node answers for any of {len(found)} keys")
        return [found[key] for key in keys]

    def hmget(self, asked: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[list[bytes | None] | None]:
        """The fields of hashes, in order, None for a hash whose node does not answer."""
        groups = [[key, *fields] for key, fields in asked]
        answers = self._each(self._reader, groups, lambda pipe, group: pipe.execute_command("HMGET", *group))
        if answers and all(isinstance(answer, Exception) for answer in answers):
            raise StoreUnavailable(f"online store {self.url}: no node answers for any of {len(asked)} hashes")
        return [None if isinstance(answer, Exception) else answer for answer in answers]

    def write(self, rows: Sequence[tuple[bytes, bytes]], meta: Mapping[bytes, bytes]) -> None:
        """Rows slot by slot with the script of the single server, then meta."""
        values: dict[bytes, list[bytes]] = {}
        for key, value in rows:
            values.setdefault(key, []).append(value)
        groups = list(_by_slot(self._writer, values).values())

        def script(pipe: Any, group: list[bytes]) -> None:
            pairs = [(key, value) for key in group for value in values[key]]
            arguments = [key for key, _ in pairs] + [value for _, value in pairs]
            pipe.execute_command("EVAL", NEWEST, len(pairs), *arguments)

        self._all(groups, script)
        self._all([[key] for key in meta], lambda pipe, group: pipe.execute_command("SET", group[0], meta[group[0]]))

    def delete(self, keys: Sequence[bytes]) -> int:
        """Delete what stands under `keys`, wherever it lies; how many there were."""
        return sum(self._all([[key] for key in keys], lambda pipe, group: pipe.execute_command("UNLINK", *group)))

    def close(self) -> None:
        """Close the connections."""
        self._reader.close()
        self._writer.close()

    def _all(self, groups: list[list[bytes]], ask: Callable[[Any, list[bytes]], object]) -> list[Any]:
        answers = self._each(self._writer, groups, ask)
        failures = [answer for answer in answers if isinstance(answer, Exception)]
        if failures:
            raise StoreUnavailable(f"online store {self.url}: not everything was written: {failures[0]}")
        return answers

    def _each(self, cluster: Any, groups: list[list[bytes]], ask: Callable[[Any, list[bytes]], object]) -> list[Any]:
        """One command per group of keys, pipelined by node; an exception in the place of an answer."""
        answers: list[Any] = [None] * len(groups)
        left = list(range(len(groups)))
        for attempt in (0, 1):
            by_node: dict[str, list[int]] = {}
            nodes: dict[str, Any] = {}
            for i in left:
                node = _node(cluster, groups[i][0])
                nodes[node.name if node else ""] = node
                by_node.setdefault(node.name if node else "", []).append(i)
            for name, some in by_node.items():
                got = self._node(cluster, nodes[name], [groups[i] for i in some], ask)
                for i, answer in zip(some, got, strict=True):
                    answers[i] = answer
            left = [i for i in left if isinstance(answers[i], redis.exceptions.AskError)]  # MOVED is a kind of it
            if not left or attempt:
                break
            self._learn(cluster)
        if any(isinstance(answer, GONE) for answer in answers):
            self._learn_soon()
        return answers

    def _node(
        self, cluster: Any, node: Any, groups: list[list[bytes]], ask: Callable[[Any, list[bytes]], object]
    ) -> list[Any]:
        if node is None:
            return [redis.ConnectionError("no node holds the slot")] * len(groups)
        breaker = self._breakers.setdefault(node.name, Breaker())
        if breaker.open:
            return [redis.ConnectionError(f"{node.name} did not answer {FAILURES} times in a row")] * len(groups)
        try:
            pipe = cluster.get_redis_connection(node).pipeline(transaction=False)
            for group in groups:
                ask(pipe, group)
            got = list(pipe.execute(raise_on_error=False))
        except FAILED as error:
            breaker.failed()
            return [error] * len(groups)
        breaker.answered()
        return got

    def _learn(self, cluster: Any) -> None:
        """Ask the nodes anew which of them holds what."""
        try:
            cluster.nodes_manager.initialize()
        except FAILED:
            return  # what is known stays known

    def _learn_soon(self) -> None:
        """The same beside the request, at most once a second: a replica may have taken over."""
        if time.monotonic() - self._refreshed > _REFRESH and self._refreshing.acquire(blocking=False):
            self._refreshed = time.monotonic()

            def learn() -> None:
                try:
                    self._learn(self._reader)
                    self._learn(self._writer)
                finally:
                    self._refreshing.release()

            threading.Thread(target=learn, daemon=True).start()


def _cluster(url: str, seconds: float) -> Any:
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    node: Any = ClusterNode
    nodes = [node(host, int(port or 6379)) for host, _, port in (h.rpartition(":") for h in hosts.split(","))]
    options = connecting(seconds) | {"retry": Retry(NoBackoff(), 0)} | dict(parse_qsl(parts.query))
    if parts.scheme.startswith("rediss"):
        options["ssl"] = True
    if password:
        options |= {"username": unquote(name) or None, "password": unquote(password)}
    return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)


def _node(cluster: Any, key: bytes) -> Any:
    """The primary that holds a key's slot, None where the cluster has none."""
    try:
        return cluster.nodes_manager.get_node_from_slot(cluster.keyslot(key))
    except FAILED:
        return None


def _by_slot(cluster: Any, keys: Iterable[bytes]) -> dict[int, list[bytes]]:
    groups: dict[int, list[bytes]] = {}
    for key in keys:
        groups.setdefault(cluster.keyslot(key), []).append(key)
    return groups
