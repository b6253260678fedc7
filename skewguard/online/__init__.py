"""Online: packed rows behind one `mget`, the same bytes on SQLite (embedded default) and Redis.

`open_store` opens a store by URL; `lookup` answers asks from it; `Publisher` lives in `workflows.materialize`.
"""

from skewguard.online.layout import Layout, pack, row_key
from skewguard.online.lookup import Lookup
from skewguard.online.store import OnlineStore, open_store

__all__ = ["Layout", "Lookup", "OnlineStore", "open_store", "pack", "row_key"]
