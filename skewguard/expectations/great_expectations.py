"""Runs a suite with the real Great Expectations on a Parquet file. The only file that imports it.

Great Expectations on pandas copies the whole batch for every column that it looks at, so every batch here holds only
the columns that its expectations name: memory stays that of a few columns, and time grows with the columns, not with
their square. Types are read from the file's schema, not from what pandas makes of a column with nulls.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # nothing here reports home

import great_expectations as gx
from great_expectations.core import ExpectationSuiteValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.exceptions.exceptions import GreatExpectationsError
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
from great_expectations.render.view.view import DefaultJinjaPageView

from skewguard.errors import DefinitionError, EvidenceError
from skewguard.expectations.outcome import EXISTENCE, TYPES, Failure, Outcome, named_columns
from skewguard.expectations.parquet import ParquetFile
from skewguard.expectations.suite import Suite
from skewguard.expectations.wording import shown
from skewguard.findings import Finding

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core.batch_definition import BatchDefinition
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult

Progress = Callable[[str, int, int], None]
Columns = tuple[str, ...] | None
"""The columns of a batch; None stands for all of them, without rows."""

EXAMPLES = 5
_SHAPES = (EXISTENCE, "expect_table_column_count_", "expect_table_columns_to_match_")
_ROW_COUNTS = "expect_table_row_count_"
_FRESH_AFTER = 8
_OBJECTS = {"object", "object_", "O"}
# What the library and its pydantic raise for an expectation that they cannot make.
_UNKNOWN = (GreatExpectationsError, AttributeError, KeyError, RuntimeError, TypeError, ValueError)


def validate(
    path: Path,
    suite: Suite,
    *,
    feature_prefix: str = "",
    progress: Progress | None = None,
    data_docs: Path | None = None,
) -> list[Finding]:
    """Run `suite` on the Parquet file (or folder of Parquet files) at `path`; a finding for each failed expectation.

    `feature_prefix` is the view's name for a source, empty for a snapshot, whose columns are full names already. A
    column that is not there is one finding, however many expectations want it. `progress` is told (what, done, total).
    `data_docs` is a folder for the library's own page about the run, `<suite>.html`.

    Raises `SourceError` where the file is missing or unreadable, and `DefinitionError` with every complaint where the
    suite holds expectations that Great Expectations does not know.
    """
    path = Path(path)
    _refuse_unknown(path, suite)
    file = ParquetFile(path)
    groups, absent = _groups(file, suite)
    results: dict[int, ExpectationValidationResult] = {}
    total = len(suite["expectations"])
    done = 0
    with _old_objects_aside():
        for number, (columns, indices) in enumerate(groups.items()):
            if number % _FRESH_AFTER == 0:
                batches = _batches()
            if progress:
                progress(f"expect {path.name}", done, total)
            expectations = [_given(suite["expectations"][index], index) for index in indices]
            results |= _run(batches, file.shape() if columns is None else file.frame(columns), expectations)
            done += len(indices)
            gc.collect()
    if progress:
        progress(f"expect {path.name}", total, total)
    if data_docs is not None:
        _write_docs(data_docs, file, suite, results)
    failures = [_failure(one) for one in results.values() if not one.success]
    return Outcome(file, suite, feature_prefix).findings(failures, absent)


def _refuse_unknown(path: Path, suite: Suite) -> None:
    complaints = []
    for index, one in enumerate(suite["expectations"]):
        try:
            # A suite would only log what it cannot make, and leave it out.
            ExpectationConfiguration(**_given(one, index)).to_domain_obj()
        except _UNKNOWN as error:
            reason = " ".join(str(error).split())
            complaints.append(f"suite {suite['name']} for {path}: $.expectations[{index}] ({one['type']}): {reason}")
    if complaints:
        raise DefinitionError(complaints)


def _given(one: Suite, index: int) -> Suite:
    """An expectation as the library is given it: with its place in the suite instead of its id and notes."""
    kwargs = copy.deepcopy(one["kwargs"])
    if kwargs.get("condition_parser") == "pandas":
        # The same condition as the library writes it since 1.9, without its warning about the older form.
        del kwargs["condition_parser"]
        if isinstance(query := kwargs.get("row_condition"), str):
            kwargs["row_condition"] = {"type": "pass_through", "pass_through_filter": query}
    return {"type": one["type"], "kwargs": kwargs, "meta": {"index": index}}


@contextlib.contextmanager
def _old_objects_aside() -> Iterator[None]:
    """Makes `gc.collect()` look at new objects alone, which takes a millisecond instead of 0.2 s.

    The library leaves every batch behind in reference cycles (tracebacks of exceptions that pydantic caught): 170 MiB
    for a snapshot of 250,000 rows and 40 columns, and again for the next one.
    """
    frozen = gc.get_freeze_count() > 0  # by somebody else, who would not thank us for thawing it
    if not frozen:
        gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


def _groups(file: ParquetFile, suite: Suite) -> tuple[dict[Columns, list[int]], dict[str, int]]:
    """Expectations by the columns that they need, and the absent columns, each with the first that wants it."""
    groups: dict[Columns, list[int]] = {}
    absent: dict[str, int] = {}
    for index, one in enumerate(suite["expectations"]):
        missing = [name for name in named_columns(one) if name not in file.names]
        for name in missing:
            absent.setdefault(name, index)
        if not missing:
            groups.setdefault(_needed(file, one), []).append(index)
    return groups, absent


def _needed(file: ParquetFile, one: Suite) -> Columns:
    type_, kwargs = one["type"], one["kwargs"]
    if type_.startswith(_SHAPES):
        return None
    if type_ in TYPES and not _OBJECTS & {kwargs.get("type_"), *(kwargs.get("type_list") or [])}:
        return None
    if names := named_columns(one):
        return tuple(dict.fromkeys([*names, *_in_condition(file, kwargs.get("row_condition"))]))
    return tuple(file.names[:1] if type_.startswith(_ROW_COUNTS) else file.names)  # about the table


def _in_condition(file: ParquetFile, condition: Any) -> Iterator[str]:
    """The file's columns that a row condition reads: named outright, or found in the text of a pandas query."""
    if isinstance(condition, str):
        words = set(re.findall(r"\w+", condition))
        yield from (name for name in file.names if name in words or f"`{name}`" in condition)
    elif isinstance(condition, Mapping):
        if isinstance(column := condition.get("column"), Mapping) and column.get("name") in file.names:
            yield str(column["name"])
        for one in condition.get("conditions") or ():
            yield from _in_condition(file, one)
        yield from _in_condition(file, condition.get("pass_through_filter"))


