"""Explain: one logged row, its truth, the source rows behind it, and pandas that reproduces the truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from skewguard.answer import Served, from_table
from skewguard.causes.one_row import hint
from skewguard.causes.stale import span
from skewguard.definitions import Bundle, View
from skewguard.errors import LogError
from skewguard.offline import OfflineStore, Rule
from skewguard.replay import HEADER_FIELDS, Age, Pairs, Truth, equality, recompute
from skewguard.servinglog import Segment, find
from skewguard.servinglog.privacy import SECRET, key_id, pseudonym, reveal
from skewguard.snapshot import Snapshot
from skewguard.spine import Spine
from skewguard.values import Status, instant
from skewguard.workflows.examine import keys_of


@dataclass(frozen=True, slots=True)
class Line:
    """One feature: values and statuses of both sides as text.

    `state`: empty where both are the same; `lagged` where an older row was served, as `max_lag` allows; `carried` where
    the difference comes from the inputs; `unverifiable`; else `differs`. `why` is what the row alone shows of that,
    empty where nothing simple makes one value of the other.
    """

    feature: str
    served: str
    truth: str
    equal: bool
    state: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class SourceRows:
    """The source rows of a view's key around the ask, newest first, with what each side took."""

    view: str
    path: str
    rows: tuple[dict[str, str], ...]
    served: str
    truth: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything about one request. `pandas` by view: five lines that print the truth without skewguard."""

    request_id: str
    as_of: str
    keys: dict[str, str]
    header: dict[str, str]
    lines: tuple[Line, ...]
    sources: tuple[SourceRows, ...]
    pandas: dict[str, str]


def explain_request(
    log: str | Path,
    bundle: Bundle,
    request_id: str,
    *,
    snapshot: Snapshot | None = None,
    secret: bytes | None = None,
) -> Explanation:
    """Look up `request_id` in the log and recompute it, as `snapshot` was built; raises `LogError` where it was never
    logged, and where its keys are hashed and `secret` is not what they were hashed with.
    """
    snapshot = replace(snapshot, bundle=bundle) if snapshot else None
    rule = Rule(snapshot.manifest.rule) if snapshot else Rule.KNOWN
    found = find(log, request_id, column="id", service=bundle.service)
    if not found:
        raise LogError(
            f"request {request_id!r} is not in the log at {log}: it was never answered, or answered elsewhere"
        )
    segment, batch = found[-1]  # a repeated id: the last answer
    if segment.header.get("bundle_digest") != bundle.digest:
        raise LogError(f"request {request_id!r} was answered under other definitions; name that bundle with --bundle")
    labels = {name: np.array([segment.header.get(name, "")], dtype=object) for name in HEADER_FIELDS}
    with OfflineStore(bundle.views, rule) as offline, Truth(snapshot or bundle, offline) as truth:
        row = from_table(bundle, pa.table(_plain(segment, batch, bundle, offline, secret)))
        spine = row.spine
        pairs = recompute(row, labels, truth)
        sources = tuple(_sources(view, spine, row, pairs.truth, offline) for view in bundle.views)
    lines = _lines(pairs)
    return Explanation(
        request_id,
        instant(int(spine.as_of[0])),
        {name: str(column.value(0)) for name, column in spine.keys.items()},
        dict(segment.header),
        lines,
        sources,
        {view.name: reproduce(view, spine, rule) for view in bundle.views if _has_keys(view, spine)},
    )


def _plain(
    segment: Segment, batch: pa.RecordBatch, bundle: Bundle, offline: OfflineStore, secret: bytes | None
) -> pa.RecordBatch:
    """The row with its keys as the sources have them; hashed ones are sought among those of the sources."""
    hidden = [name for name in segment.header.get("pii", "").split(",") if name]
    if not hidden:
        return batch
    if secret is None or key_id(secret) != segment.header.get("pii_key"):
        raise LogError(
            f"the keys of {', '.join(hidden)} are hashed in the log: give the secret {segment.header.get('pii_key')} "
            f"in {SECRET}, so that they can be held against the sources"
        )
    known = keys_of(bundle, set(hidden), offline)
    return reveal(batch, {f"e__{name}": {pseudonym(key, secret): key for key in keys} for name, keys in known.items()})


def _lines(pairs: Pairs) -> tuple[Line, ...]:
    """Every feature of one row, in order: what is stored first, then what is computed from it."""
    bundle = pairs.bundle
    alike = equality(bundle, pairs.ulps)
    inputs = {spec.full_name: spec.inputs for spec in bundle.derived}
    states: dict[str, str] = {}
    lines = []
    for name, column in pairs.served.features(bundle).items():
        true = pairs.truth.feature(bundle, name)
        if alike(name, column, true)[0]:
            states[name] = ""
        elif name in inputs:
            own = not alike(name, column, pairs.recomputed[name])[0]
            before = {states.get(source, "") for source in inputs[name]}
            states[name] = "differs" if own else "lagged" if before <= {"", "lagged"} else "carried"
        else:
            states[name] = _stored(
                pairs, name, same_row=bool(alike(name, column, pairs.as_known.feature(bundle, name))[0])
            )
        served, truth = (_text(side.value(0), side.status[0]) for side in (column, true))
        lines.append(Line(name, served, truth, not states[name], states[name], _why(pairs, name, states[name])))
    return tuple(lines)


def _why(pairs: Pairs, name: str, state: str) -> str:
    """A sentence on one value that differs: the row it comes from, else what makes it of the true one."""
    if state != "differs":
        return ""
    view = pairs.bundle.view_of.get(name)
    if view is not None and pairs.age[view][0] == Age.STALE and pairs.lag_us[view][0] > 0:
        return f"the row is {span(int(pairs.lag_us[view][0]))} older than the one that was due"
    if view is not None and pairs.age[view][0] == Age.LEAK:
        return "the row was not known yet when it was asked for"
    true = pairs.as_known.feature(pairs.bundle, name) if view is not None else pairs.recomputed[name]
    return hint(pairs.served.feature(pairs.bundle, name), true)


def _stored(pairs: Pairs, name: str, *, same_row: bool) -> str:
    """How a stored value that is not the truth's stands to it."""
    view = pairs.bundle.view_of[name]
    age = Age(int(pairs.age[view][0]))
    doubtful = age in (Age.UNVERIFIABLE, Age.UNANSWERED) or bool(pairs.rewritten.get(view, np.zeros(1, dtype=bool))[0])
    return "unverifiable" if doubtful else "lagged" if age is Age.LAGGED and same_row else "differs"


