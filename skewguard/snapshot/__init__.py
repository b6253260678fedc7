"""Snapshot: what a model was trained on, frozen. A folder of four files:

    rows.parquet     one row per ask, in order: the flat form of `answer.Served`, and the label columns
    manifest.json    the id and what it covers, and evidence beside it: digests of the sources per view and month
    bundle.json      the definitions that it was built with
    profile.json     what its columns look like

The id covers asks, labels, rule, definitions, transforms and the logical answer rows; not Parquet bytes, paths, thread
counts, batch sizes or times of day.
"""

from skewguard.snapshot.adopt import CLAIMS, adopt_snapshot
from skewguard.snapshot.build import answers, build_snapshot
from skewguard.snapshot.diff import Difference, diff_snapshots
from skewguard.snapshot.frozen import FORMAT, Manifest, Snapshot, load_snapshot
from skewguard.snapshot.profile import ColumnProfile, Profile, load_profile
from skewguard.snapshot.sources import SourceMonth, source_digests
from skewguard.snapshot.verify import Verification, damage_of, verify_snapshot

__all__ = [
    "CLAIMS",
    "FORMAT",
    "ColumnProfile",
    "Difference",
    "Manifest",
    "Profile",
    "Snapshot",
    "SourceMonth",
    "Verification",
    "adopt_snapshot",
    "answers",
    "build_snapshot",
    "damage_of",
    "diff_snapshots",
    "load_profile",
    "load_snapshot",
    "source_digests",
    "verify_snapshot",
]
