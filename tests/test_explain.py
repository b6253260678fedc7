import math
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewguard.definitions import Bundle, View
from skewguard.errors import LogError
from skewguard.offline import OfflineStore, Rule
from skewguard.servinglog import ServingLog, read_log
from skewguard.spine import Spine, read_spine
from skewguard.values import Column, Dtype, Status
from skewguard.workflows.explain import explain_request, reproduce
from tests.loop import SERVICE, STAMP, Fault, Loop, Store, at, bundle_of, changed, us


def _run(code: str) -> list[dict[str, Any]]:
    """What five lines of pandas print, in a namespace that holds nothing else."""
    printed: list[list[dict[str, Any]]] = []
    exec(code, {"print": printed.append})
    (rows,) = printed
    return rows


def _spine(bundle: Bundle, asks: pa.Table) -> Spine:
    return read_spine(asks, bundle.keys, {r.name: r.dtype for r in bundle.request}, id_column="id")


def _plain(value: Any) -> Any:
    """A value as both sides write it: no NaN, no numpy."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value


# -- the five lines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("view", ["plane", "weather"])
def test_five_lines_of_pandas_print_the_truth_of_the_join(loop: Loop, view: str, rule: Rule) -> None:
    """Run in a fresh namespace they give, for every third ask of the day, what the join gives: value, null, nothing."""
    spine = _spine(loop.bundle, loop.asks)
    declared = loop.bundle.view(view)
    with OfflineStore(loop.bundle.views, rule) as offline:
        truth = offline.answer(spine)[view]
    seen = set()
    for row in range(0, len(spine), 3):
        ask = spine.take(np.array([row]))
        if any(ask.keys[key.ask].value(0) is None for key in declared.keys):
            continue
        code = reproduce(declared, ask, rule)
        assert len(code.splitlines()) == 5
        assert "skewguard" not in code
        expected = {f.column: truth.features[f.name].value(row) for f in declared.features}
        present = truth.status[row] == Status.PRESENT
        got = [{name: _plain(value) for name, value in one.items()} for one in _run(code)]
        assert got == ([expected] if present else [])
        seen.add(int(truth.status[row]))
    assert {Status.PRESENT, Status.EXPIRED if view == "weather" else Status.NOT_FOUND} <= seen


def _one_view(folder: Path, rows: list[tuple[Any, ...]], *, created: bool = True, ttl_us: int | None = None) -> View:
    """A view of one key over these rows of (key, at, known, value)."""
    names, types = ["key", "at", "known", "value"], [pa.string(), STAMP, STAMP, pa.float64()]
    columns = zip(*rows, strict=True)
    table = pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=names)
    pq.write_table(table, folder / "source.parquet")
    template = bundle_of(folder).view("weather")
    return replace(
        template,
        keys=(replace(template.keys[0], column="key", ask="key"),),
        features=(replace(template.features[0], name="value", column="value"),),
        ttl_us=ttl_us,
        source=replace(template.source, path=str(folder / "source.parquet"), created="known" if created else None),
    )


def _ask(instant: datetime, key: str = "a") -> Spine:
    keys = {"key": Column.from_arrow(pa.array([key]), Dtype.STRING, "key")}
    return Spine(np.array(["r"], dtype=object), np.array([us(instant)]), keys, {})


def _agree(view: View, instant: datetime) -> list[Any]:
    """The value that both the join and the five lines give."""
    ask = _ask(instant)
    with OfflineStore([view]) as offline:
        rows = offline.answer(ask)[view.name]
    expected = [] if rows.status[0] != Status.PRESENT else [rows.features["value"].value(0)]
    assert [_plain(one["value"]) for one in _run(reproduce(view, ask))] == expected
    return expected


def test_the_lines_know_what_was_known(tmp_path: Path) -> None:
    """A row counts from its created time on, one without a created time from its event, a later event wins."""
    rows = [("a", at(1), at(3), 1.0), ("a", at(2), None, 2.0), ("a", at(2), at(4), 2.5), ("b", at(1), at(1), 9.0)]
    view = _one_view(tmp_path, rows)
    known = [_agree(view, at(hour)) for hour in (0, 1, 2, 3, 4)]
    assert known == [[], [], [2.0], [2.0], [2.5]]


def test_the_lines_apply_the_ttl_inclusively(tmp_path: Path) -> None:
    """A row as old as the TTL counts, one microsecond older does not."""
    view = _one_view(tmp_path, [("a", at(1), at(1), 1.0)], ttl_us=3_600_000_000)
    assert _agree(view, at(2)) == [1.0]
    assert _agree(view, at(2) + timedelta(microseconds=1)) == []


def test_the_lines_resolve_ties_as_the_join_does(tmp_path: Path) -> None:
    """Of rows equal in both times the greatest answers, null below everything, wherever they lie in the file."""
    rows = [("a", at(1), at(1), value) for value in (2.0, 7.0, None, 3.0)]
    for order in (rows, rows[::-1], rows[2:] + rows[:2]):
        assert _agree(_one_view(tmp_path, order), at(2)) == [7.0]


def test_the_lines_read_a_source_without_created_or_zone(tmp_path: Path) -> None:
    """Sources with a single time, and with naive timestamps, which are read as UTC, work as well."""
    view = _one_view(tmp_path, [("a", at(1), None, 1.0), ("a", at(2), None, 2.0)], created=False)
    assert _agree(view, at(1.5)) == [1.0]
    path = Path(view.source.path)
    table = pq.read_table(path)
    naive = table.set_column(1, "at", table["at"].cast(pa.timestamp("us")))
    pq.write_table(naive, path)
    assert _agree(view, at(2)) == [2.0]


# -- the explanation --------------------------------------------------------------------------------------------------


def test_an_equal_row_is_explained_with_its_source_rows(loop: Loop) -> None:
    """Every feature of both sides, the keys, the header, and per view the newest source rows around the ask."""
    explanation = explain_request(loop.clean_log, loop.bundle, "r002")
    assert (explanation.request_id, explanation.as_of) == ("r002", "2024-03-04T06:08:17Z")
    assert explanation.keys == {"tail": "N2", "origin": "LGA"}
    assert explanation.header["build"] == "A"
    assert explanation.header["model_digest"] == loop.model.digest
    assert [line.feature for line in explanation.lines] == list(loop.bundle.dtypes)
    assert all(line.equal for line in explanation.lines)
    lines = {line.feature: line for line in explanation.lines}
    assert (lines["weather__wind"].served, lines["weather__wind"].truth) == ("expired", "expired")
    assert lines["plane__maker"].served == "null"
    plane, weather = explanation.sources
    assert plane.path == str(loop.root / "plane.parquet")
    assert plane.served == plane.truth == "present, row of 2024-01-24T00:00:00Z"
    assert weather.truth == "expired, row of 2024-03-04T02:00:00Z"
    events = [row["event_time"] for row in weather.rows]
    assert len(events) == 6
    assert events == sorted(events, reverse=True)
    assert events[0].startswith("2024-03-04 12:00"), "the next row after the ask"
    assert set(explanation.pandas) == {"plane", "weather"}


def test_a_skewed_row_shows_what_differs(loop: Loop, tmp_path: Path) -> None:
    """The features that differ are marked with both values, and the five lines print the true one."""

    def wrap(store: Any, bundle: Bundle) -> Store:
        def kmh(column: Column) -> Column:
            return Column.build(column.dtype, column.values * 1.609344, column.status)

        return Store(store, changed(bundle.view("weather"), "wind", kmh))

    log = loop.play(tmp_path, Fault(store=wrap), asks=loop.asks.slice(0, 120))
    explanation = explain_request(log, loop.bundle, "r071")
    different = [line.feature for line in explanation.lines if not line.equal]
    assert different[0] == "weather__wind"
    assert set(different) <= {"weather__wind", "derived__gust_ratio"}
    (line,) = [one for one in explanation.lines if one.feature == "weather__wind"]
    assert float(line.served) == pytest.approx(float(line.truth) * 1.609344)
    assert _run(explanation.pandas["weather"])[0]["wind"] == float(line.truth)


def test_a_key_that_nobody_knew_has_no_lines(loop: Loop) -> None:
    """Where the ask had no key there is no row to look up, and nothing to reproduce."""
    explanation = explain_request(loop.clean_log, loop.bundle, "r005")
    assert explanation.keys["tail"] == "None"
    assert set(explanation.pandas) == {"weather"}
    assert explanation.sources[0].rows == ()
    assert explanation.sources[0].served == "not_found, row of -"


def test_the_last_answer_to_a_repeated_id_is_explained(loop: Loop, tmp_path: Path) -> None:
    """An id that was used twice leads to what was answered last."""
    rows = [batch for _, batch in read_log(loop.clean_log, SERVICE).batches()][:2]
    with loop.open_log(tmp_path) as log:
        for batch in rows:
            place = batch.schema.get_field_index("id")
            log.append(batch.set_column(place, batch.schema.field(place), pa.array(["again"])))
    expected = str(rows[1]["event_timestamp"][0].as_py().isoformat()).replace("+00:00", "Z")
    assert explain_request(tmp_path, loop.bundle, "again").as_of == expected


def test_a_request_that_was_never_logged_is_told(loop: Loop) -> None:
    """The error names the request and the log."""
    with pytest.raises(
        LogError, match=r"^request 'r999' is not in the log at .*: it was never answered, or answered els"
    ):
        explain_request(loop.clean_log, loop.bundle, "r999")


def test_a_request_of_other_definitions_is_told_how_to_be_explained(loop: Loop) -> None:
    """Under another bundle the row could not be read as it was meant: name the bundle that it was served with."""
    other = replace(loop.bundle, outputs=loop.bundle.outputs[:-1])
    with pytest.raises(LogError, match="was answered under other definitions; name that bundle with --bundle"):
        explain_request(loop.clean_log, other, "r002")


def test_a_log_of_another_service_is_not_searched(loop: Loop, tmp_path: Path) -> None:
    """A request of another service is not this service's."""
    (_, batch), *_ = read_log(loop.clean_log, SERVICE).batches()
    with ServingLog(tmp_path, "another", batch.schema, loop.header()) as log:
        log.append(batch)
    with pytest.raises(LogError, match="expected the folder of a serving log"):
        explain_request(tmp_path, loop.bundle, batch["id"][0].as_py())