def _run(
    batches: BatchDefinition[Any], frame: pd.DataFrame, expectations: list[Suite]
) -> dict[int, ExpectationValidationResult]:
    """What came of each, by its place in the suite."""
    outcome = batches.get_batch({"dataframe": frame}).validate(
        gx.ExpectationSuite(name="columns", expectations=expectations),
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": EXAMPLES},
    )
    if len(outcome.results) != len(expectations):
        told = f"{len(expectations)} expectations were asked of Great Expectations, it answered {len(outcome.results)}"
        raise EvidenceError(f"{told}. Report this with the suite; nothing is concluded from the rest.")
    return {_place(one): one for one in outcome.results}


def _place(one: ExpectationValidationResult) -> int:
    config: Any = one.expectation_config
    index: int = config.meta["index"]
    return index


def _write_docs(folder: Path, file: ParquetFile, suite: Suite, results: dict[int, ExpectationValidationResult]) -> None:
    """The library's page about all of the suite; what wants an absent column was not run, and is run here to say so."""
    absent = [index for index in range(len(suite["expectations"])) if index not in results]
    if absent:
        given = [_given(suite["expectations"][index], index) for index in absent]
        results = results | _run(_batches(), file.shape(), given)
    held = sum(bool(one.success) for one in results.values())
    statistics = {
        "evaluated_expectations": len(results),
        "successful_expectations": held,
        "unsuccessful_expectations": len(results) - held,
        "success_percent": 100.0 * held / len(results) if results else None,
    }
    name = {"run_name": file.path.name, "run_time": datetime.now(UTC).isoformat()}
    whole = ExpectationSuiteValidationResult(
        success=held == len(results),
        results=[results[index] for index in sorted(results)],
        suite_name=suite["name"],
        statistics=statistics,
        meta={"great_expectations_version": gx.__version__, "run_id": name, "batch_kwargs": {}},
    )
    page = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(whole))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{suite['name']}.html").write_text(page, encoding="utf-8")


def _batches() -> BatchDefinition[Any]:
    """Where data frames become batches. Made anew now and then, because a context holds on to what it was shown."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("parquet").add_dataframe_asset("columns")
    return asset.add_batch_definition_whole_dataframe("rows")


def _failure(one: ExpectationValidationResult) -> Failure:
    result: Mapping[str, Any] = one.result or {}
    index = _place(one)
    if error := _raised(one.exception_info or {}):
        return Failure(index, error=error)
    count = result.get("unexpected_count")
    if count is None:
        return Failure(index, observed=shown(result.get("observed_value")))
    numbers = [int(n) for n in result.get("partial_unexpected_index_list") or []]
    values = result.get("partial_unexpected_list") or [None] * len(numbers)
    return Failure(index, int(count), int(result["element_count"]), tuple(values), tuple(numbers))


def _raised(exception: Mapping[str, Any]) -> str:
    """The first exception behind a result; the library reports one flat, or one for each metric."""
    nested = [one for one in exception.values() if isinstance(one, Mapping)]
    for one in [exception, *nested]:
        if one.get("raised_exception"):
            return " ".join(str(one.get("exception_message")).split())
    return ""
