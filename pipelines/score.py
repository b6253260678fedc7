"""Batch predictions for a day's asks, through the same join, transforms and log. `python -m pipelines.score --help`."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.command import exit_code
from pipelines.train import Candidate, load_candidate
from skewguard.answer import schema
from skewguard.definitions import Bundle, load_bundle
from skewguard.model import load_model
from skewguard.offline import OfflineStore
from skewguard.servinglog import ServingLog
from skewguard.transforms import numeric_class
from skewguard.workflows.score import score


def asks_of(asks: pa.Table, day: date, days: int = 1) -> pa.Table:
    """The asks from the midnight (UTC) of `day` on, for `days` days."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    stamp = pa.timestamp("us", tz="UTC")
    after = pc.greater_equal(asks["event_timestamp"], pa.scalar(start, stamp))
    before = pc.less(asks["event_timestamp"], pa.scalar(start + timedelta(days=days), stamp))
    return asks.filter(pc.and_(after, before))


def score_day(bundle: Bundle, asks: Path, day: date, candidate: Candidate, log: Path, out: Path) -> int:
    """Write the predictions for the asks of `day` (UTC) to `out`; returns the rows."""
    table = asks_of(pq.read_table(asks), day)
    model = load_model(candidate.folder, expected_digest=candidate.digest)
    header = {
        "build": "batch",
        "host": socket.gethostname(),
        "evidence": "batch",  # its values come from the join itself, so that replaying it proves nothing
        "bundle_digest": bundle.digest,
        "model_id": candidate.model_id,
        "model_digest": candidate.digest,
        "snapshot_id": model.snapshot_id,
        "numeric_class": numeric_class(),
    }
    with (
        OfflineStore(bundle.views) as offline,
        ServingLog(log, bundle.service, schema(bundle), header, pii=bundle.pii) as serving_log,
    ):
        return score(bundle, table, offline, model, serving_log, out, id_column="flight_id")


def main(argv: Sequence[str] | None = None) -> int:
    """Score one day."""
    return exit_code("score", lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.score", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--asks", type=Path, required=True)
    parser.add_argument("--day", type=date.fromisoformat, required=True)
    parser.add_argument("--candidate", type=Path, required=True, help="what `pipelines.train` wrote")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    rows = score_day(
        load_bundle(arguments.bundle),
        arguments.asks,
        arguments.day,
        load_candidate(arguments.candidate),
        arguments.log,
        arguments.out,
    )
    print(f"{arguments.out}: {rows:,} predictions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
