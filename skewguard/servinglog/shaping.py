"""What happens to rows on their way into the log: which of them are kept, and what is hidden of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from skewguard.errors import LogError
from skewguard.servinglog import privacy
from skewguard.servinglog.message import Message, Rows

INCLUSION = "inclusion"
_IDS = ("id", "request_id")
_WHOLE = 2.0**64


@dataclass(frozen=True, slots=True)
class Shaping:
    """`schema` is what is written; `sample` the share of rows that is kept, 1.0 for all."""

    schema: pa.Schema
    sample: float
    ids: str
    pii: tuple[str, ...]
    columns: tuple[str, ...]
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, schema: pa.Schema, sample: float, pii: Sequence[str], secret: bytes | None) -> Shaping:
        """Raises `LogError` where the schema has no id to sample by, or no such key to hide."""
        if not 0.0 < sample <= 1.0:
            raise LogError(f"sample: expected a share above 0 and up to 1, got {sample}.")
        if isinstance(pii, str):
            raise LogError(f"pii: expected a list of entities, got the text {pii!r}.")
        secret = privacy.secret_here() if pii and secret is None else secret
        if pii and secret is None:
            raise LogError(
                f"pii: {', '.join(pii)} cannot be hashed without a secret. Set {privacy.SECRET} (or give secret=), "
                f"{privacy.MINIMUM_BYTES} bytes or more."
            )
        if secret is not None:
            privacy.key_id(secret)
        return cls(schema, sample, "", tuple(pii), (), secret or b"").over(schema)

    def over(self, schema: pa.Schema) -> Shaping:
        """The same for rows of another schema."""
        columns = tuple(privacy.check_columns(schema, self.pii))
        if self.sample == 1.0:
            return replace(self, schema=schema, columns=columns)
        ids = next((name for name in _IDS if name in schema.names and schema.field(name).type == pa.string()), None)
        if ids is None:
            raise LogError(f"sample: the log has no text column {' or '.join(_IDS)} to sample by.")
        if INCLUSION in schema.names:
            raise LogError(f"sample: the log has a column {INCLUSION} already.")
        return replace(self, schema=schema.append(pa.field(INCLUSION, pa.float64())), ids=ids, columns=columns)

    def header(self, given: Mapping[str, str]) -> dict[str, str]:
        """The header with what a reader must know of this."""
        own = {"sample": str(self.sample)} if self.sample < 1.0 else {}
        if self.pii:
            own |= {"pii": ",".join(self.pii), "pii_key": privacy.key_id(self.secret)}
        return {**given, **own}

    def shaped(self, batch: Rows) -> Rows:
        """The rows that are written."""
        if self.sample == 1.0 and not self.columns:
            return batch
        if isinstance(batch, Message):
            batch = batch.batch()
        if self.sample < 1.0:
            kept = np.array([chosen(one, self.sample) for one in batch.column(self.ids).to_pylist()], dtype=bool)
            batch = batch if kept.all() else batch.filter(pa.array(kept))
            share = pa.array(np.full(batch.num_rows, self.sample))
            batch = pa.RecordBatch.from_arrays([*batch.columns, share], schema=self.schema)
        return privacy.hidden(batch, self.columns, self.secret) if self.columns else batch


def chosen(request_id: str | None, sample: float) -> bool:
    """Whether the row of this id is in a sample of that share: the same in every process and at every time."""
    digest = hashlib.blake2b((request_id or "").encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") < sample * _WHOLE
