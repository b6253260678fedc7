"""`skewguard doctor` on other people's repositories: Feast's own defects, found from edge cases and values alone."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from skewguard import cli
from skewguard.errors import DefinitionError
from skewguard.workflows.doctor import Cause, Defect, Diagnosis, Where, diagnose, renderable
from skewguard.workflows.doctor.causes import Seen, explain
from skewguard.workflows.doctor.cells import alike, plain
from skewguard.workflows.doctor.diagnosis import Unchecked
from tests import stock_repos as stock
from tests.corpus_transforms import stock_views

pytestmark = pytest.mark.filterwarnings("ignore:Batch feature views are experimental features:RuntimeWarning")
DASK = {"offline_store": {"type": "dask"}}
NOW = datetime(2026, 1, 10, tzinfo=UTC)


def said(diagnosis: Diagnosis) -> set[tuple[str, str, str]]:
    """(view, feature, cause) of every finding."""
    return {(one.view, one.feature, str(one.cause)) for one in diagnosis.defects}


def the(diagnosis: Diagnosis, cause: Cause, feature: str = "") -> Defect:
    """The first finding of a cause on a feature, or on a whole view."""
    return next(one for one in diagnosis.defects if one.cause is cause and one.feature == feature)


# -- Feast's own defects ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "settings", "expected"),
    [
        (stock.r01, {}, {("fv", "f32", "float32"), ("fv", "when", "seconds"), ("fv", "bigint", "digits")}),
        (stock.r01, {}, {("fv", "nanval", "nan")}),
        (stock.r02, {}, {("fv", "x", "ttl")}),
        (stock.r03, {}, {("fv", "x", "late"), ("fv", "x", "leak")}),
        (stock.r04, {}, {("bfv", "", "error")}),
        (stock.r04, DASK, {("bfv", "x", "transformed")}),
        (stock.r06, {}, {("fv", "price_y", "error"), ("fv", "x", "name"), ("fv", "x", "leak")}),
        (stock.r06, DASK, {("fv", "", "rows"), ("fv", "x", "name"), ("fv", "", "leak")}),
        (stock.r07, {}, {("nanos", "", "error"), ("nobody", "", "error")}),
        (stock.r11, {}, {("fv", "zip", "text"), ("fv", "emb", "float32"), ("fv", "ints", "error")}),
        (stock.r11, {}, {("fv", "asint", "truncated"), ("fv", "", "error")}),
        (stock.r14, {}, {("fv_from", "x", "wrong row")}),
        (stock.r02, DASK, {("fv", "x", "ttl"), ("fv", "", "rows"), ("fv", "", "dataset")}),
        (stock.r16, {}, {("bfv", "sum_x", "error")}),
    ],
)
def test_a_defect_of_feast_is_found_without_being_told(
    tmp_path: Path, build: stock.Build, settings: dict[str, Any], expected: set[tuple[str, str, str]]
) -> None:
    """A repository that has it, Feast's own stores, and nothing else: the right kind on the right view and feature."""
    assert expected <= said(diagnose(build(tmp_path, **settings)))


def test_what_is_told_is_a_sentence_with_an_example_and_a_remedy(tmp_path: Path) -> None:
    """A colleague understands it without looking anything up."""
    found = diagnose(stock.r07(tmp_path))
    nanos = next(one for one in found.defects if one.view == "nanos" and "ConversionException" in one.message)
    assert "event times are timestamp[ns, tz=UTC]" in nanos.example
    ttl = the(found, Cause.TTL, "x")  # with microseconds instead, the rest was looked at all the same
    assert "1 day" in ttl.message
    assert "offline null, online" in ttl.example
    assert all(one.message and one.example and one.remedy for one in found.defects)
    assert not any(one.cause is Cause.UNKNOWN for one in found.defects)


@pytest.mark.redis
def test_the_defects_of_feasts_redis_store_are_found_in_a_server_of_its_own(tmp_path: Path, redis_url: str) -> None:
    """A correction that never arrives, PRESENT for a key nobody has, one field of two features (r02, r03, r10)."""
    address = redis_url.removeprefix("redis://").partition("/")[0]
    settings = {"online_store": {"type": "redis", "connection_string": address}}
    for name, build in (("r03", stock.r03), ("r10", stock.r10)):
        (tmp_path / name).mkdir()
        found = diagnose(build(tmp_path / name, **settings))
        assert ("fv", "", "status") in said(found)
        if name == "r03":
            assert "the corrected row was dropped" in the(found, Cause.CORRECTION, "x").message
        else:
            a, b = stock.colliding()
            assert {("fv", a, "collision"), ("fv", b, "collision")} & said(found)


