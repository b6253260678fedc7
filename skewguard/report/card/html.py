"""A card as one HTML file: nothing in it loads anything, and every value in it is escaped."""

from __future__ import annotations

from skewguard.report import page
from skewguard.report.card.facts import Card
from skewguard.report.card.parts import SKEW, Part, Table, parts, title, told, top
from skewguard.report.picture import coverage_bar
from skewguard.verdict import Ruling


def to_html(card: Card) -> str:
    """The card as a page that MLflow shows, and that can be mailed and printed."""
    revoked = card.signed is not None and bool(card.signed.revoked)
    ruling = card.verdict.ruling if card.verdict and not revoked else Ruling.UNKNOWN
    body = "\n".join([_top(card, ruling), "<main>", *(_part(card, part) for part in parts(card)), "</main>"])
    return page.document(f"Model card: {title(card)}", ruling.lower(), body)


def _top(card: Card, ruling: Ruling) -> str:
    return f"""<header class="top">
<p class="eyebrow">skewguard <span>model card</span></p>
{page.badge(ruling)}
<h1>{page.safe(title(card))}</h1>
<p class="told">{page.prose(told(card))}</p>
<dl class="facts">{page.facts((page.safe(name), _text(value)) for name, value in top(card))}</dl>
</header>"""


def _part(card: Card, part: Part) -> str:
    anchor = "".join(letter if letter.isalnum() else "-" for letter in part.title.lower())
    seen = card.verdict.coverage if card.verdict and part.title == SKEW else None
    bar = ""
    if seen:
        names = ("equal", "lagged", "mismatched", "unverifiable")
        bar = coverage_bar([(name, getattr(seen, name)) for name in names], seen.rows)
    notes = "".join(f'<p class="note">{page.prose(note)}</p>' for note in part.notes)
    facts = page.facts((page.safe(name), _text(value)) for name, value in part.facts)
    commands = "".join(f'<p class="command">{page.code(command)}</p>' for command in part.commands)
    return f"""<section class="part" aria-labelledby="{anchor}">
<h2 id="{anchor}">{page.safe(part.title)}</h2>
{bar}
{notes}
{f'<dl class="facts">{facts}</dl>' if facts else ""}
{f'<ul class="blind">{page.items(map(page.prose, part.items))}</ul>' if part.items else ""}
{_table(part.title, part.table, part.bars) if part.table else ""}
{commands}
</section>"""


def _text(value: str) -> str:
    """A text between backticks is code."""
    if len(value) > 2 and value[0] == value[-1] == "`":
        return page.code(value[1:-1])
    return page.prose(value)


def _table(label: str, table: Table, bars: tuple[float, ...]) -> str:
    first, *others = table.head
    rows = []
    for place, (name, *cells) in enumerate(table.rows):
        shown = "".join(
            f'<td role="cell"{" class=number" if head.endswith("#") else ""}>{_text(cell)}</td>'
            for cell, head in zip(cells, others, strict=True)
        )
        bar = _bar(bars[place]) if bars else ""
        rows.append(f'<tr role="row"><th scope="row" role="rowheader">{page.safe(name)}</th>{bar}{shown}</tr>')
    heads = page.head(first, *(("",) if bars else ()), *others)
    return page.table(label, heads, "".join(rows), "plain pair" if len(table.head) == 2 else "plain")


def _bar(share: float) -> str:
    """A share of 0 to 1 as a cell."""
    picture = f'<rect class="equal" x="0" y="0" width="{100 * share:.1f}" height="10"/>'
    return (
        '<td role="cell" class="share"><svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f"{picture}</svg></td>"
    )
