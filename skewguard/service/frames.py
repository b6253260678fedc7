"""The flat form of an answered micro-batch as a frame's message, straight from its columns; see `answer.to_batch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewguard.answer import Served
from skewguard.definitions import Bundle, View
from skewguard.servinglog.message import Filled, Form, Message
from skewguard.spine import ViewRows
from skewguard.values import NO_TIME, Block, Column, Dtype


class Frames:
    """Writes the messages of one bundle. `schema` is `answer.schema(bundle)`, with the client's column if logged."""

    def __init__(self, bundle: Bundle, schema: pa.Schema) -> None:
        self._bundle, self._form = bundle, Form(schema)

    def message(self, served: Served, statuses: npt.NDArray[np.uint8], clients: Sequence[str] | None) -> Message:
        """The rows of `served`; `statuses` (n, features of the bundle), C-contiguous; `clients` by row, if logged."""
        bundle, spine = self._bundle, served.spine
        n = len(spine)
        filled = Filled(n)
        filled.texts(spine.ids.tolist())
        filled.fixed(spine.as_of.tobytes())
        for name in bundle.keys:
            filled.column(spine.keys[name])
        for field in bundle.request:
            filled.column(spine.request[field.name])
        for view in bundle.views:
            _put_source(filled, served.views[view.name])
        for view in bundle.views:
            _put_features(filled, view, served.views[view.name].features)
        for derived in bundle.derived:
            filled.column(served.derived[derived.full_name])
        filled.fixed(statuses.tobytes())
        block = served.only_block(bundle)
        filled.lists(served.vector, block if block is not None and block.dtype is Dtype.FLOAT64 else None)
        if served.prediction is None:
            filled.fixed(bytes(8 * n), np.ones(n, dtype=bool))
        else:
            filled.fixed(served.prediction.tobytes())
        if clients is not None:
            filled.texts(list(clients))
        return self._form.message(filled)


def _put_source(filled: Filled, rows: ViewRows) -> None:
    """Which row answered, and how present it is."""
    filled.fixed(rows.status.tobytes())
    for times in (rows.event, rows.created, rows.watermark):
        gone = times == NO_TIME
        filled.fixed(times.tobytes(), gone if gone.any() else None)


def _put_features(filled: Filled, view: View, features: Mapping[str, Column]) -> None:
    if isinstance(features, Block):
        filled.block(features)
        return
    for feature in view.features:
        filled.column(features[feature.name])
