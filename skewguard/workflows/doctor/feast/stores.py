"""The team's own stores, asked for some keys of their own sources: reads alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from feast.infra.offline_stores.offline_utils import get_offline_store_from_config

from skewguard.contract import Contract
from skewguard.definitions import View
from skewguard.definitions.feast import computed_by_feast, dtype_of, mapped_from, read_view
from skewguard.errors import DefinitionError, SkewguardError
from skewguard.offline import OfflineStore, Rule
from skewguard.spine import read_spine
from skewguard.values import NO_TIME, Status
from skewguard.workflows.doctor.causes import Named, Seen, explain
from skewguard.workflows.doctor.cells import alike, plain, raised, shown
from skewguard.workflows.doctor.diagnosis import Cause, Defect, Unchecked, Where
from skewguard.workflows.doctor.feast.opened import NoAnswer, Opened, sqlite_file, within
from skewguard.workflows.doctor.feast.scratch import EVENT

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HISTORY = 5
_WINDOW = timedelta(days=7)


@dataclass(frozen=True)
class Sample:
    """Some keys of a view and what the source says of them at `at`: values, event times (microseconds)."""

    keys: dict[str, list[Any]]
    values: dict[str, list[Any]]
    events: list[int]
    at: datetime
    earlier: Callable[[int, str], tuple[tuple[Any, ...], tuple[Any, ...]]]


class Stores:
    """The repository's own stores. A store that once did not answer is not asked again."""

    def __init__(self, opened: Opened, keys: int, patience: float) -> None:
        self.opened, self.keys, self.patience = opened, keys, patience
        self.silent = ""
        self.compared = 0

    def look(self, view: Any) -> list[Defect]:
        """One view: the newest rows of some keys offline, and what the online store has for them."""
        what = f"{view.name} in the repository's own stores"
        try:
            self._may_be_asked(view)
            sample = within(self.patience, f"the source of {view.name}", lambda: self._sample(view))
            names = list(sample.values)
            served = self._online(view, names, sample)
        except Exception as error:  # noqa: BLE001  (whatever a store raises is the reason)
            reason = str(error) if isinstance(error, SkewguardError) else raised(error)
            self.opened.unchecked.append(Unchecked(what, reason))
            return []
        return list(self._compared(view, sample, served))

    def _may_be_asked(self, view: Any) -> None:
        if not view.online:
            raise SkewguardError("it is declared online=False")
        if self.silent:
            raise SkewguardError(self.silent)
        file = sqlite_file(self.opened.store.config, self.opened.repo)
        if file is not None and not file.is_file():
            raise SkewguardError(f"its online store {file.name} is not there: run `feast materialize` first")

    # -- offline ------------------------------------------------------------------------------------------------------

    def _sample(self, view: Any) -> Sample:
        readable = [one.name for one in view.features if dtype_of(one.dtype) is not None]
        for name in [one.name for one in view.features if one.name not in readable]:
            why = "lists, maps and structs are compared in the scratch copy alone"
            self.opened.unchecked.append(Unchecked(f"{view.name}:{name} in the repository's own stores", why))
        complaints: list[str] = []
        made = read_view(view, view.projection, readable, self.opened.repo, complaints)
        complaints = [one for one in complaints if "Feast runs when it" not in one]
        now = datetime.now(UTC)
        if not made.source.path:
            return self._pulled(view, readable, now)
        if complaints:
            raise DefinitionError(complaints)
        return _joined(made, now, self.keys)

    def _pulled(self, view: Any, names: list[str], now: datetime) -> Sample:
        """Through the repository's own offline store: the newest row of each key in a window that ends now."""
        source, config, back = view.batch_source, self.opened.store.config, mapped_from(view.batch_source)
        keys = [back.get(key.name, key.name) for key in self.opened.keys(view)]
        job = get_offline_store_from_config(config.offline_store).pull_latest_from_table_or_query(
            config=config,
            data_source=source,
            join_key_columns=keys,
            feature_name_columns=[back.get(name, name) for name in names],
            timestamp_field=back.get(source.timestamp_field, source.timestamp_field),
            created_timestamp_column=source.created_timestamp_column or None,
            start_date=now - (view.ttl or _WINDOW),
            end_date=now,
        )
        table: pa.Table = job.to_arrow()
        if not len(table):
            raise SkewguardError("its source has no rows in the window that could be served")
        table = table.take(pa.array(_spread(len(table), self.keys)))
        events = [plain(one) for one in table[back.get(source.timestamp_field, source.timestamp_field)].to_pylist()]
        return Sample(
            {key.name: table[back.get(key.name, key.name)].to_pylist() for key in self.opened.keys(view)},
            {name: [plain(one) for one in table[back.get(name, name)].to_pylist()] for name in names},
            [round((event - _EPOCH) / timedelta(microseconds=1)) for event in events],
            now,
            lambda _row, _name: ((), ()),
        )

    # -- online -------------------------------------------------------------------------------------------------------

    def _online(self, view: Any, names: list[str], sample: Sample) -> dict[str, list[Any]]:
        rows = [dict(zip(sample.keys, row, strict=True)) for row in zip(*sample.keys.values(), strict=True)]
        rows = rows or [self.opened.of_nobody()]
        store, refs = self.opened.store, [f"{view.name}:{name}" for name in names]
        call = lambda: store.get_online_features(features=refs, entity_rows=rows)  # noqa: E731
        try:
            response = within(self.patience, "the online store", call)
        except NoAnswer as error:
            self.silent = str(error)
            raise
        times = {
            name: [stamp.seconds * 1_000_000 + stamp.nanos // 1000 for stamp in vector.event_timestamps]
            for name, vector in zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True)
        }
        answers = {name: [plain(one) for one in column] for name, column in response.to_dict().items()}
        if not view.materialization_intervals and not any(any(times[name]) for name in names):
            raise SkewguardError("it was never materialized, and none of the sampled keys is online")
        return {name: list(zip(answers[name], times[name], strict=True)) for name in names}

    # -- both ---------------------------------------------------------------------------------------------------------

    def _compared(self, view: Any, sample: Sample, served: dict[str, list[Any]]) -> Iterator[Defect]:
        transformed = computed_by_feast(view)
        lag = Contract.from_tags(view.name, view.tags).max_lag_us
        declared = {one.name: str(one.dtype) for one in view.features}
        for name, column in sample.values.items():
            of = len(column)
            for row, trained in enumerate(column):
                value, stamp = served[name][row]
                self.compared += 1
                if alike(trained, value) or self._lagged(sample, row, stamp, lag):
                    continue
                event, earlier, same = sample.events[row], (), ()
                if event != NO_TIME:
                    earlier, same = sample.earlier(row, name)
                at = _EPOCH + timedelta(microseconds=event) if event != NO_TIME else None
                seen = Seen(
                    trained,
                    value,
                    declared=declared[name],
                    earlier=earlier,
                    same_event=same,
                    beside={one: other[row][0] for one, other in served.items() if one != name},
                    age=sample.at - at if at else None,
                    ttl=view.ttl or None,
                    transformed=transformed,
                )
                named = _dated(explain(seen), view, at, stamp)
                key = ", ".join(f"{key}={shown(values[row])}" for key, values in sample.keys.items()) or "no key"
                example = f"{key} as of {shown(sample.at)}: offline {shown(trained)}, online {shown(value)}"
                yield Defect(view.name, name, named.cause, Where.STORES, named.message, example, named.remedy, 1, of)

    @staticmethod
    def _lagged(sample: Sample, row: int, stamp: int, lag: int) -> bool:
        event = sample.events[row]
        now = (sample.at - _EPOCH) // timedelta(microseconds=1)
        return bool(lag) and event != NO_TIME and stamp < event and now - event <= lag


