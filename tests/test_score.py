from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewguard.answer import Log, from_table, schema
from skewguard.errors import AskError, LogError, ModelError
from skewguard.offline import OfflineStore
from skewguard.online import Lookup, open_store
from skewguard.service.answering import Answering
from skewguard.servinglog import read_log
from skewguard.workflows import score as scoring
from skewguard.workflows.score import score
from tests.loop import SERVICE, Loop, asks_between, at, entities, logged


class Recorder:
    """A log in memory, which fails from the append number `fails` on."""

    def __init__(self, fails: int = 1000, before: Callable[[], None] = lambda: None) -> None:
        self.batches: list[pa.RecordBatch] = []
        self.fails, self.before = fails, before

    def append(self, batch: pa.RecordBatch) -> None:
        """Keep the rows."""
        self.before()
        if len(self.batches) >= self.fails:
            raise LogError("no space left on device")
        self.batches.append(batch)

    def check(self) -> None:
        """Nothing to say."""


def _score(loop: Loop, out: Path, log: Log | None = None, asks: pa.Table | None = None) -> int:
    asks = loop.asks if asks is None else asks
    with OfflineStore(loop.bundle.views) as offline:
        return score(loop.bundle, asks, offline, loop.model, log or Recorder(), out, id_column="id")


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_batch_predictions_are_the_services_bit_by_bit(loop: Loop, tmp_path: Path) -> None:
    """The same asks as of the same instants get the same features and predictions from a batch as from the service."""
    asks = asks_between(at(12), at(12.02) - at(12), 40)  # no row becomes known in these minutes
    _score(loop, tmp_path / "out.parquet", asks=asks)
    batch = from_table(loop.bundle, pq.read_table(tmp_path / "out.parquet"))
    with loop.open_log(tmp_path / "log") as log:
        lookup = Lookup(loop.bundle, open_store(loop.store_url))
        answering = Answering(loop.bundle, lookup, log, loop.model, True, lambda: 0)
        for ask in asks.to_pylist():
            answering.serve(entities(loop.bundle, ask), ask["id"], ask["event_timestamp"], loop.model)
    served = from_table(loop.bundle, pa.Table.from_pylist(logged(tmp_path / "log"), schema=schema(loop.bundle)))
    assert batch.spine.ids.tolist() == served.spine.ids.tolist() == asks["id"].to_pylist()
    assert batch.prediction is not None
    assert served.prediction is not None
    assert batch.prediction.tobytes() == served.prediction.tobytes()
    assert len(set(batch.prediction.tolist())) > 5
    assert batch.vector.tobytes() == served.vector.tobytes()
    for name, column in batch.features(loop.bundle).items():
        other = served.feature(loop.bundle, name)
        assert column.status.tobytes() == other.status.tobytes()
        assert column.values.tolist() == other.values.tolist() or name.startswith(
            ("weather", "derived", "plane__thrust")
        )
        assert column.to_arrow().equals(other.to_arrow())


def test_every_ask_is_one_row_in_order_and_logged(loop: Loop, tmp_path: Path) -> None:
    """The file and the log hold the same rows, in the order of the asks; the number is returned."""
    with loop.open_log(tmp_path / "log", build="batch") as log:
        rows = _score(loop, tmp_path / "deep" / "out.parquet", log)
    table = pq.read_table(tmp_path / "deep" / "out.parquet")
    assert rows == len(table) == 180
    assert table["id"].to_pylist() == loop.asks["id"].to_pylist()
    assert table.schema.equals(schema(loop.bundle))
    assert repr(logged(tmp_path / "log")) == repr(table.to_pylist())
    guarded = loop.guard(tmp_path / "log")
    assert guarded.verdict.coverage.equal == 180


