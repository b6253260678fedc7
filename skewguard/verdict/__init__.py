"""Verdict: what the findings come to under a policy. PASS, FAIL or UNKNOWN; no evidence is UNKNOWN, never PASS.

coverage.py   what was looked at, feature by feature       ruling.py   the data, and its JSON
judging.py    findings + coverage + policy -> Verdict
"""

from skewguard.verdict.coverage import Coverage, Covered, Names, Scope, lacking, scope_of
from skewguard.verdict.judging import judge
from skewguard.verdict.ruling import Ruling, Subject, Verdict, finding_from_json, load_findings

__all__ = [
    "Coverage",
    "Covered",
    "Names",
    "Ruling",
    "Scope",
    "Subject",
    "Verdict",
    "finding_from_json",
    "judge",
    "lacking",
    "load_findings",
    "scope_of",
]
