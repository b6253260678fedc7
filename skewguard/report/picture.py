"""The pictures of a report, as SVG without text: words stand beside them and scale with the page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

from skewguard.report.wording import count, moment, share

Hour = tuple[str, int, int]
"""Hour as ISO text, rows compared, rows that differ."""

_SCALES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
_TITLED = 400
_HEIGHT = 100
_NARROWEST = 1.0
_GAP = 0.25


def coverage_bar(parts: Sequence[tuple[str, int]], rows: int) -> str:
    """How many of the `rows` each part is, as one bar; a part that is not empty is never invisible."""
    if not rows:
        return '<p class="bar none">No request was replayed.</p>'
    told = ", ".join(f"{number:,} {name}" for name, number in parts)
    widths = {name: max(100 * number / rows, _NARROWEST) for name, number in parts if number}
    scale = (100 - _GAP * (len(widths) - 1)) / sum(widths.values()) if widths else 0.0
    drawn, x = [], 0.0
    for name, width in widths.items():
        drawn.append(f'<rect class="{name}" x="{x:.3f}" y="0" width="{width * scale:.3f}" height="10"/>')
        x += width * scale + _GAP
    return (
        f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" '
        f'aria-label="Of {rows:,} requests: {told}.">{"".join(drawn)}</svg>'
    )


def hours(by_hour: Sequence[Hour], feature: str) -> str:
    """The share of rows that differ, hour by hour, on a true axis of time; an hour without rows stays empty."""
    slots = _slots([at for at, _, _ in by_hour])
    top = _top([some / of for _, of, some in by_hour if of])
    width = max(slots) + 1
    drawn = []
    for slot, (at, of, some) in zip(slots, by_hour, strict=True):
        if not of:
            continue
        height = _HEIGHT * some / of / top
        title = f"<title>{escape(moment(at))}: {count(some, of)} rows, {share(some, of)}</title>"
        bar = f'<rect class="differs" x="{slot}" y="{_HEIGHT - height:.2f}" width="1" height="{height:.2f}"/>'
        back = f'<rect class="compared" x="{slot}" y="0" width="1" height="{_HEIGHT}"/>'
        drawn.append(f"<g>{title if len(by_hour) <= _TITLED else ''}{back}{bar if some else ''}</g>")
    worst = max(by_hour, key=lambda hour: hour[2] / hour[1] if hour[1] else 0.0)
    first, last = (moment(at).removesuffix(" UTC") for at in (by_hour[0][0], by_hour[-1][0]))
    label = (
        f"{feature}: share of rows that differ by hour, {first} to {last}; "
        f"highest {share(worst[2], worst[1])} ({count(worst[2], worst[1])} rows) at {moment(worst[0])}."
    )
    picture = (
        f'<svg viewBox="0 0 {width} {_HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
    )
    return f"""<figcaption>Share of rows that differ, by hour (UTC)</figcaption>
<div class="chart"><span class="y top">{share(round(top * 1000), 1000)}</span><span class="y zero">0</span>
{picture}{"".join(drawn)}</svg>
<span class="x first">{escape(first)}</span><span class="x last">{escape(last)}</span></div>"""


def scatter(points: Sequence[tuple[float, float]], feature: str) -> str:
    """Served against truth, on axes of their own; the line on which both are the same is drawn where it shows."""
    low_x, high_x = _ends([x for x, _ in points])
    low_y, high_y = _ends([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        return 100 * (x - low_x) / (high_x - low_x), 100 - 100 * (y - low_y) / (high_y - low_y)

    dots = "".join('<circle class="dot" cx="{:.2f}" cy="{:.2f}" r="1.4"/>'.format(*place(x, y)) for x, y in points)
    start, end = max(low_x, low_y), min(high_x, high_y)
    same = ""
    if start < end:
        (x1, y1), (x2, y2) = place(start, start), place(end, end)
        same = f'<line class="same" x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}"/>'
    label = (
        f"{feature}: {len(points)} rows, served {low_y:.4g} to {high_y:.4g} against truth {low_x:.4g} to {high_x:.4g}"
    )
    return f"""<figcaption>Served against truth, {len(points)} rows; on the line both are the same</figcaption>
<div class="chart square"><span class="y top">{high_y:.4g}</span><span class="y zero">{low_y:.4g}</span>
<svg viewBox="0 0 100 100" role="img" aria-label="{escape(label)}">{same}{dots}</svg>
<span class="x first">{low_x:.4g}</span><span class="x last">{high_x:.4g}</span></div>"""


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """The axis: least to greatest with a little room, never of no length."""
    low, high = min(values), max(values)
    room = (high - low) * 0.05 or max(abs(low) * 0.05, 0.5)
    return low - room, high + room


def _slots(instants: Sequence[str]) -> list[int]:
    """Which hour of the axis each is; their order where they are no instants."""
    try:
        parsed = [datetime.fromisoformat(at) for at in instants]
        slots = [round((at - parsed[0]).total_seconds() / 3600) for at in parsed]
    except (TypeError, ValueError):
        return list(range(len(instants)))
    return slots if min(slots) >= 0 else list(range(len(instants)))


def _top(shares: Sequence[float]) -> float:
    """The end of the axis: the next round share above the greatest."""
    greatest = max(shares, default=0.0)
    return next((scale for scale in _SCALES if greatest <= scale), 1.0)
