"""Asks that are odd themselves: null keys and instants, duplicates, a column named as a feature, a saved dataset."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

from skewguard.workflows.doctor.cases import Case, Cases
from skewguard.workflows.doctor.cells import alike, plain, raised, shown
from skewguard.workflows.doctor.diagnosis import Cause, Defect, Where
from skewguard.workflows.doctor.feast.scratch import ASK, EVENT, Trial

_ROWS_REMEDY = "bring an id along, drop null keys and instants before you ask, and count the rows that come back"


def oddities(trial: Trial, cases: Cases) -> list[Defect]:
    """What the two ways of asking do with odd asks."""
    case = next((one for one in cases.cases if one.name == "older and newer rows"), None)
    if case is None or not trial.features:
        return []
    checks: list[Callable[[Trial, Cases, Case], Iterator[Defect]]] = [_null_key_online]
    if trial.copy.own_offline:
        checks += [_asks, _null_instant, _named_alike, _reloaded]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [defect for check in checks for defect in check(trial, cases, case)]


def _defect(trial: Trial, cause: Cause, message: str, example: str, remedy: str, feature: str = "") -> Defect:
    return Defect(trial.view.name, feature, cause, Where.SCRATCH, message, example, remedy)


def _refs(trial: Trial) -> list[str]:
    names = trial.features if trial.offline_features is None else trial.offline_features
    return [f"{trial.view.name}:{name}" for name in names]


def _null_key_online(trial: Trial, _cases: Cases, _case: Case) -> Iterator[Defect]:
    if not trial.shape.keys:
        return
    row = dict.fromkeys(trial.shape.keys)
    try:
        values, _ = trial.online([f"{trial.view.name}:{name}" for name in trial.features], [row])
        said = "" if all(values[name] == [None] for name in trial.features) else f"gives {values}"
    except Exception as error:  # noqa: BLE001  (whatever a store raises)
        said = f"raises {raised(error)}"
    if said:
        message = f"a null key is null in training and {said} online"
        yield _defect(trial, Cause.ERROR, message, str(row), "answer null keys in the service before you ask")


def _frame(trial: Trial, keys: list[Any], times: list[Any]) -> pd.DataFrame:
    columns = {
        name: pa.array([None if key is None else key[i] for key in keys], kind)
        for i, (name, kind) in enumerate(trial.shape.keys.items())
    }
    columns[EVENT] = pa.array(times, pa.timestamp("us", tz="UTC"))
    columns[ASK] = pa.array(range(len(times)), pa.int64())
    nullable: dict[Any, Any] = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype()}
    frame: pd.DataFrame = pa.table(columns).to_pandas(types_mapper=nullable.get)
    return frame


def _asks(trial: Trial, cases: Cases, case: Case) -> Iterator[Defect]:
    """Duplicates, and a null key beside others."""
    keys = [case.key] * 3 + ([None] if trial.shape.keys else [])
    frame = _frame(trial, keys, [cases.end] * len(keys))
    yield from _counted(trial, frame, "three equal asks and one with a null key")


def _null_instant(trial: Trial, cases: Cases, case: Case) -> Iterator[Defect]:
    yield from _counted(trial, _frame(trial, [case.key] * 2, [cases.end, None]), "an ask without an instant")


def _counted(trial: Trial, frame: pd.DataFrame, what: str) -> Iterator[Defect]:
    try:
        got = trial.offline(_refs(trial), frame)[ASK].to_pylist()
    except Exception as error:  # noqa: BLE001
        yield _defect(trial, Cause.ROWS, f"{what}: historical retrieval raises {raised(error)}", what, _ROWS_REMEDY)
        return
    if sorted(got) != list(range(len(frame))):
        message = f"historical retrieval: of {len(frame)} asks {len(got)} come back"
        yield _defect(trial, Cause.ROWS, message, what, _ROWS_REMEDY)


def _named_alike(trial: Trial, cases: Cases, case: Case) -> Iterator[Defect]:
    """A label that is named as a feature."""
    name = next((one for one, kind in trial.shape.features.items() if pa.types.is_floating(kind)), "")
    if name not in trial.features:
        return
    frame = _frame(trial, [case.key], [cases.end]).drop(columns=ASK)
    frame[name] = np.array([-99.25])
    refs = [f"{trial.view.name}:{name}"]
    right = max((row for row in case.rows if row.event <= cases.end), key=lambda row: row.event).values[name]
    remedy = "name labels as no feature is named, or retrieve with full_feature_names=True"
    try:
        got = trial.offline(refs, frame)
    except Exception as error:  # noqa: BLE001
        message = f"a column of the asks named {name} makes historical retrieval raise {raised(error)}"
        yield _defect(trial, Cause.NAME, message, f"asks with a column {name}", remedy, name)
        return
    full = f"{trial.view.name}__{name}"
    value = plain(got[full if full in got.column_names else name].to_pylist()[0])
    if not alike(value, right):
        message = f"a column of the asks named {name} takes the feature's place: {shown(value)} for {shown(right)}"
        yield _defect(trial, Cause.NAME, message, f"asks with a column {name}", remedy, name)


def _reloaded(trial: Trial, cases: Cases, case: Case) -> Iterator[Defect]:
    """A training set that Feast saves and loads: the same columns and rows?"""
    frame = _frame(
        trial, [case.key, cases.unseen][: 2 if trial.shape.keys else 1], [cases.end] * (2 if trial.shape.keys else 1)
    )
    frame["label"] = frame[ASK] + 1
    store, name = trial.copy.store, f"skewguard_{trial.view.name}"

    def save() -> Any:
        job = store.get_historical_features(entity_df=frame, features=_refs(trial))
        storage = SavedDatasetFileStorage(path=str(trial.copy.folder / f"{name}.parquet"))
        store.create_saved_dataset(from_=job, name=name, storage=storage)
        return store.get_saved_dataset(name).to_df()

    remedy = "save training sets yourself, or as a snapshot (skewguard snapshot build)"
    try:
        got = trial.call("saved datasets", save)
    except Exception as error:  # noqa: BLE001
        message = f"a saved dataset cannot be saved and loaded: {raised(error)}"
        yield _defect(trial, Cause.DATASET, message, f"{len(frame)} asks", remedy)
        return
    lost = [column for column in ("label", ASK) if column not in got]
    if lost:
        message = f"a saved dataset comes back without what the asks brought: {', '.join(lost)}"
        yield _defect(trial, Cause.DATASET, message, "asks with a label", remedy)
    elif got["label"].tolist() != frame["label"].tolist():
        message = "a saved dataset comes back in another order, or with other rows"
        yield _defect(trial, Cause.DATASET, message, "asks with a label", remedy)
