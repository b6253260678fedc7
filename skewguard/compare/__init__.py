"""Compare: what was served against the truth, and the log against what else is known. Measures, never decides.

rows.py         Pairs -> findings and counts, tap by tap    tally.py     the same, added up over batches
uniqueness.py   ids that were logged twice                  frozen.py    sources that repeat themselves
constraints.py  what always held between columns            drift.py     the quiet channel
domain.py       values that no column ever held             unknown.py   keys that no source knows
standstill.py   ... for every key at once
learnt.py       what the snapshot teaches them              evidence.py  what they share
"""

from skewguard.compare.constraints import Constraints
from skewguard.compare.domain import Domains
from skewguard.compare.drift import Drift, drift
from skewguard.compare.evidence import Check
from skewguard.compare.frozen import Frozen
from skewguard.compare.learnt import Learnt, learn
from skewguard.compare.rows import EXAMPLES, Comparison, by_hour, compare
from skewguard.compare.tally import Tally
from skewguard.compare.uniqueness import Uniqueness
from skewguard.compare.unknown import Unknown

__all__ = [
    "EXAMPLES",
    "Check",
    "Comparison",
    "Constraints",
    "Domains",
    "Drift",
    "Frozen",
    "Learnt",
    "Tally",
    "Uniqueness",
    "Unknown",
    "by_hour",
    "compare",
    "drift",
    "learn",
]
