"""Where in the traffic the differing rows lie, and since when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import lgamma, log

import numpy as np

from skewguard.causes.timeline import Ints, encode
from skewguard.definitions import Bundle, View
from skewguard.findings import Observed
from skewguard.replay import Pairs
from skewguard.values import Array, Column, Dtype, Mask, instant

LABELS = ("build", "host", "model_id")
_MINUTE = 60_000_000
_CHANCE = log(0.001)
_SEARCHED = log(0.1)  # a prefix or a range is sought among many
_STRAY = 0.03
_MOST = 2
_FEW = 3
_MANY = 12


def slices(observed: Observed, pairs: Pairs, bad: Mask | None = None, could: Mask | None = None) -> tuple[str, ...]:
    """Sentences such as 'only build B', 'only origin JFK', 'since 2013-11-05T14:05Z' and 'until ...'.

    Each is said only where rows that were hit at random would hardly ever fall so. At most two conditions, of which
    the one comes first that spares most; `bad` are the rows that it is about, those behind the finding unless told.
    `could` are those in which the cause would have shown: a null that is filled says nothing about the other rows.
    """
    bad = observed.rows if bad is None else bad
    if not bad.any():
        return ()
    times = pairs.served.spine.as_of
    could = _alike(observed, bad) & (True if could is None else could) | bad
    meanwhile = (times >= times[bad].min()) & (times <= times[bad].max()) & could
    columns = _columns(observed.finding.feature, pairs)
    units = _units(columns, observed.finding.feature, pairs)
    inside, deployed = np.ones(len(bad), dtype=bool), np.ones(len(bad), dtype=bool)
    found: list[tuple[int, str]] = []
    for _ in range(_MOST):
        tried = [
            one for place, column in enumerate(columns) for one in _only(place, column, bad, inside & meanwhile, units)
        ]
        best = min(tried, key=lambda one: one[0], default=None)
        if best is None or best[0] >= _CHANCE:
            break
        _, place, sentence, where = best
        found.append((place, sentence))
        inside &= where
        if not columns[place].key:
            deployed &= where
    sentences = [sentence for _, sentence in sorted(found)]
    return (*sentences, *_window(times, bad & inside, inside & could, deployed))


def _alike(observed: Observed, bad: Mask) -> Mask:
    """Rows whose truth is there, or absent, other than zero, and as great and as small, as in the rows that differ."""
    truth = observed.truth
    if truth is None:
        return np.ones(len(bad), dtype=bool)
    alike = np.isin(truth.status, np.unique(truth.status[bad]))
    there = truth.present & alike
    if truth.dtype.is_numeric and (bad & there).any():
        low, high = (edge(truth.values[bad & there]) for edge in (np.min, np.max))
        zero = there & (truth.values == 0) & ~(bad & there & (truth.values == 0)).any()
        alike &= ~(there & ((truth.values < low) | (truth.values > high)) | zero)
    return np.asarray(alike)


def _columns(feature: str, pairs: Pairs) -> list[_Axis]:
    """What the traffic may be sliced by: the log's labels, the keys that the feature hangs on, what else was asked."""
    n, spine = len(pairs), pairs.served.spine
    found = [
        _Axis(name, Column(Dtype.STRING, pairs.labels[name], np.zeros(n, dtype=np.uint8)), False)
        for name in LABELS
        if name in pairs.labels
    ]
    own = {key.ask for view in _views(feature, pairs.bundle) for key in view.keys}
    found += [_Axis(name, column, True) for name, column in spine.keys.items() if name in own]
    others = {name: column for name, column in spine.keys.items() if name not in own}
    others |= {name: column for name, column in spine.request.items() if column.dtype in (Dtype.STRING, Dtype.BOOL)}
    return found + [_Axis(name, column, True, _SEARCHED) for name, column in others.items() if name != feature]


