"""The log's frames as the server writes them, beside Arrow's own."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from skewguard.answer import Served, schema, statuses, to_batch, vector
from skewguard.contract import Contract
from skewguard.definitions import Bundle, Feature, Key, Source, View
from skewguard.online import Layout, pack
from skewguard.online.layout import unpack
from skewguard.service.answering import CLIENT
from skewguard.service.answers import Answers, Wording, many_features, one_features
from skewguard.service.frames import Frames
from skewguard.servinglog import ServingLog, read_log, to_table
from skewguard.servinglog import segment as seg
from skewguard.servinglog.message import unframed
from skewguard.servinglog.turned import Turned
from skewguard.spine import Spine, ViewRows
from skewguard.values import NO_TIME, Block, Column, Dtype, Status, instant

FLOATS = (Dtype.FLOAT64,) * 5
VIEWS = {
    "floats": (FLOATS,),
    "bools": ((Dtype.BOOL,) * 3,),
    "narrow": ((Dtype.FLOAT32,) * 3, (Dtype.INT32,) * 2),
    "instants": ((Dtype.TIMESTAMP, Dtype.TIMESTAMP), (Dtype.INT64,)),
    "mixed": (tuple(Dtype), FLOATS),
    "texts": ((Dtype.STRING, Dtype.STRING),),
}
EVERY: dict[Dtype, Any] = {
    Dtype.FLOAT64: [1.5, -0.0, np.inf], Dtype.FLOAT32: [0.5, 2.0, -1.25], Dtype.INT64: [2**53 + 1, -5, 0],
    Dtype.INT32: [7, -8, 2**31 - 1], Dtype.BOOL: [True, False, True], Dtype.STRING: ["JFK", "Zürich ✈", ""],
    Dtype.TIMESTAMP: np.array([0, 1, 1_700_000_000_000_000], dtype="datetime64[us]"),
}  # fmt: skip


def _column(rng: np.random.Generator, dtype: Dtype, n: int, missing: float) -> Column:
    values = np.empty(n, dtype=dtype.numpy)
    values[:] = np.array(EVERY[dtype], dtype=dtype.numpy)[rng.integers(0, 3, n)]
    return Column.build(dtype, values, np.where(rng.random(n) < missing, rng.integers(2, 8, n), 0).astype(np.uint8))


def _view(name: str, dtypes: tuple[Dtype, ...]) -> View:
    features = tuple(Feature(f"f{i}", f"f{i}", dtype, Contract()) for i, dtype in enumerate(dtypes))
    return View(name, (Key("id", "id", Dtype.INT64),), features, None, 0, Source("none", "event_timestamp", None))


def _rows(rng: np.random.Generator, view: View, n: int, missing: float) -> ViewRows:
    """As the store gives them: packed, and unpacked."""
    columns = [_column(rng, feature.dtype, n, missing) for feature in view.features]
    times, layout = np.arange(n, dtype=np.int64) + 1, Layout.of(view)
    found = unpack(layout, pack(layout, times, times, 5, columns))
    created = np.where(rng.random(n) < missing, NO_TIME, times)
    return ViewRows(np.zeros(n, np.uint8), found.event, created, np.full(n, NO_TIME), found.features)


def _served(seed: int, n: int, kinds: tuple[tuple[Dtype, ...], ...], missing: float) -> tuple[Bundle, Served]:
    rng = np.random.default_rng(seed)
    views = tuple(_view(f"v{i}", dtypes) for i, dtypes in enumerate(kinds))
    bundle = Bundle("p", "s", views, (), (), tuple(v.full_name(f.name) for v in views for f in v.features))
    ids = np.array([f"r-{i}" + "ü" * int(rng.integers(0, 2)) for i in range(n)], dtype=object)
    spine = Spine(ids, np.arange(n, dtype=np.int64) + 7, {"id": _column(rng, Dtype.INT64, n, missing)}, {})
    served = Served(spine, {v.name: _rows(rng, v, n, missing) for v in views}, {}, np.empty((0, 0)))
    prediction = rng.normal(size=n) if seed % 2 else None
    return bundle, Served(spine, served.views, {}, vector(bundle, served), prediction)


def _written(bundle: Bundle, served: Served, clients: list[str] | None = None) -> pa.RecordBatch:
    """The rows as a reader finds them in the frame."""
    columns = schema(bundle) if clients is None else schema(bundle).append(CLIENT)
    message = Frames(bundle, columns).message(served, statuses(bundle, served), clients)
    kind, payload = seg.smaller(*unframed(message))
    frame = seg.Frame(kind, 1, message.num_rows, bytes(payload), b"")
    found = pa.ipc.read_record_batch(frame.message(), columns)
    assert repr(found.to_pylist()) == repr(message.batch().to_pylist())
    return found


def _expected(bundle: Bundle, served: Served) -> pa.RecordBatch:
    batch = to_batch(bundle, served, schema(bundle))
    batch.validate(full=True)
    return batch


@pytest.mark.parametrize("kinds", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
def test_a_frame_holds_the_rows_that_arrow_would_write(kinds: tuple[tuple[Dtype, ...], ...], missing: float) -> None:
    """For one row or many, of every type, with and without nulls: value by value, bit by bit, and null by null."""
    for seed, n in enumerate((1, 2, 7, 8, 9, 64, 130)):
        bundle, served = _served(seed, n, kinds, missing)
        found, expected = _written(bundle, served), _expected(bundle, served)
        found.validate(full=True)
        assert repr(found.to_pylist()) == repr(expected.to_pylist())  # -0.0 is not 0.0, and NaN is NaN
        assert found.schema.equals(expected.schema)


def test_the_clients_column_stands_last() -> None:
    """Where keys are asked for, their owners are in the frame."""
    bundle, served = _served(1, 3, (FLOATS,), 0.0)
    found = _written(bundle, served, ["a", "", "ü"])
    assert found.column("client").to_pylist() == ["a", "", "ü"]
    assert found.schema.names[:-1] == schema(bundle).names


def test_the_models_input_is_left_out_only_where_it_is_the_features_turned() -> None:
    """A frame is half as long then; of an input that differs in one bit every value is written."""
    bundle, served = _served(0, 50, ((Dtype.FLOAT64,) * 20,), 0.1)
    frames = Frames(bundle, schema(bundle))
    left_out = frames.message(served, statuses(bundle, served), None)
    other = served.vector.copy()
    other.view(np.int64)[49, 19] ^= 1
    changed = Served(served.spine, served.views, {}, other)
    whole = frames.message(changed, statuses(bundle, served), None)
    assert left_out.turned is not None
    assert whole.turned is None
    assert len(whole.data) == len(left_out.data) + served.vector.nbytes
    for one, matrix in ((left_out, served.vector), (whole, other)):
        read = np.array(one.batch().column("vector").flatten()).reshape(matrix.shape)
        assert (read.view(np.int64) == matrix.view(np.int64)).all()


def test_a_stretch_left_out_is_there_again_in_every_reading(tmp_path: Path) -> None:
    """A log of such frames, small and large, reads as the batches that were served, one row or many at a time."""
    bundle, _ = _served(0, 1, (FLOATS,), 0.0)
    frames, expected = Frames(bundle, schema(bundle)), []
    with ServingLog(tmp_path, "s", schema(bundle)) as log:
        for seed, n in enumerate((1, 1, 1, 40, 1, 300)):
            _, served = _served(seed, n, (FLOATS,), 0.2)
            log.append(frames.message(served, statuses(bundle, served), None))
            expected += _expected(bundle, served).to_pylist()
    table = to_table(read_log(tmp_path, "s")).select(schema(bundle).names)
    assert repr(table.to_pylist()) == repr(expected)


def test_a_sampled_log_takes_a_frame_apart(tmp_path: Path) -> None:
    """Rows that are not kept as they come are read as Arrow's before they are shaped."""
    bundle, served = _served(0, 200, (FLOATS,), 0.2)
    with ServingLog(tmp_path, "s", schema(bundle), sample=0.5) as log:
        log.append(Frames(bundle, schema(bundle)).message(served, statuses(bundle, served), None))
    table = to_table(read_log(tmp_path, "s"))
    by_id = {row["id"]: row for row in _expected(bundle, served).to_pylist()}
    assert 50 < len(table) < 150
    for row in table.select(schema(bundle).names).to_pylist():
        assert repr(row) == repr(by_id[row["id"]])


