"""A card as Markdown, for a version's description, a wiki or a review; and its first lines alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from skewguard.report.card.facts import Card
from skewguard.report.card.parts import Part, Table, parts, title, told, top
from skewguard.report.wording import plain

_SIGNS = re.compile(r"([\\`*{}\[\]<>#|~]|(?<!\w)_|_(?!\w))")
_LONGEST = 1_500
"""Characters of the verdict's sentence; MLflow keeps 5,000 of a description."""


def to_markdown(card: Card) -> str:
    """The whole card, in GitHub's Markdown."""
    return "\n".join([*_lines(card), *(line for part in parts(card) for line in _part(part))])


def to_description(card: Card, where: str) -> str:
    """What it says first, and `where` the rest lies; short enough for a registered version's description."""
    return "\n".join([*_lines(card), f"The model card is the run's artifact {_text(f'`{where}`')}.", ""])


def _lines(card: Card) -> Iterator[str]:
    revoked = card.signed is not None and card.signed.revoked
    ruling = f"**{card.verdict.ruling}**: " if card.verdict and not revoked else ""
    yield f"# Model card: {_safe(title(card))}"
    yield ""
    yield ruling + _safe(told(card)[:_LONGEST])
    yield ""
    yield from _facts(top(card))


def _part(part: Part) -> Iterator[str]:
    yield f"## {_safe(part.title)}"
    yield ""
    for note in part.notes:
        yield from (_safe(note), "")
    if part.facts:
        yield from _facts(part.facts)
    if part.items:
        yield from (*(f"- {_safe(item)}" for item in part.items), "")
    if part.table:
        yield from _table(part.table)
    if part.commands:
        yield from ("```console", *(f"$ {plain(command)}" for command in part.commands), "```", "")


def _facts(facts: tuple[tuple[str, str], ...]) -> Iterator[str]:
    yield from (f"- {_safe(name)}: {_text(value)}" for name, value in facts if value)
    yield ""


def _table(table: Table) -> Iterator[str]:
    yield "| " + " | ".join(_safe(name.rstrip("#")) for name in table.head) + " |"
    yield "|" + "|".join("---:" if name.endswith("#") else "---" for name in table.head) + "|"
    for row in table.rows:
        yield "| " + " | ".join(_text(cell) for cell in row) + " |"
    yield ""


def _text(value: str) -> str:
    """A text between backticks is code; within it nothing is a sign but the bar of a table."""
    if len(value) > 2 and value[0] == value[-1] == "`" and "`" not in value[1:-1]:
        return plain(value).replace("|", "\\|")
    return _safe(value)


def _safe(text: str) -> str:
    """Text that is no Markdown and no HTML, on one line."""
    return _SIGNS.sub(r"\\\1", plain(text)).replace("&", "&amp;")
