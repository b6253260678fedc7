"""Build B, as a team would really ship it: its new weather client speaks km/h. `python -m pipelines.faults` serves it.

Same flags, bundle, model and transforms as `python -m serving`; only the store in front of the service differs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from skewguard.cli import serve_settings
from skewguard.definitions import Bundle
from skewguard.online import Layout, OnlineStore, pack
from skewguard.online.keys import view_prefix
from skewguard.online.layout import unpack
from skewguard.service import start
from skewguard.values import Column

KMH_PER_MPH = 1.609344


class MetricWeather:
    """An online store that hands out wind speeds in km/h."""

    def __init__(self, store: OnlineStore, bundle: Bundle) -> None:
        self.url = store.url
        self._store = store
        self._layout = Layout.of(bundle.view("weather"))
        self._prefix = view_prefix(bundle.project, "weather")

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values by key; rows of weather converted."""
        values = self._store.mget(keys)
        return [
            self._convert(value) if value and key.startswith(self._prefix) else value
            for key, value in zip(keys, values, strict=True)
        ]

    def _convert(self, row: bytes) -> bytes:
        rows = unpack(self._layout, [row])
        wind = rows.features["wind_speed"]
        features = {**rows.features, "wind_speed": Column.build(wind.dtype, wind.values * KMH_PER_MPH, wind.status)}
        columns = [features[name] for name in self._layout.names]
        return pack(self._layout, rows.event, rows.created, int(rows.available[0]), columns)[0]

    def write(self, rows: Sequence[tuple[bytes, bytes]], meta: Mapping[bytes, bytes]) -> None:
        """As the store does."""
        self._store.write(rows, meta)

    def clear(self, project: str) -> None:
        """As the store does."""
        self._store.clear(project)

    def close(self) -> None:
        """As the store does."""
        self._store.close()


if __name__ == "__main__":
    start(serve_settings(sys.argv[1:]), wrap=MetricWeather)
