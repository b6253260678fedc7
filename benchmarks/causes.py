"""How often the cause of a fault is named: every kind of fault of `tests/causes_world.py`, twenty times each.

    python -m benchmarks.causes [--instances 20]

Parameters and the part of the traffic are drawn at random. The time is that of all findings of one fault: 6,000 rows,
one view of ten features. Prints a table and, last, a JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from skewguard.causes import explain_all
from skewguard.compare import compare
from tests.causes_world import FAULTS, MINUTE, World, slice_of, world

FEW = 20


def main() -> None:
    """Every fault, some instances each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=20)
    instances = parser.parse_args().instances
    with tempfile.TemporaryDirectory() as folder:
        w = world(Path(folder))
        rows = [(fault, one) for fault in FAULTS for seed in range(instances) if (one := _try(w, fault, seed))]
    print(f"{'fault':<20} named    of")
    for fault in FAULTS:
        named = [one["top1"] for name, one in rows if name == fault]
        print(f"{fault:<20} {sum(named):>5} {len(named):>5}")
    figures = {
        f"cause_{key}": round(float(np.mean([one[key] for _, one in rows if key in one])), 4)
        for key in ("top1", "top3", "slice", "lag")
    }
    seconds = [one["seconds"] for _, one in rows]
    print(json.dumps(figures | {"faults": len(rows), "seconds_p95": round(float(np.quantile(seconds, 0.95)), 3)}))


def _try(w: World, fault: str, seed: int) -> dict[str, float] | None:
    """What came of one instance; None where it strikes hardly a row."""
    put_in, kinds = FAULTS[fault]
    random = np.random.default_rng([seed, sum(map(ord, fault))])
    where, words = slice_of(w, random)
    case = put_in(w, random, where)
    observed = compare(case.pairs).observed
    start = time.perf_counter()
    told = explain_all(observed, case.pairs)
    seconds = time.perf_counter() - start
    found = max((one for one in told if one.feature == case.feature), key=lambda one: one.rows, default=None)
    if found is None or found.rows < FEW:
        return None
    top1 = found.cause_kind in kinds
    result = {
        "top1": float(top1),
        "top3": float(bool({one.kind for one in (*found.causes, *found.alternatives)} & kinds)),
        "slice": float(tuple(one for one in found.slices if one.startswith("only")) == words),
        "seconds": seconds,
    }
    if case.lag_us and top1:
        off = abs(found.causes[0].lag_seconds * 1e6 - case.lag_us)
        result["lag"] = float(off <= max(2 * MINUTE, abs(case.lag_us) / 20))
    return result


if __name__ == "__main__":
    main()