def test_the_defects_of_on_demand_views_are_found(tmp_path: Path) -> None:
    """Globals, one row at a time, a cast and a threshold on one side, an aggregation (r05, r08, r12)."""
    repo = stock.Stock(tmp_path)
    when = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
    columns = {
        "driver_id": pa.array([1]),
        "n": pa.array([3]),
        "x": pa.array([7.0]),
        "p": pa.array([0.1]),
        "last_seen": pa.array([when], stock.STAMP),
        "words": pa.array([["a"]]),
        "event_timestamp": pa.array([when], stock.STAMP),
    }
    pq.write_table(pa.table(columns), tmp_path / "facts.parquet")
    views = [
        stock_views.helper_of_a_module,
        stock_views.one_at_a_time,
        stock_views.cast_online_only,
        stock_views.threshold,
        stock_views.aggregated,
    ]
    repo.store.apply([stock_views.driver, stock_views.facts, *views])
    found = diagnose(tmp_path)
    assert {view.name for view in views} == {one.view for one in found.defects if one.cause is Cause.ON_DEMAND}


@pytest.mark.parametrize("build", [stock.r09])
def test_where_nothing_differs_nothing_of_the_key_is_found(tmp_path: Path, build: stock.Build) -> None:
    """A key of 32 bits is found again (r09): only what every view of these stores has is said."""
    causes = {cause for _, _, cause in said(diagnose(build(tmp_path)))}
    assert causes == {"ttl", "nan", "name", "error", "dataset"}


# -- a clean repository, and reading alone ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository on this project's own stores, materialized."""
    return stock.clean(tmp_path_factory.mktemp("clean"))


def test_a_clean_repository_gives_no_finding(clean: Path) -> None:
    """On skewguard's own stores everything is compared and nothing differs."""
    found = diagnose(clean, "svc")
    assert found.defects == ()
    assert found.unchecked == ()
    assert found.compared > 500  # the edge cases, and the stores' own rows


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder."""
    files = (one for one in sorted(folder.rglob("*")) if one.is_file())
    return {str(one): hashlib.sha256(one.read_bytes()).hexdigest() for one in files}


def test_nothing_of_the_repository_is_written(clean: Path, tmp_path: Path) -> None:
    """Registry, online store and sources are byte for byte what they were; no file is added."""
    for folder in (clean, stock.r01(tmp_path)):
        before = digests(folder)
        diagnose(folder)
        assert digests(folder) == before


def test_the_stores_own_rows_are_compared(tmp_path: Path) -> None:
    """A row that came after the last materialization, and a key that is not there: named with the times."""
    folder = stock.clean(tmp_path)
    table = pq.read_table(folder / "a.parquet")
    newer = table.set_column(
        table.column_names.index("event_timestamp"),
        "event_timestamp",
        pa.array([stock.NOW - timedelta(minutes=5)] * 2, stock.STAMP),
    )
    newer = newer.set_column(newer.column_names.index("x"), "x", pa.array([5.0, 6.0]))
    third = table.slice(0, 1).set_column(0, "driver_id", pa.array([3]))
    pq.write_table(pa.concat_tables([table, newer, third]), folder / "a.parquet")
    found = diagnose(folder, keys=50)
    assert {one.where for one in found.defects} == {Where.STORES}
    assert "an older row of the key is served" in the(found, Cause.STALE, "x").message
    assert "the last materialization ended" in next(one for one in found.defects if one.cause is Cause.MISSING).message


# -- what cannot be looked at -----------------------------------------------------------------------------------------


def test_what_is_no_repository_could_not_be_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No feature_store.yaml, definitions that raise, an unknown service: exit 2 and the reason."""
    assert cli.main(["doctor", "--repo", str(tmp_path)]) == 2
    assert "expected a Feast repository with a feature_store.yaml" in capsys.readouterr().err
    (tmp_path / "feature_store.yaml").write_text("project: p\nprovider: local\nregistry: registry.db\n")
    (tmp_path / "views.py").write_text("raise ValueError('half written')\n")
    with pytest.raises(DefinitionError, match="half written"):
        diagnose(tmp_path)
    assert not (tmp_path / "registry.db").exists()


VIEWS = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

entity = Entity(name="unapplied", join_keys=["unapplied_id"], value_type=ValueType.INT64)
source = FileSource(path="rows.parquet", timestamp_field="event_timestamp")
view = FeatureView(name="fv", entities=[entity], ttl=timedelta(hours=1), schema=[Field(name="x", dtype=Float64)],
                   source=source)
