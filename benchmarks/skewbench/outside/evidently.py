"""Evidently's DataDriftPreset with its defaults, which go by the number of rows and values."""

from __future__ import annotations

import json
import re
import sys
import time
import warnings
from pathlib import Path

sys.path = [
    entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent
]  # its own name
warnings.simplefilter("ignore")

import evidently  # type: ignore[import-not-found]  # noqa: E402
import pandas as pd  # noqa: E402
from evidently import Report  # noqa: E402
from evidently.presets import DataDriftPreset  # type: ignore[import-not-found]  # noqa: E402

FIELD = re.compile(r"(\w+)=([^,()]+)")


def alarms(reference: pd.DataFrame, current: pd.DataFrame) -> list[str]:
    """Columns whose distance reaches the threshold, or whose p-value falls below it."""
    names = [str(name) for name in reference]
    empty = [name for name in names if reference[name].isna().all() or current[name].isna().all()]  # it raises
    seen = Report([DataDriftPreset()]).run(current.drop(columns=empty), reference.drop(columns=empty)).dict()
    found = [name for name in empty if reference[name].isna().all() != current[name].isna().all()]
    for metric in seen["metrics"]:
        said = metric.get("metric_name", metric.get("metric_id", ""))
        if not said.startswith("ValueDrift"):
            continue
        fields = dict(FIELD.findall(said))
        value, threshold = float(metric["value"]), float(fields.get("threshold", 0.1))
        small = "p_value" in fields.get("method", "")
        if (value < threshold) if small else (value >= threshold):
            found.append(fields["column"])
    return found


if __name__ == "__main__":
    print(json.dumps({"version": evidently.__version__}))
    for job in json.loads(Path(sys.argv[1]).read_text()):
        reference, current = (pd.read_parquet(job[side]) for side in ("reference", "current"))
        began = time.perf_counter()
        print(json.dumps({"alarms": alarms(reference, current), "seconds": time.perf_counter() - began}), flush=True)
