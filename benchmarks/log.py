"""What the serving log costs: appending, bytes, reading, compacting.

    python -m benchmarks.log [--quick]

Rows as wide as the flights' (27 features in six views, 64 columns), a tenth of the values null, strings of few values,
numbers of full entropy, appended as micro-batches of 1, 8 and 32. Times are CPU times of the process. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from skewguard.servinglog import ServingLog, blocks, read_log, to_table
from skewguard.servinglog.compaction import compact

VIEWS, FEATURES = 6, 27
STAMP = pa.timestamp("us", tz="UTC")
SIZES = (1, 8, 32)


def schema() -> pa.Schema:
    """The flat form of a service like the flights'."""
    fields = [pa.field("id", pa.string(), nullable=False), pa.field("event_timestamp", STAMP, nullable=False)]
    fields += [pa.field(f"e__key{i}", pa.string()) for i in range(3)] + [
        pa.field(f"q__{i}", pa.float64()) for i in range(5)
    ]
    for view in range(VIEWS):
        fields.append(pa.field(f"v{view}__status", pa.uint8(), nullable=False))
        fields += [pa.field(f"v{view}__{name}", STAMP) for name in ("event_ts", "created_ts", "watermark")]
    fields += [pa.field(f"v{i % VIEWS}__f{i}", pa.float64() if i % 5 else pa.string()) for i in range(FEATURES)]
    fields.append(pa.field("statuses", pa.binary(FEATURES), nullable=False))
    fields.append(pa.field("vector", pa.list_(pa.float64(), FEATURES), nullable=False))
    return pa.schema([*fields, pa.field("prediction", pa.float64())])


def batch(into: pa.Schema, n: int, random: np.random.Generator) -> pa.RecordBatch:
    """A micro-batch of n rows."""

    def column(field: pa.Field) -> pa.Array:  # noqa: PLR0911  (a kind of column each)
        kind = field.type
        if field.name == "id":
            return pa.array([random.bytes(16).hex() for _ in range(n)])
        if pa.types.is_string(kind):
            return pa.array([("JFK", "N14228", "B6", None)[i] for i in random.integers(0, 4, n)], kind)
        if pa.types.is_float64(kind):
            return pa.array(random.normal(size=n), mask=random.random(n) < 0.1)
        if pa.types.is_timestamp(kind):
            return pa.array(random.integers(1_700_000_000_000_000, 1_700_040_000_000_000, n)).view(kind)
        if pa.types.is_uint8(kind):
            return pa.array(random.integers(0, 3, n).astype(np.uint8))
        if pa.types.is_fixed_size_binary(kind):
            return pa.array([bytes(FEATURES)] * n, kind)
        return pa.FixedSizeListArray.from_arrays(pa.array(random.normal(size=n * FEATURES)), type=kind)

    columns = {field.name: column(field) for field in into}
    numbers = [columns[name] for name in columns if pa.types.is_float64(columns[name].type)][5:]
    matrix = np.zeros((n, FEATURES))  # what enters the model is mostly what was looked up
    for i, values in enumerate(numbers[:FEATURES]):
        matrix[:, i] = values.fill_null(np.nan).to_numpy(zero_copy_only=False)
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), type=into.field("vector").type)
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=into)


def measure(rows: int) -> dict[str, Any]:
    """Figures by size of micro-batch."""
    random, into = np.random.default_rng(0), schema()
    figures: dict[str, Any] = {}
    for n in SIZES:
        batches = [batch(into, n, random) for _ in range(max(1, min(4000, rows // n)))]
        root = Path(tempfile.mkdtemp(prefix="log-"))
        try:
            with ServingLog(root, "s", into, {}) as log:
                spent = _cpu(lambda log=log, batches=batches, n=n: _append(log, batches, rows // n))  # type: ignore[misc]
            count = read_log(root).rows
            size = sum(path.stat().st_size for path in root.rglob("*.seg"))
            reading = _cpu(lambda root=root: sum(b.num_rows for _, b in blocks(read_log(root).segments)))  # type: ignore[misc]
            packing = _cpu(lambda root=root: compact(root, "s", grace_seconds=0))  # type: ignore[misc]
            parts = sum(part.bytes for part in read_log(root).parts)
            again = _cpu(lambda root=root: len(to_table(read_log(root))))  # type: ignore[misc]
        finally:
            shutil.rmtree(root)
        figures[f"{n}"] = {
            "append_us": round(spent / (rows // n) * 1e6, 1),
            "log_cost_us": round(spent / count * 1e6, 2),
            "log_bytes_per_row": round(size / count),
            "read_rows_per_s": round(count / reading),
            "compact_rows_per_s": round(count / packing),
            "parquet_bytes_per_row": round(parts / count),
            "parquet_read_rows_per_s": round(count / again),
        }
    return figures


def _append(log: ServingLog, batches: list[pa.RecordBatch], count: int) -> None:
    for i in range(count):
        log.append(batches[i % len(batches)])


def _cpu(run: Callable[[], object]) -> float:
    before = time.process_time()
    run()
    return time.process_time() - before


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.log", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2,000 rows instead of 64,000")
    figures = measure(2_000 if parser.parse_args(argv).quick else 64_000)
    names = list(figures["1"])
    print(f"{'rows per append':24}" + "".join(f"{size:>12}" for size in figures))
    for name in names:
        print(f"{name:24}" + "".join(f"{one[name]:>12,}" for one in figures.values()))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
