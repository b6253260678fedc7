"""The offline store plugin: Feast's historical retrieval through the one join. In feature_store.yaml:

    offline_store:
      type: skewguard.offline.feast.SkewguardOfflineStore

See docs/feast-offline-store.md.
"""

from skewguard.offline.feast.store import SkewguardOfflineStore, SkewguardOfflineStoreConfig

__all__ = ["SkewguardOfflineStore", "SkewguardOfflineStoreConfig"]
