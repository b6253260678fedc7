"""NannyML's univariate drift by Jensen-Shannon distance: thresholds from tenths of the reference, any chunk alarms."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

sys.path = [
    entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent
]  # its own name
warnings.simplefilter("ignore")

import nannyml  # type: ignore[import-not-found]  # noqa: E402
import pandas as pd  # noqa: E402

_fitted: dict[str, nannyml.UnivariateDriftCalculator] = {}


def alarms(path: str, reference: pd.DataFrame, current: pd.DataFrame) -> list[str]:
    """Columns of which a chunk alarms."""
    if path not in _fitted:
        names = [name for name in reference if reference[name].notna().sum() > 0.02 * len(reference)]
        texts = [name for name in names if reference[name].dtype == object]
        calculator = nannyml.UnivariateDriftCalculator(
            column_names=names, treat_as_categorical=texts, continuous_methods=["jensen_shannon"],
            categorical_methods=["jensen_shannon"], chunk_size=len(reference) // 10,
        )  # fmt: skip
        _fitted[path] = calculator.fit(reference)
    calculator = _fitted[path]
    seen = calculator.calculate(current).filter(period="analysis").to_df()
    return [name for name in calculator.column_names if bool(seen[(name, "jensen_shannon", "alert")].any())]


if __name__ == "__main__":
    print(json.dumps({"version": nannyml.__version__}))
    for job in json.loads(Path(sys.argv[1]).read_text()):
        reference, current = (pd.read_parquet(job[side]) for side in ("reference", "current"))
        began = time.perf_counter()
        found = alarms(job["reference"], reference, current)
        print(json.dumps({"alarms": found, "seconds": time.perf_counter() - began}), flush=True)
