"""Expectations: Great Expectations suites, generated from the definitions, kept as JSON beside them, and run.

`source_suite` and `snapshot_suite` write down what the definitions and their contracts promise, in Great Expectations'
own format; `keep` lays the suite beside the features, where a team may edit it, and an edited suite is honoured as it
is; `validate` runs it on a Parquet file and turns every failed expectation into a `Finding`.

Great Expectations itself (several seconds and 170 MiB to import) is loaded when `validate` is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skewguard.errors import MissingExtra
from skewguard.expectations.suite import Suite, keep, load, save, snapshot_suite, source_suite

if TYPE_CHECKING:
    from skewguard.expectations.great_expectations import validate

__all__ = ["Suite", "keep", "load", "save", "snapshot_suite", "source_suite", "validate"]


def __getattr__(name: str) -> Any:
    if name != "validate":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from skewguard.expectations.great_expectations import validate
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("great_expectations", "pandas"):
            raise
        raise MissingExtra("running a Great Expectations suite", "ge") from error
    return validate
