"""The same packed rows as plain string values in Redis: one server, or a cluster."""

from skewguard.online.redis.cluster import ClusterStore
from skewguard.online.redis.server import DEADLINE, RedisStore

__all__ = ["DEADLINE", "ClusterStore", "RedisStore"]
