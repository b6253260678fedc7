"""Edge cases of one view, sent through the scratch copy: what comes back offline, online and from the one join."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from skewguard.definitions.feast import computed_by_feast
from skewguard.errors import SkewguardError
from skewguard.offline import Rule
from skewguard.workflows.doctor.cases import Cases, make, pool
from skewguard.workflows.doctor.cells import plain, raised, shown
from skewguard.workflows.doctor.diagnosis import Cause, Defect, Unchecked, Where
from skewguard.workflows.doctor.feast.comparing import LOST, Ask, Comparison, Sides, asks_of
from skewguard.workflows.doctor.feast.oddities import oddities
from skewguard.workflows.doctor.feast.opened import Asked, NoAnswer, Opened, shape_of
from skewguard.workflows.doctor.feast.scratch import ASK, EVENT, Copy, Trial, now, rows_of

_PRESENT = 1
_REMEDY_ERROR = "change the declared type, or clean the source before it"


class Edges:
    """The trial of one view. `defects` and `compared` fill as it runs."""

    def __init__(self, opened: Opened, made: Copy, view: Any) -> None:
        self.opened, self.view = opened, view
        self.shape, guessed = shape_of(opened, view)
        if guessed:
            opened.unchecked.append(Unchecked(f"the column types of {view.name}", guessed))
        self.trial = Trial(opened, made, view, self.shape)
        self.defects: list[Defect] = []
        self.transformed = computed_by_feast(view)
        self.comparison = Comparison(self.shape, self.transformed, made.own_offline)

    def run(self) -> None:
        """Everything; an error of a side is a finding, what stops the trial a reason for what is not checked."""
        if not self.view.online:
            self.opened.unchecked.append(Unchecked(f"{self.view.name}: edge cases", "it is declared online=False"))
            return
        declared = [one.name for one in self.view.features]
        absent = [name for name in declared if name not in self.shape.features]
        if absent:
            self._absent(absent)
        untried = [name for name, kind in self.shape.features.items() if not pool(kind, self.shape.declared[name])]
        for name in untried:
            why = f"no values are made up for {self.shape.declared[name]} ({self.shape.features[name]})"
            self.opened.unchecked.append(Unchecked(f"{self.view.name}:{name}", why))
        features = [name for name in self.shape.features if name not in untried]
        if not features:
            return
        cases = self._materialized(features)
        if cases is None:
            return
        for asked in self.opened.asked:
            if asked.view is self.view:
                self._compare(asked, cases)
        self.defects += oddities(self.trial, cases)

    def _absent(self, names: Sequence[str]) -> None:
        message = f"{', '.join(names)}: declared, and no column of the source has the name; both sides raise KeyError"
        if self.transformed:
            message = f"{message}. {self.transformed}"
        remedy = "compute the column before the source is written: Feast forgets aggregations it has registered"
        for name in names:
            self._add(name, Cause.ERROR, message, f"the view declares {name}", remedy)

    def _add(self, feature: str, cause: Cause, message: str, example: str, remedy: str) -> None:
        self.defects.append(Defect(self.view.name, feature, cause, Where.SCRATCH, message, example, remedy))

    # -- materialization ----------------------------------------------------------------------------------------------

    def _materialized(self, features: list[str]) -> Cases | None:
        """The cases after two materializations; None where not even one plain row arrives."""
        cases = make(self.shape, now(), features)
        error = self._both(cases, features)
        if error is None:
            return cases
        if isinstance(error, NoAnswer):
            self.opened.unchecked.append(Unchecked(f"{self.view.name}: edge cases", str(error)))
            return None
        plain_only = self._plain(cases)
        stopped = self._both(plain_only, features)
        if stopped is not None:
            going = [name for name in features if self._both(_of(plain_only, name), [name]) is None]
            if not going:
                return self._stopped(plain_only, features, stopped)
            for name in sorted({*features} - {*going}):
                message = f"materialize raises for every value of it, and the whole view stays away: {raised(stopped)}"
                self._add(name, Cause.ERROR, message, self._types(name), _REMEDY_ERROR)
            return self._materialized(going) if len(going) < len(features) else None
        keep = [name for name in features if self._goes(cases, name)]
        cases = make(self.shape, now(), keep)
        if keep and self._both(cases, keep) is None:
            return cases
        return plain_only if self._both(plain_only, features) is None else None

    def _stopped(self, cases: Cases, features: list[str], error: Exception) -> Cases | None:
        kind = str(self.shape.time_type)
        message = f"materialize raises for every row: {raised(error)}"
        remedy = "nothing of this view reaches the online store: change the offline store or the source"
        nanos = pa.types.is_timestamp(self.shape.time_type) and self.shape.time_type.unit == "ns"
        if self.transformed:
            message = f"{message}. {self.transformed}"
        self._add("", Cause.ERROR, message, f"event times are {kind}", remedy)
        if not nanos:
            return None
        self.trial.micros = True
        error_now = self._both(cases, features)
        return None if error_now is not None else self._materialized(features)

    def _types(self, name: str) -> str:
        return f"{self.shape.features[name]} declared as {self.shape.declared[name]}"

    def _goes(self, cases: Cases, name: str) -> bool:
        """Whether a feature materializes alone with all its values; which one does not is a finding."""
        error = self._both(_of(cases, name), [name])
        if error is None:
            return True
        kind, plain_row = self.shape.features[name], self._plain(cases).cases[0]
        culprit, said = None, error
        for value in pool(kind, self.shape.declared[name]):
            row = replace(plain_row.rows[0], values={name: value})
            case = replace(plain_row, rows=(row,))
            one = self._both(replace(cases, cases=(case,)), [name])
            if one is not None:
                culprit, said = value, one
                break
        if _refused(said):
            why = f"the stores refuse it on both sides: {said}"
            self.opened.unchecked.append(Unchecked(f"{self.view.name}:{name}", why))
            return False
        what = f"one row with {shown(culprit)}" if culprit is not None else "values of its type together"
        message = f"materialize raises for {what}, and the whole view stays away: {raised(said)}"
        self._add(
            name,
            Cause.ERROR,
            message,
            self._types(name),
            _REMEDY_ERROR,
        )
        return False

    def _both(self, cases: Cases, features: Sequence[str]) -> Exception | None:
        """Two phases of writing and materializing; what was raised."""
        trial = self.trial
        try:
            trial.copy = trial.copy.fresh()
            trial.features = list(features)
            trial.write(rows_of(cases, 0))
            trial.apply(features)
            trial.materialize(cases.start, cases.middle)
            trial.write(rows_of(cases, 1))
            trial.materialize_incremental(cases.end)
        except Exception as error:  # noqa: BLE001  (a store of somebody's: whatever it raises is what is reported)
            return error
        return None

    def _plain(self, cases: Cases) -> Cases:
        """The cases without the values that a dtype makes special."""
        kept = [case for case in cases.cases if case.name not in ("a value of its own", "the newest row is null")]
        return replace(cases, cases=tuple(kept))

    # -- comparison ---------------------------------------------------------------------------------------------------

    def _compare(self, asked: Asked, cases: Cases) -> None:
        try:
            what, keys = self.trial.ask_for(asked)
        except Exception as error:  # noqa: BLE001
            self.opened.unchecked.append(Unchecked(f"{asked.name} of service {asked.service}", raised(error)))
            return
        asks = asks_of(cases)
        table = self._table(asks, keys)
        offline = self._offline(asked, what, table)
        online = self._online(asked, what, asks, keys)
        truth = self.trial.truth(asked, table, Rule.FEAST)
        known = self.trial.truth(asked, table, Rule.KNOWN) if self.shape.created else truth
        sides = Sides(asks, offline, online, truth, known)
        for name in self.trial.features:
            self.defects += self.comparison.of_feature(asked, name, sides, cases)
        self._after_full(asked, what, asks, keys, sides, cases)

    def _after_full(
        self, asked: Asked, what: Any, asks: list[Ask], keys: dict[str, str], sides: Sides, cases: Cases
    ) -> None:
        """What a late row explains is looked at again after materializing everything: a correction stays away."""
        versions = any(case.name == "a corrected row" for case in cases.cases)
        if not versions or any(one.cause is Cause.CORRECTION for one in self.defects):
            return
        try:
            self.trial.materialize(cases.start, cases.end)
        except Exception:  # noqa: BLE001  (it went once; the difference that was to be seen is not)
            return
        again = replace(sides, online=self._online(asked, what, asks, keys))
        for name in self.trial.features:
            self.defects += [
                one
                for one in self.comparison.of_feature(asked, name, again, cases, full=True)
                if one.cause is Cause.CORRECTION
            ]

    def _table(self, asks: Sequence[Ask], keys: dict[str, str]) -> pa.Table:
        columns = {
            keys[name]: pa.array([ask.key[i] for ask in asks], kind)
            for i, (name, kind) in enumerate(self.shape.keys.items())
        }
        columns[EVENT] = pa.array([ask.at for ask in asks], pa.timestamp("us", tz="UTC"))
        columns[ASK] = pa.array(range(len(asks)), pa.int64())
        return pa.table(columns)

    def _offline(self, asked: Asked, what: Any, table: pa.Table) -> dict[str, list[Any]]:
        """By feature one value per ask, in their order; errors are findings."""
        if not self.trial.copy.own_offline:
            return {}
        frame = table.to_pandas()
        try:
            return self._by_ask(self.trial.features, self.trial.offline(what, frame), len(table))
        except Exception as error:  # noqa: BLE001
            whole = error
        found: dict[str, list[Any]] = {}
        failed: dict[str, Exception] = {}
        for name in self.trial.features if not asked.service else []:
            try:
                found |= self._by_ask([name], self.trial.offline([f"{self.view.name}:{name}"], frame), len(table))
            except Exception as error:  # noqa: BLE001
                failed[name] = error
        if not found:
            failed = {"": whole}
        elif not asked.service:
            self.trial.offline_features = list(found)
        for name, raised_by in failed.items():
            if not _refused(raised_by):
                message = f"historical retrieval raises: {raised(raised_by)}"
                self._add(name, Cause.ERROR, message, f"{len(table)} asks", "rename or redeclare what it names")
        return found

    def _by_ask(self, names: Sequence[str], got: pa.Table, n: int) -> dict[str, list[Any]]:
        places = got[ASK].to_pylist()
        self._rows(places, n)
        columns = {}
        for name in names:
            values = got[name].to_pylist()
            column: list[Any] = [LOST] * n
            for place, value in zip(places, values, strict=True):
                column[place] = plain(value)
            columns[name] = column
        return columns

    def _rows(self, places: list[int], n: int) -> None:
        said = []
        lost, more = n - len(set(places)), len(places) - len(set(places))
        if lost:
            said.append(f"{lost} of {n} asks are dropped, their labels with them")
        if more:
            said.append(f"{more} asks come back more than once")
        if places != sorted(places):
            said.append("asks come back in another order")
        if said:
            remedy = "bring an id along and join the answer back by it; never by position"
            self._add("", Cause.ROWS, f"historical retrieval: {'; '.join(said)}", f"{n} asks", remedy)

    def _online(self, asked: Asked, what: Any, asks: Sequence[Ask], keys: dict[str, str]) -> dict[str, list[Any]]:
        """By feature one value per ask that asks for the latest, else `LOST`."""
        places = [i for i, ask in enumerate(asks) if ask.latest]
        names = list(keys.values())
        rows = [dict(zip(names, asks[i].key, strict=True)) or self.opened.of_nobody() for i in places]
        try:
            values, status = self.trial.online(what, rows)
        except Exception as error:  # noqa: BLE001
            if not _refused(error):
                self._add(
                    "", Cause.ERROR, f"online retrieval raises: {raised(error)}", f"{len(rows)} keys", _REMEDY_ERROR
                )
            return {}
        if any(len(status[name]) != len(places) for name in self.trial.features):
            got = f"{len(rows)} asks online had {len(status[self.trial.features[0]])} answers"
            self.opened.unchecked.append(Unchecked(f"{self.view.name}: edge cases online", got))
            return {}
        self._unseen(asks, places, status)
        found = {}
        for name in self.trial.features:
            column: list[Any] = [LOST] * len(asks)
            for place, value in zip(places, values[name], strict=True):
                column[place] = value
            found[name] = column
        return found

    def _unseen(self, asks: Sequence[Ask], places: list[int], status: dict[str, list[int]]) -> None:
        for at, place in enumerate(places):
            present = [name for name in self.trial.features if status[name][at] == _PRESENT]
            if asks[place].case is None and present and self.shape.keys:
                message = "a key that the store has never seen comes back as PRESENT, with null for a value"
                remedy = "look at the value and the event time (1970), not at the status"
                self._add("", Cause.STATUS, message, f"key {asks[place].key}", remedy)


def _of(cases: Cases, name: str) -> Cases:
    trimmed = [
        replace(case, rows=tuple(replace(row, values={name: row.values.get(name)}) for row in case.rows))
        for case in cases.cases
    ]
    return replace(cases, cases=tuple(trimmed))


def _refused(error: BaseException | None) -> bool:
    """Whether it is a refusal of skewguard's own stores, the same on both sides."""
    while error is not None:
        if isinstance(error, SkewguardError) and not isinstance(error, NoAnswer):
            return True
        error = error.__cause__ or error.__context__
    return False