def _units(axes: list[_Axis], feature: str, pairs: Pairs) -> Ints:
    """Which source row of the feature's own keys each row is about; each row its own where there is none."""
    keys = [encode(axis.column) for axis in axes if axis.key and not axis.doubt]
    if not keys:
        return np.arange(len(pairs))
    events = [pairs.truth.views[view.name].event for view in _views(feature, pairs.bundle)]
    keys += [np.unique(event, return_inverse=True)[1].reshape(-1) for event in events]
    return np.unique(np.stack(keys), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Axis:
    """What the traffic may be sliced by. `key`: whether rows of one value share their fate. `doubt`: log of a chance,
    of which there is more where the feature does not hang on it."""

    name: str
    column: Column
    key: bool
    doubt: float = 0.0


def _views(feature: str, bundle: Bundle) -> list[View]:
    """The view that a finding is about or that holds the feature, or those that a derived feature reads."""
    spec = next((derived for derived in bundle.derived if derived.full_name == feature), None)
    names = [bundle.view_of.get(name, name) for name in (spec.inputs if spec else (feature,))]
    return [view for view in bundle.views if view.name in names]


def _only(place: int, axis: _Axis, bad: Mask, among: Mask, units: Ints) -> Iterator[tuple[float, int, str, Mask]]:
    """(log of the chance, place, sentence, rows) of values, prefixes and ranges that hold nearly all bad rows.

    Chance is what would spare the rows of other values `among` those asked meanwhile: a build that was not there yet
    shows nothing.
    """
    name, column = axis.name, axis.column
    codes = encode(column)
    if axis.doubt:  # what is wrong of one key is wrong once
        both = np.unique(np.stack([units, codes]), axis=1, return_inverse=True)[1].reshape(-1)
        bad, among = _once(both, bad & among), _once(both, among, bad & among)
    mine = bad & among
    if not mine.any():
        return
    values, counts = np.unique(codes[mine], return_counts=True)
    different = len(np.unique(codes[among]))
    if different == 1:
        return
    order = np.argsort(-counts, kind="stable")
    needed = int(np.searchsorted(np.cumsum(counts[order]), (1 - _STRAY) * counts.sum())) + 1
    if needed == 1 or (needed <= _FEW and different > 2 * needed):
        some = values[order[:needed]]
        where = np.isin(codes, some)
        shown = sorted(str(column.values[np.flatnonzero(codes == one)[0]]) for one in some)
        yield (
            _chance(where, bad, among) - (_SEARCHED if needed > 1 else 0.0) - axis.doubt,
            place,
            f"only {name} {', '.join(shown)}",
            where,
        )
    if different >= _MANY and len(values) > _FEW and column.present[mine].any():
        for chance, _, sentence, where in _searched(place, axis, codes, mine, among):
            yield chance - axis.doubt, place, sentence, where


def _searched(place: int, axis: _Axis, codes: Ints, bad: Mask, among: Mask) -> Iterator[tuple[float, int, str, Mask]]:
    """What the keys of all bad rows begin with, or between which numbers they lie. Each key counts once."""
    name, column = axis.name, axis.column
    there = column.present
    if axis.key:
        bad, among = _once(codes, bad), _once(codes, among, bad)
    if column.dtype is Dtype.STRING:
        texts = column.values.astype(str)
        distinct = sorted(set(texts[bad & there].tolist()))
        prefix = _common(distinct[0], distinct[-1])
        if prefix:
            where = np.strings.startswith(texts, prefix) & there
            yield _chance(where, bad, among) - _SEARCHED, place, f"only {name} beginning with {prefix}", where
    elif column.dtype.is_numeric:
        low, high = column.values[bad & there].min(), column.values[bad & there].max()
        where = there & (column.values >= low) & (column.values <= high)
        yield _chance(where, bad, among) - _SEARCHED, place, f"only {name} from {low} to {high}", where


def _once(codes: Ints, rows: Mask, first: Mask | None = None) -> Mask:
    """One row of each key, of those in `first` where there are any."""
    at = np.flatnonzero(rows)
    if first is not None:
        at = np.concatenate([np.flatnonzero(rows & first), at])
    _, place = np.unique(codes[at], return_index=True)
    once = np.zeros(len(rows), dtype=bool)
    once[at[place]] = True
    return once


def _common(one: str, other: str) -> str:
    """What both begin with."""
    alike = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:alike]


def _chance(where: Mask, bad: Mask, among: Mask) -> float:
    """Log of the chance that bad rows, drawn at random, all lie inside; 0 where not nearly all do, or inside is all."""
    inside, outside = where & among, ~where & among
    stray = int((bad & outside).sum())
    hit = int((bad & inside).sum())
    if not hit or stray > _STRAY * (hit + stray):
        return 0.0
    if stray and stray / max(int(outside.sum()), 1) * 10 > hit / int(inside.sum()):
        return 0.0
    return _spared(int(outside.sum()) - stray, int(among.sum()), hit)


def _window(as_of: Array, bad: Mask, inside: Mask, deployed: Mask) -> list[str]:
    """Since and until when: where the right rows of the slice before or after are too many to be chance.

    A build that was `deployed` late dates it as well.
    """
    times, wrong = as_of[inside], bad[inside]
    if not wrong.any():
        return []
    first, last = _stretch(times, wrong)
    before, after = int((times < first).sum()), int((times > last).sum())
    earlier = int((as_of < as_of[deployed].min()).sum())
    size, hit = len(times), int((wrong & (times >= first) & (times <= last)).sum())
    found = []
    if min(_spared(before, size, hit), _spared(earlier, len(as_of), int(deployed.sum()))) < _CHANCE:
        found.append(f"since {_minute(first)}")
    if _spared(after, size, hit) < _CHANCE:
        found.append(f"until {_minute(last)}")
    return found


def _stretch(times: Array, wrong: Mask) -> tuple[int, int]:
    """The first and last wrong row, but for a few strays far from the others (the stretch of greatest likelihood)."""
    order = np.argsort(times, kind="stable")
    times, wrong = times[order], wrong[order]
    at = np.flatnonzero(wrong)
    whole = int(times[at[0]]), int(times[at[-1]])
    rate = min(max(len(at) / (at[-1] - at[0] + 1), 1e-4), 0.999)
    stray = rate / 20
    score = np.where(wrong, log(rate / stray), log((1 - rate) / (1 - stray)))
    total = np.cumsum(np.r_[0.0, score])
    lowest = np.minimum.accumulate(total)
    end = int((total - lowest).argmax())
    if not end:
        return whole
    begin = int(total[: end + 1].argmin())
    if total[begin] - total[at[0]] > _CHANCE:  # a gap that chance may well have left
        begin = int(at[0])
    if total[at[-1] + 1] - total[end] > _CHANCE:
        end = int(at[-1]) + 1
    if wrong[begin:end].sum() < (1 - _STRAY) * len(at):
        return whole
    kept = np.flatnonzero(wrong[begin:end]) + begin
    return int(times[kept[0]]), int(times[kept[-1]])


def _spared(spared: int, rows: int, hit: int) -> float:
    """Log of how likely `hit` of `rows`, drawn at random, are to leave out `spared` given ones."""
    if not spared or not hit:
        return 0.0
    if spared > rows - hit:
        return -np.inf
    left = rows - spared
    return lgamma(left + 1) - lgamma(left - hit + 1) - lgamma(rows + 1) + lgamma(rows - hit + 1)


def _minute(us: int) -> str:
    return instant(int(us) // _MINUTE * _MINUTE).replace(":00Z", "Z")
