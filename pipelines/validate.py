"""Great Expectations over the sources, or over a snapshot. `python -m pipelines.validate --help`.

The suites are kept as JSON with the features (`feature_repo/expectations`): generated once, honoured as edited.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

from pipelines.command import exit_code
from skewguard.definitions import Bundle, load_bundle
from skewguard.expectations import keep, snapshot_suite, source_suite, validate
from skewguard.findings import Finding
from skewguard.offline import Rule
from skewguard.snapshot import Snapshot, load_snapshot

SUITES = Path("feature_repo/expectations")

Progress = Callable[[str, int, int], None]


def validate_sources(
    bundle: Bundle, suites: Path = SUITES, progress: Progress | None = None, data_docs: Path | None = None
) -> list[Finding]:
    """What is wrong with the sources; to be asked before they are materialized."""
    findings = []
    for view in bundle.views:
        suite = keep(suites, source_suite(view))
        findings += validate(
            Path(view.source.path), suite, feature_prefix=view.name, progress=progress, data_docs=data_docs
        )
    return findings


def validate_snapshot(
    snapshot: Snapshot, suites: Path = SUITES, progress: Progress | None = None, data_docs: Path | None = None
) -> list[Finding]:
    """What is wrong with a snapshot; to be asked after it is built."""
    suite = keep(suites, snapshot_suite(snapshot.bundle, known_by_ask=snapshot.manifest.rule is Rule.KNOWN))
    return validate(snapshot.path / "rows.parquet", suite, progress=progress, data_docs=data_docs)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the findings as JSON; exit 1 where there are any, 2 where it could not run."""
    return exit_code("validate", lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.validate", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--bundle", type=Path, help="validate the sources of this bundle")
    what.add_argument("--snapshot", type=Path, help="validate this snapshot")
    parser.add_argument("--suites", type=Path, default=SUITES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-docs", type=Path, metavar="DIR", help="write Great Expectations' own pages here")
    arguments = parser.parse_args(argv)
    if arguments.bundle:
        findings = validate_sources(load_bundle(arguments.bundle), arguments.suites, data_docs=arguments.data_docs)
    else:
        findings = validate_snapshot(load_snapshot(arguments.snapshot), arguments.suites, data_docs=arguments.data_docs)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps([asdict(finding) for finding in findings], indent=1) + "\n")
    for finding in findings:
        print(finding.message)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
