"""What every page of ours is made of: one file, nothing in it loads anything, and every value in it is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from importlib.resources import files

from skewguard.report.wording import plain
from skewguard.verdict import Ruling

_SIGNS = {
    Ruling.PASS: '<path d="M3.5 8.5l3 3 6-7"/>',
    Ruling.FAIL: '<path d="M4 4l8 8M12 4l-8 8"/>',
    Ruling.UNKNOWN: '<path d="M4.8 5.6a3.2 3.2 0 1 1 4.6 2.9c-.9.5-1.4 1-1.4 1.9M8 13.4v.1"/>',
}
_WHOLE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ][\d:.]+(?:Z| UTC|[+-]\d\d:\d\d)?)?|\d[\d,]* of \d[\d,]*")
"""What reads badly when a line breaks inside it: an instant, `412 of 9,800`."""


def document(title: str, kind: str, body: str) -> str:
    """The page around `body`, an HTML text; `kind` is the class that colours it (pass, fail, unknown)."""
    style = files("skewguard.report").joinpath("style.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{safe(title)}</title>
<style>
{style}</style>
</head>
<body class="{kind}">
{body}
</body>
</html>
"""


def badge(ruling: Ruling) -> str:
    """The ruling as a sign and a word."""
    sign = f'<svg viewBox="0 0 16 16" aria-hidden="true">{_SIGNS[ruling]}</svg>'
    return f'<p class="badge">{sign}<strong>{ruling}</strong></p>'


def safe(text: str) -> str:
    """Text that is safe between tags and in attributes."""
    return escape(plain(text), quote=True)


def prose(text: str) -> str:
    """The same, with instants and counts kept on one line."""
    return _WHOLE.sub(lambda match: f"<span>{match[0]}</span>", safe(text))


def code(text: str) -> str:
    """Safe text as code."""
    return f"<code>{safe(text)}</code>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, both HTML; those without a value are left out."""
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs if value)


def items(lines: Iterable[str]) -> str:
    """The items of a list, each HTML."""
    return "".join(f"<li>{line}</li>" for line in lines)


def head(*names: str) -> str:
    """Column headers; a name that ends with # heads a column of numbers."""
    return "".join(
        f'<th scope="col" role="columnheader"{" class=number" if name.endswith("#") else ""}>{name.rstrip("#")}</th>'
        for name in names
    )


def table(label: str, heads: str, rows: str, kind: str) -> str:
    """A table that scrolls inside its own box, by keyboard too, where it is wider than the page.

    The roles say what the elements are already, because on a narrow screen the index is laid out as a list.
    """
    return (
        f'<div class="scroll {kind}" role="region" aria-label="{safe(label)}" tabindex="0"><table role="table">'
        f'<thead role="rowgroup"><tr role="row">{heads}</tr></thead><tbody role="rowgroup">{rows}</tbody></table></div>'
    )
