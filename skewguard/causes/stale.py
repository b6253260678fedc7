"""The writer of the online store stood still, ran behind or lost rows; or what stands before the store is old."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skewguard.causes.evidence import Evidence, Explanation
from skewguard.causes.timeline import NEVER, densest
from skewguard.replay import Age
from skewguard.values import NO_TIME, Mask, instant

Ints = npt.NDArray[np.int64]

MINUTE = 60_000_000
HOUR = 60 * MINUTE
_PERIODS = [m * MINUTE for m in (5, 10, 15, 20, 30, 60, 120, 180, 240, 360, 480, 720, 1440)]
_MOST = 0.9
_FEW = 20
_ONE_AGE = 0.6
_KEPT = 5
_GUESSES = 256
_MOST_ROWS = 1000
_ZONE_HOURS = 14


def explain(evidence: Evidence) -> Iterator[Explanation]:
    """Rows of a view older than `max_lag` allows.

    The logged watermarks tell a writer that stopped from a lost row; where they were passed, the rows themselves tell
    a constant lag, a halt, batches, a cache, a correction that was dropped and an old row that was written last.
    """
    pairs, view = evidence.pairs, evidence.view
    if evidence.served is not None or view is None or view not in pairs.age:
        return
    rows = evidence.rows
    stale = pairs.age[view][rows] == Age.STALE
    if not stale.any():
        return
    behind = _behind(evidence, view)
    max_lag = pairs.bundle.view(view).max_lag_us
    late_writer = stale & (behind > max_lag)
    if late_writer.sum() * 2 > stale.sum():
        yield _late(evidence, view, late_writer, behind)
        return
    old = OldRows.of(evidence, view, stale)
    yield from _corrections(old, view)
    if old.use.sum() * 2 > stale.sum():
        yield from _lags(evidence, old, view, max_lag)
    lag = int(pairs.lag_us[view][rows].max())
    if _varied(evidence, old, view):
        what = (
            f"old answers of {view}, up to {span(lag)} behind, were given now and then although newer rows were there"
        )
        yield Explanation("cache", what, stale, 28.0 + 2 * len(rows), lag)
    what = f"newer rows of {view} never reached the online store although its writer had passed them"
    if lag:  # none where no row of the key ever did
        what += f"; what was served is up to {span(lag)} older"
    yield Explanation("lost_write", what, stale, 30.0 + 2 * len(rows), lag)  # it would fit anything


@dataclass(frozen=True)
class OldRows:
    """Of m rows: when they were asked, when what was served became known, and the next row after it.

    `use`: rows of which this is known, and that are older than they should be; `truth` is when the right row became
    known.
    """

    as_of: Ints
    served: Ints
    after: Ints
    truth: Ints
    use: Mask
    same_event: Mask
    regressed: Mask

    @classmethod
    def of(cls, evidence: Evidence, view: str, stale: Mask) -> OldRows:
        """Of a view's rows, by the source rows that they name, or that have their values where they name none."""
        pairs, rows = evidence.pairs, evidence.rows
        got, true = pairs.served.views[view].take(rows), pairs.truth.views[view].take(rows)
        line = evidence.scene.timeline(view)
        key, as_of = line.asked[rows], pairs.served.spine.as_of[rows]
        served = np.maximum(got.event, got.created)
        unnamed = got.event == NO_TIME
        if unnamed.any() and len(line.known):
            place, _, _ = line.origin(key, as_of, got.features)
            found = unnamed & (place >= 0) & (got.status == 0)
            served = np.where(found, line.known[np.maximum(place, 0)], served)
        truth = np.maximum(true.event, true.created)
        after = np.minimum(line.following(key, served), np.where(truth > served, truth, NEVER))
        use = stale & (served != NO_TIME) & (served < truth)
        same_event = (got.event == true.event) & (got.event != NO_TIME) & (got.created < true.created)
        return cls(as_of, served, after, truth, use, same_event, _regressed(evidence, view, key, served))


def _behind(evidence: Evidence, view: str) -> Ints:
    rows = evidence.rows
    watermark = evidence.pairs.served.views[view].watermark[rows]
    return np.where(watermark == NO_TIME, 0, evidence.pairs.served.spine.as_of[rows] - watermark)


def _late(evidence: Evidence, view: str, late: Mask, behind: Ints) -> Explanation:
    stops = np.unique(evidence.pairs.served.views[view].watermark[evidence.rows][late])
    worst = span(int(behind[late].max()))
    if len(stops) == 1:
        what = f"the writer of {view} stood still at {instant(int(stops[0]))}, up to {worst} behind"
        return Explanation("stale", what, late, 20.0, int(behind[late].max()))
    max_lag = evidence.pairs.bundle.view(view).max_lag_us
    what = f"the writer of {view} ran up to {worst} behind (max_lag {span(max_lag)})"
    return Explanation("stale", what, late, 20.0, int(np.median(behind[late])))


