"""Report: a verdict as JSON, as text for a terminal, and as one self-contained HTML page. Renders, never computes.

`sentence` is how a finding reads everywhere: in the summary of a run, in the terminal and on the page.
"""

from skewguard.report.html import to_html
from skewguard.report.text import renderable, to_text
from skewguard.report.wording import headline, sentence, to_json

__all__ = ["headline", "renderable", "sentence", "to_html", "to_json", "to_text"]