"""


def test_a_repository_that_nobody_applied_is_read_from_its_files(tmp_path: Path) -> None:
    """Its edge cases are tried; that it has no stores yet is named; nothing is written beside the definitions."""
    (tmp_path / "feature_store.yaml").write_text(
        "project: p\nprovider: local\nregistry: registry.db\noffline_store: {type: dask}\n"
        "online_store: {type: sqlite, path: online.db}\nentity_key_serialization_version: 3\n"
    )
    (tmp_path / "unapplied_views.py").write_text(VIEWS)
    at = pa.array([stock.NOW], stock.STAMP)
    pq.write_table(pa.table({"unapplied_id": [1], "x": [1.0], "event_timestamp": at}), tmp_path / "rows.parquet")
    before = digests(tmp_path)
    found = diagnose(tmp_path)
    assert ("fv", "", "rows") in said(found)
    assert "run `feast apply`" in found.unchecked[0].reason
    assert digests(tmp_path) == before


def test_nothing_to_check_is_not_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A repository without views: exit 3."""
    stock.Stock(tmp_path).store.apply([stock.DRIVER])
    assert cli.main(["doctor", "--repo", str(tmp_path), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["compared"] == 0


def test_a_source_that_is_gone_leaves_the_edge_cases(tmp_path: Path) -> None:
    """The view's own rows are named as not checked, with the reason; its edge cases are tried by the declared types."""
    folder = stock.r02(tmp_path)
    (folder / "a.parquet").unlink()
    found = diagnose(folder)
    assert ("fv", "x", "ttl") in said(found)
    reasons = {one.what: one.reason for one in found.unchecked}
    assert "types are those declared" in reasons["the column types of fv"]
    assert "fv in the repository's own stores" in reasons


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        done = threading.Event()
        yield server.getsockname()[1]
        done.set()


def test_a_store_that_does_not_answer_is_named(tmp_path: Path, silent: int) -> None:
    """It is given up after the deadline, asked once, and the rest is looked at."""
    online = {"type": "redis", "connection_string": f"127.0.0.1:{silent}"}
    found = diagnose(stock.r02(tmp_path, online_store=online), patience=3.0)
    reasons = {one.what: one.reason for one in found.unchecked}
    assert "did not answer within 3 s" in reasons["fv in the repository's own stores"]
    assert ("fv", "x", "ttl") in said(found)
    assert found.seconds < 60


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_or_json(tmp_path: Path, clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1 with findings, 0 without; what Feast prints on its way does not come between."""
    stock.r02(tmp_path)
    assert cli.main(["doctor", "--repo", str(tmp_path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {"view", "feature", "cause", "message", "example", "remedy"} <= found["defects"][0].keys()
    assert cli.main(["doctor", "--repo", str(clean), "--feature-service", "svc", "--keys", "5"]) == 0
    shown = capsys.readouterr()
    assert "0 findings" in shown.out
    assert "Materializing" not in shown.out + shown.err
    assert cli.main(["doctor", "--repo", str(clean), "--keys", "0"]) == 2
    assert renderable(diagnose(clean))


# -- hypotheses and cells ---------------------------------------------------------------------------------------------


def test_what_views_have_in_common_is_said_once() -> None:
    """The same difference of two views is one row of the table, with both names; so is the same reason."""
    defects = tuple(
        Defect(view, "x", Cause.TTL, Where.SCRATCH, "the TTL is ignored", f"row {view}", "compare")
        for view in ("a", "b")
    )
    gaps = tuple(Unchecked(f"{view}:m", "no values are made up") for view in ("a", "b"))
    out = io.StringIO()
    Console(width=100, file=out).print(renderable(Diagnosis(defects, gaps, 4, ("a", "b"), 1.0)))
    said = out.getvalue()
    assert said.count("the TTL is ignored") == said.count("no values are made up") == 1
    assert all(place in said for place in ("a:x", "b:x", "a:m", "b:m", "2 findings"))


def test_values_are_the_same_by_the_house_rule() -> None:
    """Across types exactly; NaN and null are told apart, for code on demand sees which it is."""
    assert alike(3, 3.0)
    assert alike(-0.0, 0.0)
    assert alike([1, None], [1.0, None])
    assert not alike(2**53 + 1, float(2**53))
    assert not alike(None, float("nan"))
    assert not alike("90210", 90210)
    assert not alike(True, 1)
    assert plain(pa.scalar(NOW).as_py()) == NOW


def test_what_no_hypothesis_explains_is_unknown() -> None:
    """No cause is better than a wrong one."""
    assert explain(Seen(1.0, 2.0)).cause is Cause.UNKNOWN
    assert explain(Seen("a", None)).cause is Cause.MISSING
    assert explain(Seen(["a", None], ["a", ""])).cause is Cause.NULL
    assert explain(Seen(None, 0)).cause is Cause.NULL
    assert explain(Seen(1.0, 2.0, earlier=(2.0,))).cause is Cause.STALE
    assert explain(Seen(None, 2.0, age=timedelta(2), ttl=timedelta(1))).cause is Cause.TTL