def _corrections(old: OldRows, view: str) -> Iterator[Explanation]:
    """What was served is an earlier version of the right event, or a row older than what had been served before."""
    if old.same_event.any():
        what = f"corrections of {view} that carry the event time of the row they correct never reached the online store"
        yield Explanation("dropped_correction", what, old.same_event & old.use, 12.0)
    if old.regressed.sum() >= 3:
        what = f"an older row of {view} was written over a newer one that had been served before"
        yield Explanation("overwritten", what, old.regressed & old.use, 26.0)


def _regressed(evidence: Evidence, view: str, key: Ints, served: Ints) -> Mask:
    """Rows whose key had been answered from a newer row before, and was not again until a still newer one came."""
    pairs, line = evidence.pairs, evidence.scene.timeline(view)
    got = pairs.served.views[view]
    every, as_of = np.maximum(got.event, got.created), pairs.served.spine.as_of
    order = np.lexsort((as_of, line.asked))
    keys, known = line.asked[order], every[order]
    _, moment = np.unique(known, return_inverse=True)
    place = keys * (len(moment) + 1) + moment
    newest = np.maximum.accumulate(place)  # keys ascend, so that each begins anew
    down = place < newest
    regressed, back = np.zeros(len(order), dtype=bool), np.zeros(len(order), dtype=bool)
    regressed[order] = down
    back[order[1:]] = down[:-1] & ~down[1:] & (newest[1:] == newest[:-1])
    if back.sum() * 5 > regressed.sum():  # both rows by turns: two stores, or a cache
        return np.zeros(len(key), dtype=bool)
    mine: Mask = regressed[evidence.rows] & (served != NO_TIME)
    return mine


def _lags(evidence: Evidence, old: OldRows, view: str, max_lag: int) -> Iterator[Explanation]:
    """A halt, a constant lag, batches: whichever instant most rows agree on."""
    if _single_losses(evidence, old, view):
        return
    use, as_of, served, after = old.use, old.as_of, old.served, old.after
    halt = densest(served[use], after[use] - 1)
    lag = densest((as_of - after)[use] + 1, (as_of - served)[use])
    batch = _batches(old)
    count = int(use.sum())
    if lag[2] >= _MOST * count and lag[2] >= halt[2] and lag[1] > max_lag:
        yield from _lagging(evidence, view, old, lag)
    if halt[2] >= _MOST * count and (halt[2] > lag[2] or lag[1] <= max_lag):
        hits = use & (served <= halt[0]) & (after > halt[0])
        what = f"nothing of {view} that became known after {instant(halt[0])} was served"
        yield Explanation("stale", what, hits, 24.0, int((as_of - halt[0])[use].max()))
    if batch[2] >= _MOST * count and batch[2] > lag[2]:
        period, phase, _ = batch
        cut = (as_of - phase) // period * period + phase
        what = f"{view} reaches the online store only every {span(period)}"
        yield Explanation("stale", what, use & (served <= cut) & (after > cut), 28.0, period)
    if max(lag[2], halt[2], batch[2]) < _MOST * count and _recovers(evidence, view):
        kept = int((as_of - after)[use].max())
        what = f"answers of {view} were kept for up to {span(kept)} and given again although newer rows were there"
        yield Explanation("cache", what, use, 26.0, kept)


def _lagging(evidence: Evidence, view: str, old: OldRows, lag: tuple[int, int, int]) -> Iterator[Explanation]:
    low, high, _ = lag
    behind, told = between(lag, evidence, view)
    hours = round(behind / HOUR)
    fresh = (evidence.pairs.served.views[view].watermark[evidence.rows] != NO_TIME).any()
    late = evidence.pairs.bundle.view(view).max_lag_us
    zone = 1 <= hours <= _ZONE_HOURS and low - late <= hours * HOUR <= high
    hits = _within(old, lag)
    if hours == 1 and (np.abs((old.truth - old.served)[hits] - HOUR) < MINUTE).mean() >= _MOST:
        zone = False  # a source by the hour, and each time its row before
    if zone and high - low < 10 * MINUTE:  # the writer had passed, so that the question was another
        what = f"{view} was asked as of {hours} h earlier, by a clock of another time zone"
        yield Explanation("timezone", what, hits, 19.0 if fresh else 22.0, hours * HOUR)
    what = f"what was served of {view} is {told} behind: as it was known that long before each request"
    yield Explanation("stale", what, hits, 20.0, behind)