def test_a_frame_of_a_kind_that_nobody_knows_is_an_error() -> None:
    """A reader says that a later version wrote it."""
    kind = 12
    payload = bytes(8)
    head = seg.head(kind, 1, 1, len(payload), seg.checksum(payload), b"")
    file = io.BytesIO(head + payload)
    file.name = "x"
    with pytest.raises(Exception, match="got kind 12"):
        list(seg.data_frames(file, len(head) + len(payload), b""))


def test_columns_of_a_block_are_those_that_were_packed() -> None:
    """A view of one type is unpacked as a block; under a status every value that is no more gives way to the filler."""
    rng = np.random.default_rng(5)
    view = _view("v", FLOATS)
    features = _rows(rng, view, 6, 0.3).features
    assert isinstance(features, Block)
    assert list(features) == [f.name for f in view.features]
    worse = np.array([0, 0, 3, 0, 5, 0], dtype=np.uint8)
    for name, column in features.under(worse).items():
        before = features[name]
        expected = Column.build(before.dtype, before.values, np.maximum(before.status, worse))
        assert (column.status == expected.status).all()
        assert column.content() == expected.content()
    assert features["f0"].status.max() < Status.EXPIRED


@pytest.mark.parametrize("kinds", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("order", ["given", "reversed", "some"])
def test_an_answer_names_every_value_as_the_service_orders_them(
    kinds: tuple[tuple[Dtype, ...], ...], order: str
) -> None:
    """One ask or several: each output under its own name, null where its status says why, infinity as text."""
    bundle, served = _served(3, 9, kinds, 0.3)
    names = {"given": bundle.outputs, "reversed": bundle.outputs[::-1], "some": bundle.outputs[1::2]}[order]
    bundle = replace(bundle, outputs=names)
    served = Served(served.spine, served.views, {}, vector(bundle, served))
    answers = Answers(Wording(bundle), served, statuses(bundle, served), None)
    many = json.loads(many_features(answers, "r", 2, 9))
    for row in range(9):
        columns = {name: served.feature(bundle, name) for name in names}
        said = {name: Status(column.status[row]).name.lower() for name, column in columns.items()}
        values = {name: _said(column, row) for name, column in columns.items()}
        one = json.loads(one_features(answers, "r", row, row + 1))
        assert (one["features"], one["statuses"]) == (values, said)
        assert list(one["features"]) == list(one["statuses"]) == list(names)
        if row >= 2:
            assert {name: column[row - 2] for name, column in many["features"].items()} == values
            lacking = {name: status for name, status in said.items() if status != "present"}
            assert many["missing"][row - 2] == lacking
    assert vector(bundle, served).shape == (9, len(bundle.vector))
    for i, name in enumerate(bundle.vector):
        column = served.feature(bundle, name)
        expected = np.where(column.present, column.values.astype(np.float64), np.nan)
        assert (vector(bundle, served)[:, i].view(np.int64) == expected.view(np.int64)).all()


def _said(column: Column, row: int) -> Any:
    value = column.value(row)
    if isinstance(value, float) and np.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if column.dtype is Dtype.TIMESTAMP and value is not None:
        return instant(int(column.values.view("int64")[row]))
    return value


@pytest.mark.parametrize(("features", "rows", "stride"), [(50, 500, 4064), (150, 16, 136), (1, 1200, 9600)])
@pytest.mark.parametrize("numbers", ["random", "equal"])
def test_a_frame_in_parts_reads_back_as_the_whole_message(features: int, rows: int, stride: int, numbers: str) -> None:
    """A matrix that hardly compresses lies in the frame as it is; one that does is compressed with the rest."""
    drawn = np.random.default_rng(1).normal(size=(features, stride // 8))
    matrix = drawn if numbers == "random" else np.zeros_like(drawn)
    for before, behind in ((b"", b""), (bytes(1003), b"behind" * 50)):
        message = before + matrix.tobytes() + behind
        turned = Turned(len(message), len(before) + stride - 8 * rows, stride, rows, features)
        kind, payload = seg.smaller(message, turned)
        frame = seg.Frame(kind, 1, rows, bytes(payload), b"")
        assert bytes(frame.message()) == turned.restore(message)
        assert (kind & seg.PARTED > 0) == (numbers == "random")
        assert not len(payload) % 8
