"""A million keys, 37 of them dropped: how long it takes to name exactly these, and to heal them.

    python -m benchmarks.anti_entropy [--quick] [--keys N] [--only sqlite|redis]

Publishes N keys (1,000,000) as `skewguard materialize` does, to SQLite and to a Redis of its own. Then drops 37, makes
13 stale and alters 11, and runs `skewguard reconcile`, `heal`, and `reconcile` again, each as a process of its own. The
last line is JSON: seconds of each command, keys named wrongly or not at all (`wrong`), keys that deviate after healing
(`left`), and the peak memory of the first (`mib`, the whole process).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewguard.contract import Contract
from skewguard.definitions import Bundle, Feature, Key, Source, View
from skewguard.offline import OfflineStore
from skewguard.online import Layout, open_store, pack
from skewguard.online.keys import row_key
from skewguard.online.store import KeptStore
from skewguard.values import Column, Dtype
from skewguard.workflows.anti_entropy import Deviates
from skewguard.workflows.materialize import materialize

T0 = 1_700_000_000_000_000
BROKEN = {Deviates.MISSING: 37, Deviates.STALE: 13, Deviates.DIFFERENT: 11}


def world(root: Path, keys: int) -> Bundle:
    """One view of `keys` users with eight numbers each."""
    random = np.random.default_rng(1)
    stamps = pa.array(T0 + np.arange(keys) % 1_000_000).view(pa.timestamp("us", tz="UTC"))
    numbers = {f"f{i}": pa.array(random.normal(size=keys)) for i in range(8)}
    pq.write_table(
        pa.table({"user": pa.array(np.arange(keys)), "at": stamps, "known": stamps, **numbers}), root / "u.parquet"
    )
    features = tuple(Feature(name, name, Dtype.FLOAT64, Contract()) for name in numbers)
    source = Source(str(root / "u.parquet"), "at", "known")
    view = View("user", (Key("user", "user", Dtype.INT64),), features, None, 0, source)
    return Bundle("bench", "bench", (view,), (), (), tuple(view.full_name(name) for name in numbers))


def spoil(bundle: Bundle, store: KeptStore, keys: int) -> dict[Deviates, set[int]]:
    """Drop, age and alter some keys; which."""
    chosen = np.random.default_rng(2).permutation(keys)
    (view,) = bundle.views
    broken, at = {}, 0
    for kind, count in BROKEN.items():
        broken[kind] = set(chosen[at : at + count].tolist())
        at += count
    of = {user: row_key(bundle.project, view, (user,)) for users in broken.values() for user in users}
    store.delete(list(of.values()))
    values = np.zeros(1)
    columns = [Column.build(Dtype.FLOAT64, values, np.zeros(1, np.uint8))] * len(view.features)
    for kind, earlier in ((Deviates.STALE, 5_000_000), (Deviates.DIFFERENT, 0)):
        for user in broken[kind]:
            event = np.array([T0 + user % 1_000_000 - earlier])
            store.write([(of[user], pack(Layout.of(view), event, event, T0, columns)[0])], {})
    return broken


def measure(bundle: Bundle, root: Path, url: str, keys: int) -> dict[str, float]:
    """Publish, spoil, reconcile, heal and reconcile again."""
    with closing(open_store(url)) as store:
        with OfflineStore(bundle.views) as offline:
            materialize(bundle, offline, store, T0 + 2_000_000)
        broken = spoil(bundle, store, keys)
    bundle.save(root / "bundle.json")
    reconciled, seconds, mib = _command(root, url, "reconcile")
    (found,) = reconciled["views"]
    named = {(one["deviates"], one["keys"]["user"]) for one in found["named"]}
    wrong = len(named ^ {(str(kind), user) for kind, users in broken.items() for user in users})
    healed, healing, _ = _command(root, url, "heal")
    again, clean, _ = _command(root, url, "reconcile")
    (after,) = again["views"]
    left = healed["left"] + sum(after[str(kind)] for kind in Deviates)
    print(
        f"{url.partition(':')[0]}: {seconds:.1f} s, {wrong} wrong, {mib:.0f} MiB, healed in {healing:.1f} s", flush=True
    )
    figures = {"reconcile_s": seconds, "clean_s": clean, "heal_s": healing, "mib": mib}
    return {name: round(figure, 1) for name, figure in figures.items()} | {"wrong": wrong, "left": left}


def _command(root: Path, url: str, name: str) -> tuple[dict[str, Any], float, float]:
    """(what a command prints, seconds, peak memory in MiB)."""
    command = [sys.executable, "-m", "skewguard.cli", name, "--json", "--store", url, "--bundle"]
    began = time.perf_counter()
    with (root / "told.json").open("wb") as told:
        process = subprocess.Popen([*command, str(root / "bundle.json")], stdout=told)  # noqa: S603  (our own)
        _, _, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = 0
    return json.loads((root / "told.json").read_text()), seconds, usage.ru_maxrss / 1024


def main(argv: list[str] | None = None) -> int:
    """Measure every store; JSON last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="20,000 keys")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--only", choices=["sqlite", "redis"])
    arguments = parser.parse_args(argv)
    keys = 20_000 if arguments.quick else arguments.keys
    figures = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        bundle = world(Path(folder), keys)
        if arguments.only != "redis":
            figures["sqlite"] = measure(bundle, Path(folder), f"sqlite:{folder}/online.db", keys)
        if arguments.only != "sqlite":
            from benchmarks.write import own_redis

            figures["redis"] = measure(bundle, Path(folder), running.enter_context(own_redis()), keys)
    print(json.dumps({"keys": keys, "dropped": BROKEN[Deviates.MISSING], **figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