def between(lag: tuple[int, int, int], evidence: Evidence, view: str) -> tuple[int, str]:
    """The lag that is likeliest of all that agree with the rows, and how people say it.

    The longer it was, the more of the traffic could have shown it; that the rows which did show one as short as this
    speaks for a short one.
    """
    low, high, count = lag
    if high - low < max(2 * MINUTE, low // 20):
        return (low + high) // 2, span((low + high) // 2)
    true, as_of = evidence.pairs.truth.views[view], evidence.pairs.served.spine.as_of
    ages = np.sort((as_of - np.maximum(true.event, true.created))[evidence.peers & (true.event != NO_TIME)])
    lags = np.geomspace(max(low, 1), high, _GUESSES)
    could = np.maximum(np.searchsorted(ages, lags), 1)
    weight = np.cumsum((could[0] / could) ** min(count, _MOST_ROWS))
    guess = int(lags[np.searchsorted(weight, weight[-1] / 2)])
    return guess, f"about {span(guess)} ({span(low)} to {span(high)})"


def _varied(evidence: Evidence, old: OldRows, view: str) -> bool:
    """Whether what was served is one row old, or two, or many, and never longer than it may have been kept.

    A row that was lost leaves the one before it, for as long as no newer one comes.
    """
    line, use = evidence.scene.timeline(view), old.use
    if use.sum() < _FEW:
        return False
    kept = (old.as_of - old.after)[use]
    if kept.max() > _KEPT * max(int(np.median(kept)), 1):
        return False
    key = line.asked[evidence.rows][use]
    back = line.place(key, old.truth[use]) - line.place(key, old.served[use])
    return bool(np.bincount(np.maximum(back, 0)).max() < _ONE_AGE * use.sum())


def _within(old: OldRows, lag: tuple[int, int, int]) -> Mask:
    middle = (lag[0] + lag[1]) // 2
    return np.asarray(old.use & (old.as_of - old.after < middle) & (old.as_of - old.served >= middle))


def _single_losses(evidence: Evidence, old: OldRows, view: str) -> bool:
    """Whether the rows were lost one by one: where one was, every ask got the one before, and most were not."""
    pairs, line = evidence.pairs, evidence.scene.timeline(view)
    every, group = _groups(evidence, view)
    asks = np.bincount(group)
    wrong = np.bincount(group, weights=pairs.age[view][every] == Age.STALE)
    share = wrong / asks
    hit, telling = share > 0, asks >= 3
    if not (hit & telling).any() or _one_halt(old) or _recovers(evidence, view):
        return False
    pure = wrong[telling & (share > 0.9)].sum() >= 0.9 * wrong[telling].sum()
    alone = hit.sum() <= 2 * len(np.unique(line.asked[evidence.rows])) and len(share) <= 3
    return bool(pure and (hit.sum() <= 0.6 * len(share) or alone))


def _one_halt(old: OldRows) -> bool:
    """Whether one instant splits what was served from what was not, over more than a row or two."""
    use = old.use
    halt = densest(old.served[use], old.after[use] - 1)
    return bool(halt[2] >= _MOST * use.sum() and len(np.unique(old.truth[use])) >= 3)


def _recovers(evidence: Evidence, view: str) -> bool:
    """Whether old answers give way to the right ones without a newer row: a lost one would be missing until then."""
    pairs = evidence.pairs
    every, group = _groups(evidence, view)
    stale = (pairs.age[view] == Age.STALE)[every]
    at = (pairs.served.spine.as_of[every] - pairs.served.spine.as_of.min()).astype(np.float64)
    old, new = (np.bincount(group, weights=side) for side in (stale, ~stale))
    mixed = (old > 0) & (new > 0)
    if mixed.sum() < 5:
        return False
    mean = [np.bincount(group, weights=at * side)[mixed] for side in (stale, ~stale)]
    before = float((mean[0] / old[mixed] < mean[1] / new[mixed]).mean())
    return bool(before > 0.55 and (before - 0.5) * 2 * np.sqrt(mixed.sum()) > 3)  # by turns it is half


def _groups(evidence: Evidence, view: str) -> tuple[Ints, Ints]:
    """(rows about the keys that are concerned, which key and true row each is about)."""
    pairs, line = evidence.pairs, evidence.scene.timeline(view)
    every = np.flatnonzero(evidence.peers & np.isin(line.asked, line.asked[evidence.rows]))
    true = pairs.truth.views[view]
    _, known = np.unique(np.maximum(true.event, true.created)[every], return_inverse=True)
    _, group = np.unique((line.asked[every] << 32) | known, return_inverse=True)
    return every, group.astype(np.int64)


def _batches(old: OldRows) -> tuple[int, int, int]:
    """(period, phase, count): at which the store must have been written so that most rows come out as served."""
    use = old.use
    as_of, served, after = old.as_of[use], old.served[use], old.after[use]
    best = (0, 0, 0)
    for period in _PERIODS:
        # how long before the ask the last batch ran lies in (as_of - after, as_of - served]
        first, last = np.maximum(as_of - after + 1, 0), np.minimum(as_of - served, period - 1)
        possible = first <= last
        start, stop = (as_of - last) % period, (as_of - last) % period + (last - first)
        both = [np.concatenate([one[possible], one[possible] - period]) for one in (start, stop)]
        begin, end, count = densest(*both)
        if count > best[2]:
            best = (period, ((begin + end) // 2) % period, count)
    return best


def span(us: int) -> str:
    """A duration as people say it."""
    minutes, seconds = divmod(round(us / 1_000_000), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