def test_a_lagged_row_is_told_as_lagged_and_what_rests_on_it_too(loop: Loop) -> None:
    """An older row within max_lag is no difference to look into: it is called what it is, input and output alike."""
    guarded = loop.guard(loop.clean_log)
    assert guarded.comparison is not None
    assert guarded.pairs is not None
    row = int(np.flatnonzero(guarded.comparison.lagged)[0])
    explanation = explain_request(
        loop.clean_log, loop.bundle, guarded.pairs.served.spine.ids[row], snapshot=loop.snapshot
    )
    states = {line.feature: line.state for line in explanation.lines if line.state}
    assert set(states.values()) == {"lagged"}
    assert any(name.startswith(("weather__", "plane__")) for name in states)
    assert all(line.equal is not bool(line.state) for line in explanation.lines)


def test_a_difference_that_an_input_brings_is_carried(loop: Loop, tmp_path: Path) -> None:
    """Where the transform is right and its input is not, the input differs and the output carries it."""

    def wrap(store: Any, bundle: Bundle) -> Store:
        def kmh(column: Column) -> Column:
            return Column.build(column.dtype, column.values * 1.609344, column.status)

        return Store(store, changed(bundle.view("weather"), "wind", kmh))

    log = loop.play(tmp_path, Fault(store=wrap))
    guarded = loop.guard(log)
    assert guarded.pairs is not None
    ratio = guarded.pairs.served.feature(loop.bundle, "derived__gust_ratio").present
    bad = guarded.comparison.mismatched if guarded.comparison is not None else ratio
    row = int(np.flatnonzero(bad & ratio)[0])
    states = {
        line.feature: line.state
        for line in explain_request(log, loop.bundle, guarded.pairs.served.spine.ids[row]).lines
    }
    assert states["weather__wind"] == "differs"
    assert states["derived__gust_ratio"] == "carried"
