"""The model card: what is told, in both forms; and how a model does on what it was not trained on."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from skewguard.compare.holdout import HeldOut, held_out
from skewguard.errors import EvidenceError
from skewguard.findings import Finding, Kind
from skewguard.model import Model
from skewguard.report.card import Card, Signed, to_html, to_markdown
from skewguard.report.card.markdown import to_description
from skewguard.snapshot import Snapshot, build_snapshot
from skewguard.verdict import Coverage, Ruling, Subject, Verdict
from tests.worlds import shop

VERDICT = Verdict(
    Ruling.PASS,
    ("2,000 rows replayed, none differs",),
    Subject("checkout", "m-1", "d" * 64, "s" * 64, "b" * 64, "checkout", "shadow"),
    Coverage(rows=2000, equal=1990, lagged=10, values=20_000, blind=("it sees no label",), checked=(Kind.MISMATCH,)),
    (Finding(Kind.EXPECTATION, "user__age", 2, 60, "user__age: <b>2</b> of 60 | old"),),
    (),
    "c" * 64,
    "2026-11-20T00:00:00+00:00",
    "2026-11-27T00:00:00+00:00",
)


def _score(vector: np.ndarray) -> np.ndarray:
    """A model that looks at its first column alone."""
    return np.asarray(np.clip(1 / (1 + np.exp(-np.nan_to_num(vector[:, 0]) / 50)), 0.01, 0.99))


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """The shop's, with enough asks for a holdout."""
    folder = tmp_path_factory.mktemp("shop")
    world = shop(folder, rows=400, asks=1200)
    return build_snapshot(world.bundle, world.asks, folder / "s", labels=["paid"], id_column="ask_id")


@pytest.fixture(scope="module")
def model(snapshot: Snapshot) -> Model:
    """One that needs no file."""
    return Model("d" * 64, "m-1", len(snapshot.bundle.vector), None, _score)


@pytest.fixture(scope="module")
def middle(snapshot: Snapshot) -> int:
    """The instant in the middle of the asks, in microseconds."""
    asked = snapshot.to_arrow(["event_timestamp"])["event_timestamp"].cast(pa.int64()).to_numpy()
    return int(np.median(asked))


@pytest.fixture(scope="module")
def measured(snapshot: Snapshot, model: Model, middle: int) -> HeldOut:
    """The model on the later half."""
    return held_out(snapshot, model, "paid", middle)


def _card(snapshot: Snapshot, measured: HeldOut | None = None) -> Card:
    return Card(
        registered_name="checkout",
        version="3",
        model_id="m-1",
        model_digest="d" * 64,
        run_id="r" * 32,
        logged_at="2026-11-20T00:00:00+00:00",
        bundle=snapshot.bundle,
        manifest=snapshot.manifest,
        label="paid",
        logged=(("auc", 0.75),),
        parameters=(("depth", "<3>"),),
        measured=measured,
        unmeasured="" if measured else "nobody said until when",
        verdict=VERDICT,
        signed=Signed("k" * 16, "2026-11-20T00:00:00+00:00", "e" * 64, "skewguard.verdict.0"),
        report="report.html",
    )


def test_slices_hold_the_metrics_that_scikit_learn_computes(snapshot: Snapshot, measured: HeldOut, middle: int) -> None:
    """Of all held-out rows and of each value of a column, by brute force; nothing that was trained on is among them."""
    columns = {one.column for one in measured.slices if one.column}
    table = snapshot.to_arrow(["event_timestamp", "vector", "paid", *columns])
    table = table.filter(pa.compute.greater(table["event_timestamp"].cast(pa.int64()), middle))
    table = table.filter(table["paid"].is_valid())
    score = _score(np.array(table["vector"].to_pylist(), dtype=np.float64))
    paid = np.array(table["paid"].to_pylist(), dtype=float)
    assert measured.rows == len(table)
    assert len(measured.slices) > 1
    for one in measured.slices:
        here = np.ones(len(paid), bool)
        if one.column:
            here = np.array([str(value) for value in table[one.column].to_pylist()]) == one.value
        assert one.performance.rows == here.sum() >= 100
        assert one.performance.auc == pytest.approx(roc_auc_score(paid[here], score[here]))
        assert one.performance.log_loss == pytest.approx(log_loss(paid[here], score[here]))


