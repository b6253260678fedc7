"""One watch: look, judge, tell, remember."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from skewguard import report
from skewguard.errors import EvidenceError, SkewguardError
from skewguard.findings import DOUBTS, Finding
from skewguard.gate.webhook import post
from skewguard.model import Model
from skewguard.policy import Policy
from skewguard.replay import HEADER_FIELDS, InPlace, comparable
from skewguard.servinglog import LogReading
from skewguard.servinglog.gaps import Gap
from skewguard.snapshot import Snapshot
from skewguard.values import instant
from skewguard.verdict import Coverage, Ruling, Subject, Verdict, judge
from skewguard.workflows.examine import Look
from skewguard.workflows.guard import conclude
from skewguard.workflows.watch.alerts import Alerts, Changes, message
from skewguard.workflows.watch.cursor import Cursor, load_cursor
from skewguard.workflows.watch.judging import Judge, Judged
from skewguard.workflows.watch.metrics import Counts, exposition, replace_file
from skewguard.workflows.watch.tail import Fresh, Read, Tail
from skewguard.workflows.watch.window import Detector, Hits, Mark, Window, hits_of

_DAY = 86_400.0
_LONGEST = 10.0  # seconds between two verdicts, however long one takes
_DUTY = 2.0
_UNSENT = 100


@dataclass(frozen=True, slots=True)
class Settings:
    """How to watch; durations in seconds. `since`: rows asked before (microseconds since 1970) do not count.

    The verdict is about the last half to whole `window`. An alert waits up to `patience` for rows that name a cause; it
    is over after `calm` without what it told. A log without new rows for `idle` is a doubt. `cursor`: the file from
    which a restart goes on; None: it begins anew. `out`: the verdict as JSON; `textfile`: metrics; both replaced whole.
    """

    since: int
    every: float = 5.0
    window: float = 3600.0
    patience: float = 15.0
    calm: float = 300.0
    idle: float = 300.0
    cursor: Path | None = None
    webhook: str = ""
    out: Path | None = None
    textfile: Path | None = None


@dataclass(frozen=True, slots=True)
class Looked:
    """What one look came to. `rows` were judged at it; `told` is what was said; `more`: there is more to read."""

    verdict: Verdict
    rows: int
    told: tuple[str, ...]
    more: bool


class Watch:
    """A watch over the log of the snapshot's service. A context manager; one thread looks.

    `tell` takes what people are told; `clock` gives seconds since 1970. Raises `SkewguardError` for a cursor that is
    another watch's.
    """

    def __init__(
        self,
        log: str | Path,
        snapshot: Snapshot,
        policy: Policy,
        settings: Settings,
        *,
        model: Model | None = None,
        model_digest: str | None = None,
        registered_name: str = "",
        tell: Callable[[str], None] = print,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log, self._snapshot, self._policy, self._settings = str(log), snapshot, policy, settings
        self._model, self._digest, self._tell, self._clock = model, model_digest, tell, clock
        self._subject = Subject(
            registered_name=registered_name, snapshot_id=snapshot.id, bundle_digest=snapshot.bundle.digest,
            service=snapshot.bundle.service, model_digest=model_digest or "", evidence="none",
        )  # fmt: skip
        about = {"service": snapshot.bundle.service, "snapshot": snapshot.id, "log": self._log}
        cursor = load_cursor(settings.cursor, about) if settings.cursor else None
        self._cursor = cursor or Cursor(about, Mark({}, {}))
        self._saved = ""
        self._written: Verdict | None = None
        mark = self._cursor.mark
        self._tail = Tail(self._log, snapshot.bundle.service, mark.places, settings.since)
        self._detector = Detector(_DAY / max(settings.every, 1.0), dict(mark.evidence), dict(self._cursor.benign))
        self._alerts = Alerts(policy, settings.patience, settings.calm)
        self._alerts.restore(self._cursor.alerts)
        self._unsent = list(self._cursor.unsent)
        now = clock()
        self._windows = [Window(snapshot, now, mark)]
        self._headers: dict[tuple[str, ...], Fresh] = {}
        self._apart: dict[str, str] = {}
        self._damaged: dict[str, None] = {}
        self._gaps: tuple[Gap, ...] = ()
        self._counts = Counts(last_row=now)
        self._blind = ""
        self._said_blind = ""
        self._next_verdict = 0.0
        self._verdict = self._nothing(("nothing was looked at yet",), now)
        self._judge = Judge(snapshot, model)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._judge.__exit__(kind, error, trace)

    @property
    def verdict(self) -> Verdict:
        """The verdict about the window, after the last look."""
        return self._verdict

    @property
    def metrics(self) -> str:
        """What Prometheus sees, after the last look."""
        service = self._snapshot.bundle.service
        return exposition(service, self._counts, self._verdict.ruling, self._alerts.open)

    def look(self) -> Looked:
        """Read what came, judge it, tell what is new. Never raises for what it looks at: it says so instead."""
        now = self._clock()
        self._turn(now)
        judged, more = self._read(now)
        hits = self._added(judged)
        rows = sum(len(pairs) for pairs, _ in judged)
        changes = Changes((), (), False)
        if not more and (now >= self._next_verdict or self._settings.patience == 0):
            began = time.monotonic()
            self._verdict = self._judged(now)
            spent = time.monotonic() - began
            self._next_verdict = now + min(_DUTY * spent, _LONGEST)
        if not more:
            changes = self._alerts.look(self._deciding(), hits, rows, now)
        told = self._told(changes)
        if changes.calm:
            self._windows = [Window(self._snapshot, now, self._mark())]
            self._next_verdict = 0.0
        for alert in changes.ended:
            self._detector.forget(alert.name)
        self._published()
        return Looked(self._verdict, rows, told, more)

    # -- seeing -------------------------------------------------------------------------------------------------------

    def _mark(self) -> Mark:
        """From here a restart would go on: from before the oldest row that is set aside."""
        held = self._judge.held
        return held[0].mark if held else Mark(dict(self._tail.places), dict(self._detector.state))

    def _read(self, now: float) -> tuple[list[Judged], bool]:
        self._counts.looks += 1
        self._counts.last_look = now
        mark = Mark(dict(self._tail.places), dict(self._detector.state))
        try:
            read = self._tail.read()
            usable = [one for one in read.segments if self._usable(one)]
            judged, why = self._judge.judge(usable, self._settings.since, mark, now)
        except (SkewguardError, OSError, pa.ArrowException) as error:
            self._tail.places = dict(mark.places)  # these rows were not judged: the next look reads them again
            self._counts.failures += 1
            self._blind = f"the log cannot be judged: {error}"
            return [], False
        self._counts.last_success = now
        self._seen(read, usable, now)
        idle = now - self._counts.last_row
        quiet = f"no row was logged since {instant(round(self._counts.last_row * 1e6))}: does the service still log?"
        self._blind = why or (quiet if idle > self._settings.idle else "")
        return judged, read.more

    def _seen(self, read: Read, usable: Sequence[Fresh], now: float) -> None:
        if read.rows:
            self._counts.last_row = now
        self._damaged |= dict.fromkeys(f"{one}: logged rows may be lost" for one in read.damaged)
        self._gaps = read.gaps
        for one in usable:
            key = tuple(one.header.get(name, "") for name in (*HEADER_FIELDS, "sample"))
            self._headers.setdefault(key, replace(one, frames_read=(), rows_read=()))

    def _usable(self, segment: Fresh) -> bool:
        """Whether rows of a segment can be held against the snapshot; why not is a doubt."""
        if self._digest is not None and segment.header.get("model_digest") != self._digest:
            return False
        try:
            comparable(LogReading(Path(self._log), (segment,)), self._snapshot)
        except EvidenceError as error:
            self._apart[segment.header.get("bundle_digest", "")] = str(error)
            return False
        return True

    def _added(self, judged: Sequence[Judged]) -> dict[str, Hits]:
        hits: dict[str, Hits] = {}
        rows = sum(len(pairs) for pairs, _ in judged)
        for pairs, comparison in judged:
            for window in self._windows:
                window.add(pairs, comparison)
            for name, one in hits_of(self._snapshot, pairs, comparison).items():
                before = hits.get(name)
                hits[name] = Hits(one.rows + (before.rows if before else 0), rows, one.benign)
            for state in self._counts.rows:
                self._counts.rows[state] += int(getattr(comparison, state).sum())
            newest = float(pairs.served.spine.as_of.max()) / 1e6
            self._counts.newest_ask = max(self._counts.newest_ask, newest)
        if rows:
            self._detector.add(hits, rows)
        self._counts.waiting = self._judge.waiting
        return hits

    def _turn(self, now: float) -> None:
        """A window begins every half window, and the older one goes when it is a whole one."""
        half = self._settings.window / 2
        if len(self._windows) == 1 and self._windows[0].rows and now - self._windows[0].began >= half:
            self._windows.append(Window(self._snapshot, now, self._mark()))
        if len(self._windows) > 1 and now - self._windows[0].began >= self._settings.window:
            del self._windows[0]
            self._damaged.clear()
            self._apart.clear()

    # -- judging ------------------------------------------------------------------------------------------------------

    def _doubts(self) -> tuple[str, ...]:
        return tuple(one for one in (self._blind, *self._damaged, *self._apart.values()) if one)

    def _judged(self, now: float) -> Verdict:
        window = self._windows[0]
        doubts = self._doubts()
        if not window.rows:
            return self._nothing(doubts or ("no row has been judged yet",), now)
        gaps = tuple(gap for gap in self._gaps if gap.until >= window.began * 1e6)
        reading = LogReading(Path(self._log), (), gaps=gaps)
        seen = window.seen(doubts, InPlace.name)
        headers = list(self._headers.values())
        return conclude(
            seen, reading, headers, self._snapshot, self._subject, self._policy,
            extra=None, checked=Look(model=self._model).checked, now=_utc(now), model=self._model, weigh=self._weighed,
        ).verdict  # fmt: skip

    def _weighed(self, findings: list[Finding]) -> list[Finding]:
        """The findings with the evidence that was carried from look to look."""
        return [replace(one, evidence=self._detector.evidence(one)) if 0 < one.benign < 1 else one for one in findings]

    def _nothing(self, doubts: Sequence[str], now: float) -> Verdict:
        checked = Look(model=self._model).checked
        return judge([], Coverage(checked=checked), self._subject, self._policy, now=_utc(now), unexamined=doubts)

    def _deciding(self) -> list[Finding]:
        if self._verdict.ruling is not Ruling.FAIL:
            return []
        reasons = set(self._verdict.reasons)
        return [one for one in self._verdict.findings if one.message in reasons and one.kind not in DOUBTS]

    # -- telling ------------------------------------------------------------------------------------------------------

    def _told(self, changes: Changes) -> tuple[str, ...]:
        about = f"skewguard watch {self._snapshot.bundle.service}"
        told = [text] if (text := message(about, changes)) else []
        self._counts.alerts += len(changes.began)
        if self._blind != self._said_blind:
            told.append(f"{about}: {self._blind or 'sees again'}")
            self._said_blind = self._blind
        for text in told:
            self._tell(text)
        if self._settings.webhook:
            self._unsent = [*self._unsent, *told][-_UNSENT:]
            while self._unsent and not (complaint := post(self._settings.webhook, self._unsent[0])):
                del self._unsent[0]
            if self._unsent and told:
                self._tell(f"{complaint}; it is asked again at the next look")
        self._counts.undelivered = len(self._unsent)
        return tuple(told)

    def _published(self) -> None:
        """The files, each replaced whole; one that cannot be written is told, and the watch goes on."""
        settings = self._settings
        mark = self._windows[0].mark
        benign = {name: one for name, one in self._detector.benign.items() if name in mark.evidence}
        cursor = Cursor(self._cursor.about, mark, benign, self._alerts.to_json(), tuple(self._unsent))
        try:
            if settings.out and self._written is not self._verdict:
                replace_file(settings.out, report.to_json(self._verdict) + "\n")
                self._written = self._verdict
            if settings.textfile:
                replace_file(settings.textfile, self.metrics)
            if settings.cursor and cursor.to_json() != self._saved:
                self._saved = cursor.to_json()
                replace_file(settings.cursor, self._saved)
        except OSError as error:
            self._tell(f"skewguard watch: {error}")


def run(watch: Watch, settings: Settings, *, rounds: int | None, after: Callable[[Looked], None]) -> Ruling:
    """Look every so often, without end or so many `rounds`; what there is to catch up is read without pause."""
    ruling = Ruling.UNKNOWN
    while rounds is None or rounds > 0:
        began = time.monotonic()
        looked = watch.look()
        after(looked)
        ruling = looked.verdict.ruling
        if looked.more:
            continue
        rounds = None if rounds is None else rounds - 1
        if rounds != 0:
            time.sleep(max(0.0, settings.every - (time.monotonic() - began)))
    return ruling


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