def _dated(named: Named, view: Any, event: datetime | None, stamp: int) -> Named:
    """With the last materialization beside what is missing or old."""
    if named.cause not in (Cause.STALE, Cause.MISSING) or event is None:
        return named
    ends = [end for _, end in view.materialization_intervals]
    last = f"the last materialization ended {shown(max(ends).astimezone(UTC))}" if ends else "it was never materialized"
    had = f", online has {shown(_EPOCH + timedelta(microseconds=stamp))}" if stamp else ""
    return replace(named, message=f"{named.message}: the source's row is of {shown(event)}{had}, and {last}")


def _joined(view: View, now: datetime, keys: int) -> Sample:
    """Through the one join, by Feast's rule: the newest rows of some keys as of now."""
    with OfflineStore([view], Rule.FEAST) as join:
        at = round((now - _EPOCH) / timedelta(microseconds=1))
        latest = join.latest(view.name, at)
        if not len(latest):
            raise SkewguardError(f"{view.source.path}: its source has no rows")
        taken = latest.take(pa.array(_spread(len(latest), keys)))
        asks = {key.ask: taken[key.column] for key in view.keys}
        asks[EVENT] = pa.array([now] * len(taken), pa.timestamp("us", tz="UTC"))
        spine = read_spine(pa.table(asks), {key.ask: key.dtype for key in view.keys}, {})
        rows = join.answer(spine)[view.name]
        events = np.where(rows.status == Status.NOT_FOUND, NO_TIME, rows.event).tolist()
        past: dict[int, pa.Table] = {}
        for row in range(len(taken)):
            if len(past) == min(len(taken), 200):
                break
            past[row] = join.history(view.name, spine.take(np.array([row])), at, _HISTORY)

    def earlier(row: int, name: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        if row not in past or not len(past[row]):
            return (), ()
        times = [plain(one) for one in past[row]["event_time"].to_pylist()]
        values = [plain(one) for one in past[row][name].to_pylist()]
        newest = _EPOCH + timedelta(microseconds=events[row])
        pairs = list(zip(times, values, strict=True))
        older = tuple(value for time_, value in pairs if time_ < newest)
        same = [value for time_, value in pairs if time_ == newest][1:]
        return older, tuple(same)

    values = {name: [plain(one) for one in column.to_arrow().to_pylist()] for name, column in rows.features.items()}
    return Sample({key.ask: taken[key.column].to_pylist() for key in view.keys}, values, events, now, earlier)


def _spread(n: int, wanted: int) -> list[int]:
    """At most `wanted` of n places, evenly spread: the same for the same source."""
    return sorted({round(at) for at in np.linspace(0, n - 1, min(n, wanted))})
