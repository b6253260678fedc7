"""Feast's online store and batch engine on packed rows.

`online_store: {type: skewguard.online.feast.SkewguardOnlineStore}` and
`batch_engine: {type: skewguard.online.feast.SkewguardEngine}` in feature_store.yaml.
"""

from skewguard.online.feast.engine import SkewguardEngine, SkewguardEngineConfig
from skewguard.online.feast.store import SkewguardOnlineStore, SkewguardOnlineStoreConfig

__all__ = ["SkewguardEngine", "SkewguardEngineConfig", "SkewguardOnlineStore", "SkewguardOnlineStoreConfig"]