def test_a_batch_is_in_the_log_before_it_is_in_the_file(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While rows are logged the file is not there; it comes when all of them are."""
    monkeypatch.setattr(scoring, "BATCH_ROWS", 50)
    out = tmp_path / "out.parquet"
    seen: list[bool] = []
    log = Recorder(before=lambda: seen.append(out.exists()))
    assert _score(loop, out, log) == 180
    assert seen == [False] * 4
    assert [batch.num_rows for batch in log.batches] == [50, 50, 50, 30]
    assert repr(pa.Table.from_batches(log.batches).to_pylist()) == repr(pq.read_table(out).to_pylist())


@pytest.mark.parametrize("fails", [0, 2])
def test_where_the_log_fails_there_is_no_file(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """Whole or not at all: neither a part nor its remains, and what was there before stays."""
    monkeypatch.setattr(scoring, "BATCH_ROWS", 50)
    out = tmp_path / "out.parquet"
    with pytest.raises(LogError):
        _score(loop, out, Recorder(fails))
    assert _names(tmp_path) == []
    _score(loop, out)
    before = out.read_bytes()
    with pytest.raises(LogError):
        _score(loop, out, Recorder(fails))
    assert _names(tmp_path) == ["out.parquet"]
    assert out.read_bytes() == before


def test_the_size_of_batches_changes_nothing(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row at a time or all at once give the same bits, and progress is told to the end."""
    _score(loop, tmp_path / "all.parquet")
    monkeypatch.setattr(scoring, "BATCH_ROWS", 7)
    told: list[tuple[int, int]] = []
    with OfflineStore(loop.bundle.views) as offline:
        score(
            loop.bundle, loop.asks, offline, loop.model, Recorder(), tmp_path / "few.parquet", id_column="id",
            progress=lambda done, total: told.append((done, total)),
        )  # fmt: skip
    few, whole = (pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("few", "all"))
    assert repr(few) == repr(whole)  # NaN in a vector is not itself, but reads the same
    assert told[0] == (7, 180)
    assert told[-1] == (180, 180)


def test_no_asks_give_an_empty_file(loop: Loop, tmp_path: Path) -> None:
    """A day without asks is a file without rows, not an error."""
    assert _score(loop, tmp_path / "out.parquet", asks=loop.asks.slice(0, 0)) == 0
    assert len(pq.read_table(tmp_path / "out.parquet")) == 0


def test_asks_that_cannot_be_read_are_told_before_anything_is_logged(loop: Loop, tmp_path: Path) -> None:
    """A missing request field names itself, and leaves neither file nor row."""
    log = Recorder()
    with pytest.raises(AskError, match=r"^distance: column is missing"):
        _score(loop, tmp_path / "out.parquet", log, loop.asks.drop_columns(["distance"]))
    assert (log.batches, _names(tmp_path)) == ([], [])


def test_a_model_of_other_features_scores_nothing(loop: Loop, tmp_path: Path) -> None:
    """A model that was fitted on the same columns in another order is refused, as the service refuses it."""
    log = Recorder()
    model = replace(loop.model, features=tuple(reversed(loop.bundle.vector)))
    with OfflineStore(loop.bundle.views) as offline, pytest.raises(ModelError, match="fitted on other features"):
        score(loop.bundle, loop.asks, offline, model, log, tmp_path / "out.parquet", id_column="id")
    assert (log.batches, _names(tmp_path)) == ([], [])


def test_unnamed_asks_are_numbered(loop: Loop, tmp_path: Path) -> None:
    """Without a column of ids the rows are numbered as in a snapshot."""
    with OfflineStore(loop.bundle.views) as offline:
        score(loop.bundle, loop.asks.slice(0, 3), offline, loop.model, Recorder(), tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == ["0", "1", "2"]


def test_predictions_are_the_models_own(loop: Loop, tmp_path: Path) -> None:
    """The prediction beside a vector is what the model gives for exactly that vector."""
    _score(loop, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    matrix = np.array(table["vector"].combine_chunks().flatten()).reshape(180, -1)
    assert table["prediction"].to_numpy().tobytes() == loop.model.predict(matrix).tobytes()
    assert read_log(loop.clean_log, SERVICE).rows == 180
