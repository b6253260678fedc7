"""The model card: what a registered version was made of, how it does, what the guard found, and how to check that.

`Card` holds the facts, `parts` puts them in order, `html` and `markdown` write the same parts.
"""

from skewguard.report.card.facts import Card, Signed
from skewguard.report.card.html import to_html
from skewguard.report.card.markdown import to_markdown

__all__ = ["Card", "Signed", "to_html", "to_markdown"]
