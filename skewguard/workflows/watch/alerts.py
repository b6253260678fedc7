"""Alerts: each finding is told once when it decides, and once when it is over."""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skewguard import report
from skewguard.findings import Finding
from skewguard.policy import Policy
from skewguard.workflows.watch.window import UNWATCHED, Hits, name_of

ENOUGH_ROWS = 3
"""So many rows a cause needs: an alert waits for them, up to its patience."""

_WOULD_HAVE = 5
_LINES = 12


@dataclass
class Alert:
    """One finding that decided, at `opened` (seconds). `state`: pending, open, over."""

    name: str
    kind: str
    feature: str
    opened: float
    state: str = "pending"
    rate: float = 0.0
    rows: int = 0
    sentence: str = ""
    cause: str = ""
    example: str = ""
    recent: deque[tuple[float, int, int]] = field(default_factory=deque)

    def update(self, finding: Finding) -> None:
        """What is known of it by now."""
        self.rate, self.rows = finding.rate, finding.rows
        self.sentence, self.cause = report.sentence(finding), finding.cause_kind
        self.example = finding.examples[0].request_id if finding.examples else self.example

    def lines(self) -> list[str]:
        """What people are told."""
        told = [f"• {self.sentence}"]
        return [*told, f"   skewguard explain {shlex.quote(self.example)}"] if self.example else told


@dataclass(frozen=True, slots=True)
class Changes:
    """Alerts that began and ended with a look; `calm`: something ended, and nothing is open any more."""

    began: tuple[Alert, ...]
    ended: tuple[Alert, ...]
    calm: bool


class Alerts:
    """The alerts of one watch. `patience` seconds for a cause; over after `calm` seconds without what was found."""

    def __init__(self, policy: Policy, patience: float, calm: float) -> None:
        self._policy, self._patience, self._calm = policy, patience, calm
        self._alerts: dict[str, Alert] = {}

    @property
    def open(self) -> list[Alert]:
        """Those that were told and are not over."""
        return [one for one in self._alerts.values() if one.state == "open"]

    def look(self, deciding: Sequence[Finding], hits: Mapping[str, Hits], rows: int, now: float) -> Changes:
        """One look: `deciding` findings of the window, and what was found in the `rows` of this look alone."""
        for alert in self._alerts.values():
            found = hits.get(alert.name)
            alert.recent.append((now, found.rows if found else 0, rows))
            while alert.recent[0][0] < now - self._calm:
                alert.recent.popleft()
        by_name = {name_of(finding): finding for finding in deciding}
        began = [one for name, finding in by_name.items() if (one := self._decides(name, finding, now))]
        for name in [one.name for one in self._alerts.values() if one.state == "pending" and one.name not in by_name]:
            del self._alerts[name]
        ended = [alert for alert in self.open if alert not in began and self._is_over(alert, by_name, now)]
        for alert in ended:
            alert.state = "over"
            alert.recent.clear()
        calm = bool(ended) and not any(one.state != "over" for one in self._alerts.values())
        if calm:
            self._alerts.clear()
        return Changes(tuple(began), tuple(ended), calm)

    def _decides(self, name: str, finding: Finding, now: float) -> Alert | None:
        """The alert of a finding that decides, if it is to be told now."""
        alert = self._alerts.setdefault(name, Alert(name, str(finding.kind), finding.feature, now))
        if alert.state == "over":
            again = finding.rows > alert.rows if finding.kind in UNWATCHED else any(bad for _, bad, _ in alert.recent)
            if not again:
                return None
            alert.state, alert.opened = "pending", now
        alert.update(finding)
        if alert.state == "pending" and (finding.rows >= ENOUGH_ROWS or now - alert.opened >= self._patience):
            alert.state = "open"
            return alert
        return None

    def _is_over(self, alert: Alert, deciding: Mapping[str, Finding], now: float) -> bool:
        """Whether so many rows came that some would have shown it, and they did not."""
        if alert.kind in UNWATCHED:
            return alert.name not in deciding
        if now - alert.opened < self._calm or not alert.recent or now - alert.recent[0][0] < 0.8 * self._calm:
            return False
        rows, bad = sum(one for *_, one in alert.recent), sum(one for _, one, _ in alert.recent)
        finding = deciding.get(alert.name)
        tolerated = max(finding.benign, self._policy.limit(finding.kind)) if finding else 0.0
        return rows * alert.rate >= _WOULD_HAVE and bad <= tolerated * rows

    def to_json(self) -> list[dict[str, Any]]:
        """Plain data of what was told."""
        names = ("name", "kind", "feature", "opened", "state", "rate", "rows", "sentence", "cause", "example")
        return [{name: getattr(one, name) for name in names} for one in self._alerts.values()]

    def restore(self, data: Sequence[Mapping[str, Any]]) -> None:
        """What `to_json` said."""
        self._alerts = {one["name"]: Alert(**one) for one in data}


def message(about: str, changes: Changes) -> str:
    """What is told of the changes of one look; empty where there are none."""
    lines = []
    if changes.began:
        lines += [f"{about}: served values are not what training would have seen"]
        lines += [line for alert in changes.began[:_LINES] for line in alert.lines()]
        lines += [f"and {len(changes.began) - _LINES} more"] if len(changes.began) > _LINES else []
    if changes.ended:
        lines += [f"{about}: over, {_recently(changes.ended)}"]
    return "\n".join(lines)


def _recently(ended: Sequence[Alert]) -> str:
    names = sorted({f"{alert.kind} of {alert.feature}" for alert in ended})
    return "no more rows with " + ", ".join(names[:_LINES]) + (" and others" if len(names) > _LINES else "")
