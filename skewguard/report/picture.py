"""The two pictures of a report, as SVG without text: words stand beside them and scale with the page."""

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
