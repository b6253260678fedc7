"""What one row alone shows of its cause: a hint for whoever looks at it. The cause of a finding takes more rows."""

from __future__ import annotations

import numpy as np

from skewguard.causes.precision import narrowings
from skewguard.causes.text import FORMS
from skewguard.causes.unit import KNOWN, formula, near
from skewguard.values import Column, Status


def hint(served: Column, truth: Column) -> str:
    """A sentence on the only row of two columns that differ; empty where nothing simple makes one of the other."""
    got, true = served.value(0), truth.value(0)
    if got is None or true is None:
        return _absent(served, truth)
    if isinstance(true, str):
        return next((f"served = truth {what}" for what, form in FORMS if form(true) == got), "")
    if not truth.dtype.is_numeric:
        return ""
    one, other = (np.array([float(value)]) for value in (got, true))
    for a, b, name in KNOWN:
        if other[0] and near(one, a * other + b)[0]:
            return f"{formula(a, b)} ({name})"
    same = (sentence for _, sentence, _, values in narrowings(other) if values[0] == one[0])
    return next(same, "") if truth.dtype.is_float else ""


def _absent(served: Column, truth: Column) -> str:
    mine, right = (Status(int(column.status[0])) for column in (served, truth))
    if right is Status.EXPIRED and mine is Status.PRESENT:
        return "the truth has expired: an older value than the TTL allows, or a default in its place"
    if mine is Status.PRESENT:
        return f"a value that is missing ({right.name.lower()}) was served as {served.value(0)}"
    if right is Status.PRESENT:
        return f"a value that exists was served as missing ({mine.name.lower()})"
    return ""