def test_a_feature_that_the_model_does_not_read_has_no_importance(measured: HeldOut, snapshot: Snapshot) -> None:
    """Only the column that it looks at moves the loss; twice measured it is the same."""
    moved = {one.feature for one in measured.importances if one.rise or one.spread}
    assert moved == {snapshot.bundle.vector[0]}
    assert len(measured.importances) == len(snapshot.bundle.vector)


def test_what_cannot_be_measured_is_an_error(snapshot: Snapshot, model: Model, middle: int) -> None:
    """Too few rows were asked later."""
    with pytest.raises(EvidenceError, match=r"^.*: 0 labelled rows were asked after .* at least 100 are needed"):
        held_out(snapshot, model, "paid", middle + 10**15)


def test_both_forms_tell_the_same(snapshot: Snapshot, measured: HeldOut) -> None:
    """Data, slices, importances, features with owners, evidence, findings, record and commands are in both."""
    card = _card(snapshot, measured)
    page, text = to_html(card), to_markdown(card)
    for told in (
        "checkout, version 3", snapshot.id, "Metrics by slice", "Importances", "Features", "Training-serving skew",
        "2,000 requests", "it sees no label", "k" * 16, "e" * 64, "skewguard gate models:/m-1 --name checkout",
        "skewguard audit verify", "skewguard pull models:/checkout/3", "report.html", "Owner",
    ):  # fmt: skip
        assert told in page, told
        assert told in text, told
    for feature in snapshot.bundle.outputs:
        assert feature.replace("__", ".", 1) in page


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_loads_nothing_and_escapes_what_it_is_given(snapshot: Snapshot) -> None:
    """No script, no reference to elsewhere; a value with tags stays text, in Markdown too."""
    card = _card(snapshot)
    reader = _Elements()
    reader.feed(to_html(card))
    tags = [tag for tag, _ in reader.found]
    assert not {"script", "img", "iframe", "b", "object"} & set(tags)
    references = [value for _, given in reader.found for name, value in given.items() if name in ("src", "href")]
    assert set(references) <= {"data:,"}
    assert "&lt;3&gt;" in to_html(card)
    text = to_markdown(card)
    assert "\\<b\\>2\\</b\\> of 60 \\| old" in text
    assert "<3>" not in text


def test_what_nobody_ruled_on_and_what_was_revoked_say_so(snapshot: Snapshot) -> None:
    """Neither looks like a pass."""
    silent = replace(_card(snapshot), verdict=None, signed=None, version="")
    assert "Nobody has ruled on this model." in to_markdown(silent)
    assert '<body class="unknown">' in to_html(silent)
    assert "There is no signed record" in to_html(silent)
    assert "checkout, not registered" in to_html(silent)
    assert _card(snapshot).signed is not None
    revoked = replace(_card(snapshot), signed=Signed("k", "2026-11-20T00:00:00+00:00", "e", "t", "wrong labels"))
    assert "Its verdict was revoked: wrong labels" in to_html(revoked)
    assert '<body class="unknown">' in to_html(revoked)
    assert "PASS" not in to_description(revoked, "x")


def test_a_description_fits_the_registry(snapshot: Snapshot) -> None:
    """MLflow keeps 5,000 characters; it begins with the verdict and names the card."""
    wordy = replace(VERDICT, reasons=("x" * 9000,))
    text = to_description(replace(_card(snapshot), verdict=wordy), "skewguard/card/checkout-3/card.html")
    assert len(text) < 5000
    assert "skewguard/card/checkout-3/card.html" in to_description(
        _card(snapshot), "skewguard/card/checkout-3/card.html"
    )