def _has_keys(view: View, spine: Spine) -> bool:
    return all(spine.keys[key.ask].value(0) is not None for key in view.keys)


def _text(value: object, status: np.uint8) -> str:
    return Status(int(status)).name.lower() if value is None else str(value)


def _sources(view: View, spine: Spine, served: Served, truth: Served, offline: OfflineStore) -> SourceRows:
    got, true = served.views[view.name], truth.views[view.name]
    table = offline.history(view.name, spine, int(spine.as_of[0]), rows=5)
    rows = tuple({name: str(value) for name, value in row.items()} for row in table.to_pylist())
    return SourceRows(
        view.name,
        view.source.path,
        rows,
        f"{Status(int(got.status[0])).name.lower()}, row of {instant(int(got.event[0]))}",
        f"{Status(int(true.status[0])).name.lower()}, row of {instant(int(true.event[0]))}",
    )


def reproduce(view: View, spine: Spine, rule: Rule = Rule.KNOWN) -> str:
    """Five lines of pandas that print the truth of the first ask for one view."""
    source = view.source
    filters = ", ".join(f"({key.column!r}, '==', {spine.keys[key.ask].value(0)!r})" for key in view.keys)
    columns = list(dict.fromkeys(feature.column for feature in view.features))
    times = [source.timestamp, *([source.created] if source.created else [])]
    # A row without a created time is known at its event; rows equal in both times are ordered by their features.
    known = f"(rows[{times[0]!r}] <= t) & ~(rows[{times[-1 if rule is Rule.KNOWN else 0]!r}] > t)"
    ttl = f"pd.Timedelta({view.ttl_us}, 'us')"
    alive = ":" if view.ttl_us is None else f"lambda row: t - row[{source.timestamp!r}] <= {ttl}"
    return "\n".join(
        [
            f"import pandas as pd; t = pd.Timestamp({int(spine.as_of[0])}, unit='us', tz='UTC')",
            f"rows = pd.read_parquet({source.path!r}" + (f", filters=[{filters}])" if filters else ")"),
            f"rows[{times!r}] = rows[{times!r}].apply(pd.to_datetime, utc=True)",
            f"known = rows[{known}].sort_values({[*times, *columns]!r}, na_position='first')",
            f"print(known.tail(1).loc[{alive}, {columns!r}].to_dict('records'))",
        ]
    )
