"""Offline: the one point-in-time join, over Parquet with DuckDB.

Training sets, replays and the online writer all read the sources through here. `rule` says what counts as known:
`known` (ours: created time <= the ask) or `feast` (created time only breaks ties).
"""

from skewguard.offline.store import OfflineStore, Rule

__all__ = ["OfflineStore", "Rule"]
