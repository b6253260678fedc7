"""TensorFlow Data Validation's skew comparators: L-infinity above 0.01 of texts, Jensen-Shannon above 0.1 of numbers.

It has no thresholds of its own; these are the ones of its documentation.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
warnings.simplefilter("ignore")

import pandas as pd  # noqa: E402
import tensorflow_data_validation as tfdv  # type: ignore[import-not-found]  # noqa: E402

_kept: dict[str, tuple[Any, Any]] = {}


def alarms(path: str, reference: pd.DataFrame, current: pd.DataFrame) -> list[str]:
    """Features whose comparator complains."""
    if path not in _kept:
        statistics = tfdv.generate_statistics_from_dataframe(reference, n_jobs=1)
        schema = tfdv.infer_schema(statistics)
        for name in reference:
            comparator = tfdv.get_feature(schema, name).skew_comparator
            if reference[name].dtype == object:
                comparator.infinity_norm.threshold = 0.01
            else:
                comparator.jensen_shannon_divergence.threshold = 0.1
        _kept[path] = statistics, schema
    statistics, schema = _kept[path]
    serving = tfdv.generate_statistics_from_dataframe(current, n_jobs=1)
    found = tfdv.validate_statistics(statistics, schema, serving_statistics=serving)
    return [
        name
        for name, info in found.anomaly_info.items()
        if any("COMPARATOR" in info.Reason.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[r.type].name
               for r in info.reason)
    ]  # fmt: skip


if __name__ == "__main__":
    print(json.dumps({"version": tfdv.__version__}))
    for job in json.loads(Path(sys.argv[1]).read_text()):
        reference, current = (pd.read_parquet(job[side]) for side in ("reference", "current"))
        began = time.perf_counter()
        found = alarms(job["reference"], reference, current)
        print(json.dumps({"alarms": found, "seconds": time.perf_counter() - began}), flush=True)
