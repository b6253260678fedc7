"""Online: packed rows behind one `mget`, the same bytes on SQLite (embedded default) and Redis.

`open_store` opens a store by URL, `open_lookup` what answers asks from one; `Publisher`: `workflows.materialize`.
"""

from skewguard.online.keys import row_key
from skewguard.online.layout import Layout, pack
from skewguard.online.lookup import Lookup
from skewguard.online.opening import open_lookup
from skewguard.online.store import OnlineStore, open_store

__all__ = ["Layout", "Lookup", "OnlineStore", "open_lookup", "open_store", "pack", "row_key"]
