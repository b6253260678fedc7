"""Where in the traffic the differing rows lie, and since when."""

from __future__ import annotations

from collections.abc import Iterator
from math import lgamma, log

import numpy as np

from skewguard.causes.timeline import encode
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


def slices(observed: Observed, pairs: Pairs, bad: Mask | None = None) -> tuple[str, ...]:
    """Sentences such as 'only build B', 'only origin JFK', 'since 2013-11-05T14:05Z' and 'until ...'.

    Each is said only where rows that were hit at random would hardly ever fall so. At most two conditions, of which
    the one comes first that spares most; `bad` are the rows that it is about, those behind the finding unless told.
    """
    bad = observed.rows if bad is None else bad
    if not bad.any():
        return ()
    times = pairs.served.spine.as_of
    meanwhile = (times >= times[bad].min()) & (times <= times[bad].max())
    columns = _columns(observed.finding.feature, pairs)
    inside = np.ones(len(bad), dtype=bool)
    found: list[tuple[int, str]] = []
    for _ in range(_MOST):
        tried = [
            one for place, column in enumerate(columns.items()) for one in _only(place, column, bad, inside & meanwhile)
        ]
        best = min(tried, key=lambda one: one[0], default=None)
        if best is None or best[0] >= _CHANCE:
            break
        _, place, sentence, where = best
        found.append((place, sentence))
        inside &= where
    sentences = [sentence for _, sentence in sorted(found)]
    return (*sentences, *_window(times, bad & inside, inside))


def _columns(feature: str, pairs: Pairs) -> dict[str, Column]:
    """What the traffic may be sliced by: the log's labels, the keys that the feature hangs on."""
    n = len(pairs)
    columns = {
        name: Column(Dtype.STRING, pairs.labels[name], np.zeros(n, dtype=np.uint8))
        for name in LABELS
        if name in pairs.labels
    }
    for view in _views(feature, pairs.bundle):
        columns |= {key.ask: pairs.served.spine.keys[key.ask] for key in view.keys}
    return columns


def _views(feature: str, bundle: Bundle) -> list[View]:
    """The view that a finding is about or that holds the feature, or those that a derived feature reads."""
    spec = next((derived for derived in bundle.derived if derived.full_name == feature), None)
    names = [bundle.view_of.get(name, name) for name in (spec.inputs if spec else (feature,))]
    return [view for view in bundle.views if view.name in names]


def _only(place: int, named: tuple[str, Column], bad: Mask, among: Mask) -> Iterator[tuple[float, int, str, Mask]]:
    """(log of the chance, place, sentence, rows) of values, prefixes and ranges that hold nearly all bad rows.

    Chance is what would spare the rows of other values `among` those asked meanwhile: a build that was not there yet
    shows nothing.
    """
    name, column = named
    codes = encode(column)
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
            _chance(where, bad, among) - (_SEARCHED if needed > 1 else 0.0),
            place,
            f"only {name} {', '.join(shown)}",
            where,
        )
    if different >= _MANY and len(values) > _FEW and column.present[mine].any():
        yield from _searched(place, name, column, mine, among)


def _searched(place: int, name: str, column: Column, bad: Mask, among: Mask) -> Iterator[tuple[float, int, str, Mask]]:
    """What the keys of all bad rows begin with, or between which numbers they lie."""
    there = column.present
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


def _window(as_of: Array, bad: Mask, inside: Mask) -> list[str]:
    """Since and until when: where the right rows of the slice before or after are too many to be chance.

    A slice that itself begins late (a build that was deployed) dates it as well.
    """
    times, wrong = as_of[inside], bad[inside]
    if not wrong.any():
        return []
    first, last = _stretch(times, wrong)
    before, after = int((times < first).sum()), int((times > last).sum())
    earlier = int((as_of < times.min()).sum())
    size, hit = len(times), int((wrong & (times >= first) & (times <= last)).sum())
    found = []
    if min(_spared(before, size, hit), _spared(earlier, len(as_of), size)) < _CHANCE:
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
